"""Sampling: Euler steps along the learned flow from noise (t = 1) to data (t = 0).

T2V, I2V and extension are one path and differ only in ``condition_mask``, as in training: the clean condition
latents enter through the clean slot of the input, and the noisy slot at condition positions holds the noised
condition (1 - t) x_0 + t eps, as training does. Whatever the network answers there is ignored, and the
returned latents hold the conditions unchanged. Retrieved latents are conditions before the window; they are
not returned.

At condition positions the state of the loop has no use of its own; under history guidance it is that of the
call that knows no history (``camctrl_jax.diffusion.guidance``), which begins as noise there.

The same inputs and seed give the same output on the same hardware.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from camctrl_jax.diffusion.condition import Condition, NullText
from camctrl_jax.diffusion.flow import interpolate, shift_time
from camctrl_jax.diffusion.guidance import (
    Branch,
    Guidance,
    branch_conditions,
    guided_velocity,
    history_guided_velocity,
)
from camctrl_jax.errors import InvalidValue
from camctrl_jax.parallel.compiler import compiler_options

# velocity(params, noisy [B,L,h,w,C], time [B], condition) -> [B,L,h,w,C]
ModelVelocity = Callable[[Any, Array, Array, Condition], Array]

_GRID_LENGTH = 128


@dataclass(frozen=True)
class Sampling:
    """How clips are sampled.

    Attributes:
        guidance: weights of text, camera and history.
        steps: Euler steps.
        shift: timestep shift of the grid; None is that of training, which whoever samples fills in.
        condition_noise: level of noise, as a time of the flow, on the given latents that the network sees; 0
            is off. The paper's row with noise at inference; whoever samples applies it
            (``Condition.noised``).
    """

    guidance: Guidance = field(default_factory=Guidance)
    steps: int = 32
    shift: float | None = None
    condition_noise: float = 0.0

    def __post_init__(self) -> None:
        time_grid(self.steps, 1.0 if self.shift is None else self.shift)
        if not 0.0 <= self.condition_noise < 1.0:
            raise InvalidValue(
                f"condition_noise is {self.condition_noise}; expected a level from 0 (off) to below 1, "
                "such as 0.05."
            )


def time_grid(steps: int, shift: float) -> np.ndarray:
    """The shifted uniform grid 1 = t_0 > t_1 > ... > t_steps = 0.

    Args:
        steps: number of Euler steps, at least 1.
        shift: timestep shift s > 0; 1 is the uniform grid.

    Returns:
        f32 [steps + 1].

    Raises:
        ValueError: fewer than one step, or a shift that is not positive.
    """
    if steps < 1:
        raise InvalidValue(f"steps is {steps}; sampling needs at least 1 (32 is usual).")
    if not shift > 0:
        raise InvalidValue(f"shift is {shift}; expected a positive number (1 is no shift).")
    return np.asarray(shift_time(np.linspace(1.0, 0.0, steps + 1), shift), np.float32)


def initial_noise(seeds: Sequence[int], shape: Sequence[int], use: int | None = None) -> Array:
    """Standard normal noise, one independent sample per seed.

    Sample b is ``jax.random.normal(jax.random.key(seeds[b], impl="threefry2x32"), shape, float32)``: it
    depends on its own seed and on the shape only, not on the batch around it.

    Args:
        seeds: B integers in [0, 2**32).
        shape: (L, h, w, C) of one sample.
        use: a number that is folded into the key, for noise beside that of the clip itself.

    Returns:
        f32 [B, L, h, w, C].
    """
    for seed in seeds:
        if not 0 <= seed < 2**32:
            raise InvalidValue(f"seed is {seed}; expected an integer from 0 to {2**32 - 1}.")
    keys = jnp.stack([jax.random.key(seed, impl="threefry2x32") for seed in seeds])
    if use is not None:
        keys = jax.vmap(jax.random.fold_in, (0, None))(keys, use)
    return jax.vmap(lambda key: jax.random.normal(key, tuple(shape), jnp.float32))(keys)


def sample(
    velocity: ModelVelocity,
    params: Any,
    noise: Array,
    condition: Condition,
    null: NullText,
    sampling: Sampling,
    progress: Callable[[int, int], None] | None = None,
) -> Array:
    """Sample latents for a batch of clips in one compiled loop.

    The loop compiles once per ``velocity``, shapes and set of guidance branches; other guidance weights,
    shifts and numbers of steps reuse it. Pass the same function object to benefit.

    Args:
        velocity: the model as a pure function of its parameters.
        params: its parameters, any pytree.
        noise: f32 [B, R + L, h, w, C], see ``initial_noise``.
        condition: what the clips are steered with.
        null: the empty prompt.
        sampling: steps, guidance, and a shift, which must be given.
        progress: called with (steps done, steps) after each step, which then waits for the device; the
            result is the same.

    Returns:
        f32 [B, L, h, w, C]: the sampled latents, with the clean ones at condition positions.
    """
    if sampling.shift is None:
        raise InvalidValue("Sampling.shift is not given; expected a positive number (1 is no shift).")
    branches = sampling.guidance.branches(camera_input=condition.plucker is not None)
    weights = np.asarray([branch.weight for branch in branches], np.float32)
    calls = tuple(replace(branch, weight=0.0) for branch in branches)  # static, without weights
    steps = sampling.steps
    # Padded, so that another number of steps is the same program.
    grid = np.zeros(max(_GRID_LENGTH, steps + 1), np.float32)
    grid[: steps + 1] = time_grid(steps, sampling.shift)
    euler, told = _compiled_euler(jax.default_backend()), (condition, null)
    if progress is None:
        state = euler(velocity, calls, params, weights, grid, (0, steps), (noise, noise), told)
    else:
        state = noise
        for index in range(steps):
            bounds = index, index + 1
            state = euler(velocity, calls, params, weights, grid, bounds, (state, noise), told)
            jax.block_until_ready(state)
            progress(index + 1, steps)
    return state[:, condition.retrieved :] if condition.retrieved else state


@cache
def _compiled_euler(platform: str) -> Callable[..., Array]:
    return jax.jit(_euler, static_argnums=(0, 1), compiler_options=compiler_options(platform))


def _euler(
    velocity: ModelVelocity,
    branches: tuple[Branch, ...],
    params: Any,
    weights: Array,  # f32 [branches]
    grid: Array,  # f32 [at least steps + 1]
    bounds: tuple[Array, Array],  # i32 []; traced, so that segments of the loop are the same program
    start: tuple[Array, Array],  # f32 [B, R + L, h, w, C] before the first of these steps, and the noise
    told: tuple[Condition, NullText],
) -> Array:
    (state, noise), (condition, null) = start, told
    noise = noise.astype(jnp.float32)
    clean = condition.given.astype(jnp.float32)
    given = condition.mask[:, :, None, None, None]  # [B, R + L, 1, 1, 1]
    conditions = branch_conditions(branches, condition, null)
    model, window = partial(velocity, params), slice(condition.retrieved, None)

    def velocity_of(state: Array, time: Array, until: Array) -> Array:
        noisy = jnp.where(given, interpolate(clean, noise, time), state)
        asked = replace(conditions, until=jnp.broadcast_to(until, conditions.mask.shape[:1]))
        if branches[-1].history:
            return guided_velocity(model, weights, noisy, time, asked)
        told = replace(branches[-1].of(condition, null), until=jnp.broadcast_to(until, time.shape))
        guided, own = history_guided_velocity(model, weights, noisy, time, asked, state[:, window], told)
        return guided.at[:, window].set(jnp.where(given[:, window], own, guided[:, window]))

    def step(index: Array, state: Array) -> Array:
        time = jnp.broadcast_to(grid[index], noise.shape[:1])  # [B]
        return state + (grid[index + 1] - grid[index]) * velocity_of(state, time, grid[index + 1])

    state = jax.lax.fori_loop(*bounds, step, state.astype(jnp.float32))
    if branches[-1].history:
        return jnp.where(given, clean, state)
    # A segment that others follow hands on the state of the call without history, too.
    return jnp.where(given & (grid[bounds[1]] == 0.0), clean, state)
