"""Errors against time, over clips: means with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from camctrl_jax.evaluate.videos.poses import ROT_ERR, TRANS_ERR
from camctrl_jax.metrics.intervals import interval

OVER_TIME = (
    (TRANS_ERR, "Translation error, share of the path"),
    (ROT_ERR, "Rotation error, degrees"),
    ("psnr_db", "PSNR against the reference, dB"),
    ("appearance_to_first", "Cosine with the first frame"),
)
"""Measures of single frames, and what to call them."""

_POINTS = 33
_ROUNDING = 1e-3  # seconds


def over_time(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """By measure: "seconds", and lists of "mean", "low", "high" and "clips" at each of them.

    Clips of several rates are read at common times, between frames linearly and nowhere beyond their ends; a
    time that fewer than half of the clips reach is left out, since it would be about other clips.
    """
    found = {}
    for name, _ in OVER_TIME:
        curves = [curve for row in rows.values() if (curve := _curve(row, name)) is not None]
        if not curves:
            continue
        ends = sorted(times[-1] for times, _ in curves)
        end = ends[(len(ends) - 1) // 2]
        longest = max(len(times) for times, _ in curves)
        if end <= 0:
            continue
        seconds = np.linspace(0.0, end, min(_POINTS, longest))
        values = np.stack([np.interp(seconds, times, kept) for times, kept in curves])
        for line, (times, _) in zip(values, curves, strict=True):
            line[seconds > times[-1] + _ROUNDING] = np.nan
        means = [interval(column) for column in values.T]
        found[name] = {
            "seconds": seconds.round(4).tolist(),
            **{key: [getattr(mean, key) for mean in means] for key in ("mean", "low", "high", "clips")},
        }
    return found


def _curve(row: Mapping[str, Any], name: str) -> tuple[np.ndarray, np.ndarray] | None:
    """(seconds, values) of one clip."""
    of_frames = row.get("per_frame", {})
    values = of_frames.get(name)
    if values is None:
        return None
    seconds = np.array(of_frames["seconds"])
    if name in (TRANS_ERR, ROT_ERR):
        seconds = seconds[of_frames["pose_frames"]]
    return seconds, np.array(values, np.float64)
