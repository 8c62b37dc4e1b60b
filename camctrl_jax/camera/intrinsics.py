"""Pinhole intrinsics as fractions of the picture, and what cropping, resizing and pixels do to them.

Because they are fractions (fx/W, fy/H, cx/W, cy/H, pixel centres at +0.5), resizing changes nothing, whether
or not it keeps the aspect ratio: a squashed picture has squashed rays, and the fractions already say so. Only
cropping changes them. Scaling the focal length for a crop while squashing the picture, as some published
loaders do, makes rays that are too narrow or too wide by the ratio of the aspect ratios.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from camctrl_jax.errors import InvalidValue

DEFAULT_INTRINSICS = (0.6, 1.0, 0.5, 0.5)
"""Square pixels at aspect 3:5 (96 x 160): 79.6 degrees wide and 53.1 degrees high."""


def crop_resize_intrinsics(
    intrinsics: ArrayLike,
    source_hw: tuple[int, int],
    crop_box: tuple[float, float, float, float],
    target_hw: tuple[int, int],
) -> np.ndarray:
    """Intrinsics of a picture that was cropped, then resized.

    Args:
        intrinsics: [..., 4] fractions of the source picture.
        source_hw: height and width of the source picture in pixels.
        crop_box: top, left, height, width of the crop in source pixels. It must lie inside the picture.
        target_hw: height and width after resizing. Fractions do not depend on it; it is checked, so that a
            caller cannot pass the crop in its place.

    Returns:
        float64 [..., 4] fractions of the target picture.
    """
    intrinsics = np.asarray(intrinsics, dtype=np.float64)
    source_height, source_width = source_hw
    top, left, height, width = crop_box
    inside = top >= 0 and left >= 0 and top + height <= source_height and left + width <= source_width
    if not (inside and height > 0 and width > 0):
        raise InvalidValue(
            f"the crop box (top {top}, left {left}, height {height}, width {width}) does not lie inside the "
            f"{source_height} x {source_width} picture"
        )
    if len(target_hw) != 2 or min(target_hw) <= 0:
        raise InvalidValue(f"target_hw is {target_hw}; expected a positive height and width")
    fx, fy, cx, cy = np.moveaxis(intrinsics, -1, 0)
    return np.stack(
        [
            fx * source_width / width,
            fy * source_height / height,
            (cx * source_width - left) / width,
            (cy * source_height - top) / height,
        ],
        axis=-1,
    )


def centre_crop_box(source_hw: tuple[int, int], target_hw: tuple[int, int]) -> tuple[int, int, int, int]:
    """The largest centred crop with the target's aspect ratio: top, left, height, width in source pixels."""
    source_height, source_width = source_hw
    target_height, target_width = target_hw
    if min(*source_hw, *target_hw) <= 0:
        raise InvalidValue(f"sizes must be positive, got source {source_hw} and target {target_hw}")
    height = min(source_height, max(1, round(source_width * target_height / target_width)))
    width = min(source_width, max(1, round(source_height * target_width / target_height)))
    return (source_height - height) // 2, (source_width - width) // 2, height, width


def intrinsics_in_pixels(intrinsics: ArrayLike, height: int, width: int) -> np.ndarray:
    """Pixel intrinsics fx, fy, cx, cy, float64 [..., 4], of a height x width picture."""
    return np.asarray(intrinsics, dtype=np.float64) * (width, height, width, height)


def intrinsics_from_pixels(pixels: ArrayLike, height: int, width: int) -> np.ndarray:
    """Fractions fx/W, fy/H, cx/W, cy/H, float64 [..., 4], of pixel intrinsics [..., 4]."""
    return np.asarray(pixels, dtype=np.float64) / (width, height, width, height)
