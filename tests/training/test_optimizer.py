"""The paper's schedule, where weight decay applies, clipping, and Muon."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from camctrl_jax.models import VAE, MMDiT, mmdit_preset, vae_preset
from camctrl_jax.training.muon import orthogonalise, scale_by_muon
from camctrl_jax.training.optimizer import (
    OptimizerConfig,
    decay_mask,
    learning_rate_schedule,
    make_optimizer,
    muon_labels,
)


def test_schedule_has_the_papers_values():
    schedule = learning_rate_schedule(OptimizerConfig(), 10_500)
    assert schedule(0) == pytest.approx(5e-5)
    assert schedule(250) == pytest.approx(7.5e-5)
    assert schedule(500) == pytest.approx(1e-4)
    assert schedule(5500) == pytest.approx(5.5e-5, rel=1e-3)  # half of the cosine: midway between the ends
    assert schedule(10_500) == pytest.approx(1e-5)


def test_a_linear_decay_falls_evenly_to_its_end():
    settings = OptimizerConfig(decay="linear", final_learning_rate=0.0)
    schedule = learning_rate_schedule(settings, 10_500)
    assert schedule(250) == pytest.approx(7.5e-5)
    assert schedule(500) == pytest.approx(1e-4)
    assert schedule(3000) == pytest.approx(7.5e-5)
    assert schedule(10_500) == pytest.approx(0.0, abs=1e-12)
    at_once = learning_rate_schedule(OptimizerConfig(decay="linear", warmup_steps=0), 100)
    assert at_once(0) == pytest.approx(1e-4)
    with pytest.raises(ValueError, match=r"optimizer\.decay='step' is unknown; choose one of cosine, linear"):
        OptimizerConfig(decay="step")


def test_a_run_shorter_than_its_warm_up_is_refused_with_a_remedy():
    with pytest.raises(ValueError, match=r"warmup_steps=500 .* --config.optimizer.warmup_steps=10"):
        learning_rate_schedule(OptimizerConfig(), 100)


def test_matrices_decay_and_vectors_do_not():
    params = {
        "transformer_blocks_0_to_1": {
            "ff": {"net_2": {"kernel": jnp.ones((2, 3, 4)), "bias": jnp.ones((2, 4))}},
            "attn": {"norm_q": {"scale": jnp.ones((2, 8))}},
        },
        "encoder": {"conv_in": {"kernel": jnp.ones((3, 1, 1, 2, 2))}, "norm_out": {"gamma": jnp.ones(8)}},
    }
    assert decay_mask(params) == {
        "transformer_blocks_0_to_1": {
            "ff": {"net_2": {"kernel": True, "bias": False}},
            "attn": {"norm_q": {"scale": False}},
        },
        "encoder": {"conv_in": {"kernel": True}, "norm_out": {"gamma": False}},
    }


def test_only_decay_moves_parameters_without_gradient():
    params = {"quant_conv": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}}
    settings = OptimizerConfig(
        initial_learning_rate=1e-2, learning_rate=1e-2, warmup_steps=0, weight_decay=0.1
    )
    optimizer = make_optimizer(settings, 10)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    np.testing.assert_allclose(updates["quant_conv"]["kernel"], -1e-3, rtol=1e-5)
    np.testing.assert_array_equal(updates["quant_conv"]["bias"], 0.0)


def test_frozen_parameters_keep_their_values_decay_or_not():
    params = {part: {"conv_out": {"kernel": jnp.ones((2, 2))}} for part in ("encoder", "decoder")}
    optimizer = make_optimizer(OptimizerConfig(warmup_steps=0, weight_decay=0.1), 10, frozen=("encoder",))
    updates, _ = optimizer.update(params, optimizer.init(params), params)  # gradients of ones
    np.testing.assert_array_equal(updates["encoder"]["conv_out"]["kernel"], 0.0)
    assert np.all(np.asarray(updates["decoder"]["conv_out"]["kernel"]) < 0)


def test_clipping_bounds_what_reaches_the_moments():
    params = {"proj_out": {"bias": jnp.zeros(4)}}
    gradient = {"proj_out": {"bias": jnp.full(4, 50.0)}}  # norm 100
    clipped = make_optimizer(OptimizerConfig(clip_norm=1.0, warmup_steps=1), 10)
    free = make_optimizer(OptimizerConfig(clip_norm=0.0, warmup_steps=1), 10)

    def first_moment(optimizer):
        _, state = optimizer.update(gradient, optimizer.init(params), params)
        return optax.tree_utils.tree_get(state, "mu")["proj_out"]["bias"]

    np.testing.assert_allclose(first_moment(clipped), 0.1 * 0.5, rtol=1e-5)
    np.testing.assert_allclose(first_moment(free), 0.1 * 50.0, rtol=1e-5)


@pytest.mark.parametrize(
    "values",
    [
        {"learning_rate": 0.0},
        {"warmup_steps": -1},
        {"clip_norm": -1.0},
        {"b1": 1.0},
        {"b2": -0.1},
        {"kind": "sgd"},
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        OptimizerConfig(**values)


def matrices(seed):
    generator = np.random.default_rng(seed)
    sizes = {"a": (8, 12), "b": (8, 12), "c": (16, 5), "conv": (3, 1, 1, 4, 6)}
    return {name: jnp.asarray(generator.normal(size=size), jnp.float32) for name, size in sizes.items()}


def test_muon_gives_the_numbers_of_optax():
    zeros = jax.tree.map(jnp.zeros_like, matrices(0))
    axes = {name: optax.contrib.MuonDimensionNumbers((0,), (1,)) for name in "abc"}
    axes["conv"] = optax.contrib.MuonDimensionNumbers((0, 1, 2, 3), (4,))
    reference = optax.contrib.muon(1.0, consistent_rms=0.2, muon_weight_dimension_numbers=axes)
    optimizer = scale_by_muon(0.95)
    state, reference_state = optimizer.init(zeros), reference.init(zeros)
    for seed in range(3):
        updates, state = optimizer.update(matrices(seed), state)
        expected, reference_state = reference.update(matrices(seed), reference_state, zeros)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(-x, y, rtol=2e-3, atol=2e-5), updates, expected)


def test_muon_updates_a_stack_of_layers_as_it_updates_each():
    layers = matrices(0)["a"], matrices(1)["a"]
    optimizer = scale_by_muon(0.95)
    apart, _ = optimizer.update(layers, optimizer.init(layers))
    stack = jnp.stack(layers)
    together, _ = optimizer.update(stack, optimizer.init(stack))
    np.testing.assert_allclose(together, jnp.stack(apart), rtol=1e-5, atol=1e-6)


def test_orthogonalised_matrices_have_singular_values_near_one():
    wide = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 20)), jnp.float32)
    for given in (wide, jnp.swapaxes(wide, 1, 2)):
        values = np.linalg.svd(orthogonalise(1e3 * given), compute_uv=False)
        assert values.shape == (2, 6)
        assert np.all((values > 0.6) & (values < 1.3))


def test_muon_takes_the_matrices_between_first_and_last_layers():
    transformer = MMDiT(mmdit_preset("nano")).abstract_params()
    labels = muon_labels(transformer)
    assert labels["single_transformer_blocks_0"]["proj_out"] == {"kernel": "muon", "bias": "adamw"}
    assert labels["proj_out"]["kernel"] == labels["camera_embedder"]["kernel"] == "adamw"
    labels = muon_labels(VAE(vae_preset("nano")).abstract_params())
    assert labels["decoder"]["conv_in"]["kernel"] == "adamw"
    assert labels["decoder"]["up_blocks_0"]["resnets_0"]["conv1"]["kernel"] == "muon"


def test_muon_trains_a_model_with_all_kinds_of_leaves():
    params = {
        "x_embedder": {"kernel": jnp.ones((3, 4))},
        "context_embedder": {"linear_1": {"kernel": jnp.eye(4), "bias": jnp.ones(4)}},
    }
    optimizer = make_optimizer(OptimizerConfig(kind="muon", learning_rate=0.05, warmup_steps=1), 100)
    target = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)), jnp.float32)

    def loss(params):
        layer = params["context_embedder"]["linear_1"]
        hidden = params["x_embedder"]["kernel"] @ layer["kernel"] + layer["bias"]
        return jnp.mean(jnp.square(hidden - target))

    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    state, first = optimizer.init(params), loss(params)
    for _ in range(100):
        params, state = step(params, state)
    assert loss(params) < 0.2 * first
