"""Results of single scenes on disk: written whole or not at all, and taken again by a later run.

``clips/scene_000.json`` holds a scene's measures and the fingerprint of what they depend on, ``.npz`` beside
it its features and the frames that the strips show. A record of another fingerprint is measured anew.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import camctrl_jax
from camctrl_jax.errors import InvalidValue, MissingFile, UserError, file_failures
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

    def video(self, index: int) -> Path:
        """The video of a scene, where one is wanted."""
        return self.path(index).with_suffix(".mp4")

    def read(self, index: int) -> dict[str, Any] | None:
        """A scene's record; None where there is none, it is of something else, or it or its arrays are
        damaged."""
        record = self._record(index)
        if record is None or record.get("fingerprint") != self.fingerprint:
            return None
        # A file that was cut short lacks the list at its end; the rest is not read here, for time.
        return record if zipfile.is_zipfile(self.path(index).with_suffix(".npz")) else None

    def holds_another(self, index: int) -> bool:
        """Whether a scene's record is of something else: other settings, weights or versions."""
        record = self._record(index)
        return record is not None and record.get("fingerprint") != self.fingerprint

    def _record(self, index: int) -> dict[str, Any] | None:
        try:
            return read_json(self.path(index))
        except (InvalidValue, MissingFile):
            return None

    def write(self, index: int, record: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Keep a scene; the record comes last, so that it never stands without its arrays."""
        path = self.path(index)
        with written_file(path.with_suffix(".npz")) as file:
            np.savez_compressed(file, **arrays)
        write_json(path, {"fingerprint": self.fingerprint, **record})

    def arrays(self, index: int) -> dict[str, np.ndarray]:
        """Features and frames of a scene.

        Raises:
            InvalidValue: the file is damaged.
            FileFailure: it cannot be read.
        """
        path = self.path(index).with_suffix(".npz")
        try:
            with file_failures(path, "read"), np.load(path, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except UserError:
            raise
        except Exception as error:  # NumPy and zipfile raise many kinds on damaged files
            raise InvalidValue(
                f"{path} is damaged ({error}). Delete it and run the same command again: that scene alone is "
                "measured anew."
            ) from error
