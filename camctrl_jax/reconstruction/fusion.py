"""One coloured cloud out of many depth maps, each surface stored once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from camctrl_jax.camera.cameras import Cameras
from camctrl_jax.estimators.protocols import PointCloud


def unprojected(
    depth: np.ndarray, pose: np.ndarray, lens: np.ndarray, chosen: np.ndarray | None = None
) -> np.ndarray:
    """Points of a depth map in the world.

    Args:
        depth: [H, W], z-depth.
        pose: world-from-camera [4, 4]; lens: fractions [4].
        chosen: bool [H, W], which pixels; None is all.

    Returns:
        f64 [P, 3], in the order of the pixels.
    """
    height, width = depth.shape
    rows, columns = np.nonzero(np.ones(depth.shape, bool) if chosen is None else chosen)
    z = depth[rows, columns].astype(np.float64)
    x = ((columns + 0.5) / width - lens[2]) / lens[0] * z
    y = ((rows + 0.5) / height - lens[3]) / lens[1] * z
    return np.stack([x, y, z], axis=-1) @ pose[:3, :3].T + pose[:3, 3]


def fused_cloud(
    depth: np.ndarray,
    frames: np.ndarray,
    cameras: Cameras,
    *,
    spacing: float = 1.0,
) -> PointCloud:
    """The points of depth maps, thinned by voxels whose side is a part of a pixel at their distance.

    Points of one voxel become their mean, colour and all. A pixel's footprint grows with distance, so voxels
    do, by powers of two: what is seen close by keeps its detail, what is far is not stored from every frame.

    Args:
        depth: f32 [K, H, W], NaN where unknown; in the unit of the poses.
        frames: u8 [K, H, W, 3].
        cameras: of the K frames.
        spacing: side of a voxel, pixels.

    Returns:
        The cloud; ``confidence`` is the number of pixels that a point was made of.
    """
    points, colours, weights, sizes = [], [], [], []
    known = depth[np.isfinite(depth)]
    # The scene's own length: scaled as a whole, it is thinned alike.
    unit = (
        spacing * float(np.median(known)) / (cameras.intrinsics[0, 0] * depth.shape[2]) if known.size else 1.0
    )
    for k in range(len(depth)):
        kept = np.isfinite(depth[k])
        points.append(unprojected(depth[k], cameras.world_from_camera[k], cameras.intrinsics[k], kept))
        colours.append(frames[k][kept].astype(np.float32))
        weights.append(np.ones(kept.sum()))
        sizes.append(
            spacing * depth[k][kept].astype(np.float64) / (cameras.intrinsics[k, 0] * depth.shape[2])
        )
        if k % 8 == 7 or k == len(depth) - 1:  # thinned as we go: memory is that of the cloud
            joined = _thinned(*map(np.concatenate, (points, colours, weights, sizes)), unit)
            points, colours, weights, sizes = ([part] for part in joined)
    points, colours, weights, _ = (part[0] for part in (points, colours, weights, sizes))
    return PointCloud(
        points,
        np.clip(np.rint(colours), 0, 255).astype(np.uint8),
        weights.astype(np.float32),
        cameras,
        cameras.metric,
    )


def _thinned(
    points: np.ndarray, colours: np.ndarray, weights: np.ndarray, sizes: np.ndarray, unit: float
) -> Sequence[np.ndarray]:
    """Weighted means over voxels of about ``sizes``: ``unit`` times powers of two."""
    if not len(points):
        return points, colours, weights, sizes
    level = np.round(np.log2(sizes / unit)).astype(np.int64)
    cells = np.floor(points / (unit * np.exp2(level))[:, None]).astype(np.int64)
    keys = np.concatenate([level[:, None], cells], axis=1)
    _, owner = np.unique(keys, axis=0, return_inverse=True)
    owner = owner.reshape(-1)
    total = np.bincount(owner, weights)

    def mean(values: np.ndarray) -> np.ndarray:
        return np.bincount(owner, weights * values) / total

    def rows(values: np.ndarray) -> np.ndarray:
        return np.stack([mean(values[:, axis]) for axis in range(3)], axis=1)

    return rows(points), rows(colours), total, mean(sizes)
