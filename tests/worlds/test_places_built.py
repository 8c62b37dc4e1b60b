"""What stands in places: under nothing that it would reach into, with all that they need; seeds always make
one."""

import collections
import dataclasses

import numpy as np
import pytest

from camctrl_jax.errors import InvalidValue
from camctrl_jax.worlds import Places, WorldsConfig, sample_world
from camctrl_jax.worlds.drafts import Draft
from camctrl_jax.worlds.paths import is_clear, surface_distance
from camctrl_jax.worlds.places import sampling
from camctrl_jax.worlds.places.actors import populate
from camctrl_jax.worlds.places.layouts import lay_out
from camctrl_jax.worlds.places.navigation import Map
from camctrl_jax.worlds.places.routes import LEAST_FRAMES
from camctrl_jax.worlds.places.site import Site
from camctrl_jax.worlds.places.solids import Footprints
from camctrl_jax.worlds.places.tracks import Leg, in_time
from camctrl_jax.worlds.scene import LAYOUTS, PLACE_SLOTS


@pytest.fixture(scope="module")
def sites():
    """(layout, site, its objects) of many seeds, without the takes, which cost the most."""
    found = []
    for seed in range(90):
        site = Site(np.random.default_rng([seed, 5]), Draft.empty(24, PLACE_SLOTS))
        layout = LAYOUTS[seed % 3]
        lay_out(site, layout)
        found.append((layout, site, populate(site, 24, 6.0)[0]))
    return found


def footprint(draft, slot, frame):
    """Points (x, z) on the ground that a solid covers, f64 [N, 2]."""
    x, z = (axis.ravel() for axis in np.meshgrid(*[np.linspace(-1, 1, 9)] * 2))
    inside = np.hypot(x, z) <= 1 if slot >= PLACE_SLOTS.first_sphere else np.full(81, True)
    half, turn = draft.half_size[slot], draft.rotation[frame, slot]
    points = np.stack([x * half[0], 0 * x, z * half[2]], axis=1)[inside]
    return points @ (turn.T if slot < PLACE_SLOTS.first_sphere else np.eye(3)) + draft.position[frame, slot]


def test_nothing_reaches_into_arches_roofs_or_lintels(sites):
    under = collections.Counter()
    for _, site, objects in sites:
        draft = site.draft
        for item in site.fixtures:
            half, center = draft.half_size[item.slot], draft.position[0, item.slot]
            if -center[1] - half[1] < 2.0:  # stands on the ground
                continue
            for thing in objects:
                for frame in (0, 8, 16):
                    local = (footprint(draft, thing.slot, frame) - center) @ draft.rotation[0, item.slot]
                    if (np.abs(local[:, [0, 2]]) < half[[0, 2]]).all(axis=1).any():
                        top = -draft.position[frame, thing.slot, 1] + draft.half_size[thing.slot, 1]
                        assert top <= -center[1] - half[1], (thing.shape, item.kind)
                        under[item.kind] += 1
    assert sum(under.values()) > 10  # low things may stand there


def test_places_have_their_towers_walls_and_monuments(sites):
    for layout, site, objects in sites:
        kinds = collections.Counter(item.kind for item in site.fixtures)
        assert kinds["tower"] in (2, 3)
        assert kinds["wall"] >= {"garden": 7, "rooms": 8, "town": 4}[layout]
        assert site.landmarks
        assert len(objects) > 12


def test_a_route_without_room_gives_way_and_says_so(monkeypatch):
    config = WorldsConfig(frames=49, fps=2.0, places=Places("rooms", "turn"))
    there = sampling.find_route
    tried = collections.Counter()

    def none_of_it(name, walker):
        tried[name] += 1
        return None if name == "turn" else there(name, walker)

    monkeypatch.setattr(sampling, "find_route", none_of_it)
    monkeypatch.setattr(sampling, "_SCENES", 2)
    take = sample_world(3, config)
    assert (take.route_asked, take.path_class) in (("turn", "wander"), ("turn", "clips"))
    assert tried["turn"] > 10
    again = sample_world(3, config)
    np.testing.assert_array_equal(take.cameras.world_from_camera, again.cameras.world_from_camera)
    assert take.captions == again.captions
    window = sample_world(3, dataclasses.replace(config, frames=9, places=Places("rooms", "turn", 49)))
    assert window.route_asked == "turn"
    monkeypatch.undo()
    assert sample_world(3, config).route_asked == ""


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_detour_fits_into_the_least_time_it_needs(layout):
    places = Places(layout, "detour")
    for seed in range(2):
        take = sample_world(seed, WorldsConfig(frames=LEAST_FRAMES["detour"], places=places))
        assert (take.path_class, take.route_asked) == ("detour", "")


def test_a_number_of_objects_is_refused_with_places():
    for bad in ({"min_objects": 3}, {"max_objects": 7}):
        with pytest.raises(InvalidValue, match=f"{next(iter(bad))} is .* as many objects as there is room"):
            sample_world(0, WorldsConfig(frames=9, places=Places(), **bad))


def test_legs_start_and_stop_in_seconds_whatever_the_rate_of_frames():
    leg = Leg(np.stack([np.linspace(0, 8, 50)] * 2 + [np.zeros(50)], axis=1), np.linspace(0, 12.0, 50))
    slow, fast = (in_time(leg, int(12 * fps) + 1, fps) for fps in (6.0, 24.0))
    np.testing.assert_allclose(fast[::4], slow, atol=0.06)
    speed = np.linalg.norm(np.diff(fast[:, :2], axis=0), axis=1) * 24.0
    assert speed[:3].max() < 0.3 * speed.max()
    assert speed[int(1.2 * 24)] > 0.95 * speed.max()  # in full swing after about a second


def test_being_clear_is_what_distances_say():
    take = sample_world(5, WorldsConfig(frames=97, fps=6.0, places=Places("town", "wander")))
    rng = np.random.default_rng(0)
    answers = []
    for _ in range(60):
        path = take.cameras.positions[rng.integers(97)] + np.linspace(0, 1, 97)[:, None] * rng.normal(
            0, 1.5, 3
        ) * [1, 0.2, 1]
        for clearance in (0.2, 0.8):
            answers.append(is_clear(take.scene, path, clearance))
            assert answers[-1] == (surface_distance(take.scene, path).min() >= clearance)
    assert 10 < sum(answers) < 110


def test_the_nearest_outline_is_found_without_looking_at_those_far_away():
    rng = np.random.default_rng(1)
    count = 40
    half = rng.uniform(0, 2, (count, 2)) * (rng.random(count) < 0.5)[:, None]
    outlines = Footprints(rng.uniform(-8, 8, (count, 2)), half, rng.uniform(-3, 3, count), rng.random(count))
    points = rng.uniform(-8, 8, (300, 2))
    # By points on the outlines' edges: to all of them, not only to the nearest, and by brute force.
    ring = np.stack([np.sin(np.linspace(0, 6.3, 400)), np.cos(np.linspace(0, 6.3, 400))], axis=1)
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]])
    sides = np.concatenate([np.linspace(a, b, 300) for a, b in zip(corners[:-1], corners[1:])])
    away = []
    for center, size, yaw, margin in zip(outlines.center, half, outlines.yaw, outlines.margin):
        turn = np.array([[np.cos(yaw), np.sin(yaw)], [-np.sin(yaw), np.cos(yaw)]])
        local = np.abs((points - center) @ turn.T.T)
        edge = (sides if size.any() else 0 * ring) * size @ turn.T + center
        distance = np.linalg.norm(points[:, None] - edge, axis=-1).min(axis=1)
        within = (local < size).all(axis=1)
        away.append(np.where(within, -distance, distance) - margin)
    nearest = outlines.nearest(points)
    np.testing.assert_allclose(nearest, np.min(away, axis=0), atol=0.01)
    near = outlines.nearest(points[:1], within=0.7)
    assert near[0] == nearest[0] or min(near[0], nearest[0]) > 0.7


def test_a_map_knows_what_keeps_its_distance(sites):
    rng = np.random.default_rng(2)
    for _, site, _ in sites[:6]:
        grid = Map.of(site.solid, 0.58, -8.0, 8.0, -8.0, 8.0)
        points = rng.uniform(-9, 9, (50, 40, 2))
        np.testing.assert_array_equal(grid.apart(points), site.solid.nearest(points) > grid.keep)
