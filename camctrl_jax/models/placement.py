"""Where the model's intermediate values live: the one seam between the networks and a mesh of devices.

A network asks its placement to join and split token streams, to attend, and to keep values where they are.
On one device that is concatenation, slicing, the local kernel and nothing; ``camctrl_jax.parallel`` has the
placement for a mesh. Both give the same numbers.

Axes: B batch, S tokens of all streams, N heads, H head dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import jax.numpy as jnp
import numpy as np
from jax import Array

from camctrl_jax.errors import InvalidValue
from camctrl_jax.models.attention import Implementation, attention


class Placement(Protocol):
    """What a network asks for. Implementations are frozen and hashable: a module holds one."""

    @property
    def parts(self) -> int:
        """Into how many equal parts every token stream is cut; a stream's length must divide by it."""
        ...

    def constrain(self, x: Array, *axes: str | None) -> Array:
        """Say where an intermediate value lives.

        Args:
            x: the value.
            axes: what each dimension is: 'batch', 'tokens', 'heads', 'hidden', 'rows' (of pictures), or None.
        """
        ...

    def attend(
        self,
        query: Array,
        key: Array,
        value: Array,
        key_lengths: Array | None,
        key_streams: tuple[int, ...],
        implementation: Implementation,
    ) -> Array:
        """Attention over joined streams.

        Args:
            query: [B, S, N, H], joined.
            key, value: [B, K, N, H], joined.
            key_lengths: int [B], valid keys when the streams are laid one after the other; None means all.
            key_streams: lengths of the streams that the keys were joined from.
            implementation: of the local kernel.

        Returns: [B, S, N, H], in the order of ``query``.
        """
        ...


@dataclass(frozen=True)
class OneDevice:
    """Everything in one place; also what a mesh that only splits the batch computes on each device."""

    parts: int = 1

    def constrain(self, x: Array, *axes: str | None) -> Array:
        """The value as it is."""
        return x

    def attend(
        self,
        query: Array,
        key: Array,
        value: Array,
        key_lengths: Array | None,
        key_streams: tuple[int, ...],
        implementation: Implementation,
    ) -> Array:
        """The local kernel."""
        return attention(query, key, value, key_lengths, implementation=implementation)


ONE_DEVICE = OneDevice()


def join(streams: Sequence[Array], parts: int) -> Array:
    """Several streams [B, S_i, ...] as one [B, sum S_i, ...].

    With several parts the order is part by part, [first part of every stream | second part of ... ]: cut over
    devices, each then holds its part of every stream, and joining moves nothing between them.
    """
    if parts == 1:
        return jnp.concatenate(streams, axis=1)
    cut = [stream.reshape(stream.shape[0], parts, -1, *stream.shape[2:]) for stream in streams]
    joined = jnp.concatenate(cut, axis=2)  # [B, parts, sum S_i / parts, ...]
    return joined.reshape(joined.shape[0], -1, *joined.shape[3:])


def split(x: Array, lengths: Sequence[int], parts: int) -> list[Array]:
    """Inverse of :func:`join` for streams of these lengths."""
    edges = np.cumsum([0, *lengths])
    if parts == 1:
        return [x[:, start:stop] for start, stop in zip(edges[:-1], edges[1:])]
    cut = x.reshape(x.shape[0], parts, -1, *x.shape[2:])
    streams = [cut[:, :, start // parts : stop // parts] for start, stop in zip(edges[:-1], edges[1:])]
    return [stream.reshape(x.shape[0], -1, *x.shape[2:]) for stream in streams]


def join_tables(tables: Sequence[np.ndarray], parts: int) -> np.ndarray:
    """:func:`join` for constants without a batch, [S_i, ...] -> [sum S_i, ...]."""
    cut = [table.reshape(parts, -1, *table.shape[1:]) for table in tables]
    return np.concatenate(cut, axis=1).reshape(-1, *tables[0].shape[1:])


def check_streams(lengths: dict[str, int], parts: int) -> None:
    """Raises: ValueError if a stream, {name: tokens}, cannot be cut into ``parts`` equal parts."""
    for name, length in lengths.items():
        if length % parts:
            fitting = [n for n in range(parts, 0, -1) if all(tokens % n == 0 for tokens in lengths.values())]
            raise InvalidValue(
                f"{length} {name} tokens cannot be cut into {parts} equal parts; "
                f"set mesh.context to {fitting[0]}, or change the size of the clips."
            )
