"""Which files of a folder hold a model's weights: one file, or shards with an index, in one or more variants.

A variant is the same model in another precision or average, with a word in its files' names. Libraries spell
the names of shards and index in several ways (V is the variant):

    <stem>.V.safetensors
    <stem>.V-00001-of-00002.safetensors   with  <stem>.safetensors.index.V.json  or  <stem>.V.safetensors.index.json
    <stem>-00001-of-00002.V.safetensors   with  <stem>.safetensors.V.index.json
"""  # noqa: E501

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from camctrl_jax.errors import InvalidValue, MissingFile, file_failures
from camctrl_jax.files.foreign import what_instead

FULL = ""  # the weights that no variant is named for


class SafetensorsError(InvalidValue):
    """A file that is not valid safetensors; the message names the file, what is wrong and what to do."""


def weight_variants(directory: Path, stem: str) -> dict[str, Path]:
    """{variant: its one file, or its index where it has shards}; :data:`FULL` comes first.

    Nothing is opened. Shards without an index are no weights: which tensors they lack cannot be told.
    """
    word = r"[\w-]+"
    patterns = (  # later ones win: an index before a single file, as in diffusers
        rf"{stem}(?:\.(?P<v>{word}))?\.safetensors",
        rf"{stem}\.safetensors\.(?P<v>{word})\.index\.json",
        rf"{stem}\.(?P<v>{word})\.safetensors\.index\.json",
        rf"{stem}\.safetensors\.index(?:\.(?P<v>{word}))?\.json",
    )
    patterns = [re.compile(pattern.replace(f"{stem}\\", f"{re.escape(stem)}\\")) for pattern in patterns]
    names = sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []
    found: dict[str, Path] = {}
    for pattern in patterns:
        for name in names:
            match = pattern.fullmatch(name)
            if match and not re.search(r"-\d+-of-\d+$", match["v"] or ""):
                found[match["v"] or FULL] = directory / name
    return {variant: found[variant] for variant in sorted(found)}


def is_index(path: Path) -> bool:
    """Whether one of :func:`weight_variants` is an index."""
    return path.suffix == ".json"


def read_weight_map(index: Path) -> dict[str, str]:
    """{tensor: file name} of an index, checked.

    Raises:
        SafetensorsError: it is something else, or names what is no plain name of a safetensors file.
        MissingFile: files that it names are not there.
    """
    expected = 'expected JSON with a "weight_map" of tensor names to file names, as save_pretrained writes'
    with file_failures(index, "read"):
        raw = index.read_bytes()
    try:
        content = json.loads(raw.decode("utf-8"), object_pairs_hook=lambda pairs: unique(index, pairs))
    except SafetensorsError:
        raise
    except (ValueError, RecursionError) as error:
        instead = what_instead(raw[:512], len(raw), text_expected=True)
        raise SafetensorsError(f"{index} {instead or f'is not JSON ({error}); {expected}.'}") from error
    if not isinstance(content, dict) or "weight_map" not in content:
        found = (
            f"an object with {listed(content) or 'nothing'}" if isinstance(content, dict) else _kind(content)
        )
        raise SafetensorsError(f"{index} holds {found}; {expected}.")
    weight_map = content["weight_map"]
    if not isinstance(weight_map, dict) or not weight_map:
        raise SafetensorsError(f"{index}: its weight_map is {_kind(weight_map)}; {expected}.")
    for tensor, name in weight_map.items():
        _check_name(index, tensor, name)
    names = sorted(set(weight_map.values()))
    absent = [name for name in names if not (index.parent / name).exists()]
    if absent:
        which = f"{len(absent)} of its {len(names)} files are" if len(absent) > 1 else "which is"
        raise MissingFile(
            f"{index} names {listed(absent)}, {which} not there{_broken_links(index.parent, absent)}: copy "
            "the whole folder."
        )
    return weight_map


def _check_name(index: Path, tensor: str, name: Any) -> None:
    if not isinstance(name, str):
        raise SafetensorsError(
            f"{index}: weight_map gives {name!r} for tensor {tensor!r}; expected the name of a file."
        )
    if not name or name in (".", "..") or set(name) & set("/\\\0"):
        raise SafetensorsError(
            f"{index}: weight_map gives {name!r} for tensor {tensor!r}, which is no plain file name; shards "
            "lie beside their index."
        )
    if len(name.encode("utf-8", "surrogatepass")) > 255:
        raise SafetensorsError(
            f"{index}: weight_map gives a name of {len(name)} characters ({name[:40]}...) for "
            f"tensor {tensor!r}; files have names of 255 bytes at most. Copy or download it again."
        )
    if not name.endswith(".safetensors"):
        raise SafetensorsError(
            f"{index}: weight_map gives {name!r} for tensor {tensor!r}; only safetensors files are read. "
            "Save the weights with save_pretrained(..., safe_serialization=True)."
        )


def _broken_links(folder: Path, names: Sequence[str]) -> str:
    links = [name for name in names if (folder / name).is_symlink()]
    return f" ({links[0]} is a link to {(folder / links[0]).readlink()}, which is absent)" if links else ""


def unique(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of a JSON file (``object_pairs_hook``). Raises SafetensorsError: a name stands twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise SafetensorsError(f"{path} names {listed(twice)} more than once.")
    return found


def _kind(content: Any) -> str:
    if isinstance(content, (list, dict)):
        return f"{'a list' if isinstance(content, list) else 'an object'} of {len(content)} entries"
    return repr(content) if len(repr(content)) <= 60 else f"a {type(content).__name__}"


def listed(names: Iterable[str], limit: int = 8) -> str:
    """Names in a row, not more than ``limit``, and how many more."""
    names = list(names)
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
