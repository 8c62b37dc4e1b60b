"""python -m camctrl_jax.camera."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from camctrl_jax.camera import Cameras, load_cameras, preset, save_cameras
from camctrl_jax.camera.__main__ import main


def test_help_teaches_and_does_not_import_jax():
    code = (
        "import sys, runpy\n"
        "sys.argv = ['camera', '--help']\n"
        "try:\n    runpy.run_module('camctrl_jax.camera', run_name='__main__', alter_sys=False)\n"
        "except SystemExit as stop:\n    print('status', stop.code)\n"
        "print('jax' in sys.modules, 'matplotlib' in sys.modules)\n"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "status 0" in output
    assert output.strip().endswith("False False")
    assert "examples:" in output
    assert "realestate10k" in output


@pytest.mark.parametrize("command", ["info", "convert", "preset", "preview"])
def test_help_of_every_command_has_examples(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert f"python -m camctrl_jax.camera {command} " in capsys.readouterr().out


def test_info_for_people_and_for_programs(tmp_path, capsys):
    save_cameras(preset("orbit_left", 101, degrees=90, distance=2), tmp_path / "orbit.txt")
    assert main(["info", str(tmp_path / "orbit.txt")]) == 0
    text = capsys.readouterr().out
    assert "path length:   3.14" in text
    assert "rotation:      90 deg in all" in text
    assert "field of view: 79.6 x 53.1 deg" in text
    assert main(["info", str(tmp_path / "orbit.txt"), "--json"]) == 0
    description = json.loads(capsys.readouterr().out)
    assert description["frames"] == 101
    assert description["unit"] == "m"
    assert description["total_rotation_deg"] == pytest.approx(90.0)


def test_info_on_a_published_file(test_data, capsys):
    assert main(["info", str(test_data("presets_cami2v/look_left.txt"))]) == 0
    text = capsys.readouterr().out
    assert "left-handed" in text
    assert "90 deg in all" in text


def test_convert_there_and_back(tmp_path, capsys):
    path = preset("dolly_zoom_in", 9)
    save_cameras(path, tmp_path / "path.txt")
    assert (
        main(
            [
                "convert",
                str(tmp_path / "path.txt"),
                str(tmp_path / "model"),
                "--to",
                "colmap",
                "--image-size",
                "96x160",
            ]
        )
        == 0
    )
    captured = capsys.readouterr()
    assert "9 frames, realestate10k -> colmap" in captured.out
    assert "colmap cannot hold times" in captured.err
    assert "colmap cannot hold that lengths are metres" in captured.err
    assert (
        main(["convert", str(tmp_path / "model"), str(tmp_path / "back.json"), "--to", "transforms_json"])
        == 0
    )
    back = load_cameras(tmp_path / "back.json")
    np.testing.assert_allclose(back.world_from_camera, path.world_from_camera, atol=1e-9)
    np.testing.assert_allclose(back.intrinsics, path.intrinsics, rtol=1e-9)


def test_convert_changes_what_it_is_asked_to(tmp_path):
    source, target = tmp_path / "slam.txt", tmp_path / "out.txt"
    save_cameras(preset("truck_left", 9, metres=1).transformed(np.diag([-1, 1, -1, 1.0])), source, "tum")
    arguments = [
        "convert",
        str(source),
        str(target),
        "--scale",
        "100",
        "--metric",
        "--relative",
        "--frames",
        "5",
        "--reverse",
        "--flip",
    ]
    assert main(arguments) == 0
    out = load_cameras(target)
    assert len(out) == 5
    assert out.metric
    np.testing.assert_allclose(
        out.positions[0], (100, 0, 0), atol=1e-9
    )  # reversed after the first became the origin
    np.testing.assert_allclose(out.positions[-1], 0, atol=1e-9)


def test_preset_writes_what_it_says(tmp_path, capsys):
    assert (
        main(["preset", "orbit_left", "--degrees", "90", "--distance", "2", "-o", str(tmp_path / "a.txt")])
        == 0
    )
    assert "49 frames at 12 frames/s, 3.14" in capsys.readouterr().out
    assert load_cameras(tmp_path / "a.txt").total_rotation == pytest.approx(90.0)
    sentence = "dolly in 1.5 m, then pan left 40 deg while rising 0.3 m"
    assert (
        main(["preset", sentence, "-o", str(tmp_path / "b.json"), "--to", "motionctrl", "--frames", "25"])
        == 0
    )
    assert load_cameras(tmp_path / "b.json").path_length == pytest.approx(1.8)
    assert main(["preset", "--list"]) == 0
    listing = capsys.readouterr().out
    assert "dolly_zoom_in" in listing
    assert "'pan left' of VideoX-Fun" in listing


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["info", "nowhere.txt"], "error: nowhere.txt: no such file or folder"),
        (["preset", "dolly sideways"], "dolly needs a direction"),
        (
            ["preset", "dolly in 1 m", "--metres", "2"],
            "--metres goes with a preset; a sentence says it itself",
        ),
        (["preset"], "name a preset or give a sentence"),
        (
            ["preset", "dolly_in", "-o", "x.json", "--to", "transforms_json"],
            "pass image_size=(height, width)",
        ),
        (["preset", "dolly_in", "-o", f"{__file__}/x.txt"], f"error: cannot write {__file__}/x.txt: "),
    ],
)
def test_errors_are_one_message_and_status_2(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", ["720", "720x", "0x10", "axb"])
def test_image_size_is_height_x_width(size, capsys):
    with pytest.raises(SystemExit):
        main(["info", "x.txt", "--image-size", size])
    assert "is not HEIGHTxWIDTH, for example 720x1280" in capsys.readouterr().err


def test_a_figure_that_cannot_be_written_is_named(capsys):
    pytest.importorskip("matplotlib", reason="needs the eval extra")
    assert main(["preview", "dolly in 1 m", "-o", f"{__file__}/x.png"]) == 2
    assert capsys.readouterr().err.startswith("error: cannot write ")


def test_preview_draws_files_presets_and_sentences(tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="needs the eval extra")
    save_cameras(preset("spiral_in", 9), tmp_path / "path.txt")
    figure = tmp_path / "figure.png"
    assert main(["preview", str(tmp_path / "path.txt"), "orbit_left", "dolly in 1 m", "-o", str(figure)]) == 0
    assert capsys.readouterr().out.strip() == str(figure)
    assert figure.read_bytes().startswith(b"\x89PNG")


def scalar_first(path) -> None:
    """Rewrite a TUM file with the scalar in front of the vector."""
    rows = [line.split() for line in path.read_text().splitlines() if line[0] != "#"]
    path.write_text("".join(" ".join([*row[:4], row[7], *row[4:7]]) + "\n" for row in rows))


def run(*arguments) -> int:
    return main([str(argument) for argument in arguments])


def test_info_and_convert_take_the_same_options_and_give_the_same_hints(tmp_path, capsys):
    source, out = tmp_path / "slam.txt", tmp_path / "out.txt"
    meant = preset("dolly_in", 25, metres=1.5)
    save_cameras(meant, source, "tum")
    scalar_first(source)
    assert run("info", source) == 0
    odd = [line for line in capsys.readouterr().out.splitlines() if line.startswith("looks odd:")]
    assert "(try --quaternions wxyz)" in odd[0]
    assert "OpenGL" not in odd[0].split("; or ")[0]
    assert run("convert", source, out) == 0
    told = capsys.readouterr().err.splitlines()
    assert odd[0].removeprefix("looks odd:").strip() in [
        line.removeprefix("looks odd:").strip() for line in told
    ]
    np.testing.assert_allclose(load_cameras(out).relative_to(0).positions[-1], (0, 0, -1.5), atol=1e-9)

    assert run("info", source, "--quaternions", "wxyz") == 0
    assert "looks odd" not in capsys.readouterr().out
    assert run("convert", source, out, "--quaternions", "wxyz") == 0
    assert "looks odd" not in capsys.readouterr().err
    np.testing.assert_allclose(load_cameras(out).world_from_camera, meant.world_from_camera, atol=1e-9)


def test_convert_inverts_and_renames_axes(tmp_path):
    meant = preset("orbit_left", 9, degrees=60)
    # The file holds the inverse of world-from-camera matrices in OpenGL axes.
    opengl = Cameras(np.linalg.inv(meant.world_from_camera @ np.diag([1.0, -1, -1, 1])), meant.intrinsics)
    save_cameras(opengl, tmp_path / "poses.txt", "kitti")
    assert run("convert", tmp_path / "poses.txt", tmp_path / "out.txt", "--invert", "--axes", "RUB") == 0
    np.testing.assert_allclose(
        load_cameras(tmp_path / "out.txt").world_from_camera, meant.world_from_camera, atol=1e-9
    )


def test_convert_takes_a_range_and_samples_at_the_paths_own_rate(tmp_path, capsys):
    source, out = tmp_path / "poses.txt", tmp_path / "out.txt"
    save_cameras(preset("dolly_in", 301, fps=30.0, metres=3.0, easing="linear"), source, "tum")
    assert run("convert", source, out, "--range", "100:161") == 0
    np.testing.assert_allclose(load_cameras(out).positions[:, 2], np.arange(100, 161) * 0.01, atol=1e-9)
    assert run("convert", source, out, "--range", "100:161", "--fps", "12") == 0
    part = load_cameras(out)  # 2 s
    np.testing.assert_allclose(part.positions[:, 2], 1.0 + np.arange(25) * 0.3 / 12, atol=1e-6)
    np.testing.assert_allclose(np.diff(part.times), 1 / 12, atol=1e-6)
    capsys.readouterr()
    assert run("convert", source, out, "--fps", "12", "--frames", "25") == 0
    assert "takes the first 2 s of the path's 10 s" in capsys.readouterr().err
    np.testing.assert_allclose(load_cameras(out).positions[:, 2], np.arange(25) * 0.3 / 12, atol=1e-6)


def test_convert_without_times_asks_for_the_rate(tmp_path, capsys):
    source, out = tmp_path / "poses.txt", tmp_path / "out.txt"
    save_cameras(preset("dolly_in", 61, metres=0.6, easing="linear"), source, "kitti")
    assert run("convert", source, out, "--fps", "12") == 2
    assert f"error: {source} holds no times" in capsys.readouterr().err
    assert not out.exists()
    assert run("convert", source, out, "--fps", "12", "--source-fps", "30") == 0
    np.testing.assert_allclose(load_cameras(out).positions[:, 2], np.arange(25) * 0.025, atol=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--range", "5:50"], "--range 5:50: reaches beyond the path"),
        (["--from", "tmu"], "unknown pose format 'tmu'"),
        (["--axes", "RDR"], "camera axes 'RDR'"),
        (["--quaternions", "wxyz"], "hold no quaternions"),
        (["--fps", "0"], "--fps 0: expected a positive number"),
        (["--source-fps", "nan"], "--source-fps nan: expected a positive number"),
    ],
)
def test_options_that_a_file_cannot_follow_are_refused(arguments, message, tmp_path, capsys):
    save_cameras(preset("dolly_in", 9), tmp_path / "poses.txt")
    assert run("convert", tmp_path / "poses.txt", tmp_path / "out.txt", *arguments) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.txt").exists()


def test_names_that_a_resampled_path_loses_are_noted(tmp_path, capsys):
    save_cameras(preset("dolly_in", 9), tmp_path / "a.json", "transforms_json", image_size=(96, 160))
    arguments = ("convert", tmp_path / "a.json", tmp_path / "b.json", "--to", "transforms_json")
    assert run(*arguments) == 0
    assert "names" not in capsys.readouterr().err
    assert run(*arguments, "--frames", "5") == 0
    assert "the names of the pictures are left out" in capsys.readouterr().err


def test_preview_tells_what_looks_odd_and_reads_as_it_is_told(tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="needs the eval extra")
    source = tmp_path / "slam.txt"
    save_cameras(preset("dolly_in", 9), source, "tum")
    scalar_first(source)
    assert run("preview", source, "-o", tmp_path / "a.png") == 0
    assert f"looks odd: {source}: the first quaternion turns by 180 degrees" in capsys.readouterr().err
    assert run("preview", source, "-o", tmp_path / "b.png", "--quaternions", "wxyz") == 0
    assert capsys.readouterr().err == ""


def test_convert_refuses_rates_that_fill_the_memory(tmp_path, capsys):
    save_cameras(preset("dolly_in", 12), tmp_path / "a.txt")
    assert main(["convert", str(tmp_path / "a.txt"), str(tmp_path / "b.txt"), "--fps", "1e9"]) == 2
    assert "more than 1,000,000; give a lower --fps" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["convert", str(tmp_path / "a.txt"), str(tmp_path / "b.txt"), "--frames", "1000000000"])
    assert "1000000000 frames are more than 1,000,000" in capsys.readouterr().err


def test_to_offers_only_what_can_be_written(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["convert", "a.txt", "b", "--to", "mvsnet"])
    printed = capsys.readouterr().err
    assert "invalid choice: 'mvsnet'" in printed
    assert "camera_path" not in printed


def test_poses_of_pictures_written_as_latent_poses_are_noted(tmp_path, capsys):
    save_cameras(preset("dolly_in", 49), tmp_path / "a.txt")
    options = ["--to", "worldplay", "--image-size", "96x160"]
    assert main(["convert", str(tmp_path / "a.txt"), str(tmp_path / "a.json"), *options]) == 0
    note = "holds a pose for every 4 pictures: the 49 poses are written as those of 193 pictures"
    assert note in (printed := capsys.readouterr().err)
    assert "--frames 13 keeps the speed" in printed
    assert main(["convert", str(tmp_path / "a.json"), str(tmp_path / "b.json"), *options]) == 0
    assert note not in capsys.readouterr().err
    assert main(["preset", "dolly_in", "-o", str(tmp_path / "c.json"), *options]) == 0
    assert note in capsys.readouterr().err


def test_preview_refuses_reading_options_without_a_file(tmp_path, capsys):
    assert main(["preview", "orbit_left", "--invert", "-o", str(tmp_path / "a.png")]) == 2
    assert (
        "--invert would say how a pose file is read, and none of 'orbit_left' is one"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "a.png").exists()


def test_help_of_a_range_from_the_end(capsys):
    with pytest.raises(SystemExit):
        main(["convert", "--help"])
    assert "--range=-49:" in capsys.readouterr().out
