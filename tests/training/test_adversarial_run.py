"""A run of adversarial post-training from its recipe: two networks in, two out, and on from there."""

import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from camctrl_jax.checkpoints.runs import Checkpoints
from camctrl_jax.checkpoints.weights import open_weights
from camctrl_jax.parallel.mesh import MeshConfig, make_mesh
from camctrl_jax.training.config import check_config, load_recipe
from camctrl_jax.training.objectives.adversarial import DISCRIMINATOR
from camctrl_jax.training.program import build_program
from camctrl_jax.training.run import train
from camctrl_jax.training.values import ConfigError

ROOT = Path(__file__).parents[2]
# One set of worlds, so that one step is compiled.
SHORT = {
    "steps": 4,
    "checkpoint_every": 2,
    "log_every": 1,
    "data.sets.places.turns": 0,
    "data.sets.memory.turns": 0,
    "data.worlds.seeds": (0, 5),
}


def recipe(variant, **changes):
    config = load_recipe(f"{ROOT}/configs/distill_apt.py:{variant}")
    config.update_from_flattened_dict(SHORT | changes)
    return config


def stored(config, workdir):
    program = build_program(config, make_mesh(MeshConfig(), jax.devices()[:1]))
    checkpoints = Checkpoints(workdir)
    state, position = checkpoints.restore(program.stored_state, program.stored_shardings)
    checkpoints.close()
    return jax.device_get(state), position


@pytest.mark.slow
def test_a_resumed_run_ends_with_both_networks_of_one_that_was_not_interrupted(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    config = recipe("nano")
    train(config, whole)
    shutil.copytree(whole, parts)
    shutil.rmtree(parts / "checkpoints" / "4")
    train(config, parts)
    expected, found = stored(config, whole), stored(config, parts)
    jax.tree.map(np.testing.assert_array_equal, expected, found)
    assert int(found[0].step) == 4
    critic = found[0].others[DISCRIMINATOR].params
    program = build_program(config, make_mesh(MeshConfig(), jax.devices()[:1]))
    teacher = program.objective.starting_others(program.mesh)[DISCRIMINATOR]["backbone"]
    assert critic["backbone"].keys() == teacher.keys()
    # Four updates at a rate of 1e-4 move no entry by more than some of them.
    moved = jax.tree.map(lambda ours, theirs: np.abs(ours - theirs).max(), critic["backbone"], teacher)
    assert 0 < max(jax.tree.leaves(moved)) < 1e-2
    told = open_weights(str(parts)).distilled
    assert (told.method, told.valid_steps) == ("adversarial", (1,))


def test_a_run_that_names_no_student_of_one_step_is_refused(tmp_path):
    with pytest.raises(
        ConfigError, match=r"config.init_from='': adversarial post-training starts from a stu"
    ):
        train(recipe("nano", init_from=""), tmp_path)


def test_devices_that_cannot_penalise_equal_shares_are_refused(tmp_path):
    config = recipe("nano", **{"adversarial.penalty_every": 2})
    with pytest.raises(
        ConfigError, match=r"batch of 5 one sample in .*penalty_every=2 is penalised.*le of 2"
    ):
        build_program(config, make_mesh(MeshConfig(), jax.devices()[:1]))
    config.adversarial.penalty_every = 5
    build_program(config, make_mesh(MeshConfig(), jax.devices()[:1]))


def test_the_rates_of_the_generator_end_with_the_run():
    config = recipe("nano", **{"adversarial.critic_first": 3, "optimizer.final_learning_rate": 1e-5})
    update = build_program(config, make_mesh(MeshConfig(), jax.devices()[:1])).objective.update
    assert float(update.schedule(0)) == pytest.approx(1e-4)
    assert float(update.schedule(1)) == pytest.approx(1e-5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"distil.steps": 2}, r"distil\.steps=2: a generator makes one step"),
        ({"adversarial.logits": "video"}, r"adversarial\.logits='video': expected one of"),
        ({"adversarial.loss": "gan"}, r"adversarial\.loss='gan': expected 'ns' or 'rp'"),
        ({"adversarial.critic_first": 4}, "expected 0 or more, and fewer than steps=4"),
        (
            {"adversarial.penalty_every": 5, "accumulate": 5},
            r"accumulate=5: expected 1 with .*penalty_every=5",
        ),
        (
            {"adversarial.anchor": 1.0},
            r"anchor=1\.0: there is nothing to hold on to.*adversarial\.real, su",
        ),
        ({"adversarial.anchor": -1.0}, r"adversarial\.anchor=-1\.0: expected 0 \(off\) or more"),
        ({"model.camera.injection": "none"}, r"wrong_camera=0\.25: this model has no camera"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_any_work(changes, said):
    with pytest.raises(ValueError, match=said):
        check_config(recipe("nano", **changes))
