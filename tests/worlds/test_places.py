"""Worlds to explore: all round, clear of solids, true to their routes, hiding, told as they are."""

import dataclasses
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from camctrl_jax.errors import InvalidValue
from camctrl_jax.worlds import (
    Places,
    WorldsConfig,
    at_frames,
    render_rgb,
    run_into,
    sample_world,
    static_variant,
    vocabulary,
    window,
)
from camctrl_jax.worlds.captions import words
from camctrl_jax.worlds.culling import Culling, in_view
from camctrl_jax.worlds.paths import surface_distance
from camctrl_jax.worlds.places.solids import glance
from camctrl_jax.worlds.rays import at_frame, directions, nearest_hits, sunlight, unpack_hit
from camctrl_jax.worlds.scene import FIRST_WALL, LAYOUTS, PLACE_SLOTS, ROUTES
from camctrl_jax.worlds.stacking import stack_worlds

HEIGHT, WIDTH, FRAMES = 48, 80, 13  # as in conftest, so that nothing more is compiled
TAKE = WorldsConfig(frames=169, fps=6.0, places=Places())
SEEDS = range(18)


@pytest.fixture(scope="module")
def takes():
    """Every layout and every route, several times."""
    return [
        sample_world(
            seed,
            dataclasses.replace(TAKE, places=Places(LAYOUTS[seed % 3], ROUTES[seed % len(ROUTES)])),
        )
        for seed in SEEDS
    ]


def turned(world, degrees):
    """The first pose, turned about the vertical."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    pose = world.cameras.world_from_camera[0].copy()
    pose[:3, :3] = np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]]) @ pose[:3, :3]
    return pose


def shown_objects(world, degrees, scene=None):
    """Slots of objects that a coarse picture shows, one for every ray that meets one."""
    slots, _ = glance(scene or world.scene, 0, turned(world, degrees), world.cameras.intrinsics[0])
    return slots[slots >= PLACE_SLOTS.first_box if world.setting else slots >= 4]


def test_a_seed_is_a_place(takes):
    again = sample_world(2, dataclasses.replace(TAKE, places=Places("town", "out_and_back")))
    for name, value in takes[2].scene.arrays().items():
        np.testing.assert_array_equal(value, again.scene.arrays()[name])
    np.testing.assert_array_equal(takes[2].cameras.world_from_camera, again.cameras.world_from_camera)
    assert (takes[2].captions, takes[2].returns) == (again.captions, again.returns)


def test_places_do_not_change_the_worlds_of_before():
    """Of seeds 0 to 39, before there were places: rounded, so that it holds on every machine."""
    digest = hashlib.sha256()
    for seed in range(40):
        world = sample_world(seed)
        arrays = (world.scene.position, world.scene.colors, world.cameras.world_from_camera)
        for array in arrays:
            digest.update((np.round(array.astype(np.float64), 3) + 0.0).tobytes())
        digest.update("|".join(world.captions).encode())
    assert digest.hexdigest() == BEFORE


BEFORE = "3dfe21b77ac4902315cd8382137f8b60986f4a9580c698b68fe0b6e10666dd13"


def test_cameras_keep_clear_of_all_solids(takes):
    rng = np.random.default_rng(0)
    for take in takes:
        assert surface_distance(take.scene, take.cameras.positions).min() >= TAKE.clearance
        # The same by points on the surfaces, which shares no code with it.
        for t in (0, 60, 168):
            for slot in range(FIRST_WALL, PLACE_SLOTS.surfaces):
                half = take.scene.half_size[slot].astype(float)
                if half[0] == 0:
                    continue
                local = rng.uniform(-1, 1, (400, 3)) * half
                if slot >= PLACE_SLOTS.first_sphere:
                    local = local[np.hypot(local[:, 0], local[:, 2]) < half[0]]
                points = local @ take.scene.rotation[t, slot].T + take.scene.position[t, slot]
                away = np.linalg.norm(points - take.cameras.positions[t], axis=1)
                assert away.min(initial=9.0) > TAKE.clearance


def test_steps_are_small_and_turns_are_slow(takes):
    for take in takes:
        assert np.linalg.norm(np.diff(take.cameras.positions, axis=0), axis=1).max() < 0.3
        assert take.cameras.rotation_steps.max() < 10.0  # degrees a frame
        take.cameras.validate()


def test_nothing_walks_through_walls_or_through_each_other(takes):
    moved = 0
    for take in takes:
        scene, slots = take.scene, [item.slot for item in take.objects]
        walls = [f.slot for f in take.fixtures if f.kind not in ("ground", "floor", "patch")]
        half = scene.half_size[slots]
        boxes = np.array(slots) < PLACE_SLOTS.first_sphere
        radius = np.where(boxes, np.hypot(half[:, 0], half[:, 2]), half[:, 0])
        angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
        ring = np.stack([np.sin(angles), np.zeros(16), np.cos(angles)], axis=1)
        rim = scene.position[:, slots, None] + radius[:, None, None] * ring  # [T+1, K, 16, 3]
        rim = np.concatenate([rim, scene.position[:, slots, None]], axis=2)
        for wall in walls:
            local = (rim - scene.position[0, wall]) @ scene.rotation[0, wall]
            assert not (np.abs(local) < scene.half_size[wall]).all(axis=-1).any()
        place = scene.position[:, slots][:, :, [0, 2]]
        apart = np.linalg.norm(place[:, :, None] - place[:, None], axis=-1).min(axis=0)
        assert (apart + 10 * np.eye(len(slots)) > radius[:, None] + radius).all()
        moved += scene.moving[:, slots].any(axis=0).sum()
    assert moved > 6 * len(takes)


def test_objects_are_all_round_the_first_camera(takes):
    """None stood behind it before; walls and the ground do not count."""
    shares = [shown_objects(take, 180.0).size / 240 for take in takes]
    assert np.mean(np.array(shares) > 0) > 0.75
    assert np.mean(shares) > 0.04
    assert shown_objects(sample_world(3), 180.0).size == 0


@pytest.mark.slow
def test_objects_stand_behind_the_first_camera_in_a_hundred_places():
    config = dataclasses.replace(TAKE, frames=49)
    shares = [shown_objects(sample_world(seed, config), 180.0).size / 240 for seed in range(100)]
    assert np.mean(np.array(shares) > 0) > 0.85
    assert np.mean(shares) > 0.05


def test_returns_come_back_to_the_same_pose_and_static_parts_to_the_same_pixels(takes):
    names = {take.path_class for take in takes if take.returns}
    assert names == {"out_and_back", "there_and_back", "detour", "loop", "around", "turn"}
    pairs = []
    for take in takes:
        for earlier, later in take.returns:
            poses = take.cameras.world_from_camera
            np.testing.assert_array_equal(poses[earlier], poses[later])
            between = poses[earlier : later + 1]
            gone = np.linalg.norm(between[:, :3, 3] - poses[earlier, :3, 3], axis=1).max()
            turn = between[:, :3, 2] @ poses[earlier, :3, 2]
            assert later > earlier + 6
            assert gone > 0.4 or turn.min() < 0.75  # it was away
        if take.returns:
            pairs.append(at_frames(static_variant(take), (take.returns[-1] * FRAMES)[:FRAMES]))
    for pair in pairs[::4]:
        frames = np.asarray(render_rgb([pair], HEIGHT, WIDTH)[0])
        np.testing.assert_array_equal(frames[0], frames[1])
        assert frames.std() > 10


def test_routes_are_what_their_names_say(takes):
    for take in takes:
        poses, last = take.cameras.world_from_camera, take.frames - 1
        if take.path_class == "out_and_back":
            np.testing.assert_array_equal(poses, poses[::-1])
        elif take.path_class in ("there_and_back", "loop", "around"):
            assert (0, last) in take.returns
        elif take.path_class == "detour":
            ((b, end),) = take.returns
            assert end == last
            away = np.linalg.norm(take.cameras.positions - take.cameras.positions[b], axis=1)
            assert away[0] > 0.8  # A is not B
            assert away[b:].max() > 0.8  # nor is C
        if take.path_class == "turn":
            ahead = poses[:, :3, 2] @ poses[0, :3, 2]
            assert ahead.min() < -0.9
        if take.path_class == "around":
            yaw = np.unwrap(np.arctan2(poses[:, 0, 2], poses[:, 2, 2]))
            assert abs(abs(yaw[-1] - yaw[0]) - 2 * np.pi) < 0.2


def test_walls_hide_what_is_in_other_rooms(takes):
    hidden = []
    for take in (take for take in takes if take.setting == "rooms"):
        half = take.scene.half_size.copy()
        half[FIRST_WALL : PLACE_SLOTS.first_box] = 0
        open_scene = dataclasses.replace(take.scene, half_size=half)
        views = (0, 90, 180, 270)
        with_walls = {s for d in views for s in shown_objects(take, d).tolist()}
        without = {s for d in views for s in shown_objects(take, d, open_scene).tolist()}
        hidden.append(1 - len(with_walls) / len(without))
    assert np.mean(hidden) > 0.25
    assert min(hidden) >= 0


@jax.jit
def _all_and_listed(scene, pose, lens):
    v, u = jnp.meshgrid((jnp.arange(24) + 0.5) / 24, (jnp.arange(40) + 0.5) / 40, indexing="ij")
    rays = directions(pose[:3, :3], lens, u, v)
    here, fatter = (in_view(scene, pose, lens, culling=Culling(together=n)) for n in (1, 3))
    listed = jnp.stack([here[name][1].sum() for name in ("seen", "shading")])
    hits = [nearest_hits(each, pose[:3, 3], rays) for each in (scene, here, fatter)]
    depth = unpack_hit(scene, hits[0])[0]
    points = tuple(pose[i, 3] + jnp.minimum(depth, 50.0) * rays[i] for i in range(3))
    lights = [sunlight(each, points) for each in (scene, here, fatter)]
    above = points[1] < 1e-3  # shadows end on the ground
    return [(*unpack_hit(scene, hit), light * above) for hit, light in zip(hits, lights)], listed


def test_leaving_out_what_is_not_in_view_changes_no_pixel_and_saves_most(takes):
    counts, shaded = [], []
    for take in takes[:9]:
        scenes, poses, lenses = stack_worlds([take])
        for t in (0, 70, 150):
            scene = at_frame({name: value[0] for name, value in scenes.items()}, t)
            (every, listed, fatter), count = _all_and_listed(scene, poses[0, t], lenses[0, t])
            for one, other, third in zip(every, listed, fatter):  # depth, slot, sky, sunlight
                np.testing.assert_array_equal(one, other)
                np.testing.assert_array_equal(one, third)
            shaded.append((np.asarray(listed[3]) < 0.5).mean())
            counts.append(count)
    assert np.mean(shaded) > 0.05
    assert np.mean(counts, axis=0)[0] < 0.45 * PLACE_SLOTS.surfaces


def test_rays_on_the_host_meet_what_the_renderer_shows(moving_worlds, moving_frames):
    for world, frames in zip(moving_worlds, moving_frames):
        cameras = world.cameras
        for t in (0, 9):
            pose, lens = cameras.world_from_camera[t], cameras.intrinsics[t]
            slots, depth = glance(world.scene, t, pose, lens, HEIGHT, WIDTH)
            same = slots + 1 == frames.instances[t]
            assert same.mean() > 0.998  # outlines differ by rounding
            np.testing.assert_allclose(depth[same], frames.depth[t][same], rtol=2e-3)


def test_windows_are_parts_of_the_take_in_its_axes(takes):
    take = takes[4]
    part = window(take, 50, 25)
    np.testing.assert_array_equal(part.cameras.world_from_camera, take.cameras.world_from_camera[50:75])
    np.testing.assert_array_equal(part.scene.position, take.scene.position[50:76])
    np.testing.assert_array_equal(part.scene.moving, take.scene.moving[50:75])
    np.testing.assert_array_equal(part.reference_pose, take.cameras.world_from_camera[0])
    np.testing.assert_array_equal(window(part, 3, 9).reference_pose, part.reference_pose)
    for start, frames in ((-1, 5), (0, 0), (166, 4)):
        with pytest.raises(InvalidValue, match="take of 169"):
            window(take, start, frames)
    with pytest.raises(InvalidValue, match="frames"):
        at_frames(take, [3, 169])


def test_a_world_can_be_a_window_from_anywhere_in_a_take():
    config = WorldsConfig(frames=13, places=Places(take_frames=97))
    worlds = [sample_world(seed, config) for seed in range(6)]
    assert all(world.frames == 13 for world in worlds)
    away = [np.linalg.norm(w.cameras.positions[0] - w.reference_pose[:3, 3]) for w in worlds]
    assert len(set(np.round(away, 6))) == 6
    assert max(away) > 0.5


def test_captions_tell_what_the_window_shows(takes):
    known, slides = set(vocabulary()), 0
    for take in takes:
        part = window(take, 90, 25)
        for caption in part.captions:
            assert set(words(caption)) <= known
            assert len(words(caption)) <= 36
        cameras = part.cameras
        seen = set()
        for t in range(0, 25, 4):
            seen |= set(glance(part.scene, t, cameras.world_from_camera[t], cameras.intrinsics[t])[0].flat)
        for item in part.objects:
            assert not item.visible or item.slot in seen
            track = part.scene.position[:, item.slot].astype(float)
            moving = part.scene.moving[:, item.slot].any()
            assert (item.motion == "rest") == (not moving)
            if item.motion == "slide":
                right, _, ahead = cameras.rotations[0].T @ (track[-1] - track[0])
                side = {"right": right, "left": -right, "away": ahead, "closer": -ahead}[item.direction]
                assert side >= max(abs(right), abs(ahead)) - 1e-9
                slides += 1
        styles = {f.style for f in part.fixtures if f.slot in seen}
        assert not part.wall or part.wall in styles
    assert slides > 3


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_labelled_path_runs_into_something_where_it_says(takes, seed):
    path, truth = run_into(takes[seed], seed)
    distance = surface_distance(path.scene, path.cameras.positions)
    np.testing.assert_array_equal(truth.inside, distance < 0)
    assert truth.frame == truth.inside.argmax() > 80
    assert distance[: truth.frame].min() >= 0
    # By the solid's own axes, without that function.
    center = path.cameras.positions[truth.frame] - path.scene.position[truth.frame, truth.slot]
    local = np.abs(center @ path.scene.rotation[truth.frame, truth.slot])
    assert (local <= path.scene.half_size[truth.slot] + 1e-6).all()
    np.testing.assert_allclose(path.cameras.positions[0], takes[seed].cameras.positions[0])


def test_what_cannot_be_is_refused():
    for bad, match in (
        (Places(layout="maze"), "layout is 'maze'"),
        (Places(route="dance"), "route is 'dance'"),
        (Places(take_frames=5), "at least the 25 frames"),
        (Places(route="loop"), "needs 337"),
    ):
        with pytest.raises(InvalidValue, match=match):
            sample_world(0, WorldsConfig(frames=25, places=bad))
    place = sample_world(0, WorldsConfig(frames=5, places=Places()))
    with pytest.raises(InvalidValue, match="do not stack"):
        stack_worlds([place, sample_world(0, WorldsConfig(frames=5))])
