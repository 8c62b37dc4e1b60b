"""Tables of what estimators saw in clips, for the pages of the benchmark and of clips with known faults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from camctrl_jax.evaluate.worlds.looking import LEAST_PATH
from camctrl_jax.evaluate.worlds.summary import WRONG_SHARE

NOT_TOLD = "-"


def told(found: Mapping[str, Any] | None, digits: int = 2) -> str:
    """A mean with its interval."""
    if found is None:
        return NOT_TOLD
    if found["low"] is None:
        return f"{found['mean']:.{digits}f}"
    return f"{found['mean']:.{digits}f} ({found['low']:.{digits}f} to {found['high']:.{digits}f})"


def told_share(found: Mapping[str, Any] | None) -> str:
    """A share with its interval, in percent."""
    if found is None:
        return NOT_TOLD
    return f"{found['mean']:.0%} ({found['low']:.0%} to {found['high']:.0%})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of Markdown."""
    return [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *(f"| {' | '.join(row)} |" for row in rows)]


def estimates_page(results: Mapping[str, Any]) -> list[str]:
    """Motion, appearance and cameras, as far as they were looked at; lines of Markdown."""
    lines = []
    if results["motion"] is not None:
        lines += _motion(results["motion"])
    elif without := results["estimators"].get("without"):
        lines += ["", f"Motion strength and appearance consistency were left out: {without}"]
    if results["poses"] is not None:
        lines += _poses(results["poses"])
    if results["motion"] is not None or results["poses"] is not None:
        versions = ", ".join(f"{what}: {name}" for what, name in results["estimators"].items())
        lines += ["", f"Estimators: {versions}."]
    return lines


def _motion(found: Mapping[str, Any]) -> list[str]:
    exact = found["exact"]
    rows = []
    for name, row in found["clips"].items():
        nothing = row["clips"] - sum(row["failed"].values()) - (row["motion_px"] or {"clips": 0})["clips"]
        cells = [name.replace("/", ", "), told(row["motion_px"]), f"{nothing} of {row['clips']}"]
        cells += [told(row["moving_share"], 3), told(row["motion_px_exact_masks"])]
        cells += [told(row["appearance"], 3), told(row["appearance_to_first"], 3)]
        failed = ", ".join(f"{count} {reason}" for reason, count in row["failed"].items())
        rows.append([*cells[:2], cells[2] + (f"; failed: {failed}" if failed else ""), *cells[3:]])
    head = ["clips", "motion, px a frame", "nothing found to move", "share that moves",
            "motion in exact masks, px", "appearance, to the mean", "to the first frame"]  # fmt: skip
    return [
        "",
        "## Motion and appearance, estimated",
        "",
        f"{found['scenes']} scenes, the first sample of each. Motion: flow inside estimated masks, the "
        "camera's share of it included. True flow in true masks: "
        f"**{told(exact['motion_px'])} px**, in {told(exact['moving_share'], 3)} of the pixels. Appearance: "
        "cosines of histograms, which are not CLIP's.",
        "",
        *table(head, rows),
    ]


def _poses(found: Mapping[str, Any]) -> list[str]:
    rows = []
    for name, row in found["clips"].items():
        failed = ", ".join(f"{count} {reason}" for reason, count in row["failed"].items()) or "none"
        rows.append([
            name.replace("/", ", "), str(row["clips"]),
            told_share(row["all_registered"]), told_share(row["without_doubts"]), failed,
            _middle(row["rot_err_aligned_deg"], 2), _middle(row["trans_err_aligned_share"], 1, 100.0),
            f"{row['wrong']} ({row['wrong_without_doubts']})",
            _middle(row["rot_err_deg"], 1), _middle(row["trans_err_share"], 1, 100.0), str(row["degenerate"]),
        ])  # fmt: skip
    head = ["clips", "number", "all frames registered", "and no doubts", "without cameras",
            "RotErr aligned, degrees", "TransErr aligned, % of path",
            f"over {WRONG_SHARE:.0%} (no doubts)", "RotErr of the paper", "TransErr of the paper, % of path",
            "degenerate"]  # fmt: skip
    return [
        "",
        "## Estimated cameras",
        "",
        f"{found['scenes']} scenes, {found['stay']} of which are left out, since their camera stands or "
        f"turns on the spot (below {LEAST_PATH:g} m of path). Against the path that was asked for; shares "
        "with 95 % intervals, errors of the clips whose frames all have cameras: median (90 % quantile). "
        "Aligned: by rotations. On degenerate paths, nearly straight ones, RotErr of the paper says nothing.",
        "",
        *table(head, rows),
    ]


def _middle(found: Mapping[str, float] | None, digits: int, factor: float = 1.0) -> str:
    if found is None:
        return NOT_TOLD
    return f"{factor * found['median']:.{digits}f} ({factor * found['ninetieth']:.{digits}f})"
