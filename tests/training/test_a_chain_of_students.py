"""From a teacher to a model of one step by the recipes: what each link says that it holds."""

import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from nano_weights import save_nano

from camctrl_jax.checkpoints.runs import load_params
from camctrl_jax.checkpoints.weights import open_weights
from camctrl_jax.interop.described import Distilled
from camctrl_jax.models.fingerprint import fingerprint_of_parameters
from camctrl_jax.training.config import check_config, load_recipe
from camctrl_jax.training.run import train

ROOT = Path(__file__).parents[2]
# One set of worlds, so that one step is compiled.
SHORT = {
    "steps": 2,
    "checkpoint_every": 1,
    "log_every": 1,
    "data.sets.places.turns": 0,
    "data.sets.memory.turns": 0,
    "data.worlds.seeds": (0, 5),
}
FOLDED = {"text": 1.0, "camera": 2.0, "camera_without_text": None}
UNASKED = {"distil.text_guidance": 1.0, "distil.camera_guidance": 1.0}


def link(workdir, recipe, teacher, autoencoder, **changes):
    """One run, from its recipe to its last checkpoint."""
    config = load_recipe(f"{ROOT}/configs/{recipe}")
    config.distil.teacher, config.vae.weights = str(teacher), str(autoencoder)
    config.init_from = ""
    config.update_from_flattened_dict(SHORT | {"optimizer.warmup_steps": 0} | changes)
    check_config(config)
    train(config, workdir)
    return workdir


def print_of(spec):
    return fingerprint_of_parameters(open_weights(str(spec)).mmdit_params(dtype=None))


@pytest.mark.slow
def test_each_link_of_the_chain_holds_what_its_teacher_gave(tmp_path):
    teacher = save_nano(tmp_path / "teacher")
    fewer = link(tmp_path / "fewer", "distill_progressive.py:nano", teacher, teacher)
    told = open_weights(str(fewer)).distilled
    assert told == Distilled("progressive", print_of(teacher), FOLDED, (16,))
    # It began as its teacher, whose weights were read.
    moved = jax.tree.map(
        lambda ours, theirs: np.abs(ours - theirs).max(),
        load_params(fewer, ema=False),
        open_weights(str(teacher)).mmdit_params(),
    )
    assert 0 < max(jax.tree.leaves(moved)) < 0.05

    asked = UNASKED | {"distil.teacher_steps": 16}
    first = "distill_apt.py:consistency_nano"
    once = link(tmp_path / "once", first, fewer, teacher, **asked)
    told = open_weights(str(once)).distilled
    assert told == Distilled("consistency", print_of(fewer), FOLDED, (1,))

    # Resumed from its first step, it ends as it did.
    again = tmp_path / "again"
    shutil.copytree(once, again)
    shutil.rmtree(again / "checkpoints" / "2")
    link(again, first, fewer, teacher, **asked)
    for ema in (True, False):
        jax.tree.map(np.testing.assert_array_equal, load_params(once, ema=ema), load_params(again, ema=ema))
    assert open_weights(str(again)).distilled == told

    # The critic starts as the first teacher, asked for nothing; guidance stays that of the generator's start.
    sharp = link(
        tmp_path / "sharp", "distill_apt.py:nano", teacher, teacher,
        init_from=str(once), **{"distil.camera_guidance": 7.0},
    )  # fmt: skip
    told = open_weights(str(sharp))
    assert told.distilled == Distilled("adversarial", print_of(teacher), FOLDED, (1,))
    assert (told.sampling.steps, told.sampling.camera_guidance) == (1, 1.0)
    shutil.rmtree(sharp / "checkpoints" / "2")
    link(sharp, "distill_apt.py:nano", teacher, teacher, init_from=str(tmp_path / "gone"))
    assert open_weights(str(sharp)).distilled == told.distilled
