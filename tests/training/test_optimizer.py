"""The paper's schedule, where weight decay applies, and clipping."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from camctrl_jax.training.optimizer import (
    OptimizerConfig,
    decay_mask,
    learning_rate_schedule,
    make_optimizer,
)


def test_schedule_has_the_papers_values():
    schedule = learning_rate_schedule(OptimizerConfig(), 10_500)
    assert schedule(0) == pytest.approx(5e-5)
    assert schedule(250) == pytest.approx(7.5e-5)
    assert schedule(500) == pytest.approx(1e-4)
    assert schedule(5500) == pytest.approx(5.5e-5, rel=1e-3)  # half of the cosine: midway between the ends
    assert schedule(10_500) == pytest.approx(1e-5)


def test_a_run_shorter_than_its_warm_up_is_refused_with_a_remedy():
    with pytest.raises(ValueError, match=r"warmup_steps=500 .* --config.optimizer.warmup_steps=10"):
        learning_rate_schedule(OptimizerConfig(), 100)


def test_matrices_decay_and_vectors_do_not():
    params = {
        "dense": {"kernel": jnp.ones((3, 4)), "bias": jnp.ones(4)},
        "conv": {"kernel": jnp.ones((3, 1, 1, 2, 2))},
        "norm": {"gamma": jnp.ones((8, 1, 1, 1)), "scale": jnp.ones(8)},
    }
    assert decay_mask(params) == {
        "dense": {"kernel": True, "bias": False},
        "conv": {"kernel": True},
        "norm": {"gamma": False, "scale": False},
    }


def test_only_decay_moves_parameters_without_gradient():
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    settings = OptimizerConfig(
        initial_learning_rate=1e-2, learning_rate=1e-2, warmup_steps=0, weight_decay=0.1
    )
    optimizer = make_optimizer(settings, 10)
    zeros = {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)}
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -1e-3, rtol=1e-5)
    np.testing.assert_array_equal(updates["bias"], 0.0)


def test_frozen_parameters_keep_their_values_decay_or_not():
    params = {"encoder": {"kernel": jnp.ones((2, 2))}, "decoder": {"kernel": jnp.ones((2, 2))}}
    optimizer = make_optimizer(OptimizerConfig(warmup_steps=0, weight_decay=0.1), 10, frozen=("encoder",))
    updates, _ = optimizer.update(params, optimizer.init(params), params)  # gradients of ones
    np.testing.assert_array_equal(updates["encoder"]["kernel"], 0.0)
    assert np.all(np.asarray(updates["decoder"]["kernel"]) < 0)


def test_clipping_bounds_what_reaches_the_moments():
    params = {"w": jnp.zeros(4)}
    gradient = {"w": jnp.full(4, 50.0)}  # norm 100
    clipped = make_optimizer(OptimizerConfig(clip_norm=1.0, warmup_steps=1), 10)
    free = make_optimizer(OptimizerConfig(clip_norm=0.0, warmup_steps=1), 10)

    def first_moment(optimizer):
        _, state = optimizer.update(gradient, optimizer.init(params), params)
        return optax.tree_utils.tree_get(state, "mu")["w"]

    np.testing.assert_allclose(first_moment(clipped), 0.1 * 0.5, rtol=1e-5)
    np.testing.assert_allclose(first_moment(free), 0.1 * 50.0, rtol=1e-5)


@pytest.mark.parametrize(
    "values", [{"learning_rate": 0.0}, {"warmup_steps": -1}, {"clip_norm": -1.0}, {"b1": 1.0}, {"b2": -0.1}]
)
def test_settings_that_cannot_work_are_refused_by_name(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        OptimizerConfig(**values)
