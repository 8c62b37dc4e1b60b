"""One run at a time in a run directory."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from camctrl_jax.errors import UserError, file_failures

LOCK_FILE = "run.lock"


class RunInProgress(UserError):
    """Another process trains in this directory; names its host and number."""


@contextlib.contextmanager
def run_lock(run_dir: str | os.PathLike[str]) -> Iterator[None]:
    """Hold a run directory, which is made if need be, for this process.

    The system's lock on an open file ends with its process, however that ended, so what a killed run held is
    free again. The file's content tells people who holds it.

    Raises:
        RunInProgress: another process holds it.
    """
    path = Path(run_dir) / LOCK_FILE
    with file_failures(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Never removed: a lock belongs to a file, and another start could hold the one that was removed.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _lock(descriptor, path)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):
            return  # a file system without locks: nothing can be told
        raise RunInProgress(_refusal(path)) from error
    holder = {"host": socket.gethostname(), "process": os.getpid(), "since": time.strftime("%F %T")}
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, (json.dumps(holder) + "\n").encode(), 0)


def _refusal(path: Path) -> str:
    who = "another process"
    with contextlib.suppress(OSError, ValueError, KeyError):
        holder = json.loads(path.read_text())
        who = f"process {holder['process']} on {holder['host']} (since {holder['since']})"
    return f"{path.parent} is in use: {who} trains there. Wait for it, stop it, or choose another --workdir."
