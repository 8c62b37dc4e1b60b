"""The camera path of a request: as its file, preset or sentence says, for the picture it starts with."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from camctrl_jax.camera import Cameras
from camctrl_jax.camera.framing import Framing, null_intrinsics
from camctrl_jax.camera.orientation import Orientation, told_by_size
from camctrl_jax.camera.playing import PlayedPath, played_path
from camctrl_jax.clip_shape import ClipShape
from camctrl_jax.generate.request import Request
from camctrl_jax.generate.start import Start
from camctrl_jax.video.decoding import SourceFrame


def path_of_request(
    request: Request, shape: ClipShape, fps: float, start: Start
) -> tuple[Cameras, tuple[str, ...]]:
    """The path in metres from its first frame, with the lens of what is seen; what its user should know."""
    spec, world, framing = request.camera, start.world, start.framing
    if spec is None:
        return world.cameras.scaled(request.camera_scale).relative_to(0), ()
    lens = null_intrinsics(shape.height, shape.width)
    played = played_path(
        spec, shape.frames, fps, intrinsics=lens, reading=request.reading, playing=request.playing
    )
    cameras = played.cameras.validate(f"--camera {spec}")
    notes = tuple(f"{spec}: {remark}" for remark in played.remarks)
    if played.source is not None and start.image is not None:
        notes += _where_it_begins(played, start.image, request)
        cameras, turned = _as_shown(cameras, played, start.image, request)
        notes += turned
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
        notes += (
            f"{spec} does not say its unit; its path of {cameras.path_length:.2f} units is taken as metres. "
            "--camera-scale changes that.",
        )
    return cameras.scaled(request.camera_scale, metric=True).relative_to(0), notes


def _default_lens(played: PlayedPath, shape: ClipShape) -> np.ndarray:
    """The lens of a preset or sentence; of a file without one that of a picture 53 degrees high."""
    if played.source is None:
        return played.cameras.intrinsics
    return null_intrinsics(shape.height, shape.width)


def _as_shown(
    cameras: Cameras, played: PlayedPath, image: SourceFrame, request: Request
) -> tuple[Cameras, tuple[str, ...]]:
    """Cameras of the picture as it is shown, of a file that may hold those of the picture as it is stored."""
    if image.orientation == Orientation():
        return cameras, ()
    if request.poses_of != "auto":
        as_stored = request.poses_of == "stored"
        return image.orientation.cameras(cameras) if as_stored else cameras, ()
    told = played.source.pose_file.image_size
    belongs = told_by_size(told, image.stored_size, image.size)
    if belongs == "stored":
        return image.orientation.cameras(cameras), (
            f"{request.image} is turned to be shown; {request.camera} belongs to it as it is stored, by its "
            f"size of {told[0]}x{told[1]}: its poses and lens were turned alike (--poses-of shown takes them "
            "as they are).",
        )
    if belongs == "shown":
        return cameras, ()
    return cameras, (
        f"{request.image} is turned or mirrored to be shown; {request.camera} does not tell whether its "
        "poses belong to it before or after that, and is taken to belong to the picture as it is shown, "
        f"{image.size[0]}x{image.size[1]} (--poses-of stored for the picture as it is stored).",
    )


def _where_it_begins(played: PlayedPath, image: SourceFrame, request: Request) -> tuple[str, ...]:
    """A file that names the picture has its pose, which is where the path should begin."""
    names = played.source.pose_file.names
    first = range(len(names))[slice(*(request.playing.part or (None, None)))]
    places = [place for place, name in enumerate(names) if Path(name).name == image.name]
    if len(places) != 1 or not first or first[0] == places[0]:
        return ()
    return (
        f"{request.camera}: the picture {image.name} is frame {places[0]} of the pose file, the path begins "
        f"at frame {first[0]}; --range {places[0]}: begins at the picture.",
    )
