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
from collections.abc import Callable, Sequence
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

    def command(name: str, summary: str, text: str, run: Callable[..., None], add_options: Any) -> None:
        one = commands.add_parser(
            name,
            help=summary,
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        one.set_defaults(command=run)
        add_options(one.add_argument)

    command(
        "cameras",
        "estimated camera paths against true ones: TransErr, RotErr, and forms that stay sound",
        _CAMERAS,
        _cameras,
        _add_cameras,
    )
    command(
        "checkpoint",
        "a checkpoint on your own clips, sampled along their cameras",
        checkpoint_options.CHECKPOINT,
        checkpoint_options.run_checkpoint,
        checkpoint_options.add_checkpoint,
    )
    command(
        "videos",
        "clips of any model, given the paths that were asked for",
        videos_options.VIDEOS,
        videos_options.run_videos,
        videos_options.add_videos,
    )
    command(
        "worlds",
        "the benchmark on held-out procedural worlds",
        worlds_options.WORLDS,
        worlds_options.run_worlds,
        worlds_options.add_worlds,
    )
    command(
        "captions",
        "text to video: do the colours that captions name appear?",
        captions_options.CAPTIONS,
        captions_options.run_captions,
        captions_options.add_captions,
    )
    command(
        "explorations",
        "clips in a row on held-out places, and what memory is worth there",
        explorations_options.EXPLORATIONS,
        explorations_options.run_explorations,
        explorations_options.add_explorations,
    )
    command(
        "compare",
        "two results of one command on the same clips, with paired intervals",
        compare_options.COMPARE,
        compare_options.run_compare,
        compare_options.add_compare,
    )
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
