"""Command-line options of everything that reads a pose file. Imports nothing heavy: parsers answer at once.

What they say is taken by :func:`camctrl_jax.camera.reading.take_reading`.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import Any


def image_size(text: str) -> tuple[int, int]:
    """(height, width) of "HEIGHTxWIDTH"."""
    height, cross, width = text.lower().partition("x")
    if not (cross and height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHTxWIDTH, for example 720x1280")
    return int(height), int(width)


def add_reading_options(add: Callable[..., Any]) -> None:
    """How a pose file is read.

    Args:
        add: ``add_argument`` of a parser, or of a group of it.
    """
    add(
        "--from",
        dest="source_format",
        metavar="FORMAT",
        help="format of the pose file (default: detected by content; python -m camctrl_jax.camera --help "
        "lists them)",
    )
    add(
        "--image-size",
        type=image_size,
        metavar="HEIGHTxWIDTH",
        help="picture size, for pose files with intrinsics in pixels that do not say it",
    )
    add(
        "--invert",
        action="store_true",
        help="the file holds the inverse of the matrices that its format says: world-to-camera for "
        "camera-to-world, or the other way round",
    )
    add(
        "--axes",
        default="",
        metavar="XYZ",
        help="camera axes of the file where they are not those of its format: three letters out of "
        "Right/Left, Up/Down, Forward/Back, such as RDF (OpenCV), RUB (OpenGL), FLU (ROS), LUF (PyTorch3D)",
    )
    add(
        "--quaternions",
        default="",
        choices=("xyzw", "wxyz"),
        metavar="xyzw|wxyz",
        help="order of the file's quaternions where it is not that of its format",
    )


def add_playing_options(add: Callable[..., Any]) -> None:
    """Which part of a pose file is taken, and how fast the file was recorded.

    Args:
        add: ``add_argument`` of a parser, or of a group of it.
    """
    add(
        "--range",
        dest="part",
        type=frame_range,
        metavar="A:B",
        help="take frames A to B-1 of the pose file, as in Python: 100:149, :49, 100: (to the end); the "
        "last 49 are --range=-49: with an equals sign",
    )
    add(
        "--source-fps",
        type=float,
        metavar="F",
        help="poses per second of the file, for files without times or whose times are not seconds (of a "
        "pose for every fourth picture, a quarter of the pictures' rate)",
    )


def frame_range(text: str) -> tuple[int | None, int | None]:
    """The two ends of "A:B"; None where one is left out."""
    match = re.fullmatch(r"(-?\d+)?:(-?\d+)?", text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not A:B, for example 100:149 (frames 100 to 148)")
    first, end = (None if group is None else int(group) for group in match.groups())
    return first, end
