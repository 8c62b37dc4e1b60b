"""Small real inputs shared by the tests of this folder, made once per session."""

from __future__ import annotations

import jax.numpy as jnp
import pytest
from nano_weights import random_params

from camctrl_jax.checkpoints.weights import expected_vae
from camctrl_jax.data.clips import ClipDataset, open_clips, write_clips
from camctrl_jax.data.worlds_records import world_records
from camctrl_jax.data.worlds_set import WorldsSet
from camctrl_jax.models import vae_preset
from camctrl_jax.models.autoencoder import Autoencoder
from camctrl_jax.worlds import WorldsConfig


@pytest.fixture(scope="session")
def worlds_folder(tmp_path_factory):
    """A dataset of ten worlds of nine frames at 32x48 pixels, two of them unlabelled."""
    out = tmp_path_factory.mktemp("datasets") / "worlds"
    worlds = WorldsSet(range(10), 32, 48, WorldsConfig(frames=9, fps=12.0))
    write_clips(out, world_records(worlds, unlabelled_share=0.2, workers=0))
    return out


@pytest.fixture(scope="session")
def worlds_dataset(worlds_folder) -> ClipDataset:
    return open_clips(worlds_folder)


@pytest.fixture(scope="session")
def nano_encoder() -> Autoencoder:
    """The encoder of a small VAE with random weights."""
    config = vae_preset("nano", num_res_blocks=0)
    params = random_params(expected_vae(config), seed=0)
    return Autoencoder(config, params, dtype=jnp.float32, batch_size=2)
