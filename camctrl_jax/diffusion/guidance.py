"""Guidance over text, camera and history: which calls a sampling step makes and how they are weighted.

Two forms, both linear in the velocities, where ``v(c, s)`` is the model's velocity given text ``c`` and
camera ``s`` and 0 stands for the null condition (the empty prompt's embedding; a Pluecker map of zeros):

* joint guidance (CameraCtrl II, main Eq. 3), three branches::

    v(0,0) + text * [v(c,0) - v(0,0)] + camera * [v(c,s) - v(c,0)]

* CFG' (CameraCtrl II, appendix Eq. 1), four branches, when ``camera_without_text`` is given::

    v(0,0) + text * [v(c,0) - v(0,0)] + camera_without_text * [v(0,s) - v(0,0)] + camera * [v(c,s) - v(c,0)]

History guidance (DFoT, arXiv 2502.06764) adds to either, with ``v(c, s, H)`` for the fullest call of the
form, which sees the given and retrieved latents H, and ``v(c, s, -)`` for the same call without them::

    (history - 1) * [v(c, s, H) - v(c, s, -)]

The call without history is a T2V call: the window alone, nothing given, every latent of it noisy. At given
positions it must not see what the other calls see in the noisy slot, the noised truth, or history would leak;
it has a running state of its own there, which begins as noise and follows this call's own velocity, while the
positions to generate are shared. So it imagines a past of its own for what is generated. Its camera is
relative to the window's first, as text to video has it in training, whatever the other calls' is relative to.

All branches of a step that see the history run as one batch: conditions are repeated along the batch axis,
branch by branch. The one without is a second, shorter batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import jax.numpy as jnp
from jax import Array

from camctrl_jax.diffusion.condition import Condition, NullText, stacked
from camctrl_jax.errors import InvalidValue

# velocity(noisy [B,L,h,w,C], time [B], condition) -> [B,L,h,w,C]
Velocity = Callable[[Array, Array, Condition], Array]


@dataclass(frozen=True)
class Branch:
    """One call: whether it sees the text, the camera and the history, and its weight in the sum."""

    text: bool
    camera: bool
    weight: float
    history: bool = True

    def of(self, condition: Condition, null: NullText | None) -> Condition:
        """What this call is told; ``null`` is needed by those that do not see the text."""
        condition = condition if self.text else condition.without_text(null)
        condition = replace(condition, begun=None) if self.history else condition.without_history()
        return condition if self.camera else condition.without_camera()


@dataclass(frozen=True)
class Guidance:
    """Guidance weights of one sampling run.

    Attributes:
        text: weight of the text difference.
        camera: weight of the camera difference given the text (``w_cam`` of Eq. 3, ``w_cam2`` of CFG').
        camera_without_text: ``w_cam1`` of CFG'; None selects Eq. 3.
        history: weight of what is given and retrieved; 1 is off. About 1.5 holds on to it more; above 3,
            motion freezes.

    ``Guidance()`` (all weights 1) is the plain conditional velocity ``v(c, s)``.
    """

    text: float = 1.0
    camera: float = 1.0
    camera_without_text: float | None = None
    history: float = 1.0

    def __post_init__(self) -> None:
        for name in ("text", "camera", "camera_without_text", "history"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise InvalidValue(f"Guidance.{name} is {value}: expected a finite number such as 2.0.")

    def branches(self, *, camera_input: bool = True) -> tuple[Branch, ...]:
        """The calls that one step needs, in the order in which they are batched; their weights sum to 1.

        A call whose weight is exactly 0 is left out: at unit weights one call is left. That without history
        comes last.

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
        excess = self.history - 1.0
        if excess == 0.0:
            return tuple(Branch(*seen, weight) for seen, weight in weights.items() if weight != 0.0)
        fullest = (True, camera_input and self.camera != 0.0)
        weights[fullest] += excess
        branches = [Branch(*seen, weight) for seen, weight in weights.items() if weight != 0.0]
        return (*branches, Branch(*fullest, -excess, history=False))

    def evaluations(self, *, camera_input: bool = True) -> int:
        """Network evaluations per sampling step (1 to 5)."""
        return len(self.branches(camera_input=camera_input))


def branch_conditions(branches: Sequence[Branch], condition: Condition, null: NullText) -> Condition:
    """What all calls of a step that see the history are told, along the batch: [branches * B, ...]."""
    return stacked([branch.of(condition, null) for branch in branches if branch.history])


def guided_velocity(
    velocity: Velocity, weights: Array, noisy: Array, time: Array, conditions: Condition
) -> Array:
    """The weighted sum of branches that all see the history, in one call of ``velocity``.

    Weights are apart from conditions, so that they can change without compiling again.

    Args:
        velocity: the model.
        weights: f32 [branches], summing to 1; with a single branch it is not applied.
        noisy: x_t, f32 [B, R + L, h, w, C].
        time: f32 [B] in [0, 1].
        conditions: of :func:`branch_conditions`.

    Returns:
        f32 [B, R + L, h, w, C].
    """
    parts = _velocities(velocity, weights.shape[0], noisy, time, conditions)
    return parts[0] if len(parts) == 1 else _weighted(weights, parts)


def history_guided_velocity(
    velocity: Velocity,
    weights: Array,
    noisy: Array,
    time: Array,
    conditions: Condition,
    state: Array,
    without: Condition,
) -> tuple[Array, Array]:
    """:func:`guided_velocity` where the last branch is the one without history; two calls of ``velocity``.

    Args:
        velocity, noisy, time, conditions: as there.
        weights: f32 [branches + 1], summing to 1, the branch without history last.
        state: f32 [B, L, h, w, C], the window as that branch sees it: at positions to generate as ``noisy``,
            at given ones its own. See the module.
        without: what that branch is told.

    Returns:
        (the weighted sum f32 [B, R + L, h, w, C], to be read where nothing is given; the velocity of the
        branch without history f32 [B, L, h, w, C]).
    """
    parts = _velocities(velocity, weights.shape[0] - 1, noisy, time, conditions)
    own = velocity(state, time, without).astype(jnp.float32)
    retrieved = noisy.shape[1] - state.shape[1]
    padded = jnp.pad(own, [(0, 0), (retrieved, 0), (0, 0), (0, 0), (0, 0)])
    return _weighted(weights, [*parts, padded]), own


def _velocities(
    velocity: Velocity, count: int, noisy: Array, time: Array, conditions: Condition
) -> list[Array]:
    """The velocity of each branch, ``count`` x f32 [B, R + L, h, w, C]."""
    velocities = velocity(jnp.concatenate([noisy] * count), jnp.concatenate([time] * count), conditions)
    velocities = velocities.astype(jnp.float32)  # [branches * B, R + L, h, w, C]
    return [velocities] if count == 1 else jnp.split(velocities, count)


def _weighted(weights: Array, parts: Sequence[Array]) -> Array:
    # Weighted in float32, and not as a matrix product, which accelerators would round: at weights of 7 the
    # terms are large and of both signs.
    return sum(weights[i] * part for i, part in enumerate(parts))
