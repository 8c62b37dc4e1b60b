"""Which part of a recorded path is taken, and how fast it is played."""

from __future__ import annotations

import argparse

import numpy as np
import pytest

from camctrl_jax.camera import Cameras, load_cameras, resolve_path, sample_at, save_cameras
from camctrl_jax.camera.playing import Playing, at_rate, part_of, played_path, timed
from camctrl_jax.camera.reading import Reading
from camctrl_jax.errors import InvalidValue
from camctrl_jax.pose_options import frame_range

LENS = (0.6, 1.0, 0.5, 0.5)


def walk(frames: int, fps: float | None = 30.0, step: float = 0.01) -> Cameras:
    """A straight walk: pose i stands at i * step."""
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, 2, 3] = np.arange(frames) * step
    return Cameras(poses, LENS, None if fps is None else 5.0 + np.arange(frames) / fps)


def saved(tmp_path, cameras: Cameras, name: str = "realestate10k") -> str:
    save_cameras(cameras, tmp_path / "path.txt", name)
    return str(tmp_path / "path.txt")


# --- ranges ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "first", "count"),
    [
        ("100:149", 100, 49),
        (":49", 0, 49),
        ("150:", 150, 50),
        ("-20:", 180, 20),
        ("0:200", 0, 200),
        (":", 0, 200),
    ],
)
def test_a_range_counts_as_python_does(text, first, count):
    names = [f"{index}.png" for index in range(200)]
    part, kept = part_of(walk(200), names, frame_range(text), "path.txt")
    np.testing.assert_array_equal(part.positions[:, 2], walk(200).positions[first : first + count, 2])
    np.testing.assert_array_equal(part.times, walk(200).times[first : first + count])
    assert kept == names[first : first + count]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("100:300", "--range 100:300: reaches beyond the path; path.txt has 200 poses, 0:200 is all of them"),
        ("-201:", "--range -201:: reaches beyond the path"),
        ("50:50", "--range 50:50: holds no frame; path.txt has 200 poses"),
        ("60:50", "holds no frame"),
        ("200:", "holds no frame"),
    ],
)
def test_a_range_outside_the_path_is_refused(text, message):
    with pytest.raises(InvalidValue) as refused:
        part_of(walk(200), (), frame_range(text), "path.txt")
    assert message in str(refused.value)


@pytest.mark.parametrize("text", ["100", "100-149", "1:2:3", "a:b", "1.5:3", ""])
def test_what_is_no_range_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="is not A:B, for example 100:149"):
        frame_range(text)


# --- pace ------------------------------------------------------------------------------------------------


def test_a_path_is_sampled_at_its_own_pace():
    # 31 poses at 30 a second last 1 s: 13 frames at 12 a second.
    sampled = at_rate(walk(31), 12.0, source="path.txt")
    assert len(sampled) == 13
    np.testing.assert_allclose(sampled.positions[:, 2], np.arange(13) * 0.3 / 12, atol=1e-12)
    np.testing.assert_allclose(sampled.times, 5.0 + np.arange(13) / 12)


def test_uneven_times_set_the_pace():
    times = np.array([0.0, 0.1, 0.2, 1.2])
    path = Cameras(walk(4).world_from_camera, LENS, times)
    sampled = at_rate(path, 10.0, source="path.txt")
    assert len(sampled) == 13
    expected = sample_at(path, np.arange(13) / 10)
    np.testing.assert_allclose(sampled.world_from_camera, expected.world_from_camera)
    np.testing.assert_allclose(sampled.positions[[0, 1, 2, 12], 2], path.positions[:, 2], atol=1e-12)


def test_times_of_the_clock_keep_their_last_frame():
    path = Cameras(walk(31).world_from_camera, LENS, 1.3e9 + np.arange(31) / 30)
    assert len(at_rate(path, 30.0, source="path.txt")) == 31


def test_a_path_without_times_has_no_pace_until_it_is_told():
    with pytest.raises(InvalidValue, match=r"path\.txt holds no times.*--source-fps F"):
        at_rate(walk(31, fps=None), 12.0, source="path.txt")
    told, remarks = timed(walk(31, fps=None), 15.0)
    assert remarks == ()
    assert len(at_rate(told, 12.0, source="path.txt")) == 25  # 2 s


def test_a_told_rate_stands_before_the_files_times_and_says_so():
    told, remarks = timed(walk(31), 10.0)
    assert told.times[-1] == 3.0
    (remark,) = remarks
    assert "1 s in all, were set aside: at --source-fps 10 it takes 3 s" in remark
    assert timed(walk(31), 30.0)[1] == ()


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_is_a_positive_number(fps):
    with pytest.raises(InvalidValue, match=r"--source-fps .*positive"):
        timed(walk(3), fps)


# --- a clip's path ---------------------------------------------------------------------------------------


def test_a_long_path_is_squeezed_and_the_factor_is_said(tmp_path):
    spec = saved(tmp_path, walk(1000))
    played = played_path(spec, 49, 12.0)
    np.testing.assert_allclose(played.cameras.positions[:, 2], np.linspace(0, 9.99, 49), atol=1e-6)
    (remark,) = played.remarks
    assert remark.startswith("1000 poses become 49 frames: every frame moves 20.8 poses on")
    assert "the file's 33.3 s play in 4 s, 8.32 times as fast as recorded" in remark
    assert "--range A:B" in remark
    assert "--pace own" in remark


def test_without_times_the_factor_is_one_of_poses(tmp_path):
    played = played_path(saved(tmp_path, walk(1000, fps=None), "kitti"), 49, 12.0)
    (remark,) = played.remarks
    assert "every frame moves 20.8 poses on, 20.8 times as fast as one pose a frame" in remark
    assert "--source-fps F" in remark


def test_a_short_path_is_slowed_and_said_to_be(tmp_path):
    (remark,) = played_path(saved(tmp_path, walk(16)), 49, 12.0).remarks
    assert "the file's 0.5 s play in 4 s, 0.125 times as fast as recorded" in remark


def test_a_path_of_the_clips_own_pace_needs_no_word(tmp_path):
    assert played_path(saved(tmp_path, walk(49, fps=12.0)), 49, 12.0).remarks == ()
    assert played_path(saved(tmp_path, walk(49, fps=None), "kitti"), 49, 12.0).remarks == ()


def test_a_path_of_one_pose_stands_still_and_that_is_said(tmp_path):
    (remark,) = played_path(saved(tmp_path, walk(1)), 49, 12.0).remarks
    assert remark == "the path is one pose: the camera stands still in all 49 frames"


def test_one_pose_on_is_not_a_plural(tmp_path):
    (remark,) = played_path(saved(tmp_path, walk(49, fps=24.0)), 49, 12.0).remarks
    assert "every frame moves 1 pose on" in remark


def test_more_frames_than_fit_are_refused_with_both_rates(tmp_path):
    with pytest.raises(InvalidValue, match=r"1e\+0.* frames, more than 1,000,000; .*--fps, .*--source-fps F"):
        at_rate(walk(31), 1e9, source="walk.txt")
    with pytest.raises(InvalidValue, match=r"2e.* frames"):
        at_rate(timed(walk(3), 1e-9)[0], 1.0, source="walk.txt")


def test_latent_poses_stand_for_four_pictures_each(tmp_path):
    save_cameras(walk(20, fps=None), tmp_path / "p.json", "worldplay", image_size=(96, 160))
    assert len(played_path(tmp_path / "p.json", 77, 12.0).remarks) == 2  # those of the file
    half = played_path(tmp_path / "p.json", 39, 12.0).remarks[-1]
    assert "20 poses become 39 frames" in half
    assert "2 times as fast as one pose for every 4 frames" in half


def test_a_part_is_played_frame_by_frame(tmp_path):
    spec = saved(tmp_path, walk(1000, fps=None), "kitti")
    played = played_path(spec, 49, 12.0, playing=Playing(part=(100, 149)))
    np.testing.assert_allclose(played.cameras.positions[:, 2], np.arange(100, 149) * 0.01, atol=1e-9)
    assert played.remarks == ()
    np.testing.assert_allclose(played.cameras.times, np.arange(49) / 12)


def test_own_pace_takes_the_beginning_and_says_of_what(tmp_path):
    spec = saved(tmp_path, walk(1000))
    played = played_path(spec, 49, 12.0, playing=Playing(own_pace=True))
    np.testing.assert_allclose(played.cameras.positions[:, 2], np.arange(49) / 12 * 0.3, atol=1e-6)
    (remark,) = played.remarks
    assert "takes the first 4 s of the path's 33.3 s" in remark


def test_own_pace_of_a_short_path_holds_the_last_pose_and_says_from_where(tmp_path):
    spec = saved(tmp_path, walk(31))  # 1 s: frames 0 to 12 move
    played = played_path(spec, 49, 12.0, playing=Playing(own_pace=True))
    np.testing.assert_allclose(played.cameras.positions[12:, 2], 0.3, atol=1e-9)
    assert played.cameras.positions[11, 2] < 0.29
    (remark,) = played.remarks
    assert "ends after 1 s, the clip after 4 s: the camera stands still in the last 36 frames" in remark


def test_own_pace_of_a_file_without_times_asks_for_its_rate(tmp_path):
    spec = saved(tmp_path, walk(31, fps=None), "kitti")
    with pytest.raises(InvalidValue, match=r"path\.txt holds no times"):
        played_path(spec, 49, 12.0, playing=Playing(own_pace=True))
    played = played_path(spec, 13, 12.0, playing=Playing(own_pace=True, source_fps=30.0))
    np.testing.assert_allclose(played.cameras.positions[:, 2], np.arange(13) * 0.025, atol=1e-9)


def test_notes_and_hints_of_the_file_come_first(tmp_path):
    back = walk(49, fps=12.0, step=-0.01)
    first, *_ = played_path(saved(tmp_path, back), 49, 12.0).remarks
    assert "moves backwards along its line of sight" in first


def test_presets_and_sentences_take_no_options_of_files():
    expected = resolve_path("dolly in 1 m", 9).world_from_camera
    played = played_path("dolly in 1 m", 9, 12.0)
    np.testing.assert_array_equal(played.cameras.world_from_camera, expected)
    assert (played.source, played.remarks) == (None, ())
    for given in ({"playing": Playing(part=(0, 5))}, {"reading": Reading("tum")}):
        with pytest.raises(InvalidValue, match="'dolly in 1 m' is a preset or a sentence"):
            played_path("dolly in 1 m", 9, 12.0, **given)


def test_what_a_clip_takes_is_what_the_file_holds(tmp_path):
    spec = saved(tmp_path, walk(9, fps=12.0))
    np.testing.assert_allclose(
        played_path(spec, 9, 12.0).cameras.world_from_camera, load_cameras(spec).world_from_camera, atol=1e-6
    )
