"""gsplat's ``.npz`` scenes.

``viewmats`` [T, 4, 4] are world-to-camera, OpenCV axes; ``Ks`` [T, 3, 3] are in
pixels with pixel centres at +0.5; ``width`` and ``height``.

Other arrays (points, colours) are ignored. Arrays of pickled objects are refused. Write: float32, as gsplat
does.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from camctrl_jax.camera.cameras import Cameras
from camctrl_jax.camera.formats.posefile import Format, PoseFile, Source, inverted, required_size
from camctrl_jax.camera.intrinsics import intrinsics_in_pixels
from camctrl_jax.files.atomic import written_file

_KEYS = ("viewmats", "Ks", "width", "height")


def _matches(source: Source) -> bool:
    return source.head.startswith(b"PK\3\4") and "viewmats" in source.arrays


def _read(source: Source, image_size: tuple[int, int] | None) -> PoseFile:
    arrays = source.npz(_KEYS)
    if "viewmats" not in arrays or "Ks" not in arrays:
        source.fail(
            "",
            "lacks viewmats or Ks; expected [T, 4, 4] world-to-camera matrices and [T, 3, 3] pixel "
            "intrinsics",
        )
    viewmats, matrices = arrays["viewmats"], arrays["Ks"]
    frames = len(viewmats) if viewmats.ndim else 0
    fitting = viewmats.shape == (frames, 4, 4) and matrices.shape == (frames, 3, 3)
    if not fitting or viewmats.dtype.kind != "f" or matrices.dtype.kind != "f":
        source.fail(
            "",
            f"viewmats {list(viewmats.shape)} and Ks {list(matrices.shape)} do not fit; expected [T, 4, 4] "
            "and [T, 3, 3]",
        )
    if "width" in arrays and "height" in arrays:
        sizes = {key: arrays[key].ravel().tolist()[0] for key in ("height", "width") if arrays[key].size == 1}
        image_size = source.size("width and height", sizes, "height", "width")
    locations = [f"frame {index}" for index in range(frames)]
    pixels = np.stack([matrices[:, 0, 0], matrices[:, 1, 1], matrices[:, 0, 2], matrices[:, 1, 2]], axis=1)
    intrinsics = source.pixel_intrinsics(pixels, image_size, locations)
    return PoseFile(
        Cameras(inverted(source, viewmats.astype(np.float64), locations), intrinsics),
        locations,
        image_size=image_size,
    )


def _write(cameras: Cameras, path: Path, image_size: tuple[int, int] | None, names: Sequence[str]) -> None:
    height, width = required_size(image_size, "gsplat")
    matrices = np.tile(np.eye(3, dtype=np.float32), (len(cameras), 1, 1))
    fx, fy, cx, cy = intrinsics_in_pixels(cameras.intrinsics, height, width).T
    matrices[:, 0, 0], matrices[:, 1, 1], matrices[:, 0, 2], matrices[:, 1, 2] = fx, fy, cx, cy
    viewmats = cameras.camera_from_world.astype(np.float32)
    with written_file(path) as file:
        np.savez(file, viewmats=viewmats, Ks=matrices, width=width, height=height)


FORMAT = Format(
    "gsplat",
    "gsplat .npz: viewmats and Ks",
    "world-to-camera 4x4, OpenCV axes, float32; intrinsics in pixels; no times",
    frozenset({"intrinsics"}),
    _matches,
    _read,
    _write,
    stores="w2c",
)
