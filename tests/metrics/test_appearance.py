"""Appearance over an exploration of several clips: values known from angles."""

import numpy as np
import pytest

from camctrl_jax.errors import InvalidValue
from camctrl_jax.metrics.appearance import appearance_consistency, exploration_consistency


def at(*degrees):
    """Embeddings [len, 2] in these directions, of any length."""
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], 1) * np.arange(1, len(degrees) + 1)[:, None]


def test_the_curve_shows_where_an_exploration_drifts():
    found = exploration_consistency([at(0, 0, 0), at(20, 40), at(90, 90)])
    assert found.clip_to_first == pytest.approx([1.0, np.cos(np.radians(30)), 0.0])
    assert found.within == pytest.approx([1.0, np.cos(np.radians(10)), 1.0])
    assert found.last_to_first == pytest.approx(0.0, abs=1e-12)
    # Clips are as consistent as can be within themselves, the exploration is not.
    assert found.to_mean == pytest.approx(
        appearance_consistency(np.concatenate([at(0, 0, 0), at(20, 40, 90, 90)]))
    )
    assert found.to_mean < min(found.within)


def test_one_clip_and_one_that_returns():
    assert exploration_consistency([at(0, 10)]).clip_to_first == (pytest.approx(1.0),)
    back = exploration_consistency([at(0, 10), at(60, 60), at(10, 0)])
    assert back.clip_to_first == pytest.approx([1.0, np.cos(np.radians(55)), 1.0])
    assert back.last_to_first == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        ([], "1 clip or more"),
        ([at(0), np.ones((2, 3))], r"\[2, 3\] channels"),
        ([at(0), np.zeros((2, 2))], "zero or not finite"),
        ([at(0), np.zeros((0, 2))], "expected \\[frames, channels\\]"),
    ],
)
def test_what_has_no_direction_is_refused(clips, message):
    with pytest.raises(InvalidValue, match=message):
        exploration_consistency(clips)
