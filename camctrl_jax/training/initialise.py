"""First parameters of a model, and what it takes over from weights that exist already."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from camctrl_jax.models import VAE, MMDiT
from camctrl_jax.training.checkpoint import check_same_shapes, flat_shapes
from camctrl_jax.training.state import Params

# Parameters that a stage may add to the weights it starts from; they keep their own initialisation.
_NEW_PARTS = ("camera_embedder",)


def init_denoiser(model: MMDiT, key: Array) -> Params:
    """Initial parameters of a transformer; they depend on its config and the key, not on clip sizes."""
    config = model.config
    frames = jnp.zeros((1, *config.patch, config.in_channels))
    return model.init(key, frames, jnp.zeros(1), jnp.zeros((1, 1, config.text_dim)))["params"]


def init_autoencoder(vae: VAE, key: Array) -> Params:
    """Initial parameters of an autoencoder."""
    side, frames = vae.config.spatial_stride, 1 + vae.config.temporal_stride
    return vae.init(key, jnp.zeros((1, frames, side, side, 3)))["params"]


def merge_initial(fresh: Params, loaded: Params, origin: str) -> tuple[Params, list[str]]:
    """Parameters of ``loaded`` in the place of ``fresh`` ones.

    The camera layer may be missing from the source (a base model was trained without); its zero initialisation
    then stays, and the model begins as exactly the base. Camera weights that this model has no layer for are
    left out.

    Args:
        fresh: initial parameters of the model of this run.
        loaded: nested dict of arrays.
        origin: where they come from, for the message.

    Returns:
        (parameters in the dtype of ``fresh``, top-level names that kept their own initialisation).

    Raises:
        CheckpointError: the sizes differ; names the first parameter that does.
    """
    kept = [name for name in _NEW_PARTS if name in fresh and name not in loaded]
    loaded = {name: part for name, part in loaded.items() if name in fresh or name not in _NEW_PARTS}
    loaded |= {name: fresh[name] for name in kept}
    check_same_shapes(flat_shapes(loaded), flat_shapes(fresh), origin)
    return jax.tree.map(_in_dtype_of, fresh, loaded), kept


def _in_dtype_of(fresh: Any, loaded: Any) -> Any:
    if isinstance(loaded, jax.Array):
        return loaded.astype(fresh.dtype)
    return np.asarray(loaded).astype(fresh.dtype)
