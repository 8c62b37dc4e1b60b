"""What every source of training batches offers, and how several kinds of batch take turns.

A batch is a dictionary of arrays (B clips, T = 4k+1 frames, L = k+1 latents, N text tokens of width D):

=====================  ======================  ==========================================================
``video``              u8 [B, T, H, W, 3]      or, in its place,
``latents``            f16 [B, L, h, w, 16]    normalised latents of the causal VAE
``world_from_camera``  f32 [B, T, 4, 4]        OpenCV axes, relative to the first frame of the window
``intrinsics``         f32 [B, T, 4]           fx/W, fy/H, cx/W, cy/H
``camera_valid``       bool [B]                false: unlabelled clip, or the camera was dropped
``condition_mask``     bool [B, L]             true: clean condition latent
``text``               f32 [B, N, D]           dropped text is the embedding of the empty prompt
``text_mask``          bool [B, N]             prefix mask of the tokens in use
``clip_index``         i32 [B]                 which clip each row came from: ``stream.describe`` names it
=====================  ======================  ==========================================================

Where exact labels are asked for (``WorldsSet.labels``), of cells of 16 x 16 pixels, also

=====================  ======================  ==========================================================
``log_depth``          f32 [B, T, H/16, W/16]  mean logarithm of the depth in metres
``moving_share``       f32 [B, T, H/16, W/16]  share of pixels that show what moves
=====================  ======================  ==========================================================

Where R frames from elsewhere in its take are shown beside a window (``WorldsSet.retrieved``), also

===============================  ====================  ==================================================
``retrieved_latents``            f16 [B, R, h, w, 16]  each frame encoded alone
``retrieved_world_from_camera``  f32 [B, R, 4, 4]      relative to what ``world_from_camera`` is relative to
``retrieved_intrinsics``         f32 [B, R, 4]
===============================  ====================  ==================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from camctrl_jax.clip_shape import PATCH, SPATIAL_STRIDE, ClipShape, latents_of
from camctrl_jax.errors import InvalidValue

Batch = dict[str, Any]
COARSE_TRUTH = ("log_depth", "moving_share")

_SMALLEST = (SPATIAL_STRIDE * PATCH[1], SPATIAL_STRIDE * PATCH[2])  # a size that any clip may have


@runtime_checkable
class BatchStream(Protocol):
    """An endless, resumable source of batches."""

    def __iter__(self) -> BatchStream:
        """The stream itself."""
        ...

    def __next__(self) -> Batch:
        """The next batch; see the module docstring for its fields."""
        ...

    def state(self) -> dict[str, Any]:
        """The position before the next batch, as JSON-able values."""
        ...

    def restore(self, state: dict[str, Any]) -> tuple[str, ...]:
        """Continue from a position that ``state`` returned: the following batches are identical.

        Positions count batches. One of other batch sizes, buckets, shares or numbers of processes is taken
        for what it says, as many batches, and how the clips that follow are not those that would have
        followed is returned, in sentences: none where batches are identical.

        Raises:
            ValueError: a position in other clips, or of another seed.
        """
        ...

    def describe(self, batch: Batch) -> list[str]:
        """The clip ids of a batch's rows, for logs and for the report of a step that went wrong."""
        ...

    def bad_clips(self) -> dict[str, str]:
        """Clips that could not be used so far, others standing in for them: id -> why."""
        ...

    def close(self) -> None:
        """Stop what runs in the background."""
        ...


@dataclass(frozen=True)
class Bucket:
    """One batch shape: how long and how large its clips are, and how often its turn comes.

    Attributes:
      frames: T = 4k+1 frames of a window; 1 is an image.
      batch_size: clips in a batch, over all processes.
      weight: turns in a cycle over all buckets, a positive integer.
      height, width: pixels, multiples of 16; None keeps the stored size.
    """

    frames: int
    batch_size: int
    weight: int = 1
    height: int | None = None
    width: int | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.weight < 1:
            raise InvalidValue(
                f"Bucket needs batch_size >= 1 and weight >= 1, got {self.batch_size} and {self.weight}."
            )
        if (self.height is None) != (self.width is None):
            raise InvalidValue(
                f"Bucket needs both height and width, or neither; got {self.height} and {self.width}."
            )
        ClipShape(self.frames, *(self.size or _SMALLEST)).check(prefix="Bucket.")

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) in pixels, None for the stored size."""
        return None if self.height is None or self.width is None else (self.height, self.width)

    @property
    def name(self) -> str:
        """What messages call it: "clips of 17 frames, 48x80", "images, 48x80"."""
        kind = "images" if self.frames == 1 else f"clips of {self.frames} frames"
        return kind if self.size is None else f"{kind}, {self.height}x{self.width}"

    @property
    def latents(self) -> int:
        """L = k+1 latent frames of T = 4k+1 frames."""
        return latents_of(self.frames)


def check_ratio(ratio: tuple[int, int] | None) -> None:
    """Raises: ValueError unless a ratio of labelled to unlabelled clips is two counts, or None."""
    counts = () if ratio is None else tuple(ratio)
    whole = all(isinstance(count, (int, np.integer)) and not isinstance(count, bool) for count in counts)
    if ratio is not None and not (len(counts) == 2 and whole and min(counts) >= 0 and sum(counts) > 0):
        raise InvalidValue(
            f"labelled_to_unlabelled is {ratio}; expected two whole numbers, not both 0, such as (4, 1); "
            "(1, 0) draws labelled clips alone, (0, 1) unlabelled ones, None all clips alike."
        )


class Interleaving:
    """An endless, evenly spread sequence over several choices with integer weights.

    Every cycle of ``sum(weights)`` turns holds choice i exactly ``weights[i]`` times: weights (4, 1) give
    0 0 1 0 0, over and over. The place of a turn within its own choice is known in closed form, so any
    position can be entered without walking to it.
    """

    def __init__(self, weights: Sequence[int]) -> None:
        if not weights or any(int(weight) != weight or weight < 0 for weight in weights) or sum(weights) == 0:
            raise InvalidValue(
                f"Interleaving weights are {tuple(weights)}; expected non-negative integers, not all 0."
            )
        self.weights = np.asarray(weights, np.int64)
        credit = np.zeros(len(weights), np.int64)
        pattern = []
        for _ in range(int(self.weights.sum())):  # smooth weighted round robin
            credit += self.weights
            chosen = int(np.argmax(np.where(self.weights > 0, credit, np.iinfo(np.int64).min)))
            credit[chosen] -= self.weights.sum()
            pattern.append(chosen)
        self.pattern = np.asarray(pattern, np.int64)
        one_hot = self.pattern[:, None] == np.arange(len(weights))
        self._before = np.cumsum(one_hot, axis=0) - one_hot  # [cycle, choices] earlier turns within the cycle

    def before(self, turn: int) -> list[int]:
        """How many of the turns before ``turn`` each choice had."""
        cycle, offset = divmod(int(turn), len(self.pattern))
        return (cycle * self.weights + self._before[offset]).tolist()

    def __call__(self, turns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For turns i64 [...]: the choice of each, and how many earlier turns had the same choice."""
        cycle, offset = np.divmod(np.asarray(turns, np.int64), len(self.pattern))
        choice = self.pattern[offset]
        return choice, cycle * self.weights[choice] + self._before[offset, choice]
