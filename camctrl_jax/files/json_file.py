"""JSON files."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from camctrl_jax.errors import InvalidValue, MissingFile, file_failures
from camctrl_jax.files.atomic import write_text
from camctrl_jax.files.foreign import what_instead


def write_json(path: str | os.PathLike[str], content: Mapping[str, Any] | list[Any]) -> None:
    """Write a JSON file so that it is either complete or absent; folders are made. NaN is refused."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The JSON object of a file.

    Raises:
        MissingFile: there is no such file.
        InvalidValue: it holds something else; a pointer or a web page in its place is named.
    """
    path = Path(path)
    if not path.exists():
        raise MissingFile(f"{path}: no such file.")
    with file_failures(path, "read"):
        raw = path.read_bytes()
    try:
        content = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # not UTF-8, or not JSON
        instead = what_instead(raw[:512], len(raw), text_expected=True)
        raise InvalidValue(f"{path} {instead or f'is not JSON: {error}.'}") from error
    if not isinstance(content, dict):
        raise InvalidValue(f"{path} holds a {type(content).__name__}, expected a JSON object.")
    return content
