"""A cloud inside a page: what is stored is what was given, and nothing is loaded."""

from __future__ import annotations

import base64
import html
import json
import re

import numpy as np
import pytest

from camctrl_jax.camera import preset
from camctrl_jax.errors import InvalidValue
from camctrl_jax.viz.points import points_html

RNG = np.random.default_rng(0)
POINTS = RNG.uniform((-1, -1, 2), (1, 1, 5), (500, 3))
COLOURS = RNG.integers(0, 256, (500, 3), np.uint8)


def stored(text):
    """The scene that a page holds, and its points f64 [P, 3] and colours u8 [P, 3]."""
    page = html.unescape(re.search(r'srcdoc="([^"]*)"', text)[1])
    scene = json.loads(re.search(r"const scene = (.*);\n", page)[1])
    data = base64.b64decode(scene["data"])
    placed = np.frombuffer(data, "<u2", 3 * scene["count"]).reshape(-1, 3)
    colours = np.frombuffer(data, np.uint8, offset=6 * scene["count"]).reshape(-1, 3)
    return scene, scene["low"] + placed * np.array(scene["step"]), colours


def test_points_are_those_of_the_first_camera_wherever_the_world_is():
    path = preset("truck_left", 9)
    elsewhere = np.array([[0, -1, 0, 30], [1, 0, 0, -7], [0, 0, 1, 2], [0, 0, 0, 1.0]])
    moved = POINTS @ elsewhere[:3, :3].T + elsewhere[:3, 3]
    scene, points, colours = stored(points_html(moved, COLOURS, path.transformed(elsewhere)))
    assert 450 < scene["count"] <= 500
    distance = np.abs(points[:, None] - POINTS[None]).max(axis=2)
    assert distance.min(axis=1).max() < 1e-4
    np.testing.assert_array_equal(colours, COLOURS[distance.argmin(axis=1)])
    np.testing.assert_allclose(scene["lines"][-1], path.positions, atol=1e-5)
    assert len(scene["lines"]) == 4 * 7 + 1


def test_more_points_than_are_wanted_are_thinned_and_a_single_one_is_shown():
    assert stored(points_html(POINTS, COLOURS, preset("truck_left", 9), most=100))[0]["count"] == 100
    scene, points, _ = stored(points_html(POINTS[:1], COLOURS[:1], preset("truck_left", 9)))
    assert scene["count"] == 1
    np.testing.assert_allclose(points, POINTS[:1], atol=1e-6)


def test_nothing_is_loaded_from_elsewhere():
    text = html.unescape(points_html(POINTS, COLOURS, preset("truck_left", 9)))
    assert not re.search(r"https?:|src=|import|fetch|@import|url\(", text)


def test_nothing_is_refused():
    with pytest.raises(InvalidValue, match="500 points and 0 cameras"):
        points_html(POINTS, COLOURS, preset("truck_left", 9)[:0])


@pytest.mark.parametrize(
    ("points", "colours", "told"),
    [
        (POINTS, COLOURS[:-1], "do not belong together"),
        (POINTS, COLOURS.astype(float) / 255, "do not belong together"),
        (np.where(np.arange(len(POINTS))[:, None] == 3, np.nan, POINTS), COLOURS, "not finite"),
    ],
)
def test_what_is_no_cloud_is_refused(points, colours, told):
    with pytest.raises(InvalidValue, match=told):
        points_html(points, colours, preset("truck_left", 9))
