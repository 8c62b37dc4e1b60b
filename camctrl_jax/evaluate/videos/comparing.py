"""Two results of ``evaluate videos``, clip by clip: which model keeps to the paths better."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from camctrl_jax.errors import InvalidValue
from camctrl_jax.evaluate.videos.report import MEASURES, OF_WHAT_MOVES, undoubted
from camctrl_jax.metrics.intervals import paired, shares_apart

SUCCESSES: tuple[tuple[str, str, Callable[[Mapping[str, Any]], bool]], ...] = (
    ("measured", "Clips that could be measured", lambda row: "failed" not in row),
    ("registered", "Every frame registers", lambda row: bool(row.get("registered", False))),
    ("undoubted", "and without doubts", undoubted),
)
"""(name, title, whether a clip succeeded)."""

_PROTOCOL = ("pose_frames", "longest_side", "known_lens", "clip_frames", "doubts")
_OF_PIXELS = ("motion_px", "motion_paper_units")
_RATE_APART, _PATH_APART = 0.01, 1e-3

Pairs = Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]]
"""By clip, its row in each of two results."""


def compare_videos(
    first: Mapping[str, Any], second: Mapping[str, Any], names: tuple[str, str]
) -> dict[str, Any]:
    """Paired differences, second minus first, over the clips that both results name, JSON-able.

    A clip that failed in either is counted: in the table of successes, and beside each measure.

    Args:
        first, second: what ``results.json`` holds.
        names: what to call them.

    Raises:
        InvalidValue: they were not measured by the same protocol, or share no clip.
    """
    common = [clip for clip in first["clips"] if clip in second["clips"]]
    if not common:
        raise InvalidValue(f"{names[0]} and {names[1]} have no clip in common: clips are paired by name.")
    pairs = {clip: (first["clips"][clip], second["clips"][clip]) for clip in common}
    formats = [result["settings"].get("format") for result in (first, second)]
    if formats[0] != formats[1]:
        older = names[formats.index(min(formats, key=lambda each: each or 0))]
        raise InvalidValue(f"{older} was written by an older version: run its command again, then compare.")
    apart = [*_protocols_apart(first["settings"], second["settings"]), *_clips_apart(pairs)]
    if apart:
        raise InvalidValue(
            f"{names[0]} and {names[1]} were not measured alike, so that their difference would say nothing "
            f"of the models: {'; '.join(apart)}. Measure both with the same options, on clips of the same "
            "paths."
        )
    sizes = sum(one.get("size") != other.get("size") for one, other in pairs.values() if _both(one, other))
    differences = {}
    for measure, _, _ in MEASURES:
        if not (sizes and measure in _OF_PIXELS):
            found = difference(pairs, measure)
            if found is not None:
                differences[measure] = found
    return {
        "kind": "videos",
        "first": names[0],
        "second": names[1],
        "clips": len(common),
        "left_out": [len(result["clips"]) - len(common) for result in (first, second)],
        "successes": {name: success(pairs, succeeded) for name, _, succeeded in SUCCESSES},
        "differences": differences,
        "remarks": _remarks(sizes, pairs, first, second),
    }


def _both(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return "failed" not in one and "failed" not in other


# ------------------------------------------------------------------------------------------ the same protocol


def _protocols_apart(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    found = [
        f"{name.replace('_', ' ')}: {first.get(name)} and {second.get(name)}"
        for name in _PROTOCOL
        if first.get(name) != second.get(name)
    ]
    for kind in first["estimators"]:
        one, other = (_estimator(settings["estimators"].get(kind, {})) for settings in (first, second))
        if one != other:
            found.append(f"{kind}: {one} and {other}")
    return found


def _estimator(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """What must be equal. Imported results are other files for other clips, whatever made them."""
    kept = {key: fingerprint.get(key) for key in ("name", "version", "parameters", "weights")}
    if str(kept["name"]).startswith("imported "):
        kept["weights"] = None
        kept["parameters"] = [one for one in kept["parameters"] or () if one[0] != "for each clip"]
    return kept


def _clips_apart(pairs: Pairs) -> list[str]:
    """What differs between clips of one name; of each kind the first clip is named."""
    found: dict[str, str] = {}
    for clip, (one, other) in pairs.items():
        if not _both(one, other):
            continue
        if one["frames"] != other["frames"]:
            found.setdefault("frames", f"{clip} has {one['frames']} and {other['frames']} frames")
        if abs(one["fps"] / other["fps"] - 1.0) > _RATE_APART:
            found.setdefault("fps", f"{clip} has {one['fps']:.4g} and {other['fps']:.4g} frames a second")
        if one["lens"] != other["lens"]:
            found.setdefault("lens", f"the lens of {clip} is {one['lens']} and {other['lens']}")
        lengths = [row["asked"]["path_length"] for row in (one, other)]
        turns = [row["asked"]["rotation_deg"] for row in (one, other)]
        if not all(
            math.isclose(*pair, rel_tol=_PATH_APART, abs_tol=_PATH_APART) for pair in (lengths, turns)
        ):
            found.setdefault(
                "paths",
                f"the asked path of {clip} is {lengths[0]:.4g} long and turns by {turns[0]:.4g} degrees, and "
                f"{lengths[1]:.4g} and {turns[1]:.4g}",
            )
    return list(found.values())


def _remarks(
    sizes: int,
    pairs: Pairs,
    first: Mapping[str, Any],
    second: Mapping[str, Any],
) -> list[str]:
    found = []
    if sizes:
        found.append(
            f"{sizes} clips have pictures of another size: motion in pixels is left out, motion in picture "
            "diagonals compares."
        )
    if first["settings"]["with_reference"] != second["settings"]["with_reference"]:
        found.append("only one of them has a reference: PSNR, SSIM and gradient energy are left out.")
    lost = sum(not one.get("registered", False) or not other.get("registered", False)
               for one, other in pairs.values())  # fmt: skip
    if lost:
        found.append(
            f"{lost} of {len(pairs)} clips lack an estimated path in one of them or both, and with it path "
            "errors: means of path errors are over the others. See first how many register."
        )
    distances = [result.get("frechet") or {} for result in (first, second)]
    if all("distance" in each for each in distances):
        one, other = distances
        same = one["clips"] == other["clips"] and one["embedder"] == other["embedder"]
        told = f"{one['distance']:.4g} ({one['clips']} clips) and {other['distance']:.4g} ({other['clips']})"
        found.append(
            f"Frechet distances to the reference: {told}; "
            + ("they have no paired interval." if same else "they do not compare: other clips or features.")
        )
    return found


# -------------------------------------------------------------------------------------------------- numbers


def difference(pairs: Pairs, measure: str) -> dict[str, Any] | None:
    """The paired difference of one measure, and how many clips lack it; None where no pair has it."""
    columns = [
        np.array([np.nan if row[side].get(measure) is None else row[side][measure] for row in pairs.values()])
        for side in (0, 1)
    ]
    found = paired(*(column.astype(np.float64) for column in columns))
    if found is None:
        return None
    known = [np.isfinite(column.astype(np.float64)) for column in columns]
    both = known[0] & known[1]
    plain = asdict(found)
    plain.pop("failed")
    extra = {}
    if measure in OF_WHAT_MOVES:
        extra = {
            "nothing_moves": [
                sum(bool(row[side].get("nothing_moves")) for row in pairs.values()) for side in (0, 1)
            ]
        }
    return {
        **plain,
        "first": float(columns[0][both].mean()),
        "second": float(columns[1][both].mean()),
        "only_first": int((known[0] & ~known[1]).sum()),
        "only_second": int((known[1] & ~known[0]).sum()),
        "neither": int((~known[0] & ~known[1]).sum()),
        **extra,
    }


def success(pairs: Pairs, succeeded: Callable[[Mapping[str, Any]], bool]) -> dict[str, Any]:
    """Shares of clips that succeeded, their difference, and how many did in which, JSON-able."""
    outcomes = [(succeeded(one), succeeded(other)) for one, other in pairs.values()]
    first_only = sum(one and not other for one, other in outcomes)
    second_only = sum(other and not one for one, other in outcomes)
    count = len(outcomes)
    low, high = shares_apart(first_only, second_only, count)
    return {
        "first": sum(one for one, _ in outcomes) / count,
        "second": sum(other for _, other in outcomes) / count,
        "mean": (second_only - first_only) / count,
        "low": low,
        "high": high,
        "clips": count,
        "both": sum(one and other for one, other in outcomes),
        "only_first": first_only,
        "only_second": second_only,
        "neither": sum(not one and not other for one, other in outcomes),
    }


# ----------------------------------------------------------------------------------------------------- page


def videos_comparison_markdown(comparison: Mapping[str, Any]) -> str:
    """The comparison as a page."""
    first, second = comparison["first"], comparison["second"]
    lines = [
        f"{comparison['clips']} clips that both have; left out: {comparison['left_out'][0]} of the first, "
        f"{comparison['left_out'][1]} of the second. Mean difference with its 95 % interval over clips.",
        "",
        f"| success | {first} | {second} | second minus first | both | only first | only second | neither |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, title, _ in SUCCESSES:
        found = comparison["successes"][name]
        cells = [title, f"{found['first']:.1%}", f"{found['second']:.1%}", span(found)]
        cells += [str(found[key]) for key in ("both", "only_first", "only_second", "neither")]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        f"| measure | {first} | {second} | second minus first | clips | only first | only second | neither |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, title, _ in MEASURES:
        if (found := comparison["differences"].get(name)) is not None:
            cells = [title, f"{found['first']:.4g}", f"{found['second']:.4g}", span(found)]
            cells += [str(found[key]) for key in ("clips", "only_first", "only_second", "neither")]
            lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "\\* the interval leaves 0 out."]
    return "\n".join([*lines, *(f"\n{remark[0].upper()}{remark[1:]}" for remark in comparison["remarks"])])


def span(found: Mapping[str, Any]) -> str:
    """A difference with its interval, and a star where that leaves 0 out."""
    low, high = found["low"], found["high"]
    bounds = "" if low is None else f" ({low:+.3g} to {high:+.3g})"
    return f"{found['mean']:+.3g}{bounds}" + (" *" if low is not None and low * high > 0 else "")
