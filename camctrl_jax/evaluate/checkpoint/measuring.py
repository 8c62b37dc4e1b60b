"""Samples of one clip against the true one, frame by frame and as draws from a distribution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from camctrl_jax.evaluate.checkpoint.sampling import Plan
from camctrl_jax.metrics.distribution import energy_score
from camctrl_jax.metrics.psnr import psnr_of_error
from camctrl_jax.metrics.sharpness import gradient_energy
from camctrl_jax.metrics.ssim import ssim

SSIM_EVERY, ENERGY_EVERY = 4, 2
"""SSIM and energy score are taken of every so many scored frames: neighbours say the same."""

_SSIM_WINDOW = 11
_PEAK = 255.0


def against_truth(video: np.ndarray, truth: np.ndarray, scored: slice) -> dict[str, float | None]:
    """PSNR (dB), SSIM and gradient energy (share of the truth's) of u8 [T, H, W, 3], scored frames only."""
    one, true = video[scored], truth[scored]
    wide = min(video.shape[1:3]) >= _SSIM_WINDOW
    return {
        "psnr_db": clip_psnr(one, true),
        "ssim": float(over_frames(ssim, one[::SSIM_EVERY], true[::SSIM_EVERY]).mean()) if wide else None,
        "gradient_energy": gradient_share(one, true),
    }


def gradient_share(video: np.ndarray, truth: np.ndarray) -> float | None:
    """Gradient energy of u8 [T, H, W, 3] as a share of the truth's; None where that has none."""
    one, true = (over_frames(gradient_energy, each).mean() for each in (video, truth))
    return float(one / true) if true else None


def over_frames(measure: Callable[..., Any], *videos: np.ndarray) -> np.ndarray:
    """A measure of each frame of [T, H, W, 3], f64 [T]: a long clip as a whole takes gigabytes in float64."""
    return np.array([np.mean(measure(*frames)) for frames in zip(*(v[:, None] for v in videos), strict=True)])


def squared_errors(video: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Mean squared error of each frame of u8 [T, H, W, 3], f64 [T]."""
    return over_frames(lambda one, true: np.square(one.astype(np.float64) - true), video, truth)


def clip_psnr(video: np.ndarray, truth: np.ndarray) -> float:
    """PSNR in dB of the squared error over all frames of u8 [T, H, W, 3]."""
    return float(psnr_of_error(squared_errors(video, truth).mean(), _PEAK))


def task_record(
    samples: Sequence[np.ndarray], decoy: np.ndarray | None, truth: np.ndarray, plan: Plan, task: str
) -> dict[str, Any]:
    """All that is said of one clip at one task, JSON-able.

    Args:
        samples: S of u8 [T, H, W, 3].
        decoy: u8 [T, H, W, 3], the first sample's noise along another clip's path; or None.
        truth: u8 [T, H, W, 3].
        plan, task: what was sampled. T2V shows another scene than the truth: only the energy score applies.
    """
    scored = plan.scored(task)
    record: dict[str, Any] = {"energy": None}
    if len(samples) > 1:
        frames = range(len(truth))[scored][::ENERGY_EVERY]
        scores = [energy_score(np.stack([one[t] for one in samples]), truth[t]) for t in frames]
        record["energy"] = float(np.mean(scores))
    if task == "t2v":
        return record
    measured = [against_truth(one, truth, scored) for one in samples]
    errors = [squared_errors(one, truth) for one in samples]
    given = plan.given(task)
    repeated = np.broadcast_to(truth[given - 1 : given], truth.shape)
    record |= {name: mean_of([one[name] for one in measured]) for name in measured[0]}
    record["per_sample"] = measured
    record["frame_psnr"] = np.mean([psnr_of_error(each, _PEAK) for each in errors], axis=0).tolist()
    record["repeated_psnr_db"], record["repeated_frame_psnr"] = _levels(repeated, truth, scored, given)
    record["gain_repeated"] = record["psnr_db"] - record["repeated_psnr_db"]
    if decoy is not None:
        record["decoy_psnr_db"], record["decoy_frame_psnr"] = _levels(decoy, truth, scored, 0)
        record["gain_decoy"] = measured[0]["psnr_db"] - record["decoy_psnr_db"]  # of the same noise
    if plan.clips > 1:
        windows = plan.windows(task)
        record["clip_psnr_db"] = [
            float(np.mean([psnr_of_error(each[window].mean(), _PEAK) for each in errors]))
            for window in windows
        ]
        # Of the whole, one clip that blurs and one that burns would cancel.
        shares = [[gradient_share(one[window], truth[window]) for one in samples] for window in windows]
        record["clip_gradient_energy"] = [mean_of(each) for each in shares]
    return record


def _levels(video: np.ndarray, truth: np.ndarray, scored: slice, given: int) -> tuple[float, list[float]]:
    """PSNR over the scored frames and of each frame; the ``given`` first ones count as the truth itself."""
    errors = squared_errors(video, truth)
    errors[:given] = 0.0
    return float(psnr_of_error(errors[scored].mean(), _PEAK)), psnr_of_error(errors, _PEAK).tolist()


def mean_of(values: Sequence[float | None]) -> float | None:
    """Of those that are there."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
