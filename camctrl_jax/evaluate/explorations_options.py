"""The command line of ``evaluate explorations``: options and help, nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from camctrl_jax.evaluate.common_options import add_model, add_size

EXPLORATIONS = """\
Clips in a row on held-out places, along paths that come back: what is remembered of what was left?

  python -m camctrl_jax.evaluate explorations --checkpoint outputs/stage2 --out outputs/explorations
  python -m camctrl_jax.evaluate explorations --checkpoint outputs/stage2 --out outputs/memory \\
      --arms last-13 last-5-first random-4 retrieved-4 retrieved-4-truth retrieved-4+history1.5

The first clip is image to video from the true first frame; each further one extends the video along the true
path. Arms say from what, with the same worlds and noise:

  last-13            the last 13 frames; last-5, last-49: the last 5, 49: without memory
  last-5-first       the last 5, and the first frame of all as every retrieved frame
  random-4           the last 5, and four random earlier frames
  retrieved-4        the last 5, and four earlier frames that show what the coming cameras will see
  retrieved-4-truth  the same, taken from the true render: what memory could do with a faultless past
  ...+history1.5     any of them with history guidance of this weight
  ...+noise0.05      any of them with noise of this level on the condition latents

By default those that the weights were trained for; retrieved frames need weights that were trained with such.
Every clip adds as many frames in all arms (36 of 49, as 13 given ones leave).

Measured clip by clip: PSNR against the true render on all pixels, on static pixels that any frame before the
clip has seen (exact, from geometry; and those among them that the last 13 frames do not show), on static ones
not seen before and on things that move; gradient energy; with --poses N estimated cameras. Beside that: how
far frames of equal pose differ, out against back; the error from frame to frame along the true flow at the
seams over that inside clips; programs compiled and peak memory, clip by clip.

Amounts are by the device: 32 worlds (out_and_back, there_and_back, detour and loop by turns, layouts too), 10
clips, 32 steps on an accelerator; on a CPU, or with --laptop, 4 worlds, 4 clips, 4 steps.

In --out: results.json, report.md (one page), curves.png, strips.png; a folder a row keeps every world as soon
as it is measured, and the same command goes on from there. evaluate compare reads two such results, or two
arms of one: evaluate compare DIR DIR --rows last-13 retrieved-4.
"""


def add_explorations(add: Any) -> None:
    """The options of ``evaluate explorations``; ``add`` is a parser's ``add_argument``."""
    add("--out", type=Path, required=True, metavar="DIR", help="folder for the results; created if needed")
    add_model(add)
    add("--arms", nargs="+", metavar="ARM", help="see above; others are compared with the first one")
    add("--laptop", action="store_true", default=None, help="the smaller amounts, on an accelerator too")
    add("--count", type=int, metavar="N", help="worlds (default: 32; 4 on a CPU)")
    add("--clips", type=int, metavar="N", help="in a row, the first one included (default: 10; 4 on a CPU)")
    add("--steps", type=int, metavar="N", help="Euler steps (default: 32; 4 on a CPU; a student's own)")
    add("--camera-guidance", type=float, metavar="W", help="default 2, a student's 1; 1 is none")
    add("--text-guidance", type=float, default=1.0, metavar="W", help="default 1: none")
    add(
        "--routes",
        nargs="+",
        choices=("out_and_back", "there_and_back", "detour", "loop"),
        help="in turns (default: all that fit into so many clips)",
    )
    add(
        "--prompts",
        choices=("clips", "first", "none"),
        default="clips",
        help="each clip's own caption, as in training, that of the first clip, or none (default: clips)",
    )
    add(
        "--first-seed",
        type=int,
        default=4_000_000,
        metavar="SEED",
        help="of the worlds (default 4000000)",
    )
    add_size(add)
    add(
        "--new-frames",
        type=int,
        metavar="N",
        help="that each further clip adds, a multiple of 4 (default: what 13 given frames leave)",
    )
    add("--samples", type=int, default=2, help="rays per pixel and axis of the render (default 2)")
    add("--batch-size", type=int, metavar="N", help="worlds at a time (default: 8; 1 on a CPU)")
    add(
        "--poses",
        type=int,
        default=0,
        metavar="N",
        help="estimate the cameras of the first N worlds, clip by clip (default 0; needs pycolmap, OpenCV)",
    )
    add("--shown", type=int, default=6, help="worlds on strips.png (default 6)")
    add("--keep", action="store_true", help="also write every video, lossless, into DIR/ROW/clips")
    add("--float32", action="store_true", help="compute in float32 on an accelerator too")


def run_explorations(arms: list[str] | None, routes: list[str] | None, **values: Any) -> None:
    """``evaluate explorations`` with the options of :func:`add_explorations`."""
    # Only now, so that --help answers at once.
    from camctrl_jax.evaluate import explorations

    settings = explorations.Settings(
        arms=None if arms is None else tuple(arms),
        routes=None if routes is None else tuple(routes),
        **values,
    )
    results = explorations.evaluate_explorations(settings)
    print(explorations.explorations_page(results))
    for name in results["files"]:
        print(settings.out / name)
