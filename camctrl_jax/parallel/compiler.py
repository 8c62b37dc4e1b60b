"""Settings of XLA that large programs are compiled with."""

from __future__ import annotations

import jax


def compiler_options(platform: str | None = None, *, traced: bool = False) -> dict[str, bool | str]:
    """What ``jax.jit(..., compiler_options=...)`` is given for a platform.

    On a GPU matrix products go to cuBLAS alone: its kernels reach the rates of Triton's at the sizes of this
    model, and autotuning Triton's doubles the compile time (docs/results/performance.md). The same
    setting in XLA_FLAGS is overruled.

    Args:
        platform: 'cpu', 'gpu' (or 'cuda') or 'tpu'; None is that of the default backend.
        traced: a profile is made: no CUDA graphs, for a trace shows no names of what runs in one. Costs 2 %.
    """
    platform = jax.default_backend() if platform is None else platform
    if platform not in ("gpu", "cuda"):
        return {}
    options = {"xla_gpu_enable_triton_gemm": False}
    return options | {"xla_gpu_enable_command_buffer": ""} if traced else options
