"""Embeddings without weights, for appearance consistency where there is no CLIP. They are not CLIP's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from camctrl_jax.errors import InvalidValue
from camctrl_jax.estimators.protocols import Fingerprint, checked_frames

_COLOURS, _ANGLES = (
    4,
    8,
)  # bins for each of red, green, blue; bins of the direction of a gradient, half a turn


@dataclass(frozen=True)
class HistogramEmbedder:
    """How much of which colour, and which edges, in each cell of a grid: NOT CLIP, and its cosines are not
    CLIP's.

    It sees drift of colour, exposure, texture and layout; it knows nothing of what is shown. A camera that
    moves changes it more than CLIP's embedding, so compare only runs on the same paths, and never with CLIP
    scores. Square roots of histograms (so that a cosine is a Bhattacharyya coefficient): 64 colours and 8
    directions of gradients a cell, colours and gradients weighted alike; the whole picture counts as one more
    cell.

    Attributes:
        cells: of the grid, a side.
    """

    cells: int = 3

    def __post_init__(self) -> None:
        if self.cells < 1:
            raise InvalidValue(f"cells is {self.cells}; expected 1 or more.")

    def fingerprint(self) -> Fingerprint:
        return Fingerprint("colour and gradient histograms", "1", (("cells", self.cells),))

    def embed(self, frames: np.ndarray) -> np.ndarray:
        """f32 [T, (cells^2 + 1) * 72], of length 1."""
        frames = checked_frames(frames)
        if min(frames.shape[1:3]) < 2 * self.cells:
            raise InvalidValue(
                f"histograms of {self.cells} x {self.cells} cells need pictures of {2 * self.cells} pixels a "
                f"side or more, got {frames.shape[1]} x {frames.shape[2]}."
            )
        return np.stack([self._embed(frame) for frame in frames])

    def _embed(self, frame: np.ndarray) -> np.ndarray:
        height, width = frame.shape[:2]
        colours = _soft_colours(frame.astype(np.float64) * ((_COLOURS - 1) / 255.0))  # [H, W, 64]
        edges = _edges(frame)  # [H, W, 8]
        rows = np.linspace(0, height, self.cells + 1).round().astype(int)
        columns = np.linspace(0, width, self.cells + 1).round().astype(int)
        boxes = [
            (slice(top, bottom), slice(left, right))
            for top, bottom in zip(rows, rows[1:])
            for left, right in zip(columns, columns[1:])
        ]
        parts = []
        for box in [*boxes, (slice(None), slice(None))]:
            colour, edge = colours[box].mean(axis=(0, 1)), edges[box].sum(axis=(0, 1)) + 1e-3
            parts += [np.sqrt(colour), np.sqrt(edge / edge.sum())]
        return (np.concatenate(parts) / np.sqrt(len(parts))).astype(np.float32)  # every part has length 1


def _soft_colours(scaled: np.ndarray) -> np.ndarray:
    """Weights [H, W, 64] of the eight nearest of 4 x 4 x 4 colours: a little drift changes them a little."""
    low = np.minimum(scaled.astype(int), _COLOURS - 2)
    share = scaled - low  # of the upper neighbour
    channels = []
    for channel in range(3):
        weights = np.zeros((*scaled.shape[:2], _COLOURS))
        np.put_along_axis(weights, low[..., channel, None], 1.0 - share[..., channel, None], axis=-1)
        np.put_along_axis(weights, low[..., channel, None] + 1, share[..., channel, None], axis=-1)
        channels.append(weights)
    joint = (
        channels[0][..., :, None, None] * channels[1][..., None, :, None] * channels[2][..., None, None, :]
    )
    return joint.reshape(*scaled.shape[:2], -1)


def _edges(frame: np.ndarray) -> np.ndarray:
    """Strength of the gradient by its direction, [H, W, 8], shared between the two nearest directions."""
    light = frame.astype(np.float64).mean(axis=-1) / 255.0
    down, right = np.gradient(light)
    place = (np.arctan2(down, right) % np.pi) * (_ANGLES / np.pi)
    low, share = np.floor(place).astype(int), place - np.floor(place)
    strength, edges = np.hypot(down, right), np.zeros((*light.shape, _ANGLES))
    np.put_along_axis(edges, (low % _ANGLES)[..., None], (strength * (1.0 - share))[..., None], axis=-1)
    np.put_along_axis(edges, ((low + 1) % _ANGLES)[..., None], (strength * share)[..., None], axis=-1)
    return edges
