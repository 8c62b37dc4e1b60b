"""Whether a clip, or an exploration of many, goes on looking like itself: cosines of picture embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from camctrl_jax.errors import InvalidValue


def appearance_consistency(embeddings: np.ndarray) -> float:
    """Mean cosine of each frame's embedding [T, D] with the clip's mean (arXiv 2506.09350, appendix G).

    The mean is taken of unit vectors. 1 for a clip that stands still, whatever it shows.
    """
    unit = _unit(embeddings)
    return float((unit @ _unit(unit.mean(axis=0, keepdims=True))[0]).mean())


def first_picture_consistency(embeddings: np.ndarray) -> float:
    """Mean cosine of the first frame's embedding with those of the frames [1:] after it, of [T, D]."""
    unit = _unit(embeddings)
    if len(unit) < 2:
        raise InvalidValue("the consistency with a first picture needs 2 frames or more.")
    return float((unit[1:] @ unit[0]).mean())


@dataclass(frozen=True)
class ExplorationConsistency:
    """How well an exploration, clip after clip, goes on looking like itself; cosines, 1 is best.

    Each clip can be consistent within itself while the exploration drifts: a clip's own mean drifts with it.
    The curve shows where it does. A camera that stands, and one that returns, score high whatever the model
    keeps; compare with the true clips, not with 1.

    Attributes:
        to_mean: mean cosine of all frames with the mean of the whole exploration.
        clip_to_first: of each clip, the cosine of its mean with that of the first clip; the first is 1.
        within: of each clip, the mean cosine of its frames with its own mean.
        last_to_first: cosine of the very last frame with the very first.
    """

    to_mean: float
    clip_to_first: tuple[float, ...]
    within: tuple[float, ...]
    last_to_first: float


def exploration_consistency(embeddings: Sequence[np.ndarray]) -> ExplorationConsistency:
    """Appearance over a whole exploration (the idea of arXiv 2506.09350, appendix G, over many clips).

    Args:
        embeddings: of the clips in order, each [T_i, D]; frames that two clips share belong to one of them.

    Raises:
        InvalidValue: no clips, an empty one, channels that differ, or an embedding without a direction.
    """
    clips = [_unit(clip) for clip in embeddings]
    if not clips:
        raise InvalidValue("the consistency of an exploration needs 1 clip or more.")
    if len(channels := {clip.shape[1] for clip in clips}) > 1:
        raise InvalidValue(f"embeddings of the clips have {sorted(channels)} channels; expected one number.")
    means = _unit(np.stack([clip.mean(axis=0) for clip in clips]))
    return ExplorationConsistency(
        to_mean=appearance_consistency(np.concatenate(clips)),
        clip_to_first=tuple(float(cosine) for cosine in means @ means[0]),
        within=tuple(float((clip @ mean).mean()) for clip, mean in zip(clips, means, strict=True)),
        last_to_first=float(clips[-1][-1] @ clips[0][0]),
    )


def _unit(embeddings: np.ndarray) -> np.ndarray:
    embeddings = np.asarray(embeddings, np.float64)
    if embeddings.ndim != 2 or not len(embeddings):
        raise InvalidValue(f"embeddings have shape {list(embeddings.shape)}; expected [frames, channels].")
    length = np.linalg.norm(embeddings, axis=1, keepdims=True)
    if not (np.isfinite(length).all() and length.all()):
        raise InvalidValue("an embedding is zero or not finite; its direction is not defined.")
    return embeddings / length
