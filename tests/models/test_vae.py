"""Properties of the causal autoencoder: causality, streaming, forms of computation, statistics, sizes."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from camctrl_jax.interop.keys import export_vae, import_vae
from camctrl_jax.models import (
    VAE,
    VAEConfig,
    decode_streaming,
    decode_within,
    denormalise,
    encode_streaming,
    encode_within,
    normalise,
    vae_preset,
)
from camctrl_jax.models.causal_conv import ChannelNorm
from camctrl_jax.models.fingerprint import fingerprint_of_weights
from camctrl_jax.models.vae import channels_to_pixels, latents_within, pixels_to_channels

CONFIG = dataclasses.replace(vae_preset("nano"), base_dim=4, decoder_base_dim=8)
FRAMES, HEIGHT, WIDTH = 13, 16, 24


@pytest.fixture(scope="module")
def params():
    """Random everywhere, so that no path is closed by a zero or a one."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        name = path[-1].key
        noise = rng.standard_normal(leaf.shape).astype(np.float32)
        if name == "kernel":
            return noise / np.float32(np.sqrt(np.prod(leaf.shape[:-1])))
        return np.float32(name == "gamma") + np.float32(0.2) * noise

    return jax.tree.map_with_path(draw, VAE(CONFIG).abstract_params())


@pytest.fixture(scope="module")
def video():
    shape = (1, FRAMES, HEIGHT, WIDTH, 3)
    return np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)


@pytest.fixture(scope="module")
def encode(params):
    return jax.jit(lambda x: VAE(CONFIG).apply({"params": params}, x, method=VAE.encode)[0])


@pytest.fixture(scope="module")
def decode(params):
    return jax.jit(lambda z: VAE(CONFIG).apply({"params": params}, z, method=VAE.decode))


@pytest.fixture(scope="module")
def latents(encode, video):
    return np.asarray(encode(video))


def test_shapes(params, video, latents, decode):
    assert latents.shape == (1, 4, 2, 3, 16)
    assert decode(latents).shape == video.shape


@pytest.mark.parametrize("changed", [1, 4, 5, 12])
def test_future_frames_change_no_earlier_latent(encode, video, latents, changed):
    other = video.copy()
    other[:, changed:] = -other[:, changed:]
    moved = np.abs(np.asarray(encode(other)) - latents).max(axis=(0, 2, 3, 4))
    first = -(-changed // 4)  # latent k sees frames up to 4k
    assert np.all(moved[:first] == 0.0)
    assert np.all(moved[first:] > 1e-3)


@pytest.mark.parametrize("changed", [1, 2, 3])
def test_future_latents_change_no_earlier_frame(decode, latents, changed):
    other = latents.copy()
    other[:, changed:] += 1.0
    moved = np.abs(np.asarray(decode(other)) - np.asarray(decode(latents))).max(axis=(0, 2, 3, 4))
    first = 4 * changed - 3  # frames 0 .. 4(changed - 1) belong to the latents before
    assert np.all(moved[:first] == 0.0)
    assert np.all(moved[first:] > 1e-3)


@pytest.mark.parametrize("frames", [1, 5])
def test_latents_of_a_prefix_are_the_prefix_of_the_latents(encode, decode, video, latents, frames):
    kept = (frames - 1) // 4 + 1
    np.testing.assert_allclose(encode(video[:, :frames]), latents[:, :kept], atol=1e-6)
    np.testing.assert_allclose(decode(latents[:, :kept]), decode(latents)[:, :frames], atol=1e-6)


def test_streamed_latents_of_a_prefix_are_bit_for_bit_those_of_the_longer_video(params, video, latents):
    encode = jax.jit(lambda x: encode_streaming(VAE(CONFIG), params, x)[0])
    decode = jax.jit(lambda z: decode_streaming(VAE(CONFIG), params, z))
    whole, frames = encode(video), decode(latents)
    for kept in range(1, latents.shape[1]):
        np.testing.assert_array_equal(encode(video[:, : 4 * kept - 3]), whole[:, :kept])
        np.testing.assert_array_equal(decode(latents[:, :kept]), frames[:, : 4 * kept - 3])


@pytest.mark.parametrize("per_chunk", [1, 2])
def test_streamed_equals_whole(params, video, latents, decode, per_chunk):
    # Chunks of two latents do not divide the three after the first, so the tail is filled up and cut.
    vae = VAE(CONFIG)
    mean, log_variance = jax.jit(lambda x: encode_streaming(vae, params, x, per_chunk))(video)
    whole = jax.jit(lambda x: vae.apply({"params": params}, x, method=VAE.encode))(video)
    np.testing.assert_allclose(mean, latents, atol=2e-6)
    np.testing.assert_allclose(log_variance, whole[1], atol=2e-6)
    decoded = jax.jit(lambda z: decode_streaming(vae, params, z, per_chunk))(latents)
    np.testing.assert_allclose(decoded, decode(latents), atol=2e-6)


def test_a_clip_is_streamed_where_it_exceeds_the_memory_given(params, video, latents, decode):
    vae = VAE(CONFIG)
    for_one = 2**30 / latents_within(2**30, CONFIG, *video.shape[2:4], jnp.float32, len(video))
    for_two, ample = int(2.5 * for_one), int(10 * for_one)
    for within, whole in ((encode_within, latents), (decode_within, decode(latents))):
        given = video if within is encode_within else latents
        programs = {
            memory: jax.jit(lambda x, w=within, m=memory: w(vae, params, x, m)).lower(given).compile()
            for memory in (None, ample, for_two, 1)
        }
        loops = {memory: " while(" in program.as_text() for memory, program in programs.items()}
        assert loops == {None: False, ample: False, for_two: True, 1: True}
        for memory, program in programs.items():
            out = program(given)
            out = out[0] if within is encode_within else out
            np.testing.assert_allclose(out, whole, atol=2e-6, err_msg=f"memory={memory}")


def test_chunks_of_any_length_give_the_whole(params, video, latents):
    step = jax.jit(lambda x, past: VAE(CONFIG).apply({"params": params}, x, past, method=VAE.encode_chunk))
    first, _, past = step(video[:, :5], None)
    second, _, past = step(video[:, 5:9], past)
    third, _, _ = step(video[:, 9:], past)
    np.testing.assert_allclose(np.concatenate([first, second, third], axis=1), latents, atol=2e-6)


def test_streaming_memory_does_not_grow_with_the_clip(params):
    vae = VAE(CONFIG)

    def working_memory(latents):
        z = jax.ShapeDtypeStruct((1, latents, 2, 3, 16), jnp.float32)
        return jax.jit(lambda z: decode_streaming(vae, params, z)).lower(z).compile().memory_analysis()

    short, long = working_memory(5), working_memory(21)
    grown_output = long.output_size_in_bytes - short.output_size_in_bytes
    # Twice the additional output: the frames as the loop collects them and in their final order.
    assert long.temp_size_in_bytes - short.temp_size_in_bytes <= 2 * grown_output + 4096


def test_forms_of_convolution_agree(params, video, latents, decode):
    vae = VAE(CONFIG, conv_form="direct")
    mean, _ = jax.jit(lambda x: vae.apply({"params": params}, x, method=VAE.encode))(video)
    np.testing.assert_allclose(mean, latents, atol=2e-6)
    decoded = jax.jit(lambda z: vae.apply({"params": params}, z, method=VAE.decode))(latents)
    np.testing.assert_allclose(decoded, decode(latents), atol=2e-6)


def test_recomputation_gives_the_same_finite_gradient_of_every_parameter(params, video):
    def gradient(remat):
        def loss(params):
            vae = VAE(CONFIG, remat=remat)
            mean, log_variance = vae.apply({"params": params}, video[:, :5], method=VAE.encode)
            z = mean + jnp.exp(0.5 * log_variance) * jax.random.normal(jax.random.key(0), mean.shape)
            return jnp.mean(vae.apply({"params": params}, z, False, method=VAE.decode) ** 2)

        return jax.jit(jax.grad(loss))(params)

    stored, recomputed = gradient(False), gradient(True)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), stored, recomputed)
    for path, leaf in jax.tree.leaves_with_path(stored):
        assert np.all(np.isfinite(leaf)), path
        assert np.any(leaf != 0), path


def test_norm_of_a_zero_vector_has_a_finite_gradient():
    norm, x = ChannelNorm(), np.zeros((2, 4), np.float32)
    gradient = jax.grad(lambda x: norm.apply({"params": {"gamma": np.ones(4, np.float32)}}, x).sum())(x)
    assert np.all(np.isfinite(gradient))


def test_fresh_parameters_keep_the_signal():
    params = VAE(CONFIG).init_params(jax.random.key(0, impl="unsafe_rbg"))  # which compiles fast
    x = np.random.default_rng(2).uniform(-1, 1, (1, 1, 32, 32, 3)).astype(np.float32)
    mean, _ = jax.jit(lambda p: VAE(CONFIG).apply({"params": p}, x, method=VAE.encode))(params)
    assert 0.05 < float(np.std(mean)) < 5.0


def test_decoded_video_is_clamped_unless_training(params, latents, decode):
    loud = 30.0 * latents
    unclipped = jax.jit(lambda z: VAE(CONFIG).apply({"params": params}, z, False, method=VAE.decode))(loud)
    assert np.abs(unclipped).max() > 1.0
    np.testing.assert_allclose(decode(loud), np.clip(unclipped, -1, 1), atol=1e-6)


def test_latent_statistics_round_trip(latents):
    config = dataclasses.replace(CONFIG, latents_mean=tuple(range(16)), latents_std=tuple(range(1, 17)))
    normal = normalise(latents, config)
    np.testing.assert_allclose(normal[..., 3], (latents[..., 3] - 3.0) / 4.0, rtol=1e-6)
    np.testing.assert_allclose(denormalise(normal, config), latents, atol=1e-5)


def test_pixels_to_channels_round_trips(video):
    moved = pixels_to_channels(video, 2)
    assert moved.shape == (1, FRAMES, HEIGHT // 2, WIDTH // 2, 12)
    # Channel order: colour, then column, then row within the patch.
    np.testing.assert_array_equal(moved[0, 0, 3, 5, 4 + 2 + 0], video[0, 0, 6, 11, 1])
    np.testing.assert_array_equal(channels_to_pixels(moved, 2), video)


def test_sizes_that_do_not_fit_are_named(params):
    vae = VAE(CONFIG)
    with pytest.raises(ValueError, match=r"frames=6: expected 4k.1 frames, for example 5 or 9"):
        vae.apply({"params": params}, np.zeros((1, 6, 16, 16, 3)), method=VAE.encode)
    with pytest.raises(ValueError, match=r"height=20: expected a multiple of 8 pixels"):
        vae.apply({"params": params}, np.zeros((1, 5, 20, 16, 3)), method=VAE.encode)
    with pytest.raises(ValueError, match=r"8 channels.*16"):
        vae.apply({"params": params}, np.zeros((1, 2, 2, 2, 8)), method=VAE.decode)
    with pytest.raises(ValueError, match="chunk of 4 frames"):
        vae.apply({"params": params}, np.zeros((1, 4, 16, 16, 3)), method=VAE.encode_chunk)
    with pytest.raises(ValueError, match="latents_std"):
        VAEConfig(z_dim=4, latents_mean=(0.0,) * 4)
    with pytest.raises(ValueError, match="temporal_downsample"):
        VAEConfig(dim_mult=(1, 2))


def test_embedded_sizes_stay_within_the_package_budget():
    from camctrl_jax.models import MMDiT, mmdit_preset

    vae, mmdit = VAE(vae_preset("worlds")), MMDiT(mmdit_preset("worlds"))
    count = sum(leaf.size for net in (vae, mmdit) for leaf in jax.tree.leaves(net.abstract_params()))
    assert 28e6 < count < 30e6  # 60 MB in bfloat16
    config = vae.config
    assert config.latent_shape(49, 96, 160) == (13, 12, 20, 16)


def test_frame_wise_levels_are_kernels_without_the_frames_before(video):
    config = dataclasses.replace(CONFIG, frame_wise_levels=(0, 2))
    rng = np.random.default_rng(3)
    params = jax.tree.map(
        lambda leaf: (0.3 * rng.standard_normal(leaf.shape)).astype(np.float32), VAE(config).abstract_params()
    )
    # The file of the stock class has full kernels, zero for the frames before: the same network without the
    # setting, which is tested against the stock class itself.
    full = import_vae(export_vae(params), CONFIG)

    @jax.jit
    def both(video):
        mean, _ = VAE(config).apply({"params": params}, video, method=VAE.encode)
        expected, _ = VAE(CONFIG).apply({"params": full}, video, method=VAE.encode)
        decoded = VAE(config).apply({"params": params}, mean, False, method=VAE.decode)
        streamed = decode_streaming(VAE(config), params, mean, 2, False)
        return (
            mean,
            expected,
            decoded,
            streamed,
            VAE(CONFIG).apply({"params": full}, mean, False, method=VAE.decode),
        )

    mean, expected, decoded, streamed, of_full = both(video)
    np.testing.assert_allclose(mean, expected, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_allclose(decoded, of_full, atol=1e-5 * np.abs(of_full).max())
    np.testing.assert_allclose(streamed, of_full, atol=1e-5 * np.abs(of_full).max())
    kernels = {
        "/".join(k.key for k in path): leaf.shape[0] for path, leaf in jax.tree.leaves_with_path(params)
    }
    assert kernels["encoder/down_blocks_0/conv1/kernel"] == kernels["decoder/conv_out/kernel"] == 1
    assert kernels["decoder/up_blocks_1/resnets_0/conv1/kernel"] == 3
    assert kernels["decoder/mid_block/resnets_0/conv1/kernel"] == 1


def test_a_level_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="frame_wise_levels"):
        dataclasses.replace(CONFIG, frame_wise_levels=(3,))


def test_fingerprints_of_earlier_weights_stay():
    assert fingerprint_of_weights(vae_preset("worlds"), {}) == "e9a73e1556aa59b1"
