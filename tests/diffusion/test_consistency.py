"""What a consistency model is to learn, against models that have learned it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from camctrl_jax.diffusion.consistency import consistency_velocity
from camctrl_jax.diffusion.sampler import time_grid

GRID = time_grid(8, 3.0)
STATE = np.random.default_rng(0).normal(size=(3, 2, 2, 2, 4)).astype(np.float32)


def over(times):
    return times[:, None, None, None, None]


def linear(state, time, until):
    """The exact velocity of Gaussian data of deviation 0.5: linear in the state."""
    t = over(time)
    return state * (t - 0.25 * (1 - t)) / (t**2 + 0.25 * (1 - t) ** 2)


def bent(state, time, until):
    return jnp.sin(2 * state) + over(time) * state


def composed(teacher):
    """The student that is consistent: its straight line ends where the remaining Euler steps do."""

    def student(state, time, until):
        def step(moved, index):
            here, there = jnp.float32(GRID)[index], jnp.float32(GRID)[index + 1]
            left = over(time) >= here  # this step is still to be made
            onward = teacher(moved, jnp.full_like(time, here), until)
            return jnp.where(left, moved + (there - here) * onward, moved), None

        end = jax.lax.scan(step, state, jnp.arange(8))[0]
        return (state - end) / over(time)  # NaN at time 0, where it is not to be read

    return student


@pytest.mark.parametrize("teacher", [linear, bent])
def test_a_student_that_composes_the_remaining_steps_has_nothing_to_learn(teacher):
    student = composed(teacher)
    for indices in ([0, 3, 6], [7, 7, 1]):  # the last step, too, which ends at time 0
        times = jnp.stack([jnp.float32(GRID)[jnp.array(indices) + k] for k in (0, 1)], axis=1)
        target = consistency_velocity(teacher, student, STATE, times)
        answer = student(STATE, times[:, 0], times[:, 1])
        np.testing.assert_allclose(answer, target, rtol=1e-4, atol=1e-5)

        def other(state, time, until):
            return student(state, time, until) + 0.1 * state

        # One that does not compose them is told something else, in every sample.
        target = consistency_velocity(teacher, other, STATE, times)
        apart = np.abs(other(STATE, times[:, 0], times[:, 1]) - target)
        assert apart.reshape(len(STATE), -1).max(axis=1).min() > 1e-3


def test_at_the_last_step_the_target_is_the_teachers_velocity():
    """f(z', 0) is z', whatever a network says at time 0."""
    times = jnp.tile(jnp.float32(GRID)[7:9], (3, 1))
    target = consistency_velocity(bent, lambda *_: jnp.full_like(STATE, jnp.nan), STATE, times)
    np.testing.assert_allclose(target, bent(STATE, times[:, 0], None), rtol=1e-4, atol=1e-5)


def test_a_wrong_student_is_pulled_towards_the_teacher_where_the_step_is_long():
    """In one step from 1 to 0 the whole target is the teacher's; over short steps it is mostly its own."""
    nothing = lambda state, time, until: jnp.zeros_like(state)  # noqa: E731
    for until, share in ((0.0, 1.0), (0.75, 0.25)):
        times = jnp.tile(jnp.float32([1.0, until]), (3, 1))
        target = consistency_velocity(bent, nothing, STATE, times)
        np.testing.assert_allclose(target, share * bent(STATE, times[:, 0], None), rtol=1e-4, atol=1e-5)
