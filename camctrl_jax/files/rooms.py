"""The hidden folders that content grows in before it takes its name, and what killed writers left in them.

The room of ``name`` is ``.name.0.partial`` beside it, or, while other writers are at work on the same name,
``.name.1.partial`` and so on. A writer holds the system's lock on a file in its room. The kernel drops that
lock with its process, however it ended, so whoever writes to the name next can tell a room that was left from
one that is in use, and removes the former. What cannot be told is left where it is, and said: a file system
without locks, or a room of another machine, whose locks a network disk may keep to itself.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import json
import os
import shutil
import socket
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

_LOCK, _ASIDE = ".lock", ".replaced"  # after the name of what is written: neither is ever that name
_HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
_BOOT = Path("/proc/sys/kernel/random/boot_id")
# Rooms in a row that are not there, after which no further one is looked for.
_ABSENT = 4


def room_prefix(path: Path) -> str:
    """What the paths of all rooms of ``path`` begin with."""
    return str(path.parent / f".{path.name}.")


def kept_aside(room: Path, name: str) -> Path:
    """Where a folder waits in ``room`` while its successor takes its name."""
    return room / f"{name}{_ASIDE}"


@contextlib.contextmanager
def own_room(path: Path) -> Iterator[Path]:
    """An empty room for the next content of ``path``, removed with whatever is in it when it is left.

    Rooms that killed writers left are removed. The folder of ``path`` must exist.
    """
    room, lock = None, None
    try:
        number, room, lock = _taken_room(path)
        _tidy_after(number, path)
        yield room
    finally:
        if room is not None:
            shutil.rmtree(room, ignore_errors=True)
        if lock is not None:
            os.close(lock)  # after the room is gone: until then it is in use


def _room(path: Path, number: int) -> Path:
    return Path(f"{room_prefix(path)}{number}.partial")


def _taken_room(path: Path) -> tuple[int, Path, int]:
    """Make the first room that nobody is in: its number, itself, and the open file that holds its lock."""
    for number in itertools.count():
        room = _room(path, number)
        for _ in range(100):  # as often as others take it, or tidy it away, in between
            try:
                room.mkdir()
            except FileExistsError:
                if _removed(room, path):
                    continue
                break
            try:
                lock = _locked(room / f"{path.name}{_LOCK}")
            except BaseException:  # a full disk, a signal
                shutil.rmtree(room, ignore_errors=True)
                raise
            if lock is not None:
                return number, room, lock
    raise AssertionError("numbers do not end")


def _tidy_after(number: int, path: Path) -> None:
    """Remove what several writers left, that were killed while they wrote the same name at once."""
    absent = 0
    for other in itertools.count(number + 1):
        room = _room(path, other)
        if os.path.lexists(room):
            absent = 0
            _removed(room, path)
        else:
            absent += 1
            if absent == _ABSENT:
                return


def _locked(file: Path) -> int | None:
    """Make and lock a room's lock file. None if the room was tidied away, as an empty one may be."""
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    except (FileNotFoundError, FileExistsError):
        return None
    try:
        if _lock(descriptor) == "held" or not _is_still(file, descriptor):
            os.close(descriptor)
            return None
        writer = {"host": socket.gethostname(), "boot": _boot(), "process": os.getpid()}
        os.write(descriptor, json.dumps(writer | {"since": time.strftime("%F %T")}).encode())
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _removed(room: Path, path: Path) -> bool:
    """Remove a room if its writer is surely gone. False if it is still there."""
    file = room / f"{path.name}{_LOCK}"
    try:
        descriptor = os.open(file, os.O_RDWR)
    except FileNotFoundError:  # between a room and its lock file, or none of ours: only if nothing is in it
        with contextlib.suppress(OSError):
            room.rmdir()
        return not os.path.lexists(room)
    except OSError:
        return False
    try:
        state = _lock(descriptor)
        if state == "held":
            return False
        writer = _writer(descriptor)
        if state == "unknown" or writer.get("boot", "") != _boot():
            _say_left(room, writer)
            return False
        if _is_still(file, descriptor):
            _put_back(kept_aside(room, path.name), path)
            for entry in room.iterdir():
                if entry != file:
                    _remove(entry)
            shutil.rmtree(room, ignore_errors=True)  # the lock file last: while it is there, it is held
        return not os.path.lexists(room)
    finally:
        os.close(descriptor)


def _put_back(aside: Path, path: Path) -> None:
    """A writer that was killed between two renames had moved the old content aside: it is the only copy."""
    if aside.exists() and not os.path.lexists(path):
        os.replace(aside, path)


def _remove(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            entry.unlink()


def _lock(descriptor: int) -> Literal["ours", "held", "unknown"]:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return "held" if error.errno in _HELD else "unknown"
    return "ours"


def _is_still(file: Path, descriptor: int) -> bool:
    """Whether the open file is the one of that name."""
    try:
        return os.path.samestat(os.stat(file), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _writer(descriptor: int) -> dict[str, object]:
    """Who made a lock file. Killed before it was told, it is of no other machine that could be known."""
    try:
        content = json.loads(os.pread(descriptor, 4096, 0) or b"{}")
    except ValueError:
        content = None
    return content if isinstance(content, dict) and content else {"boot": _boot()}


def _boot() -> str:
    """Names the running kernel: what shares it shares its locks. Empty where the system does not tell."""
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return ""


def _say_left(room: Path, writer: dict[str, object]) -> None:
    who = f"process {writer.get('process', '?')} on {writer.get('host', '?')}"
    warnings.warn(
        f"{room} is left of an earlier write ({who}, since {writer.get('since', '?')}), and it cannot be "
        "told from here whether that goes on: delete the folder if it does not.",
        RuntimeWarning,
        stacklevel=2,
    )
