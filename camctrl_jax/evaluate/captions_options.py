"""The command line of ``evaluate captions``: options and help, nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from camctrl_jax.evaluate.common_options import add_model, add_size

CAPTIONS = """\
Text to video for held-out captions: do the colours of the objects that they name appear?

  python -m camctrl_jax.evaluate captions --checkpoint outputs/stage2 --out outputs/captions
  python -m camctrl_jax.evaluate captions --checkpoint outputs/stage2 --out outputs/captions_none \\
      --cameras given none --text-guidance 1 3 5

A detector, calibrated on true renders of training worlds, says for each colour of the palette whether a thing
of it is shown. It is asked for the colours of the clip's own caption, and for those of another world's. True
renders, and these through the autoencoder, are asked for in the same way: what they reach is the ceiling, and
it is no 100 %, since the detector knows no shapes and worlds hold things that no caption names. What counts
is the difference, and how often the own caption fits better than the other one (chance is 50 %).

With --motion N also the motion strength of the first N captions' clips, estimated as evaluate worlds does. A
base model, which takes no cameras, can be measured here (--cameras none), and compared with what was trained
from it.

256 captions, 32 steps on an accelerator; 12 captions, 8 steps on a CPU. In --out: results.json, report.md,
strips.png; a folder a row keeps every caption as soon as it is sampled, and the same command goes on from
there. evaluate compare reads two such results.
"""


def add_captions(add: Any) -> None:
    """The options of ``evaluate captions``; ``add`` is a parser's ``add_argument``."""
    add("--out", type=Path, required=True, metavar="DIR", help="folder for the results; created if needed")
    add_model(add)
    add(
        "--worlds",
        choices=("front", "places"),
        default="front",
        help="all things in front of the first camera, or windows of places to explore (default: front)",
    )
    add("--count", type=int, metavar="N", help="captions (default: 256; 12 on a CPU)")
    add("--seeds", type=int, default=1, metavar="S", help="samples of each (default 1)")
    add("--steps", type=int, metavar="N", help="Euler steps (default: 32; 8 on a CPU; a student's own)")
    add(
        "--text-guidance",
        type=float,
        nargs="+",
        default=[1.0],
        metavar="W",
        help="one or several weights, each a row of the tables (default 1: none)",
    )
    add(
        "--cameras",
        nargs="+",
        choices=("given", "none"),
        default=["given"],
        help="with the world's own path, or without any; both are rows of their own (default: given)",
    )
    add("--camera-guidance", type=float, metavar="W", help="where it is given (default 2, a student's 1)")
    add("--first-seed", type=int, default=5_000_000, metavar="SEED", help="of the worlds (default 5000000)")
    add("--calibration", type=int, default=192, metavar="N", help="worlds to calibrate on (default 192)")
    add_size(add)
    add("--samples", type=int, default=2, help="rays per pixel and axis of the renders (default 2)")
    add("--batch-size", type=int, metavar="N", help="clips at a time (default: 32; 1 on a CPU)")
    add(
        "--motion",
        type=int,
        default=0,
        metavar="N",
        help="motion strength of the first N captions' clips (default 0; needs OpenCV)",
    )
    add("--shown", type=int, default=6, help="captions on strips.png (default 6)")
    add("--float32", action="store_true", help="compute in float32 on an accelerator too")


def run_captions(text_guidance: list[float], cameras: list[str], **values: Any) -> None:
    """``evaluate captions`` with the options of :func:`add_captions`."""
    # Only now, so that --help answers at once.
    from camctrl_jax.evaluate import captions

    settings = captions.Settings(text_guidance=tuple(text_guidance), cameras=tuple(cameras), **values)
    results = captions.evaluate_captions(settings)
    print(captions.captions_page(results))
    for name in results["files"]:
        print(settings.out / name)
