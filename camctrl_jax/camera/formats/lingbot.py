"""NumPy pose folders as LingBot-World reads them: ``poses.npy`` and ``intrinsics.npy``.

``poses.npy`` is float32 [T, 4, 4] camera-to-world, OpenCV axes; [T, 3, 4] is accepted. ``intrinsics.npy``
is float32 [T, 4] or [4], fx, fy, cx, cy in pixels of a 480 x 832 picture unless another ``image_size`` is
given; it may be absent. No times. The path may name the folder or its ``poses.npy``. Arrays of pickled
objects are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from camctrl_jax.camera.cameras import Cameras, look_like_pixels
from camctrl_jax.camera.formats.posefile import (
    NO_INTRINSICS,
    Format,
    PoseFile,
    Source,
    default_intrinsics,
    poses_from_3x4,
)
from camctrl_jax.camera.intrinsics import intrinsics_from_pixels, intrinsics_in_pixels
from camctrl_jax.files.atomic import written_file

_IMAGE_SIZE = (480, 832)


def _poses_path(source: Source) -> Path:
    return source.path / "poses.npy" if source.path.is_dir() else source.path


def _matches(source: Source) -> bool:
    return source.head.startswith(b"\x93NUMPY") or (source.path.is_dir() and _poses_path(source).is_file())


def _read(source: Source, image_size: tuple[int, int] | None) -> PoseFile:
    path = _poses_path(source)
    if not path.is_file():
        source.fail("", "holds no poses.npy")
    poses = source.npy(path)
    if poses.ndim != 3 or poses.shape[1:] not in ((4, 4), (3, 4)) or poses.dtype.kind != "f":
        source.fail(
            path.name,
            f"holds {poses.dtype} {list(poses.shape)}, expected floats [frames, 4, 4], camera-to-world"
            f"{_advice(poses)}",
        )
    if poses.shape[1] == 3:
        poses = poses_from_3x4(poses)
    locations = [f"{path.name} frame {index}" for index in range(len(poses))]
    intrinsics_path = path.parent / "intrinsics.npy"
    if not intrinsics_path.is_file():
        return PoseFile(
            Cameras(poses, default_intrinsics(len(poses))),
            locations,
            NO_INTRINSICS.replace("the format holds none", "there is no intrinsics.npy"),
            image_size,
        )
    pixels = source.npy(intrinsics_path).astype(np.float64)
    if pixels.shape not in ((4,), (len(poses), 4)):
        source.fail(
            intrinsics_path.name,
            f"has shape {list(pixels.shape)} for {len(poses)} poses, expected [{len(poses)}, 4] or [4]: "
            "fx, fy, cx, cy",
        )
    notes: tuple[str, ...] = ()
    if not look_like_pixels(pixels).any():
        return PoseFile(
            Cameras(poses, pixels),
            locations,
            image_size=image_size,
            notes=("intrinsics.npy holds fractions of the picture, not pixels; taken as they are",),
        )
    if image_size is None:
        image_size = _IMAGE_SIZE
        notes = (
            "pixel intrinsics are taken to be of a 480 x 832 picture; --image-size HEIGHTxWIDTH says "
            "otherwise",
        )
    return PoseFile(
        Cameras(poses, intrinsics_from_pixels(pixels, *image_size)),
        locations,
        image_size=image_size,
        notes=notes,
    )


def _advice(array: np.ndarray) -> str:
    """What an array of another shape may be."""
    if array.shape in ((4, 4), (3, 4)):
        return "; for one frame, add an axis in front: array[None]"
    if array.ndim != 2:
        return ""
    return {
        17: "; it may be LLFF's poses_bounds.npy, which is not read: its matrices have axes of their own",
        16: "; if its rows are 4x4 matrices, array.reshape(-1, 4, 4)",
        12: "; if its rows are 3x4 matrices, array.reshape(-1, 3, 4)",
        7: "; if it holds positions and quaternions, save it as text (numpy.savetxt): tartanair",
        8: "; if it holds times, positions and quaternions, save it as text (numpy.savetxt): tum",
    }.get(array.shape[1], "")


def _write(cameras: Cameras, path: Path, image_size: tuple[int, int] | None, names: Sequence[str]) -> None:
    folder = path.parent if path.name == "poses.npy" else path
    pixels = intrinsics_in_pixels(cameras.intrinsics, *(image_size or _IMAGE_SIZE))
    with written_file(folder / "intrinsics.npy") as file:
        np.save(file, pixels.astype(np.float32))
    with written_file(folder / "poses.npy") as file:
        np.save(file, cameras.world_from_camera.astype(np.float32))


FORMAT = Format(
    "lingbot",
    "folder of poses.npy and intrinsics.npy: LingBot-World",
    "camera-to-world 4x4, OpenCV axes, float32; intrinsics in pixels (480 x 832 unless told otherwise); no "
    "times",
    frozenset({"intrinsics"}),
    _matches,
    _read,
    _write,
    stores="c2w",
)
