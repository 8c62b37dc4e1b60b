"""Everything that is measured of one clip."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from camctrl_jax.camera.reading import read_path
from camctrl_jax.errors import ClipError
from camctrl_jax.estimators.protocols import ClipEmbedder, OpticalFlow
from camctrl_jax.evaluate.videos.finding import Clip
from camctrl_jax.evaluate.videos.poses import asked_path, attempt, measure_poses, rounded
from camctrl_jax.evaluate.videos.reading import read_pictures
from camctrl_jax.evaluate.videos.settings import Estimators, VideosSettings
from camctrl_jax.metrics.appearance import (
    appearance_consistency,
    exploration_consistency,
    first_picture_consistency,
)
from camctrl_jax.metrics.motion import MotionStrength
from camctrl_jax.metrics.psnr import psnr_of_error
from camctrl_jax.metrics.sharpness import gradient_energy
from camctrl_jax.metrics.ssim import ssim
from camctrl_jax.video.decoding import count_frames, read_frames


def measure_clip(clip: Clip, settings: VideosSettings, estimators: Estimators) -> dict[str, Any]:
    """Everything about one clip, JSON-able. What fails alone is a reason in "failures"; the rest goes on.

    "per_frame" holds what is known of each frame, "paths" the asked and the estimated cameras. A clip in
    which nothing moves has no motion strength and says "nothing_moves": that is a finding, no failure.

    Raises:
        UserError: the clip cannot be measured at all: no video, a broken one, no cameras.
    """
    if clip.video is None:
        raise ClipError("missing_video", f"{settings.generated} holds no video named {clip.name}.")
    if clip.cameras is None:
        raise ClipError("missing_cameras", f"{settings.cameras} holds no pose file named {clip.name}.")
    seen = read_pictures(clip.video, settings.fps, settings.longest_side)
    read = read_path(clip.cameras, settings.reading)
    cameras = read.pose_file.cameras
    if len(cameras) != len(seen.frames):
        raise ClipError(
            "frame_count",
            f"{clip.video} has {len(seen.frames)} frames and {clip.cameras} {len(cameras)} poses; one pose "
            "per frame is needed.",
        )
    has_lens = read.pose_file.intrinsics_from == "file"
    remarks = list(read.remarks)
    if settings.known_lens and not has_lens:
        remarks.append("the pose file holds no lens: it is estimated")
    failures: dict[str, str] = {}
    per_frame: dict[str, Any] = {"seconds": rounded(seen.times)}
    found: dict[str, Any] = {
        "frames": len(seen.frames),
        "fps": seen.fps,
        "size": list(seen.size),
        "asked": asked_path(cameras),
        "remarks": remarks,
        "lens": "asked" if settings.known_lens and has_lens else "estimated",
        "failures": failures,
        "per_frame": per_frame,
    }
    moving = attempt(failures, "masks", lambda: estimators.masks.segment(seen.frames, seen.fps).moving)
    if moving is not None:
        found |= (
            attempt(failures, "motion", lambda: _motion(seen.frames, moving, seen.size, estimators.flow))
            or {}
        )
    looks = attempt(failures, "appearance", lambda: _appearance(seen.frames, estimators.embedder, settings))
    if looks is not None:
        found |= looks[0]
        per_frame |= looks[1]
    errors, of_frames, found["paths"] = measure_poses(
        seen.frames, cameras, seen.times, moving, settings, estimators.sfm, failures, has_lens
    )
    found |= errors
    per_frame |= of_frames
    if settings.reference is not None:
        against = attempt(failures, "reference", lambda: _against(clip, settings))
        if against is not None:
            found |= against[0]
            per_frame |= against[1]
    return found


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
        "nothing_moves": strength.moving == 0,
        "motion": asdict(strength),
    }


def _appearance(
    frames: np.ndarray, embedder: ClipEmbedder, settings: VideosSettings
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Measures, and the cosine of each frame with the first."""
    embeddings = np.asarray(embedder.embed(frames), np.float64)
    found: dict[str, Any] = {"appearance": appearance_consistency(embeddings)}
    if len(frames) > 1:
        found["appearance_to_first"] = first_picture_consistency(embeddings)
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    if settings.clip_frames is not None and len(frames) >= 2 * settings.clip_frames:
        # Counted from the end: the first clip of an exploration has its context besides, and a short last one
        # would be compared with long ones.
        starts = range(len(frames) % settings.clip_frames, len(frames), settings.clip_frames)
        whole = exploration_consistency(np.split(embeddings, starts[1:]))
        found |= {
            "exploration": asdict(whole),
            "exploration_to_mean": whole.to_mean,
            "exploration_clip_to_first": whole.clip_to_first[-1],
            "exploration_last_to_first": whole.last_to_first,
        }
    return found, {"appearance_to_first": rounded(unit @ unit[0])}


def _against(clip: Clip, settings: VideosSettings) -> tuple[dict[str, Any], dict[str, Any]]:
    """Measures, and the PSNR of each frame. Read frame by frame: a long clip as a whole takes gigabytes."""
    if clip.reference is None:
        raise ClipError("missing_reference", f"{settings.reference} holds no video named {clip.name}.")
    counts = [count_frames(path) for path in (clip.video, clip.reference)]
    if counts[0] != counts[1]:
        raise ClipError(
            "other_shape",
            f"{clip.reference} has {counts[1]} frames, {clip.video} {counts[0]}; frames are compared one by "
            "one.",
        )
    errors, similar, energies = [], [], np.zeros(2)
    readers = [read_frames(path, image_fps=settings.fps) for path in (clip.video, clip.reference)]
    for made, true in zip(*readers, strict=True):
        if made.size != true.size:
            raise ClipError(
                "other_shape",
                f"{clip.reference} has pictures of {true.size[1]}x{true.size[0]}, {clip.video} of "
                f"{made.size[1]}x{made.size[0]}; pixels are compared one by one.",
            )
        frame, truth = made.rgb(), true.rgb()
        errors.append(np.mean(np.square(frame.astype(np.float64) - truth.astype(np.float64))))
        similar.append(float(ssim(frame, truth)))
        energies += float(gradient_energy(frame[None])), float(gradient_energy(truth[None]))
    squared = np.array(errors)
    return {
        "psnr_db": float(psnr_of_error(squared.mean(), 255.0)),
        "ssim": float(np.mean(similar)),
        "gradient_energy_to_reference": float(energies[0] / energies[1]) if energies[1] else None,
    }, {"psnr_db": rounded(psnr_of_error(squared, 255.0))}
