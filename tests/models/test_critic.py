"""The critic: it reads what the transformer reads, starts as it, and judges frames alone."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nano_weights import random_params

from camctrl_jax.models import MMDiT, mmdit_preset, stack_layers
from camctrl_jax.models.critic import Critic, CriticConfig

BLOCKS = mmdit_preset("nano", num_dual=2, num_single=5, num_decoder=2, text_cross_attention_single=True)
B, L, H, W, N = 2, 3, 4, 6, 5


def inputs(seed=0, retrieved=0):
    rng = np.random.default_rng(seed)
    latents = rng.normal(size=(B, retrieved + L, H, W, 33)).astype(np.float32)
    return {
        "latents": latents,
        "timesteps": np.float32([0.3, 0.9]),
        "text": rng.normal(size=(B, N, 64)).astype(np.float32),
        "text_mask": np.arange(N) < np.array([[5], [3]]),
        "plucker": rng.normal(size=(*latents.shape[:-1], 6)).astype(np.float32),
        "retrieved": retrieved,
    }


def params_of(config):
    return random_params(MMDiT(replace(config, scan_layers=False)).abstract_params(), 1)


def critic_params(critic, backbone):
    made = critic.init_params(jax.random.key(0), backbone)
    return made | {"judgement": random_params(made["judgement"], 2)}


@pytest.mark.parametrize("deep", [False, True])
def test_tapped_blocks_are_those_that_lead_to_the_velocity(deep):
    """What is tapped after every block is what Flax itself captures, on stacked layers, too."""
    config = BLOCKS if not deep else replace(BLOCKS, camera=replace(BLOCKS.camera, injection="every"))
    params, told = params_of(config), inputs()
    numbers = tuple(range(1, config.depth + 1))
    _, captured = MMDiT(config).apply(
        {"params": params}, **told, capture_intermediates=True, mutable=["intermediates"]
    )
    names = [f"transformer_blocks_{i}" for i in range(2)] + [
        f"single_transformer_blocks_{i}" for i in range(5)
    ]
    outputs = [captured["intermediates"][name]["__call__"][0][0] for name in names]
    expected = [x[0] if isinstance(x, tuple) else x[:, : L * H * W // 4] for x in outputs]
    looped = MMDiT(config).apply({"params": params}, **told, taps=numbers)
    scanned = MMDiT(replace(config, scan_layers=True, remat="full"))
    stacked = scanned.apply({"params": stack_layers(params, config)}, **told, taps=numbers)
    for number, (theirs, ours, scanned) in enumerate(zip(expected, looped, stacked, strict=True)):
        np.testing.assert_array_equal(theirs, ours, err_msg=str(number))
        np.testing.assert_allclose(ours, scanned, rtol=2e-4, atol=2e-4, err_msg=str(number))


def test_nothing_runs_after_the_last_tap():
    params = params_of(BLOCKS)
    early = {name: part for name, part in params.items() if not name.startswith("single_")}
    [tokens] = MMDiT(BLOCKS).apply({"params": early}, **inputs(), taps=(2,))
    assert tokens.shape == (B, L * H * W // 4, BLOCKS.width)
    with pytest.raises(ValueError, match="expected numbers of blocks, from 1 to 7"):
        MMDiT(BLOCKS).apply({"params": params}, **inputs(), taps=(8,))


def test_heads_look_where_the_paper_has_them():
    assert CriticConfig(mmdit_preset("motif_2b")).taps == (16, 26, 36)
    assert CriticConfig(mmdit_preset("worlds")).taps == (4, 7, 10)
    assert CriticConfig(mmdit_preset("nano", num_single=1)).taps == (1, 2)


@pytest.mark.parametrize(("logits", "shape"), [("frame", (B, L)), ("clip", (B, 1))])
def test_logits_depend_on_everything_the_critic_is_told(logits, shape):
    critic = Critic(CriticConfig(BLOCKS, logits))
    params = critic_params(critic, params_of(BLOCKS))
    judge, told = jax.jit(critic.__call__), inputs()
    told.pop("retrieved")
    plain = judge(params, **told)
    assert plain.shape == shape
    for name in ("latents", "timesteps", "text", "plucker"):
        assert np.abs(judge(params, **told | {name: told[name] * np.float32(0.5)}) - plain).min() > 1e-5, name
    masked = judge(params, **told | {"text_mask": np.ones((B, N), bool)})
    assert np.abs(masked - plain)[1].min() > 1e-5
    unmasked = told["text"].copy()
    unmasked[1, 3:] = 7.0  # padding is not read
    np.testing.assert_array_equal(judge(params, **told | {"text": unmasked}), plain)


def test_retrieved_frames_are_read_and_not_judged():
    critic = Critic(CriticConfig(BLOCKS))
    params, told = critic_params(critic, params_of(BLOCKS)), inputs(retrieved=2)
    plain = critic(params, **told)
    assert plain.shape == (B, L)
    other = told["latents"].copy()
    other[:, 0] *= 0.5
    assert np.abs(critic(params, **told | {"latents": other}) - plain).max() > 1e-5


@pytest.mark.slow
def test_a_stacked_backbone_judges_alike_and_has_the_same_gradient():
    config = BLOCKS
    plain, told = Critic(CriticConfig(config)), inputs()
    scanned = Critic(CriticConfig(replace(config, scan_layers=True, remat="full")))
    params = critic_params(plain, params_of(config))

    def logit(critic, backbone):
        return critic(params | {"backbone": backbone}, **told).sum()

    one, gradient = jax.value_and_grad(lambda p: logit(plain, p))(params["backbone"])
    backbone = stack_layers(params["backbone"], config)
    two, stacked = jax.value_and_grad(lambda p: logit(scanned, p))(backbone)
    assert float(two) == pytest.approx(float(one), rel=1e-4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4),
        stack_layers(gradient, config),
        stacked,
    )


def test_every_parameter_of_a_critic_gets_a_gradient_unless_nothing_reads_it():
    config = mmdit_preset("nano", num_single=2)
    critic = Critic(CriticConfig(config))
    params = critic_params(critic, params_of(config))
    gradient = jax.grad(lambda p: critic(p, **inputs()).sum())(params)
    still = [
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(gradient)
        if not jnp.any(leaf != 0)
    ]
    assert still == []


def test_what_cannot_be_judged_is_refused():
    with pytest.raises(ValueError, match="logits='video' is unknown"):
        CriticConfig(BLOCKS, "video")
    with pytest.raises(ValueError, match="choose logits='clip'"):
        CriticConfig(replace(BLOCKS, patch=(3, 2, 2)))
    with pytest.raises(ValueError, match="expected shares of the blocks"):
        CriticConfig(BLOCKS, depths=(0.0, 1.0))
