"""What students begin from and go on from is compared before parameters are read, and refused by name."""

from pathlib import Path

import jax
import numpy as np
import pytest
from nano_weights import SAMPLING, TEXT, random_params, save_nano, save_run

from camctrl_jax.checkpoints.architecture import Architecture
from camctrl_jax.checkpoints.runs import CheckpointError
from camctrl_jax.checkpoints.weights import Weights, expected_mmdit, open_weights, save_weights_folder
from camctrl_jax.interop.described import Distilled
from camctrl_jax.models import leading_to, mmdit_preset
from camctrl_jax.models.fingerprint import fingerprint_of_parameters
from camctrl_jax.parallel.mesh import MeshConfig, make_mesh
from camctrl_jax.training.config import as_json, load_recipe
from camctrl_jax.training.initialisation import take_over
from camctrl_jax.training.objective import build_objective
from camctrl_jax.training.run import train
from camctrl_jax.training.values import ConfigError

ROOT = Path(__file__).parents[2]
FOLDED = {"text": 1.0, "camera": 2.0, "camera_without_text": None}
NANO = mmdit_preset("nano", num_single=1)


class Read(Exception):
    """Parameters of a transformer were read."""


@pytest.fixture
def unread(monkeypatch):
    """Reading parameters of a transformer is an error."""

    def refuse(*_, **__):
        raise Read

    monkeypatch.setattr(Weights, "mmdit_params", refuse)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return save_nano(tmp_path_factory.mktemp("teacher") / "weights")


def recipe(name, teacher, **changes):
    """A nano recipe, file:variant or file alone, that learns from ``teacher``."""
    file, _, variant = name.partition(":")
    config = load_recipe(f"{ROOT}/configs/{file}.py:{variant or 'nano'}")
    if file.startswith("distill"):
        config.distil.teacher = str(teacher)
        config.init_from = ""
    config.vae.weights = str(teacher)
    config.update_from_flattened_dict({"steps": 20, "optimizer.warmup_steps": 1} | changes)
    return config


def student_of(method, steps=(1,), folded=FOLDED, known=""):
    return Distilled(method, known, folded, steps)


def folder(directory, distilled, **changes):
    """A weights folder of a transformer with the sizes of the nano teacher's."""
    config = mmdit_preset("nano", num_single=1, **changes)
    return save_weights_folder(
        directory,
        mmdit=(config, random_params(expected_mmdit(config), 3)),
        text=TEXT,
        sampling=SAMPLING,
        distilled=distilled,
        card="# nano\n",
    )


def flow_map(directory, known=""):
    return folder(directory, student_of("flow_map", (4, 1, 2, 8, 16, 32), known=known), target_time=True)


@pytest.fixture(scope="module")
def run_of(tmp_path_factory, teacher):
    """A function that makes a run directory, its one checkpoint written by ``config``, a student if
    ``distilled``.
    """

    def make(config, distilled, model=NANO):
        built = Architecture(mmdit=model, text=TEXT, vae_spec=str(teacher), distilled=distilled)
        saved = as_json(config)
        return save_run(tmp_path_factory.mktemp("run") / "run", {"x": np.zeros(1)}, built.to_json(), **saved)

    return make


@pytest.fixture(scope="module")
def known(teacher):
    """The fingerprint of the teacher."""
    return fingerprint_of_parameters(open_weights(str(teacher)).mmdit_params())


# Going on.


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        (
            "distill_progressive",
            {"distil.camera_guidance": 5.0},
            r"guidance_folded=\{.*'camera': 2\.0.*\}, this run has guidance_folded=\{.*'camera': 5\.0",
        ),
        (
            "distill_progressive",
            {"distil.steps": 8},
            r"valid_steps=\(16,\), this run has valid_steps=\(8,\) \(config\.distil\.steps",
        ),
        ("distill_apt:consistency_nano", {}, "method=progressive, this run has method=consistency"),
        ("distill_apt", {}, "method=progressive, this run has method=adversarial"),
        ("distill_progressive", {"distil.teacher": "random"}, r"fingerprint \w{4,}\), and .*'random' is ano"),
        (
            "stage2",
            {},
            r"is a student \(progressive .*this run would unlearn it: go on with the old config\.o",
        ),
        ("vae", {}, r"is a student \(progressive .*this run would unlearn it"),
    ],
)
def test_a_student_is_not_continued_as_another(unread, run_of, teacher, known, name, changes, said):
    before = recipe("distill_progressive", teacher)
    workdir = run_of(before, student_of("progressive", (16,), known=known))
    config = load_recipe(f"{ROOT}/configs/vae.py:nano") if name == "vae" else recipe(name, teacher, **changes)
    with pytest.raises(ConfigError, match=said) as refused:
        train(config, workdir)
    assert f"the checkpoint in {workdir}" in str(refused.value)
    assert "another --workdir" in str(refused.value)
    assert "config.init_from" in str(refused.value)


def test_another_teacher_is_noticed_whatever_its_path_is(run_of, tmp_path, teacher, known, monkeypatch):
    before = recipe("distill_progressive", teacher)
    workdir = run_of(before, student_of("progressive", (16,), known=known))
    other = folder(tmp_path / "other", None)
    with pytest.raises(ConfigError, match=rf"{teacher}' as it was then .*other' is another teacher"):
        train(recipe("distill_progressive", teacher, **{"distil.teacher": str(other)}), workdir)
    untaught = run_of(before, student_of("progressive", (16,)))
    with pytest.raises(ConfigError, match=r"fingerprint none\), and"):
        train(before, untaught)
    # The same one is not: what is refused then is this checkpoint, which holds no state of such a run.
    with pytest.raises(CheckpointError):
        train(before, workdir)


def test_the_guidance_of_a_teacher_that_is_not_asked_may_change(run_of, teacher, known):
    config = recipe("distill_apt", teacher, **{"distil.camera_guidance": 4.0})
    workdir = run_of(config, student_of("adversarial", known=known))
    with pytest.raises(CheckpointError):  # only for what the checkpoint holds: see above
        train(config, workdir)


@pytest.mark.parametrize("name", ["distill_progressive", "distill_apt:consistency_nano", "distill_apt"])
def test_a_model_that_is_no_student_is_not_continued_as_one(unread, run_of, teacher, name):
    workdir = run_of(recipe("stage2", teacher), None)
    with pytest.raises(ConfigError, match=r"is no student, this run makes one .*another --workdir"):
        train(recipe(name, teacher), workdir)


# Beginning.


@pytest.mark.parametrize("name", ["distill_progressive", "distill_apt:consistency_nano"])
def test_a_flow_map_begins_no_other_student_of_its_teacher(unread, tmp_path, teacher, name):
    """Without its layer for where steps lead it is another network."""
    start = flow_map(tmp_path / "map")
    with pytest.raises(ConfigError, match=r"map' is a student \(flow_map"):
        train(recipe(name, teacher, init_from=str(start)), tmp_path / "run")


def test_a_generator_begins_from_a_flow_map_as_it_answers_for_the_whole_step(tmp_path, teacher):
    start = flow_map(tmp_path / "map")
    config = recipe("distill_apt", teacher, init_from=str(start))
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    objective = build_objective(config, mesh)
    objective.check_start(str(start))
    given = objective.starting_params(str(start), mesh)
    taken, new = take_over(expected_mmdit(NANO), given, "a flow map")
    assert not new
    expected = leading_to(open_weights(str(start)).mmdit_params(), 0.0)
    jax.tree.map(np.testing.assert_array_equal, taken, expected)
    before = open_weights(str(start)).mmdit_params()["time_text_embed"]["timestep_embedder"]["linear_2"]
    assert np.any(taken["time_text_embed"]["timestep_embedder"]["linear_2"]["bias"] != before["bias"])


def test_a_layer_for_where_steps_lead_is_never_left_out():
    wanted = expected_mmdit(NANO)
    loaded = random_params(expected_mmdit(mmdit_preset("nano", num_single=1, target_time=True)), 0)
    with pytest.raises(CheckpointError, match="target_time_embed"):
        take_over(wanted, loaded, "a flow map")


@pytest.mark.parametrize(
    ("distilled", "changes", "said"),
    [
        (None, {}, "no student: adversarial post-training starts from"),
        (student_of("progressive", (16,)), {}, r"made for \(16,\) steps: adversarial"),
        (student_of("consistency"), {"rope_theta": 5e3}, "rope_theta"),
    ],
)
def test_what_a_generator_begins_from_is_compared_before_its_teacher_is_read(
    unread, tmp_path, teacher, distilled, changes, said
):
    start = folder(tmp_path / "start", distilled, **changes)
    with pytest.raises(ConfigError, match=said):
        train(recipe("distill_apt", teacher, init_from=str(start)), tmp_path / "run")


def test_a_generator_that_begins_from_nothing_is_refused_before_its_teacher_is_read(
    unread, tmp_path, teacher
):
    with pytest.raises(ConfigError, match=r"config\.init_from='': adversarial post-training starts from"):
        train(recipe("distill_apt", teacher), tmp_path / "run")


def test_what_fits_is_read(unread, tmp_path, teacher):
    """So that the tests above could have failed."""
    start = folder(tmp_path / "start", student_of("consistency"))
    with pytest.raises(Read):
        train(recipe("distill_apt", teacher, init_from=str(start)), tmp_path / "run")


# Whose clips count as real.


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, r"config\.adversarial\.real='.*weights' is no student: expected one,.* such as 'student'"),
        ({"adversarial.real": "nowhere"}, r"config\.adversarial\.real='nowhere': "),
        (
            {"adversarial.real_steps": 3},
            r"adversarial\.real_steps=3: .*flow' was made for 4, 1, 2, 8, 16, 32 .*real_steps=4$",
        ),
        (
            {"data.text.dim": 32},
            r"config\.adversarial\.real='.*flow' has text_dim=64, .*32.*anchor=0 lets the data's",
        ),
    ],
)
def test_clips_that_count_as_real_are_of_a_student_that_fits(unread, tmp_path, teacher, changes, said):
    of_flow_map = {"adversarial.real": str(flow_map(tmp_path / "flow"))} if changes else {}
    plain = {"adversarial.real": str(teacher), "init_from": "random", "distil.teacher": "random"}
    config = recipe("distill_apt", teacher, **(plain | of_flow_map | changes))
    with pytest.raises(ConfigError, match=said):
        build_objective(config, make_mesh(MeshConfig(), jax.devices()[:1]))


def test_clips_that_count_as_real_hold_the_guidance_of_the_generator(unread, tmp_path, teacher):
    other = folder(tmp_path / "start", student_of("consistency", folded=FOLDED | {"camera": 5.0}))
    config = recipe("distill_apt", teacher, **{"adversarial.real": str(flow_map(tmp_path / "flow"))})
    objective = build_objective(config, make_mesh(MeshConfig(), jax.devices()[:1]))
    with pytest.raises(
        ConfigError, match=r"adversarial\.real='.*flow' holds the guidance .*2\.0.*'camera': 5\.0"
    ):
        objective.check_distilled(open_weights(str(other)))


def test_clips_that_count_as_real_are_of_a_student_of_the_teacher(tmp_path, teacher, known):
    for stored in (known, "", "f" * 16):
        student = flow_map(tmp_path / f"flow_{stored}", stored)
        config = recipe("distill_apt", teacher, **{"adversarial.real": str(student)})
        objective = build_objective(config, make_mesh(MeshConfig(), jax.devices()[:1]))
        if stored.startswith("ff"):
            with pytest.raises(
                ConfigError,
                match=r"is a student of a transformer ffff.*teacher=.*anchor=0 lets the data's clips",
            ):
                objective.frozen()
        else:
            assert objective.frozen().keys() == {"autoencoder", "synthetic"}


def test_the_recipe_of_worlds_is_held_to_the_student_of_its_teacher():
    """And goes on from what the recipe of consistency makes, which holds the same guidance."""
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    objective = build_objective(load_recipe(f"{ROOT}/configs/distill_apt.py:worlds"), mesh)
    before = build_objective(load_recipe(f"{ROOT}/configs/distill_apt.py:consistency_worlds"), mesh)
    objective.synthetic.check_taught_by(objective.teacher)
    assert dict(objective.synthetic.student.folded) == dict(before.teacher.folded)
    assert objective.settings.anchor > 0
