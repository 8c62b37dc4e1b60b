"""Streams whose batches follow from the number of the step alone: the position is that number."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Self

from camctrl_jax.data.positions import Drawn, check_same_clips, differences_of
from camctrl_jax.data.stream import Batch
from camctrl_jax.errors import InvalidValue


class SteppedStream(ABC):
    """What streams of clips in memory share of :class:`camctrl_jax.data.stream.BatchStream`."""

    _step = 0

    @abstractmethod
    def batch_at(self, step: int) -> Batch:
        """The batch of any step, without moving the position."""

    @abstractmethod
    def drawn_by(self, batches: int) -> list[Drawn]:
        """What every bucket draws in so many batches."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What a position is valid for."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        batch = self.batch_at(self._step)
        self._step += 1
        return batch

    def state(self) -> dict[str, Any]:
        """The number of the next batch, with what it is only valid for and what had been drawn by then."""
        drawn = [each.to_json() for each in self.drawn_by(self._step)]
        return {**self.identity(), "step": self._step, "buckets": drawn}

    def restore(self, state: dict[str, Any]) -> tuple[str, ...]:
        """Continue at a saved position, and say how the clips that follow are not those that would have.

        Raises:
          ValueError: a position in other clips, or of another seed.
        """
        check_same_clips(state, self.identity())
        if not isinstance(state.get("step"), int):
            raise InvalidValue(f"this data position is damaged: step is {state.get('step')!r}.")
        self._step = state["step"]
        saved = [Drawn.from_json(drawn) for drawn in state.get("buckets", ())]
        return differences_of(saved, self.drawn_by(self._step), self._step) if saved else ()

    def bad_clips(self) -> dict[str, str]:
        """None: what lives in memory was decoded before the first batch."""
        return {}

    def close(self) -> None:  # noqa: B027 (nothing to do is the answer)
        """Nothing runs in the background; here so that every stream can be closed."""
