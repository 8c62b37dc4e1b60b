"""Cameras estimated from clips by structure from motion, against the paths that were asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from camctrl_jax.errors import UserError
from camctrl_jax.estimators.checks import doubts
from camctrl_jax.estimators.colmap import Colmap
from camctrl_jax.estimators.protocols import StructureFromMotion, dilate
from camctrl_jax.evaluate.worlds.truth import Truth
from camctrl_jax.metrics.trajectories import path_errors

EVERY = 3
"""Every how many frames a camera is estimated."""

LEAST_FRAMES = 3
_MASK_PIXELS = 3  # that masks of moving things are grown by


@dataclass(frozen=True)
class PoseCheck:
    """Structure from motion on clips whose lens is known and whose moving things are masked.

    Attributes:
        estimator: what estimates.
    """

    estimator: StructureFromMotion

    @classmethod
    def default(cls) -> PoseCheck:
        """COLMAP, incremental, as it is set for pictures of this size.

        Raises:
            MissingExtra: pycolmap is not installed.
        """
        estimator = Colmap(time_limit=120.0)
        estimator.check()
        return cls(estimator)

    def of_scene(self, truth: Truth, samples: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Errors by name: "truth" (the floor) and each sample; a clip without cameras has a reason.

        Masks are those of the truth, also for samples: what moves there is not known.
        """
        return {
            name: self._of_clip(video, truth) for name, video in {"truth": truth.video, **samples}.items()
        }

    def _of_clip(self, video: np.ndarray, truth: Truth) -> dict[str, Any]:
        frames, cameras = slice(None, None, EVERY), truth.case.world.cameras
        masks = dilate(truth.regions["moving"][frames], _MASK_PIXELS)
        try:
            found = self.estimator.reconstruct(video[frames], masks, cameras.intrinsics[frames])
        except UserError as error:
            return {"registered": 0.0, "reason": type(error).__name__, "message": str(error), "doubts": []}
        result: dict[str, Any] = {
            "registered": found.registered_share,
            "reason": found.reason,
            "doubts": list(doubts(found, video.shape[1:3])),
        }
        if not found.succeeded or len(video[frames]) < LEAST_FRAMES:
            # A similarity fits a few frames whatever they are: errors are those of whole clips alone.
            return result | {"reason": found.reason or "partial"}
        chosen = np.arange(len(video))[frames][found.registered]
        errors = path_errors(found.cameras().world_from_camera, cameras.world_from_camera[chosen])
        length = errors.path_length
        return result | {
            "trans_err": errors.trans_err,
            "trans_err_share": errors.trans_err / length if length > 1e-6 else None,
            "rot_err_deg": errors.rot_err_deg,
            "rot_err_aligned_deg": errors.rot_err_aligned_deg,
            "rot_err_first_deg": errors.rot_err_first_deg,
            "degenerate": errors.degenerate,
        }
