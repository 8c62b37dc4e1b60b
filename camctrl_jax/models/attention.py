"""Attention with one interface over the backends' kernels.

Axes: B batch, S query tokens, K key tokens, N heads, H head dimension.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array

Implementation = Literal["auto", "xla", "cudnn"]

_HALF_PRECISION = (jnp.bfloat16, jnp.float16)


def choose_implementation(implementation: Implementation, dtype: jnp.dtype) -> Literal["xla", "cudnn"]:
    """Resolve ``'auto'`` for the default backend and the dtype of the queries.

    cuDNN's fused kernel needs half precision and is the only acceptable choice at video lengths on a GPU
    (603 against 118 TFLOP/s for XLA on one H200); everywhere else XLA materialises the scores.
    """
    if implementation == "auto":
        half = any(dtype == half for half in _HALF_PRECISION)
        return "cudnn" if half and jax.default_backend() == "gpu" else "xla"
    if implementation not in ("xla", "cudnn"):
        raise ValueError(f"attention={implementation!r} is unknown; choose 'auto', 'xla' or 'cudnn'.")
    return implementation


def attention(
    query: Array,
    key: Array,
    value: Array,
    key_lengths: Array | None = None,
    *,
    implementation: Implementation = "auto",
) -> Array:
    """Softmax attention of every query over the first ``key_lengths`` keys.

    Args:
        query: [B, S, N, H], any float dtype; scores are scaled by 1/sqrt(H) and the softmax runs in float32.
        key, value: [B, K, N, H].
        key_lengths: int [B], how many leading keys are valid; None means all. Padding must be a suffix.
        implementation: 'auto', 'xla' or 'cudnn'.

    Returns: [B, S, N, H] in the dtype of ``query``.
    """
    if key_lengths is not None:
        key_lengths = key_lengths.astype(jnp.int32)
    return jax.nn.dot_product_attention(
        query,
        key,
        value,
        key_value_seq_lengths=key_lengths,
        implementation=choose_implementation(implementation, query.dtype),
    )
