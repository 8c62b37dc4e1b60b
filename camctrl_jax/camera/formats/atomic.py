"""Writing so that a reader never sees half a file under its final name."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO


def write_file(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Call ``write`` with an open binary file beside ``path``, then move it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)  # mkstemp makes files private
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with ``\\n`` line ends."""
    write_file(path, lambda file: file.write(text.encode("utf-8")))


def is_in_use(directory: Path) -> bool:
    """Whether a folder's name is taken: by a file, or by a folder that is not empty."""
    return directory.exists() and (not directory.is_dir() or any(directory.iterdir()))


@contextlib.contextmanager
def folder_when_complete(directory: Path) -> Iterator[Path]:
    """A folder beside ``directory`` to fill; on success it takes that name, on any error it is removed.

    ``directory`` must not be in use (:func:`is_in_use`).
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}."))
    try:
        yield partial
        partial.chmod(0o755)  # mkdtemp makes folders private
        if directory.exists():
            directory.rmdir()
        partial.rename(directory)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
