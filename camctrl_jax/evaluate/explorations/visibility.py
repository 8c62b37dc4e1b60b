"""What an exploration has shown before: exact, from depth, poses, instances and what stands in between."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from camctrl_jax.camera import Cameras
from camctrl_jax.worlds import World
from camctrl_jax.worlds.rendering import (
    FAR,
    at_frame,
    in_view,
    nearest_hits,
    rotate_back,
    unpack_hit,
)
from camctrl_jax.worlds.scene import SKY_INSTANCE

_CONTACT = 1e-3
"""A surface hides a point if it is nearer by this share of the point's depth and as many metres; the same
allowance as in ``worlds.geometry``."""


def ever_moving(world: World, instances: np.ndarray) -> np.ndarray:
    """Bool, of the shape of ``instances`` i32: the object that is seen there moves at some time of the take,
    so that another look at it need not show the same."""
    return np.concatenate([[False], world.scene.moving.any(axis=0)])[instances]


def seen_before(
    world: World,
    frames: Sequence[int],
    depth: np.ndarray,
    instances: np.ndarray,
    history: range,
    known: np.ndarray | None = None,
) -> np.ndarray:
    """Whether the static points that some frames show were seen in any frame of ``history``.

    A point is seen by a frame if it lies inside its picture and nothing stands before it at that time, which
    moving things may. Of the sky it is the direction that counts, as the clouds stand.

    Args:
        world: a take.
        frames: F of its frames.
        depth: f32 [F, H, W], their exact depth in metres, infinite in the sky (``Frames.depth``).
        instances: i32 [F, H, W] (``Frames.instances``).
        history: the earlier frames, step 1.
        known: bool [F, H, W], found before in other frames, which is not looked for again; True in the
            result.

    Returns:
        bool [F, H, W]; False where something moves that is seen there.
    """
    still = ~ever_moving(world, instances)
    done = ~still if known is None else ~still | known
    if len(history):
        sky = instances == SKY_INSTANCE
        points = _points(depth, world.cameras, frames, sky)
        poses = np.asarray(world.cameras.world_from_camera, np.float32)
        lenses = np.asarray(world.cameras.intrinsics, np.float32)
        bounds = np.int32(history.start), np.int32(history.stop)
        done = np.asarray(_look(world.scene.arrays(), poses, lenses, points, sky, done, bounds))
    return done & still


def _points(depth: np.ndarray, cameras: Cameras, frames: Sequence[int], sky: np.ndarray) -> np.ndarray:
    """World points f32 [3, F, H, W] that pixel centres show; of the sky, the directions of their rays."""
    height, width = depth.shape[1:]
    v, u = np.meshgrid((np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing="ij")
    found = np.empty((3, *depth.shape), np.float32)
    for place, frame in enumerate(frames):
        pose, lens = cameras.world_from_camera[frame], cameras.intrinsics[frame]
        rays = np.stack([(u - lens[2]) / lens[0], (v - lens[3]) / lens[1], np.ones_like(u)])
        ways = np.tensordot(pose[:3, :3], rays, axes=1)
        away = np.where(sky[place], 1.0, depth[place])
        start = np.where(sky[place], 0.0, pose[:3, 3][:, None, None])
        found[:, place] = start + away * ways
    return found


@jax.jit
def _look(scene, poses, lenses, points, sky, done, bounds):
    """``done`` and what the frames from ``bounds[0]`` to before ``bounds[1]`` show, the latest ones first."""
    first, stop = bounds

    def look(index, done):
        s = stop - 1 - index
        pose, lens = poses[s], lenses[s]
        eye, axes = pose[:3, 3], pose[:3, :3]
        ray = tuple(jnp.where(sky, points[i], points[i] - eye[i]) for i in range(3))
        x, y, z = rotate_back(axes, ray)
        ahead = z > 1e-3
        x, y = x / jnp.where(ahead, z, 1.0), y / jnp.where(ahead, z, 1.0)
        place = lens[0] * x + lens[2], lens[1] * y + lens[3]
        inside = ahead & (place[0] >= 0) & (place[0] <= 1) & (place[1] >= 0) & (place[1] <= 1)

        def cast(done):
            towards = tuple(axes[i, 0] * x + axes[i, 1] * y + axes[i, 2] for i in range(3))
            here = in_view(at_frame(scene, s), pose, lens)  # rays beyond the picture do not count
            there, _, _ = unpack_hit(scene, nearest_hits(here, eye, towards))
            hidden = there < jnp.where(sky, 0.5 * FAR, z * (1.0 - _CONTACT) - _CONTACT)
            return done | (inside & ~hidden)

        # Most earlier frames show nothing more: their rays need not be cast.
        return jax.lax.cond(jnp.any(inside & ~done), cast, lambda done: done, done)

    return jax.lax.fori_loop(0, stop - first, look, done)
