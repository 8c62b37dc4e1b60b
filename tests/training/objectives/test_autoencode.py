"""The VAE step: each term is what it says, the loss falls, the adversary waits and then moves."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from nano_batches import batch_of

from camctrl_jax.checkpoints.architecture import Architecture
from camctrl_jax.models import VAE, ClipFeatureNetwork, clip_features_preset, vae_preset
from camctrl_jax.models.autoencoder import to_unit_range
from camctrl_jax.models.discriminator import (
    DiscriminatorConfig,
    PatchDiscriminator,
    discriminator_hinge,
    generator_hinge,
    spectral_norm,
)
from camctrl_jax.models.roles import ENCODER_PARTS
from camctrl_jax.training.config import check_config, default_config
from camctrl_jax.training.objectives.autoencode import (
    ADVERSARY,
    FEATURES,
    Autoencode,
    AutoencodeConfig,
    build,
    kl_divergence,
    latent_statistics,
    structure_loss,
    vae_config,
)
from camctrl_jax.training.optimizer import OptimizerConfig, make_optimizer
from camctrl_jax.training.update import Update
from camctrl_jax.training.values import ConfigError

MODEL = vae_preset("nano", base_dim=4, decoder_base_dim=4, num_res_blocks=0)
VAE_MODEL = VAE(MODEL)
OPTIMIZER = make_optimizer(
    OptimizerConfig(learning_rate=3e-3, initial_learning_rate=1e-3, warmup_steps=2), 100
)
SMALL = DiscriminatorConfig(base_dim=4, depth=1)
ADVERSARIAL = AutoencodeConfig(
    adversarial=0.1,
    adversarial_start=1,
    image=SMALL,
    video=DiscriminatorConfig(base_dim=4, depth=1, temporal=True),
)
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def params():
    # The generator that compiles fast.
    return VAE_MODEL.init_params(jax.random.key(1, impl="unsafe_rbg"))


def video_batch(count=2, frames=5):
    return {"video": batch_of(count, frames=frames, images_of=True)["video"][:, :, :16, :16]}


def _differ(a, b):
    return any(jax.tree.leaves(jax.tree.map(lambda x, y: not np.array_equal(x, y), a, b)))


def test_loss_falls_and_the_adversary_waits_for_its_start(params):
    objective = Autoencode(Update(OPTIMIZER), MODEL, ADVERSARIAL, adversary_optimizer=OPTIMIZER)
    state, step = objective.state(params, KEY), jax.jit(objective.step)
    batch = jax.device_put(video_batch())
    losses = []
    for number in range(30):
        before = state.others[ADVERSARY].params
        state, metrics = step(state, batch, KEY, {})
        assert _differ(before, state.others[ADVERSARY].params) == (number >= 1)
        losses.append(float(metrics["l1"]))
    assert np.mean(losses[-3:]) < 0.6 * losses[0]
    assert float(metrics["psnr"]) > 12
    assert {"loss", "kl", "structure", "adversarial", "discriminator", "grad_norm"} <= metrics.keys()


def test_how_clips_look_is_a_term_of_its_own(params):
    batch, few = jax.device_put(video_batch()), clip_features_preset("nano")
    network = ClipFeatureNetwork(few).init_params(jax.random.key(2, impl="unsafe_rbg"))
    plain = Autoencode(Update(OPTIMIZER), MODEL)
    judged = Autoencode(Update(OPTIMIZER), MODEL, AutoencodeConfig(features=0.5), features=few)
    assert plain.frozen() == {}
    inputs = plain.examples(batch, KEY, {}).inputs

    @jax.jit  # once: what both compute alike is compiled once
    def losses(params):
        return plain.loss(params, inputs, {})[0], judged.loss(params, inputs, {FEATURES: network})

    alone, (together, aside) = losses(params)
    assert aside.means["features"] > 0.01
    assert float(together) == pytest.approx(float(alone + 0.5 * aside.means["features"]), rel=1e-4)
    # Of the network that ships: sizes and parameters belong together.
    config = default_config()
    config.vae_loss.features = 0.1
    built = build(config, None)
    assert jax.tree.map(np.shape, built.frozen()) == jax.tree.map(lambda x: x.shape, built.frozen_shapes())


def test_equivariance_compares_the_picture_of_averaged_latents(params):
    video = to_unit_range(jnp.asarray(video_batch()["video"]))
    inputs = {"video": video, "noise": jnp.zeros((2, *MODEL.latent_shape(5, 16, 16)))}
    wanted = np.asarray(video).reshape(2, 5, 8, 2, 8, 2, 3).mean((3, 5))

    def loss(params, weight):
        # The squared error alone, so that the term can be written down here in one line.
        settings = AutoencodeConfig(l1=0.0, l2=1.0, structure=0.0, equivariance=weight)
        value, aside = Autoencode(Update(OPTIMIZER), MODEL, settings).loss(params, inputs, {})
        return value, aside.means

    def expected(params):
        latents, _ = VAE_MODEL.apply({"params": params}, video, method=VAE.encode)
        averaged = (latents[:, :, ::2] + latents[:, :, 1::2])[:, :, :, ::2] / 4
        averaged += (latents[:, :, ::2] + latents[:, :, 1::2])[:, :, :, 1::2] / 4
        picture = VAE_MODEL.apply({"params": params}, averaged, clip=False, method=VAE.decode)
        return jnp.mean((picture - wanted) ** 2)

    def term(params):
        value, means = loss(params, 3.0)
        return means["equivariance"], (value, means)

    @partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def found(params):
        (_, weighed), grads = jax.value_and_grad(term, has_aux=True)(params)
        return loss(params, 0.0), weighed, expected(params), grads

    (plain, without), (with_term, means), by_hand, grads = found(params)
    assert "equivariance" not in without
    assert float(means["equivariance"]) == pytest.approx(float(by_hand), rel=1e-5)
    assert float(with_term - plain) == pytest.approx(3.0 * float(by_hand), rel=1e-4)
    # It reaches the encoder: latents are what it shapes.
    assert all(_differ(grads[part], jax.tree.map(jnp.zeros_like, grads[part])) for part in ENCODER_PARTS)


def test_latents_that_stay_as_they_are_are_not_to_be_shaped():
    config = default_config()
    config.objective, config.init_from = "autoencode", "default"
    config.vae_loss.train_encoder = False
    check_config(config)
    config.vae_loss.equivariance = 0.25
    with pytest.raises(ConfigError, match=r"equivariance=0\.25: it shapes latents, .* expected 0"):
        check_config(config)


def test_the_decoder_learns_alone_and_latents_stay(params):
    optimizer = make_optimizer(OptimizerConfig(warmup_steps=0), 10, frozen=ENCODER_PARTS)
    objective = Autoencode(Update(optimizer), MODEL, AutoencodeConfig(train_encoder=False))
    state = objective.state(params, KEY)
    state, _ = jax.jit(objective.step)(state, jax.device_put(video_batch()), KEY, {})
    for name in params:
        assert _differ(params[name], state.params[name]) == (name not in ENCODER_PARTS), name

    def probe(count):
        raise AssertionError("nothing is measured")

    known = vae_preset("nano", latents_mean=(0.5,) * 16, latents_std=(2.0,) * 16)
    described = objective.describe(state, probe, Architecture(vae=known)).vae
    assert (described.latents_mean, described.latents_std) == (known.latents_mean, known.latents_std)


@pytest.mark.slow
def test_a_batch_in_parts_gives_the_update_of_the_whole(params):
    states = []
    for accumulate in (1, 2):
        objective = Autoencode(Update(optax.sgd(0.1), accumulate=accumulate), MODEL)
        state = objective.state(params, KEY)
        states.append(jax.jit(objective.step)(state, jax.device_put(video_batch(4)), KEY, {}))
    (whole, expected), (parts, found) = states
    for name in ("loss", "l1", "kl"):
        assert float(found[name]) == pytest.approx(float(expected[name]), rel=1e-5), name
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), parts.params, whole.params)


def test_latent_statistics_are_those_of_the_encoded_data(params):
    videos = [video_batch()["video"], video_batch(count=1)["video"]]
    encode = jax.jit(lambda x: VAE_MODEL.apply({"params": params}, to_unit_range(x), method=VAE.encode)[0])
    encoded = [np.asarray(encode(video)) for video in videos]
    entries = np.concatenate([latents.reshape(-1, 16) for latents in encoded]).astype(np.float64)
    mean, std = latent_statistics(VAE_MODEL, params, videos)
    np.testing.assert_allclose(mean, entries.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(std, entries.std(axis=0), rtol=1e-4)


def test_structure_loss_of_one_wrong_pixel():
    error = jnp.zeros((1, 1, 4, 4, 1)).at[0, 0, 1, 1, 0].set(1.0)
    # Two of twelve differences along each axis; of the four inner pixels one sees -4 and two see 1.
    expected = (2 / 12 + 2 / 12 + (4 + 1 + 1) / 4) / 3
    assert float(structure_loss(error, 1)) == pytest.approx(expected)


def test_structure_loss_sees_edges_and_flicker_but_not_brightness():
    compiled = jax.jit(structure_loss, static_argnums=1)
    assert float(compiled(jnp.full((1, 3, 8, 8, 3), 0.3), 3)) == pytest.approx(0.0, abs=1e-6)
    checks = jnp.asarray(np.indices((8, 8)).sum(0) % 2, jnp.float32)[None, None, :, :, None]
    assert float(compiled(checks, 1)) > 1.0
    flicker = jnp.asarray([0.0, 1.0, 0.0])[None, :, None, None, None] * jnp.ones((1, 3, 8, 8, 3))
    assert float(compiled(flicker, 1)) == pytest.approx(1 / 4)


def test_structure_loss_takes_any_size():
    compiled = jax.jit(structure_loss, static_argnums=1)
    for height, width in ((1, 1), (2, 3), (5, 7), (17, 9)):
        assert np.isfinite(float(compiled(jnp.ones((1, 2, height, width, 3)), 4)))


def test_kl_of_known_gaussians():
    assert float(kl_divergence(jnp.zeros(5), jnp.zeros(5))) == 0.0
    assert float(kl_divergence(jnp.full(5, 2.0), jnp.zeros(5))) == pytest.approx(2.0)
    variance = 0.25
    expected = 0.5 * (variance - 1 - np.log(variance))
    assert float(kl_divergence(jnp.zeros(5), jnp.full(5, np.log(variance)))) == pytest.approx(expected)


def test_spectral_norm_is_the_largest_singular_value():
    for seed, shape in enumerate([(3, 3, 8, 16), (3, 4, 4, 2, 5), (40, 1)]):
        kernel = jax.random.normal(jax.random.key(seed), shape)
        expected = np.linalg.svd(np.asarray(kernel).reshape(-1, shape[-1]), compute_uv=False)[0]
        assert float(spectral_norm(kernel)) == pytest.approx(expected, rel=2e-3)
    assert float(spectral_norm(jnp.zeros((3, 3, 2, 2)))) == 0.0


def test_discriminators_are_lipschitz_by_layer_and_scale_free():
    """Multiplying every kernel changes nothing: only directions matter under spectral normalisation."""
    model = PatchDiscriminator(DiscriminatorConfig(base_dim=4, depth=2))
    frames = jax.random.normal(KEY, (2, 16, 16, 3))
    params = model.init(KEY, frames)["params"]
    larger = jax.tree.map(lambda leaf: leaf * 7 if leaf.ndim > 1 else leaf, params)
    scores = model.apply({"params": params}, frames)
    np.testing.assert_allclose(model.apply({"params": larger}, frames), scores, atol=1e-5)
    assert scores.shape == (2, 4, 4, 1)


def test_hinge_losses_rest_where_scores_are_clear():
    assert float(discriminator_hinge(jnp.full(3, 2.0), jnp.full(3, -2.0))) == 0.0
    assert float(discriminator_hinge(jnp.zeros(3), jnp.zeros(3))) == 1.0
    assert float(generator_hinge(jnp.asarray([1.0, 3.0]))) == -2.0


@pytest.mark.parametrize("values", [{"l1": -1.0}, {"l1": 0.0, "l2": 0.0}, {"structure_scales": 0}])
def test_settings_that_cannot_work_are_refused_by_name(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        AutoencodeConfig(**values)


def test_sizes_are_those_of_the_preset_unless_they_are_given():
    config = default_config()
    assert vae_config(config) == vae_preset("worlds")
    config.vae_sizes.dim_mult = [1, 2, 4]  # as JSON gives it back
    config.vae_sizes.frame_wise_levels = (0,)
    config.vae_sizes.z_dim = 24
    model = vae_config(config)
    assert (model.dim_mult, model.frame_wise_levels, model.base_dim) == ((1, 2, 4), (0,), 32)
    assert model.latent_shape(49, 96, 160) == (13, 12, 20, 24)
    config.vae_sizes.dim_mult = (1, 2)
    with pytest.raises(ValueError, match=r"config\.vae_sizes.*temporal_downsample"):
        vae_config(config)
