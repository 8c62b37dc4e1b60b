"""Adam whose moments take half the memory: stored in bfloat16 between steps.

The parameters and the arithmetic stay float32.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from camctrl_jax.errors import InvalidValue

MOMENTS = ("float32", "bfloat16")


def scale_by_short_adam(b1: float, b2: float, eps: float = 1e-8) -> optax.GradientTransformation:
    """``optax.scale_by_adam`` with both moments stored in bfloat16.

    Args:
        b1, b2: decay rates.
        eps: added to the root of the second moment.
    """

    def init(params: Any) -> optax.ScaleByAdamState:
        mu, nu = (jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.bfloat16), params) for _ in range(2))
        return optax.ScaleByAdamState(jnp.zeros((), jnp.int32), mu, nu)

    def update(
        gradients: Any, state: optax.ScaleByAdamState, params: Any = None
    ) -> tuple[Any, optax.ScaleByAdamState]:
        del params
        count = optax.safe_increment(state.count)
        unbias = [1.0 - jnp.float32(b) ** count for b in (b1, b2)]
        gradients = jax.tree.map(lambda gradient: gradient.astype(jnp.float32), gradients)
        mu = jax.tree.map(lambda m, g: b1 * m.astype(jnp.float32) + (1.0 - b1) * g, state.mu, gradients)
        nu = jax.tree.map(
            lambda n, g: b2 * n.astype(jnp.float32) + (1.0 - b2) * jnp.square(g), state.nu, gradients
        )
        updates = jax.tree.map(lambda m, n: (m / unbias[0]) / (jnp.sqrt(n / unbias[1]) + eps), mu, nu)
        mu, nu = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), (mu, nu))
        return updates, optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(init, update)


def check_moments(moments: str) -> None:
    """Raises: ValueError if there are no moments of this name."""
    if moments not in MOMENTS:
        raise InvalidValue(f"optimizer.moments={moments!r} is unknown; choose one of {', '.join(MOMENTS)}.")
