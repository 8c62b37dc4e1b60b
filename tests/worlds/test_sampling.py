"""Sampled worlds: determinism, layout, clearance, variety."""

import collections
import dataclasses

import numpy as np
import pytest

from camctrl_jax.worlds import WorldsConfig, sample_world, static_variant
from camctrl_jax.worlds.paths import project, surface_distance
from camctrl_jax.worlds.scene import FIRST_BOX, FIRST_SPHERE, FIRST_WALL, SURFACES


@pytest.fixture(scope="module")
def worlds():
    return [sample_world(seed) for seed in range(60)]


def equal(first, second):
    same_scene = all(
        np.array_equal(value, second.scene.arrays()[name]) for name, value in first.scene.arrays().items()
    )
    same_cameras = np.array_equal(first.cameras.world_from_camera, second.cameras.world_from_camera)
    rest = ("captions", "path_class", "moves", "objects", "ground", "wall", "lighting", "fps", "seed")
    return same_scene and same_cameras and all(getattr(first, n) == getattr(second, n) for n in rest)


def test_a_seed_is_a_world(worlds):
    for seed in (0, 7, 31):
        assert equal(sample_world(seed), worlds[seed])
    assert not equal(worlds[0], worlds[1])


def test_cameras_are_valid_and_metric(worlds):
    for world in worlds:
        world.cameras.validate()
        assert world.cameras.metric
        assert len(world.cameras) == world.frames == 49
        np.testing.assert_allclose(np.diff(world.cameras.times), 1 / 12.0)
        fx, fy, cx, cy = world.cameras.intrinsics[0]
        assert 0.6 <= fx <= 0.75
        assert fy / fx == pytest.approx(5 / 3)  # square pixels at 3:5
        assert (cx, cy) == (0.5, 0.5)


def test_paths_end_about_two_metres_away_and_turn_by_about_twenty_degrees():
    """Root mean squares; docs/decisions/013 says why so large."""
    last = np.stack([sample_world(seed).cameras.relative_to(0).world_from_camera[-1] for seed in range(256)])
    metres = np.sqrt(np.square(last[:, :3, 3]).sum(axis=1).mean())
    yaw = np.degrees(np.arctan2(last[:, 0, 2], last[:, 2, 2]))
    assert 1.7 < metres < 2.1
    assert 17.0 < np.sqrt(np.square(yaw).mean()) < 25.0
    resting = np.mean(np.abs(last - np.eye(4)).max(axis=(1, 2)) < 1e-9)
    assert resting < 0.12


def distance_by_points(world, t):
    """Least distance of the camera to points spread over every object, at frame t: an independent
    estimate."""
    rng = np.random.default_rng(0)
    eye, nearest = world.cameras.positions[t], np.inf
    for slot in range(FIRST_WALL, SURFACES):
        half = world.scene.half_size[slot]
        if half[0] == 0:
            continue
        local = rng.uniform(-1, 1, (4000, 3)) * half
        if slot >= FIRST_SPHERE:
            local = local[np.hypot(local[:, 0], local[:, 2]) < half[0]]
        points = local @ world.scene.rotation[t, slot].T + world.scene.position[t, slot]
        nearest = min(nearest, np.linalg.norm(points - eye, axis=1).min())
    return nearest


def test_camera_keeps_clear_of_everything(worlds):
    for world in worlds:
        assert surface_distance(world.scene, world.cameras.positions).min() >= 0.4
        assert (-world.cameras.positions[:, 1]).min() >= 0.5
        for t in (0, 24, 48):
            assert distance_by_points(world, t) > 0.4


def test_surface_distance_is_negative_inside(worlds):
    world = worlds[0]
    for item in world.objects:
        inside = np.repeat(world.scene.position[:1, item.slot].astype(float), 3, axis=0)
        assert surface_distance(world.scene, inside)[0] < 0
    assert surface_distance(world.scene, np.array([[0.0, 0.2, 0.0]]))[0] < 0


def test_objects_stand_on_the_ground_and_apart(worlds):
    for world in worlds:
        slots = [item.slot for item in world.objects]
        bottom = world.scene.position[:, slots, 1] + world.scene.half_size[slots, 1]
        assert bottom.max() < 1e-5  # y is down: none below ground
        np.testing.assert_allclose(bottom[0], 0.0, atol=1e-5)
        half = world.scene.half_size[slots]
        reach = np.where(np.array(slots) < FIRST_SPHERE, np.hypot(half[:, 0], half[:, 2]), half[:, 0])
        place = world.scene.position[:, slots][:, :, [0, 2]]
        for i in range(len(slots)):
            for j in range(i):
                gap = np.linalg.norm(place[:, i] - place[:, j], axis=1).min()
                assert gap > reach[i] + reach[j]


def test_first_view_sees_objects(worlds):
    for world in worlds:
        slots = [item.slot for item in world.objects]
        assert len(slots) >= 5
        points = world.scene.position[0, slots].astype(float)
        seen = project(world.cameras.world_from_camera[0], world.cameras.intrinsics[0], points)
        inside = (np.abs(seen[:, :2] - 0.5) < 0.5).all(axis=1) & (seen[:, 2] > 0)
        assert inside.sum() >= 3
        visible = [item.visible for item in world.objects]
        assert visible[0]
        assert visible == sorted(visible, reverse=True)
        assert (inside | ~np.array(visible)).all()


def test_worlds_differ(worlds):
    assert len({world.path_class for world in worlds}) > 25
    assert len({world.ground for world in worlds}) == 7
    assert len({world.lighting for world in worlds}) == 5
    assert len({world.wall for world in worlds}) >= 6
    motions = collections.Counter(item.motion for world in worlds for item in world.objects)
    assert set(motions) == {"rest", "slide", "return", "bounce", "orbit", "spin"}
    assert sum(motions.values()) - motions["rest"] > 0.5 * sum(motions.values())
    moving = np.stack([world.scene.moving[:, FIRST_BOX:] for world in worlds])
    starts_or_stops = (moving.any(axis=1) & ~moving.all(axis=1)).sum()
    assert starts_or_stops > 30


def test_static_config_is_the_static_variant(config):
    for seed in range(4):
        static = sample_world(seed, dataclasses.replace(config, static=True))
        moving = sample_world(seed, config)
        assert equal(static, static_variant(moving))
        np.testing.assert_array_equal(static.cameras.world_from_camera, moving.cameras.world_from_camera)
        np.testing.assert_array_equal(static.scene.position[0], moving.scene.position[0])
        assert not static.scene.moving.any()
        assert surface_distance(static.scene, static.cameras.positions).min() >= 0.4


def test_one_frame_is_a_world():
    world = sample_world(3, WorldsConfig(frames=1))
    assert world.frames == 1
    assert world.path_class == "static"


@pytest.mark.parametrize(
    "bad", [{"frames": 0}, {"fps": 0.0}, {"aspect": -1.0}, {"min_objects": 8, "max_objects": 7}]
)
def test_impossible_configs_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad)).split("_")[-1]):
        sample_world(0, WorldsConfig(**bad))


def test_no_room_for_the_camera_says_what_to_change():
    with pytest.raises(ValueError, match=r"lower WorldsConfig\.clearance"):
        sample_world(0, WorldsConfig(frames=5, clearance=30.0))
