"""PLY files of points: binary, little endian, with the property names that viewers know."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from camctrl_jax.errors import InvalidValue, file_failures
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


def read_points(path: str | Path) -> np.ndarray:
    """Points f64 [P, 3] of a file that :func:`write_ply` wrote.

    Raises:
        InvalidValue: it is another file, or cut off.
    """
    with file_failures(Path(path), "read"):
        content = Path(path).read_bytes()
    header, _, rows = content.partition(b"end_header\n")
    types = {b"float": "<f4", b"double": "<f8", b"uchar": "u1"}
    lines = [line.split() for line in header.splitlines()]
    try:
        row = np.dtype([(line[2].decode(), types[line[1]]) for line in lines if line[0] == b"property"])
        count = next(int(line[2]) for line in lines if line[:2] == [b"element", b"vertex"])
        found = np.frombuffer(rows, row, count)
        return np.stack([found[axis] for axis in "xyz"], axis=1).astype(np.float64)
    except (LookupError, ValueError, StopIteration) as error:
        raise InvalidValue(f"{path} is no file of points as they are written here, or cut off.") from error


def far_from_origin(points: np.ndarray) -> bool:
    """Whether the origin is more than a hundred extents of points [P, 3] away; 32 bits then move them."""
    if not len(points):
        return False
    low, high = points.min(axis=0), points.max(axis=0)
    return bool(np.abs([low, high]).max() > _FAR * (high - low).max() > 0)
