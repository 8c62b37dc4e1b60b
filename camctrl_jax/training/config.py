"""The configuration of a run: every key with its meaning, and the checks that come before any work.

Files in ``configs/`` start from :func:`default_config` and change values; the command line changes single
values (``--config.optimizer.learning_rate=3e-4``). A key that is not listed here is an error.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib.util
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from camctrl_jax.clip_shape import ClipShape, latents_of
from camctrl_jax.data.tasks import TaskConfig
from camctrl_jax.errors import InvalidValue
from camctrl_jax.parallel.mesh import MeshConfig
from camctrl_jax.training.command_line import FOLDERS
from camctrl_jax.training.objective import objective_module, objective_names
from camctrl_jax.training.optimizer import OptimizerConfig, learning_rate_schedule
from camctrl_jax.training.values import SIZES, ConfigError, require, value_of
from camctrl_jax.training.world_sets import check_sets, keys_of_sets, of_set, views_of
from camctrl_jax.worlds import WorldsConfig
from camctrl_jax.worlds.scene import LAYOUTS, ROUTES
from camctrl_jax.worlds.splits import HELD_OUT_FIRST_SEED

DTYPES = ("bfloat16", "float32")


def default_config() -> ConfigDict:
    """Every key of a run. ``None`` is "not given"."""
    config = ConfigDict()
    # A file of camctrl_jax/training/objectives: 'denoise', 'autoencode', 'label', or of those with a teacher
    config.objective = "denoise"
    config.seed = 0
    config.steps = 10_000
    config.batch_size = 64  # clips per step, over all devices
    config.accumulate = 1  # parts of a batch that are differentiated one after the other, to save memory
    config.dtype = "bfloat16"  # of matrix products; parameters are float32
    # '' scratch, 'default' the embedded weights, a run directory, a weights folder, a diffusers folder
    config.init_from = ""
    config.ema_decay = 0.9999

    # The model to train: a preset (camctrl_jax/models/presets.py), single fields changed where given; or
    # 'init_from': the sizes of the weights that init_from names.
    config.model = ConfigDict()
    config.model.preset = "worlds"
    # How the camera enters (CameraConfig); the paper's ablations are its other values.
    config.model.camera = ConfigDict()
    config.model.camera.resolution = "latent"  # of Pluecker maps; or 'pixel'
    config.model.camera.encoder = "patchify"  # one linear layer; or 'deep', residual convolutions before it
    config.model.camera.injection = (
        "first"  # added to the tokens once; 'every': in each block; 'none': no camera
    )
    for name, kind in SIZES.items():
        config.model[name] = placeholder(kind)
    config.model.attention = "auto"  # 'auto', 'xla', 'cudnn' (GPU) or 'splash' (TPU)
    config.model.remat = "none"  # 'none', 'dots', 'full' or 'offload': what the backward pass computes again
    config.model.scan_layers = False  # one compiled block for all layers: compiles fast, slower on a GPU

    config.data = ConfigDict()
    config.data.kind = "worlds"  # 'worlds': rendered into device memory; 'datasets': what build_dataset made
    config.data.height = 96
    config.data.width = 160
    config.data.frames = 49  # of a training clip, 4k+1
    config.data.video_turns = 1  # of every video_turns + image_turns steps, so many train on clips ...
    config.data.image_turns = 0  # ... and so many on images (clips of one frame)
    config.data.image_batch = 0  # images per step; 0 is batch_size
    # Of every five clips four with cameras and one without; (1, 0) takes those with cameras alone, (0, 1) the
    # others. Not read by a model without a camera, which takes all clips alike.
    config.data.labelled_to_unlabelled = (4, 1)
    config.data.text = ConfigDict()
    config.data.text.source = ""  # '' embeds words without weights; else a file of encode_text
    config.data.text.dim = 64
    config.data.text.max_tokens = 32
    config.data.worlds = ConfigDict()
    config.data.worlds.seeds = (0, 20_000)  # first, one past the last
    config.data.worlds.frames = 49  # rendered per world; training windows are cut from them
    config.data.worlds.samples = 2  # rays per pixel and axis
    config.data.worlds.unlabelled_share = 0.2  # of the clips lose their cameras, as real videos have none
    config.data.worlds.encode = True  # keep latents of the frozen VAE instead of video
    config.data.worlds.labels = False  # batches hold coarse depth and motion, too
    config.data.worlds.workers = -1  # processes that sample scenes; -1 picks
    config.data.worlds.cache = ""  # folder in which rendered sets are kept between runs
    # Worlds to explore, in place of those that lie ahead of the first camera: windows out of long takes.
    config.data.worlds.places = ConfigDict()
    config.data.worlds.places.take_frames = 0  # of a whole take, up to 500; 0: no places
    config.data.worlds.places.windows_per_take = 1  # clips that are cut out of each; seeds are those of takes
    config.data.worlds.places.layout = ""  # 'garden', 'rooms' or 'town'; '' draws one
    config.data.worlds.places.route = ""  # such as 'loop', see docs/worlds.md; '' draws one
    # Frames of the rest of its take that a sample is shown beside its window: of takes that are longer than
    # clips, where extension is the only task. 0: none.
    config.data.worlds.retrieved = 0
    # Several sets of worlds in place of the one above, each of a size, length and kind of its own: groups
    # that a recipe makes with camctrl_jax.training.world_sets.world_set. Each step is a batch of one set.
    config.data.sets = ConfigDict()
    # Folders that build_dataset made; on the command line 'folder,folder', or the option once for each.
    config.data.datasets = ()  # each clip says itself whether it has a camera
    config.data.unlabelled = ()  # cameras, if there are any, are ignored
    config.data.fps = 12.0  # of the clips that are used, within 5 %
    config.data.workers = 0  # decoding processes per host

    config.tasks = ConfigDict(dataclasses.asdict(TaskConfig()))
    config.optimizer = ConfigDict(dataclasses.asdict(OptimizerConfig()))
    config.mesh = ConfigDict(dataclasses.asdict(MeshConfig()))

    for name in objective_names():  # every objective has groups of its own
        for group, values in objective_module(name).settings().items():
            if group in config and config[group] != ConfigDict(values):
                raise ConfigError(
                    f"the objective {name!r} brings a group config.{group} that is there already with other "
                    "defaults: give it another name."
                )
            config[group] = ConfigDict(values)

    config.log_every = 50
    config.checkpoint_every = 1000
    config.keep_checkpoints = 3
    config.sample_every = 0  # 0: no samples
    config.sample = ConfigDict()
    config.sample.seeds = (1_000_000, 1_000_004)  # held-out worlds that are shown: first, one past the last
    config.sample.steps = 32
    config.sample.text_guidance = 1.0
    config.sample.camera_guidance = 2.0
    # The loss on clips that are not trained on, with the same noise and times every time; of the average.
    config.held_out = ConfigDict()
    config.held_out.every = 0  # 0: never
    config.held_out.clips = 128  # at least one batch
    config.held_out.datasets = ()  # folders that build_dataset made; without any, held-out worlds
    config.profile = ()  # (first, last): steps of which a trace for TensorBoard and Perfetto is written
    return config


def choose_variant(
    config: ConfigDict, variant: str, variants: Iterable[Callable[[ConfigDict], None]]
) -> None:
    """Apply the changes of a variant, a function called so, to a config.

    Raises:
        ConfigError: there is no such variant; names those there are.
    """
    named = {change.__name__: change for change in variants}
    if variant not in named:
        near = difflib.get_close_matches(variant, named, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"unknown variant {variant!r}: {hint}choose one of {', '.join(named)}")
    named[variant](config)


def load_recipe(spec: str) -> ConfigDict:
    """The config of a recipe, ``path/of/file.py`` or ``path/of/file.py:variant``, as ``--config`` takes it.

    Raises:
        ConfigError: there is no such file or variant, or it is not a recipe.
    """
    path, _, variant = spec.partition(":")
    module_spec = importlib.util.spec_from_file_location("recipe", path)
    if module_spec is None or not Path(path).is_file():
        raise ConfigError(f"--config={spec}: there is no Python file {path}, looked up from {Path.cwd()}")
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise ConfigError(f"--config={spec}: {path} has no get_config(variant)")
    return module.get_config(variant) if variant else module.get_config()


def check_overrides(arguments: Iterable[str], config: ConfigDict, flag: str = "config") -> None:
    """Check the ``--config.some.key=value`` arguments of a command line against the keys of a config.

    Raises:
        ConfigError: a key does not exist; names it and the nearest that does.
    """
    keys = list(flat_keys(config))
    for argument in arguments:
        name = argument.lstrip("-").split("=")[0]
        if not argument.startswith("-") or not name.startswith(f"{flag}."):
            continue
        key = name[len(flag) + 1 :]
        if key not in keys:
            raise ConfigError(f"unknown config key {key!r}{_suggestion(key, keys)}.")


def flat_keys(config: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted names of all values and groups, e.g. ["steps", "optimizer", "optimizer.learning_rate"]."""
    keys = []
    for name, value in config.items():
        keys.append(prefix + name)
        if isinstance(value, (ConfigDict, dict)):
            keys += flat_keys(value, f"{prefix}{name}.")
    return keys


def _suggestion(key: str, keys: list[str]) -> str:
    # Whole names first; then the last part alone, for a right name in the wrong group.
    near = difflib.get_close_matches(key, keys, n=1, cutoff=0.6)
    if not near:
        leaves = {name.split(".")[-1]: name for name in reversed(keys)}
        near = [
            leaves[leaf] for leaf in difflib.get_close_matches(key.split(".")[-1], leaves, n=1, cutoff=0.6)
        ]
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; the groups are {', '.join(name for name in keys if '.' not in name)}"


def check_config(config: ConfigDict) -> None:
    """Check everything that can be known without data, devices or weights.

    Raises:
        ConfigError: names the key, the value, and what to write instead.
    """
    usual = default_config()
    known = [*flat_keys(usual), *keys_of_sets(config, usual)]
    for key in flat_keys(config):
        if key not in known:
            raise ConfigError(f"unknown config key {key!r}{_suggestion(key, known)}.")

    check = partial(require, config)
    data = config.data
    check(config.dtype in DTYPES, "dtype", f"expected one of {DTYPES}")
    for key in ("steps", "accumulate", "log_every", "checkpoint_every", "keep_checkpoints"):
        check(config[key] >= 1, key, "expected at least 1")
    check(0 <= config.ema_decay < 1, "ema_decay", "expected 0 <= decay < 1")
    for key in ("sample_every", "held_out.every"):
        check(value_of(config, key) >= 0, key, "expected 0 (off) or more")
    check(config.sample.steps >= 1, "sample.steps", "expected at least 1")
    seeds = config.sample.seeds
    check(_is_range(seeds), "sample.seeds", "expected (first, one past the last)")
    check(config.held_out.clips >= 1, "held_out.clips", "expected at least 1")
    profile = config.profile
    check(
        len(profile) == 0
        or (
            (len(profile) == 2 and all(isinstance(step, int) for step in profile))
            and 1 <= profile[0] <= profile[1] <= config.steps
        ),
        "profile",
        f"expected (first, last) of the steps 1 to {config.steps}, or () for none",
    )
    check_sets(config)
    _check_data(config)
    if config.objective not in objective_names():
        objective_module(config.objective)  # says which there are
    learning_rate_schedule(OptimizerConfig(**config.optimizer), config.steps)
    MeshConfig(**config.mesh)
    objective_module(config.objective).check(config)
    # What is wrong with all sets has been said by now, without naming one of them.
    for name, view in views_of(config).items() if len(data.sets) else ():
        try:
            _check_data(view)
            objective_module(config.objective).check(view)
        except InvalidValue as error:
            raise of_set(name, error) from error


def _check_data(config: ConfigDict) -> None:
    data, check = config.data, partial(require, config)
    check(config.batch_size >= 1, "batch_size", "expected at least 1")
    for key, size in (("batch_size", config.batch_size), ("data.image_batch", data.image_batch)):
        check(size % config.accumulate == 0, key, f"expected a multiple of accumulate={config.accumulate}")
    check(data.image_batch >= 0, "data.image_batch", "expected 0 (as batch_size) or more")
    shares = data.labelled_to_unlabelled
    check(
        len(shares) == 2 and _whole(shares) and min(shares) >= 0 and sum(shares) > 0,
        "data.labelled_to_unlabelled",
        "expected two counts, such as (4, 1), not both 0; (1, 0) takes labelled clips alone, (0, 1) "
        "unlabelled ones",
    )
    for key in FOLDERS:
        check(
            all(isinstance(name, str) and name.strip() for name in value_of(config, key)),
            key,
            f"expected folders, such as --config.{key}=data/a,data/b",
        )
    check(data.fps > 0, "data.fps", "expected a positive number")
    check(data.workers >= 0, "data.workers", "expected 0 (decode in the training process) or more")
    check(data.kind in ("worlds", "datasets"), "data.kind", "expected 'worlds' or 'datasets'")
    ClipShape(data.frames, data.height, data.width).check(prefix="config.data.")
    ClipShape(data.worlds.frames, data.height, data.width).check(prefix="config.data.worlds.")
    check(data.video_turns >= 0, "data.video_turns", "expected 0 or more")
    check(data.image_turns >= 0, "data.image_turns", "expected 0 or more")
    check(
        data.video_turns + data.image_turns > 0, "data.video_turns", "images or clips need at least one turn"
    )
    TaskConfig(**config.tasks)
    if data.kind == "worlds":
        seeds = data.worlds.seeds
        check(_is_range(seeds), "data.worlds.seeds", "expected (first, one past the last)")
        check(
            seeds[0] >= 0 and seeds[1] <= HELD_OUT_FIRST_SEED,
            "data.worlds.seeds",
            f"expected seeds below {HELD_OUT_FIRST_SEED}: those from there on are held out for evaluation",
        )
        check(data.fps == WorldsConfig().fps, "data.fps", f"worlds have {WorldsConfig().fps:g}")
        check(data.frames <= data.worlds.frames, "data.frames", "expected at most data.worlds.frames")
        _check_places(config)
        check(
            0 <= data.worlds.unlabelled_share < 1,
            "data.worlds.unlabelled_share",
            "expected a share below 1; without any camera: --config.model.camera.injection=none",
        )
    else:
        check(
            len(data.datasets) + len(data.unlabelled) > 0,
            "data.datasets",
            "expected dataset folders here or in data.unlabelled, as camctrl_jax.build_dataset makes",
        )


def _check_places(config: ConfigDict) -> None:
    places, frames = config.data.worlds.places, config.data.worlds.frames
    check, key = partial(require, config), "data.worlds.places."
    if not places.take_frames:
        for name in ("layout", "route"):
            check(places[name] == "", key + name, f"only places have a {name}: --config.{key}take_frames=193")
    else:
        check(places.take_frames >= frames, key + "take_frames", f"expected 0 or at least {frames} frames")
        for name, values in (("layout", LAYOUTS), ("route", ROUTES)):
            check(places[name] in ("", *values), key + name, f"expected one of {', '.join(values)}, or ''")
    room = max(places.take_frames, frames) - frames + 1
    check(
        1 <= places.windows_per_take <= room,
        key + "windows_per_take",
        f"expected 1 to {room}: windows of {frames} frames are cut out of takes of {key}take_frames",
    )
    if config.data.worlds.retrieved:
        _check_retrieved(config, room)


def _check_retrieved(config: ConfigDict, room: int) -> None:
    data, tasks, check = config.data, config.tasks, partial(require, config)
    worlds, key = data.worlds, "data.worlds.retrieved"
    least = tasks.extension_latents[0]
    check(worlds.retrieved > 0, key, "expected 0 (none) or more frames")
    check(room > 1, key, "clips are not windows of longer takes: see config.data.worlds.places.take_frames")
    check(worlds.encode, key, "frames are retrieved as latents: expected config.data.worlds.encode=True")
    check(
        tasks.t2v == tasks.i2v == 0 < tasks.extension,
        key,
        "only extension reads them, in batches of nothing else: expected "
        f"config.tasks.t2v=0 (is {tasks.t2v:g}), config.tasks.i2v=0 (is {tasks.i2v:g}) "
        f"and config.tasks.extension=1 (is {tasks.extension:g})",
    )
    check(data.image_turns == 0, key, "images are not extended: expected config.data.image_turns=0")
    check(
        1 < least < latents_of(data.frames),
        key,
        f"a clip of {latents_of(data.frames)} latents is extended from {least} or more "
        "(config.tasks.extension_latents): expected at least 2, which leave something to generate",
    )


def _whole(values: Iterable[Any]) -> bool:
    return all(isinstance(value, int) and not isinstance(value, bool) for value in values)


def _is_range(seeds: Sequence[Any]) -> bool:
    return len(seeds) == 2 and _whole(seeds) and seeds[0] < seeds[1]


def as_json(config: ConfigDict) -> dict:
    """The effective config as nested JSON-able dicts."""
    return json.loads(config.to_json())


def differences(saved: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """Lines such as ``optimizer.learning_rate: 0.0001 -> 0.0003`` for every key that was saved otherwise.

    Keys that did not exist then have one line together, those that are not as by default.
    """
    before, after = _flat_values(saved), _flat_values(config)
    lines = [
        f"{key}: {before[key]} -> {value}"
        for key, value in after.items()
        if key in before and before[key] != value
    ]
    usual = _flat_values(as_json(default_config()))
    new = [f"{key}={value}" for key, value in after.items() if key not in before and usual.get(key) != value]
    return [*lines, f"settings that it did not have: {', '.join(new)}"] if new else lines


def _flat_values(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flat_values(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
