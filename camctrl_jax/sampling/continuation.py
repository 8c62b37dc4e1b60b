"""How a video goes on: along a path that begins with its own, from frames of it that show what is coming."""

from __future__ import annotations

import numpy as np

from camctrl_jax.camera import Cameras
from camctrl_jax.camera.retrieval import select_frames
from camctrl_jax.errors import InvalidValue

# Of positions, in units or parts of the path's extent; of rotations in radians; of intrinsics in pictures.
TOLERANCE = 1e-4
# Frames that are weighed against each other. Neighbours show the same; to weigh all of an hour would take
# gigabytes.
MOST_CANDIDATES = 1000


def check_beginning(path: Cameras, so_far: Cameras, name: str = "The path") -> None:
    """Each path is taken relative to its first camera: its world frame means nothing.

    Raises:
        CameraError: a pose or lens of either is none (not finite, no rotation, fx of 0 or less), by frame.
        InvalidValue: it does not begin with ``so_far``: the model would be told cameras that the video never
            had. Names the frame that is furthest off, by how many units and degrees, or how far the
            intrinsics are apart.
    """
    path.validate(name)
    so_far.validate(f"{name} so far")
    theirs = so_far.relative_to(0).world_from_camera
    ours = path[: len(so_far)].relative_to(0).world_from_camera
    if len(ours) < len(theirs):
        raise InvalidValue(f"{name} has {len(ours)} poses, fewer than the {len(theirs)} so far.")
    distance = np.linalg.norm(ours[:, :3, 3] - theirs[:, :3, 3], axis=-1)
    # By the chord, not the trace: the cosine of a small angle has no digits to tell it by.
    chord = np.linalg.norm(ours[:, :3, :3] - theirs[:, :3, :3], axis=(-2, -1)) / np.sqrt(8.0)
    radians = 2.0 * np.arcsin(np.minimum(chord, 1.0))
    apart = np.maximum(distance / max(1.0, np.abs(theirs[:, :3, 3]).max()), radians)
    frame = int(apart.argmax())
    if apart[frame] > TOLERANCE:
        unit = "m" if path.metric and so_far.metric else "units"
        raise InvalidValue(
            f"{name} does not begin with that of the video: at frame {frame} they are {distance[frame]:.3g} "
            f"{unit} and {np.degrees(radians[frame]):.3g} degrees apart. Make the longer path of the "
            "video's own and what follows it (camctrl_jax.camera.compose), not as one movement over more "
            "frames."
        )
    wide = float(np.abs(path.intrinsics[: len(so_far)] - so_far.intrinsics).max())
    if wide > TOLERANCE:
        raise InvalidValue(
            f"{name} does not begin with the intrinsics of the video: fx, fy, cx, cy differ by up to "
            f"{wide:.3g} of the picture's size."
        )


def frames_to_show(past: Cameras, coming: Cameras, count: int, given: int) -> np.ndarray:
    """Which frames of a video so far show most of what its next cameras see, i64 [R].

    Of videos of more than ``MOST_CANDIDATES`` frames before the given ones, every second, third, ... is
    looked at: memory and time do not grow with the length.

    Args:
        past: cameras of all frames so far.
        coming: the next ones, in the same world.
        count: R, frames to choose; repeated where there are fewer.
        given: last frames that the network is shown anyway; not chosen unless there are no others.
    """
    end = len(past)
    earlier = end - given if end > given else end
    candidates = np.arange(0, earlier, -(-earlier // MOST_CANDIDATES))
    chosen = select_frames(past[candidates], coming, count, given=past[end - given :])
    return candidates[chosen]
