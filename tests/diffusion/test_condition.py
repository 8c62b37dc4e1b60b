"""What steers a batch: the input that the network sees, and the maps of its cameras."""

import jax
import jax.numpy as jnp
import numpy as np

from camctrl_jax.camera import plucker_map
from camctrl_jax.clip_shape import ClipShape
from camctrl_jax.diffusion.condition import Condition, camera_condition
from camctrl_jax.diffusion.flow import interpolate
from camctrl_jax.models import CameraConfig


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def test_input_is_noisy_then_clean_conditions_then_mask():
    noisy, clean = normal(8, 2, 3, 2, 2, 16), normal(9, 2, 3, 2, 2, 16)
    mask = jnp.asarray([[True, False, False], [False, False, False]])
    text = jnp.zeros((2, 1, 4))
    condition = Condition(text, jnp.ones((2, 1), bool), None, clean.at[:, 1:].set(jnp.nan), mask)
    inputs = condition.inputs(noisy)
    assert inputs.shape == (2, 3, 2, 2, 33)
    np.testing.assert_array_equal(inputs[..., :16], noisy)
    np.testing.assert_array_equal(inputs[0, 0, ..., 16:32], clean[0, 0])
    np.testing.assert_array_equal(inputs[0, 1:, ..., 16:32], 0.0)  # NaN of frames yet to come does not leak
    np.testing.assert_array_equal(inputs[1, ..., 16:32], 0.0)
    np.testing.assert_array_equal(inputs[..., 32], np.broadcast_to(mask[:, :, None, None], (2, 3, 2, 2)))


def poses(frames):
    matrices = np.tile(np.eye(4, dtype=np.float32), (2, frames, 1, 1))
    matrices[:, :, 0, 3] = np.arange(frames) * 0.1
    return jnp.asarray(matrices), jnp.tile(jnp.asarray([0.6, 1.0, 0.5, 0.5]), (2, frames, 1))


def test_camera_condition_takes_every_fourth_pose():
    matrices, intrinsics = poses(9)
    condition = camera_condition(
        matrices, intrinsics, jnp.asarray([True, True]), ClipShape(9, 48, 80), CameraConfig()
    )
    assert condition.shape == (2, 3, 6, 10, 6)
    np.testing.assert_array_equal(condition, plucker_map(matrices[:, ::4], intrinsics[:, ::4], 6, 10))


def test_samples_without_a_camera_see_zeros_even_if_their_poses_are_nan():
    matrices, intrinsics = poses(5)
    condition = camera_condition(
        matrices.at[1].set(jnp.nan),
        intrinsics,
        jnp.asarray([True, False]),
        ClipShape(5, 48, 80),
        CameraConfig(),
    )
    assert bool(jnp.any(condition[0] != 0))
    np.testing.assert_array_equal(condition[1], 0.0)


def test_an_image_has_one_camera():
    matrices, intrinsics = poses(1)
    valid, shape = jnp.asarray([True, False]), ClipShape(1, 16, 32)
    found = camera_condition(matrices, intrinsics, valid, shape, CameraConfig())
    assert found.shape == (2, 1, 2, 4, 6)
    found = camera_condition(matrices, intrinsics, valid, shape, CameraConfig("pixel"))
    assert found.shape == (2, 1, 16, 32, 6)


def test_retrieved_frames_stand_before_the_window_with_maps_of_their_own_poses():
    matrices, intrinsics = poses(9)
    valid, shape = jnp.asarray([True, False]), ClipShape(9, 48, 80)
    own = matrices[:, 3:5] @ matrices[:, 8:9], intrinsics[:, :2] * 1.1
    found = camera_condition(matrices, intrinsics, valid, shape, CameraConfig(), own)
    assert found.shape == (2, 2 + 3, 6, 10, 6)
    np.testing.assert_array_equal(found[:1, :2], plucker_map(*(x[:1] for x in own), 6, 10))
    alone = camera_condition(matrices, intrinsics, valid, shape, CameraConfig())
    np.testing.assert_array_equal(found[:, 2:], alone)
    np.testing.assert_array_equal(found[1], 0.0)


def with_history(retrieved=2, window=3):
    latents = retrieved + window
    mask = jnp.broadcast_to(jnp.arange(latents) < retrieved + 1, (2, latents))
    clean = normal(1, 2, latents, 2, 2, 16)
    return Condition(
        normal(2, 2, 1, 4), jnp.ones((2, 1), bool), normal(3, 2, latents, 2, 2, 6), clean, mask, retrieved
    )


def test_without_history_is_text_to_video_of_the_window():
    condition = with_history()
    bare, noisy = condition.without_history(), normal(4, 2, 3, 2, 2, 16)
    assert bare.retrieved == 0
    np.testing.assert_array_equal(bare.plucker, condition.plucker[:, 2:])
    inputs = bare.inputs(noisy)
    np.testing.assert_array_equal(inputs[..., :16], noisy)
    np.testing.assert_array_equal(inputs[..., 16:], 0.0)


def test_noised_conditions_are_those_of_the_flow_at_that_time():
    condition, noise = with_history(), normal(5, 2, 5, 2, 2, 16)
    found = condition.noised(0.25, noise)
    expected = interpolate(condition.clean, noise, jnp.full(2, 0.25))
    np.testing.assert_allclose(found.given[:, :3], expected[:, :3], rtol=1e-6)
    np.testing.assert_array_equal(found.given[:, 3:], 0.0)


def test_how_many_are_retrieved_is_a_constant_of_a_compiled_program():
    leaves, tree = jax.tree.flatten(with_history())
    assert len(leaves) == 5
    assert jax.tree.unflatten(tree, leaves).retrieved == 2
    assert tree != jax.tree.structure(with_history(retrieved=1))
