"""``evaluate videos``: clips of any model, with the paths that were asked for, and truth if there is any."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from camctrl_jax.camera import Cameras
from camctrl_jax.camera.framing import Framing
from camctrl_jax.camera.reading import Reading, read_path
from camctrl_jax.errors import ClipError, InvalidValue, MissingFile, UserError, file_failures
from camctrl_jax.estimators.checks import doubts
from camctrl_jax.estimators.protocols import (
    ClipEmbedder,
    MotionSegmenter,
    OpticalFlow,
    SfmResult,
    StructureFromMotion,
)
from camctrl_jax.evaluate.videos_report import markdown, summarise
from camctrl_jax.files.atomic import write_text
from camctrl_jax.files.json_file import read_json, write_json
from camctrl_jax.metrics.appearance import appearance_consistency, first_picture_consistency
from camctrl_jax.metrics.motion import MotionStrength
from camctrl_jax.metrics.psnr import psnr
from camctrl_jax.metrics.sharpness import gradient_energy
from camctrl_jax.metrics.ssim import ssim
from camctrl_jax.metrics.trajectories import path_errors
from camctrl_jax.video.decoding import VIDEO_SUFFIXES, list_images, read_frames

LEAST_POSES = 3
_RETRIED = ("timeout:", "crashed:")  # reasons that lie in the machine, not in the clip


@dataclass(frozen=True)
class Estimators:
    """What looks at the clips.

    Attributes:
        flow: between consecutive frames, for motion strength.
        masks: what moves.
        sfm: camera poses.
        embedder: for appearance consistency.
    """

    flow: OpticalFlow
    masks: MotionSegmenter
    sfm: StructureFromMotion
    embedder: ClipEmbedder

    def described(self) -> dict[str, Any]:
        """Names, versions and parameters, JSON-able: part of what results depend on."""
        return {name: asdict(getattr(self, name).fingerprint()) for name in self.__dataclass_fields__}


@dataclass(frozen=True)
class VideosSettings:
    """What to measure.

    Attributes:
        out: folder for results; what is there already of the same clips and settings is kept.
        generated: folder of videos, or of folders of pictures.
        cameras: folder of pose files of the same names without suffix.
        reference: folder of true videos of the same names, or None.
        fps: of folders of pictures.
        pose_frames: poses are estimated for at most so many frames, evenly spread.
        longest_side: estimators see pictures of at most so many pixels a side; motion is given in the video's
            own pixels all the same.
        known_lens: structure from motion is given the lens that was asked for: short straight paths hardly
            fix a focal length. False has it estimated, and its error reported.
        reading: how to read the pose files.
    """

    out: Path
    generated: Path
    cameras: Path
    reference: Path | None = None
    fps: float = 12.0
    pose_frames: int = 16
    longest_side: int = 640
    known_lens: bool = True
    reading: Reading = field(default_factory=Reading)

    def __post_init__(self) -> None:
        if self.pose_frames < LEAST_POSES:
            raise InvalidValue(f"--pose-frames {self.pose_frames}: expected {LEAST_POSES} or more.")
        if self.longest_side < 64:
            raise InvalidValue(f"--longest-side {self.longest_side}: expected 64 pixels or more.")
        if not 0 < self.fps < math.inf:
            raise InvalidValue(f"--fps {self.fps:g}: expected a positive number.")
        for name in ("generated", "cameras", "reference"):
            path = getattr(self, name)
            if path is not None and not path.is_dir():
                raise MissingFile(f"--{name} {path}: no such folder.")


@dataclass(frozen=True)
class Clip:
    """One clip to measure; paths that are missing are None."""

    name: str
    video: Path | None
    cameras: Path | None
    reference: Path | None


def find_clips(settings: VideosSettings) -> list[Clip]:
    """The clips that any of the folders names, in order.

    A name that only --cameras or --reference has is a clip too: it has failed, since its video is missing.

    Raises:
        MissingFile: no video at all.
        InvalidValue: two videos, or two pose files, of one name.
    """
    videos = _named(settings.generated, _is_video, "--generated")
    cameras = _named(settings.cameras, lambda path: not path.name.startswith("."), "--cameras")
    references = {} if settings.reference is None else _named(settings.reference, _is_video, "--reference")
    if not videos:
        raise MissingFile(
            f"--generated {settings.generated}: holds no videos ({' '.join(VIDEO_SUFFIXES)}) and no folders "
            "of pictures."
        )
    names = sorted({*videos, *cameras, *references})
    return [Clip(name, videos.get(name), cameras.get(name), references.get(name)) for name in names]


def _is_video(path: Path) -> bool:
    if path.name.startswith("."):
        return False
    return bool(list_images(path)) if path.is_dir() else path.suffix.lower() in VIDEO_SUFFIXES


def _named(folder: Path, wanted: Callable[[Path], bool], option: str) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if not wanted(path):
            continue
        name = path.name if path.is_dir() else path.stem
        if name in found:
            raise InvalidValue(f"{option}: {found[name]} and {path} have one name; keep one of them.")
        found[name] = path
    return found


# ------------------------------------------------------------------------------------------------- one clip


def measure_clip(clip: Clip, settings: VideosSettings, estimators: Estimators) -> dict[str, Any]:
    """Everything about one clip, JSON-able. What fails alone is a reason in "failures"; the rest goes on.

    Raises:
        UserError: the clip cannot be measured at all: no video, a broken one, no cameras.
    """
    if clip.video is None:
        raise ClipError("missing_video", f"{settings.generated} holds no video named {clip.name}.")
    if clip.cameras is None:
        raise ClipError("missing_cameras", f"{settings.cameras} holds no pose file named {clip.name}.")
    frames, times, size = _frames(clip.video, settings.fps, settings.longest_side)
    read = read_path(clip.cameras, settings.reading)
    cameras = read.pose_file.cameras
    if len(cameras) != len(frames):
        raise ClipError(
            "frame_count",
            f"{clip.video} has {len(frames)} frames and {clip.cameras} {len(cameras)} poses; one pose per "
            "frame is needed.",
        )
    failures: dict[str, str] = {}
    found: dict[str, Any] = {
        "frames": len(frames),
        "size": list(size),
        "remarks": list(read.remarks),
        "failures": failures,
    }
    fps = (len(times) - 1) / times[-1] if len(times) > 1 and times[-1] > 0 else settings.fps
    moving = _attempt(failures, "masks", lambda: estimators.masks.segment(frames, fps).moving)
    if moving is not None:
        found |= _attempt(failures, "motion", lambda: _motion(frames, moving, size, estimators.flow)) or {}
    found |= _attempt(failures, "appearance", lambda: _appearance(frames, estimators.embedder)) or {}
    found |= _poses(frames, cameras, times, moving, settings, estimators.sfm, failures)
    if settings.reference is not None:
        found |= _attempt(failures, "reference", lambda: _against(clip, settings)) or {}
    return found


def _attempt(failures: dict[str, str], what: str, work: Callable[[], Any]) -> Any:
    """The result, or None and the reason under ``what``. Also of faults: one clip must not end a long run."""
    try:
        return work()
    except UserError as error:
        failures[what] = f"{error.reason}: {error}" if isinstance(error, ClipError) else str(error)
    except Exception as error:
        failures[what] = f"fault: {type(error).__name__}: {error}"
    return None


def _frames(
    path: Path, fps: float, longest_side: int | None = None
) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """u8 [T, H, W, 3], reduced to ``longest_side`` where larger; seconds f64 [T]; true (height, width)."""
    pictures, times = [], []
    size: tuple[int, int] | None = None
    framing: Framing | None = None
    for frame in read_frames(path, image_fps=fps):
        if size is None:
            size = frame.size
            if longest_side is not None and max(size) > longest_side:
                scale = longest_side / max(size)
                target = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
                framing = Framing(target, 0, 0, target)
        elif frame.size != size:
            raise ClipError("mixed_sizes", f"{path}: the picture size changes at frame {frame.index}.")
        pictures.append(frame.rgb(framing))
        times.append(frame.time)
    assert size is not None  # read_frames raises where there is no frame
    return np.stack(pictures), np.array(times), size


def _motion(
    frames: np.ndarray, moving: np.ndarray, size: tuple[int, int], flow: OpticalFlow
) -> dict[str, Any]:
    """In pixels of the video's own ``size``, whatever the size of the frames that are looked at."""
    if len(frames) < 2:
        raise ClipError("too_short", "motion needs 2 frames or more.")
    scale = np.array([size[1] / frames.shape[2], size[0] / frames.shape[1]])
    diagonals = math.hypot(*frames.shape[1:3]) / math.hypot(*size)
    strength = MotionStrength()
    for t in range(len(frames) - 1):
        px = flow.flow(frames[t, None], frames[t + 1, None])[0] * scale
        found = MotionStrength.of(px, moving[t])
        strength += replace(found, summed_diagonals=found.summed_diagonals * diagonals)
    return {
        "motion_px": strength.px,
        "motion_diagonals": strength.diagonals,
        "motion_paper_units": strength.paper_units,
        "moving_share": strength.moving_share,
        "motion": asdict(strength),
    }


def _appearance(frames: np.ndarray, embedder: ClipEmbedder) -> dict[str, Any]:
    embeddings = embedder.embed(frames)
    found = {"appearance": appearance_consistency(embeddings)}
    if len(frames) > 1:
        found["appearance_to_first"] = first_picture_consistency(embeddings)
    return found


def _poses(
    frames: np.ndarray,
    cameras: Cameras,
    times: np.ndarray,
    moving: np.ndarray | None,
    settings: VideosSettings,
    sfm: StructureFromMotion,
    failures: dict[str, str],
) -> dict[str, Any]:
    """Errors of the estimated path; ``registered`` is False, and they are absent, where there is none."""
    chosen = np.unique(np.linspace(0, len(frames) - 1, settings.pose_frames).round().astype(int))
    if len(chosen) < LEAST_POSES:
        failures["poses"] = f"too_short: {len(frames)} frames; poses need {LEAST_POSES} or more."
        return {"registered": False, "registered_share": 0.0}
    masks = None if moving is None else moving[chosen]
    lens = cameras.intrinsics[chosen] if settings.known_lens else None
    result = _attempt(failures, "poses", lambda: sfm.reconstruct(frames[chosen], masks, lens, times[chosen]))
    if result is None:
        return {"registered": False, "registered_share": 0.0}
    found: dict[str, Any] = {
        "registered": result.succeeded,
        "registered_share": result.registered_share,
        "doubts": list(doubts(result, frames.shape[1:3])),
        "sfm_seconds": result.seconds,
    }
    if not result.succeeded:
        said = result.message or "not every frame was registered"
        failures["poses"] = f"{result.reason or 'partial'}: {said}"
        return found
    errors = _attempt(failures, "poses", lambda: _path_error(result, cameras[chosen], settings.known_lens))
    return found | (errors or {})


def _path_error(result: SfmResult, asked: Cameras, known_lens: bool) -> dict[str, Any]:
    errors = path_errors(result.cameras().world_from_camera, asked.orthonormalised().world_from_camera)
    share = errors.trans_err / errors.path_length if errors.path_length > 0 else None
    aligned = errors.trans_err_aligned / errors.path_length if errors.path_length > 0 else None
    lens = (
        {}
        if known_lens
        else {"focal_error": float(np.median(result.intrinsics[:, 0] / asked.intrinsics[:, 0]) - 1.0)}
    )
    return lens | {
        **asdict(errors),
        "trans_err_share_of_path": share,
        "trans_err_aligned_share_of_path": aligned,
        "estimated_path": np.round(result.cameras().world_from_camera[:, :3], 6).tolist(),
    }


def _against(clip: Clip, settings: VideosSettings) -> dict[str, Any]:
    if clip.reference is None:
        raise ClipError("missing_reference", f"{settings.reference} holds no video named {clip.name}.")
    frames, _, _ = _frames(clip.video, settings.fps)
    truth, _, _ = _frames(clip.reference, settings.fps)
    if truth.shape != frames.shape:
        raise ClipError(
            "other_shape",
            f"{clip.reference} has the shape {list(truth.shape)}, {clip.video} {list(frames.shape)}; "
            "frames are compared one by one.",
        )
    energy = float(gradient_energy(truth))
    return {
        "psnr_db": float(psnr(frames, truth)),
        "ssim": float(ssim(frames, truth).mean()),
        "gradient_energy_to_reference": float(gradient_energy(frames)) / energy if energy else None,
    }


# -------------------------------------------------------------------------------------------------- all clips


def evaluate_videos(
    settings: VideosSettings, estimators: Estimators, say: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """Measure all clips and write results; returns what ``results.json`` holds.

    A clip whose results are in ``out`` already, of the same files, settings and estimators, is not measured
    again.

    Raises:
        UserError: nothing to measure.
    """
    say = say or (lambda line: print(line, file=sys.stderr, flush=True))
    clips = find_clips(settings)
    folder = settings.out / "clips"
    with file_failures(folder):
        folder.mkdir(parents=True, exist_ok=True)
    described = _described(settings, estimators)
    rows: dict[str, dict[str, Any]] = {}
    started, measured = time.monotonic(), 0
    for done, clip in enumerate(clips, start=1):
        key = described | {"files": _files(clip)}
        stored = _stored(folder / f"{clip.name}.json", key)
        if stored is None:
            try:
                stored = measure_clip(clip, settings, estimators)
            except ClipError as error:
                stored = {"failed": error.reason, "message": str(error)}
            except UserError as error:
                stored = {"failed": "unusable", "message": str(error)}
            except Exception as error:  # a fault of one clip must not end a run of hours
                stored = {"failed": "fault", "message": f"{type(error).__name__}: {error}"}
            write_json(folder / f"{clip.name}.json", {"key": key, "found": stored})
            measured += 1
        rows[clip.name] = stored
        spent = time.monotonic() - started
        left = spent / measured * (len(clips) - done) if measured else 0.0
        outcome = stored.get("failed") or ", ".join(stored.get("failures", ())) or "measured"
        say(f"{done}/{len(clips)} {clip.name}: {outcome}; {left:.0f} s left")
    results = {
        "settings": described,
        "summary": summarise(rows),
        "failed": {name: row["message"] for name, row in rows.items() if "failed" in row},
        "clips": rows,
    }
    write_json(settings.out / "results.json", results)
    write_text(settings.out / "results.md", markdown(results) + "\n")
    return results


def _described(settings: VideosSettings, estimators: Estimators) -> dict[str, Any]:
    return {
        "fps": settings.fps,
        "pose_frames": settings.pose_frames,
        "longest_side": settings.longest_side,
        "known_lens": settings.known_lens,
        "with_reference": settings.reference is not None,
        "reading": asdict(settings.reading),
        "estimators": estimators.described(),
    }


def _files(clip: Clip) -> dict[str, Any]:
    """Path, size and time of change of what a clip is made of: enough to see that it is another."""
    found = {}
    for name in ("video", "cameras", "reference"):
        path = getattr(clip, name)
        if path is not None:
            members = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
            stats = [each.stat() for each in members]
            found[name] = [
                str(path.absolute()),
                sum(stat.st_size for stat in stats),
                max((stat.st_mtime_ns for stat in stats), default=0),
            ]
    return found


def _stored(path: Path, key: Mapping[str, Any]) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        stored = read_json(path)
    except UserError:  # a damaged artifact is measured again
        return None
    if stored.get("key") != json.loads(json.dumps(key)):  # through JSON: tuples and lists are equal
        return None
    found = stored.get("found")
    if any(reason.startswith(_RETRIED) for reason in (found or {}).get("failures", {}).values()):
        return None  # a longer time limit, or a mended program, may do better
    return found
