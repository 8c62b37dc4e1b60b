"""Camera paths drawn as the paper draws them: pyramids with the apex at the camera, red arrows for motion.

The base of a pyramid is the picture plane, so its shape shows the field of view. Pyramids darken with time,
from the first frame to the last. The plot stands on the ground: x goes right, forward goes into the
picture, up is up; the path and the cameras throw a shadow on a floor grid, whose spacing is printed with
its unit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from camctrl_jax.camera import Cameras
from camctrl_jax.errors import InvalidValue
from camctrl_jax.extras import require
from camctrl_jax.files.atomic import replaced_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_RED = "#d7263d"
_FIRST, _LAST = np.array((0.62, 0.77, 0.93)), np.array((0.05, 0.13, 0.36))  # light to navy
_FLOOR = "#c9ced6"
_SHADOW = "#9aa1ad"
_TEXT = "#2b2f36"

# Of the eye, in degrees: forward leads into the picture, to the upper right.
_ELEVATION, _AZIMUTH = 26.0, -62.0
_TOWARDS_EYE = np.array((0.42, -0.79, 0.44))

# OpenCV's x right, y down, z forward as the plot's right, into the picture, up.
PLOT_FROM_OPENCV = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])


def trajectory_figure(
    paths: Cameras | Mapping[str, Cameras], *, pyramids: int = 9, columns: int | None = None
) -> Figure:
    """A figure with one drawing per path.

    Args:
        paths: one path, or several by title. Each is drawn relative to its first camera.
        pyramids: how many cameras of a path are drawn, the first and the last among them.
        columns: drawings per row; None chooses.

    Returns:
        A matplotlib figure that belongs to no window and no global state.

    Raises:
        ImportError: naming the extra to install when matplotlib is missing.
        ValueError: when there is nothing to draw.
    """
    named = {"": paths} if isinstance(paths, Cameras) else dict(paths)
    if not named or any(len(cameras) == 0 for cameras in named.values()):
        raise InvalidValue("nothing to draw: give at least one path with at least one frame")
    figure_module = require("matplotlib.figure", extra="eval")
    require("mpl_toolkits.mplot3d", extra="eval")  # makes projection="3d" known
    columns = columns or min(len(named), 4 if len(named) > 6 else 3)
    rows = math.ceil(len(named) / columns)
    size = 5.2 if len(named) == 1 else 3.8
    figure = figure_module.Figure(figsize=(size * columns, size * 0.92 * rows), facecolor="white")
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.02, top=0.95 if len(named) > 1 else 0.97)
    for index, (title, cameras) in enumerate(named.items()):
        axes = figure.add_subplot(rows, columns, index + 1, projection="3d", computed_zorder=False)
        _draw(axes, cameras.relative_to(0), title, pyramids)
    return figure


def save_trajectory_figure(
    paths: Cameras | Mapping[str, Cameras],
    file: str | Path,
    *,
    pyramids: int = 9,
    columns: int | None = None,
    dpi: int = 150,
) -> Path:
    """Draw :func:`trajectory_figure` into ``file``; the suffix says how (.png, .pdf, .svg).

    The file appears under its name only when it is complete.

    Raises:
        InvalidValue: no format belongs to the suffix.
        FileFailure: the system refused to write it.
    """
    figure = trajectory_figure(paths, pyramids=pyramids, columns=columns)
    known = figure.canvas.get_supported_filetypes()
    if Path(file).suffix.lower().lstrip(".") not in known:
        raise InvalidValue(f"{file}: expected a name that ends in one of {', '.join(sorted(known))}.")
    with replaced_file(file) as partial:
        figure.savefig(partial, dpi=dpi)
    return Path(file)


def frusta_lines(cameras: Cameras, count: int, depth: float) -> list[np.ndarray]:
    """Cameras of a path as lines f64 [N, 3] in its world: the outlines of ``count`` pyramids, evenly taken,
    whose base is ``depth`` ahead; the last line is the path itself.
    """
    shown = np.unique(np.linspace(0, len(cameras) - 1, min(count, len(cameras))).round().astype(int))
    bases = _base_corners(cameras[shown], depth) @ PLOT_FROM_OPENCV  # back from the plot
    outlines = [
        np.stack([apex, base[corner], base[(corner + 1) % 4]])
        for apex, base in zip(cameras.positions[shown], bases)
        for corner in range(4)
    ]
    return [*outlines, cameras.positions]


def _draw(axes: Any, cameras: Cameras, title: str, pyramids: int) -> None:
    """One path, given relative to its first camera."""
    positions = cameras.positions @ PLOT_FROM_OPENCV.T  # [T, 3]
    extent = float(np.ptp(positions, axis=0).max())
    moves = extent > 1e-3
    depth = 0.15 * extent if moves else 0.35  # of a pyramid
    shown = _distinct(cameras, pyramids)
    corners = _base_corners(cameras[shown], depth)  # [P, 4, 3]

    everything = np.concatenate([positions, corners.reshape(-1, 3)])
    low, high = everything.min(axis=0), everything.max(axis=0)
    step = _round_step(float((high - low).max()) / 4.0)
    floor = float(low[2] - 0.35 * depth)
    ground_low = np.floor((low[:2] - 0.3 * step) / step) * step
    ground_high = np.ceil((high[:2] + 0.3 * step) / step) * step

    _draw_floor(axes, ground_low, ground_high, step, floor)
    axes.plot(*positions[:, :2].T, floor, color=_SHADOW, lw=1.6, alpha=0.6, zorder=2)
    age = np.linspace(0.0, 1.0, len(shown))[:, None]
    colours = _FIRST + age * (_LAST - _FIRST)  # [P, 3]
    for index in np.argsort(corners.mean(axis=1) @ _TOWARDS_EYE):  # what is far is drawn first
        _draw_pyramid(axes, positions[shown[index]], corners[index], colours[index], floor)
    if moves:
        axes.plot(*positions.T, color=_RED, lw=1.8, zorder=4, solid_capstyle="round")
        _add_polygons(axes, _arrow_heads(positions, 0.4 * depth, 6 if len(cameras) > 12 else 3), _RED, 1.0, 4)
    axes.scatter(*positions[:1].T, s=22, color=_RED, zorder=5, depthshade=False)

    axes.set_xlim(ground_low[0], ground_high[0])
    axes.set_ylim(ground_low[1], ground_high[1])
    axes.set_zlim(floor, max(high[2], floor + 0.5 * step))
    axes.set_box_aspect((*(ground_high - ground_low), np.ptp(axes.get_zlim())), zoom=1.06)  # equal units
    axes.set_proj_type("persp", focal_length=0.7)
    axes.view_init(elev=_ELEVATION, azim=_AZIMUTH)
    axes.set_axis_off()
    unit = "m" if cameras.metric else "units"
    motion = f"{cameras.path_length:.2f} {unit}, {cameras.total_rotation:.0f}°, {len(cameras)} frames"
    caption = f"{motion} · grid {step:g} {unit}"
    axes.text2D(0.5, 0.02, caption, transform=axes.transAxes, ha="center", color=_TEXT, fontsize=8)
    if title:
        axes.set_title(title, color=_TEXT, fontsize=11, pad=0)


def _draw_floor(axes: Any, low: np.ndarray, high: np.ndarray, step: float, height: float) -> None:
    """A square grid between two corners [2] at the given height."""
    style = {"color": _FLOOR, "lw": 0.6, "zorder": 1, "clip_on": False}
    for x in np.arange(low[0], high[0] + 0.5 * step, step):
        axes.plot([x, x], [low[1], high[1]], height, **style)
    for y in np.arange(low[1], high[1] + 0.5 * step, step):
        axes.plot([low[0], high[0]], [y, y], height, **style)


def _draw_pyramid(axes: Any, apex: np.ndarray, base: np.ndarray, colour: np.ndarray, floor: float) -> None:
    """A camera: apex [3], base corners [4, 3], and the shadow of the base on the floor."""
    shadow = np.concatenate([base[:, :2], np.full((4, 1), floor)], axis=1)
    _add_polygons(axes, [shadow], _SHADOW, 0.12, 2)
    sides = [np.stack([apex, base[side], base[(side + 1) % 4]]) for side in range(4)]
    _add_polygons(axes, sides, colour, 0.06, 3, edge=0.7)
    _add_polygons(axes, [base], colour, 0.28, 3, edge=1.3, gid="picture plane")
    # A tick on the upper edge tells the top of the picture from its bottom.
    middle, half = 0.5 * (base[0] + base[1]), 0.18 * (base[1] - base[0])
    tick = np.stack([middle - half, middle + half, middle + 0.22 * (base[0] - base[3])])
    _add_polygons(axes, [tick], colour, 0.9, 3)


def _add_polygons(
    axes: Any,
    polygons: list[np.ndarray],
    colour: str | np.ndarray,
    alpha: float,
    zorder: int,
    *,
    edge: float = 0.0,
    gid: str | None = None,
) -> None:
    """Filled polygons, with edges of the given line width."""
    art3d = require("mpl_toolkits.mplot3d.art3d", extra="eval")
    rgb = require("matplotlib.colors", extra="eval").to_rgb(colour)
    collection = art3d.Poly3DCollection(
        polygons,
        facecolors=[(*rgb, alpha)] * len(polygons),
        edgecolors=[(*rgb, 1.0)] * len(polygons) if edge else "none",
        linewidths=edge,
        zorder=zorder,
    )
    collection.set_gid(gid)
    axes.add_collection3d(collection)


def _distinct(cameras: Cameras, count: int) -> np.ndarray:
    """Frames to draw, evenly spread, the last included; of a camera that stands still only the first."""
    frames = np.unique(np.linspace(0, len(cameras) - 1, min(count, len(cameras))).round().astype(int))
    kept = [frames[0]]
    for frame in frames[1:]:
        changed = np.abs(cameras.world_from_camera[frame] - cameras.world_from_camera[kept[-1]]).max() > 1e-6
        if changed or np.abs(cameras.intrinsics[frame] - cameras.intrinsics[kept[-1]]).max() > 1e-6:
            kept.append(frame)
    return np.array(kept)


def _base_corners(cameras: Cameras, depth: float) -> np.ndarray:
    """Corners of the picture planes ``depth`` ahead in plot axes, [T, 4, 3]: both upper, then both
    lower ones.
    """
    fx, fy, cx, cy = (column[:, None] for column in cameras.intrinsics.T)  # [T, 1]
    x = (np.array([0.0, 1.0, 1.0, 0.0]) - cx) / fx
    y = (np.array([0.0, 0.0, 1.0, 1.0]) - cy) / fy
    own = depth * np.stack([x, y, np.ones_like(x)], axis=-1)  # [T, 4, 3]
    world = np.einsum("tij,tcj->tci", cameras.rotations, own) + cameras.positions[:, None]
    return world @ PLOT_FROM_OPENCV.T


def _arrow_heads(positions: np.ndarray, length: float, count: int) -> list[np.ndarray]:
    """Triangles of cones spread evenly along a path [T, 3], the last at its end, pointing where it goes."""
    travelled = np.concatenate([[0.0], np.linalg.norm(np.diff(positions, axis=0), axis=1).cumsum()])
    triangles = []
    around = np.linspace(0.0, 2.0 * np.pi, 9)
    for distance in travelled[-1] * np.arange(1, count + 1) / count:
        tip, tail = (
            np.array([np.interp(at, travelled, column) for column in positions.T])
            for at in (distance, max(0.0, distance - length))
        )
        direction = tip - tail
        norm = np.linalg.norm(direction)
        if norm < 1e-9:
            continue
        direction /= norm
        sideways = np.cross(direction, np.eye(3)[np.abs(direction).argmin()])
        sideways /= np.linalg.norm(sideways)
        other = np.cross(direction, sideways)
        ring = (
            tip
            - length * direction
            + 0.36 * length * (np.cos(around)[:, None] * sideways + np.sin(around)[:, None] * other)
        )
        triangles += [np.stack([tip, ring[i], ring[i + 1]]) for i in range(8)]
    return triangles


def _round_step(length: float) -> float:
    """The nearest of 1, 2, 5 times a power of ten below ``length``."""
    power = 10.0 ** math.floor(math.log10(max(length, 1e-6)))
    return next(power * digit for digit in (5.0, 2.0, 1.0) if power * digit <= max(length, 1e-6) * (1 + 1e-9))
