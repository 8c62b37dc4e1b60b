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


def remembering(retrieved: int = 2, conditions: int = 1) -> dict:
    """Arguments of ``sample`` with retrieved latents before the window."""
    inputs, rng = make_inputs(conditions), np.random.default_rng(7)

    def before(window):
        return jnp.concatenate([rng.normal(size=(B, retrieved, *window.shape[2:])), window], 1, jnp.float32)

    condition = inputs["condition"]
    return inputs | {
        "noise": before(inputs["noise"]),
        "condition": dataclasses.replace(
            condition,
            clean=before(condition.clean),
            plucker=before(condition.plucker),
            mask=jnp.concatenate([jnp.ones((B, retrieved), bool), condition.mask], 1),
            retrieved=retrieved,
        ),
    }


def attending(params, noisy, time, condition):
    """A smooth velocity where every latent sees all others: their mean."""
    inputs = condition.inputs(noisy)
    seen = jnp.tanh(inputs[..., :C] + inputs[..., C : 2 * C] + 0.3 * inputs[..., -1:])
    seen = seen + 0.5 * jnp.mean(seen, axis=1, keepdims=True)
    return params * seen + 0.1 * jnp.sum(condition.plucker, -1, keepdims=True)


def test_retrieved_latents_are_seen_and_not_returned():
    inputs, run = remembering(), {"sampling": Sampling(Guidance(3.0, 2.0), 3, 2.0)}
    found = sample(attending, jnp.float32(1), **inputs, **run)
    assert found.shape == (B, *SHAPE)
    np.testing.assert_array_equal(found[:, 0], inputs["condition"].clean[:, 2])
    stepwise = sample(attending, jnp.float32(1), **inputs, **run, progress=lambda *done: None)
    np.testing.assert_array_equal(stepwise, found)
    other = changed(inputs, clean=inputs["condition"].clean.at[:, 1].add(1.0))
    moved = sample(attending, jnp.float32(1), **other, **run)
    assert float(jnp.min(jnp.max(jnp.abs(moved - found)[:, 1:], axis=(2, 3, 4)))) > 1e-3


HISTORY = Sampling(Guidance(3.0, 2.0, history=1.7), 3, 2.0)


def test_history_guidance_is_its_formula_with_a_text_to_video_run_beside():
    """By hand: the same steps with calls one by one, and a window of its own for the call without history."""
    inputs = remembering()
    condition, null, noise = inputs["condition"], inputs["null"], inputs["noise"]
    given = condition.mask[:, :, None, None, None]
    bare = dataclasses.replace(
        condition,
        plucker=condition.plucker[:, 2:],
        clean=jnp.full((B, *SHAPE), jnp.nan),
        mask=jnp.zeros((B, L), bool),
        retrieved=0,
    )
    state, own = noise, noise[:, 2:]
    grid = time_grid(3, 2.0)
    for start, stop in zip(grid[:-1], grid[1:]):
        time = jnp.full(B, start)
        noisy = jnp.where(given, interpolate(condition.clean, noise, time), state)
        calls = (condition.without_text(null).without_camera(), condition.without_camera(), condition)
        none, text, both = (attending(1.0, noisy, time, call) for call in calls)
        window = jnp.where(given[:, 2:], own, state[:, 2:])
        free = attending(1.0, window, time, bare)
        guided = none + 3.0 * (text - none) + 2.0 * (both - text)
        guided = guided[:, 2:] + 0.7 * (both[:, 2:] - free)
        own = own + (stop - start) * free
        state = state.at[:, 2:].add((stop - start) * guided)
    expected = jnp.where(given, condition.clean, state)[:, 2:]
    found = sample(attending, jnp.float32(1), **inputs, sampling=HISTORY)
    assert jnp.linalg.norm(found - expected) <= 1e-5 * jnp.linalg.norm(expected)
    stepwise = sample(attending, jnp.float32(1), **inputs, sampling=HISTORY, progress=lambda *done: None)
    np.testing.assert_array_equal(stepwise, found)


def test_the_call_without_history_knows_nothing_of_it():
    """Of two runs that differ in the history only, it is told the same in the first step, everywhere."""
    seen = []

    def recorder(params, noisy, time, condition):
        seen.append((noisy, condition))
        return jnp.ones_like(noisy)

    inputs = remembering(conditions=2)
    plain = inputs["condition"]
    other = plain.clean.at[:, :4].set(5.0), plain.plucker.at[:, :2].set(5.0)
    with jax.disable_jit():
        for clean, plucker in ((plain.clean, plain.plucker), other):
            one_step = dataclasses.replace(HISTORY, steps=1)
            sample(recorder, None, **changed(inputs, clean=clean, plucker=plucker), sampling=one_step)
    assert [noisy.shape[:2] for noisy, _ in seen] == [(3 * B, 2 + L), (B, L)] * 2
    (_, first), (_, second) = ((seen[i][0], seen[i][1].inputs(seen[i][0])) for i in (0, 2))
    assert not np.array_equal(first, second)  # the calls that know it see the difference
    (noisy, told), (again, told_again) = seen[1], seen[3]
    np.testing.assert_array_equal(told.inputs(noisy), told_again.inputs(again))
    jax.tree.map(np.testing.assert_array_equal, told, told_again)
    np.testing.assert_array_equal(noisy, inputs["noise"][:, 2:])
    assert not told.mask.any()


def test_the_call_without_history_never_meets_the_noised_truth():
    """In later steps its given positions hold what itself made of noise, and no trace of what is given."""
    seen = []

    def recorder(params, noisy, time, condition):
        seen.append((noisy, time))
        return jnp.ones_like(noisy)

    inputs = remembering(conditions=2)
    with jax.disable_jit():
        sample(recorder, None, **inputs, sampling=HISTORY)
    for (_, _), (window, time) in zip(seen[::2], seen[1::2]):
        made = inputs["noise"][:, 2:4] - (1.0 - time[0])  # noise, moved along a velocity of ones
        np.testing.assert_allclose(window[:, :2], made, atol=1e-5)


def test_other_weights_of_history_reuse_the_compiled_loop_and_one_is_off():
    inputs = make_inputs()
    sample(curved, jnp.float32(1), **inputs, sampling=HISTORY)
    compiled = sampler._compiled_euler("cpu")._cache_size()
    sample(curved, jnp.float32(1), **inputs, sampling=Sampling(Guidance(2.0, 3.0, history=1.2), 5, 2.0))
    assert sampler._compiled_euler("cpu")._cache_size() == compiled
    off = sample(curved, jnp.float32(1), **inputs, sampling=Sampling(Guidance(3.0, 2.0, history=1.0), 3, 2.0))
    plain = sample(curved, jnp.float32(1), **inputs, sampling=Sampling(Guidance(3.0, 2.0), 3, 2.0))
    np.testing.assert_array_equal(off, plain)


@pytest.mark.parametrize("level", [-0.1, 1.0])
def test_impossible_levels_of_noise_are_refused(level):
    with pytest.raises(ValueError, match="condition_noise is"):
        Sampling(condition_noise=level)


def test_noise_beside_that_of_a_clip_is_other_noise_of_the_same_seed():
    own, beside = initial_noise([7], SHAPE), initial_noise([7], SHAPE, 1)
    assert float(jnp.max(jnp.abs(own - beside))) > 1.0
    key = jax.random.fold_in(jax.random.key(7, impl="threefry2x32"), 1)
    np.testing.assert_array_equal(beside[0], jax.random.normal(key, SHAPE, jnp.float32))
