"""Checkpoints: what is saved comes back, what does not fit is refused, and a failed save loses nothing."""

import dataclasses
import json
import resource
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from camctrl_jax.checkpoints.architecture import Architecture
from camctrl_jax.checkpoints.runs import (
    CHECKPOINTS,
    CheckpointError,
    Checkpoints,
    checkpoint_steps,
    latest_step,
    load_params,
    load_run_config,
    read_errors,
)
from camctrl_jax.checkpoints.weights import WeightsError, open_weights
from camctrl_jax.errors import InvalidValue
from camctrl_jax.training.state import Trained, create_state


def make_state(width=4, seed=0):
    key = jax.random.key(seed)
    params = {"block": {"kernel": jax.random.normal(key, (3, width)), "bias": jnp.zeros(width)}}
    state = create_state(params, optax.adamw(1e-3))
    return jax.tree.map(lambda leaf: leaf + 1 if leaf.dtype == jnp.float32 else leaf, state)


def target(state):
    """(shapes, shardings) of a state, as restore takes them."""
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = jax.eval_shape(lambda: state)
    return shapes, jax.tree.map(lambda _: sharding, shapes)


@pytest.fixture
def checkpoints(tmp_path):
    opened = Checkpoints(tmp_path, keep=2)
    yield opened
    opened.close()


def test_state_position_and_config_come_back_exactly(checkpoints, tmp_path):
    state = make_state()
    checkpoints.save(5, state, {"step": 5}, {"steps": 10, "shares": [4, 1]})
    checkpoints.wait()
    restored, position = checkpoints.restore(*target(state))
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, restored, state)
    assert position == {"step": 5}
    assert load_run_config(tmp_path) == {"steps": 10, "shares": [4, 1]}


def test_only_the_newest_are_kept(checkpoints, tmp_path):
    for step in (1, 2, 3):
        checkpoints.save(step, make_state(), {}, {})
    checkpoints.wait()
    assert checkpoint_steps(tmp_path) == [2, 3]
    assert latest_step(tmp_path) == 3


def test_parameters_are_read_without_the_rest(checkpoints, tmp_path):
    state = make_state()
    state = type(state)(
        state.step, state.params, jax.tree.map(lambda leaf: leaf * 2, state.params), state.opt_state
    )
    checkpoints.save(1, state, {}, {})
    checkpoints.wait()
    average = load_params(tmp_path)
    assert isinstance(average["block"]["kernel"], np.ndarray)
    np.testing.assert_array_equal(average["block"]["kernel"], state.ema["block"]["kernel"])
    np.testing.assert_array_equal(
        load_params(tmp_path, ema=False)["block"]["bias"], state.params["block"]["bias"]
    )


def test_a_missing_checkpoint_is_named(checkpoints, tmp_path):
    checkpoints.save(1, make_state(), {}, {})
    checkpoints.wait()
    with pytest.raises(CheckpointError, match=r"no complete checkpoint of step 7; it has steps \[1\]"):
        load_params(tmp_path, step=7)
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        load_params(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="no run directory"):
        load_run_config(tmp_path / "elsewhere")


def test_a_checkpoint_of_other_sizes_names_the_first_parameter_and_both_shapes(checkpoints):
    checkpoints.save(1, make_state(width=4), {}, {})
    checkpoints.wait()
    with pytest.raises(CheckpointError) as error:
        checkpoints.restore(*target(make_state(width=6)))
    assert "params.block.bias has shape (4,) there and (6,) here" in str(error.value)
    assert "--config.model.preset" in str(error.value)


def test_a_checkpoint_without_a_parameter_says_so(checkpoints):
    checkpoints.save(1, make_state(), {}, {})
    checkpoints.wait()
    state = make_state()
    wanted = create_state({**state.params, "camera": {"kernel": jnp.zeros((2, 2))}}, optax.adamw(1e-3))
    with pytest.raises(CheckpointError, match=r"params.camera.kernel has shape none \(absent\) there"):
        checkpoints.restore(*target(wanted))


def test_a_damaged_checkpoint_is_one_sentence_with_a_remedy(checkpoints, tmp_path):
    for step in (1, 2):
        checkpoints.save(step, make_state(seed=step), {}, {})
    checkpoints.wait()
    newest = tmp_path / "checkpoints" / "2"
    for file in newest.rglob("*"):
        if file.is_file() and file.parent.name == "d":  # where OCDBT keeps the arrays
            file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(CheckpointError, match=r"checkpoints/2 cannot be read .* Delete that folder"):
        checkpoints.restore(*target(make_state()))
    shutil.rmtree(newest)
    again = Checkpoints(tmp_path)
    restored, _ = again.restore(*target(make_state()))
    again.close()
    jax.tree.map(np.testing.assert_array_equal, restored, make_state(seed=1))


def test_a_full_disk_is_one_clear_error_and_the_last_checkpoint_stays(checkpoints, tmp_path, caplog):
    state = make_state()
    checkpoints.save(1, state, {"step": 1}, {})
    checkpoints.wait()
    large = create_state({"w": jax.random.normal(jax.random.key(0), (500, 500))}, optax.sgd(1e-3))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (100_000, limits[1])
    )  # a write beyond it fails as on a full disk
    try:
        with pytest.raises(CheckpointError, match=r"the disk is full.*start the same command again"):  # noqa: PT012
            checkpoints.save(2, large, {"step": 2}, {})
            checkpoints.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert checkpoint_steps(tmp_path) == [1]
    assert [path.name for path in (tmp_path / CHECKPOINTS).iterdir()] == ["1"]  # the partial one is gone
    assert "Traceback" not in caplog.text
    restored, position = checkpoints.restore(*target(state))
    jax.tree.map(np.testing.assert_array_equal, restored, state)
    assert position == {"step": 1}
    checkpoints.save(3, state, {"step": 3}, {})  # and once there is room, saving works again
    checkpoints.wait()
    assert checkpoint_steps(tmp_path) == [1, 3]


def test_a_partial_checkpoint_is_not_seen_and_is_cleared_away(tmp_path):
    partial = tmp_path / CHECKPOINTS / "9.orbax-checkpoint-tmp"
    (partial / "state").mkdir(parents=True)
    assert latest_step(tmp_path) is None
    opened = Checkpoints(tmp_path)
    opened.save(1, make_state(), {}, {})
    opened.close()
    assert checkpoint_steps(tmp_path) == [1]
    assert not partial.exists()


def test_another_number_of_processes_reads_the_position_of_the_first(checkpoints, monkeypatch):
    state = make_state()
    both = [{"step": 1, "process": [rank, 2]} for rank in (0, 1)]
    monkeypatch.setattr("camctrl_jax.checkpoints.runs._gather_json", lambda content: both)
    checkpoints.save(1, state, {}, {})
    checkpoints.wait()
    restored, position = checkpoints.restore(*target(state))
    assert position == both[0]
    jax.tree.map(np.testing.assert_array_equal, restored, state)


@pytest.mark.parametrize("adversary", [False, True])
def test_checkpoints_of_the_first_version_go_on(checkpoints, adversary):
    """They had the field ``adversary``, None or a network, where states now have ``others``."""
    state = make_state()
    others = {"adversary": Trained({"w": jnp.ones(3)}, optax.adam(1e-3).init({"w": jnp.ones(3)}))}
    state = dataclasses.replace(state, others=others if adversary else {})
    earlier = {name: getattr(state, name) for name in ("step", "params", "ema", "opt_state")}
    checkpoints.save(5, earlier | {"adversary": others["adversary"] if adversary else None}, {"at": 5}, {})
    checkpoints.wait()
    restored, _ = checkpoints.restore(*target(state))
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, restored, state)


def test_checkpoints_of_the_second_version_go_on(checkpoints):
    """They had every field of a state but ``kept``."""
    state = make_state()
    fields = {entry.name: getattr(state, entry.name) for entry in dataclasses.fields(state)}
    fields.pop("kept")
    checkpoints.save(5, fields, {"at": 5}, {})
    checkpoints.wait()
    restored, _ = checkpoints.restore(*target(state))
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, restored, state)
    # What a run would keep now and the checkpoint does not have is named.
    keeping = dataclasses.replace(state, kept={"errors": {"12x20": jnp.ones(3)}})
    with pytest.raises(CheckpointError, match=r"5 keeps nothing beside .* would keep kept\.errors\.12x20"):
        checkpoints.restore(*target(keeping))


def test_a_run_keeps_from_its_start_on_what_it_keeps_or_nothing(checkpoints):
    plain = make_state()
    keeping, other = (
        dataclasses.replace(plain, kept={"errors": {name: jnp.ones(3)}}) for name in ("12x20", "24x40")
    )
    for step, state in enumerate((plain, keeping)):
        checkpoints.save(step, state, {}, {})
    checkpoints.wait()
    for step, state, message in (
        (0, keeping, r"keeps nothing .* would keep kept\.errors\.12x20 .*: a run has an error bank"),
        (1, plain, r"keeps kept\.errors\.12x20 .* would keep nothing: a run has an error bank"),
        (1, other, r"keeps kept\.errors\.12x20 .* would keep kept\.errors\.24x40"),
    ):
        with pytest.raises(CheckpointError, match=message):
            checkpoints.restore(*target(state), step)


def test_what_a_state_keeps_comes_back_to_the_bit(checkpoints):
    kept = {"errors": {"12x20": {"stored": jnp.arange(3), "errors": jnp.float16([1.25, 0.1])}}}
    state = dataclasses.replace(make_state(), kept=kept)
    checkpoints.save(5, state, {}, {})
    checkpoints.wait()
    restored, _ = checkpoints.restore(*target(state))
    jax.tree.map(np.testing.assert_array_equal, restored, state)
    assert restored.kept["errors"]["12x20"]["errors"].dtype == jnp.float16


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("cannot allocate 8 GiB"),
        PermissionError(13, "Permission denied", "checkpoints/1/state"),
        OSError(5, "Input/output error"),
        OSError(116, "Stale file handle"),
        jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8589934592 bytes"),
        RuntimeError("UNAVAILABLE: connection to storage timed out"),
    ],
)
def test_what_proves_no_damage_does_not_ask_to_delete_anything(error, tmp_path):
    (tmp_path / "7" / "state").mkdir(parents=True)
    with pytest.raises(CheckpointError) as told, read_errors(tmp_path / "7"):
        raise error
    message = str(told.value)
    assert f"{tmp_path}/7 cannot be read" in message
    assert "Delete" not in message
    assert "keep it" in message


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(2, "No such file or directory", "checkpoints/7/state/d/0"),
        ValueError("DATA_LOSS: Error decoding local file: CRC32C checksum mismatch"),
        json.JSONDecodeError("Expecting value", "", 0),
    ],
)
def test_proven_damage_names_the_folder_to_delete(error, tmp_path):
    for item in ("state", "data", "config"):
        (tmp_path / "7" / item).mkdir(parents=True)
    told = pytest.raises(CheckpointError, match=r"7 cannot be read .* Delete that folder")
    with told, read_errors(tmp_path / "7"):
        raise error
    shutil.rmtree(tmp_path / "7")  # a disk that is gone has no file of it
    with pytest.raises(CheckpointError, match=r"7 cannot be read .* keep it"), read_errors(tmp_path / "7"):
        raise error


@pytest.mark.parametrize("item", ["state", "data", "config"])
def test_a_checkpoint_without_one_of_its_parts_is_damaged_and_says_which(tmp_path, item):
    state = make_state()
    opened = Checkpoints(tmp_path)
    opened.save(1, state, {"step": 1}, {"a": 1})
    opened.wait()
    shutil.rmtree(tmp_path / CHECKPOINTS / "1" / item)
    reading = {
        "state": lambda: load_params(tmp_path),
        "data": lambda: opened.restore(*target(state)),
        "config": lambda: load_run_config(tmp_path),
    }
    with pytest.raises(CheckpointError, match=rf"it is damaged, {item}/ is missing from it") as told:
        reading[item]()
    assert "keep it" not in str(told.value)
    opened.close()


def test_a_damaged_run_is_not_called_something_else(tmp_path):
    opened = Checkpoints(tmp_path)
    opened.save(1, make_state(), {}, {"architecture": None})
    opened.close()
    shutil.rmtree(tmp_path / CHECKPOINTS / "1" / "config")
    with pytest.raises(WeightsError, match=r"config/ is missing") as told:
        open_weights(tmp_path)
    assert "neither" not in str(told.value)


WHOLE = Architecture(text={"kind": "words"}, vae_spec="default").to_json()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda entry: entry.pop("vae"), "'vae' is missing"),
        (lambda entry: entry.pop("text"), "'text' is missing"),
        (lambda entry: entry.pop("vae_spec"), "'vae_spec' is missing"),
        (lambda entry: entry.update(mmdit=[1]), r"mmdit is \[1\]; expected an object, or null"),
        (lambda entry: entry.update(clip="9"), "clip is '9'; expected an object"),
        (lambda entry: entry.update(vae={"base_dim": "8"}), "base_dim is '8'; expected an integer"),
        (lambda entry: entry.update(mmdit={"width": 48}), "MMDiTConfig needs the fields head_dim"),
    ],
)
def test_a_damaged_description_of_the_model_is_named(tmp_path, damage, message):
    entry = dict(WHOLE)
    damage(entry)
    with pytest.raises(InvalidValue, match=message):
        Architecture.from_json(entry)
    opened = Checkpoints(tmp_path)
    opened.save(1, make_state(), {}, {"architecture": entry})
    opened.close()
    with pytest.raises(WeightsError, match=message) as told:
        open_weights(tmp_path)
    assert str(tmp_path) in str(told.value)


def test_clips_without_a_field_or_of_another_kind_are_named():
    clip = {"frames": 9, "height": 32, "width": 48}
    built = Architecture(clip=clip).sampling({"text_guidance": 2.0, "camera_guidance": None})
    assert (built.text_guidance, built.camera_guidance) == (2.0, 2.0)
    for change, message in (
        ({"frames": 9.0}, "frames is 9.0; expected an integer"),
        ({"height": 0}, "height is 0; expected more than 0"),
        ({"shift": "abc"}, "shift is 'abc'; expected a finite number or null"),
        ({"fps": True}, "fps is true; expected a finite number"),
        ({"retrieved": -1}, "retrieved is -1; expected an integer of 0 or more"),
        ({"reference": "world"}, "reference is 'world'; expected 'take' or 'clip'"),
    ):
        with pytest.raises(InvalidValue, match=message):
            Architecture(clip=clip | change).sampling({})
    with pytest.raises(InvalidValue, match="needs the fields width"):
        Architecture(clip={"frames": 9, "height": 32}).sampling({})


def test_a_fault_of_the_program_keeps_its_traceback(tmp_path):
    with pytest.raises(TypeError), read_errors(tmp_path):
        raise TypeError("a fault of the program")


@pytest.mark.parametrize(
    ("file", "how"),
    [
        ("state/_METADATA", "deleted"),
        ("state/_METADATA", "cut"),
        ("state/_sharding", "cut"),  # without it Orbax does, for a target says where arrays go
        ("state/manifest.ocdbt", "deleted"),
        ("state/manifest.ocdbt", "cut"),
        ("data/metadata", "deleted"),
        ("data/metadata", "cut"),
    ],
)
def test_every_damaged_file_is_told_from_one_that_cannot_be_read(checkpoints, tmp_path, file, how):
    checkpoints.save(1, make_state(), {"step": 1}, {"seed": 0})
    checkpoints.close()
    path = tmp_path / CHECKPOINTS / "1" / file
    assert path.exists()
    if how == "deleted":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:3])
    opened = Checkpoints(tmp_path)
    with pytest.raises(CheckpointError, match=r"damaged\. Delete that folder"):
        opened.restore(*target(make_state()))
    opened.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:1000]), r"damaged\. Delete that folder"),
        (lambda path: path.unlink(), r"damaged\. Delete that folder"),
    ],
)
def test_a_damaged_file_of_arrays_is_one_sentence(checkpoints, tmp_path, change, message):
    # Small arrays lie in the index itself; this one has a file.
    state = create_state({"w": jax.random.normal(jax.random.key(0), (500, 500))}, optax.sgd(1e-3))
    checkpoints.save(1, state, {"step": 1}, {})
    checkpoints.close()
    files = [path for path in (tmp_path / CHECKPOINTS / "1" / "state").rglob("d/*") if path.is_file()]
    change(max(files, key=lambda path: path.stat().st_size))
    opened = Checkpoints(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        opened.restore(*target(state))
    opened.close()


def test_what_orbax_wraps_is_judged_by_its_cause(tmp_path):
    (tmp_path / "7" / "state").mkdir(parents=True)
    with pytest.raises(CheckpointError, match=r"MemoryError: .* keep it"), read_errors(tmp_path / "7"):
        raise Exception("while reading an array") from MemoryError("no room")
    denied = ValueError("PERMISSION_DENIED: Error reading corrupt_clips/state/d/0")
    with pytest.raises(CheckpointError, match="keep it"), read_errors(tmp_path / "7"):
        raise Exception("while reading an array") from denied


def test_config_and_parameters_of_a_damaged_checkpoint_are_refused_in_one_sentence(checkpoints, tmp_path):
    checkpoints.save(1, make_state(), {}, {"seed": 0})
    checkpoints.close()
    (tmp_path / CHECKPOINTS / "1" / "config" / "metadata").write_text("{")
    with pytest.raises(CheckpointError, match=r"damaged\. Delete that folder"):
        load_run_config(tmp_path)
    (tmp_path / CHECKPOINTS / "1" / "state" / "_METADATA").unlink()
    with pytest.raises(CheckpointError, match=r"damaged\. Delete that folder"):
        load_params(tmp_path)
