"""A flow map on a tiny model: it begins as its teacher, and each sample learns from whom it should."""

import dataclasses
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nano_batches import TEXT_DIM, TEXT_TOKENS, batch_of

from camctrl_jax.checkpoints.runs import load_params
from camctrl_jax.checkpoints.weights import open_weights
from camctrl_jax.data.text import WordEmbedder
from camctrl_jax.diffusion.condition import NullText
from camctrl_jax.diffusion.flow import FlowConfig, interpolate
from camctrl_jax.diffusion.guidance import Guidance
from camctrl_jax.diffusion.sampler import Sampling, sample
from camctrl_jax.errors import InvalidValue
from camctrl_jax.models import MMDiT, mmdit_preset, vae_preset
from camctrl_jax.parallel.mesh import MeshConfig, make_mesh
from camctrl_jax.sampling.pipeline import Denoiser
from camctrl_jax.training.config import check_config, load_recipe
from camctrl_jax.training.objectives.flow_map import AVERAGE, FlowMap
from camctrl_jax.training.optimizer import OptimizerConfig, make_optimizer
from camctrl_jax.training.program import build_program
from camctrl_jax.training.run import train
from camctrl_jax.training.students import TEACHER, Teacher
from camctrl_jax.training.update import Update
from camctrl_jax.training.values import ConfigError

ROOT = Path(__file__).parents[3]
KEY = jax.random.key(5)
UPDATE = Update(make_optimizer(OptimizerConfig(learning_rate=3e-3, warmup_steps=2), 100), ema_decay=0.9)
EMBEDDER = WordEmbedder(dim=TEXT_DIM, max_tokens=TEXT_TOKENS)
PLAIN = mmdit_preset("nano", num_dual=1, num_single=1)
MODEL = dataclasses.replace(PLAIN, target_time=True)


def student(guidance=Guidance(2.0, 3.0), **changes):  # noqa: B008 - frozen
    fields = {
        "update": UPDATE,
        "model": MODEL,
        "vae": vae_preset("nano"),
        "flow": FlowConfig(shift=3.0),
        "embedder": EMBEDDER,
        "teacher": Teacher("random", None, guidance),
        "method": "flow_map",
        "valid_steps": (4, 1, 2, 8),
        "teacher_steps": 8,
    }
    return FlowMap(**fields | changes)


@pytest.fixture(scope="module")
def frozen():
    return student().frozen()


@pytest.fixture(scope="module")
def params(frozen):
    """The teacher's, and the new layers as they begin."""
    new = student().init(jax.random.key(0, impl="unsafe_rbg"))["target_time_embed"]
    return jax.tree.map(jnp.asarray, frozen[TEACHER]) | {"target_time_embed": new}


@pytest.fixture(scope="module")
def state(params):
    return student().state(params, KEY)


def examples(objective, frozen, count=8, **fields):
    return objective.examples(jax.device_put(batch_of(count, **fields)), KEY, frozen).inputs


def test_at_the_start_it_is_the_teacher_wherever_a_step_leads(params, frozen):
    inputs = examples(student(), frozen)
    condition = student().condition(inputs)
    noisy = interpolate(condition.clean, inputs["noise"], inputs["time"])
    expected = Denoiser(PLAIN, jnp.float32)(frozen[TEACHER], noisy, inputs["time"], condition)
    apply = jax.jit(Denoiser(MODEL, jnp.float32))
    for until in (0.0, 0.3, 0.9):
        asked = dataclasses.replace(condition, until=jnp.full(8, until))
        np.testing.assert_allclose(apply(params, noisy, inputs["time"], asked), expected, atol=1e-5)
    moved = params | {"target_time_embed": jax.tree.map(lambda x: x + 0.1, params["target_time_embed"])}
    found = [
        apply(moved, noisy, inputs["time"], dataclasses.replace(condition, until=jnp.full(8, until)))
        for until in (0.0, 0.9)
    ]
    assert float(jnp.abs(found[0] - found[1]).max()) > 1e-2


def test_a_network_that_is_not_told_where_a_step_leads_says_so(params, frozen):
    inputs = examples(student(), frozen)
    condition = dataclasses.replace(student().condition(inputs), until=None)
    with pytest.raises(InvalidValue, match="say where it leads"):
        Denoiser(MODEL, jnp.float32)(params, condition.clean, inputs["time"], condition)


def test_the_sampler_tells_the_next_node(params):
    """Every call of every step hears where the step leads."""
    told = []

    def velocity(params, noisy, time, condition):
        told.append((np.asarray(time), np.asarray(condition.until)))
        return jnp.zeros_like(noisy)

    inputs = examples(student(), {}, 2)
    condition = student().condition(inputs)
    null = NullText(*(jnp.asarray(array) for array in EMBEDDER.embed([""])))
    with jax.disable_jit():
        sample(velocity, None, inputs["noise"], condition, null, Sampling(Guidance(2.0, 3.0), 2, 1.0))
    assert [tuple(map(float, (time[0], until[0]))) for time, until in told] == [(1.0, 0.5), (0.5, 0.0)]
    assert all(until.shape == time.shape for time, until in told)


def test_a_quarter_learns_the_guided_velocity_and_the_rest_two_steps_of_the_average(params, frozen):
    objective = student()
    inputs = examples(objective, frozen, retrieved=2)
    times = np.asarray(inputs["times"])
    shortest = np.isclose(times[:, 0] - times[:, 2], np.diff(np.unique(times)).min())  # shifted: some of them
    assert set(np.flatnonzero(shortest)) <= {0, 4}
    condition = objective.condition(inputs)
    noisy = interpolate(condition.clean, inputs["noise"], inputs["time"])
    read = frozen | {AVERAGE: params}
    target = jax.jit(objective.target)(inputs, condition, noisy, read)

    def answer(model, network, state, time, until, told=condition):
        given = condition.mask[:, :, None, None, None]
        state = jnp.where(given, interpolate(condition.clean, inputs["noise"], time), state)
        return Denoiser(model, jnp.float32)(network, state, time, dataclasses.replace(told, until=until))

    def all_of(a, x):
        return a[:, None, None, None, None] * x

    t, m, r = inputs["times"].T
    null = NullText(**frozen["null_text"])
    neither = condition.without_text(null).without_camera()
    branches = [
        answer(PLAIN, frozen[TEACHER], noisy, t, r, told)
        for told in (neither, condition.without_camera(), condition)
    ]
    guided = branches[0] + 2.0 * (branches[1] - branches[0]) + 3.0 * (branches[2] - branches[1])
    first = answer(MODEL, params, noisy, t, m)
    second = answer(MODEL, params, noisy + all_of(m - t, first), m, r)
    share = (t - m) / (t - r)
    merged = all_of(share, first) + all_of(1 - share, second)
    taught = np.arange(8) % 4 == 0
    expected = jnp.where(taught[:, None, None, None, None], guided, merged)
    free = ~np.asarray(condition.mask)
    assert float(jnp.linalg.norm((target - expected)[free])) < 1e-4 * float(jnp.linalg.norm(expected[free]))


def test_it_learns(state, frozen):
    objective = student()
    step, batch, losses = jax.jit(objective.step), batch_of(8), []
    for _ in range(40):
        state, metrics = step(state, batch, KEY, frozen)
        losses.append(float(metrics["loss_teacher"]))
    assert np.mean(losses[-8:]) < 0.7 * np.mean(losses[:8])
    both = np.array([1, 3]) / 4 @ [float(metrics["loss_teacher"]), float(metrics["loss_average"])]
    assert both == pytest.approx(float(metrics["loss"]), rel=0.3)  # clips with given latents have fewer
    assert float(jnp.abs(state.params["target_time_embed"]["linear_2"]["kernel"]).max()) > 0


def test_the_average_is_asked_and_not_the_parameters(state, frozen):
    step = jax.jit(student().step)
    batch = batch_of(8)
    before = step(state, batch, KEY, frozen)[1]
    moved = dataclasses.replace(state, ema=jax.tree.map(lambda x: 1.1 * x, state.ema))
    after = step(moved, batch, KEY, frozen)[1]
    assert float(after["loss_teacher"]) == float(before["loss_teacher"])
    assert float(after["loss_average"]) != float(before["loss_average"])


def test_accumulated_equals_whole(state, frozen):
    """Blocks of two: each of two parts has its quarter."""
    batch, results = batch_of(16), []
    for accumulate in (1, 2):
        update = dataclasses.replace(UPDATE, accumulate=accumulate)
        results.append(jax.jit(student(update=update, block=2).step)(state, batch, KEY, frozen)[1])
    for name in ("loss", "loss_teacher", "loss_average", "grad_norm"):
        assert float(results[0][name]) == pytest.approx(float(results[1][name]), rel=1e-5), name
    measure = jax.jit(student(update=update, block=2).measure)
    measured = measure(state.ema, jax.device_put(batch), KEY, frozen)
    assert np.isfinite(float(measured["loss"]))


def test_the_work_of_a_step_counts_a_quarter_of_guidance():
    batch = batch_of(8)
    alone = super(FlowMap, student()).work(batch)
    for guidance, branches in ((Guidance(), 1), (Guidance(1.0, 2.0), 2), (Guidance(2.0, 3.0), 3)):
        assert student(guidance).work(batch).flops == pytest.approx(
            alone.flops * (1 + (branches / 4 + 2 * 3 / 4) / 3)
        )


def test_models_without_it_have_the_parameters_that_they_had():
    plain, told = (MMDiT(model).abstract_params() for model in (PLAIN, MODEL))
    assert told.keys() - plain.keys() == {"target_time_embed"}


def recipe(**changes):
    config = load_recipe(f"{ROOT}/configs/distill_flow_map.py:nano")
    short = {"steps": 4, "checkpoint_every": 2, "optimizer.warmup_steps": 1, "log_every": 1}
    config.update_from_flattened_dict(short | changes)
    return config


def test_what_cannot_be_split_or_halved_is_refused():
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    with pytest.raises(ConfigError, match=r"sets\.worlds\.batch_size: of a batch of 6 .* multiple of 4 "):
        build_program(recipe(**{"data.sets.worlds.batch_size": 6}), mesh)
    with pytest.raises(ConfigError, match=r"in each of 2 turns .* multiple of 8 "):
        build_program(recipe(accumulate=2), mesh)
    with pytest.raises(ConfigError, match=r"distil\.teacher_steps=24: expected a power of two"):
        check_config(recipe(**{"distil.teacher_steps": 24}))
    objective = build_program(recipe(), mesh).objective
    assert objective.valid_steps == (4, 1, 2, 8, 16, 32)
    assert objective.shown.sampling == Sampling(Guidance(), 4, objective.shown.sampling.shift)


@pytest.mark.slow
def test_a_resumed_run_ends_as_the_uninterrupted_one_and_says_what_it_made(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    changes = {"sample_every": 4, "sample.seeds": (1_000_000, 1_000_001)}
    train(recipe(**changes), whole)
    shutil.copytree(whole, parts)
    shutil.rmtree(parts / "checkpoints" / "4")
    train(recipe(**changes), parts)
    for ema in (True, False):
        jax.tree.map(np.testing.assert_array_equal, load_params(whole, ema=ema), load_params(parts, ema=ema))
    weights = open_weights(str(whole))
    assert (weights.distilled.method, weights.distilled.valid_steps) == ("flow_map", (4, 1, 2, 8, 16, 32))
    assert weights.mmdit_config.target_time
    assert (weights.sampling.steps, weights.sampling.camera_guidance) == (4, 1.0)
