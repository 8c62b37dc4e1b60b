"""Sets of worlds of a recipe: their keys, what is refused, and what a run makes of them."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from ml_collections import ConfigDict

from camctrl_jax.errors import InvalidValue
from camctrl_jax.parallel.mesh import MeshConfig, make_mesh
from camctrl_jax.training import run, world_inputs
from camctrl_jax.training.config import as_json, check_config, check_overrides, default_config
from camctrl_jax.training.inputs import (
    batch_shapes,
    check_position,
    held_out_batches,
    open_inputs,
    render_worlds,
)
from camctrl_jax.training.program import check_batches
from camctrl_jax.training.values import ConfigError
from camctrl_jax.training.world_sets import retrieved_of, turns_of, views_of, world_set
from camctrl_jax.worlds.benchmark import BENCHMARK_FIRST_SEED
from camctrl_jax.worlds.splits import HELD_OUT_FIRST_SEED

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


def config_with_sets(**changes) -> ConfigDict:
    """Worlds of 16x32, and windows of takes of 32x48 in batches of two."""
    config = default_config()
    config.update_from_flattened_dict(NANO)
    sets = config.data.sets
    sets.ahead = world_set(config, turns=2)
    sets.places = world_set(
        config, height=32, width=48, batch_size=2, seeds=(0, 5), take_frames=49, windows_per_take=2,
        unlabelled_share=0.0,
    )  # fmt: skip
    config.update_from_flattened_dict(changes)
    return config


def shapes_of(batch):
    return {name: (array.shape, array.dtype) for name, array in batch.items()}


def opened(config, progress=lambda done, count: None):
    return open_inputs(config, make_mesh(MeshConfig()), None, True, progress)


def test_a_set_begins_as_the_run_is():
    config = config_with_sets()
    ahead, places = config.data.sets.ahead, config.data.sets.places
    assert (ahead.batch_size, ahead.height, ahead.worlds.seeds) == (5, 16, (0, 10))
    assert (places.batch_size, places.height, places.worlds.places.take_frames) == (2, 32, 49)
    places.tasks.t2v = 0.0
    assert config.tasks.t2v == ahead.tasks.t2v == 0.7
    config.batch_size, config.tasks.t2v, config.data.worlds.seeds = 10, 0.5, (3, 7)  # of a command line
    assert (ahead.batch_size, ahead.tasks.t2v, ahead.worlds.seeds) == (10, 0.5, (3, 7))
    assert (places.batch_size, places.tasks.t2v, places.worlds.seeds) == (2, 0.0, (0, 5))
    assert world_set(config, frames=9).worlds.frames == 9
    assert (world_set(config, world_frames=9).frames, world_set(config, frames=9).frames) == (5, 9)
    with pytest.raises(ConfigError, match="has no 'hight': did you mean 'height'"):
        world_set(config, hight=3)


def test_a_view_is_the_configuration_of_a_run_on_the_set_alone():
    config = config_with_sets()
    config.lock()
    views = views_of(config)
    assert list(views) == ["ahead", "places"]
    assert turns_of(config) == (2, 1)
    alone = views["places"]
    assert (alone.batch_size, alone.data.height, alone.data.worlds.unlabelled_share) == (2, 32, 0.0)
    assert (alone.steps, config.data.height, len(alone.data.sets)) == (config.steps, 16, 0)
    check_config(alone)
    config.data.sets.ahead.turns = 0
    assert list(views_of(config)) == ["places"]
    plain = default_config()
    assert views_of(plain) == {"": plain}


def test_keys_of_sets_are_those_of_a_command_line():
    config = config_with_sets()
    check_overrides(["--config.data.sets.places.worlds.places.take_frames=97"], config)
    with pytest.raises(ConfigError, match=r"did you mean 'data\.sets\.places\.height'"):
        check_overrides(["--config.data.sets.places.hight=97"], config)
    check_config(config)
    assert json.dumps(as_json(config))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("places.hight", 3, r"unknown config key 'data\.sets\.places\.hight'; did you mean .*places\.height"),
        ("places.height", 30, r"config\.data\.sets\.places\.height=30: expected a multiple of 16"),
        ("ahead.batch_size", 0, r"config\.data\.sets\.ahead\.batch_size=0: expected at least 1"),
        (
            "ahead.worlds.seeds",
            (5, 5),
            r"config\.data\.sets\.ahead\.worlds\.seeds=\(5, 5\): expected \(first",
        ),
        ("ahead.worlds.seeds", (0, 1_000_001), r"config\.data\.sets\.ahead\.worlds\.seeds=.*held out"),
        ("places.worlds.places.layout", "park", r"sets\.places\.worlds\.places\.layout='park': .*garden"),
        ("places.worlds.places.take_frames", 3, "take_frames=3: expected 0 or at least 5"),
        ("ahead.worlds.places.windows_per_take", 2, "windows_per_take=2: expected 1 to 1"),
        ("ahead.worlds.places.route", "loop", "only places have a route"),
        ("places.turns", -1, r"config\.data\.sets\.places\.turns=-1"),
        ("places.tasks.text_dropout", 2.0, r"config\.data\.sets\.places: .*text_dropout"),
        (
            "places.worlds.retrieved",
            2,
            r"places\.worlds\.retrieved=2: only extension .*sets\.places\.tasks\.t2v=0",
        ),
        ("ahead.worlds.retrieved", 2, r"ahead\.worlds\.retrieved=2: clips are not windows of longer takes"),
        ("places", 3, r"config\.data\.sets\.places=3: expected a group"),
    ],
)
def test_values_that_cannot_work_name_the_set(key, value, message):
    config = config_with_sets()
    if key == "places":
        config.data.sets = ConfigDict({"places": value})
    else:
        group, _, name = key.rpartition(".")
        home = config.data.sets
        for part in group.split("."):
            home = home[part]
        home[name] = value
    with pytest.raises(InvalidValue, match=message):
        check_config(config)


def test_values_of_the_run_name_no_set():
    config = config_with_sets(objective="autoencode", **{"vae_loss.train_encoder": False})
    with pytest.raises(InvalidValue, match=r"^config\.vae_loss\.train_encoder=False: without"):
        check_config(config)


def test_sets_are_of_worlds_and_one_has_turns():
    config = config_with_sets(**{"data.kind": "datasets", "data.datasets": ("somewhere",)})
    with pytest.raises(ConfigError, match=r"sets are of worlds, and config\.data\.kind='datasets'"):
        check_config(config)
    config = config_with_sets(**{"data.sets.ahead.turns": 0, "data.sets.places.turns": 0})
    with pytest.raises(ConfigError, match="none of ahead, places has turns"):
        check_config(config)


def test_batches_that_a_mesh_cannot_split_name_the_set():
    class TwoParts:
        shape = {"data": 2, "fsdp": 1}  # noqa: RUF012

    with pytest.raises(ConfigError, match=r"a batch of 5 .*config\.data\.sets\.ahead\.batch_size"):
        check_batches(config_with_sets(), TwoParts())


def test_memory_is_of_extension_and_latents():
    retrieved = {"retrieved": 2, "t2v": 0.0, "i2v": 0.0, "extension": 1.0, "frames": 13, "take_frames": 49}
    config = config_with_sets()
    config.data.sets.places = world_set(config, **retrieved)
    check_config(config)
    assert retrieved_of(config) == 2
    for key, value, message in (
        ("data.worlds.encode", False, r"retrieved=2: .*expected config\.data\.worlds\.encode=True"),
        ("data.sets.places.image_turns", 1, r"expected config\.data\.sets\.places\.image_turns=0"),
        ("data.sets.places.frames", 5, r"a clip of 2 latents is extended from 2 or more"),
    ):
        wrong = config.copy_and_resolve_references()
        wrong.update_from_flattened_dict({key: value})
        with pytest.raises(ConfigError, match=message):
            check_config(wrong)
    with pytest.raises(
        ConfigError, match=r"sets\.places\.worlds\.retrieved=2: the objective .* reads videos"
    ):
        opened(config)  # without an encoder


def test_a_run_draws_from_every_set_and_says_so():
    config = config_with_sets()
    opening = opened(config)
    assert [report.split(",")[0] for report in opening.reports] == [
        "ahead (worlds): 10 clips",
        "places (windows of takes): 10 clips",
    ]
    batches = [next(opening.stream) for _ in range(6)]
    told = batch_shapes(config, make_mesh(MeshConfig()), None)
    assert [shapes_of(batch) for batch in batches[:2]] == [shapes_of(batch) for batch in told]
    assert [batch["video"].shape for batch in batches[:3]] == [
        (5, 5, 16, 32, 3),
        (2, 5, 32, 48, 3),
        (5, 5, 16, 32, 3),
    ]
    names = {name for batch in batches for name in opening.stream.describe(batch)}
    assert names >= {f"ahead/world-{seed}" for seed in range(10)}
    assert {name.split("-from-")[0] for name in names if "place" in name} <= {
        f"places/place-{seed}" for seed in range(5)
    }
    probed = [np.asarray(videos).shape for videos in opening.probe(6)]
    assert probed == [(3, 5, 16, 32, 3), (2, 5, 32, 48, 3), (2, 5, 32, 48, 3)]
    position = opening.stream.state()
    check_position(config, position)
    config.data.sets.places.worlds.seeds = (0, 4)
    with pytest.raises(InvalidValue, match=r"in 10 \+ 10 clips, this run has 10 \+ 8"):
        check_position(config, position)


def test_each_set_is_measured_on_held_out_worlds_of_its_own(monkeypatch):
    seeds, windows = [], []

    def rendered(config, chosen, *rest):
        seeds.extend(chosen)
        windows.append(config.data.worlds.places.windows_per_take)
        return render_worlds(config, chosen, *rest)

    monkeypatch.setattr(world_inputs, "render_worlds", rendered)
    config = config_with_sets(**{"held_out.clips": 20})
    found = held_out_batches(config, make_mesh(MeshConfig()), None, True)
    assert {name: [batch["video"].shape[2] for batch in batches] for name, batches in found.items()} == {
        "ahead": [16] * 2,
        "places": [32] * 5,
    }
    assert windows == [1, 1]
    assert len(set(seeds)) == len(seeds) == 20
    assert HELD_OUT_FIRST_SEED <= max(config.sample.seeds) < min(seeds)
    assert max(seeds) < BENCHMARK_FIRST_SEED


def test_sets_of_the_same_clips_draw_them_apart():
    config = config_with_sets(**{"data.sets.places.turns": 0})
    config.data.sets.again = world_set(config, turns=2)
    stream = opened(config).stream
    names = [stream.describe(next(stream)) for _ in range(4)]
    order = {
        kind: [n.split("/")[1] for each in names for n in each if n.startswith(kind)] for kind in ("ah", "ag")
    }
    assert len(order["ah"]) == len(order["ag"]) == 10
    assert order["ah"] != order["ag"]


def test_sets_weigh_alike_in_what_is_measured(monkeypatch):
    sets = {
        "ahead": ({"loss": np.float32(1.0), "dropped": np.float32(np.nan)},) * 3,
        "places": ({"loss": np.float32(4.0), "dropped": np.float32(2.0)},),
    }
    monkeypatch.setattr(run, "held_out_batches", lambda *_: sets)
    program = SimpleNamespace(
        mesh=None,
        objective=SimpleNamespace(reads_cameras=True, measured=lambda state: state.ema),
        everywhere=None,
        jitted_measure=lambda average, batch, key, frozen: batch,
    )
    measure = run._measure_of(config_with_sets(**{"held_out.every": 1}), program, {}, None)
    assert measure(SimpleNamespace(ema=None)) == {
        "held_out_loss": 2.5,
        "held_out_dropped": 2.0,
        "held_out_ahead_loss": 1.0,
        "held_out_places_loss": 4.0,
        "held_out_places_dropped": 2.0,
    }


def test_a_set_without_a_kind_of_clip_is_refused_before_any_is_rendered():
    def never(done, count):
        raise AssertionError("worlds were rendered")

    config = config_with_sets(**{"data.sets.places.worlds.unlabelled_share": 0.01})
    with pytest.raises(ConfigError, match=r"none of the 10 clips is unlabelled.*sets\.places\.worlds\.unlab"):
        opened(config, never)
