"""Motion strength: how fast the moving things of a clip move (the paper's appendix, section 6.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from camctrl_jax.errors import InvalidValue


@dataclass(frozen=True)
class MotionStrength:
    """Summed flow inside masks; parts add up to the whole.

    A clip in which nothing moves has no mean (``None``); how many pixels moved is ``moving_share``.

    Attributes:
        summed_px: magnitudes of the flow inside the masks, pixels per frame.
        summed_diagonals: the same in picture diagonals.
        moving: pixels inside the masks.
        pixels: all pixels.
    """

    summed_px: float = 0.0
    summed_diagonals: float = 0.0
    moving: int = 0
    pixels: int = 0

    @classmethod
    def of(cls, flow: np.ndarray, moving: np.ndarray) -> MotionStrength:
        """Of flow f [..., H, W, 2] in pixels per frame (u right, v down) inside masks bool [..., H, W].

        Raises:
            InvalidValue: shapes that do not fit, or flow inside a mask that is not finite.
        """
        flow, moving = np.asarray(flow, np.float64), np.asarray(moving, bool)
        if flow.shape != (*moving.shape, 2) or moving.ndim < 2:
            raise InvalidValue(
                f"flow {list(flow.shape)} does not fit masks {list(moving.shape)}; expected [..., H, W, 2] "
                "and [..., H, W]."
            )
        magnitude = np.hypot(flow[..., 0], flow[..., 1])[moving]
        if not np.isfinite(magnitude).all():
            raise InvalidValue("the flow inside the masks holds NaN or infinity.")
        summed = float(magnitude.sum())
        return cls(summed, summed / math.hypot(*moving.shape[-2:]), int(moving.sum()), moving.size)

    def __add__(self, other: MotionStrength) -> MotionStrength:
        return MotionStrength(
            self.summed_px + other.summed_px,
            self.summed_diagonals + other.summed_diagonals,
            self.moving + other.moving,
            self.pixels + other.pixels,
        )

    @property
    def px(self) -> float | None:
        """Mean over all moving pixels of all frames, pixels per frame."""
        return self.summed_px / self.moving if self.moving else None

    @property
    def diagonals(self) -> float | None:
        """The same in picture diagonals, which does not change with the resolution."""
        return self.summed_diagonals / self.moving if self.moving else None

    @property
    def paper_units(self) -> float | None:
        """Pixels times 180 / pi, as the paper prints them ("radians to degrees")."""
        return None if self.px is None else math.degrees(self.px)

    @property
    def moving_share(self) -> float:
        """Share of pixels inside the masks."""
        return self.moving / self.pixels if self.pixels else 0.0
