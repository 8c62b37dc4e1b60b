"""Where a clip starts: a procedural world, a picture, or nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from camctrl_jax.camera.framing import Framing
from camctrl_jax.clip_shape import ClipShape
from camctrl_jax.errors import InvalidValue
from camctrl_jax.generate.request import Request
from camctrl_jax.video.decoding import SourceFrame, list_images, read_frames
from camctrl_jax.worlds import World, WorldsConfig, sample_world
from camctrl_jax.worlds.splits import HELD_OUT_FIRST_SEED


@dataclass(frozen=True)
class Start:
    """Where a clip starts.

    Attributes:
        world: whose first frame and truth are rendered, or None.
        image: the picture as it was decoded, or None for T2V and for worlds.
        first_frame: u8 [H, W, 3] of it, or None.
        framing: how the image was cropped and resized.
    """

    world: World | None = None
    image: SourceFrame | None = None
    first_frame: np.ndarray | None = None
    framing: Framing | None = None

    @property
    def given(self) -> bool:
        """Whether the first frame is given."""
        return self.world is not None or self.first_frame is not None


def start_of_request(request: Request, shape: ClipShape, fps: float) -> tuple[Start, tuple[str, ...]]:
    """The world or picture of a request, or neither; and what its user should know."""
    seed = request.worlds_seed
    if seed is not None:
        if seed < 0:
            raise InvalidValue(f"--worlds-seed {seed}: expected 0 or more.")
        notes = ()
        if seed < HELD_OUT_FIRST_SEED:
            notes = (
                f"world {seed} may be one of the training worlds; held-out are {HELD_OUT_FIRST_SEED} and "
                "above.",
            )
        config = WorldsConfig(frames=shape.frames, fps=fps, aspect=shape.width / shape.height)
        return Start(world=sample_world(seed, config)), notes
    if request.image is not None:
        return _start_of_image(request.image, shape)
    return Start(), ()


def _start_of_image(path: Path, shape: ClipShape) -> tuple[Start, tuple[str, ...]]:
    if path.is_dir() and list_images(path):
        path = list_images(path)[0]
    frame = next(read_frames(path))
    notes = tuple(f"{path}: {remark}" for remark in frame.remarks)
    framing = Framing.cover(frame.size, (shape.height, shape.width))
    frame = replace(frame, name=path.name)
    return Start(image=frame, first_frame=frame.rgb(framing), framing=framing), notes
