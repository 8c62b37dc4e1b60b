"""A trained model as a whole: text, autoencoder and transformer, from prompts and cameras to video.

``generate`` and ``evaluate`` sample through this, clip after clip; training uses the same parts on its own.

Axes: B batch, T = 4k + 1 frames, L = k + 1 latent frames, H, W pixels, h = H / 8, w = W / 8.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from camctrl_jax.camera import Cameras
from camctrl_jax.data.text import TextEmbedder, embedder_from_settings
from camctrl_jax.diffusion.conditions import camera_condition
from camctrl_jax.diffusion.flow import shift_for_tokens
from camctrl_jax.diffusion.guidance import Guidance
from camctrl_jax.diffusion.sampler import initial_noise, sample
from camctrl_jax.interop.pretrained import SamplingDefaults, Weights, WeightsError, open_weights
from camctrl_jax.models import (
    VAE,
    MMDiT,
    MMDiTConfig,
    VAEConfig,
    decode_within,
    denormalise,
    encode_within,
    mmdit_in_dtype,
    normalise,
    stack_layers,
)
from camctrl_jax.models.vae import CHUNK_MEMORY

Params = dict[str, Any]
TEXT_STEP = 64  # text tokens


@dataclass(frozen=True)
class Denoiser:
    """The transformer as a pure function of its parameters. Equal settings share compilations."""

    config: MMDiTConfig
    dtype: Any

    def __call__(
        self,
        params: Params,
        inputs: Array,
        time: Array,
        text: Array,
        text_mask: Array,
        plucker: Array | None,
    ) -> Array:
        """The velocity; shapes as in ``camctrl_jax.diffusion.guidance.Velocity``."""
        return MMDiT(self.config, self.dtype).apply(
            {"params": params}, inputs, time, text, text_mask, plucker
        )


@partial(jax.jit, static_argnames=("config", "dtype", "memory"))
def _encode(params: Params, video: Array, *, config: VAEConfig, dtype: Any, memory: int) -> Array:
    scaled = video.astype(jnp.float32) / 127.5 - 1.0
    return normalise(encode_within(VAE(config, dtype), params, scaled, memory)[0], config)


@partial(jax.jit, static_argnames=("config", "dtype", "memory"))
def _decode(params: Params, latents: Array, *, config: VAEConfig, dtype: Any, memory: int) -> Array:
    video = decode_within(VAE(config, dtype), params, denormalise(latents, config), memory)
    return jnp.round((video.astype(jnp.float32) + 1.0) * 127.5).astype(jnp.uint8)


@dataclass(frozen=True)
class Autoencoder:
    """The frozen VAE: u8 video to normalised latents and back.

    Attributes:
        config, params: the network.
        dtype: of its convolutions.
        batch_size: clips in one call.
        memory: bytes that activations may take, about; longer clips are worked on chunk by chunk. The result
            depends on neither.
    """

    config: VAEConfig
    params: Params
    dtype: Any
    batch_size: int
    memory: int = CHUNK_MEMORY

    def encode(self, video: np.ndarray | Array) -> Array:
        """u8 [B, T, H, W, 3] to normalised latent means, f32 [B, L, h, w, C]."""
        return self._in_batches(_encode, jnp.asarray(video))

    def decode(self, latents: Array) -> np.ndarray:
        """Normalised latents f [B, L, h, w, C] to u8 [B, T, H, W, 3], on the host."""
        return np.asarray(self._in_batches(_decode, latents))

    def _in_batches(self, function: Callable, batch: Array) -> Array:
        pieces = [
            function(
                self.params,
                batch[i : i + self.batch_size],
                config=self.config,
                dtype=self.dtype,
                memory=self.memory,
            )
            for i in range(0, len(batch), self.batch_size)
        ]
        return pieces[0] if len(pieces) == 1 else jnp.concatenate(pieces)


def compute_dtype(float32: bool = False) -> Any:
    """bfloat16 on an accelerator; float32 where it is asked for, and on a CPU, where it is faster."""
    return jnp.float32 if float32 or jax.default_backend() == "cpu" else jnp.bfloat16


def sampling_form(config: MMDiTConfig, params: Params, dtype: Any) -> tuple[MMDiTConfig, Params]:
    """A transformer as it samples fastest, on the default device: (its configuration, parameters).

    Weights are rounded once to the dtype they are used in. On an accelerator the layers are scanned, which
    compiles in a fraction of the time and, without a backward pass, runs as fast.
    """
    params = mmdit_in_dtype(params, dtype)
    if jax.default_backend() == "cpu" or config.scan_layers:
        return config, jax.device_put(params)
    config = replace(config, scan_layers=True)
    return config, jax.device_put(stack_layers(params, config))


def used_text(
    text: np.ndarray, text_mask: np.ndarray, null_text: np.ndarray, null_mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The same without the padding that no prompt needs: text tokens up to a multiple of ``TEXT_STEP``.

    Padding is not attended to, but the network computes it. Most prompts fill a fraction of what a text
    encoder pads to, and every other length compiles anew, hence the steps.

    Args:
        text, text_mask: f32 [B, N, D] and bool [B, N], valid tokens first.
        null_text, null_mask: f32 [1, N, D] and bool [1, N].

    Returns: the four, of N' <= N tokens.
    """
    longest = int(max(text_mask.sum(axis=1).max(), null_mask.sum(axis=1).max()))
    kept = min(text.shape[1], -(-longest // TEXT_STEP) * TEXT_STEP)
    return text[:, :kept], text_mask[:, :kept], null_text[:, :kept], null_mask[:, :kept]


def load_autoencoder(weights: Weights, dtype: Any) -> Autoencoder:
    """Read an autoencoder onto the default device."""
    batch_size = 1 if jax.default_backend() == "cpu" else 16
    return Autoencoder(weights.vae_config, jax.device_put(weights.vae_params()), dtype, batch_size)


def open_model(
    checkpoint: str | os.PathLike, vae: str | os.PathLike | None = None
) -> tuple[Weights, Weights]:
    """The weights of a transformer and of its autoencoder, configurations only.

    Args:
        checkpoint: weights spec of the transformer.
        vae: weights spec of the autoencoder; by default the one the transformer was trained with.

    Raises:
        WeightsError: something is absent, or the two do not fit together.
    """
    model = open_weights(checkpoint)
    if model.mmdit_config is None:
        raise WeightsError(
            f"{checkpoint} holds an autoencoder but no transformer: name a run of configs/base.py or "
            "configs/stage1.py, a weights folder, or 'default'; the autoencoder goes to --vae."
        )
    if model.sampling is None or model.text is None:
        raise WeightsError(
            f"{checkpoint} was imported, and does not say how its text is embedded or which clips it makes: "
            "train from it (configs/stage1.py, --config.init_from), or run it in PyTorch "
            "(python -m camctrl_jax.export to-diffusers)."
        )
    if vae is None and model.vae_spec is None:
        raise WeightsError(f"{checkpoint} does not say which autoencoder it belongs to: name one with --vae.")
    if vae is None and model.vae_spec == "random":
        raise WeightsError(
            f"{checkpoint} was trained on an untrained autoencoder: name another one with --vae."
        )
    autoencoder = (
        model if vae is None and model.vae_config is not None else open_weights(vae or model.vae_spec)
    )
    if autoencoder.vae_config is None and vae is not None and autoencoder.vae_spec:
        autoencoder = open_weights(autoencoder.vae_spec)  # a run of a transformer stands for its autoencoder
    if autoencoder.vae_config is None:
        raise WeightsError(f"{vae or model.vae_spec} holds no autoencoder: name one that does with --vae.")
    if autoencoder.vae_config.z_dim != model.mmdit_config.out_channels:
        raise WeightsError(
            f"The transformer of {checkpoint} takes {model.mmdit_config.out_channels} latent channels but "
            f"the autoencoder of {autoencoder.spec} has {autoencoder.vae_config.z_dim}: name another --vae."
        )
    return model, autoencoder


def check_clip_size(model: Weights, autoencoder: Weights, frames: int, height: int, width: int) -> None:
    """Check that a model can make clips of this size.

    Raises:
        ValueError: it cannot; names the value and the nearest that works.
    """
    stride = autoencoder.vae_config.temporal_stride
    if frames < 1 + stride or (frames - 1) % stride:
        low = max(1, (frames - 1) // stride) * stride + 1
        raise ValueError(
            f"frames={frames}: clips have {stride}k+1 frames, for example {low} or {low + stride}."
        )
    _, *patch = model.mmdit_config.patch
    for name, size, side in zip(("height", "width"), (height, width), patch, strict=True):
        multiple = autoencoder.vae_config.spatial_stride * side
        if size < multiple or size % multiple:
            near = max(1, round(size / multiple)) * multiple
            raise ValueError(f"{name}={size}: expected a multiple of {multiple}, for example {near}.")


@dataclass(frozen=True)
class Pipeline:
    """Everything that sampling needs, on the default device.

    Attributes:
        autoencoder: the VAE.
        denoiser, params: the transformer.
        embedder: of prompts.
        defaults: the clips it was trained on.
    """

    autoencoder: Autoencoder
    denoiser: Denoiser
    params: Params
    embedder: TextEmbedder
    defaults: SamplingDefaults

    @classmethod
    def load(cls, model: Weights, autoencoder: Weights, *, float32: bool = False) -> Pipeline:
        """Read the parameters of what ``open_model`` found.

        Raises:
            WeightsError: parameters or text settings that do not belong to the configuration.
        """
        dtype = compute_dtype(float32)
        embedder = embedder_from_settings(model.text)
        if embedder.dim != model.mmdit_config.text_dim:
            raise WeightsError(
                f"{model.path}: its text embeddings have {embedder.dim} channels, its transformer takes "
                f"{model.mmdit_config.text_dim}: the text settings are not those it was trained with."
            )
        config, params = sampling_form(model.mmdit_config, model.mmdit_params(), dtype)
        return cls(
            autoencoder=load_autoencoder(autoencoder, dtype),
            denoiser=Denoiser(config, dtype),
            params=params,
            embedder=embedder,
            defaults=model.sampling,
        )

    def shift(self, frames: int, height: int, width: int) -> float:
        """Timestep shift for clips of this size, as in training."""
        if self.defaults.shift is not None:
            return self.defaults.shift
        shape = self.autoencoder.config.latent_shape(frames, height, width)
        return shift_for_tokens(int(np.prod(shape[:3])) // int(np.prod(self.denoiser.config.patch)))

    def sample(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        frames: int,
        height: int,
        width: int,
        guidance: Guidance,
        steps: int,
        cameras: Sequence[Cameras] | None = None,
        condition: np.ndarray | None = None,
        references: Sequence[np.ndarray] | None = None,
        shift: float | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Array:
        """Sample a batch of clips; a clip depends on its own inputs and seed, not on the batch around it.

        Args:
            prompts: B texts; "" is no text.
            seeds: B seeds of the noise.
            frames, height, width: of the clips.
            guidance, steps: see ``camctrl_jax.diffusion.sampler.sample``.
            cameras: B paths of T frames, or None for a model without a camera or for no camera condition.
            condition: u8 [B, T', H, W, 3], the given T' = 4k + 1 < T first frames (one: I2V), or None: T2V.
            references: B poses world_from_camera f64 [4, 4] of the reference cameras, that Pluecker maps are
                relative to; by default each path's first.
            shift: timestep shift; by default as in training.
            progress: as for the sampler.

        Returns:
            Normalised latents, f32 [B, L, h, w, C]; ``autoencoder.decode`` makes video of them.
        """
        batch, config = len(prompts), self.denoiser.config
        shape = self.autoencoder.config.latent_shape(frames, height, width)
        clean = jnp.zeros((batch, *shape), jnp.float32)
        given = 0
        if condition is not None:
            latents = self.autoencoder.encode(condition)
            given = latents.shape[1]
            if given >= shape[0]:
                raise ValueError(
                    f"{condition.shape[1]} frames are given and a clip has {frames}: nothing to sample."
                )
            clean = clean.at[:, :given].set(latents)
        text, text_mask, null_text, null_mask = used_text(
            *self.embedder.embed(list(prompts)), *self.embedder.embed([""])
        )
        return sample(
            self.denoiser,
            self.params,
            initial_noise(seeds, shape),
            clean,
            jnp.broadcast_to(jnp.arange(shape[0]) < given, (batch, shape[0])),
            jnp.asarray(text),
            jnp.asarray(text_mask),
            jnp.asarray(null_text),
            jnp.asarray(null_mask),
            None
            if config.camera is None
            else self._plucker(cameras, references, batch, shape, (height, width)),
            guidance=guidance,
            steps=steps,
            shift=self.shift(frames, height, width) if shift is None else shift,
            progress=progress,
        )

    def extend(
        self,
        video: np.ndarray,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        cameras: Sequence[Cameras] | None,
        guidance: Guidance,
        steps: int,
        new_latents: int = 12,
        condition_latents: int = 4,
        shift: float | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> np.ndarray:
        """Go on from the end of a video: one more clip of ``4 * new_latents`` frames, appended to it.

        The last ``4 * (condition_latents - 1) + 1`` frames are encoded again, so that the first of them is a
        one-frame latent as in training, and condition a clip of ``condition_latents + new_latents`` latents.
        All of it is decoded, causally, and what follows the condition frames is appended. The cameras of all
        clips are seen from one reference camera: the first frame of the first clip.

        Args:
            video: u8 [B, T', H, W, 3], all frames so far, not fewer than the condition.
            prompts: B texts, of the new clip.
            seeds: B seeds of the noise. Give every clip another one: equal seeds are equal noise.
            cameras: B paths of the whole exploration, from the first frame of the first clip to the last
                frame that this call adds (``camera.compose`` joins paths end to end); or None for no camera.
            guidance, steps, shift, progress: as for ``sample``.
            new_latents: Ln, 4 frames each.
            condition_latents: Lc; 1 conditions on the last frame alone, as I2V does.

        Returns:
            u8 [B, T' + 4 * new_latents, H, W, 3].

        Raises:
            ValueError: a video shorter than the condition, or paths that do not end with the new frames.
        """
        stride = self.autoencoder.config.temporal_stride
        given, added = stride * (condition_latents - 1) + 1, stride * new_latents
        if condition_latents < 1 or new_latents < 1:
            raise ValueError(
                f"condition_latents={condition_latents} and new_latents={new_latents}: expected 1 or more; "
                "4 and 12 are usual."
            )
        if video.dtype != np.uint8 or video.ndim != 5 or video.shape[1] < given:
            raise ValueError(
                f"The video is {video.dtype} {list(video.shape)}: expected uint8 [B, T, H, W, 3] of at least "
                f"{given} frames, the condition of {condition_latents} latents."
            )
        windows, references = None, None
        if cameras is not None:
            for path in cameras:
                if len(path) != video.shape[1] + added:  # of a longer path, which part is meant?
                    raise ValueError(
                        f"A path has {len(path)} poses: expected those of the {video.shape[1]} frames so far "
                        f"and of the {added} to come, {video.shape[1] + added} in all."
                    )
            windows = [path[len(path) - given - added :] for path in cameras]
            references = [path.world_from_camera[0] for path in cameras]
        latents = self.sample(
            prompts,
            seeds,
            frames=given + added,
            height=video.shape[2],
            width=video.shape[3],
            guidance=guidance,
            steps=steps,
            cameras=windows,
            condition=video[:, -given:],
            references=references,
            shift=shift,
            progress=progress,
        )
        return np.concatenate([video, self.autoencoder.decode(latents)[:, given:]], axis=1)

    def _plucker(
        self,
        cameras: Sequence[Cameras] | None,
        references: Sequence[np.ndarray] | None,
        batch: int,
        shape: tuple[int, ...],
        size: tuple[int, int],
    ) -> Array:
        height, width = shape[1:3] if self.denoiser.config.camera.plucker_res == "latent" else size
        if cameras is None:
            return jnp.zeros((batch, shape[0], height, width, 6), jnp.float32)
        if references is None:
            references = [path.world_from_camera[0] for path in cameras]
        # In float64: far from the origin float32 would lose the digits that tell neighbouring poses apart.
        paths = [
            path.transformed(np.linalg.inv(reference))
            for path, reference in zip(cameras, references, strict=True)
        ]
        return camera_condition(
            jnp.asarray(np.stack([path.world_from_camera for path in paths]), jnp.float32),
            jnp.asarray(np.stack([path.intrinsics for path in paths]), jnp.float32),
            jnp.ones(batch, bool),
            height,
            width,
        )
