"""Strips of two results side by side: what the true render shows, and what each of two models made of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from camctrl_jax.errors import InvalidValue, UserError, file_failures
from camctrl_jax.evaluate.worlds.comparing import row_names, scene_key
from camctrl_jax.evaluate.worlds.store import FOLDER
from camctrl_jax.video.pictures import frame_strip, write_png

_TASKS = ("i2v", "t2v", "extension", "reconstruction")
_TRUE = {"worlds": "true render", "captions": "true render", "explorations": "truth"}
_LONGEST = 30  # letters of a line beside a strip


def write_strips(
    path: Path,
    folders: tuple[Path, Path],
    results: tuple[Mapping[str, Any], Mapping[str, Any]],
    kind: str,
    shown: int = 6,
    rows: tuple[str, str] | None = None,
) -> list[int]:
    """Draw the first scenes that both results have: the true render, the first result, the second one.

    The first ones, not the best: whoever looks at them sees no choice. Of ``evaluate worlds`` it is the first
    sample of image to video at the last row of the tables, as on best.png (else of another task, else the
    reconstruction).

    Args:
        path: the PNG.
        folders: of the results.
        results: what their ``results.json`` hold; of equal kind and equal clips.
        kind: of ``evaluate`` worlds, captions or explorations.
        shown: scenes, at most.
        rows: of captions and explorations, which row of each; None: the first that both have.

    Returns:
        Indices of the scenes.

    Raises:
        UserError: nothing in common, frames that are gone or of other sizes.
    """
    scenes = [{scene_key(one): one for one in result["per_scene"]} for result in results]
    common = [key for key in scenes[0] if key in scenes[1]][:shown]
    if not common:
        raise InvalidValue(f"{folders[0]} and {folders[1]} have no scene in common.")
    names = _names(folders, results, kind, rows, common[0][0])
    pictures, labels = [], []
    for key in common:
        index = key[0]
        true = _frames(folders[0], kind, _TRUE[kind], index)
        made = [_frames(folder, kind, name, index) for folder, name in zip(folders, names, strict=True)]
        if not true.shape == made[0].shape == made[1].shape:
            raise InvalidValue(
                f"scene {index} has frames {list(made[0].shape)} in {folders[0]} and {list(made[1].shape)} "
                f"in {folders[1]}: they were written by other versions. Evaluate one of them again."
            )
        pictures += [true, *made]
        labels += [_wrapped(_about(scenes[0][key])), *(
            _wrapped(f"{folder.name}: {name}") for folder, name in zip(folders, names, strict=True)
        )]  # fmt: skip
    columns = range(len(pictures[0]))
    write_png(path, frame_strip(pictures, columns, labels, None, group=3))
    return [key[0] for key in common]


def frames_kept(folder: Path, index: int) -> dict[str, np.ndarray]:
    """Frames u8 [columns, H, W, 3] of a scene of ``evaluate worlds`` that were kept for strips, by what they
    are of: ``true render``, ``reconstruction``, and the first sample of each task.

    Raises:
        UserError: they are gone, or damaged.
    """
    stored = _stored(_archive(folder, "worlds", "", index))
    return {name.removeprefix("strip/"): frames for name, frames in stored.items()}


def _names(
    folders: tuple[Path, Path],
    results: tuple[Mapping[str, Any], Mapping[str, Any]],
    kind: str,
    rows: tuple[str, str] | None,
    index: int,
) -> tuple[str, str]:
    """What to show of each result."""
    if kind == "worlds":
        known = [_stored(_archive(folder, kind, "", index)) for folder in folders]
        for task in _TASKS:
            if all(f"strip/{task}" in one for one in known):
                return task, task
        raise InvalidValue(f"{folders[0]} and {folders[1]} have no task in common to be shown.")
    if rows is not None:
        return rows
    known = [row_names(result) for result in results]
    common = [row for row in known[0] if row in known[1]]
    if not common:
        raise InvalidValue(f"no row in common: {known[0]} and {known[1]}. Choose one of each with --rows.")
    return common[0], common[0]


def _about(scene: Mapping[str, Any]) -> str:
    words = [scene.get(name) for name in ("path_class", "difficulty", "route", "layout", "caption")]
    return f"{scene['index']}: {' '.join(word for word in words if word).replace('_', ' ')}"


def _wrapped(text: str) -> str:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + len(word) >= _LONGEST:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def _archive(folder: Path, kind: str, row: str, index: int) -> Path:
    """The arrays of a scene, as the evaluations' stores keep them."""
    if kind != "worlds":
        folder /= (
            "truth" if row == _TRUE[kind] else row.replace(", ", "_").replace(" ", "_").replace("+", "_")
        )
    return folder / FOLDER / f"scene_{index:03d}.npz"


def _frames(folder: Path, kind: str, name: str, index: int) -> np.ndarray:
    path, key = _archive(folder, kind, name, index), f"strip/{name}" if kind == "worlds" else "strip"
    stored = _stored(path)
    if key not in stored:
        raise InvalidValue(f"{path} has no frames of {name}; it has {', '.join(sorted(stored)) or 'none'}.")
    return stored[key]


def _stored(path: Path) -> dict[str, np.ndarray]:
    try:
        with file_failures(path, "read"), np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files if name.startswith("strip")}
    except UserError:
        raise
    except Exception as error:  # NumPy and zipfile raise many kinds on damaged files
        raise InvalidValue(f"{path} is damaged ({error}). Delete it and evaluate again.") from error
