"""Time stamps whose unit is not the one of the format."""

from __future__ import annotations

import numpy as np
import pytest

from camctrl_jax.camera import Cameras, preset, save_cameras
from camctrl_jax.camera.formats import read_pose_file

FRAMES = 30
NANOSECONDS = 1_403_636_579_763_555_584 + 33_333_333 * np.arange(FRAMES)  # of a real clock, in 2014


def tum(tmp_path, stamps):
    file = tmp_path / "path.txt"
    file.write_text("".join(f"{stamp} 0 0 {index / 10} 0 0 0 1\n" for index, stamp in enumerate(stamps)))
    return read_pose_file(file)[1]


def re10k(tmp_path, stamps):
    file = tmp_path / "path.txt"
    rest = "0.5 0.9 0.5 0.5 0 0 1 0 0 0 0 1 0 0 0 0 1 0"
    file.write_text("\n" + "".join(f"{stamp} {rest}\n" for stamp in stamps))
    return read_pose_file(file)[1]


@pytest.mark.parametrize(
    ("unit", "factor", "stamps"),
    [
        ("nanoseconds", 1e-9, NANOSECONDS),
        ("nanoseconds", 1e-9, NANOSECONDS - NANOSECONDS[0]),  # from the start of the recording
        ("nanoseconds", 1e-9, NANOSECONDS - NANOSECONDS[0] + 86_400 * 10**9),  # since the machine started
        ("nanoseconds", 1e-9, [f"{stamp:.18e}" for stamp in NANOSECONDS]),  # as numpy.savetxt writes them
        ("microseconds", 1e-6, NANOSECONDS // 1000),
        ("microseconds", 1e-6, (NANOSECONDS - NANOSECONDS[0]) // 1000),
        ("milliseconds", 1e-3, NANOSECONDS // 1_000_000),
    ],
)
def test_tum_stamps_of_another_unit_are_converted_and_it_is_said(tmp_path, unit, factor, stamps):
    pose_file = tum(tmp_path, stamps)
    expected = np.array([float(stamp) for stamp in stamps]) * factor
    np.testing.assert_allclose(pose_file.cameras.times, expected, rtol=1e-12)
    np.testing.assert_allclose(np.diff(pose_file.cameras.times).mean(), 1 / 30, rtol=1e-3)
    assert len(pose_file.notes) == 1
    assert pose_file.notes[0].startswith(
        f"the time stamps are {unit}, not seconds as the format says: they were"
    )


def test_realestate10k_in_nanoseconds(tmp_path):
    pose_file = re10k(tmp_path, NANOSECONDS)
    np.testing.assert_allclose(np.diff(pose_file.cameras.times), 1 / 30, rtol=1e-3)
    assert "the time stamps are nanoseconds, not microseconds as the format says" in pose_file.notes[0]


@pytest.mark.parametrize(
    "stamps",
    [
        1305031102.175 + np.arange(FRAMES) / 30,  # a clock
        np.arange(FRAMES) / 30,
        np.arange(FRAMES) / 960,  # a fast camera
        np.arange(FRAMES) * 0.5,  # key frames
    ],
)
def test_seconds_stay_seconds(tmp_path, stamps):
    pose_file = tum(tmp_path, stamps)
    np.testing.assert_allclose(pose_file.cameras.times, stamps)
    assert pose_file.notes == ()


@pytest.mark.parametrize("start", [0, 52_553_000, 1_403_636_579_763_555])
def test_microseconds_stay_microseconds_in_realestate10k(tmp_path, start):
    stamps = start + 33_366 * np.arange(FRAMES)
    pose_file = re10k(tmp_path, stamps)
    np.testing.assert_allclose(pose_file.cameras.times, stamps * 1e-6)
    assert pose_file.notes == ()


@pytest.mark.parametrize(
    ("read", "stamps", "guess"),
    [
        (re10k, np.arange(FRAMES), r"taken as microseconds, give 1e\+06 frames/s.*may be frame numbers"),
        (
            re10k,
            np.arange(FRAMES) / 30 + 0.01,
            r"give 3e\+07 frames/s, which is odd for a video; they may be seconds",
        ),
        (re10k, 33 * np.arange(FRAMES), r"may be frame numbers or milliseconds"),
        (
            tum,
            40 * np.arange(FRAMES),
            r"taken as seconds, give 0.025 frames/s.*frame numbers or milliseconds",
        ),
        (tum, np.arange(FRAMES) * 1e-5, r"give 1e\+05 frames/s, which is odd for a video$"),
    ],
)
def test_an_odd_rate_is_said_and_the_times_stay(tmp_path, read, stamps, guess):
    import re

    pose_file = read(tmp_path, stamps)
    unit = 1e-6 if read is re10k else 1.0
    np.testing.assert_allclose(pose_file.cameras.times, np.asarray(stamps) * unit)
    assert re.search(guess, pose_file.notes[0])


def test_one_pose_has_no_rate(tmp_path):
    assert tum(tmp_path, [NANOSECONDS[0]]).notes == ()


def test_gaps_and_a_pause_do_not_change_the_unit(tmp_path):
    stamps = np.concatenate([np.arange(20) / 30, 5000 + np.arange(10) / 30])
    pose_file = tum(tmp_path, stamps)
    np.testing.assert_allclose(pose_file.cameras.times, stamps)
    assert pose_file.notes == ()


def test_what_we_write_has_no_note(tmp_path):
    save_cameras(preset("dolly_in", 9, fps=12.0), tmp_path / "p.txt", "tum")
    assert read_pose_file(tmp_path / "p.txt")[1].notes == ()


@pytest.mark.parametrize("step", [1, 2, 10])
def test_frame_numbers_are_not_silently_seconds(tmp_path, step):
    (note,) = tum(tmp_path, range(0, step * FRAMES, step)).notes
    assert f"whole numbers, 0, {step} and so on, as frame numbers are" in note
    assert "--source-fps F says the true rate" in note


def test_what_we_write_of_a_path_without_times_is_read_without_times(tmp_path):
    path = preset("dolly_in", 12)
    save_cameras(Cameras(path.world_from_camera, path.intrinsics), tmp_path / "path.txt", "tum")
    pose_file = read_pose_file(tmp_path / "path.txt")[1]
    assert pose_file.cameras.times is None
    assert pose_file.notes == ("the time stamps are frame numbers, as its first line says: it has no times",)
