"""Results of single scenes on disk: written whole or not at all, and taken again by a later run.

``clips/scene_000.json`` holds a scene's measures and the fingerprint of what they depend on, ``.npz`` beside
it its features and the frames that the strips show. A record of another fingerprint is measured anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import camctrl_jax
from camctrl_jax.errors import InvalidValue, file_failures
from camctrl_jax.files.atomic import written_file
from camctrl_jax.files.json_file import read_json, write_json

FORMAT_VERSION = 2
FOLDER = "clips"


def fingerprint_of(*parts: Any) -> str:
    """Of JSON-able parts and this package's version, 16 hexadecimal digits."""
    text = json.dumps([FORMAT_VERSION, camctrl_jax.__version__, *parts], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Store:
    """Records of one evaluation.

    Attributes:
        out: its folder.
        fingerprint: of everything that a record depends on.
    """

    out: Path
    fingerprint: str

    def path(self, index: int) -> Path:
        """The record of a scene; its arrays have the suffix ``.npz``."""
        return self.out / FOLDER / f"scene_{index:03d}.json"

    def read(self, index: int) -> dict[str, Any] | None:
        """A scene's record; None where there is none, or it is of something else or damaged."""
        path = self.path(index)
        if not path.exists() or not path.with_suffix(".npz").exists():
            return None
        try:
            record = read_json(path)
        except InvalidValue:
            return None
        return record if record.get("fingerprint") == self.fingerprint else None

    def write(self, index: int, record: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Keep a scene; the record comes last, so that it never stands without its arrays."""
        path = self.path(index)
        with written_file(path.with_suffix(".npz")) as file:
            np.savez_compressed(file, **arrays)
        write_json(path, {"fingerprint": self.fingerprint, **record})

    def arrays(self, index: int) -> dict[str, np.ndarray]:
        """Features and frames of a scene."""
        path = self.path(index).with_suffix(".npz")
        with file_failures(path, "read"), np.load(path) as file:
            return {name: file[name] for name in file.files}
