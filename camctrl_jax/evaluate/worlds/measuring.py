"""The measures of one scene: of single clips against its truth, and of several samples as a distribution."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from camctrl_jax.evaluate.worlds.truth import PATH_SCALES, REGIONS, SCALED_FRAMES, Truth
from camctrl_jax.metrics.distribution import Spread, energy_score
from camctrl_jax.metrics.path_scale import best_path_scale
from camctrl_jax.metrics.psnr import frame_psnr, psnr
from camctrl_jax.metrics.sharpness import gradient_energy
from camctrl_jax.metrics.ssim import ssim

SSIM_EVERY = 4
SPREAD_EVERY = 2
"""SSIM, and energy score and spread, are taken of every so many scored frames: neighbours say the same."""


@dataclass(frozen=True)
class ClipMeasures:
    """Of one clip.

    Attributes:
        psnr: dB against the true render, over all scored frames.
        ssim: against the true render, of every fourth scored frame.
        alpha: scale of the path whose render fits best; None where the camera stands or it was not rendered.
        alpha_off: its distance from 1, which does not cancel over clips.
        alpha_bound: 1 where it is the largest scale that was rendered, and may be more; 0 elsewhere.
        sharpness: gradient energy over the truth's.
        sharpness_kept: gradient energy over the reconstruction's: what the autoencoder loses is no fault of
            what works in its latents. None without a reconstruction.
        alive: mean absolute change from frame to frame over the truth's; None where that does not change.
    """

    psnr: float | None
    ssim: float | None
    alpha: float | None
    alpha_off: float | None
    alpha_bound: float | None
    sharpness: float | None
    sharpness_kept: float | None
    alive: float | None


NOTHING = ClipMeasures(*[None] * 8)
"""Of a clip that has failed."""


def clip_measures(
    video: np.ndarray,
    truth: Truth,
    scored: slice,
    reconstruction: np.ndarray | None = None,
    *,
    with_alpha: bool = True,
) -> ClipMeasures:
    """Measure one clip u8 [T, H, W, 3]; ``reconstruction`` is the truth through the autoencoder."""
    one, true = video[scored], truth.video[scored]
    energy = float(gradient_energy(one))
    alpha = None
    if with_alpha and not truth.case.stands:
        alpha = best_path_scale(video[SCALED_FRAMES], truth.scaled, PATH_SCALES)
    kept = None if reconstruction is None else _ratio(energy, float(gradient_energy(reconstruction[scored])))
    structure = None
    if min(video.shape[1:3]) >= 11:
        structure = float(ssim(one[::SSIM_EVERY], true[::SSIM_EVERY]).mean())
    return ClipMeasures(
        psnr=float(psnr(one, true)),
        ssim=structure,
        alpha=alpha,
        alpha_off=None if alpha is None else abs(alpha - 1.0),
        alpha_bound=None if alpha is None else float(alpha == PATH_SCALES[-1]),
        sharpness=_ratio(energy, float(gradient_energy(true))),
        sharpness_kept=kept,
        alive=_ratio(_change(one), _change(true)),
    )


def _ratio(value: float, of: float) -> float | None:
    return value / of if of > 0.0 else None


def _change(video: np.ndarray) -> float:
    if len(video) < 2:
        return 0.0
    return float(np.mean(np.abs(np.diff(video.astype(np.int16), axis=0))))


def distribution_measures(samples: np.ndarray, truth: Truth, scored: slice) -> dict[str, Any] | None:
    """Of S samples u8 [S, T, H, W, 3] of one scene; None for a single one.

    Returns:
        ``energy``: the energy score, grey levels; ``spread``: by region and as a whole, the sums of
        :class:`~camctrl_jax.metrics.distribution.Spread` as plain values.
    """
    if len(samples) < 2:
        return None
    frames = np.arange(samples.shape[1])[scored][::SPREAD_EVERY]
    some, true = samples[:, frames], truth.video[frames]
    energy = float(energy_score(some, true).mean())
    spread = {"all": asdict(Spread.of(some, true))}
    for name in REGIONS:
        spread[name] = asdict(Spread.of(some, true, truth.regions[name][frames]))
    return {"energy": energy, "spread": spread}


def mean_of(measures: list[ClipMeasures]) -> dict[str, float | None]:
    """Each measure's mean over samples of one scene; those without a value are left out of it."""
    columns = {name: [getattr(one, name) for one in measures] for name in asdict(measures[0])}
    return {name: _mean(values) for name, values in columns.items()}


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return sum(known) / len(known) if known else None


def task_record(
    samples: np.ndarray,
    finite: np.ndarray,
    decoy: np.ndarray | None,
    truth: Truth,
    reconstruction: np.ndarray | None,
    task: str,
    scored: slice,
    given: int,
) -> dict[str, Any]:
    """All of one scene at one task, JSON-able.

    Args:
        samples: u8 [S, T, H, W, 3].
        finite: bool [S]; the others are counted under ``not_finite``, and have no values. The samples are
            no distribution then.
        decoy: u8 [T, H, W, 3], of I2V.
        truth, reconstruction: of the scene.
        task: its name.
        scored, given: which frames are scored, and how many first ones the task was given.
    """
    # T2V knows no first frame, so no frame of the truth is the one to be seen: only what looks at clips as
    # draws from a distribution applies.
    against_truth = task != "t2v"
    with_alpha = task == "i2v"
    measured = [
        clip_measures(one, truth, scored, reconstruction, with_alpha=with_alpha) if sound else NOTHING
        for one, sound in zip(samples, finite, strict=True)
    ]
    record: dict[str, Any] = {
        "per_sample": [asdict(one) for one in measured],
        "mean": mean_of(measured),
        "distribution": distribution_measures(samples, truth, scored) if finite.all() else None,
        "not_finite": int((~finite).sum()),
    }
    if not against_truth:
        for values in [record["mean"], *record["per_sample"]]:
            values.update(psnr=None, ssim=None)
        return record
    if not finite.any():
        return record
    sound = samples[finite]
    record["frame_psnr"] = np.mean([frame_psnr(one, truth.video) for one in sound], axis=0).tolist()
    baselines = {"repeated": np.broadcast_to(truth.video[given - 1 : given], truth.video.shape)}
    if task == "i2v":
        baselines["warp"] = truth.warp
    if decoy is not None:
        baselines["decoy"] = decoy
        record["decoy"] = asdict(clip_measures(decoy, truth, scored, reconstruction))
    levels = {name: float(psnr(video[scored], truth.video[scored])) for name, video in baselines.items()}
    record["baseline_psnr"] = levels
    record["gain"] = {name: record["mean"]["psnr"] - level for name, level in levels.items()}
    if decoy is not None:
        record["gain"].pop("decoy")
    if decoy is not None and measured[0].psnr is not None:  # of the same noise
        record["gain"]["decoy"] = measured[0].psnr - levels["decoy"]
    return record


def baseline_records(truth: Truth, reconstruction: np.ndarray | None, scored: slice) -> dict[str, Any]:
    """Measures of what no model samples, by name, scored as I2V is; of the reconstruction all frames, too.

    A reconstruction that is not finite (None) has no values and counts 1 under ``not_finite``.
    """
    videos = {
        "truth": truth.video,
        "reconstruction": reconstruction,
        "first frame repeated": truth.repeated,
        "exact-geometry warp": truth.warp,
    }
    if truth.twin is not None:
        videos["another world"] = truth.twin
    records = {
        name: asdict(NOTHING if video is None else clip_measures(video, truth, scored, reconstruction))
        for name, video in videos.items()
    }
    for name in ("reconstruction", "first frame repeated", "exact-geometry warp"):
        if videos[name] is not None:
            records[name]["frame_psnr"] = frame_psnr(videos[name], truth.video).tolist()
    whole = None if reconstruction is None else float(psnr(reconstruction, truth.video))
    records["reconstruction"] |= {"psnr_all_frames": whole, "not_finite": int(reconstruction is None)}
    return records
