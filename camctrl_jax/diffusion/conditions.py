"""What the denoiser is told: the 33-channel input and the Pluecker map of the latent frames.

T2V, I2V and extension are one code path; they differ only in ``condition_mask``.
Axes: B batch, T frames, L = 1 + (T - 1) / 4 latent frames, h w latent height and width, C latent channels.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from camctrl_jax.camera.plucker import latent_frame_indices, plucker_map


def assemble_input(noisy: Array, clean: Array, condition_mask: Array) -> Array:
    """Concatenate [noisy | clean where it is a condition | mask] along channels.

    The noisy slot keeps its noise at condition positions: what the network answers there is ignored, and
    the clean slot holds the truth.

    Args:
        noisy: x_t, f [B, L, h, w, C].
        clean: x_0, same shape; only its condition frames are read.
        condition_mask: bool [B, L], True where the latent frame is a given condition.

    Returns:
        f [B, L, h, w, 2 C + 1] in the dtype of ``noisy``; 33 channels for C = 16.
    """
    mask = condition_mask[:, :, None, None, None]  # [B, L, 1, 1, 1]
    # where, not multiply: a sampler may leave anything, even NaN, in frames it has yet to generate.
    given = jnp.where(mask, clean, 0.0).astype(noisy.dtype)
    mask = jnp.broadcast_to(mask, (*noisy.shape[:-1], 1)).astype(noisy.dtype)
    return jnp.concatenate([noisy, given, mask], axis=-1)


def camera_condition(
    world_from_camera: Array, intrinsics: Array, camera_valid: Array, height: int, width: int
) -> Array:
    """Pluecker maps of frames 0, 4, 8, ... on the latent grid; zeros for samples without a camera.

    Args:
        world_from_camera: f32 [B, T, 4, 4], relative to the reference camera, T = 4k + 1.
        intrinsics: f32 [B, T, 4], fx/W, fy/H, cx/W, cy/H.
        camera_valid: bool [B]; False (unlabelled, or dropped) gives a zero map.
        height: latent height h.
        width: latent width w.

    Returns:
        f32 [B, L, h, w, 6], moment first.
    """
    frames = latent_frame_indices(world_from_camera.shape[1])
    plucker = plucker_map(world_from_camera[:, frames], intrinsics[:, frames], height, width)
    # where, not multiply: an unlabelled clip may carry NaN poses, and NaN * 0 is NaN.
    return jnp.where(camera_valid[:, None, None, None, None], plucker, 0.0)
