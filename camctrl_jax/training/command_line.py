"""The command line of a run, read before absl reads it: lists as people write them, and values named early.

absl takes the value of a list for a Python literal, and a list of folders without quotes for one folder.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from absl.flags import BooleanParser, FloatParser, IntegerParser
from ml_collections import ConfigDict

from camctrl_jax.training.values import ConfigError, value_of

# Lists of folders; those of the other lists are numbers.
FOLDERS = ("data.datasets", "data.unlabelled", "held_out.datasets")
_SINGLE = {
    int: (IntegerParser(), "a whole number, such as 100"),
    float: (FloatParser(), "a number, such as 0.5"),
    bool: (BooleanParser(), "true or false"),
}
# Of lists that recipes leave empty; of the others the recipe's own is the example.
_EXAMPLES = {
    "profile": "10,12",
    "model.patch": "1,2,2",
    "model.rope_axes": "16,24,24",
    "vae_sizes.dim_mult": "1,2,4",
    "vae_sizes.frame_wise_levels": "0,2",
}


class Override(NamedTuple):
    """``--config.KEY=VALUE`` of a command line: where it stands, and how many words it takes."""

    place: int
    words: int
    key: str
    value: str | None


def overrides_of(arguments: Sequence[str], config: ConfigDict, flag: str = "config") -> list[Override]:
    """The values that a command line changes, written ``--config.KEY=VALUE`` or ``--config.KEY VALUE``."""
    found = []
    for place, argument in enumerate(arguments):
        if argument == "--":
            break
        name, equals, value = argument.partition("=")
        key = name.lstrip("-").removeprefix(f"{flag}.")
        if not name.startswith("-") or key == name.lstrip("-"):
            continue
        if equals:
            found.append(Override(place, 1, key, value))
        elif _is_switch(config, key) or place + 1 == len(arguments):
            found.append(Override(place, 1, key, None))
        else:
            found.append(Override(place, 2, key, arguments[place + 1]))
    return found


def with_plain_lists(arguments: Sequence[str], config: ConfigDict, flag: str = "config") -> list[str]:
    """The same command line with every list as a Python literal, which absl reads.

    Folders: ``a,b``, ``a, b``, ``('a','b')``, ``(a,b)``, the option given twice, or one folder whose name
    holds a comma; nothing at all is an empty list. Numbers: ``1,0``, ``(1,0)``, the option given twice.

    Args:
        arguments: without the name of the program.
        config: the recipe, whose keys have kinds.
        flag: the option that names the recipe.

    Raises:
        ConfigError: a list that can be read in two ways or in none, or a value given to a group of keys;
            names the key, the value and what to write instead.
    """
    found = overrides_of(arguments, config, flag)
    for override in found:
        _check_group(override, config, flag)
        _check_single(override, config, flag)
    lists: dict[str, list[Any]] = {}
    dropped: set[int] = set()
    first: dict[str, int] = {}
    for override in found:
        if override.value is None or not _is_list(config, override.key):
            continue
        first.setdefault(override.key, override.place)
        lists.setdefault(override.key, []).extend(_list_of(override, config, flag))
        dropped |= set(range(override.place, override.place + override.words))
    written = {first[key]: f"--{flag}.{key}={tuple(values)!r}" for key, values in lists.items()}
    return [
        written.get(place, argument)
        for place, argument in enumerate(arguments)
        if place in written or place not in dropped
    ]


def _list_of(override: Override, config: ConfigDict, flag: str) -> tuple[Any, ...]:
    """The elements of a list as it is written on a command line."""
    key, text = override.key, override.value
    where = f"--{flag}.{key}={text}"
    if key in FOLDERS:
        return _folders(where, f"--{flag}.{key}", text)
    try:
        values = _literal(text)
    except (ValueError, SyntaxError):
        values = None
    if values is None or not all(_is_number(value) for value in values):
        usual = ",".join(map(str, value_of(config, key) or ()))
        example = usual or _EXAMPLES.get(key, "1,2")
        raise ConfigError(f"{where}: expected numbers with commas between them, such as {example}")
    return values


def _literal(text: str) -> tuple[Any, ...]:
    """A Python literal as a tuple. Raises: ValueError or SyntaxError where it is none."""
    if not text.strip():
        return ()
    value = ast.literal_eval(text.strip())
    return tuple(value) if isinstance(value, (tuple, list, set)) else (value,)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _folders(where: str, option: str, text: str) -> tuple[str, ...]:
    stripped = text.strip()
    whole = bool(stripped) and Path(stripped).exists()
    if not whole and stripped[:1] in "([{'\"":
        try:
            values = _literal(stripped)
        except (ValueError, SyntaxError):  # brackets without quotes
            stripped = stripped.strip("()[]{}")
        else:
            quoted = (
                values[0] if stripped.startswith(("'", '"')) else ""
            )  # quotes of a shell around a whole list
            if quoted and not Path(quoted).exists():
                return _folders(where, option, quoted)
            if all(isinstance(value, str) and value for value in values):
                return tuple(values)
            raise ConfigError(f"{where}: expected folders, such as {option}=data/a,data/b")
    parts = [part.strip().strip("'\"") for part in stripped.split(",")]
    if parts[-1] == "":  # a comma at the end, or nothing at all
        parts.pop()
    if whole:
        if len(parts) > 1 and all(part and Path(part).exists() for part in parts):
            several = " ".join(f"{option}={part}" for part in parts)
            raise ConfigError(
                f"{where} is one folder, and its parts are folders, too: write "
                f'"{option}={(stripped,)!r}" for the one, or {several} for several'
            )
        return (stripped,)
    if "" in parts:
        raise ConfigError(f"{where}: a name between two commas is empty; write {option}=data/a,data/b")
    joined = next(_existing_joins(parts, ","), None)
    if joined is not None:
        raise ConfigError(
            f"{where}: {joined!r} is a folder with a comma in its name: give the option once for each "
            f"folder, such as {option}={joined!r} {option}=OTHER"
        )
    words = re.split(r"[;:\s]+", stripped)
    if len(parts) == 1 and len(words) > 1 and all(Path(word).exists() for word in words):
        raise ConfigError(f"{where}: write commas between folders: {option}={','.join(words)}")
    return tuple(parts)


def _existing_joins(parts: Sequence[str], glue: str) -> Iterator[str]:
    """Names that are there when neighbouring parts, one of which is not, are put together again."""
    for first, last in itertools.combinations(range(len(parts) + 1), 2):
        names = parts[first:last]
        joined = glue.join(names)
        if len(names) > 1 and Path(joined).exists() and not all(Path(name).exists() for name in names):
            yield joined


def _check_group(override: Override, config: ConfigDict, flag: str) -> None:
    key = override.key
    try:
        group = value_of(config, key)
    except (KeyError, AttributeError, TypeError):
        return
    if not isinstance(group, ConfigDict):
        return
    given = "" if override.value is None else f"={override.value}"
    remedy = f"set one of its keys: {', '.join(f'--{flag}.{key}.{name}' for name in group)}"
    if key == "model.camera":
        remedy = f"--{flag}.model.camera.injection=none trains without a camera; or {remedy}"
    raise ConfigError(f"--{flag}.{key}{given}: {key} is a group of keys, which has no value itself; {remedy}")


def _check_single(override: Override, config: ConfigDict, flag: str) -> None:
    """Raises: ConfigError for a number or a switch that is none, which absl would end the program for."""
    kind = _kind_of(config, override.key)
    if kind not in _SINGLE or override.value is None:
        return
    parser, expected = _SINGLE[kind]
    try:
        parser.parse(override.value)
    except ValueError:
        raise ConfigError(f"--{flag}.{override.key}={override.value}: expected {expected}") from None


def _kind_of(config: ConfigDict, key: str) -> type | None:
    """The type of the values of a key, None where there is no such key."""
    group, _, name = key.rpartition(".")
    try:
        return (value_of(config, group) if group else config).get_type(name)
    except (KeyError, AttributeError, TypeError):
        return None


def _is_list(config: ConfigDict, key: str) -> bool:
    return _kind_of(config, key) in (tuple, list)


def _is_switch(config: ConfigDict, key: str) -> bool:
    """Whether a key is true or false, and needs no value."""
    return _kind_of(config, key) is bool
