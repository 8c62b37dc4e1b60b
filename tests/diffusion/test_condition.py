"""What steers a batch: the input that the network sees, and the maps of its cameras."""

import jax
import jax.numpy as jnp
import numpy as np

from camctrl_jax.camera import plucker_map
from camctrl_jax.clip_shape import ClipShape
from camctrl_jax.diffusion.condition import Condition, camera_condition
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
