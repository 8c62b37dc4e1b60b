"""Where arrays live: from the roles of parameters to mesh axes, and from batches to the devices.

Models know nothing of this. A role is found by the end of a parameter's path, so the moments of Adam and the
moving average, whose paths end alike, lie where their parameter lies.

Axes: ``data`` repeats the model; ``fsdp`` shares out parameters and gathers them layer by layer; ``tensor``
splits matrix products; ``context`` splits clips and therefore never appears among those of a parameter.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from camctrl_jax.models.roles import dotted, find_role

# Mesh axis of each kind of dimension that camctrl_jax.models.roles names. In a product back into the stream
# the rows ('hidden') are split and their sum is collective.
_MESH_AXES = {"width": "fsdp", "hidden": "tensor", "whole": None}


def spec_of(path: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    """Partition of one array of a state.

    Vectors, and what is no parameter (counters, keys), are whole on every device, and so is a dimension that
    its mesh axis does not divide.

    Args:
        path: dotted path, e.g. ``params.transformer_blocks_0.attn.to_q.kernel``.
        shape: of the array.
        mesh: whose axis sizes decide what divides.
    """
    role = find_role(path)
    if role is None or not role.axes:
        return PartitionSpec()
    axes = [_MESH_AXES[axis] for axis in role.axes][-len(shape) :] if shape else []
    axes = [None] * (len(shape) - len(axes)) + axes
    return PartitionSpec(
        *(axis if axis and size % mesh.shape[axis] == 0 else None for axis, size in zip(axes, shape))
    )


def shardings_of(tree: Any, mesh: Mesh) -> Any:
    """A tree of ``NamedSharding`` for a tree of arrays (or of ``ShapeDtypeStruct``)."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: NamedSharding(mesh, spec_of(dotted(path), leaf.shape, mesh)), tree
    )


def batch_shards(mesh: Mesh) -> int:
    """Parts into which a batch is split."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def batch_sharding(name: str, shape: tuple[int, ...], mesh: Mesh) -> NamedSharding:
    """Sharding of one batch field: samples over data and fsdp, rows of clips over context.

    Args:
        name: the batch key; videos and latents have rows.
        shape: global shape, [B, ...].
        mesh: the mesh.
    """
    spec: list[Any] = [("data", "fsdp")]
    if name in ("video", "latents", "retrieved_latents") and shape[2] % mesh.shape["context"] == 0:
        spec += [None, "context"]
    return NamedSharding(mesh, PartitionSpec(*spec))


def sample_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding of what holds samples [B, ...]: over data and fsdp."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def distribute_samples(tree: Any, mesh: Mesh) -> Any:
    """Put arrays [B, ...] that every process holds whole on the mesh: their samples over its devices where
    they divide, else whole on each.
    """

    def home(array: Any) -> NamedSharding:
        divides = array.shape[0] % batch_shards(mesh) == 0
        return sample_sharding(mesh) if divides else NamedSharding(mesh, PartitionSpec())

    return distribute(tree, jax.tree.map(home, tree))


def whole(array: jax.Array) -> np.ndarray:
    """A global array in the memory of every process's host; all processes have to ask."""
    if array.is_fully_addressable:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def distribute(tree: Any, shardings: Any) -> Any:
    """Put arrays that every process holds whole where they belong, each device receiving its part only.

    Args:
        tree: arrays, the same on every process; those that are where they belong already stay there.
        shardings: ``NamedSharding`` for each.

    Returns:
        Global arrays.
    """

    def put(array: Any, sharding: NamedSharding) -> jax.Array:
        if isinstance(array, jax.Array) and array.sharding.is_equivalent_to(sharding, array.ndim):
            return array
        if sharding.is_fully_addressable:
            return jax.device_put(array, sharding)
        whole = np.asarray(array)
        return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

    return jax.tree.map(put, tree, shardings)


def distribute_batch(batch: dict[str, Any], mesh: Mesh) -> dict[str, jax.Array]:
    """Put a batch on the mesh without waiting for it.

    Args:
        batch: numpy arrays that hold this process's part of the batch, or global ``jax.Array``.
        mesh: where to.

    Returns:
        Global arrays, sharded by :func:`batch_sharding`.
    """
    distributed = {}
    for name, array in batch.items():
        if isinstance(array, jax.Array):
            distributed[name] = jax.device_put(array, batch_sharding(name, array.shape, mesh))
        else:
            array = np.asarray(array)
            shape = (array.shape[0] * jax.process_count(), *array.shape[1:])
            sharding = batch_sharding(name, shape, mesh)
            distributed[name] = jax.make_array_from_process_local_data(sharding, array, shape)
    return distributed
