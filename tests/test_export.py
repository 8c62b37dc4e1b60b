"""``export weights``: run directories a weights folder that loads, says how it was made, and travels."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest
from nano_weights import STUDENT, TEXT, random_params, save_nano, save_run

from camctrl_jax.checkpoints.architecture import Architecture
from camctrl_jax.checkpoints.weights import (
    WeightsError,
    expected_mmdit,
    expected_vae,
    load_vae,
    open_weights,
)
from camctrl_jax.export.__main__ import main
from camctrl_jax.export.cards import model_card
from camctrl_jax.export.weights import export_weights
from camctrl_jax.files.safetensors import flatten, unflatten
from camctrl_jax.models import mmdit_preset, vae_preset
from camctrl_jax.models.fingerprint import fingerprint_of_parameters
from camctrl_jax.training.config import load_recipe

VAE_CONFIG, CONFIG = vae_preset("nano", num_res_blocks=0), mmdit_preset("nano", num_single=1)
STATISTICS = tuple(np.linspace(-1, 1, 16).tolist()), tuple(np.linspace(0.5, 2, 16).tolist())
CLIP = {"frames": 9, "height": 32, "width": 48, "fps": 12.0, "shift": 1.5}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Directories of an autoencoder run and of a denoising run on it."""
    root = tmp_path_factory.mktemp("runs")
    vae_params = random_params(expected_vae(VAE_CONFIG), 0)
    measured = dataclasses.replace(VAE_CONFIG, latents_mean=STATISTICS[0], latents_std=STATISTICS[1])
    vae = save_run(root / "vae", vae_params, Architecture(vae=measured).to_json(), objective="vae")
    config = dataclasses.replace(CONFIG, remat="full", attention="xla")
    params = random_params(expected_mmdit(CONFIG), 1)
    denoiser = save_run(root / "stage1", params, Architecture(None, config, TEXT, CLIP, str(vae)).to_json())
    return vae, denoiser, vae_params, params


def test_run_directories_are_weights(runs):
    vae, denoiser, vae_params, params = runs
    config, found = load_vae(vae)
    assert config == dataclasses.replace(VAE_CONFIG, latents_mean=STATISTICS[0], latents_std=STATISTICS[1])
    assert_equal(found, vae_params)
    opened = open_weights(denoiser)
    assert opened.mmdit_config == CONFIG  # without the choices of how the run computed
    assert opened.text == TEXT
    assert_equal(opened.mmdit_params(), params)  # the moving average, not the parameters
    assert load_vae(denoiser)[0].latents_mean == STATISTICS[0]  # its own autoencoder
    assert dataclasses.asdict(opened.sampling) == CLIP | {
        "text_guidance": 1.0,
        "camera_guidance": 2.0,
        "retrieved": 0,
        "reference": "take",
        "steps": 32,
    }


def assert_equal(found, expected):
    found, expected = flatten(found), flatten(expected)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_exported_folder_loads_and_says_how_it_was_made(runs, tmp_path, capsys):
    _, denoiser, vae_params, _ = runs
    evaluation = {
        "seeds": [1_000_000, 1_000_001],
        "clip": {"frames": 9, "height": 32, "width": 48},
        "versions": {"device": "NVIDIA H200"},
        "seconds": 3.0,
        "weights": {"checkpoint": str(denoiser)},
        "reconstruction": {"psnr_db": 29.25, "standard_error": 0.1, "per_world": [29.0, 29.5]},
    }
    (tmp_path / "results.json").write_text(json.dumps(evaluation))
    (tmp_path / "facts.json").write_text(json.dumps({"compute": "one H200, 25 minutes"}))
    out = tmp_path / "worlds"
    status = main(
        [
            *("weights", "--checkpoint", str(denoiser), "--out", str(out), "--camera-guidance", "2.5"),
            *("--evaluation", str(tmp_path / "results.json"), "--facts", str(tmp_path / "facts.json")),
        ]
    )
    assert status == 0
    assert str(out / "model.json") in capsys.readouterr().out
    assert {path.name for path in out.iterdir()} == {
        "model.json",
        "README.md",
        "vae.safetensors",
        "mmdit.safetensors",
    }
    config, found = load_vae(out)
    assert config.latents_std == STATISTICS[1]
    for name, array in flatten(found).items():
        np.testing.assert_allclose(array, flatten(vae_params)[name], rtol=2**-8, atol=1e-30)
    weights = open_weights(out)
    assert weights.mmdit_config == CONFIG
    assert weights.sampling.camera_guidance == 2.5
    assert weights.sampling.shift == 1.5
    assert weights.facts["transformer"]["steps"] == 7
    assert weights.facts["compute"] == "one H200, 25 minutes"
    card = (out / "README.md").read_text()
    for text in ("29.25", "one H200, 25 minutes", "7 steps of batch 64", "seeds 0 to 19999"):
        assert text in card
    # Nothing of the machine that it was made on travels along.
    for path in (out / "model.json", out / "README.md"):
        assert str(denoiser.parent) not in path.read_text()


def test_card_tells_of_every_set_of_worlds():
    config = load_recipe("configs/stage2.py:worlds").to_dict()
    card = model_card("set", {}, None, {"transformer": {"config": config, "steps": 7}}, None)
    assert "transformer: 7 steps, seed 0, procedural worlds in sets:" in card
    assert card.count("\n  * ") == len(config["data"]["sets"]) == 7
    assert (
        "  * large_memory: clips of 49 frames of 192x320 in batches of 20, takes of 500 frames through "
        "places of seeds 6000 to 6499"
    ) in card


def test_exported_folder_exports_again_unchanged(runs, tmp_path):
    denoiser = runs[1]
    first = export_weights(tmp_path / "a", checkpoint=str(denoiser))
    second = export_weights(tmp_path / "b", checkpoint=str(first), card="# Card\n")
    for name in ("model.json", "vae.safetensors", "mmdit.safetensors"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_autoencoder_exports_alone(runs, tmp_path):
    out = export_weights(tmp_path / "vae", checkpoint=str(runs[0]))
    assert load_vae(out)[0].latents_mean == STATISTICS[0]
    with pytest.raises(WeightsError, match=r"an autoencoder itself.*leave --vae out"):
        export_weights(tmp_path / "other", checkpoint=str(runs[0]), vae=str(runs[0]))
    with pytest.raises(WeightsError, match="no transformer"):
        open_weights(out).mmdit_params()


def test_run_on_an_untrained_autoencoder_asks_for_one(runs, tmp_path):
    params = random_params(expected_mmdit(CONFIG), 1)
    run = save_run(tmp_path / "run", params, Architecture(None, CONFIG, TEXT, CLIP, "random").to_json())
    with pytest.raises(WeightsError, match="untrained autoencoder"):
        export_weights(tmp_path / "out", checkpoint=str(run))
    assert export_weights(tmp_path / "out", checkpoint=str(run), vae=str(runs[0])).exists()


def test_what_cannot_be_exported_ends_with_one_line_and_status_1(runs, tmp_path, capsys):
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    (tmp_path / "facts.json").write_text("[1]")
    for arguments, message in (
        (["--checkpoint", "nowhere", "--out", "x"], "No weights at 'nowhere'"),
        (["--checkpoint", str(runs[1]), "--out", str(tmp_path / "used")], "already exists"),
        (
            ["--checkpoint", str(runs[1]), "--out", "x", "--facts", str(tmp_path / "facts.json")],
            "expected a JSON object",
        ),
        (["--checkpoint", str(runs[1]), "--out", "x", "--card", str(tmp_path / "none.md")], "none.md"),
        (["--checkpoint", str(runs[1]), "--out", "x", "--evaluation", str(tmp_path)], "cannot read"),
        (["--checkpoint", str(runs[1]), "--out", str(tmp_path / "facts.json" / "x")], "cannot write"),
    ):
        assert main(["weights", *arguments]) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert message in error


def test_student_stays_one_in_the_folder_and_on_its_card(tmp_path, capsys):
    student = save_nano(tmp_path / "student", distilled=STUDENT)
    out = tmp_path / "exported"
    assert main(["weights", "--checkpoint", str(student), "--out", str(out)]) == 0
    opened = open_weights(out)
    assert opened.distilled == STUDENT
    assert (opened.sampling.steps, opened.sampling.camera_guidance) == (4, 1.0)
    assert f"A student: {STUDENT.said}. A step is one evaluation." in (out / "README.md").read_text()
    capsys.readouterr()
    other = tmp_path / "other"
    asked = ["weights", "--checkpoint", str(student), "--out", str(other), "--text-guidance", "3"]
    assert main(asked) == 1
    told = capsys.readouterr().err
    assert "--text-guidance 3: these weights are a student" in told
    assert "folded in: camera guidance 2" in told
    assert not other.exists()


def test_run_of_a_student_is_one_wherever_it_is_exported(runs, tmp_path):
    vae, _, _, params = runs
    made = dataclasses.replace(STUDENT, method="adversarial", teacher_sha256="abc", valid_steps=(1,))
    content = Architecture(None, CONFIG, TEXT, CLIP, str(vae), distilled=made).to_json()
    run = save_run(tmp_path / "run", params, content, sample={"camera_guidance": 2.0})
    out = export_weights(tmp_path / "exported", checkpoint=str(run))
    opened = open_weights(out)
    assert opened.distilled == made
    assert (opened.sampling.steps, opened.sampling.text_guidance, opened.sampling.camera_guidance) == (
        1,
        1,
        1,
    )
    assert "A student of the teacher abc: adversarial distillation" in (out / "README.md").read_text()


@pytest.fixture(scope="module")
def teacher_and_student(runs, tmp_path_factory):
    """A weights folder, and a run of a flow map of it that decodes with the same autoencoder."""
    _, denoiser, _, params = runs
    root = tmp_path_factory.mktemp("taught")
    teacher = export_weights(root / "teacher", checkpoint=str(denoiser))
    config = dataclasses.replace(CONFIG, target_time=True)
    drawn, near = flatten(random_params(expected_mmdit(config), 5)), flatten(params)
    near = {name: array if name not in near else near[name] + array / 9 for name, array in drawn.items()}
    return teacher, save_student(root / "run", str(teacher), config, unflatten(near), taught_by(teacher))


def taught_by(teacher):
    fingerprint = fingerprint_of_parameters(open_weights(teacher).mmdit_params())
    return dataclasses.replace(STUDENT, method="flow_map", teacher_sha256=fingerprint, valid_steps=(4, 1))


def save_student(directory, vae, config, params, distilled):
    content = Architecture(None, config, TEXT, CLIP, vae, distilled=distilled).to_json()
    return save_run(directory, params, content)


def test_a_student_is_exported_as_a_difference_from_its_teacher(teacher_and_student, tmp_path, capsys):
    teacher, student = teacher_and_student
    words = ["weights", "--checkpoint", str(student), "--delta-of", str(teacher)]
    assert main([*words, "--out", str(tmp_path / "small")]) == 0
    assert "mmdit.safetensors" in capsys.readouterr().out
    whole = export_weights(tmp_path / "whole", checkpoint=str(student))
    sizes = [(folder / "mmdit.safetensors").stat().st_size for folder in (tmp_path / "small", whole)]
    assert sizes[0] < 0.6 * sizes[1]
    small, large = open_weights(tmp_path / "small"), open_weights(whole)
    assert small.distilled == large.distilled == taught_by(teacher)
    assert (small.sampling, small.text) == (large.sampling, large.text)
    assert "autoencoder" not in small.facts
    assert load_vae(tmp_path / "small")[0] == load_vae(teacher)[0]
    for name, array in flatten(small.mmdit_params()).items():
        wanted = flatten(large.mmdit_params())[name]
        assert np.abs(array - wanted).mean() <= 0.02 * np.abs(wanted).mean(), name
    card = (tmp_path / "small" / "README.md").read_text()
    assert f"the transformer as its difference from {teacher}" in card
    assert "autoencoder (4x" not in card
    assert main([*words, "--out", str(tmp_path / "small")]) == 1  # never overwritten
    # What was read from differences can be stored whole, and is then the same.
    again = open_weights(export_weights(tmp_path / "again", checkpoint=str(tmp_path / "small")))
    assert_equal(again.mmdit_params(), small.mmdit_params())
    assert again.vae_config == open_weights(teacher).vae_config


def test_what_is_no_student_of_these_weights_is_not_stored_as_a_difference(
    runs, teacher_and_student, tmp_path, capsys
):
    vae, denoiser, _, params = runs
    teacher, student = teacher_and_student
    told = dataclasses.replace(taught_by(teacher), method="progressive")
    other_vae = save_run(
        tmp_path / "vae", random_params(expected_vae(VAE_CONFIG), 3), Architecture(vae=VAE_CONFIG).to_json()
    )
    wide = dataclasses.replace(CONFIG, num_single=2)
    for number, (checkpoint, base, message) in enumerate(
        (
            (denoiser, teacher, f"{denoiser} is not a student"),
            (vae, teacher, f"{vae} is not a student"),
            (
                save_student(
                    tmp_path / "wide", str(teacher), wide, random_params(expected_mmdit(wide), 1), told
                ),
                teacher,
                "has other sizes than .*: num_single 2 instead of 1",
            ),
            (
                save_student(
                    tmp_path / "of_another",
                    str(teacher),
                    CONFIG,
                    params,
                    dataclasses.replace(told, teacher_sha256="0123"),
                ),
                teacher,
                f"a student of the transformer 0123, and that of .* is {told.teacher_sha256}",
            ),
            (
                save_student(tmp_path / "decoded", str(other_vae), CONFIG, params, told),
                teacher,
                "The autoencoder of .* is not that of",
            ),
            (student, denoiser, r"stage1: differences are taken from a weights folder .* Make one:"),
            (student, tmp_path / "nowhere", "No weights at"),
        )
    ):
        out = tmp_path / f"out_{number}"
        words = ["weights", "--checkpoint", str(checkpoint), "--delta-of", str(base), "--out", str(out)]
        assert main(words) == 1, message
        assert re.search(message, capsys.readouterr().err), message
        assert not out.exists()


def test_sets_that_take_no_turn_are_not_in_the_card():
    each = {"frames": 49, "height": 96, "width": 160, "batch_size": 8, "worlds": {"seeds": [0, 10]}}
    sets = {"used": each | {"turns": 1}, "left_out": each | {"turns": 0}, "older": each}
    config = {"seed": 0, "batch_size": 8, "data": {"kind": "worlds", "sets": sets}}
    card = model_card("t", {}, None, {"transformer": {"steps": 1, "config": config}}, None)
    assert [name for name in sets if f"* {name}: clips" in card] == ["used", "older"]
