"""Results that a user has already, behind the protocols: poses, masks, depth, flow, embeddings, points.

Everything is checked against the frames that are asked about; nothing is resized or guessed.

A path may hold ``{clip}``: :func:`~camctrl_jax.estimators.protocols.for_clip` puts the name of a clip there,
so that one description serves a whole folder of clips (``poses/{clip}.txt``). What is missing or does not fit
is then the fault of that clip alone, an :class:`EstimatorFailed` that names the file; without ``{clip}`` it
is the caller's, a :class:`MissingFile` or :class:`InvalidValue`.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import numpy as np

from camctrl_jax.camera.cameras import Cameras
from camctrl_jax.camera.formats.names import natural
from camctrl_jax.camera.reading import Reading, read_path
from camctrl_jax.errors import ClipError, InvalidValue, MissingFile, UserError, file_failures
from camctrl_jax.estimators.colmap_models import model_folders, read_colours, read_models
from camctrl_jax.estimators.programs import checked_pair
from camctrl_jax.estimators.protocols import (
    DepthResult,
    EstimatorFailed,
    Fingerprint,
    MotionMasks,
    PointCloud,
    PointMaps,
    SfmResult,
    checked_frames,
    hashed,
    unit_length,
)
from camctrl_jax.video.decoding import list_images
from camctrl_jax.video.greys import read_grey

_FLO = 202021.25  # the first number of every .flo file


_CLIP = "{clip}"


@dataclass(frozen=True)
class _Imported:
    """What all of them share: a place, which may be different for each clip.

    Attributes:
        clip: the name of the clip whose results these are; set by :meth:`for_clip`.
    """

    clip: str = field(default="", kw_only=True)

    @property
    def _where(self) -> str:
        return "path"

    @property
    def place(self) -> Path:
        """The file or folder."""
        return Path(getattr(self, self._where))

    def for_clip(self, name: str) -> Self:
        """The same for one clip: ``{clip}`` in the path replaced by its name."""
        if _CLIP not in str(self.place):
            return self
        return replace(self, **{self._where: Path(str(self.place).replace(_CLIP, name)), "clip": name})

    def check(self) -> None:
        """Raise MissingFile where nothing is there; of a path with ``{clip}``, the folder above it."""
        if _CLIP not in str(self.place):
            _existing(self.place)
            return
        above = Path(str(self.place).partition(_CLIP)[0] + "x").parent
        if not above.is_dir():
            raise MissingFile(f"{self.place}: there is no folder {above}.")

    def _described(self, name: str, **settings: object) -> Fingerprint:
        parameters = tuple(settings.items())
        if _CLIP in str(self.place):
            return Fingerprint(name, "1", (*parameters, ("for each clip", str(self.place))))
        if self.clip and not self.place.exists():
            return Fingerprint(name, "1", parameters, ((self.place.name, "missing"),))
        return Fingerprint(name, "1", parameters, hashed([_existing(self.place)]))

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Path]:
        """The file or folder, which is there; what goes wrong inside is the clip's fault if it is one's."""
        if _CLIP in str(self.place):
            raise InvalidValue(f"{self.place} stands for the files of several clips: use for_clip first.")
        try:
            yield _existing(self.place)
        except EstimatorFailed:
            raise
        except UserError as error:
            if not self.clip:
                raise
            reason = "no_result" if isinstance(error, MissingFile) else "bad_result"
            raise EstimatorFailed(reason, f"imported for {self.clip}: {error}") from error


@dataclass(frozen=True)
class ImportedPoses(_Imported):
    """Structure from motion that was done elsewhere: a pose file or folder in any format of the camera room.

    A binary COLMAP model is read whole (points, observations, distortion). Poses belong to the frames in
    order if there are as many. If there are fewer, the pictures' names tell: ``names`` lists those of the
    frames; without it the last number in each name counts frames, from 0 or from 1, whichever the file shows.

    Attributes:
        path: the file or folder.
        reading: how to read it (format, picture size, convention).
        names: picture names of the frames, in order.
        metric: whether it is in metres, where the file does not say.
    """

    path: Path
    reading: Reading = field(default_factory=Reading)
    names: tuple[str, ...] = ()
    metric: bool = False

    def fingerprint(self) -> Fingerprint:
        settings = {"reading": str(self.reading), "names": self.names, "metric": self.metric}
        return self._described("imported poses", **settings)

    def reconstruct(
        self,
        frames: np.ndarray,
        masks: np.ndarray | None = None,
        intrinsics: np.ndarray | None = None,
        times: np.ndarray | None = None,
    ) -> SfmResult:
        """The poses of the file; given intrinsics are not needed and not used.

        Raises:
            MissingFile: nothing is there.
            InvalidValue: it cannot be told which pose belongs to which frame.
            CameraError: the file cannot be read.
            EstimatorFailed: any of these, of a file of one clip.
        """
        frames = checked_frames(frames)
        with self._reading():
            return self._reconstruct(frames)

    def _reconstruct(self, frames: np.ndarray) -> SfmResult:
        read = read_path(self.path, self.reading)
        cameras, stored = read.pose_file.cameras, read.pose_file.names
        indices = self._frames(len(frames), len(cameras), stored)
        if self.metric and not cameras.metric:
            cameras = cameras.scaled(1.0, metric=True)
        if read.format.name == "colmap" and self.reading == Reading() and model_folders(Path(self.path)):
            names = [""] * len(frames)
            for index, name in zip(indices, stored, strict=True):
                names[index] = name
            result = read_models(Path(self.path), names, frames.shape[1:3])
            if result.registered.sum() == len(cameras):
                return replace(result, metric=self.metric, reason="", message="")
        return SfmResult.of_cameras(cameras, indices, len(frames))

    def _frames(self, frames: int, poses: int, stored: Sequence[str]) -> np.ndarray:
        """Which frame each pose belongs to."""
        if self.names and len(self.names) != frames:
            raise InvalidValue(f"{len(self.names)} names were given for {frames} frames.")
        if self.names and stored:
            places = {Path(name).stem: index for index, name in enumerate(self.names)}
            unknown = [name for name in stored if Path(name).stem not in places]
            if unknown:
                raise InvalidValue(f"{self.path}: {unknown[0]} is none of the frames' names.")
            return np.array([places[Path(name).stem] for name in stored])
        if poses == frames:
            return np.arange(frames)
        numbers = [re.findall(r"\d+", Path(name).stem) for name in stored]
        if poses > frames or not stored or not all(numbers):
            raise InvalidValue(
                f"{self.path}: holds {poses} poses for {frames} frames, and no picture names that tell which "
                "are which; give a pose for every frame, or names."
            )
        indices = np.array([int(found[-1]) for found in numbers])
        if indices.max() == frames and indices.min() >= 1:
            return indices - 1
        if indices.min() == 0 and indices.max() < frames:
            return indices
        raise InvalidValue(
            f"{self.path}: pictures are numbered {indices.min()} to {indices.max()}, which fits {frames} "
            "frames neither from 0 nor from 1 for sure; give names=, those of the frames in order."
        )


@dataclass(frozen=True)
class ImportedMasks(_Imported):
    """A folder of pictures, one for each frame, in the order of the numbers in their names.

    Attributes:
        folder: of PNG or other pictures.
        moving_is: which pixels move: "white" (not zero: this package's, VGGSfM's and most segmenters' way) or
            "black" (zero: COLMAP's way). There is no default: half of the tools mean the opposite.
    """

    folder: Path
    moving_is: str

    def __post_init__(self) -> None:
        if self.moving_is not in ("white", "black"):
            raise InvalidValue(f"moving_is is {self.moving_is!r}; expected 'white' or 'black'.")

    @property
    def _where(self) -> str:
        return "folder"

    def fingerprint(self) -> Fingerprint:
        return self._described("imported masks", moving_is=self.moving_is)

    def segment(self, frames: np.ndarray, fps: float) -> MotionMasks:
        frames = checked_frames(frames)
        with self._reading() as folder:
            paths = list_images(folder)
            if len(paths) != len(frames):
                raise InvalidValue(f"{folder}: holds {len(paths)} masks for {len(frames)} frames.")
            pictures = [_picture(path, frames.shape[1:3]) for path in paths]
        set_pixels = np.stack(pictures) != 0
        return MotionMasks(set_pixels if self.moving_is == "white" else ~set_pixels)


@dataclass(frozen=True)
class ImportedDepth(_Imported):
    """z-depth: one npy [T, H, W], or a folder of npy [H, W] or 16-bit PNG files, one for each frame.

    Attributes:
        path: the file or folder.
        metres: of one unit: 1 for files in metres, 0.001 for PNG in millimetres. It must be said: depth up to
            an unknown scale is not metric depth.
    """

    path: Path
    metres: float

    def __post_init__(self) -> None:
        if not (np.isfinite(self.metres) and self.metres > 0):
            raise InvalidValue(f"metres is {self.metres}; expected the metres of one unit, more than 0.")

    def fingerprint(self) -> Fingerprint:
        return self._described("imported depth", metres=self.metres)

    def depth(self, frames: np.ndarray, intrinsics: np.ndarray | None = None) -> DepthResult:
        """Not valid where the file is not finite or not positive."""
        frames = checked_frames(frames)
        with self._reading() as path:
            stored = self._stored(path, frames.shape[:3])
        depth = stored.astype(np.float64) * self.metres
        valid = np.isfinite(depth) & (depth > 0)
        return DepthResult(depth.astype(np.float32), valid, None)

    def _stored(self, path: Path, shape: tuple[int, ...]) -> np.ndarray:
        """What the file or folder holds, [T, H, W]."""
        if not path.is_dir():
            return _npy(path, shape)
        files = _of_folder(path, (".npy", ".png"), shape[0])
        read = _npy if files[0].suffix == ".npy" else _picture
        return np.stack([read(file, shape[1:]) for file in files])


@dataclass(frozen=True)
class ImportedFlow(_Imported):
    """Flow from each frame to the next: one npy [T-1, H, W, 2], or a folder of npy [H, W, 2] or .flo files.

    Pixels, u right, v down. Unknown flow (not finite, or beyond 1e9 as .flo files have it) is NaN.
    """

    path: Path

    def fingerprint(self) -> Fingerprint:
        return self._described("imported flow")

    def flow(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        a, b = checked_pair(a, b)
        with self._reading() as path:
            flow = self._stored(path, a.shape[:3])
        flow = flow.astype(np.float32)
        return np.where(np.abs(flow) < 1e9, flow, np.float32(np.nan))

    def _stored(self, path: Path, shape: tuple[int, ...]) -> np.ndarray:
        """What the file or folder holds, [T-1, H, W, 2]."""
        if not path.is_dir():
            return _npy(path, (*shape, 2))
        files = _of_folder(path, (".npy", ".flo"), shape[0])
        if files[0].suffix == ".flo":
            return np.stack([_flo(file, shape[1:]) for file in files])
        return np.stack([_npy(file, (*shape[1:], 2)) for file in files])


@dataclass(frozen=True)
class ImportedEmbeddings(_Imported):
    """Embeddings npy [T, D] of the frames; they are scaled to length 1."""

    path: Path

    def fingerprint(self) -> Fingerprint:
        return self._described("imported embeddings")

    def embed(self, frames: np.ndarray) -> np.ndarray:
        frames = checked_frames(frames)
        with self._reading() as path:
            return unit_length(_npy(path, (len(frames), None)), str(path))


@dataclass(frozen=True)
class ImportedVideoFeatures(_Imported):
    """One vector npy [D] a clip, taken as it is: FVD by features that were computed elsewhere.

    ``path`` holds ``{clip}``, since each clip has its own. Which frames they saw, and how, is the user's
    affair: both sides of a comparison must have been made the same way.
    """

    path: Path

    @property
    def least_frames(self) -> int:
        return 1

    def check(self) -> None:
        """See :class:`_Imported`; also that clips do not share one vector."""
        if not self.clip and _CLIP not in str(self.place):
            raise InvalidValue(
                f"{self.place}: all clips would have this one vector, and their Frechet distance would mean "
                f"nothing. Put {_CLIP} where the names of clips stand in the path."
            )
        super().check()

    def fingerprint(self) -> Fingerprint:
        return self._described("imported video features")

    def embed_video(self, frames: np.ndarray, fps: float) -> np.ndarray:
        checked_frames(frames)
        with self._reading() as path:
            vector = _npy(path, (None,)).astype(np.float64)
            if not len(vector) or not np.isfinite(vector).all():
                raise InvalidValue(f"{path}: is empty, or holds NaN or infinity.")
            return vector


@dataclass(frozen=True)
class ImportedPoints(_Imported):
    """Points of a clip: a folder with ``points.npy`` [P, 3], ``colours.npy`` [P, 3] (0 to 255) and perhaps
    ``confidence.npy`` [P], or a binary COLMAP model (its largest, in ``sparse`` or ``0``, too).

    Attributes:
        path: the folder.
        metric: whether the unit is metres.
    """

    path: Path
    metric: bool = False

    def fingerprint(self) -> Fingerprint:
        return self._described("imported points", metric=self.metric)

    def points(self, frames: np.ndarray, cameras: Cameras | None = None) -> PointCloud:
        """In the world of the files, whatever that is; ``cameras`` are passed on, not used."""
        checked_frames(frames)
        with self._reading() as path:
            models = model_folders(path) if path.is_dir() else []
            if models:
                points, colours = max((read_colours(model) for model in models), key=lambda one: len(one[0]))
            else:
                points = _npy(_existing(path / "points.npy"), (None, 3)).astype(np.float64)
                stored = _npy(_existing(path / "colours.npy"), (len(points), 3))
                colours = np.clip(stored, 0, 255).astype(np.uint8)
            confidence = np.ones(len(points), np.float32)
            if (path / "confidence.npy").exists():
                confidence = _npy(path / "confidence.npy", (len(points),)).astype(np.float32)
            if not len(points) or not np.isfinite(points).all():
                raise InvalidValue(f"{path}: has no points, or points that are NaN or infinity.")
        return PointCloud(points, colours, confidence, cameras, self.metric)


@dataclass(frozen=True)
class ImportedPointMaps(_Imported):
    """Depth or point maps of a clip: a folder with ``depth.npy`` [T, H, W] or ``points.npy`` [T, H, W, 3],
    perhaps ``confidence.npy`` [T, H, W], and, where they are in a world or scale of their own,
    ``world_from_camera.npy`` [T, 4, 4] (OpenCV axes) with ``intrinsics.npy`` [T, 4] fractions.

    Attributes:
        path: the folder.
        metric: whether the unit is metres.
    """

    path: Path
    metric: bool = False

    def fingerprint(self) -> Fingerprint:
        return self._described("imported point maps", metric=self.metric)

    def maps(self, frames: np.ndarray, cameras: Cameras) -> PointMaps:
        shape = checked_frames(frames).shape[:3]
        with self._reading() as path:
            own = None
            if (path / "world_from_camera.npy").exists():
                poses = _npy(path / "world_from_camera.npy", (shape[0], 4, 4))
                lens = cameras.intrinsics
                if (path / "intrinsics.npy").exists():
                    lens = _npy(path / "intrinsics.npy", (shape[0], 4))
                own = Cameras(poses, lens).validate(str(path / "world_from_camera.npy"))
            confidence = depth = points = None
            if (path / "confidence.npy").exists():
                confidence = _npy(path / "confidence.npy", shape)
            if (path / "depth.npy").exists():
                depth = _npy(path / "depth.npy", shape)
            else:
                points = _npy(_existing(path / "points.npy"), (*shape, 3))
        return PointMaps(depth, points, confidence, own, self.metric)


def _existing(path: str | Path) -> Path:
    """A file or folder that is there; ``file.json#camera`` names the file."""
    for candidate in (str(path), str(path).rpartition("#")[0]):
        if candidate and Path(candidate).exists():
            return Path(candidate)
    raise MissingFile(f"{path}: no such file or folder.")


def _of_folder(folder: Path, suffixes: tuple[str, ...], count: int) -> list[Path]:
    files = [file for file in folder.iterdir() if file.suffix in suffixes and file.name[0] != "."]
    files.sort(key=lambda file: natural(file.name))
    kinds = {file.suffix for file in files}
    if len(files) != count or len(kinds) > 1:
        raise InvalidValue(
            f"{folder}: holds {len(files)} files of {' or '.join(sorted(kinds) or suffixes)}; "
            f"expected {count} of one kind."
        )
    return files


def _picture(path: Path, size: tuple[int, int]) -> np.ndarray:
    try:
        picture = read_grey(path)
    except ClipError as error:
        raise InvalidValue(str(error)) from error
    if picture.shape != tuple(size):
        raise InvalidValue(f"{path}: is {list(picture.shape)}, the frames are {list(size)}.")
    return picture


def _npy(path: Path, shape: tuple[int | None, ...]) -> np.ndarray:
    try:
        array = np.load(path, allow_pickle=False)
    except Exception as error:  # NumPy raises many kinds on damaged files
        raise InvalidValue(f"{path}: is not a readable NumPy file of numbers ({error}).") from error
    fits = array.ndim == len(shape) and all(b in (None, a) for a, b in zip(array.shape, shape))
    if not fits or array.dtype.kind not in "biuf":
        wanted = ["any" if size is None else size for size in shape]
        raise InvalidValue(f"{path}: is {array.dtype}{list(array.shape)}, expected numbers {wanted}.")
    return array


def _flo(path: Path, size: tuple[int, int]) -> np.ndarray:
    with file_failures(path, "read"):
        data = path.read_bytes()
    expected = 12 + 8 * size[0] * size[1]
    if len(data) < 12 or np.frombuffer(data, "<f4", 1)[0] != np.float32(_FLO):
        raise InvalidValue(f"{path}: is not a .flo file (it does not begin with {_FLO}).")
    width, height = np.frombuffer(data, "<i4", 2, 4)
    if (height, width) != tuple(size) or len(data) != expected:
        raise InvalidValue(
            f"{path}: is {height} x {width} in {len(data)} bytes; expected "
            f"{size[0]} x {size[1]} in {expected}."
        )
    return np.frombuffer(data, "<f4", offset=12).reshape(*size, 2)
