"""What the bytes of a picture say before any of it is decoded: kind, orientation, pages, colour profile.

FFmpeg decodes the pixels; what PyAV does not hand on of the rest is read here. Files may be damaged: whatever
cannot be read is taken as not said.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from camctrl_jax.camera.orientation import Orientation

UPRIGHT = Orientation()
# The eight values of EXIF's tag 274: how to turn what is stored into what is seen.
EXIF_ORIENTATIONS = {
    1: UPRIGHT,
    2: Orientation(0, True),
    3: Orientation(2, False),
    4: Orientation(2, True),
    5: Orientation(1, True),
    6: Orientation(3, False),
    7: Orientation(3, True),
    8: Orientation(1, False),
}
_ORIENTATION, _SUBFILE, _ICC = 274, 254, 34675  # tags of TIFF and EXIF
_REDUCED = 1  # bit of the subfile tag: a smaller copy of another page
_COMPRESSION, _PHOTOMETRIC, _SAMPLE_FORMAT = 259, 262, 339
# What FFmpeg does not decode in a TIFF, or decodes to something else without saying so.
_UNSUPPORTED = {
    _COMPRESSION: {
        6: "with JPEG compression",
        7: "with JPEG compression",
        34712: "with JPEG 2000 compression",
        34887: "with LERC compression",
        50000: "with Zstandard compression",
        50001: "with WebP compression",
    },
    _PHOTOMETRIC: {8: "in L*a*b* colours", 9: "in L*a*b* colours", 10: "in L*a*b* colours"},
    _SAMPLE_FORMAT: {3: "of floating point numbers", 6: "of complex numbers"},
}
_HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_AVIF_SEQUENCE = b"avis"


@dataclass(frozen=True)
class Header:
    """What a picture says of itself.

    Attributes:
        kind: "JPEG", "PNG", "WebP", "BMP", "TIFF", "HEIC", "AVIF sequence", or "" for anything else.
        orientation: from the picture as stored to the picture as shown.
        pages: pictures in the file, frames of an animation or pages; 2 where only "more than one" is known.
        pixel_aspect: width over height of a pixel, where the file says so; None where it does not.
        profile: its ICC colour profile, or no bytes.
        unsupported: what it has that is not supported, to be said after its kind; empty for most.
        cut: whether it ends before its end, as far as that can be told.
        opaque: whether what looks like transparency is unused.
    """

    kind: str = ""
    orientation: Orientation = UPRIGHT
    pages: int = 1
    profile: bytes = b""
    pixel_aspect: Fraction | None = None
    unsupported: str = ""
    cut: bool = False
    opaque: bool = False


def picture_kind(head: bytes) -> str:
    """The kind of picture that begins with these bytes (16 are enough); "" for anything else."""
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head.startswith((b"II*\0", b"MM\0*")):
        return "TIFF"
    if head.startswith(b"BM") and head[6:10] == bytes(4):
        return "BMP"
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF:
        return "HEIC"
    if head[4:12] == b"ftyp" + _AVIF_SEQUENCE:
        return "AVIF sequence"
    return ""


def read_header(content: bytes) -> Header:
    """The header of a picture's bytes."""
    kind = picture_kind(content[:16])
    read = {"JPEG": _jpeg, "PNG": _png, "WebP": _webp, "TIFF": _tiff, "BMP": _bmp}.get(kind)
    try:
        return read(content) if read else Header(kind)
    except (struct.error, zlib.error, IndexError):
        return Header(kind)


def _jpeg(content: bytes) -> Header:
    exif, profile, aspect, at = b"", b"", None, 2
    while content[at : at + 1] == b"\xff":
        marker = content[at + 1]
        if marker == 0xFF:  # fill bytes may stand before a marker
            at += 1
            continue
        if marker in (0xD9, 0xDA):  # the pixels begin
            break
        (length,) = struct.unpack_from(">H", content, at + 2)
        data = content[at + 4 : at + 2 + length]
        if marker == 0xE0 and data.startswith(b"JFIF\0"):
            unit, x, y = struct.unpack_from(">BHH", data, 7)
            aspect = _aspect(x, y, physical=unit != 0)
        if marker == 0xE1 and data.startswith(b"Exif\0\0") and not exif:
            exif = data[6:]
        if marker == 0xE2 and data.startswith(b"ICC_PROFILE\0"):
            profile += data[14:]
        at += 2 + length
    # Decoders take zeros for pixels: in their stead, the end must have been there.
    cut = content.endswith(b"\0") and content[at : at + 2] == b"\xff\xda" and not _jpeg_ends(content, at)
    return Header("JPEG", _orientation(exif), 1, profile, aspect, cut=cut)


def _jpeg_ends(content: bytes, at: int) -> bool:
    """Whether the end of a JPEG comes behind its first scan, which begins at ``at``."""
    while at + 4 <= len(content) and content[at + 1] != 0xD9:
        (length,) = struct.unpack_from(">H", content, at + 2)
        # Marks inside of pixels: an escaped 255, and where a decoder may start again.
        mark = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL).search(content, at + 2 + length)
        at = mark.start() if mark else len(content)
    return content[at : at + 2] == b"\xff\xd9"


def _bmp(content: bytes) -> Header:
    bits, compression = struct.unpack_from("<HI", content, 28)
    # Without masks of bits the fourth byte of a pixel means nothing.
    return Header("BMP", opaque=content[14] >= 40 and bits == 32 and compression == 0)


def _png(content: bytes) -> Header:
    exif, profile, pages, aspect, at = b"", b"", 1, None, 8
    while at + 8 <= len(content):
        length, name = struct.unpack_from(">I4s", content, at)
        data = content[at + 8 : at + 8 + length]
        if name == b"eXIf":
            exif = data
        elif name == b"acTL":
            (pages,) = struct.unpack_from(">I", data)
        elif name == b"pHYs":
            x, y, unit = struct.unpack_from(">IIB", data)
            aspect = _aspect(x, y, physical=unit != 0)
        elif name == b"iCCP":
            profile = zlib.decompress(data[data.index(b"\0") + 2 :]) if b"\0" in data else b""
        at += 12 + length
    return Header("PNG", _orientation(exif), pages, profile, aspect)


def _webp(content: bytes) -> Header:
    exif, profile, pages, at = b"", b"", 1, 12
    while at + 8 <= len(content):
        name, length = struct.unpack_from("<4sI", content, at)
        data = content[at + 8 : at + 8 + length]
        if name == b"EXIF":
            exif = data.removeprefix(b"Exif\0\0")
        elif name == b"ICCP":
            profile = data
        elif name == b"ANIM":
            pages = 2
        at += 8 + length + length % 2
    return Header("WebP", _orientation(exif), pages, profile)


def _tiff(content: bytes) -> Header:
    tags = list(_directories(content))
    pages = sum(not (page.get(_SUBFILE, 0) & _REDUCED) for page in tags)
    first = tags[0] if tags else {}
    found = (words.get(first.get(tag)) for tag, words in _UNSUPPORTED.items())
    return Header(
        "TIFF",
        _orientation(content),
        max(pages, 1),
        first.get(_ICC, b""),
        unsupported=next(filter(None, found), ""),
    )


def _aspect(x: int, y: int, *, physical: bool) -> Fraction | None:
    """The pixel aspect of two densities: pixels a length where they have a unit, otherwise the aspect itself.

    PNG's standard wants densities in either case; FFmpeg, which writes most such files, does not.
    """
    if not x or not y:
        return None
    return Fraction(y, x) if physical else Fraction(x, y)


def _orientation(exif: bytes) -> Orientation:
    """The orientation that a block of EXIF asks for."""
    try:
        first = next(_directories(exif), {})
    except (struct.error, IndexError):
        first = {}
    return EXIF_ORIENTATIONS.get(first.get(_ORIENTATION, 1), UPRIGHT)


def _directories(content: bytes) -> Iterator[dict[int, Any]]:
    """The chain of directories of a TIFF, which EXIF is as well: the tags of interest of each."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(content[:4])
    if order is None:
        return
    (at,) = struct.unpack_from(order + "I", content, 4)
    seen = set()
    while at and at not in seen and len(seen) < 1000:  # a damaged chain may bite its tail
        seen.add(at)
        (count,) = struct.unpack_from(order + "H", content, at)
        tags: dict[int, Any] = {}
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            tag, kind, number = struct.unpack_from(order + "HHI", content, entry)
            if tag in (_ORIENTATION, _SUBFILE, *_UNSUPPORTED) and kind in (3, 4):
                place = entry + 8
                if number * (2 if kind == 3 else 4) > 4:  # a number a channel, elsewhere; they are equal
                    (place,) = struct.unpack_from(order + "I", content, place)
                (tags[tag],) = struct.unpack_from(order + ("H" if kind == 3 else "I"), content, place)
            elif tag == _ICC:
                (start,) = struct.unpack_from(order + "I", content, entry + 8)
                tags[tag] = content[start : start + number]
        yield tags
        (at,) = struct.unpack_from(order + "I", content, at + 2 + 12 * count)


def is_gif(head: bytes) -> bool:
    """Whether a file that begins with these bytes is a GIF."""
    return head.startswith((b"GIF87a", b"GIF89a"))


def gif_is_whole(content: bytes) -> bool:
    """Whether the blocks of a GIF go on to its end mark; FFmpeg shows what there is of a cut one."""

    def palette(flags: int) -> int:
        return 3 << (flags & 7) + 1 if flags & 0x80 else 0

    try:
        at = 13 + palette(content[10])
        while content[at] != 0x3B:
            # An extension has two bytes, a picture its place, its palette and one byte, before the data.
            at += 2 if content[at] == 0x21 else 11 + palette(content[at + 9])
            while content[at]:
                at += 1 + content[at]
            at += 1
    except IndexError:
        return False
    return True


def profile_colourants(profile: bytes) -> list[tuple[float, float, float]]:
    """XYZ of red, green and blue under D50 as an ICC profile gives them; [] where it does not."""
    try:
        (count,) = struct.unpack_from(">I", profile, 128)
        places = {}
        for entry in range(132, 132 + 12 * min(count, 100), 12):
            name, offset, _ = struct.unpack_from(">4sII", profile, entry)
            places[name] = offset
        return [
            tuple(value / 65536 for value in struct.unpack_from(">3i", profile, places[name] + 8))
            for name in (b"rXYZ", b"gXYZ", b"bXYZ")
        ]
    except (struct.error, KeyError):
        return []
