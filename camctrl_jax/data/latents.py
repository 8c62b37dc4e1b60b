"""Clips to normalised latents: what cached datasets and resident clips store in place of video."""

from __future__ import annotations

import functools
import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from camctrl_jax.models.vae import CHUNK_MEMORY, VAE, VAEConfig, encode_within, normalise


@functools.partial(jax.jit, static_argnames=("config", "dtype"))
def _encode(params: Any, video: Array, *, config: VAEConfig, dtype: Any) -> Array:
    scaled = (video.astype(jnp.float32) / 127.5 - 1.0).astype(dtype)
    mean, _ = encode_within(VAE(config, dtype=dtype), params, scaled, CHUNK_MEMORY)
    return normalise(mean.astype(jnp.float32), config).astype(jnp.float16)


class LatentEncoder:
    """Video u8 [B, T, H, W, 3] to the VAE's normalised mean latents, f16 [B, L, h, w, 16].

    float16 and not bfloat16: normalised latents stay within a few units, where float16 keeps eight times more
    precision in the same bytes, and array files know it.
    """

    def __init__(self, config: VAEConfig, params: Any, *, dtype: Any = None, batch_size: int = 16) -> None:
        """Encode ``batch_size`` clips at a time. dtype None: bfloat16 on an accelerator, float32 on a CPU."""
        self.config, self.params, self.batch_size = config, params, batch_size
        self.dtype = dtype or (jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16)

    def __call__(self, video: Array | np.ndarray) -> Array:
        """Latents f16 [B, L, h, w, 16]; T must be 4k+1 and H, W multiples of 8."""
        if video.shape[1] % 4 != 1 or video.shape[2] % 8 or video.shape[3] % 8:
            raise ValueError(
                f"cannot encode a video of {video.shape[1]} frames, {video.shape[2]}x{video.shape[3]} "
                "pixels: expected 4k+1 frames and a height and width that are multiples of 8."
            )
        pieces = [
            _encode(self.params, video[start : start + self.batch_size], config=self.config, dtype=self.dtype)
            for start in range(0, len(video), self.batch_size)
        ]
        return jnp.concatenate(pieces) if len(pieces) > 1 else pieces[0]

    def fingerprint(self) -> str:
        """Identifies the VAE and its parameters: latents of different fingerprints must not be mixed."""
        digest = hashlib.sha256(repr(self.config).encode())
        for path, leaf in jax.tree_util.tree_leaves_with_path(self.params):
            digest.update(jax.tree_util.keystr(path).encode())
            digest.update(np.asarray(leaf, np.float32).tobytes())
        return digest.hexdigest()[:16]
