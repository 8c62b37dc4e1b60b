"""Results of captions as files: ``results.json``, one page of Markdown, a strip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from camctrl_jax.evaluate.captions.summary import RECONSTRUCTION, TRUE
from camctrl_jax.evaluate.students import student_lines
from camctrl_jax.evaluate.worlds.estimates_page import table, told, told_share
from camctrl_jax.files.atomic import write_text
from camctrl_jax.files.json_file import write_json
from camctrl_jax.video.pictures import frame_strip, write_png

_LONGEST = 34  # letters of a line beside a strip


def write_results(
    out: Path, results: dict[str, Any], strips: Sequence[Mapping[str, np.ndarray]]
) -> dict[str, Any]:
    """Write everything; returns the results with the names of the files."""
    files = ["results.json", "report.md"]
    if strips:
        _strips(out / "strips.png", results, strips)
        files.append("strips.png")
    results = results | {"files": files}
    write_text(out / "report.md", captions_page(results) + "\n")
    write_json(out / "results.json", results)
    return results


def captions_page(results: Mapping[str, Any]) -> str:
    """What ``results.json`` holds, as one page."""
    found, request, clip = results["captions"], results["request"], results["clip"]
    rows = list(results["hits"])
    shown = []
    for row in rows:
        hits, measures = results["hits"][row], results["measures"][row]
        cells = [told_share(hits["right"]), told_share(hits["wrong"])]
        cells += [told(measures["gap"]), told_share(measures["choice"])]
        shown.append([row, *cells])
    colors = []
    for color in results["by_color"][rows[0]]:
        cells = []
        for row in rows:
            right, wrong = (results["by_color"][row][color][name] for name in ("right", "wrong"))
            cells.append(" / ".join("-" if one is None else f"{one['mean']:.0%}" for one in (right, wrong)))
        right = results["by_color"][rows[0]][color]["right"]
        colors.append([color, "0" if right is None else str(right["clips"]), *cells])
    failed = {row: count for row, count in results["failed"].items() if count}
    lines = [
        f"Text to video for the captions of {found['count']} held-out worlds ({request['worlds']}), "
        f"{request['seeds']} samples of each, {clip['frames']} frames of {clip['height']}x{clip['width']}, "
        f"{request['steps']} steps. They name {found['named']} objects; {found['naming_none']} name none. "
        f"{results['seconds']:g} s on {results['versions']['device']}.",
        *student_lines(results),
        "",
        "Does a colour detector find the colours of the named objects, and those of another world's caption? "
        "95 % intervals: over objects (Wilson) of the shares, over captions of the rest. The true render is "
        "what the detector can reach: it knows no shapes, and what no caption names has colours, too. "
        "Colours that both captions name are not asked for as the other one's, and count in neither of the "
        "last two columns.",
        "",
        *table(
            ["", "own caption", "another's caption", "difference", "the own one fits better"],
            shown,
        ),
        "",
        "By colour, own / another's caption:",
        "",
        *table(["", "named", *rows], colors),
    ]
    if any(results["measures"][row]["motion_px"] is not None for row in rows):
        moving = [
            [
                row,
                *(
                    told(results["measures"][row][name], digits)
                    for name, digits in (("motion_px", 2), ("moving_share", 3))
                ),
            ]
            for row in rows
        ]
        versions = ", ".join(f"{what}: {name}" for what, name in results["estimators"].items())
        lines += [
            "",
            f"Motion strength of the first {request['motion']} captions' clips, flow inside estimated masks; "
            f"clips in which nothing is found to move have none. {versions}.",
            "",
            *table(["", "motion, px a frame", "share that moves"], moving),
        ]
    if failed:
        words = ", ".join(f"{count} of {row}" for row, count in failed.items())
        lines += ["", f"**Failed clips**, not finite, which have no values: {words}."]
    return "\n".join(lines)


def _strips(path: Path, results: Mapping[str, Any], strips: Sequence[Mapping[str, np.ndarray]]) -> None:
    """Of each caption the true render and what was sampled."""
    rows = [TRUE, *(row for row in results["hits"] if row not in (TRUE, RECONSTRUCTION))]
    pictures, labels = [], []
    for place, found in enumerate(strips):
        for row in rows:
            pictures.append(found[row])
            labels.append(_wrapped(results["per_scene"][place]["caption"]) if row == TRUE else row)
    columns = len(pictures[0])
    write_png(path, frame_strip(pictures, range(columns), labels, None, group=len(rows)))


def _wrapped(text: str) -> str:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) > _LONGEST:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)
