"""The command line of ``evaluate videos``; imports nothing heavy before it is parsed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from camctrl_jax.evaluate.common_options import add_estimating
from camctrl_jax.pose_options import add_reading_options

VIDEOS = """\
Measure clips of any model, given the camera paths that were asked for: the same protocol for every model.

  python -m camctrl_jax.evaluate videos --generated clips --cameras paths --out outputs/other_model
  python -m camctrl_jax.evaluate videos --generated clips --cameras paths --reference truth --out outputs/it
  python -m camctrl_jax.evaluate compare outputs/other_model outputs/it

--generated   a folder of videos, or of folders of pictures
--cameras     a pose file or folder of the same name (without suffix) for each, one pose per frame, in any
              format that python -m camctrl_jax.camera reads
--reference   true videos of the same names: PSNR, SSIM and sharpness are measured against them

What is measured: camera poses by structure from motion, against those that were asked for (TransErr, RotErr,
and forms that stay sound on straight paths); the share of clips whose every frame registers, and of those
without doubts; motion strength; appearance consistency; with --clip-frames also from clip to clip of an
exploration; with --fvd the Frechet distance to the reference, beside what the reference has with itself. A
clip that cannot be measured is counted with its reason, one that can in part likewise. Clips that are done
are not measured again: the same command goes on.

In --out: results.json, results.md (one page), error_over_time.png, best.png and worst.png (frames, and the
estimated over the asked path); clips/ keeps every clip as soon as it is measured.

Estimators run here without weights by default (pycolmap, DIS flow, epipolar residuals, histograms). Learned
ones run in environments of their own: name them in a JSON file with --estimators, for example
  {"embeddings": {"name": "clip", "python": "/envs/clip/bin/python", "weights": "ViT-B-32.pt"},
   "sfm": {"name": "colmap", "options": {"mode": "global", "time_limit": 120}},
   "masks": {"name": "import", "options": {"folder": "masks/{clip}", "moving_is": "white"}},
   "video_features": {"name": "i3d", "weights": "i3d_torchscript.pt"}}
Imported results lie in a file or folder for each clip, {clip}; imported video features have two, of which
{clip} is generated/NAME and reference/NAME. --fvd FILE is short for the last line above.
"""

KINDS = ("flow", "masks", "sfm", "embeddings", "video_features")
_WITHOUT_DEFAULT = ("video_features",)
_MOST_JOBS = 8


def add_videos(add: Any) -> None:
    """The options, given the ``add_argument`` of a parser."""
    add("--generated", type=Path, required=True, metavar="DIR", help="see above")
    add("--cameras", type=Path, required=True, metavar="DIR", help="see above")
    add("--reference", type=Path, metavar="DIR", help="see above")
    add("--out", type=Path, required=True, metavar="DIR", help="folder for the results; created if needed")
    add("--fps", type=float, default=12.0, metavar="F", help="rate of folders of pictures (default 12)")
    add(
        "--clip-frames",
        type=int,
        metavar="N",
        help="videos at least twice as long are explorations whose clips add so many frames each: appearance "
        "from clip to clip, too",
    )
    add_estimating(add)
    add_reading_options(add)


def run_videos(estimators: Path | None, fvd: Path | None, jobs: int | None, **values: Any) -> int:
    """Measure and print; exit status 1 where clips failed."""
    # Only now, so that --help answers at once.
    from camctrl_jax.camera.reading import take_reading
    from camctrl_jax.evaluate import videos

    asked = asked_estimators(estimators, fvd)
    jobs = default_jobs(asked) if jobs is None else jobs
    settings = videos.VideosSettings(reading=take_reading(values), jobs=jobs, **values)
    results = videos.evaluate_videos(settings, made_estimators(asked))
    print(videos.markdown(results))
    for name in results["files"]:
        print(settings.out / name)
    return 1 if results["failed"] else 0


def asked_estimators(path: Path | None, fvd: Path | None = None) -> dict[str, Any]:
    """Settings of the estimators by kind, as the file has them; ``fvd`` is the file of an I3D.

    Raises:
        UserError: the file is missing or not such a JSON object, or names an I3D beside ``fvd``.
    """
    from camctrl_jax.errors import InvalidValue
    from camctrl_jax.files.json_file import read_json

    asked = {} if path is None else read_json(path)
    unknown = sorted(set(asked) - set(KINDS))
    if unknown:
        raise InvalidValue(f"--estimators {path}: unknown kind {unknown[0]!r}; expected {', '.join(KINDS)}.")
    for kind, settings in asked.items():
        if not isinstance(settings, (str, dict)):
            raise InvalidValue(
                f"--estimators {path}: {kind} is {json.dumps(settings)}; expected a name or an object with "
                "one."
            )
    if fvd is not None:
        if "video_features" in asked:
            raise InvalidValue(f"--fvd {fvd}: --estimators {path} names video_features, too; keep one.")
        asked["video_features"] = {"name": "i3d", "weights": str(fvd)}
    return asked


def default_jobs(asked: dict[str, Any]) -> int:
    """Clips at a time: one for each thread that structure from motion leaves.

    One alone where a program of another environment is asked for: it may fill a device by itself.
    """
    objects = [settings for settings in asked.values() if isinstance(settings, dict)]
    if any("python" in settings for settings in objects):
        return 1
    options = [settings.get("options") for settings in objects]
    threads = [each["threads"] for each in options if isinstance(each, dict) and "threads" in each]
    of_one = max([each for each in threads if isinstance(each, int)] + [1])
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores // of_one, _MOST_JOBS))


def made_estimators(asked: dict[str, Any]) -> Any:
    """Those that are asked for, and the defaults for the rest; there is none of video features.

    Raises:
        UserError: an unknown name or option, or an estimator lacks what it needs.
    """
    from camctrl_jax.estimators.choosing import choose, names
    from camctrl_jax.evaluate.videos import Estimators

    made: dict[str, Any] = {}
    for kind in KINDS:
        if kind not in asked and kind in _WITHOUT_DEFAULT:
            continue
        made[kind] = choose(kind, asked.get(kind, names(kind)[0]))
        if hasattr(made[kind], "check"):
            made[kind].check()
    return Estimators(
        made["flow"], made["masks"], made["sfm"], made["embeddings"], made.get("video_features")
    )
