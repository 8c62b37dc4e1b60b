"""How near two models come to each other from the same noise: what a student kept of its teacher.

``evaluate worlds`` draws a scene's first sample from the same noise whatever the weights, and keeps some of
its frames, lossless, for strips. A student that follows its teacher's trajectories maps that noise to the
same video.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from camctrl_jax.clip_shape import ClipShape
from camctrl_jax.errors import InvalidValue
from camctrl_jax.evaluate.strips import frames_kept
from camctrl_jax.evaluate.worlds.comparing import row_names, scene_key
from camctrl_jax.evaluate.worlds.running import STRIP_COLUMNS
from camctrl_jax.evaluate.worlds.sampling import given_frames
from camctrl_jax.evaluate.worlds.settings import TASKS
from camctrl_jax.metrics.intervals import interval
from camctrl_jax.metrics.psnr import psnr
from camctrl_jax.video.pictures import shown_frames


def same_noise(
    folders: tuple[Path, Path],
    results: tuple[Mapping[str, Any], Mapping[str, Any]],
    rows: tuple[str, str] | None = None,
) -> dict[str, Any]:
    """PSNR between the first samples of two results, over the kept frames that neither was given.

    Args:
        folders: of two ``evaluate worlds`` of the same clips, with their ``clips/``.
        results: what their ``results.json`` hold.
        rows: the row of each that is meant; None takes the last of each, whose frames are kept.

    Returns:
        ``rows``; and ``tasks``, of those that both have: ``between``, and of ``first`` and ``second`` against
        the true render, each the mean in dB with its 95 % interval over scenes.

    Raises:
        UserError: no scene or task in common, frames that are gone, or a row whose frames are not kept.
    """
    kept_rows = tuple(row_names(result)[-1] for result in results)
    for folder, kept, asked in zip(folders, kept_rows, rows or kept_rows):
        if kept != asked:
            raise InvalidValue(
                f"{folder} keeps frames of its last row, {kept!r}, and not of {asked!r}: evaluate with that "
                "row last or alone, in another --out."
            )
    scenes = [{scene_key(one) for one in result["per_scene"]} for result in results]
    common = sorted(key[0] for key in scenes[0] & scenes[1])
    if not common:
        raise InvalidValue(f"{folders[0]} and {folders[1]} have no scene in common.")
    shape = ClipShape(*(results[0]["clip"][name] for name in ("frames", "height", "width")))
    columns = shown_frames(shape.frames, STRIP_COLUMNS)
    found: dict[str, dict[str, list[float]]] = {}
    for index in common:
        kept = [frames_kept(folder, index) for folder in folders]
        for task in TASKS:
            if not all(task in frames for frames in kept):
                continue
            new = columns >= given_frames(task, shape)
            first, second, truth = kept[0][task][new], kept[1][task][new], kept[0]["true render"][new]
            values = found.setdefault(task, {"between": [], "first": [], "second": []})
            for name, pair in (
                ("between", (first, second)),
                ("first", (first, truth)),
                ("second", (second, truth)),
            ):
                values[name].append(float(psnr(*pair)))
    if not found:
        raise InvalidValue(f"{folders[0]} and {folders[1]} have samples of no task in common.")
    tasks = {
        task: {name: asdict(interval(np.array(each))) for name, each in values.items()}
        for task, values in found.items()
    }
    return {"rows": kept_rows, "tasks": tasks}


def same_noise_markdown(found: Mapping[str, Any], names: tuple[str, str]) -> str:
    """The result as a table."""
    lines = [
        f"First samples from the same noise, {' and '.join(found['rows'])}; PSNR in dB of the frames that "
        "were kept for strips:",
        "",
        f"| task | between the two | {names[0]} to the true render | {names[1]} to the true render |",
        "|---|---|---|---|",
    ]
    for task, values in found["tasks"].items():
        cells = [_spoken(values[name]) for name in ("between", "first", "second")]
        lines.append(f"| {' | '.join([task, *cells])} |")
    return "\n".join(lines)


def _spoken(value: Mapping[str, Any]) -> str:
    span = "" if value["low"] is None else f" ({value['low']:.2f} to {value['high']:.2f})"
    return f"{value['mean']:.2f}{span}"
