"""Where intermediate values live on a mesh, and attention across its devices.

Video and text tokens are cut over ``context`` through the whole transformer, heads and hidden units over
``tensor``, samples over ``data`` and ``fsdp``. Everything but attention acts on each token alone, so only
attention moves tokens: 'allgather' brings all keys and values to every device, 'ulysses' exchanges tokens
for heads, so that each device attends over whole sequences for its share of the heads. The rows of pictures,
in the autoencoder, are cut over every axis that nothing else takes: the compiler lets neighbours exchange
the rows that a convolution looks at across a cut.

Axes: B batch, S query tokens, K key tokens, N heads, H head dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from math import prod

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from camctrl_jax.errors import InvalidValue
from camctrl_jax.models.attention import Implementation, attention
from camctrl_jax.models.placement import ONE_DEVICE, Placement, split
from camctrl_jax.parallel.mesh import AXES, CONTEXT_ATTENTIONS

# What the dimensions of an intermediate value are cut over.
_AXES = {"batch": ("data", "fsdp"), "tokens": "context", "heads": "tensor", "hidden": "tensor"}


@dataclass(frozen=True)
class MeshPlacement:
    """The ``camctrl_jax.models.placement.Placement`` of a mesh.

    Attributes:
        mesh: with the axes data, fsdp, context and tensor.
        context_attention: 'allgather' or 'ulysses'; matters where ``context`` is larger than one.
        kernel: what each device runs on its part, with the interface of ``models.attention.attention``.
    """

    mesh: Mesh
    context_attention: str = "allgather"
    kernel: Callable[..., Array] = attention

    def __post_init__(self) -> None:
        if self.context_attention not in CONTEXT_ATTENTIONS:
            raise InvalidValue(
                f"context_attention={self.context_attention!r} is unknown; "
                f"choose one of {CONTEXT_ATTENTIONS}."
            )

    @property
    def parts(self) -> int:
        """Parts of every token stream: the size of ``context``."""
        return self.mesh.shape["context"]

    def spec(self, shape: tuple[int, ...], *axes: str | None) -> PartitionSpec:
        """Partition of a value whose dimensions are 'batch', 'tokens', 'heads', 'hidden', 'rows' or None.

        A dimension that its mesh axes do not divide stays whole. 'rows' take the axes that are left, or
        those of them that together cut them into the most parts.
        """
        entries: list[str | tuple[str, ...] | None] = []
        for size, axis in zip(shape, axes, strict=True):
            if axis == "rows":
                entries.append(self._rows(size, entries))
                continue
            over = None if axis is None else _AXES[axis]
            names = (over,) if isinstance(over, str) else over or ()
            parts = prod(self.mesh.shape[name] for name in names)
            entries.append(over if parts > 1 and size % parts == 0 else None)
        return PartitionSpec(*entries)

    def _rows(self, size: int, taken: Sequence[str | tuple[str, ...] | None]) -> tuple[str, ...] | None:
        """The axes that rows are cut over, where earlier dimensions have taken some."""
        used = {name for entry in taken for name in ((entry,) if isinstance(entry, str) else entry or ())}
        left = [name for name in AXES if name not in used and self.mesh.shape[name] > 1]
        choices = [chosen for count in range(len(left), 0, -1) for chosen in combinations(left, count)]
        parts = {chosen: prod(self.mesh.shape[name] for name in chosen) for chosen in choices}
        return max((c for c in choices if size % parts[c] == 0), key=parts.__getitem__, default=None)

    def constrain(self, x: Array, *axes: str | None) -> Array:
        """Hold the value where its axes say; the only place where activations are constrained."""
        return lax.with_sharding_constraint(x, NamedSharding(self.mesh, self.spec(x.shape, *axes)))

    def attend(
        self,
        query: Array,
        key: Array,
        value: Array,
        key_lengths: Array | None,
        key_streams: tuple[int, ...],
        implementation: Implementation,
    ) -> Array:
        """Attention over joined streams; see ``Placement.attend``.

        Raises:
            ValueError: 'ulysses' with heads that ``context`` (times ``tensor``) does not divide.
        """
        axes = ("batch", "tokens", "heads", None)
        heads = self.spec(query.shape, *axes)[2]
        here = query.shape[2] // (self.mesh.shape["tensor"] if heads else 1)
        ulysses = self.parts > 1 and self.context_attention == "ulysses"
        if ulysses and here % self.parts:
            fitting = [n for n in range(1, here + 1) if here % n == 0]
            raise InvalidValue(
                f"{here} heads on a device cannot be exchanged over mesh.context={self.parts}; choose a "
                f"context of {', '.join(map(str, fitting))}, or mesh.context_attention='allgather'."
            )
        platform = self.mesh.devices.flat[0].platform
        kernel = partial(self.kernel, implementation=implementation, platform=platform)

        def in_order(joined: Array) -> Array:
            """Streams one after the other, where a length has to tell the valid keys."""
            if key_lengths is None or self.parts == 1 or len(key_streams) == 1:
                return joined
            return jnp.concatenate(split(joined, key_streams, self.parts), axis=1)

        def local(query: Array, key: Array, value: Array, *lengths: Array) -> Array:
            lengths = lengths[0] if lengths else None
            if ulysses:
                swap = partial(lax.all_to_all, axis_name="context", tiled=True)
                query, key, value = (swap(x, split_axis=2, concat_axis=1) for x in (query, key, value))
                out = kernel(query, in_order(key), in_order(value), lengths)  # [B, S, N / context, H]
                return swap(out, split_axis=1, concat_axis=2)
            if self.parts > 1:
                key, value = (
                    in_order(lax.all_gather(x, "context", axis=1, tiled=True)) for x in (key, value)
                )
            return kernel(query, key, value, lengths)

        lengths = () if key_lengths is None else (key_lengths,)
        specs = [self.spec(x.shape, *axes) for x in (query, key, value)]
        specs += [self.spec(x.shape, "batch") for x in lengths]
        # Kernels written by hand are not partitioned automatically: each device runs its own.
        return jax.shard_map(
            local, mesh=self.mesh, in_specs=tuple(specs), out_specs=specs[0], check_vma=False
        )(query, key, value, *lengths)


def placement_of(mesh: Mesh, context_attention: str = "allgather") -> Placement:
    """The placement of a mesh; that of one device where the mesh has only one."""
    return ONE_DEVICE if mesh.size == 1 else MeshPlacement(mesh, context_attention)
