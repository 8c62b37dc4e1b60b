"""Time stamps: seconds of numbers whose unit the format says, but not always the file."""

from __future__ import annotations

import numpy as np

_UNITS = {"seconds": 1.0, "milliseconds": 1e-3, "microseconds": 1e-6, "nanoseconds": 1e-9}
_SLOW, _FAST = 0.1, 1000.0  # frames per second beyond which a unit is doubted
_USUAL = (0.5, 500.0)  # frames per second of cameras; narrower than the factor 1000 between two units
_NO_VIDEO = 1e4  # seconds between two frames that no video has: the unit is certainly another one
_AN_EPOCH = 1e8  # seconds from which on time stamps are dates
_NO_DATE = 1e11  # seconds: three thousand years


def in_seconds(stamps: np.ndarray, unit: str) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Times in seconds, or None where they do not increase, and notes.

    The median gap between frames tells the unit: one that would be hours is of another unit than the format
    says, and is converted where a single one gives a frame rate that cameras have. Where it is only odd,
    the times stay and the note says so.

    Args:
        stamps: float64 [T], as the file has them.
        unit: "seconds", "milliseconds", "microseconds" or "nanoseconds", as the format says.
    """
    if not (np.isfinite(stamps).all() and (np.diff(stamps) > 0).all()):
        return None, ("the times do not increase and were left out",)
    times = stamps * _UNITS[unit]
    if len(stamps) < 2:
        return times, ()
    gap = float(np.median(np.diff(stamps)))
    rate = 1.0 / (gap * _UNITS[unit])
    whole = bool((np.diff(stamps) == np.round(np.diff(stamps))).all())
    if unit == "seconds" and whole and _SLOW <= rate <= 1.0 and abs(stamps[0]) < _AN_EPOCH:
        return times, (
            f"the time stamps are whole numbers, {stamps[0]:g}, {stamps[1]:g} and so on, as frame numbers "
            f"are: taken as seconds they give {rate:.4g} frames/s; --source-fps F says the true rate",
        )
    if _SLOW <= rate <= _FAST:
        return times, ()
    likely = [other for other, seconds in _UNITS.items() if _USUAL[0] <= 1.0 / (gap * seconds) <= _USUAL[1]]
    if len(likely) == 1 and (1.0 / rate > _NO_VIDEO or float(np.abs(times).max()) > _NO_DATE):
        other_rate = 1.0 / (gap * _UNITS[likely[0]])
        return stamps * _UNITS[likely[0]], (
            f"the time stamps are {likely[0]}, not {unit} as the format says: they were converted, which "
            f"gives {other_rate:.4g} frames/s",
        )
    guess = "; they may be frame numbers" if whole else ""
    if likely and not guess:
        guess = f"; they may be {likely[0]}"
    elif likely:
        guess += f" or {likely[0]}"
    return times, (f"the times, taken as {unit}, give {rate:.4g} frames/s, which is odd for a video{guess}",)
