"""Lists and values on the command line, as people write them."""

from __future__ import annotations

import pytest
from absl import flags
from ml_collections import ConfigDict, config_flags

from camctrl_jax.training.command_line import FOLDERS, with_plain_lists
from camctrl_jax.training.config import check_config, default_config
from camctrl_jax.training.values import ConfigError, value_of


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    """Folders a, b, p, q, "x,y", "p,q" and "my data" where the program runs."""
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "p", "q", "x,y", "p,q", "my data"):
        (tmp_path / name).mkdir()


def parsed(*arguments: str) -> ConfigDict:
    """The configuration after a command line, through absl as a run reads it."""
    config = default_config()
    argv = ["run", *with_plain_lists(arguments, config)]
    values = flags.FlagValues()
    holder = config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=argv)
    values(argv)
    return holder.value


@pytest.mark.parametrize("key", FOLDERS)
@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (["={}".format("a,b")], ("a", "b")),
        (["=a", "=b"], ("a", "b")),
        ([" a", " b"], ("a", "b")),
        ([" a,b"], ("a", "b")),
        (["=('a','b')"], ("a", "b")),
        (["=['a', 'b']"], ("a", "b")),
        (["=(a,b)"], ("a", "b")),
        (["=a, b"], ("a", "b")),
        (["= a ,b "], ("a", "b")),
        (["=a,b,"], ("a", "b")),
        (["=a,"], ("a",)),
        (["=a"], ("a",)),
        (["='a'"], ("a",)),
        (["='a','b'"], ("a", "b")),
        (["="], ()),
        (["=()"], ()),
        (["=a,b", "=p"], ("a", "b", "p")),
        (["=x,y"], ("x,y",)),
        (["=x,y", "=a"], ("x,y", "a")),
        (["=('p,q',)"], ("p,q",)),
        (["=my data"], ("my data",)),
        (["=2024"], ("2024",)),
        (["='lab,plain'"], ("lab", "plain")),  # quotes that a shell has left
        (['="lab, plain"'], ("lab", "plain")),
        (["=runs/a-1.0,runs/b=2"], ("runs/a-1.0", "runs/b=2")),
        (["=/data/a,/data/b"], ("/data/a", "/data/b")),
        (["=None"], ("None",)),
    ],
)
def test_folders(key, written, expected):
    arguments = [word for each in written for word in f"--config.{key}{each}".split(" ", 1)]
    if any(each.startswith("=") for each in written):
        arguments = [f"--config.{key}{each}" for each in written]
    config = parsed(*arguments, "--config.steps=7")
    assert value_of(config, key) == expected
    assert config.steps == 7


@pytest.mark.parametrize(
    ("written", "remedy"),
    [
        ("p,q", "=('p,q',)\" for the one, or --config.data.datasets=p --config.data.datasets=q for several"),
        ("a,x,y", "'x,y' is a folder with a comma in its name: give the option once for each folder"),
        ("a b", "write commas between folders: --config.data.datasets=a,b"),
        ("a;b", "write commas between folders: --config.data.datasets=a,b"),
        ("a:b", "write commas between folders: --config.data.datasets=a,b"),
        ("a; b", "write commas between folders: --config.data.datasets=a,b"),
        ("a,,b", "a name between two commas is empty"),
        (",a", "a name between two commas is empty"),
        ("('a',1)", "expected folders, such as --config.data.datasets=data/a,data/b"),
        ("['']", "expected folders"),
    ],
)
def test_folders_that_can_be_read_in_two_ways_are_refused(written, remedy):
    with pytest.raises(ConfigError) as error:
        parsed(f"--config.data.datasets={written}")
    assert str(error.value).startswith(f"--config.data.datasets={written}")
    assert remedy in str(error.value)


@pytest.mark.parametrize(
    ("written", "key", "expected"),
    [
        ("--config.data.labelled_to_unlabelled=1,0", "data.labelled_to_unlabelled", (1, 0)),
        ("--config.data.labelled_to_unlabelled=(1, 0)", "data.labelled_to_unlabelled", (1, 0)),
        ("--config.data.labelled_to_unlabelled=[3,2,]", "data.labelled_to_unlabelled", (3, 2)),
        ("--config.data.worlds.seeds=0, 50", "data.worlds.seeds", (0, 50)),
        ("--config.sample.seeds=1000000,1000002", "sample.seeds", (1000000, 1000002)),
        ("--config.profile=2,3", "profile", (2, 3)),
        ("--config.profile=", "profile", ()),
        ("--config.tasks.extension_latents=2,3", "tasks.extension_latents", (2, 3)),
        ("--config.model.patch=1,2,2", "model.patch", (1, 2, 2)),
        ("--config.model.rope_axes=(16,24,24)", "model.rope_axes", (16, 24, 24)),
    ],
)
def test_numbers(written, key, expected):
    assert value_of(parsed(written), key) == expected


def test_numbers_given_one_by_one():
    config = parsed("--config.data.labelled_to_unlabelled=1", "--config.data.labelled_to_unlabelled", "0")
    assert config.data.labelled_to_unlabelled == (1, 0)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("data.labelled_to_unlabelled=4:1", "expected numbers with commas between them, such as 4,1"),
        ("data.labelled_to_unlabelled=a,b", "such as 4,1"),
        ("data.labelled_to_unlabelled=True,False", "such as 4,1"),
        ("data.worlds.seeds=(0,10", "such as 0,20000"),
        ("data.worlds.seeds=0-10", "such as 0,20000"),
        ("profile=10 12", "such as 10,12"),
        ("steps=abc", "expected a whole number, such as 100"),
        ("steps=1e4", "expected a whole number"),
        ("model.width=wide", "expected a whole number"),
        ("optimizer.learning_rate=3e-4x", "expected a number, such as 0.5"),
        ("model.scan_layers=maybe", "expected true or false"),
        ("model.camera=False", "--config.model.camera.injection=none trains without a camera"),
        ("model.camera=none", "--config.model.camera.injection=none trains without a camera"),
        (
            "data.text={'dim': 8}",
            "data.text is a group of keys, which has no value itself; set one of its keys: ",
        ),
        ("mesh=2,4", "--config.mesh.fsdp"),
        ("optimizer=adamw", "--config.optimizer.kind"),
    ],
)
def test_values_that_cannot_be_are_named_with_a_remedy(written, message):
    with pytest.raises(ConfigError) as error:
        check_config(parsed(f"--config.{written}"))
    assert message in str(error.value)


def test_switches_and_other_options_stay_as_they_are():
    arguments = [
        "--config.model.scan_layers",
        "--noconfig.model.scan_layers",
        "--workdir",
        "a,b",
        "--other=1,2",
    ]
    assert with_plain_lists(arguments, default_config()) == arguments
    assert parsed("--config.model.scan_layers", "--config.steps", "3").model.scan_layers
    assert with_plain_lists(["--", "--config.data.datasets=a,b"], default_config())[1].endswith("=a,b")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("data.datasets", ("",), "expected folders, such as --config.data.datasets=data/a,data/b"),
        ("held_out.datasets", (3,), "expected folders, such as --config.held_out.datasets=data/a,data/b"),
        ("data.labelled_to_unlabelled", (), r"(1, 0) takes labelled clips alone"),
        ("data.labelled_to_unlabelled", ("4", "1"), "expected two counts"),
        ("data.labelled_to_unlabelled", (4, 1, 1), "expected two counts"),
        ("data.labelled_to_unlabelled", (0.5, 0.5), "expected two counts"),
        ("data.worlds.seeds", (0, 1e4), "expected (first, one past the last)"),
        ("sample.seeds", ("a", "b"), "expected (first, one past the last)"),
        ("data.worlds.unlabelled_share", 1.0, "--config.model.camera.injection=none"),
    ],
)
def test_lists_of_recipes_are_checked(key, value, message):
    config = default_config()
    config.update_from_flattened_dict({key: value})
    with pytest.raises(ConfigError) as error:
        check_config(config)
    assert message in str(error.value)
