"""PSNR against values worked out by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from camctrl_jax.metrics.psnr import CEILING_DB, frame_psnr, psnr, psnr_of_error


def clips(dtype=np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(20, 200, (2, 3, 4, 5, 3)).astype(dtype)


def test_known_error_gives_the_known_value():
    truth = clips()
    video = truth + np.uint8(5)  # MSE 25
    np.testing.assert_allclose(psnr(video, truth), 10 * np.log10(255**2 / 25) * np.ones(2))


def test_errors_do_not_wrap_around_in_eight_bits():
    white, black = np.full((1, 2, 2, 3), 255, np.uint8), np.zeros((1, 2, 2, 3), np.uint8)
    assert psnr(black, white) == pytest.approx(0.0)


def test_scale_of_the_values_does_not_matter():
    truth = clips()
    video = np.roll(truth, 1, axis=2)
    floats = (video / 127.5 - 1.0, truth / 127.5 - 1.0)
    np.testing.assert_allclose(psnr(*floats, peak=2.0), psnr(video, truth), rtol=1e-9)


def test_per_frame_values_and_their_relation_to_the_clip():
    truth = clips()
    video = truth.copy()
    video[:, 0] += 10
    video[:, 1] += 1
    per_frame = frame_psnr(video, truth)
    assert per_frame.shape == (2, 3)
    np.testing.assert_allclose(per_frame[:, 2], CEILING_DB)
    expected = 10 * np.log10(255**2 / ((100 + 1 + 0) / 3))
    np.testing.assert_allclose(psnr(video, truth), expected)
    assert np.all(per_frame.mean(-1) >= psnr(video, truth))


def test_unusable_input_is_refused():
    truth = clips()
    with pytest.raises(ValueError, match="same shape"):
        psnr(truth[:, :2], truth)
    with pytest.raises(ValueError, match="peak"):
        psnr(truth.astype(np.float32), truth.astype(np.float32))
    with pytest.raises(ValueError, match="not finite"):
        psnr(np.full((1, 2, 2, 3), np.nan), np.zeros((1, 2, 2, 3)), peak=1.0)


def test_an_error_scores_alike_in_numpy_and_inside_jit():
    error = np.asarray([[25.0, 1.0], [0.0, 1e-12]])
    expected = 10 * np.log10(255**2 / np.maximum(error, 255**2 * 10 ** (-CEILING_DB / 10)))
    np.testing.assert_array_equal(psnr_of_error(error, 255.0), expected)
    assert psnr_of_error(error, 255.0)[1].tolist() == [CEILING_DB, CEILING_DB]
    compiled = jax.jit(lambda error: psnr_of_error(error, 255.0))(jnp.asarray(error))
    assert compiled.dtype == jnp.float32
    np.testing.assert_allclose(compiled, expected, rtol=1e-5)
    truth = clips()
    video = truth + np.uint8(5)
    assert psnr(video, truth, clip_dims=5) == psnr_of_error(np.float64(25.0), 255.0)
