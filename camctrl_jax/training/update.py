"""From a loss to the next state: accumulation, optimizer and moving average, written once for all
objectives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from camctrl_jax.errors import InvalidValue
from camctrl_jax.training.state import (
    Params,
    Trained,
    TrainState,
    ema_decay_at,
    global_norm,
    update_ema,
)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Examples:
    """What a loss is computed of: one pytree, ready for differentiation.

    Attributes:
        inputs: arrays [B, ...].
        weights: f32 or i32 [B], what each sample counts in the mean that the loss is: latents to generate,
            for instance.
    """

    inputs: Any
    weights: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Aside:
    """What a loss gives beside its value.

    Attributes:
        samples: pytree of arrays [B, ...], in the order of the batch.
        means: scalars f32 [] that are means over samples, as the loss is.
    """

    samples: Any = ()
    means: dict[str, Array] = field(default_factory=dict)


# loss(params, inputs) -> (f32 [], Aside)
Loss = Callable[[Params, Any], tuple[Array, Aside]]


class Gradients(NamedTuple):
    """Of one batch: the loss f32 [], what came beside it, and the gradients, a tree like the parameters."""

    loss: Array
    aside: Aside
    grads: Params


@dataclass(frozen=True)
class Update:
    """How gradients become parameters.

    Attributes:
        optimizer: the transformation.
        schedule: its learning rate as a function of the number of finished updates, for logs.
        ema_decay: decay of the moving average.
        accumulate: parts of a batch that are differentiated one after the other, with the result of the whole
            and the activations of one.
    """

    optimizer: optax.GradientTransformation
    schedule: optax.Schedule = lambda step: jnp.nan
    ema_decay: float = 0.9999
    accumulate: int = 1

    def gradients(self, loss: Loss, params: Params, examples: Examples) -> Gradients:
        """Differentiate a loss over a batch, in ``accumulate`` parts."""
        grad_of = jax.value_and_grad(loss, has_aux=True)
        if self.accumulate == 1:
            (value, aside), grads = grad_of(params, examples.inputs)
            return Gradients(value, aside, grads)
        parts, weights = parts_of((examples.inputs, examples.weights), self.accumulate)
        # The loss is a weighted mean, and parts have different weights.
        shares = jnp.maximum(weights.sum(axis=1), 1) / jnp.maximum(weights.sum(), 1)

        def add(carry: Any, part: Any) -> tuple[Any, Any]:
            share, inputs = part
            (value, aside), grads = grad_of(params, inputs)
            sums = jax.tree.map(lambda s, new: s + share * new, carry, (value, aside.means, grads))
            return sums, aside.samples

        one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), parts)
        (_, aside), _ = jax.eval_shape(grad_of, params, one)
        start = jnp.zeros(()), jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), aside.means)
        start = (*start, jax.tree.map(jnp.zeros_like, params))
        (value, means, grads), samples = jax.lax.scan(add, start, (shares, parts))
        samples = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1).reshape(-1, *x.shape[2:]), samples)
        return Gradients(value, Aside(samples, means), grads)

    def apply(self, state: TrainState, grads: Params) -> TrainState:
        """One optimizer update, one step of the average, one count; other networks stay as they are."""
        with jax.named_scope("optimizer"):
            updates, opt_state = self.optimizer.update(grads, state.opt_state, state.params)
            params = optax.apply_updates(state.params, updates)
        with jax.named_scope("moving_average"):
            ema = update_ema(state.ema, params, ema_decay_at(state.step, self.ema_decay))
        return replace(state, step=state.step + 1, params=params, ema=ema, opt_state=opt_state)

    def apply_to(self, network: Trained, grads: Params, share: Array | float = 1.0) -> Trained:
        """One optimizer update of a network beside the one that a run is for, which has no average.

        Args:
            network: with a state of ``optimizer``.
            grads: a tree like its parameters.
            share: what of the update is made, decay included; 0 leaves the parameters as they are.
        """
        updates, opt_state = self.optimizer.update(grads, network.opt_state, network.params)
        updates = jax.tree.map(lambda update: share * update, updates)
        return Trained(optax.apply_updates(network.params, updates), opt_state)

    def minimise(
        self, state: TrainState, loss: Loss, examples: Examples
    ) -> tuple[TrainState, Aside, dict[str, Array]]:
        """:meth:`gradients`, then :meth:`apply`.

        Returns:
            (the next state, what the loss gave beside its value, and f32 []: ``loss``, ``grad_norm`` and
            ``learning_rate``, NaN without a schedule).
        """
        found = self.gradients(loss, state.params, examples)
        # Part of the step, for evaluated beside it the host would wait for the device.
        rate = jnp.asarray(self.schedule(state.step), jnp.float32)
        metrics = {"loss": found.loss, "grad_norm": global_norm(found.grads), "learning_rate": rate}
        return self.apply(state, found.grads), found.aside, metrics


def parts_of(tree: Any, parts: int) -> Any:
    """Cut the batch of every array into ``parts``: [B, ...] -> [parts, B / parts, ...].

    Part i holds the samples i, i + parts, ...: cut over devices, each device keeps its samples, and has as
    many of every part.

    Raises:
        InvalidValue: B is not a multiple of ``parts``.
    """

    def cut(x: Array) -> Array:
        if x.shape[0] % parts:
            raise InvalidValue(f"a batch of {x.shape[0]} cannot be accumulated in {parts} equal parts.")
        return jnp.swapaxes(x.reshape(x.shape[0] // parts, parts, *x.shape[1:]), 0, 1)

    return jax.tree.map(cut, tree)
