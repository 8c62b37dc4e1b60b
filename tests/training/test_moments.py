"""Adam with short moments: training hardly notices."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from camctrl_jax.training.moments import scale_by_short_adam
from camctrl_jax.training.optimizer import OptimizerConfig, make_optimizer

LAYER = "proj_mlp"  # of a block: a matrix and a vector


def in_a_block(kernel, bias) -> dict:
    return {"single_transformer_blocks_0": {LAYER: {"kernel": kernel, "bias": bias}}}


def test_one_update_is_that_of_optax_with_rounded_moments():
    rng = np.random.default_rng(0)
    gradient = {"kernel": jnp.asarray(rng.normal(size=(4, 8)), jnp.float32), "bias": jnp.ones(8)}
    ours, theirs = scale_by_short_adam(0.9, 0.95), optax.scale_by_adam(0.9, 0.95)
    (update, state), (expected, reference) = (
        rule.update(gradient, rule.init(gradient)) for rule in (ours, theirs)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5), update, expected)
    for kept, whole in ((state.mu, reference.mu), (state.nu, reference.nu)):
        jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b.astype(jnp.bfloat16)), kept, whole)


def test_a_parameter_takes_four_bytes():
    params = {"kernel": jnp.zeros((16, 8, 256)), "bias": jnp.zeros(256)}
    state = scale_by_short_adam(0.9, 0.95).init(params)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves((state.mu, state.nu)))
    assert size == 4 * sum(leaf.size for leaf in params.values())


def test_a_fit_with_short_moments_follows_the_fit_with_long_ones():
    rng = np.random.default_rng(0)
    scales = 10 ** rng.uniform(-2, 0, 32)  # inputs of very different size: gradients, too
    inputs = jnp.asarray(rng.normal(size=(256, 32)) * scales, jnp.float32)
    hidden = rng.normal(size=(32, 64)) / scales[:, None]
    targets = jnp.asarray(inputs @ hidden, jnp.float32)

    def losses(kind):
        config = OptimizerConfig(
            learning_rate=0.03, initial_learning_rate=0.03, final_learning_rate=1e-3, warmup_steps=1,
            weight_decay=0.0, moments=kind,
        )  # fmt: skip
        optimizer = make_optimizer(config, 300)

        def loss_of(params):
            layer = params["single_transformer_blocks_0"][LAYER]
            return jnp.mean((inputs @ layer["kernel"] + layer["bias"] - targets) ** 2)

        @jax.jit
        def step(carry, _):
            params, state = carry
            loss, gradient = jax.value_and_grad(loss_of)(params)
            updates, state = optimizer.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), loss

        params = in_a_block(jnp.zeros((32, 64)), jnp.zeros(64))
        return np.asarray(jax.lax.scan(step, (params, optimizer.init(params)), length=300)[1])

    long, short = losses("float32"), losses("bfloat16")
    assert long[-1] < 0.5 * long[0]
    np.testing.assert_allclose(short, long, rtol=0.03)


@pytest.mark.parametrize("moments", ["int4", "int8"])
def test_unknown_moments_are_refused_by_name(moments):
    with pytest.raises(
        ValueError, match=rf"optimizer\.moments='{moments}' is unknown; choose one of float32"
    ):
        OptimizerConfig(moments=moments)
