"""The command line of ``evaluate checkpoint``: options and help, nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from camctrl_jax.evaluate.common_options import add_estimating, add_model, add_rows, add_size
from camctrl_jax.pose_options import add_reading_options

CHECKPOINT = """\
How well a checkpoint does on your clips: it samples along their own cameras, and is measured beside them.

  python -m camctrl_jax.evaluate checkpoint --checkpoint outputs/stage1 --videos clips --cameras paths \\
      --out outputs/eval
  python -m camctrl_jax.evaluate checkpoint --checkpoint outputs/stage1 --dataset data/held_out --count 200 \\
      --out outputs/eval

--videos      videos or folders of pictures, --cameras a pose file of the same name for each, one pose per
              frame: what build_dataset videos takes as --source and --poses. Frames are picked at the model's
              rate, resized and cropped to its size, and the cameras follow. The first clip of each video is
              taken, or --per-video of them.
--dataset     clips that build_dataset wrote. Take some that the model was not trained on.

Tasks, for every clip and seed
  i2v         from the first frame along the clip's path; scored from frame 6 on (default)
  extension   from the first 13 frames, or a third of shorter clips; the new frames are scored
  t2v         from the caption and the path alone: another scene, so nothing is compared frame by frame
With --clips K each is gone on from, clip after clip, along a long path: an exploration. It takes videos of
that length, and weights that were trained to go on, as the embedded ones were.

What is measured: PSNR and SSIM against the true clip, the gain over the given frame repeated and, with
--decoys, over the path of another clip (the next one that is not alike); gradient energy; with two seeds or
more the energy score; and all that evaluate videos measures, of samples and of the true clips beside them.
--without-estimates leaves the latter out, which takes most of the time on a CPU.

In --out: results.json, results.md, error_over_time.png; reference/ and cameras/ (the true clips, lossless,
and their paths), samples/ROW/TASK/seed_N/ (lossless mp4: play them with mpv, VLC or ffplay), beside them
shown/ (true clip and samples side by side, for any player); measures/ (the pages of evaluate videos). To
measure another model on the same clips: evaluate videos --generated ITS_VIDEOS --cameras OUT/cameras
--reference OUT/reference. The same command goes on where it was stopped. Two results on the same clips:
evaluate compare OUT OTHER.
"""


def add_checkpoint(add: Any) -> None:
    """The options of ``evaluate checkpoint``; ``add`` is a parser's ``add_argument``."""
    add("--out", type=Path, required=True, metavar="DIR", help="folder for the results; created if needed")
    add_model(add)
    add("--videos", type=Path, metavar="PATH", help="see above")
    add("--cameras", type=Path, metavar="PATH", help="see above")
    add("--captions", type=Path, metavar="PATH", help="as of build_dataset videos (default: no text)")
    add("--dataset", type=Path, metavar="DIR", help="see above")
    add("--count", type=int, metavar="N", help="at most so many clips, the first ones (default: all)")
    add("--per-video", type=int, default=1, metavar="N", help="at most so many clips of a video (default 1)")
    add("--image-fps", type=float, metavar="F", help="rate of folders of pictures (default: --fps)")
    add(
        "--poses-of",
        choices=("auto", "shown", "stored"),
        default="auto",
        help="whether poses of turned or mirrored pictures belong to them as shown or stored (default auto)",
    )
    add(
        "--camera-scale",
        type=float,
        default=1.0,
        metavar="F",
        help="multiply translations, to the unit that the model was trained in (default 1)",
    )
    add_reading_options(add)
    add(
        "--tasks",
        nargs="+",
        choices=("i2v", "t2v", "extension"),
        default=["i2v"],
        help="default: i2v",
    )
    add("--clips", type=int, default=1, metavar="K", help="explorations of K clips each (default 1: none)")
    add(
        "--retrieved",
        type=int,
        metavar="R",
        help="earlier frames that each further clip is shown, by path; 0 is none (default: the model's)",
    )
    add("--decoys", action="store_true", help="also sample i2v along the path of another clip")
    add("--seeds", type=int, metavar="S", help="samples of each clip and task (default: 2; 1 on a CPU)")
    add_rows(add, "the model's")
    add("--text-guidance", type=float, metavar="W", help="default: the model's; 1 is none")
    add("--history-guidance", type=float, default=1.0, metavar="W", help="of given frames; default 1: none")
    add_size(add)
    add("--fps", type=float, help="frames per second (default: as the model was trained)")
    add("--batch-size", type=int, metavar="N", help="clips at a time (default: 8; 1 on a CPU)")
    add("--float32", action="store_true", help="compute in float32 on an accelerator too")
    add(
        "--without-estimates",
        dest="estimates",
        action="store_false",
        help="no structure from motion, motion strength and appearance; evaluate videos can be run later",
    )
    add_estimating(add)


def run_checkpoint(
    estimators: Path | None,
    fvd: Path | None,
    steps: list[int] | None,
    camera_guidance: list[float] | None,
    tasks: list[str],
    jobs: int | None,
    **values: Any,
) -> int:
    """``evaluate checkpoint`` with the options of :func:`add_checkpoint`; status 1 where clips failed."""
    # Only now, so that --help answers at once.
    from camctrl_jax.camera.reading import take_reading
    from camctrl_jax.errors import InvalidValue
    from camctrl_jax.evaluate import checkpoint
    from camctrl_jax.evaluate.videos_options import asked_estimators, default_jobs, made_estimators

    asked = asked_estimators(estimators, fvd)
    settings = checkpoint.CheckpointSettings(
        reading=take_reading(values),
        steps=None if steps is None else tuple(steps),
        camera_guidance=None if camera_guidance is None else tuple(camera_guidance),
        tasks=tuple(dict.fromkeys(tasks)),
        jobs=default_jobs(asked) if jobs is None else jobs,
        **values,
    )
    if not settings.estimates and (estimators is not None or fvd is not None):
        raise InvalidValue("--estimators and --fvd clash with --without-estimates: leave one out.")
    results = checkpoint.evaluate_checkpoint(settings, made_estimators(asked) if settings.estimates else None)
    print(checkpoint.page(results))
    for name in results["files"]:
        print(settings.out / name)
    return 1 if results["failed"] or results["summary"]["sampling_failed"] else 0
