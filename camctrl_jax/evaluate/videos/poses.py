"""Camera poses of one clip, estimated and held against those that were asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np

from camctrl_jax.camera import Cameras, rotations
from camctrl_jax.errors import ClipError, InvalidValue, UserError
from camctrl_jax.estimators.checks import doubts
from camctrl_jax.estimators.imported import ImportedPoses
from camctrl_jax.estimators.protocols import SfmResult, StructureFromMotion
from camctrl_jax.evaluate.videos.settings import LEAST_POSES, VideosSettings
from camctrl_jax.metrics.trajectories import align_rotations, path_errors

TRANS_ERR, ROT_ERR = "trans_err_aligned_share_of_path", "rot_err_aligned_deg"
"""Errors after alignment by rotations that are kept for each frame, too; their means have the same names."""

TRANS_FIRST, ROT_FIRST = "trans_err_first_share_of_path", "rot_err_first_deg"
"""The same with the first cameras on each other. An alignment of whole paths spreads an error that grows over
all frames, least in the middle: only these show how it grows. Their means leave the first frame out."""


def attempt(failures: dict[str, str], what: str, work: Callable[[], Any]) -> Any:
    """The result, or None and the reason under ``what``. Also of faults: one clip must not end a long run."""
    try:
        return work()
    except UserError as error:
        failures[what] = f"{error.reason}: {error}" if isinstance(error, ClipError) else str(error)
    except Exception as error:
        failures[what] = f"fault: {type(error).__name__}: {error}"
    return None


def asked_path(cameras: Cameras) -> dict[str, float]:
    """By what two results see that they asked for the same path of a clip: its length and its turning."""
    return {"path_length": cameras.path_length, "rotation_deg": cameras.total_rotation}


def measure_poses(
    frames: np.ndarray,
    cameras: Cameras,
    times: np.ndarray,
    moving: np.ndarray | None,
    settings: VideosSettings,
    sfm: StructureFromMotion,
    failures: dict[str, str],
    has_lens: bool = True,
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Errors of the estimated path, those of each frame, and the paths themselves, JSON-able.

    ``registered`` is False, and errors are absent, where not every frame has a pose.

    Args:
        frames: u8 [T, H, W, 3].
        cameras: asked for, T of them.
        times: f64 [T], seconds.
        moving: bool [T, H, W], or None.
        failures: where the reason is put.
        has_lens: whether ``cameras`` has a lens of its own. One that stands in for a missing one is never
            given to the estimator as true.
    """
    chosen = np.unique(np.linspace(0, len(frames) - 1, settings.pose_frames).round().astype(int))
    asked = cameras.orthonormalised()[chosen]
    of_frames = {"pose_frames": chosen.tolist()}
    paths = {"asked": _matrices(asked)}
    none: dict[str, Any] = {"registered": False, "registered_share": 0.0}
    if len(chosen) < LEAST_POSES:
        failures["poses"] = f"too_short: {len(frames)} frames; poses need {LEAST_POSES} or more."
        return none, of_frames, paths
    masks = None if moving is None else moving[chosen]
    known = settings.known_lens and has_lens
    lens = cameras.intrinsics[chosen] if known else None
    result = attempt(failures, "poses", lambda: _reconstructed(sfm, frames, chosen, masks, lens, times))
    if result is None:
        return none, of_frames, paths
    found: dict[str, Any] = {
        "registered": result.succeeded,
        "registered_share": result.registered_share,
        "doubts": list(doubts(result, frames.shape[1:3])),
        "sfm_seconds": result.seconds,
    }
    if not result.succeeded:
        said = result.message or "not every frame was registered"
        failures["poses"] = f"{result.reason or 'partial'}: {said}"
        return found, of_frames, paths
    paths["estimated"] = _matrices(result.cameras())
    errors = attempt(failures, "poses", lambda: _path_error(result, asked, has_lens and not known))
    if errors is None:
        return found, of_frames, paths
    by_frame = errors.pop("by_frame")
    return found | errors, of_frames | by_frame, paths


def _reconstructed(
    sfm: StructureFromMotion,
    frames: np.ndarray,
    chosen: np.ndarray,
    masks: np.ndarray | None,
    lens: np.ndarray | None,
    times: np.ndarray,
) -> SfmResult:
    """Poses of the frames ``chosen``. Imported ones may be of all frames, of which those are taken."""
    if isinstance(sfm, ImportedPoses) and len(chosen) < len(frames):
        try:
            whole = sfm.reconstruct(frames)
        except (InvalidValue, ClipError):  # not of all frames: perhaps of the chosen ones
            pass
        else:
            places = {int(frame): place for place, frame in enumerate(whole.registered_frames)}
            kept = [index for index, frame in enumerate(chosen) if int(frame) in places]
            if not kept:
                return SfmResult.failed(len(chosen), "no_model", "none of the frames looked at has a pose.")
            cameras = whole.cameras()[[places[int(chosen[index])] for index in kept]]
            return SfmResult.of_cameras(cameras, kept, len(chosen))
    return sfm.reconstruct(frames[chosen], masks, lens, times[chosen])


def _path_error(result: SfmResult, asked: Cameras, with_focal_error: bool) -> dict[str, Any]:
    estimated, reference = result.cameras().world_from_camera, asked.world_from_camera
    errors = path_errors(estimated, reference)
    length = errors.path_length
    similarity = align_rotations(estimated, reference)
    aligned = _apart(similarity.poses(estimated), reference)
    first = _apart(*_from_first(estimated, reference))
    lens = (
        {"focal_error": float(np.median(result.intrinsics[:, 0] / asked.intrinsics[:, 0]) - 1.0)}
        if with_focal_error
        else {}
    )
    plain = asdict(errors)
    return lens | {
        "frames_compared": plain.pop("frames"),
        **plain,
        "trans_err_share_of_path": errors.trans_err / length if length > 0 else None,
        TRANS_ERR: errors.trans_err_aligned / length if length > 0 else None,
        TRANS_FIRST: errors.trans_err_first / length if length > 0 else None,
        "scale_aligned": similarity.scale,
        "by_frame": {
            TRANS_ERR: rounded(aligned[0] / length) if length > 0 else None,
            TRANS_FIRST: rounded(first[0] / length) if length > 0 else None,
            ROT_ERR: rounded(aligned[1]),
            ROT_FIRST: rounded(first[1]),
        },
    }


def _apart(poses: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances and angles in degrees between poses [T, 4, 4], f64 [T] each."""
    between = np.swapaxes(poses[:, :3, :3], 1, 2) @ reference[:, :3, :3]
    distances = np.linalg.norm(poses[:, :3, 3] - reference[:, :3, 3], axis=1)
    return distances, rotations.angle_degrees(between)


def _from_first(estimated: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both paths as their first cameras see them, the estimate at the scale that fits best, at least 0."""
    seen, wanted = (np.linalg.inv(poses[0]) @ poses for poses in (estimated, reference))
    spread = float((seen[:, :3, 3] ** 2).sum())
    if spread > 0.0:
        seen[:, :3, 3] *= max(float((seen[:, :3, 3] * wanted[:, :3, 3]).sum()), 0.0) / spread
    return seen, wanted


def rounded(values: np.ndarray) -> list[float]:
    """Plain numbers of six digits: what is kept for each frame is for figures."""
    return [float(f"{value:.6g}") for value in values]


def _matrices(cameras: Cameras) -> list[list[list[float]]]:
    """World from camera [T, 3, 4]."""
    return np.round(cameras.world_from_camera[:, :3], 6).tolist()
