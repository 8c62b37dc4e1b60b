"""What is done to given latents: noise, and errors from a bank; nothing else is touched."""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from nano_batches import batch_of

from camctrl_jax.errors import InvalidValue
from camctrl_jax.models import mmdit_preset, vae_preset
from camctrl_jax.training.condition_errors import (
    LATENTS,
    TIMES,
    ConditionConfig,
    bank_of,
    errors_of,
    noised,
)
from camctrl_jax.training.objectives.denoise import ERRORS, Denoise
from camctrl_jax.training.update import Update

KEY = jax.random.key(0)
GRID = (4, 6)
BANK = bank_of(ConditionConfig(error_bank=1.0, error_bank_size=3, error_gamma=2.0), [GRID], 16)


disturbed = jax.jit(BANK.disturbed)
learned = jax.jit(BANK.learned)


def inputs_of(given=(0, 1, 2, 3), retrieved=1):
    """Latents of zeros, of which each clip has so many given."""
    count = len(given)
    return {
        "latents": jnp.zeros((count, 6, *GRID, 16)),
        "retrieved_latents": jnp.zeros((count, retrieved, *GRID, 16), jnp.float16),
        "condition_mask": jnp.arange(6) < jnp.asarray(given)[:, None],
    }


def stored(row, value, bank=None):
    """A bank with one more entry in a row: latent j of it is ``value + j / 10``."""
    bank = BANK.empty()["4x6"] if bank is None else bank
    errors = jnp.broadcast_to(value + jnp.arange(LATENTS)[:, None, None, None] / 10, (1, LATENTS, *GRID, 16))
    return learned(bank, errors, jnp.asarray([(row + 0.5) / TIMES]), jnp.asarray([True]))


def test_errors_are_added_to_what_extensions_are_given():
    found = disturbed(stored(2, 1.0), inputs_of(), KEY)
    errors = 2.0 * (1.0 + np.arange(LATENTS) / 10)  # times gamma
    of_clips = found["latents"][..., 0, 0, 0]
    np.testing.assert_array_equal(of_clips[:2], 0.0)  # neither text to video nor image to video
    for clip, given in ((2, 2), (3, 3)):
        np.testing.assert_allclose(of_clips[clip, :given], errors[1 : 1 + given], rtol=1e-3)
        np.testing.assert_array_equal(of_clips[clip, given:], 0.0)
        np.testing.assert_allclose(found["retrieved_latents"][clip, 0], errors[0], rtol=1e-3)
    np.testing.assert_array_equal(found["retrieved_latents"][:2], 0.0)


def test_an_empty_bank_adds_nothing():
    found = disturbed(BANK.empty()["4x6"], inputs_of(), KEY)
    for name, field in inputs_of().items():
        np.testing.assert_array_equal(found[name], field)


def test_only_rows_and_places_that_are_filled_are_drawn_and_all_of_them_are():
    bank = stored(6, 4.0, stored(6, 3.0, stored(1, 2.0)))
    found = disturbed(bank, inputs_of((2,) * 400), KEY)
    values, counts = np.unique(
        np.round(found["retrieved_latents"][:, 0, 0, 0, 0] / 2.0, 2), return_counts=True
    )
    np.testing.assert_array_equal(values, [2.0, 3.0, 4.0])
    assert counts[0] == pytest.approx(200, abs=40)  # rows are alike, whatever they hold
    assert counts[1] == pytest.approx(100, abs=40)


def test_the_probability_is_that_of_a_clip():
    half = dataclasses.replace(BANK, probability=0.5)
    found = half.disturbed(stored(0, 1.0), inputs_of((3,) * 400), KEY)
    with_errors = np.asarray(found["latents"][:, :3] != 0).all(axis=(1, 2, 3, 4))
    assert with_errors.mean() == pytest.approx(0.5, abs=0.1)
    np.testing.assert_array_equal(found["latents"][~with_errors], 0.0)


def test_the_newest_errors_replace_the_oldest_and_each_row_keeps_its_own():
    bank = BANK.empty()["4x6"]
    for value in range(1, 6):
        bank = stored(3, float(value), bank)
    kept = bank["errors"][3, :, 0, 0, 0, 0]
    assert sorted(np.asarray(kept).tolist()) == [3.0, 4.0, 5.0]
    assert float(jnp.abs(bank["errors"]).sum(axis=(1, 2, 3, 4, 5))[:3].sum()) == 0.0
    # Several of one batch: as many as there is room for, each in a place of its own; others are not kept.
    errors = jnp.broadcast_to(jnp.arange(10.0, 16.0)[:, None, None, None, None], (6, LATENTS, *GRID, 16))
    valid = jnp.asarray([True, False, True, True, True, True])
    bank = learned(bank, errors, jnp.full(6, 3.5 / TIMES), valid)
    assert sorted(np.asarray(bank["errors"][3, :, 0, 0, 0, 0]).tolist()) == [10.0, 12.0, 13.0]


def test_a_bank_serves_a_run_of_any_length():
    bank = BANK.empty()["4x6"]
    for value in range(23):
        bank = stored(0, float(value), bank)
    assert int(bank["stored"][0]) < 2 * BANK.size
    assert sorted(np.asarray(bank["errors"][0, :, 0, 0, 0, 0]).tolist()) == [20.0, 21.0, 22.0]
    last = learned(bank, jnp.ones((1, LATENTS, *GRID, 16)), jnp.asarray([1.0]), jnp.asarray([True]))
    assert int(last["stored"][-1]) == 1  # t = 1 has a row


def test_an_error_is_what_the_estimate_of_the_data_is_off_by():
    rng = np.random.default_rng(0)
    clean, noise, velocity = (jnp.float32(rng.normal(size=(3, 6, *GRID, 16))) for _ in range(3))
    time = jnp.asarray([0.2, 0.7, 1.0])[:, None, None, None, None]
    estimate = (1 - time) * clean + time * noise - time * velocity
    mask = jnp.arange(6) < jnp.asarray([[1], [4], [2]])
    position = jnp.asarray([0.99, 0.5, 0.0])
    found = errors_of(velocity, noise - clean, time[:, 0, 0, 0, 0], mask, position)
    for clip, places in enumerate(([2, 3, 4, 5], [4, 5, 5, 5], [2, 3, 4, 5])):
        np.testing.assert_allclose(found[clip], (estimate - clean)[clip, jnp.asarray(places)], atol=1e-5)


def test_noise_blurs_what_is_given_up_to_its_level():
    inputs = inputs_of((0, 1, 3) * 40)
    found = noised(inputs | {"latents": inputs["latents"] + 1.0}, 0.5, KEY)
    blurred, untouched = found["latents"][2::3, :3], found["latents"][2::3, 3:]
    np.testing.assert_array_equal(untouched, 1.0)
    np.testing.assert_array_equal(found["latents"][0::3], 1.0)
    level = 1.0 - np.asarray(blurred.mean(axis=(1, 2, 3, 4)))
    assert -0.05 < level.min() < level.max() < 0.55
    assert level.mean() == pytest.approx(0.25, abs=0.06)
    spread = np.asarray(blurred.std(axis=(1, 2, 3, 4)))
    np.testing.assert_allclose(spread, level, atol=0.06)  # (1 - s) z + s n
    beside = found["retrieved_latents"][2::3].std(axis=(1, 2, 3, 4))
    np.testing.assert_allclose(beside, spread, atol=0.08)  # the level is the clip's
    assert not np.allclose(found["retrieved_latents"][2], blurred[0, 0] - 1.0, atol=0.05)  # its noise is not


@pytest.mark.parametrize(
    ("field", "value"), [("noise", 1.0), ("error_bank", 1.5), ("error_bank_size", 0), ("error_gamma", 0.0)]
)
def test_impossible_settings_are_refused(field, value):
    with pytest.raises(InvalidValue, match=rf"config\.condition\.{field}={value}: expected"):
        ConditionConfig(**{field: value})


OBJECTIVE = Denoise(
    Update(optax.sgd(0.1)),
    mmdit_preset("nano", num_dual=1, num_single=0),
    vae_preset("nano"),
)


def extension_batch(seed, retrieved=0):
    """Clips of six latents, of which half the clips have two given, the others none."""
    batch = batch_of(4, frames=21, seed=seed, retrieved=retrieved)
    given = (np.arange(6) < 2)[None] & (np.arange(4) % 2 == 0)[:, None]
    return batch | {"condition_mask": given}


FAST = {"xla_backend_optimization_level": 0}  # compiles in half the time


@pytest.fixture(scope="module")
def state():
    objective = dataclasses.replace(OBJECTIVE, bank=BANK)
    params = objective.init(jax.random.key(0, impl="unsafe_rbg"))
    return objective.state(params, KEY)


def test_a_step_gives_the_bank_its_errors_and_takes_some_in_the_next(state):
    objective = dataclasses.replace(OBJECTIVE, bank=BANK)
    step = jax.jit(partial(objective.step, frozen={}), compiler_options=FAST)
    one, _ = step(state, extension_batch(0), KEY)
    bank = one.kept[ERRORS]["4x6"]
    assert int(bank["stored"].sum()) == 2  # of the two clips with something given
    # A fresh model answers 0, so the errors are t (eps - x0): those of the time of their row.
    size = jnp.sqrt(jnp.mean(jnp.square(bank["errors"].astype(jnp.float32)), axis=(2, 3, 4, 5)))
    for row, slot in zip(*np.nonzero(np.asarray(size))):
        assert row / TIMES * 1.2 < float(size[row, slot]) < (row + 1) / TIMES * 1.7
    two, _ = step(one, extension_batch(1), KEY)
    assert int(two.kept[ERRORS]["4x6"]["stored"].sum()) == 4
    forgetful, _ = step(dataclasses.replace(one, kept=state.kept), extension_batch(1), KEY)
    assert any(
        not np.array_equal(*pair)
        for pair in zip(jax.tree.leaves(two.params), jax.tree.leaves(forgetful.params))
    )
    # Images have no use for it.
    after, _ = jax.eval_shape(objective.step, two, batch_of(4, frames=1), KEY, {})
    assert jax.tree.structure(after) == jax.tree.structure(two)


def test_errors_are_those_of_the_window_whatever_stands_before_it(state):
    """A fresh model answers 0, so that they are t (eps - x0) where the window is generated."""
    inputs = OBJECTIVE.examples(extension_batch(0, retrieved=2), KEY, {}).inputs
    inputs["error_position"] = jnp.zeros(4)
    loss = jax.jit(partial(OBJECTIVE.loss, frozen={}), compiler_options=FAST)
    _, aside = loss(state.params, inputs)
    target = inputs["noise"][:, 2:] - inputs["latents"]
    for clip, start in enumerate((2, 0, 2, 0)):
        expected = inputs["time"][clip] * target[clip, start : start + LATENTS]
        np.testing.assert_allclose(aside.samples[1][clip], expected, atol=1e-6)


@pytest.mark.slow
def test_a_step_with_an_empty_bank_is_the_step_without(state):
    objective = dataclasses.replace(OBJECTIVE, bank=BANK)
    found, _ = jax.jit(objective.step)(state, extension_batch(0), KEY, {})
    plain, _ = jax.jit(OBJECTIVE.step)(dataclasses.replace(state, kept={}), extension_batch(0), KEY, {})
    for one, other in zip(jax.tree.leaves(found.params), jax.tree.leaves(plain.params)):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_accumulated_parts_give_the_bank_what_the_whole_gives(state):
    batch, results = extension_batch(0, retrieved=1), []
    for parts in (1, 2):
        update = dataclasses.replace(OBJECTIVE.update, accumulate=parts)
        objective = dataclasses.replace(OBJECTIVE, bank=BANK, update=update)
        results.append(jax.jit(objective.step)(state, batch, KEY, {})[0].kept[ERRORS]["4x6"])
    np.testing.assert_array_equal(results[0]["stored"], results[1]["stored"])
    np.testing.assert_allclose(results[0]["errors"], results[1]["errors"], atol=2e-3)


def test_switched_off_nothing_is_kept_and_nothing_is_drawn():
    off = dataclasses.replace(OBJECTIVE, disturbance=ConditionConfig())
    params = jax.eval_shape(off.init, KEY)
    assert jax.eval_shape(lambda p: off.state(p, KEY), params).kept == {}
    for example, other in zip(
        *(each.examples(extension_batch(0), KEY, {}).inputs.values() for each in (off, OBJECTIVE))
    ):
        np.testing.assert_array_equal(example, other)
    noisy = dataclasses.replace(OBJECTIVE, disturbance=ConditionConfig(noise=0.3))
    found, plain = (each.examples(extension_batch(0), KEY, {}).inputs for each in (noisy, OBJECTIVE))
    for name in ("time", "noise"):
        np.testing.assert_array_equal(found[name], plain[name])
    assert not np.array_equal(found["latents"], plain["latents"])
