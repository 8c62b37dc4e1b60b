"""Depth, instances and what the first frame shows, of many worlds at once and without their colours."""

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
from camctrl_jax.worlds.stacking import stack_worlds
from camctrl_jax.worlds.truth import render_truth

_CONTACT = 1e-3
"""A surface hides a point if it is nearer by this share of the point's depth and as many metres: what two
float32 rays to one point disagree by stays far below, what stands before another thing far above."""


def render_geometry(
    worlds: Sequence[World], height: int, width: int, chunk: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Exact depth, instances and first visibility, of the rays through the pixel centres; on the host.

    Args:
        worlds: N of them, of equally many frames T.
        height, width: pixels.
        chunk: worlds at a time; None is all on an accelerator and one on a CPU.

    Returns:
        ``Frames.depth`` f32 [N, T, H, W], metres, infinite in the sky; ``Frames.instances`` i32 [N, T, H, W];
        bool [N, T, H, W], whether the material point that a pixel shows is seen in the first frame: inside
        the picture and hidden by nothing. Of the sky, whether its direction is.
    """
    if not worlds or min(height, width) < 1:
        raise InvalidValue(
            f"{len(worlds)} worlds at {height}x{width}; expected one or more, of a pixel or more."
        )
    size = chunk or (1 if jax.default_backend() == "cpu" else len(worlds))
    parts = []
    for first in range(0, len(worlds), size):
        part = list(worlds[first : first + size])
        count = len(part)
        part += part[-1:] * (min(size, len(worlds)) - count)  # one shape, one compilation
        found = _geometry(*stack_worlds(part), height, width)
        parts.append([np.asarray(array)[:count] for array in found])
    depth, instances, seen = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return depth, instances, seen


@partial(jax.jit, static_argnums=(3, 4))
def _geometry(scenes, poses, intrinsics, height, width):
    v, u = jnp.meshgrid((jnp.arange(height) + 0.5) / height, (jnp.arange(width) + 0.5) / width, indexing="ij")

    def clip(scene, poses, intrinsics):
        # Rays that leave the first picture may miss solids that are not in view of it; they count as unseen.
        start = in_view(at_frame(scene, 0), poses[0], intrinsics[0], "worlds")
        first, axes_first, lens_first = poses[0, :3, 3], poses[0, :3, :3], intrinsics[0]

        def at(t):
            eye, axes = poses[t, :3, 3], poses[t, :3, :3]
            here = in_view(at_frame(scene, t), poses[t], intrinsics[t], "worlds")
            direction = directions(axes, intrinsics[t], u, v)
            packed = nearest_hits(here, eye, direction)
            depth, slot, sky = unpack_hit(scene, packed)
            # The same material point at the time of the first frame, as that camera sees it.
            _, _, _, local, _, _ = hit_points(here, eye, direction, packed)
            carried = rotate(lookup(start["rotation"], slot), local)
            position = lookup(start["position"], slot)
            ray = tuple(jnp.where(sky, direction[i], carried[i] + position[i] - first[i]) for i in range(3))
            x, y, z = rotate_back(axes_first, ray)
            ahead = z > 1e-3
            x, y = x / jnp.where(ahead, z, 1.0), y / jnp.where(ahead, z, 1.0)
            towards = tuple(axes_first[i, 0] * x + axes_first[i, 1] * y + axes_first[i, 2] for i in range(3))
            there, _, _ = unpack_hit(scene, nearest_hits(start, first, towards))
            hidden = there < jnp.where(sky, 0.5 * FAR, z * (1.0 - _CONTACT) - _CONTACT)
            place = lens_first[0] * x + lens_first[2], lens_first[1] * y + lens_first[3]
            inside = (place[0] >= 0) & (place[0] <= 1) & (place[1] >= 0) & (place[1] <= 1)
            seen = ahead & inside & ~hidden
            return jnp.where(sky, jnp.inf, depth), jnp.where(sky, SKY_INSTANCE, slot + 1), seen

        return jax.lax.map(at, jnp.arange(poses.shape[0]))

    return jax.vmap(clip, axis_name="worlds")(scenes, poses, intrinsics)


def moving_now(world: World, instances: np.ndarray) -> np.ndarray:
    """``Frames.moving`` bool [T, H, W] of a world's ``instances`` i32 [T, H, W]: what is seen there moves
    between this frame and the next."""
    moves = np.concatenate([np.zeros((world.frames, 1), bool), world.scene.moving], axis=1)
    return np.take_along_axis(moves, instances.reshape(world.frames, -1), axis=1).reshape(instances.shape)


def true_motion(world: World, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """``Frames.flow`` f32 [T-1, H, W, 2] in pixels and ``Frames.moving`` bool [T-1, H, W] of a world."""
    _, _, moving, flow, _ = render_truth(world, height, width)
    return flow, moving[:-1]
