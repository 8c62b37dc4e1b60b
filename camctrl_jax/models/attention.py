"""Attention with one interface over the backends' kernels.

Axes: B batch, S query tokens, K key tokens, N heads, H head dimension.
"""

from __future__ import annotations

import math
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array

from camctrl_jax.errors import InvalidValue

Implementation = Literal["auto", "xla", "cudnn", "splash"]
Kernel = Literal["xla", "cudnn", "splash"]

_HALF_PRECISION = (jnp.bfloat16, jnp.float16)
# Tokens that one step of the TPU kernel takes at most, of queries and of keys.
_SPLASH_BLOCK = 512
_SPLASH_LANES = 128


def choose_implementation(
    implementation: Implementation, dtype: jnp.dtype, platform: str | None = None
) -> Kernel:
    """Resolve ``'auto'`` for a platform and the dtype of the queries.

    cuDNN's fused kernel needs half precision and is the only acceptable choice at video lengths on a GPU
    (603 against 118 TFLOP/s for XLA on one H200); on a TPU the splash kernel is; elsewhere, and in single
    precision on a GPU, XLA materialises the scores.

    Args:
        implementation: what the configuration says.
        dtype: of the queries.
        platform: 'cpu', 'gpu' (or 'cuda', 'rocm') or 'tpu'; None is that of the default backend.
    """
    if implementation == "auto":
        platform = jax.default_backend() if platform is None else platform
        if platform == "tpu":
            return "splash"
        half = any(dtype == half for half in _HALF_PRECISION)
        return "cudnn" if half and platform in ("gpu", "cuda") else "xla"
    if implementation not in ("xla", "cudnn", "splash"):
        raise InvalidValue(
            f"attention={implementation!r} is unknown; choose 'auto', 'xla', 'cudnn' or 'splash'."
        )
    return implementation


@jax.named_scope("attention")
def attention(
    query: Array,
    key: Array,
    value: Array,
    key_lengths: Array | None = None,
    *,
    implementation: Implementation = "auto",
    platform: str | None = None,
) -> Array:
    """Softmax attention of every query over the first ``key_lengths`` keys.

    Args:
        query: [B, S, N, H], any float dtype; scores are scaled by 1/sqrt(H) and the softmax runs in float32.
        key, value: [B, K, N, H].
        key_lengths: int [B], how many leading keys are valid; None means all. Padding must be a suffix.
        implementation: 'auto', 'xla', 'cudnn' or 'splash'.
        platform: where it will run, if that is not the default backend.

    Returns: [B, S, N, H] in the dtype of ``query``.
    """
    kernel = choose_implementation(implementation, query.dtype, platform)
    if key_lengths is not None:
        key_lengths = key_lengths.astype(jnp.int32)
    if kernel == "splash":
        return _splash(query, key, value, key_lengths, platform)
    return jax.nn.dot_product_attention(
        query, key, value, key_value_seq_lengths=key_lengths, implementation=kernel
    )


def _splash(query: Array, key: Array, value: Array, key_lengths: Array | None, platform: str | None) -> Array:
    """The TPU kernel; elsewhere its interpreter, which is slow and for tests.

    It takes whole blocks only: both sequences are padded, and what was added to the keys, or lies beyond
    their lengths, belongs to a segment that no query is in.
    """
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernel
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    platform = jax.default_backend() if platform is None else platform
    batch, queries, heads, head_dim = query.shape
    keys = key.shape[1]
    block_q, block_kv = _splash_block(queries), _splash_block(keys)
    padded = [-(-length // block) * block for length, block in ((queries, block_q), (keys, block_kv))]
    scaled = (query.astype(jnp.float32) * (1.0 / math.sqrt(head_dim))).astype(query.dtype)

    def laid_out(x: Array, length: int) -> Array:
        """[B, T, N, H] -> [B, N, length, H]."""
        return jnp.pad(x, ((0, 0), (0, length - x.shape[1]), (0, 0), (0, 0))).swapaxes(1, 2)

    blocks = kernel.BlockSizes(
        block_q=block_q,
        block_kv=block_kv,
        block_kv_compute=block_kv,
        block_q_dkv=block_q,
        block_kv_dkv=block_kv,
        block_kv_dkv_compute=block_kv,
        block_q_dq=block_q,
        block_kv_dq=block_kv,
    )
    # The mask is a description, not an array; inside a trace its tables must still be constants.
    with jax.ensure_compile_time_eval():
        run = kernel.make_splash_mha(
            masks.MultiHeadMask([masks.FullMask(tuple(padded)) for _ in range(heads)]),
            block_sizes=blocks,
            head_shards=1,
            q_seq_shards=1,
            interpret=platform != "tpu",
        )
    operands = [laid_out(scaled, padded[0]), laid_out(key, padded[1]), laid_out(value, padded[1])]
    if key_lengths is None and padded[1] == keys:
        out = jax.vmap(run)(*operands)
    else:
        lengths = jnp.full((batch,), keys, jnp.int32) if key_lengths is None else key_lengths
        valid = (jnp.arange(padded[1])[None] < lengths[:, None]).astype(jnp.int32)  # [B, K padded]
        segments = kernel.SegmentIds(q=jnp.ones((batch, padded[0]), jnp.int32), kv=valid)
        out = jax.vmap(run)(*operands, segments)
    return out.swapaxes(1, 2)[:, :queries].astype(query.dtype)


def _splash_block(length: int) -> int:
    """The largest block that does not add more padding than the kernel's lanes ask for anyway."""
    return min(_SPLASH_BLOCK, -(-length // _SPLASH_LANES) * _SPLASH_LANES)
