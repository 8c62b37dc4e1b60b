"""Guidance over text and camera: which conditional calls a sampling step makes and how they are weighted.

Two forms, both linear in the velocities, where ``v(c, s)`` is the model's velocity given text ``c`` and
camera ``s`` and 0 stands for the null condition (the empty prompt's embedding; a Pluecker map of zeros):

* joint guidance (CameraCtrl II, main Eq. 3), three branches::

    v(0,0) + text * [v(c,0) - v(0,0)] + camera * [v(c,s) - v(c,0)]

* CFG' (CameraCtrl II, appendix Eq. 1), four branches, when ``camera_without_text`` is given::

    v(0,0) + text * [v(c,0) - v(0,0)] + camera_without_text * [v(0,s) - v(0,0)] + camera * [v(c,s) - v(c,0)]

All branches of a step run as one batch: conditions are repeated along the batch axis, branch by branch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array

from camctrl_jax.diffusion.condition import Condition, NullText, stacked
from camctrl_jax.errors import InvalidValue

# velocity(noisy [B,L,h,w,C], time [B], condition) -> [B,L,h,w,C]
Velocity = Callable[[Array, Array, Condition], Array]


@dataclass(frozen=True)
class Branch:
    """One conditional call: whether it sees the text and the camera, and its weight in the sum."""

    text: bool
    camera: bool
    weight: float

    def of(self, condition: Condition, null: NullText) -> Condition:
        """What this call is told."""
        condition = condition if self.text else condition.without_text(null)
        return condition if self.camera else condition.without_camera()


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
                raise InvalidValue(f"Guidance.{name} is {value}: expected a finite number such as 2.0.")

    def branches(self, *, camera_input: bool = True) -> tuple[Branch, ...]:
        """The calls that one step needs, in the order in which they are batched; their weights sum to 1.

        A call whose weight is exactly 0 is left out: at unit weights one call is left.

        Args:
            camera_input: False for a model without a camera, where calls that differ in it are one.
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
        return tuple(Branch(*seen, weight) for seen, weight in weights.items() if weight != 0.0)

    def evaluations(self, *, camera_input: bool = True) -> int:
        """Network evaluations per sampling step (1 to 4)."""
        return len(self.branches(camera_input=camera_input))


def branch_conditions(branches: Sequence[Branch], condition: Condition, null: NullText) -> Condition:
    """What all calls of a step are told, branch by branch along the batch: [branches * B, ...]."""
    return stacked([branch.of(condition, null) for branch in branches])


def guided_velocity(
    velocity: Velocity, weights: Array, noisy: Array, time: Array, conditions: Condition
) -> Array:
    """The weighted sum of all branches, in one call of ``velocity``.

    Weights are apart from conditions, so that they can change without compiling again.

    Args:
        velocity: the model.
        weights: f32 [branches], summing to 1; with a single branch it is not applied.
        noisy: x_t, f32 [B, L, h, w, C].
        time: f32 [B] in [0, 1].
        conditions: of :func:`branch_conditions`.

    Returns:
        f32 [B, L, h, w, C].
    """
    count = weights.shape[0]
    velocities = velocity(jnp.concatenate([noisy] * count), jnp.concatenate([time] * count), conditions)
    velocities = velocities.astype(jnp.float32)  # [branches * B, L, h, w, C]
    if count == 1:
        return velocities
    # Weighted in float32, and not as a matrix product, which accelerators would round: at weights of 7 the
    # terms are large and of both signs.
    parts = jnp.split(velocities, count)  # branches x [B, L, h, w, C]
    return sum(weights[i] * part for i, part in enumerate(parts))
