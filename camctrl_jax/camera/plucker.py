"""Pluecker maps: the ray through every pixel as six numbers, moment first (Sitzmann et al. 2021)."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def plucker_map(world_from_camera: jax.Array, intrinsics: jax.Array, height: int, width: int) -> jax.Array:
    """Rays ``(o x d, d)`` through the pixel centres of a ``height`` x ``width`` grid.

    ``o`` is the camera centre and ``d`` the unit direction in world axes. As intrinsics are fractions of the
    picture, the same pair gives the map of the picture and of its latent grid.

    Args:
        world_from_camera: [..., 4, 4], OpenCV axes. Make it relative to the reference camera before the
            cast to float32: far from the origin the moment loses digits.
        intrinsics: [..., 4] fractions fx/W, fy/H, cx/W, cy/H. Leading axes broadcast with the poses'.
        height, width: size of the grid; static under ``jax.jit``.

    Returns:
        float32 [..., height, width, 6]. Differentiable in both arguments.
    """
    world_from_camera = jnp.asarray(world_from_camera, jnp.float32)
    intrinsics = jnp.asarray(intrinsics, jnp.float32)
    columns = (jnp.arange(width, dtype=jnp.float32) + 0.5) / width  # [W]
    rows = (jnp.arange(height, dtype=jnp.float32) + 0.5) / height  # [H]
    fx, fy, cx, cy = (intrinsics[..., i, None] for i in range(4))  # [..., 1]
    x = ((columns - cx) / fx)[..., None, :, None]  # [..., 1, W, 1]
    y = ((rows - cy) / fy)[..., :, None, None]  # [..., H, 1, 1]
    # [..., 1, 1, 3] each
    right, down, forward, origin = (world_from_camera[..., None, None, :3, i] for i in range(4))
    # Sums of products rather than a matrix product: accelerators round those to fewer bits by default.
    direction = right * x + down * y + forward  # [..., H, W, 3]
    direction = direction / jnp.linalg.norm(direction, axis=-1, keepdims=True)
    moment = jnp.cross(jnp.broadcast_to(origin, direction.shape), direction)
    return jnp.concatenate([moment, direction], axis=-1)
