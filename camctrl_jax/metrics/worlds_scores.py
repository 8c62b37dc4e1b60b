"""How well a model follows the camera on held-out worlds: scores against the true render, and their table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from camctrl_jax.metrics.psnr import psnr

# The frames before the sixth are mostly given by the first one: every method scores high on them.
FIRST_SCORED_FRAME = 5  # index, so the sixth frame


def reconstruction_scores(video: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """PSNR of u8 [N, T, H, W, 3] against the truth: JSON-able, in dB, on average and per world."""
    values = psnr(video, truth)
    return {
        "psnr_db": float(values.mean()),
        "standard_error": _standard_error(values),
        "per_world": values.tolist(),
    }


def camera_scores(truth: np.ndarray, true_path: np.ndarray, decoy_path: np.ndarray) -> dict[str, Any]:
    """How much better the true path is than a decoy and than standing still.

    Args:
        truth, true_path, decoy_path: u8 [N, T, H, W, 3].

    Returns:
        JSON-able: PSNR in dB per world and on average, gains with standard errors, the share of worlds won.
    """
    scored = slice(FIRST_SCORED_FRAME, None)
    still = np.broadcast_to(truth[:, :1], truth.shape)
    videos = {"true_path": true_path, "decoy_path": decoy_path, "first_frame_repeated": still}
    values = {name: psnr(video[:, scored], truth[:, scored]) for name, video in videos.items()}
    scores: dict[str, Any] = {"psnr_db": {name: float(value.mean()) for name, value in values.items()}}
    for name in ("decoy_path", "first_frame_repeated"):
        gain = values["true_path"] - values[name]
        scores[f"against_{name}"] = {
            "gain_db": float(gain.mean()),
            "standard_error": _standard_error(gain),
            "won": float(np.mean(gain > 0)),
        }
    return scores | {"per_world": {name: value.tolist() for name, value in values.items()}}


def _standard_error(values: np.ndarray) -> float:
    return float(np.std(values, ddof=1) / math.sqrt(len(values)))


def markdown_report(results: Mapping[str, Any]) -> str:
    """What ``results.json`` of an evaluation holds, as Markdown with a table."""
    clip, seeds, reconstruction = results["clip"], results["seeds"], results["reconstruction"]
    lines = [
        f"{len(seeds)} held-out worlds (seeds {seeds[0]} to {seeds[-1]}), {clip['frames']} frames of "
        f"{clip['height']}x{clip['width']}; mean ± standard error over worlds; {results['seconds']:g} s on "
        f"{results['versions']['device']}.",
        "",
        f"Reconstruction by the autoencoder: **{reconstruction['psnr_db']:.2f} "
        f"± {reconstruction['standard_error']:.2f} dB**",
    ]
    if "camera" not in results:
        return "\n".join(lines)
    lines += [
        "",
        f"Image-to-video, PSNR in dB of frames {FIRST_SCORED_FRAME + 1} to {clip['frames']} against truth:",
        "",
        "| Euler steps | camera guidance | true path | decoy path | first frame repeated "
        "| gain over decoy | won | gain over repeated | won |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in results["camera"]:
        mean = row["psnr_db"]
        cells = [f"{row['steps']}", f"{row['camera_guidance']:g}"]
        cells += [f"{mean[name]:.2f}" for name in ("true_path", "decoy_path", "first_frame_repeated")]
        for name in ("decoy_path", "first_frame_repeated"):
            gain = row[f"against_{name}"]
            cells += [f"{gain['gain_db']:.2f} ± {gain['standard_error']:.2f}", f"{gain['won']:.0%}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
