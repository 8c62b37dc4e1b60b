"""Bulk rendering: determinism, stacking, chunks, sizes."""

import dataclasses

import jax
import numpy as np
import pytest

from camctrl_jax.worlds import iterate_rgb, iterate_rgb_on_host, render, render_rgb, sample_world
from camctrl_jax.worlds.culling import Culling


def test_rendering_twice_gives_the_same_bytes(moving_worlds, moving_frames):
    again = render(moving_worlds[0], 48, 80)
    for name in again.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(again, name), getattr(moving_frames[0], name))


def test_bulk_rendering_equals_single_rendering(config):
    """Chunks of two over three worlds: stacked rendering, and a last chunk that is not full."""
    short = dataclasses.replace(config, frames=2)
    worlds = [sample_world(seed, short) for seed in range(3)]
    bulk = render_rgb(worlds, 37, 61, samples=1, chunk=2)
    assert isinstance(bulk, jax.Array)
    assert bulk.dtype == np.uint8
    assert bulk.shape == (3, 2, 37, 61, 3)
    chunks = list(iterate_rgb(worlds, 37, 61, samples=1, chunk=2))
    assert [len(chunk) for chunk in chunks] == [2, 1]
    np.testing.assert_array_equal(np.concatenate(chunks), bulk)
    on_host = list(iterate_rgb_on_host(worlds, 37, 61, samples=1, chunk=2))
    assert all(isinstance(chunk, np.ndarray) for chunk in on_host)
    np.testing.assert_array_equal(np.concatenate(on_host), bulk)
    for world, clip in zip(worlds, bulk):
        single = np.asarray(render_rgb([world], 37, 61, samples=1)[0], np.int32)
        assert np.abs(single - np.asarray(clip, np.int32)).max() <= 1  # rounding of another vector width


@pytest.mark.parametrize(
    "culling",
    [
        pytest.param(Culling(listed=False, together=5), marks=pytest.mark.slow),
        pytest.param(Culling(together=8), marks=pytest.mark.slow),
        pytest.param(Culling(by_count=True, together=3), marks=pytest.mark.slow),
        Culling(by_count=True),
    ],
)
def test_however_slots_are_visited_the_pictures_are_the_same(place_worlds, culling):
    usual = render_rgb(place_worlds, 16, 32, samples=1, chunk=3)
    other = render_rgb(place_worlds, 16, 32, samples=1, chunk=3, culling=culling)
    np.testing.assert_array_equal(usual, other)


@pytest.fixture(scope="module")
def place_worlds(place_config):
    short = dataclasses.replace(place_config, frames=3)
    worlds = [sample_world(seed, short) for seed in range(3)]
    assert len({world.setting for world in worlds}) > 1
    return worlds


def test_frames_use_the_range_of_values(moving_frames):
    for frames in moving_frames:
        assert frames.rgb.std() > 20
        assert (frames.rgb == 255).mean() < 0.02


def test_bad_sizes_and_stacks_are_refused(moving_worlds, config):
    with pytest.raises(ValueError, match="height is 0"):
        render(moving_worlds[0], 0, 80)
    with pytest.raises(ValueError, match="samples is 0"):
        render_rgb(moving_worlds[:1], 8, 8, samples=0)
    with pytest.raises(ValueError, match="no worlds"):
        render_rgb([], 8, 8)
    with pytest.raises(ValueError, match="chunk is 0"):
        render_rgb(moving_worlds[:1], 8, 8, chunk=0)
    other = sample_world(0, dataclasses.replace(config, frames=5))
    with pytest.raises(ValueError, match="frames do not stack"):
        render_rgb([moving_worlds[0], other], 8, 8, chunk=2)
