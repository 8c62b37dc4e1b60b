"""One process at a time in a folder: a lock that the kernel drops with its process, however that ended."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from camctrl_jax.errors import UserError, file_failures

_HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)


@contextlib.contextmanager
def held(path: str | os.PathLike[str], refusal: Callable[[str], UserError]) -> Iterator[None]:
    """Hold a lock file, which is made if need be with its folder, until the context is left.

    What a killed process held is free again. The file's content tells people who holds it. It is never
    removed: a lock belongs to a file, and another start could hold the one that was removed. A second lock on
    the same file is refused inside one process, too.

    Args:
        path: of the lock file.
        refusal: from who holds it ("process 5 on host (since ...)") to the error that is raised.

    Raises:
        UserError: what ``refusal`` makes, if the lock is held.
        FileFailure: the file cannot be made.
    """
    path = Path(path)
    with file_failures(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0)
    try:
        _lock(file.fileno(), path, refusal)
        yield
    finally:
        file.close()  # of its own, as modules are gone when a process that never left the context ends


def _lock(descriptor: int, path: Path, refusal: Callable[[str], UserError]) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _HELD:
            return  # a file system without locks: nothing can be told
        raise refusal(_holder(path)) from error
    holder = {"host": socket.gethostname(), "process": os.getpid(), "since": time.strftime("%F %T")}
    with contextlib.suppress(OSError):  # a full disk: the lock holds without a name
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, (json.dumps(holder) + "\n").encode(), 0)


def _holder(path: Path) -> str:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        holder = json.loads(path.read_text())
        return f"process {holder['process']} on {holder['host']} (since {holder['since']})"
    return "another process"
