"""Autoencoding: reconstruction, a perceptual stand-in without downloads, KL, an optional adversarial term.

Axes: B batch, T = 4k+1 frames (1 is an image), H, W pixels, L latent frames, h w latent height and width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh
from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from camctrl_jax.checkpoints.architecture import Architecture
from camctrl_jax.checkpoints.clip_features import open_clip_features
from camctrl_jax.checkpoints.weights import load_vae
from camctrl_jax.data.stream import Batch
from camctrl_jax.errors import InvalidValue
from camctrl_jax.metrics.psnr import psnr, psnr_of_error
from camctrl_jax.models import VAE, ClipFeatureNetwork, ClipFeaturesConfig, VAEConfig, vae_preset
from camctrl_jax.models.autoencoder import Autoencoder, to_unit_range
from camctrl_jax.models.clip_features import perceptual_distance
from camctrl_jax.models.discriminator import (
    DiscriminatorConfig,
    PatchDiscriminator,
    discriminator_hinge,
    generator_hinge,
)
from camctrl_jax.models.placement import Placement
from camctrl_jax.models.roles import ENCODER_PARTS
from camctrl_jax.parallel.sharding import distribute_samples, whole
from camctrl_jax.training.objective import (
    Frozen,
    Metrics,
    Objective,
    Preview,
    PreviewClips,
    equal_weights,
)
from camctrl_jax.training.state import Params, TrainState, create_state
from camctrl_jax.training.update import Aside, Examples, Update
from camctrl_jax.training.values import ConfigError, require, update_of

ADVERSARY = "adversary"  # the role of the discriminators in the state
FEATURES = "clip_features"  # the role of the frozen network that compares how clips look

# Fields of VAEConfig that ``config.vae_sizes`` can change; None is the preset's.
SIZES = {
    "base_dim": int,
    "decoder_base_dim": int,
    "z_dim": int,
    "dim_mult": tuple,
    "num_res_blocks": int,
    "frame_wise_levels": tuple,
}


@dataclass(frozen=True)
class AutoencodeConfig:
    """Weights of the terms; pixels span -1..1 and every term is a mean, so weights do not depend on sizes.

    Attributes:
        l1, l2: absolute and squared error.
        structure: error of gradients and Laplacians at several scales, the perceptual stand-in.
        structure_scales: scales, each half the size of the one before.
        features: distance in the maps of a frozen network of clip features; 0 reads no such network.
        kl: divergence from the unit normal, mean over latent entries.
        equivariance: the same errors between what the decoder makes of latents averaged over 2 x 2 and the
            clip averaged over 2 x 2. Latents then hold less of what single positions alone tell, and are
            easier for a diffusion model (Skorokhodov et al. 2025, arXiv 2502.14831; Kouzelis et al. 2025,
            arXiv 2502.09509).
        train_encoder: False trains the decoder alone, so that latents keep their meaning for models that
            were trained on them.
        adversarial: weight of the adversarial term; 0 trains without discriminators.
        adversarial_start: step at which it sets in; before it the discriminators rest.
        image, video: sizes of the discriminators.
    """

    l1: float = 1.0
    l2: float = 0.5
    structure: float = 0.5
    structure_scales: int = 3
    features: float = 0.0
    kl: float = 1e-6
    equivariance: float = 0.0
    train_encoder: bool = True
    adversarial: float = 0.0
    adversarial_start: int = 0
    image: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    video: DiscriminatorConfig = field(default_factory=lambda: DiscriminatorConfig(temporal=True))

    def __post_init__(self) -> None:
        for name in ("l1", "l2", "structure", "features", "kl", "equivariance", "adversarial"):
            if getattr(self, name) < 0:
                raise InvalidValue(
                    f"vae_loss.{name}={getattr(self, name)} must not be negative; 0 switches it off."
                )
        if self.l1 + self.l2 == 0:
            raise InvalidValue("vae_loss.l1 and vae_loss.l2 are both 0; colours would not be learned.")
        if self.structure_scales < 1:
            raise InvalidValue(f"vae_loss.structure_scales={self.structure_scales} must be at least 1.")


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
        h, w = error.shape[2:4]
        error = halved(error[:, :, : h // 2 * 2, : w // 2 * 2])
    return total / max(terms, 1)


def halved(array: Array) -> Array:
    """Means over 2 x 2 of f32 [B, T, H, W, C] with even H and W: [B, T, H / 2, W / 2, C]."""
    b, t, h, w, c = array.shape
    return array.reshape(b, t, h // 2, 2, w // 2, 2, c).mean((3, 5))


def kl_divergence(mean: Array, log_variance: Array) -> Array:
    """KL(N(mean, exp(log_variance)) || N(0, 1)), mean over all entries, in nats."""
    return 0.5 * jnp.mean(jnp.square(mean) + jnp.exp(log_variance) - 1.0 - log_variance)


@dataclass(frozen=True)
class Autoencode(Objective):
    """Reconstruction of u8 ``video``.

    Metrics beside the loss: ``l1``, ``structure``, ``kl``, ``psnr`` of the reconstruction in dB; ``features``
    and ``equivariance`` where they have a weight; with an adversarial term also ``adversarial`` and
    ``discriminator``. Measured on held-out clips, the loss is without the adversarial term.

    Attributes:
        update: how gradients become parameters.
        model: sizes of the autoencoder.
        settings: weights of the terms.
        dtype: of convolutions.
        remat: recompute residual blocks in the backward pass.
        adversary_optimizer: of the discriminators.
        measure_clips: clips over which latent mean and deviation are measured for a checkpoint.
        features, features_spec: sizes and weights spec of the network that compares how clips look.
    """

    update: Update
    model: VAEConfig
    settings: AutoencodeConfig = field(default_factory=AutoencodeConfig)
    dtype: Any = jnp.float32
    remat: bool = False
    adversary_optimizer: optax.GradientTransformation | None = None
    measure_clips: int = 512
    features: ClipFeaturesConfig = field(default_factory=ClipFeaturesConfig)
    features_spec: str = "default"
    reads_cameras = False

    @property
    def network(self) -> VAE:
        """The module."""
        return VAE(self.model, self.dtype, remat=self.remat)

    def init(self, key: Array) -> Params:
        """Fresh parameters of the autoencoder."""
        return self.network.init_params(key)

    def state(self, params: Params, key: Array) -> TrainState:
        """With fresh discriminators where there is an adversarial term."""
        others = {}
        if self.settings.adversarial:
            others[ADVERSARY] = init_discriminators(self.settings, key), self.adversary_optimizer
        return create_state(params, self.update.optimizer, others)

    def examples(self, batch: Batch, key: Array, frozen: Frozen) -> Examples:
        """Video in [-1, 1], and the noise that latents are drawn with."""
        video = to_unit_range(batch["video"])
        shape = self.model.latent_shape(*video.shape[1:4])
        noise = jax.random.normal(key, (len(video), *shape), jnp.float32)
        return Examples({"video": video, "noise": noise}, equal_weights(batch))

    def loss(
        self,
        params: Params,
        inputs: dict[str, Array],
        frozen: Frozen,
        adversary: Params | None = None,
        active: Array | float = 0.0,
    ) -> tuple[Array, Aside]:
        """The sum of all terms; beside it the terms and, with an adversary, the reconstruction."""
        settings, video = self.settings, inputs["video"]
        vae = self.network
        mean, log_variance = vae.apply({"params": params}, video, method=VAE.encode)
        if not settings.train_encoder:
            mean, log_variance = jax.lax.stop_gradient((mean, log_variance))
        latents = mean + jnp.exp(0.5 * log_variance) * inputs["noise"]
        # Unclipped: a clamped pixel would have no gradient.
        decoded = vae.apply({"params": params}, latents, clip=False, method=VAE.decode)
        means = {"kl": kl_divergence(mean, log_variance)}
        loss, means["l1"], means["structure"] = self._reconstruction(decoded - video)
        loss += settings.kl * means["kl"]
        if settings.equivariance:
            smaller = vae.apply({"params": params}, halved(latents), clip=False, method=VAE.decode)
            means["equivariance"] = self._reconstruction(smaller - halved(video))[0]
            loss += settings.equivariance * means["equivariance"]
        if settings.features:
            network = ClipFeatureNetwork(self.features, self.dtype)
            means["features"] = perceptual_distance(network, frozen[FEATURES], decoded, video)
            loss += settings.features * means["features"]
        if adversary is not None:
            scores = discriminate(adversary, decoded, settings, self.dtype)
            means["adversarial"] = sum(generator_hinge(score) for score in scores) / len(scores)
            loss += settings.adversarial * active * means["adversarial"]
        shown = jnp.square(jnp.clip(decoded, -1.0, 1.0) - video).mean()
        means["psnr"] = psnr_of_error(shown, peak=2.0)
        return loss, Aside(samples=() if adversary is None else decoded, means=means)

    def _reconstruction(self, error: Array) -> tuple[Array, Array, Array]:
        """(weighted sum, absolute error, structure) of an error f32 [B, T, H, W, 3]."""
        settings, l1 = self.settings, jnp.abs(error).mean()
        structure = structure_loss(error, settings.structure_scales)
        loss = settings.l1 * l1 + settings.l2 * jnp.square(error).mean() + settings.structure * structure
        return loss, l1, structure

    def step(self, state: TrainState, batch: Batch, rng: Array, frozen: Frozen) -> tuple[TrainState, Metrics]:
        """One update of the autoencoder, then one of the discriminators if there are any."""
        if ADVERSARY not in state.others:
            return super().step(state, batch, rng, frozen)
        examples = self.examples(batch, jax.random.fold_in(rng, state.step), frozen)
        active = (state.step >= self.settings.adversarial_start).astype(jnp.float32)
        adversary = state.others[ADVERSARY]
        loss = partial(self.loss, frozen=frozen, adversary=adversary.params, active=active)
        new_state, aside, metrics = self.update.minimise(state, loss, examples)
        decoded = jax.lax.stop_gradient(aside.samples)
        with jax.named_scope("discriminators"):
            metrics["discriminator"], grads = jax.value_and_grad(self._discriminator_loss)(
                adversary.params, examples.inputs["video"], decoded, active
            )
            # nor does decay act before
            adversary = Update(self.adversary_optimizer).apply_to(adversary, grads, active)
        return replace(new_state, others={ADVERSARY: adversary}), metrics | self.metrics(aside, batch)

    def _discriminator_loss(self, adversary: Params, video: Array, decoded: Array, active: Array) -> Array:
        real = discriminate(adversary, video, self.settings, self.dtype)
        fake = discriminate(adversary, decoded, self.settings, self.dtype)
        return active * sum(discriminator_hinge(r, f) for r, f in zip(real, fake)) / len(real)

    def frozen(self) -> dict[str, Params]:
        """The network that compares how clips look, where there is such a term."""
        return {FEATURES: open_clip_features(self.features_spec).params} if self.settings.features else {}

    def frozen_shapes(self) -> dict[str, Any]:
        """Shapes and dtypes of its parameters."""
        return (
            {FEATURES: ClipFeatureNetwork(self.features).abstract_params()} if self.settings.features else {}
        )

    def starting_params(self, spec: str, mesh: Mesh) -> Params:
        """The autoencoder of a weights spec."""
        del mesh
        return load_vae(spec)[1]

    def describe(
        self, state: TrainState, probe: Callable[[int], Iterable[Any]], before: Architecture | None
    ) -> Architecture:
        """The autoencoder, with its latent statistics: measured, or as they were where latents are."""
        if self.settings.train_encoder or before is None or before.vae is None:
            mean, std = latent_statistics(self.network, state.ema, probe(self.measure_clips))
        else:
            mean, std = before.vae.latents_mean, before.vae.latents_std
        return Architecture(vae=replace(self.model, latents_mean=mean, latents_std=std))

    def preview(self, clips: PreviewClips, frozen: Frozen, mesh: Mesh) -> Callable[[Params], Preview]:
        """Held-out clips through the autoencoder and back; ``sample_psnr`` in dB."""
        truth = clips.batch["video"]
        placed = distribute_samples(truth, mesh)

        def show(params: Params) -> Preview:
            autoencoder = Autoencoder(self.model, params, self.dtype, batch_size=len(truth))
            video = whole(autoencoder.decoded(autoencoder.encode(placed)))
            return Preview(video, truth, {"sample_psnr": float(psnr(video, truth).mean())})

        return show


def settings() -> dict[str, dict[str, Any]]:
    """The groups of ``config`` that are this objective's, with their defaults: sizes that the preset does not
    give, and weights of the terms.
    """
    return {
        "vae_sizes": {name: placeholder(kind) for name, kind in SIZES.items()},
        "vae_loss": {
            "l1": 1.0,
            "l2": 0.5,
            "structure": 0.5,
            "features": 0.0,
            "features_weights": "default",  # a weights spec of clip features, read where features is not 0
            "kl": 1e-6,
            "equivariance": 0.0,  # to averaging over 2 x 2, for latents that are easier to learn
            "train_encoder": True,  # False: the decoder alone, for latents that are in use already
            "adversarial": 0.0,
            "adversarial_start": 0,
            "discriminator_dim": 64,
            "measure_clips": 512,  # clips over which latent mean and std are measured at the end
        },
    }


def check(config: ConfigDict) -> None:
    """Raises: ConfigError for settings of this objective that cannot work."""
    require(config, config.vae_loss.measure_clips >= 1, "vae_loss.measure_clips", "expected at least 1")
    require(
        config,
        not config.model.scan_layers,
        "model.scan_layers",
        "an autoencoder has no equal layers to scan",
    )
    require(
        config,
        config.vae_loss.train_encoder or config.init_from != "",
        "vae_loss.train_encoder",
        "without --config.init_from= there is no trained encoder to keep",
    )
    require(
        config,
        config.vae_loss.train_encoder or not config.vae_loss.equivariance,
        "vae_loss.equivariance",
        "it shapes latents, and those of --config.vae_loss.train_encoder=False stay as they are: expected 0",
    )
    autoencode_config(config)
    vae_config(config)


def build(config: ConfigDict, mesh: Mesh, placement: Placement | None = None) -> Autoencode:
    """The objective of a configuration; see ``build_objective``."""
    del mesh, placement  # convolutions are split by the compiler
    settings, spec = autoencode_config(config), config.vae_loss.features_weights
    return Autoencode(
        update=update_of(config, () if settings.train_encoder else ENCODER_PARTS),
        model=vae_config(config),
        settings=settings,
        dtype=jnp.dtype(config.dtype),
        remat=config.model.remat != "none",
        adversary_optimizer=update_of(config).optimizer,
        measure_clips=config.vae_loss.measure_clips,
        features=open_clip_features(spec).config if settings.features else ClipFeaturesConfig(),
        features_spec=spec,
    )


def vae_config(config: ConfigDict) -> VAEConfig:
    """The autoencoder of a configuration: the preset with the fields that ``config.vae_sizes`` gives."""
    changes: dict[str, Any] = {name: value for name, value in config.vae_sizes.items() if value is not None}
    for name, value in changes.items():
        if isinstance(value, list):  # of a config that was read from JSON
            changes[name] = tuple(value)
    if "z_dim" in changes:  # statistics are measured at the end
        changes |= {"latents_mean": (0.0,) * changes["z_dim"], "latents_std": (1.0,) * changes["z_dim"]}
    try:
        return vae_preset(config.model.preset, **changes)
    except InvalidValue as error:
        raise ConfigError(f"config.vae_sizes, config.model.preset: {error}") from error


def autoencode_config(config: ConfigDict) -> AutoencodeConfig:
    """The loss of a configuration."""
    loss = config.vae_loss
    return AutoencodeConfig(
        l1=loss.l1,
        l2=loss.l2,
        structure=loss.structure,
        features=loss.features,
        kl=loss.kl,
        equivariance=loss.equivariance,
        train_encoder=loss.train_encoder,
        adversarial=loss.adversarial,
        adversarial_start=loss.adversarial_start,
        image=DiscriminatorConfig(loss.discriminator_dim),
        video=DiscriminatorConfig(loss.discriminator_dim, temporal=True),
    )


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


@partial(jax.jit, static_argnames="vae")
def _moments(params: Params, video: Array, *, vae: VAE) -> tuple[Array, Array]:
    latents, _ = vae.apply({"params": params}, to_unit_range(video), method=VAE.encode)
    latents = latents.reshape(-1, latents.shape[-1])
    return latents.mean(axis=0), jnp.square(latents).mean(axis=0)


def latent_statistics(
    vae: VAE, params: Params, videos: Iterable[Array]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """What ``VAEConfig.latents_mean`` and ``latents_std`` should hold.

    Args:
        vae: the autoencoder.
        params: its parameters.
        videos: u8 [B, T, H, W, 3] each.

    Returns:
        (mean, std) of every latent channel, z_dim floats each.
    """
    # Means of batches weighted by their number of latent entries, added up in float64 on the host.
    total, first, second = 0.0, 0.0, 0.0
    for video in videos:
        mean, square = jax.device_get(_moments(params, video, vae=vae))
        count = float(np.prod(vae.config.latent_shape(*video.shape[1:4])[:3]) * len(video))
        total += count
        first = first + count * mean.astype(np.float64)
        second = second + count * square.astype(np.float64)
    if total == 0:
        raise InvalidValue("no videos were given to measure the latents on.")
    mean = first / total
    std = np.sqrt(np.maximum(second / total - mean**2, 1e-12))
    return tuple(float(value) for value in mean), tuple(float(value) for value in std)
