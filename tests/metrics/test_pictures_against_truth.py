"""SSIM and the scale of the path, on pictures whose value is known."""

import numpy as np
import pytest

from camctrl_jax.errors import InvalidValue
from camctrl_jax.metrics.path_scale import best_path_scale
from camctrl_jax.metrics.ssim import ssim


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_ssim_of_equal_pictures_is_one_and_falls_with_noise():
    video = noise(3, 24, 32, 3)
    assert ssim(video, video) == pytest.approx(np.ones(3))
    little = np.clip(video.astype(int) + 10, 0, 255).astype(np.uint8)
    assert (ssim(noise(3, 24, 32, 3, seed=1), video) < 0.2).all()
    assert (ssim(little, video) > 0.9).all()


def test_ssim_is_the_formula_of_the_paper_on_flat_pictures():
    """Without texture only the means count: (2 a b + c1) / (a^2 + b^2 + c1)."""
    a, b = 100 / 255, 150 / 255
    flat = [np.full((16, 16, 1), level, np.uint8) for level in (100, 150)]
    assert ssim(*flat) == pytest.approx((2 * a * b + 1e-4) / (a * a + b * b + 1e-4))


def test_ssim_against_a_direct_sum_over_windows():
    video, truth = noise(12, 13, 1), noise(12, 13, 1, seed=1)
    line = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    weights = np.outer(line, line) / np.outer(line, line).sum()
    values = []
    for top in range(2):
        for left in range(3):
            x, y = (v[top : top + 11, left : left + 11, 0] / 255 for v in (video, truth))
            mx, my = (weights * x).sum(), (weights * y).sum()
            vx, vy = (weights * (x - mx) ** 2).sum(), (weights * (y - my) ** 2).sum()
            cov = (weights * (x - mx) * (y - my)).sum()
            values.append(
                (2 * mx * my + 1e-4) * (2 * cov + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))
            )
    assert ssim(video, truth) == pytest.approx(np.mean(values), rel=1e-9)


def gradient(shift):
    """A wave moved by ``shift`` pixels, frame by frame further."""
    columns = np.arange(64)[None, None, :, None] - shift * np.arange(5)[:, None, None, None]
    return np.broadcast_to(127 + 100 * np.sin(columns / 8.0), (5, 16, 64, 3)).astype(np.uint8)


@pytest.mark.parametrize("truth", [0.5, 0.8, 1.0, 1.13])
def test_the_scale_that_was_travelled_is_found_blurred_or_not(truth):
    scales = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
    renders = np.stack([gradient(2.0 * scale) for scale in scales])
    video = gradient(2.0 * truth)
    assert best_path_scale(video, renders, scales) == pytest.approx(truth, abs=0.05)
    blurred = (video.astype(int) + np.roll(video, 1, 2) + np.roll(video, -1, 2)) // 3
    assert best_path_scale(blurred.astype(np.uint8), renders, scales) == pytest.approx(truth, abs=0.05)


def test_a_camera_that_stood_reads_zero():
    scales = (0.0, 0.5, 1.0)
    renders = np.stack([gradient(2.0 * scale) for scale in scales])
    assert best_path_scale(gradient(0.0), renders, scales) == 0.0


def test_what_does_not_fit_is_named():
    with pytest.raises(InvalidValue, match="11 pixels"):
        ssim(noise(4, 4, 3), noise(4, 4, 3))
    with pytest.raises(InvalidValue, match="uint8"):
        ssim(noise(16, 16, 3), noise(16, 16, 3).astype(float))
    with pytest.raises(InvalidValue, match="increase"):
        best_path_scale(gradient(1.0), np.stack([gradient(1.0)] * 3), (1.0, 0.5, 0.0))
