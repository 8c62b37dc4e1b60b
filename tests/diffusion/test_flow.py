"""Rectified flow and conditions: identities that hold for every input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from camctrl_jax.diffusion.flow import (
    FlowConfig,
    generation_loss,
    interpolate,
    sample_times,
    shift_for_tokens,
    shift_time,
    velocity_target,
)


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def test_shift_keeps_the_ends_rises_and_has_an_inverse():
    t = np.linspace(0.0, 1.0, 101)
    for shift in (0.5, 1.0, 3.0, 24.0):
        shifted = shift_time(t, shift)
        assert shifted[0] == 0.0
        assert shifted[-1] == 1.0
        assert np.all(np.diff(shifted) > 0)
        np.testing.assert_allclose(shift_time(shifted, 1 / shift), t, atol=1e-12)
    np.testing.assert_array_equal(shift_time(t, 1.0), t)


def test_two_shifts_in_a_row_multiply():
    t = np.linspace(0.0, 1.0, 11)
    np.testing.assert_allclose(shift_time(shift_time(t, 2.0), 3.0), shift_time(t, 6.0), atol=1e-12)


@pytest.mark.parametrize(
    ("tokens", "shift"), [(46_800, 12.0), (13 * 12 * 20, 3.098), (13 * 24 * 40, 6.197), (13 * 6 * 10, 1.549)]
)
def test_shift_follows_the_square_root_of_the_tokens(tokens, shift):
    assert shift_for_tokens(tokens) == pytest.approx(shift, abs=1e-3)


def test_uniform_times_are_shifted_quantile_by_quantile():
    times = np.sort(sample_times(jax.random.key(0), 20_000, 100, FlowConfig(shift=3.0)))
    quantiles = np.array([0.1, 0.25, 0.5, 0.75, 0.9])
    np.testing.assert_allclose(np.quantile(times, quantiles), shift_time(quantiles, 3.0), atol=0.01)
    assert times[0] >= 0.0
    assert times[-1] < 1.0


def test_logit_normal_times_have_a_normal_logit():
    config = FlowConfig(shift=1.0, time_sampling="logit_normal", logit_mean=0.5, logit_std=0.8)
    times = np.asarray(sample_times(jax.random.key(1), 20_000, 100, config), np.float64)
    logits = np.log(times / (1 - times))
    assert logits.mean() == pytest.approx(0.5, abs=0.03)
    assert logits.std() == pytest.approx(0.8, abs=0.03)


def test_times_without_a_fixed_shift_follow_the_tokens():
    free = sample_times(jax.random.key(2), 8, 3120, FlowConfig())
    fixed = sample_times(jax.random.key(2), 8, 3120, FlowConfig(shift=shift_for_tokens(3120)))
    np.testing.assert_array_equal(free, fixed)


def test_interpolant_runs_from_data_to_noise_with_constant_velocity():
    clean, noise = normal(0, 4, 3, 2, 2, 16), normal(1, 4, 3, 2, 2, 16)
    np.testing.assert_array_equal(interpolate(clean, noise, jnp.zeros(4)), clean)
    np.testing.assert_array_equal(interpolate(clean, noise, jnp.ones(4)), noise)
    early, late = jnp.asarray([0.0, 0.1, 0.3, 0.5]), jnp.asarray([0.25, 0.35, 0.8, 1.0])
    change = interpolate(clean, noise, late) - interpolate(clean, noise, early)
    expected = velocity_target(clean, noise) * (late - early)[:, None, None, None, None]
    np.testing.assert_allclose(change, expected, atol=1e-6)


def test_velocity_points_back_to_the_data():
    clean, noise, time = normal(2, 3, 2, 2, 2, 16), normal(3, 3, 2, 2, 2, 16), jnp.asarray([0.1, 0.5, 0.99])
    noisy, velocity = interpolate(clean, noise, time), velocity_target(clean, noise)
    np.testing.assert_allclose(noisy - time[:, None, None, None, None] * velocity, clean, atol=1e-5)


def test_loss_counts_only_what_is_to_be_generated():
    target = normal(4, 2, 4, 2, 2, 16)
    mask = jnp.asarray([[True, False, False, False], [True, True, True, False]])
    wrong_conditions = jnp.where(mask[..., None, None, None], 1e6, target)
    loss, per_sample = generation_loss(wrong_conditions, target, mask)
    assert float(loss) == 0.0
    np.testing.assert_array_equal(per_sample, [0.0, 0.0])

    off_by_two = jnp.where(jnp.arange(4)[None, :, None, None, None] == 3, target + 2.0, target)
    loss, per_sample = generation_loss(off_by_two, target, mask)
    # Four latent frames are generated in all, one wrong one in each sample: of three, and of one.
    np.testing.assert_allclose(per_sample, [4.0 / 3.0, 4.0], rtol=1e-6)
    assert float(loss) == pytest.approx(2.0, rel=1e-6)


def test_loss_without_conditions_is_the_mean_square():
    prediction, target = normal(5, 2, 3, 2, 2, 16), normal(6, 2, 3, 2, 2, 16)
    loss, per_sample = generation_loss(prediction, target, jnp.zeros((2, 3), bool))
    assert float(loss) == pytest.approx(float(jnp.mean((prediction - target) ** 2)), rel=1e-6)
    assert float(per_sample.mean()) == pytest.approx(float(loss), rel=1e-6)


def test_a_sample_that_is_all_condition_has_no_loss():
    loss, per_sample = generation_loss(
        normal(7, 1, 1, 2, 2, 16), jnp.zeros((1, 1, 2, 2, 16)), jnp.ones((1, 1), bool)
    )
    assert float(loss) == 0.0
    assert float(per_sample[0]) == 0.0


@pytest.mark.parametrize(
    "values", [{"shift": 0.0}, {"shift": -1.0}, {"time_sampling": "cosine"}, {"logit_std": 0.0}]
)
def test_settings_that_cannot_work_are_refused_by_name(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        FlowConfig(**values)
