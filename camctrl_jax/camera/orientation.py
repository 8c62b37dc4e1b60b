"""How a stored picture is turned and mirrored to be seen, and what that does to its camera."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from camctrl_jax.camera.cameras import Cameras
from camctrl_jax.camera.interpolation import flip_horizontal


@dataclass(frozen=True)
class Orientation:
    """From the picture as stored to the picture as shown: first mirrored left to right, then turned.

    Attributes:
        quarter_turns: counter-clockwise, 0 to 3.
        mirrored: whether left and right change places before the turn.
    """

    quarter_turns: int = 0
    mirrored: bool = False

    def size(self, stored: tuple[int, int]) -> tuple[int, int]:
        """(height, width) as shown."""
        return stored[::-1] if self.quarter_turns % 2 else stored

    def apply(self, pictures: np.ndarray) -> np.ndarray:
        """Pictures [..., H, W, C] as shown; a view."""
        if self.mirrored:
            pictures = pictures[..., :, ::-1, :]
        return np.rot90(pictures, self.quarter_turns, axes=(-3, -2)) if self.quarter_turns else pictures

    def cameras(self, stored: Cameras) -> Cameras:
        """The cameras of the shown pictures, given those that belong to the stored ones."""
        cameras = flip_horizontal(stored) if self.mirrored else stored
        for _ in range(self.quarter_turns):
            cameras = _turned(cameras)
        return cameras


_SQUARE = 0.02  # of a side: pictures that are this square lie in neither direction


def told_by_size(
    told: tuple[int, int] | None, stored: tuple[int, int], shown: tuple[int, int]
) -> Literal["stored", "shown", "unknown"]:
    """Whether cameras belong to a turned picture as it is stored or as it is shown, by the size they are for.

    Upright or lying is all that is compared: cameras are often made from a smaller copy of another shape.

    Args:
        told: (height, width) of the pictures that the cameras were made from; None where nothing says it.
        stored, shown: (height, width) of the picture.
    """
    leans = [0 if size is None else _lean(size) for size in (told, stored, shown)]
    if leans[1] == leans[2] or 0 in leans:
        return "unknown"
    return "stored" if leans[0] == leans[1] else "shown"


def _lean(size: tuple[int, int]) -> int:
    """1 of an upright picture, -1 of a lying one, 0 of a square."""
    ratio = size[0] / size[1]
    return 0 if abs(ratio - 1.0) < _SQUARE else int(math.copysign(1, ratio - 1.0))


def _turned(cameras: Cameras) -> Cameras:
    """Cameras of pictures that are turned once, counter-clockwise.

    A pixel at (x, y) of the picture, as fractions, comes to (y, 1 - x): what was right is now up.
    """
    # Columns are the new camera's axes in the old camera: x is the old y, y is minus the old x.
    old_from_new = np.array(
        [[0.0, -1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0, 0, 0, 1.0]]
    )
    fx, fy, cx, cy = cameras.intrinsics.T
    return dataclasses.replace(
        cameras,
        world_from_camera=cameras.world_from_camera @ old_from_new,
        intrinsics=np.stack([fy, fx, cy, 1.0 - cx], axis=1),
    )
