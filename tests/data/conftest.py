"""Small real inputs shared by the tests of this folder, made once per session."""

from __future__ import annotations

import pytest

from camctrl_jax.build_dataset import main as build_dataset
from camctrl_jax.data.clips import ClipDataset, open_clips
from camctrl_jax.data.latents import LatentEncoder


@pytest.fixture(scope="session")
def worlds_folder(tmp_path_factory):
    """A dataset of ten worlds of nine frames at 32x48 pixels, two of them unlabelled."""
    out = tmp_path_factory.mktemp("datasets") / "worlds"
    arguments = "worlds --count 10 --frames 9 --height 32 --width 48 --unlabelled-share 0.2 --workers 0"
    assert build_dataset([*arguments.split(), "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="session")
def worlds_dataset(worlds_folder) -> ClipDataset:
    return open_clips(worlds_folder)


@pytest.fixture(scope="session")
def nano_encoder() -> LatentEncoder:
    """The encoder of a small VAE with random weights."""
    from nano_weights import random_params

    from camctrl_jax.interop.pretrained import expected_vae
    from camctrl_jax.models import vae_preset

    config = vae_preset("nano", num_res_blocks=0)
    return LatentEncoder(config, random_params(expected_vae(config), seed=0), batch_size=2)
