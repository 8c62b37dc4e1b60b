"""What an estimator is: eight small protocols, their results, and the names of their settings.

Evaluation and dataset construction know estimators by these protocols only. Frames are u8 [T, H, W, 3] RGB.
Everything is NumPy. Dilation of masks, the choice of frames and metric scale belong to the caller, never to
an estimator. An estimator raises for broken inputs (:class:`InvalidValue`) and a broken environment (a
missing program, file or extra); that it found nothing in a sound clip is a result where the protocol has one
(structure from motion), and otherwise an :class:`EstimatorFailed`, which concerns this clip alone.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from camctrl_jax.camera.cameras import Cameras
from camctrl_jax.errors import ClipError, InvalidValue, file_failures


class EstimatorFailed(ClipError):
    """An estimator gave nothing usable for this clip; others may be fine.

    ``reason`` is one of ``timeout``, ``crashed`` (it died or ended with an error), ``no_result`` (files that
    it owes, or that were to be imported, are not there), ``bad_result`` (they are not what they should be)
    and ``too_short`` (the clip has too few frames for it).

    Attributes:
        log_tail: the last lines that it printed.
        folder: its working folder, where that was kept.
    """

    def __init__(self, reason: str, message: str, log_tail: str = "", folder: Path | None = None) -> None:
        super().__init__(reason, message)
        self.log_tail = log_tail
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.reason, str(self), self.log_tail, self.folder)


@dataclass(frozen=True)
class Fingerprint:
    """What a result depends on besides the pictures: the key under which results may be kept.

    Attributes:
        name, version: of the estimator.
        parameters: (name, value) pairs of plain values.
        weights: (file name, SHA-256) pairs.
    """

    name: str
    version: str
    parameters: tuple[tuple[str, Any], ...] = ()
    weights: tuple[tuple[str, str], ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 of it all, 64 hexadecimal digits."""
        whole = json.dumps(dataclasses.asdict(self), sort_keys=True, default=str)
        return hashlib.sha256(whole.encode()).hexdigest()


def hashed(paths: Sequence[Path]) -> tuple[tuple[str, str], ...]:
    """(name, SHA-256) of files; of a folder, of all its files with their names."""
    pairs = []
    for path in map(Path, paths):
        summed = hashlib.sha256()
        folder = path.is_dir()
        for file in sorted(path.rglob("*")) if folder else [path]:
            if file.is_file():
                with file_failures(file, "read"), file.open("rb") as stream:
                    digest = hashlib.file_digest(stream, "sha256")
                if folder:
                    summed.update(f"{file.relative_to(path).as_posix()} {digest.hexdigest()}\n".encode())
                else:
                    summed = digest
        pairs.append((path.name, summed.hexdigest()))
    return tuple(pairs)


# ------------------------------------------------------------------------------------------------------
# results


@dataclass(frozen=True, eq=False)
class MotionMasks:
    """Which pixels show something that moves in the world.

    Attributes:
        moving: bool [T, H, W], True = moving, not dilated.
    """

    moving: np.ndarray

    @property
    def shares(self) -> np.ndarray:
        """Share of moving pixels of every frame, f64 [T]."""
        return self.moving.mean(axis=(1, 2))

    def dilated(self, pixels: int = 5) -> np.ndarray:
        """The masks, grown by ``pixels`` in every direction (a square), bool [T, H, W]."""
        return dilate(self.moving, pixels)


def dilate(masks: np.ndarray, pixels: int) -> np.ndarray:
    """Masks bool [..., H, W] grown by ``pixels`` in every direction: True where any pixel of the square
    is."""
    grown = np.asarray(masks, bool)
    for axis in (-1, -2):
        once, result = np.moveaxis(grown, axis, -1), np.moveaxis(grown, axis, -1).copy()
        for step in range(1, min(pixels, once.shape[-1] - 1) + 1):
            result[..., step:] |= once[..., :-step]
            result[..., :-step] |= once[..., step:]
        grown = np.moveaxis(result, -1, axis)
    return grown


class SfmStatus(enum.Enum):
    """Whether structure from motion gave a model at all. That it did does not make the model right."""

    MODEL = "model"
    FAILED = "failed"


@dataclass(frozen=True, eq=False)
class SfmResult:
    """Cameras and points of a clip of T frames; of several models the largest.

    A model of all frames may still be wrong by far: wrong focal lengths, a moving object taken for the world.
    :func:`camctrl_jax.estimators.checks.doubts` lists what speaks against one.

    Attributes:
        status: whether there is a model.
        reason: "" or a short fixed word: ``no_model``, ``no_points``, ``timeout``, ``crashed``,
            ``no_result``, ``bad_result``.
        message: a sentence for people; of a program that failed, with the tail of its log.
        registered: bool [T], the frames that have a pose.
        camera_from_world: f64 [T, 3, 4], OpenCV axes, in an unknown unit unless ``metric``; NaN where not
            registered.
        intrinsics: f64 [T, 4], fx/W, fy/H, cx/W, cy/H; NaN where not registered.
        distortion: f64 [T, 4], OpenCV's k1, k2, p1, p2; zero where the model has none.
        points: f64 [P, 3] in the world.
        observation_frame: i32 [M]; observation_xy: f64 [M, 2] pixels of the frames given, centres at +0.5;
            observation_point: i32 [M], rows of ``points``.
        mean_reprojection_error: pixels, NaN if unknown.
        model_sizes: registered frames of every model found, largest first.
        seconds: wall clock.
        metric: whether the unit is metres.
    """

    status: SfmStatus
    registered: np.ndarray
    camera_from_world: np.ndarray
    intrinsics: np.ndarray
    distortion: np.ndarray
    points: np.ndarray
    observation_frame: np.ndarray
    observation_xy: np.ndarray
    observation_point: np.ndarray
    mean_reprojection_error: float = float("nan")
    model_sizes: tuple[int, ...] = ()
    reason: str = ""
    message: str = ""
    seconds: float = 0.0
    metric: bool = False

    @classmethod
    def failed(cls, frames: int, reason: str, message: str, seconds: float = 0.0) -> SfmResult:
        """The result of a clip that has no model."""
        return cls(
            SfmStatus.FAILED,
            np.zeros(frames, bool),
            np.full((frames, 3, 4), np.nan),
            np.full((frames, 4), np.nan),
            np.full((frames, 4), np.nan),
            np.zeros((0, 3)),
            np.zeros(0, np.int32),
            np.zeros((0, 2)),
            np.zeros(0, np.int32),
            reason=reason,
            message=message,
            seconds=seconds,
        )

    @classmethod
    def of_cameras(cls, cameras: Cameras, frames: Sequence[int] | None = None, count: int | None = None):
        """The result that known cameras are: no points, no observations.

        Args:
            cameras: of the frames ``frames`` (default: all, in order) of a clip of ``count`` frames.
        """
        frames = np.arange(len(cameras)) if frames is None else np.asarray(frames, int)
        empty = cls.failed(len(cameras) if count is None else count, "", "")
        empty.registered[frames] = True
        empty.camera_from_world[frames] = cameras.camera_from_world[:, :3]
        empty.intrinsics[frames] = cameras.intrinsics
        empty.distortion[frames] = 0.0
        return dataclasses.replace(
            empty, status=SfmStatus.MODEL, model_sizes=(len(frames),), metric=cameras.metric
        )

    def __len__(self) -> int:
        return len(self.registered)

    @property
    def succeeded(self) -> bool:
        """Whether every frame has a pose: what the paper counts as a registered clip."""
        return self.status is SfmStatus.MODEL and bool(self.registered.all())

    @property
    def registered_frames(self) -> np.ndarray:
        """Indices of the frames with a pose, i64 [R]."""
        return np.flatnonzero(self.registered)

    @property
    def registered_share(self) -> float:
        return float(self.registered.mean()) if len(self.registered) else 0.0

    @property
    def track_lengths(self) -> np.ndarray:
        """In how many frames every point is seen, i64 [P]."""
        return np.bincount(self.observation_point, minlength=len(self.points))

    @property
    def mean_track_length(self) -> float:
        """Observations per point, 0 without points."""
        return len(self.observation_point) / len(self.points) if len(self.points) else 0.0

    @property
    def observations_per_frame(self) -> np.ndarray:
        """i64 [T]."""
        return np.bincount(self.observation_frame, minlength=len(self))

    def cameras(self, times: np.ndarray | None = None) -> Cameras:
        """The registered frames as a path; lens distortion is left out.

        Args:
            times: f64 [T], seconds of all frames.

        Raises:
            InvalidValue: no frame is registered.
        """
        frames = self.registered_frames
        if not len(frames):
            raise InvalidValue(f"no frame has a pose ({self.reason or self.status.value}): there is no path.")
        poses = np.tile(np.eye(4), (len(frames), 1, 1))
        rotation = np.swapaxes(self.camera_from_world[frames, :, :3], 1, 2)
        poses[:, :3, :3] = rotation
        poses[:, :3, 3] = -np.einsum("tij,tj->ti", rotation, self.camera_from_world[frames, :, 3])
        return Cameras(
            poses, self.intrinsics[frames], None if times is None else np.asarray(times)[frames], self.metric
        )


@dataclass(frozen=True, eq=False)
class DepthResult:
    """Depth in metres.

    Attributes:
        depth: f32 [T, H, W], z-depth (along the optical axis), metres.
        valid: bool [T, H, W], where it means something (not in the sky).
        intrinsics: f64 [T, 4], the fractions that it was computed with; None if unknown.
    """

    depth: np.ndarray
    valid: np.ndarray
    intrinsics: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class PointCloud:
    """Coloured points of a clip.

    Attributes:
        points: f64 [P, 3].
        colours: u8 [P, 3].
        confidence: f32 [P], larger is surer; ones where unknown.
        cameras: poses in the same world, all frames; None if unknown.
        metric: whether the unit is metres.
    """

    points: np.ndarray
    colours: np.ndarray
    confidence: np.ndarray
    cameras: Cameras | None = None
    metric: bool = False


@dataclass(frozen=True, eq=False)
class PointMaps:
    """What each pixel of a clip shows in 3-D: a depth or a point, one of the two.

    Attributes:
        depth: f32 [T, H, W], z-depth in each picture's camera; not finite or not positive where unknown.
        points: f32 [T, H, W, 3], in one world; not finite where unknown.
        confidence: f32 [T, H, W], larger is surer; None where all count alike.
        cameras: the estimator's own, in its own scale and world; None: ``points`` are in the world of the
            cameras that it was given.
        metric: whether depth and points are metres.
    """

    depth: np.ndarray | None = None
    points: np.ndarray | None = None
    confidence: np.ndarray | None = None
    cameras: Cameras | None = None
    metric: bool = False


# ----------------------------------------------------------------------------------------------------
# protocols


@runtime_checkable
class MotionSegmenter(Protocol):
    def segment(self, frames: np.ndarray, fps: float) -> MotionMasks:
        """Masks of the frames u8 [T, H, W, 3], ``fps`` of them a second."""
        ...

    def fingerprint(self) -> Fingerprint: ...


@runtime_checkable
class StructureFromMotion(Protocol):
    def reconstruct(
        self,
        frames: np.ndarray,
        masks: np.ndarray | None = None,
        intrinsics: np.ndarray | None = None,
        times: np.ndarray | None = None,
    ) -> SfmResult:
        """Cameras of the frames u8 [T, H, W, 3].

        Args:
            masks: bool [T, H, W], True = ignore.
            intrinsics: f64 [4] or [T, 4] fractions, taken as true; None estimates them.
            times: f64 [T] seconds.
        """
        ...

    def fingerprint(self) -> Fingerprint: ...


@runtime_checkable
class MetricDepth(Protocol):
    def depth(self, frames: np.ndarray, intrinsics: np.ndarray | None = None) -> DepthResult:
        """Depth of the frames u8 [T, H, W, 3]; ``intrinsics`` f64 [4] or [T, 4] fractions where known."""
        ...

    def fingerprint(self) -> Fingerprint: ...


@runtime_checkable
class OpticalFlow(Protocol):
    def flow(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Flow f32 [B, H, W, 2] from pictures ``a`` to ``b`` u8 [B, H, W, 3]: pixels, u right, v down."""
        ...

    def fingerprint(self) -> Fingerprint: ...


@runtime_checkable
class ClipEmbedder(Protocol):
    def embed(self, frames: np.ndarray) -> np.ndarray:
        """Embeddings f32 [T, D] of length 1, of the frames u8 [T, H, W, 3]."""
        ...

    def fingerprint(self) -> Fingerprint: ...


@runtime_checkable
class VideoEmbedder(Protocol):
    @property
    def least_frames(self) -> int:
        """Frames that a clip must have; a shorter one is an :class:`EstimatorFailed` (``too_short``)."""
        ...

    def embed_video(self, frames: np.ndarray, fps: float) -> np.ndarray:
        """One vector f64 [D] of a whole clip u8 [T, H, W, 3], ``fps`` frames a second; finite."""
        ...

    def fingerprint(self) -> Fingerprint: ...


@runtime_checkable
class PointReconstructor(Protocol):
    def points(self, frames: np.ndarray, cameras: Cameras | None = None) -> PointCloud:
        """Points of the frames u8 [T, H, W, 3], in the world of ``cameras`` where given."""
        ...

    def fingerprint(self) -> Fingerprint: ...


@runtime_checkable
class PointMapper(Protocol):
    def maps(self, frames: np.ndarray, cameras: Cameras) -> PointMaps:
        """A depth or a point for each pixel of the frames u8 [T, H, W, 3], of cameras that are known.

        The class of VGGT, FLARE and DUSt3R: an estimator that cannot take cameras gives its own beside, and
        :mod:`camctrl_jax.reconstruction.point_maps` brings its maps into the world of the known ones.
        """
        ...

    def fingerprint(self) -> Fingerprint: ...


def for_clip(estimator: Any, name: str) -> Any:
    """The estimator for one clip of several, by the clip's name.

    Imported results may lie in a file or folder for each clip: ``{clip}`` in their path is replaced by
    ``name``. Every other estimator is returned as it is. To be called once for each clip; what is bound has
    a fingerprint of its own, with the hash of that clip's file.
    """
    bind = getattr(estimator, "for_clip", None)
    return estimator if bind is None else bind(name)


# -------------------------------------------------------------------------------------------------------
# checks


def checked_frames(frames: np.ndarray, name: str = "frames") -> np.ndarray:
    """The frames themselves if they are u8 [T, H, W, 3] with T >= 1; InvalidValue otherwise."""
    frames = np.asarray(frames)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not frames.size:
        raise InvalidValue(
            f"{name} are {frames.dtype}{list(frames.shape)}; expected uint8 [frames, height, width, 3]."
        )
    return frames


def checked_masks(masks: np.ndarray | None, frames: np.ndarray) -> np.ndarray | None:
    """Masks bool [T, H, W] that fit the frames, or None; InvalidValue otherwise."""
    if masks is None:
        return None
    masks = np.asarray(masks)
    if masks.dtype != bool or masks.shape != frames.shape[:3]:
        raise InvalidValue(
            f"masks are {masks.dtype}{list(masks.shape)} for frames {list(frames.shape)}; expected bool "
            f"{list(frames.shape[:3])}, True where pixels are to be ignored."
        )
    return masks


def checked_intrinsics(intrinsics: np.ndarray | None, frames: int) -> np.ndarray | None:
    """Fractions f64 [T, 4] of [4] or [T, 4], or None; InvalidValue for other shapes, pixels or nonsense."""
    if intrinsics is None:
        return None
    cameras = Cameras(
        np.tile(np.eye(4), (frames, 1, 1)), np.asarray(intrinsics, np.float64)
    )  # both raise CameraError, which is for people
    return cameras.validate("intrinsics").intrinsics


def unit_length(embeddings: np.ndarray, source: str) -> np.ndarray:
    """Embeddings f32 [T, D] scaled to length 1; EstimatorFailed where one is zero or not finite."""
    embeddings = np.asarray(embeddings, np.float64)
    length = np.linalg.norm(embeddings, axis=-1, keepdims=True)
    if not (np.isfinite(length).all() and length.all()):
        raise EstimatorFailed("bad_result", f"{source}: an embedding is zero or not finite.")
    return (embeddings / length).astype(np.float32)
