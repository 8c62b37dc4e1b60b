"""Sampling: Euler steps along the learned flow from noise (t = 1) to data (t = 0).

T2V, I2V and extension are one path and differ only in ``condition_mask``, as in training: the clean condition
latents enter through the clean slot of the input, and the noisy slot at condition positions holds the noised
condition (1 - t) x_0 + t eps, as training does. Whatever the network answers there is ignored, and the
returned latents hold the conditions unchanged.

The same inputs and seed give the same output on the same hardware.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from camctrl_jax.compiler import compiler_options
from camctrl_jax.diffusion.conditions import assemble_input
from camctrl_jax.diffusion.flow import interpolate, shift_time
from camctrl_jax.diffusion.guidance import Guidance, branch_velocity

# velocity(params, inputs, time, text, text_mask, plucker) -> [B, L, h, w, C]; shapes as in guidance.Velocity.
ModelVelocity = Callable[[Any, Array, Array, Array, Array, "Array | None"], Array]

_GRID_LENGTH = 128


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
        raise ValueError(f"steps is {steps}; sampling needs at least 1 (32 is usual).")
    if not shift > 0:
        raise ValueError(f"shift is {shift}; expected a positive number (1 is no shift).")
    return np.asarray(shift_time(np.linspace(1.0, 0.0, steps + 1), shift), np.float32)


def initial_noise(seeds: Sequence[int], shape: Sequence[int]) -> Array:
    """Standard normal noise, one independent sample per seed.

    Sample b is ``jax.random.normal(jax.random.key(seeds[b], impl="threefry2x32"), shape, float32)``: it
    depends on its own seed and on the shape only, not on the batch around it.

    Args:
        seeds: B integers in [0, 2**32).
        shape: (L, h, w, C) of one sample.

    Returns:
        f32 [B, L, h, w, C].
    """
    for seed in seeds:
        if not 0 <= seed < 2**32:
            raise ValueError(f"seed is {seed}; expected an integer from 0 to {2**32 - 1}.")
    keys = jnp.stack([jax.random.key(seed, impl="threefry2x32") for seed in seeds])
    return jax.vmap(lambda key: jax.random.normal(key, tuple(shape), jnp.float32))(keys)


def sample(
    velocity: ModelVelocity,
    params: Any,
    noise: Array,
    clean: Array,
    condition_mask: Array,
    text: Array,
    text_mask: Array,
    null_text: Array,
    null_text_mask: Array,
    plucker: Array | None,
    *,
    guidance: Guidance,
    steps: int = 32,
    shift: float,
    progress: Callable[[int, int], None] | None = None,
) -> Array:
    """Sample latents for a batch of clips in one compiled loop.

    The loop compiles once per ``velocity``, shapes and set of guidance branches; other guidance weights,
    shifts and numbers of steps reuse it. Pass the same function object to benefit.

    Args:
        velocity: the model as a pure function of its parameters.
        params: its parameters, any pytree.
        noise: f32 [B, L, h, w, C], see ``initial_noise``.
        clean: f [B, L, h, w, C], normalised latents; only condition frames are read.
        condition_mask: bool [B, L]: none for T2V, the first for I2V, the first Lc for extension.
        text, text_mask: f [B, N, D], bool [B, N].
        null_text, null_text_mask: f [1 or B, N, D], bool [1 or B, N] of the empty prompt.
        plucker: f32 [B, L, h, w, 6], or None for a model without a camera.
        guidance: weights; see ``Guidance``.
        steps: Euler steps.
        shift: timestep shift of the grid.
        progress: called with (steps done, steps) after each step, which then waits for the device; the
            result is the same.

    Returns:
        f32 [B, L, h, w, C]: the sampled latents, with the clean ones at condition positions.
    """
    branches = guidance.branches(camera_input=plucker is not None)
    calls = tuple((branch.text, branch.camera) for branch in branches)
    weights = np.asarray([branch.weight for branch in branches], np.float32)
    # Padded, so that another number of steps is the same program.
    grid = np.zeros(max(_GRID_LENGTH, steps + 1), np.float32)
    grid[: steps + 1] = time_grid(steps, shift)
    arrays = (noise, clean, condition_mask, text, text_mask, null_text, null_text_mask, plucker)
    euler = _compiled_euler(jax.default_backend())
    if progress is None:
        return euler(velocity, calls, params, weights, grid, 0, steps, noise, *arrays)
    state = noise
    for index in range(steps):
        state = euler(velocity, calls, params, weights, grid, index, index + 1, state, *arrays)
        jax.block_until_ready(state)
        progress(index + 1, steps)
    return state


@cache
def _compiled_euler(platform: str) -> Callable[..., Array]:
    return jax.jit(_euler, static_argnums=(0, 1), compiler_options=compiler_options(platform))


def _euler(
    velocity: ModelVelocity,
    calls: tuple[tuple[bool, bool], ...],
    params: Any,
    weights: Array,  # f32 [branches]
    grid: Array,  # f32 [at least steps + 1]
    first: Array,  # i32 []; the bounds are traced, so that segments of the loop are the same program
    last: Array,  # i32 []
    state: Array,  # f32 [B, L, h, w, C] before step `first`
    noise: Array,
    clean: Array,
    condition_mask: Array,
    text: Array,
    text_mask: Array,
    null_text: Array,
    null_text_mask: Array,
    plucker: Array | None,
) -> Array:
    noise = noise.astype(jnp.float32)
    given = condition_mask[:, :, None, None, None]  # [B, L, 1, 1, 1]
    # where: frames that are yet to be generated may hold anything, NaN included.
    clean = jnp.where(given, clean, 0.0).astype(jnp.float32)

    def step(index: Array, state: Array) -> Array:
        time = jnp.broadcast_to(grid[index], noise.shape[:1])  # [B]
        noisy = jnp.where(given, interpolate(clean, noise, time), state)
        change = branch_velocity(
            partial(velocity, params),
            calls,
            weights,
            assemble_input(noisy, clean, condition_mask),
            time,
            text,
            text_mask,
            null_text,
            null_text_mask,
            plucker,
        )
        return state + (grid[index + 1] - grid[index]) * change

    state = jax.lax.fori_loop(first, last, step, state.astype(jnp.float32))
    return jnp.where(given, clean, state)
