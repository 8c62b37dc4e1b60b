"""The frozen autoencoder: u8 video to normalised latents and back, the same way for everyone.

Axes: B batch, T = 4k + 1 frames, L = k + 1 latents, H, W pixels, h = H / 8, w = W / 8, C latent channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from camctrl_jax.errors import ClipError
from camctrl_jax.models.fingerprint import fingerprint_of_weights
from camctrl_jax.models.placement import ONE_DEVICE, Placement
from camctrl_jax.models.vae import (
    CHUNK_MEMORY,
    VAE,
    VAEConfig,
    decode_within,
    denormalise,
    encode_within,
    normalise,
)


def to_unit_range(video: Array) -> Array:
    """u8 0..255 -> f32 -1..1."""
    return video.astype(jnp.float32) / 127.5 - 1.0


def to_bytes(video: Array) -> Array:
    """f [-1, 1] -> u8, clipped and rounded."""
    return jnp.round((jnp.clip(video, -1.0, 1.0) + 1.0) * 127.5).astype(jnp.uint8)


def encode_video(vae: VAE, params: Any, video: Array, *, memory: int | None = None, clips: int = 0) -> Array:
    """Normalised latent means of u8 video; to be called in a jitted function.

    Args:
        vae: the module, whose config holds the latent statistics.
        params: its parameters.
        video: u8 [B, T, H, W, 3].
        memory: bytes that activations may take, about; longer clips are encoded chunk by chunk. None: whole.
        clips: encoded at a time; 0 encodes all at once.

    Returns:
        f32 [B, L, h, w, C].
    """

    def encode(video: Array) -> Array:
        mean, _ = encode_within(vae, params, to_unit_range(video), memory)
        return normalise(mean, vae.config)

    if clips == 0 or clips >= video.shape[0]:
        return encode(video)
    return jax.lax.map(lambda clip: encode(clip[None])[0], video, batch_size=clips)


def decode_video(vae: VAE, params: Any, latents: Array, memory: int | None = None) -> Array:
    """Normalised latents f [B, L, h, w, C] to u8 [B, T, H, W, 3]; arguments as of :func:`encode_video`."""
    return to_bytes(decode_within(vae, params, denormalise(latents, vae.config), memory))


# What the dimensions of videos and latents are, for a placement. The compiler carries it through the network.
_CLIPS = ("batch", None, "rows", None, None)


@partial(jax.jit, static_argnames=("vae", "memory", "placement", "dtype"))
def _encode(params: Any, video: Array, *, vae: VAE, memory: int, placement: Placement, dtype: Any) -> Array:
    video = placement.constrain(video, *_CLIPS)
    latents = encode_video(vae, params, video, memory=memory).astype(dtype)
    return placement.constrain(latents, *[None] * latents.ndim)  # small, and every device reads all of it


@partial(jax.jit, static_argnames=("vae", "memory", "placement"))
def _decode(params: Any, latents: Array, *, vae: VAE, memory: int, placement: Placement) -> Array:
    latents = placement.constrain(latents, *_CLIPS)
    return placement.constrain(decode_video(vae, params, latents, memory), *_CLIPS)


def compute_dtype(float32: bool = False) -> Any:
    """bfloat16 on an accelerator; float32 where it is asked for, and on a CPU, where it is faster."""
    return jnp.float32 if float32 or jax.default_backend() == "cpu" else jnp.bfloat16


@partial(jax.jit, static_argnames=("vae", "memory", "placement"))
def _decode_checked(
    params: Any, latents: Array, *, vae: VAE, memory: int, placement: Placement
) -> tuple[Array, Array]:
    latents = placement.constrain(latents, *_CLIPS)
    video = decode_within(vae, params, denormalise(latents, vae.config), memory)
    video = placement.constrain(video, *_CLIPS)
    return to_bytes(video), jnp.isfinite(video).all(axis=(1, 2, 3, 4))


@dataclass(frozen=True)
class Autoencoder:
    """The frozen VAE with its parameters. Equal settings share compilations.

    Attributes:
        config, params: the network.
        dtype: of its convolutions; see :func:`compute_dtype`.
        batch_size: clips in one call.
        memory: bytes that activations may take, about; longer clips are worked on chunk by chunk. The result
            depends on neither, up to rounding.
        placement: that of a mesh cuts clips over its devices, then the rows of each clip; the parameters must
            be whole on all of them, and ``memory`` is that of all together.
    """

    config: VAEConfig
    params: Any
    dtype: Any
    batch_size: int
    memory: int = CHUNK_MEMORY
    placement: Placement = ONE_DEVICE

    def encode(self, video: np.ndarray | Array, dtype: Any = jnp.float32) -> Array:
        """u8 [B, T, H, W, 3] to normalised latent means [B, L, h, w, C].

        Args:
            video: T = 4k + 1 frames; height and width divide by the autoencoder's stride.
            dtype: of the result. float16 for what is stored: normalised latents stay within a few units,
                where it keeps eight times more precision than bfloat16 in the same bytes, and array files
                know it.

        Raises:
            InvalidValue: a video of another size; names the nearest that works.
        """
        self.config.clip_shape(*video.shape[1:4]).check((1, 1, 1))
        return self._in_batches(partial(_encode, dtype=dtype), video)

    def decode(self, latents: np.ndarray | Array) -> np.ndarray:
        """Normalised latents f [B, L, h, w, C] to u8 [B, T, H, W, 3], on the host.

        Raises:
            ClipError: ``not_finite``, a clip holds NaN or infinity, which bytes would hide. Use
                :meth:`decode_checked` where the other clips are wanted.
        """
        video, finite = self.decode_checked(latents)
        if not finite.all():
            broken = np.flatnonzero(~finite).tolist()
            raise ClipError(
                "not_finite",
                f"clips {broken} of {len(finite)} (from 0) decode to NaN or infinity: the weights or the "
                "sampling diverged. Check the weights with fewer steps and guidance 1, or in float32.",
            )
        return video

    def decode_checked(self, latents: np.ndarray | Array) -> tuple[np.ndarray, np.ndarray]:
        """:meth:`decode` without the error: (u8 [B, T, H, W, 3], bool [B] whether all of a clip is finite).

        The bytes of a clip that is not finite mean nothing.
        """
        video, finite = self._in_batches(_decode_checked, latents)
        return np.asarray(video), np.asarray(finite)

    def decoded(self, latents: np.ndarray | Array) -> Array:
        """As :meth:`decode`, on the devices that the latents are on, and unchecked."""
        return self._in_batches(_decode, latents)

    def fingerprint(self) -> str:
        """Identifies the VAE and its parameters: latents of different fingerprints must not be mixed."""
        return fingerprint_of_weights(self.config, self.params)

    def _in_batches(self, function: Callable[..., Any], batch: np.ndarray | Array) -> Any:
        vae = VAE(self.config, self.dtype)
        settings = {"vae": vae, "memory": self.memory, "placement": self.placement}
        pieces = [
            function(self.params, batch[start : start + self.batch_size], **settings)
            for start in range(0, len(batch), self.batch_size)
        ]
        return pieces[0] if len(pieces) == 1 else jax.tree.map(lambda *parts: jnp.concatenate(parts), *pieces)
