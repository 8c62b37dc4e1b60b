"""Picture names: which pose belongs to which picture, and the order in which people count them."""

from __future__ import annotations

import dataclasses
import posixpath
import re
from collections.abc import Sequence

import numpy as np

from camctrl_jax.camera.formats.posefile import PoseFile, Source


def natural(name: str) -> tuple[list[list[tuple[int, int, str]]], str]:
    """A key to sort names by as people count them: frame_2 before frame_10, folders part by part."""
    parts = name.replace("\\", "/").split("/")
    pieces = [[piece for piece in re.split(r"([0-9]+)", part) if piece] for part in parts]
    numbered = [
        [
            (0, int(piece), "") if piece.isascii() and piece.isdigit() else (1, 0, piece.casefold())
            for piece in part
        ]
        for part in pieces
    ]
    return numbered, name


def by_name(pose_file: PoseFile, source: Source) -> PoseFile:
    """The poses of named pictures in the order of the names, with a note where the file has another.

    A file with times keeps the order of the times: a path is travelled in the order of capture. The note
    says then that the names would give another one.

    Raises:
        PoseFileError: when two poses name the same picture.
    """
    names = pose_file.names
    if not names:
        return pose_file
    _check_different(source, names, pose_file.locations)
    order = sorted(range(len(names)), key=lambda index: natural(names[index]))
    if order == list(range(len(names))):
        return pose_file
    cameras = pose_file.cameras
    if cameras.times is not None:
        return _noted(
            pose_file,
            "the poses come in the order of the capture times, which is not that of the picture names",
        )
    moved = int(np.sum(np.array(order) != np.arange(len(order))))
    first = next(index for index, place in enumerate(order) if index != place)
    sorted_file = dataclasses.replace(
        pose_file,
        cameras=cameras[order],
        locations=[pose_file.locations[index] for index in order],
        names=tuple(names[index] for index in order),
    )
    return _noted(
        sorted_file,
        f"the poses come in the order of the picture names, which is not that of the file: {moved} of "
        f"{len(order)} moved, the first is {names[order[first]]} where the file has {names[first]}",
    )


def missing_numbers(numbers: Sequence[int], what: str) -> tuple[str, ...]:
    """A note where increasing numbers of poses leave some out, which would go unseen; else none.

    Args:
        numbers: one for each pose.
        what: is numbered.
    """
    steps = np.diff(numbers)
    if not len(steps) or (steps == steps[0]).all():
        return ()
    usual = int(np.bincount(steps).argmax())
    absent = [
        number
        for before, step in zip(numbers, steps.tolist())
        for number in range(before + usual, before + step, usual)
    ]
    if not absent:
        return ()
    listed = ", ".join(map(str, absent[:5])) + (", ..." if len(absent) > 5 else "")
    return (
        f"{what} {listed} {'is' if len(absent) == 1 else 'are'} missing: the {len(numbers)} poses that are "
        "there were taken as if nothing was between them",
    )


def _check_different(source: Source, names: Sequence[str], locations: Sequence[str]) -> None:
    seen: dict[str, int] = {}
    for index, name in enumerate(names):
        key = posixpath.normpath(name.replace("\\", "/"))
        if key in seen:
            source.fail(
                locations[index],
                f"names the picture {name!r}, as {locations[seen[key]]} does; every pose needs a picture of "
                "its own. Take one of them out, or leave the names out where they mean nothing",
            )
        seen[key] = index


def _noted(pose_file: PoseFile, note: str) -> PoseFile:
    return dataclasses.replace(pose_file, notes=(*pose_file.notes, note))
