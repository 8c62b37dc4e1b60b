"""What the values of a configuration stand for: the model, the update, and checks that name a key.

Objectives read a configuration through these; ``config.py``, which collects what objectives bring, stands
above them.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ml_collections import ConfigDict

from camctrl_jax.errors import InvalidValue
from camctrl_jax.models import CameraConfig, MMDiTConfig, VAEConfig, mmdit_preset, vae_preset
from camctrl_jax.models.presets import VAE_PRESETS
from camctrl_jax.training.optimizer import OptimizerConfig, learning_rate_schedule, make_optimizer
from camctrl_jax.training.update import Update

# What a transformer is, beside its text and camera: fields of MMDiTConfig that ``config.model`` can change.
SIZES = {
    "width": int,
    "heads": int,
    "head_dim": int,
    "num_dual": int,
    "num_single": int,
    "num_decoder": int,
    "mlp_ratio": float,
    "patch": tuple,
    "in_channels": int,
    "out_channels": int,
    "image_dim": int,
    "rope_axes": tuple,
    "rope_theta": float,
    "text_cross_attention_dual": bool,
    "text_cross_attention_single": bool,
    "shared_modulation": bool,
}
NO_CAMERA = "none"  # the injection of a model without a camera
UNTRAINED = "random"  # the weights spec of a network that nothing has trained, for tests
FROM_WEIGHTS = "init_from"  # the preset that stands for the sizes of the weights a run starts from


class ConfigError(InvalidValue):
    """The configuration cannot work; the message names the key, its value, and what to write instead."""


def value_of(config: ConfigDict, key: str) -> Any:
    """The value of a dotted key."""
    value = config
    for part in key.split("."):
        value = value[part]
    return value


def require(config: ConfigDict, condition: bool, key: str, expectation: str) -> None:
    """Raises: ConfigError that names the key and its value, unless the condition holds."""
    if not condition:
        raise ConfigError(f"config.{key}={value_of(config, key)!r}: {expectation}.")


def update_of(config: ConfigDict, frozen: Collection[str] = ()) -> Update:
    """How gradients become parameters in a run.

    Args:
        config: of the run.
        frozen: top-level names of parameters that stay as they are.
    """
    settings = OptimizerConfig(**config.optimizer)
    return Update(
        optimizer=make_optimizer(settings, config.steps, frozen),
        schedule=learning_rate_schedule(settings, config.steps),
        ema_decay=config.ema_decay,
        accumulate=config.accumulate,
    )


def untrained_vae(config: ConfigDict) -> VAEConfig:
    """The autoencoder that ``config.vae.weights='random'`` stands for: of the model's preset, where it has
    one.
    """
    return vae_preset(config.model.preset if config.model.preset in VAE_PRESETS else "wan21")


def mmdit_config(config: ConfigDict) -> MMDiTConfig:
    """The transformer of a denoising run: the preset with the fields that ``config.model`` gives.

    The preset ``init_from`` has no sizes of its own: see :func:`fill_in_sizes`.
    """
    model = config.model
    changes: dict[str, Any] = {name: _plain(model[name]) for name in SIZES if model[name] is not None}
    changes |= {
        "text_dim": config.data.text.dim,
        "attention": model.attention,
        "remat": model.remat,
        "scan_layers": model.scan_layers,
        # Fused projections would mix the shards of a tensor-parallel matrix product.
        "fuse_projections": config.mesh.tensor == 1,
    }
    changes["camera"] = camera_config(config)
    if model.preset != FROM_WEIGHTS:
        return mmdit_preset(model.preset, **changes)
    if model.width is None:
        raise ConfigError(
            f"config.model.preset='{FROM_WEIGHTS}' stands for sizes that camctrl_jax.train reads from "
            "config.init_from; where nothing is read, name a preset"
        )
    return MMDiTConfig(**changes)


def camera_config(config: ConfigDict) -> CameraConfig | None:
    """How the camera enters the transformer of a run; None for a model without one."""
    camera = config.model.camera
    without = camera.injection == NO_CAMERA
    # Made in any case: a value that cannot work is refused where it is not used, too.
    own = {} if without else {"injection": camera.injection}
    made = CameraConfig(camera.resolution, encoder=camera.encoder, **own)
    return None if without else made


def fill_in_sizes(config: ConfigDict, sizes: MMDiTConfig, source: str) -> None:
    """Write the sizes of existing weights into ``config.model``, so that the config alone tells the model.

    Values that are given stay; if they do not fit the weights, that shows when these are taken over.

    Args:
        config: changed in place.
        sizes: of the weights.
        source: where they come from, for the message.

    Raises:
        ConfigError: another width of text embeddings.
    """
    if sizes.text_dim != config.data.text.dim:
        raise ConfigError(
            f"config.data.text.dim={config.data.text.dim}, but {source} takes text embeddings of "
            f"{sizes.text_dim} channels; set --config.data.text.dim={sizes.text_dim}"
        )
    if config.model.camera.injection != NO_CAMERA and sizes.camera is not None:
        for name in config.model.camera:
            config.model.camera[name] = getattr(sizes.camera, name)
    for name in SIZES:
        if config.model[name] is None:
            config.model[name] = getattr(sizes, name)


def _plain(value: Any) -> Any:
    """A value of a config that was read from JSON, where tuples are lists, as the dataclasses take it."""
    return tuple(value) if isinstance(value, (list, tuple)) else value
