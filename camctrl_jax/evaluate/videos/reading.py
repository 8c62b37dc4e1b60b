"""The pictures of a clip, in the size that is looked at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from camctrl_jax.camera.framing import Framing
from camctrl_jax.errors import ClipError
from camctrl_jax.video.decoding import read_frames


@dataclass(frozen=True, eq=False)
class Pictures:
    """A decoded clip.

    Attributes:
        frames: u8 [T, H, W, 3].
        times: f64 [T], seconds from the first frame.
        size: (height, width) of the video, before any reduction.
        fps: frames a second: of a video, as its time stamps say on average.
    """

    frames: np.ndarray
    times: np.ndarray
    size: tuple[int, int]
    fps: float


def read_pictures(path: Path, fps: float, longest_side: int | None = None) -> Pictures:
    """All frames, reduced to ``longest_side`` where larger.

    Args:
        fps: of a folder of pictures, and of a single frame.

    Raises:
        ClipError: it cannot be read whole, or its size changes.
    """
    pictures, times = [], []
    size: tuple[int, int] | None = None
    framing: Framing | None = None
    for frame in read_frames(path, image_fps=fps):
        if size is None:
            size = frame.size
            framing = reduced(size, longest_side)
        elif frame.size != size:
            raise ClipError("mixed_sizes", f"{path}: the picture size changes at frame {frame.index}.")
        pictures.append(frame.rgb(framing))
        times.append(frame.time)
    assert size is not None  # read_frames raises where there is no frame
    measured = (len(times) - 1) / times[-1] if len(times) > 1 and times[-1] > 0 else fps
    return Pictures(np.stack(pictures), np.array(times), size, measured)


def reduced(size: tuple[int, int], longest_side: int | None) -> Framing | None:
    """How pictures of a size (height, width) come to ``longest_side``; None where they are small enough."""
    if longest_side is None or max(size) <= longest_side:
        return None
    scale = longest_side / max(size)
    target = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
    return Framing(target, 0, 0, target)
