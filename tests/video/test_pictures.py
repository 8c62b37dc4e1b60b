"""Grids and strips keep their pixels; PNG files are read back by others."""

from __future__ import annotations

import numpy as np
import pytest

from camctrl_jax.video.pictures import frame_strip, shown_frames, text_image, video_grid, write_png


def make_videos(count: int = 3, frames: int = 4) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, frames, 6, 9, 3)).astype(np.uint8)


def test_grid_holds_every_clip_and_is_even_sized():
    videos = make_videos(count=3)
    grid = video_grid(videos, columns=2, gap=1)
    assert grid.shape == (4, 14, 20, 3)  # 6 + 1 + 6 = 13 and 9 + 1 + 9 = 19, made even
    np.testing.assert_array_equal(grid[:, :6, :9], videos[0])
    np.testing.assert_array_equal(grid[:, :6, 10:19], videos[1])
    np.testing.assert_array_equal(grid[:, 7:13, :9], videos[2])
    assert np.all(grid[:, 7:13, 10:] == 255)


def test_strip_places_row_r_frame_f_where_it_says():
    videos = make_videos(count=2)
    strip = frame_strip(list(videos), [0, 3], gap=2)
    assert strip.shape == (14, 20, 3)
    np.testing.assert_array_equal(strip[:6, :9], videos[0, 0])
    np.testing.assert_array_equal(strip[8:, 11:], videos[1, 3])


def test_shown_frames_are_spread_evenly_from_the_first_to_the_last():
    assert shown_frames(49).tolist() == [0, 8, 16, 24, 32, 40, 48]
    assert shown_frames(17, 3).tolist() == [0, 8, 16]
    assert shown_frames(5).tolist() == [0, 1, 2, 3, 4]
    assert shown_frames(1).tolist() == [0]


def test_groups_of_rows_stand_apart():
    videos = make_videos(count=4)
    strip = frame_strip(list(videos), [1], gap=1, group=2)
    assert strip.shape == (6 * 4 + 3 + 4, 9, 3)
    np.testing.assert_array_equal(strip[7:13], videos[1, 1])
    assert np.all(strip[13:18] == 255)
    np.testing.assert_array_equal(strip[18:24], videos[2, 1])


def test_labels_add_room_and_leave_the_frames_alone():
    pytest.importorskip("matplotlib", reason="labels are drawn by matplotlib")
    videos = make_videos(count=2)
    bare = frame_strip(list(videos), [0, 3])
    labelled = frame_strip(list(videos), [0, 3], ["truth", "found"], ["frame 1", "frame 4"])
    np.testing.assert_array_equal(labelled[-bare.shape[0] :, -bare.shape[1] :], bare)
    assert labelled.shape[0] > bare.shape[0]
    assert np.any(labelled[: -bare.shape[0]] < 128)  # ink above
    assert np.any(labelled[-bare.shape[0] :, : -bare.shape[1]] < 128)  # ink to the left


def test_text_is_wider_when_longer():
    pytest.importorskip("matplotlib", reason="labels are drawn by matplotlib")
    assert text_image("a longer text", 12).shape[1] > text_image("text", 12).shape[1] > 10


@pytest.mark.parametrize(
    ("frames", "labels", "message"), [([0, 4], None, "does not have"), ([0], ["one", "two"], "2 row labels")]
)
def test_impossible_strips_are_refused(frames, labels, message):
    with pytest.raises(ValueError, match=message):
        frame_strip([make_videos()[0]], frames, labels)


def test_strip_of_rows_of_other_sizes_is_refused():
    with pytest.raises(ValueError, match="one size"):
        frame_strip([make_videos()[0], make_videos()[0][:, :4]], [0])


@pytest.mark.parametrize("shape", [(5, 7, 3), (5, 7), (1, 1, 3)])
def test_png_is_read_back_exactly_by_others(tmp_path, shape):
    av = pytest.importorskip("av", reason="PyAV is the oracle")
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    write_png(tmp_path / "image.png", image)
    with av.open(str(tmp_path / "image.png")) as container:
        frame = next(container.decode(video=0))
    found = frame.to_ndarray(format="rgb24" if image.ndim == 3 else "gray")
    np.testing.assert_array_equal(found, image)
    assert [entry.name for entry in tmp_path.iterdir()] == ["image.png"]


def test_png_of_floats_is_refused(tmp_path):
    with pytest.raises(ValueError, match="float64"):
        write_png(tmp_path / "image.png", np.zeros((4, 4, 3)))
    assert list(tmp_path.iterdir()) == []
