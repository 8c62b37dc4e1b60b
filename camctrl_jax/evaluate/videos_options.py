"""The command line of ``evaluate videos``; imports nothing heavy before it is parsed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from camctrl_jax.pose_options import add_reading_options

VIDEOS = """\
Measure clips of any model, given the camera paths that were asked for: the same protocol for every model.

  python -m camctrl_jax.evaluate videos --generated clips --cameras paths --out outputs/other_model
  python -m camctrl_jax.evaluate videos --generated clips --cameras paths --reference truth --out outputs/it

--generated   a folder of videos, or of folders of pictures
--cameras     a pose file or folder of the same name (without suffix) for each, one pose per frame, in any
              format that python -m camctrl_jax.camera reads
--reference   true videos of the same names: PSNR, SSIM and sharpness are measured against them

What is measured: camera poses by structure from motion, against those that were asked for (TransErr, RotErr,
and forms that stay sound on straight paths); the share of clips whose every frame registers, and of those
without doubts; motion strength; appearance consistency. A clip that cannot be measured is counted with its
reason, one that can in part likewise. Clips that are done are not measured again: the same command goes on.

Estimators run here without weights by default (pycolmap, DIS flow, epipolar residuals, histograms). Learned
ones run in environments of their own: name them in a JSON file with --estimators, for example
  {"embeddings": {"name": "clip", "python": "/envs/clip/bin/python", "weights": "ViT-B-32.pt"},
   "sfm": {"name": "colmap", "options": {"mode": "global", "time_limit": 120}}}
"""

KINDS = ("flow", "masks", "sfm", "embeddings")


def add_videos(add: Any) -> None:
    """The options, given the ``add_argument`` of a parser."""
    add("--generated", type=Path, required=True, metavar="DIR", help="see above")
    add("--cameras", type=Path, required=True, metavar="DIR", help="see above")
    add("--reference", type=Path, metavar="DIR", help="see above")
    add("--out", type=Path, required=True, metavar="DIR", help="folder for the results; created if needed")
    add("--fps", type=float, default=12.0, metavar="F", help="rate of folders of pictures (default 12)")
    add(
        "--pose-frames",
        type=int,
        default=16,
        metavar="N",
        help="poses are estimated for at most so many frames of a clip, evenly spread (default 16)",
    )
    add(
        "--longest-side",
        type=int,
        default=640,
        metavar="PX",
        help="estimators see pictures of at most so many pixels a side (default 640)",
    )
    add(
        "--estimate-lens",
        dest="known_lens",
        action="store_false",
        help="estimate focal lengths too, instead of taking those of --cameras as true",
    )
    add("--estimators", type=Path, metavar="FILE", help="JSON with other estimators, see above")
    add_reading_options(add)


def run_videos(estimators: Path | None, **values: Any) -> int:
    """Measure and print; exit status 1 where clips failed."""
    # Only now, so that --help answers at once.
    from camctrl_jax.camera.reading import take_reading
    from camctrl_jax.evaluate import videos

    settings = videos.VideosSettings(reading=take_reading(values), **values)
    results = videos.evaluate_videos(settings, chosen_estimators(estimators))
    print(videos.markdown(results))
    for name, message in results["failed"].items():
        print(f"failed: {name}: {message}")
    print(settings.out / "results.json")
    return 1 if results["failed"] else 0


def chosen_estimators(path: Path | None) -> Any:
    """Those of the file, and the defaults for the rest.

    Raises:
        UserError: the file is missing or not such a JSON object, or an estimator lacks what it needs.
    """
    from camctrl_jax.errors import InvalidValue
    from camctrl_jax.estimators.choosing import choose, names
    from camctrl_jax.evaluate.videos import Estimators
    from camctrl_jax.files.json_file import read_json

    asked = {} if path is None else read_json(path)
    unknown = sorted(set(asked) - set(KINDS))
    if unknown:
        raise InvalidValue(f"--estimators {path}: unknown kind {unknown[0]!r}; expected {', '.join(KINDS)}.")
    made = {}
    for kind in KINDS:
        settings = asked.get(kind, names(kind)[0])
        if not isinstance(settings, (str, dict)):
            raise InvalidValue(
                f"--estimators {path}: {kind} is {json.dumps(settings)}; expected a name or an object with "
                "one."
            )
        made[kind] = choose(kind, settings)
        if hasattr(made[kind], "check"):
            made[kind].check()
    return Estimators(made["flow"], made["masks"], made["sfm"], made["embeddings"])
