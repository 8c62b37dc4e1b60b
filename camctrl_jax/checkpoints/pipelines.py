"""A pipeline from weights specs: which transformer, which autoencoder, and whether they fit together."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import jax

from camctrl_jax.checkpoints.weights import Weights, open_weights
from camctrl_jax.clip_shape import ClipShape
from camctrl_jax.data.text import embedder_from_settings
from camctrl_jax.interop.described import WeightsError
from camctrl_jax.models.autoencoder import Autoencoder, compute_dtype
from camctrl_jax.parallel.mesh import MeshConfig
from camctrl_jax.sampling.on_mesh import (
    autoencoder_on_mesh,
    dtype_in_sampling,
    make_sampling_mesh,
    mesh_denoiser,
)
from camctrl_jax.sampling.pipeline import Denoiser, Pipeline, sampling_form


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
    autoencoder = autoencoder_of(model, vae)
    if autoencoder is None:
        raise WeightsError(f"{vae or model.vae_spec} holds no autoencoder: name one that does with --vae.")
    return model, autoencoder


def autoencoder_of(model: Weights, vae: str | os.PathLike | None = None) -> Weights | None:
    """The autoencoder that belongs to a transformer, or the one that ``vae`` names.

    Returns:
        Configurations only; None if nothing says which, or what is named holds none.

    Raises:
        WeightsError: its latents have another number of channels than the transformer takes.
    """
    spec = vae or model.vae_spec
    if spec in (None, "random"):
        return None
    autoencoder = model if vae is None and model.vae_config is not None else open_weights(spec)
    if autoencoder.vae_config is None and autoencoder.vae_spec:
        autoencoder = open_weights(autoencoder.vae_spec)  # a run of a transformer stands for its autoencoder
    if autoencoder.vae_config is None:
        return None
    ours, theirs = model.mmdit_config.out_channels, autoencoder.vae_config.z_dim
    if theirs != ours:
        raise WeightsError(
            f"The transformer of {model.spec} takes {ours} latent channels but the autoencoder of "
            f"{autoencoder.spec} has {theirs}: name another --vae."
        )
    return autoencoder


def check_clip_size(model: Weights, autoencoder: Weights, shape: ClipShape) -> ClipShape:
    """The shape with the strides of the autoencoder, if the model can make such clips.

    Raises:
        InvalidValue: it cannot; names the value and the nearest that works.
    """
    shape = autoencoder.vae_config.clip_shape(shape.frames, shape.height, shape.width)
    return shape.check(model.mmdit_config.patch, least_latents=2)


def load_pipeline(
    model: Weights,
    autoencoder: Weights,
    *,
    float32: bool = False,
    mesh: MeshConfig | None = None,
    loaded: Autoencoder | None = None,
) -> Pipeline:
    """Read the parameters of what :func:`open_model` found.

    Args:
        model, autoencoder: configurations.
        float32: compute in float32 on an accelerator too.
        mesh: of devices that share the work (``camctrl_jax.sampling.on_mesh``), of which each reads its own
            part; None is the default device alone.
        loaded: the autoencoder, where another pipeline has it on the same devices: shared, not read again.

    Raises:
        WeightsError: parameters or text settings that do not belong to the configuration.
        InvalidValue: a mesh that there are not the devices for, or that does not divide the model.
    """
    dtype, config = compute_dtype(float32), model.mmdit_config
    embedder = embedder_from_settings(model.text)
    if embedder.dim != config.text_dim:
        raise WeightsError(
            f"{model.path}: its text embeddings have {embedder.dim} channels, its transformer takes "
            f"{config.text_dim}: the text settings are not those it was trained with."
        )
    made = None if mesh is None else make_sampling_mesh(mesh, config)
    whole = load_autoencoder(autoencoder, dtype) if loaded is None else loaded
    given = model.distilled
    if made is None or made.size == 1:
        config, params = sampling_form(config, model.mmdit_params(), dtype)
        denoiser = Denoiser(config, dtype)
        return Pipeline(whole, denoiser, params, embedder, model.sampling, distilled=given)
    params = model.mmdit_params(mesh=made, dtype=partial(dtype_in_sampling, dtype=dtype))
    denoiser, params = mesh_denoiser(config, params, dtype, made, mesh.context_attention)
    whole = autoencoder_on_mesh(whole, made) if loaded is None else loaded
    return Pipeline(whole, denoiser, params, embedder, model.sampling, made, distilled=given)


def load_autoencoder(weights: Weights, dtype: Any) -> Autoencoder:
    """Read an autoencoder onto the default device."""
    batch_size = 1 if jax.default_backend() == "cpu" else 16
    return Autoencoder(weights.vae_config, jax.device_put(weights.vae_params()), dtype, batch_size)
