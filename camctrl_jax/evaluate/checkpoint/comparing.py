"""Two results of ``evaluate checkpoint`` on the same clips: which checkpoint does better."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from camctrl_jax.errors import InvalidValue
from camctrl_jax.evaluate.checkpoint.estimates import TRUTH
from camctrl_jax.evaluate.checkpoint.report import AGAINST_TRUTH, ESTIMATED, estimated_values
from camctrl_jax.evaluate.videos.comparing import (
    Pairs,
    compare_videos,
    difference,
    span,
    success,
)
from camctrl_jax.metrics.intervals import shares_apart

Results = Mapping[str, Any]


def compare_checkpoints(
    first: Results, second: Results, names: tuple[str, str], rows: tuple[str, str] | None = None
) -> dict[str, Any]:
    """Paired differences, second minus first, over the clips that both results have, JSON-able.

    The value of a clip is its mean over seeds.

    Args:
        first, second: what ``results.json`` holds.
        names: what to call them.
        rows: the row of each to compare, as ``steps32_camera2_text1``; None takes equal ones, or the only one
            of each.

    Raises:
        InvalidValue: they are of other clips or another protocol, or share no clip, row or task.
    """
    common = [clip for clip in first["clips"] if clip in second["clips"]]
    if not common:
        raise InvalidValue(f"{names[0]} and {names[1]} have no clip in common: clips are paired by name.")
    _check_alike(first, second, names, common)
    both = (first, second)
    units = {}
    for one, other in _row_pairs(both, rows):
        for task in [each for each in first["samples"][one] if each in second["samples"][other]]:
            values = [
                _values(result, f"{row}/{task}") for result, row in zip(both, (one, other), strict=True)
            ]
            pairs = {clip: (values[0][clip], values[1][clip]) for clip in common}
            found = {name: difference(pairs, name) for name, _, _ in (*AGAINST_TRUTH, *ESTIMATED)}
            found["registered"] = _of_shares(pairs, found["registered"])
            units[f"{one}/{task}" if one == other else f"{one}/{task} -> {other}/{task}"] = {
                "sampled": success(pairs, lambda row: "failed" not in row),
                "differences": {name: each for name, each in found.items() if each is not None},
            }
    if not units:
        raise InvalidValue(f"{names[0]} and {names[1]} have no task in common.")
    return {
        "kind": "checkpoint",
        "first": names[0],
        "second": names[1],
        "clips": len(common),
        "left_out": [len(result["clips"]) - len(common) for result in both],
        "units": units,
        "remarks": _remarks(first, second),
    }


def _check_alike(first: Results, second: Results, names: tuple[str, str], common: list[str]) -> None:
    apart = [
        f"{name}: {first[name]} and {second[name]}"
        for name in ("clip", "exploration")
        if first[name] != second[name]
    ]
    apart += [
        f"clip {clip} has another picture, path or caption"
        for clip in common
        if first["clips"][clip]["digest"] != second["clips"][clip]["digest"]
    ][:1]
    if apart:
        raise InvalidValue(
            f"{names[0]} and {names[1]} are not of the same clips: {'; '.join(apart)}. Run both with the "
            "same options."
        )
    truths = [result.get("estimates", {}).get(TRUTH) for result in (first, second)]
    if None not in truths:
        compare_videos(*truths, names)  # refuses other estimators and settings


def _row_pairs(results: tuple[Results, Results], rows: tuple[str, str] | None) -> list[tuple[str, str]]:
    known = [list(result["samples"]) for result in results]
    if rows is not None:
        for row, there in zip(rows, known, strict=True):
            if row not in there:
                raise InvalidValue(f"--rows: {row!r} is not among {there}.")
        return [rows]
    if common := [row for row in known[0] if row in known[1]]:
        return [(row, row) for row in common]
    if len(known[0]) == len(known[1]) == 1:
        return [(known[0][0], known[1][0])]
    raise InvalidValue(f"no row in common: {known[0]} and {known[1]}. Choose one of each with --rows.")


def _values(results: Results, name: str) -> dict[str, dict[str, Any]]:
    """By clip, every measure of this page; "failed" where it was not sampled."""
    row, task = name.split("/")
    estimated = estimated_values(results, name)
    found = {}
    for place, (clip, record) in enumerate(results["samples"][row][task].items()):
        values = {measure: record.get(measure) for measure, _, _ in AGAINST_TRUTH}
        values |= {measure: each[place] for measure, each in estimated.items()}
        found[clip] = values | ({"failed": record["failed"]} if "failed" in record else {})
    return found


def _of_shares(pairs: Pairs, found: dict[str, Any] | None) -> dict[str, Any] | None:
    """With the interval of a difference of shares where each clip registers or does not: one seed of each."""
    known = [
        (one["registered"], other["registered"])
        for one, other in pairs.values()
        if None not in (one.get("registered"), other.get("registered"))
    ]
    if found is None or any(value not in (0.0, 1.0) for pair in known for value in pair):
        return found
    low, high = shares_apart(known.count((1.0, 0.0)), known.count((0.0, 1.0)), len(known))
    return found | {"low": low, "high": high}


def _remarks(first: Results, second: Results) -> list[str]:
    found = []
    if ("estimates" in first) != ("estimates" in second):
        found.append("only one of them has estimates: they are left out.")
    seeds = [result["request"]["seeds"] for result in (first, second)]
    if seeds[0] != seeds[1]:
        found.append(f"seeds of each clip: {seeds[0]} and {seeds[1]}.")
    if first["weights"]["fingerprints"][0] != second["weights"]["fingerprints"][0]:
        found.append("the autoencoders differ: what each keeps of the clips bounds its PSNR.")
    return found


def checkpoints_comparison_markdown(comparison: Mapping[str, Any]) -> str:
    """The comparison as a page."""
    first, second = comparison["first"], comparison["second"]
    lines = [
        f"{comparison['clips']} clips that both have; left out: {comparison['left_out'][0]} of the first, "
        f"{comparison['left_out'][1]} of the second. Mean difference with its 95 % interval over clips; the "
        "value of a clip is its mean over seeds.",
    ]
    for name, unit in comparison["units"].items():
        sampled = unit["sampled"]
        lines += ["", f"## {name}", ""]
        if sampled["both"] < comparison["clips"]:
            only = f"{sampled['only_first']} in the first alone, {sampled['only_second']} in the second alone"
            lines += [f"Sampled in both: {sampled['both']}; {only}; in neither: {sampled['neither']}.", ""]
        lines += [
            f"| measure | {first} | {second} | second minus first | clips | only first | only second |",
            "|---|---|---|---|---|---|---|",
        ]
        for measure, title, _ in (*AGAINST_TRUTH, *ESTIMATED):
            if (found := unit["differences"].get(measure)) is not None:
                cells = [title, f"{found['first']:.4g}", f"{found['second']:.4g}", span(found)]
                cells += [str(found[key]) for key in ("clips", "only_first", "only_second")]
                lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "\\* the interval leaves 0 out."]
    return "\n".join([*lines, *(f"\n{remark[0].upper()}{remark[1:]}" for remark in comparison["remarks"])])
