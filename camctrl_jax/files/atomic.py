"""Writing so that a reader never sees half a file, or half a folder, under its final name.

Whatever is written goes to a hidden folder beside the final name, is synchronised to disk, and is then
renamed. On any error, a full disk or a signal included, the hidden folder is removed and what was there stays
as it was; what a killed process left is removed by the next write to the same name (``files.rooms``). The
hidden folder is made by ``mkdir`` and what is in it by ``open``, not by ``tempfile``: permissions are those
of any other file, without asking for the process's umask, which only setting it tells.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from camctrl_jax.errors import FileFailure, FileInUse, file_failures
from camctrl_jax.files.rooms import kept_aside, own_room, room_prefix

# A file system that synchronises no folders says so by one of these.
_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EACCES, errno.EISDIR)


@contextlib.contextmanager
def replaced_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path beside ``path`` to write a file to; on success it takes that name. Folders are made.

    It ends like ``path``: encoders choose their format by the suffix.

    Raises:
        FileFailure: the system refused; an older ``path`` is untouched.
    """
    path = Path(path)
    with _room_beside(path) as room:
        partial = room / path.name
        yield partial
        _synchronise(partial)
        os.replace(partial, path)
        _synchronise_folder(path.parent)


@contextlib.contextmanager
def written_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """:func:`replaced_file`, opened for writing bytes."""
    with replaced_file(path) as partial, open(partial, "wb") as file:
        yield file


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 text with ``\\n`` line ends."""
    with written_file(path) as file:
        file.write(text.encode("utf-8"))


def is_in_use(directory: Path) -> bool:
    """Whether a folder's name is taken: by a file, or by a folder that is not empty."""
    return directory.exists() and (not directory.is_dir() or any(directory.iterdir()))


@contextlib.contextmanager
def replaced_folder(directory: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[Path]:
    """A folder beside ``directory`` to fill; on success it takes that name.

    Args:
        directory: must not be in use (:func:`is_in_use`), unless ``overwrite``.
        overwrite: replace what is there, which moves aside only once its successor is complete.

    Raises:
        FileInUse: the name is taken.
        FileFailure: the system refused.
    """
    directory = Path(directory)
    if directory.is_symlink():  # what it points to is replaced: a link cannot be renamed onto
        directory = directory.resolve()
    with file_failures(directory):
        if not overwrite and is_in_use(directory):
            raise FileInUse(f"{directory} already exists and is not an empty folder: choose another.")
    with _room_beside(directory) as room:
        partial = room / directory.name
        partial.mkdir()
        yield partial
        for path in partial.rglob("*"):
            if path.is_file():
                _synchronise(path)
            elif path.is_dir():
                _synchronise_folder(path)
        _synchronise_folder(partial)
        _publish(partial, directory, aside=kept_aside(room, directory.name))
        _synchronise_folder(directory.parent)


@contextlib.contextmanager
def _room_beside(path: Path) -> Iterator[Path]:
    """A hidden folder beside ``path`` for its next content, removed with all that is in it when left."""
    with file_failures(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with _failures_of_writing(path), own_room(path) as room:
        yield room


@contextlib.contextmanager
def _failures_of_writing(path: Path) -> Iterator[None]:
    """:func:`file_failures`, but not for a file elsewhere that the caller reads while he writes."""
    elsewhere = None
    with file_failures(path):
        try:
            yield
        except FileFailure as error:  # of a file inside: its hidden place would tell nobody anything
            if room_prefix(path) in str(error) and isinstance(error.__cause__, OSError):
                raise error.__cause__ from None
            raise
        except OSError as error:
            names = [str(name) for name in (error.filename, error.filename2) if name is not None]
            if not names or any(name == str(path) or name.startswith(room_prefix(path)) for name in names):
                raise
            elsewhere = error
    if elsewhere is not None:
        raise elsewhere


def _synchronise(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _synchronise_folder(folder: Path) -> None:
    """Put a folder's names on disk: without it a power cut may undo a rename. Not every file system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise


def _publish(complete: Path, directory: Path, aside: Path) -> None:
    if not is_in_use(directory):
        if directory.exists():
            directory.rmdir()
        os.replace(complete, directory)
        return
    os.replace(directory, aside)
    try:
        os.replace(complete, directory)
    finally:
        if not directory.exists():
            os.replace(aside, directory)
