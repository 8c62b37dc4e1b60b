"""Figures of explorations: curves over clips with their intervals, and strips of the last frames of clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from camctrl_jax.evaluate.explorations.summary import RECONSTRUCTION, TRUE
from camctrl_jax.extras import require
from camctrl_jax.files.atomic import replaced_file
from camctrl_jax.video.pictures import frame_strip, write_png

_COLOURS = ("#1f5fa8", "#e08e0b", "#7a4fa3", "#d7263d", "#2a9d5c", "#0c8599", "#b5179e", "#55606e")
_PANELS = (
    ("psnr", "all pixels, PSNR in dB"),
    ("psnr_seen", "static, seen before the clip, dB"),
    ("psnr_remembered", "of these, what the last frames do not show, dB"),
    ("psnr_unseen", "static, not seen before, dB"),
    ("psnr_moving", "things that move, dB"),
    ("sharpness", "gradient energy / truth"),
    ("rot_err_aligned_deg", "RotErr aligned, degrees"),
    ("trans_err_aligned_share", "TransErr aligned / path"),
)


def write_figures(
    out: Path, results: Mapping[str, Any], strips: Sequence[Mapping[str, np.ndarray]]
) -> list[str]:
    """Write the figures; returns their names. ``strips``: of every shown world u8 [frames, H, W, 3] by
    row."""
    _curves(out / "curves.png", results)
    names = ["curves.png"]
    if strips:
        _strips(out / "strips.png", results, strips)
        names.append("strips.png")
    return names


def _curves(path: Path, results: Mapping[str, Any]) -> None:
    """One panel a measure, one line a row; the narrow band is the 95 % interval over worlds."""
    curves = results["curves"]
    arms = [arm["name"] for arm in results["arms"]]
    panels = [panel for panel in _PANELS if any(panel[0] in curves[row] for row in curves)]
    columns = 3
    rows = -(-len(panels) // columns)
    figure = require("matplotlib.figure", extra="eval").Figure(
        figsize=(4.2 * columns, 3.1 * rows + 0.5), facecolor="white", layout="constrained"
    )
    for place, (name, title) in enumerate(panels):
        axes = figure.add_subplot(rows, columns, place + 1)
        for number, row in enumerate([*arms, RECONSTRUCTION, TRUE]):
            points = curves[row].get(name)
            if points is None or (row == TRUE and name == "sharpness"):
                continue
            known = [(clip + 1, point) for clip, point in enumerate(points) if point is not None]
            at = [clip for clip, _ in known]
            style = {"color": _COLOURS[number % len(_COLOURS)], "lw": 1.8}
            if row not in arms:
                style = {"color": "#888888", "lw": 1.2, "ls": "--" if row == RECONSTRUCTION else ":"}
            axes.plot(at, [point["mean"] for _, point in known], marker="o", ms=3, label=row, **style)
            banded = [(clip, point) for clip, point in known if point["low"] is not None]
            axes.fill_between(
                [clip for clip, _ in banded],
                [point["low"] for _, point in banded],
                [point["high"] for _, point in banded],
                color=style["color"],
                alpha=0.12,
                lw=0,
            )
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("clip", fontsize=8)
        axes.set_xticks(range(1, results["clip"]["clips"] + 1))
        axes.grid(alpha=0.25)
        if place == 0:
            axes.legend(fontsize=7, frameon=False)
    with replaced_file(path) as partial:
        figure.savefig(partial, dpi=130)


def _strips(path: Path, results: Mapping[str, Any], strips: Sequence[Mapping[str, np.ndarray]]) -> None:
    """Of each world the true render and every arm: the first frame, and the last one of every clip."""
    order = [TRUE, *(arm["name"] for arm in results["arms"])]
    blank = np.full_like(strips[0][TRUE], 128)
    pictures, labels = [], []
    for place, found in enumerate(strips):
        scene = results["per_scene"][place]
        for row in order:
            pictures.append(found.get(row, blank))
            head = f"{scene['index']}: {scene['route'].replace('_', ' ')}, {scene['layout']}\n"
            labels.append((head if row == TRUE else "") + row + ("" if row in found else " (failed)"))
    clip = results["clip"]
    lasts = [clip["frames"] + number * clip["added"] for number in range(clip["clips"])]
    heads = [f"frame {frame}" for frame in (1, *lasts)]
    write_png(path, frame_strip(pictures, range(len(heads)), labels, heads, group=len(order)))
