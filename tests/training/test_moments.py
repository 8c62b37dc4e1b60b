"""Adam with short moments: what a code can lose, and that training hardly notices."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from camctrl_jax.training.moments import (
    BLOCK,
    decode_positive,
    decode_signed,
    encode_positive,
    encode_signed,
    scale_by_compact_adam,
)
from camctrl_jax.training.optimizer import OptimizerConfig, make_optimizer


def spread(shape, seed=0):
    """Numbers over six orders of magnitude, of both signs."""
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.choice([-1, 1], shape) * 10 ** rng.uniform(-6, 0, shape), jnp.float32)


def test_codes_of_the_first_moment_keep_signs_and_the_largest_entry():
    x = spread((3, 5, 4 * BLOCK))
    codes, scale = encode_signed(x)
    assert codes.dtype == jnp.int8
    assert scale.shape == (3, 5, 4)
    back = decode_signed(codes, scale)
    assert np.all(np.sign(back) * np.sign(x) >= 0)
    blocks = np.abs(np.asarray(x)).reshape(3, 5, 4, BLOCK)
    largest = blocks.max(-1, keepdims=True)
    error = np.abs(np.asarray(back - x)).reshape(blocks.shape)
    # Half a step between codes at the entry: the steps of a square root, fine for small entries.
    bound = largest * (np.sqrt(blocks / largest) / 127 + 0.25 / 127**2)
    assert np.all(error <= 1.01 * bound)
    np.testing.assert_allclose(error[blocks == largest], 0.0, atol=1e-7)


def test_codes_of_the_second_moment_never_vanish():
    x = jnp.square(spread((2, 2 * BLOCK)))  # twelve orders of magnitude
    codes, scale = encode_positive(x)
    assert codes.dtype == jnp.uint8
    back = decode_positive(codes, scale)
    assert np.all(np.asarray(back) > 0)
    share = np.asarray(x / jnp.repeat(scale, BLOCK, axis=-1))
    seen = share > 1e-4
    np.testing.assert_allclose(np.asarray(back)[seen], np.asarray(x)[seen], rtol=0.09)
    zero_codes, zero_scale = encode_positive(jnp.zeros(BLOCK))
    np.testing.assert_array_equal(decode_positive(zero_codes, zero_scale), 0.0)


def test_float32_moments_are_those_of_optax():
    params = {"kernel": spread((4, BLOCK)), "bias": spread((7,))}
    ours, theirs = scale_by_compact_adam(0.9, 0.95, "float32"), optax.scale_by_adam(0.9, 0.95)
    states = ours.init(params), theirs.init(params)
    for seed in range(3):
        gradient = {"kernel": spread((4, BLOCK), seed), "bias": spread((7,), seed)}
        (first, one), (second, two) = ours.update(gradient, states[0]), theirs.update(gradient, states[1])
        states = one, two
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5), first, second)


@pytest.mark.parametrize(("moments", "bytes_each"), [("float32", 8), ("bfloat16", 4), ("int8", 2.125)])
def test_how_many_bytes_a_parameter_takes(moments, bytes_each):
    params = {"kernel": jnp.zeros((16, 8, 256))}
    state = scale_by_compact_adam(0.9, 0.95, moments).init(params)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    assert (size - 4) / params["kernel"].size == bytes_each


def test_only_kernels_that_blocks_divide_are_coded():
    params = {"kernel": jnp.zeros((2, BLOCK)), "bias": jnp.zeros(2 * BLOCK), "odd_kernel": jnp.zeros((2, 16))}
    state = scale_by_compact_adam(0.9, 0.95, "int8").init(params)
    assert {name: leaf.dtype.name for name, leaf in state.nu.items()} == {
        "kernel": "uint8",
        "bias": "float32",
        "odd_kernel": "float32",
    }
    # The same arrays stacked over layers are stored alike, so that one form of a state makes the other.
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), params)
    both = state, scale_by_compact_adam(0.9, 0.95, "int8").init(stacked)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(jnp.stack([a] * 3), b), both[0][1:], both[1][1:])


@pytest.mark.parametrize("moments", ["bfloat16", "int8"])
def test_a_fit_with_short_moments_follows_the_fit_with_long_ones(moments):
    rng = np.random.default_rng(0)
    scales = 10 ** rng.uniform(-2, 0, 32)  # inputs of very different size: gradients, too
    inputs = jnp.asarray(rng.normal(size=(256, 32)) * scales, jnp.float32)
    hidden = rng.normal(size=(32, BLOCK)) / scales[:, None]
    targets = jnp.asarray(inputs @ hidden, jnp.float32)

    def losses(kind):
        config = OptimizerConfig(
            learning_rate=0.03, initial_learning_rate=0.03, final_learning_rate=1e-3, warmup_steps=1,
            weight_decay=0.0, moments=kind,
        )  # fmt: skip
        optimizer = make_optimizer(config, 300)

        @jax.jit
        def step(carry, _):
            params, state = carry
            loss_of = lambda p: jnp.mean((inputs @ p["kernel"] + p["bias"] - targets) ** 2)  # noqa: E731
            loss, gradient = jax.value_and_grad(loss_of)(params)
            updates, state = optimizer.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), loss

        params = {"kernel": jnp.zeros((32, BLOCK)), "bias": jnp.zeros(BLOCK)}
        return np.asarray(jax.lax.scan(step, (params, optimizer.init(params)), length=300)[1])

    long, short = losses("float32"), losses(moments)
    assert long[-1] < 0.5 * long[0]
    np.testing.assert_allclose(short, long, rtol=0.03)


def test_unknown_moments_are_refused_by_name():
    with pytest.raises(ValueError, match=r"optimizer\.moments='int4' is unknown; choose one of float32"):
        OptimizerConfig(moments="int4")
