"""The VAE step: reconstruction, a perceptual stand-in without downloads, KL, an optional adversarial term.

Axes: B batch, T = 4k+1 frames (1 is an image), H, W pixels, L latent frames, h w latent height and width.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from camctrl_jax.models.discriminator import (
    DiscriminatorConfig,
    PatchDiscriminator,
    discriminator_hinge,
    generator_hinge,
)
from camctrl_jax.models.vae import VAE, sample_latents
from camctrl_jax.training.denoise import to_unit_range
from camctrl_jax.training.state import (
    Adversary,
    Params,
    StepFunction,
    TrainState,
    apply_gradients,
    global_norm,
)


@dataclass(frozen=True)
class AutoencodeConfig:
    """Weights of the terms; pixels span -1..1 and every term is a mean, so weights do not depend on sizes.

    Attributes:
        l1, l2: absolute and squared error.
        structure: error of gradients and Laplacians at several scales, the perceptual stand-in.
        structure_scales: scales, each half the size of the one before.
        kl: divergence from the unit normal, mean over latent entries.
        train_encoder: False trains the decoder alone, so that latents keep their meaning for models that
            were trained on them.
        ema_decay: decay of the moving average.
        adversarial: weight of the adversarial term; 0 trains without discriminators.
        adversarial_start: step at which it sets in; before it the discriminators rest.
        image, video: sizes of the discriminators.
    """

    l1: float = 1.0
    l2: float = 0.5
    structure: float = 0.5
    structure_scales: int = 3
    kl: float = 1e-6
    train_encoder: bool = True
    ema_decay: float = 0.9999
    adversarial: float = 0.0
    adversarial_start: int = 0
    image: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    video: DiscriminatorConfig = field(default_factory=lambda: DiscriminatorConfig(temporal=True))

    def __post_init__(self) -> None:
        for name in ("l1", "l2", "structure", "kl", "adversarial"):
            if getattr(self, name) < 0:
                raise ValueError(
                    f"vae_loss.{name}={getattr(self, name)} must not be negative; 0 switches it off."
                )
        if self.l1 + self.l2 == 0:
            raise ValueError("vae_loss.l1 and vae_loss.l2 are both 0; colours would not be learned.")
        if self.structure_scales < 1:
            raise ValueError(f"vae_loss.structure_scales={self.structure_scales} must be at least 1.")


# Top-level parameters that make latents of video; the rest makes video of latents.
ENCODER_PARTS = ("encoder", "quant_conv")


def structure_loss(error: Array, scales: int) -> Array:
    """Mean absolute gradient and Laplacian of an error image over a pyramid, plus its change over time.

    All filters are linear, so they are applied once, to the difference. Edges and texture weigh more than
    they do in the pixel error, which is what a perceptual network is mostly used for here.

    Args:
        error: f32 [B, T, H, W, C], reconstruction minus truth.
        scales: pyramid levels; stops early where a level would be smaller than 2 pixels.

    Returns:
        f32 [], mean over scales and terms.
    """
    total, terms = jnp.zeros(()), 0
    for _ in range(scales):
        down = error[:, :, 1:] - error[:, :, :-1]
        right = error[:, :, :, 1:] - error[:, :, :, :-1]
        for difference in (down, right):
            if difference.size:
                total += jnp.abs(difference).mean()
                terms += 1
        if error.shape[2] > 2 and error.shape[3] > 2:
            # Second differences are differences of the first: the 5-point Laplacian on inner pixels.
            laplacian = (down[:, :, 1:] - down[:, :, :-1])[:, :, :, 1:-1]
            laplacian += (right[:, :, :, 1:] - right[:, :, :, :-1])[:, :, 1:-1]
            total += jnp.abs(laplacian).mean()
            terms += 1
        if error.shape[1] > 1:
            total += jnp.abs(error[:, 1:] - error[:, :-1]).mean()
            terms += 1
        if error.shape[2] < 4 or error.shape[3] < 4:
            break
        b, t, h, w, c = error.shape
        error = error[:, :, : h // 2 * 2, : w // 2 * 2].reshape(b, t, h // 2, 2, w // 2, 2, c).mean((3, 5))
    return total / max(terms, 1)


def kl_divergence(mean: Array, log_variance: Array) -> Array:
    """KL(N(mean, exp(log_variance)) || N(0, 1)), mean over all entries, in nats."""
    return 0.5 * jnp.mean(jnp.square(mean) + jnp.exp(log_variance) - 1.0 - log_variance)


def peak_signal_to_noise(video: Array, truth: Array) -> Array:
    """PSNR in dB of video in [-1, 1] (peak to peak 2), over all values."""
    return 10.0 * jnp.log10(4.0 / jnp.maximum(jnp.mean(jnp.square(video - truth)), 1e-12))


def make_autoencode_step(
    vae: VAE,
    optimizer: optax.GradientTransformation,
    config: AutoencodeConfig,
    adversary_optimizer: optax.GradientTransformation | None = None,
) -> StepFunction:
    """Build ``step(state, batch, rng, frozen=None) -> (state, metrics)`` over batches with u8 ``video``.

    Metrics (f32 []): ``loss``, ``l1``, ``structure``, ``kl``, ``psnr`` of the reconstruction in dB,
    ``grad_norm``; with an adversarial term also ``adversarial`` and ``discriminator``.
    """

    def loss_of(
        params: Params, video: Array, key: Array, adversary: Params | None, active: Array
    ) -> tuple[Array, tuple[dict[str, Array], Array]]:
        mean, log_variance = vae.apply({"params": params}, video, method=VAE.encode)
        if not config.train_encoder:
            mean, log_variance = jax.lax.stop_gradient((mean, log_variance))
        latents = sample_latents(mean, log_variance, key)
        # Unclipped: a clamped pixel would have no gradient.
        decoded = vae.apply({"params": params}, latents, clip=False, method=VAE.decode)
        error = decoded - video
        metrics = {
            "l1": jnp.abs(error).mean(),
            "structure": structure_loss(error, config.structure_scales),
            "kl": kl_divergence(mean, log_variance),
        }
        loss = config.l1 * metrics["l1"] + config.l2 * jnp.square(error).mean()
        loss += config.structure * metrics["structure"] + config.kl * metrics["kl"]
        if adversary is not None:
            scores = discriminate(adversary, decoded, config, vae.dtype)
            metrics["adversarial"] = sum(generator_hinge(score) for score in scores) / len(scores)
            loss += config.adversarial * active * metrics["adversarial"]
        metrics["loss"] = loss
        metrics["psnr"] = peak_signal_to_noise(jnp.clip(decoded, -1.0, 1.0), video)
        return loss, (metrics, decoded)

    def discriminator_loss(adversary: Params, video: Array, decoded: Array, active: Array) -> Array:
        real = discriminate(adversary, video, config, vae.dtype)
        fake = discriminate(adversary, decoded, config, vae.dtype)
        return active * sum(discriminator_hinge(r, f) for r, f in zip(real, fake)) / len(real)

    def step(
        state: TrainState, batch: dict[str, Array], rng: Array, frozen: None = None
    ) -> tuple[TrainState, dict[str, Array]]:
        key = jax.random.fold_in(rng, state.step)
        video = to_unit_range(batch["video"])
        active = (state.step >= config.adversarial_start).astype(jnp.float32)
        adversary = None if state.adversary is None else state.adversary.params
        grad_of = jax.value_and_grad(loss_of, has_aux=True)
        (_, (metrics, decoded)), grads = grad_of(state.params, video, key, adversary, active)
        metrics["grad_norm"] = global_norm(grads)
        new_state = apply_gradients(state, grads, optimizer, config.ema_decay)
        if adversary is None:
            return new_state, metrics
        decoded = jax.lax.stop_gradient(decoded)
        metrics["discriminator"], grads = jax.value_and_grad(discriminator_loss)(
            adversary, video, decoded, active
        )
        updates, opt_state = adversary_optimizer.update(grads, state.adversary.opt_state, adversary)
        updates = jax.tree.map(lambda update: active * update, updates)  # nor does weight decay act before
        new_adversary = Adversary(optax.apply_updates(adversary, updates), opt_state)
        return TrainState(
            new_state.step, new_state.params, new_state.ema, new_state.opt_state, new_adversary
        ), metrics

    return step


def init_discriminators(config: AutoencodeConfig, key: Array) -> Params:
    """Parameters of the image and the video discriminator, {"image": ..., "video": ...}."""
    image_key, video_key = jax.random.split(key)
    clip = jnp.zeros((1, 5, 32, 32, 3))  # convolutions only: their parameters do not depend on sizes
    return {
        "image": PatchDiscriminator(config.image).init(image_key, clip[:, 0])["params"],
        "video": PatchDiscriminator(config.video).init(video_key, clip)["params"],
    }


def discriminate(adversary: Params, video: Array, config: AutoencodeConfig, dtype: Any) -> list[Array]:
    """Patch logits of every frame and, for more than one frame, of the clip.

    Args:
        adversary: parameters as :func:`init_discriminators` returns them.
        video: f32 [B, T, H, W, 3] in [-1, 1].
        config: sizes of the discriminators.
        dtype: dtype of their convolutions.
    """
    frames = video.reshape(-1, *video.shape[2:])  # [B*T, H, W, 3]
    scores = [PatchDiscriminator(config.image, dtype).apply({"params": adversary["image"]}, frames)]
    if video.shape[1] > 1:
        scores.append(PatchDiscriminator(config.video, dtype).apply({"params": adversary["video"]}, video))
    return scores


class LatentStatistics:
    """Measures mean and standard deviation of every latent channel; compiled once, used again."""

    def __init__(self, vae: VAE) -> None:
        self._config = vae.config

        @jax.jit
        def moments(params: Params, video: Array) -> tuple[Array, Array]:
            latents, _ = vae.apply({"params": params}, to_unit_range(video), method=VAE.encode)
            latents = latents.reshape(-1, latents.shape[-1])
            return latents.mean(axis=0), jnp.square(latents).mean(axis=0)

        self._moments = moments

    def measure(self, params: Params, videos: Iterable[Array]) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """What ``VAEConfig.latents_mean`` and ``latents_std`` should hold.

        Args:
            params: parameters of the autoencoder.
            videos: u8 [B, T, H, W, 3] each.

        Returns:
            (mean, std), z_dim floats each.
        """
        # Means of batches weighted by their number of latent entries, added up in float64 on the host.
        total, first, second = 0.0, 0.0, 0.0
        for video in videos:
            mean, square = jax.device_get(self._moments(params, video))
            count = float(np.prod(self._config.latent_shape(*video.shape[1:4])[:3]) * len(video))
            total += count
            first = first + count * mean.astype(np.float64)
            second = second + count * square.astype(np.float64)
        if total == 0:
            raise ValueError("no videos were given to measure the latents on.")
        mean = first / total
        std = np.sqrt(np.maximum(second / total - mean**2, 1e-12))
        return tuple(float(value) for value in mean), tuple(float(value) for value in std)
