"""Which task each training sample has: text-to-video, image-to-video or extension, and what is dropped.

One model learns all three; they differ only in ``condition_mask``. METHOD: stage 1 trains T2V:I2V at 7:3,
stage 2 extension:I2V:T2V at 2:3:5 with 5 to 50 condition frames, which on the grid of a causal VAE are 2 to
13 latents. Text and camera are dropped independently, so that both guidance branches are trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from camctrl_jax.errors import InvalidValue

TASK_NAMES = ("t2v", "i2v", "extension")
REFERENCES = ("take", "clip")


@dataclass(frozen=True)
class TaskConfig:
    """How often each task is drawn, and how often a condition is dropped.

    Attributes:
      t2v, i2v, extension: relative weights, non-negative, not all zero.
      extension_latents: smallest and largest number of condition latents of an extension sample.
      text_dropout: share of samples whose text is replaced by the empty prompt.
      camera_dropout: share of *labelled* samples whose camera is dropped: the null branch must see labelled
        content too, otherwise guidance steers towards the labelled domain and not towards the camera.
      reference: which camera poses of extension samples are relative to, where a clip comes from a longer
        take whose first camera is known: 'take', that camera, as in every clip of an exploration; 'clip',
        the sample's own first frame, an ablation of the paper. Samples of other tasks begin an exploration,
        and always are relative to their own first frame.
    """

    t2v: float = 0.7
    i2v: float = 0.3
    extension: float = 0.0
    extension_latents: tuple[int, int] = (2, 13)
    text_dropout: float = 0.1
    camera_dropout: float = 0.1
    reference: str = "take"

    def __post_init__(self) -> None:
        if min(self.t2v, self.i2v, self.extension) < 0 or self.t2v + self.i2v + self.extension <= 0:
            raise InvalidValue(
                f"TaskConfig weights t2v={self.t2v}, i2v={self.i2v}, extension={self.extension}; expected "
                "numbers that are not negative and not all zero."
            )
        low, high = self.extension_latents
        if not 1 <= low <= high:
            raise InvalidValue(
                f"TaskConfig.extension_latents is {self.extension_latents}; expected (smallest, largest) "
                "with 1 <= smallest <= largest."
            )
        if self.reference not in REFERENCES:
            raise InvalidValue(
                f"TaskConfig.reference is {self.reference!r}; expected one of {', '.join(REFERENCES)}."
            )
        for name in ("text_dropout", "camera_dropout"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InvalidValue(
                    f"TaskConfig.{name} is {getattr(self, name)}; expected a share between 0 and 1."
                )


class Tasks(NamedTuple):
    """What was drawn for B samples of L latents."""

    task: np.ndarray  # i32 [B], index into TASK_NAMES
    condition_mask: np.ndarray  # bool [B, L]
    camera_valid: np.ndarray  # bool [B]
    text_dropped: np.ndarray  # bool [B]


def draw_tasks(config: TaskConfig, rng: np.random.Generator, labelled: np.ndarray, latents: int) -> Tasks:
    """Draw the tasks of B samples.

    A task that does not leave a latent to generate falls back to the next smaller one: extension to I2V, I2V
    to T2V. An image (one latent) is therefore always T2V.

    Args:
      config: weights and dropout shares.
      rng: where the numbers come from; always 4 B of them, so that changing one share moves nothing else.
      labelled: bool [B], whether the clip has camera poses.
      latents: L, latent frames of the window.
    """
    labelled = np.asarray(labelled, bool)
    draw_task, draw_length, draw_text, draw_camera = rng.random((4, labelled.size))
    weights = np.asarray([config.t2v, config.i2v, config.extension], np.float64)
    edges = np.cumsum(weights / weights.sum())
    task = np.minimum(np.searchsorted(edges, draw_task, side="right"), len(TASK_NAMES) - 1)
    low, high = config.extension_latents
    high = min(high, latents - 1)
    if high < low:
        task = np.where(task == 2, 1, task)
    if latents < 2:
        task = np.zeros_like(task)
    extension = low + np.floor(draw_length * (max(high, low) - low + 1)).astype(np.int64)
    conditions = np.select([task == 1, task == 2], [np.ones_like(extension), extension], 0)  # [B] latents
    return Tasks(
        task=task.astype(np.int32),
        condition_mask=np.arange(latents) < conditions[:, None],
        camera_valid=labelled & (draw_camera >= config.camera_dropout),
        text_dropped=draw_text < config.text_dropout,
    )
