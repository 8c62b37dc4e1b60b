"""Writing a dataset of annotated clips so that it is either there as a whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from camctrl_jax.data.clips.dataset import INDEX_FIELDS, INDEX_FILE, REPORT_FILE, is_dataset, open_clips
from camctrl_jax.data.clips.record import ClipRecord
from camctrl_jax.errors import FileFailure, FileInUse, UserError
from camctrl_jax.files.atomic import replaced_folder

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class EmptyDataset(UserError):
    """There was not one usable clip to write."""


def check_target(out: str | os.PathLike[str], overwrite: bool) -> Path:
    """The folder to write, as a path. Raises FileInUse where writing would lose something."""
    out = Path(out)
    if not out.exists() and not out.is_symlink():
        return out
    if out.is_dir() and not any(out.iterdir()):
        return out
    if not is_dataset(out):
        raise FileInUse(
            f"{out} exists and is not a dataset of clips: it will not be touched. Choose another --out."
        )
    if not overwrite:
        raise FileInUse(
            f"{out} already holds a dataset. Add --overwrite to replace it, or choose another --out."
        )
    return out


def write_clips(
    out: str | os.PathLike[str],
    records: Iterable[ClipRecord],
    *,
    report: Callable[[], dict[str, Any]] = dict,
    overwrite: bool = False,
) -> int:
    """Write a dataset and return its number of clips.

    Everything is built in a hidden folder beside ``out``, read back, and renamed when complete; whatever goes
    wrong before leaves no trace under the final name, and an older dataset there stays as it was.

    Args:
      out: the dataset folder.
      records: valid records, all with videos or all with latents of one size, all with text embeddings or
        none.
      report: called when all records are written; its result becomes ``report.json``.
      overwrite: replace a dataset that is already there.

    Raises:
      FileInUse: see ``check_target``.
      EmptyDataset: there is no record.
      FileFailure: also for a full disk, with what to do about it.
    """
    out = check_target(out, overwrite)
    with replaced_folder(out, overwrite=overwrite) as partial, _explained_disk_errors(out):
        records = iter(records)
        first = next(records, None)
        if first is None:
            raise EmptyDataset(f"{out}: no usable clip was found; nothing was written.")
        index: dict[str, list] = {name: [] for name in INDEX_FIELDS}
        _build(partial, itertools.chain([first], records), first, index)
        with open(partial / INDEX_FILE, "wb") as file:
            np.savez(file, **{name: np.asarray(values, INDEX_FIELDS[name]) for name, values in index.items()})
        (partial / REPORT_FILE).write_text(json.dumps(report(), indent=2) + "\n")
        return _read_back(partial, len(index["id"]))


def _build(folder: Path, records: Iterator[ClipRecord], first: ClipRecord, index: dict[str, list]) -> None:
    """Run the builder; what it makes lies in ``folder`` itself."""
    # TFDS takes seconds to import, and who only reads names and errors from here needs none of it.
    from camctrl_jax.data.clips.builder import Clips

    def noted() -> Iterator[ClipRecord]:
        for record in records:
            record.validate()
            for name, values in index.items():
                values.append(getattr(record, name))
            yield record

    builder = Clips(
        noted(),
        latent_shape=None if first.latents is None else tuple(first.latents.shape[1:]),
        text_shape=None if first.text is None else tuple(first.text.shape[1:]),
        data_dir=folder,
    )
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS announces the temporary folder to the user
        builder.download_and_prepare()
    made = Path(builder.data_dir)  # name and version of the dataset below ``folder``
    for path in list(made.iterdir()):
        path.rename(folder / path.name)
    shutil.rmtree(folder / made.relative_to(folder).parts[0])


def _read_back(folder: Path, expected: int) -> int:
    """Open what was written and read its last record: a file cut short by a full disk fails here."""
    dataset = open_clips(folder)
    if len(dataset) != expected:
        raise OSError(
            errno.EIO, f"{expected} clips were written, {len(dataset)} can be read back", str(folder)
        )
    dataset[expected - 1]
    return expected


@contextlib.contextmanager
def _explained_disk_errors(out: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:
        number = _disk_error_number(error)
        if number is None:
            raise
        free = shutil.disk_usage(out.parent).free
        raise FileFailure(
            f"cannot write {out}: {os.strerror(number)} ({free / 2**20:.0f} MiB free); the unfinished "
            "dataset was removed and nothing was written under its name. Free some space or choose "
            "another --out."
        ) from OSError(number, os.strerror(number))


def _disk_error_number(error: OSError | RuntimeError) -> int | None:
    """The errno of a full disk, else None. ArrayRecord raises RuntimeError with the system's words for it."""
    if isinstance(error, OSError) and error.errno in _DISK_FULL:
        return error.errno
    return next((number for number in _DISK_FULL if os.strerror(number) in str(error)), None)
