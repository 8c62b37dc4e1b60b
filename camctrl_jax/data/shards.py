"""Shares of a job that several processes do without knowing of each other."""

from __future__ import annotations

import re
from dataclasses import dataclass

from camctrl_jax.errors import InvalidValue


@dataclass(frozen=True)
class Shard:
    """One of ``count`` equal parts of a job; ``index`` counts from 0."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """From ``K/N``. Raises ValueError."""
        found = re.fullmatch(r"(\d+)/(\d+)", text)
        if not found or int(found[1]) >= int(found[2]):
            raise InvalidValue(f"--shard {text}: expected K/N with K from 0 to N-1, e.g. 0/16.")
        return cls(int(found[1]), int(found[2]))

    def of(self, total: int) -> range:
        """The numbers of this part among ``total``."""
        return range(self.index * total // self.count, (self.index + 1) * total // self.count)


WHOLE = Shard(0, 1)
