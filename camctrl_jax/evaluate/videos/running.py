"""``evaluate videos`` over all clips, going on where an earlier run stopped."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from camctrl_jax.errors import ClipError, UserError, file_failures
from camctrl_jax.evaluate.videos.finding import find_clips
from camctrl_jax.evaluate.videos.measuring import measure_clip
from camctrl_jax.evaluate.videos.report import markdown, summarise
from camctrl_jax.evaluate.videos.settings import Estimators, VideosSettings
from camctrl_jax.evaluate.videos.store import described, files_of, stored_result
from camctrl_jax.files.atomic import write_text
from camctrl_jax.files.json_file import write_json


def evaluate_videos(
    settings: VideosSettings, estimators: Estimators, say: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """Measure all clips and write results; returns what ``results.json`` holds.

    A clip whose results are in ``out`` already, of the same files, settings and estimators, is not measured
    again.

    Raises:
        UserError: nothing to measure.
    """
    say = say or (lambda line: print(line, file=sys.stderr, flush=True))
    clips = find_clips(settings)
    folder = settings.out / "clips"
    with file_failures(folder):
        folder.mkdir(parents=True, exist_ok=True)
    protocol = described(settings, estimators)
    rows: dict[str, dict[str, Any]] = {}
    started, measured = time.monotonic(), 0
    for done, clip in enumerate(clips, start=1):
        key = protocol | {"files": files_of(clip)}
        stored = stored_result(folder / f"{clip.name}.json", key)
        if stored is None:
            try:
                stored = measure_clip(clip, settings, estimators)
            except ClipError as error:
                stored = {"failed": error.reason, "message": str(error)}
            except UserError as error:
                stored = {"failed": "unusable", "message": str(error)}
            except Exception as error:  # a fault of one clip must not end a run of hours
                stored = {"failed": "fault", "message": f"{type(error).__name__}: {error}"}
            write_json(folder / f"{clip.name}.json", {"key": key, "found": stored})
            measured += 1
        rows[clip.name] = stored
        spent = time.monotonic() - started
        left = spent / measured * (len(clips) - done) if measured else 0.0
        outcome = stored.get("failed") or ", ".join(stored.get("failures", ())) or "measured"
        say(f"{done}/{len(clips)} {clip.name}: {outcome}; {left:.0f} s left")
    results = {
        "settings": protocol,
        "summary": summarise(rows),
        "failed": {name: row["message"] for name, row in rows.items() if "failed" in row},
        "clips": rows,
    }
    write_json(settings.out / "results.json", results)
    write_text(settings.out / "results.md", markdown(results) + "\n")
    return results
