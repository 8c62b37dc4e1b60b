"""``evaluate cameras``: pairing of frames and clips, what it prints, what it counts as failed."""

import dataclasses
import json

import numpy as np
import pytest

from camctrl_jax.camera import preset, save_cameras
from camctrl_jax.camera.formats.posefile import PoseFile
from camctrl_jax.evaluate.__main__ import main
from camctrl_jax.evaluate.cameras import associate

PATH = preset("orbit_left", 13)


def written(path, cameras, *arguments, **options):
    save_cameras(cameras, path, *arguments, **options)
    return str(path)


def as_json(capsys, *arguments):
    status = main(["cameras", "--json", *map(str, arguments)])
    return status, json.loads(capsys.readouterr().out)


def test_a_pair_of_files_of_the_shared_data(test_data, capsys):
    reference = test_data("re10k_cameractrl/pose_files/0bf152ef84195293.txt")
    estimate = test_data("evo_re10k/0bf152ef84195293.est.txt")
    status, found = as_json(capsys, "--reference", reference, "--estimate", estimate)
    expected = json.loads(test_data("evo_re10k/0bf152ef84195293.expected.json").read_text())["sim3"]
    assert status == 0
    assert found["trans_err"] == pytest.approx(expected["ape_translation"]["mean"], rel=1e-6)
    assert found["rot_err_deg"] == pytest.approx(expected["ape_rotation_deg"]["mean"], rel=1e-6)
    assert found["rot_err_aligned_deg"] == pytest.approx(1.7055, abs=1e-3)
    assert found["degenerate"] is True
    assert found["paired_by"] == "position"


def test_time_stamps_pair_files_of_other_rates(test_data, capsys):
    status, found = as_json(
        capsys,
        *("--reference", test_data("evo/freiburg1_xyz-groundtruth.txt")),
        *("--estimate", test_data("evo/freiburg1_xyz-ORB_kf_mono.txt"), "--time-difference", "0.01"),
    )
    assert status == 0
    assert (found["frames"], found["paired_by"], found["reference_frames"]) == (32, "time", 3000)
    assert found["trans_err"] == pytest.approx(0.008219, abs=1e-6)
    assert found["rot_err_deg"] == pytest.approx(2.337933, abs=1e-6)


def test_rotations_are_made_rotations_in_both_files(tmp_path, capsys):
    stretched = PATH.world_from_camera.copy()
    stretched[:, :3, :3] @= np.eye(3) + np.diag([4e-4, 0.0, -4e-4])  # nearest to the same rotation
    loose = dataclasses.replace(PATH, world_from_camera=stretched)
    names = [tmp_path / f"{name}.npy" for name in ("true", "loose")]
    for name, cameras in zip(names, (PATH, loose), strict=True):
        np.save(name, cameras.world_from_camera)
    for reference, estimate in (names, names[::-1]):
        status, found = as_json(capsys, "--reference", reference, "--estimate", estimate)
        assert status == 0
        # 1e-5 of a step, and more, where a matrix that is no rotation is inverted.
        assert found["rpe_trans"] < 1e-9
        assert found["rot_err_deg"] < 1e-6


def test_a_straight_path_says_that_its_rotation_error_means_nothing(test_data, capsys):
    main(
        [
            "cameras",
            *("--reference", str(test_data("presets_cami2v/zoom_in.txt"))),
            *("--estimate", str(test_data("evo_degenerate/zoom_in.est.txt"))),
        ]
    )
    printed = capsys.readouterr().out
    assert "MEANINGLESS" in printed
    assert "1.37154 deg" in printed


def test_frames_are_paired_by_their_pictures_names(tmp_path, capsys):
    """The estimate lacks two pictures and names the others in another order, as a reconstruction may."""
    names = [f"frame_{i}.png" for i in range(13)]
    kept = [11, 10, 9, 8, 7, 6, 5, 3, 2, 1, 0]
    reference = written(tmp_path / "true.json", PATH, "transforms_json", image_size=(96, 160), names=names)
    estimate = tmp_path / "estimate"
    shuffled = dataclasses.replace(PATH, times=None)[kept]
    pictures = [f"frame_{i}.jpg" for i in kept]
    save_cameras(shuffled, estimate, "colmap_text", image_size=(96, 160), names=pictures)
    _, found = as_json(capsys, "--reference", reference, "--estimate", estimate)
    assert (found["frames"], found["paired_by"]) == (11, "name")
    assert found["trans_err"] == pytest.approx(0.0, abs=1e-9)
    assert found["rot_err_deg"] == pytest.approx(0.0, abs=1e-5)


def test_a_pose_is_compared_once_and_within_the_time_asked_for():
    reference = PoseFile(PATH.with_fps(10.0), ())
    estimate = PoseFile(PATH[[0, 3, 6]].with_fps(10.0), ())  # at 0, 0.1 and 0.2 s
    pairs, paired_by = associate(reference, estimate, 0.02)
    assert paired_by == "time"
    np.testing.assert_array_equal(pairs, [[0, 0], [1, 1], [2, 2]])


def test_other_counts_without_names_or_times_are_refused(tmp_path, capsys):
    plain = PATH[:13]
    reference = written(tmp_path / "true.json", plain, "motionctrl")
    estimate = written(tmp_path / "estimate.json", plain[:9], "motionctrl")
    assert main(["cameras", "--reference", reference, "--estimate", estimate]) == 1
    assert "the reference holds 13 poses and the estimate 9" in capsys.readouterr().err


def test_folders_count_what_fails_and_go_on(tmp_path, capsys):
    true, found = tmp_path / "true", tmp_path / "found"
    for name in ("a", "b", "c", "d"):
        written(true / f"{name}.txt", PATH)
    written(found / "a.txt", PATH.scaled(0.3))
    save_cameras(PATH, found / "b", "colmap", image_size=(96, 160))
    (found / "c.txt").write_text("no poses\n")
    written(found / "e.txt", PATH)
    status, results = as_json(capsys, "--reference", true, "--estimate", found)
    assert status == 1
    assert set(results["clips"]) == {"a", "b"}
    assert results["clips"]["a"]["scale"] == pytest.approx(1 / 0.3)
    assert "no estimate of this name" in results["failed"]["d"]
    assert "c.txt" in results["failed"]["c"]
    assert results["estimates_without_reference"] == ["e"]
    assert (results["summary"]["clips"], results["summary"]["failed"]) == (2, 2)
    assert results["summary"]["trans_err"]["mean"] == pytest.approx(0.0, abs=1e-9)


def test_what_is_not_there_or_does_not_fit_is_named(tmp_path, capsys):
    path = written(tmp_path / "a.txt", PATH)
    assert main(["cameras", "--reference", path, "--estimate", str(tmp_path / "none.txt")]) == 1
    assert "none.txt: no such file" in capsys.readouterr().err
    (tmp_path / "folder").mkdir()
    written(tmp_path / "folder/a.txt", PATH)
    assert main(["cameras", "--reference", path, "--estimate", str(tmp_path / "folder")]) == 1
    assert "two files, or two folders" in capsys.readouterr().err
    written(tmp_path / "two.txt", PATH[:2])
    assert (
        main(["cameras", "--reference", str(tmp_path / "two.txt"), "--estimate", str(tmp_path / "two.txt")])
        == 1
    )
    assert "at least 3" in capsys.readouterr().err
