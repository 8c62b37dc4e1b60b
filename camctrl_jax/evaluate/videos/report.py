"""What ``evaluate videos`` says of all clips: means with intervals, and one page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from camctrl_jax.estimators.checks import DOUBTS
from camctrl_jax.metrics.intervals import Interval, interval, share_interval
from camctrl_jax.metrics.motion import MotionStrength

MEASURES = (
    ("trans_err", "TransErr", "units of the asked path, after alignment by positions"),
    ("trans_err_share_of_path", "TransErr / path", "share of the path's length"),
    ("rot_err_deg", "RotErr", "degrees, after alignment by positions; see the count of degenerate paths"),
    ("trans_err_aligned", "TransErr, aligned", "units of the asked path, after alignment by rotations"),
    (
        "trans_err_aligned_share_of_path",
        "TransErr / path, aligned",
        "share of the path's length; about 0.25 on a straight path that is not followed at all",
    ),
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
    ("exploration_to_mean", "Exploration", "mean cosine of all frames with the whole video's mean"),
    ("exploration_clip_to_first", "Exploration, clips", "cosine of the last clip's mean with the first's"),
    ("exploration_last_to_first", "Exploration, ends", "cosine of the last frame with the first"),
    ("psnr_db", "PSNR", "dB against the reference"),
    ("ssim", "SSIM", "against the reference"),
    ("gradient_energy_to_reference", "Gradient energy", "as a share of the reference's"),
)
"""(name, title, meaning) of what each clip has one number of."""

OF_WHAT_MOVES = ("motion_px", "motion_diagonals", "motion_paper_units")
"""Measures that a clip in which nothing moves does not have."""


def summarise(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Means over clips with 95 % intervals; clips without a value are counted beside each.

    Clips in which nothing moves have no motion strength. They are counted under "nothing_moves", and not as
    "failed" of the measures of motion: it was measured that nothing moves.
    """
    clips = list(rows.values())
    measured = [row for row in clips if "failed" not in row]
    still = sum(bool(row.get("nothing_moves")) for row in clips)
    motion = sum((MotionStrength(**row["motion"]) for row in measured if "motion" in row), MotionStrength())
    over = {name: _mean(row.get(name) for row in clips) for name, _, _ in MEASURES}
    for name in OF_WHAT_MOVES:
        if (found := over[name]) is not None:
            over[name] = {**found, "failed": found["failed"] - still, "nothing_moves": still}
    return {
        "clips": len(clips),
        "failed": len(clips) - len(measured),
        "failed_by_reason": _counted(row["failed"] for row in clips if "failed" in row),
        "measured_in_part": _counted(name for row in measured for name in row["failures"]),
        "poses_by_reason": _counted(
            row["failures"]["poses"].partition(":")[0] for row in measured if "poses" in row["failures"]
        ),
        "degenerate_paths": sum(bool(row.get("degenerate")) for row in clips),
        "nothing_moves": still,
        "remarks": _counted(remark for row in measured for remark in row["remarks"]),
        "doubts": _counted(doubt for row in clips for doubt in row.get("doubts", ())),
        "fps": _range(row["fps"] for row in measured),
        "frames": _range(row["frames"] for row in measured),
        "sizes": sorted({f"{row['size'][1]}x{row['size'][0]}" for row in measured}),
        "geometric_consistency": _share(bool(row.get("registered", False)) for row in clips),
        "geometric_consistency_strict": _share(undoubted(row) for row in clips),
        "rot_err_deg_of_sound_paths": _mean(
            None if row.get("degenerate") else row.get("rot_err_deg") for row in clips
        ),
        "motion_px_over_all_pixels": motion.px,
        **over,
    }


def undoubted(row: Mapping[str, Any]) -> bool:
    """Whether every frame of a clip has a pose and none of the checks speaks against the model."""
    return bool(row.get("registered", False)) and not row["doubts"]


def _mean(values: Iterable[float | None]) -> dict[str, Any] | None:
    found: Interval | None = interval(np.array(list(values), np.float64))
    return None if found is None else asdict(found)


def _share(successes: Iterable[bool]) -> dict[str, Any] | None:
    found = share_interval(np.array(list(successes)))
    return None if found is None else asdict(found)


def _counted(names: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts


def _range(values: Iterable[float]) -> list[float] | None:
    found = list(values)
    return [min(found), max(found)] if found else None


# --------------------------------------------------------------------------------------------------- page


def markdown(results: Mapping[str, Any]) -> str:
    """One page."""
    found = results["summary"]
    lines = [
        *_head(found),
        "",
        "| measure | mean | 95 % interval | clips | without | |",
        "|---|---|---|---|---|---|",
    ]
    rows = [("geometric_consistency", "Geometric consistency", "share of clips whose every frame registers")]
    rows += [("geometric_consistency_strict", "Geometry, strict", "and none of the doubts counted below")]
    rows += [("rot_err_deg_of_sound_paths", "RotErr, sound paths", "degrees, without the degenerate ones")]
    for name, title, meaning in (*rows, *MEASURES):
        if (row := found[name]) is not None:
            bounds = "" if row["low"] is None else f"{row['low']:.4g} to {row['high']:.4g}"
            without = f"{row['failed']}"
            if row.get("nothing_moves"):
                without += f", and {row['nothing_moves']} where nothing moves"
            cells = title, f"{row['mean']:.4g}", bounds, f"{row['clips']}", without, meaning
            lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *_doubts(results), *_protocol(results), *_frechet(results["frechet"])]
    lines += [f"\n{count} of the clips: {remark}." for remark, count in results["summary"]["remarks"].items()]
    if results["failed"]:
        lines += ["", "## Failed", ""]
        lines += [f"* {name}: {message}" for name, message in results["failed"].items()]
    parts = {name: row["failures"] for name, row in results["clips"].items() if row.get("failures")}
    if parts:
        lines += ["", "## Measured in part", ""]
        lines += [
            f"* {name}: {part}: {_one_line(reason)}"
            for name, each in parts.items()
            for part, reason in each.items()
        ]
    return "\n".join(lines)


def _head(found: Mapping[str, Any]) -> list[str]:
    failed = "".join(f"; {count} {reason}" for reason, count in found["failed_by_reason"].items())
    parts = ", ".join(f"{count} {name}" for name, count in found["measured_in_part"].items()) or "none"
    return [
        f"{found['clips']} clips, {found['failed']} of them failed{failed}. Of the rest without a part: "
        f"{parts}. {found['degenerate_paths']} paths are nearly straight: their RotErr means nothing. "
        f"Nothing moves in {found['nothing_moves']}."
    ]


def _doubts(results: Mapping[str, Any]) -> list[str]:
    found = results["summary"]["doubts"]
    told = ", ".join(f"{name} {count}" for name, count in sorted(found.items(), key=lambda one: -one[1]))
    return [
        f"Strict consistency counts each of these doubts: {', '.join(DOUBTS)} (those of points only where "
        "the estimator gives points; limits in results.json, settings.doubts). How many clips have which: "
        f"{told or 'none'}.",
    ]


def _protocol(results: Mapping[str, Any]) -> list[str]:
    found, settings = results["summary"], results["settings"]
    if found["frames"] is None:
        return []
    used = ", ".join(f"{kind} {each['name']}" for kind, each in settings["estimators"].items())
    lens = "known" if settings["known_lens"] else "estimated"
    return [
        "",
        f"Clips of {_between(found['frames'])} frames, {_between(found['fps'])} a second, "
        f"{', '.join(found['sizes'])} pixels. Poses of at most {settings['pose_frames']} frames, pictures of "
        f"at most {settings['longest_side']} pixels a side, lens {lens}. Estimators: {used}.",
    ]


def _between(bounds: list[float]) -> str:
    low, high = bounds
    return f"{low:.4g}" if f"{low:.4g}" == f"{high:.4g}" else f"{low:.4g} to {high:.4g}"


def _frechet(found: Mapping[str, Any] | None) -> list[str]:
    if found is None:
        return []
    lines = ["", "## Frechet distance of video features", ""]
    if "reason" in found:
        return [*lines, f"Not given: {found['reason']}"]
    halves = found["halves"]
    rows = [
        ("generated to reference", found["clips"], f"{found['distance']:.4g}"),
        ("generated to reference, other clips", halves["clips"], _spread(halves["generated_to_reference"])),
        ("floor: reference to reference, other clips", halves["clips"], _spread(halves["floor"])),
    ]
    lines += ["| | clips a side | distance |", "|---|---|---|"]
    lines += [f"| {name} | {clips} | {value} |" for name, clips, value in rows]
    name, frames, fps = found["embedder"]["name"], _between(found["frames"]), _between(found["fps"])
    lines += [
        "",
        f"{name}, {frames} frames, {fps} a second, {found['without']} clips without. The last two are means "
        f"over {halves['splits']} random splits (least to greatest). Distances fall as clips grow more: only "
        "those of equally many compare.",
    ]
    return lines + [f"\nWarning: {warning}" for warning in found["warnings"]]


def _spread(found: Mapping[str, float]) -> str:
    return f"{found['mean']:.4g} ({found['low']:.4g} to {found['high']:.4g})"


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]
