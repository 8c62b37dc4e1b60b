"""The denoising step on a tiny model: it learns, and each kind of sample is treated as it should be."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nano_batches import batch_of
from nano_weights import random_params

from camctrl_jax.checkpoints.weights import expected_vae
from camctrl_jax.diffusion.flow import FlowConfig
from camctrl_jax.models import VAE, mmdit_preset, vae_preset
from camctrl_jax.models.autoencoder import encode_video
from camctrl_jax.training.condition_errors import ConditionConfig
from camctrl_jax.training.initialisation import take_over
from camctrl_jax.training.objectives.denoise import AUTOENCODER, Denoise
from camctrl_jax.training.optimizer import OptimizerConfig, make_optimizer
from camctrl_jax.training.state import create_state
from camctrl_jax.training.update import Update

VAE_CONFIG = vae_preset(
    "nano",
    base_dim=4,
    decoder_base_dim=4,
    num_res_blocks=0,
    latents_mean=(0.1,) * 16,
    latents_std=(0.5,) * 16,
)
UPDATE = Update(make_optimizer(OptimizerConfig(learning_rate=3e-3, warmup_steps=5), 200), ema_decay=0.99)
OBJECTIVE = Denoise(UPDATE, mmdit_preset("nano", num_dual=1, num_single=0), VAE_CONFIG, FlowConfig(shift=1.5))
KEY = jax.random.key(7)


def jitted(objective):
    """The step of an objective that reads latents."""
    step = jax.jit(objective.step)
    return lambda state, batch, key, frozen=None: step(state, batch, key, frozen or {})


def fresh_state(objective):
    """An initial state, from the generator that compiles fast."""
    return create_state(objective.init(jax.random.key(0, impl="unsafe_rbg")), objective.update.optimizer)


@pytest.fixture(scope="module")
def step():
    return jitted(OBJECTIVE)


@pytest.fixture(scope="module")
def state():
    return fresh_state(OBJECTIVE)


def at_step(state, step):
    return dataclasses.replace(state, step=jnp.int32(step))


def test_loss_falls(step, state):
    batch, losses = batch_of(8), []
    for _ in range(60):
        state, metrics = step(state, batch, KEY)
        losses.append(float(metrics["loss"]))
    assert np.mean(losses[-10:]) < 0.75 * np.mean(losses[:5])
    assert int(state.step) == 60


def test_the_learning_rate_of_the_update_is_told(state):
    objective = dataclasses.replace(OBJECTIVE, update=dataclasses.replace(UPDATE, schedule=lambda n: 0.5**n))
    for number in (0, 3):
        metrics = jitted(objective)(at_step(state, number), batch_of(8), KEY)[1]
        assert float(metrics["learning_rate"]) == 0.5**number


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
                dataclasses.replace(started, opt_state=UPDATE.optimizer.init(started.params)),
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


def test_video_is_encoded_by_the_frozen_vae_inside_the_step(step, state):
    frozen = {AUTOENCODER: random_params(expected_vae(VAE_CONFIG), seed=1)}
    batch = batch_of(2, images_of=True)
    latents = jax.jit(partial(encode_video, VAE(VAE_CONFIG)))(frozen[AUTOENCODER], batch["video"])
    cached = {name: array for name, array in batch.items() if name != "video"} | {"latents": latents}
    from_latents = float(step(state, cached, KEY)[1]["loss"])
    for chunk in (0, 1):  # all clips at once, or one at a time
        encoding = jitted(dataclasses.replace(OBJECTIVE, encode_chunk=chunk))
        from_video = float(encoding(state, batch, KEY, frozen)[1]["loss"])
        assert from_video == pytest.approx(from_latents, rel=1e-5)


def test_a_model_without_a_camera_trains_on_the_same_batches():
    model = mmdit_preset("nano", num_dual=1, num_single=0, camera=None)
    objective = dataclasses.replace(OBJECTIVE, model=model)
    assert (objective.reads_cameras, OBJECTIVE.reads_cameras) == (False, True)
    state = fresh_state(objective)
    assert "camera_embedder" not in state.params
    assert np.isfinite(float(jitted(objective)(state, batch_of(2), KEY)[1]["loss"]))


def test_what_is_measured_is_the_loss_that_is_trained_on(state, step):
    batch = jax.device_put(batch_of(4))
    key = jax.random.fold_in(KEY, 0)
    measured = jax.jit(OBJECTIVE.measure)(state.params, batch, key, {})
    trained = step(state, batch, KEY)[1]
    for name, value in measured.items():
        assert float(value) == pytest.approx(float(trained[name]), rel=1e-6, nan_ok=True), name


def test_the_work_of_a_step_grows_with_its_batch():
    one, two = (OBJECTIVE.work(batch_of(count)) for count in (1, 2))
    assert two.flops == 2 * one.flops > 0
    video = OBJECTIVE.work(batch_of(1, images_of=True))
    assert video == one


def test_stage_1_begins_as_exactly_the_base_model(state):
    base = {name: part for name, part in state.params.items() if name != "camera_embedder"}
    given, new = take_over(state.params, base, "base")
    assert new == {"camera_embedder"}
    jax.tree.map(np.testing.assert_array_equal, given, base)
    back, new = take_over(base, state.params, "stage 1")  # and the other way the camera layer is left out
    assert new == set()
    assert "camera_embedder" not in back


def test_retrieved_frames_change_what_is_seen_and_not_what_is_learned(state):
    """A fresh model predicts zero, so the loss is that of the targets: those of the window alone."""
    key = jax.random.key(3)
    plain, remembering = batch_of(4), batch_of(4, retrieved=2)
    for name, field in plain.items():
        np.testing.assert_array_equal(field, remembering[name])
    loss = jax.jit(lambda params, batch: OBJECTIVE.measure(params, batch, key, {})["loss"])
    assert float(loss(state.params, plain)) == pytest.approx(float(loss(state.params, remembering)), rel=1e-6)
    params = jax.tree.map(
        lambda leaf: leaf + 0.1 * jnp.cos(jnp.arange(leaf.size).reshape(leaf.shape)), state.params
    )
    seen = float(loss(params, remembering))
    for field in ("retrieved_latents", "retrieved_world_from_camera", "retrieved_intrinsics"):
        other = float(loss(params, remembering | {field: remembering[field] + np.float16(0.5)}))
        assert abs(other - seen) > 1e-5, field


def test_what_is_measured_is_not_disturbed(state):
    params = jax.tree.map(
        lambda leaf: leaf + 0.1 * jnp.cos(jnp.arange(leaf.size).reshape(leaf.shape)), state.params
    )
    noisy = dataclasses.replace(OBJECTIVE, disturbance=ConditionConfig(noise=0.5))
    batch = jax.device_put(batch_of(4))
    measured, plain = (jax.jit(each.measure)(params, batch, KEY, {})["loss"] for each in (noisy, OBJECTIVE))
    assert float(measured) == float(plain)
    trained = jax.jit(lambda batch: noisy.loss(params, noisy.examples(batch, KEY, {}).inputs, {})[0])(batch)
    assert abs(float(trained) - float(plain)) > 1e-4


def test_the_work_of_a_step_counts_retrieved_latents():
    plain, remembering = (OBJECTIVE.work(batch_of(4, retrieved=count)) for count in (0, 3))
    longer = OBJECTIVE.work(batch_of(4, frames=21))  # six latents
    assert plain.flops < remembering.flops == longer.flops
    assert remembering.activations == longer.activations
