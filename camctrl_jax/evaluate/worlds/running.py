"""``evaluate worlds``: from settings to results, scene by scene, going on where an earlier run stopped."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

import camctrl_jax
from camctrl_jax.checkpoints.clip_features import (
    DEFAULT_SPEC,
    default_clip_features_folder,
    load_clip_features,
)
from camctrl_jax.checkpoints.pipelines import check_clip_size, load_autoencoder, load_pipeline, open_model
from camctrl_jax.checkpoints.weights import Weights, open_weights
from camctrl_jax.clip_shape import ClipShape
from camctrl_jax.errors import InvalidValue, file_failures
from camctrl_jax.evaluate.worlds.measuring import baseline_records, task_record
from camctrl_jax.evaluate.worlds.poses import PoseCheck
from camctrl_jax.evaluate.worlds.report import write_results
from camctrl_jax.evaluate.worlds.sampling import Samples, given_frames, reconstruct, samples_of, scored_frames
from camctrl_jax.evaluate.worlds.settings import Settings, row_name
from camctrl_jax.evaluate.worlds.store import Store, fingerprint_of
from camctrl_jax.evaluate.worlds.summary import LEAST_CLIPS, NEW_FRAMES, summarised
from camctrl_jax.evaluate.worlds.truth import Truth, cases_of, truths
from camctrl_jax.extras import require
from camctrl_jax.interop.described import SamplingDefaults
from camctrl_jax.metrics.worlds_scores import FIRST_SCORED_FRAME
from camctrl_jax.models.autoencoder import Autoencoder, compute_dtype
from camctrl_jax.models.fingerprint import fingerprint_of_weights
from camctrl_jax.sampling.pipeline import Pipeline
from camctrl_jax.video.encoding import write_mp4
from camctrl_jax.video.pictures import shown_frames, video_grid

Say = Callable[[str], None]
Features = Callable[[np.ndarray], np.ndarray]
"""Of clips u8 [N, T, H, W, 3], f [N, D]."""

Start = Callable[["Bench", Store, list[int], "Pools", "Clock"], list[Future]]
"""Makes the clips of some scenes, and starts to measure and to keep them."""

LEAST_FEATURE_FRAMES = 17
STRIP_COLUMNS = 5


@dataclass(frozen=True)
class Subject:
    """What is measured, configurations only.

    Attributes:
        model: the transformer, or None to measure an autoencoder alone.
        autoencoder: what encodes and decodes.
        shape: of the clips.
    """

    model: Weights | None
    autoencoder: Weights
    shape: ClipShape


@dataclass(frozen=True)
class Bench:
    """Everything loaded that scenes are measured with.

    Attributes:
        settings: resolved.
        shape: of the clips.
        vae: the autoencoder.
        pipeline: None to measure the autoencoder alone.
        features: for the Frechet distance, or None.
        poses: structure from motion, or None.
    """

    settings: Settings
    shape: ClipShape
    vae: Autoencoder
    pipeline: Pipeline | None
    features: Features | None
    poses: PoseCheck | None


def evaluate_worlds(settings: Settings, say: Say | None = None) -> dict[str, Any]:
    """Evaluate on the worlds benchmark and write the results; returns what ``results.json`` holds.

    Args:
        settings: what to measure.
        say: called with a line of progress; standard error by default.

    Raises:
        UserError: what cannot work, found before any expensive work.
    """
    say = say or (lambda line: print(line, file=sys.stderr, flush=True))
    require("matplotlib", extra="eval")
    if settings.videos:
        require("av", extra="eval")
    settings = settings.resolved(jax.default_backend() != "cpu")
    subject = open_subject(settings)
    poses = PoseCheck.default() if settings.poses else None
    features, features_name = load_features(settings.features, subject.shape, settings.count)
    with file_failures(settings.out):
        settings.out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    bench = load_bench(settings, subject, features, poses)
    described = describe(settings, subject, features_name)
    store = Store(settings.out, fingerprint_of(described["depends_on"], weights_prints(bench)))
    missing = [i for i in range(settings.count) if not _complete(store.read(i), bench, i)]
    done = settings.count - len(missing)
    say(f"{settings.count} scenes of {subject.shape.frames} frames, {subject.shape.height}x"
        f"{subject.shape.width}" + (f"; {done} are measured already" if done else ""))  # fmt: skip
    measure_scenes(bench, store, missing, say)
    records = [store.read(i) for i in range(settings.count)]
    arrays = [store.arrays(i) for i in range(settings.count)]
    seconds = round(time.monotonic() - started, 1)
    results = described | {"seconds": seconds, "measured_now": len(missing)}
    results |= summarised(records, arrays)
    return write_results(settings.out, results, arrays, settings.shown)


def load_features(spec: str, shape: ClipShape, count: int) -> tuple[Features | None, str]:
    """Clip features by their spec, and what identifies them; None where they are left out or do not apply."""
    if spec == "none":
        return None, "none"
    if spec == DEFAULT_SPEC and not default_clip_features_folder().exists():
        return None, "none: this package has no clip features"
    network = load_clip_features(spec)
    least, frames = network.config.height, max(LEAST_FEATURE_FRAMES, network.config.frames)
    if shape.frames < frames or min(shape.height, shape.width) < least:
        return None, f"none: these features need {frames} frames of {least} pixels or more"
    if count < LEAST_CLIPS:
        return None, f"none: a Frechet distance needs {LEAST_CLIPS} clips"
    return network.features, network.fingerprint()


def load_bench(
    settings: Settings, subject: Subject, features: Features | None, poses: PoseCheck | None
) -> Bench:
    """Load the networks."""
    if subject.model is None:
        vae = load_autoencoder(subject.autoencoder, compute_dtype(settings.float32))
        return Bench(settings, subject.shape, vae, None, features, poses)
    pipeline = load_pipeline(subject.model, subject.autoencoder, float32=settings.float32)
    return Bench(settings, subject.shape, pipeline.autoencoder, pipeline, features, poses)


def open_subject(settings: Settings) -> Subject:
    """Look up the weights and check that they can make and measure such clips."""
    opened = open_weights(settings.checkpoint)
    if opened.mmdit_config is None:
        if settings.vae is not None:
            raise InvalidValue(
                f"--checkpoint {settings.checkpoint} is an autoencoder itself, and so is "
                f"--vae {settings.vae}: leave --vae out, or name a transformer with --checkpoint."
            )
        if opened.vae_config is None:
            raise InvalidValue(
                f"--checkpoint {settings.checkpoint} holds neither a transformer nor an autoencoder: there "
                "is nothing to evaluate. Name a run of configs/stage1.py or configs/vae.py that has a "
                "checkpoint, or a folder of weights."
            )
        shape = settings.shape(SamplingDefaults(frames=49, height=96, width=160))
        shape = opened.vae_config.clip_shape(shape.frames, shape.height, shape.width).check((1, 1, 1))
        return Subject(None, opened, _long_enough(shape))
    model, autoencoder = open_model(settings.checkpoint, settings.vae)
    if model.mmdit_config.camera is None:
        raise InvalidValue(
            f"{settings.checkpoint} has no camera input: it is a base model, and there is nothing to compare."
            " Train one from it with configs/stage1.py."
        )
    return Subject(
        model, autoencoder, _long_enough(check_clip_size(model, autoencoder, settings.shape(model.sampling)))
    )


def _long_enough(shape: ClipShape) -> ClipShape:
    least = FIRST_SCORED_FRAME + 4
    if shape.frames < least:
        raise InvalidValue(
            f"frames={shape.frames}: PSNR is taken from frame {FIRST_SCORED_FRAME + 1} on; take {least} or "
            "more."
        )
    return shape


def describe(settings: Settings, subject: Subject, features: str) -> dict[str, Any]:
    """What is measured, JSON-able; ``depends_on`` is the part of the request that single scenes depend on."""
    request = {
        name: str(value) if isinstance(value, Path) else value for name, value in asdict(settings).items()
    }
    shape = subject.shape
    aside = ("out", "batch_size", "shown", "videos", "laptop", "poses", "checkpoint", "vae", "features")
    depends_on = {name: value for name, value in request.items() if name not in aside}
    if settings.paths == "benchmark":
        depends_on.pop("count")  # decoys of own paths wrap round; those of the benchmark do not
    return {
        "request": request,
        "depends_on": depends_on
        | {"frames": shape.frames, "height": shape.height, "width": shape.width, "features": features},
        "weights": {"checkpoint": str((subject.model or subject.autoencoder).path),
                    "autoencoder": str(subject.autoencoder.path)},
        "clip": {"frames": shape.frames, "height": shape.height, "width": shape.width},
        "versions": {"camctrl_jax": camctrl_jax.__version__, "jax": jax.__version__,
                     "device": jax.devices()[0].device_kind, "features": features},
    }  # fmt: skip


def weights_prints(bench: Bench) -> list[str]:
    prints = [bench.vae.fingerprint()]
    if bench.pipeline is not None:
        prints.append(fingerprint_of_weights(bench.pipeline.denoiser.config, bench.pipeline.params))
    return prints


def _complete(record: dict[str, Any] | None, bench: Bench, index: int) -> bool:
    return record is not None and (bench.poses is None or index >= bench.settings.poses or "poses" in record)


# -------------------------------------------------------------------------------------------- scene by scene


def measure_scenes(
    bench: Bench, store: Store, missing: Sequence[int], say: Say, start: Start | None = None
) -> None:
    """Measure scenes and keep each as soon as it is done.

    While scenes are measured on the cores, the device makes those that come next.

    Args:
        bench, store: what to measure with, and where to keep it.
        missing: indices of the scenes.
        say: called with a line after each batch.
        start: makes and measures a batch; None is the benchmark.
    """
    size, cores = bench.settings.batch_size, os.cpu_count() or 1
    clock = Clock()
    with ThreadPoolExecutor(cores) as measuring, ThreadPoolExecutor(cores) as helping:
        pending: list[Future] = []
        for first in range(0, len(missing), size):
            indices = list(missing[first : first + size])
            started = (start or _started)(bench, store, indices, Pools(measuring, helping), clock)
            _finish(pending, clock)
            pending = started
            done = first + len(indices)
            left = clock.total() / done * (len(missing) - done)
            say(f"{done} of {len(missing)} scenes; {_spoken(left)} left ({clock})")
        _finish(pending, clock)


def _finish(pending: Sequence[Future], clock: Clock) -> None:
    for future in pending:
        future.result()
    clock.lap("waiting for measures")


@dataclass(frozen=True)
class Pools:
    """Threads.

    Attributes:
        measuring: for the measures of scenes, a queue that may be long.
        helping: for what the device waits for.
    """

    measuring: ThreadPoolExecutor
    helping: ThreadPoolExecutor


class Clock:
    """Seconds by what they were spent on; every lap begins where the one before ended."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.spent[name] = self.spent.get(name, 0.0) + now - self._last
        self._last = now

    def total(self) -> float:
        return sum(self.spent.values())

    def __str__(self) -> str:
        return ", ".join(f"{name} {seconds:.0f} s" for name, seconds in self.spent.items())


def _spoken(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _started(bench: Bench, store: Store, indices: list[int], pools: Pools, clock: Clock) -> list[Future]:
    """Make the clips of some scenes, and start to measure them."""
    settings, shape, count = bench.settings, bench.shape, len(indices)
    # One size of batch, one compilation: the last batch is filled up.
    filled = indices + indices[-1:] * (min(settings.batch_size, settings.count) - count)
    here = truths(cases_of(settings, shape, filled), shape, settings.samples, pools.helping.map)
    clock.lap("rendering")
    video = np.stack([truth.video for truth in here])
    kept = reconstruct(bench.vae, video, len(video))
    clock.lap("reconstructing")
    made: list[Samples] = []
    if bench.pipeline is not None:
        made = list(samples_of(bench.pipeline, here, settings.samplings(), settings.tasks, settings.seeds))
    clock.lap("sampling")
    features = _features(bench.features, here, kept, made, shape)
    clock.lap("features")

    def work(place: int) -> None:
        index, truth = indices[place], here[place]
        record = _record(bench, truth, kept[place], made, place)
        if bench.poses is not None and index < settings.poses:
            record["poses"] = bench.poses.of_scene(truth, _i2v_samples(made, place))
        arrays = {name: values[place] for name, values in features.items()}
        arrays |= _strip(truth, kept[place], made, place, shape)
        if settings.videos:
            rows = [truth.video, *(one.videos[0, place] for one in made)]
            path = store.path(index).with_suffix(".mp4")
            write_mp4(path, video_grid(np.stack(rows), columns=len(rows)), truth.case.world.fps)
        store.write(index, record, arrays)

    return [pools.measuring.submit(work, place) for place in range(count)]


def _record(
    bench: Bench, truth: Truth, kept: np.ndarray, made: Sequence[Samples], place: int
) -> dict[str, Any]:
    case, shape = truth.case, bench.shape
    rows: dict[str, Any] = {}
    for one in made:
        rows.setdefault(row_name(one.sampling), {})[one.task] = task_record(
            one.videos[:, place],
            None if one.decoys is None else one.decoys[place],
            truth,
            kept,
            one.task,
            scored_frames(one.task, shape),
            given_frames(one.task, shape),
        )
    return {
        "index": case.index,
        "seed": case.world.seed,
        "path_class": case.path_class,
        "difficulty": case.difficulty,
        "fps": case.world.fps,
        "shares": {name: float(region.mean()) for name, region in truth.regions.items()},
        "baselines": baseline_records(truth, kept, scored_frames("i2v", shape)),
        "rows": rows,
    }


def _features(
    features: Features | None,
    here: Sequence[Truth],
    kept: np.ndarray,
    made: Sequence[Samples],
    shape: ClipShape,
) -> dict[str, np.ndarray]:
    """f32 [N, D] by what they are of: ``features/truth``, ``features/ROW/TASK/SAMPLE``, ..."""
    if features is None:
        return {}
    videos = {"truth": np.stack([truth.video for truth in here]), "reconstruction": kept}
    videos["first frame repeated"] = np.stack([truth.repeated for truth in here])
    videos["exact-geometry warp"] = np.stack([truth.warp for truth in here])
    if here[0].twin is not None:
        videos["another world"] = np.stack([truth.twin for truth in here])
    for one in made:
        new = slice(None)
        if one.task == "extension":  # what was given is true: only what comes after it is judged
            new = slice(given_frames(one.task, shape), None)
            if shape.frames - new.start < LEAST_FEATURE_FRAMES:
                continue
            videos |= {
                f"{NEW_FRAMES}/{name}": videos[name][:, new]
                for name in ("truth", "another world")
                if name in videos
            }
        for number, clips in enumerate(one.videos):
            videos[f"{row_name(one.sampling)}/{one.task}/{number}"] = clips[:, new]
        if one.decoys is not None:
            videos[f"{row_name(one.sampling)}/decoy/0"] = one.decoys
    return {f"features/{name}": features(video).astype(np.float32) for name, video in videos.items()}


def _i2v_samples(made: Sequence[Samples], place: int) -> dict[str, np.ndarray]:
    """The first sample of every row, by the row's name."""
    return {row_name(one.sampling): one.videos[0, place] for one in made if one.task == "i2v"}


def _strip(
    truth: Truth, kept: np.ndarray, made: Sequence[Samples], place: int, shape: ClipShape
) -> dict[str, np.ndarray]:
    """The frames that strips show, u8 [columns, H, W, 3], of truth and the last row of the tables."""
    columns = shown_frames(shape.frames, STRIP_COLUMNS)
    strips = {"strip/true render": truth.video[columns], "strip/reconstruction": kept[columns]}
    if made:
        last = row_name(made[-1].sampling)
        for one in made:
            if row_name(one.sampling) == last:
                strips[f"strip/{one.task}"] = one.videos[0, place][columns]
                if one.decoys is not None:
                    strips["strip/decoy path"] = one.decoys[place][columns]
    return strips
