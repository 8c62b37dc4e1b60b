"""Videos and pictures inside a notebook: what a cell shows is stored in it, and needs no file beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from camctrl_jax.extras import require
from camctrl_jax.video.encoding import encode_mp4
from camctrl_jax.video.pictures import encode_png

if TYPE_CHECKING:
    from IPython.display import Image, Video


def inline_video(frames: np.ndarray, fps: float, *, width: int | None = None) -> Video:
    """A clip that plays in the notebook, again and again, without sound.

    Args:
        frames: u8 [T, H, W, 3].
        fps: frames per second.
        width: on the screen, in pixels; None: twice that of the frames, at most 960.

    Raises:
        ImportError: naming the extra to install where IPython or PyAV are missing.
        InvalidValue: frames that are no video, or a rate that is none.
    """
    display = require("IPython.display", extra="notebooks")
    width = width or min(2 * frames.shape[2], 960)
    return display.Video(
        data=encode_mp4(frames, fps),
        embed=True,
        mimetype="video/mp4",
        width=width,
        html_attributes="controls loop autoplay muted playsinline",
    )


def inline_picture(image: np.ndarray, *, width: int | None = None) -> Image:
    """A picture in the notebook, such as a strip of frames.

    Args:
        image: u8 [H, W, 3], or [H, W] for grey.
        width: on the screen, in pixels; None: its own.

    Raises:
        ImportError: naming the extra to install where IPython is missing.
        InvalidValue: another shape or dtype.
    """
    display = require("IPython.display", extra="notebooks")
    return display.Image(data=encode_png(image), format="png", width=width)
