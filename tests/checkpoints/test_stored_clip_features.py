"""Clip features on disk: what is stored is what is loaded, and the shipped ones do what they are for."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from nano_weights import random_params, save_run
from scipy import ndimage

from camctrl_jax.checkpoints.architecture import Architecture
from camctrl_jax.checkpoints.clip_features import (
    CONFIG_FILE,
    StoredClipFeatures,
    default_clip_features_folder,
    load_clip_features,
    open_clip_features,
    save_clip_features,
)
from camctrl_jax.checkpoints.pipelines import load_autoencoder
from camctrl_jax.checkpoints.weights import open_vae
from camctrl_jax.export.__main__ import main
from camctrl_jax.files.safetensors import flatten
from camctrl_jax.interop.described import WeightsError
from camctrl_jax.metrics.frechet import FeatureStatistics, frechet_distance
from camctrl_jax.models import ClipFeatureNetwork, clip_features_preset
from camctrl_jax.worlds import WorldsConfig, render_rgb, sample_world

CONFIG = clip_features_preset("nano")
VIDEO = np.random.default_rng(0).integers(0, 256, (3, 9, 16, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    params = random_params(ClipFeatureNetwork(CONFIG).abstract_params(), 0)
    folder = tmp_path_factory.mktemp("runs") / "features"
    return save_run(folder, params, Architecture(clip_features=CONFIG).to_json(), objective="label"), params


def test_a_run_becomes_a_folder_with_the_same_features(run, tmp_path, capsys):
    path, params = run
    assert main(["features", "--checkpoint", str(path), "--out", str(tmp_path / "out")]) == 0
    assert "clip_features.safetensors" in capsys.readouterr().out
    stored, from_run = open_clip_features(tmp_path / "out"), open_clip_features(path)
    assert stored.config == from_run.config == CONFIG
    for name, array in flatten(params).items():
        np.testing.assert_array_equal(flatten(from_run.params)[name], array, err_msg=name)
        kept = array.astype(np.float16) if array.ndim >= 2 else array
        np.testing.assert_array_equal(flatten(stored.params)[name], kept.astype(np.float32), err_msg=name)
    near, exact = load_clip_features(tmp_path / "out"), load_clip_features(path)
    scale = np.abs(exact.features(VIDEO)).max()
    np.testing.assert_allclose(near.features(VIDEO), exact.features(VIDEO), atol=5e-3 * scale)


def test_the_same_run_gives_the_same_bytes(run, tmp_path):
    for name in ("one", "two"):
        assert main(["features", "--checkpoint", str(run[0]), "--out", str(tmp_path / name)]) == 0
    files = sorted(file.name for file in (tmp_path / "one").iterdir())
    assert files == ["README.md", "clip_features.safetensors", "config.json"]
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    # and a folder of a folder is the same network
    assert main(["features", "--checkpoint", str(tmp_path / "one"), "--out", str(tmp_path / "three")]) == 0
    tensors = [tmp_path / name / "clip_features.safetensors" for name in ("one", "three")]
    assert tensors[0].read_bytes() == tensors[1].read_bytes()


def test_a_card_and_facts_of_ones_own(run, tmp_path):
    (tmp_path / "card.md").write_text("# Mine\n")
    (tmp_path / "facts.json").write_text('{"seed": 3}')
    options = ["--card", str(tmp_path / "card.md"), "--facts", str(tmp_path / "facts.json")]
    assert main(["features", "--checkpoint", str(run[0]), "--out", str(tmp_path / "out"), *options]) == 0
    assert (tmp_path / "out" / "README.md").read_text() == "# Mine\n"
    assert open_clip_features(tmp_path / "out").facts["seed"] == 3


def test_nothing_is_overwritten_and_broken_parameters_are_refused(run, tmp_path):
    stored = open_clip_features(run[0])
    save_clip_features(tmp_path / "out", stored, "")
    with pytest.raises(WeightsError, match="not an empty folder"):
        save_clip_features(tmp_path / "out", stored, "")
    for value in (np.nan, 1e6):  # more than float16 can hold
        params = jax.tree.map(np.copy, stored.params)
        params["features"]["kernel"][0, 0] = value
        with pytest.raises(WeightsError, match=r"features\.kernel"):
            save_clip_features(tmp_path / "bad", dataclasses.replace(stored, params=params), "")
    params = {name: part for name, part in stored.params.items() if name != "stem"}
    with pytest.raises(WeightsError, match="stem"):
        save_clip_features(tmp_path / "bad", StoredClipFeatures(CONFIG, params), "")
    assert not (tmp_path / "bad").exists()


def test_what_is_not_there_or_something_else_is_named(run, tmp_path):
    with pytest.raises(WeightsError, match="No clip features at"):
        load_clip_features(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match="neither clip features nor a training run"):
        load_clip_features(tmp_path / "empty")
    other = save_run(tmp_path / "other", {"a": np.zeros(1)}, Architecture().to_json())
    with pytest.raises(WeightsError, match=r"configs/features\.py"):
        load_clip_features(other)
    folder = save_clip_features(tmp_path / "out", open_clip_features(run[0]), "")
    content = json.loads((folder / CONFIG_FILE).read_text())
    for changes, words in (
        ({"format_version": 99}, "update camctrl_jax"),
        ({"network": content["network"] | {"features": 9}}, "features"),
        ({"network": {"depth": 3}}, "depth"),
    ):
        (folder / CONFIG_FILE).write_text(json.dumps(content | changes))
        with pytest.raises(WeightsError, match=words):
            load_clip_features(folder)
    (folder / CONFIG_FILE).write_text(json.dumps({"format": content["format"]}))
    with pytest.raises(WeightsError, match="format_version"):
        load_clip_features(folder)
    (folder / CONFIG_FILE).write_text("{")
    with pytest.raises(WeightsError, match="not JSON"):
        load_clip_features(folder)


def test_the_shipped_folder_is_small_and_says_how_it_was_made():
    folder = default_clip_features_folder()
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 2_000_000
    stored = open_clip_features()
    assert stored.config == clip_features_preset("worlds")
    assert stored.facts["config"]["objective"] == "label"
    assert stored.facts["config"]["data"]["worlds"]["seeds"][1] <= 1_000_000
    card = (folder / "README.md").read_text()
    for word in ("seeds", "steps", "label", "reconstruct"):
        assert word in card


@pytest.mark.slow
def test_truth_is_nearer_than_its_reconstruction_and_that_than_what_is_blurred():
    network = load_clip_features()
    config = WorldsConfig(frames=17)
    worlds = [sample_world(seed, config) for seed in range(1_500_000, 1_500_024)]
    video = np.asarray(render_rgb(worlds, 96, 160, 1))
    truth, other = video[:12], video[12:]
    autoencoder = load_autoencoder(open_vae("default"), np.float32)
    # Two pixels: half a pixel would be less than what the autoencoder does.
    blurred = ndimage.gaussian_filter(truth.astype(np.float32), (0, 0, 2, 2, 0), mode="nearest")
    sets = {
        "truth": truth,
        "reconstruction": autoencoder.decode(autoencoder.encode(truth)),
        "blurred": np.round(blurred).astype(np.uint8),
        "repeated": np.broadcast_to(truth[:, :1], truth.shape),
    }
    reference = FeatureStatistics.of(network.features(other))
    apart = {
        name: frechet_distance(FeatureStatistics.of(network.features(clips)), reference)
        for name, clips in sets.items()
    }
    assert apart["truth"] < apart["reconstruction"] < apart["blurred"]
    assert apart["truth"] < apart["repeated"]
