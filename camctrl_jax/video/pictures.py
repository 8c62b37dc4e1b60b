"""Pictures of videos: grids of clips, strips of frames with labels, PNG files."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Sequence

import numpy as np

from camctrl_jax.errors import InvalidValue
from camctrl_jax.extras import require
from camctrl_jax.files.atomic import written_file

_BACKGROUND = 255
_INK = (38, 38, 38)


def video_grid(videos: np.ndarray, columns: int | None = None, gap: int = 2) -> np.ndarray:
    """Clips side by side as one video.

    Args:
        videos: u8 [N, T, H, W, 3].
        columns: clips per row; by default a grid about as wide as high.
        gap: white pixels between clips.

    Returns:
        u8 [T, rows * H + gaps, columns * W + gaps, 3]; unused places are white. Height and width are padded
        to even numbers at the bottom and right, which video encoders need.
    """
    count, frames, height, width, channels = videos.shape
    columns = columns or int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    shape = (rows * (height + gap) - gap, columns * (width + gap) - gap)
    shape = tuple(size + size % 2 for size in shape)
    canvas = np.full((frames, *shape, channels), _BACKGROUND, np.uint8)
    for i, clip in enumerate(videos):
        top, left = i // columns * (height + gap), i % columns * (width + gap)
        canvas[:, top : top + height, left : left + width] = clip
    return canvas


def shown_frames(frames: int, count: int = 7) -> np.ndarray:
    """Which frames of a video a strip shows: evenly spread, the first and the last among them.

    Args:
        frames: T.
        count: at most so many columns.

    Returns:
        int64 [min(count, T)], increasing indices.
    """
    return np.unique(np.linspace(0, frames - 1, min(count, frames)).round().astype(int))


def frame_strip(
    rows: Sequence[np.ndarray],
    frames: Sequence[int],
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    gap: int = 2,
    group: int | None = None,
) -> np.ndarray:
    """Chosen frames of several clips as one picture: a row per clip, a column per frame.

    Args:
        rows: u8 [T, H, W, 3] each, all of one size.
        frames: indices into T, one per column.
        row_labels: a text left of each row (needs matplotlib).
        column_labels: a text above each column (needs matplotlib).
        gap: white pixels between frames.
        group: rows that belong together; a wider gap follows each group.

    Returns:
        u8 [height, width, 3].

    Raises:
        ValueError: rows of different sizes, a frame that a row does not have, or a wrong number of labels.
    """
    sizes = {row.shape[1:] for row in rows}
    if len(sizes) != 1:
        raise InvalidValue(f"A strip needs rows of one size, found {sorted(sizes)}.")
    shortest = min(len(row) for row in rows)
    if not all(-shortest <= frame < shortest for frame in frames):
        raise InvalidValue(
            f"A strip of frames {list(frames)} asks for frames that a row of {shortest} does not have."
        )
    for labels, expected, what in ((row_labels, len(rows), "row"), (column_labels, len(frames), "column")):
        if labels is not None and len(labels) != expected:
            raise InvalidValue(f"{len(labels)} {what} labels were given for {expected} {what}s.")
    height, width, _ = rows[0].shape[1:]
    extra = 4 * gap  # beside the gap, after each group of rows
    starts = [i * (height + gap) + (i // group * extra if group else 0) for i in range(len(rows))]
    body = np.full((starts[-1] + height, len(frames) * (width + gap) - gap, 3), _BACKGROUND, np.uint8)
    for start, row in zip(starts, rows, strict=True):
        for column, frame in enumerate(frames):
            _paste(body, row[frame], start, column * (width + gap))
    size = int(np.clip(height // 6, 10, 28))  # of the letters, in pixels
    left, top = 0, 0
    if row_labels is not None:
        texts = [text_image(text, size) for text in row_labels]
        left = max(text.shape[1] for text in texts) + size
    if column_labels is not None:
        heads = [text_image(text, size) for text in column_labels]
        top = max(head.shape[0] for head in heads) + size // 2
    canvas = np.full((top + body.shape[0], left + body.shape[1], 3), _BACKGROUND, np.uint8)
    canvas[top:, left:] = body
    if row_labels is not None:
        for start, text in zip(starts, texts, strict=True):
            _paste(canvas, text, top + start + max(0, (height - text.shape[0]) // 2), size // 2)
    if column_labels is not None:
        for column, head in enumerate(heads):
            x = left + column * (width + gap) + max(0, (width - head.shape[1]) // 2)
            _paste(canvas, head, size // 4, x)
    return canvas


def _paste(canvas: np.ndarray, image: np.ndarray, top: int, left: int) -> None:
    image = image[: canvas.shape[0] - top, : canvas.shape[1] - left]
    canvas[top : top + image.shape[0], left : left + image.shape[1]] = image


def text_image(text: str, size: int) -> np.ndarray:
    """A text, dark on white, as u8 [height, width, 3]; ``size`` is the height of its letters in pixels."""
    require("matplotlib", extra="eval")
    # matplotlib takes longer to import than everything else here together, and most callers draw no text.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = text.split("\n")
    figure = Figure(
        figsize=(0.8 * size * max(map(len, lines)) / 100 + 0.5, 2.0 * size * len(lines) / 100), dpi=100
    )
    canvas = FigureCanvasAgg(figure)
    color = tuple(value / 255 for value in _INK)
    figure.text(0.0, 0.5, text, fontsize=size * 0.72, color=color, va="center", ha="left", linespacing=1.25)
    canvas.draw()
    image = np.asarray(canvas.buffer_rgba())[..., :3]
    inked = np.nonzero(np.any(image != _BACKGROUND, axis=(0, 2)))[0]
    right = inked[-1] + 1 if len(inked) else 1
    return np.ascontiguousarray(image[:, :right])


def encode_png(image: np.ndarray) -> bytes:
    """A picture as the bytes of a PNG file, without any image library.

    Args:
        image: u8 [H, W, 3], or [H, W] for grey.

    Raises:
        ValueError: another shape or dtype.
    """
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise InvalidValue(
            f"A PNG is written from u8 [H, W, 3] or [H, W], not from {image.dtype}{list(image.shape)}."
        )
    height, width = image.shape[:2]
    color_type = 2 if image.ndim == 3 else 0
    # Filter 2 (up): every row but the first is stored as its difference to the row above.
    rows = image.reshape(height, -1)
    filtered = np.concatenate([rows[:1], rows[1:] - rows[:-1]])  # modulo 256, as PNG wants it
    filtered = np.concatenate([np.full((height, 1), 2, np.uint8), filtered], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, color_type, 0, 0, 0)
    encoded = b"\x89PNG\r\n\x1a\n"
    for name, data in ((b"IHDR", header), (b"IDAT", zlib.compress(filtered.tobytes(), 6)), (b"IEND", b"")):
        encoded += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    return encoded


def write_png(path: str | os.PathLike, image: np.ndarray) -> None:
    """Write :func:`encode_png` of a picture; the file appears only when complete.

    Args:
        path: the file; its folder is made if need be.
        image: u8 [H, W, 3], or [H, W] for grey.
    """
    encoded = encode_png(image)
    with written_file(path) as file:
        file.write(encoded)
