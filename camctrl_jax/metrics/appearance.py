"""Whether a clip goes on looking like itself: cosines of picture embeddings."""

from __future__ import annotations

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


def _unit(embeddings: np.ndarray) -> np.ndarray:
    embeddings = np.asarray(embeddings, np.float64)
    if embeddings.ndim != 2 or not len(embeddings):
        raise InvalidValue(f"embeddings have shape {list(embeddings.shape)}; expected [frames, channels].")
    length = np.linalg.norm(embeddings, axis=1, keepdims=True)
    if not (np.isfinite(length).all() and length.all()):
        raise InvalidValue("an embedding is zero or not finite; its direction is not defined.")
    return embeddings / length
