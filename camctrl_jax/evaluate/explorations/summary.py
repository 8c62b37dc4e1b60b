"""From records of explorations to tables: curves over clips, differences between arms, seams and returns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from camctrl_jax.evaluate.explorations.takes import REGIONS
from camctrl_jax.metrics.intervals import interval, paired

Record = Mapping[str, Any]

CURVES = ("psnr", *(f"psnr_{name}" for name in REGIONS), "sharpness")
CAMERA = ("rot_err_aligned_deg", "trans_err_aligned_share")
SEAM, RETURN = "seam_over_inside", "return_difference"

BY_ROUTE = ("psnr_seen", "psnr_remembered", "last/psnr_seen", RETURN)
"""What is told of each route."""

RECONSTRUCTION, TRUE = "reconstruction", "truth"
"""What is measured beside the arms: the true render through the autoencoder, and the true render itself."""

_RANGES = dict.fromkeys(CURVES, (0.0, 100.0)) | dict.fromkeys(
    ("sharpness", SEAM, RETURN, *CAMERA), (0.0, math.inf)
)


def world_values(record: Record) -> dict[str, float | None]:
    """Every number of one exploration by name.

    A measure's plain name is its mean over the clips after the first one, ``last/NAME`` is that of the last
    clip. ``seam_over_inside`` is the mean error at the seams over that inside the clips after the first one;
    ``return_difference`` is in grey levels.
    """
    clips = record.get("clips")
    if clips is None:
        return {}
    values: dict[str, float | None] = {}
    for name in (*CURVES, *CAMERA):
        column = [clip.get(name) for clip in clips]
        if all(value is None for value in column):
            continue
        values[name] = _mean(column[1:])
        values[f"last/{name}"] = column[-1]
    seams, inside = (_mean([clip[name] for clip in clips[1:]]) for name in ("seam", "inside"))
    values[SEAM] = seams / inside if seams is not None and inside else None
    values[RETURN] = None if record["returns"] is None else record["returns"]["difference"]
    return values


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def summarised(
    takes: Sequence[Record], rows: Mapping[str, Sequence[Record]], arms: Sequence[str]
) -> dict[str, Any]:
    """All tables of ``results.json``.

    Args:
        takes: of every world its ``index``, ``seed``, ``route``, ``layout`` and ``shares`` of regions by
            clip.
        rows: by name (the arms, and ``RECONSTRUCTION`` and ``TRUE``), the record of every world.
        arms: names of the arms, the first of which others are compared with.
    """
    rows = {
        row: [_told(record, true) for record, true in zip(records, rows[TRUE], strict=True)]
        for row, records in rows.items()
    }
    values = {row: [world_values(record) for record in records] for row, records in rows.items()}
    names = list(dict.fromkeys(name for arm in arms for one in values[arm] for name in one))
    reference = arms[0]
    return {
        "worlds": {
            "count": len(takes),
            "routes": _counts(take["route"] for take in takes),
            "layouts": _counts(take["layout"] for take in takes),
            "shares": _shares(takes),
        },
        "measures": {
            row: {name: measure_of(name, _column(found, name)) for name in names}
            for row, found in values.items()
        },
        "curves": {row: _curves(records) for row, records in rows.items()},
        "reference": reference,
        "paired": {
            arm: {
                name: _plain(paired(_column(values[reference], name), _column(values[arm], name)))
                for name in names
            }
            for arm in arms
            if arm != reference
        },
        "paired_curves": {
            arm: _paired_curves(rows[reference], rows[arm]) for arm in arms if arm != reference
        },
        "paired_by_route": {
            route: {
                arm: {
                    name: _plain(
                        paired(
                            *(
                                _column([values[row][i] for i in _of(takes, route)], name)
                                for row in (reference, arm)
                            )
                        )
                    )
                    for name in BY_ROUTE
                }
                for arm in arms
                if arm != reference
            }
            for route in dict.fromkeys(take["route"] for take in takes)
        },
        "by_route": {
            route: {
                row: {
                    name: measure_of(name, _column([found[i] for i in _of(takes, route)], name))
                    for name in BY_ROUTE
                }
                for row, found in values.items()
            }
            for route in dict.fromkeys(take["route"] for take in takes)
        },
        "failed": {arm: sum("failed" in record for record in rows[arm]) for arm in arms},
        "cameras": {row: _cameras(records, rows[TRUE]) for row, records in rows.items()},
        "true_clips_looked_at": sum("pose" in clip for record in rows[TRUE] for clip in record["clips"]),
        "per_scene": [
            {name: take[name] for name in ("index", "seed", "route", "layout")}
            | {"values": _all_values(values, place, arms)}
            for place, take in enumerate(takes)
        ],
    }


def _told(record: Record, true: Record) -> Record:
    """A record without errors of cameras in clips whose true render gets none: there they say nothing of the
    model, and an estimator that finds a path all the same may have found any."""
    if "clips" not in record:
        return record
    clips = [
        clip
        if exact.get(CAMERA[0]) is not None
        else {name: value for name, value in clip.items() if name not in CAMERA}
        for clip, exact in zip(record["clips"], true["clips"], strict=True)
    ]
    return {**record, "clips": clips}


def _all_values(
    values: Mapping[str, Sequence[Record]], place: int, arms: Sequence[str]
) -> dict[str, float | None]:
    """As ``evaluate compare`` reads them: ``ARM/NAME``, and ``baseline/ROW/NAME`` of what is no arm."""
    return {
        f"{row if row in arms else f'baseline/{row}'}/{name}": value
        for row, found in values.items()
        for name, value in found[place].items()
    }


def _of(takes: Sequence[Record], route: str) -> list[int]:
    return [place for place, take in enumerate(takes) if take["route"] == route]


def _counts(words: Any) -> dict[str, int]:
    found: dict[str, int] = {}
    for word in words:
        found[word] = found.get(word, 0) + 1
    return found


def _shares(takes: Sequence[Record]) -> dict[str, list[float]]:
    """Of every region its mean share of the pixels, clip by clip."""
    return {
        name: np.mean([[clip[name] for clip in take["shares"]] for take in takes], axis=0).tolist()
        for name in REGIONS
    }


def _column(values: Sequence[Record], name: str) -> np.ndarray:
    found = [one.get(name) for one in values]
    return np.array([math.nan if value is None else value for value in found], np.float64)


def measure_of(name: str, values: np.ndarray) -> dict[str, Any] | None:
    """Mean and interval over worlds, plain values; None where no world has one."""
    reach = _RANGES.get(name.rpartition("/")[2], (-math.inf, math.inf))
    return _plain(interval(values, within=reach))


def _plain(found: Any) -> dict[str, Any] | None:
    return None if found is None else asdict(found)


def _by_clip(records: Sequence[Record], name: str) -> np.ndarray:
    """f64 [worlds, clips], NaN where there is no value."""
    clips = max((len(record["clips"]) for record in records if "clips" in record), default=0)
    table = np.full((len(records), clips), math.nan)
    for place, record in enumerate(records):
        for clip, found in enumerate(record.get("clips", ())):
            value = found.get(name)
            table[place, clip] = math.nan if value is None else value
    return table


def _curves(records: Sequence[Record]) -> dict[str, list[dict[str, Any] | None]]:
    """Every measure clip by clip: mean and interval over worlds."""
    tables = {name: _by_clip(records, name) for name in (*CURVES, *CAMERA)}
    return {
        name: [measure_of(name, column) for column in table.T]
        for name, table in tables.items()
        if np.isfinite(table).any()
    }


def _paired_curves(
    first: Sequence[Record], second: Sequence[Record]
) -> dict[str, list[dict[str, Any] | None]]:
    """The same of the differences, second minus first."""
    found = {}
    for name in (*CURVES, *CAMERA):
        one, other = _by_clip(first, name), _by_clip(second, name)
        if one.shape == other.shape and np.isfinite(one + other).any():
            found[name] = [_plain(paired(a, b)) for a, b in zip(one.T, other.T, strict=True)]
    return found


def _cameras(records: Sequence[Record], true: Sequence[Record]) -> dict[str, Any] | None:
    """Over the clips whose true render gets cameras: how many of a row got none for all frames, by reason,
    and quantiles of the errors of the others, since one wrong path would make a mean. None where none was
    looked at."""
    looked = [
        clip["pose"]
        for record, exact in zip(records, true, strict=True)
        for clip, told in zip(record.get("clips", ()), exact["clips"], strict=False)
        if "pose" in clip and told.get(CAMERA[0]) is not None
    ]
    if not looked:
        return None
    failed = _counts(pose["reason"] for pose in looked if pose.get(CAMERA[0]) is None)
    found: dict[str, Any] = {"clips": len(looked), "failed": failed}
    for name in CAMERA:
        known = [pose[name] for pose in looked if pose.get(name) is not None]
        quantiles = np.quantile(known, (0.5, 0.9)).tolist() if known else None
        found[name] = (
            None if quantiles is None else dict(zip(("median", "ninetieth"), quantiles, strict=True))
        )
    return found
