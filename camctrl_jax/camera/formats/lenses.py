"""Whether a JSON file says, in one of many ways, that its pictures are no pinhole's."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from camctrl_jax.camera.formats.posefile import Source

_OTHER_LENS = re.compile(
    r"fish.?eye|equi.?distant|equi.?solid|equi.?rect|(?<![a-z])omni(?![a-z])|omni.?(?:direct|stereo)|"
    r"spherical(?!.?harm)|panoram|lat.?long|orthographic|f.?theta",
    re.IGNORECASE,
)
_NAMES = re.compile(r"path|file|name|url|dir|caption|prompt|comment", re.IGNORECASE)
_FALSE = ("", "0", "0.0", "false", "no", "none", "null", "[]", "{}")


def check_pinhole(source: Source, where: str, mapping: Mapping[str, Any]) -> None:
    """Refuse a file or a frame whose keys or values name another lens than a pinhole's.

    Args:
        source: the file.
        where: the place of the mapping in it, "" at the top.
        mapping: its keys and values; objects in it are looked through, lists (of frames) are not.

    Raises:
        PoseFileError: naming the key and its value.
    """
    for key, value in _said(mapping):
        if str(value).strip().lower() not in _FALSE:
            source.fail(
                f"{where}, {key}" if where else key,
                f"is {str(value)[:60]}: the pictures are not a pinhole's. Undistort them, or cut pinhole "
                "views, first",
            )


def _said(mapping: Mapping[str, Any], inside: str = "") -> Iterator[tuple[str, Any]]:
    """The keys that speak of another lens, or whose values do, and these values."""
    for name, value in mapping.items():
        key = inside + str(name)
        if _NAMES.search(str(name)):
            continue  # of a picture, which may be called anything
        if _OTHER_LENS.search(str(name)) or (isinstance(value, str) and _OTHER_LENS.search(value)):
            yield key, value
        elif isinstance(value, dict):
            yield from _said(value, f"{key}.")
