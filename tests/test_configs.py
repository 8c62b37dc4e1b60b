"""Every recipe in every variant: it is a valid config, and its docstring's commands name keys that exist."""

import ast
import itertools
import re
import shlex
from pathlib import Path

import pytest

from camctrl_jax.clip_shape import latents_of
from camctrl_jax.errors import InvalidValue
from camctrl_jax.models import CameraConfig, vae_preset
from camctrl_jax.training.config import (
    as_json,
    check_config,
    check_overrides,
    default_config,
    differences,
    flat_keys,
    load_recipe,
)
from camctrl_jax.training.values import ConfigError, mmdit_config, untrained_vae
from camctrl_jax.training.world_sets import turns_of, views_of

CONFIGS = Path(__file__).parents[1] / "configs"
VARIANTS = {
    "vae": (
        "full",
        "worlds",
        "worlds_decoder",
        "worlds_ahead",
        "worlds_cpu",
        "nano",
        "nano_decoder",
    ),
    "base": ("full", "worlds", "worlds_cpu", "nano"),
    "stage1": ("full", "motif_2b", "paper_8b", "worlds", "worlds_cpu", "mixed", "nano"),
    "stage2": ("full", "motif_2b", "worlds", "worlds_cpu", "nano"),
    "distill_progressive": ("full", "motif_2b", "worlds", "worlds_cpu", "nano"),
    "distill_flow_map": ("full", "motif_2b", "worlds", "worlds_cpu", "nano"),
    "distill_apt": (
        "full",
        "motif_2b",
        "worlds",
        "worlds_cpu",
        "nano",
        "consistency",
        "consistency_motif_2b",
        "consistency_worlds",
        "consistency_worlds_cpu",
        "consistency_nano",
    ),
    "features": ("worlds", "worlds_cpu", "nano"),
}

# By a teacher; variants of distill_apt that are called so have the objective 'consistency'.
TAUGHT = {"distill_progressive": "distil", "distill_flow_map": "flow_map", "distill_apt": "adversarial"}


def load(name, variant=""):
    return load_recipe(f"{CONFIGS / name}.py" + (f":{variant}" if variant else ""))


def docstring(name):
    return ast.get_docstring(ast.parse((CONFIGS / f"{name}.py").read_text()))


@pytest.mark.parametrize(("name", "variant"), [(n, v) for n, variants in VARIANTS.items() for v in variants])
def test_every_variant_is_a_valid_config(name, variant):
    config = load(name, variant)
    if config.data.kind == "datasets":
        with pytest.raises(ConfigError, match="build_dataset"):  # the user has to name them
            check_config(config)
        config.data.datasets = ("somewhere",)
        if name in TAUGHT:
            with pytest.raises(ConfigError, match=r"distil\.teacher='': expected the weights of a teacher"):
                check_config(config)
            config.distil.teacher = "somewhere"
    check_config(config)
    objectives = {"vae": "autoencode", "features": "label", **TAUGHT}
    expected = "consistency" if variant.startswith("consistency") else objectives.get(name, "denoise")
    assert as_json(config)["objective"] == expected


@pytest.mark.parametrize("name", VARIANTS)
def test_the_default_is_the_largest_and_unknown_variants_are_named(name):
    largest = VARIANTS[name][0]
    assert load(name).to_dict() == load(name, largest).to_dict()
    with pytest.raises(
        ConfigError,
        match=rf"unknown variant 'world': did you mean 'worlds\w*'\? choose one of {largest}",
    ):
        load(name, "world")


@pytest.mark.parametrize("name", VARIANTS)
def test_the_commands_in_the_docstring_work(name):
    text = docstring(name)
    commands = re.findall(r"python -m camctrl_jax\.train (.*)", text.replace("\\\n", " "))
    assert len(commands) >= len(VARIANTS[name])
    assert "".join(commands).count("--") == text.count("--")  # no line of a command is cut off
    seen = set()
    for command in commands:
        arguments = shlex.split(command)
        file, _, variant = arguments[0].removeprefix("--config=").partition(":")
        assert file == f"configs/{name}.py"
        assert any(argument.startswith("--workdir=") for argument in arguments)
        check_overrides(arguments, load(name, variant or VARIANTS[name][0]))
        seen.add(variant or VARIANTS[name][0])
    assert seen == set(VARIANTS[name])


def test_camera_recipes_differ_from_the_base_where_they_should():
    base, stage1 = load("base", "worlds"), load("stage1", "worlds")
    assert (base.model.camera.injection, stage1.model.camera.injection) == ("none", "first")
    assert (base.init_from, stage1.init_from) == ("", "default")
    assert base.data.image_turns > 0
    assert tuple(stage1.data.labelled_to_unlabelled) == (4, 1)
    assert stage1.batch_size % 5 == 0
    full = load("stage1", "full")
    assert (full.tasks.t2v, full.tasks.i2v) == (0.7, 0.3)
    assert (full.optimizer.learning_rate, full.optimizer.b2, full.optimizer.weight_decay) == (
        1e-4,
        0.95,
        0.01,
    )


def test_the_autoencoder_sees_worlds_and_places_of_two_sizes_in_equal_steps():
    config = load("vae", "worlds")
    views = views_of(config).values()
    assert {(v.data.height, v.data.worlds.places.take_frames > 0) for v in views} == {
        (96, False), (96, True), (192, False), (192, True),
    }  # fmt: skip
    assert len({v.batch_size * v.data.frames * v.data.height * v.data.width for v in views}) == 1
    assert all(v.optimizer.to_dict() == load("vae", "worlds_ahead").optimizer.to_dict() for v in views)


def test_stage_2_extends_windows_of_long_takes_and_remembers():
    config = load("stage2", "worlds")
    views = views_of(config)
    for name, view in views.items():
        assert view.batch_size % 10 == 0  # of 4:1, on two devices
        assert tuple(view.data.labelled_to_unlabelled) == (4, 1)
        low, high = view.tasks.extension_latents
        assert (low, high) == (2, 13)  # 5 to 49 frames
        if view.tasks.t2v:
            assert (view.tasks.extension, view.tasks.i2v, view.tasks.t2v) == (0.2, 0.3, 0.5)
        if name not in ("worlds", "large_worlds"):
            assert view.data.worlds.places.take_frames == 500
    # The largest number of given latents leaves as many to generate as a clip adds.
    assert latents_of(views["long"].data.frames) == 13 + 12
    memory = {name: view.data.worlds.retrieved for name, view in views.items() if view.data.worlds.retrieved}
    assert memory == {"memory": 4, "large_memory": 4}
    taught = [view.data.worlds.seeds for view in views.values() if view.data.worlds.places.take_frames]
    assert all(a[1] <= b[0] or b[1] <= a[0] for a, b in itertools.combinations(taught, 2))
    tuned, before = config.optimizer.to_dict(), load("stage1", "worlds").optimizer.to_dict()
    assert tuned == before


def test_students_see_all_that_their_teacher_was_trained_on():
    stage2 = load("stage2", "worlds")
    for name, variant, devices in (
        ("distill_progressive", "worlds", 4),
        ("distill_flow_map", "worlds", 4),
        ("distill_apt", "consistency_worlds", 4),
        ("distill_apt", "worlds", 4),
    ):
        config = load(name, variant)
        assert views_of(config).keys() == views_of(stage2).keys()
        for key, view in views_of(config).items():
            theirs, ours = (each.to_dict() for each in (views_of(stage2)[key], view))
            assert ours["tasks"] == theirs["tasks"]
            sizes = [{k: v for k, v in each["data"].items() if k in ("height", "width", "frames")}
                     for each in (ours, theirs)]  # fmt: skip
            assert sizes[0] == sizes[1]
            assert ours["data"]["worlds"]["retrieved"] == theirs["data"]["worlds"]["retrieved"]
            seeds = [range(*each["data"]["worlds"]["seeds"]) for each in (ours, theirs)]
            assert set(seeds[0]) <= set(seeds[1])
            assert view.batch_size % (5 * devices) == 0  # of 4:1
        falls = config.objective != "adversarial"
        assert (config.optimizer.decay, config.optimizer.final_learning_rate == 0.0) == ("linear", falls)
        assert config.init_from == ""  # as its teacher


@pytest.mark.parametrize("name", ["base", "stage1"])
def test_half_of_what_one_gpu_sees_are_places(name):
    config = load(name, "worlds")
    clips, turns = {}, dict(zip(views_of(config), turns_of(config)))
    for kind, view in views_of(config).items():
        places = view.data.worlds.places
        clips[kind] = len(range(*view.data.worlds.seeds)) * places.windows_per_take
        assert (kind == "worlds") == (places.take_frames == 0)
    assert clips["worlds"] == clips["places"] + clips["takes"]
    assert turns["worlds"] == turns["places"] + turns["takes"]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--config.stpes=3", "unknown config key 'stpes'; did you mean 'steps'?"),
        ("--config.learning_rate=3", "did you mean 'optimizer.learning_rate'?"),
        ("--config.optimzer.b1=3", "did you mean 'optimizer.b1'?"),
        ("--config.data.worlds.seed=3", "did you mean 'data.worlds.seeds'?"),
        ("--config.zzzz=3", "the groups are"),
    ],
)
def test_an_unknown_override_names_the_nearest_key(argument, message):
    with pytest.raises(ConfigError) as error:
        check_overrides(["--workdir=x", argument], default_config())
    assert message in str(error.value)


def test_known_overrides_and_other_flags_pass():
    check_overrides(
        ["--config=a.py:b", "--config.steps=3", "--config.tasks.i2v=1", "--other=1"], default_config()
    )


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("objective", "vea", "expected one of"),
        ("dtype", "float16", "expected one of"),
        ("steps", 0, "at least 1"),
        ("data.frames", 48, "4k+1 frames, for example 45 or 49"),
        ("data.worlds.frames", 50, "4k+1 frames, for example 49 or 53"),
        ("data.height", 100, "multiple of 16"),
        ("data.kind", "tfds", "'worlds' or 'datasets'"),
        ("data.worlds.seeds", (5, 5), "first, one past the last"),
        ("data.worlds.frames", 17, "at most data.worlds.frames"),
        ("profile", (5, 3), "expected (first, last) of the steps"),
        ("profile", (2.5, 3.5), "expected (first, last) of the steps"),
        ("profile", (5, 10**9), "expected (first, last) of the steps"),
        ("sample.seeds", (5, 5), "expected (first, one past the last)"),
        ("data.labelled_to_unlabelled", (0, 0), "not both 0"),
        ("held_out.every", -1, "held_out.every=-1: expected 0"),
        ("data.worlds.unlabelled_share", 1.0, "share below 1"),
        ("vae.weights", "", "needs an autoencoder"),
        ("model.preset", "huge", "No transformer preset is called 'huge'"),
        ("optimizer.b1", 1.5, "optimizer.b1"),
        ("optimizer.warmup_steps", 20_000, "--config.optimizer.warmup_steps="),
        ("tasks.text_dropout", 2.0, "text_dropout"),
        ("flow.time_sampling", "cosine", "time_sampling"),
        ("model.width", 100, "width=100"),
        ("sample.steps", 0, "sample.steps=0: expected at least 1"),
        ("vae.encode_chunk", -1, "vae.encode_chunk=-1: expected 0"),
        ("data.image_batch", -1, "image_batch=-1: expected 0"),
        ("data.fps", 0.0, "fps=0.0: expected a positive number"),
        ("data.workers", -1, "workers=-1: expected 0"),
    ],
)
def test_values_that_cannot_work_are_refused_before_any_work(key, value, expected):
    config = default_config()
    config.update_from_flattened_dict({key: value})
    with pytest.raises(InvalidValue) as error:
        check_config(config)
    assert expected in str(error.value)


def test_settings_of_an_objective_are_checked_where_it_is_the_run_s():
    config = load("vae", "nano")
    config.vae_loss.measure_clips = 0
    with pytest.raises(ConfigError, match=r"config\.vae_loss\.measure_clips=0: expected at least 1"):
        check_config(config)
    config = load("stage1", "nano")
    config.vae_loss.measure_clips = 0
    check_config(config)


def test_an_untrained_autoencoder_is_that_of_the_preset_or_the_open_one():
    config = load("stage1", "nano")
    assert untrained_vae(config) == vae_preset("nano")
    config.model.preset = "paper"
    assert untrained_vae(config) == vae_preset("wan21")


def test_the_camera_of_a_run_is_a_value():
    config = load("stage1", "nano")
    assert mmdit_config(config).camera == CameraConfig()
    config.model.camera.injection, config.model.camera.encoder = "every", "deep"
    assert mmdit_config(config).camera == CameraConfig(encoder="deep", injection="every")
    config.model.camera.resolution = "high"
    with pytest.raises(InvalidValue, match="resolution='high'"):
        check_config(config)


def test_a_key_that_no_recipe_has_is_refused():
    config = default_config()
    config.optimizer.learnig_rate = 1.0
    with pytest.raises(ConfigError, match=r"did you mean 'optimizer\.learning_rate'"):
        check_config(config)


def test_sizes_of_a_preset_can_be_changed():
    config = default_config()
    config.model.preset = "paper"
    config.model.width = 2048
    config.model.num_dual = 24
    config.model.camera.injection = "none"
    config.mesh.tensor = 2
    sizes = mmdit_config(config)
    assert (sizes.width, sizes.heads, sizes.num_dual, sizes.camera) == (2048, 32, 24, None)
    assert not sizes.fuse_projections


def test_changes_since_a_checkpoint_are_listed():
    saved, now = default_config(), default_config()
    now.optimizer.learning_rate = 3e-4
    assert differences(as_json(saved), as_json(now)) == ["optimizer.learning_rate: 0.0001 -> 0.0003"]
    assert "data.text.dim" in flat_keys(now)


def test_settings_that_a_checkpoint_does_not_know_have_one_line():
    now = default_config()
    saved = as_json(now)
    for group, key in (
        ("data", "workers"),
        ("held_out", "every"),
        ("model", "scan_layers"),
        ("optimizer", "b1"),
    ):
        del saved[group][key]
    assert differences(saved, as_json(now)) == []
    now.data.workers, now.held_out.every, now.steps, now.model.width = 2, 5, 7, 64
    assert differences(saved, as_json(now)) == [
        "steps: 10000 -> 7",
        "model.width: None -> 64",
        "settings that it did not have: data.workers=2, held_out.every=5",
    ]


def test_a_config_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no Python file configs/stage9\.py"):
        load_recipe("configs/stage9.py:worlds")
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(ConfigError, match="has no get_config"):
        load_recipe(str(tmp_path / "empty.py"))
