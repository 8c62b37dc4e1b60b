"""Measure what a trained model can do.

  python -m camctrl_jax.evaluate worlds --count 32 --camera-guidance 1 2 --out outputs/evaluation

worlds: procedural worlds that no training has seen (seeds 1000000 and above), whose every camera path has a
true render. Two things are measured:

  reconstruction   the autoencoder alone: PSNR of decoded against rendered frames
  camera           image-to-video from the first frame. PSNR against the true render of frames 6 to the last
                   - with the true path,
                   - with a decoy: the path of another world. A model that ignores the camera scores the same,
                   - of the first frame, repeated.

--checkpoint may also be a run of configs/vae.py; then only the reconstruction is measured.

In --out: results.json (every world's values and the settings), results.md (a table) and strip.png (frames:
true render, true path, decoy path, with the last number of --steps and the last weight of --camera-guidance),
with --videos also comparison.mp4.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from camctrl_jax.errors import exit_status

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


def _worlds(steps: list[int], camera_guidance: list[float], **values: Any) -> None:
    # Only now, so that --help answers at once.
    from camctrl_jax.evaluate import worlds

    settings = worlds.Settings(steps=tuple(steps), camera_guidance=tuple(camera_guidance), **values)
    results = worlds.evaluate_worlds(settings)
    print(worlds.markdown_report(results))
    for name in results["files"]:
        print(settings.out / name)


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
    commands = parser.add_subparsers(required=True, metavar="cameras|worlds")
    cameras = commands.add_parser(
        "cameras",
        help="estimated camera paths against true ones: TransErr, RotErr, and forms that stay sound",
        description=_CAMERAS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    cameras.set_defaults(command=_cameras)
    _add_cameras(cameras.add_argument)
    worlds = commands.add_parser(
        "worlds",
        help="PSNR on held-out procedural worlds; options: python -m camctrl_jax.evaluate worlds --help",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    worlds.set_defaults(command=_worlds)
    _add_worlds(worlds.add_argument)
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


def _add_worlds(add: Any) -> None:
    add("--out", type=Path, required=True, metavar="DIR", help="folder for the results; created if needed")
    add(
        "--checkpoint",
        default="default",
        metavar="SPEC",
        help="'default' (in the package), a run directory, or a weights folder",
    )
    add("--vae", metavar="SPEC", help="another autoencoder than the one the checkpoint was trained with")
    add("--count", type=int, default=32, help="worlds (default 32)")
    add("--first-seed", type=int, default=1_000_000, help="of the held-out worlds, 1000000 or above")
    add(
        "--steps",
        type=int,
        nargs="+",
        default=[32],
        metavar="N",
        help="Euler steps, one or several numbers, each with every guidance weight (default 32). Few steps "
        "predict the mean of what may happen, which PSNR rewards; many steps draw one example of it",
    )
    add(
        "--camera-guidance",
        type=float,
        nargs="+",
        default=[1.0, 2.0],
        metavar="W",
        help="one or several weights, each a row of the table (default 1 2)",
    )
    add("--text-guidance", type=float, default=1.0, metavar="W", help="default 1: none")
    add("--frames", type=int, help="4k+1 (default: as the model was trained)")
    add("--height", type=int, help="pixels (default: as the model was trained)")
    add("--width", type=int, help="pixels (default: as the model was trained)")
    add("--samples", type=int, default=2, help="rays per pixel and axis of the render (default 2)")
    add(
        "--batch-size",
        type=int,
        metavar="N",
        help="clips at a time (default: 32 on an accelerator, 2 on a CPU)",
    )
    add("--shown", type=int, default=4, help="worlds on the strip (default 4)")
    add("--videos", action="store_true", help="also write the shown worlds as comparison.mp4")
    add("--float32", action="store_true", help="compute in float32 on an accelerator too")


if __name__ == "__main__":
    sys.exit(main())
