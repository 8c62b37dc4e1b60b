"""The losses of adversarial post-training against what can be said of them by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from camctrl_jax.diffusion.adversarial import (
    AdversarialConfig,
    critic_loss,
    critic_times,
    generated,
    generator_loss,
    mean_over,
    means_of_samples,
    penalty,
    wrong_camera_loss,
)

LOGITS = jnp.array([[-2.0, 0.0], [0.5, 3.0]])


def test_the_penalty_on_a_linear_critic_is_sigma_squared_times_its_squared_gradient():
    """Exactly, for noise that has the covariance of standard normal noise: plus and minus every axis."""
    rng = np.random.default_rng(0)
    weights, point, sigma = rng.normal(size=12), rng.normal(size=12), 0.1
    axes = np.sqrt(12) * np.concatenate([np.eye(12), -np.eye(12)])  # [24, 12], covariance 1
    judge = jnp.float32(weights)
    plain = (jnp.float32(point) @ judge + 0.3)[None, None]
    moved = (jnp.float32(point + sigma * axes) @ judge + 0.3)[:, None]
    assert float(penalty(plain, moved).mean()) == pytest.approx(sigma**2 * (weights**2).sum(), rel=1e-4)


@pytest.mark.parametrize("kind", ["ns", "rp"])
def test_critic_and_generator_want_opposite_logits(kind):
    real = LOGITS + 1.0
    of_real, of_fake = jax.grad(lambda r, f: critic_loss(r, f, kind).sum(), (0, 1))(real, LOGITS)
    wanted = jax.grad(lambda f: generator_loss(real, f, kind).sum())(LOGITS)
    assert (of_real < 0).all()
    assert (of_fake > 0).all()
    assert (wanted < 0).all()
    of_wrong = jax.grad(lambda w: wrong_camera_loss(real, w, kind).sum())(LOGITS)
    assert (of_wrong > 0).all()


def test_losses_are_those_of_the_papers():
    sigmoid = jax.nn.sigmoid
    real, fake = LOGITS, LOGITS[::-1]
    plain = -jnp.log(sigmoid(real)) - jnp.log(1 - sigmoid(fake))
    np.testing.assert_allclose(critic_loss(real, fake, "ns"), plain, rtol=1e-5)
    np.testing.assert_allclose(generator_loss(real, fake, "ns"), -jnp.log(sigmoid(fake)), rtol=1e-5)
    np.testing.assert_allclose(critic_loss(real, fake, "rp"), -jnp.log(sigmoid(real - fake)), rtol=1e-5)
    np.testing.assert_allclose(generator_loss(real, fake, "rp"), -jnp.log(sigmoid(fake - real)), rtol=1e-5)


def test_a_critic_is_never_told_time_0():
    uniform = jnp.linspace(0.0, 1.0, 1000, endpoint=False)
    for shift in (1.0, 12.0):
        times = critic_times(uniform, shift)
        assert float(times.min()) > 0
        assert float(times.max()) == 1.0
    assert float(jnp.median(critic_times(uniform, 12.0))) > 0.9  # towards noise


def test_what_is_given_stays_and_the_rest_is_one_step_from_noise():
    noise, velocity, clean = (np.full((1, 2, 1, 1, 1), value, np.float32) for value in (1.0, 0.25, 7.0))
    made = generated(noise, velocity, clean, np.array([[True, False]]))
    assert made.ravel().tolist() == [7.0, 0.75]


def test_means_leave_out_what_does_not_count():
    values = jnp.array([[1.0, jnp.nan], [3.0, 5.0]])
    weights = jnp.array([[True, False], [True, True]])
    assert float(mean_over(values, weights)) == 3.0
    assert means_of_samples(values, weights).tolist() == [1.0, 4.0]
    assert float(jax.grad(lambda v: mean_over(v, weights))(jnp.where(weights, values, 0.0))[0, 1]) == 0.0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"loss": "hinge"}, "expected 'ns' or 'rp'"),
        ({"penalty": -1.0}, r"adversarial.penalty=-1.0: expected 0"),
        ({"sigma": 0.0}, "adversarial.sigma=0.0: expected a positive"),
        ({"penalty_every": 0}, "expected at least 1"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        AdversarialConfig(**changes)
