"""Sparse points of a clip whose cameras are known, by COLMAP: features and matches, nothing else is unknown.

In the same process of its own as structure from motion (:mod:`camctrl_jax.estimators.colmap`). Poses and
intrinsics stay as they are given, so the points are in their world and unit.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from camctrl_jax.camera.cameras import Cameras
from camctrl_jax.camera.formats import save_cameras
from camctrl_jax.camera.intrinsics import intrinsics_in_pixels
from camctrl_jax.errors import InvalidValue
from camctrl_jax.estimators.colmap import Colmap
from camctrl_jax.estimators.colmap_models import read_colours, read_models
from camctrl_jax.estimators.process import working_folder, write_masks, write_pictures
from camctrl_jax.estimators.protocols import (
    EstimatorFailed,
    PointCloud,
    SfmResult,
    checked_frames,
    checked_masks,
)
from camctrl_jax.files.json_file import write_json


@dataclass(frozen=True)
class Triangulation:
    """Points by pycolmap with known cameras.

    Attributes:
        colmap: how features are looked for and matched, and which points count; what it says of finding poses
            is not used. With poses that are right, stricter limits than those of structure from motion pay.
    """

    colmap: Colmap = field(default_factory=lambda: Colmap(min_tri_angle=3.0, max_error=1.0))

    def reconstruct(
        self, frames: np.ndarray, cameras: Cameras, masks: np.ndarray | None = None
    ) -> tuple[SfmResult, PointCloud]:
        """The given cameras with points and observations, and the points with their colours.

        Args:
            frames: u8 [T, H, W, 3].
            cameras: of all of them.
            masks: bool [T, H, W], True = ignore.

        Raises:
            EstimatorFailed: ``timeout``, ``crashed``, or ``no_result`` where no point could be triangulated.
            MissingExtra: pycolmap is not installed.
        """
        frames = checked_frames(frames)
        masks = checked_masks(masks, frames)
        if len(cameras) != len(frames):
            raise InvalidValue(
                f"there are {len(cameras)} poses for {len(frames)} frames; each needs its own."
            )
        self.colmap.check()
        program = self.colmap.program()
        with working_folder(program) as work:
            return self._reconstruct(program, work, frames, cameras, masks)

    def _reconstruct(self, program, work: Path, frames, cameras: Cameras, masks):
        started = time.monotonic()
        height, width = frames.shape[1:3]
        names = write_pictures(work / "images", frames)
        if masks is not None:
            write_masks(work / "masks", masks, ignored=0, suffix=".png")
        scale = self.colmap.enlargement((height, width))
        larger = height * scale, width * scale
        save_cameras(cameras, work / "known", format="colmap", image_size=larger, names=names)
        job = self.colmap.job(names, scale, masked=masks is not None)
        pixels = intrinsics_in_pixels(cameras.intrinsics, *larger).tolist()
        write_json(work / "job.json", job | {"mode": "triangulate", "intrinsics_px": pixels})
        program.run(work, {})
        found = read_models(work / "sparse", names, (height, width), seconds=time.monotonic() - started)
        if not len(found.points):
            raise EstimatorFailed(
                "no_result",
                "COLMAP found no points: too little texture, too little parallax, or poses that do not fit "
                "the pictures.",
            )
        points, colours = read_colours(work / "sparse" / "0")
        return found, PointCloud(points, colours, np.ones(len(points), np.float32), cameras, cameras.metric)
