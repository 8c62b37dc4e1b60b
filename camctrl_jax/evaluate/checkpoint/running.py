"""``evaluate checkpoint``: from settings to results, clip by clip, going on where an earlier run stopped."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

import camctrl_jax
from camctrl_jax.camera import Cameras, save_cameras
from camctrl_jax.checkpoints.pipelines import check_clip_size, load_pipeline, open_model
from camctrl_jax.checkpoints.runs import load_run_config
from camctrl_jax.checkpoints.weights import Weights
from camctrl_jax.clip_shape import ClipShape, frames_of, latents_of
from camctrl_jax.data.clip_sets import shared_folders
from camctrl_jax.data.text import TextEmbedder, embedder_from_settings
from camctrl_jax.diffusion.sampler import Sampling
from camctrl_jax.errors import ClipError, InvalidValue, file_failures
from camctrl_jax.evaluate.checkpoint.clips import TrueClip, TrueClips, prepare_clips
from camctrl_jax.evaluate.checkpoint.estimates import estimate
from camctrl_jax.evaluate.checkpoint.measuring import against_truth, task_record
from camctrl_jax.evaluate.checkpoint.report import write_results
from camctrl_jax.evaluate.checkpoint.sampling import Plan, decoy_paths, sample_batch
from camctrl_jax.evaluate.checkpoint.settings import CheckpointSettings, row_folder
from camctrl_jax.evaluate.device_memory import memory_failures
from camctrl_jax.evaluate.students import student_entry
from camctrl_jax.evaluate.videos import Estimators
from camctrl_jax.extras import require
from camctrl_jax.files.json_file import read_json, write_json
from camctrl_jax.models.fingerprint import fingerprint_of_weights
from camctrl_jax.sampling.pipeline import Pipeline
from camctrl_jax.video.encoding import write_mp4
from camctrl_jax.video.pictures import video_grid

Say = Callable[[str], None]
_FORMAT = 2  # of records; counts up where the same weights and settings give other clips or measures
SAMPLES, RECONSTRUCTION = "samples", "reconstruction"


@dataclass(frozen=True)
class Bench:
    """Everything that clips are made and measured with.

    Attributes:
        settings: resolved.
        plan: the shape of clips and explorations.
        pipeline: the model.
        prints: fingerprints of its networks.
        clips: the true ones.
        keys: by name of a clip, what all of its records depend on, JSON-able.
        decoys: for each clip another one's path; None without decoys.
    """

    settings: CheckpointSettings
    plan: Plan
    pipeline: Pipeline
    prints: tuple[str, str]
    clips: Sequence[TrueClip]
    keys: Mapping[str, Mapping[str, Any]]
    decoys: Sequence[Cameras] | None


@dataclass(frozen=True)
class Unit:
    """One row of the tables at one task: how and what is sampled."""

    sampling: Sampling
    task: str

    @property
    def folder(self) -> Path:
        """Below ``out``."""
        return Path(SAMPLES, row_folder(self.sampling), self.task)


def evaluate_checkpoint(
    settings: CheckpointSettings, estimators: Estimators | None, say: Say | None = None
) -> dict[str, Any]:
    """Sample from a checkpoint along the cameras of clips, measure, and write results.

    Args:
        settings: what to measure.
        estimators: what looks at the clips, as for ``evaluate videos``; None with ``estimates=False``.
        say: called with a line of progress; standard error by default.

    Returns:
        What ``results.json`` holds.

    Raises:
        UserError: what cannot work, found before anything is sampled.
    """
    say = say or (lambda line: print(line, file=sys.stderr, flush=True))
    require("av", extra="data")
    require("matplotlib", extra="eval")
    if settings.estimates == (estimators is None):
        raise InvalidValue("estimates are measured with estimators: give both, or estimates=False and None.")
    model, autoencoder, settings, plan = open_subject(settings)
    if estimators is not None:
        check_features(estimators, plan, settings.tasks)
    embedder = embedder_from_settings(model.text)
    with file_failures(settings.out):
        settings.out.mkdir(parents=True, exist_ok=True)
    clips = prepare_clips(settings, plan.whole, embedder, say)
    clips.remarks = list(dict.fromkeys([*trained_on(model, settings), *clips.remarks]))
    for remark in clips.remarks[:5]:
        say(f"note: {remark}")
    if len(clips.remarks) > 5:
        say(f"note: {len(clips.remarks) - 5} more, in results.md")
    decoys = decoys_of(clips.clips, settings.out) if settings.decoys else None
    say(
        f"{len(clips.clips)} clips of {plan.frames} frames, {plan.shape.height}x{plan.shape.width}, "
        f"{len(clips.failed)} failed"
    )
    pipeline = load_pipeline(model, autoencoder, float32=settings.float32)
    prints = (
        pipeline.autoencoder.fingerprint(),
        fingerprint_of_weights(pipeline.denoiser.config, pipeline.params),
    )
    depends = {
        "format": _FORMAT,
        "package": camctrl_jax.__version__,
        "weights": prints,
        "dtype": np.dtype(pipeline.denoiser.dtype).name,
        "plan": asdict(plan),
    }
    keys = {
        clip.name: depends | {"clip": clip.digest, "text": text_digest(embedder, clip.caption)}
        for clip in clips.clips
    }
    bench = Bench(settings, plan, pipeline, prints, clips.clips, keys, decoys)
    units = [Unit(sampling, task) for sampling in settings.samplings() for task in settings.tasks]
    reconstructed = reconstruct_all(bench, say)
    sampled = sample_all(bench, units, say)
    results = describe(bench, model, autoencoder, clips)
    results |= {"reconstruction": reconstructed, "samples": sampled}
    if estimators is not None:
        results["estimates"] = estimate(settings, plan, [unit.folder for unit in units], estimators, say)
    return write_results(settings.out, results)


def open_subject(settings: CheckpointSettings) -> tuple[Weights, Weights, CheckpointSettings, Plan]:
    """Look up the weights, fill in what the settings leave to them, and check that they make such clips."""
    model, autoencoder = open_model(settings.checkpoint, settings.vae)
    if model.mmdit_config.camera is None:
        raise InvalidValue(
            f"{settings.checkpoint} has no camera input: it is a base model, and follows no path. Train one "
            "from it with configs/stage1.py."
        )
    defaults = model.sampling
    settings = settings.resolved(defaults, jax.default_backend() != "cpu", model.distilled)
    frames, height, width = (
        getattr(defaults if getattr(settings, name) is None else settings, name)
        for name in ("frames", "height", "width")
    )
    shape = check_clip_size(model, autoencoder, ClipShape(frames, height, width))
    if settings.retrieved and not defaults.retrieved and settings.clips > 1:
        raise InvalidValue(
            f"--retrieved {settings.retrieved}: {settings.checkpoint} was trained without retrieved frames "
            "(SamplingDefaults.retrieved is 0); leave the option out."
        )
    plan = Plan(shape, settings.clips, settings.retrieved if settings.clips > 1 else 0)
    if "i2v" in settings.tasks and shape.frames <= (before := plan.scored("i2v").start):
        least = frames_of(latents_of(before, shape.temporal_stride) + 1, shape.temporal_stride)
        raise InvalidValue(
            f"--frames {shape.frames}: i2v is scored from frame {before + 1} on; {least} or more are needed."
        )
    if "extension" in settings.tasks and plan.context >= shape.frames:
        raise InvalidValue(f"--tasks extension: clips of {shape.frames} frames are too short to go on from.")
    return model, autoencoder, settings, plan


def check_features(estimators: Estimators, plan: Plan, tasks: Sequence[str]) -> None:
    """Refuse clips that are too short for the video features: found after sampling, it would be in vain."""
    frames = min(plan.frames - (plan.given(task) if task == "extension" else 0) for task in tasks)
    embedder = estimators.video_features
    if embedder is not None and frames < embedder.least_frames:
        raise InvalidValue(
            f"video features (--fvd) need {embedder.least_frames} frames or more, and the clips have {frames}"
            ": raise --frames, or leave the features out."
        )


def decoys_of(clips: Sequence[TrueClip], out: Path) -> list[Cameras]:
    """For each clip another one's path.

    Raises:
        InvalidValue: there is none, or it is the same.
    """
    if len(clips) < 2:
        raise InvalidValue("--decoys samples each clip along another one's path: 2 clips or more are needed.")
    decoys = decoy_paths([clip.cameras(out) for clip in clips])
    alone = [clip.name for clip, decoy in zip(clips, decoys, strict=True) if decoy is None]
    if alone:
        raise InvalidValue(
            f"--decoys samples each clip along another one's path, and all others are like that of {alone[0]}"
            ": leave --decoys out, or take clips of other paths."
        )
    return [decoy for decoy in decoys if decoy is not None]


def text_digest(embedder: TextEmbedder, caption: str) -> str:
    """Of what a model is told by a caption, and by none: precomputed embeddings may have been made anew."""
    vectors, mask = embedder.embed([caption, ""])
    return hashlib.sha256(vectors.tobytes() + mask.tobytes()).hexdigest()


def trained_on(model: Weights, settings: CheckpointSettings) -> list[str]:
    """A sentence where a run was trained on the very clips that it is measured on."""
    if model.kind != "run" or settings.dataset is None:
        return []
    data = load_run_config(model.path).get("data") or {}
    folders = [str(folder) for name in ("datasets", "unlabelled") for folder in data.get(name) or ()]
    return [
        f"{settings.checkpoint} was trained on {one}: what it makes of these clips says little about others."
        for one, _ in shared_folders([str(settings.dataset)], folders)[:1]
    ]


def describe(bench: Bench, model: Weights, autoencoder: Weights, clips: TrueClips) -> dict[str, Any]:
    """What was measured, JSON-able."""
    settings, shape = bench.settings, bench.plan.shape
    request = asdict(settings)
    reasons: dict[str, int] = {}
    for reason, _ in clips.failed.values():
        reasons[reason] = reasons.get(reason, 0) + 1
    return {
        "kind": "checkpoint",
        "request": json.loads(json.dumps(request, default=str)),
        "weights": {
            "checkpoint": str(model.path),
            "autoencoder": str(autoencoder.path),
            "fingerprints": list(bench.prints),
            **student_entry(model),
        },
        "clip": {"frames": shape.frames, "height": shape.height, "width": shape.width, "fps": settings.fps},
        "exploration": {"clips": bench.plan.clips, "frames": bench.plan.frames, "added": bench.plan.added},
        "versions": {
            "camctrl_jax": camctrl_jax.__version__,
            "jax": jax.__version__,
            "device": jax.devices()[0].device_kind,
        },
        "clips": {
            clip.name: {"source": clip.source, "caption": clip.caption, "digest": clip.digest}
            for clip in clips.clips
        },
        "failed": {name: message for name, (_, message) in clips.failed.items()},
        "failed_by_reason": reasons,
        "remarks": clips.remarks,
    }


# ----------------------------------------------------------------------------------------------- clip by clip


def reconstruct_all(bench: Bench, say: Say) -> dict[str, Any]:
    """What the autoencoder keeps of every clip: the ceiling of every sample. Records by name."""
    out, vae = bench.settings.out, bench.pipeline.autoencoder
    keys = {clip.name: _key(bench.keys[clip.name], what=RECONSTRUCTION) for clip in bench.clips}
    path = {clip.name: out / RECONSTRUCTION / f"{clip.name}.json" for clip in bench.clips}
    missing = [clip for clip in bench.clips if _record(path[clip.name], keys[clip.name], ()) is None]
    for batch, done in _batches(missing, min(bench.settings.batch_size, len(missing))):
        truth = np.stack([clip.video(out) for clip in batch])
        kept, finite = vae.decode_checked(vae.encode(truth))
        for clip, video, true, sound in zip(batch[:done], kept, truth, finite, strict=False):
            found = against_truth(video, true, slice(None)) if sound else {"failed": "not_finite"}
            write_json(path[clip.name], {"key": keys[clip.name], "found": found})
    if missing:
        say(f"{len(missing)} clips went through the autoencoder")
    return {clip.name: _record(path[clip.name], keys[clip.name], ()) for clip in bench.clips}


def sample_all(bench: Bench, units: Sequence[Unit], say: Say) -> dict[str, Any]:
    """Records by row, task and name of a clip; "failed" in place of measures where sampling failed."""
    jobs = {
        unit: [place for place in range(len(bench.clips)) if not _is_done(bench, unit, place)]
        for unit in units
    }
    total, finished, started = sum(map(len, jobs.values())), 0, time.monotonic()
    size = min(bench.settings.batch_size, max(map(len, jobs.values())))
    kept = len(units) * len(bench.clips) - total
    if kept:
        say(f"{kept} of {kept + total} are there already")
    failed: dict[tuple[Unit, int], str] = {}
    for unit, missing in jobs.items():
        for batch, done in _batches(missing, size):
            failed |= {(unit, place): why for place, why in _sample(bench, unit, batch, done).items()}
            finished += done
            left = (time.monotonic() - started) / finished * (total - finished)
            say(f"sampled {finished}/{total} ({unit.folder.relative_to(SAMPLES)}); {left:.0f} s left")
    rows: dict[str, Any] = {}
    for unit in units:
        found = {
            clip.name: {"failed": failed[unit, place]}
            if (unit, place) in failed
            else _record(_record_path(bench, unit, place), _unit_key(bench, unit, place), ())
            for place, clip in enumerate(bench.clips)
        }
        rows.setdefault(row_folder(unit.sampling), {})[unit.task] = found
    return rows


def _batches(items: Sequence[Any], size: int) -> Iterator[tuple[list[Any], int]]:
    """Batches of one size, so that one compilation serves them, and how many items of each are no filling."""
    for start in range(0, len(items), size or 1):
        batch = list(items[start : start + size])
        yield batch + batch[-1:] * (size - len(batch)), len(batch)


def _sample(bench: Bench, unit: Unit, places: Sequence[int], count: int) -> dict[int, str]:
    """Sample, write and measure a batch; returns why clips failed.

    Where a batch fails, each of its clips is tried alone, in a batch of the same size: one compilation, and
    one bad clip costs only itself.
    """
    for place in places[:count]:
        _remove(bench, unit, place)
    try:
        with memory_failures(len(places)):
            _make(bench, unit, places, count)
    except ClipError as error:  # of files and of settings would be of every clip
        if count == 1:
            return {places[0]: str(error)}
        failed = {}
        for place in places[:count]:
            failed |= _sample(bench, unit, [place] * len(places), 1)
        return failed
    return {}


def _remove(bench: Bench, unit: Unit, place: int) -> None:
    """What an earlier run of other weights or settings left of a clip, its record first: should this run fail
    or be stopped, the clip is missing, and no old one is measured in its place."""
    name, record = bench.clips[place].name, _record_path(bench, unit, place)
    record.unlink(missing_ok=True)
    folder = bench.settings.out / unit.folder
    for kind in folder.iterdir() if folder.is_dir() else ():
        for suffix in (".mp4", ".txt"):
            (kind / f"{name}{suffix}").unlink(missing_ok=True)


def _make(bench: Bench, unit: Unit, places: Sequence[int], count: int) -> None:
    settings, plan, out = bench.settings, bench.plan, bench.settings.out
    clips = [bench.clips[place] for place in places]
    truth = np.stack([clip.video(out) for clip in clips])
    paths = [clip.cameras(out) for clip in clips]

    def sample(paths: Sequence[Cameras], number: int) -> np.ndarray:
        return sample_batch(
            bench.pipeline,
            plan,
            unit.task,
            [clip.name for clip in clips],
            [clip.caption for clip in clips],
            paths,
            truth,
            unit.sampling,
            number,
        )

    samples = [sample(paths, number) for number in range(settings.seeds)]  # S of [N, T, H, W, 3]
    decoys = None
    if bench.decoys is not None and unit.task == "i2v":
        decoys = sample([bench.decoys[place] for place in places], 0)
    judged = slice(plan.given(unit.task) if unit.task == "extension" else 0, None)
    for row, place in enumerate(places[:count]):
        clip, folder = clips[row], out / unit.folder
        decoy = None if decoys is None else decoys[row]
        for number in range(settings.seeds):
            write_mp4(
                folder / f"seed_{number}" / f"{clip.name}.mp4",
                samples[number][row, judged],
                clip.fps,
                crf=None,
            )
        if decoy is not None:
            write_mp4(folder / "decoy" / f"{clip.name}.mp4", decoy, clip.fps, crf=None)
        if unit.task == "extension":  # what is new is judged: the true clips of these frames lie beside it
            write_mp4(folder / "reference" / f"{clip.name}.mp4", truth[row, judged], clip.fps, crf=None)
            _save_cameras(paths[row][judged], folder / "cameras" / f"{clip.name}.txt")
        own = [each[row] for each in samples]
        side = [truth[row], *own, *([] if decoy is None else [decoy])]
        write_mp4(folder / "shown" / f"{clip.name}.mp4", video_grid(np.stack(side), len(side)), clip.fps)
        found = task_record(own, decoy, truth[row], plan, unit.task)
        write_json(_record_path(bench, unit, place), {"key": _unit_key(bench, unit, place), "found": found})


def _save_cameras(cameras: Cameras, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_cameras(cameras.relative_to(0), path)


def _record_path(bench: Bench, unit: Unit, place: int) -> Path:
    return bench.settings.out / unit.folder / "records" / f"{bench.clips[place].name}.json"


def _is_done(bench: Bench, unit: Unit, place: int) -> bool:
    name, folder = bench.clips[place].name, bench.settings.out / unit.folder
    kinds = [f"seed_{number}" for number in range(bench.settings.seeds)]
    kinds += ["decoy"] if bench.decoys is not None and unit.task == "i2v" else []
    kinds += ["reference"] if unit.task == "extension" else []
    files = [folder / kind / f"{name}.mp4" for kind in kinds]
    files += [folder / "cameras" / f"{name}.txt"] if unit.task == "extension" else []
    return _record(_record_path(bench, unit, place), _unit_key(bench, unit, place), files) is not None


def _unit_key(bench: Bench, unit: Unit, place: int) -> str:
    decoy = None
    if bench.decoys is not None and unit.task == "i2v":
        decoy = hashlib.sha256(bench.decoys[place].world_from_camera.tobytes()).hexdigest()
    sampling = asdict(replace(unit.sampling, shift=bench.pipeline.shift(bench.plan.shape)))
    return _key(
        bench.keys[bench.clips[place].name],
        what=unit.task,
        sampling=sampling,
        seeds=bench.settings.seeds,
        decoy=decoy,
    )


def _key(depends: Mapping[str, Any], **more: Any) -> str:
    return hashlib.sha256(json.dumps({**depends, **more}, sort_keys=True).encode()).hexdigest()


def _record(path: Path, key: str, files: Sequence[Path]) -> dict[str, Any] | None:
    """What was found, if it is of this key and its files are there."""
    if not path.exists() or not all(file.exists() for file in files):
        return None
    try:
        record = read_json(path)
    except (InvalidValue, ClipError):
        return None
    return record["found"] if record.get("key") == key else None
