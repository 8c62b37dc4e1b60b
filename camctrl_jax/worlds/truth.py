"""The truth of frames: depth, instances, motion, flow and occlusion, of the rays through pixel centres."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from camctrl_jax.errors import InvalidValue
from camctrl_jax.worlds.culling import in_view
from camctrl_jax.worlds.rays import (
    FAR,
    at_frame,
    directions,
    hit_points,
    lookup,
    nearest_hits,
    rotate,
    rotate_back,
    unpack_hit,
)
from camctrl_jax.worlds.scene import SKY_INSTANCE, World
from camctrl_jax.worlds.stacking import camera_arrays, check_size, stack_worlds

CELL = 16  # pixels of a side of what coarse truth is averaged over
FARTHEST = 50.0  # metres, beyond which coarse depth does not tell, the sky included


def render_truth(world: World, height: int, width: int) -> tuple[np.ndarray, ...]:
    """The fields of ``camctrl_jax.worlds.Frames`` without ``rgb``, in their order; arrays on the host."""
    check_size(height, width, 1)
    poses, intrinsics = camera_arrays(world)
    depth, instances, moving, flow, occluded = _truth(world.scene.arrays(), poses, intrinsics, height, width)
    return (
        np.asarray(depth),
        np.asarray(instances),
        np.asarray(moving),
        np.asarray(flow[:-1]),
        np.asarray(occluded[:-1]),
    )


def render_coarse_truth(worlds: Sequence[World], height: int, width: int) -> tuple[jax.Array, jax.Array]:
    """What small networks learn of many worlds, in cells of ``CELL`` pixels, on the default device.

    Args:
        worlds: of equally many frames T.
        height, width: pixels, multiples of ``CELL``.

    Returns:
        f32 [N, T, height / CELL, width / CELL] each: the mean logarithm of the depth in metres, at most
        ``FARTHEST``, and the share of pixels that show what moves; of ``Frames.depth`` and ``Frames.moving``.

    Raises:
        InvalidValue: no worlds, or a size that has no whole cells.
    """
    for name, value in (("height", height), ("width", width)):
        if value < CELL or value % CELL:
            raise InvalidValue(f"{name} is {value}; coarse truth needs a multiple of {CELL}")
    return _coarse_truth(*stack_worlds(worlds), height, width)


@partial(jax.jit, static_argnums=(3, 4))
def _truth(scene, poses, intrinsics, height, width):
    """Depth, instances, moving, flow and occlusion of one world, from the rays through the pixel centres."""
    frames = poses.shape[0]
    v, u = jnp.meshgrid(jnp.arange(height) + 0.5, jnp.arange(width) + 0.5, indexing="ij")

    def camera(t):
        pose = poses[t]
        return pose[:3, 3], pose[:3, :3], intrinsics[t]

    def first_hits(t):
        eye, axes, lens = camera(t)
        here = in_view(at_frame(scene, t), poses[t], lens)
        return nearest_hits(here, eye, directions(axes, lens, u / width, v / height))

    def follow(args):
        """Ray [3, H, W] from the next frame's eye to the same material point, in that camera's axes."""
        t, packed = args
        after = jnp.minimum(t + 1, frames - 1)
        eye, axes, lens = camera(t)
        eye_later, axes_later, _ = camera(after)
        direction = directions(axes, lens, u / width, v / height)
        sky, _, slot, local, _, _ = hit_points(at_frame(scene, t), eye, direction, packed)
        later = at_frame(scene, after)
        carried = rotate(lookup(later["rotation"], slot), local)
        position = lookup(later["position"], slot)
        ray = tuple(jnp.where(sky, direction[i], carried[i] + position[i] - eye_later[i]) for i in range(3))
        return jnp.stack(rotate_back(axes_later, ray))

    def flow_and_occlusion(args):
        t, packed, seen = args
        after = jnp.minimum(t + 1, frames - 1)
        eye, axes, lens = camera(after)
        _, _, sky = unpack_hit(scene, packed)
        ahead = seen[2] > 1e-3
        z = jnp.where(ahead, seen[2], 1.0)
        x, y = seen[0] / z, seen[1] / z
        u_later, v_later = (lens[0] * x + lens[2]) * width, (lens[1] * y + lens[3]) * height
        towards = tuple(axes[i, 0] * x + axes[i, 1] * y + axes[i, 2] for i in range(3))
        there = in_view(at_frame(scene, after), poses[after], lens)  # rays beyond the picture do not count
        depth_later, _, _ = unpack_hit(scene, nearest_hits(there, eye, towards))
        hidden = depth_later < jnp.where(sky, 0.5 * FAR, z * (1.0 - 1e-3) - 1e-3)
        inside = (u_later >= 0) & (u_later <= width) & (v_later >= 0) & (v_later <= height)
        flow = jnp.where(ahead[..., None], jnp.stack([u_later - u, v_later - v], axis=-1), 0.0)
        return flow, hidden | ~inside | ~ahead

    def surface(args):
        t, packed = args
        depth, slot, sky = unpack_hit(scene, packed)
        moving = lookup(scene["moving"][t], slot) & ~sky
        return jnp.where(sky, jnp.inf, depth), jnp.where(sky, SKY_INSTANCE, slot + 1), moving

    index = jnp.arange(frames)
    hits = jax.lax.map(first_hits, index)
    seen = jax.lax.map(follow, (index, hits))
    return (*jax.lax.map(surface, (index, hits)), *jax.lax.map(flow_and_occlusion, (index, hits, seen)))


@partial(jax.jit, static_argnums=(3, 4))
def _coarse_truth(scenes, poses, intrinsics, height, width):
    """Log-depth and moving share [N, T, h, w] of cells, from the rays through the pixel centres."""
    v, u = jnp.meshgrid(jnp.arange(height) + 0.5, jnp.arange(width) + 0.5, indexing="ij")

    def in_cells(values):
        return values.reshape(height // CELL, CELL, width // CELL, CELL).mean((1, 3))

    def frame(scene, pose, lens, moving):
        here = in_view(scene, pose, lens, "worlds")
        packed = nearest_hits(here, pose[:3, 3], directions(pose[:3, :3], lens, u / width, v / height))
        depth, slot, sky = unpack_hit(scene, packed)
        moves = lookup(moving, slot) & ~sky
        return in_cells(jnp.log(jnp.minimum(depth, FARTHEST))), in_cells(moves.astype(jnp.float32))

    def clip(scene, poses, intrinsics):
        def at(t):
            return frame(at_frame(scene, t), poses[t], intrinsics[t], scene["moving"][t])

        return jax.lax.map(at, jnp.arange(poses.shape[0]))

    return jax.vmap(clip, axis_name="worlds")(scenes, poses, intrinsics)
