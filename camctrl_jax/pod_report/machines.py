"""Accelerators that are not there, as the compiler takes their descriptions."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from camctrl_jax.errors import InvalidValue
from camctrl_jax.parallel.chips import CHIPS, Chip

# A TPU pod is described by its grid of chips; v4 and tpu7x have two devices a chip and are left out.
TPU_CHIPS = ("v5e", "v5p", "v6e")

# What the compiler has to know of an H100 that it cannot ask; XLA's GpuTargetConfigProto.
_H100_TARGET = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
  shared_memory_per_core: 233472 threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
  device_memory_size: 84929347584 shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 } registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA" dnn_version_info { major: 9 minor: 12 } runtime_version { major: 13 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
_GPUS_PER_HOST = 8


@dataclass(frozen=True)
class Machine:
    """Devices to compile for.

    Attributes:
        topology: as the user wrote it, e.g. ``v5p:4x4x8`` or ``h100x64``.
        chip: figures of one device.
        devices: stand-ins for ``jax.devices()``.
    """

    topology: str
    chip: Chip
    devices: Sequence[Any]


def set_environment() -> None:
    """Set what JAX and libtpu read when they are imported: no accelerator, no questions to a cloud, several
    compilers at a time. Call it before anything imports JAX.
    """
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    os.environ.setdefault("TPU_STDERR_LOG_LEVEL", "3")
    os.environ.setdefault("TPU_MIN_LOG_LEVEL", "3")
    # No device to try kernels on.
    flags = "--xla_gpu_enable_triton_gemm=false --xla_gpu_autotune_level=0"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()


def machine_of(topology: str) -> Machine:
    """The machine of a topology: ``v5p:4x4x8`` (a grid of TPU chips) or ``h100x64`` (GPUs, eight a host).

    Raises:
        ValueError: it is not written so, or its compiler is not installed; names what to install.
    """
    # Not at the top: set_environment comes before anything imports JAX.
    from jax.experimental import topologies

    tpu = re.fullmatch(r"(v\w+):(\d+(x\d+){1,2})", topology)
    gpu = re.fullmatch(r"h100x(\d+)", topology)
    if tpu and tpu[1] in TPU_CHIPS:
        install = "pip install 'camctrl_jax[tpu]'"
        described = {"platform": "tpu", "topology_name": topology}
        chip = CHIPS[tpu[1]]
    elif gpu and (int(gpu[1]) < _GPUS_PER_HOST or int(gpu[1]) % _GPUS_PER_HOST == 0):
        count = int(gpu[1])
        grid = f"1x{max(count // _GPUS_PER_HOST, 1)}x{min(count, _GPUS_PER_HOST)}"
        # With the versions of JAX itself; none of NVIDIA's libraries.
        install = "pip install --no-deps jax-cuda13-plugin==VERSION jax-cuda13-pjrt==VERSION of your jax"
        described = {
            "platform": "cuda",
            "topology_name": "h100",
            "topology": grid,
            "target_config": _H100_TARGET,
        }
        chip = CHIPS["h100"]
    else:
        raise InvalidValue(
            f"--topology={topology} is unknown; expected a grid of TPU chips ({', '.join(TPU_CHIPS)}) such "
            "as v5p:4x4x8 or v6e:8x8, or a number of GPUs such as h100x64, a multiple of 8."
        )
    try:
        devices = topologies.get_topology_desc(**described).devices
    except Exception as error:
        reason = str(error).splitlines()[0][:200]
        raise InvalidValue(
            f"--topology={topology} cannot be described here ({type(error).__name__}: {reason}). Its "
            f"compiler comes with: {install}"
        ) from error
    return Machine(topology, chip, devices)
