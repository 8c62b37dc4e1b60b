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
        return Footprints(
            np.concatenate([self.center, other.center]),
            np.concatenate([self.half, other.half]),
            np.concatenate([self.yaw, other.yaw]),
            np.concatenate([self.margin, other.margin]),
        )

    def only(self, chosen: np.ndarray) -> Footprints:
        """Some of them, by a mask or indices."""
        return Footprints(self.center[chosen], self.half[chosen], self.yaw[chosen], self.margin[chosen])

    def distance(self, points: np.ndarray) -> np.ndarray:
        """Of points f64 [..., 2] to each outline, [..., K]; negative inside."""
        offset = points[..., None, :] - self.center
        cos, sin = np.cos(self.yaw), np.sin(self.yaw)
        x = np.abs(cos * offset[..., 0] - sin * offset[..., 1]) - self.half[:, 0]
        z = np.abs(sin * offset[..., 0] + cos * offset[..., 1]) - self.half[:, 1]
        outside = np.hypot(np.maximum(x, 0.0), np.maximum(z, 0.0))
        return outside + np.minimum(np.maximum(x, z), 0.0) - self.margin

    def nearest(self, points: np.ndarray) -> np.ndarray:
        """Distance [...] to the nearest outline; infinite where there is none."""
        return self.distance(points).min(axis=-1, initial=np.inf)


def first_hits(scene: Scene, t: int, eye: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What rays meet first at frame ``t``.

    Args:
        eye: f64 [3].
        rays: f64 [R, 3], of any length.

    Returns: slots i64 [R], ``SKY`` where they meet nothing, and the ray parameter f64 [R], infinite there.
    """
    present = np.flatnonzero(scene.half_size[FIRST_WALL:, 0] > 0) + FIRST_WALL
    half = scene.half_size[present].astype(np.float64)
    rotation = scene.rotation[t, present].astype(np.float64)
    origin = ((eye - scene.position[t, present])[:, None] @ rotation)[:, 0]  # [K, 3]
    ray = rays @ rotation  # [K, R, 3]
    start, stop = np.empty(ray.shape[:2]), np.empty(ray.shape[:2])
    for kind, first, last in scene.slots.kinds:
        few = slice(*np.searchsorted(present, (first, last)))
        start[few], stop[few] = _interval(
            kind, origin[few].T[..., None], np.moveaxis(ray[few], -1, 0), half[few].T[..., None]
        )
    start = np.where((start < stop) & (start > 1e-3), start, _FAR).T
    down = rays[:, 1] > 1e-9
    ground = np.where(down, -eye[1] / np.where(down, rays[:, 1], 1.0), _FAR)
    every = np.concatenate([ground[:, None], start], axis=1)
    first = every.argmin(axis=1)
    depth = every[np.arange(len(rays)), first]
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
    v, u = np.meshgrid((np.arange(rows) + 0.5) / rows, (np.arange(columns) + 0.5) / columns, indexing="ij")
    x, y = (u - intrinsics[2]) / intrinsics[0], (v - intrinsics[3]) / intrinsics[1]
    rays = np.stack([x, y, np.ones_like(x)], axis=-1).reshape(-1, 3) @ pose[:3, :3].T
    slots, depth = first_hits(scene, t, pose[:3, 3], rays)
    return slots.reshape(rows, columns), depth.reshape(rows, columns)
