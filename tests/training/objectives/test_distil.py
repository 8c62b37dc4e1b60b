"""Progressive distillation on a tiny model: what is asked of whom, and what a run of it keeps."""

import dataclasses
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nano_batches import TEXT_DIM, TEXT_TOKENS, batch_of

from camctrl_jax.checkpoints.runs import load_params, load_run_config
from camctrl_jax.checkpoints.weights import open_weights
from camctrl_jax.data.text import WordEmbedder
from camctrl_jax.diffusion.condition import NullText
from camctrl_jax.diffusion.flow import FlowConfig, interpolate
from camctrl_jax.diffusion.guidance import Guidance
from camctrl_jax.diffusion.sampler import Sampling, sample, time_grid
from camctrl_jax.models import mmdit_preset, stack_layers, unstack_layers, vae_preset
from camctrl_jax.sampling.pipeline import Denoiser
from camctrl_jax.training.config import load_recipe
from camctrl_jax.training.objectives.distil import Distil
from camctrl_jax.training.optimizer import OptimizerConfig, make_optimizer
from camctrl_jax.training.run import train
from camctrl_jax.training.students import TEACHER, Teacher
from camctrl_jax.training.update import Update

ROOT = Path(__file__).parents[3]
KEY = jax.random.key(5)
UPDATE = Update(make_optimizer(OptimizerConfig(learning_rate=3e-3, warmup_steps=2), 100), ema_decay=0.9)
EMBEDDER = WordEmbedder(dim=TEXT_DIM, max_tokens=TEXT_TOKENS)


def student(guidance=Guidance(2.0, 3.0), **changes):  # noqa: B008 - frozen
    """A student of an untrained teacher, four steps for eight."""
    fields = {
        "update": UPDATE,
        "model": mmdit_preset("nano", num_dual=1, num_single=2),
        "vae": vae_preset("nano"),
        "flow": FlowConfig(shift=3.0),
        "embedder": EMBEDDER,
        "teacher": Teacher("random", None, guidance),
        "method": "progressive",
        "valid_steps": (4,),
        "steps": 4,
        "teacher_steps": 8,
    }
    return Distil(**fields | changes)


@pytest.fixture(scope="module")
def frozen():
    return student().frozen()


@pytest.fixture(scope="module")
def state(frozen):
    return student().state(jax.tree.map(jnp.asarray, frozen[TEACHER]), KEY)


def test_it_learns_what_the_teacher_makes_of_clips(state, frozen):
    objective = student()
    step, batch, losses = jax.jit(objective.step), batch_of(5), []
    for _ in range(40):
        state, metrics = step(state, batch, KEY, frozen)
        losses.append(float(metrics["loss"]))
    assert np.mean(losses[-8:]) < 0.7 * np.mean(losses[:8])
    assert {"loss_labelled", "loss_unlabelled"} < metrics.keys()


def test_an_unguided_student_of_as_many_steps_has_nothing_to_learn(state, frozen):
    """With one teacher step in each of its own the target is the student's own answer at the start."""
    objective = student(Guidance(), teacher_steps=4)
    metrics = jax.jit(objective.step)(state, batch_of(5, retrieved=2), KEY, frozen)[1]
    assert float(metrics["loss"]) < 1e-8


@pytest.mark.parametrize("retrieved", [0, 2])
def test_the_target_at_noise_is_where_the_sampler_goes(frozen, retrieved):
    """From pure noise, two guided Euler steps of the sampler as it is; with what is given and retrieved."""
    guidance = Guidance(2.0, 3.0)
    objective = student(guidance, steps=1, teacher_steps=2)
    batch = jax.device_put(batch_of(4, retrieved=retrieved))
    inputs = objective.examples(batch, KEY, frozen).inputs
    condition = objective.condition(inputs)
    noisy = interpolate(condition.clean, inputs["noise"], inputs["time"])
    target = jax.jit(objective.target)(inputs, condition, noisy, frozen)
    null = NullText(*(jnp.asarray(array) for array in EMBEDDER.embed([""])))
    denoiser = Denoiser(objective.model, jnp.float32)
    sampled = sample(denoiser, frozen[TEACHER], inputs["noise"], condition, null, Sampling(guidance, 2, 3.0))
    window = slice(retrieved, None)
    free = ~np.asarray(batch["condition_mask"])
    found = (noisy - target)[:, window][free]
    expected = sampled[free]
    assert float(jnp.linalg.norm(found - expected)) < 1e-5 * float(jnp.linalg.norm(expected))


def test_times_follow_the_number_of_tokens(frozen):
    objective = student(flow=FlowConfig())
    for frames in (9, 33):
        batch = jax.device_put(batch_of(4, frames=frames))
        inputs = objective.examples(batch, KEY, frozen).inputs
        tokens = inputs["latents"].shape[1] * 2 * 3
        grid = time_grid(8, objective.flow.shift_of(tokens))
        assert set(np.asarray(inputs["times"]).ravel()) <= set(grid)


def test_clips_without_a_camera_learn_the_same_whatever_the_camera_weighs(state, frozen):
    batch = jax.device_put(batch_of(4, labelled=False))

    def loss(weight):
        objective = student(Guidance(2.0, weight))
        return float(jax.jit(objective.measure)(state.params, batch, KEY, frozen)["loss"])

    assert loss(1.5) == pytest.approx(loss(5.0), rel=1e-4)
    labelled = batch | {"camera_valid": jnp.ones(4, bool)}
    batch = labelled
    assert loss(1.5) != pytest.approx(loss(5.0), rel=1e-2)


def test_accumulated_equals_whole(state, frozen):
    batch = batch_of(8, retrieved=2)
    results = []
    for accumulate in (1, 2):
        update = dataclasses.replace(UPDATE, accumulate=accumulate)
        after, metrics = jax.jit(student(update=update).step)(state, batch, KEY, frozen)
        results.append((after.params, metrics["loss"]))
    (one, loss_one), (two, loss_two) = results
    assert float(loss_one) == pytest.approx(float(loss_two), rel=1e-5)
    # Adam's first step has the size of its rate whatever the gradient is: its sign is what may round.
    apart = jax.tree.leaves(jax.tree.map(lambda a, b: jnp.abs(a - b).max(), one, two))
    assert float(jnp.stack(apart).max()) < 2e-4


def test_scanned_equals_unrolled(state, frozen):
    batch, plain = jax.device_put(batch_of(4)), student()
    scanned = student(model=dataclasses.replace(plain.model, scan_layers=True))
    stacked = stack_layers(state.params, scanned.model)
    assert jax.tree.map(np.shape, scanned.frozen()[TEACHER]) == jax.tree.map(np.shape, stacked)
    gradients = []
    for objective, params, read in (
        (plain, state.params, frozen),
        (scanned, stacked, frozen | {TEACHER: stack_layers(frozen[TEACHER], scanned.model)}),
    ):
        inputs = objective.examples(batch, KEY, read).inputs
        value, grads = jax.jit(
            jax.value_and_grad(lambda p, own=objective, i=inputs, r=read: own.loss(p, i, r)[0])
        )(params)
        gradients.append((float(value), grads))
    (loss, expected), (scanned_loss, found) = gradients
    assert scanned_loss == pytest.approx(loss, rel=1e-5)
    found = unstack_layers(found, scanned.model)
    distance = jax.tree.leaves(jax.tree.map(lambda a, b: jnp.linalg.norm(a - b), found, expected))
    whole = jax.tree.leaves(jax.tree.map(jnp.linalg.norm, expected))
    assert float(sum(distance)) < 1e-4 * float(sum(whole))


def test_what_is_frozen_has_the_shapes_that_are_told_beforehand():
    for dtype in (jnp.float32, jnp.bfloat16):
        objective = student(dtype=dtype)
        told = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), objective.frozen_shapes())
        assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), objective.frozen()) == told
    sizes = [sum(leaf.nbytes for leaf in jax.tree.leaves(student(dtype=dtype).frozen()[TEACHER]))
             for dtype in (jnp.float32, jnp.bfloat16)]  # fmt: skip
    assert sizes[1] < 0.75 * sizes[0]  # half, but for what is computed in float32


def test_the_work_of_a_step_counts_the_teachers_evaluations():
    batch = batch_of(4)
    alone = super(Distil, student()).work(batch)
    for guidance, evaluations in ((Guidance(), 2), (Guidance(1.0, 2.0), 4), (Guidance(2.0, 3.0), 6)):
        work = student(guidance).work(batch)
        assert work.flops == pytest.approx(alone.flops * (1 + evaluations / 3))
        assert work.passes == alone.passes + evaluations


def recipe(**changes):
    config = load_recipe(f"{ROOT}/configs/distill_progressive.py:nano")
    short = {"steps": 4, "checkpoint_every": 2, "optimizer.warmup_steps": 1, "log_every": 1}
    config.update_from_flattened_dict(short | changes)
    return config


@pytest.mark.slow
def test_a_resumed_run_ends_as_the_uninterrupted_one_and_says_what_it_made(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(recipe(), whole)
    shutil.copytree(whole, parts)
    shutil.rmtree(parts / "checkpoints" / "4")
    train(recipe(), parts)
    for ema in (True, False):
        jax.tree.map(np.testing.assert_array_equal, load_params(whole, ema=ema), load_params(parts, ema=ema))
    distilled = open_weights(str(whole)).distilled
    assert (distilled.method, distilled.valid_steps) == ("progressive", (16,))
    assert distilled.guidance_folded == {"text": 1.0, "camera": 2.0, "camera_without_text": None}
    assert open_weights(str(whole)).sampling.steps == 16
    assert load_run_config(whole)["architecture"]["distilled"]["method"] == "progressive"
