"""The autoencoder against diffusers' AutoencoderKLWan with random weights."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from stock_models import (
    channels_first,
    channels_last,
    numpy_state,
    randomise,
    relative_l2,
    state_shapes,
    tensor_shapes,
    torch_and_diffusers,
)

from camctrl_jax.interop.keys import VAE_KEYS, export_vae, import_vae
from camctrl_jax.interop.stock_configs import vae_from_stock, vae_to_stock
from camctrl_jax.models import VAE, VAEConfig, decode_streaming, encode_streaming, vae_preset

pytestmark = pytest.mark.torch

TOLERANCE = 1e-5


def small(**fields) -> VAEConfig:
    z_dim = fields.get("z_dim", 16)
    statistics = {"latents_mean": (0.0,) * z_dim, "latents_std": (1.0,) * z_dim}
    return VAEConfig(**{"base_dim": 8, **statistics, **fields})


DRAWN = 8


def drawn(seed: int) -> VAEConfig:
    """A random tiny configuration, 4x in time as every video model of the family is; 4x to 16x in space.

    Decoders of two to four channels are left out: norms over so few make float32 itself 2e-5 off float64.
    """
    rng = np.random.default_rng(seed)
    down = [(True, True), (False, True, True), (True, False, True)][seed % 3]
    return small(
        base_dim=int(rng.choice([8, 12])),
        decoder_base_dim=int(rng.choice([10, 12])) if seed & 1 else None,
        z_dim=int(rng.integers(2, 7)),
        dim_mult=(1, *(int(n) for n in rng.integers(1, 4, len(down)))),
        num_res_blocks=int(rng.integers(1, 3)),
        temporal_downsample=down,
        patch_size=2 if seed & 2 else None,
    )


CONFIGS = {
    "wan21": small(z_dim=4),
    "worlds": small(dim_mult=(1, 2, 2), num_res_blocks=1, temporal_downsample=(True, True), patch_size=2),
} | {f"drawn_{seed}": drawn(seed) for seed in range(DRAWN)}


@functools.cache
def stock_and_params(name: str):
    torch, diffusers = torch_and_diffusers()
    model = diffusers.AutoencoderKLWan(**vae_to_stock(CONFIGS[name]))
    randomise(model, seed=len(name))
    return torch, model, import_vae(numpy_state(model), CONFIGS[name])


def video_of(frames: int, config: VAEConfig) -> np.ndarray:
    height, width = config.spatial_stride, 2 * config.spatial_stride
    return np.random.default_rng(frames).uniform(-1, 1, (2, frames, height, width, 3)).astype(np.float32)


def reference(torch, model, video):
    """(mean, log-variance, decoded mean) of the stock model, channels last."""
    with torch.no_grad():
        posterior = model.encode(torch.from_numpy(channels_first(video))).latent_dist
        decoded = model.decode(posterior.mean).sample
    return tuple(channels_last(x) for x in (posterior.mean, posterior.logvar, decoded))


# The longest clip of the first configurations always, the others where minutes do not count.
NAMES = [
    "wan21",
    *(pytest.param(f"drawn_{seed}", marks=[] if seed < 5 else pytest.mark.slow) for seed in range(DRAWN)),
]
FRAMES = [pytest.param(frames, marks=[] if frames == 17 else pytest.mark.slow) for frames in (1, 5, 9, 17)]


@pytest.mark.parametrize("frames", FRAMES)
@pytest.mark.parametrize("name", NAMES)
def test_encode_and_decode_agree(name, frames):
    torch, model, params = stock_and_params(name)
    vae, video = VAE(CONFIGS[name]), video_of(frames, CONFIGS[name])
    expected_mean, expected_log_variance, expected_video = reference(torch, model, video)

    @jax.jit
    def through(params, video):
        mean, log_variance = vae.apply({"params": params}, video, method=VAE.encode)
        return mean, log_variance, vae.apply({"params": params}, mean, method=VAE.decode)

    mean, log_variance, decoded = through(params, video)
    assert relative_l2(mean, expected_mean) <= TOLERANCE
    assert relative_l2(log_variance, expected_log_variance) <= TOLERANCE
    assert relative_l2(decoded, expected_video) <= TOLERANCE
    # The test would be weak if the clamp had hidden most of the picture.
    assert np.mean(np.abs(decoded) == 1.0) < 0.5


def test_streaming_agrees_with_the_reference():
    torch, model, params = stock_and_params("worlds")
    vae, video = VAE(CONFIGS["worlds"]), video_of(17, CONFIGS["worlds"])
    expected_mean, _, expected_video = reference(torch, model, video)
    mean, _ = jax.jit(lambda p, x: encode_streaming(vae, p, x))(params, video)
    assert relative_l2(mean, expected_mean) <= TOLERANCE
    decoded = jax.jit(lambda p, z: decode_streaming(vae, p, z, latents_per_chunk=3))(params, mean)
    assert relative_l2(decoded, expected_video) <= TOLERANCE


@pytest.mark.parametrize("name", ["worlds", pytest.param("wan21", marks=pytest.mark.slow)])
def test_bfloat16_stays_near(name):
    torch, model, params = stock_and_params(name)
    video = video_of(5, CONFIGS[name])
    expected, _, expected_video = reference(torch, model, video)
    vae = VAE(CONFIGS[name], dtype=jnp.bfloat16)

    @jax.jit
    def through(params, video, latents):
        mean, _ = vae.apply({"params": params}, video, method=VAE.encode)
        return mean, vae.apply({"params": params}, latents, method=VAE.decode)

    mean, decoded = through(params, video, expected)
    assert mean.dtype == decoded.dtype == jnp.float32
    assert relative_l2(mean, expected) <= 3e-2
    assert relative_l2(decoded, expected_video) <= 3e-2


# The stock class builds attention at other scales but cannot run it chunk by chunk: names and shapes only.
ATTENTION = small(dim_mult=(1, 2), temporal_downsample=(True,), attn_scales=(0.5,))


@pytest.mark.parametrize("config", [vae_preset("worlds"), vae_preset("wan21"), ATTENTION])
def test_configs_have_the_tensors_of_the_stock_class(config):
    torch, diffusers = torch_and_diffusers()
    with torch.device("meta"):
        model = diffusers.AutoencoderKLWan(**vae_to_stock(config))
        default = diffusers.AutoencoderKLWan()
    assert tensor_shapes(VAE(config).abstract_params(), VAE_KEYS) == state_shapes(model)
    assert vae_from_stock(dict(model.config)) == config
    if config == vae_preset("wan21"):
        assert len(state_shapes(model)) == 194
        assert vae_from_stock(dict(default.config)) == config


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_every_key_round_trips(name):
    _, model, params = stock_and_params(name)
    state, exported = numpy_state(model), export_vae(params)
    assert exported.keys() == state.keys()
    assert all(np.array_equal(exported[key], state[key]) for key in state)
