"""The training state and its exponential moving average."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

Params = dict[str, Any]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Trained:
    """A network that is trained beside the one that a run is for: a discriminator, for instance."""

    params: Params
    opt_state: optax.OptState


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """Everything a step changes. Randomness is folded from the step, so no key is stored.

    Attributes:
        step: i32 [], number of finished updates.
        params: nested dict of f32 arrays.
        ema: moving average of ``params``, same tree.
        opt_state: state of the optax transformation.
        others: by role, what else the objective trains.
        kept: by role, what an objective hands on from step to step beside parameters: arrays in dictionaries.
    """

    step: Array
    params: Params
    ema: Params
    opt_state: optax.OptState
    others: dict[str, Trained] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)


def create_state(
    params: Params,
    optimizer: optax.GradientTransformation,
    others: Mapping[str, tuple[Params, optax.GradientTransformation]] | None = None,
    kept: Mapping[str, Any] | None = None,
) -> TrainState:
    """A state at step 0 whose average starts at ``params``.

    Args:
        params: nested dict of f32 arrays.
        optimizer: transformation for ``params``.
        others: by role, parameters of further networks with their own transformations.
        kept: by role, what is handed on beside parameters, as it begins.
    """
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        # A copy: the state is donated, and one buffer cannot be donated twice.
        ema=jax.tree.map(jnp.copy, params),
        opt_state=optimizer.init(params),
        others={role: Trained(own, rule.init(own)) for role, (own, rule) in (others or {}).items()},
        kept=dict(kept or {}),
    )


def global_norm(tree: Any) -> Array:
    """Root of the sum of all squared entries, f32 []."""
    return jnp.sqrt(sum(jnp.sum(jnp.square(leaf.astype(jnp.float32))) for leaf in jax.tree.leaves(tree)))


def ema_decay_at(step: Array, decay: float) -> Array:
    """Decay of the average after ``step`` finished updates: min(decay, (1 + step) / (10 + step)).

    The warm-up makes the average span about the last tenth of a short run, where a constant 0.9999 would
    still hold the initial weights.
    """
    step = step.astype(jnp.float32)
    return jnp.minimum(decay, (1.0 + step) / (10.0 + step))


def update_ema(ema: Params, params: Params, decay: Array) -> Params:
    """decay * ema + (1 - decay) * params, leaf by leaf."""
    return jax.tree.map(lambda average, new: average + (1.0 - decay) * (new - average), ema, params)
