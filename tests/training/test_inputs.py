"""What a run reads, as far as its settings can be wrong."""

import dataclasses
import re

import numpy as np
import pytest
from stored_text import write_text_file

from camctrl_jax.data.clips import write_clips
from camctrl_jax.data.worlds_records import world_records
from camctrl_jax.data.worlds_set import WorldsSet
from camctrl_jax.errors import InvalidValue
from camctrl_jax.parallel.mesh import MeshConfig, make_mesh
from camctrl_jax.training.config import default_config
from camctrl_jax.training.initialisation import Start
from camctrl_jax.training.inputs import (
    check_folders,
    check_position,
    embedder_of,
    held_out_batches,
    held_out_remarks,
    open_inputs,
    preview_clips,
)
from camctrl_jax.training.run import _continue_data, _say_what_is_drawn
from camctrl_jax.training.values import ConfigError
from camctrl_jax.training.writers import ProgressLine
from camctrl_jax.worlds import WorldsConfig


def config_of(**changes):
    config = default_config()
    config.update_from_flattened_dict(changes)
    return config


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "text.safetensors"
    write_text_file(path, {"": np.ones((1, 8), np.float32)}, max_tokens=4)
    return str(path)


def test_embeddings_that_are_not_there_are_named_with_their_key(tmp_path):
    config = config_of(**{"data.text.source": str(tmp_path / "none.safetensors")})
    with pytest.raises(ConfigError, match=r"config\.data\.text\.source=.*none\.safetensors"):
        embedder_of(config)


def test_embeddings_of_another_width_are_refused_with_the_right_one(text_file):
    with pytest.raises(ConfigError, match=r"set --config\.data\.text\.dim=8"):
        embedder_of(config_of(**{"data.text.source": text_file, "data.text.dim": 16}))
    assert embedder_of(config_of(**{"data.text.source": text_file, "data.text.dim": 8})).dim == 8


def test_worlds_whose_captions_have_no_embedding_are_refused_with_a_remedy(text_file):
    sizes = {"data.height": 16, "data.width": 32, "data.worlds.frames": 1, "data.worlds.samples": 1}
    text = {"data.text.source": text_file, "data.text.dim": 8, "data.frames": 1, "data.worlds.workers": 0}
    with pytest.raises(ConfigError, match=r"holds no embedding of .*--config\.sample_every=0"):
        preview_clips(config_of(**sizes, **text))


NANO = {
    "model.preset": "nano",
    "data.height": 16,
    "data.width": 32,
    "data.frames": 5,
    "data.worlds.frames": 5,
    "data.worlds.samples": 1,
    "data.worlds.workers": 0,
    "data.worlds.seeds": (0, 10),
    "batch_size": 5,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Datasets of 16x32 pixels and five frames: name -> folder."""
    root = tmp_path_factory.mktemp("sets")

    def write(name, count, fps=12.0, share=0.0):
        worlds = WorldsSet(range(count), 16, 32, WorldsConfig(frames=5), 1)
        made = world_records(worlds, unlabelled_share=share, workers=0)
        write_clips(root / name, (dataclasses.replace(record, fps=fps) for record in made))
        return str(root / name)

    return {
        "mixed": write("mixed", 10, share=0.3),
        "labelled": write("labelled", 6),
        "plain": write("plain", 6, share=1.0),
        "fast": write("fast", 6, fps=24.0),
    }


def inputs_of(cameras=True, progress=lambda done, count: None, **changes):
    config = config_of(**{**NANO, **changes})
    return open_inputs(config, make_mesh(MeshConfig()), None, cameras, progress)


def rendered_nothing(done, count):
    raise AssertionError("worlds were rendered")


def datasets(*names, **changes):
    return {"data.kind": "datasets", "data.datasets": names, **changes}


def test_every_dataset_is_reported_with_what_is_drawn(folders):
    inputs = inputs_of(**datasets(folders["mixed"], **{"data.unlabelled": (folders["labelled"],)}))
    assert inputs.reports == (
        f"{folders['mixed']}: 10 clips, 7 labelled; drawn: 10 in clips of 5 frames, 16x32",
        f"{folders['labelled']}: 6 clips, 6 labelled, cameras ignored (named under unlabelled); drawn: 6 in "
        "clips of 5 frames, 16x32",
    )
    assert inputs.remarks == ()
    names = {name for _ in range(30) for name in inputs.stream.describe(next(inputs.stream))}
    assert len(names) == 16


@pytest.mark.parametrize(
    ("names", "changes", "message"),
    [
        (
            ("mixed", "fast"),
            {},
            r"fast \(named under datasets\): none of its 6 clips is drawn: 6 have 24 fps",
        ),
        (("labelled",), {}, r"each of the 6 clips is labelled .*--config\.data\.labelled_to_unlabelled=1,0"),
        (("plain",), {}, r"none of the 6 clips is labelled .*--config\.data\.labelled_to_unlabelled=0,1"),
        (("mixed",), {"data.frames": 9}, r"10 have 5 frames, expected 9 or more .*--config\.data\.frames=5"),
        (("mixed",), {"data.height": 32}, "10 have 16x32 pixels and would be enlarged to fill 32x32"),
    ],
)
def test_datasets_of_which_nothing_is_drawn_are_refused(folders, names, changes, message):
    with pytest.raises(ConfigError, match=message):
        inputs_of(**{**datasets(*(folders[name] for name in names)), **changes})


def test_a_model_without_a_camera_takes_all_clips_alike(folders):
    for name in ("labelled", "plain"):
        inputs = inputs_of(cameras=False, **datasets(folders[name]))
        assert next(inputs.stream)["video"].shape == (5, 5, 16, 32, 3)


def test_the_probe_draws_from_what_there_is(folders):
    """A run on images alone has no longer clips to measure on: too late to say at its first checkpoint."""
    images = {"data.video_turns": 0, "data.image_turns": 1, "data.frames": 9}
    inputs = inputs_of(cameras=False, **datasets(folders["labelled"], **images))
    assert [np.asarray(videos).shape for videos in inputs.probe(3)] == [(3, 1, 16, 32, 3)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"data.labelled_to_unlabelled": (0, 1), "data.worlds.unlabelled_share": 0.0},
            "is unlabelled: take a larger",
        ),
        ({"data.worlds.unlabelled_share": 0.01}, "none of the 10 clips is unlabelled: take a larger"),
        ({"data.worlds.unlabelled_share": 0.99}, "none of the 10 clips is labelled: take a smaller"),
    ],
)
def test_worlds_of_one_kind_alone_are_refused_before_they_are_rendered(changes, message):
    with pytest.raises(ConfigError, match=message):
        inputs_of(progress=rendered_nothing, **changes)


@pytest.mark.parametrize(
    ("changes", "kinds", "report"),
    [
        ({}, {True, False}, "worlds: 10 clips, 8 labelled; drawn: 10"),
        ({"data.labelled_to_unlabelled": (1, 0)}, {True}, "worlds: 10 clips, 8 labelled; drawn: 8"),
        ({"data.labelled_to_unlabelled": (0, 1)}, {False}, "worlds: 10 clips, 8 labelled; drawn: 2"),
        ({"data.worlds.unlabelled_share": 0.0}, {True}, "worlds: 10 clips, 10 labelled; drawn: 10"),
    ],
)
def test_worlds_are_reported_as_they_are_drawn(changes, kinds, report):
    inputs = inputs_of(**{"tasks.camera_dropout": 0.0, **changes})
    batches = [next(inputs.stream) for _ in range(6)]
    assert inputs.reports == (report,)
    assert {bool(flag) for batch in batches for flag in np.asarray(batch["camera_valid"])} == kinds
    drawn = {number for batch in batches for number in np.asarray(batch["clip_index"]).tolist()}
    assert len(drawn) == int(report.rsplit(" ", 1)[1])


def test_folders_that_are_not_there_are_found_before_any_work(folders, tmp_path):
    missing = str(tmp_path / "none")
    for key, changes in (
        ("held_out.datasets", {"held_out.every": 5}),
        ("data.datasets", {"data.kind": "datasets"}),
        ("data.unlabelled", {"data.kind": "datasets"}),
    ):
        config = config_of(**{**NANO, **changes, key: (folders["mixed"], missing)})
        with pytest.raises(ConfigError, match=re.escape(f"config.{key}: {missing} does not exist")):
            check_folders(config)
        check_folders(config_of(**{**NANO, **changes, key: (folders["mixed"],)}))
    check_folders(config_of(**NANO, **{"held_out.datasets": (missing,)}))  # off: never read


@pytest.mark.parametrize(
    ("names", "changes", "message"),
    [
        (("fast",), {}, "none of its 6 clips is drawn: 6 have 24 fps"),
        (("mixed", "fast"), {}, "none of its 6 clips is drawn: 6 have 24 fps"),
        (("mixed",), {"data.frames": 9, "data.worlds.frames": 9}, "10 have 5 frames, expected 9 or more"),
    ],
)
def test_held_out_datasets_are_refused_for_the_same_reasons(folders, names, changes, message):
    config = config_of(**NANO, **{"held_out.datasets": tuple(folders[name] for name in names)})
    config.update_from_flattened_dict(changes)
    with pytest.raises(ConfigError, match=f"config.held_out: .*{message}"):
        held_out_batches(config, make_mesh(MeshConfig()), None, True)


@pytest.mark.parametrize("name", ["labelled", "plain"])
def test_clips_of_one_kind_alone_can_be_held_out(folders, name):
    config = config_of(**NANO, **{"held_out.datasets": (folders[name],), "held_out.clips": 5})
    (batch,) = held_out_batches(config, make_mesh(MeshConfig()), None, True)[""]
    assert np.asarray(batch["camera_valid"]).any() == (name == "labelled")


def test_few_held_out_worlds_have_one_of_each_kind():
    changes = {"data.worlds.unlabelled_share": 0.001, "held_out.clips": 10, "tasks.camera_dropout": 0.0}
    batches = held_out_batches(config_of(**NANO, **changes), make_mesh(MeshConfig()), None, True)[""]
    flags = np.concatenate([np.asarray(batch["camera_valid"]) for batch in batches])
    assert (~flags).sum() == 2  # one of five


def test_what_is_held_out_and_trained_on_is_said(folders):
    config = config_of(**NANO, **datasets(folders["mixed"]))
    config.held_out.every, config.held_out.datasets = 5, (folders["mixed"] + "/", folders["plain"])
    (remark,) = held_out_remarks(config)
    assert remark.startswith(f"{folders['mixed']}/ is named under held_out.datasets, and is trained on")
    config.held_out.every = 0
    assert held_out_remarks(config) == ()


def test_other_worlds_than_the_checkpoint_s_are_found_before_they_are_rendered():
    inputs = inputs_of()
    next(inputs.stream)
    position = inputs.stream.state()
    check_position(config_of(**NANO), position)
    for changes, message in (
        ({"data.worlds.seeds": (0, 11)}, "it counts in 10 clips, this run has 11"),
        ({"data.worlds.seeds": (5, 15)}, r"as many clips \(10\), but in others"),
        ({"seed": 7}, "drawn with seed 0, this run has 7"),
    ):
        with pytest.raises(InvalidValue, match=message):
            check_position(config_of(**{**NANO, **changes}), position)
    with pytest.raises(InvalidValue, match="it counts in datasets, this run draws from worlds in memory"):
        check_position(config_of(**NANO), {**position, "kind": "clips"})


def test_positions_of_earlier_versions_and_warnings_are_said(folders, tmp_path, capsys, caplog):
    config = config_of(**{**NANO, **datasets(folders["mixed"], folders["mixed"]), "batch_size": 10})
    inputs = open_inputs(config, make_mesh(MeshConfig()), None, True, lambda done, count: None)
    position = {
        name: value for name, value in inputs.stream.state().items() if name not in ("buckets", "ids")
    }
    start = Start(None, 6, position, str(tmp_path / "run" / "checkpoints" / "6"), None)
    progress = ProgressLine(10, 6)
    _say_what_is_drawn(config, inputs, progress)
    _continue_data(config, inputs, start, {"batch_size": 4}, progress)
    output = capsys.readouterr().out
    assert output.count(f"{folders['mixed']}: 10 clips, 7 labelled; drawn: 10 in clips of 5 frames") == 2
    assert "batches of 10 clips where they were 4" in output
    assert "at most 36 clips are passed over" in output
    assert f"{folders['mixed']} is named twice under datasets" in caplog.text
    _continue_data(config, inputs, start, {"batch_size": 10}, progress)
    assert "data since" not in capsys.readouterr().out
    other = dataclasses.replace(start, position={**position, "seed": 5})
    with pytest.raises(ConfigError, match=rf"seed 5.*--config\.init_from={tmp_path / 'run'} and another"):
        _continue_data(config, inputs, other, {}, progress)
