"""One run at a time in a run directory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from camctrl_jax.errors import UserError
from camctrl_jax.files.lock import held

LOCK_FILE = "run.lock"


class RunInProgress(UserError):
    """Another process trains in this directory; names its host and number."""


@contextlib.contextmanager
def run_lock(run_dir: str | os.PathLike[str]) -> Iterator[None]:
    """Hold a run directory, which is made if need be, for this process (``camctrl_jax.files.lock``).

    Raises:
        RunInProgress: another process holds it.
    """
    path = Path(run_dir) / LOCK_FILE

    def refusal(who: str) -> RunInProgress:
        return RunInProgress(
            f"{path.parent} is in use: {who} trains there. Wait for it, stop it, or choose another --workdir."
        )

    with held(path, refusal):
        yield
