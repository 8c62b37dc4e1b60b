"""The table of a weights card: how well a model follows the camera on held-out worlds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# The frames before the sixth are mostly given by the first one: every method scores high on them.
FIRST_SCORED_FRAME = 5  # index, so the sixth frame


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
