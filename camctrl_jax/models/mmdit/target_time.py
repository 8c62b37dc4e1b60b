"""A flow map all of whose steps lead to one time is a plain transformer with another bias."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from camctrl_jax.models.mmdit.layers import TargetTimeEmbed

_PART = "target_time_embed"


def leading_to(params: dict, until: float) -> dict:
    """Parameters of the transformer without ``target_time`` that answers as a flow map asked for steps to
    ``until``: what the map is told of that time is a constant, and becomes part of the time embedding's bias.

    Args:
        params: of an :class:`MMDiT` with ``config.target_time``, layers stacked or not; numpy arrays, or JAX
            arrays, which stay where they are.
        until: the time that every step leads to, in [0, 1); with 0 a step from noise makes a clip.
    """
    rest = {name: part for name, part in params.items() if name != _PART}
    outer = rest["time_text_embed"]
    inner = outer["timestep_embedder"]
    last = inner["linear_2"]
    bias = last["bias"]

    def folded(bias: Array, told: Any) -> Array:
        embed = TargetTimeEmbed(bias.shape[0])
        return bias + embed.apply({"params": told}, jnp.full(1, until))[0].astype(bias.dtype)

    home = bias.sharding if isinstance(bias, jax.Array) else None
    bias = jax.jit(folded, out_shardings=home)(bias, params[_PART])
    inner = inner | {"linear_2": last | {"bias": bias}}
    return rest | {"time_text_embed": outer | {"timestep_embedder": inner}}
