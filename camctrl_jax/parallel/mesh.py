"""The device mesh: which of the four axes the devices are laid along, within and across hosts and slices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np

from camctrl_jax.errors import InvalidValue

AXES = ("data", "fsdp", "context", "tensor")
CONTEXT_ATTENTIONS = ("allgather", "ulysses")


@dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis; at most one may be -1, which takes what is left.

    Attributes:
        data: copies of the model, each with its own part of the batch.
        fsdp: parts of the batch that also share out the parameters and the optimizer state.
        context: parts of one clip (its tokens; its latent rows outside the transformer).
        tensor: parts of one matrix product (heads, hidden units).
        context_attention: how tokens of different parts attend to each other: 'allgather' brings all keys
            and values to every device; 'ulysses' exchanges tokens for heads, which moves less, and needs
            heads that ``tensor`` times ``context`` divides.
    """

    data: int = -1
    fsdp: int = 1
    context: int = 1
    tensor: int = 1
    context_attention: str = "allgather"

    def __post_init__(self) -> None:
        if self.context_attention not in CONTEXT_ATTENTIONS:
            raise InvalidValue(
                f"mesh.context_attention={self.context_attention!r} is unknown; "
                f"choose one of {CONTEXT_ATTENTIONS}."
            )

    def sizes(self, devices: int) -> tuple[int, ...]:
        """The four sizes for a number of devices.

        Raises:
            ValueError: they do not multiply to ``devices``.
        """
        sizes = [getattr(self, axis) for axis in AXES]
        if any(size < 1 and size != -1 for size in sizes) or sizes.count(-1) > 1:
            raise InvalidValue(
                f"mesh sizes {dict(zip(AXES, sizes))} must be positive; one of them may be -1."
            )
        if -1 in sizes:
            rest = math.prod(size for size in sizes if size != -1)
            sizes[sizes.index(-1)] = max(devices // rest, 1)
        if math.prod(sizes) != devices:
            raise InvalidValue(
                f"mesh {dict(zip(AXES, sizes))} needs {math.prod(sizes)} devices, but there are {devices}; "
                "set --config.mesh.<axis> so that the sizes multiply to it (-1 takes what is left)."
            )
        return tuple(sizes)


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> jax.sharding.Mesh:
    """A mesh over all devices (or ``devices``) with the axes data, fsdp, context and tensor.

    The axes are Auto: the compiler places intermediate values, the code says where arrays begin and end.
    Connections within a slice of a TPU, or within a host with GPUs, are many times faster than those across:
    ``data`` lies across slices; across hosts lie ``data`` first, then ``fsdp``.

    Raises:
        ValueError: the sizes do not multiply to the devices, or ``data`` does not divide by the slices.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = config.sizes(len(devices))
    axis_types = (jax.sharding.AxisType.Auto,) * len(AXES)
    return jax.sharding.Mesh(device_grid(sizes, devices), AXES, axis_types=axis_types)


def device_grid(sizes: tuple[int, ...], devices: Sequence[jax.Device]) -> np.ndarray:
    """The devices as an array of shape ``sizes``, neighbours along the last axes connected fastest."""
    from jax.experimental import mesh_utils

    if devices[0].platform == "cpu":  # forced host devices have no topology to lay a mesh along
        return np.asarray(devices).reshape(sizes)
    tpu = devices[0].platform == "tpu"
    slices = len({getattr(device, "slice_index", 0) for device in devices}) if tpu else 1
    if slices > 1:
        if sizes[0] % slices:
            raise InvalidValue(
                f"{slices} slices are connected by network only, so mesh.data must be a multiple of "
                f"{slices}, but it is {sizes[0]}; lower mesh.fsdp, mesh.context or mesh.tensor."
            )
        return mesh_utils.create_hybrid_device_mesh(
            (sizes[0] // slices, *sizes[1:]), (slices, 1, 1, 1), devices, allow_split_physical_axes=True
        )
    hosts = len({device.process_index for device in devices})
    across = hosts_along(sizes, hosts)
    if tpu or hosts == 1 or across is None:
        return mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    within = tuple(size // outer for size, outer in zip(sizes, across))
    return mesh_utils.create_hybrid_device_mesh(within, across, devices, process_is_granule=True)


def hosts_along(sizes: tuple[int, ...], hosts: int) -> tuple[int, int, int, int] | None:
    """How many hosts lie along each axis: as many as fit along ``data``, the rest along ``fsdp``.

    Returns:
        Four sizes that multiply to ``hosts``, or None where a part of a clip or of a matrix product has to
        span hosts.
    """
    data = math.gcd(sizes[0], hosts)
    fsdp = hosts // data
    return (data, fsdp, 1, 1) if sizes[1] % fsdp == 0 else None
