"""Reading a dataset of annotated clips."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from camctrl_jax.data.clips.record import ClipRecord
from camctrl_jax.errors import ClipError, InvalidValue, MissingFile

INDEX_FILE, REPORT_FILE, INFO_FILE = "index.npz", "report.json", "dataset_info.json"
_SHARD_NAME = re.compile(r"(\d+)-of-(\d+)")
INDEX_FIELDS = {
    "id": np.str_,
    "num_frames": np.int32,
    "height": np.int32,
    "width": np.int32,
    "fps": np.float64,
    "labelled": np.bool_,
    "metric": np.bool_,
}


@dataclass(frozen=True, eq=False)
class ClipDataset:
    """The clips of one folder, by number. Can be pickled, so worker processes can open it too.

    Attributes:
      folder: where it lies.
      index: per field of ``INDEX_FIELDS`` an array over all clips.
      latents: whether clips hold cached latents in place of videos.
      source: the TFDS data source; use ``dataset[i]`` instead.
    """

    folder: Path
    index: dict[str, np.ndarray]
    latents: bool
    source: Any

    @property
    def name(self) -> str:
        """What messages call it: the folder's name, and that of the whole before a shard's."""
        whole = f"{self.folder.parent.name}/" if _SHARD_NAME.fullmatch(self.folder.name) else ""
        return f"{whole}{self.folder.name}"

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, number: int) -> ClipRecord:
        return ClipRecord.from_features(self.source[int(number)])

    def clip_name(self, number: int) -> str:
        """What messages call a clip."""
        return f"{self.name}/{self.index['id'][number]}"

    def read(self, number: int) -> ClipRecord:
        """``dataset[number]``. Raises ClipError when its bytes are damaged."""
        try:
            return self[number]
        except (ValueError, RuntimeError, UnicodeDecodeError, EOFError) as error:
            name = self.clip_name(number)
            raise ClipError("unreadable", f"{name}: the record cannot be read ({error}).") from error

    @property
    def text_shape(self) -> tuple[int | None, ...] | None:
        """Of the embedding of one caption, [N, D]; None if none are stored."""
        features = self.source.dataset_info.features
        return tuple(features["text"].shape[1:]) if "text" in features else None

    def __iter__(self) -> Iterator[ClipRecord]:
        return (self[number] for number in range(len(self)))

    def report(self) -> dict[str, Any]:
        """How the dataset was made: settings, counts, skipped clips. Empty if others made it."""
        return _report(self.folder)


def _report(folder: Path) -> dict[str, Any]:
    path = folder / REPORT_FILE
    return json.loads(path.read_text()) if path.exists() else {}


def is_dataset(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder looks like a TFDS dataset."""
    return all((Path(folder) / name).is_file() for name in (INFO_FILE, "features.json"))


def check_is_dataset(folder: str | os.PathLike[str]) -> None:
    """Raises: MissingFile unless a folder is a TFDS dataset; names those that lie in it or around it."""
    folder = Path(folder)
    if is_dataset(folder):
        return
    if not folder.is_dir():
        state = "is a file, not a folder" if folder.exists() else "does not exist"
        around = [parent for parent in folder.parents if parent.is_dir()][:1] if not folder.exists() else []
        near = [path for parent in around for path in _datasets_in(parent)]
        hint = f" {around[0]} holds the datasets {_listed(near)}." if near else ""
        commas = " To name several folders, give the option once for each." if "," in str(folder) else ""
        raise MissingFile(
            f"{folder} {state}, looked up from {Path.cwd()}.{hint}{commas} Make a dataset with: "
            "python -m camctrl_jax.build_dataset --help"
        )
    inside = _datasets_in(folder)
    if inside:
        raise MissingFile(
            f"{folder} is no dataset itself, but holds some: name them one by one ({_listed(inside)})."
        )
    raise MissingFile(
        f"{folder} holds no dataset of clips. Make one with: python -m camctrl_jax.build_dataset --help"
    )


def _datasets_in(folder: Path) -> list[Path]:
    """The datasets that lie one level below a folder, whole or in shards."""
    try:
        below = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError:
        return []
    return [path for path in below if is_dataset(path) or shards_of(path)]


def _listed(paths: list[Path]) -> str:
    return ", ".join(map(str, paths[:5])) + (f" and {len(paths) - 5} more" if len(paths) > 5 else "")


def dataset_folders(folder: str | os.PathLike[str]) -> list[Path]:
    """The datasets of a folder: itself, or its shards where a sharded job made it (00003-of-00016, ...).

    Raises:
      FileNotFoundError: shards are missing.
      ValueError: the shards were not made by one job.
    """
    folder = Path(folder)
    shards = {} if is_dataset(folder) else shards_of(folder)
    if not shards:
        return [folder]
    counts = {count for _, count in shards.values()}
    if len(counts) > 1:
        raise InvalidValue(f"{folder} holds shards of {sorted(counts)}: delete those of one of the jobs.")
    jobs: dict[tuple, list[str]] = {}
    for path in shards:
        report = _report(path)
        jobs.setdefault((report.get("job"), report.get("latents_of")), []).append(path.name)
    if len(jobs) > 1:
        kinds = "; ".join(", ".join(names) for names in jobs.values())
        raise InvalidValue(
            f"{folder} holds shards of different clips, text or autoencoders ({kinds}): encode those of one "
            "kind again with --overwrite."
        )
    missing = sorted(set(range(counts.pop())) - {index for index, _ in shards.values()})
    if missing:
        raise MissingFile(
            f"{folder}: of {len(shards) + len(missing)} shards these are missing: "
            f"{', '.join(map(str, missing))}. Run build_dataset latents with their --shard."
        )
    return list(shards)


def shards_of(folder: Path) -> dict[Path, tuple[int, int]]:
    """The shards that are there so far, in order: {folder: (index, count)}."""
    if not folder.is_dir():
        return {}
    named = {path: _SHARD_NAME.fullmatch(path.name) for path in sorted(folder.iterdir())}
    return {path: (int(name[1]), int(name[2])) for path, name in named.items() if name and is_dataset(path)}


def open_clips(folder: str | os.PathLike[str]) -> ClipDataset:
    """Open a dataset folder that ``build_dataset`` wrote.

    Raises:
      FileNotFoundError: there is no such folder, or no dataset in it.
      ValueError: a dataset of something else, a damaged one, or one whose files do not belong together.
    """
    # Takes seconds to import, which commands that open no dataset should not wait for.
    import tensorflow_datasets as tfds

    folder = Path(folder)
    check_is_dataset(folder)
    with _named_damage(folder):
        builder = tfds.builder_from_directory(folder)
    missing = {"id", "world_from_camera", "captions", "num_frames", "labelled"} - set(builder.info.features)
    if missing or not {"video", "latents"} & set(builder.info.features):
        raise InvalidValue(
            f"{folder} is a TFDS dataset, but not one of annotated clips: it has the features "
            f"{sorted(builder.info.features)}."
        )
    with _named_damage(folder):
        source = builder.as_data_source(split="train")
        dataset = ClipDataset(folder, {}, "latents" in builder.info.features, source)
        path = folder / INDEX_FILE
        if path.exists():
            with np.load(path, allow_pickle=False) as stored:
                dataset.index.update({name: stored[name] for name in INDEX_FIELDS})
        else:
            dataset.index.update(_scanned_index(dataset))
    if len(dataset.index["id"]) != len(source):
        raise InvalidValue(
            f"{folder}: {INDEX_FILE} lists {len(dataset.index['id'])} clips, the dataset holds "
            f"{len(source)}. The files do not belong together; build the dataset again, or delete "
            f"{INDEX_FILE} to have it ignored."
        )
    return dataset


@contextlib.contextmanager
def _named_damage(folder: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # TFDS, ArrayRecord and NumPy raise many kinds, few of which name the folder
        raise InvalidValue(
            f"{folder}: the dataset cannot be opened; it is incomplete or damaged: copy or build it again "
            f"({type(error).__name__}: {error})."
        ) from error


def _scanned_index(dataset: ClipDataset) -> dict[str, np.ndarray]:
    """The index of a dataset that has none, by reading every record once."""
    columns: dict[str, list] = {name: [] for name in INDEX_FIELDS}
    for record in dataset:
        for name, values in columns.items():
            values.append(getattr(record, name))
    return {name: np.asarray(values, INDEX_FIELDS[name]) for name, values in columns.items()}
