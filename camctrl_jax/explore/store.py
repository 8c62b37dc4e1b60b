"""What is on disk: explorations, each in a folder that a program opens too, with what a page adds beside.

ROOT/explorations/ID/about.json     title, visitor, when, of which world
ROOT/explorations/ID/start.png      the picture it starts from, cropped to the size of the clips
ROOT/explorations/ID/exploration/   as ``Exploration`` writes it; not there before the first clip is
ROOT/explorations/ID/made/          what was made from clips: true renders, points
ROOT/jobs/                          ``camctrl_jax.explore.jobs``
ROOT/scratch/                       emptied at every start
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Hashable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Generic, TypeVar

import msgspec
import numpy as np
from scipy.spatial import cKDTree

from camctrl_jax.camera import Cameras
from camctrl_jax.errors import FileInUse, InvalidValue, UserError, file_failures
from camctrl_jax.explore.problems import Refusal
from camctrl_jax.files.atomic import replaced_folder
from camctrl_jax.files.json_file import read_json, write_json
from camctrl_jax.files.lock import held
from camctrl_jax.sampling.exploration import ExplorationInUse
from camctrl_jax.sampling.exploration_folder import (
    CLIPS,
    CURSOR,
    LOCK,
    SETTINGS,
    Clip,
    ExplorationFolder,
    ExplorationSettings,
    further_clips,
)
from camctrl_jax.video.decoding import read_frames
from camctrl_jax.video.pictures import write_png

ABOUT, START, FOLDER, MADE = "about.json", "start.png", "exploration", "made"
_ID = re.compile(r"e[0-9a-f]{16}")
_CLIP = re.compile(r"(e[0-9a-f]{16})\.([0-9]{4,9})")
_SIZE_HOLDS = 5.0  # seconds that a sum of file sizes is taken for true
_CAMERAS_KEPT, _TREES_KEPT, _POINTS_KEPT = 512, 2048, 4  # clips, explorations and scenes

Value = TypeVar("Value")


@dataclass(frozen=True)
class About:
    """What the page knows of an exploration beside its folder.

    Attributes:
        title: by the visitor.
        visitor: who made it.
        created: seconds since 1970.
        worlds_seed: of the world that it starts from, if it does.
    """

    title: str
    visitor: str
    created: float
    worlds_seed: int | None = None


@dataclass(frozen=True)
class Tree:
    """The clips of an exploration as they were found.

    Attributes:
        settings: None as long as there is no clip.
        clips: by name, in order of making.
        current: the name of the clip that the next one goes on from.
        problem: what is wrong with the folder; None if nothing.
    """

    settings: ExplorationSettings | None
    clips: dict[str, Clip]
    current: str | None
    problem: str | None = None


class Kept(Generic[Value]):
    """What was read last, for any thread to ask for."""

    def __init__(self, most: int) -> None:
        self._most, self._lock, self._found = most, threading.Lock(), dict[Hashable, Value]()

    def get(self, key: Hashable) -> Value | None:
        with self._lock:
            return self._found.get(key)

    def put(self, key: Hashable, value: Value) -> Value:
        with self._lock:
            self._found.pop(key, None)
            while len(self._found) >= self._most:
                del self._found[next(iter(self._found))]
            self._found[key] = value
            return value


class Store:
    """The folder of a server, which nobody else may write to while it is open.

    Attributes:
        root, most_bytes: the folder, and what it may hold.
        points: scenes that were read last, for ``camctrl_jax.explore.scenes``.
    """

    def __init__(self, root: Path, most_bytes: int) -> None:
        """Take the folder.

        Raises:
            FileInUse: another server has it.
        """
        self.root, self.most_bytes = root, most_bytes
        self._lock = contextlib.ExitStack()
        self._lock.enter_context(held(root / "server.lock", self._taken))
        self._size, self._measuring = (0.0, 0), threading.Lock()
        self._trees = Kept[tuple[tuple[tuple[int, int], ...], Tree]](_TREES_KEPT)
        self._cameras = Kept[Cameras](_CAMERAS_KEPT)
        self.points = Kept[cKDTree](_POINTS_KEPT)
        for folder in (self.explorations, self.jobs):
            folder.mkdir(parents=True, exist_ok=True)
            for left in folder.glob(".*.partial"):  # by a killed server; these names are never written again
                shutil.rmtree(left, ignore_errors=True)
        for name in self.ids():
            home = self.explorations / name
            # Made from clips of an exploration while it was deleted.
            if not (home / ABOUT).exists() and not (home / FOLDER / CLIPS).exists():
                shutil.rmtree(home, ignore_errors=True)
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir()

    @property
    def explorations(self) -> Path:
        """The folder of all explorations."""
        return self.root / "explorations"

    @property
    def jobs(self) -> Path:
        """The folder of all jobs."""
        return self.root / "jobs"

    @property
    def scratch(self) -> Path:
        """For files that no restart needs."""
        return self.root / "scratch"

    def close(self) -> None:
        """Let another server have the folder."""
        self._lock.close()

    @contextlib.contextmanager
    def own_scratch(self) -> Iterator[Path]:
        """A folder that is gone afterwards."""
        with file_failures(self.scratch), tempfile.TemporaryDirectory(dir=self.scratch) as folder:
            yield Path(folder)

    def create(self, about: About, picture: np.ndarray | None) -> str:
        """A new exploration, without clips; returns its id."""
        name = f"e{secrets.token_hex(8)}"
        with replaced_folder(self.explorations / name) as folder:
            write_json(folder / ABOUT, asdict(about))
            if picture is not None:
                write_png(folder / START, picture)
        return name

    def ids(self) -> list[str]:
        """Of all explorations."""
        with file_failures(self.explorations, "read"):
            return [entry.name for entry in self.explorations.iterdir() if _ID.fullmatch(entry.name)]

    def home(self, exploration: str) -> Path:
        """The folder of an exploration.

        Raises:
            Refusal: there is none of that id; nothing else is looked at.
        """
        home = self.explorations / exploration if _ID.fullmatch(exploration) else None
        if home is None or not (home / ABOUT).is_file():
            raise Refusal("not_found", f"There is no exploration {exploration[:80]!r}; it may be deleted.")
        return home

    def about(self, exploration: str) -> About:
        """What the page knows of it.

        Raises:
            Refusal: there is none of that id, or its file is damaged.
        """
        path = self.home(exploration) / ABOUT
        try:
            return msgspec.convert(read_json(path), About)
        except (msgspec.ValidationError, InvalidValue) as error:
            raise Refusal("conflict", f"The exploration is damaged: {path.name}: {error}") from error

    def folder(self, exploration: str) -> ExplorationFolder:
        """Its clips."""
        return ExplorationFolder(self.home(exploration) / FOLDER)

    def tree(self, exploration: str) -> Tree:
        """Its clips as they are now."""
        folder = self.folder(exploration)
        # A clip comes and goes by renaming, which changes the time of the folder that it is in.
        state = tuple(changed(folder.path / name) for name in (SETTINGS, CURSOR, CLIPS))
        known = self._trees.get(exploration)
        if known is not None and known[0] == state:
            return known[1]
        try:
            if not folder.begun():
                return Tree(None, {}, None)
            tree = Tree(*folder.read())
        except UserError as error:
            return Tree(None, {}, None, str(error))
        self._trees.put(exploration, (state, tree))
        return tree

    def clip(self, clip: str) -> tuple[str, Tree, Clip]:
        """The exploration, its clips and the clip of an id.

        Raises:
            Refusal: there is none.
        """
        found = _CLIP.fullmatch(clip)
        if found is None:
            raise Refusal("not_found", f"There is no clip {clip[:80]!r}: an id is EXPLORATION.0001.")
        tree = self.tree(found[1])
        if found[2] not in tree.clips:
            raise Refusal("not_found", f"There is no clip {clip}; it may be deleted.")
        return found[1], tree, tree.clips[found[2]]

    def cameras(self, exploration: str, clip: Clip) -> Cameras:
        """Of a clip's frames, in the frame of the exploration."""
        folder = self.folder(exploration)
        key = exploration, clip.name, changed(folder.clip(clip.name))
        found = self._cameras.get(key)
        return self._cameras.put(key, folder.read_cameras(clip)) if found is None else found

    def start_picture(self, exploration: str) -> np.ndarray | None:
        """What it starts from, u8 [H, W, 3]; None without a picture."""
        path = self.home(exploration) / START
        return next(read_frames(path)).rgb() if path.exists() else None

    def made(self, exploration: str, clip: str, file: str) -> Path:
        """Where something that was made from a clip lies."""
        return self.home(exploration) / MADE / clip / file

    def set_current(self, exploration: str, clip: str) -> None:
        """Make a clip the one that the next goes on from.

        Without the lock of the exploration, so that it may be done while a clip is made there: who makes one
        names its parent and writes no cursor, and the clip is the current one by being the newest.
        """
        folder = self.folder(exploration)
        folder.write_cursor(clip, folder.newest(folder.read()[1]))

    def delete_clip(self, exploration: str, name: str) -> None:
        """Delete a clip from which none goes on.

        Raises:
            Refusal: the first, or one that others go on from.
        """
        with self._writing(exploration) as folder:
            _, clips, current = folder.read()
            parent = clips[name].parent
            further = further_clips(clips, name)
            if parent is None:
                raise Refusal("conflict", "The first clip stays: delete the exploration instead.")
            if further:
                raise Refusal(
                    "conflict", f"Clips {', '.join(further)} go on from {name}: delete those before it."
                )
            folder.write_cursor(parent if current == name else current, folder.newest(clips))
            folder.remove_clip(name)
        shutil.rmtree(self.home(exploration) / MADE / name, ignore_errors=True)

    def remove(self, exploration: str) -> None:
        """Delete an exploration; a killed process leaves all of it or nothing that is seen again."""
        home = self.home(exploration)
        gone = self.scratch / f"{exploration}.{secrets.token_hex(4)}"
        with self._writing(exploration), file_failures(home):
            os.replace(home, gone)
        shutil.rmtree(gone, ignore_errors=True)

    def size(self) -> int:
        """Bytes on disk, as of some seconds ago at most."""
        then, size = self._size
        if then and (time.monotonic() - then <= _SIZE_HOLDS or self._measuring.locked()):
            return size
        with self._measuring:  # one at a time: a large folder takes a while
            # os.walk passes over what is deleted meanwhile, unlike Path.rglob.
            walk = os.walk(self.root)
            size = sum(_bytes(Path(folder, name)) for folder, _, names in walk for name in names)
            self._size = time.monotonic(), size
        return size

    def check_room(self) -> None:
        """That something more may be stored.

        Raises:
            Refusal: names the cap and the remedy.
        """
        if self.size() >= self.most_bytes:
            raise Refusal(
                "storage_full",
                f"The server holds {self.size() / 1e9:.2f} GB of {self.most_bytes / 1e9:.2f} GB: delete "
                "explorations that are no longer needed, or start it with a larger --storage.",
            )

    @contextlib.contextmanager
    def _writing(self, exploration: str) -> Iterator[ExplorationFolder]:
        folder = self.folder(exploration)

        def refusal(_: str) -> ExplorationInUse:
            return ExplorationInUse(
                "A clip is being made in this exploration: wait for it, or cancel it; then try again."
            )

        with held(folder.path / LOCK, refusal):
            yield folder

    def _taken(self, who: str) -> FileInUse:
        return FileInUse(f"{self.root} is in use: {who} serves it. Stop that one, or name another --folder.")


def changed(path: Path) -> tuple[int, int]:
    """What differs once a file is another one, (0, 0) if there is none.

    Its time alone may be that of the one before, where clocks of file systems tick seldom; files here are
    replaced by renaming, so that the number differs.
    """
    with contextlib.suppress(OSError):
        status = path.stat()
        return status.st_mtime_ns, status.st_ino
    return 0, 0


def _bytes(path: Path) -> int:
    with contextlib.suppress(OSError):  # deleted meanwhile
        status = path.lstat()
        return status.st_blocks * 512
    return 0
