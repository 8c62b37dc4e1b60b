"""Where arrays live: rules from parameter paths to mesh axes, and the placement of batches.

Models know nothing of this. A rule looks at the end of a parameter's path, so the same rule also places the
moments of Adam and the moving average, whose paths end alike.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from camctrl_jax.parallel.mesh import AXES

Rows = tuple[tuple[str, tuple[str | None, ...]], ...]

_ROWS: Rows = (
    # Products back into the residual stream: rows (hidden units, heads) are split, their sum is collective.
    (r"(to_out_0|to_add_out|net_2|linear_2)\.kernel", ("tensor", "fsdp")),
    # In a single block its rows are [attention | MLP]: a cut of all of them fits neither part.
    (r"proj_out\.kernel", (None, "fsdp")),
    # Every other matrix, convolutions included: their last two axes are channels in and out.
    (r"\w*kernel", ("fsdp", "tensor")),
)


@dataclass(frozen=True)
class ShardingRules:
    """An ordered table of (pattern, axes); the first pattern that matches the end of a path decides.

    The pattern is a regular expression for the last parts of the dotted path. The axes belong to the *last*
    dimensions of the array; earlier dimensions, and arrays that no row matches (biases, norms, counters), are
    whole on every device. A dimension that its axis does not divide stays whole too.

    Axes: ``data`` repeats the model; ``fsdp`` shares out parameters and gathers them layer by layer;
    ``tensor`` splits matrix products; ``context`` splits clips and therefore never appears here.
    """

    rows: Rows = _ROWS

    def __post_init__(self) -> None:
        if len(self.rows) > 12:
            raise ValueError(
                f"{len(self.rows)} sharding rows; more than 12 cannot be overlooked, merge some."
            )
        for pattern, axes in self.rows:
            used = [axis for axis in axes if axis is not None]
            if len(used) != len(set(used)) or any(axis not in AXES for axis in used):
                raise ValueError(f"sharding row {pattern!r} -> {axes}: use each of {AXES} at most once.")

    def spec(self, path: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
        """Partition of one array.

        Args:
            path: dotted path, e.g. ``params.blocks_0.attn.to_q.kernel``.
            shape: of the array.
            mesh: whose axis sizes decide what divides.
        """
        for pattern, axes in self.rows:
            if re.search(rf"(^|\.)({pattern})$", path):
                axes = axes[-len(shape) :] if shape else ()
                axes = (None,) * (len(shape) - len(axes)) + axes
                return PartitionSpec(
                    *(
                        axis if axis and size % mesh.shape[axis] == 0 else None
                        for axis, size in zip(axes, shape)
                    )
                )
        return PartitionSpec()

    def shardings(self, tree: Any, mesh: Mesh) -> Any:
        """A tree of ``NamedSharding`` for a tree of arrays (or of ``ShapeDtypeStruct``)."""
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: NamedSharding(mesh, self.spec(_dotted(path), leaf.shape, mesh)), tree
        )


def _dotted(path: tuple) -> str:
    names = (getattr(key, "key", getattr(key, "name", getattr(key, "idx", key))) for key in path)
    return ".".join(str(name) for name in names)


def batch_shards(mesh: Mesh) -> int:
    """Parts into which a batch is split."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def batch_sharding(name: str, shape: tuple[int, ...], mesh: Mesh) -> NamedSharding:
    """Sharding of one batch field: samples over data and fsdp, rows of clips over context.

    Args:
        name: the batch key; ``video`` and ``latents`` have rows.
        shape: global shape, [B, ...].
        mesh: the mesh.
    """
    spec: list[Any] = [("data", "fsdp")]
    if name in ("video", "latents") and shape[2] % mesh.shape["context"] == 0:
        spec += [None, "context"]
    return NamedSharding(mesh, PartitionSpec(*spec))


def place(tree: Any, shardings: Any) -> Any:
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


def place_batch(batch: dict[str, Any], mesh: Mesh) -> dict[str, jax.Array]:
    """Put a batch on the mesh without waiting for it.

    Args:
        batch: numpy arrays that hold this process's part of the batch, or global ``jax.Array``.
        mesh: where to.

    Returns:
        Global arrays, sharded by :func:`batch_sharding`.
    """
    placed = {}
    for name, array in batch.items():
        if isinstance(array, jax.Array):
            placed[name] = jax.device_put(array, batch_sharding(name, array.shape, mesh))
        else:
            array = np.asarray(array)
            shape = (array.shape[0] * jax.process_count(), *array.shape[1:])
            sharding = batch_sharding(name, shape, mesh)
            placed[name] = jax.make_array_from_process_local_data(sharding, array, shape)
    return placed
