"""The moving average and what one update changes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from camctrl_jax.training.state import create_state, ema_decay_at, update_ema
from camctrl_jax.training.update import Update


@pytest.mark.parametrize(("step", "decay"), [(0, 0.1), (8, 0.5), (89, 90 / 99), (10**6, 0.999)])
def test_decay_of_the_average_warms_up(step, decay):
    assert float(ema_decay_at(jnp.int32(step), 0.999)) == pytest.approx(decay, rel=1e-6)


def test_average_is_between_old_and_new():
    average = update_ema({"w": jnp.zeros(3)}, {"w": jnp.asarray([1.0, 2.0, 4.0])}, jnp.float32(0.75))
    np.testing.assert_allclose(average["w"], [0.25, 0.5, 1.0])


def test_after_a_short_run_the_average_has_left_the_initial_weights():
    """A plain decay of 0.9999 would keep 99 % of them after 100 steps."""
    optimizer = optax.sgd(1.0)
    state = create_state({"w": jnp.zeros(())}, optimizer)
    for _ in range(100):
        grads = {"w": state.params["w"] - 10.0}  # one step of rate 1 lands on 10
        state = Update(optimizer, ema_decay=0.9999).apply(state, grads)
    assert int(state.step) == 100
    assert float(state.ema["w"]) == pytest.approx(10.0, rel=1e-3)


def test_params_and_average_do_not_share_a_buffer():
    """They are donated together, and a buffer can be donated once."""
    state = create_state({"w": jnp.ones(4)}, optax.adam(1e-3))
    donated = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf + 1, state), donate_argnums=0)(state)
    np.testing.assert_array_equal(donated.params["w"], donated.ema["w"])
