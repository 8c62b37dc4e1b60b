"""The command line of ``evaluate worlds``: options and help, nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from camctrl_jax.evaluate.common_options import add_model, add_rows, add_size

WORLDS = """\
The worlds benchmark: 256 held-out procedural scenes whose every camera path has a true render.

  python -m camctrl_jax.evaluate worlds --out outputs/benchmark
  python -m camctrl_jax.evaluate worlds --laptop --out outputs/small
  python -m camctrl_jax.evaluate worlds --fool --out outputs/fooling

Paths: forward, sideways, pan, orbit, one to three turns, out and back, detour; each easy, medium and hard;
and cameras that stand. For every scene and sample:

  i2v         from the first frame, frames 6 to the last: PSNR and SSIM against the true render; gain over a
              decoy (another scene's path), over the first frame repeated, and over the first frame warped by
              exact geometry; alpha*, the scale of the path whose render fits best (1 is wanted)
  extension   from the first 13 frames, the frames after them: PSNR, SSIM, gain over the last one repeated
  t2v         from the caption and the path alone: what looks at clips as draws from a distribution
  all         energy score over samples, spread over skill, variance by region; gradient energy against the
              truth and the reconstruction; Frechet distance of clip features, beside what real clips have
              among themselves. Means with 95 % intervals over scenes, by class and difficulty of path, too
  estimated   with OpenCV: motion strength (DIS flow inside estimated masks) and appearance consistency; with
              --poses N: cameras found by structure from motion, against the path that was asked for. True
              renders are looked at in the same way: what they read is the floor

Amounts are by the device: 256 scenes, 4 samples, 32 steps at camera guidance 2 on an accelerator; on a CPU,
or with --laptop, the first 10 scenes (every class of paths once), 2 samples, 8 steps: under 15 minutes on two
cores. Each is an option. Few steps predict the mean of what may happen, which PSNR rewards.

In --out: results.json, results.md (one page), error_over_time.png, by_class.png, best.png and worst.png
(strips); clips/ keeps every scene as soon as it is measured, and the same command goes on from there. With
--videos also an mp4 of every scene there: true render, then the first sample of each task.

--checkpoint may also be a run of configs/vae.py; then only the reconstruction is measured.

--paths own takes the worlds from --first-seed on with the paths that were drawn with them, as evaluations
before the benchmark did (--paths own --tasks i2v --count 64 --steps 2 32 --camera-guidance 1 1.5 2).
comparison.mp4 has given way to a video a scene, strip.png to best.png and worst.png.
"""


def add_worlds(add: Any) -> None:
    """The options of ``evaluate worlds``; ``add`` is a parser's ``add_argument``."""
    add("--out", type=Path, required=True, metavar="DIR", help="folder for the results; created if needed")
    add_model(add)
    add("--laptop", action="store_true", default=None, help="the smaller amounts, on an accelerator too")
    add("--fool", action="store_true", help="measure clips with known faults instead: which fools what")
    add("--count", type=int, metavar="N", help="the first N scenes (default: 256; 10 on a CPU)")
    add("--seeds", type=int, metavar="S", help="samples of each scene and task (default: 4; 2 on a CPU)")
    add_rows(add, "2")
    add("--text-guidance", type=float, default=1.0, metavar="W", help="default 1: none")
    add("--history-guidance", type=float, default=1.0, metavar="W", help="of given frames; default 1: none")
    add(
        "--tasks",
        nargs="+",
        choices=("i2v", "t2v", "extension"),
        default=["i2v", "t2v", "extension"],
        help="default: all three",
    )
    add(
        "--motion",
        type=int,
        metavar="N",
        help="motion strength and appearance consistency of the first N scenes; 0 leaves them out (default: "
        "29, 5 on a CPU; needs OpenCV)",
    )
    add(
        "--poses",
        type=int,
        default=0,
        metavar="N",
        help="estimate the cameras of the first N scenes (needs pycolmap and OpenCV); 29 are every class of "
        "paths at every difficulty once (default: none)",
    )
    add(
        "--features",
        default="default",
        metavar="SPEC",
        help="clip features of the Frechet distance: 'default' (in the package), a folder or run, or 'none'",
    )
    add("--paths", choices=("benchmark", "own"), default="benchmark", help="default: benchmark")
    add("--first-seed", type=int, help="with --paths own: the first world, 1000000 (the default) or above")
    add_size(add)
    add("--samples", type=int, default=2, help="rays per pixel and axis of the render (default 2)")
    add("--batch-size", type=int, metavar="N", help="scenes at a time (default: 32; 1 on a CPU)")
    add("--shown", type=int, default=3, help="scenes on each strip, the best and the worst (default 3)")
    add("--videos", action="store_true", help="also write every scene as a video, clips/scene_NNN.mp4")
    add("--float32", action="store_true", help="compute in float32 on an accelerator too")


def run_worlds(
    fool: bool, steps: list[int] | None, camera_guidance: list[float] | None, tasks: list[str], **values: Any
) -> None:
    """``evaluate worlds`` with the options of :func:`add_worlds`."""
    # Only now, so that --help answers at once.
    from camctrl_jax.evaluate import worlds

    settings = worlds.Settings(
        steps=None if steps is None else tuple(steps),
        camera_guidance=None if camera_guidance is None else tuple(camera_guidance),
        tasks=tuple(tasks),
        **values,
    )
    if fool:
        results = worlds.fool(settings)
        print(worlds.fooling_table(results))
    else:
        results = worlds.evaluate_worlds(settings)
        print(worlds.benchmark_page(results))
    for name in results["files"]:
        print(settings.out / name)
