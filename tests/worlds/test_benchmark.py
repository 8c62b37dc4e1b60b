"""The scenes of the benchmark: balanced, clear of solids, exact where they return, the same everywhere."""

import hashlib
from collections import Counter

import numpy as np
import pytest

from camctrl_jax.errors import InvalidValue
from camctrl_jax.worlds import Places, WorldsConfig, sample_world
from camctrl_jax.worlds.benchmark import (
    BENCHMARK_SCENES,
    DIFFICULTIES,
    LARGEST_SCALE,
    PATH_CLASSES,
    SIZES,
    STATIC,
    benchmark_cell,
    benchmark_scene,
    scaled_path,
)
from camctrl_jax.worlds.paths import surface_distance
from camctrl_jax.worlds.splits import HELD_OUT_FIRST_SEED

FIRST = 56  # scenes: every class at every difficulty once or more
DIGEST = "8cb4fff9538285eea4382309b2aeee678d219e701090f1ece5782161e4db5fed"


@pytest.fixture(scope="module")
def scenes():
    return [benchmark_scene(index) for index in range(FIRST)]


def paths(scenes, name):
    return [scene for scene in scenes if scene.path_class == name]


def test_cells_are_balanced_as_a_whole_and_from_the_start():
    cells = Counter(benchmark_cell(index) for index in range(BENCHMARK_SCENES))
    assert cells.pop((STATIC, "")) == 13
    assert cells == {(name, level): 9 for name in PATH_CLASSES for level in DIFFICULTIES}
    assert len({benchmark_cell(index)[0] for index in range(10)}) == 10
    # Neighbours are each other's decoys: never of one class.
    for index in range(BENCHMARK_SCENES):
        assert benchmark_cell(index)[0] != benchmark_cell((index + 1) % BENCHMARK_SCENES)[0]
    for count in (19, 29, 57, 128):
        found = Counter(benchmark_cell(index)[0] for index in range(count))
        counts = [found[name] for name in PATH_CLASSES]
        assert max(counts) - min(counts) <= 1


def test_seeds_are_held_out_each_its_own_and_looks_are_those_of_the_seed(scenes):
    seeds = [scene.world.seed for scene in scenes]
    assert min(seeds) >= HELD_OUT_FIRST_SEED
    assert len(set(seeds)) == len(seeds)
    world = sample_world(scenes[3].world.seed)
    np.testing.assert_array_equal(world.scene.position, scenes[3].world.scene.position)
    np.testing.assert_array_equal(
        world.cameras.world_from_camera[0], scenes[3].world.cameras.world_from_camera[0]
    )
    assert world.captions == scenes[3].world.captions


def test_the_same_scenes_on_every_machine(scenes):
    poses = np.stack([scene.world.cameras.world_from_camera for scene in scenes])
    rounded = np.round(poses, 4) + 0.0  # no negative zero
    assert hashlib.sha256(rounded.tobytes()).hexdigest() == DIGEST
    again = benchmark_scene(17).world.cameras.world_from_camera
    np.testing.assert_array_equal(again, poses[17])


def test_paths_keep_clear_of_all_that_stands_and_moves_also_at_the_largest_scale(scenes):
    for scene in scenes:
        cameras = scene.world.cameras
        assert surface_distance(scene.world.scene, cameras.positions).min() >= WorldsConfig().clearance
        farther = scaled_path(cameras, LARGEST_SCALE).positions
        assert surface_distance(scene.world.scene, farther).min() > 0


def test_paths_are_of_the_stated_kind_and_size(scenes):
    for scene in scenes:
        level, cameras = scene.difficulty, scene.world.cameras.relative_to(0)
        end, length = cameras.positions[-1], cameras.path_length
        if scene.path_class == STATIC:
            poses = scene.world.cameras.world_from_camera
            np.testing.assert_array_equal(poses, np.broadcast_to(poses[0], (49, 4, 4)))
            continue
        size = {name: sizes[DIFFICULTIES.index(level)] for name, sizes in SIZES.items()}
        if scene.path_class == "forward":
            # Levelled: the camera looks down a little while it goes level.
            assert np.linalg.norm(end) == pytest.approx(size["forward"])
            assert end[2] > 0.9 * size["forward"]
        elif scene.path_class == "sideways":
            assert abs(end[0]) == pytest.approx(size["sideways"])
        elif scene.path_class == "pan":
            assert length == 0.0
            # About the vertical, while the camera is pitched: a little less than the pan.
            assert 0.97 * size["pan"] < cameras.net_rotation <= size["pan"] + 1e-9
        elif scene.path_class == "orbit":
            assert cameras.net_rotation == pytest.approx(size["orbit"], rel=0.04)
            assert length > 1.0
        elif scene.path_class.startswith("turns_"):
            stages = int(scene.path_class[-1]) + 1
            assert length == pytest.approx(stages * size["stage"], rel=1e-6)
            assert corners(cameras.positions) == stages - 1
        elif scene.path_class == "detour":
            assert length == pytest.approx(4 * size["side"], rel=1e-6)
            assert corners(cameras.positions) == 3


def corners(positions):
    """How often the direction of travel changes by more than 45 degrees; stages begin and end at rest."""
    steps = np.diff(positions, axis=0)
    steps = steps[np.linalg.norm(steps, axis=1) > 1e-3 * np.linalg.norm(steps, axis=1).max()]
    ways = steps / np.linalg.norm(steps, axis=1, keepdims=True)
    kept, count = ways[0], 0
    for way in ways[1:]:
        if way @ kept < 0.7:
            kept, count = way, count + 1
    return count


def test_out_and_back_retraces_its_way_to_the_very_first_pose(scenes):
    for scene in paths(scenes, "out_and_back"):
        poses = scene.world.cameras.world_from_camera
        np.testing.assert_array_equal(poses, poses[::-1])
        assert np.abs(poses[24] - poses[0]).max() > 0.05


def test_detour_returns_to_the_very_first_pose_by_another_way(scenes):
    for scene in paths(scenes, "detour"):
        cameras = scene.world.cameras
        np.testing.assert_array_equal(cameras.world_from_camera[0], cameras.world_from_camera[-1])
        steps = np.linalg.norm(np.diff(cameras.positions, axis=0), axis=1)
        assert steps.max() < 0.2  # no jump at its end
        there, back = cameras.positions[6:19], cameras.positions[30:43]
        assert np.linalg.norm(there[:, None] - back[None], axis=-1).min() > 0.2


def test_difficulty_is_size(scenes):
    for name in ("forward", "sideways", "turns_2", "detour"):
        lengths = {scene.difficulty: scene.world.cameras.path_length for scene in paths(scenes, name)}
        assert lengths["easy"] < lengths["medium"] < lengths["hard"]


def test_a_twin_is_another_world_with_a_path_of_the_same_class():
    scene, twin = benchmark_scene(4), benchmark_scene(4, twin=True)
    assert (scene.path_class, scene.difficulty) == (twin.path_class, twin.difficulty)
    assert scene.world.seed != twin.world.seed


def test_other_lengths_and_aspects():
    for frames, aspect in ((17, 1.0), (18, 2.0), (9, 5 / 3)):
        config = WorldsConfig(frames=frames, aspect=aspect)
        for index in (0, 7, 8):
            poses = benchmark_scene(index, config).world.cameras.world_from_camera
            assert poses.shape == (frames, 4, 4)
        np.testing.assert_array_equal(poses[0], poses[-1])


def test_a_scaled_path_goes_as_many_times_as_far(scenes):
    cameras = scenes[3].world.cameras  # an orbit
    path = cameras.relative_to(0)
    for factor in (0.0, 0.8, 1.0, 1.3):
        scaled = scaled_path(cameras, factor)
        np.testing.assert_allclose(scaled.world_from_camera[0], cameras.world_from_camera[0], atol=1e-12)
        there = scaled.relative_to(0)
        np.testing.assert_allclose(there.positions, factor * path.positions, atol=1e-12)
        assert there.net_rotation == pytest.approx(factor * path.net_rotation)
        assert there.validate()
    np.testing.assert_allclose(
        scaled_path(cameras, 1.0).world_from_camera, cameras.world_from_camera, atol=1e-12
    )


@pytest.mark.parametrize("index", [-1, 256])
def test_other_scenes_are_refused(index):
    with pytest.raises(InvalidValue, match="0 to 255"):
        benchmark_scene(index)


def test_places_are_refused():
    with pytest.raises(InvalidValue, match=r"leave WorldsConfig\.places out"):
        benchmark_scene(0, WorldsConfig(frames=13, places=Places()))
