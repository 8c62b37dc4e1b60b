"""Clip features: any size of clip, pooling as it should be, and clear words for what is none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from camctrl_jax.errors import InvalidValue
from camctrl_jax.models import ClipFeatureNetwork, ClipFeatures, ClipFeaturesConfig, clip_features_preset
from camctrl_jax.models.clip_features import ClipTruth, from_units, in_units, perceptual_distance, pooled

CONFIG = clip_features_preset("nano")


@pytest.fixture(scope="module")
def network():
    params = ClipFeatureNetwork(CONFIG).init_params(jax.random.key(0, impl="unsafe_rbg"))
    return ClipFeatures(CONFIG, params, batch_size=2)


def clips(count, frames=9, height=16, width=32, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, frames, height, width, 3), np.uint8)


@pytest.mark.parametrize(
    ("frames", "height", "width"), [(5, 16, 32), (6, 16, 16), (17, 16, 45), (9, 48, 40), (8, 17, 31)]
)
def test_clips_of_any_size_give_the_same_number_of_features(network, frames, height, width):
    video = clips(1, frames, height, width)
    features, told = network.features(video), network.told(video)
    assert features.shape == (1, CONFIG.features)
    assert features.dtype == np.float64
    assert np.isfinite(features).all()
    steps, cells = -(-frames // 4), (1, -(-round(width * 16 / height) // 16))
    assert told.poses.shape == (1, 4, 6)
    assert told.log_depth.shape == (1, 3, 1, 2)
    assert told.moving.shape == told.detail.shape == (1, 4)
    assert told.step_poses.shape == (1, steps, 6)
    assert told.step_log_depth.shape == told.step_moving.shape == (1, steps, *cells)


def test_a_clip_of_twice_the_size_is_seen_at_the_size_of_the_network(network):
    small = clips(2)
    large = np.repeat(np.repeat(small, 2, axis=2), 2, axis=3)
    halved = np.asarray(jax.image.resize(jnp.asarray(large, jnp.float32), small.shape, "linear"))
    expected = network.features(np.round(halved).astype(np.uint8))  # rounded once more
    np.testing.assert_allclose(network.features(large), expected, atol=1e-2)


def test_features_of_a_clip_do_not_depend_on_its_company(network):
    video = clips(5)
    together = network.features(video)
    np.testing.assert_allclose(network.features(video[3:4]), together[3:4], atol=1e-5)
    np.testing.assert_allclose(network.features(video[::-1]), together[::-1], atol=1e-5)
    assert np.abs(together[0] - together[1]).max() > 1e-3
    assert network.told(video).poses.shape == (5, 4, 6)


def test_pooling_is_the_mean_of_equal_stretches():
    x = jnp.arange(12.0).reshape(1, 12)
    np.testing.assert_allclose(pooled(x, 1, 4), [[1, 4, 7, 10]])
    np.testing.assert_allclose(pooled(x[:, :5], 1, 2), [[1, 3]])  # they share the middle one
    np.testing.assert_allclose(pooled(x[:, :2], 1, 4), [[0, 0, 1, 1]])
    np.testing.assert_allclose(pooled(jnp.ones((2, 7, 3)), 1, 4), np.ones((2, 4, 3)))


def test_units_and_back():
    rng = np.random.default_rng(0)
    shapes = [(2, 4, 6), (2, 3, 3, 5), (2, 4), (2, 4), (2, 3, 6), (2, 3, 6, 10), (2, 3, 6, 10)]
    truth = ClipTruth(*(jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes))
    for name, value in from_units(in_units(truth))._asdict().items():
        np.testing.assert_allclose(value, getattr(truth, name), atol=1e-5, err_msg=name)
    # The pose at the end of the path, of four parts: 1.2 m are one unit.
    poses = in_units(truth)._replace(poses=jnp.ones((1, 4, 6))).poses
    np.testing.assert_allclose(
        from_units(in_units(truth)._replace(poses=poses)).poses[0, -1, 0], 1.2, rtol=1e-6
    )


@pytest.mark.parametrize(
    ("video", "words"),
    [
        (clips(1)[0], r"shape \[9, 16, 32, 3\]"),
        (clips(1).astype(np.float32), "dtype float32; expected u8"),
        (clips(1)[:0], r"\[0, 9, 16, 32, 3\]"),
        (clips(1)[..., :1], r"\[1, 9, 16, 32, 1\]"),
        (clips(1, frames=4), "4 frames of 16x32 pixels; these features need at least 5 frames"),
        (clips(1, height=12), "at least 16 pixels"),
        (clips(1, width=15), "16x15 pixels"),
    ],
)
def test_what_is_no_clip_is_refused_in_words(network, video, words):
    with pytest.raises(InvalidValue, match=words):
        network.features(video)


@pytest.mark.parametrize(
    "changes", [{"channels": (8, 8)}, {"grid": (0, 1, 1)}, {"features": 0}, {"hidden": -1}]
)
def test_sizes_that_cannot_be_are_refused(changes):
    with pytest.raises(InvalidValue, match=next(iter(changes))):
        ClipFeaturesConfig(**changes)


def test_fingerprints_tell_networks_apart(network):
    other = jax.tree.map(lambda x: x, network.params)
    other["features"]["bias"] = other["features"]["bias"] + 1e-3
    assert network.fingerprint() == ClipFeatures(CONFIG, network.params, 4).fingerprint()
    assert network.fingerprint() != ClipFeatures(CONFIG, other).fingerprint()


def test_clips_look_alike_only_where_they_are(network):
    module = ClipFeatureNetwork(CONFIG)
    clip = np.random.default_rng(5).uniform(-1, 1, (1, 5, 16, 32, 3)).astype(np.float32)
    soft = 0.5 * (clip + np.roll(clip, 1, axis=3))
    distance = jax.jit(lambda a, b: perceptual_distance(module, network.params, a, b))
    assert float(distance(clip, clip)) == 0.0
    near, far = float(distance(clip, clip + 0.2 * (soft - clip))), float(distance(clip, soft))
    assert 0 < near < far
    slope = jax.jit(jax.grad(lambda a: perceptual_distance(module, network.params, a, soft)))(clip)
    assert np.all(np.isfinite(slope))
    assert np.any(slope)
