"""Everything that is measured of one clip."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from camctrl_jax.camera import Cameras
from camctrl_jax.camera.framing import Framing
from camctrl_jax.camera.reading import read_path
from camctrl_jax.errors import ClipError, UserError
from camctrl_jax.estimators.checks import doubts
from camctrl_jax.estimators.protocols import ClipEmbedder, OpticalFlow, SfmResult, StructureFromMotion
from camctrl_jax.evaluate.videos.finding import Clip
from camctrl_jax.evaluate.videos.settings import LEAST_POSES, Estimators, VideosSettings
from camctrl_jax.metrics.appearance import appearance_consistency, first_picture_consistency
from camctrl_jax.metrics.motion import MotionStrength
from camctrl_jax.metrics.psnr import psnr
from camctrl_jax.metrics.sharpness import gradient_energy
from camctrl_jax.metrics.ssim import ssim
from camctrl_jax.metrics.trajectories import path_errors
from camctrl_jax.video.decoding import read_frames


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
