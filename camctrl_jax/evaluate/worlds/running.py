"""``evaluate worlds``: from settings to results, scene by scene, going on where an earlier run stopped."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from camctrl_jax.clip_shape import ClipShape
from camctrl_jax.evaluate.device_memory import memory_failures
from camctrl_jax.evaluate.worlds.bench import LEAST_FEATURE_FRAMES, Bench, Features, Say, opened
from camctrl_jax.evaluate.worlds.looking import Clip
from camctrl_jax.evaluate.worlds.measuring import baseline_records, task_record
from camctrl_jax.evaluate.worlds.report import write_results
from camctrl_jax.evaluate.worlds.sampling import Samples, given_frames, reconstruct, samples_of, scored_frames
from camctrl_jax.evaluate.worlds.settings import Settings, row_name
from camctrl_jax.evaluate.worlds.store import Store
from camctrl_jax.evaluate.worlds.summary import EXACT_MASKS, NEW_FRAMES, summarised
from camctrl_jax.evaluate.worlds.truth import Truth, cases_of, truths
from camctrl_jax.extras import require
from camctrl_jax.metrics.motion import MotionStrength
from camctrl_jax.video.encoding import write_mp4
from camctrl_jax.video.pictures import shown_frames, video_grid
from camctrl_jax.worlds.geometry import true_motion

Start = Callable[["Bench", Store, list[int], "Pools", "Clock"], list[Future]]
"""Makes the clips of some scenes, and starts to measure and to keep them."""

STRIP_COLUMNS = 5


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
    begun = opened(settings, say)
    measure_scenes(begun.bench, begun.store, begun.missing, say, _started)
    records, arrays = begun.stored()
    results = begun.described | {"seconds": begun.seconds, "measured_now": len(begun.missing)}
    results |= summarised(records, arrays)
    return write_results(settings.out, results, arrays, settings.shown)


# -------------------------------------------------------------------------------------------- scene by scene


def measure_scenes(bench: Bench, store: Store, missing: Sequence[int], say: Say, start: Start) -> None:
    """Measure scenes and keep each as soon as it is done.

    While scenes are measured on the cores, the device makes those that come next.

    Args:
        bench, store: what to measure with, and where to keep it.
        missing: indices of the scenes.
        say: called with a line after each batch.
        start: makes and measures a batch.
    """
    size, clock = bench.settings.batch_size, Clock()
    with _pools(os.cpu_count() or 1) as pools:
        pending: list[Future] = []
        for first in range(0, len(missing), size):
            indices = list(missing[first : first + size])
            with memory_failures(size):
                started = start(bench, store, indices, pools, clock)
            _finish(pending, clock)
            pending = started
            done = first + len(indices)
            left = clock.total() / done * (len(missing) - done)
            say(f"{done} of {len(missing)} scenes; {_spoken(left)} left ({clock})")
        _finish(pending, clock)


@contextlib.contextmanager
def _pools(threads: int) -> Iterator[Pools]:
    """Pools of so many threads each. What has begun is ended and kept, whatever goes wrong; control-C drops
    what waits, for nobody who stops a run wants to wait for a queue of estimators."""
    pools = Pools(*(ThreadPoolExecutor(threads) for _ in range(3)))
    each = (pools.estimating, pools.helping, pools.measuring)
    try:
        yield pools
    except KeyboardInterrupt:
        for pool in each:
            pool.shutdown(wait=False, cancel_futures=True)
        raise
    finally:
        for pool in each:
            pool.shutdown()


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
        estimating: for estimators, a clip a thread; what measures a scene waits for them.
    """

    measuring: ThreadPoolExecutor
    helping: ThreadPoolExecutor
    estimating: ThreadPoolExecutor


def estimated(
    bench: Bench, pools: Pools, index: int, truth: Truth, clips: Mapping[str, Clip]
) -> Callable[[], dict[str, Any]]:
    """Start to look at the clips of a scene, if that is asked for.

    Args:
        bench, pools: with what.
        index, truth: the scene.
        clips: by name; one that has several names is looked at once.

    Returns:
        A function that waits, and gives the parts ``motion`` and ``poses`` of the scene's record.
    """
    keys = bench.keys(index)
    if not keys:
        return dict
    looked = {
        clip: pools.estimating.submit(
            bench.looks.of_clip, clip, motion="motion" in keys, poses="poses" in keys
        )
        for clip in dict.fromkeys(clips.values())
    }
    exact = MotionStrength()
    if "motion" in keys:
        exact = MotionStrength.of(*true_motion(truth.case.world, *truth.video.shape[1:3]))

    def collected() -> dict[str, Any]:
        found = {name: looked[clip].result() for name, clip in clips.items()}
        parts = {
            record: {"key": keys[record], "clips": {n: r[part] for n, r in found.items() if part in r}}
            for record, part in (("motion", "motion"), ("poses", "pose"))
            if record in keys
        }
        if "motion" in parts:
            parts["motion"]["exact"] = {"motion_px": exact.px, "moving_share": exact.moving_share}
        return parts

    return collected


def clip_of(truth: Truth, video: np.ndarray, **options: Any) -> Clip:
    """A clip u8 [T, H, W, 3] of a scene, to be looked at."""
    world = truth.case.world
    return Clip(np.ascontiguousarray(video), world.cameras, world.fps, **options)


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
    kept = reconstruct(bench.vae, video)
    clock.lap("reconstructing")
    made: list[Samples] = []
    if bench.pipeline is not None:
        made = list(samples_of(bench.pipeline, here, settings.samplings(), settings.tasks, settings.seeds))
    clock.lap("sampling")
    features = _features(bench.features, here, kept, made, shape)
    clock.lap("features")
    # Only scenes of this batch that are its own: the last one may stand there several times.
    looked = [
        estimated(bench, pools, indices[i], here[i], _clips(here[i], kept[i], made, i)) for i in range(count)
    ]
    clock.lap("true motion")

    def work(place: int) -> None:
        index, truth = indices[place], here[place]
        record = _record(bench, truth, kept[place], made, place) | looked[place]()
        arrays = {name: values[place] for name, values in features.items()}
        arrays |= _strip(truth, kept[place], made, place, shape)
        if settings.videos:
            rows = [truth.video, *(one.videos[0, place] for one in made)]
            write_mp4(store.video(index), video_grid(np.stack(rows), columns=len(rows)), truth.case.world.fps)
        store.write(index, record | {"video": settings.videos}, arrays)

    return [pools.measuring.submit(work, place) for place in range(count)]


def _clips(truth: Truth, kept: np.ndarray | None, made: Sequence[Samples], place: int) -> dict[str, Clip]:
    """What is looked at, by name: what no model samples, and the first sample of each row and task."""
    clips = {
        "truth": clip_of(truth, truth.video, moving=truth.moving),
        EXACT_MASKS: clip_of(truth, truth.video, moving=truth.moving, exact_masks=True),
        "exact-geometry warp": clip_of(truth, truth.warp),
    }
    if kept is not None:
        clips["reconstruction"] = clip_of(truth, kept, moving=truth.moving)
    for one in made:
        if one.finite[0, place]:
            clips[f"{row_name(one.sampling)}/{one.task}"] = clip_of(truth, one.videos[0, place])
    return clips


def _record(
    bench: Bench, truth: Truth, kept: np.ndarray | None, made: Sequence[Samples], place: int
) -> dict[str, Any]:
    case, shape = truth.case, bench.shape
    rows: dict[str, Any] = {}
    for one in made:
        rows.setdefault(row_name(one.sampling), {})[one.task] = task_record(
            one.videos[:, place],
            one.finite[:, place],
            one.decoy_of(place),
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
    kept: Sequence[np.ndarray | None],
    made: Sequence[Samples],
    shape: ClipShape,
) -> dict[str, np.ndarray]:
    """f32 [N, D] by what they are of: ``features/truth``, ``features/ROW/TASK/SAMPLE``, ...; NaN of clips
    that are not finite."""
    if features is None:
        return {}
    whole = np.array([one is not None for one in kept])
    videos = {
        "truth": np.stack([truth.video for truth in here]),
        "reconstruction": np.stack([t.video if k is None else k for t, k in zip(here, kept, strict=True)]),
        "first frame repeated": np.stack([truth.repeated for truth in here]),
        "exact-geometry warp": np.stack([truth.warp for truth in here]),
    }
    finite = {"reconstruction": whole}
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
            name = f"{row_name(one.sampling)}/{one.task}/{number}"
            videos[name], finite[name] = clips[:, new], one.finite[number]
        if one.decoys is not None:
            name = f"{row_name(one.sampling)}/decoy/0"
            videos[name], finite[name] = one.decoys, one.decoys_finite
    found = {}
    for name, video in videos.items():
        values = np.array(features(video), np.float32)
        values[~finite.get(name, np.ones(len(values), bool))] = np.nan
        found[f"features/{name}"] = values
    return found


def _strip(
    truth: Truth, kept: np.ndarray | None, made: Sequence[Samples], place: int, shape: ClipShape
) -> dict[str, np.ndarray]:
    """The frames that strips show, u8 [columns, H, W, 3], of truth and the last row of the tables."""
    columns = shown_frames(shape.frames, STRIP_COLUMNS)
    shown = truth.repeated * 0 if kept is None else kept
    strips = {"strip/true render": truth.video[columns], "strip/reconstruction": shown[columns]}
    if made:
        last = row_name(made[-1].sampling)
        for one in made:
            if row_name(one.sampling) == last:
                strips[f"strip/{one.task}"] = one.videos[0, place][columns]
                if one.decoys is not None:
                    strips["strip/decoy path"] = one.decoys[place][columns]
    return strips
