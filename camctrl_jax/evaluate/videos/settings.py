"""What ``evaluate videos`` is asked to do, and what it looks at clips with."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from camctrl_jax.camera.reading import Reading
from camctrl_jax.errors import InvalidValue, MissingFile
from camctrl_jax.estimators.protocols import ClipEmbedder, MotionSegmenter, OpticalFlow, StructureFromMotion

LEAST_POSES = 3


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
