"""Several sets of resident clips in one run: each batch is of one set, and sets take turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from camctrl_jax.data.clip_sets import fingerprint
from camctrl_jax.data.positions import Drawn, check_same_clips, differences_of
from camctrl_jax.data.randomness import generator_at
from camctrl_jax.data.resident import ResidentStream, clips_identity
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


class MixedStream:
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
        self._step = 0

    def batch_at(self, step: int) -> Batch:
        """The batch of any step, without moving the position. ``clip_index`` counts the clips of all sets."""
        which, turn = (int(value) for value in self._turns(np.asarray(step)))
        batch = self._streams[which].batch_at(turn)
        return batch | {"clip_index": batch["clip_index"] + self._first[which]}

    def __iter__(self) -> MixedStream:
        return self

    def __next__(self) -> Batch:
        batch = self.batch_at(self._step)
        self._step += 1
        return batch

    def one_of_each(self) -> list[Batch]:
        """A batch of every bucket of every set, without moving the position."""
        return [batch for stream in self._streams for batch in stream.one_of_each()]

    def _drawn_by(self, batches: int) -> list[Drawn]:
        """What every bucket of every set draws in so many batches."""
        return [
            replace(drawn, bucket=f"{name}, {drawn.bucket}")
            for name, stream, turns in zip(self._names, self._streams, self._turns.before(batches))
            for drawn in stream.drawn_by(turns)
        ]

    def _identity(self) -> dict[str, Any]:
        ids = {name: stream.clips.ids for name, stream in zip(self._names, self._streams)}
        return sets_identity(ids, self._seed)

    def state(self) -> dict[str, Any]:
        """The number of the next batch, with what it is only valid for and what had been drawn by then."""
        drawn = [each.to_json() for each in self._drawn_by(self._step)]
        return {**self._identity(), "step": self._step, "buckets": drawn}

    def restore(self, state: dict[str, Any]) -> tuple[str, ...]:
        """Continue at a saved position, and say how the clips that follow are not those that would have.

        Raises:
          ValueError: a position in other sets or clips, or of another seed.
        """
        check_same_clips(state, self._identity())
        if not isinstance(state.get("step"), int):
            raise InvalidValue(f"this data position is damaged: step is {state.get('step')!r}.")
        self._step = state["step"]
        saved = [Drawn.from_json(drawn) for drawn in state.get("buckets", ())]
        return differences_of(saved, self._drawn_by(self._step), self._step) if saved else ()

    def bad_clips(self) -> dict[str, str]:
        """None: what lives in memory was decoded before the first batch."""
        return {}

    def describe(self, batch: Batch) -> list[str]:
        """``set/id`` of a batch's clips."""
        return [self._ids[index] for index in np.asarray(batch["clip_index"]).tolist()]

    def close(self) -> None:
        """Nothing runs in the background; here so that every stream can be closed."""
