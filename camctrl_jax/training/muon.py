"""Muon: momentum whose matrices are made orthogonal before they become updates.

Every direction of a matrix then moves by the same amount, where Adam moves the few with large gradients. It
learns more per step; what it costs are some small matrix products per step, the same for any batch.

Source: Keller Jordan, https://kellerjordan.github.io/posts/muon; the scale that lets it share Adam's learning
rate is that of arXiv 2502.16982. Same numbers as ``optax.contrib.muon`` with ``consistent_rms``, but matrices
of one size are treated as one batch: tens of kernels on an accelerator, not thousands.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import accumulate
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the odd quintic that pushes singular values towards 1
_ITERATIONS = 5


class MuonState(NamedTuple):
    """Attributes:
    count: i32 [], finished updates.
    mu: moving average of the gradients, same tree.
    """

    count: Array
    mu: optax.Updates


def orthogonalise(matrices: Array) -> Array:
    """Bring all singular values of each matrix to about 1 (0.7 to 1.2): f32 [n, rows, columns] -> same."""
    transposed = matrices.shape[1] > matrices.shape[2]
    x = jnp.swapaxes(matrices, 1, 2) if transposed else matrices
    x = x / (jnp.linalg.norm(x, axis=(1, 2), keepdims=True) + 1e-8)
    a, b, c = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        gram = x @ jnp.swapaxes(x, 1, 2)  # [n, rows, rows], the shorter side
        x = a * x + (b * gram + c * gram @ gram) @ x
    return jnp.swapaxes(x, 1, 2) if transposed else x


def scale_by_muon(momentum: float, update_rms: float = 0.2) -> optax.GradientTransformation:
    """Nesterov momentum, orthogonalised and scaled; every leaf is a matrix or a convolution.

    The last axis of a leaf is its output, the others together are its input. A leaf of three axes is a stack
    of matrices, one per layer.

    Args:
        momentum: decay rate of the average of gradients.
        update_rms: root mean square of the entries of an update, before the learning rate.
    """

    def init(params: optax.Params) -> MuonState:
        return MuonState(jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, params))

    def update(
        grads: optax.Updates, state: MuonState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, MuonState]:
        del params
        count = state.count + 1
        mu = jax.tree.map(lambda m, g: momentum * m + (1 - momentum) * g, state.mu, grads)
        now, ahead = 1 - momentum**count, 1 - momentum ** (count + 1)
        momenta, structure = jax.tree.flatten(
            jax.tree.map(lambda m, g: momentum * m / ahead + (1 - momentum) * g / now, mu, grads)
        )
        stacks = [_as_stack(leaf) for leaf in momenta]
        of_size = defaultdict(list)
        for index, stack in enumerate(stacks):
            of_size[stack.shape[1:]].append(index)
        updates: list = [None] * len(stacks)
        for size, indices in of_size.items():
            together = jnp.concatenate([stacks[i] for i in indices])
            done = update_rms * max(size) ** 0.5 * orthogonalise(together)
            ends = list(accumulate(len(stacks[i]) for i in indices))
            for index, part in zip(indices, jnp.split(done, ends[:-1])):
                updates[index] = part.reshape(momenta[index].shape)
        return jax.tree.unflatten(structure, updates), MuonState(count, mu)

    return optax.GradientTransformation(init, update)


def _as_stack(leaf: Array) -> Array:
    """[n, rows, columns]: the matrices that a leaf holds."""
    return leaf if leaf.ndim == 3 else leaf.reshape(1, -1, leaf.shape[-1])
