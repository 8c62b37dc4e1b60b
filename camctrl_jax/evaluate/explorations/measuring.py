"""The measures of one exploration against its truth: clip by clip, at the seams, and where it comes back."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage

from camctrl_jax.evaluate.explorations.settings import Plan
from camctrl_jax.evaluate.explorations.takes import REGIONS, Truth
from camctrl_jax.metrics.psnr import psnr_of_error
from camctrl_jax.metrics.sharpness import gradient_energy

LEAST_SHARE = 0.005
"""Of the pixels of a clip: a smaller region has no PSNR, which would be that of a few pixels."""


def clip_records(video: np.ndarray, truth: Truth, plan: Plan) -> list[dict[str, float | None]]:
    """Of every clip of u8 [T, H, W, 3], the frames that it adds: JSON-able measures.

    Returns:
        ``psnr``: dB over all pixels of the measured frames; ``psnr_REGION``: over those of a region, None
        where it is too small; ``sharpness``: gradient energy over the truth's; ``seam``, ``inside``: errors
        of :func:`warp_errors`, from the frame before the clip to its first (None of the first clip), and the
        mean from frame to frame inside it.
    """
    steps = warp_errors(video, truth)
    records = []
    for clip in range(plan.clips):
        new, frames = plan.new(clip), truth.measured[clip]
        error = np.square(video[frames].astype(np.float64) - truth.video[frames]).mean(axis=-1)
        record: dict[str, float | None] = {"psnr": _psnr(error.mean())}
        for name in REGIONS:
            region = truth.regions[clip][name]
            large = region.mean() >= LEAST_SHARE
            record[f"psnr_{name}"] = _psnr(error[region].mean()) if large else None
        made, true = (gradient_energy(one[new.start : new.stop]) for one in (video, truth.video))
        record["sharpness"] = float(made / true) if true > 0 else None
        record["seam"] = float(steps[new.start - 1]) if clip else None
        record["inside"] = float(steps[new.start : new.stop - 1].mean()) if len(new) > 1 else None
        records.append(record)
    return records


def _psnr(error: float) -> float:
    return float(psnr_of_error(np.asarray(error, np.float64), 255.0))


def warp_errors(video: np.ndarray, truth: Truth) -> np.ndarray:
    """From each frame to the next of u8 [T, H, W, 3], f64 [T-1] grey levels: mean absolute difference between
    a frame and the next one seen along the true flow, where that shows the same point."""
    height, width = video.shape[1:3]
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    errors = np.zeros(len(video) - 1)
    for t in range(len(video) - 1):
        flowing = truth.flowing[t]
        if not flowing.any():
            continue
        flow = truth.flow[t]
        places = [(rows + flow[..., 1])[flowing], (columns + flow[..., 0])[flowing]]
        later = [
            ndimage.map_coordinates(video[t + 1, ..., c].astype(np.float32), places, order=1, mode="nearest")
            for c in range(3)
        ]
        errors[t] = np.abs(np.stack(later, axis=-1) - video[t][flowing]).mean()
    return errors


def return_record(video: np.ndarray, truth: Truth) -> dict[str, Any] | None:
    """How far frames of equal pose differ, later against earlier, on pixels that show the same static thing.

    Returns:
        ``difference``: the root of the mean squared difference over all pairs, grey levels; ``true``: the
        same of the true render, where only light and shadows may have changed; None without such pairs.
    """
    squares, true, pixels = 0.0, 0.0, 0
    for (a, b), same in zip(truth.returns, truth.same, strict=True):
        squares += _squares(video[a], video[b], same)
        true += _squares(truth.video[a], truth.video[b], same)
        pixels += int(same.sum())
    if not pixels:
        return None
    return {
        "pairs": len(truth.returns),
        "difference": float(np.sqrt(squares / (3 * pixels))),
        "true": float(np.sqrt(true / (3 * pixels))),
    }


def _squares(one: np.ndarray, other: np.ndarray, chosen: np.ndarray) -> float:
    return float(np.square(one[chosen].astype(np.float64) - other[chosen]).sum())


def exploration_record(video: np.ndarray, truth: Truth, plan: Plan) -> dict[str, Any]:
    """All of one exploration, JSON-able."""
    return {"clips": clip_records(video, truth, plan), "returns": return_record(video, truth)}
