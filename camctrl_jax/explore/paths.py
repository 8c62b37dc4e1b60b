"""Paths of requests: what a visitor says, as cameras in metres from where the clip begins, and what is odd.

Words are presets or sentences, never names of files: a visitor must not read the server's disk.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from camctrl_jax.camera import Cameras
from camctrl_jax.camera.formats.kitti import FORMAT as MATRICES
from camctrl_jax.camera.formats.posefile import AS_THE_FORMAT_SAYS, Convention
from camctrl_jax.camera.interpolation import interpolate_keyframes
from camctrl_jax.camera.misread import misread
from camctrl_jax.camera.moves import path_of
from camctrl_jax.camera.path_text import PathTextError, stages_from_text
from camctrl_jax.camera.playing import Playing, played_path
from camctrl_jax.camera.presets import PRESETS, preset
from camctrl_jax.camera.reading import Reading
from camctrl_jax.errors import UserError
from camctrl_jax.explore.problems import Refusal, refusal_of
from camctrl_jax.explore.schema import CamerasRequest, KeyFrame, PathFields, PoseFileRequest
from camctrl_jax.sampling.exploration_path import path_of_clip

_AXES = np.diag([1.0, -1.0, -1.0, 1.0])  # OpenGL's, or those of OpenCV seen from there
_SAME_PLACE, _SAME_WAY = 0.02, 0.02  # metres and entries of a rotation, of poses that were rounded


@dataclass(frozen=True)
class Place:
    """Where a clip begins, and what it takes.

    Attributes:
        last: the last camera so far, one pose in the frame of the exploration; of a first clip the identity
            with the lens of what it starts from.
        poses: that a path has, the first of which stands for ``last``.
        fps: frames per second.
        size: (height, width) of the frames.
        goes_on: False for a first clip.
    """

    last: Cameras
    poses: int
    fps: float
    size: tuple[int, int]
    goes_on: bool


@dataclass(frozen=True)
class Asked:
    """A path as it was understood.

    Attributes:
        cameras: ``Place.poses`` of them, in metres, seen from the first.
        said: the words for the record.
        remarks: what was assumed.
        warnings: {type, message} of what looks like a mistake.
    """

    cameras: Cameras
    said: str
    remarks: tuple[str, ...]
    warnings: tuple[dict[str, str], ...] = ()


@np.errstate(over="ignore", invalid="ignore")  # what comes of it is looked at, and refused
def asked_path(fields: PathFields, place: Place, scratch: Path, own: Cameras | None = None) -> Asked:
    """The path that a request says.

    Args:
        fields: of the request.
        place: where it begins.
        scratch: a folder of its own, for a pose file to be read from.
        own: what is taken where the request says none, of a world.

    Raises:
        Refusal: none, several, or one that cannot be followed; names the field.
    """
    given = fields.given()
    if len(given) > 1:
        raise Refusal("bad_request", f"{' and '.join(given)}: say the path in one of these ways.", given[1])
    if not given and own is None:
        raise Refusal("bad_request", "No path: say one, for example path: 'dolly in 1 m'.", "path")
    param = given[0] if given else "path"
    warnings: tuple[dict[str, str], ...] = ()
    try:
        if not given:
            cameras, said, remarks = own, "the world's own path", ()
        elif fields.path is not None:
            cameras, said, remarks = _spoken(fields.path, place), fields.path, ()
        elif fields.cameras is not None:
            cameras, remarks = _listed(fields.cameras, place)
            warnings = _odd(cameras)
            said = f"{len(fields.cameras.world_from_camera)} cameras"
        elif fields.key_frames is not None:
            cameras, remarks = _through(fields.key_frames, place), ()
            said = f"{len(fields.key_frames)} key frames"
        else:
            cameras, remarks = _of_file(fields.pose_file, place, scratch)
            said = fields.pose_file.name
        if fields.scale != 1.0:
            said += f", times {fields.scale:g}"
        cameras = cameras.scaled(fields.scale, metric=True)
        lens = place.last.intrinsics[0]
        path = path_of_clip(cameras, place.poses, place.fps, lens, goes_on=place.goes_on)
        return Asked(path, said, remarks, warnings)
    except UserError as error:
        raise refusal_of(error, param) from error


def _spoken(text: str, place: Place) -> Cameras:
    lens = place.last.intrinsics[0]
    name = text.strip().lower().replace("-", "_").replace(" ", "_")
    if name in PRESETS:
        return preset(name, place.poses, fps=place.fps, intrinsics=lens)
    try:
        stages = stages_from_text(text)
    except PathTextError as error:
        close = difflib.get_close_matches(name, PRESETS, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise PathTextError(f"{error}\nnor is it a preset{hint}") from None
    return path_of(stages, place.poses, fps=place.fps, intrinsics=lens)


def _listed(asked: CamerasRequest, place: Place) -> tuple[Cameras, tuple[str, ...]]:
    poses = np.array(asked.world_from_camera, np.float64).reshape(-1, 4, 4)
    lens: np.ndarray = place.last.intrinsics[0]
    if asked.intrinsics is not None:
        lens = np.array(asked.intrinsics, np.float64).reshape(-1, 4)
        if asked.intrinsics_unit == "pixel":
            height, width = place.size
            lens = lens / [width, height, width, height]
    cameras = Cameras(poses, lens, metric=True).validate("cameras")
    remarks = () if asked.metric else ("The unit of the cameras is unknown; it is taken as metres.",)
    if asked.relative_to == "exploration" and place.goes_on:
        if len(cameras) == place.poses - 1:  # the new frames alone
            cameras = _after(place.last, cameras)
        elif not _same(place.last, cameras):
            raise Refusal(
                "bad_request",
                "The first of the cameras, which are relative to the exploration, is not the last camera so "
                f"far, which is at {np.round(place.last.positions[0], 3).tolist()}: {_meant(place, poses[0])}"
                "begin there, leave it out, or say relative_to: last_frame.",
                "cameras",
            )
    return cameras, remarks


def _meant(place: Place, first: np.ndarray) -> str:
    """In which other convention a path would begin at the last camera so far; "" for none."""
    inverse, lens = np.linalg.inv(first), place.last.intrinsics[0]
    for pose, what in (
        (inverse, "camera-from-world matrices; invert them"),
        (
            first @ _AXES,
            "poses with OpenGL axes (x right, y up, z back); negate their second and third column",
        ),
        (_AXES @ first @ _AXES, "poses in a world with OpenGL axes; negate y and z of both sides"),
        (inverse @ _AXES, "camera-from-world matrices of OpenGL axes; invert them and turn the axes"),
    ):
        if _same(place.last, Cameras(pose[None], lens)):
            return f"these look like {what}, and they begin there. Else "
    return ""


def _odd(cameras: Cameras) -> tuple[dict[str, str], ...]:
    """Whether poses look as if they were written in another convention."""
    told = misread(cameras, MATRICES, AS_THE_FORMAT_SAYS)
    if not told:
        return ()
    told = re.sub(r" \(try [^)]*\)", "", told)  # options of a command line
    message = (
        f"These may be poses of another convention. They were taken as OpenCV's, world from camera: {told}."
    )
    return ({"type": "convention", "message": message},)


def _through(frames: list[KeyFrame], place: Place) -> Cameras:
    poses = np.array([frame.world_from_camera for frame in frames], np.float64)
    times = [frame.time for frame in frames]
    if any(time is None for time in times) and any(time is not None for time in times):
        raise Refusal("bad_request", "Some key frames have a time: give it to all or none.", "key_frames")
    keys = Cameras(poses, place.last.intrinsics[0], None if times[0] is None else times, metric=True)
    keys.validate("key_frames")
    if not _same(place.last, keys):
        if keys.times is not None and keys.times[0] <= 0:
            raise Refusal(
                "bad_request",
                f"The first key frame is not the last camera so far, which has time 0: its time is "
                f"{keys.times[0]:g}, expected more than 0. Begin with the last camera, or leave out all "
                "times.",
                "key_frames",
            )
        before = None if keys.times is None else [0.0, *keys.times]
        keys = replace(_after(place.last, replace(keys, times=None)), times=before)
    return interpolate_keyframes(keys.orthonormalised(), place.poses, fps=place.fps, easing="smooth")


def _of_file(asked: PoseFileRequest, place: Place, scratch: Path) -> tuple[Cameras, tuple[str, ...]]:
    # A name of ours: the visitor's is only for messages.
    path = scratch / "poses.txt"
    path.write_text(asked.text, encoding="utf-8")
    try:
        lens = place.last.intrinsics[0]
        convention = Convention(asked.invert, asked.axes, asked.quaternions)
        # With a size, so that no picture is looked for that the text names.
        reading = Reading(None, place.size, convention)
        playing = Playing(part=asked.range)
        played = played_path(path, place.poses, place.fps, reading=reading, playing=playing)
    except UserError as error:
        text = _as_fields(str(error).replace(str(path), asked.name))
        raise Refusal("bad_request", text, "pose_file") from error
    finally:
        path.unlink(missing_ok=True)
    remarks = tuple(_as_fields(remark.replace(str(path), asked.name)) for remark in played.remarks)
    if not played.cameras.metric:
        remarks += (
            f"{asked.name} does not say its unit; its path of {played.cameras.path_length:.2f} units is "
            "taken as metres (scale changes that).",
        )
    return played.cameras.with_intrinsics(lens), remarks


def _as_fields(text: str) -> str:
    """Options of the command line as the fields of a request that they are here."""
    for option in ("invert", "axes", "quaternions", "range"):
        text = text.replace(f"--{option}", option)
    return text


def _same(last: Cameras, cameras: Cameras) -> bool:
    apart = np.abs(last.world_from_camera[0] - cameras.world_from_camera[0])
    return bool(apart[:3, 3].max() <= _SAME_PLACE and apart[:3, :3].max() <= _SAME_WAY)


def _after(last: Cameras, cameras: Cameras) -> Cameras:
    return Cameras(
        np.concatenate([last.world_from_camera[-1:], cameras.world_from_camera]),
        np.concatenate([last.intrinsics[-1:], cameras.intrinsics]),
        metric=True,
    )
