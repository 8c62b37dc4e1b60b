"""What a model in training can do, on clips it has not seen: held-out samples and their PSNR."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from camctrl_jax.data.text import TextEmbedder
from camctrl_jax.diffusion.conditions import camera_condition
from camctrl_jax.diffusion.guidance import Guidance
from camctrl_jax.diffusion.sampler import initial_noise, sample
from camctrl_jax.models import VAE, MMDiT, denormalise
from camctrl_jax.models.vae import CHUNK_MEMORY, decode_within, encode_within
from camctrl_jax.training.autoencode import peak_signal_to_noise
from camctrl_jax.training.denoise import encode_latents, to_unit_range
from camctrl_jax.training.state import Params

# The frames before the sixth follow from the given first one almost by themselves: no PSNR is taken of them.
_FIRST_SCORED_FRAME = 5  # index, as in camctrl_jax/evaluate.py


@dataclass(frozen=True)
class SampledClips:
    """What a model made beside the truth.

    Attributes:
        video: u8 [N, T, H, W, 3].
        truth: u8 [N, T, H, W, 3].
        metrics: scalars to log.
    """

    video: np.ndarray
    truth: np.ndarray
    metrics: dict[str, float]


class ReconstructionSampler:
    """Held-out clips through the autoencoder and back."""

    def __init__(self, vae: VAE, clips: dict[str, Array]) -> None:
        """Keep ``clips``, a batch with u8 ``video``."""

        @jax.jit
        def reconstruct(params: Params, video: Array) -> tuple[Array, Array]:
            mean, _ = encode_within(vae, params, to_unit_range(video), CHUNK_MEMORY)
            decoded = decode_within(vae, params, mean, CHUNK_MEMORY)
            return to_bytes(decoded), peak_signal_to_noise(decoded, to_unit_range(video))

        self._reconstruct, self._video = reconstruct, clips["video"]

    def __call__(self, params: Params) -> SampledClips:
        """Reconstruct; logs ``held_out_psnr`` in dB."""
        video, psnr = self._reconstruct(params, self._video)
        return SampledClips(np.asarray(video), np.asarray(self._video), {"held_out_psnr": float(psnr)})


class VideoSampler:
    """Image-to-video from the first frame of held-out clips along their true camera path.

    Args:
        model: the transformer.
        vae: the frozen autoencoder.
        vae_params: its parameters.
        clips: a batch with u8 ``video``, poses, intrinsics and text.
        embedder: for the empty prompt.
        guidance: weights.
        steps: Euler steps.
        shift: timestep shift.
    """

    def __init__(
        self,
        model: MMDiT,
        vae: VAE,
        vae_params: Params,
        clips: dict[str, Array],
        embedder: TextEmbedder,
        *,
        guidance: Guidance,
        steps: int,
        shift: float,
    ) -> None:
        def velocity(params: Any, *arguments: Any) -> Array:
            return model.apply({"params": params}, *arguments)

        @jax.jit
        def decode(params: Params, latents: Array) -> Array:
            return decode_within(vae, params, denormalise(latents, vae.config), CHUNK_MEMORY)

        self._velocity, self._decode, self._vae_params = velocity, decode, vae_params
        self._clips, self._guidance, self._steps, self._shift = clips, guidance, steps, shift
        self._latents = jax.jit(lambda params, video: encode_latents(vae, params, video, chunk=1))(
            vae_params, clips["video"]
        )
        null_text, null_mask = embedder.embed([""])
        self._null = jnp.asarray(null_text), jnp.asarray(null_mask)
        self._plucker = None
        if model.config.camera is not None:
            self._plucker = camera_condition(
                clips["world_from_camera"],
                clips["intrinsics"],
                jnp.ones(len(clips["video"]), bool),
                *self._latents.shape[2:4],
            )

    def __call__(self, params: Params) -> SampledClips:
        """Sample; logs ``sample_psnr`` in dB over the sixth frame to the last."""
        count, length = self._latents.shape[:2]
        latents = sample(
            self._velocity,
            params,
            initial_noise(range(count), self._latents.shape[1:]),
            self._latents,
            jnp.arange(length)[None] < jnp.ones((count, 1)),  # [B, L]: the first is given
            self._clips["text"],
            self._clips["text_mask"],
            *self._null,
            self._plucker,
            guidance=self._guidance,
            steps=self._steps,
            shift=self._shift,
        )
        decoded = self._decode(self._vae_params, latents)
        truth = to_unit_range(self._clips["video"])
        first = min(_FIRST_SCORED_FRAME, truth.shape[1] - 1)
        psnr = peak_signal_to_noise(decoded[:, first:], truth[:, first:])
        video, truth = np.asarray(to_bytes(decoded)), np.asarray(self._clips["video"])
        return SampledClips(video, truth, {"sample_psnr": float(psnr)})


def to_bytes(video: Array) -> Array:
    """f [-1, 1] -> u8, rounded."""
    return jnp.round((jnp.clip(video, -1.0, 1.0) + 1.0) * 127.5).astype(jnp.uint8)
