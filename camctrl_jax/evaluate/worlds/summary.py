"""From records of scenes to tables: means with 95 % intervals, by class and difficulty, and distances."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from camctrl_jax.metrics.distribution import Spread
from camctrl_jax.metrics.frechet import FeatureStatistics, frechet_distance
from camctrl_jax.metrics.intervals import interval

Record = Mapping[str, Any]

LEAST_CLIPS = 128
"""Fewer clips than twice the features leave a Frechet distance to chance: it is not given."""

NEW_FRAMES = "new frames"
"""Before the names of true clips without the frames that an extension is given: what it is compared with."""

OUTCOMES = ("psnr", "ssim", "alpha", "sharpness", "sharpness_kept", "alive")
_DRAWS = 1000


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
    return values


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
        "measures": {name: _interval(_column(per_scene, name)) for name in _names(per_scene)},
        "by_class": _grouped(per_scene, "path_class"),
        "by_difficulty": _grouped(per_scene, "difficulty"),
        "spread_over_skill": _pooled_spreads(records),
        "won": _won(per_scene),
        "frechet": distances(arrays),
        "frame_psnr": _frame_psnr(records),
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


def interval_of(values: Sequence[float | None]) -> dict[str, Any] | None:
    """Mean and interval of one value a scene, as plain values; None where no scene has one."""
    return _interval(np.array([math.nan if value is None else value for value in values], np.float64))


def _interval(values: np.ndarray) -> dict[str, Any] | None:
    found = interval(values, draws=_DRAWS)
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
        groups[group or "standing"] = {name: _interval(_column(members, name)) for name in wanted}
    return groups


def _won(per_scene: Sequence[Record]) -> dict[str, float]:
    """Share of scenes with a positive gain."""
    shares = {}
    for name in _names(per_scene):
        if "/gain_" in name:
            column = _column(per_scene, name)
            known = column[np.isfinite(column)]
            if len(known):
                shares[name] = float(np.mean(known > 0))
    return shares


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
        table = np.array([(part.variance, part.error, part.values) for part in parts])
        picked = np.random.default_rng(0).integers(len(parts), size=(_DRAWS, len(parts)))
        drawn = table[picked].sum(axis=1)
        factor = 1.0 + 1.0 / whole.samples
        with np.errstate(divide="ignore", invalid="ignore"):
            low, high = np.nanpercentile(np.sqrt(factor * drawn[:, 0] / drawn[:, 1]), (2.5, 97.5))
        known = math.isfinite(low) and math.isfinite(high) and len(parts) > 1
        pooled[name] = {
            "value": whole.spread_over_skill,
            "low": float(low) if known else None,
            "high": float(high) if known else None,
            "variance": whole.per_value,
            "error": whole.error / whole.values if whole.values else None,
        }
    return pooled


def distances(arrays: Sequence[Mapping[str, np.ndarray]]) -> dict[str, Any] | None:
    """Frechet distances of every set of clips to real ones.

    Returns:
        None without features. ``floor``: the true renders of the scenes against those of their twins, which
        are as real; ``twins``: of every set against the twins, to be read beside the floor;
        ``same_scenes``: against the true renders of the very same scenes, which is smaller and 0 for them.
        ``reason`` where there are too few clips.
    """
    names = [name for name in arrays[0] if name.startswith("features/")]
    if not names:
        return None
    if len(arrays) < LEAST_CLIPS:
        return {"clips": len(arrays), "reason": f"needs {LEAST_CLIPS} clips or more"}
    sets = {
        name.removeprefix("features/"): FeatureStatistics.of(np.stack([one[name] for one in arrays]))
        for name in names
    }
    found: dict[str, Any] = {"clips": len(arrays), "same_scenes": _against(sets, "truth")}
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


def pose_table(records: Sequence[Record]) -> dict[str, Any] | None:
    """By clips: how many got cameras for all frames, why others did not, and errors of those that did."""
    records = [record for record in records if "poses" in record]
    if not records:
        return None
    table = {}
    for name in records[0]["poses"]:
        rows = [record["poses"][name] for record in records]
        errors = ("trans_err", "trans_err_share", "rot_err_deg", "rot_err_aligned_deg", "rot_err_first_deg")
        table[name] = {
            "clips": len(rows),
            "all_registered": sum(row["registered"] == 1.0 for row in rows),
            "without_doubts": sum(row["registered"] == 1.0 and not row["doubts"] for row in rows),
            "failed": _counts(row["reason"] for row in rows if "trans_err" not in row),
            "degenerate": sum(bool(row.get("degenerate")) for row in rows),
        } | {key: interval_of([row.get(key) for row in rows]) for key in errors}
    return table


def _for_cards(records: Sequence[Record]) -> dict[str, Any]:
    """The part of the results that ``markdown_report`` of a weights card shows."""

    def mean(values: list[float]) -> float:
        return float(np.mean(values))

    def error(values: list[float]) -> float:
        return float(np.std(values, ddof=1) / math.sqrt(len(values)))

    kept = [record["baselines"]["reconstruction"]["psnr_all_frames"] for record in records]
    found: dict[str, Any] = {
        "reconstruction": {"psnr_db": mean(kept), "standard_error": error(kept), "per_world": kept}
    }
    camera = []
    for row in records[0]["rows"]:
        tasks = [record["rows"][row].get("i2v") for record in records]
        if any(task is None for task in tasks):
            continue
        steps, weight, text = (float(part.split()[-1]) if i else float(part.split()[0])
                               for i, part in enumerate(row.split(", ")))  # fmt: skip
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
