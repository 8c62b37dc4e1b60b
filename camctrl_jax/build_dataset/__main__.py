"""``python -m camctrl_jax.build_dataset``: the command line."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from camctrl_jax import __version__
from camctrl_jax.errors import exit_status
from camctrl_jax.pose_options import add_reading_options

_DESCRIPTION = """\
Build a dataset of annotated clips (TFDS, ArrayRecord files) that train.py reads.

  worlds   procedural dynamic scenes with exact cameras and captions: no input needed
  videos   your own videos or image folders, with or without camera poses and captions
  latents  a dataset of either, encoded once, so that training need not: the VAE's latents in place of videos
"""

_EPILOG = """\
examples:
  # 200 labelled clips of 49 frames at 12 fps, 96x160 pixels
  python -m camctrl_jax.build_dataset worlds --out data/worlds --count 200

  # every video below a folder, as unlabelled clips (no poses)
  python -m camctrl_jax.build_dataset videos --source my_videos --out data/mine --captions captions.json

  # one video with a pose per frame, in any format that `python -m camctrl_jax.camera info FILE` understands
  python -m camctrl_jax.build_dataset videos --source walk.mp4 --poses walk_re10k.txt --out data/walk

  # latents of such a dataset, by 16 processes with a device each (this is the first); train on data/latents
  python -m camctrl_jax.build_dataset latents --source data/mine --out data/latents --latents weights/wan \\
      --shard 0/16

  # a capture by COLMAP or nerfstudio: pictures and poses are paired by name
  python -m camctrl_jax.build_dataset videos --source desk --poses desk/transforms.json --out data/desk

  # training on both, four labelled clips to one unlabelled: see configs/stage1.py
"""

_VIDEOS = """\
Cut videos into clips: pick frames at --fps by their time stamps, resize to cover --height x --width, crop the
centre (intrinsics follow), and pair them with poses and captions.

--source    a video (mp4, mov, mkv, webm, avi, ...), an image, a folder of images (the frames of one video),
            or a folder with any of these below it. Every real file is taken once. Hidden files are not taken,
            nor folders that accompany another one: reduced copies (images_2), masks, depth, nor pictures
            that are covers of the videos beside them.
--poses     a file for a single source, or a folder with one pose file (or pose folder) per source of the
            same name: RealEstate10K, COLMAP, transforms.json, TUM, MotionCtrl JSON, poses.npy, ... One pose
            per source frame. Sources without a pose file become unlabelled clips.
            A file that names its pictures (transforms.json, COLMAP, OpenSfM) is paired with a folder of
            images by these names, may serve several folders, and need not have a pose for each: clips are
            cut from the pictures in a row that have one. A pose whose picture is not there is a gap.
--captions  a folder with NAME.txt per source (one phrasing per line), one .txt for all, a .json (name -> text
            or list of texts), a .jsonl ({"file": .., "caption": ..}) or a .csv with the columns file and
            caption.

What was taken for what is printed first. A source that cannot be used (truncated video, wrong number of
poses, NaN pose, empty caption file, ...) is skipped, counted and listed with its reason in report.json. So
are poses and captions whose video is missing, pictures without a pose, poses without a picture, what was left
out, and remarks on pose files and on how media were converted. More than --max-bad-share of sources skipped
stops the run.
"""

_WORLDS = """\
Render procedural dynamic scenes: every seed is one world with moving objects, a camera path, exact poses and
several caption phrasings. The same seed gives the same world on every machine, but for rounding.
"""

_LATENTS = """\
Encode the videos of a dataset once: the same clips, with the VAE's latents in place of videos. Cameras,
captions and ids stay. Training then reads latents and spends nothing on the VAE.

With --shard K/N a process encodes the K-th of N equal parts, from 0, into OUT/KKKKK-of-NNNNN. Give each of
the N processes its own device: CUDA_VISIBLE_DEVICES=K on one host, or under Slurm --gpus-per-task=1 and
--shard $SLURM_PROCID/$SLURM_NTASKS. Training takes OUT as one dataset once all parts are there. A part that
is complete is left as it is, so the same commands go on after an interruption.

Captions are encoded by python -m camctrl_jax.encode_text, which takes --shard too; name its file here
with --text-embeddings, or in the configuration of the run.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; expected failures end with one message on standard error and exit code 1."""
    values = vars(_parser().parse_args(argv))
    build = values.pop("build")
    # A terminated build removes its unfinished folder on the way out.
    previous = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        return exit_status(lambda: build(**values))
    finally:
        signal.signal(signal.SIGTERM, previous)


# Each imports what does the work only once the command line is read, so that --help answers at once.


def _worlds(**options: object) -> None:
    from camctrl_jax.build_dataset import worlds

    worlds.build(worlds.WorldsOptions(**options))


def _videos(**options: object) -> None:
    from camctrl_jax.build_dataset import videos
    from camctrl_jax.camera.reading import take_reading

    reading = take_reading(options)
    videos.build(videos.VideosOptions(reading=reading, **options))


def _latents(source: list[Path], **options: object) -> None:
    from camctrl_jax.build_dataset import latents

    latents.build(latents.LatentsOptions(source=tuple(source), **options))


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m camctrl_jax.build_dataset",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=raw,
    )
    parser.add_argument("--version", action="version", version=f"camctrl_jax {__version__}")
    commands = parser.add_subparsers(required=True, metavar="worlds|videos|latents")
    for name, build, summary, description, add_options in (
        ("worlds", _worlds, "procedural scenes", _WORLDS, _add_worlds),
        ("videos", _videos, "your own videos", _VIDEOS, _add_videos),
        ("latents", _latents, "a dataset's latents", _LATENTS, _add_latents),
    ):
        command = commands.add_parser(name, help=summary, description=description, formatter_class=raw)
        command.set_defaults(build=build)
        add_options(command)
    return parser


def _add_worlds(command: argparse.ArgumentParser) -> None:
    _add_clip(command)
    add = command.add_argument
    add("--count", type=int, default=100, metavar="N", help="number of worlds (default 100)")
    add("--seed", type=int, default=0, metavar="S", help="seeds S to S+N-1 (default 0)")
    add("--static", action="store_true", help="the same worlds with every object at rest")
    add("--samples", type=int, default=2, metavar="K", help="KxK rays per pixel (default 2: anti-aliased)")
    add(
        "--unlabelled-share",
        type=float,
        default=0.0,
        metavar="X",
        help="hide the cameras of this share of clips, to try joint training (default 0)",
    )
    add(
        "--take-frames",
        type=int,
        default=0,
        metavar="T",
        help="places to explore: clips are windows of takes of T frames, up to 500 (docs/worlds.md)",
    )
    add(
        "--windows-per-take",
        type=int,
        default=1,
        metavar="W",
        help="clips of each of the N takes (default 1)",
    )
    add("--layout", metavar="NAME", help="of places: garden, rooms or town (default: drawn)")
    add("--route", metavar="NAME", help="of takes through places, such as loop (default: drawn)")
    add("--workers", type=int, metavar="N", help="processes that sample scenes (default: by count)")


def _add_videos(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--source", type=Path, required=True, metavar="PATH", help="see above")
    _add_clip(command)
    add("--poses", type=Path, metavar="PATH", help="see above; without it all clips are unlabelled")
    add("--metric", action="store_true", help="the poses' translations are metres")
    add_reading_options(add)
    add(
        "--poses-of",
        choices=("auto", "shown", "stored"),
        default="auto",
        help="whether poses of turned or mirrored pictures belong to them as shown or as stored (default "
        "auto: by upright or lying in the size that the pose file tells, else as shown; pixels that are not "
        "square count as they are stored)",
    )
    add("--captions", type=Path, metavar="PATH", help="see above; without it captions are empty")
    add("--min-frames", type=int, default=17, metavar="T", help="shortest clip to keep, 4k+1 (default 17)")
    add("--stride", type=int, metavar="N", help="frames between clip starts (default: --frames)")
    add("--image-fps", type=float, metavar="F", help="rate of image folders (default: --fps)")
    add("--stills", action="store_true", help="every image is a clip of one frame")
    add(
        "--every-folder",
        action="store_true",
        help="take folders that accompany others as sources, too: reduced copies, masks, depth",
    )
    add("--max-bad-share", type=float, default=0.2, metavar="X", help="stop beyond this share (default 0.2)")


def _add_latents(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--source", type=Path, required=True, nargs="+", metavar="DIR", help="datasets with videos")
    _add_target(command)
    _add_stored(command, needs_latents=True)
    add("--shard", default="0/1", metavar="K/N", help="see above (default: everything)")
    add("--batch", type=int, default=4, metavar="N", help="clips in one call (default 4)")
    add("--workers", type=int, default=4, metavar="N", help="decoding threads (default 4)")
    add(
        "--max-bad-share", type=float, default=0.05, metavar="X", help="fail beyond this share (default 0.05)"
    )


def _add_target(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="dataset folder to write; must not exist yet")
    add("--overwrite", action="store_true", help="replace the dataset that is at --out")


def _add_clip(command: argparse.ArgumentParser) -> None:
    _add_target(command)
    add = command.add_argument
    add("--frames", type=int, default=49, metavar="T", help="frames per clip, 4k+1 (default 49)")
    add("--fps", type=float, default=12.0, metavar="F", help="frames per second of the clips (default 12)")
    add("--height", type=int, default=96, metavar="H", help="pixels, a multiple of 16 (default 96)")
    add("--width", type=int, default=160, metavar="W", help="pixels, a multiple of 16 (default 160)")
    add("--crf", type=float, default=12.0, metavar="Q", help="mp4 quality, lower is better (default 12)")
    _add_stored(command)


def _add_stored(command: argparse.ArgumentParser, needs_latents: bool = False) -> None:
    add = command.add_argument
    add(
        "--latents",
        metavar="SPEC",
        required=needs_latents,
        help="store latents of this VAE in place of video: 'default', a run directory or a weights folder",
    )
    add(
        "--text-embeddings",
        type=Path,
        metavar="FILE",
        help="store embeddings of the captions too, from a file of precomputed text",
    )


if __name__ == "__main__":
    sys.exit(main())
