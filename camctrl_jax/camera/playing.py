"""Which part of a recorded path a clip takes, and how fast it plays it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from camctrl_jax.camera.cameras import Cameras
from camctrl_jax.camera.formats import existing_path
from camctrl_jax.camera.interpolation import resample, sample_at
from camctrl_jax.camera.presets import resolve_path
from camctrl_jax.camera.reading import Reading, ReadPath, read_path
from camctrl_jax.errors import InvalidValue

Part = tuple[int | None, int | None]
"""The first frame and the one behind the last; None is the end of the path."""

MOST_FRAMES = 1_000_000
"""Longer paths are a mistake in a rate, and would not fit into memory."""

_ROUNDING = 1e-3  # of a frame: times in text are rounded
_SAME_SPEED = 0.02  # of the speed; less is not worth a word


@dataclass(frozen=True)
class Playing:
    """How a recorded path is played.

    Attributes:
        part: which frames are taken; None takes all.
        source_fps: poses per second of the file, in place of its own times; None keeps those.
        own_pace: keep the speed of the recording; otherwise the path is stretched or squeezed to the clip.
    """

    part: Part | None = None
    source_fps: float | None = None
    own_pace: bool = False


@dataclass(frozen=True)
class PlayedPath:
    """A path as a clip takes it.

    Attributes:
        cameras: one for every frame of the clip, in the world of the file.
        source: the pose file; None of a preset or a sentence.
        remarks: what its user should know.
    """

    cameras: Cameras
    source: ReadPath | None
    remarks: tuple[str, ...]


def played_path(
    spec: str | Path,
    frames: int,
    fps: float,
    *,
    intrinsics: ArrayLike | None = None,
    reading: Reading | None = None,
    playing: Playing | None = None,
) -> PlayedPath:
    """What a clip makes of the path that a user names.

    Args:
        spec, frames, fps: as in :func:`~camctrl_jax.camera.presets.resolve_path`.
        intrinsics: [4] fractions at the start of a preset or sentence; a file keeps its own.
        reading, playing: how a pose file is read and played; None is as its format says, all of it.

    Raises:
        FileNotFoundError, CameraError, ValueError: as there, and for options that the path cannot follow.
    """
    reading, playing = reading or Reading(), playing or Playing()
    if existing_path(spec) is None:
        cameras = resolve_path(spec, frames, fps, intrinsics)
        if given := given_options(reading, playing):
            raise InvalidValue(
                f"{str(spec)!r} is a preset or a sentence: {', '.join(given)} would say how a pose file is "
                "read or played; leave that out"
            )
        return PlayedPath(cameras, None, ())
    read = read_path(spec, reading)
    cameras, _ = part_of(read.pose_file.cameras, (), playing.part, spec)
    cameras, replaced = timed(cameras, playing.source_fps)
    if playing.own_pace:
        otherwise = "--pace fit, which spreads the path over the clip"
        played = at_rate(cameras, fps, frames, source=spec, otherwise=otherwise)
        pace = pace_kept(cameras, frames, fps)
    else:
        played, pace = (
            resample(cameras, frames),
            pace_changed(cameras, frames, fps, read.format.pictures_per_pose),
        )
    return PlayedPath(played.with_fps(fps), read, (*read.remarks, *replaced, *pace))


def part_of(
    cameras: Cameras, names: Sequence[str], part: Part | None, source: str | Path
) -> tuple[Cameras, Sequence[str]]:
    """Some frames of a path, and the names of their pictures.

    Args:
        cameras, names: of the whole path; there may be no names.
        part: as Python slices count, but both ends must lie in the path; None takes all.
        source: what the message names.
    """
    if part is None:
        return cameras, names
    count = len(cameras)
    first, end = part
    inside = all(place is None or -count <= place <= count for place in part)
    chosen = range(count)[first:end]
    if not inside or not chosen:
        asked = ":".join("" if place is None else str(place) for place in part)
        raise InvalidValue(
            f"--range {asked}: {'holds no frame' if inside else 'reaches beyond the path'}; {source} has "
            f"{count} poses, 0:{count} is all of them"
        )
    return cameras[chosen.start : chosen.stop], names[chosen.start : chosen.stop]


def timed(cameras: Cameras, source_fps: float | None) -> tuple[Cameras, tuple[str, ...]]:
    """A path with the times of ``source_fps`` poses a second, and what that replaces; as it is with None."""
    if source_fps is None:
        return cameras, ()
    check_rate("--source-fps", source_fps)
    remarks = ()
    if cameras.times is not None and len(cameras) > 1:
        own, duration = _duration(cameras), (len(cameras) - 1) / source_fps
        if abs(own - duration) > _SAME_SPEED * duration:
            remarks = (
                f"the file's own times, {own:.4g} s in all, were set aside: at --source-fps {source_fps:g} "
                f"it takes {duration:.4g} s",
            )
    return cameras.with_fps(source_fps), remarks


def check_rate(option: str, fps: float) -> None:
    """Refuse what is no number of frames per second."""
    if not 0 < fps < float("inf"):
        raise InvalidValue(f"{option} {fps:g}: expected a positive number of frames per second")


def at_rate(
    cameras: Cameras,
    fps: float,
    frames: int | None = None,
    *,
    source: str | Path,
    otherwise: str = "--frames N, which spreads the path over N frames",
) -> Cameras:
    """A path sampled ``fps`` times a second at its own pace, from its first pose on.

    Args:
        cameras: a path with times.
        fps: of the result.
        frames: how many; the last pose is held where the path is shorter. None covers the path once.
        source: what the messages name.
        otherwise: what else they propose.

    Raises:
        InvalidValue: for a path without times, or a result of more than a million frames.
    """
    if cameras.times is None:
        raise InvalidValue(
            f"{source} holds no times, so it has no pace of its own: give its poses per second with "
            f"--source-fps F, or take {otherwise}"
        )
    if frames is None:
        exact = _duration(cameras) * fps + _ROUNDING
        if exact >= MOST_FRAMES:
            raise InvalidValue(
                f"{source}: its {_duration(cameras):.4g} s at --fps {fps:g} are {exact:.3g} frames, more "
                f"than {MOST_FRAMES:,}; give a lower --fps, or, where the file's times are wrong, its poses "
                "per second with --source-fps F"
            )
        frames = int(exact) + 1
    at = cameras.times[0] + np.arange(frames) / fps
    return dataclasses.replace(sample_at(cameras, at), times=at)


def pace_kept(cameras: Cameras, frames: int, fps: float) -> tuple[str, ...]:
    """What to say about a clip of ``frames`` frames that plays a path with times at its own pace."""
    own, clip = _duration(cameras), (frames - 1) / fps
    if own > clip + _ROUNDING / fps:
        return (
            f"the clip takes the first {clip:.4g} s of the path's {own:.4g} s, at its own pace; --range "
            "takes another part",
        )
    held = frames - 1 - int(own * fps + _ROUNDING)
    if held > 0:
        return (
            f"the path ends after {own:.4g} s, the clip after {clip:.4g} s: the camera stands still in the "
            f"last {held} frames",
        )
    return ()


def pace_changed(cameras: Cameras, frames: int, fps: float, pictures_per_pose: int = 1) -> tuple[str, ...]:
    """What to say about a clip of ``frames`` frames that a whole path is stretched or squeezed to."""
    poses = len(cameras)
    if frames < 2:
        return ()
    if poses < 2:
        return (f"the path is one pose: the camera stands still in all {frames} frames",)
    stride, clip = (poses - 1) / (frames - 1), (frames - 1) / fps
    own = _duration(cameras) if cameras.times is not None else (poses - 1) * pictures_per_pose / fps
    speed = own / clip
    if abs(speed - 1.0) < _SAME_SPEED:
        return ()
    moved = f"{stride:.3g} pose" if f"{stride:.3g}" == "1" else f"{stride:.3g} poses"
    what = f"{poses} poses become {frames} frames: every frame moves {moved} on"
    if cameras.times is None:
        usual = "a frame" if pictures_per_pose == 1 else f"for every {pictures_per_pose} frames"
        told = f", {speed:.3g} times as fast as one pose {usual}"
        remedy = "--pace own with --source-fps F keeps its own"
    else:
        told = f", and the file's {own:.4g} s play in {clip:.4g} s, {speed:.3g} times as fast as recorded"
        remedy = "--pace own keeps that speed"
    return (f"{what}{told}. --range A:B takes a part, {remedy}",)


def _duration(cameras: Cameras) -> float:
    return float(cameras.times[-1] - cameras.times[0])


def given_options(reading: Reading, playing: Playing) -> list[str]:
    """The options behind what is not as the format says or as it is by default."""
    convention = reading.convention
    given = {
        "--from": reading.format is not None,
        "--image-size": reading.image_size is not None,
        "--invert": convention.inverse,
        "--axes": convention.axes,
        "--quaternions": convention.quaternions,
        "--range": playing.part is not None,
        "--source-fps": playing.source_fps is not None,
        "--pace": playing.own_pace,
    }
    return [option for option, is_given in given.items() if is_given]


def take_playing(values: dict[str, Any], *, own_pace: bool = False) -> Playing:
    """Take the values of :func:`~camctrl_jax.pose_options.add_playing_options` out of what was parsed."""
    return Playing(values.pop("part"), values.pop("source_fps"), own_pace)
