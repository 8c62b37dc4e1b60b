"""Depth and instances of many worlds at once, without their colours."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from camctrl_jax.errors import InvalidValue
from camctrl_jax.worlds.rendering import (
    at_frame,
    directions,
    in_view,
    nearest_hits,
    stack_worlds,
    unpack_hit,
)
from camctrl_jax.worlds.scene import SKY_INSTANCE, World


def render_geometry(
    worlds: Sequence[World], height: int, width: int, chunk: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Exact depth and instances, of the rays through the pixel centres; on the host.

    Args:
        worlds: N of them, of equally many frames T.
        height, width: pixels.
        chunk: worlds at a time; None is all on an accelerator and one on a CPU.

    Returns:
        ``Frames.depth`` f32 [N, T, H, W], metres, infinite in the sky; ``Frames.instances`` i32 [N, T, H, W].
    """
    if not worlds or min(height, width) < 1:
        raise InvalidValue(
            f"{len(worlds)} worlds at {height}x{width}; expected one or more, of a pixel or more."
        )
    size = chunk or (1 if jax.default_backend() == "cpu" else len(worlds))
    depths, instances = [], []
    for first in range(0, len(worlds), size):
        part = list(worlds[first : first + size])
        count = len(part)
        part += part[-1:] * (min(size, len(worlds)) - count)  # one shape, one compilation
        depth, found = _geometry(*stack_worlds(part), height, width)
        depths.append(np.asarray(depth)[:count])
        instances.append(np.asarray(found)[:count])
    return np.concatenate(depths), np.concatenate(instances)


@partial(jax.jit, static_argnums=(3, 4))
def _geometry(scenes, poses, intrinsics, height, width):
    v, u = jnp.meshgrid((jnp.arange(height) + 0.5) / height, (jnp.arange(width) + 0.5) / width, indexing="ij")

    def clip(scene, poses, intrinsics):
        def at(t):
            eye, axes = poses[t, :3, 3], poses[t, :3, :3]
            here = in_view(at_frame(scene, t), poses[t], intrinsics[t], "worlds")
            packed = nearest_hits(here, eye, directions(axes, intrinsics[t], u, v))
            depth, slot, sky = unpack_hit(scene, packed)
            return jnp.where(sky, jnp.inf, depth), jnp.where(sky, SKY_INSTANCE, slot + 1)

        return jax.lax.map(at, jnp.arange(poses.shape[0]))

    return jax.vmap(clip, axis_name="worlds")(scenes, poses, intrinsics)
