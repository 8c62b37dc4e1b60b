"""``export to-diffusers``: a folder of stock diffusers components for PyTorch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from camctrl_jax.checkpoints.pipelines import autoencoder_of
from camctrl_jax.checkpoints.weights import Weights, cause_of_non_finite, open_weights
from camctrl_jax.data.text import embedder_from_settings
from camctrl_jax.diffusion.flow import shift_for_tokens
from camctrl_jax.errors import UserError
from camctrl_jax.export.cards import torch_card
from camctrl_jax.files.atomic import is_in_use
from camctrl_jax.interop.described import WeightsError
from camctrl_jax.interop.diffusers_export import Exported, write_diffusers_folder
from camctrl_jax.interop.diffusers_import import find_diffusers_folder

_DTYPES = {None: None, "bfloat16": ml_dtypes.bfloat16, "float32": np.float32}


def export_diffusers(
    out: str | os.PathLike,
    *,
    checkpoint: str,
    vae: str | None = None,
    with_vae: bool = True,
    ema: bool = True,
    dtype: str | None = None,
) -> tuple[Path, list[str]]:
    """Write a folder that stock diffusers classes load, with the camera layer and what runs it in PyTorch.

    Args:
        out: the folder; must not exist, or be empty.
        checkpoint: weights spec of the transformer.
        vae: weights spec of the autoencoder; by default the one the transformer was trained with.
        with_vae: False leaves the autoencoder out: name the base model's when running it.
        ema: of a training run's transformer, the moving average rather than the raw parameters.
        dtype: 'bfloat16' or 'float32'; None keeps what is stored.

    Returns:
        The folder, and what the user should know, one line each.

    Raises:
        WeightsError, CheckpointError: weights that cannot be found or used, or a flow map.
    """
    model = open_weights(checkpoint)
    if model.mmdit_config is None:
        raise WeightsError(f"{checkpoint} holds no transformer: there is nothing to run in PyTorch.")
    if model.distilled is not None and model.distilled.method == "flow_map":
        raise WeightsError(
            f"{checkpoint} is a flow map ({model.distilled.said}): its transformer is told the time that a "
            "step jumps to beside the time it starts from, an input that the stock class "
            "MotifVideoTransformer3DModel does not have. Export its teacher, or a progressive or adversarial "
            "student."
        )
    if is_in_use(Path(out)):
        raise WeightsError(f"{out} already exists and is not an empty folder: choose another --out.")
    if not ema and (model.kind != "run" or "imported" in model.facts["config"]):
        raise WeightsError(f"{checkpoint} holds one set of parameters only: leave --raw out.")
    notes = list(find_diffusers_folder(model.path).remarks()) if model.kind == "diffusers" else []
    autoencoder, spec = autoencoder_of(model, vae), vae or model.vae_spec
    if autoencoder is None and spec not in (None, "random"):
        raise WeightsError(f"{spec} holds no autoencoder: name one that does with --vae, or --no-vae.")
    if with_vae and autoencoder is None:
        notes.append("vae/ is left out: the checkpoint does not say which autoencoder it belongs to (--vae).")
    written = autoencoder if with_vae else None
    exported = Exported(
        transformer=(model.mmdit_config, model.mmdit_params(dtype=None, ema=ema)),
        vae=None
        if written is None
        # Its average always: the transformer was trained on that, and so were the latent statistics measured.
        else (written.vae_config, written.vae_params(dtype=None)),
        sampling=model.sampling,
        distilled=model.distilled,
        shift=_shift_of(model, autoencoder, notes),
        null_text=_null_text_of(model, notes),
        readme=torch_card(
            Path(out).name,
            has_vae=written is not None,
            has_camera=model.mmdit_config.camera is not None,
            distilled=model.distilled,
        ),
        cause=cause_of_non_finite(model),
    )
    return write_diffusers_folder(Path(out), exported, dtype=_DTYPES[dtype]), notes


def _shift_of(model: Weights, autoencoder: Weights | None, notes: list[str]) -> float:
    """The scheduler's timestep shift at the clips a model was trained on, or that of where it came from."""
    clip = model.sampling
    if clip is not None and clip.shift is not None:
        return clip.shift
    if clip is not None and autoencoder is not None:
        shape = autoencoder.vae_config.clip_shape(clip.frames, clip.height, clip.width)
        return shift_for_tokens(shape.tokens(model.mmdit_config.patch))
    if model.kind == "diffusers":
        shift = find_diffusers_folder(model.path).scheduler().shift
    else:
        shift = model.facts.get("config", {}).get("imported", {}).get("shift")
    if shift is None:
        notes.append("the scheduler's shift is 1: nothing is known of the clips; set it when sampling.")
    return 1.0 if shift is None else shift


def _null_text_of(model: Weights, notes: list[str]) -> Any:
    """Embedding and mask of the empty prompt, or None with a note that says why."""
    reason = "the checkpoint does not say how its text was embedded"
    if model.kind == "diffusers":
        found = find_diffusers_folder(model.path).null_text()
        if found is not None:
            return found
    elif model.text is not None:
        try:
            return embedder_from_settings(model.text).embed([""])
        except UserError as error:
            reason = str(error)
    notes.append(f"text/ is left out: {reason.rstrip('.')}.")
    return None
