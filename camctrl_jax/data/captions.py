"""Captions of sources, as people write them down."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping
from pathlib import Path

from camctrl_jax.data.sources import below
from camctrl_jax.errors import ClipError, InvalidValue, MissingFile


class Captions:
    """Captions of sources, one or more phrasings each.

    Read from a folder with ``NAME.txt`` per source (one phrasing per line), a ``.txt`` file (for every
    source), a ``.json`` (name -> text or list of texts), a ``.jsonl`` (``{"file": .., "caption": ..}`` per
    line) or a ``.csv`` with the columns file and caption; repeated rows are further phrasings. Names may have
    a folder and a suffix.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise MissingFile(f"--captions {self.path}: no such file or folder.")
        self._for_all: tuple[str, ...] | None = None
        self._used: set[str] = set()
        self._by_name: Mapping[str, list[str]] = {}
        suffix = self.path.suffix.lower()
        if self.path.is_dir():
            return
        if suffix == ".txt":
            self._for_all = self._lines(self.path)
        elif suffix in (".json", ".jsonl", ".csv"):
            self._by_name = self._table(suffix)
        else:
            raise InvalidValue(f"--captions {self.path}: expected a folder, .txt, .json, .jsonl or .csv.")

    def _lines(self, path: Path) -> tuple[str, ...]:
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise ClipError("bad_caption", f"{path}: not UTF-8 text ({error}).") from error
        found = tuple(line.strip() for line in lines if line.strip())
        if not found:
            raise ClipError(
                "empty_caption", f"{path}: the caption file is empty; write a caption or delete it."
            )
        return found

    def _table(self, suffix: str) -> dict[str, list[str]]:
        where, table = "the file", {}
        try:
            text = self.path.read_text(encoding="utf-8-sig")
            if suffix == ".json":
                for name, value in json.loads(text).items():
                    where = repr(name)
                    table[name] = [value] if isinstance(value, str) else list(value)
                    _check_texts(table[name])
                return table
            rows = text.splitlines() if suffix == ".jsonl" else csv.DictReader(text.splitlines())
            for number, row in enumerate(rows, start=1 if suffix == ".jsonl" else 2):
                where = f"line {number}"
                if suffix == ".jsonl":
                    if not row.strip():
                        continue
                    row = json.loads(row)
                _check_texts([row["file"], row["caption"]])
                table.setdefault(row["file"], []).append(row["caption"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:  # not UTF-8 or JSON, not a table
            raise InvalidValue(
                f"--captions {self.path}: {where} cannot be read ({type(error).__name__}: {error}); expected "
                "file names with their captions, in UTF-8."
            ) from error
        return table

    def find(self, source: Path, root: Path) -> tuple[str, ...]:
        """The captions of a source. Raises ClipError ``no_caption`` or ``empty_caption``."""
        if self._for_all is not None:
            return self._for_all
        place = below(source, root)
        if self.path.is_dir():
            for name in (place.with_suffix(".txt"), Path(f"{place}.txt"), Path(f"{place.stem}.txt")):
                if (self.path / name).is_file():
                    self._used.add(str(name))
                    return self._lines(self.path / name)
            raise ClipError(
                "no_caption", f"{source}: no caption; expected {self.path / place.with_suffix('.txt')}."
            )
        for name in (str(place), str(place.with_suffix("")), place.name, place.stem):
            if name in self._by_name:
                self._used.add(name)
                found = tuple(text.strip() for text in self._by_name[name] if text.strip())
                if not found:
                    raise ClipError(
                        "empty_caption", f"{source}: the caption of {name!r} in {self.path} is empty."
                    )
                return found
        raise ClipError("no_caption", f"{source}: {self.path} has no caption for {str(place)!r}.")

    def unmatched(self) -> list[str]:
        """Captions that were never asked for: their video is missing, or has another name."""
        if self.path.is_dir():
            names = [str(file.relative_to(self.path)) for file in self.path.rglob("*.txt")]
        else:
            names = list(self._by_name)
        return [f"{self.path}: {name}" for name in sorted(set(names) - self._used)]


def _check_texts(values: list) -> None:
    if not all(isinstance(value, str) for value in values):
        raise TypeError(f"{values} is not text")
