"""The networks, in Flax Linen: causal video autoencoder, multimodal diffusion transformer, clip features.

Outside this package parameters are a plain nested dict of arrays: ``model.init(rng, ...)["params"]`` makes
them and ``model.apply({"params": params}, ...)`` uses them. Nothing here knows of data, files or training
configurations.
"""

from camctrl_jax.models.autoencoder import (
    Autoencoder,
    compute_dtype,
    decode_video,
    encode_video,
    to_bytes,
    to_unit_range,
)
from camctrl_jax.models.clip_features import ClipFeatureNetwork, ClipFeatures, ClipFeaturesConfig, ClipTruth
from camctrl_jax.models.mmdit import (
    CameraConfig,
    MMDiT,
    MMDiTConfig,
    layer_names,
    leading_to,
    mmdit_in_dtype,
    stack_layers,
    stack_state,
    unstack_layers,
    unstack_state,
)
from camctrl_jax.models.presets import clip_features_preset, mmdit_preset, vae_preset
from camctrl_jax.models.vae import (
    VAE,
    VAEConfig,
    decode_streaming,
    decode_within,
    denormalise,
    encode_streaming,
    encode_within,
    normalise,
)

__all__ = [
    "VAE",
    "Autoencoder",
    "CameraConfig",
    "ClipFeatureNetwork",
    "ClipFeatures",
    "ClipFeaturesConfig",
    "ClipTruth",
    "MMDiT",
    "MMDiTConfig",
    "VAEConfig",
    "clip_features_preset",
    "compute_dtype",
    "decode_streaming",
    "decode_video",
    "decode_within",
    "denormalise",
    "encode_streaming",
    "encode_video",
    "encode_within",
    "layer_names",
    "leading_to",
    "mmdit_in_dtype",
    "mmdit_preset",
    "normalise",
    "stack_layers",
    "stack_state",
    "to_bytes",
    "to_unit_range",
    "unstack_layers",
    "unstack_state",
    "vae_preset",
]
