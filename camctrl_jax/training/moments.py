"""Adam whose moments take less memory: bfloat16, or eight bits with a scale for every block of entries.

The masters and the arithmetic stay float32; only what is stored between steps is short. Eight-bit moments
follow the idea of arXiv 2110.02861: entries of one block share a scale, and codes are spread unevenly, so
that small entries keep a relative precision too.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

MOMENTS = ("float32", "bfloat16", "int8")

# Entries that share a scale, along the last axis: few enough that no block spans two shards of a matrix.
BLOCK = 64
_LARGEST = 127  # of the first moment's codes, -127 .. 127
_LARGEST_SQUARE = 255  # of the second moment's codes, 0 .. 255


class CompactAdamState(NamedTuple):
    """State of :func:`scale_by_compact_adam`; every tree has the structure of the parameters.

    Attributes:
        count: i32 [], finished updates.
        mu, nu: the moments in the dtype they are stored in: bfloat16, or i8 and u8 codes; f32 for arrays that
            are not matrices.
        mu_scale, nu_scale: f32 [..., last / BLOCK], the largest entry of every block; an empty node where the
            moment is not coded.
    """

    count: Array
    mu: Any
    nu: Any
    mu_scale: Any
    nu_scale: Any


def encode_signed(x: Array) -> tuple[Array, Array]:
    """f32 [..., n * BLOCK] -> (codes i8 of the same shape, scales f32 [..., n]).

    A code c stands for sign(c) (c / 127)^2 times the block's scale: the step between neighbouring codes
    shrinks towards zero.
    """
    blocks = x.reshape(*x.shape[:-1], -1, BLOCK)
    scale = jnp.max(jnp.abs(blocks), axis=-1)
    share = blocks / jnp.where(scale == 0, 1.0, scale)[..., None]
    codes = jnp.round(jnp.sign(share) * jnp.sqrt(jnp.abs(share)) * _LARGEST)
    return codes.astype(jnp.int8).reshape(x.shape), scale


def decode_signed(codes: Array, scale: Array) -> Array:
    """Inverse of :func:`encode_signed`, up to rounding."""
    share = codes.astype(jnp.float32).reshape(*scale.shape, BLOCK) / _LARGEST
    return (share * jnp.abs(share) * scale[..., None]).reshape(codes.shape)


def encode_positive(x: Array) -> tuple[Array, Array]:
    """f32 [..., n * BLOCK], not negative -> (codes u8 of the same shape, scales f32 [..., n]).

    A code c stands for (c / 255)^4 times the block's scale: squares of gradients span many orders of
    magnitude. What is not zero never becomes zero, for the update divides by it.
    """
    blocks = x.reshape(*x.shape[:-1], -1, BLOCK)
    scale = jnp.max(blocks, axis=-1)
    share = blocks / jnp.where(scale == 0, 1.0, scale)[..., None]
    codes = jnp.round(jnp.sqrt(jnp.sqrt(share)) * _LARGEST_SQUARE)
    codes = jnp.where((blocks > 0) & (codes == 0), 1.0, codes)
    return codes.astype(jnp.uint8).reshape(x.shape), scale


def decode_positive(codes: Array, scale: Array) -> Array:
    """Inverse of :func:`encode_positive`, up to rounding."""
    share = codes.astype(jnp.float32).reshape(*scale.shape, BLOCK) / _LARGEST_SQUARE
    return (jnp.square(jnp.square(share)) * scale[..., None]).reshape(codes.shape)


def scale_by_compact_adam(
    b1: float, b2: float, moments: str, eps: float = 1e-8
) -> optax.GradientTransformation:
    """``optax.scale_by_adam`` with stored moments of another kind.

    Args:
        b1, b2: decay rates.
        moments: 'float32', 'bfloat16' or 'int8'. Eight bits are for kernels whose last axis is a multiple of
            ``BLOCK``; other arrays (biases, norms) are few and stay float32.
        eps: added to the root of the second moment.

    Raises:
        ValueError: ``moments`` is unknown.
    """
    check_moments(moments)

    def coded(path: tuple, leaf: Array) -> bool:
        name = str(getattr(path[-1], "key", path[-1])) if path else ""
        return moments == "int8" and name.endswith("kernel") and leaf.shape[-1] % BLOCK == 0

    def stored(path: tuple, moment: Array, signed: bool) -> tuple[Array, Array]:
        """(what is kept of a moment, its scales)."""
        if coded(path, moment):
            return encode_signed(moment) if signed else encode_positive(moment)
        short = moments == "bfloat16"
        return moment.astype(jnp.bfloat16 if short else jnp.float32), optax.MaskedNode()

    def read(path: tuple, moment: Array, scale: Array, signed: bool) -> Array:
        if coded(path, moment):
            return decode_signed(moment, scale) if signed else decode_positive(moment, scale)
        return moment.astype(jnp.float32)

    def trees(pairs: list[tuple[Array, Array]], structure: Any) -> tuple[Any, Any]:
        return tuple(jax.tree.unflatten(structure, part) for part in zip(*pairs))

    def init(params: Any) -> CompactAdamState:
        leaves, structure = jax.tree_util.tree_flatten_with_path(params)

        def zeros(signed: bool) -> tuple[Any, Any]:
            return trees([stored(path, jnp.zeros(leaf.shape), signed) for path, leaf in leaves], structure)

        (mu, mu_scale), (nu, nu_scale) = zeros(True), zeros(False)
        return CompactAdamState(jnp.zeros((), jnp.int32), mu, nu, mu_scale, nu_scale)

    def update(gradients: Any, state: CompactAdamState, params: Any = None) -> tuple[Any, CompactAdamState]:
        del params
        leaves, structure = jax.tree_util.tree_flatten_with_path(gradients)
        count = optax.safe_increment(state.count)
        unbias = [1.0 - jnp.float32(b) ** count for b in (b1, b2)]
        kept = [structure.flatten_up_to(tree) for tree in state[1:]]
        updates, mus, nus = [], [], []
        for (path, gradient), mu, nu, mu_scale, nu_scale in zip(leaves, *kept):
            gradient = gradient.astype(jnp.float32)
            mu = b1 * read(path, mu, mu_scale, True) + (1.0 - b1) * gradient
            nu = b2 * read(path, nu, nu_scale, False) + (1.0 - b2) * jnp.square(gradient)
            updates.append((mu / unbias[0]) / (jnp.sqrt(nu / unbias[1]) + eps))
            mus.append(stored(path, mu, True))
            nus.append(stored(path, nu, False))
        (mu, mu_scale), (nu, nu_scale) = trees(mus, structure), trees(nus, structure)
        return jax.tree.unflatten(structure, updates), CompactAdamState(count, mu, nu, mu_scale, nu_scale)

    return optax.GradientTransformation(init, update)


def check_moments(moments: str) -> None:
    """Raises: ValueError if there are no moments of this name."""
    if moments not in MOMENTS:
        raise ValueError(f"optimizer.moments={moments!r} is unknown; choose one of {', '.join(MOMENTS)}.")
