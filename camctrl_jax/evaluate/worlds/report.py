"""Results as files: ``results.json``, one page of Markdown, figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from camctrl_jax.evaluate.students import student_lines
from camctrl_jax.evaluate.worlds.estimates_page import NOT_TOLD, estimates_page, table, told, told_share
from camctrl_jax.evaluate.worlds.figures import write_figures
from camctrl_jax.files.atomic import write_text
from camctrl_jax.files.json_file import write_json

_TASKS = {"i2v": "I2V", "extension": "Extension", "t2v": "T2V"}


def write_results(
    out: Path, results: dict[str, Any], arrays: Sequence[Mapping[str, np.ndarray]], shown: int
) -> dict[str, Any]:
    """Write everything; returns the results with the names of the files."""
    files = ["results.json", "results.md", *write_figures(out, results, arrays, shown)]
    results = results | {"files": files}
    write_text(out / "results.md", benchmark_page(results) + "\n")
    write_json(out / "results.json", results)
    return results


def benchmark_page(results: Mapping[str, Any]) -> str:
    """What ``results.json`` holds, as one page."""
    clip, scenes, request = results["clip"], results["scenes"], results["request"]
    which = (
        "scenes of the worlds benchmark"
        if request["paths"] == "benchmark"
        else f"held-out worlds with their own paths (seeds {results['seeds'][0]} to {results['seeds'][-1]})"
    )
    again = "" if results["measured_now"] == scenes["count"] else (
        f" ({results['measured_now']} scenes measured in it, the others before)")  # fmt: skip
    lines = [
        f"{scenes['count']} {which}, {clip['frames']} frames of {clip['height']}x{clip['width']}, "
        f"{request['seeds']} samples of each; mean with its 95 % interval over scenes. "
        f"{results['seconds']:g} s on {results['versions']['device']}{again}.",
        *student_lines(results),
        "",
        f"Pixels not seen in the first frame: {scenes['shares']['hidden']:.0%}; of things that move: "
        f"{scenes['shares']['moving']:.0%}.",
        *_failed(results),
        *_baselines(results),
        *_rows(results),
        *_groups(results),
        *_frechet(results),
        *estimates_page(results),
    ]
    return "\n".join(lines)


def _row_names(results: Mapping[str, Any]) -> list[str]:
    names = dict.fromkeys(name.split("/")[0] for name in results["measures"])
    return [name for name in names if name != "baseline"]


def _baselines(results: Mapping[str, Any]) -> list[str]:
    measures = results["measures"]
    names = dict.fromkeys(name.split("/")[1] for name in measures if name.startswith("baseline/"))
    rows = []
    for name in names:
        cells = [told(measures.get(f"baseline/{name}/psnr"))]
        cells += [told(measures.get(f"baseline/{name}/ssim"), 3)]
        cells += [_alpha(measures, f"baseline/{name}/")]
        cells += [told(measures.get(f"baseline/{name}/{m}")) for m in ("alpha_off", "sharpness", "alive")]
        rows.append([name, *cells])
    kept = measures["baseline/reconstruction/psnr_all_frames"]
    return [
        "",
        "## What clips are compared with",
        "",
        f"Reconstruction by the autoencoder, all frames: **{told(kept)} dB**. Frames 6 to the last:",
        "",
        *table(
            [
                "",
                "PSNR, dB",
                "SSIM",
                "alpha*",
                "mean of its distance from 1",
                "gradient energy / truth",
                "change in time / truth",
            ],
            rows,
        ),
    ]


def _alpha(measures: Mapping[str, Any], of: str) -> str:
    """alpha*, and how many clips went as far as it can tell."""
    share = measures.get(f"{of}alpha_bound")
    ending = f"; {share['mean']:.0%} at the bound" if share is not None and share["mean"] else ""
    return told(measures.get(f"{of}alpha")) + ending


def _rows(results: Mapping[str, Any]) -> list[str]:
    measures, won, spreads = results["measures"], results["won"], results["spread_over_skill"]
    lines: list[str] = []
    for task, title in _TASKS.items():
        rows = []
        for row in _row_names(results):
            of = f"{row}/{task}/"
            if f"{of}sharpness" not in measures:
                continue
            get = measures.get
            cells = [row]
            if task != "t2v":
                cells += [told(get(f"{of}psnr")), told(get(f"{of}ssim"), 3)]
                for name in ("decoy", "repeated", "warp")[: 3 if task == "i2v" else 0] or ("repeated",):
                    share = won.get(f"{of}gain_{name}")
                    ending = "" if share is None else f", won {told_share(share)}"
                    cells.append(told(get(f"{of}gain_{name}")) + ending)
            if task == "i2v":
                cells += [_alpha(measures, of), told(get(f"{of}alpha_off"))]
            spread = spreads.get(f"{of}all")
            cells.append(told(get(f"{of}energy")))
            cells.append(NOT_TOLD if spread is None else told(spread | {"mean": spread["value"]}))
            cells += [
                told(get(f"{of}sharpness")),
                told(get(f"{of}sharpness_kept")),
                told(get(f"{of}alive")),
            ]
            rows.append(cells)
        if rows:
            head = ["steps, guidance"]
            if task != "t2v":
                head += ["PSNR, dB", "SSIM"]
                head += {
                    "i2v": [
                        "gain over decoy path, dB",
                        "over first frame repeated",
                        "over exact-geometry warp",
                    ],
                    "extension": ["gain over last given frame repeated, dB"],
                }[task]
            head += ["alpha*", "mean of its distance from 1"] if task == "i2v" else []
            head += ["energy score, grey levels", "spread / skill", "gradient energy / truth",
                     "/ reconstruction", "change in time / truth"]  # fmt: skip
            lines += ["", f"## {title}", "", *table(head, rows)]
            lines += _regions(results, task)
    return lines


def _regions(results: Mapping[str, Any], task: str) -> list[str]:
    spreads = results["spread_over_skill"]
    rows = []
    for row in _row_names(results):
        cells = []
        for region in ("hidden", "moving", "still"):
            found = spreads.get(f"{row}/{task}/{region}")
            if found is None or found["value"] is None:
                cells += [NOT_TOLD, NOT_TOLD]
            else:
                cells += [f"{found['variance']:.0f}", told(found | {"mean": found["value"]})]
        if set(cells) != {NOT_TOLD}:
            rows.append([row, *cells])
    if not rows or task != "i2v":
        return []
    head = ["steps, guidance"]
    for region in ("not in the first frame", "moving", "in view and still"):
        head += [f"variance: {region}", "spread / skill"]
    return ["", "Variance over samples by region, squared grey levels:", "", *table(head, rows)]


def _groups(results: Mapping[str, Any]) -> list[str]:
    names = _row_names(results)
    if not names or results["request"]["paths"] != "benchmark":
        return []
    row = names[-1]
    rows = []
    for key in ("by_class", "by_difficulty"):
        for group, found in results[key].items():
            if key == "by_difficulty" and group == "standing":
                continue
            wanted = ("i2v/psnr", "i2v/gain_decoy", "i2v/gain_repeated", "i2v/gain_warp", "i2v/alpha",
                      "extension/gain_repeated")  # fmt: skip
            rows.append([group.replace("_", " "), *(told(found.get(f"{row}/{name}")) for name in wanted)])
    head = ["paths", "PSNR, dB", "gain over decoy path", "over repeated", "over warp", "alpha*",
            "extension: over repeated"]  # fmt: skip
    return ["", f"## By class and difficulty of path ({row})", "", *table(head, rows)]


def _frechet(results: Mapping[str, Any]) -> list[str]:
    found = results["frechet"]
    if found is None:
        return []
    lines = ["", "## Frechet distance of clip features", ""]
    left = ", ".join(f"{count} of {name}" for name, count in found.get("left_out", {}).items())
    if "reason" in found:
        return [*lines, f"Not given for {found['clips']} clips: {found['reason']}."]
    twins = found.get("twins", {})
    rows = [
        [name.replace("/", ", "), f"{twins[name]:.2f}" if name in twins else NOT_TOLD, f"{value:.2f}"]
        for name, value in found["same_scenes"].items()
    ]
    floor = (
        f"; the floor, true renders against other true renders, is **{found['floor']:.2f}**" if twins else ""
    )
    head = ["clips", "to other worlds with paths of the same classes", "to the same scenes"]
    without = f" Without clips that are not finite: {left}." if left else ""
    return [*lines, f"{found['clips']} clips each{floor}.{without}", "", *table(head, rows)]


def _failed(results: Mapping[str, Any]) -> list[str]:
    """Which clips failed; they are in no mean."""
    found = results["failed"]
    if not found:
        return []
    words = [
        f"{name.replace('/', ', ')}: {count} {reason}"
        for name, reasons in found.items()
        for reason, count in reasons.items()
    ]
    return ["", f"**Failed clips**, which have no values: {'; '.join(words)}."]
