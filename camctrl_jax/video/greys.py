"""Reading grey pictures with the values that they store: masks, and depth in 16 bits."""

from __future__ import annotations

import os

import numpy as np

from camctrl_jax.errors import ClipError
from camctrl_jax.extras import require


def read_grey(path: str | os.PathLike[str]) -> np.ndarray:
    """One picture as u8 [H, W], or u16 [H, W] of a picture of more than 8 bits.

    A coloured picture gives the largest of its three values, so that a mask in any colour is not zero.

    Raises:
        ClipError: ``missing`` or ``unreadable``.
    """
    av = require("av", extra="data")
    if not os.path.exists(path):
        raise ClipError("missing", f"{path}: no such file.")
    try:
        with av.open(os.fspath(path)) as container:
            picture = next(container.decode(video=0))
    except (av.error.FFmpegError, OSError, ValueError, IndexError, StopIteration) as error:
        raise ClipError("unreadable", f"{path}: is not a picture ({error}).") from error
    name = picture.format.name
    if name.startswith(("gray16", "gray12", "gray10")):
        return picture.to_ndarray(format="gray16le")
    if name == "gray":
        return picture.to_ndarray()
    if name in ("monob", "monow"):
        return picture.to_ndarray(format="gray")
    return picture.to_ndarray(format="rgb24").max(axis=-1)
