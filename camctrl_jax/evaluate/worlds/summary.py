"""From records of scenes to tables: means with 95 % intervals, by class and difficulty, and distances."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from camctrl_jax.metrics.distribution import Spread
from camctrl_jax.metrics.frechet import FeatureStatistics, frechet_distance
from camctrl_jax.metrics.intervals import interval, share_interval, t_reach

Record = Mapping[str, Any]

LEAST_CLIPS = 128
"""Fewer clips than twice the features leave a Frechet distance to chance: it is not given."""

NEW_FRAMES = "new frames"
"""Before the names of true clips without the frames that an extension is given: what it is compared with."""

OUTCOMES = ("psnr", "ssim", "alpha", "alpha_off", "alpha_bound", "sharpness", "sharpness_kept", "alive")
LOOKED = ("motion_px", "moving_share", "motion_px_exact_masks", "appearance", "appearance_to_first")
POSE_ERRORS = (
    "trans_err",
    "trans_err_share",
    "trans_err_aligned_share",
    "rot_err_deg",
    "rot_err_aligned_deg",
    "rot_err_first_deg",
)

RANGES = {
    **dict.fromkeys(("psnr", "psnr_all_frames"), (0.0, 100.0)),
    **dict.fromkeys(("moving_share", "alpha_bound", "appearance", "appearance_to_first"), (0.0, 1.0)),
    **dict.fromkeys(("alpha", "alpha_off", "sharpness", "sharpness_kept", "alive"), (0.0, math.inf)),
    **dict.fromkeys(("motion_px", "motion_px_exact_masks", *POSE_ERRORS), (0.0, math.inf)),
    "ssim": (-1.0, 1.0),
}
"""Least and largest values of measures: of few scenes Student's t goes beyond them. (Histograms have no
negative cosines.)"""

YES_OR_NO = ("registered", "registered_strictly")

EXACT_MASKS = "truth, exact masks"
"""The true render, with true instead of estimated masks for structure from motion."""

WRONG_SHARE = 0.1
"""Of the path: a registered camera path that is farther off, aligned by rotations, is wrong."""


def scene_values(record: Record) -> dict[str, float | None]:
    """Every number of a scene by name: ``baseline/NAME/MEASURE`` and ``ROW/TASK/MEASURE``.

    Of one scene, ``gain_decoy`` and its like are differences in dB, ``spread_over_skill`` and
    ``variance_REGION`` (squared grey levels) are of its samples.
    """
    values: dict[str, float | None] = {}
    for name, measures in record["baselines"].items():
        values |= {f"baseline/{name}/{m}": measures.get(m) for m in (*OUTCOMES, "psnr_all_frames")}
    for row, tasks in record["rows"].items():
        for task, found in tasks.items():
            of = f"{row}/{task}/"
            values |= {of + name: found["mean"][name] for name in OUTCOMES}
            values |= {f"{of}gain_{name}": gain for name, gain in found.get("gain", {}).items()}
            values |= {f"{of}psnr_{name}": level for name, level in found.get("baseline_psnr", {}).items()}
            if "decoy" in found:
                values[f"{of}decoy_alpha"] = found["decoy"]["alpha"]
            distribution = found["distribution"]
            if distribution is not None:
                values[f"{of}energy"] = distribution["energy"]
                for region, sums in distribution["spread"].items():
                    spread = Spread(**sums)
                    ending = "" if region == "all" else f"_{region}"
                    values[f"{of}spread_over_skill{ending}"] = spread.spread_over_skill
                    values[f"{of}variance{ending}"] = spread.per_value
    return values | _looked_values(record)


def _looked_values(record: Record) -> dict[str, float | None]:
    """What estimators saw of a scene, by the same names."""
    values: dict[str, float | None] = {}
    for name, found in record.get("motion", {}).get("clips", {}).items():
        of = f"{name}/" if name.count("/") else f"baseline/{name}/"
        values |= {of + measure: found.get(measure) for measure in LOOKED}
    for name, found in record.get("poses", {}).get("clips", {}).items():
        of = f"{name}/" if name.count("/") else f"baseline/{name}/"
        values |= {of + measure: found.get(measure) for measure in POSE_ERRORS}
        values[f"{of}registered"] = float(found["registered"] == 1.0)
        values[f"{of}registered_strictly"] = float(_strictly(found))
    return values


def _strictly(found: Record) -> bool:
    return found["registered"] == 1.0 and not found["doubts"]


def summarised(records: Sequence[Record], arrays: Sequence[Mapping[str, np.ndarray]]) -> dict[str, Any]:
    """All tables of ``results.json``.

    Args:
        records: of the scenes, in order.
        arrays: what is stored beside each.
    """
    per_scene = [
        {name: record[name] for name in ("index", "seed", "path_class", "difficulty")}
        | {"values": scene_values(record)}
        for record in records
    ]
    found: dict[str, Any] = {
        "seeds": [record["seed"] for record in records],
        "scenes": {
            "count": len(records),
            "classes": _counts(record["path_class"] for record in records),
            "difficulties": _counts(record["difficulty"] for record in records),
            "shares": {
                name: float(np.mean([record["shares"][name] for record in records]))
                for name in records[0]["shares"]
            },
        },
        "measures": {name: measure_of(name, _column(per_scene, name)) for name in _names(per_scene)},
        "by_class": _grouped(per_scene, "path_class"),
        "by_difficulty": _grouped(per_scene, "difficulty"),
        "spread_over_skill": _pooled_spreads(records),
        "won": _won(per_scene),
        "frechet": distances(arrays),
        "frame_psnr": _frame_psnr(records),
        "failed": _failed(records),
        "motion": motion_table(records),
        "poses": pose_table(records),
        "per_scene": per_scene,
    }
    return found | _for_cards(records)


def _counts(words: Any) -> dict[str, int]:
    found: dict[str, int] = {}
    for word in words:
        found[word] = found.get(word, 0) + 1
    return found


def _names(per_scene: Sequence[Record]) -> list[str]:
    return list(dict.fromkeys(name for scene in per_scene for name in scene["values"]))


def _column(per_scene: Sequence[Record], name: str) -> np.ndarray:
    """f64 [N], NaN where a scene has no such value."""
    values = [scene["values"].get(name) for scene in per_scene]
    return np.array([math.nan if value is None else value for value in values], np.float64)


def measure_of(name: str, values: Sequence[float | None] | np.ndarray) -> dict[str, Any] | None:
    """Mean and interval of one value a scene, as plain values; None where no scene has one.

    Of a yes or no it is Wilson's interval, since Student's t says of 29 of 29 that all will; elsewhere it
    ends where the measure of this name ends.
    """
    values = np.array([math.nan if value is None else value for value in values], np.float64)
    measure = name.rpartition("/")[2]
    if measure in YES_OR_NO:
        found = share_interval(values)
    else:
        found = interval(values, within=RANGES.get(measure, (-math.inf, math.inf)))
    return None if found is None else asdict(found)


def _grouped(per_scene: Sequence[Record], key: str) -> dict[str, Any]:
    """Tables of what the pages show, for each path class or difficulty."""
    wanted = [
        name
        for name in _names(per_scene)
        if name.endswith(("/psnr", "/alpha", "/gain_decoy", "/gain_repeated", "/gain_warp", "/energy"))
    ]
    groups: dict[str, Any] = {}
    for group in dict.fromkeys(scene[key] for scene in per_scene):
        members = [scene for scene in per_scene if scene[key] == group]
        groups[group or "standing"] = {name: measure_of(name, _column(members, name)) for name in wanted}
    return groups


def _won(per_scene: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """Share of scenes with a positive gain, and its interval."""
    shares = {}
    for name in _names(per_scene):
        if "/gain_" in name:
            column = _column(per_scene, name)
            found = share_interval(np.where(np.isnan(column), math.nan, column > 0))
            if found is not None:
                shares[name] = asdict(found)
    return shares


def _failed(records: Sequence[Record]) -> dict[str, dict[str, int]]:
    """``ROW/TASK``, or ``reconstruction``: how many clips failed, by reason; what has none is left out."""
    found: dict[str, int] = {
        "reconstruction": sum(record["baselines"]["reconstruction"]["not_finite"] for record in records)
    }
    for record in records:
        for row, tasks in record["rows"].items():
            for task, measures in tasks.items():
                name = f"{row}/{task}"
                found[name] = found.get(name, 0) + measures["not_finite"]
    return {name: {"not_finite": count} for name, count in found.items() if count}


def _pooled_spreads(records: Sequence[Record]) -> dict[str, Any]:
    """``ROW/TASK/REGION``: spread over skill of all scenes together, and its interval over scenes."""
    sums: dict[str, list[Spread]] = {}
    for record in records:
        for row, tasks in record["rows"].items():
            for task, found in tasks.items():
                for region, values in (found["distribution"] or {}).get("spread", {}).items():
                    sums.setdefault(f"{row}/{task}/{region}", []).append(Spread(**values))
    pooled = {}
    for name, parts in sums.items():
        whole = parts[0]
        for part in parts[1:]:
            whole = whole + part
        low, high = _ratio_interval(
            np.array([part.variance for part in parts]), np.array([part.error for part in parts])
        )
        factor = math.sqrt(1.0 + 1.0 / whole.samples)
        pooled[name] = {
            "value": whole.spread_over_skill,
            "low": None if low is None else factor * low,
            "high": None if high is None else factor * high,
            "variance": whole.per_value,
            "error": whole.error / whole.values if whole.values else None,
        }
    return pooled


def _ratio_interval(over: np.ndarray, under: np.ndarray) -> tuple[float | None, float | None]:
    """Of the square root of summed ``over`` by summed ``under``, over scenes: Student's t of the ratio's
    linear part."""
    if len(over) < 2 or not under.sum() > 0.0:
        return None, None
    ratio = over.sum() / under.sum()
    reach = t_reach((over - ratio * under) / under.mean())
    return math.sqrt(max(ratio - reach, 0.0)), math.sqrt(ratio + reach)


def distances(arrays: Sequence[Mapping[str, np.ndarray]]) -> dict[str, Any] | None:
    """Frechet distances of every set of clips to real ones.

    Returns:
        None without features. ``floor``: the true renders of the scenes against those of their twins, which
        are as real; ``twins``: of every set against the twins, to be read beside the floor;
        ``same_scenes``: against the true renders of the very same scenes, which is smaller and 0 for them.
        ``left_out``: clips of a set that were not finite. ``reason`` where there are too few clips.
    """
    names = [name for name in arrays[0] if name.startswith("features/")]
    if not names:
        return None
    if len(arrays) < LEAST_CLIPS:
        return {"clips": len(arrays), "reason": f"needs {LEAST_CLIPS} clips or more"}
    sets, left_out = {}, {}
    for name in names:
        values = np.stack([one[name] for one in arrays])
        sound = np.isfinite(values).all(axis=1)  # clips that were not finite have NaN
        name = name.removeprefix("features/")
        if not sound.all():
            left_out[name] = int((~sound).sum())
        if sound.sum() >= LEAST_CLIPS:
            sets[name] = FeatureStatistics.of(values[sound])
    found: dict[str, Any] = {"clips": len(arrays), "left_out": left_out}
    found["same_scenes"] = _against(sets, "truth")
    if "another world" in sets:
        found["twins"] = _against(sets, "another world")
        found["floor"] = found["twins"]["truth"]
    return found


def _against(sets: Mapping[str, FeatureStatistics], reference: str) -> dict[str, float]:
    """Each distance; of several samples of one task, their mean: sets of equally many clips compare."""
    groups: dict[str, list[float]] = {}
    for name, statistics in sets.items():
        head, _, tail = name.rpartition("/")
        new = name.startswith(f"{NEW_FRAMES}/") or head.endswith("/extension")
        against = f"{NEW_FRAMES}/{reference}" if new else reference
        if name != against:
            distance = frechet_distance(statistics, sets[against])
            groups.setdefault(head if tail.isdigit() else name, []).append(distance)
    return {name: float(np.mean(values)) for name, values in groups.items()}


def _frame_psnr(records: Sequence[Record]) -> dict[str, list[float]]:
    """Mean over scenes of the PSNR of every frame, by what it is of."""
    columns: dict[str, list[list[float]]] = {}
    for record in records:
        for name, measures in record["baselines"].items():
            if "frame_psnr" in measures:
                columns.setdefault(name, []).append(measures["frame_psnr"])
        for row, tasks in record["rows"].items():
            for task, found in tasks.items():
                if "frame_psnr" in found:
                    columns.setdefault(f"{row}/{task}", []).append(found["frame_psnr"])
    return {name: np.mean(rows, axis=0).tolist() for name, rows in columns.items()}


def motion_table(records: Sequence[Record]) -> dict[str, Any] | None:
    """By clips: motion strength and appearance, means with intervals; None where no scene was looked at.

    ``exact``: flow and masks of the renderer, what the true renders would read with perfect estimates.
    """
    records = [record["motion"] for record in records if "motion" in record]
    if not records:
        return None
    clips: dict[str, Any] = {}
    for name in _clip_names(records):
        rows = [record["clips"][name] for record in records if name in record["clips"]]
        clips[name] = {"clips": len(rows), "failed": _counts(r["failed"] for r in rows if "failed" in r)}
        clips[name] |= {key: measure_of(key, [row.get(key) for row in rows]) for key in LOOKED}
    exact = {
        key: measure_of(key, [record["exact"][key] for record in records])
        for key in ("motion_px", "moving_share")
    }
    return {"scenes": len(records), "exact": exact, "clips": clips}


def pose_table(records: Sequence[Record]) -> dict[str, Any] | None:
    """By clips: shares that got cameras for all frames, why others did not, and errors of those that did.

    ``scenes`` were looked at, and in ``stay`` of them the camera has no path to be found: no row has these.
    Errors are quantiles over the clips that got all cameras: a mean would be that of the worst of them.
    """
    records = [record["poses"] for record in records if "poses" in record]
    if not records:
        return None
    table = {}
    for name in _clip_names(records):
        rows = [record["clips"][name] for record in records if name in record["clips"]]
        sound = np.array([row["registered"] == 1.0 for row in rows])
        strict = np.array([_strictly(row) for row in rows])
        off = [row.get("trans_err_aligned_share") for row in rows]
        wrong = np.array([value is not None and value > WRONG_SHARE for value in off])
        table[name] = {
            "clips": len(rows),
            "all_registered": asdict(share_interval(sound)),
            "without_doubts": asdict(share_interval(strict)),
            "failed": _counts(row["reason"] for row in rows if "trans_err" not in row),
            "wrong": int(wrong.sum()),
            "wrong_without_doubts": int((wrong & strict).sum()),
            "degenerate": sum(bool(row.get("degenerate")) for row in rows),
        } | {key: _quantiles([row.get(key) for row in rows]) for key in POSE_ERRORS}
    stay = sum(not record["clips"] for record in records)
    return {"scenes": len(records), "stay": stay, "clips": table}


def _clip_names(records: Sequence[Record]) -> list[str]:
    return list(dict.fromkeys(name for record in records for name in record["clips"]))


def _quantiles(values: Sequence[float | None]) -> dict[str, float] | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    return {"median": float(np.median(known)), "ninetieth": float(np.quantile(known, 0.9))}


def _for_cards(records: Sequence[Record]) -> dict[str, Any]:
    """The part of the results that ``markdown_report`` of a weights card shows."""

    def mean(values: list[float]) -> float:
        return float(np.mean(values))

    def error(values: list[float]) -> float:
        return float(np.std(values, ddof=1) / math.sqrt(len(values)))

    # Clips that were not finite have no values; results["failed"] counts them.
    kept = [record["baselines"]["reconstruction"]["psnr_all_frames"] for record in records]
    kept = [value for value in kept if value is not None]
    if len(kept) < 2:
        return {}
    found: dict[str, Any] = {
        "reconstruction": {"psnr_db": mean(kept), "standard_error": error(kept), "per_world": kept}
    }
    camera = []
    for row in records[0]["rows"]:
        tasks = [record["rows"][row].get("i2v") for record in records]
        if any(task is None for task in tasks):
            continue
        tasks = [task for task in tasks if "decoy" in task.get("gain", {})]
        if len(tasks) < 2:
            continue
        steps, weight, text = (float(part.split()[-1]) if i else float(part.split()[0])
                               for i, part in enumerate(row.split(", ")[:3]))  # fmt: skip
        values = {
            "true_path": [task["per_sample"][0]["psnr"] for task in tasks],
            "decoy_path": [task["baseline_psnr"]["decoy"] for task in tasks],
            "first_frame_repeated": [task["baseline_psnr"]["repeated"] for task in tasks],
        }
        scores: dict[str, Any] = {"camera_guidance": weight, "text_guidance": text, "steps": int(steps)}
        scores["psnr_db"] = {name: mean(column) for name, column in values.items()}
        for name in ("decoy_path", "first_frame_repeated"):
            gain = [a - b for a, b in zip(values["true_path"], values[name], strict=True)]
            scores[f"against_{name}"] = {
                "gain_db": mean(gain),
                "standard_error": error(gain),
                "won": mean([value > 0 for value in gain]),
            }
        camera.append(scores | {"per_world": values})
    return found | ({"camera": camera} if camera else {})
