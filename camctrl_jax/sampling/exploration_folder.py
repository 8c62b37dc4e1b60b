"""An exploration on disk: what a folder of clips holds, written whole or not at all, and checked when read.

exploration.json          what holds for all clips: seed, size, how they are sampled, of which weights
cursor.json               the clip from which the exploration goes on, unless one was made since
clips/0001/clip.json      a clip: its parent, prompt, seed, sampling, which frames were retrieved
clips/0001/cameras.json   its cameras in the frame of the first camera of all (transforms.json form)
clips/0001/frames.mp4     its frames, exact: RGB in H.264, which FFmpeg, mpv and VLC play and browsers do not
clips/0001/video.mp4      the same for people and browsers, with losses
clips/0001/picture.png    of the first clip, the picture that it was given, if there was one
exploration.lock          who writes here
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

import camctrl_jax
from camctrl_jax.camera import Cameras, load_cameras, save_cameras
from camctrl_jax.diffusion.sampler import Sampling
from camctrl_jax.errors import InvalidValue, MissingFile, UserError, file_failures
from camctrl_jax.files.atomic import replaced_folder
from camctrl_jax.files.json_file import read_json, write_json
from camctrl_jax.interop.described import config_from_json, config_to_json
from camctrl_jax.sampling.pipeline import Extension
from camctrl_jax.video.decoding import read_frames
from camctrl_jax.video.encoding import write_mp4
from camctrl_jax.video.pictures import write_png

FORMAT, VERSION = "camctrl_jax exploration", 1
SETTINGS, CURSOR, CLIPS, LOCK = "exploration.json", "cursor.json", "clips", "exploration.lock"
RECORD, CAMERAS, FRAMES, VIDEO, PICTURE = (
    *("clip.json", "cameras.json"),
    *("frames.mp4", "video.mp4", "picture.png"),
)
OURS = frozenset({SETTINGS, CURSOR, CLIPS, LOCK})
_NAME = re.compile(r"[0-9]{4,9}")

_GONE = ".deleted"

Described = TypeVar("Described")


@dataclass(frozen=True)
class ExplorationSettings:
    """What holds for all clips of an exploration.

    Attributes:
        seed: that those of clips follow from.
        fps: frames per second.
        frames, height, width: of the first clip.
        extension: how every further clip goes on.
        sampling: as clips are sampled unless they are asked otherwise.
        fingerprint: of the weights that began it (``Pipeline.fingerprint``).
    """

    seed: int
    fps: float
    frames: int
    height: int
    width: int
    extension: Extension
    sampling: Sampling
    fingerprint: str


@dataclass(frozen=True)
class Clip:
    """One clip of an exploration.

    Attributes:
        name: its number in order of making, of four digits or more.
        parent: the clip that it goes on from; None of the first.
        turn: how many clips had gone on from its parent before.
        first: its first frame, counted along its line from the first clip's.
        frames: that it adds.
        prompt, seed: of the clip.
        sampling: how it was made, the shift that was used included.
        retrieved: frames of its line that it was shown besides the last ones.
        said: its path as it was asked for, where it was a text.
        fingerprint: of the weights that made it.
        made_on: the device and type of numbers that made it.
        student: whether those weights were a student's, made for few steps.
    """

    name: str
    parent: str | None
    turn: int
    first: int
    frames: int
    prompt: str
    seed: int
    sampling: Sampling
    retrieved: tuple[int, ...] = ()
    said: str = ""
    fingerprint: str = ""
    made_on: str = ""
    student: bool = False

    @property
    def number(self) -> int:
        """Its name as a number."""
        return int(self.name)

    @property
    def end(self) -> int:
        """The first frame after it."""
        return self.first + self.frames


def name_of(number: int) -> str:
    """The name of a clip."""
    return f"{number:04d}"


def storable(described: Described) -> Described:
    """A record or settings as they will be read again: numbers of NumPy become plain ones.

    Raises:
        InvalidValue: a value that could be written and not be read, or neither; better known before sampling.
    """
    kind = type(described)
    try:
        text = json.dumps(asdict(described), default=np.generic.item, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidValue(f"{kind.__name__} cannot be stored: {error}.") from error
    return config_from_json(kind, json.loads(text))


def line_of(clips: Mapping[str, Clip], name: str) -> tuple[Clip, ...]:
    """A clip and all that it goes on from, the first one first."""
    found = [clips[name]]
    while found[-1].parent is not None:
        found.append(clips[found[-1].parent])
    return tuple(reversed(found))


def further_clips(clips: Mapping[str, Clip], name: str) -> list[str]:
    """The names of those that go on from a clip, which cannot be deleted before them."""
    return [clip.name for clip in clips.values() if clip.parent == name]


def clip_seed(seed: int, turns: Iterable[int]) -> int:
    """The seed of a clip from its exploration's and its place in the tree, in [0, 2**32).

    Args:
        seed: of the exploration; the first clip has it.
        turns: of every clip from the second of its line to itself, ``Clip.turn``.
    """
    turns = list(turns)
    if not turns:
        return seed
    digest = hashlib.sha256(json.dumps([seed, *turns]).encode()).digest()
    return int.from_bytes(digest[:4], "little")


@dataclass(frozen=True)
class ExplorationFolder:
    """Reads and writes one exploration; takes no lock."""

    path: Path

    def clip(self, name: str) -> Path:
        """The folder of a clip."""
        return self.path / CLIPS / name

    def begun(self) -> bool:
        """Whether there is a clip in it.

        Raises:
            UserError: there is something else at its path.
        """
        with file_failures(self.path, "read"):
            if not self.path.exists():
                return False
            if not self.path.is_dir():
                raise InvalidValue(f"{self.path} is a file: name a folder for the exploration.")
            others = {entry.name for entry in self.path.iterdir() if not entry.name.startswith(".")}
            clips = self.path / CLIPS
            foreign = sorted(others - OURS)
            ours = CLIPS in others and (SETTINGS in others or not foreign)
            names = _clip_names(clips) if ours else []
        if names and SETTINGS not in others:
            raise MissingFile(
                f"{self.path / SETTINGS} is missing, and there are clips: put it back, or start elsewhere."
            )
        if names:
            return True
        # What a process that was killed before the first clip was complete has left does not count.
        if foreign:
            raise InvalidValue(
                f"{self.path} holds {foreign[0]} and no exploration: name a folder that is new or empty."
            )
        return False

    def read(self) -> tuple[ExplorationSettings, dict[str, Clip], str]:
        """Settings, clips in order of making, and the name of the current one. Frames are not looked at.

        Raises:
            UserError: something is missing, damaged, or of a later version; names the file and what to do.
        """
        settings = self._settings()
        with file_failures(self.path / CLIPS, "read"):
            names = _clip_names(self.path / CLIPS)
        if not names:
            raise InvalidValue(
                f"{self.path} holds no clip: its first one was never finished. Start it again there."
            )
        clips: dict[str, Clip] = {}
        for name in names:
            clips[name] = self._record(name)
            _check_place(clips[name], clips, self.clip(name) / RECORD)
        self._check_files(clips)
        return settings, clips, self._current(clips)

    def write_settings(self, settings: ExplorationSettings) -> None:
        """Write ``exploration.json``."""
        about = {
            "format": FORMAT,
            "format_version": VERSION,
            "package_version": camctrl_jax.__version__,
        }
        write_json(self.path / SETTINGS, about | config_to_json(settings))

    def write_clip(
        self,
        clip: Clip,
        cameras: Cameras,
        frames: np.ndarray,
        settings: ExplorationSettings,
        picture: np.ndarray | None = None,
    ) -> None:
        """Write a clip, all of it or nothing.

        Args:
            clip: its record.
            cameras: one for each of its frames, in the frame of the first of all.
            frames: u8 [T, H, W, 3].
            settings: of the exploration.
            picture: u8 [H, W, 3], that it was given.
        """
        size = settings.height, settings.width
        with replaced_folder(self.clip(clip.name)) as folder:
            save_cameras(cameras, folder / CAMERAS, "transforms_json", image_size=size)
            write_mp4(folder / FRAMES, frames, settings.fps, crf=None)
            write_mp4(folder / VIDEO, frames, settings.fps)
            if picture is not None:
                write_png(folder / PICTURE, picture)
            write_json(folder / RECORD, config_to_json(clip))

    def write_cursor(self, current: str, newest: int) -> None:
        """Say which clip is the current one, and the highest number that was ever given to a clip."""
        write_json(self.path / CURSOR, {"current": current, "newest": newest})

    def newest(self, clips: Mapping[str, Clip]) -> int:
        """The highest number that a clip was ever given, those that were deleted included; 0 without any.

        Args:
            clips: those that :meth:`read` finds.
        """
        return max(self._cursor().get("newest", 0), *(clip.number for clip in clips.values()), 0)

    def remove_clip(self, name: str) -> None:
        """Delete a clip; a killed process leaves all of it or nothing that is read again."""
        folder = self.clip(name)
        with file_failures(folder):
            os.replace(folder, folder.with_name(f".{name}{_GONE}"))
            for gone in folder.parent.glob(f".*{_GONE}"):  # those that a killed process left, too
                shutil.rmtree(gone, ignore_errors=True)

    def read_cameras(self, clip: Clip) -> Cameras:
        """Those of a clip, as :meth:`write_clip` was given them up to rounding of their intrinsics.

        Raises:
            UserError: the file is missing or damaged, or has not one camera for each frame.
        """
        path = self.clip(clip.name) / CAMERAS
        cameras = load_cameras(path, format="transforms_json")
        if len(cameras) != clip.frames:
            raise InvalidValue(
                f"{path} holds {len(cameras)} cameras, expected {clip.frames}, one for each frame of the "
                "clip: copy the folder again."
            )
        return replace(cameras, times=None, metric=True)

    def read_frames(
        self, clip: Clip, settings: ExplorationSettings, wanted: Iterable[int] | None = None
    ) -> np.ndarray:
        """Frames of a clip, exact: u8 [N, H, W, 3].

        Args:
            clip: which.
            settings: of the exploration.
            wanted: some of its frames, from 0; None is all.

        Raises:
            UserError: the file is missing, damaged, or of another length or size.
        """
        path = self.clip(clip.name) / FRAMES
        wanted = range(clip.frames) if wanted is None else list(wanted)
        needed, last = set(wanted), max(wanted)
        found: dict[int, np.ndarray] = {}
        for frame in read_frames(path):
            if frame.index in needed:
                found[frame.index] = frame.rgb()
            if frame.index >= last:
                break
        sizes = {picture.shape[:2] for picture in found.values()}
        if len(found) < len(needed) or sizes != {(settings.height, settings.width)}:
            raise InvalidValue(
                f"{path} does not hold the {clip.frames} frames of {settings.height}x{settings.width} that "
                f"{RECORD} tells of: copy the folder again."
            )
        return np.stack([found[index] for index in wanted])

    def read_line(
        self, line: Sequence[Clip], settings: ExplorationSettings, wanted: Iterable[int]
    ) -> np.ndarray:
        """Frames of a line of clips, u8 [N, H, W, 3]; no other ones are held.

        Args:
            line: clips, each of which goes on from the one before.
            settings: of the exploration.
            wanted: which frames, counted along the line, in any order.
        """
        wanted, found = list(wanted), dict[int, np.ndarray]()
        for clip in line:
            inside = sorted({index for index in wanted if clip.first <= index < clip.end})
            if inside:
                places = [index - clip.first for index in inside]
                found |= zip(inside, self.read_frames(clip, settings, places), strict=True)
        return np.stack([found[index] for index in wanted])

    def read_picture(self) -> np.ndarray | None:
        """What the first clip was given, u8 [H, W, 3], if anything."""
        path = self.clip(name_of(1)) / PICTURE
        return next(read_frames(path)).rgb() if path.exists() else None

    def _settings(self) -> ExplorationSettings:
        path = self.path / SETTINGS
        if not path.exists():
            raise MissingFile(
                f"{self.path} holds no exploration ({SETTINGS} is missing): name the folder that holds it."
            )
        content = read_json(path)
        if content.pop("format", None) != FORMAT:
            raise InvalidValue(f"{path} is not of an exploration (expected format {FORMAT!r}).")
        version = content.pop("format_version", None)
        if version != VERSION:
            raise InvalidValue(
                f"{path} is of format version {version!r}, and this package reads {VERSION}: read it with "
                f"the package that wrote it ({content.get('package_version', 'unknown')}) or a newer one."
            )
        content.pop("package_version", None)
        return _described(ExplorationSettings, content, path)

    def _record(self, name: str) -> Clip:
        clip = _described(Clip, read_json(self.clip(name) / RECORD), self.clip(name) / RECORD)
        if clip.name != name:
            raise InvalidValue(
                f"{self.clip(name) / RECORD} is of clip {clip.name!r}, in the folder of {name}: put it back."
            )
        return clip

    def _check_files(self, clips: Mapping[str, Clip]) -> None:
        for name in clips:
            with file_failures(self.clip(name), "read"):
                entries = sorted(self.clip(name).iterdir())
            for path in (self.path / CLIPS, self.clip(name), *entries):
                if path.is_symlink():
                    raise InvalidValue(
                        f"{path} is a link, which may lead out of the exploration: put what it stands for in "
                        "its place."
                    )
            for file in (CAMERAS, FRAMES):
                path = self.clip(name) / file
                if not path.is_file() or path.stat().st_size == 0:
                    raise MissingFile(
                        f"{path} is missing or empty: copy it again, or delete the clips "
                        f"{_descent(name, clips)} to go on without them."
                    )

    def _cursor(self) -> dict[str, Any]:
        path = self.path / CURSOR
        if not path.exists():
            return {}
        content = read_json(path)
        newest, current = content.get("newest"), content.get("current")
        if type(newest) is not int or newest < 0 or not isinstance(current, str):
            raise InvalidValue(f"{path} names no current clip: delete it, and the newest will be current.")
        return content

    def _current(self, clips: Mapping[str, Clip]) -> str:
        """That of ``cursor.json``, unless a clip was finished after it was written.

        So a clip takes effect by the one renaming that puts it in its place, and no other file has to follow.
        """
        cursor, last = self._cursor(), max(clips.values(), key=lambda clip: clip.number)
        if last.number > cursor.get("newest", 0):
            return last.name
        current = cursor["current"]
        if current not in clips:
            raise InvalidValue(
                f"{self.path / CURSOR} names clip {current!r}, and there is none: delete {CURSOR}, and the "
                "newest clip will be the current one."
            )
        return current


def _clip_names(folder: Path) -> list[str]:
    """Of finished clips, in order of making. Hidden folders are of clips that were never finished."""
    if not folder.is_dir():
        return []
    names = [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]
    for name in names:
        if not _NAME.fullmatch(name):
            raise InvalidValue(f"{folder / name} is no clip of an exploration: move it elsewhere.")
    return sorted(names, key=int)


def _check_place(clip: Clip, before: Mapping[str, Clip], path: Path) -> None:
    """That a clip goes on from one that was made before it, and begins where that one ends."""
    if clip.frames < 1:
        raise InvalidValue(f"{path} tells of a clip of {clip.frames} frames: copy the folder again.")
    if clip.parent is None:
        if len(before) > 1 or clip.first != 0:
            raise InvalidValue(
                f"{path} goes on from no clip, and only the first one does: copy the folder again."
            )
        return
    parent = before.get(clip.parent)
    if parent is None or parent.name == clip.name:
        raise InvalidValue(
            f"{path} goes on from clip {clip.parent!r}, which is none of those made before it: copy that "
            "one, too, or delete this one."
        )
    if clip.first != parent.end:
        raise InvalidValue(
            f"{path} begins at frame {clip.first}, and clip {parent.name} before it ends at {parent.end}: "
            "copy both again."
        )


def _descent(name: str, clips: Mapping[str, Clip]) -> str:
    """A clip and those that go on from it, as a list of names."""
    found = [name]
    for clip in clips.values():
        if clip.parent in found and clip.name not in found:
            found.append(clip.name)
    return ", ".join(found)


def _described(kind: type[Described], content: Mapping[str, Any], path: Path) -> Described:
    try:
        return config_from_json(kind, content)
    except UserError as error:
        raise InvalidValue(f"{path}: {error}") from error
