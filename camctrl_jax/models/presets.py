"""Named sizes of the networks, as frozen dataclasses."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from camctrl_jax.errors import InvalidValue
from camctrl_jax.models.clip_features import ClipFeaturesConfig
from camctrl_jax.models.mmdit import MMDiTConfig
from camctrl_jax.models.vae import VAEConfig

_WORLDS_VAE = VAEConfig(
    base_dim=32,
    decoder_base_dim=64,
    dim_mult=(1, 2, 2),
    num_res_blocks=1,
    temporal_downsample=(True, True),
    patch_size=2,
    latents_mean=(0.0,) * 16,
    latents_std=(1.0,) * 16,
)

VAE_PRESETS = {
    # Statistics are those of an untrained model: training measures them and stores them with the weights.
    "worlds": _WORLDS_VAE,
    "nano": replace(_WORLDS_VAE, base_dim=8, decoder_base_dim=16),
    "wan21": VAEConfig(),
}

MMDIT_PRESETS = {
    # MLPs of 3.5 widths leave room for the autoencoder in 60 MB of bfloat16.
    "worlds": MMDiTConfig(
        width=384,
        heads=6,
        head_dim=64,
        num_dual=2,
        num_single=8,
        mlp_ratio=3.5,
        text_dim=64,
        shared_modulation=True,
    ),
    "nano": MMDiTConfig(
        width=48,
        heads=2,
        head_dim=24,
        num_dual=1,
        num_single=3,
        text_dim=64,
        rope_axes=(8, 8, 8),
        shared_modulation=True,
    ),
    # The paper's MMDiT: dual-stream only. 0.6B parameters as given; width, heads and num_dual set the size.
    "paper": MMDiTConfig(width=1024, heads=16, head_dim=64, num_dual=16),
    # The same at 8.2B parameters: 36 layers as the paper's family has, heads as wide as kernels like them.
    "paper_8b": MMDiTConfig(
        width=3072, heads=24, head_dim=128, num_dual=36, rope_axes=(16, 56, 56), shared_modulation=True
    ),
    "motif_2b": MMDiTConfig(
        width=1536,
        heads=12,
        head_dim=128,
        num_dual=12,
        num_single=24,
        num_decoder=8,
        text_dim=2560,
        image_dim=1152,
        rope_axes=(16, 56, 56),
        text_cross_attention_single=True,
    ),
}


CLIP_FEATURES_PRESETS = {
    "worlds": ClipFeaturesConfig(),
    "nano": ClipFeaturesConfig(
        channels=(8, 8, 8), pooled=4, grid=(4, 1, 2), hidden=16, features=8, height=16, frames=5
    ),
}


def clip_features_preset(name: str, **changes: Any) -> ClipFeaturesConfig:
    """The sizes of clip features called ``name`` ('worlds', 'nano'), with fields changed."""
    return _changed(_lookup(CLIP_FEATURES_PRESETS, name, "clip feature"), name, changes)


def vae_preset(name: str, **changes: Any) -> VAEConfig:
    """The autoencoder sizes called ``name`` ('worlds', 'nano', 'wan21'), with fields of VAEConfig changed."""
    return _changed(_lookup(VAE_PRESETS, name, "autoencoder"), name, changes)


def mmdit_preset(name: str, **changes: Any) -> MMDiTConfig:
    """The transformer sizes called ``name`` (worlds, nano, paper, paper_8b, motif_2b), with fields changed.

    ``mmdit_preset("paper", width=1536, num_dual=24)``: changing only one of width, heads and head_dim adapts
    the heads (or the width, for heads) so that width = heads * head_dim holds.
    """
    config = _lookup(MMDIT_PRESETS, name, "transformer")
    changes = dict(changes)
    given = {"width", "heads", "head_dim"} & changes.keys()
    if given == {"width"}:
        changes["heads"] = changes["width"] // config.head_dim
    elif given == {"heads"}:
        changes["width"] = changes["heads"] * config.head_dim
    elif given == {"width", "heads"}:
        changes["head_dim"] = changes["width"] // changes["heads"]
    return _changed(config, name, changes)


def _lookup(presets: dict, name: str, kind: str) -> Any:
    if name not in presets:
        raise InvalidValue(
            f"No {kind} preset is called {name!r}; choose one of {', '.join(sorted(presets))}."
        )
    return presets[name]


def _changed(config: Any, name: str, changes: dict) -> Any:
    known = {field.name for field in fields(config)}
    unknown = sorted(changes.keys() - known)
    if unknown:
        raise InvalidValue(
            f"Preset {name!r} has no field {unknown[0]!r}; its fields are {', '.join(sorted(known))}."
        )
    return replace(config, **changes)
