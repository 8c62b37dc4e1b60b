"""Stage 1 from a base model in a diffusers folder: its sizes, the camera layer added, and out again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from nano_weights import save_nano

from camctrl_jax.checkpoints.runs import CheckpointError, checkpoint_steps, load_params
from camctrl_jax.export.from_diffusers import import_diffusers
from camctrl_jax.export.to_diffusers import export_diffusers
from camctrl_jax.files.safetensors import load_sharded
from camctrl_jax.interop.described import WeightsError
from camctrl_jax.training.config import as_json, check_config, load_recipe
from camctrl_jax.training.initialisation import take_sizes
from camctrl_jax.training.run import train
from camctrl_jax.training.values import ConfigError, mmdit_config

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A base model without camera as others would publish it, of another theta than our presets."""
    root = tmp_path_factory.mktemp("base")
    folder, _ = export_diffusers(
        root / "base", checkpoint=str(save_nano(root / "weights", camera=False)), dtype="bfloat16"
    )
    path = folder / "transformer" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rope_theta": 256.0}))
    return folder


def recipe(base, **changes):
    config = load_recipe(f"{ROOT / 'configs' / 'stage1'}.py:nano")
    weights = {"init_from": str(base), "vae.weights": str(base), "model.num_single": None}
    changes = weights | {"model.preset": "init_from", "steps": 2, "optimizer.warmup_steps": 1} | changes
    config.update_from_flattened_dict(changes)
    return config


def test_sizes_come_from_the_folder_and_the_camera_is_added(base):
    config = recipe(base)
    take_sizes(config, None)
    check_config(config)
    sizes = mmdit_config(config)
    assert (sizes.rope_theta, sizes.num_single, sizes.width) == (256.0, 1, 48)
    assert sizes.camera is not None
    without = recipe(base, **{"model.camera.injection": "none"})
    take_sizes(without, None)
    assert mmdit_config(without).camera is None
    # Stored with a checkpoint and read again, the config alone tells the model.
    again = recipe(base)
    again.update(ConfigDict(as_json(config)))
    assert mmdit_config(again) == sizes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"init_from": ""}, "names no transformer"),
        ({"init_from": "nowhere"}, "No weights at 'nowhere'"),
        ({"data.text.dim": 32}, "set --config.data.text.dim=64"),
    ],
)
def test_what_contradicts_the_folder_is_refused(base, changes, message):
    with pytest.raises((ConfigError, WeightsError), match=message):
        take_sizes(recipe(base, **changes), None)


def test_values_that_do_not_fit_the_weights_are_refused(base, tmp_path):
    with pytest.raises(CheckpointError, match="does not fit the model of this run"):
        train(recipe(base, **{"model.mlp_ratio": 2.0}), tmp_path / "run")


def test_sizes_are_named_where_nothing_is_read(base):
    with pytest.raises(ConfigError, match="name a preset"):
        check_config(recipe(base))


def test_a_preset_of_another_function_is_refused(base, tmp_path):
    """Another theta changes no shape: only the comparison of the configurations notices."""
    config = recipe(base, **{"model.preset": "nano", "model.num_single": 1})
    with pytest.raises(ConfigError, match=r"rope_theta=10000\.0.*made with 256\.0.*preset=init_from"):
        train(config, tmp_path / "run")


def test_a_run_into_imported_weights_is_refused_and_they_stay(base, tmp_path):
    checkpoint = tmp_path / "checkpoint"
    import_diffusers(base, checkpoint)
    with pytest.raises(CheckpointError, match=r"imported weights.*init_from"):
        train(recipe(base, keep_checkpoints=1, init_from="", **{"model.preset": "nano"}), checkpoint)
    assert checkpoint_steps(checkpoint) == [0]


@pytest.mark.slow
def test_it_trains_and_what_was_trained_exports(base, tmp_path):
    run = tmp_path / "run"
    train(recipe(base), run)
    before = load_sharded(base / "transformer", "diffusion_pytorch_model")
    out, notes = export_diffusers(tmp_path / "out", checkpoint=str(run), ema=False)
    assert not notes
    after = load_sharded(out / "transformer", "diffusion_pytorch_model")
    assert after.keys() == before.keys()
    key = "transformer_blocks.0.attn.to_q.weight"
    assert after[key].dtype == np.float32
    moved = np.abs(after[key] - before[key].astype(np.float32))
    assert 0 < moved.max() < 0.02  # two steps at the recipe's learning rate from the folder's own values
    camera = load_sharded(out / "camera", "camera_embedder")["weight"]
    assert camera.shape == (48, 6, 1, 2, 2)
    assert np.any(camera)
    # The moving average and the raw parameters are both to be had.
    average, _ = export_diffusers(tmp_path / "average", checkpoint=str(run))
    averaged = load_sharded(average / "transformer", "diffusion_pytorch_model")[key]
    np.testing.assert_array_equal(
        averaged, load_params(run)["transformer_blocks_0"]["attn"]["to_q"]["kernel"].T
    )
    assert not np.array_equal(averaged, after[key])
    # The run goes on without the folder it started from.
    longer = recipe(base, steps=3, init_from="gone")
    assert train(longer, run).name == "3"
