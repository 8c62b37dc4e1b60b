"""MVSNet's camera files, one text file for every picture, as FLARE takes known poses. Read only.

``extrinsic`` and a 4x4, ``intrinsic`` and a 3x3, then a line of depths (least, interval, and in some files
their number and the greatest), which is not a pose and is ignored. The extrinsic is world-to-camera, OpenCV
axes; the intrinsics are in pixels. FLARE's authors say of their ``assets/gt_cam`` that the files follow
MVSNet and that the last line is of no use.

The path names the folder, whose files come in the order of their names: ``00001.txt`` beside ``00001.png``,
or ``00000001_cam.txt``. The picture size is ``image_size``, else that of a PNG beside the first file. Other
text files (``pair.txt``) are left out and noted. No times.
Not written: the range of depths is none of a camera path's.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from camctrl_jax.camera.cameras import Cameras
from camctrl_jax.camera.formats.names import missing_numbers, natural
from camctrl_jax.camera.formats.pictures import SUFFIXES, png_size
from camctrl_jax.camera.formats.posefile import Format, PoseFile, Source, inverted

_LAYOUT = "the word extrinsic, a 4x4 matrix, the word intrinsic, a 3x3 matrix and a line of depths"


def _is_camera_file(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(64).removeprefix(b"\xef\xbb\xbf").split()[:1] == [b"extrinsic"]


def _texts(folder: Path) -> list[Path]:
    files = (path for path in folder.iterdir() if path.suffix.lower() == ".txt" and path.is_file())
    return sorted(
        (path for path in files if not path.name.startswith(".")), key=lambda path: natural(path.name)
    )


def _matches(source: Source) -> bool:
    if not source.path.is_dir():
        return source.is_text and source.head.removeprefix(b"\xef\xbb\xbf").split()[:1] == [b"extrinsic"]
    return any(_is_camera_file(path) for path in _texts(source.path))


def _read(source: Source, image_size: tuple[int, int] | None) -> PoseFile:
    notes: tuple[str, ...] = ()
    files = [source.path]
    if source.path.is_dir():
        texts = _texts(source.path)
        files = [path for path in texts if _is_camera_file(path)]
        others = [path.name for path in texts if path not in files]
        if others:
            more = ", ..." if len(others) > 5 else ""
            notes = (
                f"{len(others)} other text files are no camera files and were left out: "
                f"{', '.join(others[:5])}{more}",
            )
    numbers = [path.stem.removesuffix("_cam") for path in files]
    if all(map(str.isdecimal, numbers)):
        notes += missing_numbers([int(number) for number in numbers], "picture")
    parts = [_camera(dataclasses.replace(source, path=path)) for path in files]
    locations = [path.name for path in files]
    extrinsics = np.stack([extrinsic for extrinsic, _ in parts])
    pixels = np.stack([matrix[[0, 1, 0, 1], [0, 1, 2, 2]] for _, matrix in parts])
    names = [_picture(path) for path in files]
    if image_size is None:
        image_size = png_size(files[0].parent / names[0])
    return PoseFile(
        Cameras(
            inverted(source, extrinsics, locations), source.pixel_intrinsics(pixels, image_size, locations)
        ),
        locations,
        image_size=image_size,
        names=tuple(names),
        notes=notes,
    )


def _picture(path: Path) -> str:
    """The picture of a camera file: the one beside it, or what its name says."""
    stem = path.stem.removesuffix("_cam")
    beside = [stem + suffix for suffix in SUFFIXES if (path.parent / (stem + suffix)).is_file()]
    return beside[0] if beside else stem


def _camera(source: Source) -> tuple[np.ndarray, np.ndarray]:
    """Extrinsic [4, 4] and intrinsic [3, 3] of one file."""
    rows = source.rows
    if len(rows) < 9 or rows[0][1] != ("extrinsic",) or rows[5][1] != ("intrinsic",):
        source.fail("", f"is not a whole camera file; expected {_LAYOUT}")
    extrinsic = [source.numbers(line, words, 4, "a row of the 4x4 extrinsic") for line, words in rows[1:5]]
    intrinsic = [source.numbers(line, words, 3, "a row of the 3x3 intrinsic") for line, words in rows[6:9]]
    if len(rows) > 10:
        source.fail(f"line {rows[10][0]}", f"is one line too many; expected {_LAYOUT}")
    return np.array(extrinsic), np.array(intrinsic)


FORMAT = Format(
    "mvsnet",
    "folder of MVSNet camera files, one for each picture: FLARE (read only)",
    "world-to-camera 4x4, OpenCV axes; intrinsics in pixels; no times",
    frozenset({"intrinsics"}),
    _matches,
    _read,
    None,
    stores="w2c",
)
