"""What the parameters of a run are, in plain values: stored with every checkpoint, read to load one."""

from __future__ import annotations

import dataclasses
from typing import Any

from camctrl_jax.models import MMDiTConfig, VAEConfig


def autoencoder_architecture(
    config: VAEConfig, latents_mean: tuple[float, ...], latents_std: tuple[float, ...]
) -> dict[str, Any]:
    """The ``architecture`` entry of a VAE run, with the latent statistics measured on its data."""
    measured = dataclasses.replace(config, latents_mean=latents_mean, latents_std=latents_std)
    return {"vae": dataclasses.asdict(measured), "mmdit": None, "text": None, "clip": None, "vae_spec": None}


def denoiser_architecture(
    config: MMDiTConfig, text: dict[str, Any], clip: dict[str, Any], vae_spec: str
) -> dict[str, Any]:
    """The ``architecture`` entry of a denoising run.

    Args:
        config: the transformer.
        text: settings of the text embedder.
        clip: ``frames``, ``height``, ``width``, ``fps`` and ``shift`` (None: from the number of tokens).
        vae_spec: weights spec of the frozen autoencoder.
    """
    return {
        "vae": None,
        "mmdit": dataclasses.asdict(config),
        "text": text,
        "clip": clip,
        "vae_spec": vae_spec,
    }


def imported_architecture(
    mmdit: MMDiTConfig | None, vae: VAEConfig | None, clip: dict[str, Any] | None
) -> dict[str, Any]:
    """The ``architecture`` entry of weights that were trained elsewhere; how their text is made is unknown.

    ``clip`` as of :func:`denoiser_architecture`, or None where that is not known.
    """
    return {
        "vae": None if vae is None else dataclasses.asdict(vae),
        "mmdit": None if mmdit is None else dataclasses.asdict(mmdit),
        "text": None,
        "clip": clip,
        "vae_spec": None,
    }
