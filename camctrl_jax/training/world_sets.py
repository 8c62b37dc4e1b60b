"""``config.data.sets``: several sets of worlds in one run, of different sizes, lengths and kinds.

A set has its own values of some keys of a run, and shares all others. So whatever is done with a set is done
with the configuration of a run on that set alone, its view.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from camctrl_jax.errors import InvalidValue
from camctrl_jax.training.values import ConfigError, value_of

# What a set has of its own: its key, and that of a run which the view takes it for.
_OF_RUN = {
    "batch_size": "batch_size",
    "height": "data.height",
    "width": "data.width",
    "frames": "data.frames",
    "video_turns": "data.video_turns",
    "image_turns": "data.image_turns",
    "image_batch": "data.image_batch",
    "labelled_to_unlabelled": "data.labelled_to_unlabelled",
    "worlds.seeds": "data.worlds.seeds",
    "worlds.frames": "data.worlds.frames",
    "worlds.samples": "data.worlds.samples",
    "worlds.unlabelled_share": "data.worlds.unlabelled_share",
    "worlds.retrieved": "data.worlds.retrieved",
    "worlds.places": "data.worlds.places",
    "tasks": "tasks",
}
TURNS = "turns"  # the key that only sets have
_PREFIX = "data.sets."


def world_set(config: ConfigDict, **changes: Any) -> ConfigDict:
    """A set of worlds for ``config.data.sets``: that of the run, with some values changed.

    Values that are not changed follow the run's: those of its command line, too.

    Args:
        config: the run's, with ``batch_size``, ``data`` and ``tasks`` as they are to be.
        **changes: by the last part of their keys: ``turns`` (1 where not given), ``height``, ``seeds``,
            ``take_frames``, ``extension``, ... ``frames`` is that of clips and of worlds, ``world_frames`` of
            worlds alone.

    Raises:
        ConfigError: a set has no such value; names the nearest it has.
    """
    made = ConfigDict({TURNS: 1, "worlds": {"places": {}}, "tasks": {}})
    for key, of_run in _leaves_of_run(config):
        group, _, name = of_run.rpartition(".")
        _put(made, key, (value_of(config, group) if group else config).get_oneway_ref(name))
    homes = {key.split(".")[-1]: key for key in _leaves(made) if key != "worlds.frames"}
    homes["world_frames"] = "worlds.frames"
    if "frames" in changes:
        changes = {"world_frames": changes["frames"], **changes}
    for name, value in changes.items():
        if name not in homes:
            near = difflib.get_close_matches(name, homes, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(sorted(homes))}"
            raise ConfigError(f"a set of worlds has no {name!r}: {hint}")
        made.update_from_flattened_dict({homes[name]: value})
    return made


def _leaves_of_run(config: ConfigDict) -> Iterator[tuple[str, str]]:
    """(key of a set, key of the run) of every single value that a set has of its own."""
    for key, of_run in _OF_RUN.items():
        value = value_of(config, of_run)
        inside = (f".{leaf}" for leaf in _leaves(value)) if isinstance(value, ConfigDict) else ("",)
        yield from ((key + leaf, of_run + leaf) for leaf in inside)


def _leaves(config: ConfigDict, prefix: str = "") -> Iterator[str]:
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def views_of(config: ConfigDict) -> dict[str, ConfigDict]:
    """What is trained on: for every set that has turns the configuration of a run on it alone, by its name.

    Where there are no sets, that of the run itself, under the name "".
    """
    sets = {name: values for name, values in config.data.sets.items() if values.turns}
    return {name: _view(config, values) for name, values in sets.items()} or {"": config}


def retrieved_of(config: ConfigDict) -> int:
    """Most frames that any set shows beside its windows: what weights are trained to be given."""
    return max(view.data.worlds.retrieved for view in views_of(config).values())


def reference_of(config: ConfigDict) -> str:
    """Which camera extensions are relative to, in all sets that have any (``TaskConfig.reference``).

    Raises:
        ConfigError: sets differ: sampling could follow one of them only.
    """
    tasks = {name: view.tasks for name, view in views_of(config).items()}
    found = {name: each.reference for name, each in tasks.items() if each.extension > 0}
    if len(set(found.values())) > 1:
        told = ", ".join(f"config.{_PREFIX}{name}.tasks.reference={value!r}" for name, value in found.items())
        raise ConfigError(f"{told}: sampling goes on from one kind of reference; expected the same in all")
    return next(iter(found.values()), config.tasks.reference)


def turns_of(config: ConfigDict) -> tuple[int, ...]:
    """Of the sets that have turns, in the order of :func:`views_of`."""
    return tuple(values.turns for values in config.data.sets.values() if values.turns)


def _view(config: ConfigDict, values: ConfigDict) -> ConfigDict:
    view = config.copy_and_resolve_references()
    view.data.sets = ConfigDict()
    for key, of_run in _OF_RUN.items():
        _put(view, of_run, value_of(values, key))
    return view


def _put(config: ConfigDict, key: str, value: Any) -> None:
    """Set a value, or a copy of a group, under a dotted key."""
    group, _, name = key.rpartition(".")
    value = value.copy_and_resolve_references() if isinstance(value, ConfigDict) else value
    (value_of(config, group) if group else config)[name] = value


def keys_of_sets(config: ConfigDict, usual: ConfigDict) -> list[str]:
    """Every key that the sets of a configuration may have, with the groups; ``usual`` is the default one."""
    own = world_set(usual)
    inside = list(_leaves(own))
    groups = {key[: match.start()] for key in inside for match in re.finditer(r"\.", key)}
    return [
        _PREFIX + name + rest
        for name in config.data.sets
        for rest in ("", *(f".{key}" for key in (*inside, *sorted(groups))))
    ]


def of_set(name: str, error: InvalidValue) -> ConfigError:
    """An error about a view, told of the set: with the keys that the set has."""
    if not name:
        return ConfigError(str(error))
    text = str(error)
    for key, of_run in _OF_RUN.items():
        text = re.sub(rf"\bconfig\.{re.escape(of_run)}(?![\w])", f"config.{_PREFIX}{name}.{key}", text)
    prefix = f"config.{_PREFIX}{name}"
    return ConfigError(text if prefix in text else f"{prefix}: {text}")


def check_sets(config: ConfigDict) -> None:
    """Check what sets are, beside what is checked of their views.

    Raises:
        ConfigError: names the set.
    """
    for name, values in config.data.sets.items():
        where = f"config.{_PREFIX}{name}"
        if not name.isidentifier():
            raise ConfigError(f"{where}: expected a name of letters, digits and underscores")
        if not isinstance(values, ConfigDict) or TURNS not in values:
            raise ConfigError(f"{where}={values!r}: expected a group, as world_set(config, ...) makes")
        turns = values.turns
        if not isinstance(turns, int) or turns < 0:
            raise ConfigError(f"{where}.turns={turns!r}: expected a whole number of turns; 0 leaves it out")
        if config.data.kind != "worlds":
            raise ConfigError(f"{where}: sets are of worlds, and config.data.kind={config.data.kind!r}")
    if len(config.data.sets) and not turns_of(config):
        raise ConfigError(f"config.data.sets: none of {', '.join(config.data.sets)} has turns")
