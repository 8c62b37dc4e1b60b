"""What was taken for what: sources of ``build_dataset videos`` before the work, remarks after it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from camctrl_jax.data.captions import Captions
from camctrl_jax.data.pose_files import Poses
from camctrl_jax.data.sources import Found, kind_of, pictures_of
from camctrl_jax.data.video_clips import SourceNotes
from camctrl_jax.errors import ClipError

_SHOWN = 8  # lines of one kind on the terminal; the report has them all
_KINDS = {
    "video": ("video", "videos"),
    "pictures": ("folder of pictures", "folders of pictures"),
    "still": ("single picture", "single pictures"),
}


def describe_sources(
    found: Found, root: Path, poses: Poses | None, captions: Captions | None
) -> list[dict[str, Any]]:
    """A JSON-able row for each source: path, kind, number of pictures, pose file, number of captions."""
    rows = []
    for source in found.sources:
        rows.append(
            {
                "path": str(source),
                "kind": kind_of(source),
                "pictures": len(pictures_of(source)) or None,
                "poses": _poses_of(source, poses),
                "captions": _captions_of(source, root, captions),
            }
        )
    return rows


def _poses_of(source: Path, poses: Poses | None) -> str | None:
    try:
        path = None if poses is None else poses.locate(source)
    except ClipError as error:
        return error.reason
    return None if path is None else str(path)


def _captions_of(source: Path, root: Path, captions: Captions | None) -> int | str:
    try:
        return 0 if captions is None else len(captions.find(source, root))
    except ClipError as error:
        return error.reason


def print_sources(rows: Sequence[dict[str, Any]], found: Found) -> None:
    """Print what was taken for what, what was left out, and equal copies; long lists are cut short."""
    kinds = Counter(row["kind"] for row in rows)
    unlabelled = sum(row["poses"] is None for row in rows)
    listed = ", ".join(many(count, *_KINDS[kind]) for kind, count in kinds.items())
    print(f"sources: {listed}; {len(rows) - unlabelled} with a pose file, {unlabelled} unlabelled")
    _print_some(map(_line, rows), "sources")
    if found.left_out:
        print(f"left out: {len(found.left_out)} (--every-folder takes accompanying folders, too)")
        _print_some((f"{each.path}: {each.why}" for each in found.left_out), "left out")
    if found.copies:
        print(f"equal copies: {len(found.copies)}, all of them taken")
        _print_some((f"{copy}: the same bytes as {first}" for copy, first in found.copies), "copies")


def _line(row: dict[str, Any]) -> str:
    kind = row["kind"] if row["kind"] != "pictures" else f"{row['pictures']} pictures"
    poses = f"poses {row['poses']}" if row["poses"] else "unlabelled"
    count = row["captions"]
    captions = (many(count, "caption") if count else "no caption") if isinstance(count, int) else count
    return f"{row['path']}: {kind}, {poses}, {captions.replace('_', ' ')}"


def many(count: int, one: str, more: str = "") -> str:
    """``1 clip``, ``2 clips``; ``more`` is the plural where it is not made by an s."""
    return f"{count} {one if count == 1 else more or one + 's'}"


def _print_some(lines: Iterable[str], what: str) -> None:
    lines = list(lines)
    for line in lines[:_SHOWN]:
        print(f"  {line}")
    if len(lines) > _SHOWN:
        print(f"  and {len(lines) - _SHOWN} more {what}; report.json lists all")


def report_of(
    rows: Sequence[dict[str, Any]], found: Found, notes: SourceNotes, poses: Poses | None
) -> dict[str, Any]:
    """What the report says besides, JSON-able."""
    return {
        "labelled": {"sources": notes.labelled_sources, "frames": notes.labelled_frames},
        "found": list(rows),
        "left_out": [vars(each) for each in found.left_out],
        "equal_copies": [{"path": str(copy), "same_as": str(first)} for copy, first in found.copies],
        "pictures_without_pose": notes.pictures_without_pose,
        "poses_without_picture": {} if poses is None else poses.without_picture(),
        "remarks": [
            {"remark": remark, "sources": sources} for remark, sources in sorted(notes.media.items())
        ],
    }


def closing_lines(notes: SourceNotes, poses: Poses | None) -> list[str]:
    """For the terminal, after the work: how much is labelled, and what was left without a partner."""
    lines = []
    if poses is not None:
        sources = many(notes.labelled_sources, "source")
        lines.append(f"labelled: {sources}, {notes.labelled_frames} frames in clips")
    if notes.pictures_without_pose:
        count = sum(map(len, notes.pictures_without_pose.values()))
        sources = many(len(notes.pictures_without_pose), "source")
        source, names = next(iter(notes.pictures_without_pose.items()))
        lines.append(
            f"pictures without a pose, in no clip: {count}, of {sources}; the report lists them; "
            f"the first: {names[0]} of {source}"
        )
    lone = {} if poses is None else poses.without_picture()
    if lone:
        path, names = next(iter(lone.items()))
        lines.append(
            f"poses without a picture: {sum(map(len, lone.values()))}; the report lists them; "
            f"the first: {names[0]} in {path}"
        )
    by_number = sorted(notes.media.items(), key=lambda item: (-len(item[1]), item[0]))
    for remark, sources in by_number[:_SHOWN]:
        lines.append(f"remark on {many(len(sources), 'source')}, such as {sources[0]}: {remark}")
    if len(by_number) > _SHOWN:
        lines.append(f"{len(by_number) - _SHOWN} more kinds of remarks are in the report")
    return lines
