"""How a stored picture is turned and mirrored to be seen, and what that does to its camera."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

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
