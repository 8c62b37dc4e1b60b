"""How a source's pictures are meant to be seen: turned, mirrored, with square pixels, opaque, in BT.709."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from camctrl_jax.camera.orientation import Orientation
from camctrl_jax.video.colour import (
    ACCURATE,
    AREA,
    BICUBIC,
    FULL_CHROMA,
    PLAIN,
    Colour,
    colour_of,
    over_white,
)
from camctrl_jax.video.headers import UPRIGHT, Header

_SQUARE = 0.005  # a pixel whose sides differ by less is square: crops and rounding leave such ratios behind
_MOST = 4  # pixels longer than so many times their width are a mistake of the file
_STRAIGHT = 1.0  # degrees; files with another angle mean something that is not done here
WHITE_REMARK = "transparent parts are shown on white"


@dataclass(frozen=True)
class Look:
    """From a decoded picture to the picture as shown.

    Attributes:
        orientation: turns and mirrors, after the pixels were made square.
        pixel_aspect: width over height of a stored pixel.
        colour: the way to BT.709.
        transparent: whether the pictures may have transparent parts.
        remarks: what a user should know.
    """

    orientation: Orientation = UPRIGHT
    pixel_aspect: Fraction | int = 1
    colour: Colour = PLAIN
    transparent: bool = False
    remarks: tuple[str, ...] = ()

    @property
    def turned(self) -> bool:
        """Whether the turn exchanges height and width."""
        return self.orientation.quarter_turns % 2 == 1

    def size(self, stored: tuple[int, int]) -> tuple[int, int]:
        """(height, width) as shown, of (height, width) as stored. The short side grows: no pixel is lost."""
        height, width = stored
        if self.pixel_aspect > 1:
            width = round(width * self.pixel_aspect)
        elif self.pixel_aspect < 1:
            height = round(height / self.pixel_aspect)
        return self.orientation.size((height, width))

    def opaque(self, picture: Any) -> tuple[Any, tuple[str, ...]]:
        """The av.VideoFrame without transparency, and its remarks."""
        if not self.transparent:
            return picture, self.remarks
        picture, found = over_white(picture, self.colour)
        return picture, (*self.remarks, WHITE_REMARK) if found else self.remarks

    def rgb(self, picture: Any, size: tuple[int, int]) -> np.ndarray:
        """u8 [height, width, 3] of an opaque av.VideoFrame as shown, at a size as shown."""
        height, width = size[::-1] if self.turned else size
        shrinks = height * width < picture.height * picture.width
        scaling = (AREA if shrinks else BICUBIC) | FULL_CHROMA | ACCURATE
        return self.orientation.apply(self.colour.rgb(picture, width, height, scaling))


AS_STORED = Look()


def look_of(picture: Any, stream: Any, header: Header, name: str, reformatter: Any) -> Look:
    """The look of a source, from its first decoded av.VideoFrame, its stream and, for a picture, its header.

    Raises ClipError ``colour`` where it cannot be shown as meant.
    """
    remarks: list[str] = []
    if header.kind:
        orientation = header.orientation
    else:
        orientation = _display_orientation(picture, remarks)
    if orientation != UPRIGHT:
        remarks.append(f"{_turn_words(orientation)}, as the file says it is to be seen")
    aspect = _pixel_aspect(stream, header, remarks)
    if aspect != 1:
        remarks.append(f"pixels of {aspect.numerator}:{aspect.denominator} are made square")
    colour = colour_of(picture, header, name, reformatter)
    picture_format = picture.format
    transparent = picture_format.has_palette or any(each.is_alpha for each in picture_format.components)
    transparent &= not header.opaque
    return Look(orientation, aspect, colour, transparent, (*remarks, *colour.remarks))


def _display_orientation(picture: Any, remarks: list[str]) -> Orientation:
    """What the display matrix of a container or a stream asks for."""
    try:
        data = picture.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV does not know the type of some other side data, and then gives none of it
        return Orientation(round(picture.rotation / 90) % 4)
    if data is None:
        return UPRIGHT
    a, b, _, c, d, _, _, _, _ = struct.unpack("=9i", bytes(data))
    mirrored = a * d - b * c < 0
    # Of a mirrored picture the matrix sends the stored x axis to minus what the turn alone sends it to.
    x, y = (-a, -b) if mirrored else (a, b)
    if not x and not y:
        return UPRIGHT
    angle = math.degrees(math.atan2(-y, x))  # y points down
    turns = round(angle / 90)
    if abs(angle - 90 * turns) > _STRAIGHT:
        remarks.append(f"the file asks for a turn by {angle:.0f} degrees; only multiples of 90 are made")
    return Orientation(turns % 4, mirrored)


def _turn_words(orientation: Orientation) -> str:
    """What is done to the pictures, in words."""
    turn = ("", "turned 90 degrees to the left", "turned upside down", "turned 90 degrees to the right")
    words = ["mirrored"] if orientation.mirrored else []
    words += [turn[orientation.quarter_turns]] if orientation.quarter_turns else []
    return " and ".join(words)


def _pixel_aspect(stream: Any, header: Header, remarks: list[str]) -> Fraction | int:
    """Width over height of a pixel; 1 where nothing useful is said."""
    if header.kind in ("JPEG", "PNG"):
        aspect = header.pixel_aspect  # FFmpeg takes densities for their inverse
    else:
        aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
    if not aspect or abs(math.log(aspect)) < _SQUARE:
        return 1
    if not 1 / _MOST <= aspect <= _MOST:
        remarks.append(f"pixels of {aspect.numerator}:{aspect.denominator} are not believed: taken as square")
        return 1
    return Fraction(aspect)
