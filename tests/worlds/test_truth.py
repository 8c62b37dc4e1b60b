"""The truth that is rendered with a world, verified by computations that share no code with the renderer."""

import dataclasses

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from camctrl_jax.worlds import render, render_rgb, sample_world
from camctrl_jax.worlds.scene import SURFACES, moving_mask


def pixel_centers(shape):
    v, u = np.meshgrid(np.arange(shape[0]) + 0.5, np.arange(shape[1]) + 0.5, indexing="ij")
    return u, v


def backproject(world, depth, t):
    """World points f64 [H, W, 3] of a z-depth map; infinite depth gives NaN."""
    u, v = pixel_centers(depth.shape)
    fx, fy, cx, cy = world.cameras.intrinsics[t] * np.array([depth.shape[1], depth.shape[0]] * 2)
    z = np.where(np.isfinite(depth), depth, np.nan).astype(np.float64)
    local = np.stack([(u - cx) / fx * z, (v - cy) / fy * z, z], axis=-1)
    pose = world.cameras.world_from_camera[t]
    return local @ pose[:3, :3].T + pose[:3, 3]


def project(world, points, t, shape):
    """Pixel coordinates and z-depth of world points."""
    local = (points - world.cameras.world_from_camera[t][:3, 3]) @ world.cameras.world_from_camera[t][:3, :3]
    fx, fy, cx, cy = world.cameras.intrinsics[t] * np.array([shape[1], shape[0]] * 2)
    u, v = fx * local[..., 0] / local[..., 2] + cx, fy * local[..., 1] / local[..., 2] + cy
    return u, v, local[..., 2]


def carried(world, points, slots, t):
    """Where material points of frame t are at frame t + 1: each moves with the object it is on."""
    scene = world.scene
    moved = points.copy()
    for slot in np.unique(slots):
        here = slots == slot
        local = (points[here] - scene.position[t, slot]) @ scene.rotation[t, slot].astype(np.float64)
        moved[here] = local @ scene.rotation[t + 1, slot].T + scene.position[t + 1, slot]
    return moved


def test_depth_lies_on_the_surface_that_the_instance_names(moving_worlds, moving_frames):
    for world, frames in zip(moving_worlds, moving_frames):
        scene = world.scene
        for t in (0, 7):
            points = backproject(world, frames.depth[t], t)
            for slot in np.unique(frames.instances[t]) - 1:
                if slot < 0:
                    assert np.isinf(frames.depth[t][frames.instances[t] == 0]).all()
                    continue
                on = points[frames.instances[t] == slot + 1]
                assert np.isfinite(on).all()
                if slot == 0:
                    assert np.abs(on[:, 1]).max() < 1e-3 * max(1.0, np.abs(on).max() / 10)
                    continue
                local = np.abs((on - scene.position[t, slot]) @ scene.rotation[t, slot].astype(np.float64))
                half = scene.half_size[slot]
                slots = scene.slots
                if slots.first_sphere <= slot < slots.first_cylinder:
                    gap = np.linalg.norm(local, axis=1) - half[0]
                elif slot >= slots.first_cylinder:
                    gap = np.maximum(np.hypot(local[:, 0], local[:, 2]) - half[0], local[:, 1] - half[1])
                else:
                    gap = (local - half).max(axis=1)
                assert np.abs(gap).max() < 2e-3


def test_instances_agree_with_projected_silhouettes(moving_worlds, moving_frames):
    """A sphere covers a pixel exactly where the pixel's ray passes it closer than its radius, unless
    hidden."""
    checked = 0
    for world, frames in zip(moving_worlds, moving_frames):
        shape = frames.depth[0].shape
        u, v = pixel_centers(shape)
        t = 5
        fx, fy, cx, cy = world.cameras.intrinsics[t] * np.array([shape[1], shape[0]] * 2)
        ray = np.stack([(u - cx) / fx, (v - cy) / fy, np.ones(shape)], axis=-1)
        ray /= np.linalg.norm(ray, axis=-1, keepdims=True)
        pose = world.cameras.world_from_camera[t]
        for item in world.objects:
            if item.shape != "ball":
                continue
            center = (world.scene.position[t, item.slot] - pose[:3, 3]) @ pose[:3, :3]
            radius = world.scene.half_size[item.slot, 0]
            along = ray @ center
            miss = np.linalg.norm(center - along[..., None] * ray, axis=-1)
            seen = frames.instances[t] == item.instance
            assert not seen[miss > radius * 1.001].any()
            covered = (miss < radius * 0.999) & (along > 0)
            hidden = frames.depth[t] < center[2] - radius * 0.5
            assert (seen | hidden)[covered].all()
            checked += seen.sum()
    assert checked > 100


def test_ground_and_sky_meet_at_the_horizon(moving_worlds, moving_frames):
    for world, frames in zip(moving_worlds, moving_frames):
        pose = world.cameras.world_from_camera[0]
        u, v = pixel_centers(frames.depth[0].shape)
        fx, fy, cx, cy = world.cameras.intrinsics[0] * np.array([u.shape[1], u.shape[0]] * 2)
        down = np.stack([(u - cx) / fx, (v - cy) / fy, np.ones(u.shape)], axis=-1) @ pose[1, :3]
        assert not (frames.instances[0][down > 1e-3] == 0).any()
        assert not (frames.instances[0][down < -1e-3] == 1).any()


def test_flow_agrees_with_reprojected_points(moving_worlds, moving_frames):
    for world, frames in zip(moving_worlds, moving_frames):
        shape = frames.depth[0].shape
        u, v = pixel_centers(shape)
        for t in (0, 6, 11):
            solid = frames.instances[t] > 0
            points = backproject(world, frames.depth[t], t)[solid]
            u1, v1, z1 = project(
                world, carried(world, points, frames.instances[t][solid] - 1, t), t + 1, shape
            )
            flow = frames.flow[t][solid]
            close = (np.abs(flow).max(axis=1) < 100) & (z1 > 0.2)
            assert close.mean() > 0.99
            np.testing.assert_allclose(flow[close, 0], (u1 - u[solid])[close], atol=5e-3)
            np.testing.assert_allclose(flow[close, 1], (v1 - v[solid])[close], atol=5e-3)


def test_sky_flows_as_points_at_infinity(moving_worlds, moving_frames):
    checked = 0
    for world, frames in zip(moving_worlds, moving_frames):
        shape = frames.depth[0].shape
        u, v = pixel_centers(shape)
        sky = frames.instances[4] == 0
        far = backproject(world, np.where(sky, 1e7, np.nan), 4)
        u1, v1, _ = project(world, far, 5, shape)
        np.testing.assert_allclose(frames.flow[4][sky, 0], (u1 - u)[sky], atol=5e-3)
        np.testing.assert_allclose(frames.flow[4][sky, 1], (v1 - v)[sky], atol=5e-3)
        checked += sky.sum()
    assert checked > 1000


def test_warping_by_flow_brings_the_next_frame_onto_this_one(moving_worlds, moving_frames):
    """Textures must move with the surfaces that carry them: where a point is seen again, it looks the
    same."""
    for frames in moving_frames:
        u, v = pixel_centers(frames.depth[0].shape)
        for t in (2, 8):
            this, later = frames.rgb[t].astype(np.float64), frames.rgb[t + 1].astype(np.float64)
            place = [v + frames.flow[t, ..., 1] - 0.5, u + frames.flow[t, ..., 0] - 0.5]
            warped = np.stack(
                [map_coordinates(later[..., c], place, order=1, mode="nearest") for c in range(3)], -1
            )
            seen = ~frames.occluded[t]
            error = np.median(np.abs(warped - this).mean(axis=-1)[seen])
            unwarped = np.median(np.abs(later - this).mean(axis=-1)[seen])
            assert error < 4.0
            assert error < 0.6 * unwarped or unwarped < 2.0


def test_occlusion_agrees_with_the_next_depth_map(moving_worlds, moving_frames):
    """A point is seen again exactly where the next frame's depth at its place is its own depth."""
    disagree, total = 0, 0
    for world, frames in zip(moving_worlds, moving_frames):
        shape = frames.depth[0].shape
        for t in (0, 6):
            solid = frames.instances[t] > 0
            points = backproject(world, frames.depth[t], t)[solid]
            u1, v1, z1 = project(
                world, carried(world, points, frames.instances[t][solid] - 1, t), t + 1, shape
            )
            inside = (u1 >= 0) & (u1 < shape[1]) & (v1 >= 0) & (v1 < shape[0]) & (z1 > 0)
            occluded = frames.occluded[t][solid]
            assert occluded[~inside].all()
            column, row = u1[inside].astype(int), v1[inside].astype(int)
            # The nearest pixel and its neighbours: a point between them is seen if one has its depth or more.
            farthest = np.max(
                [
                    frames.depth[t + 1][
                        np.clip(row + dy, 0, shape[0] - 1), np.clip(column + dx, 0, shape[1] - 1)
                    ]
                    for dy in (-1, 0, 1)
                    for dx in (-1, 0, 1)
                ],
                axis=0,
            )
            nearest = np.min(
                [
                    frames.depth[t + 1][
                        np.clip(row + dy, 0, shape[0] - 1), np.clip(column + dx, 0, shape[1] - 1)
                    ]
                    for dy in (-1, 0, 1)
                    for dx in (-1, 0, 1)
                ],
                axis=0,
            )
            surely_hidden = farthest < 0.97 * z1[inside]
            surely_seen = nearest > 0.99 * z1[inside]
            disagree += (surely_hidden & ~occluded[inside]).sum() + (surely_seen & occluded[inside]).sum()
            total += (surely_hidden | surely_seen).sum()
    assert total > 5000
    assert disagree <= 5e-3 * total  # points seen through gaps narrower than a pixel


def test_depth_of_static_worlds_agrees_between_views(static_worlds, static_frames):
    for world, frames in zip(static_worlds, static_frames):
        shape = frames.depth[0].shape
        points = backproject(world, frames.depth[0], 0)[frames.instances[0] > 0]
        u1, v1, z1 = project(world, points, 12, shape)
        inside = (u1 >= 1) & (u1 < shape[1] - 1) & (v1 >= 1) & (v1 < shape[0] - 1) & (z1 > 0.3) & (z1 < 12)
        seen = map_coordinates(
            np.where(np.isfinite(frames.depth[12]), frames.depth[12], 1e4),
            [v1[inside] - 0.5, u1[inside] - 0.5],
            order=1,
        )
        ratio = seen / z1[inside]
        assert (np.abs(ratio - 1.0) < 0.03).mean() > 0.6  # the rest is hidden in the last view, or on an edge
        assert np.median(np.abs(ratio - 1.0)) < 5e-3


def test_moving_mask_is_true_only_while_the_object_moves(config):
    """Objects that pause: the mask is false in their rest interval and true in their moving one, per
    pixel."""
    rests = moves = 0
    for seed in range(8):
        world = sample_world(seed, config)
        moving = world.scene.moving
        pausing = [item for item in world.objects if 0 < moving[:, item.slot].sum() < config.frames]
        if not pausing:
            continue
        frames = render(world, 48, 80)
        for item in pausing:
            for t in range(config.frames):
                here = frames.instances[t] == item.instance
                step = (
                    np.abs(world.scene.position[t + 1, item.slot] - world.scene.position[t, item.slot]).max()
                    + np.abs(
                        world.scene.rotation[t + 1, item.slot] - world.scene.rotation[t, item.slot]
                    ).max()
                )
                assert (frames.moving[t][here] == (step > 1e-4)).all() or 0 < step <= 1e-4
                rests += here.sum() * (step == 0)
                moves += here.sum() * (step > 1e-4)
    assert rests > 100
    assert moves > 100


def test_ground_walls_and_sky_never_move(moving_worlds, moving_frames):
    for world, frames in zip(moving_worlds, moving_frames):
        assert not frames.moving[frames.instances < world.scene.slots.first_box + 1].any()
        assert frames.moving.any()


def test_static_world_has_no_moving_pixel_and_flows_by_the_camera_alone(static_worlds, static_frames):
    for world, frames in zip(static_worlds, static_frames):
        assert not world.scene.moving.any()
        assert not frames.moving.any()
        assert np.ptp(world.scene.position, axis=0).max() == 0


def test_shapes_and_dtypes_are_as_documented(moving_frames):
    frames = moving_frames[0]
    shapes = {name: getattr(frames, name) for name in frames.__dataclass_fields__}
    assert {name: (value.dtype.name, value.shape) for name, value in shapes.items()} == {
        "rgb": ("uint8", (13, 48, 80, 3)),
        "depth": ("float32", (13, 48, 80)),
        "instances": ("int32", (13, 48, 80)),
        "moving": ("bool", (13, 48, 80)),
        "flow": ("float32", (12, 48, 80, 2)),
        "occluded": ("bool", (12, 48, 80)),
    }


def test_visible_objects_cover_pixels_of_the_first_frame_or_of_some_frames_of_a_place(
    moving_worlds, moving_frames
):
    for world, frames in zip(moving_worlds, moving_frames):
        shown = frames.instances if world.setting else frames.instances[:1]
        assert any(item.visible for item in world.objects)
        for item in world.objects:
            assert not item.visible or (shown == item.instance).sum(axis=(1, 2)).max() >= 4


def test_every_instance_has_a_name(moving_worlds, moving_frames):
    for world, frames in zip(moving_worlds, moving_frames):
        assert set(np.unique(frames.instances)) <= set(world.instance_names)


@pytest.fixture(scope="module")
def first_images(config):
    """World -> RGB f64 [96, 160, 3] of one frame by rays per pixel and side."""
    worlds = [sample_world(seed, dataclasses.replace(config, frames=1)) for seed in range(4)]
    return worlds, {
        samples: [np.asarray(render_rgb([world], 96, 160, samples), np.float64)[0, 0] for world in worlds]
        for samples in (1, 2, 6)
    }


def test_four_samples_are_close_to_thirty_six(first_images):
    """Aliasing: against 36 samples a pixel, four are much closer than one, and close in absolute terms."""
    _, images = first_images
    error = {s: np.sqrt(np.mean(np.square(np.subtract(images[s], images[6])))) for s in (1, 2)}
    assert error[2] < 0.6 * error[1]
    assert error[2] < 4.0


def test_far_ground_is_band_limited(first_images):
    """One ray a pixel sees the far ground almost as thirty-six do: its texture is faded by the footprint."""
    worlds, images = first_images
    u, v = pixel_centers((96, 160))
    checked = 0
    for world, one, many in zip(worlds, images[1], images[6]):
        fx, fy, cx, cy = world.cameras.intrinsics[0] * np.array([160, 96] * 2)
        ray = np.stack([(u - cx) / fx, (v - cy) / fy, np.ones(u.shape)], axis=-1)
        pose = world.cameras.world_from_camera[0]
        depth = -pose[1, 3] / np.maximum(ray @ pose[1, :3], 1e-9)
        far = (depth > 12.0) & (depth < 60.0)
        # Mostly ground; the rest are objects and walls in front of it, whose outlines are sharp.
        change = np.abs(one - many).max(axis=-1)[far]
        assert np.median(change) < 2.0
        checked += far.sum()
    assert checked > 500


def test_moving_mask_sees_turns_as_well_as_shifts():
    position, rotation = np.zeros((3, SURFACES, 3)), np.tile(np.eye(3), (3, SURFACES, 1, 1))
    position[2, 5] += 0.01
    cos, sin = np.cos(0.01), np.sin(0.01)
    rotation[1:, 7] = [[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]]
    expected = np.zeros((2, SURFACES), bool)
    expected[1, 5] = expected[0, 7] = True
    np.testing.assert_array_equal(moving_mask(position, rotation), expected)
