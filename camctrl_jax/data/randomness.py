"""Reproducible random numbers for the data path, addressed by position instead of carried as state."""

from __future__ import annotations

import numpy as np


def generator_at(seed: int, *position: int) -> np.random.Generator:
    """A generator that depends on nothing but ``seed`` and ``position`` (non-negative integers).

    A stream that draws everything for step n from ``generator_at(seed, n)`` can be resumed from the number n
    alone. Philox is counter based, so neighbouring positions give independent numbers.

    Zeros at the end of a position do not count, (1,) is (1, 0): positions for one purpose are equally long,
    and begin with a number of that purpose's own.
    """
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, *position))))
