"""Weights folders: what is saved loads again, and what does not belong together is refused by name."""

from __future__ import annotations

import dataclasses
import json

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from camctrl_jax.checkpoints import weights as pretrained
from camctrl_jax.checkpoints.weights import (
    SamplingDefaults,
    WeightsError,
    config_from_json,
    config_to_json,
    load_vae,
    open_weights,
    save_weights_folder,
)
from camctrl_jax.data.text import WordEmbedder
from camctrl_jax.files.safetensors import SafetensorsFile, flatten
from camctrl_jax.models import VAE, CameraConfig, MMDiT, MMDiTConfig, VAEConfig, mmdit_preset, vae_preset

TEXT = WordEmbedder(dim=64, max_tokens=32).settings()
SAMPLING = SamplingDefaults(frames=9, height=32, width=48, shift=2.0)


def random_like(shapes, seed: int):
    leaves, tree = jax.tree.flatten(shapes)
    rng = np.random.default_rng(seed)
    return jax.tree.unflatten(tree, [rng.normal(size=leaf.shape).astype(np.float32) for leaf in leaves])


@pytest.fixture(scope="module")
def vae():
    config = vae_preset("nano", latents_mean=tuple(np.linspace(-1, 1, 16).tolist()))
    return config, random_like(pretrained.expected_vae(config), 0)


@pytest.fixture(scope="module")
def mmdit():
    config = mmdit_preset("nano")
    return config, random_like(pretrained.expected_mmdit(config), 1)


def save(directory, vae, mmdit, **changes):
    arguments = {"vae": vae, "mmdit": mmdit, "text": TEXT, "sampling": SAMPLING, "card": "# Card\n"}
    return save_weights_folder(directory, **arguments | changes)


def test_saved_weights_load_again(tmp_path, vae, mmdit):
    folder = save(tmp_path / "w", vae, mmdit, facts={"seed": 3}, max_shard_bytes=200_000)
    assert (folder / "README.md").read_text() == "# Card\n"
    assert len(list(folder.glob("*.safetensors"))) > 4
    assert all(path.stat().st_size <= 200_000 for path in folder.glob("*.safetensors"))
    weights = open_weights(folder)
    assert weights.facts == {"seed": 3}
    assert weights.sampling == SAMPLING
    for (config, params), (expected_config, expected) in (
        (load_vae(folder), vae),
        ((weights.mmdit_config, weights.mmdit_params()), mmdit),
    ):
        assert config == expected_config
        found, wanted = flatten(params), flatten(expected)
        assert found.keys() == wanted.keys()
        for name, array in wanted.items():
            assert found[name].dtype == np.float32
            rounded = array.astype(ml_dtypes.bfloat16).astype(np.float32) if array.ndim >= 2 else array
            np.testing.assert_array_equal(found[name], rounded, err_msg=name)
    assert weights.text == TEXT


def test_matrices_are_stored_in_bfloat16_and_vectors_in_float32(tmp_path, vae, mmdit):
    folder = save(tmp_path / "w", vae, mmdit)
    for stem in ("vae", "mmdit"):
        file = SafetensorsFile(folder / f"{stem}.safetensors")
        assert {file.dtype(name) for name in file if len(file.shape(name)) >= 2} == {
            np.dtype(ml_dtypes.bfloat16)
        }
        assert {file.dtype(name) for name in file if len(file.shape(name)) < 2} == {np.dtype(np.float32)}


def test_expected_shapes_are_those_of_models_initialised_on_real_sizes():
    def shapes(tree):
        return {name: leaf.shape for name, leaf in flatten(tree).items()}

    key, vae_config, config = jax.random.key(0), vae_preset("nano"), mmdit_preset("nano")
    made = jax.eval_shape(VAE(vae_config).init, key, jnp.zeros((2, 13, 32, 48, 3)))["params"]
    assert shapes(made) == shapes(pretrained.expected_vae(vae_config))
    inputs = jnp.zeros((2, 4, 4, 6, 33)), jnp.zeros(2), jnp.zeros((2, 5, 64)), jnp.ones((2, 5), bool)
    made = jax.eval_shape(MMDiT(config).init, key, *inputs, jnp.zeros((2, 4, 4, 6, 6)))["params"]
    assert shapes(made) == shapes(pretrained.expected_mmdit(config))


@pytest.mark.parametrize("name", ["nano", "worlds", "paper", "motif_2b"])
def test_configurations_survive_json(name):
    config = mmdit_preset(name)
    text = json.dumps(config_to_json(config))
    assert config_from_json(MMDiTConfig, json.loads(text)) == config
    for camera in (None, CameraConfig("pixel", (1, 16, 16))):
        changed = dataclasses.replace(config, camera=camera)
        assert config_from_json(MMDiTConfig, config_to_json(changed)) == changed


def test_how_a_network_is_run_is_not_part_of_its_weights():
    config = mmdit_preset("nano", remat="full", attention="xla")
    assert config_from_json(MMDiTConfig, config_to_json(config)) == mmdit_preset("nano")


def test_unknown_and_missing_fields_of_a_configuration_are_named():
    values = config_to_json(vae_preset("nano"))
    with pytest.raises(ValueError, match="no field 'colour'"):
        config_from_json(VAEConfig, values | {"colour": 1})
    with pytest.raises(ValueError, match=r"needs the fields .*width"):
        config_from_json(MMDiTConfig, {"heads": 2})


def test_weights_of_another_preset_are_refused_by_name_and_shape(tmp_path, vae, mmdit):
    folder = save(tmp_path / "w", vae, mmdit)
    content = json.loads((folder / "model.json").read_text())
    content["mmdit"]["num_single"] += 1
    content["mmdit"]["text_dim"] = 32
    (folder / "model.json").write_text(json.dumps(content))
    with pytest.raises(
        WeightsError, match=r"missing: single_transformer_blocks_3.*context_embedder.*\[64, 48\]"
    ):
        open_weights(folder).mmdit_params()
    content["mmdit"]["num_single"] -= 2
    (folder / "model.json").write_text(json.dumps(content))
    with pytest.raises(WeightsError, match=r"unexpected: single_transformer_blocks_2"):
        open_weights(folder).mmdit_params()


def test_parameters_that_do_not_fit_are_not_saved(tmp_path, vae, mmdit):
    config, params = mmdit
    broken = {key: value for key, value in params.items() if key != "proj_out"}
    with pytest.raises(WeightsError, match=r"2 missing: proj_out\.bias, proj_out\.kernel"):
        save(tmp_path / "w", vae, (config, broken))
    diverged = params | {"proj_out": jax.tree.map(lambda x: x * np.nan, params["proj_out"])}
    with pytest.raises(WeightsError, match=r"proj_out.*NaN"):
        save(tmp_path / "w", vae, (config, diverged))
    assert list(tmp_path.iterdir()) == []


def test_failed_save_leaves_nothing(tmp_path, vae, mmdit):
    with pytest.raises(ValueError, match="does not fit"):
        save(tmp_path / "w", vae, mmdit, max_shard_bytes=2000)
    with pytest.raises(ValueError):
        save(tmp_path / "w", vae, mmdit, facts={"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_weights_are_never_overwritten(tmp_path, vae, mmdit):
    folder = save(tmp_path / "w", vae, None, text=None, sampling=None)
    with pytest.raises(WeightsError, match="already exists"):
        save(folder, vae, mmdit)


def test_folder_with_an_autoencoder_only(tmp_path, vae):
    folder = save(tmp_path / "w", vae, None, text=None, sampling=None)
    assert load_vae(folder)[0] == vae[0]
    with pytest.raises(WeightsError, match="no transformer, only an autoencoder"):
        open_weights(folder).mmdit_params()


def test_folder_with_a_transformer_only(tmp_path, mmdit):
    folder = save(tmp_path / "w", None, mmdit)
    assert open_weights(folder).mmdit_config == mmdit[0]
    with pytest.raises(WeightsError, match="no autoencoder"):
        load_vae(folder)


def test_absent_weights_are_explained(tmp_path, monkeypatch):
    with pytest.raises(WeightsError, match="No weights at 'nowhere'"):
        open_weights("nowhere")
    with pytest.raises(WeightsError, match="neither a weights folder"):
        open_weights(tmp_path)
    monkeypatch.setattr(pretrained, "default_folder", lambda: tmp_path / "worlds")
    with pytest.raises(WeightsError, match="embedded default weights are absent"):
        open_weights("default")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "model.json"),
        ("{}", "'format' is missing"),
        ('{"format": "other", "format_version": 1}', "its format is 'other'"),
        ('{"format": "camctrl_jax weights", "format_version": 99}', "update camctrl_jax"),
        ('{"format": "camctrl_jax weights", "format_version": 1, "vae": {"z_dim": 3}}', "latents_mean"),
    ],
)
def test_damaged_model_file_is_refused(tmp_path, content, message):
    (tmp_path / "model.json").write_text(content)
    with pytest.raises(WeightsError, match=message) as caught:
        open_weights(tmp_path)
    assert "model.json" in str(caught.value)
