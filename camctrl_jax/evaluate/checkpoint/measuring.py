"""Samples of one clip against the true one, frame by frame and as draws from a distribution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from camctrl_jax.evaluate.checkpoint.sampling import Plan
from camctrl_jax.evaluate.worlds.sampling import scored_frames
from camctrl_jax.metrics.distribution import energy_score
from camctrl_jax.metrics.psnr import frame_psnr, psnr
from camctrl_jax.metrics.sharpness import gradient_energy
from camctrl_jax.metrics.ssim import ssim

SSIM_EVERY, ENERGY_EVERY = 4, 2
"""SSIM and energy score are taken of every so many scored frames: neighbours say the same."""

_SSIM_WINDOW = 11


def against_truth(video: np.ndarray, truth: np.ndarray, scored: slice) -> dict[str, float | None]:
    """PSNR (dB), SSIM and gradient energy (share of the truth's) of u8 [T, H, W, 3], scored frames only."""
    one, true = video[scored], truth[scored]
    energy = float(gradient_energy(true))
    wide = min(video.shape[1:3]) >= _SSIM_WINDOW
    return {
        "psnr_db": float(psnr(one, true)),
        "ssim": float(ssim(one[::SSIM_EVERY], true[::SSIM_EVERY]).mean()) if wide else None,
        "gradient_energy": float(gradient_energy(one)) / energy if energy else None,
    }


def task_record(
    samples: np.ndarray, decoy: np.ndarray | None, truth: np.ndarray, plan: Plan, task: str
) -> dict[str, Any]:
    """All that is said of one clip at one task, JSON-able.

    Args:
        samples: u8 [S, T, H, W, 3].
        decoy: u8 [T, H, W, 3], the first sample's noise along another clip's path; or None.
        truth: u8 [T, H, W, 3].
        plan, task: what was sampled. T2V shows another scene than the truth: only the energy score applies.
    """
    scored = scored_frames(task, plan.shape)
    record: dict[str, Any] = {"energy": None}
    if len(samples) > 1:
        frames = np.arange(len(truth))[scored][::ENERGY_EVERY]
        record["energy"] = float(energy_score(samples[:, frames], truth[frames]).mean())
    if task == "t2v":
        return record
    measured = [against_truth(one, truth, scored) for one in samples]
    given = plan.given(task)
    repeated = np.broadcast_to(truth[given - 1 : given], truth.shape)
    record |= {name: mean_of([one[name] for one in measured]) for name in measured[0]}
    record["per_sample"] = measured
    record["frame_psnr"] = np.mean([frame_psnr(one, truth) for one in samples], axis=0).tolist()
    record["repeated_psnr_db"] = float(psnr(repeated[scored], truth[scored]))
    record["gain_repeated"] = record["psnr_db"] - record["repeated_psnr_db"]
    record["repeated_frame_psnr"] = frame_psnr(repeated, truth).tolist()
    if decoy is not None:
        record["decoy_psnr_db"] = float(psnr(decoy[scored], truth[scored]))
        record["gain_decoy"] = measured[0]["psnr_db"] - record["decoy_psnr_db"]  # of the same noise
        record["decoy_frame_psnr"] = frame_psnr(decoy, truth).tolist()
    if plan.clips > 1:
        record["clip_psnr_db"] = [
            float(np.mean([psnr(one[window], truth[window]) for one in samples]))
            for window in plan.windows(task)
        ]
    return record


def mean_of(values: Sequence[float | None]) -> float | None:
    """Of those that are there."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
