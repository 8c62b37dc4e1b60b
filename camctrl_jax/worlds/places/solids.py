"""Solids of a scene on the host: how far they are seen from above, and what rays meet.

The renderer answers the same for every pixel on a device; this answers for a few hundred rays while a world
is being sampled, in float64 and without compiling anything.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from camctrl_jax.worlds.scene import FIRST_WALL, GROUND, Scene

SKY = -1
_FAR = 1e9


@dataclass(frozen=True)
class Footprints:
    """Outlines on the ground: rectangles, each widened by a margin with round corners; discs have no sides.

    ``center`` f64 [K, 2] (x, z); ``half`` f64 [K, 2] along the sides; ``yaw`` f64 [K]; ``margin`` f64 [K].
    """

    center: np.ndarray
    half: np.ndarray
    yaw: np.ndarray
    margin: np.ndarray

    @classmethod
    def none(cls) -> Footprints:
        return cls(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0), np.zeros(0))

    @classmethod
    def discs(cls, center: np.ndarray, radius: float) -> Footprints:
        count = len(center)
        return cls(
            center, np.zeros((count, 2)), np.zeros(count), np.broadcast_to(radius, count).astype(float)
        )

    def with_more(self, other: Footprints) -> Footprints:
        if not len(other.yaw):
            return self
        return Footprints(
            np.concatenate([self.center, other.center]),
            np.concatenate([self.half, other.half]),
            np.concatenate([self.yaw, other.yaw]),
            np.concatenate([self.margin, other.margin]),
        )

    def only(self, chosen: np.ndarray) -> Footprints:
        """Some of them, by a mask or indices."""
        return Footprints(self.center[chosen], self.half[chosen], self.yaw[chosen], self.margin[chosen])

    def nearest(self, points: np.ndarray, within: float = np.inf) -> np.ndarray:
        """Distance [...] of points f64 [..., 2] to the nearest outline, negative inside; infinite where there
        is none. Outlines farther than ``within`` from the box of all points may be left out."""
        flat = points.reshape(-1, 2)
        chosen = self if np.isinf(within) or not len(flat) else self._near(flat, within)
        disc = ~chosen.half.any(axis=1)
        nearest = np.full(len(flat), np.inf)
        if disc.any():
            x, z = (flat[:, axis, None] - chosen.center[disc, axis] for axis in range(2))
            x *= x
            z *= z
            x += z
            np.sqrt(x, out=x)
            x -= chosen.margin[disc]
            nearest = x.min(axis=1)
        if not disc.all():
            some = chosen.only(~disc)
            offset = flat[:, None] - some.center
            cos, sin = np.cos(some.yaw), np.sin(some.yaw)
            x = np.abs(cos * offset[..., 0] - sin * offset[..., 1]) - some.half[:, 0]
            z = np.abs(sin * offset[..., 0] + cos * offset[..., 1]) - some.half[:, 1]
            outside = np.sqrt(np.square(np.maximum(x, 0.0)) + np.square(np.maximum(z, 0.0)))
            distance = outside + np.minimum(np.maximum(x, z), 0.0) - some.margin
            nearest = np.minimum(nearest, distance.min(axis=1))
        return nearest.reshape(points.shape[:-1])

    def _near(self, points: np.ndarray, within: float) -> Footprints:
        """Those whose bounding circle comes within a distance of the box round points [N, 2]."""
        low, high = points.min(axis=0), points.max(axis=0)
        away = np.maximum(np.maximum(low - self.center, self.center - high), 0.0)
        reach = np.sqrt(np.square(self.half).sum(axis=1)) + self.margin + within
        return self.only(np.square(away).sum(axis=1) <= np.square(reach))


def first_hits(
    scene: Scene, t: int, eye: np.ndarray, rays: np.ndarray, slots: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """What rays meet first at frame ``t``.

    Args:
        eye: f64 [3].
        rays: f64 [R, 3], of any length.
        slots: ascending, of the solids that rays may meet; None: all.

    Returns: slots i64 [R], ``SKY`` where they meet nothing, and the ray parameter f64 [R], infinite there.
    """
    present = np.flatnonzero(scene.half_size[FIRST_WALL:, 0] > 0) + FIRST_WALL if slots is None else slots
    half = scene.half_size[present].astype(np.float64)
    rotation = scene.rotation[t, present].astype(np.float64)
    origin = ((eye - scene.position[t, present])[:, None] @ rotation)[:, 0]  # [K, 3]
    ray = rotation.transpose(2, 0, 1) @ rays.T  # [3, K, R]
    start, stop = np.empty(ray.shape[1:]), np.empty(ray.shape[1:])
    for kind, first, last in scene.slots.kinds:
        few = slice(*np.searchsorted(present, (first, last)))
        start[few], stop[few] = _interval(kind, origin[few].T[..., None], ray[:, few], half[few].T[..., None])
    start = np.where((start < stop) & (start > 1e-3), start, _FAR)
    down = rays[:, 1] > 1e-9
    ground = np.where(down, -eye[1] / np.where(down, rays[:, 1], 1.0), _FAR)
    every = np.concatenate([ground[None], start])
    first = every.argmin(axis=0)
    depth = every[first, np.arange(len(rays))]
    slot = np.concatenate([[GROUND], present])[first]
    return np.where(depth < _FAR, slot, SKY), np.where(depth < _FAR, depth, np.inf)


def _interval(
    kind: str, origin: np.ndarray, ray: np.ndarray, half: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where rays [3, K, R] from [3, K, 1] enter and leave solids, in the solids' own axes."""
    (x, y, z), (dx, dy, dz) = origin, ray
    if kind == "sphere":
        return _roots(
            dx * dx + dy * dy + dz * dz,
            dx * x + dy * y + dz * z,
            x * x + y * y + z * z - half[0] ** 2,
        )
    near_y, far_y = _slab(y, dy, half[1])
    if kind == "cylinder":
        near, far = _roots(dx * dx + dz * dz, dx * x + dz * z, x * x + z * z - half[0] ** 2)
    else:
        (near, far), (near_z, far_z) = _slab(x, dx, half[0]), _slab(z, dz, half[2])
        near, far = np.maximum(near, near_z), np.minimum(far, far_z)
    return np.maximum(near, near_y), np.minimum(far, far_y)


def _slab(origin: np.ndarray, ray: np.ndarray, half: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    inverse = 1.0 / np.where(np.abs(ray) < 1e-9, 1e-9, ray)
    middle, reach = -origin * inverse, half * np.abs(inverse)
    return middle - reach, middle + reach


def _roots(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    root, a = b * b - a * c, np.maximum(a, 1e-18)
    spread = np.sqrt(np.maximum(root, 0.0))
    return np.where(root > 0, (-b - spread) / a, _FAR), np.where(root > 0, (spread - b) / a, -_FAR)


def glance(
    scene: Scene, t: int, pose: np.ndarray, intrinsics: np.ndarray, rows: int = 12, columns: int = 20
) -> tuple[np.ndarray, np.ndarray]:
    """Slots i64 and z-depth f64 [rows, columns] of a coarse picture from ``pose`` [4, 4] at frame ``t``."""
    rays = np.ones((rows, columns, 3))
    rays[..., 0] = ((np.arange(columns) + 0.5) / columns - intrinsics[2]) / intrinsics[0]
    rays[..., 1] = (((np.arange(rows) + 0.5) / rows - intrinsics[3]) / intrinsics[1])[:, None]
    rays = rays.reshape(-1, 3) @ pose[:3, :3].T
    eye = pose[:3, 3]
    slots, depth = first_hits(scene, t, eye, rays, _in_picture(scene, t, pose, intrinsics))
    return slots.reshape(rows, columns), depth.reshape(rows, columns)


def _in_picture(scene: Scene, t: int, pose: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """Slots of the solids whose bounding ball is not wholly beyond one side of a picture's pyramid."""
    half = scene.half_size[FIRST_WALL:].astype(np.float64)
    local = (scene.position[t, FIRST_WALL:] - pose[:3, 3]) @ pose[:3, :3]
    fx, fy, cx, cy = intrinsics
    sides = np.array([[fx, 0, cx], [-fx, 0, 1 - cx], [0, fy, cy], [0, -fy, 1 - cy], [0, 0, 1]])
    radius = np.sqrt(np.square(half).sum(axis=1)) + 1e-6
    reach = radius[:, None] * np.sqrt(np.square(sides).sum(axis=1))
    return np.flatnonzero((half[:, 0] > 0) & (local @ sides.T > -reach).all(axis=1)) + FIRST_WALL
