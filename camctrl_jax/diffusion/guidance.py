"""Guidance over text and camera: which conditional calls a sampling step makes and how they are weighted.

Two forms, both linear in the velocities, where ``v(c, s)`` is the model's velocity given text ``c`` and
camera ``s`` and 0 stands for the null condition (the empty prompt's embedding; a Pluecker map of zeros):

* joint guidance (CameraCtrl II, main Eq. 3), three branches::

    v(0,0) + text * [v(c,0) - v(0,0)] + camera * [v(c,s) - v(c,0)]

* CFG' (CameraCtrl II, appendix Eq. 1), four branches, when ``camera_without_text`` is given::

    v(0,0) + text * [v(c,0) - v(0,0)] + camera_without_text * [v(0,s) - v(0,0)] + camera * [v(c,s) - v(c,0)]

All branches of a step run as one batch: the inputs are repeated along the batch axis, branch by branch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array

# velocity(inputs [B,L,h,w,2C+1], time [B], text [B,N,D], text_mask [B,N], plucker [B,L,h,w,6] | None)
# -> [B,L,h,w,C]
Velocity = Callable[[Array, Array, Array, Array, "Array | None"], Array]


@dataclass(frozen=True)
class Branch:
    """One conditional call: whether it sees the text and the camera, and its weight in the sum."""

    text: bool
    camera: bool
    weight: float


@dataclass(frozen=True)
class Guidance:
    """Guidance weights of one sampling run.

    Attributes:
        text: weight of the text difference.
        camera: weight of the camera difference given the text (``w_cam`` of Eq. 3, ``w_cam2`` of CFG').
        camera_without_text: ``w_cam1`` of CFG'; None selects Eq. 3.

    ``Guidance()`` (both weights 1) is the plain conditional velocity ``v(c, s)``.
    """

    text: float = 1.0
    camera: float = 1.0
    camera_without_text: float | None = None

    def __post_init__(self) -> None:
        for name in ("text", "camera", "camera_without_text"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise ValueError(f"Guidance.{name} is {value}: expected a finite number such as 2.0.")

    def branches(self, *, camera_input: bool = True, drop_unused: bool = True) -> tuple[Branch, ...]:
        """The calls that one step needs, in the order in which they are batched.

        Args:
            camera_input: False for a model without a camera, where calls that differ in it are one.
            drop_unused: leave out calls whose weight is exactly 0 (at unit weights one call is left).

        The weights always sum to 1.
        """
        first = self.camera_without_text
        weights = {
            (False, False): 1.0 - self.text - (first or 0.0),
            (True, False): self.text - self.camera,
            (True, True): self.camera,
        }
        if first is not None:
            weights[False, True] = first
        if not camera_input:
            # Summed by hand rather than merged, so that rounding leaves no spurious weight on a branch.
            weights = {(False, False): 1.0 - self.text, (True, False): self.text}
        kept = tuple(
            Branch(text, camera, weight)
            for (text, camera), weight in weights.items()
            if weight != 0.0 or not drop_unused
        )
        return kept

    def evaluations(self, *, camera_input: bool = True) -> int:
        """Network evaluations per sampling step (1 to 4)."""
        return len(self.branches(camera_input=camera_input))


def guided_velocity(
    velocity: Velocity,
    guidance: Guidance,
    inputs: Array,
    time: Array,
    text: Array,
    text_mask: Array,
    null_text: Array,
    null_text_mask: Array,
    plucker: Array | None,
    *,
    drop_unused: bool = True,
) -> Array:
    """The guided velocity, all branches in one call of ``velocity``.

    Args:
        velocity: the model, see ``Velocity``.
        guidance: the weights (static: they decide how many branches there are).
        inputs: f[B, L, h, w, 2C + 1], noisy latent, clean condition latent and mask.
        time: f32[B] in [0, 1].
        text, text_mask: f[B, N, D] and bool[B, N] of the prompts.
        null_text, null_text_mask: f[1 or B, N, D] and bool[1 or B, N] of the empty prompt, padded to that N.
        plucker: f32[B, L, h, w, 6], or None for a model without a camera. Its null is zeros.
        drop_unused: see ``Guidance.branches``.

    Returns:
        f32[B, L, h, w, C].

    Raises:
        ValueError: the empty prompt is padded to another length than the prompts.
    """
    branches = guidance.branches(camera_input=plucker is not None, drop_unused=drop_unused)
    calls = tuple((branch.text, branch.camera) for branch in branches)
    weights = jnp.asarray([branch.weight for branch in branches], jnp.float32)
    return branch_velocity(
        velocity, calls, weights, inputs, time, text, text_mask, null_text, null_text_mask, plucker
    )


def branch_velocity(
    velocity: Velocity,
    calls: tuple[tuple[bool, bool], ...],
    weights: Array,
    inputs: Array,
    time: Array,
    text: Array,
    text_mask: Array,
    null_text: Array,
    null_text_mask: Array,
    plucker: Array | None,
) -> Array:
    """``guided_velocity`` with branches and weights apart: weights can then change without compiling again.

    Args:
        calls: per branch, whether it sees the text and whether it sees the camera (static).
        weights: f32 [branches], summing to 1; with a single branch it is not applied.

    Other arguments, result and errors as in ``guided_velocity``.
    """
    if null_text.shape[1:] != text.shape[1:] or null_text_mask.shape[1:] != text_mask.shape[1:]:
        raise ValueError(
            f"The empty prompt's embedding is {null_text.shape[1:]}, the prompts' {text.shape[1:]}: "
            "embed both with the same settings, so that they have the same number of tokens and channels."
        )
    null_text = jnp.broadcast_to(null_text, text.shape).astype(text.dtype)
    null_text_mask = jnp.broadcast_to(null_text_mask, text_mask.shape)
    count = len(calls)

    def batched(present: Array, absent: Array, used: list[bool]) -> Array:
        return jnp.concatenate([present if use else absent for use in used])  # [count * B, ...]

    sees_text = [with_text for with_text, _ in calls]
    cameras = None
    if plucker is not None:
        cameras = batched(plucker, jnp.zeros_like(plucker), [with_camera for _, with_camera in calls])
    velocities = velocity(
        jnp.concatenate([inputs] * count),
        jnp.concatenate([time] * count),
        batched(text, null_text, sees_text),
        batched(text_mask, null_text_mask, sees_text),
        cameras,
    )
    velocities = velocities.astype(jnp.float32)  # [count * B, L, h, w, C]
    if count == 1:
        return velocities
    # Weighted in float32, and not as a matrix product, which accelerators would round: at weights of 7 the
    # terms are large and of both signs.
    parts = jnp.split(velocities, count)  # count x [B, L, h, w, C]
    return sum(weights[i] * part for i, part in enumerate(parts))
