"""What ``export scene`` starts from: a video with cameras, a folder of generate, an exploration or a world.

Only key frames are decoded, so memory does not grow with the video.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from camctrl_jax.camera.cameras import Cameras
from camctrl_jax.camera.reading import Reading, read_path
from camctrl_jax.data.pose_files import Poses
from camctrl_jax.data.sources import pictures_of
from camctrl_jax.errors import InvalidValue, MissingFile
from camctrl_jax.files.json_file import read_json
from camctrl_jax.reconstruction.dense_depth import SweepSettings, key_frames, views_of
from camctrl_jax.sampling.exploration_folder import SETTINGS as EXPLORATION
from camctrl_jax.sampling.exploration_folder import ExplorationFolder, line_of
from camctrl_jax.sampling.exploration_path import joined
from camctrl_jax.video.decoding import read_frames
from camctrl_jax.worlds import WorldsConfig, render_rgb, sample_world

GENERATED = "generation.json"
_SHAPES_DIFFER = 0.02  # relative difference of width over height


@dataclass(frozen=True, eq=False)
class SceneSource:
    """Key frames of a clip with their cameras.

    Attributes:
        frames: u8 [K, H, W, 3].
        cameras: theirs.
        indices: i64 [K], which frames of the clip they are; total: how many it has, as far as poses go.
        fps: of the key frames, on average.
        said: what it is, for the report.
        notes: what its user should know.
    """

    frames: np.ndarray
    cameras: Cameras
    indices: np.ndarray
    total: int
    fps: float
    said: str
    notes: tuple[str, ...] = ()


def source_of_world(
    seed: int, size: tuple[int, int], frames: int, still: bool, settings: SweepSettings
) -> SceneSource:
    """The true render of a procedural world along its own path, for trying."""
    if seed < 0:
        raise InvalidValue(f"--worlds-seed {seed}: expected 0 or more.")
    config = WorldsConfig(frames=frames, aspect=size[1] / size[0], static=still)
    world = sample_world(seed, config)
    rgb = np.asarray(render_rgb([world], *size))[0]
    chosen = key_frames(world.cameras, views_of(frames, settings))
    said = f"world {seed} ({world.path_class})"
    return SceneSource(
        rgb[chosen], world.cameras[chosen], chosen, frames, config.fps * len(chosen) / frames, said
    )


def source_of_files(
    source: Path,
    poses: Path | None,
    reading: Reading,
    poses_of: str,
    metric: bool,
    settings: SweepSettings,
    intrinsics: tuple[float, float, float, float] | None = None,
) -> SceneSource:
    """A video or folder of pictures with a pose file, or a folder of ``generate`` or of an exploration, with
    the cameras in it.

    Raises:
        MissingFile: nothing is there.
        InvalidValue: no cameras, or a pose file of pictures of another shape.
        ClipError: a video or pose file that cannot be used; poses that are not as many as frames.
    """
    if not source.exists():
        raise MissingFile(f"{source}: no such file or folder.")
    if (source / GENERATED).is_file() and poses is None:
        return _of_generated(source, settings)
    if (source / EXPLORATION).is_file() and poses is None:
        return _of_exploration(source, settings)
    if poses is None:
        raise InvalidValue(
            f"{source} has no cameras: name them with --cameras FILE, in any format that python -m "
            "camctrl_jax.camera formats lists; only folders of generate and of explorations hold their own."
        )
    video = source / "video.mp4" if (source / GENERATED).is_file() else source
    first = next(read_frames(video))
    if not poses.exists() and not Path(str(poses).partition("#")[0]).exists():
        raise MissingFile(f"--cameras {poses}: no such file or folder.")
    _check_shape(poses, reading, video, (first.stored_size, first.size), intrinsics is not None)
    remarks: list[str] = []
    found = Poses(
        poses, [video], video, metric=metric, reading=reading, poses_of=poses_of, option="--cameras"
    ).find(video, pictures_of(video), first, remarks)
    if found is None:
        raise InvalidValue(f"--cameras {poses}: holds no pose file for {video}.")
    posed = np.flatnonzero(found.pose_of >= 0)
    if len(posed) < len(found.pose_of):
        remarks.append(f"{len(found.pose_of) - len(posed)} pictures without a pose were left out")
    rows = [found.cameras.camera(first, int(found.pose_of[index])) for index in posed]
    lenses = np.stack([row[1] for row in rows]) if intrinsics is None else np.array(intrinsics)
    cameras = Cameras(np.stack([row[0] for row in rows]), lenses, metric=rows[0][2])
    cameras = cameras.validate(str(poses) if intrinsics is None else f"{poses} with --intrinsics")
    chosen = key_frames(cameras, views_of(len(cameras), settings))
    return _decoded(video, posed[chosen], len(found.pose_of), cameras[chosen], tuple(remarks))


def _of_generated(folder: Path, settings: SweepSettings) -> SceneSource:
    record = read_json(folder / GENERATED)
    path = record.get("camera")
    if not path:
        raise InvalidValue(
            f"{folder} was generated without a camera path: there are no poses to make a scene with. "
            "Generate with --camera, or give --cameras FILE."
        )
    try:
        cameras = Cameras(path["world_from_camera"], path["intrinsics"], metric=True)
        name, frames = record["files"]["video"], record["clip"]["frames"]
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidValue(
            f"{folder / GENERATED} does not hold a path and a video as python -m camctrl_jax.generate writes "
            f"them ({type(error).__name__}: {error}). Generate again, or give --cameras FILE."
        ) from error
    cameras = cameras.validate(str(folder / GENERATED))
    if len(cameras) != frames:
        raise InvalidValue(
            f"{folder / GENERATED} holds {len(cameras)} poses for {frames} frames; each needs its own."
        )
    chosen = key_frames(cameras, views_of(len(cameras), settings))
    return _decoded(folder / Path(name).name, chosen, frames, cameras[chosen], ())


def _of_exploration(path: Path, settings: SweepSettings) -> SceneSource:
    """The current clip of an exploration and all that it goes on from, their frames exact."""
    folder = ExplorationFolder(path)
    about, clips, current = folder.read()
    line = line_of(clips, current)
    cameras = joined(*map(folder.read_cameras, line))
    chosen = key_frames(cameras, views_of(len(cameras), settings))
    frames = folder.read_line(line, about, chosen.tolist())
    names = ", ".join(clip.name for clip in line)
    fps = about.fps * len(chosen) / len(cameras)
    return SceneSource(frames, cameras[chosen], chosen, len(cameras), fps, f"{path}, clips {names}")


def _check_shape(
    poses: Path,
    reading: Reading,
    video: Path,
    sizes: tuple[tuple[int, int], tuple[int, int]],
    lens_is_given: bool,
) -> None:
    """A pose file that tells the size of its pictures must mean pictures of the video's shape."""
    sized = reading if reading.image_size else replace(reading, image_size=sizes[0])
    pose_file = read_path(poses, sized).pose_file
    if pose_file.intrinsics_from != "file" and not lens_is_given:
        raise InvalidValue(
            f"--cameras {poses} holds poses without a lens, and a guessed one bends the whole scene. Give "
            "it with --intrinsics FX FY CX CY, as fractions fx/W fy/H cx/W cy/H of the picture, or use a "
            "format that holds it."
        )
    told = pose_file.image_size
    if told is None:
        return
    shapes = [size[1] / size[0] for size in (*sizes, *(size[::-1] for size in sizes))]
    if not any(abs(told[1] / told[0] / shape - 1) <= _SHAPES_DIFFER for shape in shapes):
        height, width = sizes[1]
        raise InvalidValue(
            f"--cameras {poses} belongs to pictures of {told[0]}x{told[1]}, {video} has {height}x{width}: "
            "their shapes differ, so one is a crop of the other and the lens does not fit. Give the "
            "uncropped video, or the cameras of the crop."
        )


def _decoded(
    video: Path, indices: np.ndarray, total: int, cameras: Cameras, remarks: tuple[str, ...]
) -> SceneSource:
    """The frames ``indices`` of a video; the others are decoded and dropped."""
    wanted, frames, times = set(indices.tolist()), [], []
    notes = list(remarks)
    for frame in read_frames(video):
        if frame.index in wanted:
            frames.append(frame.rgb())
            times.append(frame.time)
            notes += [f"{video}: {remark}" for remark in frame.remarks]
        if len(frames) == len(wanted):
            break
    if len(frames) < len(wanted):
        raise InvalidValue(
            f"{video} has fewer frames than poses: frame {max(wanted)} is not there. Each pose needs a frame."
        )
    span = times[-1] - times[0]
    fps = (len(times) - 1) / span if span > 0 else 12.0
    return SceneSource(
        np.stack(frames), cameras, indices, total, fps, str(video), tuple(dict.fromkeys(notes))
    )
