"""The same sizes as diffusers' ``config.json`` and as our frozen dataclasses, in both directions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from camctrl_jax.errors import InvalidValue
from camctrl_jax.interop.fields import FLAG, SIZE, TEXT, check_fields, number, or_null, row_of, whole
from camctrl_jax.models import CameraConfig, MMDiTConfig, VAEConfig

VIDEO_CHANNELS = 3

# What the stock classes assume for a field that the file does not give, and what this implementation requires
# of the fields that it has no counterpart for.
_VAE_DEFAULTS = {
    "base_dim": 96, "decoder_base_dim": None, "z_dim": 16, "dim_mult": (1, 2, 4, 4), "num_res_blocks": 2,
    "attn_scales": (), "temperal_downsample": (False, True, True), "patch_size": None,
    "latents_mean": VAEConfig.latents_mean, "latents_std": VAEConfig.latents_std,
}  # fmt: skip
_MMDIT_DEFAULTS = {
    "in_channels": 33, "out_channels": 16, "num_attention_heads": 24, "attention_head_dim": 128, "num_layers":
    20, "num_single_layers": 40, "num_decoder_layers": 0, "mlp_ratio": 4.0, "patch_size": 2, "patch_size_t":
    1, "qk_norm": "rms_norm", "norm_type": "layer_norm", "text_embed_dim": 4096, "image_embed_dim": None,
    "rope_theta": 256.0, "rope_axes_dim": (16, 56, 56), "enable_text_cross_attention_dual": False,
    "enable_text_cross_attention_single": False,
}  # fmt: skip
_LAYERS = whole(0, 1000)
_VAE_KINDS = {
    "base_dim": SIZE,
    "decoder_base_dim": or_null(SIZE),
    "z_dim": SIZE,
    "dim_mult": row_of(SIZE),
    "num_res_blocks": _LAYERS,
    "attn_scales": row_of(number()),
    "temperal_downsample": row_of(FLAG),
    "dropout": number(least=0.0),
    "patch_size": or_null(SIZE),
    "latents_mean": row_of(number()),
    "latents_std": row_of(number(above=0.0)),
    "is_residual": FLAG,
    **dict.fromkeys(("in_channels", "out_channels", "scale_factor_temporal", "scale_factor_spatial"), SIZE),
}
_MMDIT_KINDS = {
    **dict.fromkeys(("in_channels", "num_attention_heads", "attention_head_dim", "text_embed_dim"), SIZE),
    **dict.fromkeys(("num_layers", "num_single_layers", "num_decoder_layers"), _LAYERS),
    **dict.fromkeys(("patch_size", "patch_size_t"), SIZE),
    **dict.fromkeys(("out_channels", "image_embed_dim"), or_null(SIZE)),
    **dict.fromkeys(("mlp_ratio", "rope_theta"), number(above=0.0)),
    **dict.fromkeys(("qk_norm", "norm_type"), TEXT),
    "rope_axes_dim": row_of(whole(0, 1_000_000), 3),
    **dict.fromkeys(("enable_text_cross_attention_dual", "enable_text_cross_attention_single"), FLAG),
}


def vae_to_stock(config: VAEConfig) -> dict[str, Any]:
    """Arguments of ``AutoencoderKLWan`` (JSON-able) for the same model."""
    channels = VIDEO_CHANNELS * config.pixel_patch**2
    return {
        "base_dim": config.base_dim,
        "decoder_base_dim": config.decoder_base_dim,
        "z_dim": config.z_dim,
        "dim_mult": list(config.dim_mult),
        "num_res_blocks": config.num_res_blocks,
        "attn_scales": list(config.attn_scales),
        "temperal_downsample": list(config.temporal_downsample),
        "dropout": 0.0,
        "latents_mean": list(config.latents_mean),
        "latents_std": list(config.latents_std),
        "is_residual": False,
        "in_channels": channels,
        "out_channels": channels,
        "patch_size": config.patch_size,
        "scale_factor_temporal": config.temporal_stride,
        "scale_factor_spatial": config.spatial_stride,
    }


def vae_from_stock(stock: Mapping[str, Any], source: str = "config.json") -> VAEConfig:
    """A stock ``AutoencoderKLWan`` configuration -> VAEConfig; ValueError if this implementation cannot run
    it.
    """
    check_fields(stock, _VAE_KINDS, source)
    values = {**_VAE_DEFAULTS, **_public(stock)}
    config = VAEConfig(
        base_dim=values["base_dim"],
        decoder_base_dim=values["decoder_base_dim"],
        z_dim=values["z_dim"],
        dim_mult=tuple(values["dim_mult"]),
        num_res_blocks=values["num_res_blocks"],
        attn_scales=tuple(values["attn_scales"]),
        temporal_downsample=tuple(values["temperal_downsample"]),
        patch_size=values["patch_size"],
        latents_mean=tuple(values["latents_mean"]),
        latents_std=tuple(values["latents_std"]),
    )
    _refuse_differences(vae_to_stock(config), values, source)
    return config


def mmdit_to_stock(config: MMDiTConfig) -> dict[str, Any]:
    """Arguments of ``MotifVideoTransformer3DModel`` (JSON-able) for the model without its camera.

    Raises:
        InvalidValue: patches that the stock class does not have, or a camera that :func:`check_camera`
            refuses.
    """
    check_camera(config.camera)
    patch_t, patch_h, patch_w = config.patch
    if patch_h != patch_w:
        raise InvalidValue(f"The stock class has square patches only; this model's patch is {config.patch}.")
    return {
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "num_attention_heads": config.heads,
        "attention_head_dim": config.head_dim,
        "num_layers": config.num_dual,
        "num_single_layers": config.num_single,
        "num_decoder_layers": config.num_decoder,
        "mlp_ratio": config.mlp_ratio,
        "patch_size": patch_h,
        "patch_size_t": patch_t,
        "qk_norm": "rms_norm",
        "norm_type": "layer_norm",
        "text_embed_dim": config.text_dim,
        "image_embed_dim": config.image_dim,
        "rope_theta": config.rope_theta,
        "rope_axes_dim": list(config.rope_axes),
        "enable_text_cross_attention_dual": config.text_cross_attention_dual,
        "enable_text_cross_attention_single": config.text_cross_attention_single,
    }


def check_camera(camera: CameraConfig | None) -> None:
    """Raises: InvalidValue for a camera that the pipeline beside the stock model cannot run."""
    if camera is not None and (camera.encoder, camera.injection) != ("patchify", "first"):
        raise InvalidValue(
            f"a camera with encoder={camera.encoder!r} and injection={camera.injection!r} has no counterpart "
            "in PyTorch: the exported pipeline knows encoder='patchify' with injection='first' only."
        )


def mmdit_from_stock(
    stock: Mapping[str, Any], camera: CameraConfig | None = None, source: str = "config.json"
) -> MMDiTConfig:
    """A stock ``MotifVideoTransformer3DModel`` configuration -> MMDiTConfig with this camera layer."""
    check_fields(stock, _MMDIT_KINDS, source)
    values = {**_MMDIT_DEFAULTS, **_public(stock)}
    hidden = values["num_attention_heads"] * values["attention_head_dim"] * values["mlp_ratio"]
    if abs(hidden - round(hidden)) > 1e-6 * hidden:
        raise InvalidValue(
            f"{source}: mlp_ratio is {values['mlp_ratio']!r}, which makes a hidden layer {hidden:g} wide; "
            "expected a whole number: the ratio times num_attention_heads * attention_head_dim."
        )
    config = MMDiTConfig(
        width=values["num_attention_heads"] * values["attention_head_dim"],
        heads=values["num_attention_heads"],
        head_dim=values["attention_head_dim"],
        num_dual=values["num_layers"],
        num_single=values["num_single_layers"],
        num_decoder=values["num_decoder_layers"],
        mlp_ratio=values["mlp_ratio"],
        patch=(values["patch_size_t"], values["patch_size"], values["patch_size"]),
        in_channels=values["in_channels"],
        out_channels=values["out_channels"] or values["in_channels"],
        text_dim=values["text_embed_dim"],
        image_dim=values["image_embed_dim"],
        rope_axes=tuple(values["rope_axes_dim"]),
        rope_theta=values["rope_theta"],
        text_cross_attention_dual=values["enable_text_cross_attention_dual"],
        text_cross_attention_single=values["enable_text_cross_attention_single"],
        camera=camera,
    )
    _refuse_differences(mmdit_to_stock(config), values, source)
    return config


def _public(stock: Mapping[str, Any]) -> dict[str, Any]:
    """Without diffusers' own entries (_class_name, _diffusers_version, ...)."""
    return {name: value for name, value in stock.items() if not name.startswith("_")}


def _refuse_differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], source: str) -> None:
    """Every field of the file must mean the same here, or be one that does not change the numbers."""
    for name, value in theirs.items():
        if name == "dropout":  # of no effect on a trained model
            continue
        if name not in ours:
            raise InvalidValue(
                f"{source}: field {name!r} (value {value!r}) is unknown to this implementation."
            )
        ours_value = tuple(ours[name]) if isinstance(ours[name], list) else ours[name]
        theirs_value = tuple(value) if isinstance(value, list) else value
        if ours_value != theirs_value and not (name == "out_channels" and value is None):
            raise InvalidValue(
                f"{source}: {name}={value!r} is not supported; this implementation needs {ours[name]!r}."
            )
