"""Explorations: a tree of clips on disk, each of which goes on from another one, in one frame and one world.

No user interface: the page, tours of ``generate`` and notebooks use it. What an exploration is made of is
read from its folder when it is needed (``camctrl_jax.sampling.exploration_folder``), so the hundredth clip
takes the memory of the second, and one that is loaded on another machine goes on as if it had never stopped.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from camctrl_jax.camera import Cameras
from camctrl_jax.camera.framing import null_intrinsics
from camctrl_jax.clip_shape import ClipShape, frames_of
from camctrl_jax.diffusion.sampler import Sampling
from camctrl_jax.errors import FileInUse, InvalidValue
from camctrl_jax.extras import require
from camctrl_jax.files.atomic import replaced_folder
from camctrl_jax.files.lock import held
from camctrl_jax.sampling.continuation import frames_to_show
from camctrl_jax.sampling.exploration_folder import (
    CLIPS,
    LOCK,
    SETTINGS,
    Clip,
    ExplorationFolder,
    ExplorationSettings,
    clip_seed,
    further_clips,
    line_of,
    name_of,
)
from camctrl_jax.sampling.exploration_model import (
    check_model,
    completed,
    picture_of,
    settings_of,
    window_shape,
)
from camctrl_jax.sampling.exploration_path import PathOrWords, gone_on, joined, path_of_clip
from camctrl_jax.sampling.pipeline import ClipBatch, Extension, Pipeline, Progress, RetrievedFrames
from camctrl_jax.sampling.students import fitting_sampling
from camctrl_jax.video.encoding import write_mp4_of_parts


class ExplorationInUse(FileInUse):
    """Another process, or another object of this one, has the exploration open; says who."""


class OtherWeights(InvalidValue):
    """An exploration that was begun with other weights."""


class Exploration:
    """A tree of clips in a folder, and a cursor in it: the current clip, from which the next one goes on.

    Made by :meth:`start` and :meth:`load`. While it is open nobody else can write to the folder; close it, or
    use it as a context. One thread at a time.

    Cameras of all clips are in the frame of the first camera of the first clip, in metres. A clip is on disk
    as soon as it is returned; one that fails, is cancelled (``progress`` may raise) or is killed leaves the
    exploration as it was.

    Attributes:
        pipeline: the model.
        folder: of the exploration.
        settings: what holds for all clips.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        folder: ExplorationFolder,
        settings: ExplorationSettings,
        clips: Mapping[str, Clip],
        current: str,
        lock: contextlib.ExitStack,
    ) -> None:
        """Use :meth:`start` or :meth:`load`."""
        self.pipeline, self.settings = pipeline, settings
        self._folder, self._clips, self._current, self._lock = folder, dict(clips), current, lock
        self._open = True
        self._newest = folder.newest(clips)

    @classmethod
    def start(
        cls,
        pipeline: Pipeline,
        folder: str | os.PathLike[str],
        path: PathOrWords,
        *,
        image: np.ndarray | str | Path | None = None,
        prompt: str = "",
        seed: int = 0,
        shape: ClipShape | None = None,
        fps: float | None = None,
        sampling: Sampling | None = None,
        extension: Extension | None = None,
        said: str | None = None,
        progress: Progress | None = None,
    ) -> Exploration:
        """Sample the first clip into a new folder.

        Args:
            pipeline: of weights with a camera.
            folder: new or empty; made if need be.
            path: of T poses, or what names one (``exploration_path.path_of_clip``).
            image: the first frame, u8 [H, W, 3] of the clip's size, or a picture, or a video for its first
                frame, which is cropped and resized to it. None: from the prompt alone.
            prompt: what is in the scene; "" is none.
            seed: of the first clip's noise; those of others follow from it and from their place in the tree.
            shape, fps: of the clip; by default as the weights were trained.
            sampling: how; by default with the steps and the guidance that the weights say.
            extension: how further clips go on; by default ``exploration_model.usual_extension``.
            said: what the record calls the path; None: the text that names it.
            progress: called with (steps done, steps); what it raises ends the sampling, no clip is written.

        Raises:
            UserError: the folder is in use, weights without a camera, a path or picture that cannot be used.
        """
        require("av", extra="data")
        where = ExplorationFolder(Path(folder))
        settings = settings_of(pipeline, seed, shape, fps, sampling, extension)
        picture = None if image is None else picture_of(image, settings)
        lens = null_intrinsics(settings.height, settings.width).astype(np.float64)
        cameras = path_of_clip(path, settings.frames, settings.fps, lens, goes_on=False)
        _check_new(where)
        with contextlib.ExitStack() as stack:
            stack.enter_context(_held(where.path))
            _check_new(where)  # another process may have started there in between
            where.write_settings(settings)
            where.write_cursor(name_of(1), 0)
            record = Clip(
                name_of(1),
                None,
                0,
                0,
                settings.frames,
                prompt,
                seed,
                settings.sampling,
                said=_said(path, said),
            )
            clip = completed(record, pipeline, settings)
            shape = window_shape(pipeline, settings)
            given = None if picture is None else picture[None, None]
            batch = ClipBatch([prompt], [clip.seed], shape, [cameras], given)
            latents = pipeline.sample(batch, clip.sampling, progress)
            frames = pipeline.autoencoder.decode(latents)[0]
            where.write_clip(clip, cameras, frames, settings, picture)
            return cls(pipeline, where, settings, {clip.name: clip}, clip.name, stack.pop_all())

    @classmethod
    def load(
        cls, pipeline: Pipeline, folder: str | os.PathLike[str], *, other_weights: bool = False
    ) -> Exploration:
        """Open an exploration where it was left. Clips that were never finished are not there.

        Args:
            pipeline: of the weights that began it: the same clips with the same pixels follow, on a device of
                the same kind.
            folder: that :meth:`start` or :meth:`save` wrote.
            other_weights: go on with other weights all the same. Each clip tells which made it.

        Raises:
            OtherWeights: it was begun with others.
            ExplorationInUse: it is open elsewhere.
            UserError: the folder is damaged or holds none; names the file and what to do.
        """
        require("av", extra="data")
        where = ExplorationFolder(Path(folder))
        where.read()  # before a lock file is made where no exploration is
        with contextlib.ExitStack() as stack:
            stack.enter_context(_held(where.path))
            settings, clips, current = where.read()
            ours = pipeline.fingerprint
            if ours != settings.fingerprint and not other_weights:
                raise OtherWeights(
                    f"{where.path} was begun with the weights {settings.fingerprint}, and these are {ours}: "
                    "load those, or go on with these and other pixels (Exploration.load(..., "
                    "other_weights=True))."
                )
            check_model(pipeline, settings)
            return cls(pipeline, where, settings, clips, current, stack.pop_all())

    @property
    def folder(self) -> Path:
        """Where it is."""
        return self._folder.path

    @property
    def clips(self) -> tuple[Clip, ...]:
        """All clips in order of making, those of other branches included."""
        return tuple(self._clips.values())

    @property
    def current(self) -> Clip:
        """The clip from which the next one goes on."""
        return self._clips[self._current]

    def clip(self, which: Clip | str | None = None) -> Clip:
        """A clip by its name; None is the current one.

        Raises:
            InvalidValue: there is none of that name.
        """
        name = self._current if which is None else which.name if isinstance(which, Clip) else which
        if name not in self._clips:
            raise InvalidValue(f"{self.folder} has no clip {name!r}; it has {', '.join(self._clips)}.")
        return self._clips[name]

    def line(self, which: Clip | str | None = None) -> tuple[Clip, ...]:
        """A clip and all that it goes on from, the first one first."""
        return line_of(self._clips, self.clip(which).name)

    def cameras(self, which: Clip | str | None = None) -> Cameras:
        """Of all frames of a clip's line, in the frame of the first."""
        return joined(*map(self._folder.read_cameras, self.line(which)))

    def cameras_of(self, which: Clip | str | None = None) -> Cameras:
        """Of the frames of a clip alone, in the same frame."""
        return self._folder.read_cameras(self.clip(which))

    def frames(self, which: Clip | str | None = None) -> np.ndarray:
        """Of a clip alone: u8 [T, H, W, 3], as they were sampled."""
        return self._folder.read_frames(self.clip(which), self.settings)

    def picture(self) -> np.ndarray | None:
        """What the first clip was given, u8 [H, W, 3]; None of one from a prompt alone."""
        return self._folder.read_picture()

    def coming(self, path: PathOrWords, of: Clip | str | None = None) -> Cameras:
        """The cameras that :meth:`extend` would add for a path, checked, before any work is done."""
        parent = self.clip(of)
        last = self._folder.read_cameras(parent)[-1]
        poses = self._added + 1
        return gone_on(last, path_of_clip(path, poses, self.settings.fps, last.intrinsics[0], goes_on=True))

    def extend(
        self,
        path: PathOrWords,
        prompt: str | None = None,
        seed: int | None = None,
        *,
        of: Clip | str | None = None,
        sampling: Sampling | None = None,
        said: str | None = None,
        progress: Progress | None = None,
    ) -> Clip:
        """Go on: one more clip, which becomes the current one.

        Args:
            path: of ``4 * new_latents + 1`` poses, seen from the last camera so far, which is the first of
                them (its world frame means nothing); or a pose file, preset or sentence.
            prompt: None keeps that of the clip before.
            seed: None: it follows from the exploration's and from the clip's place, so that a second clip
                after the same one differs from the first.
            of: the clip to go on from; None is the current one.
            sampling: None is that of the exploration; of a student that was not made for that, its own.
            said, progress: as of :meth:`start`.

        Returns:
            The clip. It is on disk.

        Raises:
            UserError: a path that cannot be followed, a file that cannot be read or written.
        """
        self._check_open()
        parent = self.clip(of)
        self._take_in_what_was_finished()
        prompt = parent.prompt if prompt is None else prompt
        coming = self.coming(path, parent)
        return self._go_on(parent, coming, prompt, seed, sampling, _said(path, said), progress)

    def again(
        self, clip: Clip | str, *, sampling: Sampling | None = None, progress: Progress | None = None
    ) -> Clip:
        """A clip once more, by the weights that are loaded: with its parent, cameras, prompt and seed.

        What a student drew quickly is so refined by its teacher. The result is a sibling of the clip, and
        becomes the current one; nothing is lost.

        Args:
            clip: any but the first, which no other one can stand beside: begin another exploration with its
                path, prompt, picture and seed.
            sampling, progress: as of :meth:`extend`.

        Raises:
            InvalidValue: there is no such clip, or it is the first.
        """
        self._check_open()
        model = self.clip(clip)
        if model.parent is None:
            raise InvalidValue(
                f"clip {model.name} is the first, and an exploration has one first clip: start another "
                f"exploration with its path, prompt, picture and seed {model.seed}."
            )
        self._take_in_what_was_finished()
        parent, coming = self.clip(model.parent), self._folder.read_cameras(model)
        return self._go_on(parent, coming, model.prompt, model.seed, sampling, model.said, progress)

    def _go_on(
        self,
        parent: Clip,
        coming: Cameras,
        prompt: str,
        seed: int | None,
        sampling: Sampling | None,
        said: str,
        progress: Progress | None,
    ) -> Clip:
        """Sample a clip that goes on from ``parent`` along ``coming``, in the frame of the exploration."""
        extension, line = self.settings.extension, self.line(parent)
        past = joined(*map(self._folder.read_cameras, line))
        given, end = frames_of(extension.condition_latents), parent.end
        shown: list[int] = []
        if extension.retrieved:
            shown = frames_to_show(past, coming, extension.retrieved, given).tolist()
        turn = 1 + max((clip.turn for clip in self.clips if clip.parent == parent.name), default=-1)
        if seed is None:
            seed = clip_seed(self.settings.seed, [*(clip.turn for clip in line[1:]), turn])
        name = name_of(self._newest + 1)
        if sampling is None:
            pipeline = self.pipeline
            sampling = fitting_sampling(self.settings.sampling, pipeline.defaults, pipeline.distilled)
        record = Clip(
            *(name, parent.name, turn, end, self._added, prompt, seed, sampling, tuple(shown)),
            said=said,
        )
        clip = completed(record, self.pipeline, self.settings)

        def frames_of_line(wanted: Iterable[int]) -> np.ndarray:
            return self._folder.read_line(line, self.settings, wanted)

        window = ClipBatch(
            [prompt],
            [clip.seed],
            window_shape(self.pipeline, self.settings),
            [joined(past[end - given :], coming)],
            references=[past.world_from_camera[0]],
            retrieved=RetrievedFrames(frames_of_line(shown)[None], [past[shown]]) if shown else None,
        )
        last = frames_of_line(range(end - given, end))
        frames = self.pipeline.continue_from(last[None], window, extension, clip.sampling, progress)[0]
        self._folder.write_clip(clip, coming, frames, self.settings)
        # It is the current one by being the newest: a cursor that had to be written, too, could fail.
        self._clips[name], self._newest, self._current = clip, clip.number, name
        return clip

    def branch(self, clip: Clip | str) -> Clip:
        """Make any clip the current one, so that the next goes on from it. Nothing is lost."""
        self._check_open()
        return self._go_to(self.clip(clip))

    def undo(self, *, delete: bool = False) -> Clip:
        """Back to the clip before the current one, which is returned.

        Args:
            delete: remove the clip that is left behind. Otherwise it stays as a branch: :meth:`branch` goes
                back to it, and going on again makes another clip with another seed. A clip that was deleted
                gives its place back: the same path makes the same clip again, unless a seed is given.

        Raises:
            InvalidValue: the current clip is the first; or clips go on from it and it is to be deleted.
        """
        self._check_open()
        left = self.current
        if left.parent is None:
            raise InvalidValue(f"clip {left.name} is the first: there is nothing before it to go back to.")
        further = further_clips(self._clips, left.name)
        if delete and further:
            raise InvalidValue(
                f"clips {', '.join(further)} go on from {left.name}: delete them first, or leave it there "
                "(undo() without delete)."
            )
        parent = self._go_to(self._clips[left.parent])
        if delete:
            self._folder.remove_clip(left.name)
            del self._clips[left.name]
        return parent

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write a copy elsewhere, all of it or nothing, which :meth:`load` opens.

        Raises:
            FileInUse: the folder is not new or empty.
            InvalidValue: it is inside the exploration.
            FileFailure: the disk is full, or something cannot be read.
        """
        if Path(folder).resolve().is_relative_to(self.folder.resolve()):
            raise InvalidValue(f"{folder} is inside {self.folder}: save the copy elsewhere.")
        with replaced_folder(folder) as copy:
            shutil.copyfile(self.folder / SETTINGS, copy / SETTINGS)
            ExplorationFolder(copy).write_cursor(self._current, self._newest)
            for name in self._clips:
                shutil.copytree(self._folder.clip(name), copy / CLIPS / name, copy_function=shutil.copyfile)
        return Path(folder)

    def write_video(self, path: str | os.PathLike[str], which: Clip | str | None = None) -> None:
        """Write all frames of a clip's line as one mp4 for people, in the memory of one clip."""
        write_mp4_of_parts(path, (self.frames(clip) for clip in self.line(which)), self.settings.fps)

    def close(self) -> None:
        """Let others write to the folder. What was read stays readable."""
        self._lock.close()
        self._open = False

    def __enter__(self) -> Exploration:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _added(self) -> int:
        """Frames of every clip but the first."""
        return self.pipeline.autoencoder.config.temporal_stride * self.settings.extension.new_latents

    def _check_open(self) -> None:
        if not self._open:
            raise InvalidValue(f"{self.folder} was closed: open it again with Exploration.load.")

    def _take_in_what_was_finished(self) -> None:
        """A clip may have been interrupted after its last byte: it is on disk, and its name is taken."""
        if self._folder.clip(name_of(self._newest + 1)).exists():
            self._clips = self._folder.read()[1]
            self._newest = max(clip.number for clip in self.clips)

    def _go_to(self, clip: Clip) -> Clip:
        self._folder.write_cursor(clip.name, self._newest)
        self._current = clip.name
        return clip


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    def refusal(who: str) -> ExplorationInUse:
        return ExplorationInUse(
            f"{folder} is in use: {who} explores there. Close it there, or save a copy and go on with that."
        )

    with held(folder / LOCK, refusal):
        yield


def _check_new(folder: ExplorationFolder) -> None:
    if folder.begun():
        raise FileInUse(
            f"{folder.path} holds an exploration: open it with Exploration.load, or choose another folder."
        )


def _said(path: PathOrWords, said: str | None) -> str:
    if said is not None:
        return said
    return "" if isinstance(path, Cameras) else str(path)
