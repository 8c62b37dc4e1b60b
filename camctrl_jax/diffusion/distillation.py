"""Distillation: from the velocities of a teacher to what a student with fewer steps is to answer.

A student of progressive distillation (arXiv 2202.00512) makes in one Euler step what its teacher makes in
several. A student that is a flow map makes steps of any length: it is told where a step leads, learns the
shortest ones from the teacher, and each longer one from two of its own of half the length (shortcut models,
arXiv 2410.12557). Guidance is folded in where the teacher is asked, once.

Pure functions over arrays. Axes: B batch, L latent frames of the window, R retrieved ones, h w latent height
and width, C channels, N steps of the teacher within one of the student's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
from jax import Array

from camctrl_jax.diffusion.condition import Condition, NullText
from camctrl_jax.diffusion.flow import interpolate, shift_time
from camctrl_jax.diffusion.guidance import Guidance, Velocity
from camctrl_jax.diffusion.sampler import time_grid
from camctrl_jax.errors import InvalidValue

# flow(state f32 [B, R + L, h, w, C], time f32 [B], until f32 [B]) -> velocity f32 [B, R + L, h, w, C]
Flow = Callable[[Array, Array, Array], Array]


def guided(
    velocity: Velocity,
    guidance: Guidance,
    condition: Condition,
    null: NullText | None,
    noise: Array,
) -> Flow:
    """The guided velocity of a network along its flow, as the sampler evaluates it.

    What is given (retrieved latents, too) is noised anew at every time, whatever the state holds there. Calls
    of weight 0 are not made; the others follow each other, so that memory is that of one. A sample without a
    camera has a map of zeros: its calls with and without camera agree, so that the camera's weight has no
    part in what comes out.

    Args:
        velocity: of the network.
        guidance: weights; ``Guidance()`` is the plain velocity.
        condition: what steers the clips.
        null: the empty prompt; may be None where every call sees the text.
        noise: f32 [B, R + L, h, w, C], of the clips; what is given is noised with it.

    Raises:
        InvalidValue: guidance by history, which has a running state of its own.
    """
    if guidance.history != 1.0:
        raise InvalidValue(f"Guidance.history is {guidance.history}: it cannot be distilled; expected 1.")
    branches = guidance.branches(camera_input=condition.plucker is not None)
    told = [branch.of(condition, null) for branch in branches]
    clean, given = condition.given.astype(jnp.float32), condition.mask[:, :, None, None, None]

    def flow(state: Array, time: Array, until: Array) -> Array:
        noisy = jnp.where(given, interpolate(clean, noise, time), state)

        def ask(condition: Condition) -> Array:
            return velocity(noisy, time, replace(condition, until=until)).astype(jnp.float32)

        if len(told) == 1:
            return ask(told[0])

        def add(total: Array, branch: tuple[Array, Condition]) -> tuple[Array, None]:
            weight, condition = branch
            return total + weight * ask(condition), None

        # Not one call of a longer batch, as in sampling: samples then stay on their devices.
        weights = jnp.asarray([branch.weight for branch in branches], jnp.float32)
        conditions = jax.tree.map(lambda *leaves: jnp.stack(leaves), *told)
        return jax.lax.scan(add, jnp.zeros(noisy.shape, jnp.float32), (weights, conditions))[0]

    return flow


def merged_velocity(flow: Flow, state: Array, times: Array) -> Array:
    """The velocity that leads in one step where Euler steps along a flow lead in N.

    Of two steps, from t over m to r, it is a v(z, t) + (1 - a) v(z + (m - t) v(z, t), m), a = (t - m) / (t -
    r): a plain mean on a uniform grid only.

    Args:
        flow: the teacher's.
        state: z at the first time, f32 [B, R + L, h, w, C].
        times: f32 [B, N + 1], falling along each row.

    Returns:
        f32 [B, R + L, h, w, C]; to be read where nothing is given.
    """
    whole = times[:, 0] - times[:, -1]

    def step(carry: tuple[Array, Array], ends: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
        (state, merged), (time, until) = carry, ends
        velocity = flow(state, time, until)
        share = _over_clips((time - until) / whole, state)
        moved = state + _over_clips(until - time, state) * velocity
        return (moved, merged + share * velocity), None

    start = state.astype(jnp.float32), jnp.zeros(state.shape, jnp.float32)
    ends = times[:, :-1].T, times[:, 1:].T
    return jax.lax.scan(step, start, ends)[0][1]


def step_times(key: Array, batch: int, steps: int, teacher_steps: int, shift: float) -> Array:
    """The times of one step of the student's sampler for each sample, with the teacher's between.

    Args:
        key: a ``jax.random.key``.
        batch: B.
        steps: Euler steps of the student.
        teacher_steps: of the teacher, a multiple of them, N each.
        shift: timestep shift of both grids.

    Returns:
        f32 [B, N + 1], from the start of the step, a node of the student's grid, to its end.
    """
    if steps < 1 or teacher_steps % steps:
        raise InvalidValue(f"{teacher_steps} steps of a teacher cannot be merged into {steps} equal parts.")
    inside = teacher_steps // steps
    first = inside * jax.random.randint(key, (batch, 1), 0, steps)
    return jnp.asarray(time_grid(teacher_steps, shift))[first + jnp.arange(inside + 1)]


def interval_times(key: Array, levels: Array, finest: int, shift: float) -> Array:
    """Ends and middle of intervals of the unshifted time, each of a length and aligned to it, shifted.

    Args:
        key: a ``jax.random.key``.
        levels: i32 [B], k of an interval of 2^k / finest.
        finest: the number of intervals of level 0 in [0, 1], a power of two.
        shift: timestep shift s.

    Returns:
        f32 [B, 3]: start t > middle m > end r.
    """
    length = jnp.left_shift(1, levels)  # in parts of 1 / finest
    count = finest // length
    place = jnp.floor(jax.random.uniform(key, levels.shape) * count).astype(jnp.int32)
    end = jnp.minimum(place, count - 1) * length  # a uniform number that rounds to 1 would be one too far
    halves = jnp.stack([2 * (end + length), 2 * end + length, 2 * end], axis=-1)
    return shift_time(halves.astype(jnp.float32) / (2.0 * finest), shift)


def _over_clips(per_sample: Array, like: Array) -> Array:
    """f32 [B] as [B, 1, ...], to be multiplied with clips."""
    return per_sample.reshape(per_sample.shape + (1,) * (like.ndim - 1))
