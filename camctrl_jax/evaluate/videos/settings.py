"""What ``evaluate videos`` is asked to do, and what it looks at clips with."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from camctrl_jax.camera.reading import Reading
from camctrl_jax.errors import InvalidValue, MissingFile
from camctrl_jax.estimators.protocols import (
    ClipEmbedder,
    MotionSegmenter,
    OpticalFlow,
    StructureFromMotion,
    VideoEmbedder,
    for_clip,
)

LEAST_POSES = 3
LEAST = {"pose_frames": LEAST_POSES, "longest_side": 64, "clip_frames": 2, "jobs": 1, "shown": 0}
"""Of the settings that count something."""

_OF_FRAMES = ("flow", "masks", "sfm", "embedder")


@dataclass(frozen=True)
class Estimators:
    """What looks at the clips.

    Attributes:
        flow: between consecutive frames, for motion strength.
        masks: what moves.
        sfm: camera poses.
        embedder: for appearance consistency.
        video_features: one vector a clip, for the Frechet distance to the reference; None leaves it out.
    """

    flow: OpticalFlow
    masks: MotionSegmenter
    sfm: StructureFromMotion
    embedder: ClipEmbedder
    video_features: VideoEmbedder | None = None

    def described(self) -> dict[str, Any]:
        """Names, versions and parameters of all but the video features, JSON-able: what results depend on."""
        return {name: asdict(getattr(self, name).fingerprint()) for name in _OF_FRAMES}

    def for_clip(self, name: str) -> Estimators:
        """The same, bound to a clip's name where one imports results that lie in a file for each clip.

        Video features stay as they are: they see a generated clip and its reference, which have one name.
        """
        bound = {each: for_clip(getattr(self, each), name) for each in _OF_FRAMES}
        if all(bound[each] is getattr(self, each) for each in _OF_FRAMES):
            return self
        return replace(self, **bound)


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
        clip_frames: videos at least twice as long are explorations, made clip by clip, so many new frames
            each (the first has what is left over besides): their appearance is also measured from clip to
            clip. None takes none for one.
        jobs: clips that are measured at a time; results do not depend on it.
        shown: clips on each of ``best.png`` and ``worst.png``.
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
    clip_frames: int | None = None
    jobs: int = 1
    shown: int = 3

    def __post_init__(self) -> None:
        for name, value in LEAST.items():
            given = getattr(self, name)
            if given is not None and given < value:
                raise InvalidValue(f"--{name.replace('_', '-')} {given}: expected {value} or more.")
        if not 0 < self.fps < math.inf:
            raise InvalidValue(f"--fps {self.fps:g}: expected a positive number.")
        for name in ("generated", "cameras", "reference"):
            path = getattr(self, name)
            if path is not None and not path.is_dir():
                raise MissingFile(f"--{name} {path}: no such folder.")
