"""Guidance: the two published forms, their identities, and batching of the branches."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from camctrl_jax.diffusion.condition import Condition, NullText
from camctrl_jax.diffusion.guidance import Guidance, branch_conditions, guided_velocity

BATCH, LATENTS, HEIGHT, WIDTH, TOKENS, DIM = 2, 3, 4, 5, 6, 7


def make_inputs(camera: bool = True) -> tuple[jax.Array, jax.Array, Condition, NullText]:
    """Noisy latents, times, what steers them, and the empty prompt."""
    rng = np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    condition = Condition(
        text=normal(BATCH, TOKENS, DIM),
        text_mask=jnp.arange(TOKENS) < jnp.asarray([[4], [6]]),
        plucker=normal(BATCH, LATENTS, HEIGHT, WIDTH, 6) if camera else None,
        clean=normal(BATCH, LATENTS, HEIGHT, WIDTH, 16),
        mask=jnp.broadcast_to(jnp.arange(LATENTS) < 1, (BATCH, LATENTS)),
    )
    null = NullText(normal(1, TOKENS, DIM), (jnp.arange(TOKENS) < 1)[None])
    return normal(BATCH, LATENTS, HEIGHT, WIDTH, 16), jnp.asarray([0.3, 0.8], jnp.float32), condition, null


class Model:
    """A stand-in whose velocity depends, not linearly, on every input; it records the batches it saw."""

    def __init__(self):
        self.batches: list[int] = []

    def __call__(self, noisy, time, condition):
        self.batches.append(noisy.shape[0])
        inputs = condition.inputs(noisy)
        words = jnp.sum(jnp.where(condition.text_mask[..., None], jnp.sin(condition.text), 0.0), axis=(1, 2))
        out = jnp.tanh(inputs[..., :16] + words[:, None, None, None, None] * (0.1 + inputs[..., 16:32]))
        out = out * (1.0 + time[:, None, None, None, None])
        if condition.plucker is not None:
            pose = jnp.sum(condition.plucker**2 + condition.plucker, axis=-1, keepdims=True)
            out = out * jnp.cos(pose) + 0.1 * pose
        return out


def guided(model, guidance, inputs):
    noisy, time, condition, null = inputs
    branches = guidance.branches(camera_input=condition.plucker is not None)
    weights = jnp.asarray([branch.weight for branch in branches], jnp.float32)
    return guided_velocity(model, weights, noisy, time, branch_conditions(branches, condition, null))


def one_call(inputs, *, text: bool, camera: bool):
    noisy, time, condition, null = inputs
    condition = condition if text else condition.without_text(null)
    return Model()(noisy, time, condition if camera else condition.without_camera())


def relative_l2(found, expected) -> float:
    return float(jnp.linalg.norm(found - expected) / jnp.linalg.norm(expected))


def test_joint_guidance_equals_its_formula_on_separate_calls():
    inputs, model = make_inputs(), Model()
    found = guided(model, Guidance(text=7.5, camera=6.0), inputs)
    none, text, both = (one_call(inputs, text=t, camera=c) for t, c in [(0, 0), (1, 0), (1, 1)])
    assert relative_l2(found, none + 7.5 * (text - none) + 6.0 * (both - text)) <= 1e-5
    assert model.batches == [3 * BATCH]


def test_cfg_prime_equals_its_formula_on_separate_calls():
    inputs, model = make_inputs(), Model()
    found = guided(model, Guidance(text=3.0, camera=2.5, camera_without_text=1.7), inputs)
    none, text, camera, both = (
        one_call(inputs, text=t, camera=c) for t, c in [(0, 0), (1, 0), (0, 1), (1, 1)]
    )
    expected = none + 3.0 * (text - none) + 1.7 * (camera - none) + 2.5 * (both - text)
    assert relative_l2(found, expected) <= 1e-5
    assert model.batches == [4 * BATCH]


def test_unit_weights_are_one_conditional_call_exactly():
    inputs, model = make_inputs(), Model()
    found = guided(model, Guidance(), inputs)
    np.testing.assert_array_equal(found, one_call(inputs, text=True, camera=True))
    assert model.batches == [BATCH]


def test_cfg_prime_without_its_first_camera_weight_is_joint_guidance():
    inputs = make_inputs()
    joint = guided(Model(), Guidance(text=4.0, camera=3.0), inputs)
    prime = Guidance(text=4.0, camera=3.0, camera_without_text=0.0)
    np.testing.assert_array_equal(guided(Model(), prime, inputs), joint)


def test_zero_weights_are_the_unconditional_call():
    inputs = make_inputs()
    found = guided(Model(), Guidance(text=0.0, camera=0.0), inputs)
    np.testing.assert_array_equal(found, one_call(inputs, text=False, camera=False))


@pytest.mark.parametrize(
    ("guidance", "evaluations", "without_camera"),
    [
        (Guidance(), 1, 1),
        (Guidance(text=1.0, camera=2.0), 2, 1),
        (Guidance(text=2.0, camera=2.0), 2, 2),
        (Guidance(text=3.0, camera=2.0), 3, 2),
        (Guidance(text=3.0, camera=2.0, camera_without_text=1.0), 4, 2),
        (Guidance(history=1.5), 2, 2),
        (Guidance(text=3.0, camera=2.0, history=1.5), 4, 3),
        (Guidance(text=2.0, camera=0.0, history=1.5), 3, 3),  # the fullest call has no camera
        (Guidance(text=3.0, camera=2.0, camera_without_text=1.0, history=0.5), 5, 3),
    ],
)
def test_only_branches_with_a_weight_are_evaluated(guidance, evaluations, without_camera):
    assert guidance.evaluations() == evaluations
    assert guidance.evaluations(camera_input=False) == without_camera
    assert sum(branch.weight for branch in guidance.branches()) == pytest.approx(1.0)


def test_model_without_camera_gets_text_guidance_only():
    inputs = make_inputs(camera=False)
    found = guided(Model(), Guidance(text=3.0, camera=5.0), inputs)
    text, none = (one_call(inputs, text=seen, camera=True) for seen in (True, False))
    assert relative_l2(found, none + 3.0 * (text - none)) <= 1e-5


def test_empty_prompt_of_another_length_is_refused():
    *_, condition, null = make_inputs()
    with pytest.raises(ValueError, match="same number of tokens"):
        condition.without_text(NullText(null.text[:, :3], null.mask[:, :3]))


def test_frames_to_generate_are_never_read_from_the_clean_latents():
    noisy, _, condition, _ = make_inputs()
    poisoned = Condition(
        condition.text,
        condition.text_mask,
        condition.plucker,
        condition.clean.at[:, 1:].set(jnp.nan),
        condition.mask,
    )
    np.testing.assert_array_equal(poisoned.inputs(noisy), condition.inputs(noisy))


def test_weights_must_be_finite():
    with pytest.raises(ValueError, match=r"Guidance\.camera"):
        Guidance(camera=float("nan"))
