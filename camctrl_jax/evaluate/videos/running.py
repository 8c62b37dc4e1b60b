"""``evaluate videos`` over all clips, going on where an earlier run stopped."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from camctrl_jax.errors import ClipError, UserError, file_failures
from camctrl_jax.evaluate.videos.features import clip_features, frechet
from camctrl_jax.evaluate.videos.figures import write_figures
from camctrl_jax.evaluate.videos.finding import Clip, find_clips
from camctrl_jax.evaluate.videos.measuring import measure_clip
from camctrl_jax.evaluate.videos.poses import attempt
from camctrl_jax.evaluate.videos.report import markdown, summarise
from camctrl_jax.evaluate.videos.settings import Estimators, VideosSettings
from camctrl_jax.evaluate.videos.store import (
    ClipFeatures,
    described,
    files_of,
    keep_result,
    stored_result,
)
from camctrl_jax.evaluate.videos.timelines import over_time
from camctrl_jax.extras import MissingExtra
from camctrl_jax.files.atomic import write_text
from camctrl_jax.files.json_file import write_json

FOLDER = "clips"
KIND = "videos"
"""What ``results.json`` says it is of."""

Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Measured:
    """One clip.

    Attributes:
        row: what :func:`measure_clip` found, or "failed" and "message".
        features: for the Frechet distance, where asked for and possible.
        anew: whether it was measured now, instead of taken from an earlier run.
    """

    row: dict[str, Any]
    features: ClipFeatures | None
    anew: bool


def evaluate_videos(
    settings: VideosSettings, estimators: Estimators, say: Say | None = None
) -> dict[str, Any]:
    """Measure all clips and write results; returns what ``results.json`` holds.

    A clip whose results are in ``out`` already, of the same files, settings and estimators, is not measured
    again. ``settings.jobs`` clips are measured at a time.

    Raises:
        UserError: nothing to measure.
    """
    say = say or (lambda line: print(line, file=sys.stderr, flush=True))
    clips = find_clips(settings)
    with file_failures(settings.out / FOLDER):
        (settings.out / FOLDER).mkdir(parents=True, exist_ok=True)
    wanted = estimators.video_features is not None
    if wanted and settings.reference is None:
        say(_NO_REFERENCE)
    protocol = described(settings, estimators)
    measured: dict[str, Measured] = {}
    started, anew = time.monotonic(), 0
    for clip, found in _each(clips, settings, estimators, protocol):
        measured[clip.name] = found
        anew += found.anew
        spent = time.monotonic() - started
        left = spent / anew * (len(clips) - len(measured)) if anew else 0.0
        say(f"{len(measured)}/{len(clips)} {clip.name}: {_outcome(found.row)}; {left:.0f} s left")
    rows = {clip.name: measured[clip.name].row for clip in clips}
    results: dict[str, Any] = {
        "kind": KIND,
        "settings": protocol,
        "summary": summarise(rows),
        "over_time": over_time(rows),
        "frechet": _frechet(measured, settings, estimators),
        "failed": {name: row["message"] for name, row in rows.items() if "failed" in row},
        "clips": {
            name: {key: value for key, value in row.items() if key != "paths"} for name, row in rows.items()
        },
    }
    try:
        figures = write_figures(
            settings, clips, results, {n: row.get("paths", {}) for n, row in rows.items()}
        )
    except MissingExtra as error:
        figures = []
        results["no_figures"] = str(error)
        say(f"no figures: {error}")
    results["files"] = ["results.json", "results.md", *figures]
    write_json(settings.out / "results.json", results)
    write_text(settings.out / "results.md", markdown(results) + "\n")
    return results


_NO_REFERENCE = (
    "video features are of no use without --reference: a Frechet distance needs true videos to be a distance "
    "to. It is left out."
)


def _each(
    clips: Sequence[Clip], settings: VideosSettings, estimators: Estimators, protocol: Mapping[str, Any]
) -> Iterator[tuple[Clip, Measured]]:
    """Clips as they are done, in whatever order; what is running ends before an error gets out."""
    with ThreadPoolExecutor(settings.jobs) as pool:
        waiting = list(clips)
        running: dict[Future[Measured], Clip] = {}
        while waiting or running:
            while waiting and len(running) < settings.jobs:  # no more, so that an interrupt ends soon
                clip = waiting.pop(0)
                running[pool.submit(_measured, clip, settings, estimators, protocol)] = clip
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()


def _measured(
    clip: Clip, settings: VideosSettings, estimators: Estimators, protocol: Mapping[str, Any]
) -> Measured:
    bound = estimators.for_clip(clip.name)
    own = protocol if bound is estimators else {**protocol, "estimators": bound.described()}
    key = {**own, "files": files_of(clip)}
    path = settings.out / FOLDER / f"{clip.name}.json"
    row = stored_result(path, key)
    anew = row is None
    if row is None:
        try:
            row = measure_clip(clip, settings, bound)
        except ClipError as error:
            row = {"failed": error.reason, "message": str(error)}
        except UserError as error:
            row = {"failed": "unusable", "message": str(error)}
        except Exception as error:  # a fault of one clip must not end a run of hours
            row = {"failed": "fault", "message": f"{type(error).__name__}: {error}"}
        keep_result(path, key, row)
    features = None
    embedder = estimators.video_features
    if embedder is not None and settings.reference is not None and "failed" not in row:
        # Not part of what is kept: features have a key of their own.
        failures = dict(row["failures"])
        features = attempt(failures, "video_features", lambda: clip_features(clip, settings, embedder))
        row = {**row, "failures": failures}
    return Measured(row, features, anew)


def _outcome(row: Mapping[str, Any]) -> str:
    return row.get("failed") or ", ".join(row.get("failures", ())) or "measured"


def _frechet(
    measured: Mapping[str, Measured], settings: VideosSettings, estimators: Estimators
) -> dict[str, Any] | None:
    """None where nobody asked for it, a reason where there is none."""
    if estimators.video_features is None:
        return None
    if settings.reference is None:
        return {"reason": _NO_REFERENCE}
    features = {name: each.features for name, each in measured.items() if each.features is not None}
    try:
        return frechet(features, len(measured), estimators.video_features)
    except UserError as error:
        return {"reason": str(error)}
