"""Figures: errors against time; the best and the worst clips with the estimated over the asked path."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from camctrl_jax.errors import UserError
from camctrl_jax.evaluate.videos.finding import Clip
from camctrl_jax.evaluate.videos.poses import ROT_ERR, TRANS_ERR
from camctrl_jax.evaluate.videos.reading import reduced
from camctrl_jax.evaluate.videos.settings import VideosSettings
from camctrl_jax.evaluate.videos.timelines import OF_POSES, PANELS
from camctrl_jax.extras import require
from camctrl_jax.files.atomic import replaced_file
from camctrl_jax.metrics.trajectories import align_rotations
from camctrl_jax.video.decoding import read_frames
from camctrl_jax.video.pictures import shown_frames

_ASKED, _ESTIMATED, _OTHER = "#1f5fa8", "#d7263d", "#8a94a3"
_COLUMNS = 5
_STRIP_SIDE = 240  # pixels of a picture's longer side
_GAP = 4


@dataclass(frozen=True)
class Shown:
    """A clip of a strip: its name, and what is said beside it."""

    name: str
    text: str


def write_figures(
    settings: VideosSettings,
    clips: Sequence[Clip],
    results: Mapping[str, Any],
    paths: Mapping[str, Mapping[str, Any]],
) -> list[str]:
    """Write what these results have; returns the names of the files.

    Args:
        paths: of each clip "asked" and "estimated", world from camera [T, 3, 4], where known.

    Raises:
        MissingExtra: Matplotlib is not installed.
    """
    require("matplotlib.figure", extra="eval")
    names = []
    if results["over_time"]:
        _over_time(settings.out / "error_over_time.png", results["over_time"], len(results["clips"]))
        names.append("error_over_time.png")
    if settings.shown:
        by_name = {clip.name: clip for clip in clips}
        for name, title, chosen in best_and_worst(results["clips"], settings.shown):
            if chosen:
                _strips(settings.out / f"{name}.png", title, chosen, by_name, paths, settings.fps)
                names.append(f"{name}.png")
    return names


def best_and_worst(rows: Mapping[str, Mapping[str, Any]], count: int) -> list[tuple[str, str, list[Shown]]]:
    """(file, title, clips) of both figures.

    By TransErr after alignment by rotations as a share of the path, of the clips whose every frame has a
    pose; clips without a path come first among the worst, each with its reason. No clip is on both.
    """
    known = {name: row for name, row in rows.items() if row.get(TRANS_ERR) is not None}
    order = sorted(known, key=lambda name: (known[name][TRANS_ERR], name))
    lost = [name for name in rows if name not in known]
    best = order[: min(count, -(-len(order) // 2))]
    worst = order[::-1][: min(count, len(order) - len(best))]
    shown = [Shown(name, _reason(rows[name])) for name in lost[:count]]
    more = f" ({len(lost) - count} more are not shown)" if len(lost) > count else ""
    measured = "TransErr, aligned by rotations, as a share of the path"
    title = f"Worst by {measured}"
    if lost:
        title = f"{len(lost)} clips without a path{more}, then the worst by {measured}"
    return [
        ("best", f"Best by {measured}", [Shown(name, _errors(known[name])) for name in best]),
        ("worst", title, shown + [Shown(name, _errors(known[name])) for name in worst]),
    ]


def _errors(row: Mapping[str, Any]) -> str:
    doubts = f"; doubts: {', '.join(row['doubts'])}" if row["doubts"] else ""
    away = "" if row.get("scale_aligned") else "; no scale fits: it goes another way"
    return f"TransErr {row[TRANS_ERR]:.1%} of the path, RotErr {row[ROT_ERR]:.2g} degrees{away}{doubts}"


def _reason(row: Mapping[str, Any]) -> str:
    if "failed" in row:
        return f"failed, {row['failed']}: {row['message']}"
    if "poses" in row["failures"]:
        return f"no path: {row['failures']['poses']}"
    return "the asked camera stands still: no share of a path"


# ------------------------------------------------------------------------------------------------ drawing


def _figure(width: float, height: float) -> Any:
    figure = require("matplotlib.figure", extra="eval")
    return figure.Figure(figsize=(width, height), facecolor="white", layout="constrained")


def _save(figure: Any, path: Path) -> None:
    with replaced_file(path) as partial:
        figure.savefig(partial, dpi=100)


def _over_time(path: Path, curves: Mapping[str, Mapping[str, Any]], clips: int) -> None:
    panels = [(title, [name for name in names if name in curves], names) for title, names in PANELS]
    panels = [panel for panel in panels if panel[1]]
    figure = _figure(4.6 * len(panels), 3.6)
    for place, (title, measures, labels) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), place + 1)
        for name, colour in zip(measures, (_ASKED, _OTHER), strict=False):
            curve = curves[name]
            axes.plot(curve["seconds"], curve["mean"], color=colour, lw=1.6, label=labels[name])
            if curve["low"][0] is not None:
                low, high = (np.array(curve[key], np.float64) for key in ("low", "high"))
                axes.fill_between(curve["seconds"], low, high, color=colour, alpha=0.16, lw=0)
        most = max(max(curves[name]["clips"]) for name in measures)
        axes.set_title(f"{title}\n{most} of {clips} clips, 95 % interval", fontsize=9)
        axes.set_xlabel("seconds")
        axes.grid(alpha=0.25)
        if measures[0] in OF_POSES:
            axes.set_ylim(bottom=0.0)
            axes.legend(fontsize=8, frameon=False)
        if measures[0] == "appearance_to_first":
            axes.set_ylim(top=min(axes.get_ylim()[1], 1.02))
    _save(figure, path)


def _strips(
    path: Path,
    title: str,
    chosen: Sequence[Shown],
    clips: Mapping[str, Clip],
    paths: Mapping[str, Mapping[str, Any]],
    fps: float,
) -> None:
    figure = _figure(15.0, 2.4 * len(chosen) + 0.5)
    figure.suptitle(title, fontsize=10)
    grid = figure.add_gridspec(len(chosen), 3, width_ratios=(10.0, 2.4, 2.4))
    for place, shown in enumerate(chosen):
        axes = figure.add_subplot(grid[place, 0])
        axes.set_axis_off()
        axes.set_title(textwrap.fill(f"{shown.name}: {shown.text}", 115), fontsize=8, loc="left")
        strip = strip_of(clips[shown.name].video, fps)
        if strip is None:
            axes.text(0.5, 0.5, "no pictures", ha="center", va="center", color="#777777", fontsize=9)
        else:
            axes.imshow(strip, interpolation="antialiased")
        known = paths.get(shown.name, {})
        for column, (view, across, upwards) in enumerate(_VIEWS):
            axes = figure.add_subplot(grid[place, 1 + column])
            if "asked" not in known:
                axes.set_axis_off()
                continue
            _view(axes, known, across, upwards)
            axes.set_title(view, fontsize=8)
            if place == 0 and column == 0:
                axes.legend(fontsize=7, frameon=False)
    _save(figure, path)


# Plot axes of the first camera's: right, down, forward. The last is the sign of what goes up.
_VIEWS = (
    ("from above: right, forward", (0, 1.0), (2, 1.0)),
    ("from the right: forward, up", (2, 1.0), (1, -1.0)),
)


def _view(axes: Any, known: Mapping[str, Any], across: tuple[int, float], upwards: tuple[int, float]) -> None:
    """The paths as the first asked camera sees them; the estimate is aligned by rotations."""
    asked = _poses(known["asked"])
    to_first = np.linalg.inv(asked[0])
    drawn = [("asked", _ASKED, to_first @ asked)]
    if "estimated" in known:
        estimated = _poses(known["estimated"])
        drawn.append(("estimated", _ESTIMATED, to_first @ align_rotations(estimated, asked).poses(estimated)))
    for label, colour, poses in drawn:
        x, y = (sign * poses[:, index, 3] for index, sign in (across, upwards))
        # The asked path is wide, so that it shows under an estimate that lies on it.
        width = 4.0 if label == "asked" else 1.3
        axes.plot(x, y, "-o", color=colour, lw=width, ms=2.4, label=label, alpha=0.45 if width > 2 else 0.9)
        axes.plot(x[:1], y[:1], "s", color=colour, ms=5)
    everything = np.concatenate([poses[:, :3, 3] for _, _, poses in drawn])
    middle = 0.5 * (everything.min(axis=0) + everything.max(axis=0))
    half = max(0.55 * float(np.ptp(everything, axis=0).max()), 1e-6)
    for limits, (index, sign) in ((axes.set_xlim, across), (axes.set_ylim, upwards)):
        limits(sign * middle[index] - half, sign * middle[index] + half)
    axes.set_aspect("equal")
    axes.tick_params(labelsize=6)
    axes.grid(alpha=0.25)


def _poses(matrices: Sequence[Any]) -> np.ndarray:
    """4x4 of what is kept, [T, 3, 4]."""
    poses = np.tile(np.eye(4), (len(matrices), 1, 1))
    poses[:, :3] = matrices
    return poses


def strip_of(video: Path | None, fps: float) -> np.ndarray | None:
    """Frames of a video side by side, u8 [H, W, 3]; of a broken one those that can be read, or None."""
    if video is None:
        return None
    kept: list[np.ndarray] = []
    framing = None
    try:
        for frame in read_frames(video, image_fps=fps):
            framing = framing or reduced(frame.size, _STRIP_SIDE)
            kept.append(frame.rgb(framing))
    except UserError:  # a broken clip is shown as far as it goes; its reason stands beside it
        pass
    if not kept or len({picture.shape for picture in kept}) > 1:
        return None
    pictures = [kept[index] for index in shown_frames(len(kept), _COLUMNS)]
    gap = np.full((pictures[0].shape[0], _GAP, 3), 255, np.uint8)
    parts = [part for picture in pictures for part in (picture, gap)][:-1]
    return np.concatenate(parts, axis=1)
