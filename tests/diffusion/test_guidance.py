"""Guidance: the two published forms, their identities, and batching of the branches."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from camctrl_jax.diffusion.guidance import Guidance, guided_velocity

BATCH, LATENTS, HEIGHT, WIDTH, TOKENS, DIM = 2, 3, 4, 5, 6, 7


def make_inputs() -> dict[str, jax.Array]:
    rng = np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    return {
        "inputs": normal(BATCH, LATENTS, HEIGHT, WIDTH, 33),
        "time": jnp.asarray([0.3, 0.8], jnp.float32),
        "text": normal(BATCH, TOKENS, DIM),
        "text_mask": jnp.arange(TOKENS) < jnp.asarray([[4], [6]]),
        "null_text": normal(1, TOKENS, DIM),
        "null_text_mask": (jnp.arange(TOKENS) < 1)[None],
        "plucker": normal(BATCH, LATENTS, HEIGHT, WIDTH, 6),
    }


class Model:
    """A stand-in whose velocity depends, not linearly, on every input; it records the batches it saw."""

    def __init__(self):
        self.batches: list[int] = []

    def __call__(self, inputs, time, text, text_mask, plucker):
        self.batches.append(inputs.shape[0])
        words = jnp.sum(jnp.where(text_mask[..., None], jnp.sin(text), 0.0), axis=(1, 2))  # [B]
        out = jnp.tanh(inputs[..., :16] + words[:, None, None, None, None] * inputs[..., 16:32])
        out = out * (1.0 + time[:, None, None, None, None])
        if plucker is not None:
            pose = jnp.sum(plucker**2, axis=-1, keepdims=True) + jnp.sum(plucker, axis=-1, keepdims=True)
            out = out * jnp.cos(pose) + 0.1 * pose
        return out


def one_call(inputs, *, text: bool, camera: bool):
    return Model()(
        inputs["inputs"],
        inputs["time"],
        inputs["text"] if text else jnp.broadcast_to(inputs["null_text"], inputs["text"].shape),
        inputs["text_mask"]
        if text
        else jnp.broadcast_to(inputs["null_text_mask"], inputs["text_mask"].shape),
        inputs["plucker"] if camera else jnp.zeros_like(inputs["plucker"]),
    )


def relative_l2(found, expected) -> float:
    return float(jnp.linalg.norm(found - expected) / jnp.linalg.norm(expected))


def test_joint_guidance_equals_its_formula_on_separate_calls():
    inputs, model = make_inputs(), Model()
    found = guided_velocity(model, Guidance(text=7.5, camera=6.0), **inputs)
    none, text, both = (one_call(inputs, text=t, camera=c) for t, c in [(0, 0), (1, 0), (1, 1)])
    assert relative_l2(found, none + 7.5 * (text - none) + 6.0 * (both - text)) <= 1e-5
    assert model.batches == [3 * BATCH]


def test_cfg_prime_equals_its_formula_on_separate_calls():
    inputs, model = make_inputs(), Model()
    found = guided_velocity(model, Guidance(text=3.0, camera=2.5, camera_without_text=1.7), **inputs)
    none, text, camera, both = (
        one_call(inputs, text=t, camera=c) for t, c in [(0, 0), (1, 0), (0, 1), (1, 1)]
    )
    expected = none + 3.0 * (text - none) + 1.7 * (camera - none) + 2.5 * (both - text)
    assert relative_l2(found, expected) <= 1e-5
    assert model.batches == [4 * BATCH]


def test_unit_weights_are_one_conditional_call_exactly():
    inputs, model = make_inputs(), Model()
    found = guided_velocity(model, Guidance(), **inputs)
    np.testing.assert_array_equal(found, one_call(inputs, text=True, camera=True))
    assert model.batches == [BATCH]


def test_unit_weights_with_every_branch_evaluated_are_the_conditional_call():
    inputs, model = make_inputs(), Model()
    found = guided_velocity(model, Guidance(), **inputs, drop_unused=False)
    assert model.batches == [3 * BATCH]
    np.testing.assert_array_equal(found, one_call(inputs, text=True, camera=True))


def test_cfg_prime_without_its_first_camera_weight_is_joint_guidance():
    inputs = make_inputs()
    joint = guided_velocity(Model(), Guidance(text=4.0, camera=3.0), **inputs)
    prime = Guidance(text=4.0, camera=3.0, camera_without_text=0.0)
    np.testing.assert_array_equal(guided_velocity(Model(), prime, **inputs), joint)
    model = Model()
    every = guided_velocity(model, prime, **inputs, drop_unused=False)
    assert model.batches == [4 * BATCH]
    assert relative_l2(every, joint) <= 1e-6


def test_zero_weights_are_the_unconditional_call():
    inputs = make_inputs()
    found = guided_velocity(Model(), Guidance(text=0.0, camera=0.0), **inputs)
    np.testing.assert_array_equal(found, one_call(inputs, text=False, camera=False))


@pytest.mark.parametrize(
    ("guidance", "evaluations", "without_camera"),
    [
        (Guidance(), 1, 1),
        (Guidance(text=1.0, camera=2.0), 2, 1),
        (Guidance(text=2.0, camera=2.0), 2, 2),
        (Guidance(text=3.0, camera=2.0), 3, 2),
        (Guidance(text=3.0, camera=2.0, camera_without_text=1.0), 4, 2),
    ],
)
def test_only_branches_with_a_weight_are_evaluated(guidance, evaluations, without_camera):
    assert guidance.evaluations() == evaluations
    assert guidance.evaluations(camera_input=False) == without_camera
    assert sum(branch.weight for branch in guidance.branches(drop_unused=False)) == pytest.approx(1.0)


def test_model_without_camera_gets_text_guidance_only():
    inputs = make_inputs() | {"plucker": None}
    found = guided_velocity(Model(), Guidance(text=3.0, camera=5.0), **inputs)
    text = Model()(inputs["inputs"], inputs["time"], inputs["text"], inputs["text_mask"], None)
    null = [jnp.broadcast_to(inputs[f"null_{key}"], inputs[key].shape) for key in ("text", "text_mask")]
    none = Model()(inputs["inputs"], inputs["time"], *null, None)
    assert relative_l2(found, none + 3.0 * (text - none)) <= 1e-5


def test_empty_prompt_of_another_length_is_refused():
    inputs = make_inputs()
    inputs["null_text"] = inputs["null_text"][:, :3]
    with pytest.raises(ValueError, match="same number of tokens"):
        guided_velocity(Model(), Guidance(), **inputs)


def test_weights_must_be_finite():
    with pytest.raises(ValueError, match=r"Guidance\.camera"):
        Guidance(camera=float("nan"))
