"""Structure from motion by pycolmap, incremental or global, in a process of its own.

A native crash or a mapper that does not end costs the clip, never the caller: the worker
(:mod:`camctrl_jax.estimators.colmap_worker`, the only file that imports pycolmap) runs in a process group
that is killed when its time is up, and what it wrote is read from disk.
"""

from __future__ import annotations

import importlib.metadata
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from camctrl_jax.camera.intrinsics import intrinsics_in_pixels
from camctrl_jax.errors import InvalidValue
from camctrl_jax.estimators.colmap_models import read_models
from camctrl_jax.estimators.process import Installation, Program, working_folder, write_masks, write_pictures
from camctrl_jax.estimators.protocols import (
    EstimatorFailed,
    Fingerprint,
    SfmResult,
    checked_frames,
    checked_intrinsics,
    checked_masks,
)
from camctrl_jax.extras import MissingExtra
from camctrl_jax.files.json_file import write_json

MODES = ("incremental", "global")
PINHOLES = ("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV")


@dataclass(frozen=True)
class Colmap:
    """Structure from motion without weights: SIFT, matching, and COLMAP's mapper.

    Attributes:
        mode: "incremental", or "global" (GLOMAP). A global model without points is no model and is reported
            as ``no_points``: it "registers" every frame of clips that cannot be reconstructed.
        camera_model: of unknown cameras: SIMPLE_PINHOLE for generated pictures, SIMPLE_RADIAL for real
            lenses. Known intrinsics are taken as PINHOLE and are not refined.
        one_camera: whether unknown intrinsics are the same in all frames. With a zoom they are not.
        features: at most so many a frame.
        peak_threshold: of SIFT, smaller finds more; COLMAP's own 0.0067 leaves small pictures bare.
        enlarge_to: pictures whose longer side is smaller are enlarged to about so many pixels before features
            are looked for; 0 never does. Everything comes back in pixels of the frames given.
        exhaustive_to: clips of up to so many frames are matched frame by frame with all others; longer ones
            with ``overlap`` neighbours.
        min_model_size: frames of the smallest model that counts. COLMAP's own 10 loses every clip of 2 s.
        init_min_tri_angle: degrees between the rays of the first pair; COLMAP's own 16 is much for a short
            clip.
        init_min_inliers, pose_min_inliers: points that the first pair shares, and that a further frame must
            show; COLMAP's own 100 and 30 are more than small pictures have.
        min_tri_angle: degrees, of a point that counts.
        max_error: pixels of the pictures that features are looked for in, for matches and points.
        random_seed: results repeat with one thread.
        threads: of features, matching and mapping.
        time_limit: seconds for a clip; the mapper is told to stop at nine tenths of it.
        keep_failed, work_in: as in :class:`~camctrl_jax.estimators.process.Installation`.
    """

    mode: str = "incremental"
    camera_model: str = "SIMPLE_PINHOLE"
    one_camera: bool = True
    features: int = 2048
    peak_threshold: float = 0.003
    enlarge_to: int = 640
    exhaustive_to: int = 64
    overlap: int = 10
    min_model_size: int = 3
    init_min_tri_angle: float = 4.0
    init_min_inliers: int = 40
    pose_min_inliers: int = 15
    min_tri_angle: float = 1.5
    max_error: float = 2.0
    random_seed: int = 0
    threads: int = 1
    time_limit: float = 300.0
    keep_failed: bool = False
    work_in: Path | None = None

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise InvalidValue(f"mode is {self.mode!r}; expected one of {MODES}.")
        if self.camera_model not in PINHOLES:
            raise InvalidValue(f"camera_model is {self.camera_model!r}; expected one of {PINHOLES}.")

    def fingerprint(self) -> Fingerprint:
        unimportant = ("keep_failed", "work_in", "time_limit")
        settings = tuple((k, v) for k, v in sorted(vars(self).items()) if k not in unimportant)
        return Fingerprint("colmap", f"pycolmap {_version()}", settings)

    def check(self) -> None:
        """Raise MissingExtra where pycolmap is not installed."""
        _version()

    def reconstruct(
        self,
        frames: np.ndarray,
        masks: np.ndarray | None = None,
        intrinsics: np.ndarray | None = None,
        times: np.ndarray | None = None,
    ) -> SfmResult:
        """See :class:`~camctrl_jax.estimators.protocols.StructureFromMotion`; ``times`` are not used.

        Returns:
            FAILED with ``no_model``, ``no_points``, ``timeout`` or ``crashed`` where there is nothing to see,
            one frame only, no motion, or a worker that failed.
        """
        frames = checked_frames(frames)
        masks = checked_masks(masks, frames)
        known = checked_intrinsics(intrinsics, len(frames))
        self.check()
        started = time.monotonic()
        if len(frames) < 2:
            return SfmResult.failed(len(frames), "no_model", "one frame has no motion.")
        program = self.program()
        try:
            with working_folder(program) as work:
                return self._reconstruct(program, work, frames, masks, known, started)
        except EstimatorFailed as failure:
            seconds = time.monotonic() - started
            return SfmResult.failed(len(frames), failure.reason, str(failure), seconds)

    def program(self) -> Program:
        """The worker, with its limits."""
        place = Installation(
            sys.executable,
            environment=(("OMP_NUM_THREADS", str(max(1, self.threads))),),
            time_limit=self.time_limit,
            keep_failed=self.keep_failed,
            work_in=self.work_in,
        )
        worker = str(Path(__file__).with_name("colmap_worker.py"))
        return Program("colmap", (("{python}", worker, "{work}"),), place)

    def enlargement(self, size: tuple[int, int]) -> int:
        """How many times pictures of (height, width) are enlarged before features are looked for."""
        return max(1, round(self.enlarge_to / max(size)))

    def job(self, names: list[str], scale: int, *, masked: bool) -> dict[str, Any]:
        """What the worker is told of its settings and pictures; ``intrinsics_px`` is still to be added."""
        settings = {k: v for k, v in vars(self).items() if k not in ("keep_failed", "work_in")}
        return settings | {"names": names, "masked": masked, "scale": scale}

    def _reconstruct(
        self,
        program: Program,
        work: Path,
        frames: np.ndarray,
        masks: np.ndarray | None,
        known: np.ndarray | None,
        started: float,
    ) -> SfmResult:
        height, width = frames.shape[1:3]
        names = write_pictures(work / "images", frames)
        if masks is not None:
            write_masks(work / "masks", masks, ignored=0, suffix=".png")
        scale = self.enlargement((height, width))
        pixels = (
            None if known is None else intrinsics_in_pixels(known, height * scale, width * scale).tolist()
        )
        write_json(
            work / "job.json", self.job(names, scale, masked=masks is not None) | {"intrinsics_px": pixels}
        )
        program.run(work, {})
        result = read_models(work / "sparse", names, (height, width), seconds=time.monotonic() - started)
        if result.reason == "no_points":
            return SfmResult.failed(len(frames), "no_points", result.message, result.seconds)
        # Errors are in pixels of the enlarged pictures.
        return replace(result, mean_reprojection_error=result.mean_reprojection_error / scale)


def _version() -> str:
    try:
        return importlib.metadata.version("pycolmap")
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingExtra(
            "pycolmap is needed here but is not installed. Install it with: pip install 'camctrl_jax[eval]'"
        ) from error
