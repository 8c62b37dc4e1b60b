"""A weights folder of the nano models with random parameters, for tests of what is built around them.

Untrained models are initialised to ignore camera and text; here every parameter is random, so that each input
reaches the output.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from camctrl_jax.checkpoints.runs import Checkpoints
from camctrl_jax.checkpoints.weights import (
    SamplingDefaults,
    expected_mmdit,
    expected_vae,
    save_weights_folder,
)
from camctrl_jax.data.text import WordEmbedder
from camctrl_jax.interop.described import Distilled
from camctrl_jax.models import mmdit_preset, vae_preset
from camctrl_jax.training.config import as_json, default_config
from camctrl_jax.training.state import create_state

TEXT = WordEmbedder(dim=64, max_tokens=32).settings()
SAMPLING = SamplingDefaults(frames=9, height=32, width=48)
STUDENT = Distilled("progressive", "", {"text": 1.0, "camera": 2.0}, (4,))


def random_params(shapes, seed: int):
    """Random parameters: matrices that keep the scale of their input, biases about 0 and gains about 1."""
    rng = np.random.default_rng(seed)

    def make(path, leaf) -> np.ndarray:
        if len(leaf.shape) >= 2:
            return (rng.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]))).astype(np.float32)
        centre = 0.0 if "bias" in jax.tree_util.keystr(path) else 1.0
        return rng.normal(centre, 0.1, leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(make, shapes)


def save_nano(
    directory: Path,
    *,
    camera: bool = True,
    mmdit: bool = True,
    distilled: Distilled | None = None,
    seed: int = 1,
) -> Path:
    """Write the folder; without camera it is a base model, without mmdit an autoencoder alone.

    ``seed`` is of the transformer's parameters; the autoencoder is always the same.
    """
    vae_config, config = vae_preset("nano", num_res_blocks=0), mmdit_preset("nano", num_single=1)
    if not camera:
        config = replace(config, camera=None)
    return save_weights_folder(
        directory,
        vae=(vae_config, random_params(expected_vae(vae_config), 0)),
        mmdit=(config, random_params(expected_mmdit(config), seed)) if mmdit else None,
        text=TEXT,
        sampling=SAMPLING,
        distilled=distilled,
        card="# nano\n",
    )


def save_run(directory: Path, params, architecture, **config) -> Path:
    """A run directory as train.py leaves it: one checkpoint, its average is ``params``, raw ones are zero."""
    state = create_state(jax.tree.map(jnp.asarray, params), optax.sgd(0.1))
    state = replace(state, params=jax.tree.map(jnp.zeros_like, state.params))
    checkpoints = Checkpoints(directory)
    content = as_json(default_config()) | config | {"architecture": architecture}
    checkpoints.save(7, state, {}, content)
    checkpoints.wait()
    checkpoints.close()
    return directory
