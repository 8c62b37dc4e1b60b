"""What ``evaluate checkpoint`` says of all clips: means with intervals, one page, one figure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from camctrl_jax.evaluate.checkpoint.estimates import MEASURES, TRUTH
from camctrl_jax.evaluate.checkpoint.measuring import mean_of
from camctrl_jax.evaluate.students import student_lines
from camctrl_jax.extras import require
from camctrl_jax.files.atomic import replaced_file, write_text
from camctrl_jax.files.json_file import write_json
from camctrl_jax.metrics.intervals import interval, share_interval

AGAINST_TRUTH = (
    ("psnr_db", "PSNR", "dB, scored frames"),
    ("gain_repeated", "Gain over the given frame", "dB over the last given frame, repeated"),
    ("gain_decoy", "Gain over a decoy", "dB over the same noise along another clip's path"),
    ("ssim", "SSIM", "scored frames"),
    ("gradient_energy", "Gradient energy", "share of the true clip's; below 1 is blur"),
    ("energy", "Energy score", "grey levels, lower is better; needs 2 seeds or more"),
)
"""(name, title, meaning)."""

CLIP_AFTER_CLIP = (
    ("clip_psnr_db", "PSNR clip after clip (dB)"),
    ("clip_gradient_energy", "Gradient energy clip after clip (share of the true clip's)"),
)
"""(name, title) of what explorations have one number of for each of their clips."""

ESTIMATED = (
    ("registered", "Geometric consistency", "share of clips whose every frame registers"),
    ("rot_err_aligned_deg", "RotErr, aligned", "degrees"),
    ("rot_err_deg", "RotErr", "degrees, without nearly straight paths, where it means nothing"),
    ("trans_err_share_of_path", "TransErr / path", "share of the path's length"),
    ("motion_px", "Motion strength", "pixels per frame inside the masks"),
    ("moving_share", "Moving share", "of all pixels"),
    ("appearance", "Appearance", "mean cosine of frames with their clip's mean"),
    ("appearance_to_first", "Appearance, first", "mean cosine of later frames with the first"),
    ("exploration_clip_to_first", "Exploration, clips", "cosine of the last clip's mean with the first's"),
    ("exploration_last_to_first", "Exploration, ends", "cosine of the last frame with the first"),
)
"""(name, title, meaning) of the measures of ``evaluate videos`` on this page; its own pages have all."""

_COLOURS = ("#1f5fa8", "#d7263d", "#2a9d5c", "#e08e0b", "#7a4fa3", "#55606e")


def write_results(out: Path, results: dict[str, Any]) -> dict[str, Any]:
    """Summarise, write ``results.json``, ``results.md`` and the figure; returns what the first holds."""
    results["summary"] = summarised(results)
    results["files"] = ["results.json", "results.md"]
    curves = results["summary"]["frame_psnr_db"]
    if curves:
        _figure(out / "error_over_time.png", curves)
        results["files"].append("error_over_time.png")
    write_text(out / "results.md", page(results) + "\n")
    write_json(out / "results.json", results)
    return results


def summarised(results: Mapping[str, Any]) -> dict[str, Any]:
    """Means over clips with 95 % intervals, JSON-able; a clip's value is its mean over seeds."""
    rows: dict[str, Any] = {}
    curves: dict[str, list[float]] = {}
    true = estimated_values(results, TRUTH)
    for row, tasks in results["samples"].items():
        for task, records in tasks.items():
            found = list(records.values())
            estimated = estimated_values(results, f"{row}/{task}")
            rows[f"{row}/{task}"] = {
                "failed": sum("failed" in each for each in found),
                **{name: _over(each.get(name) for each in found) for name, _, _ in AGAINST_TRUTH},
                **{name: _curve(each.get(name) for each in found) for name, _ in CLIP_AFTER_CLIP},
                "estimates": _estimated(estimated),
                "true_clips": _estimated(_where_known(true, estimated)),
                "exploration_curve": _exploration_curve(results, f"{row}/{task}"),
                "frechet": _frechet(results, f"{row}/{task}"),
            }
            for kind in ("", "decoy_", "repeated_"):
                curve = _curve(each.get(f"{kind}frame_psnr") for each in found)
                if curve:
                    curves[f"{row}/{task}" + (f", {kind[:-1]}" if kind else "")] = curve
    return {
        "clips": len(results["clips"]),
        "failed": len(results["failed"]),
        "sampling_failed": sum(row["failed"] for row in rows.values()),
        "reconstruction": {
            name: _over(each.get(name) for each in results["reconstruction"].values())
            for name in ("psnr_db", "ssim", "gradient_energy")
        },
        "true_clips": _estimated(true),
        "exploration_curve": _exploration_curve(results, TRUTH),
        "rows": rows,
        "frame_psnr_db": curves,
    }


Values = Mapping[str, Sequence[float | None]]


def estimated_values(results: Mapping[str, Any], name: str) -> Values:
    """What estimators say, by measure a value for each clip, its mean over seeds; None where there is none.

    Args:
        results: of ``evaluate checkpoint``.
        name: ``ROW/TASK`` of samples, or ``truth``.
    """
    seeds = [found["clips"] for found in _of_seeds(results, name)]
    return {
        measure: [
            mean_of([_value(seed[clip], measure) for seed in seeds if clip in seed])
            for clip in results["clips"]
        ]
        for measure, _, _ in ESTIMATED
        if seeds
    }


def _of_seeds(results: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """The results of ``evaluate videos`` of this name: of samples, one for each seed."""
    estimates = results.get("estimates", {})
    return [found for each, found in estimates.items() if each == name or each.startswith(f"{name}/seed_")]


def _where_known(values: Values, others: Values) -> Values:
    """``values`` of those clips that ``others`` have a value of, too: means of other clips do not compare."""
    return {
        measure: [None if other is None else value for value, other in zip(row, others[measure], strict=True)]
        for measure, row in values.items()
        if measure in others
    }


def _estimated(values: Values) -> dict[str, Any]:
    merged = {measure: (_share if measure == "registered" else _over)(row) for measure, row in values.items()}
    return {measure: found for measure, found in merged.items() if found is not None}


def _exploration_curve(results: Mapping[str, Any], name: str) -> list[float]:
    clips = [seed["clips"].get(clip, {}) for seed in _of_seeds(results, name) for clip in results["clips"]]
    explored = [clip["exploration"]["clip_to_first"] for clip in clips if "exploration" in clip]
    return _curve(explored)


def _frechet(results: Mapping[str, Any], name: str) -> list[float]:
    """Distances of video features to the true clips, one a seed, where they were asked for."""
    found = [result.get("frechet") or {} for result in _of_seeds(results, name)]
    return [each["distance"] for each in found if "distance" in each]


def _value(row: Mapping[str, Any], measure: str) -> float | None:
    if measure == "registered":
        return float(row.get("registered", False))
    if measure == "rot_err_deg" and row.get("degenerate"):
        return None
    return row.get(measure)


def _over(values: Iterable[float | None]) -> dict[str, Any] | None:
    found = interval(np.array(list(values), np.float64))
    return None if found is None else asdict(found)


def _share(values: Iterable[float | None]) -> dict[str, Any] | None:
    """Of yes and no; of several seeds, of which a clip may have some registered, a mean."""
    known = np.array(list(values), np.float64)
    if not np.isin(known[~np.isnan(known)], (0.0, 1.0)).all():
        return _over(known)
    found = share_interval(known)
    return None if found is None else asdict(found)


def _curve(curves: Iterable[Sequence[float | None] | None]) -> list[float]:
    """The mean of those that are whole."""
    known = [curve for curve in curves if curve and None not in curve]
    return np.mean(known, axis=0).tolist() if known else []


# ------------------------------------------------------------------------------------------------------- page


def page(results: Mapping[str, Any]) -> str:
    """One page of Markdown."""
    found, clip, versions = results["summary"], results["clip"], results["versions"]
    long = results["exploration"]
    shape = f"{clip['frames']} frames of {clip['height']}x{clip['width']} at {clip['fps']:g} fps"
    if long["clips"] > 1:
        shape = (
            f"explorations of {long['clips']} clips, {long['frames']} frames in all, from clips of {shape}"
        )
    failed = "".join(f"; {count} {reason}" for reason, count in results["failed_by_reason"].items())
    lines = [
        f"{results['weights']['checkpoint']} on {found['clips']} clips ({shape}). Videos or clips that could "
        f"not be used: {found['failed']}{failed}. Samples of each clip: {results['request']['seeds']}; mean "
        f"and 95 % interval over clips. Device: {versions['device']}.",
        *student_lines(results),
    ]
    kept = found["reconstruction"]["psnr_db"]
    if kept is not None:
        lines += ["", f"The autoencoder alone keeps {_cell(kept)} dB: no sample can be expected above it."]
    for name, row in found["rows"].items():
        lines += ["", f"## {name}", ""]
        if row["failed"]:
            lines += [f"{row['failed']} clips could not be sampled.", ""]
        lines += _table(row, AGAINST_TRUTH, None)
        for name, title in CLIP_AFTER_CLIP:
            if row[name]:
                lines += ["", f"{title}: {', '.join(f'{value:.2f}' for value in row[name])}"]
        if row["estimates"]:
            lines += ["", *_table(row["estimates"], ESTIMATED, row["true_clips"]), ""]
            curves = {"samples": row["exploration_curve"], "true clips": found["exploration_curve"]}
            for title, curve in curves.items():
                if curve:
                    levels = ", ".join(f"{value:.3f}" for value in curve)
                    lines += [f"Appearance clip after clip, cosine with the first, {title}: {levels}", ""]
            if row["frechet"]:
                levels = ", ".join(f"{value:.4g}" for value in row["frechet"])
                lines += [
                    f"Frechet distance to the true clips, one a seed: {levels} (the floor: see there)",
                    "",
                ]
            lines += [f"Every measure, and clips measured in part: {MEASURES}/{name}/seed_*/results.md"]
    if results["failed"]:
        lines += ["", "## Not used", ""]
        lines += [f"* {name}: {message}" for name, message in results["failed"].items()]
    lost = {
        f"{row}/{task}/{clip}": record["failed"]
        for row, tasks in results["samples"].items()
        for task, records in tasks.items()
        for clip, record in records.items()
        if "failed" in record
    }
    if lost:
        lines += ["", "## Not sampled", "", *(f"* {name}: {why}" for name, why in lost.items())]
    if results["remarks"]:
        lines += ["", "## Remarks", "", *(f"* {remark}" for remark in results["remarks"])]
    return "\n".join(lines)


def _table(
    row: Mapping[str, Any], measures: Sequence[tuple[str, str, str]], truth: Mapping[str, Any] | None
) -> list[str]:
    beside = truth is not None
    lines = ["| measure | samples | without |" + (" the same true clips |" if beside else "") + " |"]
    lines.append("|---|---|---|---|" + ("---|" if beside else ""))
    for name, title, meaning in measures:
        if row.get(name) is not None:
            cells = [title, _cell(row[name]), str(row[name]["failed"])]
            cells += [_cell(truth.get(name))] if beside else []
            lines.append(f"| {' | '.join([*cells, meaning])} |")
    return lines


def _cell(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    bounds = "" if found["low"] is None else f" ({found['low']:.4g} to {found['high']:.4g})"
    return f"{found['mean']:.4g}{bounds}"


def _figure(path: Path, curves: Mapping[str, Sequence[float]]) -> None:
    figure = require("matplotlib.figure", extra="eval").Figure(
        figsize=(7.5, 4.2), facecolor="white", layout="constrained"
    )
    axes = figure.add_subplot()
    for place, (name, curve) in enumerate(curves.items()):
        values = np.array(curve)
        frames = np.arange(1, len(values) + 1)
        chosen = values < 99.0  # frames that are given are the truth
        beside = ", " in name
        axes.plot(
            frames[chosen],
            values[chosen],
            color=_COLOURS[place % len(_COLOURS)],
            lw=1.2 if beside else 1.8,
            ls="--" if beside else "-",
            label=name,
        )
    axes.set_xlabel("frame")
    axes.set_ylabel("PSNR against the true clip (dB)")
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    with replaced_file(path) as partial:
        figure.savefig(partial, dpi=120)
