"""Clouds with their cameras: equal units, upright for the first camera, and strays left out."""

from __future__ import annotations

import numpy as np
import pytest

from camctrl_jax.camera import preset
from camctrl_jax.errors import InvalidValue

pytest.importorskip("matplotlib", reason="needs the eval extra")

from camctrl_jax.viz.points import points_figure

RNG = np.random.default_rng(0)
POINTS = RNG.uniform((-1, -1, 2), (1, 1, 5), (500, 3))
COLOURS = RNG.integers(0, 256, (500, 3), np.uint8)


def drawn(figure, index=0):
    """Points of a drawing, f64 [P, 3], in plot axes: right, into the picture, up."""
    return np.stack(figure.axes[index].collections[0]._offsets3d, axis=1)  # no public way to read them


def test_units_are_equal_and_both_drawings_show_the_same_points():
    figure = points_figure(POINTS, COLOURS, preset("truck_left", 9))
    assert len(figure.axes) == 2
    np.testing.assert_array_equal(drawn(figure, 0), drawn(figure, 1))
    for axes in figure.axes:
        spans = np.diff([axes.get_xlim(), axes.get_ylim(), axes.get_zlim()], axis=1)[:, 0]
        box = np.asarray(axes._box_aspect)
        np.testing.assert_allclose(box / box[0], spans / spans[0], rtol=1e-6)


def test_it_stands_as_the_first_camera_stands_wherever_the_world_is():
    path = preset("truck_left", 9)
    elsewhere = np.array([[0, -1, 0, 30], [1, 0, 0, -7], [0, 0, 1, 2], [0, 0, 0, 1.0]])
    moved = POINTS @ elsewhere[:3, :3].T + elsewhere[:3, 3]
    here = drawn(points_figure(POINTS, COLOURS, path))
    there = drawn(points_figure(moved, COLOURS, path.transformed(elsewhere)))
    np.testing.assert_allclose(here, there, atol=1e-9)
    assert here[:, 1].min() > 1.9  # ahead goes into the picture


def test_strays_do_not_make_the_rest_small():
    strays = np.concatenate([POINTS, [[900.0, 0, 3], [0, -900.0, 3]]])
    colours = np.concatenate([COLOURS, COLOURS[:2]])
    assert np.abs(drawn(points_figure(strays, colours, preset("truck_left", 9)))).max() < 6


def test_nothing_is_refused():
    with pytest.raises(InvalidValue, match="0 points and 9 cameras"):
        points_figure(POINTS[:0], COLOURS[:0], preset("truck_left", 9))
