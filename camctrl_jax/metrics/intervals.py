"""Intervals over clips, and paired comparisons of two runs on the same clips."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from camctrl_jax.errors import InvalidValue


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval over clips.

    Attributes:
        mean: over the clips that have a value.
        low, high: percentile bootstrap over clips; None for a single clip, which says nothing about others.
        clips: with a value.
        failed: without one. They are counted, never dropped from sight.
    """

    mean: float
    low: float | None
    high: float | None
    clips: int
    failed: int


def interval(values: np.ndarray, *, draws: int = 2000, seed: int = 0) -> Interval | None:
    """Of one value a clip, f64 [N]; NaN where a clip has none. None where no clip has one."""
    values = np.asarray(values, np.float64)
    if values.ndim != 1:
        raise InvalidValue(f"values have shape {list(values.shape)}; expected one for each clip.")
    known = values[np.isfinite(values)]
    if not len(known):
        return None
    if len(known) == 1:
        return Interval(float(known[0]), None, None, 1, len(values) - 1)
    picked = np.random.default_rng(seed).integers(len(known), size=(draws, len(known)))
    low, high = np.percentile(known[picked].mean(axis=1), (2.5, 97.5))
    return Interval(float(known.mean()), float(low), float(high), len(known), len(values) - len(known))


def paired(first: np.ndarray, second: np.ndarray, **options: int) -> Interval | None:
    """The interval of ``second - first`` over the clips that have both; the others count as failed."""
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if first.shape != second.shape:
        raise InvalidValue(
            f"{len(first)} and {len(second)} values: a paired comparison needs the same clips."
        )
    return interval(second - first, **options)
