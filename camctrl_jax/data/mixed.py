"""Several sets of resident clips in one run: each batch is of one set, and sets take turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from camctrl_jax.data.clip_sets import fingerprint
from camctrl_jax.data.positions import Drawn
from camctrl_jax.data.randomness import generator_at
from camctrl_jax.data.resident import ResidentStream, clips_identity
from camctrl_jax.data.stepped import SteppedStream
from camctrl_jax.data.stream import Batch, Interleaving
from camctrl_jax.errors import InvalidValue

_SETS = 5  # what a generator is for, as part of its position


def seed_of_set(seed: int, name: str) -> int:
    """The seed of the stream of one set in a run of ``seed``: sets are drawn independently."""
    return int(generator_at(seed, _SETS, fingerprint(name.encode())).integers(2**31))


def sets_identity(ids: Mapping[str, Sequence[str]], seed: int) -> dict[str, Any]:
    """What the position of a :class:`MixedStream` is valid for.

    Args:
      ids: the clips of each set, by the set's name.
      seed: of the run.
    """
    sets = {name: clips_identity(clips, seed_of_set(seed, name)) for name, clips in ids.items()}
    return {
        "kind": "sets",
        "seed": seed,
        "clips": [each["clips"] for each in sets.values()],
        "ids": [fingerprint(f"{name} {each['ids']}".encode()) for name, each in sets.items()],
    }


class MixedStream(SteppedStream):
    """Batches of several streams of resident clips, evenly spread by integer weights.

    Step n is a batch of one of them: with weights (2, 1) of the first, the second, the first, over and over.
    Which one, and the place in it, follow from n alone, so the position of all is one number.
    """

    def __init__(self, streams: Mapping[str, ResidentStream], turns: Sequence[int], seed: int) -> None:
        """
        Args:
          streams: by the name of their set; of the seeds that :func:`seed_of_set` gives.
          turns: of each, in a cycle over all.
          seed: of the run.
        """
        self._names, self._streams = tuple(streams), tuple(streams.values())
        self._turns, self._seed = Interleaving(turns), seed
        if len(turns) != len(streams):
            raise InvalidValue(f"{len(streams)} streams have {len(turns)} numbers of turns.")
        counts = [len(stream.clips) for stream in self._streams]
        self._first = np.cumsum([0, *counts[:-1]]).astype(np.int32)
        self._ids = tuple(f"{name}/{clip}" for name, stream in streams.items() for clip in stream.clips.ids)

    def batch_at(self, step: int) -> Batch:
        """The batch of any step, without moving the position. ``clip_index`` counts the clips of all sets."""
        which, turn = (int(value) for value in self._turns(np.asarray(step)))
        batch = self._streams[which].batch_at(turn)
        return batch | {"clip_index": batch["clip_index"] + self._first[which]}

    def drawn_by(self, batches: int) -> list[Drawn]:
        """What every bucket of every set draws in so many batches."""
        return [
            replace(drawn, bucket=f"{name}, {drawn.bucket}")
            for name, stream, turns in zip(self._names, self._streams, self._turns.before(batches))
            for drawn in stream.drawn_by(turns)
        ]

    def identity(self) -> dict[str, Any]:
        """What the position is valid for."""
        ids = {name: stream.clips.ids for name, stream in zip(self._names, self._streams)}
        return sets_identity(ids, self._seed)

    def describe(self, batch: Batch) -> list[str]:
        """``set/id`` of a batch's clips."""
        return [self._ids[index] for index in np.asarray(batch["clip_index"]).tolist()]
