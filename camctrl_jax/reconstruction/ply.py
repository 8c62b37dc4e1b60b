"""PLY files of points: binary, little endian, with the property names that viewers know."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from camctrl_jax.estimators.protocols import PointCloud
from camctrl_jax.files.atomic import written_file

_FAR = 100.0  # extents of a cloud


def write_ply(path: str | Path, cloud: PointCloud) -> None:
    """Write ``x y z`` (float), ``red green blue`` (uchar) and ``confidence`` (float) of every point.

    Places are doubles where the cloud is so far from the origin, as on a map, that floats would move points.

    Axes are the world's: those of the first camera in paths made here, x right, y down, z forward. The unit
    stands in a comment.
    """
    far = far_from_origin(cloud.points)
    row = np.dtype(
        [
            *((name, "<f8" if far else "<f4") for name in ("x", "y", "z")),
            *((name, "u1") for name in ("red", "green", "blue")),
            ("confidence", "<f4"),
        ]
    )
    rows = np.empty(len(cloud.points), row)
    for axis, name in enumerate(("x", "y", "z")):
        rows[name] = cloud.points[:, axis]
    for channel, name in enumerate(("red", "green", "blue")):
        rows[name] = cloud.colours[:, channel]
    rows["confidence"] = cloud.confidence
    kinds = {"f4": "float", "f8": "double", "u1": "uchar"}
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"comment unit {'metre' if cloud.metric else 'unknown'}; x right, y down, z forward",
        f"element vertex {len(rows)}",
        *(f"property {kinds[row[name].str[1:]]} {name}" for name in row.names),
        "end_header",
    ]
    with written_file(path) as file:
        file.write("\n".join(header).encode("ascii") + b"\n")
        file.write(rows.tobytes())


def far_from_origin(points: np.ndarray) -> bool:
    """Whether the origin is more than a hundred extents of points [P, 3] away; 32 bits then move them."""
    if not len(points):
        return False
    low, high = points.min(axis=0), points.max(axis=0)
    return bool(np.abs([low, high]).max() > _FAR * (high - low).max() > 0)
