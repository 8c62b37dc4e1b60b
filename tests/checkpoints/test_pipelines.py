"""Pipelines from weights specs: weights that fit together, and sizes that work."""

from __future__ import annotations

from dataclasses import replace

import pytest
from nano_weights import save_nano

from camctrl_jax.checkpoints.pipelines import check_clip_size, load_pipeline, open_model
from camctrl_jax.clip_shape import ClipShape
from camctrl_jax.data.text import WordEmbedder
from camctrl_jax.interop.described import WeightsError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_nano(tmp_path_factory.mktemp("weights") / "nano")


def test_autoencoder_alone_is_no_model(tmp_path):
    save_nano(tmp_path / "vae", mmdit=False)
    with pytest.raises(WeightsError, match="no transformer"):
        open_model(tmp_path / "vae")


def test_text_settings_of_another_width_are_refused(folder):
    model, autoencoder = open_model(folder)
    with pytest.raises(WeightsError, match="32 channels, its transformer takes 64"):
        load_pipeline(replace(model, text=WordEmbedder(dim=32).settings()), autoencoder)


def test_another_autoencoder_can_be_named(folder, tmp_path):
    other = save_nano(tmp_path / "vae", mmdit=False)
    model, autoencoder = open_model(folder, other)
    assert (model.path, autoencoder.path) == (folder, other)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((10, 32, 48), "frames=10: expected 4k.1 frames, for example 9 or 13"),
        ((1, 32, 48), "frames=1"),
        ((9, 40, 48), "height=40: expected a multiple of 16"),
        ((9, 32, 8), "width=8: expected a multiple of 16 pixels, for example 16"),
    ],
)
def test_impossible_sizes_are_refused_with_the_nearest_possible(folder, size, message):
    with pytest.raises(ValueError, match=message):
        check_clip_size(*open_model(folder), ClipShape(*size))
