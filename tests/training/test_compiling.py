"""The step for several shapes: compiled at once, and the numbers of the jitted step."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np

from camctrl_jax.training.compiling import step_of


def program_of(traced):
    def step(state, batch, key, frozen):
        traced.append(batch["x"].shape)
        noise = jax.random.uniform(key, ())
        return state + batch["x"].sum() * frozen + noise, {"loss": batch["x"].mean()}

    return SimpleNamespace(jitted_step=jax.jit(step, donate_argnums=0))


def batch(*shape):
    return {"x": jnp.ones(shape), "clip_index": jnp.arange(shape[0])}


def test_every_shape_is_traced_once_and_ahead():
    traced, key = [], jax.random.key(3)
    program, frozen = program_of(traced), jnp.float32(2.0)
    step = step_of(program, jnp.zeros(()), [batch(2, 3), batch(4, 5), batch(2, 3)], key, frozen)
    assert sorted(traced) == [(2, 3), (4, 5)]
    state = jnp.zeros(())
    for shape in ((4, 5), (2, 3), (4, 5)):
        expected, told = program_of([]).jitted_step(state + 0.0, batch(*shape), key, frozen)
        given = state
        state, metrics = step(given, batch(*shape), key)
        np.testing.assert_array_equal(state, expected)
        np.testing.assert_array_equal(metrics["loss"], told["loss"])
        assert given.is_deleted()  # donated, as by the jitted step
    assert len(traced) == 2
    # A shape that was not told of is compiled when it comes.
    step(state, batch(7, 1), key)
    assert traced[2:] == [(7, 1)]


def test_batches_of_unknown_shape_are_compiled_when_they_come():
    traced = []
    step = step_of(program_of(traced), jnp.zeros(()), [], jax.random.key(0), jnp.float32(1))
    assert traced == []
    step(jnp.zeros(()), batch(2, 3), jax.random.key(0))
    assert traced == [(2, 3)]
