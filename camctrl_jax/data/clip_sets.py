"""The datasets of a run under one running number, and what is odd about the way they were named."""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from camctrl_jax.data.clips import ClipDataset, ClipRecord, dataset_folders, open_clips
from camctrl_jax.errors import InvalidValue


@dataclass(frozen=True)
class Given:
    """A dataset as a user named it, which may lie in several shards.

    Attributes:
      folder: as it was named.
      hidden: it was named under ``unlabelled``: its cameras are ignored.
      first, last: its clips are those numbered first .. last - 1.
    """

    folder: str
    hidden: bool
    first: int
    last: int

    @property
    def clips(self) -> slice:
        """Its clips among those of all datasets."""
        return slice(self.first, self.last)


@dataclass(frozen=True, eq=False)
class ClipSets:
    """All clips of all datasets under one running number. Can be pickled for worker processes.

    Attributes:
      datasets: what lies in one folder each; the shards of a dataset are several.
      hidden: per dataset, whether its cameras are ignored.
      given: what the user named, in the same order.
      remarks: what is odd about the names, for people.
      offsets: i64 [datasets + 1], the number of the first clip of each dataset, and of all clips.
    """

    datasets: tuple[ClipDataset, ...]
    hidden: tuple[bool, ...]
    given: tuple[Given, ...]
    remarks: tuple[str, ...]
    offsets: np.ndarray

    @classmethod
    def open(cls, datasets: Sequence[str], unlabelled: Sequence[str]) -> ClipSets:
        """Open dataset folders.

        Raises:
          FileNotFoundError: a folder is not there, or holds no dataset.
          ValueError: a damaged dataset, or datasets that cannot be mixed.
        """
        opened: list[ClipDataset] = []
        hidden: list[bool] = []
        given: list[Given] = []
        clips = 0
        for folders, hide in ((datasets, False), (unlabelled, True)):
            for folder in folders:
                parts = [open_clips(part) for part in dataset_folders(folder)]
                count = sum(map(len, parts))
                given.append(Given(str(folder), hide, clips, clips + count))
                clips += count
                opened += parts
                hidden += [hide] * len(parts)
        if len({dataset.latents for dataset in opened}) > 1:
            kinds = ", ".join(f"{d.folder}: {'latents' if d.latents else 'video'}" for d in opened)
            raise InvalidValue(f"datasets with cached latents and with videos cannot be mixed ({kinds}).")
        offsets = np.cumsum([0, *map(len, opened)])
        sets = cls(tuple(opened), tuple(hidden), tuple(given), (), offsets)
        return replace(sets, remarks=(*_named_twice(datasets, unlabelled), *_copies(sets)))

    def __len__(self) -> int:
        return int(self.offsets[-1])

    @property
    def latents(self) -> bool:
        """Whether clips hold cached latents in place of videos."""
        return self.datasets[0].latents

    def locate(self, number: int) -> tuple[int, int]:
        """Dataset and number in it."""
        which = int(np.searchsorted(self.offsets, number, side="right")) - 1
        return which, int(number - self.offsets[which])

    def column(self, name: str) -> np.ndarray:
        """A field of the index over all clips."""
        return np.concatenate([dataset.index[name] for dataset in self.datasets])

    def labelled(self) -> np.ndarray:
        """bool over all clips: their cameras are known, and not ignored."""
        return np.concatenate(
            [dataset.index["labelled"] & (not hide) for dataset, hide in zip(self.datasets, self.hidden)]
        )

    def name(self, number: int) -> str:
        """Folder and id of a clip."""
        which, inside = self.locate(number)
        return self.datasets[which].clip_name(inside)

    def record(self, number: int) -> ClipRecord:
        """Read a clip. Raises ClipError when its bytes are damaged."""
        which, inside = self.locate(number)
        return self.datasets[which].read(inside)

    def fingerprint(self) -> int:
        """Of the ids of all clips in their order: equal where a number stands for the same clip."""
        return fingerprint("\n".join(self.column("id").tolist()).encode())


def fingerprint(content: bytes) -> int:
    """A number that tells contents apart; not against people who mean to deceive."""
    return zlib.crc32(content)


def shared_folders(folders: Sequence[str], others: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of names from both lists that have a dataset folder in common, links and shards followed.

    Folders that are not there share nothing.
    """
    parts = {name: _parts(name) for name in (*folders, *others)}
    return [(one, other) for one in folders for other in others if parts[one] & parts[other]]


def _parts(folder: str) -> set[str]:
    return {os.path.realpath(part) for part in dataset_folders(folder)} if Path(folder).is_dir() else set()


def _copies(sets: ClipSets) -> list[str]:
    """A sentence for every dataset whose clips have the names and sizes of those of an earlier one."""
    columns = [sets.column(name) for name in ("id", "num_frames", "height", "width", "fps", "labelled")]
    seen: dict[int, Given] = {}
    remarks = []
    for given in sets.given:
        rows = zip(*(column[given.clips].tolist() for column in columns))
        earlier = seen.setdefault(fingerprint(repr(list(rows)).encode()), given)
        if earlier is not given and not shared_folders([given.folder], [earlier.folder]):
            remarks.append(
                f"{given.folder} holds clips of the same names and sizes as {earlier.folder}: if it is a "
                "copy, they are drawn twice as often as those of others"
            )
    return remarks


def _named_twice(datasets: Sequence[str], unlabelled: Sequence[str]) -> tuple[str, ...]:
    """A sentence for every pair of names that have a folder in common."""
    remarks = []
    for option, names in (("datasets", datasets), ("unlabelled", unlabelled)):
        for place, name in enumerate(names):
            for _, other in shared_folders([name], names[:place]):
                spelt = "" if other == name else f" (the other time as {other})"
                remarks.append(
                    f"{name} is named twice under {option}{spelt}: its clips are drawn twice as often as "
                    "those of others"
                )
    for one, other in shared_folders(datasets, unlabelled):
        spelt = "" if other == one else f" (there as {other})"
        remarks.append(
            f"{one} is named under datasets and under unlabelled{spelt}: its labelled clips are drawn with "
            "their cameras, and as unlabelled clips, too"
        )
    return tuple(remarks)
