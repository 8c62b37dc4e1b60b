"""Results of explorations as files: ``results.json``, one page of Markdown, figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from camctrl_jax.evaluate.explorations.figures import write_figures
from camctrl_jax.evaluate.explorations.summary import BY_ROUTE, CAMERA, RECONSTRUCTION, RETURN, SEAM, TRUE
from camctrl_jax.evaluate.students import student_lines
from camctrl_jax.evaluate.worlds.estimates_page import NOT_TOLD, table, told
from camctrl_jax.files.atomic import write_text
from camctrl_jax.files.json_file import write_json

_TITLES = {
    "psnr": "PSNR, dB",
    "psnr_seen": "seen before",
    "psnr_remembered": "of these, not in the last frames",
    "psnr_unseen": "not seen before",
    "psnr_moving": "moving",
    "sharpness": "gradient energy / truth",
    SEAM: "error at seams / inside",
    RETURN: "out against back, grey levels",
    "rot_err_aligned_deg": "RotErr aligned, degrees",
    "trans_err_aligned_share": "TransErr aligned / path",
}


def write_results(
    out: Path, results: dict[str, Any], strips: Sequence[Mapping[str, np.ndarray]]
) -> dict[str, Any]:
    """Write everything; returns the results with the names of the files."""
    results = results | {"files": ["results.json", "report.md", *write_figures(out, results, strips)]}
    write_text(out / "report.md", explorations_page(results) + "\n")
    write_json(out / "results.json", results)
    return results


def explorations_page(results: Mapping[str, Any]) -> str:
    """What ``results.json`` holds, as one page."""
    clip, worlds, request = results["clip"], results["worlds"], results["request"]
    frames = clip["frames"] + (clip["clips"] - 1) * clip["added"]
    given = clip["frames"] - clip["added"]
    again = "" if results["measured_now"] == worlds["count"] else (
        f" ({results['measured_now']} worlds measured in it, the others before)")  # fmt: skip
    routes = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in worlds["routes"].items())
    shares = ", ".join(
        f"{_TITLES['psnr_' + name]} {np.mean(values[1:]):.0%}" for name, values in worlds["shares"].items()
    )
    return "\n".join([
        f"{worlds['count']} held-out worlds ({routes}), {clip['clips']} clips in a row: {clip['frames']} "
        f"frames of {clip['height']}x{clip['width']} and {clip['added']} more with each, {frames} in all; "
        f"{request['steps']} steps, camera guidance {request['camera_guidance']:g}. Mean with its 95 % "
        f"interval over worlds. {results['seconds']:g} s on {results['versions']['device']}{again}.",
        *student_lines(results),
        "",
        f"Pixels of the clips after the first one, by what they show: {shares}. Seen before: static, and "
        "seen in any frame before the clip; moving: what moves at some time. A region below half a percent "
        f"of a clip has no PSNR. The last frames are {given}.",
        *_failed(results),
        *_arms(results),
        *_paired(results),
        *_curve(results),
        *_routes(results),
        *_cameras(results),
        *_running(results),
    ])  # fmt: skip


def _rows(results: Mapping[str, Any]) -> list[str]:
    return [arm["name"] for arm in results["arms"]]


def _names(results: Mapping[str, Any], rows: Sequence[str]) -> list[str]:
    """The measures that some row has."""
    found = results["measures"]
    return [name for name in _TITLES if any(found[row].get(name) is not None for row in rows)]


def _told(name: str, found: Mapping[str, Any] | None) -> str:
    return told(found, 3 if name in ("trans_err_aligned_share",) else 2)


def _arms(results: Mapping[str, Any]) -> list[str]:
    rows = _rows(results)
    names = _names(results, rows)
    shown = [
        [row, *(_told(name, results["measures"][row].get(name)) for name in names)]
        for row in (*rows, RECONSTRUCTION, TRUE)
    ]
    return ["", "## Clips after the first one", "", *table(["", *(_TITLES[name] for name in names)], shown)]


def _paired(results: Mapping[str, Any]) -> list[str]:
    paired = results["paired"]
    if not paired:
        return []
    names = _names(results, list(paired))
    rows = [[row, *(_told(name, found.get(name)) for name in names)] for row, found in paired.items()]
    last = [
        [row, *(_told(name, found.get(f"last/{name}")) for name in names if name not in (SEAM, RETURN))]
        for row, found in paired.items()
    ]
    heads = [_TITLES[name] for name in names]
    short = [_TITLES[name] for name in names if name not in (SEAM, RETURN)]
    return [
        "",
        f"## Against {results['reference']}, world by world",
        "",
        "Mean difference with its interval; of the clips after the first one, then of the last clip alone.",
        "",
        *table(["", *heads], rows),
        "",
        *table(["last clip", *short], last),
    ]


def _curve(results: Mapping[str, Any]) -> list[str]:
    lines = []
    for name in ("psnr_seen", "psnr_remembered", "psnr", "sharpness", *CAMERA):
        order = (*_rows(results), RECONSTRUCTION, TRUE)
        curves = {row: results["curves"][row][name] for row in order if name in results["curves"][row]}
        if not curves or (name == "sharpness" and set(curves) == {TRUE}):
            continue
        curves = {row: points for row, points in curves.items() if row != TRUE or name in CAMERA}
        head = ["", *(f"clip {number + 1}" for number in range(results["clip"]["clips"]))]
        rows = [[row, *(_told(name, point) for point in points)] for row, points in curves.items()]
        lines += ["", f"## Clip by clip: {_TITLES[name]}", "", *table(head, rows)]
    return lines


def _routes(results: Mapping[str, Any]) -> list[str]:
    rows = []
    for route, found in results["by_route"].items():
        for row in (*_rows(results), TRUE):
            rows.append([route.replace("_", " "), row, *(told(found[row].get(name)) for name in BY_ROUTE)])
    head = ["route", "", "seen before, dB", "of these, not in the last frames", "seen before, last clip",
            _TITLES[RETURN]]  # fmt: skip
    lines = ["", "## By route", "", *table(head, rows)]
    apart = [
        [route.replace("_", " "), arm, *(told(one.get(name)) for name in BY_ROUTE)]
        for route, found in results["paired_by_route"].items()
        for arm, one in found.items()
    ]
    if apart:
        lines += ["", f"Against {results['reference']}, world by world:", "", *table(head, apart)]
    return lines


def _cameras(results: Mapping[str, Any]) -> list[str]:
    looked = {row: found for row, found in results["cameras"].items() if found is not None}
    known = results["true_clips_looked_at"]
    if not known:
        return []
    if not looked:
        return [
            "",
            "## Estimated cameras",
            "",
            f"None of the {known} true renders of clips that were looked at gets cameras for all frames, so "
            "errors of cameras say nothing here.",
        ]
    rows = []
    for row, found in looked.items():
        reasons = ", ".join(f"{count} {name}" for name, count in found["failed"].items())
        cells = [str(found["clips"]), reasons or "none"]
        for name, factor, digits in zip(CAMERA, (1.0, 100.0), (2, 1), strict=True):
            errors = found[name]
            cells.append(
                NOT_TOLD
                if errors is None
                else f"{factor * errors['median']:.{digits}f} ({factor * errors['ninetieth']:.{digits}f})"
            )
        rows.append([row, *cells])
    versions = ", ".join(f"{what}: {name}" for what, name in results["estimators"].items())
    return [
        "",
        "## Estimated cameras",
        "",
        f"Clips whose true render gets cameras for all frames ({looked[TRUE]['clips']} of {known} that were "
        "looked at), each with the frame before it; errors of those "
        "that get them too: median (90 % quantile). Means above are of the same clips. "
        f"Those whose camera stands or turns on the spot are left out. {versions}.",
        "",
        *table(
            ["", "clips", "without cameras", "RotErr aligned, degrees", "TransErr aligned, % of path"], rows
        ),
    ]


def _running(results: Mapping[str, Any]) -> list[str]:
    rows = []
    for row, found in results["running"].items():
        if found is None:
            continue
        untouched = "yes" if found["given_frames_untouched"] else "**no**"
        cells = [f"{found['compiled'][0]}", f"{found['compiled_after_second']}"]
        cells += [
            f"{found['memory'][0] / 2**20:.0f}",
            f"{found['memory_after_second'] / 2**20:+.1f}",
            NOT_TOLD if found["held_after_second"] is None else f"{found['held_after_second'] / 2**20:+.1f}",
            untouched,
        ]
        rows.append([row, *cells])
    if not rows:
        return [NOT_TOLD]
    head = ["", "programs compiled for clip 2", "after clip 2 (most of any world)",
            "peak memory at clip 2, MiB", "more at the last clip", "more held after the last clip",
            "earlier frames untouched"]  # fmt: skip
    return ["", "## Running", "", *table(head, rows)]


def _failed(results: Mapping[str, Any]) -> list[str]:
    found = {arm: count for arm, count in results["failed"].items() if count}
    if not found:
        return []
    words = ", ".join(f"{count} of {arm}" for arm, count in found.items())
    return ["", f"**Failed explorations**, not finite, which have no values: {words}."]
