"""An objective of one's own: one file, here one class, and it trains, accumulates, shards and resumes."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from camctrl_jax.checkpoints.runs import load_params, load_run_config
from camctrl_jax.errors import InvalidValue
from camctrl_jax.training.config import load_recipe
from camctrl_jax.training.objective import Objective, objective_module, objective_names
from camctrl_jax.training.run import train
from camctrl_jax.training.update import Aside, Examples, Update

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Constant(Objective):
    """Regression of all clips to one: the mean latent of the training set."""

    update: Update

    def init(self, key):
        return {"proj_out": {"kernel": jnp.zeros((4, 16)), "bias": jnp.zeros(16)}}

    def examples(self, batch, key, frozen):
        return Examples(batch["video"].astype(jnp.float32) / 255, jnp.ones(len(batch["video"])))

    def loss(self, params, video):
        mean = params["proj_out"]["kernel"].sum(axis=0)[:3] + params["proj_out"]["bias"][:3]
        error = jnp.square(video - mean).mean(axis=(1, 2, 3, 4))
        return error.mean(), Aside(samples=error, means={"mean": mean.mean()})


def recipe(**changes):
    config = load_recipe(f"{ROOT}/configs/stage1.py:nano")
    config.update_from_flattened_dict({"data.worlds.encode": False, "log_every": 1} | changes)
    return config


def run(workdir, accumulate=1, **changes):
    objective = Constant(Update(optax.sgd(0.05), accumulate=accumulate))
    train(recipe(batch_size=10, **changes), workdir, objective)  # the one line
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return load_params(workdir, ema=False), {line["step"]: line["loss"] for line in lines if "loss" in line}


def same(expected, found, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), expected, found)


def test_it_trains_and_is_measured(tmp_path):
    params, losses = run(tmp_path, **{"held_out.every": 10, "held_out.clips": 10})
    assert np.any(params["proj_out"]["bias"] != 0)
    assert losses[20] < 0.7 * losses[1]
    text = (tmp_path / "metrics.jsonl").read_text()
    assert text.count("held_out_loss") == text.count("held_out_mean") == 2
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
test_objective.run(Path(sys.argv[3]), **{"mesh.data": 1, "mesh.fsdp": 2, "mesh.tensor": 2})
"""


def test_it_is_sharded(tmp_path):
    flags = "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"
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
    assert objective_names() == ("autoencode", "denoise")
    for name in objective_names():
        module = objective_module(name)
        assert callable(module.build)
        assert callable(module.check)
        assert all(isinstance(group, dict) for group in module.settings().values())
    with pytest.raises(InvalidValue, match=r"config\.objective='vae': expected one of autoencode, denoise"):
        objective_module("vae")
