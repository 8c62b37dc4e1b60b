"""Task ratios, condition masks and dropout."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from camctrl_jax.data.randomness import generator_at
from camctrl_jax.data.tasks import TASK_NAMES, TaskConfig, draw_tasks


def shares(values: np.ndarray) -> np.ndarray:
    return np.bincount(values, minlength=len(TASK_NAMES)) / len(values)


def test_stage_two_ratios_are_met():
    config = TaskConfig(t2v=5, i2v=3, extension=2)
    tasks = draw_tasks(config, generator_at(0, 0), np.ones(20_000, bool), latents=31)
    np.testing.assert_allclose(shares(tasks.task), [0.5, 0.3, 0.2], atol=0.015)


def test_masks_are_prefixes_of_the_length_that_the_task_says():
    config = TaskConfig(t2v=1, i2v=1, extension=1, extension_latents=(2, 13))
    tasks = draw_tasks(config, generator_at(1, 0), np.ones(3000, bool), latents=31)
    lengths = tasks.condition_mask.sum(axis=1)
    assert (tasks.condition_mask == (np.arange(31) < lengths[:, None])).all()
    assert set(lengths[tasks.task == 0]) == {0}
    assert set(lengths[tasks.task == 1]) == {1}
    assert set(lengths[tasks.task == 2]) == set(range(2, 14))


@given(st.integers(1, 40), st.integers(0, 10_000))
def test_a_latent_is_always_left_to_generate(latents, seed):
    config = TaskConfig(t2v=0.2, i2v=0.3, extension=0.5)
    tasks = draw_tasks(config, generator_at(seed, 3), np.ones(64, bool), latents)
    assert tasks.condition_mask.shape == (64, latents)
    assert not tasks.condition_mask.all(axis=1).any()
    if latents == 1:
        assert (tasks.task == 0).all()  # an image can only be generated as a whole
    if latents == 2:
        assert (tasks.task < 2).all()  # extension from two latents would leave nothing


def test_camera_is_dropped_on_labelled_clips_only_and_independently_of_text():
    labelled = np.arange(40_000) % 5 < 4
    tasks = draw_tasks(TaskConfig(), generator_at(2, 0), labelled, latents=13)
    assert not tasks.camera_valid[~labelled].any()
    assert abs(tasks.camera_valid[labelled].mean() - 0.9) < 0.01
    assert abs(tasks.text_dropped.mean() - 0.1) < 0.01
    both = (tasks.text_dropped & ~tasks.camera_valid)[labelled].mean()
    assert abs(both - 0.01) < 0.003


def test_a_share_can_change_without_moving_the_other_draws():
    labelled = np.ones(500, bool)
    usual = draw_tasks(TaskConfig(), generator_at(5, 7), labelled, latents=13)
    changed = draw_tasks(TaskConfig(text_dropout=0.5), generator_at(5, 7), labelled, latents=13)
    assert (usual.task == changed.task).all()
    assert (usual.camera_valid == changed.camera_valid).all()
    assert (changed.text_dropped >= usual.text_dropped).all()
    assert changed.text_dropped.sum() > usual.text_dropped.sum()


def test_position_alone_decides():
    first = draw_tasks(TaskConfig(), generator_at(5, 7), np.ones(64, bool), latents=13)
    again = draw_tasks(TaskConfig(), generator_at(5, 7), np.ones(64, bool), latents=13)
    other = draw_tasks(TaskConfig(), generator_at(5, 8), np.ones(64, bool), latents=13)
    assert all((a == b).all() for a, b in zip(first, again))
    assert (first.task != other.task).any()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"t2v": 0, "i2v": 0}, "t2v=0"),
        ({"i2v": -0.1}, "i2v=-0.1"),
        ({"text_dropout": 1.5}, "text_dropout is 1.5"),
        ({"camera_dropout": -1}, "camera_dropout is -1"),
        ({"extension_latents": (5, 2)}, r"\(5, 2\)"),
        ({"reference": "world"}, "reference is 'world'; expected one of take, clip"),
    ],
)
def test_impossible_settings_are_named(options, named):
    with pytest.raises(ValueError, match=named):
        TaskConfig(**options)
