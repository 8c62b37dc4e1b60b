"""Transformers stored as differences: half a step at most, the same bytes again, and no damage unseen."""

from __future__ import annotations

import dataclasses
import json
import shutil
import zlib

import jax
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from nano_weights import SAMPLING, STUDENT, TEXT, random_params, save_nano

from camctrl_jax.checkpoints import weights as pretrained
from camctrl_jax.checkpoints.deltas import (
    DELTA,
    SHARE,
    STEP,
    deflated,
    delta_tensors,
    inflated,
    quantised,
)
from camctrl_jax.checkpoints.pipelines import open_model
from camctrl_jax.checkpoints.weights import WeightsError, expected_mmdit, open_weights, save_weights_folder
from camctrl_jax.files.safetensors import SafetensorsFile, flatten, unflatten, write_safetensors
from camctrl_jax.models.fingerprint import fingerprint_of_parameters
from camctrl_jax.parallel.mesh import MeshConfig, make_mesh

KERNEL = "single_transformer_blocks_0.proj_mlp.kernel"
MATRICES = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 6), st.integers(1, 5)),
    elements=st.floats(-1e4, 1e4, width=32, allow_subnormal=False),
)


@given(MATRICES, st.floats(0, 10), st.floats(0.01, 1))
def test_an_entry_is_off_by_half_a_step_at_most(difference, usual, share):
    integers, step = quantised(difference, usual, share)
    assert integers.dtype == np.int8
    assert step.shape == difference.shape[-1:]
    assert np.abs(integers.astype(int)).max() <= 127
    off = np.abs(integers * step.astype(np.float64) - difference)
    # float32 rounds quotients of up to 127, and steps.
    assert (off <= step * (0.5 + 1e-4) + np.finfo(np.float32).tiny).all()


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 5), min_size=1, max_size=4))
def test_packed_integers_come_back(seed, shape):
    integers = np.random.default_rng(seed).integers(-127, 128, shape).astype(np.int8)
    packed = deflated(integers)
    np.testing.assert_array_equal(inflated(packed, tuple(shape)), integers)
    np.testing.assert_array_equal(packed, deflated(integers))


def test_equal_networks_differ_by_nothing_and_only_columns_that_moved_have_steps():
    base = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    integers, step = quantised(base - base, 1.0)
    assert not integers.any()
    assert not step.any()
    moved = np.zeros_like(base)
    moved[2, 1] = 0.3
    integers, step = quantised(moved, 1.0)
    assert np.flatnonzero(step).tolist() == [1]
    assert np.argwhere(integers).tolist() == [[2, 1]]


def test_a_larger_share_takes_fewer_bytes():
    base = random_params({"m": jax.ShapeDtypeStruct((256, 64), np.float32)}, 0)
    other = {"m": base["m"] + random_params({"m": jax.ShapeDtypeStruct((256, 64), np.float32)}, 1)["m"] / 10}
    fine, usual = (delta_tensors(other, base, share)["m" + DELTA].size for share in (SHARE / 8, SHARE))
    assert usual < 0.65 * other["m"].size < 0.9 * fine


@pytest.mark.parametrize(
    ("packed", "message"),
    [
        (np.frombuffer(b"no stream at all", np.uint8), "cannot be inflated"),
        (np.frombuffer(zlib.compress(bytes(11)), np.uint8), "does not hold the 12 integers"),
        (np.frombuffer(zlib.compress(bytes(10_000_000)), np.uint8), "does not hold the 12 integers"),
        (np.frombuffer(zlib.compress(bytes(12))[:-2], np.uint8), "does not hold the 12 integers"),
        (np.frombuffer(zlib.compress(bytes(12)) + b"more", np.uint8), "does not hold the 12 integers"),
    ],
)
def test_damaged_streams_are_refused(packed, message):
    with pytest.raises(WeightsError, match=message):
        inflated(packed, (3, 4))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return save_nano(tmp_path_factory.mktemp("base") / "teacher")


@pytest.fixture(scope="module")
def whole(teacher):
    """Configuration and parameters of a flow map near the teacher: with a part that it lacks."""
    base = open_weights(teacher)
    config = dataclasses.replace(base.mmdit_config, target_time=True)
    others, drawn = flatten(base.mmdit_params()), flatten(random_params(expected_mmdit(config), 7))
    moved = {name: array if name not in others else others[name] + array / 8 for name, array in drawn.items()}
    return config, unflatten(moved)


def save(directory, teacher, whole, **changes):
    fingerprint = fingerprint_of_parameters(open_weights(teacher).mmdit_params())
    method = "flow_map" if whole[0].target_time else "progressive"
    told = dataclasses.replace(STUDENT, method=method, teacher_sha256=fingerprint, valid_steps=(4, 1))
    arguments = {"delta_of": open_weights(teacher), "text": TEXT, "sampling": SAMPLING, "card": "# Card\n"}
    return save_weights_folder(directory, mmdit=whole, distilled=told, **arguments | changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, teacher, whole):
    return save(teacher.parent / "student", teacher, whole)


def test_what_is_stored_is_read_up_to_half_a_step_and_what_bfloat16_rounds(folder, whole, teacher):
    found, wanted = flatten(open_weights(folder).mmdit_params()), flatten(whole[1])
    file = SafetensorsFile(folder / "mmdit.safetensors")
    others = flatten(open_weights(teacher).mmdit_params())
    assert found.keys() == wanted.keys()
    assert any("target_time_embed" in name for name in found)
    for name, array in wanted.items():
        assert found[name].dtype == np.float32
        if array.ndim < 2:
            np.testing.assert_array_equal(found[name], array, err_msg=name)
        elif name not in others:
            np.testing.assert_array_equal(found[name], array.astype(ml_dtypes.bfloat16), err_msg=name)
        else:
            stored = array.astype(ml_dtypes.bfloat16).astype(np.float32)
            bound = 0.5001 * file[name + STEP] + np.abs(found[name]) / 256
            assert (np.abs(found[name] - stored) <= bound).all(), name
            assert (found[name] != others[name]).any(), name


def test_in_every_dtype_they_are_the_same_weights(folder):
    weights = open_weights(folder)
    stored, single = weights.mmdit_params(dtype=None), weights.mmdit_params()
    assert fingerprint_of_parameters(stored) == fingerprint_of_parameters(single)
    for name, array in flatten(stored).items():
        assert array.dtype == (ml_dtypes.bfloat16 if array.ndim >= 2 else np.float32)
        np.testing.assert_array_equal(array.astype(np.float32), flatten(single)[name])


def test_equal_weights_come_back_exactly(teacher, tmp_path):
    base = open_weights(teacher)
    same = base.mmdit_config, base.mmdit_params()
    folder = save(tmp_path / "same", teacher, same)
    for name, array in flatten(open_weights(folder).mmdit_params()).items():
        np.testing.assert_array_equal(array, flatten(same[1])[name], err_msg=name)
    size = (folder / "mmdit.safetensors").stat().st_size
    assert size < (teacher / "mmdit.safetensors").stat().st_size / 2.5


def test_the_same_weights_give_the_same_bytes(folder, teacher, whole, tmp_path):
    again = save(teacher.parent / "again", teacher, whole)
    for name in ("mmdit.safetensors", "model.json"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()


def test_the_autoencoder_is_the_teachers_and_is_not_stored(folder, teacher):
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "mmdit.safetensors", "model.json"]
    model, autoencoder = open_model(str(folder))
    assert autoencoder.path == teacher
    assert autoencoder.vae_config == open_weights(teacher).vae_config
    assert (model.sampling.steps, model.sampling.camera_guidance) == (4, 1.0)


def test_a_mesh_reads_what_one_device_reads(folder):
    weights, mesh = open_weights(folder), make_mesh(MeshConfig(data=1, fsdp=-1))
    placed, alone = flatten(weights.mmdit_params(mesh=mesh)), flatten(weights.mmdit_params())
    assert placed.keys() == alone.keys()
    for name, leaf in placed.items():
        assert isinstance(leaf, jax.Array)
        np.testing.assert_array_equal(np.asarray(leaf), alone[name], err_msg=name)


def test_both_folders_can_move_together_and_one_alone_is_explained(folder, teacher, tmp_path):
    for each in (folder, teacher):
        shutil.copytree(each, tmp_path / each.name)
    moved = tmp_path / folder.name
    assert open_model(str(moved))[1].path == tmp_path / teacher.name
    open_weights(moved).mmdit_params()
    (tmp_path / teacher.name).rename(tmp_path / "elsewhere")
    with pytest.raises(
        WeightsError, match=rf"{moved} holds differences from .*{teacher.name}, where nothing"
    ):
        open_weights(moved)


def test_other_weights_in_the_teachers_place_are_refused_by_fingerprint(folder, teacher, tmp_path):
    shutil.copytree(folder, tmp_path / folder.name)
    base = open_weights(teacher)
    other = base.mmdit_config, random_params(expected_mmdit(base.mmdit_config), 99)
    vae = base.vae_config, base.vae_params()
    save_weights_folder(tmp_path / "teacher", vae=vae, mmdit=other, text=TEXT, sampling=SAMPLING, card="#")
    prints = [fingerprint_of_parameters(params) for params in (base.mmdit_params(), other[1])]
    with pytest.raises(WeightsError, match=rf"transformer {prints[0]}, .* is {prints[1]}: other weights"):
        open_weights(tmp_path / folder.name).mmdit_params()


def test_differences_are_taken_from_whole_weights_in_a_folder(folder, teacher, whole, tmp_path):
    for spec in (folder, save_nano(tmp_path / "vae", mmdit=False)):
        with pytest.raises(WeightsError, match=r"whole, which this is not\. Make one: .*export weights"):
            save(tmp_path / "new", teacher, whole, delta_of=open_weights(spec))
    assert not (tmp_path / "new").exists()
    content = json.loads((folder / "model.json").read_text())
    for name in ("itself", "other"):  # a folder of differences from itself, or from such a one
        shutil.copytree(folder, tmp_path / name)
        content["delta"]["of"] = "../itself"
        (tmp_path / name / "model.json").write_text(json.dumps(content))
        with pytest.raises(WeightsError, match=r"itself: differences are taken from a weights folder"):
            open_weights(tmp_path / name).mmdit_params()


def test_earlier_packages_are_told_to_update_and_read_whole_weights_as_before(folder, teacher):
    versions = [json.loads((each / "model.json").read_text())["format_version"] for each in (folder, teacher)]
    assert versions == [2, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda stored: stored.pop(KERNEL + STEP), rf"{KERNEL}{STEP}, the other half .* is missing"),
        (lambda stored: stored.pop(KERNEL + DELTA), rf"{KERNEL}{DELTA}, the other half .* is missing"),
        (lambda stored: stored.update({KERNEL: np.zeros((2, 2))}), "both whole and as a difference"),
        (
            lambda stored: stored.update({KERNEL + STEP: stored[KERNEL + STEP][:-1]}),
            rf"{KERNEL}{STEP} is float32 \[\d+\]; expected float32 \[\d+\]",
        ),
        (
            lambda stored: stored.update({KERNEL + STEP: stored[KERNEL + STEP].astype(np.float16)}),
            rf"{KERNEL}{STEP} is float16",
        ),
        (
            lambda stored: stored.update({KERNEL + STEP: stored[KERNEL + STEP] * np.float32("nan")}),
            rf"{KERNEL}{STEP} holds NaN or infinity",
        ),
        (
            lambda stored: stored.update({KERNEL + DELTA: stored[KERNEL + DELTA].astype(np.int32)}),
            rf"{KERNEL}{DELTA} is int32; expected uint8",
        ),
        (
            lambda stored: stored.update({KERNEL + DELTA: stored[KERNEL + DELTA][:-9]}),
            rf"{KERNEL}{DELTA} does not hold the \d+ integers",
        ),
        (
            lambda stored: stored.update({"new.kernel" + DELTA: stored[KERNEL + DELTA]}),
            rf"new\.kernel{STEP}, the other half",
        ),
        (
            lambda stored: stored.update({"new.kernel" + end: stored[KERNEL + end] for end in (DELTA, STEP)}),
            r"new\.kernel is a difference from what the other lacks",
        ),
        (lambda stored: stored.update({"new.bias": np.zeros(3, np.float32)}), r"1 unexpected: new\.bias"),
        (lambda stored: stored.pop("proj_out.bias"), r"1 missing: proj_out\.bias"),
    ],
)
def test_damaged_files_are_refused_by_name(folder, teacher, tmp_path, change, message):
    for each in (folder, teacher):
        shutil.copytree(each, tmp_path / each.name)
    path = tmp_path / folder.name / "mmdit.safetensors"
    stored = {name: np.array(array) for name, array in SafetensorsFile(path).items()}
    change(stored)
    write_safetensors(path, stored)
    with pytest.raises(WeightsError, match=message) as caught:
        open_weights(tmp_path / folder.name).mmdit_params()
    assert str(tmp_path / folder.name) in str(caught.value)


@pytest.mark.parametrize("delta", ["default", {"of": "default"}, {"of": 3, "fingerprint": "0"}])
def test_a_damaged_description_is_refused(folder, tmp_path, delta):
    content = json.loads((folder / "model.json").read_text()) | {"delta": delta}
    (tmp_path / "model.json").write_text(json.dumps(content))
    with pytest.raises(WeightsError, match=r"model\.json: "):
        open_weights(tmp_path)


def test_absent_student_is_explained(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "default_folder", lambda: tmp_path / "worlds")
    with pytest.raises(WeightsError, match=r"embedded student weights are absent .*install the released"):
        open_weights("student")
