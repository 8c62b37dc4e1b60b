"""Figures of accelerators, from their data sheets, and which of them a device of JAX is."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Chip:
    """Figures of one device.

    Attributes:
        name: as in a topology.
        flops: dense bfloat16 operations per second.
        memory: bytes that a program can use.
        memory_rate: bytes per second to and from that memory.
        link_rate: bytes per second that one device sends to neighbours (a slice's or a host's other devices).
        network_rate: bytes per second that one device sends beyond those.
    """

    name: str
    flops: float
    memory: float
    memory_rate: float
    link_rate: float
    network_rate: float


_GIB = 2.0**30
CHIPS = {
    "v4": Chip("v4", 275e12, 31.25 * _GIB, 1.23e12, 300e9, 6e9),
    "v5e": Chip("v5e", 197e12, 15.75 * _GIB, 0.82e12, 200e9, 6e9),
    "v5p": Chip("v5p", 459e12, 95.74 * _GIB, 2.77e12, 600e9, 6e9),
    "v6e": Chip("v6e", 918e12, 31.25 * _GIB, 1.64e12, 400e9, 12e9),
    # A tenth of the memory is for the driver, the communication library and fragmentation.
    "a100-40": Chip("a100-40", 312e12, 0.9 * 40 * _GIB, 1.56e12, 300e9, 25e9),
    "a100": Chip("a100", 312e12, 0.9 * 80 * _GIB, 2.04e12, 300e9, 25e9),
    "h100": Chip("h100", 989e12, 0.9 * 84929347584, 3.35e12, 450e9, 50e9),
    "h200": Chip("h200", 989e12, 0.9 * 141e9, 4.8e12, 450e9, 50e9),
}

# What ``jax.Device.device_kind`` says of each, as regular expressions for all of it. A PCIe card of the same
# name is slower and has no entry.
_KINDS = {
    "v4": r"TPU v4",
    "v5e": r"TPU v5 ?(lite|e)",
    "v5p": r"TPU v5p?",
    "v6e": r"TPU v6 ?(lite|e)",
    "a100-40": r"NVIDIA A100-SXM4-40GB",
    "a100": r"NVIDIA A100-SXM4-80GB",
    "h100": r"NVIDIA H100 80GB HBM3",
    "h200": r"NVIDIA H200",
}


def chip_of(device_kind: str) -> Chip | None:
    """The chip that JAX calls so, e.g. ``NVIDIA H100 80GB HBM3`` or ``TPU v5 lite``; None if it is unknown,
    as CPUs are.
    """
    for name, pattern in _KINDS.items():
        if re.fullmatch(pattern, device_kind):
            return CHIPS[name]
    return None
