"""The device mesh: which of the four axes the devices are laid along."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np

AXES = ("data", "fsdp", "context", "tensor")


@dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis; at most one may be -1, which takes what is left.

    Attributes:
        data: copies of the model, each with its own part of the batch.
        fsdp: parts of the batch that also share out the parameters and the optimizer state.
        context: parts of one clip (its latent rows).
        tensor: parts of one matrix product (heads, hidden units).
    """

    data: int = -1
    fsdp: int = 1
    context: int = 1
    tensor: int = 1

    def sizes(self, devices: int) -> tuple[int, ...]:
        """The four sizes for a number of devices.

        Raises:
            ValueError: they do not multiply to ``devices``.
        """
        sizes = [getattr(self, axis) for axis in AXES]
        if any(size < 1 and size != -1 for size in sizes) or sizes.count(-1) > 1:
            raise ValueError(f"mesh sizes {dict(zip(AXES, sizes))} must be positive; one of them may be -1.")
        if -1 in sizes:
            rest = math.prod(size for size in sizes if size != -1)
            sizes[sizes.index(-1)] = max(devices // rest, 1)
        if math.prod(sizes) != devices:
            raise ValueError(
                f"mesh {dict(zip(AXES, sizes))} needs {math.prod(sizes)} devices, but there are {devices}; "
                "set --config.mesh.<axis> so that the sizes multiply to it (-1 takes what is left)."
            )
        return tuple(sizes)


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> jax.sharding.Mesh:
    """A mesh over all devices (or ``devices``) with the axes data, fsdp, context and tensor.

    The axes are Auto: the compiler places intermediate values, the code says where arrays begin and end.
    """
    devices = jax.devices() if devices is None else devices
    sizes = config.sizes(len(devices))
    axis_types = (jax.sharding.AxisType.Auto,) * len(AXES)
    if devices[0].platform == "cpu":  # forced host devices have no topology to lay a mesh along
        return jax.sharding.Mesh(np.asarray(devices).reshape(sizes), AXES, axis_types=axis_types)
    return jax.make_mesh(sizes, AXES, axis_types=axis_types, devices=devices)
