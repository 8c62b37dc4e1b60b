"""The denoising step on a tiny model: it learns, and each kind of sample is treated as it should be."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nano_batches import batch_of

from camctrl_jax.diffusion.flow import FlowConfig
from camctrl_jax.models import MMDiT, VAEConfig, mmdit_preset, vae_preset
from camctrl_jax.training.denoise import DenoiseConfig, encode_latents, make_denoise_step
from camctrl_jax.training.optimizer import OptimizerConfig, make_optimizer
from camctrl_jax.training.starting_weights import take_over
from camctrl_jax.training.state import create_state

MODEL = MMDiT(mmdit_preset("nano", num_dual=1, num_single=0))
OPTIMIZER = make_optimizer(OptimizerConfig(learning_rate=3e-3, warmup_steps=5), 200)
KEY = jax.random.key(7)


def fresh_params(model):
    """Initial parameters, from the generator that compiles fast."""
    return model.init_params(jax.random.key(0, impl="unsafe_rbg"))


@pytest.fixture(scope="module")
def step():
    return jax.jit(make_denoise_step(MODEL, OPTIMIZER, DenoiseConfig(FlowConfig(shift=1.5), ema_decay=0.99)))


@pytest.fixture(scope="module")
def state():
    return create_state(fresh_params(MODEL), OPTIMIZER)


def at_step(state, step):
    return dataclasses.replace(state, step=jnp.int32(step))


def test_loss_falls(step, state):
    batch, losses = batch_of(8), []
    for _ in range(60):
        state, metrics = step(state, batch, KEY)
        losses.append(float(metrics["loss"]))
    assert np.mean(losses[-10:]) < 0.75 * np.mean(losses[:5])
    assert int(state.step) == 60


def test_noise_and_times_follow_from_the_step_alone(step, state):
    batch = batch_of(8)
    first, again = step(state, batch, KEY)[1]["loss"], step(state, batch, KEY)[1]["loss"]
    other = step(at_step(state, 1), batch, KEY)[1]["loss"]
    assert float(first) == float(again)
    assert float(first) != float(other)


def test_initial_loss_is_that_of_predicting_zero(step, state):
    """The output layer starts at zero, so the loss is the mean square of eps - x0: 1 + 1.09."""
    losses = [float(step(at_step(state, n), batch_of(8), KEY)[1]["loss"]) for n in range(4)]
    assert np.mean(losses) == pytest.approx(2.09, rel=0.05)


def test_labelled_and_unlabelled_losses_are_told_apart(step, state):
    metrics = step(state, batch_of(8), KEY)[1]
    shares = np.array([7, 1]) / 8
    both = shares @ [float(metrics["loss_labelled"]), float(metrics["loss_unlabelled"])]
    assert both == pytest.approx(float(metrics["loss"]), rel=0.1)  # clips with conditions have fewer tokens
    without = step(state, batch_of(8, labelled=False), KEY)[1]
    assert np.isnan(float(without["loss_labelled"]))
    assert np.isfinite(float(without["loss_unlabelled"]))


def test_poses_of_unlabelled_clips_are_never_read(step, state):
    plain = batch_of(8, labelled=False)
    broken = plain | {"world_from_camera": np.full_like(plain["world_from_camera"], np.nan)}
    moved = step(state, plain, KEY)[0].params, step(state, broken, KEY)[0].params
    jax.tree.map(np.testing.assert_array_equal, *moved)


def test_the_first_step_changes_the_camera_layer_of_labelled_clips_only(step, state):
    # One step further: at step 0 the modulation is zero and no gradient reaches the input.
    started = step(state, batch_of(8), KEY)[0]
    for labelled in (True, False):
        before = started.params["camera_embedder"]["kernel"]
        after = step(started, batch_of(8, labelled=labelled), KEY)[0].params["camera_embedder"]["kernel"]
        gradient = (
            step(
                dataclasses.replace(started, opt_state=OPTIMIZER.init(started.params)),
                batch_of(8, labelled=labelled),
                KEY,
            )[0].params["camera_embedder"]["kernel"]
            - before
        )
        assert after.shape == before.shape
        assert bool(jnp.any(gradient != 0)) == labelled


def test_images_are_clips_of_one_frame(step, state):
    _, metrics = step(state, batch_of(8, frames=1), KEY)
    assert np.isfinite(float(metrics["loss"]))


class Pooling(nn.Module):
    """Stands in for the autoencoder: means over its strides, and a weight to see that it is passed."""

    config: VAEConfig

    @nn.compact
    def encode(self, video):
        scale = self.param("scale", nn.initializers.ones, ())
        first, rest = video[:, :1], video[:, 1:].reshape(len(video), -1, 4, *video.shape[2:]).mean(2)
        frames = jnp.concatenate([first, rest], axis=1)  # [B, L, H, W, 3]
        b, latents, height, width, _ = frames.shape
        pooled = frames.reshape(b, latents, height // 8, 8, width // 8, 8, 3).mean((3, 5))
        mean = scale * jnp.concatenate([pooled] * 6, axis=-1)[..., :16]
        return mean, jnp.zeros_like(mean)


def test_video_is_encoded_by_the_frozen_vae_inside_the_step(state):
    vae = Pooling(vae_preset("nano", latents_mean=(0.1,) * 16, latents_std=(0.5,) * 16))
    frozen = {"scale": jnp.float32(2.0)}
    batch = batch_of(2, images_of=True)
    latents = encode_latents(vae, frozen, batch["video"])
    np.testing.assert_allclose(encode_latents(vae, frozen, batch["video"], chunk=1), latents, rtol=1e-5)
    first_pixel_block = batch["video"][0, 0, :8, :8, 0].astype(np.float64).mean() / 127.5 - 1
    assert float(latents[0, 0, 0, 0, 0]) == pytest.approx((2 * first_pixel_block - 0.1) / 0.5, rel=1e-4)

    step = jax.jit(make_denoise_step(MODEL, OPTIMIZER, DenoiseConfig(), vae))
    from_video = step(state, batch, KEY, frozen)[1]
    cached = {name: array for name, array in batch.items() if name != "video"} | {"latents": latents}
    from_latents = step(state, cached, KEY, frozen)[1]
    assert float(from_video["loss"]) == pytest.approx(float(from_latents["loss"]), rel=1e-5)


def test_a_model_without_a_camera_trains_on_the_same_batches():
    model = MMDiT(mmdit_preset("nano", num_dual=1, num_single=0, camera=None))
    state = create_state(fresh_params(model), OPTIMIZER)
    assert "camera_embedder" not in state.params
    step = jax.jit(make_denoise_step(model, OPTIMIZER, DenoiseConfig()))
    assert np.isfinite(float(step(state, batch_of(2), KEY)[1]["loss"]))


def test_stage_1_begins_as_exactly_the_base_model(state):
    base = {name: part for name, part in state.params.items() if name != "camera_embedder"}
    given, new = take_over(state.params, base, "base")
    assert new == {"camera_embedder"}
    jax.tree.map(np.testing.assert_array_equal, given, base)
    back, new = take_over(base, state.params, "stage 1")  # and the other way the camera layer is left out
    assert new == set()
    assert "camera_embedder" not in back
