"""A flow map for steps that all lead to one time, as the plain transformer that it then is."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nano_weights import random_params

from camctrl_jax.checkpoints.weights import expected_mmdit
from camctrl_jax.models import MMDiT, leading_to, mmdit_preset, stack_layers

PLAIN = mmdit_preset("nano", num_single=1)
MAP = dataclasses.replace(PLAIN, target_time=True)


def answer(config, params, time, until=None):
    draw = np.random.default_rng(0).standard_normal
    given = draw((2, 3, 4, 6, config.in_channels), np.float32), jnp.full(2, time)
    text, maps = draw((2, 5, config.text_dim), np.float32), draw((2, 3, 4, 6, 6), np.float32)
    until = None if until is None else jnp.full(2, until)
    return np.asarray(MMDiT(config).apply({"params": params}, *given, text, None, maps, until=until))


@pytest.mark.parametrize("until", [0.0, 0.4])
@pytest.mark.parametrize("form", ["numpy", "stacked"])
def test_it_answers_as_the_flow_map_does(until, form):
    params = random_params(expected_mmdit(MAP), 3)
    plain, config = leading_to(params, until), PLAIN
    if form == "stacked":
        config = dataclasses.replace(PLAIN, scan_layers=True)
        plain = leading_to(stack_layers(params, MAP), until)
    expected = answer(MAP, params, 0.9, until)
    found = answer(config, plain, 0.9)
    assert np.linalg.norm(found - expected) <= 1e-6 * np.linalg.norm(expected)
    # And what is folded in matters: for another time it is another answer.
    other = answer(MAP, params, 0.9, 0.7)
    assert np.linalg.norm(other - expected) > 1e-2 * np.linalg.norm(expected)


def test_only_a_bias_changes_and_it_stays_where_it_is():
    params = jax.device_put(random_params(expected_mmdit(MAP), 3), jax.devices()[0])
    before = jax.device_get(params)
    plain = leading_to(params, 0.0)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(params), before)
    assert plain.keys() == params.keys() - {"target_time_embed"}
    places = ["time_text_embed", "timestep_embedder", "linear_2", "bias"]
    new, old = plain, params
    for name in places:
        new, old = new[name], old[name]
    assert new.sharding == old.sharding
    assert new.dtype == old.dtype
    assert bool(jnp.any(new != old))
    same = jax.tree.map(lambda ours, theirs: ours is theirs, plain, {name: params[name] for name in plain})
    assert sum(not each for each in jax.tree.leaves(same)) == 1
