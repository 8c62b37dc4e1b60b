"""Trajectory figures: what is where on the paper."""

from __future__ import annotations

import numpy as np
import pytest

from camctrl_jax.camera import load_cameras, preset

pytest.importorskip("matplotlib", reason="needs the eval extra")

from mpl_toolkits.mplot3d import proj3d

from camctrl_jax.viz.trajectory import save_trajectory_figure, trajectory_figure


def on_paper(axes, opencv_point) -> np.ndarray:
    """Where a point of the first camera's frame (x right, y down, z forward) is drawn: right, up."""
    x, y, z = opencv_point
    return np.array(proj3d.proj_transform(x, z, -y, axes.get_proj())[:2])


def pixels(figure) -> np.ndarray:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].astype(int)


def red(image: np.ndarray) -> np.ndarray:
    return (image[..., 0] > 180) & (image[..., 1] < 90) & (image[..., 2] < 110)


def test_directions_look_natural():
    axes = trajectory_figure(preset("spiral_in", 9)).axes[0]
    start = on_paper(axes, (0, 0, 0))
    right, up, forward = (on_paper(axes, point) - start for point in ((0.3, 0, 0), (0, -0.3, 0), (0, 0, 0.3)))
    assert right[0] > 2 * abs(right[1])  # to the right, nearly level
    assert up[1] > 5 * abs(up[0])  # straight up
    assert forward[0] > 0  # away from the eye: to the right
    assert forward[1] > 0  # and up the paper


@pytest.mark.parametrize("name", ["dolly_in", "truck_left", "pedestal_up", "pan_left", "static", "handheld"])
def test_axes_are_equal_so_that_shapes_are_true(name):
    axes = trajectory_figure(preset(name, 9)).axes[0]
    limits = np.array([axes.get_xlim(), axes.get_ylim(), axes.get_zlim()])
    spans = np.diff(limits, axis=1)[:, 0]
    box = np.asarray(axes._box_aspect)  # matplotlib has no public way to read it back
    np.testing.assert_allclose(box / box[0], spans / spans[0], rtol=1e-6)


def test_the_path_is_red_and_a_still_camera_has_hardly_any():
    moving = red(pixels(trajectory_figure(preset("truck_left", 25)))).sum()
    still = red(pixels(trajectory_figure(preset("pan_left", 25)))).sum()
    assert moving > 8 * still > 0  # the dot at the start remains


def test_red_lies_along_the_projected_path():
    cameras = preset("truck_right", 25, metres=2)
    figure = trajectory_figure(cameras)
    image = pixels(figure)
    axes = figure.axes[0]
    for point in (cameras.positions[6], cameras.positions[18]):
        column, row = axes.transData.transform(on_paper(axes, point))
        row = image.shape[0] - row
        nearby = red(image)[int(row) - 4 : int(row) + 5, int(column) - 4 : int(column) + 5]
        assert nearby.any()


def test_several_paths_get_a_drawing_each_with_their_titles():
    figure = trajectory_figure({"a": preset("dolly_in", 9), "b": preset("pan_left", 9)}, columns=2)
    assert [axes.get_title() for axes in figure.axes] == ["a", "b"]
    assert all("frames" in axes.texts[0].get_text() for axes in figure.axes)


def test_a_camera_that_stands_still_is_drawn_once_and_a_moving_one_up_to_the_limit():
    def count(cameras, pyramids):
        axes = trajectory_figure(cameras, pyramids=pyramids).axes[0]
        return sum(collection.get_gid() == "picture plane" for collection in axes.collections)

    assert count(preset("static", 25), 9) == 1
    assert count(preset("dolly_in", 25, easing="linear"), 9) == 9
    assert count(preset("dolly_in", 25, easing="linear"), 5) == 5


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_saved_in_the_suffix_format_and_nothing_left_behind(tmp_path, suffix):
    file = save_trajectory_figure(preset("orbit_left", 9), tmp_path / "deep" / f"path{suffix}", dpi=50)
    content = file.read_bytes()
    assert {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}[suffix] == content[
        : 5 if suffix == ".svg" else 4
    ]
    assert list(file.parent.iterdir()) == [file]


def test_unknown_suffix_leaves_nothing_behind(tmp_path):
    with pytest.raises(ValueError, match="nope"):
        save_trajectory_figure(preset("orbit_left", 9), tmp_path / "path.nope")
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_draw():
    with pytest.raises(ValueError, match="nothing to draw"):
        trajectory_figure({})


def test_a_real_path_far_from_the_origin(test_data):
    figure = trajectory_figure(load_cameras(test_data("lingbot_world/01")))
    assert red(pixels(figure)).sum() > 200
