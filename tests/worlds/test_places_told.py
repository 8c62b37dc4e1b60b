"""What captions and lists of objects say of places is what their frames show."""

import re

import numpy as np
import pytest

from camctrl_jax.worlds import (
    Places,
    WorldsConfig,
    caption_phrasings,
    run_into,
    sample_world,
    static_variant,
    window,
)
from camctrl_jax.worlds.captions import floor_at
from camctrl_jax.worlds.paths import solid_distances
from camctrl_jax.worlds.places.solids import glance

CONFIG = WorldsConfig(frames=25, fps=6.0, places=Places(take_frames=121))


@pytest.fixture(scope="module")
def windows():
    rooms = WorldsConfig(frames=25, fps=6.0, places=Places("rooms", take_frames=121))
    return [sample_world(seed, rooms) for seed in range(12)] + [sample_world(s, CONFIG) for s in range(12)]


def named(world, caption):
    """The visible objects that a caption names."""
    return [
        item
        for item in world.objects
        if item.visible and re.search(rf"\b{item.color}( and \w+ \w+)? {item.shape}\b", caption)
    ]


def rays_on_objects(world):
    """Slots of the objects that pictures of 24 x 40 show, with their number of rays in the best of them."""
    counts = np.zeros(world.scene.slots.surfaces + 1, int)
    cameras = world.cameras
    for t in range(world.frames):
        slots, _ = glance(world.scene, t, cameras.world_from_camera[t], cameras.intrinsics[t], 24, 40)
        counts = np.maximum(counts, np.bincount(slots.ravel() + 1, minlength=len(counts)))
    return {item.slot: int(counts[item.instance]) for item in world.objects}


def test_what_is_said_to_be_on_a_floor_is_on_it(windows):
    floors, mixed = set(), 0
    for world in windows:
        for number, caption in enumerate(world.captions):
            told = named(world, caption)
            here = {floor_at(world, world.scene.position[0, item.slot]) for item in told}
            says = {style for style in here if style in caption}
            if told and number < 3:
                # One colour and shape may be two objects on two floors: one of them is meant.
                assert says, (caption, here)
                if len({(item.color, item.shape) for item in told}) == len(told):
                    assert here == {world.ground}
            mixed += len(here) > 1
            floors |= says
    assert len(floors) > 3
    assert mixed > 2  # the last phrasing names all, and no floor


def test_objects_are_told_where_any_are_seen(windows):
    nothing = 0
    for world in windows:
        seen = rays_on_objects(world)
        if any(item.visible for item in world.objects):
            for item in world.objects:
                assert not item.visible or seen[item.slot] > 0
        else:
            nothing += 1
            # A look at every frame finds no more than a few rays, or something in passing.
            assert max(seen.values()) < 60
    assert nothing < 4


def test_what_is_changed_is_told_anew(windows):
    changed = 0
    for number, world in enumerate(windows[:16]):
        path, _ = run_into(world, number)
        for other in (path, static_variant(world), static_variant(world, camera=True)):
            assert other.captions == caption_phrasings(other)
            seen = rays_on_objects(other)
            for item in other.objects:
                assert not item.visible or seen[item.slot] > 0
            changed += [i.slot for i in other.objects if i.visible] != [
                i.slot for i in world.objects if i.visible
            ]
    assert changed > 8


def test_a_window_is_told_alike_whatever_was_told_of_the_take():
    take = sample_world(7, WorldsConfig(frames=121, fps=6.0, places=Places()))
    part = window(take, 30, 25)
    again = window(window(take, 20, 60), 10, 25)
    assert part.captions == again.captions
    assert part.objects == again.objects


def test_a_path_is_inside_the_solid_it_meets_and_inside_no_other(windows):
    rooms = WorldsConfig(frames=25, fps=6.0, places=Places("rooms", take_frames=121))
    overlapping = {seed: sample_world(seed, rooms) for seed in (23, 26)}  # walls that meet at a corner
    for number, world in {**dict(enumerate(windows, 100)), **overlapping}.items():
        path, truth = run_into(world, number)
        centers, scene = path.cameras.positions, path.scene
        solids = np.flatnonzero(scene.half_size[:, 0] > 0)[1:]
        inside = solid_distances(scene, centers, solids) < 0
        assert (inside[:, solids != truth.slot] == 0).all()
        np.testing.assert_array_equal(inside[:, solids == truth.slot][:, 0], truth.inside)


def test_the_kind_of_a_place_does_not_tell_its_light():
    config = WorldsConfig(frames=25, fps=6.0, places=Places())
    worlds = [sample_world(seed, config) for seed in range(48)]
    for setting in ("garden", "rooms"):
        assert len({world.lighting for world in worlds if world.setting == setting}) >= 4
