"""Writing videos as H.264 with PyAV.

Sizes: H.264 in 4:2:0 needs even sizes, so an odd picture's last row or column is repeated once; who stores
the true size beside the file crops it off again.

Colour: RGB and 4:2:0 are converted with swscale's accurate rounding and full chroma interpolation. Without
them a round trip is off by 2.4 grey levels on average and darker by 1.3; with them by 0.4 and without a bias.

Lossless: 4:2:0 alone leaves renders at 36 to 40 dB of the original with up to a tenth less gradient energy,
and raises the PSNR of what differs in colour. Clips that are measured later are therefore kept as they are:
RGB in H.264 (High 4:4:4), which FFmpeg, mpv and VLC play and browsers do not.
"""

from __future__ import annotations

import io
import os
from fractions import Fraction
from typing import Any

import numpy as np

from camctrl_jax.errors import InvalidValue
from camctrl_jax.extras import require
from camctrl_jax.files.atomic import replaced_file
from camctrl_jax.video.colour import ACCURATE, BICUBIC, BT709, FULL_CHROMA


def encode_mp4(frames: np.ndarray, fps: float, *, crf: float | None = 12.0) -> bytes:
    """Encode u8 [T, H, W, 3] as H.264 (libx264, yuv420p, BT.709) in an mp4.

    An odd height or width is padded to even by repeating the last row or column. The same frames give the
    same bytes: one thread, no time stamps of the day.

    Args:
      frames: u8 [T, H, W, 3], T >= 1.
      fps: frames per second.
      crf: constant rate factor; 12 is visually lossless, 18 good, 28 small. None is lossless: the frames come
        back exactly, in RGB.
    """
    buffer = io.BytesIO()
    _encode(buffer, frames, fps, crf, {})
    return buffer.getvalue()


def write_mp4(
    path: str | os.PathLike[str], frames: np.ndarray, fps: float, *, crf: float | None = 12.0
) -> None:
    """As :func:`encode_mp4`, to a file, index in front, which appears under its name only when complete."""
    with replaced_file(path) as partial:
        _encode(str(partial), frames, fps, crf, {"movflags": "+faststart"})


def _encode(target: Any, frames: np.ndarray, fps: float, crf: float | None, options: dict[str, str]) -> None:
    av = require("av", extra="data")
    frames = np.asarray(frames)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames):
        raise InvalidValue(f"a video is u8 [T, H, W, 3] with T >= 1, got {frames.dtype} {frames.shape}.")
    if not fps > 0:
        raise InvalidValue(f"fps is {fps}; expected a positive number of frames per second.")
    height, width = frames.shape[1:3]
    frames = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    rate = Fraction(fps).limit_denominator(1001)
    with av.open(target, "w", format="mp4", options={**options, "fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264" if crf is not None else "libx264rgb", rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        context = stream.codec_context
        context.thread_count = 1
        context.color_primaries = context.color_trc = BT709
        stream.options = {"preset": "medium", "x264-params": "rc-lookahead=0:mbtree=0"}
        if crf is None:
            stream.pix_fmt = "rgb24"
            stream.options |= {"qp": "0"}
        else:
            stream.pix_fmt = "yuv420p"
            stream.options |= {"crf": f"{crf:g}"}
            context.colorspace = BT709
            context.color_range = 1  # limited ("tv")
        for index, rgb in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
            if crf is not None:
                picture = picture.reformat(
                    format="yuv420p",
                    dst_colorspace="ITU709",
                    interpolation=BICUBIC | FULL_CHROMA | ACCURATE,
                )
            picture.pts, picture.time_base = index, 1 / rate
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
