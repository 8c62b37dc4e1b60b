"""Colour of pictures: FFmpeg's numbers for it, and the way from what files hold to BT.709.

A picture is 8-bit RGB with BT.709 primaries, as a player for an ordinary screen shows it. High dynamic range
(HLG, PQ) is brought there with diffuse white, 203 cd/m2 (BT.2408: 75 % HLG, 58 % PQ), as white; what is
brighter is white too. Transfer curves are swscale's. Its own mapping of gamuts shifts saturated colours that
need no mapping, by up to 30 levels of 255, so primaries are exchanged here, by a matrix in linear light.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from camctrl_jax.errors import ClipError
from camctrl_jax.extras import require
from camctrl_jax.video.headers import Header, profile_colourants

AREA, BICUBIC, FULL_CHROMA, ACCURATE = 0x20, 0x4, 0x2000, 0x40000  # flags of swscale
BT709, UNSPECIFIED = 1, 2  # codes of H.273

_SRGB_CURVE = 13
_BT2020, _DISPLAY_P3 = 9, 12  # primaries
# Transfer curves that are not close to BT.709: they must be converted, or the picture looks wrong.
_CONVERTED_CURVES = {8: "linear light", 16: "PQ (HDR)", 17: "SMPTE ST 428", 18: "HLG (HDR)"}
_REFUSED_CURVES = {9: "logarithmic", 10: "logarithmic", 12: "BT.1361 extended"}
_HDR = (16, 18)
# Chromaticities (x, y) of red, green, blue and white, from H.273.
_D65 = (0.3127, 0.3290)
_PRIMARIES = {
    BT709: ("BT.709", (0.640, 0.330), (0.300, 0.600), (0.150, 0.060), _D65),
    4: ("BT.470 M", (0.670, 0.330), (0.210, 0.710), (0.140, 0.080), (0.310, 0.316)),
    8: ("film", (0.681, 0.319), (0.243, 0.692), (0.145, 0.049), (0.310, 0.316)),
    _BT2020: ("BT.2020", (0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65),
    11: ("DCI-P3", (0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.314, 0.351)),
    _DISPLAY_P3: ("Display P3", (0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65),
}
# Ways from RGB to YUV that swscale does not know; it would take them for BT.601.
_REFUSED_MATRICES = {
    8: "YCgCo",
    11: "Y'D'zD'x",
    12: "chromaticity-derived",
    13: "chromaticity-derived",
    14: "ICtCp",
    15: "IPT-C2",
    16: "YCgCo-Re",
    17: "YCgCo-Ro",
}
_COLOURANTS = {  # of ICC profiles, under D50
    BT709: ((0.4360, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141)),
    _DISPLAY_P3: ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841)),
}


@dataclass(frozen=True)
class Colour:
    """How the pictures of a source come to BT.709.

    Attributes:
        source_matrix: how swscale is to read YUV, a name of its own; "" leaves that to the picture's tags.
        full_range: whether YUV spans all codes although no tag says so.
        curve: the transfer curve to convert from, H.273; 0 keeps the curve.
        primaries: the primaries to convert from, H.273; 0 keeps them.
        srgb: whether the values follow sRGB's curve; otherwise they are shown with gamma 2.4 (BT.1886).
        reformatter: an av.video.reformatter.VideoReformatter, which keeps the tables of a conversion: they
            take a second to make.
        remarks: what a user should know.
    """

    source_matrix: str = ""
    full_range: bool = False
    curve: int = 0
    primaries: int = 0
    srgb: bool = False
    reformatter: Any = None
    remarks: tuple[str, ...] = ()

    def options(self) -> dict[str, Any]:
        """What swscale must be told beside the picture's own tags."""
        options: dict[str, Any] = {}
        if self.source_matrix:
            options["src_colorspace"] = self.source_matrix
        if self.full_range:
            options["src_color_range"] = "JPEG"
        return options

    def rgb(self, picture: Any, width: int, height: int, scaling: int) -> np.ndarray:
        """An av.VideoFrame as u8 [height, width, 3] in BT.709."""
        size: dict[str, Any] = {"width": width, "height": height, "interpolation": scaling}
        if not (self.curve or self.primaries):
            return picture.reformat(format="rgb24", **size, **self.options()).to_ndarray()
        if self.curve:
            picture.color_trc, picture.color_primaries = self.curve, self.primaries or BT709
            target = {"dst_color_trc": BT709, "dst_color_primaries": self.primaries or BT709}
        else:
            target = {}
        deep = self.reformatter.reformat(picture, format="rgb48le", **size, **target, **self.options())
        values = deep.to_ndarray()
        if not self.primaries:
            return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
        return _encoded(self._light[values] @ self._to_bt709.T, self.srgb)

    @functools.cached_property
    def _light(self) -> np.ndarray:
        return _curve(self.srgb)

    @functools.cached_property
    def _to_bt709(self) -> np.ndarray:
        return _matrix(self.primaries)


PLAIN = Colour()


def _curve(srgb: bool) -> np.ndarray:
    """f32 [65536]: the light of every 16-bit value."""
    values = np.arange(65536) / 65535
    light = (
        np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
        if srgb
        else values**2.4
    )
    return light.astype(np.float32)


def _encoded(light: np.ndarray, srgb: bool) -> np.ndarray:
    """The inverse of :func:`_curve`, as u8; light outside [0, 1] is clipped."""
    light = np.clip(light, 0.0, 1.0)
    if srgb:
        values = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    else:
        values = light ** (1 / 2.4)
    return np.round(255 * values).astype(np.uint8)


def _matrix(primaries: int) -> np.ndarray:
    """f32 [3, 3]: BT.709 from linear RGB of the given primaries, white to white."""
    return (np.linalg.inv(_xyz_from_rgb(BT709)) @ _xyz_from_rgb(primaries)).astype(np.float32)


def _xyz_from_rgb(primaries: int) -> np.ndarray:
    """f64 [3, 3] with columns red, green, blue, each scaled so that their sum is white, here as (1, 1, 1)."""
    *colours, white = (np.array([x / y, 1.0, (1 - x - y) / y]) for x, y in _PRIMARIES[primaries][1:])
    columns = np.stack(colours, axis=1)
    return columns * np.linalg.solve(columns, white) / white[:, None]


def colour_of(picture: Any, header: Header, name: str, reformatter: Any) -> Colour:
    """How to convert the pictures that begin with ``picture``, an av.VideoFrame.

    Raises ClipError ``colour`` for what cannot be converted.
    """
    curve, primaries, matrix = picture.color_trc, picture.color_primaries, picture.colorspace
    is_yuv = not picture.format.is_rgb and len(picture.format.components) >= 3
    refused = _REFUSED_CURVES.get(curve) or (_REFUSED_MATRICES.get(matrix) if is_yuv else None)
    if refused:
        raise ClipError(
            "colour",
            f"{name}: its colours ({refused}) are not supported; convert it to BT.709, e.g. with ffmpeg.",
        )
    remarks = []
    srgb = curve == _SRGB_CURVE or bool(header.kind)
    if header.profile:
        primaries, remark = _profile_primaries(header.profile, primaries)
        remarks += remark
    if curve in _HDR and primaries == UNSPECIFIED:
        primaries = _BT2020  # the only ones that BT.2100 knows
    source_matrix = ""
    if is_yuv and matrix == UNSPECIFIED:
        if curve in _HDR or primaries == _BT2020:
            source_matrix = "BT2020"
        elif picture.height >= 720:
            source_matrix = "ITU709"  # what untagged HD means; below, swscale's BT.601 is right
    curve = curve if curve in _CONVERTED_CURVES else 0
    primaries = primaries if primaries in _PRIMARIES and primaries != BT709 else 0
    if curve or primaries:
        found = [_CONVERTED_CURVES[curve]] if curve else []
        found += [f"{_PRIMARIES[primaries][0]} colours"] if primaries else []
        white = "; diffuse white (203 cd/m2) is white, and so is what is brighter" if curve in _HDR else ""
        remarks.append(f"{' with '.join(found)} converted to BT.709{white}")
    return Colour(
        source_matrix=source_matrix,
        full_range=header.kind == "TIFF" and is_yuv,  # the decoder sets no tag
        curve=curve,
        primaries=primaries,
        srgb=srgb and not curve,
        reformatter=reformatter,
        remarks=tuple(remarks),
    )


def _profile_primaries(profile: bytes, tagged: int) -> tuple[int, list[str]]:
    """The primaries that an ICC profile means, and what to say of a profile that is left unused."""
    found = profile_colourants(profile)
    if not found:  # of a grey or a CMYK picture
        return tagged, []
    for primaries, colourants in _COLOURANTS.items():
        if np.abs(np.array(found) - colourants).max() < 0.004:
            return primaries, []
    return tagged, [
        "its colour profile, neither sRGB nor Display P3, is not applied: colours are read as sRGB"
    ]


def over_white(picture: Any, colour: Colour) -> tuple[Any, bool]:
    """A picture with transparency laid over white, and whether anything in it was transparent.

    Hidden colours must not come to light: what no viewer shows is often noise, or another picture.
    """
    av = require("av", extra="data")
    pixels = picture.reformat(
        format="rgba", interpolation=BICUBIC | FULL_CHROMA | ACCURATE, **colour.options()
    ).to_ndarray()
    alpha = pixels[..., 3:].astype(np.uint16)
    transparent = bool((alpha < 255).any())
    if transparent:
        mixed = (pixels[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255
    else:
        mixed = pixels[..., :3]
    opaque = av.VideoFrame.from_ndarray(np.ascontiguousarray(mixed.astype(np.uint8)), format="rgb24")
    opaque.pts, opaque.time_base = picture.pts, picture.time_base
    opaque.color_trc, opaque.color_primaries = picture.color_trc, picture.color_primaries
    return opaque, transparent
