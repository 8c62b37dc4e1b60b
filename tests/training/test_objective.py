"""An objective of one's own: one file, and it trains, accumulates, shards and resumes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from camctrl_jax.checkpoints.runs import load_params, load_run_config
from camctrl_jax.errors import InvalidValue
from camctrl_jax.training import objectives
from camctrl_jax.training.config import check_config, default_config, load_recipe
from camctrl_jax.training.objective import objective_module, objective_names
from camctrl_jax.training.run import train
from camctrl_jax.training.values import ConfigError

ROOT = Path(__file__).parents[2]


FILES = ROOT / "tests" / "training" / "objective_files"  # holds constant.py


@pytest.fixture(autouse=True)
def constant(monkeypatch):
    use_constant(monkeypatch.setattr)
    yield
    sys.modules.pop("camctrl_jax.training.objectives.constant", None)


def use_constant(replace=setattr):
    """The file stands in another folder only because it is none of the package's."""
    replace(objectives, "__path__", [*objectives.__path__, str(FILES)])


def recipe(**changes):
    config = load_recipe(f"{ROOT}/configs/stage1.py:nano")
    rates = {f"optimizer.{name}learning_rate": 0.05 for name in ("initial_", "", "final_")}
    config.update_from_flattened_dict({"data.worlds.encode": False, "log_every": 1} | rates | changes)
    return config


def run(workdir, accumulate=1, **changes):
    config = recipe(objective="constant", batch_size=10, accumulate=accumulate, **changes)  # the one line
    check_config(config)
    train(config, workdir)
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return load_params(workdir, ema=False), {line["step"]: line["loss"] for line in lines if "loss" in line}


def same(expected, found, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), expected, found)


def test_it_trains_and_is_measured(tmp_path):
    params, losses = run(tmp_path, **{"held_out.every": 10, "held_out.clips": 10})
    assert np.any(params["proj_out"]["bias"] != 0)
    assert losses[20] < 0.7 * losses[1]
    text = (tmp_path / "metrics.jsonl").read_text()
    assert text.count("held_out_loss") == text.count("held_out_colour") == 2
    assert load_run_config(tmp_path)["architecture"]["mmdit"] is None


def test_it_accumulates(tmp_path):
    expected, found = run(tmp_path / "whole"), run(tmp_path / "parts", accumulate=5)
    same(expected, found, rtol=1e-5, atol=1e-6)


def test_it_resumes(tmp_path):
    whole, losses = run(tmp_path / "whole")
    run(tmp_path / "parts", steps=8, checkpoint_every=8)
    parts, resumed = run(tmp_path / "parts")
    same(whole, parts, rtol=0, atol=0)
    assert resumed == losses


ON_FOUR_DEVICES = """
import sys
from pathlib import Path
sys.path[:0] = [sys.argv[1], sys.argv[2]]
import test_objective
test_objective.use_constant()
test_objective.run(Path(sys.argv[3]), **{"mesh.data": 1, "mesh.fsdp": 2, "mesh.tensor": 2})
"""


@pytest.mark.slow
def test_it_is_sharded(tmp_path):
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=4"
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    done = subprocess.run(
        [sys.executable, "-c", ON_FOUR_DEVICES, *folders, tmp_path / "sharded"],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "mesh {'data': 1, 'fsdp': 2, 'context': 1, 'tensor': 2}" in done.stdout
    expected, _ = run(tmp_path / "alone")
    same(expected, load_params(tmp_path / "sharded", ema=False), rtol=1e-5, atol=1e-6)


def test_an_objective_is_a_file_of_its_folder():
    names = ("adversarial", "autoencode", "consistency", "constant", "denoise", "distil", "flow_map", "label")
    assert objective_names() == names
    for name in objective_names():
        module = objective_module(name)
        assert callable(module.build)
        assert callable(module.check)
        assert all(isinstance(group, dict) for group in module.settings().values())
    with pytest.raises(InvalidValue, match=rf"'vae': expected one of {', '.join(names)}"):
        objective_module("vae")


def test_its_settings_are_checked_before_any_work(tmp_path):
    with pytest.raises(ConfigError, match=r"config\.constant\.factor=0\.0: expected a positive factor"):
        run(tmp_path, **{"constant.factor": 0.0})
    with pytest.raises(ConfigError, match=r"config\.sample_every=5: the objective 'constant' has nothing to"):
        run(tmp_path, sample_every=5)


def test_a_group_of_another_objective_is_not_overwritten(monkeypatch):
    module = objective_module("constant")
    monkeypatch.setattr(module, "settings", lambda: {"vae": {"weights": "other"}})
    with pytest.raises(ConfigError, match=r"config\.vae .* give it another name"):
        default_config()
