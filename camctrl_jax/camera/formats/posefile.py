"""What a reader is given, what it returns, and how it complains."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np

from camctrl_jax.camera.cameras import CameraError, Cameras, look_like_pixels
from camctrl_jax.camera.intrinsics import DEFAULT_INTRINSICS, intrinsics_from_pixels

PICTURE_SIZE = "give the picture size: --image-size HEIGHTxWIDTH, or image_size=(height, width) in Python"


_LARGEST = sys.float_info.max


class PoseFileError(CameraError):
    """A pose file that cannot be read. The message gives the file, the place, the value, the remedy."""


@dataclass(frozen=True)
class PoseFile:
    """A pose file as read: the cameras, and what the file says besides.

    Attributes:
        cameras: in the package's conventions; as ``Format.read`` returns them, in the file's own camera axes
            and world (``Format.axes``).
        locations: where each frame stands in the file, for messages.
        intrinsics_from: "file", or why the default was taken.
        image_size: height and width in pixels, or None when the file does not tell.
        names: picture names, one per frame, or empty. What is returned to users is in their order, as people
            count, unless times say otherwise.
        notes: what a user of this very file should know.
    """

    cameras: Cameras
    locations: Sequence[str]
    intrinsics_from: str = "file"
    image_size: tuple[int, int] | None = None
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Convention:
    """Where a file departs from what its format says. By default it does not.

    Attributes:
        inverse: it holds the inverse of the matrices that its format says.
        axes: camera axes as three letters out of Right/Left, Up/Down, Forward/Back for x, y, z: "RDF" is
            OpenCV, "RUB" OpenGL, "FLU" ROS, "LUF" PyTorch3D; "" is what the format says.
        quaternions: order of their components, "xyzw" or "wxyz"; "" is what the format says.
    """

    inverse: bool = False
    axes: str = ""
    quaternions: str = ""


AS_THE_FORMAT_SAYS = Convention()


@dataclass(frozen=True)
class Format:
    """One pose file format.

    Attributes:
        name: what ``format=`` takes.
        summary: one line for lists.
        convention: how the file stores poses and intrinsics, in full.
        holds: which of "intrinsics", "times" and "metric" survive a round trip.
        matches: whether a source looks like this format, judged by content.
        read: ``(source, image_size) -> PoseFile`` in the axes of the file.
        write: ``(cameras, path, image_size, names) -> None``; writes atomically. None where files are only
            read.
        stores: which way its matrices go: "c2w", camera-to-world, or "w2c", world-to-camera.
        axes: the camera axes of its files, as in :class:`Convention`.
        world_in_axes: whether the world is in these axes as well and is to be renamed with the camera.
        quaternions: order of their components, "xyzw" or "wxyz"; "" where files hold none.
        pictures_per_pose: how many pictures a pose stands for.
    """

    name: str
    summary: str
    convention: str
    holds: frozenset[str]
    matches: Callable[[Source], bool]
    read: Callable[[Source, tuple[int, int] | None], PoseFile]
    write: Callable[[Cameras, Path, tuple[int, int] | None, Sequence[str]], None] | None
    stores: Literal["c2w", "w2c"]
    axes: str = "RDF"
    world_in_axes: bool = False
    quaternions: str = ""
    pictures_per_pose: int = 1


@dataclass(frozen=True)
class Source:
    """A file or folder to read poses from; contents are read once, when first needed.

    Attributes:
        path: the file or folder.
        selection: which camera of a file that holds several (``file.json#cam05``), or "".
        convention: where the file departs from its format. Readers need the order of quaternions only; the
            rest is applied to what they return.
    """

    path: Path
    selection: str = ""
    convention: Convention = AS_THE_FORMAT_SAYS

    @cached_property
    def head(self) -> bytes:
        """The first 512 bytes; empty for a folder."""
        if self.path.is_dir():
            return b""
        with self.path.open("rb") as file:
            return file.read(512)

    @cached_property
    def is_text(self) -> bool:
        return (
            bool(self.head) and b"\0" not in self.head and not self.head.startswith((b"\x93NUMPY", b"PK\3\4"))
        )

    @cached_property
    def text(self) -> str:
        try:
            return self.path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            self.fail(f"byte {error.start}", "is not text; expected a UTF-8 file")

    @cached_property
    def json(self) -> Any:
        """The parsed JSON document, or None when the file does not begin like one."""
        if not self.is_text or self.text.lstrip()[:1] not in ("{", "["):
            return None
        try:
            return json.loads(self.text, object_pairs_hook=self._object_of_different_keys)
        except json.JSONDecodeError as error:
            if error.msg == "Extra data":
                self.fail(
                    f"line {error.lineno}",
                    "a second JSON document begins here; expected one. Of a file with one document a line "
                    "(JSON lines), take one line",
                )
            self.fail(
                f"line {error.lineno}, column {error.colno}", f"broken JSON: {error.msg}. Is it complete?"
            )
        except PoseFileError:
            raise
        except (RecursionError, ValueError) as error:  # of thousands of brackets, or of digits
            self.fail("", f"is JSON that cannot be read: {error}")

    def _object_of_different_keys(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """A JSON object, whose parser would otherwise keep the last of equal keys without a word."""
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            self.fail("", f"the key {twice!r} stands twice in one object; rename one or take it out")
        return found

    @cached_property
    def rows(self) -> tuple[tuple[int, tuple[str, ...]], ...]:
        """Line number and words of every line of text that is neither blank nor a ``#`` comment."""
        if not self.is_text:
            return ()
        lines = enumerate(self.text.splitlines(), start=1)
        return tuple(
            (number, tuple(line.split()))
            for number, line in lines
            if line.strip() and line.lstrip()[0] != "#"
        )

    @cached_property
    def columns(self) -> int:
        """How many numbers most of the first lines hold, 0 if none of them are all numbers.

        The most frequent count, so that one broken line does not change what the file looks like.
        """
        counts = [len(words) for _, words in self.rows[:20] if all(_is_number(word) for word in words)]
        return max(set(counts), key=counts.count) if counts else 0

    def fail(self, where: str, message: str) -> NoReturn:
        raise PoseFileError(f"{self.path}: {where}: {message}" if where else f"{self.path}: {message}")

    def numbers(self, line: int, words: Sequence[str], count: int, meaning: str) -> list[float]:
        """The ``count`` numbers of one line, or an error that names the line and the word."""
        if len(words) != count:
            self.fail(f"line {line}", f"holds {len(words)} values, expected {count}: {meaning}")
        values = []
        for word in words:
            try:
                values.append(float(word))
            except ValueError:
                self.fail(f"line {line}", f"{word!r} is not a number; expected {meaning}")
        return values

    def array(self, where: str, value: Any, shape: tuple[int, ...], meaning: str) -> np.ndarray:
        """A float64 array of the given shape out of JSON, or an error that names the place."""
        try:
            array = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError, OverflowError):
            self.fail(where, f"expected {meaning}, found {_short(value)}")
        if array.shape != shape:
            self.fail(where, f"expected {meaning} (shape {list(shape)}), found shape {list(array.shape)}")
        if not np.isfinite(array).all():
            self.fail(where, f"{meaning}: holds NaN or infinity; drop this frame or estimate its pose again")
        return array

    def npy(self, path: Path) -> np.ndarray:
        """The array of one ``.npy`` file. Pickled objects are refused."""
        try:
            return np.load(path, allow_pickle=False)
        except Exception as error:  # NumPy raises many kinds on damaged files
            raise PoseFileError(f"{path}: is not a readable NumPy file of numbers ({error})") from error

    @cached_property
    def arrays(self) -> tuple[str, ...]:
        """Names of the arrays in an ``.npz`` archive; none if it is not a readable one."""
        try:
            with zipfile.ZipFile(self.path) as archive:
                return tuple(name.removesuffix(".npy") for name in archive.namelist())
        except Exception:  # as above
            return ()

    def npz(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Those of the named arrays that an ``.npz`` archive holds. Pickled objects are refused."""
        try:
            with np.load(self.path, allow_pickle=False) as archive:
                return {name: archive[name] for name in names if name in archive.files}
        except Exception as error:  # as above
            raise PoseFileError(
                f"{self.path}: is not a readable archive of plain numbers ({error})"
            ) from error

    def value(self, where: str, mapping: Mapping[str, Any], key: str, default: float | None = None) -> float:
        """A finite number out of a JSON object, or an error that names the place and the key."""
        found = mapping.get(key, default)
        if found is None:
            self.fail(where, f"has no {key}; expected a number")
        if isinstance(found, bool) or not isinstance(found, (int, float)) or not abs(found) <= _LARGEST:
            self.fail(where, f"{key} is {_short(found)}, expected a number")
        return float(found)

    def object(self, where: str, found: Any) -> Mapping[str, Any]:
        """A JSON object, or an error that names the place."""
        if not isinstance(found, dict):
            self.fail(where, f"is {_short(found)}, expected an object in braces")
        return found

    def size(self, where: str, mapping: Mapping[str, Any], height: str, width: str) -> tuple[int, int]:
        """Height and width out of a JSON object, or an error that names the place and the key."""
        values = [self.value(where, mapping, key) for key in (height, width)]
        if min(values) < 1:
            self.fail(
                where, f"{height} and {width} are {values[0]:g} and {values[1]:g}, expected a picture size"
            )
        return int(values[0]), int(values[1])

    def pixel_intrinsics(
        self, pixels: np.ndarray, image_size: tuple[int, int] | None, locations: Sequence[str]
    ) -> np.ndarray:
        """Fractions [T, 4] of pixel intrinsics [T, 4], or an error that asks for the size."""
        if not len(pixels):
            return pixels
        if image_size is None:
            values = ", ".join(f"{value:g}" for value in pixels[0])
            self.fail(
                locations[0],
                f"the intrinsics ({values}) are in pixels and the file does not say of how many; "
                f"{PICTURE_SIZE}",
            )
        return intrinsics_from_pixels(pixels, *image_size)

    def normalised_intrinsics(
        self, values: np.ndarray, image_size: tuple[int, int] | None, locations: Sequence[str]
    ) -> tuple[np.ndarray, tuple[str, ...]]:
        """Fractions [T, 4] and notes, of a format that stores fractions; pixels need the size."""
        pixels = look_like_pixels(values)
        if not pixels.any():
            return values, ()
        frame = int(np.flatnonzero(pixels)[0])
        listed = ", ".join(f"{value:g}" for value in values[frame])
        if not pixels.all():
            self.fail(
                locations[frame],
                f"the intrinsics ({listed}) look like pixels; those of other lines are fractions of width "
                "and height (fx/W, fy/H, cx/W, cy/H), as all should be",
            )
        if image_size is None:
            self.fail(
                locations[frame],
                f"the intrinsics ({listed}) look like pixels; expected fractions of width and height (fx/W, "
                f"fy/H, cx/W, cy/H). If they are pixels, {PICTURE_SIZE}",
            )
        return intrinsics_from_pixels(values, *image_size), (
            "intrinsics were in pixels and were divided by the given size",
        )


def default_intrinsics(frames: int) -> np.ndarray:
    """The default intrinsics for every frame, float64 [T, 4]."""
    return np.tile(np.array(DEFAULT_INTRINSICS), (frames, 1))


NO_INTRINSICS = f"default {DEFAULT_INTRINSICS}: the format holds none"


def poses_from_3x4(rows: np.ndarray) -> np.ndarray:
    """[T, 12] or [T, 3, 4] rows of [R|t] as float64 [T, 4, 4]."""
    poses = np.tile(np.eye(4), (len(rows), 1, 1))
    poses[:, :3] = np.asarray(rows, dtype=np.float64).reshape(-1, 3, 4)
    return poses


def inverted(source: Source, poses: np.ndarray, locations: Sequence[str]) -> np.ndarray:
    """Inverses of [T, 4, 4] poses, exact also where rounding left them not quite rigid."""
    for frame in np.flatnonzero(~np.isfinite(poses).all(axis=(1, 2))):
        source.fail(
            locations[frame], "the pose holds NaN or infinity; drop this frame or estimate its pose again"
        )
    for frame in np.flatnonzero(np.abs(poses[:, 3] - (0, 0, 0, 1)).max(axis=1) > 1e-6):
        source.fail(locations[frame], f"the last row of the pose is {poses[frame, 3]}, expected [0 0 0 1]")
    for frame in np.flatnonzero(np.abs(np.linalg.det(poses[:, :3, :3])) < 1e-6):
        source.fail(
            locations[frame], "the rotation is singular (determinant 0); expected an orthonormal matrix"
        )
    return np.linalg.inv(poses)


def increasing(times: np.ndarray) -> bool:
    """Whether times can be trusted: finite and strictly increasing."""
    return bool(np.isfinite(times).all() and (np.diff(times) > 0).all())


def number(value: float) -> str:
    """The shortest text that reads back as the same float64."""
    return repr(float(value) + 0.0)  # no negative zero


def numbers(values: np.ndarray) -> str:
    """Numbers of an array in order, separated by spaces."""
    return " ".join(number(value) for value in np.ravel(values))


def required_size(image_size: tuple[int, int] | None, format_name: str) -> tuple[int, int]:
    """The picture size a format cannot do without."""
    if image_size is None:
        raise CameraError(
            f"{format_name} stores intrinsics in pixels: pass image_size=(height, width) (--image-size "
            "HEIGHTxWIDTH)"
        )
    return image_size


def picture_names(names: Sequence[str], frames: int) -> list[str]:
    """The given picture names, or frame_00000.png and so on."""
    if names and len(names) != frames:
        raise CameraError(f"{len(names)} picture names for {frames} frames")
    return list(names) or [f"frame_{index:05d}.png" for index in range(frames)]


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
