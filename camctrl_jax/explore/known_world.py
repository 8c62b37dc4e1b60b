"""What is known of where an exploration goes: its procedural world, or points that were found in its clips.

The things of a world move as long as its own clip lasts, and rest from then on where they are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial import cKDTree

from camctrl_jax.camera import Cameras
from camctrl_jax.worlds import World, render_rgb
from camctrl_jax.worlds.paths import solid_distances
from camctrl_jax.worlds.scene import FIRST_WALL
from camctrl_jax.worlds.windows import at_frames

CLOSE = 0.2
"""Metres from a surface that a path is warned of; paths of training stay 0.4 away."""
_POINTS = 10  # so near, that are no mistake of the sweep

Told = dict[str, str]


@dataclass(frozen=True)
class KnownWorld:
    """A world, and cameras in it that are given in the frame of an exploration that began in it."""

    world: World

    def along(self, cameras: Cameras, first: int) -> World:
        """The world along other cameras than its own, the first of which is of frame ``first`` of a line."""
        times = np.minimum(np.arange(first, first + len(cameras)), self.world.frames - 1)
        origin = self.world.cameras.world_from_camera[0]
        return replace(at_frames(self.world, times), cameras=cameras.transformed(origin))

    def render(self, cameras: Cameras, first: int, height: int, width: int) -> np.ndarray:
        """What they see, u8 [T, H, W, 3]."""
        return np.asarray(render_rgb([self.along(cameras, first)], height, width))[0]

    def warnings(self, cameras: Cameras, first: int) -> list[Told]:
        """Whether a path runs into something, or comes close to it, and what that is."""
        seen = self.along(cameras, first)
        centers = seen.cameras.positions
        present = np.flatnonzero(seen.scene.half_size[FIRST_WALL:, 0] > 0) + FIRST_WALL
        distances = solid_distances(seen.scene, centers, present)  # [T, K]
        distances = np.concatenate([-centers[:, 1:2], distances], axis=1)  # the ground is y = 0, y down
        frame, column = np.unravel_index(int(distances.argmin()), distances.shape)
        name = "ground" if column == 0 else seen.instance_names.get(int(present[column - 1]) + 1, "thing")
        least = float(distances[frame, column])
        if least >= CLOSE:
            return []
        into = np.flatnonzero(distances[:, column] < 0)
        if len(into):
            return [_warning(f"The camera runs into the {name} at frame {into[0]} of this path.")]
        return [_warning(f"The camera comes within {least:.2f} m of the {name} at frame {frame}.")]


def warnings_of_points(cameras: Cameras, points: cKDTree) -> list[Told]:
    """Whether a path runs through points [P, 3] that were found in its exploration, in the same frame."""
    if not points.n:
        return []
    found = points.query_ball_point(cameras.positions, CLOSE, return_length=True)
    frame = int(np.argmax(np.asarray(found) >= _POINTS))
    if found[frame] < _POINTS:
        return []
    return [
        _warning(
            f"The camera comes within {CLOSE:g} m of {found[frame]} points of the 3-D of an earlier clip, at "
            f"frame {frame}: something stands there."
        )
    ]


def _warning(message: str) -> Told:
    return {"type": "geometry", "message": message}
