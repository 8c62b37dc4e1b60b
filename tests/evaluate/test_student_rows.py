"""Every evaluation samples a student as its weights say, refuses other rows, and says what it measured."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from nano_weights import STUDENT, save_nano

from camctrl_jax.checkpoints.weights import open_weights
from camctrl_jax.errors import InvalidValue
from camctrl_jax.evaluate import captions, checkpoint, explorations, worlds
from camctrl_jax.evaluate.__main__ import main
from camctrl_jax.evaluate.students import student_entry, student_lines
from camctrl_jax.video.encoding import write_mp4

FOLDED = "folded in: camera guidance 2"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_nano(tmp_path_factory.mktemp("weights") / "student", distilled=STUDENT)


@pytest.fixture(scope="module")
def student(folder):
    return open_weights(folder)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return open_weights(save_nano(tmp_path_factory.mktemp("weights") / "nano"))


@pytest.fixture
def clips(tmp_path):
    """Settings of ``evaluate checkpoint`` for a folder with a video and its path."""
    write_mp4(tmp_path / "a.mp4", np.zeros((9, 32, 48, 3), np.uint8), 12.0)
    (tmp_path / "poses").mkdir()
    return checkpoint.CheckpointSettings(
        tmp_path / "out", videos=tmp_path / "a.mp4", cameras=tmp_path / "poses", estimates=False
    )


def rows(settings, model, on_accelerator):
    """(steps, text, camera, history) of every row that settings stand for."""
    if isinstance(settings, checkpoint.CheckpointSettings):
        samplings = settings.resolved(model.sampling, on_accelerator, model.distilled).samplings()
    else:
        settings = settings.resolved(on_accelerator, model)
        if isinstance(settings, captions.Settings):
            samplings = [sampling for _, sampling in settings.rows().values()]
        elif isinstance(settings, explorations.Settings):
            samplings = [settings.sampling(None)]
        else:
            samplings = settings.samplings()
    return [(s.steps, s.guidance.text, s.guidance.camera, s.guidance.history) for s in samplings]


@pytest.mark.parametrize("on_accelerator", [False, True])
def test_rows_of_a_student_are_its_own_and_those_of_others_are_by_the_device(
    student, plain, clips, tmp_path, on_accelerator
):
    asked = [kind.Settings(tmp_path) for kind in (worlds, explorations, captions)]
    for settings in (*asked, clips):
        assert rows(settings, student, on_accelerator) == [(4, 1.0, 1.0, 1.0)]
    few = {worlds: 8, explorations: 4, captions: 8}
    for settings, steps in zip((*asked, clips), (*few.values(), 8), strict=True):
        usual = (32 if on_accelerator else steps, 1.0, 2.0, 1.0)
        assert rows(settings, plain, on_accelerator) == [usual]
    for settings in asked[1:]:  # what the results say was asked for
        assert asdict(settings.resolved(on_accelerator))["camera_guidance"] == 2.0


@pytest.mark.parametrize(
    ("evaluation", "values", "message"),
    [
        ("worlds", {"steps": (4, 8)}, "steps is 8: these weights are a student made for 4 steps"),
        ("worlds", {"camera_guidance": (1.0, 2.0)}, "guidance to the camera is 2"),
        ("worlds", {"text_guidance": 3.0}, "guidance to the text is 3"),
        ("worlds", {"history_guidance": 1.5}, "guidance to past frames is 1.5"),
        ("explorations", {"steps": 32}, "steps is 32"),
        ("explorations", {"camera_guidance": 2.0}, "guidance to the camera is 2"),
        ("explorations", {"arms": ("last-5", "last-5+history1.5")}, "guidance to past frames is 1.5"),
        ("captions", {"steps": 8}, "steps is 8"),
        ("captions", {"text_guidance": (1.0, 3.0), "cameras": ("none",)}, "guidance to the text is 3"),
        ("captions", {"camera_guidance": 2.0}, "guidance to the camera is 2"),
        ("checkpoint", {"steps": (8,)}, "steps is 8"),
        ("checkpoint", {"camera_guidance": (2.0,)}, "guidance to the camera is 2"),
        ("checkpoint", {"history_guidance": 1.5}, "guidance to past frames is 1.5"),
    ],
)
def test_rows_that_a_student_was_not_made_for_are_refused(
    student, clips, tmp_path, evaluation, values, message
):
    if evaluation == "checkpoint":
        settings = replace(clips, **values)
    else:
        kinds = {"worlds": worlds, "explorations": explorations, "captions": captions}
        settings = kinds[evaluation].Settings(tmp_path, **values)
    with pytest.raises(InvalidValue) as caught:
        rows(settings, student, False)
    assert message in str(caught.value)
    assert FOLDED in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        ("worlds", "--camera-guidance", "2"),
        ("explorations", "--steps", "8"),
        ("captions", "--camera-guidance", "2"),
    ],
)
def test_commands_refuse_before_anything_is_written(folder, tmp_path, capsys, options):
    command, *others = options
    out = tmp_path / "out"
    assert main([command, "--checkpoint", str(folder), "--out", str(out), *others]) == 1
    assert FOLDED in capsys.readouterr().err
    assert not out.exists()


def test_noise_at_inference_stays_an_arm_of_a_student(student, tmp_path):
    settings = explorations.Settings(tmp_path, arms=("last-5+noise0.05",))
    assert rows(settings, student, False) == [(4, 1.0, 1.0, 1.0)]


def test_results_and_page_say_of_a_student_what_it_is(folder, tmp_path):
    pytest.importorskip("matplotlib", reason="figures are drawn by matplotlib")
    settings = worlds.Settings(
        *(tmp_path, str(folder)),
        count=2,
        seeds=1,
        samples=1,
        features="none",
        shown=1,
        motion=0,
        tasks=("i2v",),
    )
    results = worlds.evaluate_worlds(settings, say=lambda _: None)
    assert results["weights"]["distilled"]["valid_steps"] == [4]
    assert [name for name in results["measures"] if name.startswith("4 steps, camera 1, text 1/")]
    page = (tmp_path / "results.md").read_text()
    assert f"The weights are a student, sampled without guidance: {STUDENT.said}." in page
    assert json.loads((tmp_path / "results.json").read_text())["request"]["steps"] == [4]


def test_results_of_others_say_nothing_of_students(plain):
    assert student_entry(plain) == student_entry(None) == {}
    assert student_lines({"weights": {"checkpoint": "x"}}) == []
