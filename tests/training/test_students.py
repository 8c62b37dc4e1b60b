"""Teachers that do not fit are refused by name before anything heavy; students are not trained otherwise."""

import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from nano_weights import SAMPLING, TEXT, random_params, save_nano

from camctrl_jax.checkpoints.weights import (
    WeightsError,
    expected_mmdit,
    expected_vae,
    save_weights_folder,
)
from camctrl_jax.interop.described import Distilled
from camctrl_jax.models import mmdit_preset, vae_preset
from camctrl_jax.parallel.mesh import MeshConfig, make_mesh
from camctrl_jax.training.config import check_config, load_recipe
from camctrl_jax.training.program import build_program
from camctrl_jax.training.students import TEACHER
from camctrl_jax.training.values import ConfigError

ROOT = Path(__file__).parents[2]
FOLDED = {"text": 1.0, "camera": 2.0, "camera_without_text": None}


def save(directory, *, distilled=None, text=TEXT, sampling=SAMPLING, broken=False, **changes):
    """A weights folder of the nano models, a student if ``distilled``."""
    vae, config = vae_preset("nano", num_res_blocks=0), mmdit_preset("nano", num_single=1, **changes)
    params = random_params(expected_mmdit(config), 1)
    folder = save_weights_folder(
        directory,
        vae=(vae, random_params(expected_vae(vae), 0)),
        mmdit=(config, params),
        text=text,
        sampling=sampling,
        distilled=distilled,
        card="# nano\n",
    )
    if broken:
        file = next(folder.glob("mmdit*.safetensors"))
        content = bytearray(file.read_bytes())
        content[-4:] = np.float32(np.nan).tobytes()
        file.write_bytes(bytes(content))
    return folder


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return save_nano(tmp_path_factory.mktemp("teacher") / "weights")


def recipe(name, teacher, variant="nano", **changes):
    config = load_recipe(f"{ROOT}/configs/distill_{name}.py:{variant}")
    config.distil.teacher = str(teacher)
    config.vae.weights = str(teacher)
    config.update_from_flattened_dict(changes)
    return config


def program(name, teacher, **changes):
    config = recipe(name, teacher, **changes)
    check_config(config)
    return build_program(config, make_mesh(MeshConfig(), jax.devices()[:1]))


@pytest.mark.parametrize("name", ["progressive", "flow_map"])
def test_a_student_knows_its_teacher_and_what_is_folded_in(teacher, name):
    objective = program(name, teacher).objective
    frozen = objective.frozen()
    expected = objective.teacher.weights.mmdit_params()
    jax.tree.map(np.testing.assert_array_equal, frozen[TEACHER], expected)
    assert objective.begins_as == str(teacher)
    assert objective.distilled.guidance_folded == FOLDED
    jax.tree.map(np.testing.assert_array_equal, objective.starting_params(str(teacher), None), expected)


def test_a_teacher_is_known_by_its_weights_wherever_they_lie(tmp_path, teacher):
    def known(path):
        return program("progressive", path).objective.distilled.teacher_sha256

    copy = shutil.copytree(teacher, tmp_path / "copy")
    assert known(copy) == known(teacher) != ""
    file = next(copy.glob("mmdit*.safetensors"))
    content = bytearray(file.read_bytes())
    content[-3] ^= 1  # one bit of one parameter
    file.write_bytes(bytes(content))
    assert known(copy) != known(teacher)


def test_remedies_are_settings_that_work(tmp_path):
    """Of a student of 16 steps as the teacher, for each kind of student; what is not asked has no rules."""
    student = save(tmp_path / "student", distilled=Distilled("progressive", "0" * 16, FOLDED, (16,)))
    unguided = {"distil.text_guidance": 1.0, "distil.camera_guidance": 1.0}
    for name, variant, remedy in (
        ("progressive", "nano", {"distil.teacher_steps": 16, "distil.steps": 8}),
        ("apt", "consistency_nano", {"distil.teacher_steps": 16}),
    ):
        said = " ".join(f"--config.{key}={value}" for key, value in remedy.items())
        with pytest.raises(ConfigError, match=rf"made for 16 steps, and .*: set {said}$"):
            program(name, student, variant=variant, **unguided)
        assert program(name, student, variant=variant, **unguided, **remedy).objective.branches == 1
    program("apt", student)
    once = save(tmp_path / "once", distilled=Distilled("consistency", "0" * 16, FOLDED, (1,)))
    with pytest.raises(ConfigError, match="made for one step: there is nothing to merge"):
        program("progressive", once, **unguided)


@pytest.mark.parametrize("name", ["progressive", "flow_map"])
def test_a_teacher_that_does_not_fit_is_refused_by_name(tmp_path, name):
    other = save(tmp_path / "other", mlp_ratio=3.0)
    with pytest.raises(ConfigError, match=r"config\.distil\.teacher='.*other' has mlp_ratio=3\.0"):
        program(name, other)
    without = save_nano(tmp_path / "without", camera=False)
    with pytest.raises(ConfigError, match=r"without' has camera=None"):
        program(name, without)
    texts = save(tmp_path / "texts", text=TEXT | {"max_tokens": 16})
    with pytest.raises(ConfigError, match=r"texts' was trained with the text embedder"):
        program(name, texts)
    with pytest.raises(ConfigError, match=r"config\.distil\.teacher='.*nowhere'"):
        program(name, tmp_path / "nowhere", **{"vae.weights": str(other)})
    alone = save_nano(tmp_path / "alone", mmdit=False)
    with pytest.raises(ConfigError, match="holds no transformer"):
        program(name, alone)
    with pytest.raises(ConfigError, match=r"config\.distil\.teacher='': expected the weights of a teacher"):
        check_config(recipe(name, "", **{"vae.weights": "random"}))


def test_a_teacher_of_other_latents_or_times_is_refused(tmp_path, teacher):
    with pytest.raises(ConfigError, match="was trained on latents of the autoencoder"):
        program("progressive", teacher, **{"vae.weights": "random"})
    with pytest.raises(ConfigError, match=r"was trained with config\.flow\.shift=None, this run has 2\.0"):
        program("progressive", teacher, **{"flow.shift": 2.0})


def test_nan_in_a_teacher_is_caught_when_it_is_read(tmp_path):
    objective = program("progressive", save(tmp_path / "nan", broken=True)).objective
    with pytest.raises(WeightsError, match="NaN"):
        objective.frozen()


def test_a_student_as_teacher_is_asked_without_guidance_for_its_own_steps(tmp_path):
    student = save(tmp_path / "student", distilled=Distilled("progressive", "0" * 16, FOLDED, (16,)))
    unguided = {"distil.text_guidance": 1.0, "distil.camera_guidance": 1.0}
    halved = {"distil.teacher_steps": 16, "distil.steps": 8}
    with pytest.raises(ConfigError, match=r"is a student itself .*'camera': 2\.0.* folded in, and would be"):
        program("progressive", student, **halved)
    with pytest.raises(ConfigError, match=r"made for 16 steps, and config\.distil\.teacher_steps=32"):
        program("progressive", student, **unguided)
    objective = program("progressive", student, **halved, **unguided).objective
    assert objective.distilled.guidance_folded == FOLDED
    assert objective.distilled.valid_steps == (8,)
    assert objective.branches == 1
    shutil.rmtree(student)


def test_a_flow_map_teaches_nobody(tmp_path):
    student = save(
        tmp_path / "map", target_time=True, distilled=Distilled("flow_map", "", FOLDED, (4, 1, 2, 8, 16, 32))
    )
    with pytest.raises(ConfigError, match="makes any number of steps already"):
        program("progressive", student)


def test_a_student_is_not_unlearned(tmp_path, teacher):
    student = save(tmp_path / "student", distilled=Distilled("progressive", "0" * 16, FOLDED, (16,)))
    config = load_recipe(f"{ROOT}/configs/stage2.py:nano")
    config.vae.weights = config.init_from = str(student)
    objective = build_program(config, make_mesh(MeshConfig(), jax.devices()[:1])).objective
    with pytest.raises(ConfigError, match=r"is a student \(progressive, 16 steps, .*start from its teacher"):
        objective.starting_params(str(student), None)
    # Nor as another student; as the same it may go on.
    with pytest.raises(ConfigError, match="this run makes another"):
        program("flow_map", teacher).objective.starting_params(str(student), None)
    program("progressive", teacher, **{"vae.weights": str(student)}).objective.check_distilled(
        program("progressive", student, **{
            "distil.text_guidance": 1.0, "distil.camera_guidance": 1.0,
            "distil.teacher_steps": 16, "distil.steps": 8,
        }).objective.teacher.weights
    )  # fmt: skip


def test_errors_of_given_frames_are_refused_with_a_reason(teacher):
    for name in ("noise", "error_bank"):
        with pytest.raises(ConfigError, match=rf"condition\.{name}=0\.5: expected 0: a student learns what"):
            program("progressive", teacher, **{f"condition.{name}": 0.5})


def test_steps_that_do_not_divide_are_refused(teacher):
    for steps in (5, 32, 0):
        with pytest.raises(ConfigError, match=r"config\.distil\.(teacher_)?steps="):
            program("progressive", teacher, **{"distil.steps": steps})
