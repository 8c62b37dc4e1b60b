"""Sizes of pictures that lie beside a pose file, without a library that decodes them."""

from __future__ import annotations

import struct
from pathlib import Path

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


def png_size(path: Path) -> tuple[int, int] | None:
    """Height and width from a PNG's header; NeRF's files leave the suffix out."""
    for candidate in (path, path.parent / f"{path.name}.png"):
        if candidate.is_file():
            with candidate.open("rb") as file:
                header = file.read(24)
            if header.startswith(b"\x89PNG\r\n\x1a\n") and len(header) == 24:
                width, height = struct.unpack(">II", header[16:])
                return height, width
    return None
