"""A cloud of points drawn with the cameras that saw it: from behind the first camera, and from above."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from camctrl_jax.camera import Cameras
from camctrl_jax.errors import InvalidValue
from camctrl_jax.extras import require
from camctrl_jax.viz.trajectory import PLOT_FROM_OPENCV, picture_planes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_RED, _TEXT = "#d7263d", "#2b2f36"
_INSIDE = 2.0  # percent of the points at each end of each axis that the drawing may leave out
_VIEWS = (("from behind the first camera", 18.0, -80.0), ("from above", 89.9, -90.0))  # of the eye, degrees


def points_figure(
    points: np.ndarray, colours: np.ndarray, cameras: Cameras, *, most: int = 25_000, pyramids: int = 7
) -> Figure:
    """A figure with two drawings of the same points and cameras.

    Args:
        points: f [P, 3], in the world of the cameras.
        colours: u8 [P, 3].
        cameras: some or all of those that saw the points; the drawing stands upright for the first.
        most: points that are drawn, evenly taken of more.
        pyramids: cameras that are drawn, evenly taken of more.

    Returns:
        A matplotlib figure that belongs to no window and no global state.

    Raises:
        ImportError: naming the extra to install when matplotlib is missing.
        InvalidValue: no points, or no camera.
    """
    if not len(points) or not len(cameras):
        raise InvalidValue(f"nothing to draw: {len(points)} points and {len(cameras)} cameras.")
    figure_module = require("matplotlib.figure", extra="eval")
    require("mpl_toolkits.mplot3d", extra="eval")  # makes projection="3d" known
    first_from_world = cameras.camera_from_world[0]
    drawn = np.unique(np.linspace(0, len(points) - 1, min(most, len(points))).astype(int))
    seen = points[drawn] @ first_from_world[:3, :3].T + first_from_world[:3, 3]
    placed, rgb = seen @ PLOT_FROM_OPENCV.T, colours[drawn] / 255.0
    path = cameras.relative_to(0)
    # Single stray points would make all others small.
    low, high = np.percentile(placed, [_INSIDE, 100.0 - _INSIDE], axis=0)
    inside = ((placed >= low) & (placed <= high)).all(axis=1)
    figure = figure_module.Figure(figsize=(11.0, 5.0), facecolor="white")
    figure.subplots_adjust(left=0.0, right=1.0, bottom=0.05, top=0.93, wspace=0.0)
    for index, (title, elevation, azimuth) in enumerate(_VIEWS):
        axes = figure.add_subplot(1, 2, index + 1, projection="3d", computed_zorder=False)
        axes.scatter(*placed[inside].T, c=rgb[inside], s=3.0, linewidths=0.0, depthshade=False, zorder=1)
        _draw_cameras(axes, path, pyramids, 0.06 * float((high - low).max()))
        _look(axes, placed[inside], path.positions @ PLOT_FROM_OPENCV.T, elevation, azimuth)
        axes.set_title(title, color=_TEXT, fontsize=11, pad=0)
    unit = "m" if cameras.metric else "units"
    across, ahead, up = high - low
    caption = f"{len(points):,} points, {across:.1f} x {ahead:.1f} x {up:.1f} {unit}"
    figure.text(0.5, 0.02, caption, ha="center", color=_TEXT, fontsize=9)
    return figure


def _draw_cameras(axes: Any, path: Cameras, pyramids: int, depth: float) -> None:
    """The path and some of its pyramids as lines."""
    centres = path.positions @ PLOT_FROM_OPENCV.T
    shown = np.unique(np.linspace(0, len(path) - 1, min(pyramids, len(path))).round().astype(int))
    for apex, base in zip(centres[shown], picture_planes(path[shown], depth)):
        for corner in range(4):
            outline = np.stack([apex, base[corner], base[(corner + 1) % 4]])
            axes.plot(*outline.T, color=_RED, lw=0.8, zorder=3)
    axes.plot(*centres.T, color=_RED, lw=1.8, zorder=3)


def _look(axes: Any, points: np.ndarray, centres: np.ndarray, elevation: float, azimuth: float) -> None:
    """Equal units on all axes, everything inside."""
    everything = np.concatenate([points, centres])
    low, high = everything.min(axis=0), everything.max(axis=0)
    span = np.maximum(high - low, 0.05 * float((high - low).max()))
    axes.set(**{f"{name}lim": (low[i], low[i] + span[i]) for i, name in enumerate("xyz")})
    axes.set_box_aspect(span, zoom=1.1)
    axes.set_proj_type("persp", focal_length=1.0)
    axes.view_init(elev=elevation, azim=azimuth)
    axes.set_axis_off()
