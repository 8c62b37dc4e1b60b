"""From scores of clips to tables: how often named colours appear, and how often those of another caption."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from camctrl_jax.evaluate.captions.detector import Detector, named_colors
from camctrl_jax.metrics.intervals import interval, share_interval
from camctrl_jax.worlds.surfaces import COLOR_NAMES

Record = Mapping[str, Any]

TRUE, RECONSTRUCTION = "true render", "reconstruction"
VALUES = ("right", "wrong", "gap", "choice")
MOTION = ("motion_px", "moving_share")


def with_own(
    records: Mapping[str, Sequence[Record]], captions: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    """Records with ``own``: the colours that a caption names and the next one does not.

    These stand against ``wrong``, those that the next one names and the own one does not: a clip that knows
    nothing of its caption cannot tell which is which, so chance is 0 and one half, exactly.

    Args:
        records: of every row those of all captions, in order.
        captions: of all of them and of the one after the last.
    """
    others = [set(named_colors(caption)) for caption in captions[1:]]
    return {
        row: [
            {**record, "own": list(dict.fromkeys(color for color in record["right"] if color not in other))}
            for record, other in zip(found, others, strict=True)
        ]
        for row, found in records.items()
    }


def summarised(
    records: Mapping[str, Sequence[Record]], detector: Detector, rows: Sequence[str]
) -> dict[str, Any]:
    """All tables of ``results.json``.

    Args:
        records: of every row (``TRUE``, ``RECONSTRUCTION`` and ``rows``) those of all captions, in order, see
            :func:`with_own`.
        detector: which scores are compared by.
        rows: names of what was sampled.
    """
    values = {row: [caption_values(record, detector) for record in found] for row, found in records.items()}
    first = records[TRUE]
    return {
        "captions": {
            "count": len(first),
            "naming_none": sum(not record["right"] for record in first),
            "named": sum(len(record["right"]) for record in first),
        },
        "hits": {row: _hits(found, detector) for row, found in records.items()},
        "measures": {
            row: {name: _measure(name, found) for name in (*VALUES, *MOTION)} for row, found in values.items()
        },
        "by_color": {row: _by_color(found, detector) for row, found in records.items()},
        "failed": {
            row: sum(one is None for r in found for one in r["scores"]) for row, found in records.items()
        },
        "per_scene": [
            {"index": record["index"], "seed": record["seed"], "caption": record["caption"]}
            | {
                "values": {
                    f"{row if row in rows else f'baseline/{row}'}/{name}": value
                    for row, found in values.items()
                    for name, value in found[place].items()
                }
            }
            for place, record in enumerate(first)
        ],
    }


def caption_values(record: Record, detector: Detector) -> dict[str, float | None]:
    """Of one caption, means over its samples: ``right`` and ``wrong``, shares of the colours that its own and
    another caption name which count as shown; ``gap``, the difference of these shares for the colours that
    one of both alone names, each once; ``choice``, 1 where those of its own caption are the less to be
    expected by chance, 0 where the other's are, a half of a tie. None where a caption names none, neither
    names one of its own, or no sample is finite. Where motion was looked at also ``motion_px`` and
    ``moving_share`` of the first sample."""
    sound = [np.array(scores) for scores in record["scores"] if scores is not None]
    right, wrong, own = (_indices(record[name]) for name in ("right", "wrong", "own"))
    wrong = list(dict.fromkeys(wrong))
    values: dict[str, float | None] = dict.fromkeys(VALUES)
    if "motion" in record:
        values |= {name: record["motion"].get(name) for name in MOTION}
    if not sound:
        return values
    for name, colors in (("right", right), ("wrong", wrong)):
        if colors:
            values[name] = float(np.mean([detector.shown(scores)[colors].mean() for scores in sound]))
    if own and wrong:
        shown = [detector.shown(scores) for scores in sound]
        values["gap"] = float(np.mean([one[own].mean() - one[wrong].mean() for one in shown]))
        each = [detector.surprise(scores) for scores in sound]
        signs = [np.sign(one[own].mean() - one[wrong].mean()) for one in each]
        values["choice"] = float(0.5 + 0.5 * np.mean(signs))
    return values


def _indices(colors: Sequence[str]) -> list[int]:
    return [COLOR_NAMES.index(color) for color in colors]


def _hits(records: Sequence[Record], detector: Detector) -> dict[str, Any]:
    """Over named objects: shares whose colours count as shown, with Wilson's intervals."""
    found = {}
    for name in ("right", "wrong"):
        hits = [
            bool(detector.shown(np.array(scores))[color])
            for record in records
            for scores in record["scores"]
            if scores is not None
            for color in _indices(record[name])
        ]
        share = share_interval(np.array(hits, float))
        found[name] = None if share is None else asdict(share)
    return found


def _measure(name: str, values: Sequence[Mapping[str, float | None]]) -> dict[str, Any] | None:
    column = np.array([math.nan if one.get(name) is None else one[name] for one in values], np.float64)
    if name == "choice" and np.isin(column[np.isfinite(column)], (0.0, 1.0)).all():
        found = share_interval(column)
    else:
        reach = (0.0, math.inf) if name == "motion_px" else (-1.0 if name == "gap" else 0.0, 1.0)
        found = interval(column, within=reach)
    return None if found is None else asdict(found)


def _by_color(records: Sequence[Record], detector: Detector) -> dict[str, Any]:
    """By colour, the same over objects of it alone; ``right`` where a caption names it, ``wrong`` where the
    other one does."""
    found = {}
    for place, color in enumerate(COLOR_NAMES):
        row = {}
        for name in ("right", "wrong"):
            hits = [
                bool(detector.shown(np.array(scores))[place])
                for record in records
                for scores in record["scores"]
                if scores is not None and color in record[name]
            ]
            share = share_interval(np.array(hits, float))
            row[name] = None if share is None else asdict(share)
        found[color] = row
    return found
