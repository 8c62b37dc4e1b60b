"""The sampler: exact on flows whose answer is known, seed-exact, and true to its conditions."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from camctrl_jax.diffusion import sampler
from camctrl_jax.diffusion.condition import Condition, NullText
from camctrl_jax.diffusion.flow import interpolate, shift_time
from camctrl_jax.diffusion.guidance import Guidance
from camctrl_jax.diffusion.sampler import Sampling, initial_noise, sample, time_grid

B, L, H, W, C, N, D = 2, 4, 3, 5, 16, 6, 8
SHAPE = (L, H, W, C)


def make_inputs(conditions: int = 1) -> dict:
    """Arguments of ``sample``."""
    rng = np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    return {
        "noise": initial_noise([3, 4], SHAPE),
        "condition": Condition(
            clean=normal(B, *SHAPE),
            mask=jnp.broadcast_to(jnp.arange(L) < conditions, (B, L)),
            text=normal(B, N, D),
            text_mask=jnp.ones((B, N), bool),
            plucker=normal(B, L, H, W, 6),
        ),
        "null": NullText(normal(1, N, D), (jnp.arange(N) < 1)[None]),
    }


def changed(inputs: dict, **fields) -> dict:
    """The same with fields of the condition replaced."""
    return inputs | {"condition": dataclasses.replace(inputs["condition"], **fields)}


def towards_params(params, noisy, time, condition):
    """The exact velocity of a data set of one clip, ``params``: straight lines, where Euler is exact."""
    return (noisy - params) / time[:, None, None, None, None]


def curved(params, noisy, time, condition):
    """A smooth velocity that depends on every input."""
    words = jnp.sum(jnp.where(condition.text_mask[..., None], condition.text, 0.0), (1, 2))
    pose = jnp.sum(condition.plucker, -1, keepdims=True)
    inputs = condition.inputs(noisy)
    mixed = jnp.roll(inputs[..., :C], 1, axis=1) + inputs[..., C : 2 * C] + inputs[..., -1:]
    mixed = mixed + 0.1 * words[:, None, None, None, None] + 0.1 * pose
    return params * jnp.tanh(mixed) + time[:, None, None, None, None]


@pytest.mark.parametrize("steps", [1, 3, 32])
@pytest.mark.parametrize("conditions", [0, 1, 3])
def test_straight_flow_arrives_at_its_data(steps, conditions):
    inputs = make_inputs(conditions)
    target = jnp.asarray(np.random.default_rng(1).normal(size=(B, *SHAPE)), jnp.float32)
    found = sample(towards_params, target, **inputs, sampling=Sampling(Guidance(), steps, 3.0))
    expected = jnp.where(inputs["condition"].mask[:, :, None, None, None], inputs["condition"].clean, target)
    assert jnp.linalg.norm(found - expected) <= 1e-5 * jnp.linalg.norm(expected)
    np.testing.assert_array_equal(found[:, :conditions], inputs["condition"].clean[:, :conditions])


def test_error_falls_with_the_number_of_steps():
    inputs = make_inputs()
    params = jnp.float32(0.7)
    outputs = {
        steps: sample(curved, params, **inputs, sampling=Sampling(Guidance(), steps, 2.0))
        for steps in (8, 16, 256)
    }
    errors = {steps: float(jnp.linalg.norm(outputs[steps] - outputs[256])) for steps in (8, 16)}
    assert 1.6 < errors[8] / errors[16] < 2.6  # first order


def test_same_seed_gives_identical_output_and_another_seed_does_not():
    inputs = make_inputs()
    run = {"sampling": Sampling(Guidance(3.0, 2.0), 4, 2.0)}
    first = sample(curved, jnp.float32(1), **inputs, **run)
    np.testing.assert_array_equal(first, sample(curved, jnp.float32(1), **inputs, **run))
    other = sample(curved, jnp.float32(1), **inputs | {"noise": initial_noise([5, 6], SHAPE)}, **run)
    assert float(jnp.max(jnp.abs(first - other))) > 1e-2


def test_noise_of_a_seed_is_documented_and_independent_of_its_batch():
    together = initial_noise([7, 11], SHAPE)
    assert together.shape == (2, *SHAPE)
    assert together.dtype == jnp.float32
    for i, seed in enumerate([7, 11]):
        alone = jax.random.normal(jax.random.key(seed, impl="threefry2x32"), SHAPE, jnp.float32)
        np.testing.assert_array_equal(together[i], alone)


def test_frames_to_generate_are_never_read_from_the_clean_latents():
    inputs = make_inputs(conditions=2)
    run = {"sampling": Sampling(Guidance(3.0, 2.0), 3, 2.0)}
    poisoned = inputs["condition"].clean.at[:, 2:].set(jnp.nan)
    found = sample(curved, jnp.float32(1), **changed(inputs, clean=poisoned), **run)
    np.testing.assert_array_equal(found, sample(curved, jnp.float32(1), **inputs, **run))


def test_noisy_slot_holds_noised_conditions_as_in_training():
    inputs, seen = make_inputs(conditions=2), []

    def recorder(params, noisy, time, condition):
        seen.append((np.asarray(condition.inputs(noisy)), np.asarray(time)))
        return jnp.ones_like(noisy)

    with jax.disable_jit():
        sample(recorder, None, **inputs, sampling=Sampling(Guidance(), 3, 2.0))
    assert len(seen) == 3
    for model_input, time in seen:
        expected = interpolate(inputs["condition"].clean, inputs["noise"], jnp.asarray(time))
        np.testing.assert_allclose(model_input[:, :2, ..., :C], expected[:, :2], rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(model_input[:, :2, ..., C : 2 * C], inputs["condition"].clean[:, :2])
        np.testing.assert_array_equal(model_input[:, 2:, ..., C : 2 * C], 0.0)
        np.testing.assert_array_equal(model_input[..., -1][:, :, 0, 0], inputs["condition"].mask)
    times = [time[0] for _, time in seen]
    np.testing.assert_allclose(times, shift_time(np.array([1.0, 2 / 3, 1 / 3]), 2.0), rtol=1e-6)


def test_guided_batch_equals_separate_conditional_runs_in_one_step():
    inputs = make_inputs()
    null = {"text": jnp.broadcast_to(inputs["null"].text, (B, N, D))}
    null |= {"text_mask": jnp.broadcast_to(inputs["null"].mask, (B, N))}
    still = {"plucker": jnp.zeros_like(inputs["condition"].plucker)}

    def run(guidance, **changes):
        sampling = Sampling(guidance, steps=1, shift=2.0)
        return sample(curved, jnp.float32(1), **changed(inputs, **changes), sampling=sampling)

    none, text, both = run(Guidance(), **null, **still), run(Guidance(), **still), run(Guidance())
    expected = none + 3.0 * (text - none) + 2.0 * (both - text)
    assert jnp.linalg.norm(run(Guidance(3.0, 2.0)) - expected) <= 1e-5 * jnp.linalg.norm(expected)


def test_new_guidance_weights_shift_and_steps_reuse_the_compiled_loop():
    inputs = make_inputs()
    sample(curved, jnp.float32(1), **inputs, sampling=Sampling(Guidance(3.0, 2.0), 2, 2.0))
    compiled = sampler._compiled_euler("cpu")._cache_size()
    sample(curved, jnp.float32(1), **inputs, sampling=Sampling(Guidance(5.0, 4.0), 7, 3.0))
    assert sampler._compiled_euler("cpu")._cache_size() == compiled


def test_time_grid_is_the_shifted_uniform_grid():
    grid = time_grid(32, 3.1)
    assert grid.shape == (33,)
    assert grid[0] == 1.0
    assert grid[-1] == 0.0
    assert np.all(np.diff(grid) < 0)
    np.testing.assert_allclose(grid[16], 3.1 * 0.5 / (1 + 2.1 * 0.5), rtol=1e-6)


@pytest.mark.parametrize(("steps", "shift", "message"), [(0, 1.0, "steps is 0"), (4, 0.0, "shift is 0")])
def test_impossible_grids_are_refused(steps, shift, message):
    with pytest.raises(ValueError, match=message):
        Sampling(steps=steps, shift=shift)


def test_a_shift_that_nobody_filled_in_is_refused():
    with pytest.raises(ValueError, match="shift is not given"):
        sample(curved, jnp.float32(1), **make_inputs(), sampling=Sampling())


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seeds_out_of_range_are_refused(seed):
    with pytest.raises(ValueError, match="seed is"):
        initial_noise([seed], SHAPE)


def test_progress_is_reported_per_step_and_changes_nothing():
    inputs, calls = make_inputs(), []
    run = {"sampling": Sampling(Guidance(3.0, 2.0), 5, 2.0)}
    whole = sample(curved, jnp.float32(1), **inputs, **run)
    stepwise = sample(curved, jnp.float32(1), **inputs, **run, progress=lambda *done: calls.append(done))
    np.testing.assert_array_equal(stepwise, whole)
    assert calls == [(i, 5) for i in range(1, 6)]
