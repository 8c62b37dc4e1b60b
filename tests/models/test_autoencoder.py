"""u8 video to latents and back: in batches, in chunks, in the dtype that is stored."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from camctrl_jax.errors import ClipError
from camctrl_jax.models import (
    VAE,
    Autoencoder,
    decode_video,
    encode_video,
    normalise,
    to_bytes,
    to_unit_range,
    vae_preset,
)

CONFIG = vae_preset("nano", num_res_blocks=0, latents_mean=(0.5,) * 16, latents_std=(2.0,) * 16)


@pytest.fixture(scope="module")
def params():
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        noise = rng.standard_normal(leaf.shape).astype(np.float32)
        if path[-1].key == "kernel":
            return noise / np.float32(np.sqrt(np.prod(leaf.shape[:-1])))
        return np.float32(path[-1].key == "gamma") + np.float32(0.2) * noise

    return jax.tree.map_with_path(draw, VAE(CONFIG).abstract_params())


@pytest.fixture(scope="module")
def video():
    return np.random.default_rng(1).integers(0, 256, (3, 5, 16, 24, 3), np.uint8)


def test_bytes_and_floats_are_inverse_and_what_lies_outside_is_clipped():
    values = jnp.arange(256, dtype=jnp.uint8)
    np.testing.assert_array_equal(to_bytes(to_unit_range(values)), values)
    np.testing.assert_array_equal(to_bytes(jnp.asarray([-3.0, -1.0, 0.0, 1.0, 1.5])), [0, 0, 128, 255, 255])


def test_latents_are_the_normalised_means_and_come_back_as_bytes(params, video):
    autoencoder = Autoencoder(CONFIG, params, jnp.float32, batch_size=8)
    latents = autoencoder.encode(video)
    mean, _ = VAE(CONFIG).apply({"params": params}, to_unit_range(jnp.asarray(video)), method=VAE.encode)
    assert latents.shape == (3, 2, 2, 3, 16)
    assert latents.dtype == jnp.float32
    np.testing.assert_allclose(latents, normalise(mean, CONFIG), atol=1e-5)
    decoded = autoencoder.decode(latents)
    assert isinstance(decoded, np.ndarray)
    assert (decoded.dtype, decoded.shape) == (np.uint8, video.shape)
    assert np.array_equal(decoded, jax.jit(lambda p, z: decode_video(VAE(CONFIG), p, z))(params, latents))


def test_a_clip_that_is_not_finite_is_told_and_hides_no_other(params, video):
    autoencoder = Autoencoder(CONFIG, params, jnp.float32, batch_size=2)
    latents = np.array(autoencoder.encode(video))
    whole = autoencoder.decode(latents)
    latents[1, 1, 0, 0, 3] = np.nan
    with pytest.raises(ClipError, match=r"clips \[1\] of 3") as raised:
        autoencoder.decode(latents)
    assert raised.value.reason == "not_finite"
    decoded, finite = autoencoder.decode_checked(latents)
    assert finite.tolist() == [True, False, True]
    np.testing.assert_array_equal(decoded[[0, 2]], whole[[0, 2]])


def test_the_result_depends_on_batches_and_chunks_by_rounding_only(params, video):
    whole = np.asarray(Autoencoder(CONFIG, params, jnp.float32, batch_size=8).encode(video))
    np.testing.assert_allclose(Autoencoder(CONFIG, params, jnp.float32, 2).encode(video), whole, atol=1e-5)
    np.testing.assert_allclose(
        Autoencoder(CONFIG, params, jnp.float32, 8, memory=1).encode(video), whole, atol=1e-5
    )
    for clips in (0, 1, 2, 8):
        traced = jax.jit(lambda p, v, clips=clips: encode_video(VAE(CONFIG), p, v, clips=clips))
        np.testing.assert_allclose(traced(params, video), whole, atol=1e-5)


def test_float16_is_the_float32_result_rounded(params, video):
    autoencoder = Autoencoder(CONFIG, params, jnp.float32, batch_size=2)
    stored = autoencoder.encode(video, jnp.float16)
    assert stored.dtype == jnp.float16
    np.testing.assert_array_equal(stored, np.asarray(autoencoder.encode(video)).astype(np.float16))


def test_the_fingerprint_tells_parameters_and_sizes_apart(params):
    first = Autoencoder(CONFIG, params, jnp.float32, 2).fingerprint()
    assert first == Autoencoder(CONFIG, params, jnp.bfloat16, 4).fingerprint()
    moved = jax.tree.map(lambda leaf: leaf + 1e-3, params)
    other = vae_preset("nano", num_res_blocks=0)
    assert first != Autoencoder(CONFIG, moved, jnp.float32, 2).fingerprint()
    assert first != Autoencoder(other, params, jnp.float32, 2).fingerprint()


def test_a_video_of_another_size_is_refused_with_the_nearest_that_works(params, video):
    autoencoder = Autoencoder(CONFIG, params, jnp.float32, 2)
    with pytest.raises(ValueError, match=r"frames=4: expected 4k\+1 frames, for example 1 or 5"):
        autoencoder.encode(video[:, :4])
    with pytest.raises(ValueError, match="width=20: expected a multiple of 8 pixels, for example 16"):
        autoencoder.encode(video[:, :, :, :20])
