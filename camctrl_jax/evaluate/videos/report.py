"""What ``evaluate videos`` says of all clips: means with intervals, and one page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from camctrl_jax.metrics.intervals import Interval, interval
from camctrl_jax.metrics.motion import MotionStrength

_MEASURES = (
    ("trans_err", "TransErr", "units of the asked path, after alignment by positions"),
    ("trans_err_share_of_path", "TransErr / path", "share of the path's length"),
    ("rot_err_deg", "RotErr", "degrees, after alignment by positions; see the count of degenerate paths"),
    ("trans_err_aligned", "TransErr, aligned", "after alignment by rotations"),
    ("rot_err_aligned_deg", "RotErr, aligned", "degrees, after alignment by rotations"),
    ("rot_err_first_deg", "RotErr, first", "degrees, relative to the first frame"),
    ("rpe_rot_deg", "RPE, rotation", "degrees from frame to frame"),
    ("focal_error", "Focal length", "error as a share, where the lens is estimated"),
    ("motion_px", "Motion strength", "pixels per frame inside the masks"),
    ("motion_diagonals", "Motion / diagonal", "the same in picture diagonals"),
    ("motion_paper_units", "Motion, paper", "pixels x 180 / pi"),
    ("moving_share", "Moving share", "of all pixels"),
    ("appearance", "Appearance", "mean cosine of frames with their clip's mean"),
    ("appearance_to_first", "Appearance, first", "mean cosine of later frames with the first"),
    ("psnr_db", "PSNR", "dB against the reference"),
    ("ssim", "SSIM", "against the reference"),
    ("gradient_energy_to_reference", "Gradient energy", "as a share of the reference's"),
)


def summarise(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Means over clips with 95 % intervals; clips without a value are counted beside each."""
    clips = list(rows.values())
    measured = [row for row in clips if "failed" not in row]
    reasons: dict[str, int] = {}
    for row in clips:
        if "failed" in row:
            reasons[row["failed"]] = reasons.get(row["failed"], 0) + 1
    parts: dict[str, int] = {}
    for row in measured:
        for name in row["failures"]:
            parts[name] = parts.get(name, 0) + 1
    motion = sum((MotionStrength(**row["motion"]) for row in measured if "motion" in row), MotionStrength())
    over: dict[str, Interval | None] = {
        name: interval(np.array([row.get(name) for row in clips], np.float64)) for name, _, _ in _MEASURES
    }
    sound = [row.get("rot_err_deg") if not row.get("degenerate") else None for row in clips]
    undoubted = interval(
        np.array([float(row.get("registered", False) and not row["doubts"]) for row in clips])
    )
    registered = interval(np.array([float(row.get("registered", False)) for row in clips]))
    return {
        "clips": len(clips),
        "failed": len(clips) - len(measured),
        "failed_by_reason": reasons,
        "measured_in_part": parts,
        "degenerate_paths": sum(bool(row.get("degenerate")) for row in clips),
        "geometric_consistency": _plain(registered),
        "geometric_consistency_strict": _plain(undoubted),
        "rot_err_deg_of_sound_paths": _plain(interval(np.array(sound, np.float64))),
        "motion_px_over_all_pixels": motion.px,
        **{name: _plain(found) for name, found in over.items()},
    }


def _plain(found: Interval | None) -> dict[str, Any] | None:
    return None if found is None else asdict(found)


def markdown(results: Mapping[str, Any]) -> str:
    """One page."""
    found = results["summary"]
    failed = "".join(f"; {count} {reason}" for reason, count in found["failed_by_reason"].items())
    lines = [
        f"{found['clips']} clips, {found['failed']} of them failed{failed}. Of the rest without a part: "
        + (", ".join(f"{count} {name}" for name, count in found["measured_in_part"].items()) or "none")
        + f". {found['degenerate_paths']} asked paths are nearly straight: their RotErr means nothing.",
        "",
        "| measure | mean | 95 % interval | clips | without | |",
        "|---|---|---|---|---|---|",
    ]
    rows = [("geometric_consistency", "Geometric consistency", "share of clips whose every frame registers")]
    rows += [("geometric_consistency_strict", "Geometry, strict", "and nothing speaks against it")]
    rows += [("rot_err_deg_of_sound_paths", "RotErr, sound paths", "degrees, without the degenerate ones")]
    for name, title, meaning in (*rows, *_MEASURES):
        if (row := found[name]) is not None:
            bounds = "" if row["low"] is None else f"{row['low']:.4g} to {row['high']:.4g}"
            cells = title, f"{row['mean']:.4g}", bounds, f"{row['clips']}", f"{row['failed']}", meaning
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
