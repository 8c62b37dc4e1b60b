"""Six of the protocols, spoken by programs in environments of their own.

What a program finds in its working folder and what it owes is the same for all programs of a protocol:

* pictures ``images/00000.png`` ... (for flow ``first/`` and ``second/``, pair by pair); ``intrinsics.npy``
  f64 [T, 4], fx/W, fy/H, cx/W, cy/H, where they are known; ``clip.json`` with ``fps``, ``height``, ``width``,
  ``frames``;
* masks, if any, ``masks/``, in the polarity and under the names that the recipe states;
* owed, in ``out/``: masks as ``%05d.png`` (not zero = moving); depth as ``%05d.npy`` [H, W] in metres, not
  finite or not positive where there is none; flow as ``%05d.npy`` [H, W, 2] in pixels; ``embeddings.npy`` [T,
  D]; a COLMAP model; ``points.npy`` [P, 3], ``colours.npy`` [P, 3] and perhaps ``confidence.npy`` [P].

A recipe (:mod:`camctrl_jax.estimators.recipes`) is a program with its commands filled in; any other program
is used
by writing its commands down: ``ProgramDepth(Program("mine", (("{python}", "mine.py", "{images}",
    "{out}"),)))``.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from camctrl_jax.camera.cameras import Cameras
from camctrl_jax.errors import ClipError, InvalidValue, MissingFile
from camctrl_jax.estimators.colmap_models import model_folders, read_colours, read_models
from camctrl_jax.estimators.process import (
    Program,
    owed_array,
    owed_file,
    working_folder,
    write_masks,
    write_pictures,
)
from camctrl_jax.estimators.protocols import (
    DepthResult,
    EstimatorFailed,
    Fingerprint,
    MotionMasks,
    PointCloud,
    SfmResult,
    checked_frames,
    checked_intrinsics,
    checked_masks,
    for_clip,
    unit_length,
)
from camctrl_jax.files.json_file import write_json
from camctrl_jax.video.greys import read_grey

Names = dict[str, Path | str]
_IN_DEPTH = "{index:05d}.npy"


@dataclass(frozen=True)
class _OnProgram:
    program: Program

    def check(self) -> None:
        """See :meth:`~camctrl_jax.estimators.process.Program.check`."""
        self.program.check()

    def fingerprint(self) -> Fingerprint:
        own = tuple((k, v) for k, v in vars(self).items() if k != "program" and not callable(v))
        found = self.program.fingerprint()
        return replace(found, parameters=(*found.parameters, *own))

    @contextlib.contextmanager
    def _work(self, frames: np.ndarray, fps: float = 0.0) -> Iterator[tuple[Path, Names]]:
        """A working folder with the pictures of a clip in it, and the names of commands."""
        self.program.check()
        with working_folder(self.program) as work:
            write_pictures(work / "images", frames)
            count, height, width = frames.shape[:3]
            write_json(
                work / "clip.json", {"frames": count, "height": height, "width": width, "fps": float(fps)}
            )
            (work / "out").mkdir()
            yield work, {"images": work / "images", "masks": work / "masks", "out": work / "out"}


@dataclass(frozen=True)
class ProgramMasks(_OnProgram):
    """Motion masks by a program: ``out/%05d.png``, not zero = moving.

    Attributes:
        prompts: masks to start from, for programs that follow what they are shown: written to ``masks/``, 255
            = moving. None for programs that find motion themselves.
    """

    prompts: Any = None

    def segment(self, frames: np.ndarray, fps: float) -> MotionMasks:
        frames = checked_frames(frames)
        with self._work(frames, fps) as (work, names):
            if self.prompts is not None:
                write_masks(work / "masks", self.prompts.segment(frames, fps).moving, ignored=255)
            self.program.run(work, names)
            masks = []
            for index in range(len(frames)):
                path = owed_file(work, work / "out" / f"{index:05d}.png", self.program.name)
                masks.append(_picture(path, self.program.name, frames.shape[1:3]) != 0)
            return MotionMasks(np.stack(masks))

    def for_clip(self, name: str) -> ProgramMasks:
        """The same with the prompts of one clip, where these are imported ones."""
        return replace(self, prompts=for_clip(self.prompts, name))

    def fingerprint(self) -> Fingerprint:
        found = self.program.fingerprint()
        prompts = None if self.prompts is None else self.prompts.fingerprint().digest
        return replace(found, parameters=(*found.parameters, ("prompts", prompts)))


def _picture(path: Path, program: str, size: tuple[int, int]) -> np.ndarray:
    try:
        picture = read_grey(path)
    except ClipError as error:
        raise EstimatorFailed("bad_result", f"{program}: {error}") from error
    if picture.shape != tuple(size):
        raise EstimatorFailed(
            "bad_result", f"{program}: {path.name} is {list(picture.shape)}, expected {list(size)}."
        )
    return picture


@dataclass(frozen=True)
class ProgramSfm(_OnProgram):
    """Structure from motion by a program: a COLMAP model in ``model``, or what ``read`` makes of its files.

    Attributes:
        model: where its COLMAP model lies, below the working folder: there, in sparse/ or in 0/, 1/, ...
        takes_masks: whether it reads masks. Where it does not and masks are given, ``paint`` says what is
            done.
        ignored: the value that its masks have where pixels are to be ignored: VGGSfM 1 or 255, COLMAP 0.
        mask_suffix: behind a picture's name in a mask's: ".png" for COLMAP.
        paint: the value, 0 to 255, that ignored pixels get in the pictures of a program that takes no masks;
            None leaves them as they are, and such a program refuses masks.
        read: (work folder, names, (height, width), seconds) -> SfmResult.
    """

    model: str = "sparse"
    takes_masks: bool = True
    ignored: int = 0
    mask_suffix: str = ""
    paint: int | None = None
    read: Callable[[Path, list[str], tuple[int, int], float], SfmResult] | None = None

    def reconstruct(
        self,
        frames: np.ndarray,
        masks: np.ndarray | None = None,
        intrinsics: np.ndarray | None = None,
        times: np.ndarray | None = None,
    ) -> SfmResult:
        """A program that hangs, dies or owes its files gives FAILED with its log; a missing one raises."""
        frames = checked_frames(frames)
        masks = checked_masks(masks, frames)
        known = checked_intrinsics(intrinsics, len(frames))
        if masks is not None and not self.takes_masks:
            if self.paint is None:
                raise InvalidValue(f"{self.program.name} takes no masks: leave them out, or set paint.")
            frames = np.where(masks[..., None], np.uint8(self.paint), frames)
        started = time.monotonic()
        try:
            with self._work(frames) as (work, names):
                if masks is not None and self.takes_masks:
                    write_masks(work / "masks", masks, ignored=self.ignored, suffix=self.mask_suffix)
                if known is not None:
                    np.save(work / "intrinsics.npy", known)
                self.program.run(work, names)
                pictures = [f"{index:05d}.png" for index in range(len(frames))]
                return self._result(work, pictures, frames.shape[1:3], time.monotonic() - started)
        except EstimatorFailed as failure:
            return SfmResult.failed(
                len(frames), failure.reason, str(failure), seconds=time.monotonic() - started
            )

    def _result(self, work: Path, names: list[str], size: tuple[int, int], seconds: float) -> SfmResult:
        try:
            if self.read is not None:
                return self.read(work, names, size, seconds)
            return read_models(work / self.model, names, size, seconds=seconds)
        except (InvalidValue, MissingFile) as error:
            raise EstimatorFailed("bad_result", f"{self.program.name}: {error}") from error


@dataclass(frozen=True)
class ProgramDepth(_OnProgram):
    """Metric depth by a program: ``out/%05d.npy``, [H, W] metres; ``out/focal_px.npy`` [T] if it estimates
    one.

    Attributes:
        farthest: metres beyond which depth is not valid.
    """

    farthest: float = 1000.0

    def depth(self, frames: np.ndarray, intrinsics: np.ndarray | None = None) -> DepthResult:
        frames = checked_frames(frames)
        known = checked_intrinsics(intrinsics, len(frames))
        size = frames.shape[1:3]
        with self._work(frames) as (work, names):
            if known is not None:
                np.save(work / "intrinsics.npy", known)
            self.program.run(work, names)
            name, out = self.program.name, work / "out"
            depth = np.stack(
                [owed_array(work, out / _IN_DEPTH.format(index=i), name, size) for i in range(len(frames))]
            ).astype(np.float32)
            if known is None and (out / "focal_px.npy").exists():
                focal = owed_array(work, out / "focal_px.npy", name, (len(frames),)).astype(np.float64)
                half = np.full(len(frames), 0.5)
                known = np.stack([focal / size[1], focal / size[0], half, half], axis=1)
        valid = np.isfinite(depth) & (depth > 0) & (depth < self.farthest)
        if not valid.any():
            raise EstimatorFailed(
                "bad_result", f"{self.program.name}: no depth is between 0 and {self.farthest} m."
            )
        return DepthResult(depth, valid, known)


@dataclass(frozen=True)
class ProgramFlow(_OnProgram):
    """Optical flow by a program, from ``first/%05d.png`` to ``second/%05d.png``: ``out/%05d.npy`` [H, W,
    2]."""

    def flow(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        a, b = checked_pair(a, b)
        self.program.check()
        with working_folder(self.program) as work:
            write_pictures(work / "first", a)
            write_pictures(work / "second", b)
            out = work / "out"
            out.mkdir()
            self.program.run(work, {"first": work / "first", "second": work / "second", "out": out})
            shape = (*a.shape[1:3], 2)
            flows = [
                owed_array(work, out / f"{index:05d}.npy", self.program.name, shape)
                for index in range(len(a))
            ]
        flow = np.stack(flows).astype(np.float32)
        if not np.isfinite(flow).all():
            raise EstimatorFailed("bad_result", f"{self.program.name}: the flow holds NaN or infinity.")
        return flow


def checked_pair(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two stacks of pictures of one shape, or InvalidValue."""
    a, b = checked_frames(a, "first pictures"), checked_frames(b, "second pictures")
    if a.shape != b.shape:
        raise InvalidValue(
            f"flow is from {list(a.shape)} to {list(b.shape)}; expected pictures of one shape."
        )
    return a, b


@dataclass(frozen=True)
class ProgramEmbeddings(_OnProgram):
    """Embeddings by a program: ``out/embeddings.npy`` [T, D], of any length."""

    def embed(self, frames: np.ndarray) -> np.ndarray:
        frames = checked_frames(frames)
        with self._work(frames) as (work, names):
            self.program.run(work, names)
            path = work / "out" / "embeddings.npy"
            return unit_length(
                owed_array(work, path, self.program.name, (len(frames), None)), self.program.name
            )


@dataclass(frozen=True)
class ProgramPoints(_OnProgram):
    """Points by a program: ``out/points.npy`` [P, 3], ``colours.npy`` u8 [P, 3], perhaps ``confidence.npy``
    [P].

    ``world_from_camera.npy`` [T, 4, 4] and ``intrinsics.npy`` [T, 4] beside them are its cameras. Given
    cameras it finds as files of the same names in its working folder; whether it heeds them is the program's
    business.

    Attributes:
        model: where a program leaves a COLMAP model instead, below the working folder; its points and colours
            are taken, and its cameras if every frame has one.
    """

    model: str | None = None

    def points(self, frames: np.ndarray, cameras: Cameras | None = None) -> PointCloud:
        frames = checked_frames(frames)
        with self._work(frames) as (work, names):
            if cameras is not None:
                np.save(work / "world_from_camera.npy", cameras.world_from_camera)
                np.save(work / "intrinsics.npy", cameras.intrinsics)
            self.program.run(work, names)
            if self.model is not None:
                return self._of_model(work, len(frames), frames.shape[1:3])
            out, name = work / "out", self.program.name
            points = owed_array(work, out / "points.npy", name, (None, 3)).astype(np.float64)
            colours = owed_array(work, out / "colours.npy", name, (len(points), 3)).astype(np.uint8)
            confidence = np.ones(len(points), np.float32)
            if (out / "confidence.npy").exists():
                confidence = owed_array(work, out / "confidence.npy", name, (len(points),)).astype(np.float32)
            if (out / "world_from_camera.npy").exists():
                poses = owed_array(work, out / "world_from_camera.npy", name, (len(frames), 4, 4))
                lens = owed_array(work, out / "intrinsics.npy", name, (len(frames), 4))
                cameras = Cameras(poses, lens)
        return PointCloud(points, colours, confidence, cameras)

    def _of_model(self, work: Path, count: int, size: tuple[int, int]) -> PointCloud:
        """The largest COLMAP model that the program left."""
        name, pictures = self.program.name, [f"{index:05d}.png" for index in range(count)]
        try:
            folders = model_folders(owed_file(work, work / self.model, name))
            found = [(*read_colours(folder), read_models(folder, pictures, size)) for folder in folders]
        except (InvalidValue, MissingFile) as error:
            raise EstimatorFailed("bad_result", f"{name}: {error}") from error
        if not any(len(points) for points, _, _ in found):
            raise EstimatorFailed("bad_result", f"{name}: left no points in {self.model}.")
        points, colours, model = max(found, key=lambda one: len(one[0]))
        cameras = model.cameras() if model.succeeded else None
        return PointCloud(points, colours, np.ones(len(points), np.float32), cameras)
