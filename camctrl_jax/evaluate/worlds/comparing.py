"""``evaluate compare``: two results on the same scenes, difference by difference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from camctrl_jax.errors import InvalidValue
from camctrl_jax.evaluate.worlds.summary import LOOKED, POSE_ERRORS, YES_OR_NO
from camctrl_jax.metrics.intervals import paired, ratio_of_means, shares_apart

RATIOS = ("motion_px",)
"""Measures that are also compared as ratios of means: a share of another model's is what is wanted."""

_OF_TRUTH = ("seam_over_inside", "return_difference")
"""What explorations measure of true renders without an estimator."""


def compare_worlds(
    first: Mapping[str, Any],
    second: Mapping[str, Any],
    names: tuple[str, str],
    rows: tuple[str, str] | None = None,
) -> dict[str, Any]:
    """Paired differences, second minus first, over the scenes that both have.

    Args:
        first, second: what ``results.json`` of ``evaluate worlds`` holds.
        names: what to call them.
        rows: the row of each to compare, as its results name it; None takes equal ones, or the only one of
            each.

    Raises:
        UserError: no scene or no row in common, clips of another size, or another truth.
    """
    results = [first, second]
    if results[0]["clip"] != results[1]["clip"]:
        raise InvalidValue(
            f"{names[0]} has clips of {results[0]['clip']}, {names[1]} of {results[1]['clip']}: they are not "
            "the same clips."
        )
    _check_truth(names, results)
    apart = _looked_at_apart(results)
    scenes = [{scene_key(scene): scene["values"] for scene in result["per_scene"]} for result in results]
    common = [key for key in scenes[0] if key in scenes[1]]
    if not common:
        raise InvalidValue(f"{names[0]} and {names[1]} have no scene in common.")
    _check_takes(names, scenes, common)
    differences = {}
    for label, pair in _columns(results, rows).items():
        if pair[0].rpartition("/")[2] in apart:
            continue
        columns = [
            np.array([_number(values[key].get(column)) for key in common])
            for values, column in zip(scenes, pair, strict=True)
        ]
        difference = paired(*columns)
        if difference is not None:
            known = np.isfinite(columns[0]) & np.isfinite(columns[1])
            differences[label] = asdict(difference) | {
                "first": float(columns[0][known].mean()),
                "second": float(columns[1][known].mean()),
            }
            if pair[0].rpartition("/")[2] in RATIOS:
                ratio = ratio_of_means(*columns)
                differences[label]["ratio"] = None if ratio is None else asdict(ratio)
            if pair[0].rpartition("/")[2] in YES_OR_NO:  # scenes that agree do not prove that all would
                one, other = (column[known] > 0.0 for column in columns)
                low, high = shares_apart(int((one & ~other).sum()), int((other & ~one).sum()), len(one))
                differences[label] |= {"low": low, "high": high}
    return {
        "first": names[0],
        "second": names[1],
        "scenes": len(common),
        "left_out": [len(scene) - len(common) for scene in scenes],
        "looked_at_apart": bool(apart),
        "differences": differences,
    }


def _check_truth(names: Sequence[str], results: Sequence[Mapping[str, Any]]) -> None:
    """Refuse results whose scenes, called alike, were rendered or measured otherwise."""
    for what, values in (
        ("format of results", [result.get("format") for result in results]),
        ("rays per pixel and axis", [result.get("request", {}).get("samples") for result in results]),
        # Of captions: another detector.
        ("calibration worlds", [result.get("request", {}).get("calibration") for result in results]),
    ):
        if values[0] != values[1]:
            raise InvalidValue(
                f"{what}: {values[0]} in {names[0]}, {values[1]} in {names[1]}. They were not measured "
                "in one way, and do not compare: evaluate one of them again."
            )


def _check_takes(names: Sequence[str], scenes: Sequence[Mapping[Any, Any]], common: Sequence[Any]) -> None:
    """Refuse explorations whose takes are called alike, and are not: what is measured of the true render
    alone must agree, but for what devices round."""
    for key in common:
        for name in _OF_TRUTH:
            values = [found[key].get(f"baseline/truth/{name}") for found in scenes]
            if None not in values and not math.isclose(*values, rel_tol=0.05, abs_tol=0.05):
                raise InvalidValue(
                    f"world {key[0]}, seed {key[1]}: {name} of the true render is {values[0]:.3f} in "
                    f"{names[0]}, {values[1]:.3f} in {names[1]}. These are not the same takes: evaluate one "
                    "of them again with this version."
                )


def _looked_at_apart(results: Sequence[Mapping[str, Any]]) -> set[str]:
    """What estimators saw, where both results have it and other estimators saw it: it does not compare."""
    apart: set[str] = set()
    for kind, measures in (("motion", LOOKED), ("poses", (*POSE_ERRORS, *YES_OR_NO))):
        keys = [(result.get("estimates") or {}).get(kind) for result in results]
        if keys[0] != keys[1] and None not in keys:
            apart |= set(measures)
    return apart


def worlds_comparison_markdown(comparison: Mapping[str, Any]) -> str:
    """The comparison as a table."""
    ratios: list[str] = []
    lines = [
        f"{comparison['scenes']} scenes that both have; left out: {comparison['left_out'][0]} of the first, "
        f"{comparison['left_out'][1]} of the second. Mean difference with its 95 % interval over scenes.",
        "",
        f"| measure | {comparison['first']} | {comparison['second']} | second minus first | scenes |",
        "|---|---|---|---|---|",
    ]
    for name, found in comparison["differences"].items():
        low, high = found["low"], found["high"]
        span = "" if low is None else f" ({low:+.3g} to {high:+.3g})"
        sure = " *" if low is not None and low * high > 0 else ""
        cells = [name, f"{found['first']:.4g}", f"{found['second']:.4g}", f"{found['mean']:+.3g}{span}{sure}"]
        lines.append(f"| {' | '.join(cells)} | {found['clips']} |")
    for name, found in comparison["differences"].items():
        if ratio := found.get("ratio"):
            low, high = ratio["low"], ratio["high"]
            span = "" if low is None else f" ({low:.3f} to {high:.3f})"
            ratios.append(f"{name}: second / first {ratio['mean']:.3f}{span}")
    count = len(comparison["differences"])
    remark = (
        f"\\* the interval leaves 0 out. Of {count} measures about {0.05 * count:.1f} do so by chance where "
        "nothing differs: decide beforehand which one counts."
    )
    if comparison["looked_at_apart"]:
        remark += " Estimates that were made by other means (masks, settings, versions) are left out."
    lines += ["", remark]
    if ratios:
        lines += [
            "",
            "Ratios of means, with their intervals over scenes:",
            "",
            *(f"* {one}" for one in ratios),
        ]
    return "\n".join(lines)


def scene_key(scene: Mapping[str, Any]) -> tuple[Any, ...]:
    """What makes a scene of ``per_scene`` the same as another: its number and seed, and of takes and captions
    what else they depend on."""
    return scene["index"], scene["seed"], *(scene.get(name) for name in ("route", "layout", "caption"))


def _number(value: float | None) -> float:
    return np.nan if value is None else float(value)


def row_names(result: Mapping[str, Any]) -> list[str]:
    """The rows of a result's tables, in their order."""
    names = dict.fromkeys(name.split("/")[0] for scene in result["per_scene"] for name in scene["values"])
    return [name for name in names if name != "baseline"]


def _columns(results: list[Mapping[str, Any]], rows: tuple[str, str] | None) -> dict[str, tuple[str, str]]:
    """What to call each difference, and the column of each result that it is of."""
    known = [row_names(result) for result in results]
    if rows is not None:
        for row, names in zip(rows, known, strict=True):
            if row not in names:
                raise InvalidValue(f"row {row!r} is not among {names}.")
        pairs = {rows[0] if rows[0] == rows[1] else f"{rows[0]} -> {rows[1]}": rows}
    elif common := [row for row in known[0] if row in known[1]]:
        pairs = {row: (row, row) for row in common}
    elif len(known[0]) == len(known[1]) == 1:
        pairs = {f"{known[0][0]} -> {known[1][0]}": (known[0][0], known[1][0])}
    else:
        raise InvalidValue(f"no row in common: {known[0]} and {known[1]}. Choose one of each with --rows.")
    names = [{name for scene in result["per_scene"] for name in scene["values"]} for result in results]
    columns = {name: (name, name) for name in sorted(names[0] & names[1]) if name.startswith("baseline/rec")}
    for label, (one, other) in pairs.items():
        endings = {name.removeprefix(f"{one}/") for name in names[0] if name.startswith(f"{one}/")}
        endings &= {name.removeprefix(f"{other}/") for name in names[1] if name.startswith(f"{other}/")}
        columns |= {f"{label}/{end}": (f"{one}/{end}", f"{other}/{end}") for end in sorted(endings)}
    return columns
