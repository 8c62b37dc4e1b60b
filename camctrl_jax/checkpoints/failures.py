"""What reading and writing checkpoints fails with, in one sentence: what is proven, and what to do."""

from __future__ import annotations

import contextlib
import errno
import json
from collections.abc import Iterator
from pathlib import Path

from camctrl_jax.errors import UserError
from camctrl_jax.parallel.hosts import is_peer_lost

_ITEMS = ("state", "data", "config")  # of every checkpoint


class CheckpointError(UserError):
    """A checkpoint cannot be written, found or used; the message says which, why, and what to do."""


# What Orbax and tensorstore say of files whose content is not what was written.
_DAMAGE = (
    "DATA_LOSS",
    "OUT_OF_RANGE",
    "FAILED_PRECONDITION: Error opening",
    "checksum",
    "CRC32C",
    "Error decoding",
    "Error parsing",
    "corrupt",
    "truncated",
    "unexpected end",
    "Invalid JSON",
    "is missing",
    "NOT_FOUND",
    "does not exist",
)


def is_damage(error: BaseException, checkpoint: Path) -> bool:
    """Whether an error of reading a checkpoint proves that its files are not what was written.

    Too little memory, no permission or a network disk that is gone prove nothing: the same files may be read
    tomorrow. So a file that is not found is proof only where others of the checkpoint are.
    """
    try:
        if not any(checkpoint.iterdir()):
            return False
    except OSError:
        return False
    proves_nothing = ("RESOURCE_EXHAUSTED", "PERMISSION_DENIED", "UNAVAILABLE", "Permission denied")
    if isinstance(error, MemoryError) or any(sign in str(error) for sign in proves_nothing):
        return False
    if isinstance(error, OSError):
        return isinstance(error, FileNotFoundError)
    if isinstance(error, json.JSONDecodeError):
        return True
    return isinstance(error, (ValueError, RuntimeError, KeyError)) and any(
        sign.lower() in str(error).lower() for sign in _DAMAGE
    )


@contextlib.contextmanager
def read_errors(checkpoint: Path) -> Iterator[None]:
    """What reading a checkpoint fails with becomes one sentence; that it is damaged, and can be deleted, only
    where that is proven. Faults of the program stay what they are."""
    try:
        yield
    except UserError:
        raise
    except Exception as raised:
        # Orbax wraps what reading an array fails with in an error of no class of its own.
        error = raised.__cause__ if type(raised) is Exception and raised.__cause__ else raised
        if is_peer_lost(error):
            raise error from None
        if not isinstance(error, (OSError, MemoryError, ValueError, RuntimeError, KeyError)):
            raise
        lines = str(error).splitlines() or [""]
        reason = f"{type(error).__name__}: {lines[0][:200]}"
        missing = _missing_items(checkpoint) if isinstance(error, (KeyError, FileNotFoundError)) else []
        if missing:
            raise CheckpointError(
                f"{checkpoint} cannot be read: it is damaged, {' and '.join(f'{item}/' for item in missing)} "
                f"{'is' if len(missing) == 1 else 'are'} missing from it. Copy it again from where it is "
                "whole, or delete that folder to continue from the checkpoint before it."
            ) from error
        if is_damage(error, checkpoint):
            raise CheckpointError(
                f"{checkpoint} cannot be read ({reason}): it is damaged. Delete that folder to continue "
                "from the checkpoint before it."
            ) from error
        raise CheckpointError(
            f"{checkpoint} cannot be read ({reason}). Nothing says that it is damaged: keep it, mend the "
            "cause (memory, permissions, a network disk), and start the same command again."
        ) from error


def _missing_items(checkpoint: Path) -> list[str]:
    """Which of a checkpoint's parts are not there, where others are; none where it cannot be listed."""
    try:
        there = {entry.name for entry in checkpoint.iterdir()}
    except OSError:
        return []
    return [item for item in _ITEMS if item not in there] if there else []


# How one goes on after a failed write: a run, and something that is written once, as a whole.
_FROM_THE_LAST = (
    "Checkpoints that were complete stay as they are; free some space (or mend the path), then start the "
    "same command again to continue from the last one."
)
ONCE_MORE = (
    "Nothing is left of it: free some space (or choose another place), then give the same command again."
)


@contextlib.contextmanager
def write_errors(path: Path, remedy: str = _FROM_THE_LAST) -> Iterator[None]:
    """Turn what a failed write looks like (from Python, or from tensorstore's C++) into a CheckpointError.

    Args:
        path: what was written.
        remedy: what became of it, and how to go on.
    """
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        full = full or any(text in str(error) for text in ("No space left", "quota", "File too large"))
        if not full and not isinstance(error, OSError):
            raise
        reason = "the disk is full" if full else str(error)
        raise CheckpointError(f"cannot write {path}: {reason}. {remedy}") from error
