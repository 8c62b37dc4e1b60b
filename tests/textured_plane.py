"""Exact pictures of a textured plane along a path, by intersecting every pixel's ray with it."""

import numpy as np

from camctrl_jax.camera.cameras import Cameras

NORMAL, OFFSET = np.array([0.25, 0.15, -1.0]), -3.0  # points with NORMAL @ x == OFFSET: 3 ahead of the origin
LENS = np.array([0.75, 1.0, 0.48, 0.53])
_WAVES = np.random.default_rng(5).uniform(-1, 1, (12, 3))


def truck(frames=7, length=0.6, lens=LENS, metric=True):
    """A camera that goes to the right and a little ahead, turning slightly."""
    poses = np.tile(np.eye(4), (frames, 1, 1))
    along = np.linspace(0, 1, frames)
    angle = np.radians(4.0) * along
    poses[:, 0, 0] = poses[:, 2, 2] = np.cos(angle)
    poses[:, 0, 2], poses[:, 2, 0] = -np.sin(angle), np.sin(angle)
    poses[:, 0, 3], poses[:, 2, 3] = length * along, 0.1 * length * along
    return Cameras(poses, lens, metric=metric)


def plane_video(cameras, size, offset=OFFSET):
    """Frames u8 [T, H, W, 3] and z-depth f64 [T, H, W]."""
    height, width = size
    v, u = np.meshgrid((np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing="ij")
    frames, depths = [], []
    for pose, lens in zip(cameras.world_from_camera, cameras.intrinsics):
        rays = np.stack([(u - lens[2]) / lens[0], (v - lens[3]) / lens[1], np.ones_like(u)], -1)
        towards = rays @ pose[:3, :3].T
        depth = (offset - NORMAL @ pose[:3, 3]) / (towards @ NORMAL)
        points = pose[:3, 3] + depth[..., None] * towards
        value = sum(
            np.sin(3.0 / abs(offset) * (3 + 8 * abs(wave[2])) * (points[..., :2] @ wave[:2]) + 9 * wave[2])
            for wave in _WAVES
        )
        grey = 128 + 25 * value
        frames.append(np.clip(np.stack([grey, 0.8 * grey + 20, 255 - grey], -1), 0, 255))
        depths.append(depth)
    return np.rint(np.stack(frames)).astype(np.uint8), np.stack(depths)
