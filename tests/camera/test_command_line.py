"""python -m camctrl_jax.camera."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from camctrl_jax.camera import load_cameras, preset, save_cameras
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
