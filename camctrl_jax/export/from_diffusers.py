"""``export from-diffusers``: a checkpoint of the networks in a diffusers folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from camctrl_jax.checkpoints.architecture import Architecture, clip_of
from camctrl_jax.checkpoints.mesh_reading import onto_mesh
from camctrl_jax.checkpoints.runs import save_networks
from camctrl_jax.files.atomic import is_in_use, replaced_folder
from camctrl_jax.interop.described import WeightsError
from camctrl_jax.interop.diffusers_import import find_diffusers_folder
from camctrl_jax.parallel.mesh import MeshConfig, make_mesh


def import_diffusers(
    source: str | os.PathLike, out: str | os.PathLike, variant: str | None = None
) -> tuple[list[str], list[str]]:
    """Make a checkpoint of the transformer and the autoencoder in a diffusers folder, every bit kept.

    Parameters are read one at a time onto all devices, split as in training, so that neither the host nor a
    device holds the model twice.

    Args:
        source: folder with ``transformer/`` or ``vae/`` or both.
        out: the checkpoint, a directory that must not exist or be empty.
        variant: which of several sets of weights, such as ``bf16``; None prefers the full one, then the only
            one in float32, then the only one in bfloat16.

    Returns:
        A line for people about each network, and what they should know: which weights were taken, what of the
        scheduler's settings is not done here.

    Raises:
        WeightsError, SafetensorsError, CheckpointError: weights that are absent, damaged or of another model,
            that hold NaN or infinity, settings of another kind, or a full disk. Nothing is left behind.
    """
    source, out = Path(source), Path(out)
    found = find_diffusers_folder(source, variant) if source.is_dir() else None
    if found is None:
        raise WeightsError(
            f"{source} is no diffusers folder: it has neither transformer/ nor vae/ with a config.json. "
            f"It was looked up from {Path.cwd()}."
        )
    if is_in_use(out):
        raise WeightsError(f"{out} already exists and is not an empty folder: choose another --out.")
    mmdit = None if found.transformer is None else found.transformer_config()
    vae = None if found.vae is None else found.vae_config()
    sampling, notes = found.sampling(), list(found.remarks())
    shift = found.scheduler().shift
    config: dict[str, Any] = {"imported": {"folder": source.resolve().name, "shift": shift}}
    if sampling is not None:
        config["sample"] = {name: getattr(sampling, name) for name in ("text_guidance", "camera_guidance")}
    # How its text is made is unknown.
    clip = None if sampling is None else clip_of(sampling)
    config["architecture"] = Architecture(
        vae=vae, mmdit=mmdit, clip=clip, distilled=found.distilled()
    ).to_json()
    keep = onto_mesh(make_mesh(MeshConfig(data=1, fsdp=-1)))
    networks = {}
    if mmdit is not None:
        networks["mmdit"] = found.transformer_params(keep)
    if vae is not None:
        networks["vae"] = found.vae_params(keep)
    with replaced_folder(out) as partial:
        save_networks(partial, networks, config, shown=out)
    return [f"{name}: {_summary(params)}" for name, params in networks.items()], notes


def _summary(params: Mapping[str, Any]) -> str:
    leaves = jax.tree.leaves(params)
    dtypes = ", ".join(sorted({str(leaf.dtype) for leaf in leaves}))
    return f"{len(leaves)} parameters, {sum(leaf.size for leaf in leaves) / 1e6:,.1f}M values, {dtypes}"
