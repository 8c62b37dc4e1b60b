"""What estimators see in clips, as they would in any model's: motion, appearance, and the camera's path.

Every clip is looked at in one way, true renders included: what moves is estimated from the clip itself, since
of a generated one nothing else is known. Beside that, where the clip is a render, the exact masks say what
the estimate is worth.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from camctrl_jax.camera import Cameras
from camctrl_jax.errors import ClipError, UserError
from camctrl_jax.estimators.checks import DEFAULT, doubts
from camctrl_jax.estimators.colmap import Colmap
from camctrl_jax.estimators.histograms import HistogramEmbedder
from camctrl_jax.estimators.protocols import (
    ClipEmbedder,
    MotionSegmenter,
    OpticalFlow,
    StructureFromMotion,
    dilate,
)
from camctrl_jax.metrics.appearance import appearance_consistency, first_picture_consistency
from camctrl_jax.metrics.motion import MotionStrength
from camctrl_jax.metrics.trajectories import path_errors

EVERY = 3
"""Of every how many frames the camera is estimated and the appearance taken."""

LEAST_FRAMES = 3
LEAST_PATH = 0.05
"""Metres of path below which a camera stands or turns on the spot: it has no path to be found."""

_MASK_PIXELS = 3  # that masks of moving things are grown by for structure from motion
_TIME_LIMIT = 120.0  # seconds for the cameras of a clip
_VERSION = 1  # of what is done with the estimates
_MACHINE_FAULTS = ("timeout", "crashed")


@dataclass(frozen=True, eq=False)
class Clip:
    """One clip to look at.

    Attributes:
        video: u8 [T, H, W, 3].
        asked: the path that it was asked to follow.
        fps: frames a second.
        moving: bool [T, H, W], what truly moves from each frame to the next; None where it is not known.
        exact_masks: structure from motion is given ``moving`` instead of the estimate.
    """

    video: np.ndarray
    asked: Cameras
    fps: float
    moving: np.ndarray | None = None
    exact_masks: bool = False


@dataclass(frozen=True)
class Looks:
    """The estimators.

    Attributes:
        masks: what moves.
        flow: between consecutive frames.
        embedder: of single frames.
        sfm: cameras; None where they are not wanted.
    """

    masks: MotionSegmenter
    flow: OpticalFlow
    embedder: ClipEmbedder
    sfm: StructureFromMotion | None

    @classmethod
    def default(cls, *, with_poses: bool) -> Looks:
        """Those without weights, as they are set for pictures of this size.

        Raises:
            MissingExtra: OpenCV is not installed, or pycolmap, where poses are wanted.
        """
        # Only now: it imports OpenCV.
        from camctrl_jax.estimators.motion_masks import EpipolarMasks
        from camctrl_jax.estimators.opencv_flow import DisFlow

        sfm = None
        if with_poses:
            sfm = Colmap(time_limit=_TIME_LIMIT)
            sfm.check()
        return cls(EpipolarMasks(), DisFlow(), HistogramEmbedder(), sfm)

    @property
    def motion_key(self) -> str:
        """Identifies what motion and appearance depend on besides the clip: settings and versions."""
        return _key(_VERSION, EVERY, *(asdict(one.fingerprint()) for one in self._lookers))

    @property
    def poses_key(self) -> str | None:
        """The same of the cameras."""
        if self.sfm is None:
            return None
        settings = (EVERY, LEAST_FRAMES, LEAST_PATH, _MASK_PIXELS, _TIME_LIMIT, asdict(DEFAULT))
        prints = (asdict(one.fingerprint()) for one in (self.masks, self.sfm))
        return _key(_VERSION, settings, *prints)

    @property
    def _lookers(self) -> tuple[Any, ...]:
        return self.masks, self.flow, self.embedder

    def described(self) -> dict[str, str]:
        """Names and versions, for people and for whoever compares results."""
        named = {"masks": self.masks, "flow": self.flow, "embedder": self.embedder, "sfm": self.sfm}
        prints = {name: one.fingerprint() for name, one in named.items() if one is not None}
        return {name: f"{found.name} {found.version}" for name, found in prints.items()}

    def of_clip(self, clip: Clip, *, motion: bool, poses: bool) -> dict[str, Any]:
        """``motion`` and ``pose`` of one clip, as far as they are asked for, JSON-able.

        A clip in which nothing is found is a result; one that an estimator fails on has ``failed``, its
        reason, and ends nothing.
        """
        poses = poses and clip.asked.path_length > LEAST_PATH
        motion = motion and not clip.exact_masks  # another row of the same clip has it
        if not (motion or poses):
            return {}
        try:
            masks = self.masks.segment(clip.video, clip.fps).moving
        except UserError as error:
            failed = {"failed": _reason(error), "message": str(error)}
            pose = {"registered": 0.0, "reason": failed["failed"], "doubts": []} | failed
            return ({"motion": failed} if motion else {}) | ({"pose": pose} if poses else {})
        found: dict[str, Any] = {}
        if motion:
            found["motion"] = self._motion(clip, masks)
        if poses:
            found["pose"] = self._pose(clip, clip.moving if clip.exact_masks else masks)
        return found

    def _motion(self, clip: Clip, masks: np.ndarray) -> dict[str, Any]:
        try:
            flow = self.flow.flow(clip.video[:-1], clip.video[1:])
            strength = MotionStrength.of(flow, masks[:-1])
            embeddings = self.embedder.embed(clip.video[::EVERY])
            found = {
                "motion_px": strength.px,
                "moving_share": strength.moving_share,
                "appearance": appearance_consistency(embeddings),
                "appearance_to_first": first_picture_consistency(embeddings),
            }
            if clip.moving is not None:
                found["motion_px_exact_masks"] = MotionStrength.of(flow, clip.moving[:-1]).px
        except UserError as error:
            return {"failed": _reason(error), "message": str(error)}
        return found

    def _pose(self, clip: Clip, masks: np.ndarray) -> dict[str, Any]:
        frames = slice(None, None, EVERY)
        video = clip.video[frames]
        try:
            found = self.sfm.reconstruct(
                video, dilate(masks[frames], _MASK_PIXELS), clip.asked.intrinsics[frames]
            )
        except UserError as error:
            return {"registered": 0.0, "reason": _reason(error), "message": str(error), "doubts": []}
        result: dict[str, Any] = {
            "registered": found.registered_share,
            "reason": found.reason,
            "doubts": list(doubts(found, video.shape[1:3])),
        }
        if not found.succeeded or len(video) < LEAST_FRAMES:
            # A similarity fits a few frames whatever they are: errors are those of whole clips alone.
            return result | {"reason": found.reason or "partial"}
        chosen = np.arange(len(clip.video))[frames][found.registered]
        errors = path_errors(found.cameras().world_from_camera, clip.asked.world_from_camera[chosen])
        length = errors.path_length
        return result | {
            "trans_err": errors.trans_err,
            "trans_err_share": errors.trans_err / length if length > 0 else None,
            "trans_err_aligned_share": errors.trans_err_aligned / length if length > 0 else None,
            "rot_err_deg": errors.rot_err_deg,
            "rot_err_aligned_deg": errors.rot_err_aligned_deg,
            "rot_err_first_deg": errors.rot_err_first_deg,
            "degenerate": errors.degenerate,
        }


def worth_another_try(record: Mapping[str, Any]) -> bool:
    """Whether a pose failed for reasons that lie in the machine, not in the clip."""
    clips = record.get("poses", {}).get("clips", {})
    return any(found.get("reason") in _MACHINE_FAULTS for found in clips.values())


def _reason(error: UserError) -> str:
    return error.reason if isinstance(error, ClipError) else type(error).__name__


def _key(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]
