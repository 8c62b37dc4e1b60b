"""The camera path of a request: as its file, preset or sentence says, for the picture it starts with."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from camctrl_jax.camera import Cameras
from camctrl_jax.camera.formats import Convention
from camctrl_jax.camera.framing import Framing, null_intrinsics
from camctrl_jax.camera.orientation import Orientation, told_by_size
from camctrl_jax.camera.playing import PlayedPath, Playing, played_path
from camctrl_jax.camera.reading import Reading
from camctrl_jax.clip_shape import ClipShape
from camctrl_jax.generate.request import Request
from camctrl_jax.generate.start import Start
from camctrl_jax.video.decoding import SourceFrame


def path_of_request(
    request: Request, shape: ClipShape, fps: float, start: Start, notes: list[str]
) -> Cameras:
    """The path in metres from its first frame, with the lens of what is seen.

    Adds to the notes what its user should know.
    """
    spec, world, framing = request.camera, start.world, start.framing
    if spec is None:
        return world.cameras.scaled(request.camera_scale).relative_to(0)
    played = _played(request, shape, fps, notes)
    cameras = played.cameras.validate(f"--camera {spec}")
    if played.source is not None and start.image is not None:
        _note_where_it_begins(played, start.image, request, notes)
        cameras = _as_shown(cameras, played, start.image, request, notes)
    if world is not None:
        cameras = cameras.with_intrinsics(world.cameras.intrinsics)
    elif request.intrinsics is not None:
        cameras = cameras.with_intrinsics(request.intrinsics).validate("--intrinsics")
        if framing is not None:
            cameras = cameras.with_intrinsics(framing.intrinsics(cameras.intrinsics))
    elif played.source is not None and played.source.pose_file.intrinsics_from == "file":
        # A file knows the lens of its own video: take it, through the crop that the picture went through.
        own = cameras.intrinsics
        if framing is None:
            # Without a picture its shape follows from square pixels: width / height = (fy/H) / (fx/W).
            source = 1000, max(1, round(1000 * float(np.median(own[:, 1] / own[:, 0]))))
            framing = Framing.cover(source, (shape.height, shape.width))
        cameras = cameras.with_intrinsics(framing.intrinsics(own))
    else:
        cameras = cameras.with_intrinsics(_default_lens(played, shape))
    if not cameras.metric and request.camera_scale == 1.0:
        notes.append(
            f"{spec} does not say its unit; its path of {cameras.path_length:.2f} units is taken as metres. "
            "--camera-scale changes that."
        )
    return cameras.scaled(request.camera_scale, metric=True).relative_to(0)


def _played(request: Request, shape: ClipShape, fps: float, notes: list[str]) -> PlayedPath:
    """The path of --camera as the clip takes it, in the world that it comes in."""
    reading = Reading(
        request.source_format,
        request.image_size,
        Convention(request.invert, request.axes, request.quaternions),
    )
    playing = Playing(request.part, request.source_fps, own_pace=request.pace == "own")
    lens = null_intrinsics(shape.height, shape.width)
    played = played_path(request.camera, shape.frames, fps, intrinsics=lens, reading=reading, playing=playing)
    notes += [f"{request.camera}: {remark}" for remark in played.remarks]
    return played


def _default_lens(played: PlayedPath, shape: ClipShape) -> np.ndarray:
    """The lens of a preset or sentence; of a file without one that of a picture 53 degrees high."""
    if played.source is None:
        return played.cameras.intrinsics
    return null_intrinsics(shape.height, shape.width)


def _as_shown(
    cameras: Cameras, played: PlayedPath, image: SourceFrame, request: Request, notes: list[str]
) -> Cameras:
    """Cameras of the picture as it is shown, of a file that may hold those of the picture as it is stored."""
    if image.orientation == Orientation():
        return cameras
    (height, width), stored = image.size, image.stored_size
    told = played.source.pose_file.image_size
    poses_of = request.poses_of
    if poses_of == "auto" and (belongs := told_by_size(told, stored, image.size)) != "unknown":
        poses_of = belongs
        if poses_of == "stored":
            notes.append(
                f"{request.image} is turned to be shown; {request.camera} belongs to it as it is stored, by "
                f"its size of {told[0]}x{told[1]}: its poses and lens were turned alike (--poses-of shown "
                "takes them as they are)."
            )
    if poses_of == "auto":
        notes.append(
            f"{request.image} is turned or mirrored to be shown; {request.camera} does not tell whether its "
            "poses belong to it before or after that, and is taken to belong to the picture as it is shown, "
            f"{height}x{width} (--poses-of stored for the picture as it is stored)."
        )
    return image.orientation.cameras(cameras) if poses_of == "stored" else cameras


def _note_where_it_begins(played: PlayedPath, image: SourceFrame, request: Request, notes: list[str]) -> None:
    """A file that names the picture has its pose, which is where the path should begin."""
    names = played.source.pose_file.names
    first = range(len(names))[slice(*(request.part or (None, None)))]
    places = [place for place, name in enumerate(names) if Path(name).name == image.name]
    if len(places) == 1 and first and first[0] != places[0]:
        notes.append(
            f"{request.camera}: the picture {image.name} is frame {places[0]} of the pose file, the path "
            f"begins at frame {first[0]}; --range {places[0]}: begins at the picture."
        )
