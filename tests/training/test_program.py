"""What a run computes: scanned runs and others continue each other, unequal batches are refused."""

import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from camctrl_jax.checkpoints.runs import load_params
from camctrl_jax.parallel.mesh import MeshConfig, make_mesh
from camctrl_jax.training.config import load_recipe
from camctrl_jax.training.program import build_program
from camctrl_jax.training.run import train
from camctrl_jax.training.values import ConfigError

ROOT = Path(__file__).parents[2]


def recipe(**changes):
    config = load_recipe(f"{ROOT}/configs/stage2.py:nano")
    config.update_from_flattened_dict(changes)
    return config


def program(**changes):
    return build_program(recipe(**changes), make_mesh(MeshConfig(), jax.devices()[:1]))


@pytest.mark.parametrize("moments", ["float32", "bfloat16"])
def test_a_scanned_state_has_the_form_of_checkpoints_and_back(moments):
    changes = {"model.num_single": 3, "optimizer.moments": moments}
    scanned, plain = program(**changes, **{"model.scan_layers": True}), program(**changes)
    assert "single_transformer_blocks_0_to_1" in scanned.abstract_state.params
    assert jax.tree.structure(scanned.stored_state) == jax.tree.structure(plain.abstract_state)
    kinds = [
        [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(state)]
        for state in (scanned.stored_state, plain.abstract_state)
    ]
    assert kinds[0] == kinds[1]
    numbers = np.random.default_rng(0)
    state = jax.tree.map(
        lambda leaf: np.asarray(100 * numbers.random(leaf.shape), leaf.dtype), scanned.stored_state
    )
    back = scanned.to_stored(scanned.from_stored(state))
    jax.tree.map(np.testing.assert_array_equal, back, state)


@pytest.mark.slow
def test_a_run_goes_on_with_layers_scanned_or_not(tmp_path):
    """A scanned, recomputing, accumulating run writes what a plain one writes, which can go on from it."""
    short = {"steps": 4, "optimizer.warmup_steps": 1, "checkpoint_every": 2, "batch_size": 4}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(recipe(**short), whole)
    scanned = {**short, "model.scan_layers": True, "model.remat": "full", "accumulate": 2}
    train(recipe(**scanned), parts)
    for ema in (True, False):
        expected, found = load_params(whole, ema=ema), load_params(parts, ema=ema)
        assert jax.tree.structure(expected) == jax.tree.structure(found)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), expected, found)
    train(recipe(**short | {"steps": 6}), parts)


@pytest.mark.slow
def test_a_resumed_run_has_the_error_bank_that_it_had(tmp_path):
    """Steps 3 and 4 learn from errors of steps 1 and 2: without them they would learn something else."""
    changes = {
        "steps": 4,
        "checkpoint_every": 2,
        "batch_size": 4,
        "optimizer.warmup_steps": 1,
        "data.frames": 17,
        "data.worlds.frames": 17,
        "tasks.t2v": 0.0,
        "tasks.i2v": 0.0,
        "tasks.extension": 1.0,
        "condition.error_bank": 1.0,
        "condition.error_bank_size": 2,
    }
    whole, parts, without = (tmp_path / name for name in ("whole", "parts", "without"))
    train(recipe(**changes), whole)
    shutil.copytree(whole, parts)
    shutil.rmtree(parts / "checkpoints" / "4")
    train(recipe(**changes), parts)
    jax.tree.map(np.testing.assert_array_equal, load_params(whole), load_params(parts))
    train(recipe(**changes | {"condition.error_bank": 0.0}), without)
    pairs = zip(jax.tree.leaves(load_params(whole)), jax.tree.leaves(load_params(without)))
    assert not all(np.array_equal(one, other) for one, other in pairs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"condition.error_bank": 0.5, "tasks.extension": 0.0}, r"error_bank=0\.5: no sample .* is extended"),
        ({"condition.error_bank": 0.5, "data.frames": 5}, r"error_bank=0\.5: no sample .* is extended"),
        ({"condition.noise": 0.3, "tasks.extension": 0.0, "tasks.i2v": 0.0}, r"noise=0\.3: no sample"),
    ],
)
def test_disturbing_what_is_never_given_is_refused(changes, message):
    none = {"data.sets.memory.turns": 0, "data.sets.places.turns": 0}
    with pytest.raises(ConfigError, match=message):
        program(**none, **changes)
    for name in ("error_bank", "noise"):
        program(**{f"condition.{name}": 0.5})  # the recipe itself has extensions


def test_sampling_goes_on_from_the_reference_that_was_trained_on():
    def trained(**changes):
        return program(**changes).objective.shown.defaults.reference

    assert trained() == "take"
    assert trained(**{"tasks.reference": "clip"}) == "clip"  # of all sets
    with pytest.raises(ConfigError, match=r"sets\.memory\.tasks\.reference='clip', .*: sampling"):
        trained(**{"data.sets.memory.tasks.reference": "clip"})


def test_batches_that_do_not_divide_are_refused_with_a_multiple():
    with pytest.raises(ConfigError, match=r"batch of 5 .* in 2 turns .* multiple of 2"):
        program(accumulate=2)
