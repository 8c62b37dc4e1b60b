"""Running somebody else's program on a clip: pictures and masks out as files, results in as files.

Learned estimators need versions of Python and torch that exclude one another, so each runs in an environment
of its own, in a process group of its own. A program that hangs, dies or leaves children behind costs one clip
and
nothing else: the whole group is killed, always, and the error carries the tail of what was printed. (A child
    that
starts a session of its own leaves the group and is not found.)
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from camctrl_jax.errors import InvalidValue, MissingFile, file_failures
from camctrl_jax.estimators.protocols import EstimatorFailed, Fingerprint, hashed
from camctrl_jax.video.pictures import write_png

_TAIL_LINES, _TAIL_BYTES = 25, 4000
LOG = "log.txt"


@dataclass(frozen=True)
class Installation:
    """Where a user has a program, and how long it may take.

    Attributes:
        python: the interpreter of its environment; a path, or a name to be found on PATH.
        repository: the folder of its code, the working directory; None where it is a library.
        weights: its weights, a file or a folder each, in the order that the recipe names.
        environment: variables to set.
        time_limit: seconds for one clip, all commands together.
        keep_failed: keep the working folder of a clip that failed; the error names it.
        work_in: where working folders are made; None is the system's place for temporary files.
    """

    python: str | Path = sys.executable
    repository: Path | None = None
    weights: tuple[Path, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    time_limit: float = 1800.0
    keep_failed: bool = False
    work_in: Path | None = None

    def __post_init__(self) -> None:
        weights = (self.weights,) if isinstance(self.weights, (str, Path)) else self.weights
        object.__setattr__(self, "weights", tuple(Path(path) for path in weights))
        if isinstance(self.environment, Mapping):
            object.__setattr__(self, "environment", tuple(sorted(self.environment.items())))
        for name in ("repository", "work_in"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, Path(getattr(self, name)))
        if not self.time_limit > 0:
            raise InvalidValue(f"time_limit is {self.time_limit}; expected seconds, more than 0.")


@dataclass(frozen=True)
class Program:
    """Commands that turn one working folder into results.

    In every argument these are replaced: ``{python}``, ``{repository}``, ``{weights}`` (also ``{weights1}``,
    ``{weights2}``), and by the caller ``{work}``, ``{images}``, ``{masks}``, ``{out}`` and what else it
    names.

    Attributes:
        name: for messages and fingerprints.
        commands: run in this order; the first that fails ends it.
        installation: where it is.
        version: of the program, as far as the recipe pins one.
        needs: files of the repository without which it cannot run.
        weight_names: what the weights are called by those who publish them, as many as are needed.
        licence: of code and weights as found in public sources; every one needs a human reading.
        environment: variables to set, replaced like arguments; those of the installation win.
        linked_but: for programs that write beside their code: the working folder is filled with links to what
            the repository holds, but for these names, and is the working directory. None: the repository is.
    """

    name: str
    commands: tuple[tuple[str, ...], ...]
    installation: Installation = Installation()
    version: str = ""
    needs: tuple[str, ...] = ()
    weight_names: tuple[str, ...] = ()
    licence: str = ""
    environment: tuple[tuple[str, str], ...] = ()
    linked_but: tuple[str, ...] | None = None

    def check(self) -> None:
        """Look for everything that a run needs, before any work is done.

        Raises:
            MissingFile: naming the interpreter, folder, file or weights that are not there.
        """
        place = self.installation
        if shutil.which(str(place.python)) is None:
            raise MissingFile(
                f"{self.name}: there is no interpreter {place.python}; give the python of the environment in "
                "which the program is installed."
            )
        if place.repository is None and (
            self.needs or any("{repository}" in w for c in self.commands for w in c)
        ):
            raise MissingFile(f"{self.name}: give the folder of its code (repository).")
        if place.repository is not None and not place.repository.is_dir():
            raise MissingFile(f"{self.name}: there is no folder {place.repository} (repository).")
        for needed in self.needs:
            if not (place.repository / needed).exists():
                raise MissingFile(
                    f"{self.name}: {place.repository} holds no {needed}; is it the right folder?"
                )
        if len(place.weights) < len(self.weight_names):
            missing = ", ".join(self.weight_names[len(place.weights) :])
            raise MissingFile(f"{self.name}: give its weights: {missing}. {self.licence}")
        for path in place.weights:
            if not path.exists():
                raise MissingFile(f"{self.name}: there are no weights {path}. {self.licence}")

    def fingerprint(self) -> Fingerprint:
        """Name, commands, and the hashes of weights and of scripts that commands name; not where they lie."""
        commands = tuple(tuple(_named(word) for word in command) for command in self.commands)
        return Fingerprint(
            self.name,
            self.version,
            (("commands", commands), ("environment", self.environment + self.installation.environment)),
            hashed(self.installation.weights),
        )

    def with_commands(self, *commands: Sequence[str]) -> Program:
        """The same program called otherwise."""
        return replace(self, commands=tuple(tuple(command) for command in commands))

    def run(self, work: Path, names: Mapping[str, Path | str]) -> str:
        """Run all commands; the tail of their log.

        Args:
            work: the working folder; ``log.txt`` is written there.
            names: what is replaced in the arguments, by name.

        Raises:
            EstimatorFailed: ``timeout`` or ``crashed``.
        """
        place = self.installation
        # Commands run elsewhere: what the caller named relative to his own folder must not move. A link to an
        # interpreter is what makes an environment, so it is not followed.
        python = Path(shutil.which(str(place.python)) or place.python).absolute()
        repository = work if place.repository is None else place.repository.resolve()
        known = {"python": python, "repository": repository, "work": work, **names}
        for index, path in enumerate(place.weights):
            known["weights" if index == 0 else f"weights{index}"] = path.resolve()
        variables = {name: _filled(value, known) for name, value in self.environment}
        variables = _inherited(python) | variables | dict(place.environment)
        directory = repository
        if self.linked_but is not None:
            directory = work
            for entry in repository.iterdir():
                if entry.name not in self.linked_but and not (work / entry.name).exists():
                    (work / entry.name).symlink_to(entry.resolve())
        ends = time.monotonic() + place.time_limit
        for command in self.commands:
            words = [_filled(word, known) for word in command]
            self._run_one(words, work, directory, variables, ends)
        return log_tail(work / LOG)

    def _run_one(
        self, words: list[str], work: Path, directory: Path, variables: dict[str, str], ends: float
    ) -> None:
        place = self.installation
        with (work / LOG).open("ab") as log:
            try:
                process = subprocess.Popen(
                    words,
                    cwd=directory,
                    env=variables,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise MissingFile(f"{self.name}: {words[0]} cannot be started: {error.strerror}.") from error
            try:
                code = process.wait(timeout=max(0.0, ends - time.monotonic()))
            except subprocess.TimeoutExpired:
                code = None
            finally:
                kill_group(process)
        if code == 0:
            return
        tail = log_tail(work / LOG)
        if code is None:
            raise EstimatorFailed(
                "timeout",
                f"{self.name} was stopped after {place.time_limit:g} s. It last said:\n{tail}",
                tail,
            )
        how = f"was killed by {_signal_name(-code)}" if code < 0 else f"ended with status {code}"
        raise EstimatorFailed("crashed", f"{self.name} {how}. It last said:\n{tail}", tail)


def _inherited(python: Path) -> dict[str, str]:
    """The variables of this process, without those that make another interpreter import our packages."""
    ours = python == Path(sys.executable).absolute()
    left_out = () if ours else ("PYTHONPATH", "PYTHONHOME")
    return {name: value for name, value in os.environ.items() if name not in left_out}


def _filled(word: str, known: Mapping[str, Path | str]) -> str:
    for name, value in known.items():
        word = word.replace("{" + name + "}", str(value))
    return word


def _named(word: str) -> str:
    """A word of a command; of a script's whole path its name and hash: what it does, not where it lies."""
    if not (Path(word).is_absolute() and Path(word).is_file()):
        return word
    return " ".join(hashed([Path(word)])[0])


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def kill_group(process: subprocess.Popen) -> None:
    """Kill whatever is left of a process's group, and collect the process."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def log_tail(path: Path) -> str:
    """The last lines of a log file, printable; "(nothing)" of an empty or missing one."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return "(nothing)"
    # Of a progress bar, which overwrites its line, the last state.
    lines = [line.rstrip("\r").rpartition("\r")[2].rstrip() for line in text.split("\n")]
    return "\n".join([line for line in lines if line][-_TAIL_LINES:]) or "(nothing)"


@contextlib.contextmanager
def working_folder(program: Program) -> Iterator[Path]:
    """An empty folder for one clip, removed at the end unless the clip fails and it is to be kept.

    An :class:`EstimatorFailed` that passes gets the folder's name, in its message too, where it is kept.
    """
    place = program.installation
    if place.work_in is not None:
        with file_failures(place.work_in):
            place.work_in.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f"{program.name.replace(' ', '_')}-", dir=place.work_in)).resolve()
    keep = False
    try:
        yield work
    except EstimatorFailed as error:
        keep = place.keep_failed
        if not keep:
            raise
        message = f"{error}\nIts working folder was kept: {work}"
        raise EstimatorFailed(error.reason, message, error.log_tail, work) from error
    finally:
        if not keep:
            shutil.rmtree(work, ignore_errors=True)


def write_pictures(folder: Path, frames: np.ndarray) -> list[str]:
    """Write frames u8 [T, H, W, 3] as %05d.png, from 00000; their names."""
    names = [f"{index:05d}.png" for index in range(len(frames))]
    for name, frame in zip(names, frames, strict=True):
        write_png(folder / name, np.ascontiguousarray(frame))
    return names


def write_masks(folder: Path, masks: np.ndarray, *, ignored: int, suffix: str = "") -> None:
    """Write masks bool [T, H, W] (True = ignore) as %05d.png.

    Args:
        ignored: the value of ignored pixels: 255 or 1 where a program discards what is set, 0 where it
            discards what is not; kept pixels get 255, or 0 if ``ignored`` is not 0.
        suffix: behind the picture's name: COLMAP reads ``00000.png.png``.
    """
    kept = 0 if ignored else 255
    for index, mask in enumerate(masks):
        write_png(folder / f"{index:05d}.png{suffix}", np.where(mask, ignored, kept).astype(np.uint8))


def owed_file(work: Path, path: Path, program: str) -> Path:
    """A file that a program owes, or EstimatorFailed ``no_result`` with its log."""
    if path.exists():
        return path
    tail = log_tail(work / LOG)
    raise EstimatorFailed(
        "no_result",
        f"{program} ended well but left no {path.relative_to(work) if path.is_relative_to(work) else path}. "
        f"It last said:\n{tail}",
        tail,
    )


def owed_array(work: Path, path: Path, program: str, shape: tuple[int | None, ...]) -> np.ndarray:
    """A numeric .npy array that a program owes, of a shape (None: any size), finite values not checked.

    Raises:
        EstimatorFailed: ``no_result`` or ``bad_result``.
    """
    owed_file(work, path, program)
    try:
        array = np.load(path, allow_pickle=False)
    except Exception as error:  # NumPy raises many kinds on damaged files
        raise EstimatorFailed("bad_result", f"{program}: {path.name} is not a NumPy file: {error}") from error
    fits = array.ndim == len(shape) and all(b in (None, a) for a, b in zip(array.shape, shape))
    if not fits or array.dtype.kind not in "biuf":
        wanted = ["any" if size is None else size for size in shape]
        raise EstimatorFailed(
            "bad_result", f"{program}: {path.name} is {array.dtype}{list(array.shape)}, expected {wanted}."
        )
    return array
