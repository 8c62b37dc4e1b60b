"""Batch shapes and how they take turns."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from camctrl_jax.data.stream import Bucket, Interleaving


def test_four_to_one_is_exact_in_every_five():
    choice, _ = Interleaving((4, 1))(np.arange(500))
    assert (choice.reshape(100, 5).sum(axis=1) == 1).all()


@given(st.lists(st.integers(0, 7), min_size=1, max_size=4).filter(any), st.integers(0, 200))
def test_places_follow_from_the_turn_alone(weights, first):
    interleaving = Interleaving(weights)
    turns = np.arange(first + 3 * sum(weights))
    choice, place = interleaving(turns)
    for index, weight in enumerate(weights):
        np.testing.assert_array_equal(place[choice == index], np.arange((choice == index).sum()))
        if weight == 0:
            assert index not in choice
    later_choice, later_place = interleaving(turns[first:])
    np.testing.assert_array_equal(later_choice, choice[first:])
    np.testing.assert_array_equal(later_place, place[first:])


@pytest.mark.parametrize("weights", [(), (0, 0), (1, -1), (0.5, 0.5)])
def test_weights_that_are_no_turns_are_refused(weights):
    with pytest.raises(ValueError, match="weights"):
        Interleaving(weights)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"frames": 48}, r"Bucket\.frames=48: expected 4k\+1 frames"),
        ({"frames": 49, "batch_size": 0}, "batch_size"),
        ({"frames": 49, "height": 96}, "both height and width"),
        ({"frames": 49, "height": 96, "width": 150}, r"Bucket\.width=150: expected a multiple of 16"),
    ],
)
def test_impossible_buckets_are_refused(options, named):
    with pytest.raises(ValueError, match=named):
        Bucket(**{"batch_size": 1, **options})


def test_buckets_know_their_latents_and_size():
    assert Bucket(frames=49, batch_size=1).latents == 13
    assert Bucket(frames=49, batch_size=1).size is None
    assert Bucket(frames=49, batch_size=1, height=96, width=160).size == (96, 160)
