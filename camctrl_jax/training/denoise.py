"""The denoising step: labelled and unlabelled clips together, one velocity regression.

Axes: B batch, T frames, L latent frames, h w latent height and width, C latent channels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from camctrl_jax.diffusion.conditions import assemble_input, camera_condition
from camctrl_jax.diffusion.flow import FlowConfig, generation_loss, interpolate, sample_times, velocity_target
from camctrl_jax.models.mmdit import MMDiT
from camctrl_jax.models.vae import VAE, normalise
from camctrl_jax.training.state import Params, StepFunction, TrainState, apply_gradients, global_norm

# Fields of a batch that the loss reads beside latents.
_READ = ("world_from_camera", "intrinsics", "camera_valid", "condition_mask", "text", "text_mask")


@dataclass(frozen=True)
class DenoiseConfig:
    """What a denoising step needs to know beside its model.

    Attributes:
        flow: distribution of training times.
        ema_decay: decay of the moving average.
        encode_chunk: clips that the frozen VAE encodes at a time, to bound its memory; 0 encodes all at once.
        accumulate: parts of a batch that are differentiated one after the other, with the result of the whole
            and the activations of one.
    """

    flow: FlowConfig = field(default_factory=FlowConfig)
    ema_decay: float = 0.9999
    encode_chunk: int = 0
    accumulate: int = 1


def make_denoise_step(
    model: MMDiT,
    optimizer: optax.GradientTransformation,
    config: DenoiseConfig,
    vae: VAE | None = None,
) -> StepFunction:
    """Build ``step(state, batch, rng, frozen) -> (state, metrics)``.

    The batch has the fields of ``camctrl_jax.data.stream``; if it holds ``video`` instead of ``latents``,
    the frozen VAE encodes it inside the step. An image is a clip of one frame. ``rng`` is one key for the
    whole run: the step folds its number into it, so step n draws the same noise in a resumed run.
    ``frozen`` are the VAE's parameters (None where batches hold latents).

    Metrics (f32 []): ``loss``, ``grad_norm``, and the loss of clips whose camera the model sees
    (``loss_labelled``) and of those without one (``loss_unlabelled``: no labels, or dropped); NaN where a
    batch has none.
    """

    def draw(key: Array, latents: Array) -> tuple[Array, Array]:
        """Times f32 [B] and noise of the shape of ``latents``, for the whole batch."""
        time_key, noise_key = jax.random.split(key)
        tokens = latents.shape[1] * latents.shape[2] * latents.shape[3] // _patch_volume(model)
        time = sample_times(time_key, latents.shape[0], tokens, config.flow)
        return time, jax.random.normal(noise_key, latents.shape, jnp.float32)

    def loss_of(
        params: Params, latents: Array, time: Array, noise: Array, batch: dict[str, Array]
    ) -> tuple[Array, Array]:
        inputs = assemble_input(interpolate(latents, noise, time), latents, batch["condition_mask"])
        velocity = model.apply(
            {"params": params},
            inputs,
            time,
            batch["text"],
            batch["text_mask"],
            plucker_of(batch, latents.shape),
        )
        return generation_loss(velocity, velocity_target(latents, noise), batch["condition_mask"])

    def plucker_of(batch: dict[str, Array], shape: tuple[int, ...]) -> Array | None:
        if model.config.camera is None:
            return None
        return camera_condition(
            batch["world_from_camera"], batch["intrinsics"], batch["camera_valid"], shape[2], shape[3]
        )

    def accumulated(
        grad_of: Any, params: Params, latents: Array, time: Array, noise: Array, batch: dict[str, Array]
    ) -> tuple[Array, Array, Params]:
        """(loss, per sample, gradients) of the whole batch, a part at a time."""
        read = {name: batch[name] for name in _READ if name in batch}
        parts = parts_of((latents, time, noise, read), config.accumulate)
        # The loss is a mean over latents to generate, of which parts have different numbers.
        counts = parts[3]["condition_mask"].shape[-1] - parts[3]["condition_mask"].sum(-1)  # [parts, B/parts]
        shares = jnp.maximum(counts.sum(axis=1), 1) / jnp.maximum(counts.sum(), 1)

        def add(carry: tuple[Array, Params], part: Any) -> tuple[tuple[Array, Params], Array]:
            share, inputs = part
            (loss, per_sample), grads = grad_of(params, *inputs)
            total, sums = carry
            sums = jax.tree.map(lambda s, grad: s + share * grad, sums, grads)
            return (total + share * loss, sums), per_sample

        start = jnp.zeros(()), jax.tree.map(jnp.zeros_like, params)
        (loss, grads), per_sample = jax.lax.scan(add, start, (shares, parts))
        return loss, per_sample.T.reshape(-1), grads

    def step(
        state: TrainState, batch: dict[str, Array], rng: Array, frozen: Params | None = None
    ) -> tuple[TrainState, dict[str, Array]]:
        key = jax.random.fold_in(rng, state.step)
        if "latents" in batch:
            latents = batch["latents"].astype(jnp.float32)
        else:
            latents = encode_latents(vae, frozen, batch["video"], config.encode_chunk)
        time, noise = draw(key, latents)
        grad_of = jax.value_and_grad(loss_of, has_aux=True)
        if config.accumulate == 1:
            (loss, per_sample), grads = grad_of(state.params, latents, time, noise, batch)
        else:
            loss, per_sample, grads = accumulated(grad_of, state.params, latents, time, noise, batch)
        labelled = batch["camera_valid"]
        metrics = {
            "loss": loss,
            "loss_labelled": jnp.mean(per_sample, where=labelled),
            "loss_unlabelled": jnp.mean(per_sample, where=jnp.logical_not(labelled)),
            "grad_norm": global_norm(grads),
        }
        return apply_gradients(state, grads, optimizer, config.ema_decay), metrics

    return step


def parts_of(tree: Any, parts: int) -> Any:
    """Cut the batch of every array into ``parts``: [B, ...] -> [parts, B / parts, ...].

    Part i holds the samples i, i + parts, ...: cut over devices, each device keeps its samples, and has as
    many of every part.

    Raises:
        ValueError: B is not a multiple of ``parts``.
    """

    def cut(x: Array) -> Array:
        if x.shape[0] % parts:
            raise ValueError(f"a batch of {x.shape[0]} cannot be accumulated in {parts} equal parts.")
        return jnp.swapaxes(x.reshape(x.shape[0] // parts, parts, *x.shape[1:]), 0, 1)

    return jax.tree.map(cut, tree)


def encode_latents(vae: VAE, params: Any, video: Array, chunk: int = 0) -> Array:
    """Normalised latent means of u8 video.

    Args:
        vae: the module, whose config holds the latent statistics.
        params: its parameters.
        video: u8 [B, T, H, W, 3].
        chunk: clips encoded at a time; 0 encodes all at once.

    Returns:
        f32 [B, L, h, w, C].
    """

    def encode(clips: Array) -> Array:
        mean, _ = vae.apply({"params": params}, to_unit_range(clips), method="encode")
        return normalise(mean, vae.config)

    if chunk == 0 or chunk >= video.shape[0]:
        return encode(video)
    return jax.lax.map(lambda clip: encode(clip[None])[0], video, batch_size=chunk)


def to_unit_range(video: Array) -> Array:
    """u8 0..255 -> f32 -1..1."""
    return video.astype(jnp.float32) / 127.5 - 1.0


def _patch_volume(model: MMDiT) -> int:
    t, h, w = model.config.patch
    return t * h * w
