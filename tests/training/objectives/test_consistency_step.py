"""The consistency step on a tiny student."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from nano_batches import TEXT_TOKENS, batch_of

from camctrl_jax.data.text import WordEmbedder
from camctrl_jax.diffusion.flow import FlowConfig, interpolate
from camctrl_jax.diffusion.guidance import Guidance
from camctrl_jax.diffusion.sampler import time_grid
from camctrl_jax.models import mmdit_preset, vae_preset
from camctrl_jax.sampling.pipeline import Denoiser
from camctrl_jax.training.objectives.consistency import Consistency
from camctrl_jax.training.state import create_state
from camctrl_jax.training.students import Teacher
from camctrl_jax.training.update import Update

OBJECTIVE = Consistency(
    update=Update(optax.sgd(0.1), ema_decay=0.99),
    model=mmdit_preset("nano", num_dual=1, num_single=0),
    vae=vae_preset("nano"),
    flow=FlowConfig(shift=1.5),
    embedder=WordEmbedder(dim=64, max_tokens=TEXT_TOKENS),
    teacher=Teacher("random", None, Guidance(text=1.5, camera=2.0)),
    method="consistency",
    valid_steps=(1,),
    teacher_steps=4,
)
KEY = jax.random.key(3)


@pytest.fixture(scope="module")
def frozen():
    return OBJECTIVE.frozen()


@pytest.fixture(scope="module")
def params():
    return OBJECTIVE.teacher.start(OBJECTIVE.teacher_model, None)


def test_times_are_nodes_of_the_teachers_grid_with_the_next_one():
    drawn = OBJECTIVE.times(KEY, 200, tokens=18)
    grid = time_grid(4, 1.5)
    at = [int(np.argmin(np.abs(grid - time))) for time in drawn["time"]]
    np.testing.assert_allclose(drawn["times"], np.stack([grid[at], grid[np.array(at) + 1]], 1), rtol=1e-6)
    assert set(at) == {0, 1, 2, 3}


@pytest.mark.slow
def test_the_students_own_answer_gets_no_gradient(params, frozen):
    """The gradient is that of a regression to targets that were worked out beforehand."""
    examples = OBJECTIVE.examples(batch_of(4), KEY, frozen)
    inputs, condition = examples.inputs, OBJECTIVE.condition(examples.inputs)
    noisy = interpolate(condition.clean, inputs["noise"], inputs["time"])
    target = OBJECTIVE.target(inputs, condition, noisy, {**frozen, "student": params})

    def regression(params):
        answer = Denoiser(OBJECTIVE.model, jnp.float32)(params, noisy, inputs["time"], condition)
        kept = jnp.logical_not(condition.mask)[:, :, None, None, None]
        error = jnp.where(kept, jnp.square(answer - target), 0.0)
        return error.sum() / (kept.sum() * np.prod(answer.shape[2:]))

    expected = jax.jit(jax.grad(regression))(params)
    found = jax.jit(jax.grad(lambda p: OBJECTIVE.loss(p, inputs, frozen)[0]))(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), expected, found)


def test_the_students_answers_come_nearer_to_each_other(params, frozen):
    objective = replace(OBJECTIVE, update=replace(OBJECTIVE.update, optimizer=optax.adam(2e-3)))
    state = create_state(params, objective.update.optimizer)
    step, losses = jax.jit(objective.step), []
    for _ in range(40):
        state, metrics = step(state, batch_of(8), KEY, frozen)
        losses.append(float(metrics["loss"]))
    assert np.mean(losses[-8:]) < 0.7 * np.mean(losses[:8])


def test_a_consistency_student_says_what_it_is():
    told = OBJECTIVE.distilled
    assert (told.method, told.valid_steps) == ("consistency", (1,))
    assert dict(told.guidance_folded) == {"text": 1.5, "camera": 2.0, "camera_without_text": None}


def test_its_work_counts_the_teachers_branches_and_its_own_answer():
    one = OBJECTIVE.work(batch_of(1)).flops
    plain = (
        replace(OBJECTIVE, teacher=replace(OBJECTIVE.teacher, guidance=Guidance())).work(batch_of(1)).flops
    )
    assert one / plain == pytest.approx((3 + 3 + 1) / (3 + 1 + 1))
