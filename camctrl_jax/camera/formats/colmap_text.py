"""The ``images.txt`` of a COLMAP model, as tools and editors leave it.

Every picture has two lines: its pose, and its 2-D points, a line that may be blank. Blank lines where a pose
is due, comments anywhere and points that come after another blank line are taken for what they are. A pose
where points are due is an error with its line: in a file without the second lines, COLMAP itself and most
readers would take every other pose for points.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

import numpy as np

from camctrl_jax.camera.formats.posefile import Source

_POSE = "IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME"
_INTEGER = re.compile(r"[+-]?[0-9]+")
_NUMBER_OF_IMAGES = re.compile(r"#\s*Number of images:\s*([0-9]+)", re.IGNORECASE)


class Image(NamedTuple):
    """A registered picture: world-to-camera pose, camera, name, and where it stands in the file."""

    quaternion: tuple[float, ...]  # w x y z
    translation: tuple[float, ...]
    camera: int
    name: str
    location: str


def images_of_text(source: Source) -> tuple[list[Image], tuple[str, ...]]:
    """Every picture of ``images.txt``, in the order of the file, and notes.

    Raises:
        PoseFileError: for a line that is neither pose nor points, or a pose where points are due.
    """
    images: list[Image] = []
    announced: int | None = None
    points_due = False  # the line after a pose
    points_may_follow = False  # only blank lines since a pose
    for number, line in enumerate(source.text.split("\n"), start=1):
        if line.lstrip().startswith("#"):
            if counted := _NUMBER_OF_IMAGES.match(line.strip()):
                announced = int(counted[1])
            continue
        words = line.split(maxsplit=9)
        if not words:
            points_due = False
        elif points_due:
            _check_points(source, number, line, images[-1])
            points_due = points_may_follow = False
        elif points_may_follow and _is_points(line.split()) and not reads_like_pose(words):
            points_may_follow = False
        else:
            images.append(_image(source, number, words))
            points_due = points_may_follow = True
    if announced is None or announced == len(images):
        return images, ()
    return images, (
        f"{source.path.name} says that it holds {announced} images, but holds {len(images)}: it was edited, "
        "or is cut short",
    )


def reads_like_pose(words: Sequence[str]) -> bool:
    """Whether the words of a line, split at most nine times, can be the pose of a picture."""
    if len(words) < 10 or not (_INTEGER.fullmatch(words[0]) and _INTEGER.fullmatch(words[8])):
        return False
    values = [_number(word) for word in words[1:8]]
    return None not in values and 0.5 < float(np.linalg.norm(values[:4])) < 2.0


def _image(source: Source, line: int, words: Sequence[str]) -> Image:
    if len(words) != 10:
        _fail(
            source, line, words, f"holds {len(words)} values, expected {_POSE}, and a line of points after it"
        )
    values = source.numbers(line, words[1:8], 7, _POSE)
    for word in (words[0], words[8]):
        integer(source, line, word)
    return Image(tuple(values[:4]), tuple(values[4:]), int(words[8]), words[9].strip(), f"line {line}")


def _fail(source: Source, line: int, words: Sequence[str], message: str) -> NoReturn:
    if _is_points(words):
        message = (
            f"lists points (X Y POINT3D_ID) where a pose is due: {_POSE}; is a line missing or twice there?"
        )
    source.fail(f"line {line}", message)


def _check_points(source: Source, number: int, line: str, image: Image) -> None:
    """Refuse what stands in the place of a picture's points and is none."""
    words = line.split()
    pose = reads_like_pose(line.split(maxsplit=9))
    if _is_points(words) and not pose:
        return
    if pose or len(words) == 10:
        source.fail(
            f"line {number}",
            f"reads like a pose (of {line.split(maxsplit=9)[9].strip()}), but the points of {image.name} "
            f"({image.location}) are due: every picture has two lines, of which the second, its points, may "
            "be blank. Put a blank line after every pose",
        )
    source.fail(
        f"line {number}",
        f"holds {len(words)} values where the points of {image.name} ({image.location}) are due, expected "
        "triples X Y POINT3D_ID or a blank line; is the file cut short?",
    )


def _is_points(words: Sequence[str]) -> bool:
    # A look at the first hundred triples tells; lines of dense models hold tens of thousands.
    return (
        len(words) % 3 == 0
        and all(_INTEGER.fullmatch(word) for word in words[2:300:3])
        and all(_number(word) is not None for word in words[:300])
    )


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None


def integer(source: Source, line: int, word: str) -> int:
    """An integer, or an error that names the line and the word."""
    if not _INTEGER.fullmatch(word):
        source.fail(f"line {line}", f"{word!r} is not an integer")
    return int(word)
