"""How weights are sampled: as they say, and a student in no other way, wherever it is asked."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from nano_weights import SAMPLING, STUDENT, save_nano

from camctrl_jax.camera import resolve_path
from camctrl_jax.checkpoints.pipelines import load_pipeline, open_model
from camctrl_jax.checkpoints.weights import MODEL_FILE, open_weights
from camctrl_jax.clip_shape import ClipShape
from camctrl_jax.diffusion.guidance import Guidance
from camctrl_jax.diffusion.sampler import Sampling
from camctrl_jax.errors import InvalidValue
from camctrl_jax.interop.described import Distilled, SamplingDefaults
from camctrl_jax.sampling.exploration import Exploration
from camctrl_jax.sampling.pipeline import ClipBatch
from camctrl_jax.sampling.students import check_sampling, fitting_sampling, unfit, usual_sampling

TEACHER = SamplingDefaults(9, 32, 48, text_guidance=1.5, camera_guidance=2.5)
DEFAULTS = STUDENT.defaults(TEACHER)
OWN = Sampling(Guidance(), 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_nano(tmp_path_factory.mktemp("weights") / "student", distilled=STUDENT)


@pytest.fixture(scope="module")
def pipeline(folder):
    return load_pipeline(*open_model(folder))


def test_weights_that_are_no_students_are_sampled_as_ever():
    assert usual_sampling(TEACHER) == Sampling(Guidance(1.5, 2.5), 32)
    guidance = {"text": 3.0, "camera": 0.0, "camera_without_text": 2.0, "history": 1.5}
    asked = usual_sampling(TEACHER, steps=7, shift=2.0, **guidance)
    assert asked == Sampling(Guidance(3.0, 0.0, 2.0, 1.5), 7, 2.0)
    assert unfit(asked, None) is None


def test_student_is_sampled_with_its_own_steps_and_one_evaluation_each():
    sampling = usual_sampling(DEFAULTS, STUDENT)
    assert sampling == OWN
    assert sampling.guidance.evaluations() == 1
    assert usual_sampling(DEFAULTS, STUDENT, steps=4, text=1.0, camera=1.0, history=1.0) == OWN
    either = replace(STUDENT, valid_steps=(8, 4))
    assert either.defaults(TEACHER).steps == 8
    assert either.defaults(replace(TEACHER, steps=4)).steps == 4
    assert usual_sampling(either.defaults(TEACHER), either, steps=4).steps == 4


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"steps": 32}, "steps"),
        ({"text": 3.0}, "text"),
        ({"camera": 2.0}, "camera"),
        ({"camera": 0.0}, "camera"),
        ({"camera_without_text": 1.0}, "camera_without_text"),
        ({"history": 1.5}, "history"),
    ],
)
def test_what_a_student_was_not_made_for_is_refused_with_what_is_folded_in(asked, field):
    with pytest.raises(InvalidValue) as caught:
        usual_sampling(DEFAULTS, STUDENT, **asked)
    told = str(caught.value)
    assert "folded in: camera guidance 2" in told
    assert "steps: 4" in told
    assert f"is {next(iter(asked.values())):g}" in told
    sampling = Sampling(
        Guidance(
            asked.get("text", 1.0),
            asked.get("camera", 1.0),
            asked.get("camera_without_text"),
            asked.get("history", 1.0),
        ),
        asked.get("steps", 4),
    )
    assert unfit(sampling, STUDENT) == (field, told)
    assert check_sampling(sampling, None) is sampling


def test_noise_on_what_is_given_is_left_to_who_asks_for_it():
    assert unfit(replace(OWN, condition_noise=0.05), STUDENT) is None


def test_folder_of_a_student_says_how_it_is_sampled(folder):
    assert (SAMPLING.camera_guidance, SAMPLING.steps) == (2.0, 32)  # which the folder was made from
    stored = json.loads((folder / MODEL_FILE).read_text())
    assert stored["distilled"] == {
        "method": "progressive",
        "teacher_sha256": "",
        "guidance_folded": {"text": 1.0, "camera": 2.0},
        "valid_steps": [4],
    }
    assert [stored["sampling"][name] for name in ("text_guidance", "camera_guidance", "steps")] == [1, 1, 4]
    opened = open_weights(folder)
    assert opened.distilled == STUDENT
    assert usual_sampling(opened.sampling, opened.distilled) == OWN


def test_pipeline_refuses_on_whatever_way_it_is_asked(pipeline):
    clips = ClipBatch(["a ball"], [0], ClipShape(9, 32, 48), [resolve_path("dolly in 1 m", 9)])
    with pytest.raises(InvalidValue, match=r"guidance to the camera is 2: .*folded in: camera guidance 2"):
        pipeline.sample(clips, Sampling(Guidance(camera=2.0), 4))
    with pytest.raises(InvalidValue, match=r"steps is 2: .*made for 4 steps"):
        pipeline.sample(clips, Sampling(steps=2))


def test_times_that_a_student_was_not_taught_at_are_refused(pipeline):
    clips = ClipBatch(["a ball"], [0], ClipShape(9, 32, 48), [resolve_path("dolly in 1 m", 9)])
    with pytest.raises(InvalidValue, match=r"shift is 9: .*knows the times of its own steps alone"):
        pipeline.sample(clips, replace(OWN, shift=9.0))
    with pytest.raises(InvalidValue, match=r"shift is 9: .*Leave it out"):
        usual_sampling(DEFAULTS, STUDENT, shift=9.0)  # before any weights are read
    assert usual_sampling(DEFAULTS, None, shift=9.0).shift == 9.0
    single = replace(STUDENT, valid_steps=(1,))  # from noise to data under any shift
    assert usual_sampling(single.defaults(DEFAULTS), single, shift=9.0).shift == 9.0


def test_exploration_of_a_student_begins_and_goes_on_as_the_weights_say(pipeline, tmp_path):
    pytest.importorskip("av", reason="videos are written by PyAV")
    with pytest.raises(InvalidValue, match="made for 4 steps"):
        Exploration.start(pipeline, tmp_path / "no", "dolly in 0.2 m", sampling=Sampling(steps=2))
    assert not (tmp_path / "no").exists()
    with Exploration.start(pipeline, tmp_path / "tour", "dolly in 0.2 m") as exploration:
        assert exploration.settings.sampling == OWN
        with pytest.raises(InvalidValue, match=r"guidance to past frames is 1\.5"):
            exploration.extend("hold", sampling=replace(OWN, guidance=Guidance(history=1.5)))
        clip = exploration.extend("hold")
        assert replace(clip.sampling, shift=None) == OWN


def test_student_that_goes_on_from_clips_of_others_takes_its_own_steps(pipeline, tmp_path):
    pytest.importorskip("av", reason="videos are written by PyAV")
    teacher = replace(pipeline, distilled=None, params={**pipeline.params}, defaults=SAMPLING)
    asked = Sampling(Guidance(camera=2.0), 2)
    Exploration.start(teacher, tmp_path / "tour", "dolly in 0.2 m", sampling=asked).close()
    with Exploration.load(pipeline, tmp_path / "tour", other_weights=True) as exploration:
        assert replace(exploration.extend("hold").sampling, shift=None) == OWN
    assert fitting_sampling(asked, DEFAULTS, None) == asked
    assert fitting_sampling(replace(OWN, shift=3.0), DEFAULTS, STUDENT) == replace(OWN, shift=3.0)


def test_what_a_student_is_said_to_be_has_to_make_sense():
    for values, message in (
        ({"method": "magic"}, "method is 'magic'; expected one of progressive"),
        ({"valid_steps": ()}, re.escape("valid_steps is (); expected numbers of steps")),
        ({"guidance_folded": {"history": 1.5}}, "expected numbers for text, camera"),
    ):
        with pytest.raises(InvalidValue, match=message):
            replace(STUDENT, **values)
    nothing = Distilled("flow_map", "", {"camera_without_text": None}, (4, 1))
    assert nothing.said == "flow map distillation; folded in: no guidance; steps: 4, 1"


def test_one_call_of_a_student_is_the_conditional_call_of_its_weights(pipeline):
    """The rule changes what is asked for, never the numbers: as the same parameters without the label."""
    clips = ClipBatch(["a ball"], [3], ClipShape(9, 32, 48), [resolve_path("dolly in 1 m", 9)])
    plain = replace(pipeline, distilled=None)
    np.testing.assert_array_equal(
        np.asarray(pipeline.sample(clips, usual_sampling(pipeline.defaults, pipeline.distilled))),
        np.asarray(plain.sample(clips, Sampling(Guidance(), 4))),
    )
