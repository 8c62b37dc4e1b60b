"""Labelling: what a small network of clip features is trained on, exact poses, depth and motion of worlds.

Part of every batch passes through the frozen autoencoder first. What a model generates was decoded by one;
features that had seen true renders alone would tell its blur from them, and little else. Trained on poses,
depth and motion alone they come to overlook blur, which these survive, and a distance of such features is
fooled by it. So some clips are blurred and some have noise added, and how much of the true gradient energy
is left is a label as well, as exact as the others.

Axes: B batch, T frames, K steps of four frames, h w cells of 16 x 16 pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh
from ml_collections import ConfigDict

from camctrl_jax.checkpoints.architecture import Architecture
from camctrl_jax.checkpoints.weights import load_vae, open_vae
from camctrl_jax.data.stream import Batch
from camctrl_jax.errors import InvalidValue
from camctrl_jax.models import (
    VAE,
    ClipFeatureNetwork,
    ClipFeaturesConfig,
    ClipTruth,
    VAEConfig,
    clip_features_preset,
)
from camctrl_jax.models.autoencoder import decode_video, encode_video, to_unit_range
from camctrl_jax.models.clip_features import DEPTH_TIMES, STEP, from_units, in_units, pooled
from camctrl_jax.models.placement import Placement
from camctrl_jax.training.objective import Frozen, Metrics, Objective, equal_weights
from camctrl_jax.training.state import Params, TrainState
from camctrl_jax.training.update import Aside, Examples, Update
from camctrl_jax.training.values import require, untrained_vae, update_of

AUTOENCODER = "autoencoder"  # the role of the frozen VAE
_TERMS = {
    "pose": ("poses", "step_poses"),
    "depth": ("log_depth", "step_log_depth"),
    "moving": ("moving", "step_moving"),
    "detail": ("detail",),
}
_REACH = 6  # pixels of a blur to each side


@dataclass(frozen=True)
class LabelConfig:
    """Terms are mean squared errors in units of the labels' typical sizes (``models.clip_features.UNITS``).

    Attributes:
        pose, depth, moving, detail: their weights.
        reconstructed: share of a batch that passes through the autoencoder.
        blurred: share of clips, reconstructed or not, that a Gaussian blurs.
        widths: least and largest standard deviation of blurs, pixels.
        noisy: share of clips that noise is added to.
        levels: least and largest standard deviation of noise, of 255.
        brightness: the brightness of a clip is scaled by a factor up to this far from 1, and shifted by as
            much of half its range.
        reconstruct_chunk: clips that the autoencoder holds at a time.
    """

    pose: float = 1.0
    depth: float = 1.0
    moving: float = 1.0
    detail: float = 1.0
    reconstructed: float = 0.5
    blurred: float = 0.25
    widths: tuple[float, float] = (0.4, 2.5)
    noisy: float = 0.15
    levels: tuple[float, float] = (2.0, 25.0)
    brightness: float = 0.1
    reconstruct_chunk: int = 8

    def __post_init__(self) -> None:
        weights = (self.pose, self.depth, self.moving, self.detail)
        if min(weights) < 0 or sum(weights) == 0:
            raise InvalidValue(
                f"label_loss: pose, depth, moving and detail weigh {weights}; expected 0 or more each, not "
                "all 0."
            )
        for name in ("reconstructed", "blurred", "noisy"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidValue(f"label_loss.{name}={getattr(self, name)}: expected a share, 0 to 1.")
        for name in ("widths", "levels"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise InvalidValue(
                    f"label_loss.{name}={getattr(self, name)}: expected (least, largest), both above 0."
                )
        if not 0 <= self.brightness < 1:
            raise InvalidValue(f"label_loss.brightness={self.brightness}: expected at least 0 and below 1.")
        if self.reconstruct_chunk < 1:
            raise InvalidValue(f"label_loss.reconstruct_chunk={self.reconstruct_chunk}: expected at least 1.")


def truth_of(batch: Batch, grid: tuple[int, int, int], seen: Array | None = None) -> ClipTruth:
    """What is true of clips, from the fields of a batch.

    Args:
        batch: with ``world_from_camera``, ``log_depth`` and ``moving_share``, T = 4 k + 1 frames; with
            ``video``, the true render, where something else is seen.
        grid: as of ``ClipFeaturesConfig``.
        seen: [B, T, H, W, 3] on the scale of u8, what the network is to look at; None: the true render.
    """
    poses, frames = batch["world_from_camera"], batch["world_from_camera"].shape[1]
    log_depth, moving = batch["log_depth"], batch["moving_share"]
    ends = np.round((frames - 1) * np.arange(1, grid[0] + 1) / grid[0]).astype(int)
    steps = np.arange(0, frames, STEP)
    before, after = np.maximum(steps - STEP // 2, 0), np.minimum(steps + STEP // 2, frames - 1)
    clip_depth = pooled(pooled(pooled(log_depth, 1, DEPTH_TIMES), 2, grid[1]), 3, grid[2])
    return ClipTruth(
        poses=_six(jnp.broadcast_to(poses[:, :1], poses[:, ends].shape), poses[:, ends]),
        log_depth=clip_depth,
        moving=pooled(moving.mean((2, 3)), 1, grid[0]),
        detail=jnp.zeros((len(poses), grid[0]))
        if seen is None
        else jnp.log(_gradient_energy(seen, grid[0]) / _gradient_energy(batch["video"], grid[0])),
        step_poses=_six(poses[:, before], poses[:, after]),
        step_log_depth=log_depth[:, steps],
        step_moving=moving[:, steps],
    )


def _gradient_energy(video: Array, parts: int) -> Array:
    """Mean squared difference of neighbours in each part of clips, f32 [B, parts]; of u8 values, 1 is added,
    so that clips without any contrast have a logarithm.
    """
    video = video.astype(jnp.float32)
    down = jnp.square(video[:, :, 1:] - video[:, :, :-1]).mean((2, 3, 4))
    right = jnp.square(video[:, :, :, 1:] - video[:, :, :, :-1]).mean((2, 3, 4))
    return pooled(down + right, 1, parts) + 1.0


def blur(video: Array, width: Array) -> Array:
    """Frames f32 [B, T, H, W, 3] under a Gaussian of standard deviation ``width`` [B] pixels, edges
    repeated.
    """
    taps = jnp.exp(-0.5 * jnp.square(jnp.arange(-_REACH, _REACH + 1) / width[:, None]))
    taps = (taps / taps.sum(axis=1, keepdims=True))[:, :, None, None, None, None]
    for axis in (2, 3):
        size = video.shape[axis]
        pad = [(0, 0)] * 5
        pad[axis] = (_REACH, _REACH)
        wide = jnp.pad(video, pad, mode="edge")
        video = sum(
            taps[:, place] * jax.lax.slice_in_dim(wide, place, place + size, axis=axis)
            for place in range(2 * _REACH + 1)
        )
    return video


def _six(first: Array, second: Array) -> Array:
    """Translation and rotation vector [..., 6] of the second pose [..., 4, 4] seen from the first one."""
    # Written out: no backend's reduced precision of matrix products touches geometry.
    back = jnp.swapaxes(first[..., :3, :3], -1, -2)
    shift = jnp.sum(back * (second[..., :3, 3] - first[..., :3, 3])[..., None, :], axis=-1)
    turn = jnp.sum(back[..., :, :, None] * second[..., None, :3, :3], axis=-2)
    skew = 0.5 * jnp.stack(
        [
            turn[..., 2, 1] - turn[..., 1, 2],
            turn[..., 0, 2] - turn[..., 2, 0],
            turn[..., 1, 0] - turn[..., 0, 1],
        ],
        axis=-1,
    )  # the axis, as long as the sine
    sine = jnp.linalg.norm(skew, axis=-1)
    angle = jnp.arctan2(sine, 0.5 * (jnp.trace(turn, axis1=-2, axis2=-1) - 1.0))
    ratio = jnp.where(sine > 1e-6, angle / jnp.maximum(sine, 1e-6), 1.0)
    return jnp.concatenate([shift, skew * ratio[..., None]], axis=-1)


@dataclass(frozen=True)
class Label(Objective):
    """Regression of exact labels from u8 ``video``.

    Metrics beside the loss are mean errors of the clip heads, over true and over reconstructed clips
    (``..._rec``): ``shift`` in metres and ``turn`` in degrees of the pose of the last frame, ``depth`` of the
    logarithm of depth, ``moving`` of the share of moving pixels, ``detail`` of the logarithm of the gradient
    energy that is left.

    Attributes:
        update: how gradients become parameters.
        model: sizes of the network.
        vae: sizes of the frozen autoencoder.
        settings: weights of the terms, and what is done to videos.
        dtype: of convolutions.
        vae_spec: weights spec of the autoencoder; 'random' is an untrained one.
    """

    update: Update
    model: ClipFeaturesConfig
    vae: VAEConfig
    settings: LabelConfig = field(default_factory=LabelConfig)
    dtype: Any = jnp.float32
    vae_spec: str = "random"
    reads_cameras = False  # no clip has to go without

    @property
    def network(self) -> ClipFeatureNetwork:
        """The module."""
        return ClipFeatureNetwork(self.model, self.dtype)

    def init(self, key: Array) -> Params:
        """Fresh parameters of the network."""
        return self.network.init_params(key)

    def examples(self, batch: Batch, key: Array, frozen: Frozen) -> Examples:
        """Video in [-1, 1], the first clips of it reconstructed, and the truth about it."""
        video, settings = batch["video"], self.settings
        count = round(settings.reconstructed * len(video))
        if count:
            video = jnp.concatenate([self._reconstructed(video[:count], frozen), video[count:]])
        light_key, fault_key = jax.random.split(key)
        seen = self._faulty(video.astype(jnp.float32), fault_key)
        spread = settings.brightness * jax.random.uniform(light_key, (2, len(video), 1, 1, 1, 1), minval=-1.0)
        lit = jnp.clip(to_unit_range(seen) * (1.0 + spread[0]) + spread[1], -1.0, 1.0)
        inputs = {
            "video": lit,
            "reconstructed": jnp.arange(len(video)) < count,
            "truth": truth_of(batch, self.model.grid, seen),
        }
        return Examples(inputs, equal_weights(batch))

    def _faulty(self, video: Array, key: Array) -> Array:
        """Some clips blurred, some with noise, on the scale of u8."""
        settings, count = self.settings, len(video)
        which, width, level, noise = jax.random.split(key, 4)
        drawn = jax.random.uniform(which, (2, count))
        low, high = np.log(settings.widths)
        widths = jnp.exp(jax.random.uniform(width, (count,), minval=low, maxval=high))
        if settings.blurred:
            chosen = (drawn[0] < settings.blurred)[:, None, None, None, None]
            video = jnp.where(chosen, blur(video, widths), video)
        if settings.noisy:
            low, high = settings.levels
            levels = jax.random.uniform(level, (count,), minval=low, maxval=high)
            levels = jnp.where(drawn[1] < settings.noisy, levels, 0.0)[:, None, None, None, None]
            video = jnp.clip(video + levels * jax.random.normal(noise, video.shape), 0.0, 255.0)
        return video

    def _reconstructed(self, video: Array, frozen: Frozen) -> Array:
        vae, params = VAE(self.vae, self.dtype), frozen[AUTOENCODER]

        def one(clip: Array) -> Array:
            return decode_video(vae, params, encode_video(vae, params, clip[None]))[0]

        with jax.named_scope("reconstruct"):
            return jax.lax.map(one, video, batch_size=min(self.settings.reconstruct_chunk, len(video)))

    def loss(self, params: Params, inputs: dict[str, Any], frozen: Frozen) -> tuple[Array, Aside]:
        """The weighted mean of the squared errors of all heads; beside it errors of every clip."""
        _, told = self.network.apply({"params": params}, inputs["video"])
        scaled, loss, weights = in_units(inputs["truth"]), jnp.zeros(()), 0.0
        for term, names in _TERMS.items():
            weight = getattr(self.settings, term)
            for name in names:
                loss += weight * jnp.square(getattr(told, name) - getattr(scaled, name)).mean()
                weights += weight
        errors = clip_errors(from_units(told), inputs["truth"])
        return loss / weights, Aside(samples=errors | {"reconstructed": inputs["reconstructed"]})

    def metrics(self, aside: Aside, batch: Batch) -> Metrics:
        """Mean errors over true clips and over reconstructed ones; NaN where there are none."""
        errors = dict(aside.samples)
        reconstructed = errors.pop("reconstructed")
        means = {name: jnp.mean(error, where=~reconstructed) for name, error in errors.items()}
        return means | {f"{name}_rec": jnp.mean(error, where=reconstructed) for name, error in errors.items()}

    def frozen(self) -> dict[str, Params]:
        """The autoencoder's parameters."""
        if self.vae_spec == "random":
            return {AUTOENCODER: VAE(self.vae).init_params(jax.random.key(0, impl="unsafe_rbg"))}
        return {AUTOENCODER: load_vae(self.vae_spec)[1]}

    def frozen_shapes(self) -> dict[str, Any]:
        """Shapes and dtypes of the autoencoder's parameters."""
        return {AUTOENCODER: VAE(self.vae).abstract_params()}

    def describe(
        self, state: TrainState, probe: Callable[[int], Iterable[Any]], before: Architecture | None
    ) -> Architecture:
        """The network."""
        del state, probe, before
        return Architecture(clip_features=self.model)


def clip_errors(told: ClipTruth, truth: ClipTruth) -> dict[str, Array]:
    """f32 [B] of each clip: ``shift`` (metres) and ``turn`` (degrees) of the last pose, ``depth`` (mean
    absolute error of its logarithm), ``moving`` and ``detail`` (mean absolute errors).
    """
    pose = told.poses[:, -1] - truth.poses[:, -1]
    return {
        "shift": jnp.linalg.norm(pose[:, :3], axis=-1),
        "turn": jnp.degrees(jnp.linalg.norm(pose[:, 3:], axis=-1)),
        "depth": jnp.abs(told.log_depth - truth.log_depth).mean((1, 2, 3)),
        "moving": jnp.abs(told.moving - truth.moving).mean(1),
        "detail": jnp.abs(told.detail - truth.detail).mean(1),
    }


def settings() -> dict[str, dict[str, Any]]:
    """The group of ``config`` that is this objective's, with its defaults."""
    return {
        "label_loss": {
            "pose": 1.0,
            "depth": 1.0,
            "moving": 1.0,
            "detail": 1.0,
            "reconstructed": 0.5,  # share of a batch that passes through the autoencoder config.vae.weights
            "blurred": 0.25,  # shares of clips that are blurred, or have noise added ...
            "widths": (0.4, 2.5),  # ... by a Gaussian of so many pixels ...
            "noisy": 0.15,
            "levels": (2.0, 25.0),  # ... of so much of 255
            "brightness": 0.1,  # clips become brighter or darker by up to this share
            "reconstruct_chunk": 8,  # clips that the autoencoder holds at a time
        }
    }


def check(config: ConfigDict) -> None:
    """Raises: ConfigError for settings of this objective that cannot work."""
    labels = config.data.kind == "worlds" and config.data.worlds.labels
    require(
        config,
        labels,
        "data.worlds.labels",
        "expected True, with --config.data.kind=worlds: only worlds have exact labels",
    )
    require(config, config.data.image_turns == 0, "data.image_turns", "expected 0: an image has no path")
    require(config, config.init_from == "", "init_from", "expected '': this objective starts from scratch")
    require(config, config.vae.weights != "", "vae.weights", "expected an autoencoder, e.g. 'default'")
    require(config, not config.model.scan_layers, "model.scan_layers", "there are no equal layers to scan")
    model = clip_features_preset(config.model.preset)
    require(config, config.data.frames >= model.frames, "data.frames", f"expected at least {model.frames}")
    require(
        config,
        config.data.height == model.height,
        "data.height",
        f"expected {model.height}: clips of every size are scaled to that height before they are looked at",
    )
    LabelConfig(**config.label_loss)
    if config.vae.weights == "random":
        untrained_vae(config)


def build(config: ConfigDict, mesh: Mesh, placement: Placement | None = None) -> Label:
    """The objective of a configuration; see ``build_objective``."""
    del mesh, placement  # convolutions are split by the compiler
    return Label(
        update=update_of(config),
        model=clip_features_preset(config.model.preset),
        vae=untrained_vae(config)
        if config.vae.weights == "random"
        else open_vae(config.vae.weights).vae_config,
        settings=LabelConfig(**config.label_loss),
        dtype=jnp.dtype(config.dtype),
        vae_spec=config.vae.weights,
    )
