"""Errors that a person can act on.

What this package raises on purpose is a :class:`UserError`: its message names the file or value, what was
expected, and what to do instead. An entry point prints it as one sentence; anything else is a fault of the
program and shows its traceback. Where Python has a class of its own for the case, the error is that as well
(``ValueError``, ``FileNotFoundError``), so that programs can catch either.
"""

from __future__ import annotations

import contextlib
import errno
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class UserError(Exception):
    """The base of every error that a person can act on."""


class InvalidValue(UserError, ValueError):
    """A value that cannot work."""


class MissingFile(UserError, FileNotFoundError):
    """A file or folder that is not there."""


class FileInUse(UserError, FileExistsError):
    """A name that is taken, where writing would lose something."""


class FileFailure(UserError, OSError):
    """A file that cannot be read or written: no permission, a full disk, a network disk that is gone."""

    @property
    def disk_full(self) -> bool:
        """Whether there was no room for it."""
        return isinstance(self.__cause__, OSError) and self.__cause__.errno in _DISK_FULL


class ClipError(UserError):
    """A single clip cannot be used; others can.

    Attributes:
        reason: a short fixed word to count by, e.g. ``truncated``.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.reason, str(self))


@contextlib.contextmanager
def file_failures(path: str | Path, doing: str = "write") -> Iterator[None]:
    """Inside, an OSError of the system becomes a :class:`FileFailure` that names ``path`` and the remedy."""
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        full = error.errno in _DISK_FULL
        reason = "the disk is full" if full else error.strerror or str(error)
        remedy = "free some space, or choose another place" if full else "mend the path, or choose another"
        raise FileFailure(f"cannot {doing} {path}: {reason}; {remedy}.") from error


def exit_status(work: Callable[[], int | None], failed: int = 1) -> int:
    """Run the work of an entry point.

    Args:
        work: its result, if any, is the exit status.
        failed: the status where it raises a :class:`UserError`, which is printed on standard error.
    """
    try:
        return work() or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return failed
