"""Measure what a trained model can do, and compare camera paths.

  python -m camctrl_jax.evaluate worlds --out outputs/benchmark
  python -m camctrl_jax.evaluate explorations --checkpoint outputs/stage2 --out outputs/explorations
  python -m camctrl_jax.evaluate captions --checkpoint outputs/stage2 --out outputs/captions
  python -m camctrl_jax.evaluate compare outputs/before outputs/after
  python -m camctrl_jax.evaluate cameras --reference true.txt --estimate estimated.txt
  python -m camctrl_jax.evaluate videos --generated clips --cameras paths --out outputs/other_model
  python -m camctrl_jax.evaluate checkpoint --checkpoint outputs/stage1 --videos clips --cameras paths \\
      --out outputs/eval

Each command has a --help of its own.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from camctrl_jax.errors import exit_status
from camctrl_jax.evaluate import (
    captions_options,
    checkpoint_options,
    compare_options,
    explorations_options,
    videos_options,
    worlds_options,
)

_CAMERAS = """\
Compare estimated camera paths with true ones.

  python -m camctrl_jax.evaluate cameras --reference true.txt --estimate estimated.txt
  python -m camctrl_jax.evaluate cameras --reference true/ --estimate estimated/ --json

Any format that python -m camctrl_jax.camera reads; of two folders, files of one name (without suffix) belong
together, and one that cannot be compared is listed with its reason. Frames are paired by picture name, by
position where there are equally many, or by time.

  TransErr, RotErr   the paper's: the estimate is scaled, turned and moved so that its positions fit best
                     (Umeyama), then the mean distance and the mean angle over frames
  degenerate         the true path is nearly straight, or stands: positions do not fix a rotation then, and
                     RotErr may be anything. The next two stay sound
  aligned            the estimate is turned by the mean rotation between the cameras instead
  first              both paths are seen from their first cameras; the scale that fits best
  RPE                error of the motion from each frame to the next
  sums               what the code of CamI2V reports: sums over frames, radians. Never compare them with means

Lengths are in units of the reference. Exit status 1 where a pair of two folders could not be compared.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; expected failures end with one message on standard error and exit code 1."""
    values = vars(_parser().parse_args(argv))
    command = values.pop("command")
    return exit_status(lambda: command(**values))


def _cameras(as_json: bool, **values: Any) -> int:
    from camctrl_jax.evaluate import cameras

    return cameras.run(cameras.CamerasSettings(**values), as_json)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m camctrl_jax.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(
        required=True, metavar="cameras|captions|checkpoint|compare|explorations|videos|worlds"
    )
    cameras = commands.add_parser(
        "cameras",
        help="estimated camera paths against true ones: TransErr, RotErr, and forms that stay sound",
        description=_CAMERAS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    cameras.set_defaults(command=_cameras)
    _add_cameras(cameras.add_argument)
    checkpoint = commands.add_parser(
        "checkpoint",
        help="a checkpoint on your own clips, sampled along their cameras",
        description=checkpoint_options.CHECKPOINT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    checkpoint.set_defaults(command=checkpoint_options.run_checkpoint)
    checkpoint_options.add_checkpoint(checkpoint.add_argument)
    videos = commands.add_parser(
        "videos",
        help="clips of any model, given the paths that were asked for",
        description=videos_options.VIDEOS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    videos.set_defaults(command=videos_options.run_videos)
    videos_options.add_videos(videos.add_argument)
    worlds = commands.add_parser(
        "worlds",
        help="the benchmark on held-out procedural worlds",
        description=worlds_options.WORLDS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    worlds.set_defaults(command=worlds_options.run_worlds)
    worlds_options.add_worlds(worlds.add_argument)
    captions = commands.add_parser(
        "captions",
        help="text to video: do the colours that captions name appear?",
        description=captions_options.CAPTIONS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    captions.set_defaults(command=captions_options.run_captions)
    captions_options.add_captions(captions.add_argument)
    explorations = commands.add_parser(
        "explorations",
        help="clips in a row on held-out places, and what memory is worth there",
        description=explorations_options.EXPLORATIONS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    explorations.set_defaults(command=explorations_options.run_explorations)
    explorations_options.add_explorations(explorations.add_argument)
    compare = commands.add_parser(
        "compare",
        help="two results of one command on the same clips, with paired intervals",
        description=compare_options.COMPARE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    compare.set_defaults(command=compare_options.run_compare)
    compare_options.add_compare(compare.add_argument)
    return parser


def _add_cameras(add: Any) -> None:
    add("--reference", type=Path, required=True, metavar="PATH", help="the true path, or a folder of paths")
    add("--estimate", type=Path, required=True, metavar="PATH", help="the estimated one, or a folder")
    add("--json", dest="as_json", action="store_true", help="print JSON")
    add("--reference-format", metavar="NAME", help="default: detected by content")
    add("--estimate-format", metavar="NAME", help="default: detected by content")
    add(
        "--time-difference",
        type=float,
        default=0.02,
        metavar="S",
        help="seconds that time stamps of one frame may be apart (default 0.02)",
    )


if __name__ == "__main__":
    sys.exit(main())
