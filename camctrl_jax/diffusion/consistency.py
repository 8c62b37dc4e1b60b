"""Consistency distillation in discrete time: a model of one step learns from its own answer a step nearer to
the data, where its teacher leads.

f(z, t) = z - t v(z, t) is the clip that a network sees at the end of a straight line from z. Along one path
of the teacher it is to be the same everywhere (arXiv 2303.01469; the first stage of APT, arXiv 2501.08316).
Pure functions over arrays; axes as in ``camctrl_jax.diffusion.distillation``.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from camctrl_jax.diffusion.distillation import Flow


def consistency_velocity(teacher: Flow, student: Flow, state: Array, times: Array) -> Array:
    """The velocity with which f at the start of a step of the teacher is f at its end.

    (z - f(z', r)) / t with z' = z + (r - t) v_T(z, t); at r = 0, f(z', 0) is z'.

    Args:
        teacher: the flow that leads, guided.
        student: the network that learns, as it is; its answer is a target, so no gradient is to flow here.
        state: z at t, f32 [B, R + L, h, w, C].
        times: f32 [B, 2], t > r.

    Returns:
        f32 [B, R + L, h, w, C]; to be read where nothing is given.
    """
    time, until = times[:, 0], times[:, 1]
    start, end = (x.reshape(x.shape + (1,) * (state.ndim - 1)) for x in (time, until))
    moved = state + (end - start) * teacher(state, time, until)
    # where: at time 0 a network may answer anything.
    seen = jnp.where(end > 0, moved - end * student(moved, until, jnp.zeros_like(until)), moved)
    return (state - seen) / start
