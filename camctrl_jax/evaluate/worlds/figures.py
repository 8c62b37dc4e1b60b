"""Figures: error against time, gains by class of path, strips of the best and the worst scenes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from camctrl_jax.extras import require
from camctrl_jax.files.atomic import replaced_file
from camctrl_jax.video.pictures import frame_strip, shown_frames, write_png

_COLOURS = ("#1f5fa8", "#d7263d", "#2a9d5c", "#e08e0b", "#7a4fa3", "#55606e", "#0c8599", "#b5179e")
_STRIP_ORDER = ("true render", "reconstruction", "i2v", "decoy path", "extension", "t2v")
_NAMES = {"i2v": "I2V", "t2v": "T2V", "extension": "extension"}


def write_figures(
    out: Path, results: Mapping[str, Any], arrays: Sequence[Mapping[str, np.ndarray]], shown: int
) -> list[str]:
    """Write all figures that these results have; returns their names."""
    names = []
    if results["frame_psnr"]:
        _error_over_time(out / "error_over_time.png", results)
        names.append("error_over_time.png")
    row = _rows(results)[-1:] if _rows(results) else []
    for name in row:
        if f"{name}/i2v/gain_decoy" in results["measures"]:
            _by_class(out / "by_class.png", results, name)
            names.append("by_class.png")
    if shown:
        names += _strips(out, results, arrays, shown)
    return names


def _rows(results: Mapping[str, Any]) -> list[str]:
    names = dict.fromkeys(name.split("/")[0] for name in results["measures"])
    return [name for name in names if name != "baseline"]


def _figure(width: float, height: float) -> Any:
    return require("matplotlib.figure", extra="eval").Figure(
        figsize=(width, height), facecolor="white", layout="constrained"
    )


def _error_over_time(path: Path, results: Mapping[str, Any]) -> None:
    figure = _figure(7.5, 4.2)
    axes = figure.add_subplot()
    for place, (name, values) in enumerate(results["frame_psnr"].items()):
        values = np.array(values)
        frames = np.arange(1, len(values) + 1)
        chosen = values < 99.0  # frames that are given are the truth
        solid = name.count("/") == 1
        label = name if not solid else f"{_NAMES[name.split('/')[1]]}, {name.split('/')[0]}"
        axes.plot(frames[chosen], values[chosen], color=_COLOURS[place % len(_COLOURS)], label=label,
                  lw=1.8 if solid else 1.3, ls="-" if solid else "--")  # fmt: skip
    axes.set_xlabel("frame")
    axes.set_ylabel("PSNR against the true render, dB")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, frameon=False)
    _save(figure, path)


def _by_class(path: Path, results: Mapping[str, Any], row: str) -> None:
    figure = _figure(9.0, 4.0)
    groups = {**results["by_class"], **{k: v for k, v in results["by_difficulty"].items() if k != "standing"}}
    panels = (
        ("gain_decoy", "gain over a decoy path, dB", 0.0),
        ("gain_warp", "gain over the exact-geometry warp, dB", 0.0),
        ("alpha", "alpha*: how far it went", 1.0),
    )
    for place, (measure, title, wanted) in enumerate(panels):
        axes = figure.add_subplot(1, 3, place + 1)
        shown = [name for name in groups if groups[name].get(f"{row}/i2v/{measure}")]
        for height, name in enumerate(shown):
            found = groups[name][f"{row}/i2v/{measure}"]
            low, high = found["low"], found["high"]
            mean = found["mean"]
            colour = _COLOURS[5] if name in results["by_difficulty"] else _COLOURS[0]
            if low is not None:
                axes.plot([low, high], [height, height], color=colour, lw=2)
            axes.plot([mean], [height], "o", color=colour, ms=5)
        axes.set_yticks(range(len(shown)), [name.replace("_", " ") for name in shown], fontsize=8)
        axes.invert_yaxis()
        axes.axvline(wanted, color="#999999", lw=0.8)
        axes.set_title(title, fontsize=9)
        axes.grid(axis="x", alpha=0.25)
    _save(figure, path)


def _strips(
    out: Path, results: Mapping[str, Any], arrays: Sequence[Mapping[str, np.ndarray]], shown: int
) -> list[str]:
    """The best and the worst scenes by how far I2V stays below the reconstruction, or by that alone."""
    rows = _rows(results)
    scores = []
    for scene in results["per_scene"]:
        values = scene["values"]
        level = values["baseline/reconstruction/psnr"]
        made = values.get(f"{rows[-1]}/i2v/psnr") if rows else None
        if level is None or (made is None and f"{rows[-1] if rows else ''}/i2v/psnr" in values):
            scores.append(np.nan)  # not finite: neither best nor worst
        else:
            scores.append(level if made is None else made - level)
    order = [place for place in np.argsort(scores) if np.isfinite(scores[place])]
    if not order:
        return []
    shown = min(shown, max(1, len(order) // 2))
    names = []
    for name, places in (("best", order[::-1][:shown]), ("worst", order[:shown])):
        pictures, labels = [], []
        kinds = [kind for kind in _STRIP_ORDER if f"strip/{kind}" in arrays[places[0]]]
        for place in places:
            scene = results["per_scene"][place]
            for kind in kinds:
                pictures.append(arrays[place][f"strip/{kind}"])
                head = f"{scene['index']}: {scene['path_class'].replace('_', ' ')} {scene['difficulty']}\n"
                labels.append((head if kind == kinds[0] else "") + _NAMES.get(kind, kind))
        columns = shown_frames(results["clip"]["frames"], len(pictures[0]))
        heads = [f"frame {frame + 1}" for frame in columns]
        strip = frame_strip(pictures, range(len(columns)), labels, heads, group=len(kinds))
        write_png(out / f"{name}.png", strip)
        names.append(f"{name}.png")
    return names


def _save(figure: Any, path: Path) -> None:
    with replaced_file(path) as partial:
        figure.savefig(partial, dpi=130)
