"""Making the rows of an array on every device of a mesh, a few at a time, and gathering them on all of them.

Rows are numbered. A round gives each device the next few numbers; every process works on those of its own
devices and knows nothing of the others' until the rows are gathered, so all processes must do their rounds
alike. Memory on a device beyond the result is that of one round.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.experimental.multihost_utils import process_allgather
from jax.sharding import Mesh, NamedSharding, PartitionSpec

Rows = Any  # an array [n, ...], or a nested dict of such
Make = Callable[[int, Sequence[Any]], Rows]

_GATHERED = 256  # rows of a round over all devices, beyond which a device makes fewer at a time


def _insert(store: Rows, rows: Rows, start: Array, *, count: int) -> Rows:
    """Write the first ``count`` of ``rows`` [n, ...] into ``store`` [C, ...] from ``start`` on, in place."""

    def write(store: Array, rows: Array) -> Array:
        return lax.dynamic_update_slice_in_dim(store, rows[:count].astype(store.dtype), start, axis=0)

    return jax.tree.map(write, store, rows)


class EveryDevice:
    """Deals ``count`` rows out to the devices of a mesh.

    Attributes:
        part: rows that a device makes in a round.
        numbers: of all rows that this process makes, round by round and device by device. Where a round has
            more places than rows are left, the last row is made again, so that one compilation serves all.
    """

    def __init__(self, mesh: Mesh | None, count: int, chunk: int) -> None:
        """
        Args:
            mesh: its devices work; None or one device works alone, without any communication.
            count: rows in all, at least one.
            chunk: most rows that a device makes at a time.
        """
        self._mesh = mesh if mesh is not None and mesh.size > 1 else None
        devices: list[jax.Device | None] = [None] if self._mesh is None else list(self._mesh.devices.flat)
        self._count, self._places = count, len(devices)
        self.part = min(chunk, max(1, max(chunk, _GATHERED) // self._places), -(-count // self._places))
        here = [
            place
            for place, device in enumerate(devices)
            if device is None or device.process_index == jax.process_index()
        ]
        self._own = [devices[place] for place in here]
        self._several = any(device is not None and device not in self._own for device in devices)
        self.numbers = [
            min(number, count - 1)
            for start in range(0, count, self._round)
            for place in here
            for number in range(start + place * self.part, start + (place + 1) * self.part)
        ]
        self._threads = ThreadPoolExecutor(len(self._own))
        self._store: Rows | None = None
        self._done = 0
        out = {} if self._mesh is None else {"out_shardings": self.everywhere}
        self._insert = jax.jit(_insert, donate_argnums=0, static_argnames="count", **out)
        self._zeros = jax.jit(jnp.zeros, static_argnums=(0, 1), **out)

    @property
    def everywhere(self) -> NamedSharding | None:
        """Replicated over the mesh; None where one device works alone."""
        return None if self._mesh is None else NamedSharding(self._mesh, PartitionSpec())

    @property
    def _round(self) -> int:
        return self._places * self.part

    @property
    def own(self) -> int:
        """Rows that this process makes in a round."""
        return len(self._own) * self.part

    def copies(self, tree: Any) -> list[Any]:
        """A copy of arrays for each device of this process; the arrays themselves where one works alone."""
        if self._mesh is None:
            return [tree]

        def local(array: Any) -> Any:
            whole = isinstance(array, jax.Array) and array.is_fully_replicated
            return array.addressable_data(0) if whole else array

        return [jax.device_put(jax.tree.map(local, tree), device) for device in self._own]

    def add(self, make: Make, items: Sequence[Any]) -> int:
        """Do a round.

        Args:
            make: ``make(place, items)`` gives the rows [part, ...] of some items, as a ``jax.Array`` or a
                dict of them on the default device. Each of the process's devices calls it in a thread of
                its own, with itself as the default device; ``place`` counts these devices from 0.
            items: what this process's rows of the round are made of, in the order of ``numbers``.

        Returns:
            How many rows are done, over all processes.
        """
        parts = [items[start : start + self.part] for start in range(0, self.own, self.part)]
        if len(parts) == 1:
            made = [self._on_device(make, 0, parts[0])]
        else:
            made = list(self._threads.map(partial(self._on_device, make), range(len(parts)), parts))
        rows = made[0] if self._mesh is None else jax.tree.map(self._together, *made)
        if self._store is None:
            self._store = jax.tree.map(lambda x: self._zeros((self._count, *x.shape[1:]), x.dtype), rows)
        # Wait for the round before this one: its device memory is free before another one is asked for, while
        # the devices still have work queued.
        jax.block_until_ready(self._store)
        count = min(self._round, self._count - self._done)
        self._store = self._insert(self._store, rows, jnp.int32(self._done), count=count)
        self._done += count
        return self._done

    def try_out(self, make: Make, items: Sequence[Any]) -> None:
        """Make the same rows on every device and forget them: what they need is compiled, then.

        Args:
            make: as in :meth:`add`.
            items: of the rows of one device.
        """
        places = range(len(self._own))
        # What the first device compiled is in the compilation cache, if there is one, for the others.
        first = 1 if jax.config.jax_compilation_cache_dir else len(self._own)
        for some in (places[:first], places[first:]):
            made = self._threads.map(lambda place: self._on_device(make, place, items), some)
            jax.block_until_ready(list(made))

    def _together(self, *parts: Array) -> Array:
        """One array [rows of a round, ...], split over the mesh, of the part that each device made."""
        split = NamedSharding(self._mesh, PartitionSpec(self._mesh.axis_names))
        shape = (self._round, *parts[0].shape[1:])
        return jax.make_array_from_single_device_arrays(shape, split, list(parts))

    def _on_device(self, make: Make, place: int, items: Sequence[Any]) -> Rows:
        device = self._own[place]
        with contextlib.nullcontext() if device is None else jax.default_device(device):
            return make(place, items)

    def rows(self) -> Rows:
        """All rows [count, ...], on every device of the mesh."""
        assert self._store is not None
        return self._store

    def gathered(self, array: np.ndarray) -> np.ndarray:
        """Something small of every row on the host, [count, ...], from that of this process's ``numbers``."""
        numbers = np.asarray(self.numbers, np.int32)
        if self._several:
            numbers, array = process_allgather((numbers, array), tiled=True)
        whole = np.empty((self._count, *array.shape[1:]), array.dtype)
        whole[numbers] = array
        return whole

    def largest(self, value: int) -> int:
        """The largest of a number that every process has."""
        return int(np.max(process_allgather(np.int32(value)))) if self._several else value

    def all_agree(self, value: bool) -> bool:
        """Whether something is true in all processes."""
        return bool(np.all(process_allgather(np.bool_(value)))) if self._several else value

    def __enter__(self) -> EveryDevice:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._threads.shutdown(cancel_futures=True)
