"""Results of single clips on disk: taken again by a later run of the same files, settings and estimators."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from camctrl_jax.errors import UserError
from camctrl_jax.evaluate.videos.finding import Clip
from camctrl_jax.evaluate.videos.settings import Estimators, VideosSettings
from camctrl_jax.files.json_file import read_json

_RETRIED = ("timeout:", "crashed:")  # reasons that lie in the machine, not in the clip


def described(settings: VideosSettings, estimators: Estimators) -> dict[str, Any]:
    return {
        "fps": settings.fps,
        "pose_frames": settings.pose_frames,
        "longest_side": settings.longest_side,
        "known_lens": settings.known_lens,
        "with_reference": settings.reference is not None,
        "reading": asdict(settings.reading),
        "estimators": estimators.described(),
    }


def files_of(clip: Clip) -> dict[str, Any]:
    """Path, size and time of change of what a clip is made of: enough to see that it is another."""
    found = {}
    for name in ("video", "cameras", "reference"):
        path = getattr(clip, name)
        if path is not None:
            members = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
            stats = [each.stat() for each in members]
            found[name] = [
                str(path.absolute()),
                sum(stat.st_size for stat in stats),
                max((stat.st_mtime_ns for stat in stats), default=0),
            ]
    return found


def stored_result(path: Path, key: Mapping[str, Any]) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        stored = read_json(path)
    except UserError:  # a damaged artifact is measured again
        return None
    if stored.get("key") != json.loads(json.dumps(key)):  # through JSON: tuples and lists are equal
        return None
    found = stored.get("found")
    if any(reason.startswith(_RETRIED) for reason in (found or {}).get("failures", {}).values()):
        return None  # a longer time limit, or a mended program, may do better
    return found
