"""Results of single clips on disk: taken again by a later run of the same files, settings and estimators.

``clips/NAME.json`` holds what was measured and the key of what that depends on; ``features/NAME.npz`` the
video features of the clip and of its reference, which depend on neither poses nor protocol and have a key of
their own. Both are written whole or not at all.
"""

from __future__ import annotations

import contextlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from camctrl_jax.errors import UserError
from camctrl_jax.estimators.checks import DEFAULT
from camctrl_jax.evaluate.videos.finding import Clip
from camctrl_jax.evaluate.videos.settings import Estimators, VideosSettings
from camctrl_jax.files.atomic import written_file
from camctrl_jax.files.json_file import read_json, write_json

FORMAT_VERSION = 5
_RETRIED = ("timeout:", "crashed:")  # reasons that lie in the machine, not in the clip


def described(settings: VideosSettings, estimators: Estimators) -> dict[str, Any]:
    """What every clip's results depend on besides its files, JSON-able."""
    return {
        "format": FORMAT_VERSION,
        "fps": settings.fps,
        "pose_frames": settings.pose_frames,
        "longest_side": settings.longest_side,
        "known_lens": settings.known_lens,
        "clip_frames": settings.clip_frames,
        "with_reference": settings.reference is not None,
        "reading": asdict(settings.reading),
        "doubts": asdict(DEFAULT),
        "estimators": estimators.described(),
    }


def files_of(clip: Clip, names: tuple[str, ...] = ("video", "cameras", "reference")) -> dict[str, Any]:
    """Path, size and time of change of what a clip is made of: enough to see that it is another."""
    found = {}
    for name in names:
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
    """What was found under this key; None where it is to be measured, again or at all."""
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


def keep_result(path: Path, key: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Keep a clip's results under a key."""
    write_json(path, {"key": key, "found": found})


@dataclass(frozen=True, eq=False)
class ClipFeatures:
    """Video features of a generated clip and of its reference, f64 [D] each.

    Attributes:
        frames, fps: of both: clips of another length or rate are not compared.
        same_size: whether the pictures of both have one size.
    """

    generated: np.ndarray
    reference: np.ndarray
    frames: int
    fps: float
    same_size: bool


def stored_features(path: Path, key: Mapping[str, Any]) -> ClipFeatures | None:
    """Features kept under this key; None where there are none, or they are damaged or of something else."""
    with contextlib.suppress(OSError, ValueError, KeyError, zipfile.BadZipFile), np.load(path) as file:
        if str(file["key"]) == _text(key):
            arrays = file["generated"], file["reference"]
            return ClipFeatures(*arrays, int(file["frames"]), float(file["fps"]), bool(file["same_size"]))
    return None


def keep_features(path: Path, key: Mapping[str, Any], features: ClipFeatures) -> None:
    """Keep a clip's features under a key."""
    with written_file(path) as file:
        np.savez(file, key=np.str_(_text(key)), **vars(features))


def _text(key: Mapping[str, Any]) -> str:
    return json.dumps(key, sort_keys=True)
