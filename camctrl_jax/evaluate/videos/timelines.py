"""Errors against time, over clips: means with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from camctrl_jax.evaluate.videos.poses import ROT_ERR, ROT_FIRST, TRANS_ERR, TRANS_FIRST
from camctrl_jax.metrics.intervals import interval

PANELS = (
    ("Translation error, share of the path", {TRANS_FIRST: "first cameras joined", TRANS_ERR: "aligned"}),
    ("Rotation error, degrees", {ROT_FIRST: "first cameras joined", ROT_ERR: "aligned"}),
    ("PSNR against the reference, dB", {"psnr_db": ""}),
    ("Cosine with the first frame", {"appearance_to_first": ""}),
)
"""What is drawn against time: (title, {measure of single frames: what to call it})."""

OF_POSES = (TRANS_ERR, TRANS_FIRST, ROT_ERR, ROT_FIRST)

_POINTS = 33
_ROUNDING = 1e-3  # seconds


def over_time(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """By measure: "seconds", and lists of "mean", "low", "high" and "clips" at each of them.

    Clips of several rates are read at common times, between frames linearly and nowhere beyond their ends; a
    time that fewer than half of the clips reach is left out, since it would be about other clips.
    """
    found = {}
    for name in (name for _, names in PANELS for name in names):
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
    if name in OF_POSES:
        seconds = seconds[of_frames["pose_frames"]]
    return seconds, np.array(values, np.float64)
