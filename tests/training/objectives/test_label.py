"""Labelling: labels are the truth of worlds, faults are what they say, the loss falls."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from camctrl_jax.data.text import WordEmbedder
from camctrl_jax.data.worlds_clips import worlds_clips
from camctrl_jax.data.worlds_set import WorldsSet
from camctrl_jax.errors import InvalidValue
from camctrl_jax.metrics.sharpness import gradient_energy
from camctrl_jax.models import clip_features_preset, vae_preset
from camctrl_jax.models.clip_features import pooled
from camctrl_jax.training.config import check_config, load_recipe
from camctrl_jax.training.objectives.label import AUTOENCODER, Label, LabelConfig, blur
from camctrl_jax.training.objectives.label import truth_of as truth_of_a_batch
from camctrl_jax.training.optimizer import OptimizerConfig, make_optimizer
from camctrl_jax.training.update import Update
from camctrl_jax.training.values import ConfigError
from camctrl_jax.worlds import WorldsConfig, render, sample_world

FRAMES, SEEDS = 9, range(4, 8)
GRID = (4, 1, 2)
KEY = jax.random.key(0)
MODEL = clip_features_preset("nano")
OPTIMIZER = make_optimizer(
    OptimizerConfig(learning_rate=3e-3, initial_learning_rate=1e-3, warmup_steps=2, final_learning_rate=3e-3),
    100,
)
truth_of = jax.jit(truth_of_a_batch, static_argnums=1)  # as in a step; op by op it compiles many programs


@pytest.fixture(scope="module")
def batch():
    worlds = WorldsSet(SEEDS, 16, 32, WorldsConfig(frames=FRAMES), samples=1, labels=True)
    clips = worlds_clips(worlds, WordEmbedder(dim=8, max_tokens=24), chunk=3, workers=0)
    batch = clips.stream(batch_size=4, seed=0).batch_at(0)
    order = np.argsort(np.asarray(batch["clip_index"]))
    return {name: array[order] for name, array in batch.items()}


def objective(**settings):
    return Label(
        Update(OPTIMIZER), MODEL, vae_preset("nano", num_res_blocks=0), LabelConfig(**settings), jnp.float32
    )


def test_labels_are_the_truth_of_the_worlds(batch):
    truth = truth_of(batch, GRID)
    for row, seed in enumerate(SEEDS):
        world = sample_world(seed, WorldsConfig(frames=FRAMES, aspect=2.0))
        frames = render(world, 16, 32, 1)
        poses = world.cameras.relative_to(0).world_from_camera
        for part, frame in enumerate((2, 4, 6, 8)):
            expected = [*poses[frame, :3, 3], *Rotation.from_matrix(poses[frame, :3, :3]).as_rotvec()]
            np.testing.assert_allclose(truth.poses[row, part], expected, atol=2e-6)
        for step, (before, after) in enumerate(((0, 2), (2, 6), (6, 8))):
            relative = np.linalg.inv(poses[before]) @ poses[after]
            expected = [*relative[:3, 3], *Rotation.from_matrix(relative[:3, :3]).as_rotvec()]
            np.testing.assert_allclose(truth.step_poses[row, step], expected, atol=2e-6)
        depth = np.log(np.minimum(frames.depth, 50.0)).reshape(FRAMES, 2, 8, 2, 16)
        cells = np.log(np.minimum(frames.depth, 50.0)).reshape(FRAMES, 1, 16, 2, 16).mean((2, 4))
        assert depth.size == cells.size * 256
        np.testing.assert_allclose(truth.step_log_depth[row], cells[[0, 4, 8]], atol=3e-3)  # float16
        thirds = [cells[first:stop].mean(0) for first, stop in ((0, 3), (3, 6), (6, 9))]
        np.testing.assert_allclose(truth.log_depth[row], thirds, atol=3e-3)
        moving = frames.moving.reshape(FRAMES, 1, 16, 2, 16).mean((2, 4))
        np.testing.assert_allclose(truth.step_moving[row], moving[[0, 4, 8]], atol=1e-3)
        share = pooled(jnp.asarray(moving.mean((1, 2)))[None], 1, 4)[0]
        np.testing.assert_allclose(truth.moving[row], share, atol=1e-3)
    assert np.abs(truth.moving).max() > 0.01  # something moves in one of them
    assert not np.asarray(truth.detail).any()


@pytest.mark.parametrize("degrees", [0.0, 1e-4, 40.0, 120.0])
def test_turns_are_rotation_vectors_at_every_size(batch, degrees):
    poses = np.tile(np.eye(4, dtype=np.float32), (1, FRAMES, 1, 1))
    vector = np.radians(degrees) * np.array([0.6, 0.0, 0.8])
    poses[0, -1, :3, :3] = Rotation.from_rotvec(vector).as_matrix()
    one = {name: array[:1] for name, array in batch.items()} | {"world_from_camera": jnp.asarray(poses)}
    np.testing.assert_allclose(truth_of(one, GRID).poses[0, -1, 3:], vector, atol=1e-6)


def test_detail_is_the_gradient_energy_that_is_left(batch):
    seen = blur(batch["video"].astype(jnp.float32), jnp.full(4, 1.5))
    for row, clip in enumerate(np.asarray(batch["video"])):
        expected = ndimage.gaussian_filter(clip.astype(float), (0, 1.5, 1.5, 0), mode="nearest", radius=6)
        np.testing.assert_allclose(seen[row], expected, atol=1e-2)
        detail = truth_of(batch, (1, 1, 2), seen).detail[row, 0]
        ratio = (gradient_energy(expected) + 1) / (gradient_energy(clip) + 1)
        assert detail == pytest.approx(np.log(ratio), abs=0.02)
        assert detail < -0.5
    noisy = batch["video"] + 20.0 * jax.random.normal(KEY, batch["video"].shape)
    assert (truth_of(batch, GRID, noisy).detail > 0.1).all()


def test_the_first_clips_are_reconstructed_and_the_rest_are_true(batch):
    plain = objective(reconstructed=0.5, blurred=0.0, noisy=0.0, brightness=0.0)
    frozen = plain.frozen()
    inputs = plain.examples(batch, KEY, frozen).inputs
    assert inputs["reconstructed"].tolist() == [True, True, False, False]
    truth = np.asarray(batch["video"], np.float32) / 127.5 - 1
    np.testing.assert_allclose(inputs["video"][2:], truth[2:], atol=1e-6)
    assert np.abs(inputs["video"][:2] - truth[:2]).mean() > 0.05
    assert not np.asarray(inputs["truth"].detail[2:]).any()
    assert np.abs(inputs["truth"].detail[:2]).min() > 0.01
    none = objective(reconstructed=0.0, blurred=0.0, noisy=0.0, brightness=0.0)
    np.testing.assert_allclose(none.examples(batch, KEY, {}).inputs["video"], truth, atol=1e-6)


def test_brightness_changes_no_label_and_faults_change_detail_alone(batch):
    lit = objective(reconstructed=0.0, blurred=0.0, noisy=0.0, brightness=0.3).examples(batch, KEY, {}).inputs
    plain = truth_of(batch, GRID)
    assert np.abs(lit["video"].mean() - (batch["video"] / 127.5 - 1).mean()) > 1e-3
    for name, value in lit["truth"]._asdict().items():
        np.testing.assert_array_equal(value, getattr(plain, name), err_msg=name)
    faulty = objective(reconstructed=0.0, blurred=1.0, noisy=0.0, brightness=0.0)
    inputs = faulty.examples(batch, KEY, {}).inputs
    assert (inputs["truth"].detail < 0).all()
    np.testing.assert_array_equal(inputs["truth"].poses, plain.poses)


@pytest.mark.slow
def test_the_loss_falls_and_clips_are_told_apart_in_the_metrics(batch):
    label = objective(reconstructed=0.25)
    params = label.init(jax.random.key(1, impl="unsafe_rbg"))
    state, frozen = label.state(params, KEY), label.frozen()
    assert set(frozen) == {AUTOENCODER}
    step = jax.jit(label.step)
    losses = []
    for _ in range(40):
        state, metrics = step(state, batch, KEY, frozen)
        losses.append(float(metrics["loss"]))
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:3])
    names = {"shift", "turn", "depth", "moving", "detail"}
    assert names | {f"{name}_rec" for name in names} < metrics.keys()
    assert all(np.isfinite(float(value)) for name, value in metrics.items() if name != "learning_rate")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pose": -1.0}, "pose, depth, moving and detail"),
        ({"pose": 0.0, "depth": 0.0, "moving": 0.0, "detail": 0.0}, "not all 0"),
        ({"reconstructed": 1.5}, "reconstructed=1.5"),
        ({"noisy": -0.1}, "noisy=-0.1"),
        ({"widths": (0.0, 1.0)}, "widths"),
        ({"levels": (3.0, 2.0)}, "levels"),
        ({"brightness": 1.0}, "brightness=1.0"),
        ({"reconstruct_chunk": 0}, "reconstruct_chunk=0"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes, words):
    with pytest.raises(InvalidValue, match=words):
        LabelConfig(**changes)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("data.worlds.labels", False, "only worlds have exact labels"),
        ("data.image_turns", 1, "an image has no path"),
        ("init_from", "default", "starts from scratch"),
        ("vae.weights", "", "expected an autoencoder"),
        ("data.height", 32, "expected 16"),
        ("data.frames", 1, "expected at least 5"),
    ],
)
def test_configurations_that_cannot_work_name_the_key(key, value, words):
    config = load_recipe("configs/features.py:nano")
    config.update_from_flattened_dict({key: value})
    with pytest.raises(ConfigError, match=f"config.{key}.*{words}"):
        check_config(config)
