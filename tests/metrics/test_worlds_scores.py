"""Scores of held-out worlds: known errors give known figures."""

from __future__ import annotations

import numpy as np
import pytest

from camctrl_jax.metrics.worlds_scores import camera_scores


def make_clips(seed: int = 0, count: int = 3, frames: int = 9) -> np.ndarray:
    return np.random.default_rng(seed).integers(60, 180, (count, frames, 6, 8, 3)).astype(np.uint8)


def test_known_errors_give_known_scores():
    truth = make_clips()
    true_path, decoy = truth + np.uint8(2), truth + np.uint8(20)
    scores = camera_scores(truth, true_path, decoy)
    assert scores["psnr_db"]["true_path"] == pytest.approx(20 * np.log10(255 / 2))
    assert scores["against_decoy_path"]["gain_db"] == pytest.approx(20.0)  # ten times the error
    assert scores["against_decoy_path"]["standard_error"] == pytest.approx(0.0, abs=1e-9)
    assert scores["against_decoy_path"]["won"] == 1.0
    assert len(scores["per_world"]["first_frame_repeated"]) == 3


def test_first_frames_are_not_scored():
    truth = make_clips()
    video = truth.copy()
    video[:, :5] = 0  # the first five frames are wrong, the sixth and later right
    assert camera_scores(truth, video, video)["psnr_db"]["true_path"] == 100.0


def test_world_that_stands_still_is_won_by_repeating_its_first_frame():
    truth = np.repeat(make_clips(frames=1), 9, axis=1)
    scores = camera_scores(truth, truth + np.uint8(1), truth + np.uint8(2))
    assert scores["psnr_db"]["first_frame_repeated"] == 100.0
    assert scores["against_first_frame_repeated"]["won"] == 0.0
