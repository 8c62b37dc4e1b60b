"""Weights that are no numbers: found where they come in, counted, and named."""

from __future__ import annotations

import jax
import ml_dtypes
import numpy as np

from camctrl_jax.interop.described import WeightsError

_CHUNK = 1 << 22  # values looked at at once: little memory, and pages are read in order
_BFLOAT16_EXPONENT = np.uint16(0x7F80)  # all ones in NaN and infinity only


def non_finite_counts(array: np.ndarray) -> tuple[int, int]:
    """How many values are NaN, and how many infinite. One pass, in pieces; integers have none."""
    array = np.asarray(array)
    if array.dtype != ml_dtypes.bfloat16 and not np.issubdtype(array.dtype, np.floating):
        return 0, 0
    flat, nans, infinities = array.reshape(-1), 0, 0
    for start in range(0, flat.size, _CHUNK):
        piece = flat[start : start + _CHUNK]
        if not _all_finite(piece):
            values = piece.astype(np.float64)
            nans += int(np.isnan(values).sum())
            infinities += int(np.isinf(values).sum())
    return nans, infinities


def _all_finite(piece: np.ndarray) -> bool:
    if piece.dtype == ml_dtypes.bfloat16:  # on the bits: ten times as fast as through float32
        bits = np.ascontiguousarray(piece).view(np.uint16)
        return not np.any((bits & _BFLOAT16_EXPONENT) == _BFLOAT16_EXPONENT)
    return bool(np.isfinite(piece).all())


def refuse_non_finite(array: np.ndarray, name: str, cause: str) -> None:
    """Raises: WeightsError naming the tensor and how many of its values are NaN or infinite.

    Args:
        array: of any dtype.
        name: of file and tensor, as the message begins.
        cause: what may have led to it and what to do, as the message ends.
    """
    nans, infinities = non_finite_counts(array)
    if nans or infinities:
        found = [f"{count:,} {what}" for count, what in ((nans, "NaN"), (infinities, "infinite")) if count]
        raise WeightsError(
            f"{name} holds NaN or infinity ({' and '.join(found)} of {np.size(array):,} values): {cause}"
        )


def own_share(array: np.ndarray) -> np.ndarray:
    """The part of a tensor that this process looks at, so that all together read every file once."""
    count, index = jax.process_count(), jax.process_index()
    if count == 1:
        return array
    flat = array.reshape(-1)
    return flat[flat.size * index // count : flat.size * (index + 1) // count]


FILE_CAUSE = (
    "the file is damaged, or comes of a run that diverged or of a conversion to a narrower format. Download "
    "it again, or use other weights."
)
RUN_CAUSE = "the run diverged. Export an earlier checkpoint of it, or train again with a lower learning rate."
IMPORT_CAUSE = (
    "it was imported so, by a version that did not look. Import sound weights: import looks for this now."
)
