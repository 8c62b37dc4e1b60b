"""What a file is that no reader knows: what was found in it, and which format comes nearest."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from camctrl_jax.camera.formats.posefile import Source

_SHOWN = 8  # keys, arrays or files that are listed

# Keys or arrays, and what to say of a file that holds all of them. The first that fits is said.
_KEYS: tuple[tuple[frozenset[str], str], ...] = tuple(
    (frozenset(keys.split()), advice)
    for keys, advice in (
        (
            "position rotation",
            "It may be cameras.json of Gaussian Splatting, which is not read: take the COLMAP model that it "
            "was made from",
        ),
        (
            "intrinsic_matrix",
            "It is an Open3D camera without a path; open3d_json needs a PinholeCameraTrajectory",
        ),
        ("transform_matrix", "The nearest format is transforms_json: its frames stand under the key frames"),
        (
            "frames",
            "The nearest format is transforms_json: frames is a list with a transform_matrix for each",
        ),
        ("camera_to_world", "The nearest format is camera_path: its entries stand under the key camera_path"),
        ("keyframes", "The nearest format is camera_path, with a list camera_path beside the keyframes"),
        (
            "camera_path",
            "The nearest format is camera_path: camera_path is a list with an entry for each frame",
        ),
        ("shots", "The nearest format is opensfm: a list of reconstructions with shots"),
        ("extrinsic K", 'The nearest format is worldplay: {"0": {"extrinsic": 4x4, "K": 3x3}, ...}'),
        ("w2c", "The nearest format is ac3d: imH, imW, and lists w2c (3x4) and intrinsics (3x3)"),
        ("class_name", "The nearest format is open3d_json, a PinholeCameraTrajectory"),
        ("viewmats", "The nearest format is gsplat: viewmats [T, 4, 4], world-to-camera, and Ks [T, 3, 3]"),
        ("Ks", "The nearest format is gsplat: viewmats [T, 4, 4], world-to-camera, and Ks [T, 3, 3]"),
    )
)
_C2W = re.compile(r"c2w|cam2world|cam(?:era)?_?to_?world|^poses?$|^camera_poses$|^data$", re.IGNORECASE)
_W2C = re.compile(r"w2c|world2cam|world_?to_?cam|extrinsic|viewmat", re.IGNORECASE)
_BINARIES = {
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"\x1f\x8b": "a gzip archive; unpack it first",
    b"\x89HDF": "an HDF5 file",
    b"\x1aE\xdf\xa3": "a video (MKV or WebM)",
    b"\x80": "a pickled Python object, which is never read; save its arrays with numpy.savez",
}
_AS_KITTI = "The nearest format is kitti: the numbers of each matrix, row by row, in a line of a text file"
_KITTI = "The nearest format is kitti, 12 numbers a line"
_RE10K = (
    "The nearest format is realestate10k, 19 numbers a line: time, fx, fy, cx, cy, 0, 0 and the 3x4 matrix"
)
_COLUMNS = {
    2: "Numbers of two columns are no poses",
    3: "Positions alone are no poses: rotations are missing",
    4: "Its rows may be those of 4x4 matrices; the nearest formats are open3d_log (a line of three integers "
    "before each matrix) and kitti (a matrix a line)",
    6: "Six numbers may be a position and angles, of which no format tells the order; the nearest are "
    "tartanair and tum, with quaternions",
    9: "Nine numbers a line may be rotations without positions; the nearest format is kitti, with 12",
    13: f"{_KITTI}: cut off the column in front, a frame number or time",
    17: f"{_KITTI} (or 16): cut off the column in front, a frame number or time",
    18: _RE10K,
    20: _RE10K,
}


def what_it_is(source: Source) -> tuple[str, str]:
    """What was found in a file or folder, and which format is the nearest, "" where none is near."""
    if source.path.is_dir():
        return _folder(source.path)
    if source.head.startswith(b"PK\3\4"):
        return _archive(source)
    if source.head.split(maxsplit=1)[:1] == [b"ply"]:
        return "a PLY file, of points or a mesh, without cameras", ""
    if source.head.startswith(b"# Bundle file"):
        return "a bundle file of Bundler", (
            "It is not read; COLMAP and OpenSfM can open it: the nearest formats are colmap and opensfm"
        )
    if not source.is_text:
        return _binary(source.head), ""
    if source.json is not None:
        return _json(source.json)
    return _text(source)


def _binary(head: bytes) -> str:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "text in UTF-16, as some Windows programs write it; save it as UTF-8"
    if head[4:8] == b"ftyp":
        return "a video (MP4 or MOV)"
    for beginning, kind in _BINARIES.items():
        if head.startswith(beginning):
            return kind
    return f"a binary file that begins with {head[:8]!r}"


def _listed(names: Collection[str]) -> str:
    shown = ", ".join(name if len(name) <= 60 else f"{name[:57]}..." for name in list(names)[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _near(keys: Collection[str]) -> str:
    for needed, advice in _KEYS:
        if needed <= set(keys):
            return advice
    return ""


def _folder(path: Path) -> tuple[str, str]:
    entries = sorted(entry.name for entry in path.iterdir() if not entry.name.startswith("."))
    found = f"a folder of {_listed(entries) or 'nothing'}"
    texts = [name for name in entries if name.endswith(".txt") and (path / name).is_file()]
    if texts and _holds_one_matrix(path / texts[0]):
        return found, (
            f"{texts[0]} holds one 4x4 matrix, as ScanNet and 7-Scenes write them, camera-to-world: put the "
            "16 numbers of each file into one line of one file (kitti)"
        )
    if any(name.endswith((".npy", ".npz", ".json", ".txt", ".log")) for name in entries):
        return found, "If one of them holds the path, name that file"
    return found, ""


def _holds_one_matrix(path: Path) -> bool:
    rows = Source(path).rows if path.stat().st_size < 4096 else ()
    return len(rows) == 4 and all(len(words) == 4 for _, words in rows)


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return f"an object of {len(value)} keys" if value else "an empty object"
    if isinstance(value, list):
        if not value:
            return "an empty list"
        return f"a list of {len(value)}"
    if isinstance(value, str):
        return "text"
    return json.dumps(value)


def _json(document: Any) -> tuple[str, str]:
    """Of JSON: its top-level keys, or what its list holds."""
    if not document:
        return f"JSON, {_kind(document)}", ""
    if isinstance(document, dict):
        keys = [f"{key} ({_kind(value)})" for key, value in document.items()]
        near = _near(document)
        inner = next((value for value in document.values() if isinstance(value, dict)), {})
        outer = document.values()
        listed = next((v[0] for v in outer if isinstance(v, list) and v and isinstance(v[0], dict)), {})
        near = near or _near(inner) or _near(listed) or _near_matrices(document)
        return f"JSON, an object with the keys {_listed(keys)}", near
    first = document[0]
    if isinstance(first, dict):
        return f"JSON, a list of {len(document)} objects with the keys {_listed(first)}", _near(first)
    if _is_matrix(first):
        found = f"JSON, a list of {len(document)} matrices {len(first)}x4"
        return found, f"{_AS_KITTI}, or with --invert if they are world-to-camera"
    return f"JSON, a list of {len(document)}, of which the first is {_kind(first)}", (
        "The nearest format is motionctrl: a list of 12 numbers for each frame"
    )


def _is_matrix(value: Any) -> bool:
    """Whether JSON is a 4x4 or 3x4 matrix, row by row."""
    rows = value if isinstance(value, list) and len(value) in (3, 4) else ()
    return bool(rows) and all(
        isinstance(row, list) and len(row) == 4 and all(isinstance(x, (int, float)) for x in row)
        for row in rows
    )


def _near_matrices(document: dict[str, Any], depth: int = 2) -> str:
    """How to take the poses out of an object that holds matrices: one a key, or a list of them under one."""
    if all(_is_matrix(value) for value in document.values()):
        return f"Its keys hold one matrix each. {_AS_KITTI}, or with --invert if they are world-to-camera"
    for name, value in document.items():
        if isinstance(value, list) and value and _is_matrix(value[0]):
            if _W2C.search(name):
                return (
                    f"{name} looks like world-to-camera matrices, {len(value[0])}x4. The nearest format is "
                    "ac3d: imH, imW, and lists w2c (3x4) and intrinsics (3x3); or kitti with --invert"
                )
            if _C2W.search(name):
                return f"{name} looks like camera-to-world matrices, {len(value[0])}x4. {_AS_KITTI}"
            return (
                f"{name} holds matrices {len(value[0])}x4. {_AS_KITTI}, or with --invert if they are inverse"
            )
    inner = [value for value in document.values() if isinstance(value, dict) and value]
    found = (_near(value) or _near_matrices(value, depth - 1) for value in inner) if depth else ()
    return next(filter(None, found), "")


def _archive(source: Source) -> tuple[str, str]:
    """Of an ``.npz``: names, types and shapes of the arrays; of other archives, the files."""
    with_shapes: dict[str, tuple[int, ...]] = {}
    listed: list[str] = []
    try:
        with zipfile.ZipFile(source.path) as archive:
            names = archive.namelist()
            for name in names:
                if not name.endswith(".npy"):
                    continue
                with archive.open(name) as file:
                    shape, kind = _header(file)
                with_shapes[name.removesuffix(".npy")] = shape
                listed.append(f"{name.removesuffix('.npy')} ({kind} {list(shape)})")
    except Exception:  # damaged archives raise many kinds
        return "a damaged .npz or ZIP archive", ""
    if not with_shapes:
        kind = "a PyTorch file" if any(name.endswith("data.pkl") for name in names) else "a ZIP archive"
        return f"{kind} of {_listed(names) or 'nothing'}", ""
    return f"an .npz archive of {_listed(listed)}", _near(with_shapes) or _near_array(with_shapes)


def _header(file: Any) -> tuple[tuple[int, ...], str]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, kind = read(file)
    return shape, str(kind)


def _near_array(shapes: dict[str, tuple[int, ...]]) -> str:
    """How to take the poses out of an archive whose arrays have other names than gsplat's."""
    matrices = [name for name, shape in shapes.items() if shape[-2:] in ((4, 4), (3, 4)) and len(shape) == 3]
    near = "The nearest format is gsplat: viewmats [T, 4, 4], world-to-camera, and Ks [T, 3, 3]"
    for name in matrices:
        if _W2C.search(name):
            return f"{name} looks like world-to-camera matrices: save it as viewmats beside Ks. {near}"
        if _C2W.search(name):
            return f"{name} looks like camera-to-world matrices: save it as poses.npy (lingbot). {near}"
    return near if matrices else ""


def _text(source: Source) -> tuple[str, str]:
    text = source.text.strip()
    if not source.rows:
        return "text without data lines", ""
    line, words = source.rows[0]
    rest = " ".join(words)
    if re.fullmatch(r'(?:true|false|null|"[^"\n]*")', text):
        return f"JSON, {rest[:60]} alone", ""
    if text.startswith(("<?xml", "<!DOCTYPE", "<html", "<")):
        return f"XML or HTML: {rest[:60]!r}", ""
    # The line of column names may be a comment, as in EuRoC's files.
    header = next((row for row in source.text.splitlines() if row.strip()), "")
    if re.search(r"(?:^|\s)-?\d+,\d+\s+-?\d+,\d+(?:\s|$)", rest):
        return f"text of numbers with decimal commas: {rest[:60]!r}", "Write them with points: 0.5 for 0,5"
    for separator in ",;":
        if _is_separated(source, separator):
            return _separated(header, " ".join(source.rows[-1][1]), separator)
    keys = [match[1] for match in re.finditer(r"^([A-Za-z_][\w-]*):(?:\s|$)", source.text, re.MULTILINE)]
    if len(keys) > 1 or (keys and source.rows[0][1][0] == f"{keys[0]}:"):
        return f"text with 'key: value' lines (YAML?) and the keys {_listed(keys)}", _near(keys)
    found = f"text whose line {line} holds {len(words)} words: {rest[:60]!r}"
    if source.columns:
        return f"text of {source.columns} numbers a line", _COLUMNS.get(source.columns, "")
    return found, ""


def _is_separated(source: Source, separator: str) -> bool:
    """Whether most fields of the last line, which is no line of names, are numbers between separators."""
    fields = [field.strip() for field in " ".join(source.rows[-1][1]).split(separator)]
    numbers = sum(re.fullmatch(r"[-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?", field) is not None for field in fields)
    return len(fields) > 2 and 2 * numbers > len(fields)


def _separated(header: str, first: str, separator: str) -> tuple[str, str]:
    """Of comma-separated values: the names of the columns, or how many there are."""
    columns = len([field for field in first.split(separator) if field.strip()])
    kind = "comma-separated" if separator == "," else "semicolon-separated"
    named = re.search(r"[A-Za-z_]{2,}|\bt?[xyz]\b", header)
    found = f"{kind} values, {columns} columns"
    if named:
        found += f" with the names {header.lstrip('# ').strip()[:80]!r}"
    if re.search(r"timestamp \[ns\]|#timestamp|p_RS_R|q_RS_w", header):
        return found, (
            "It looks like EuRoC's ground truth: nanoseconds, quaternions scalar first, and poses of the "
            "body, not of a camera. The nearest format is tum: seconds tx ty tz qx qy qz qw of the camera, "
            "separated by spaces"
        )
    near = {8: "tum", 7: "tartanair", 12: "kitti", 16: "kitti", 19: "realestate10k"}.get(columns, "tum")
    return found, (
        f"The nearest format is {near}: numbers separated by spaces, without a line of names; replace every "
        f"{separator!r} by a space"
    )
