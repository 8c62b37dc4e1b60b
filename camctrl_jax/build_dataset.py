"""Build a dataset of annotated clips: ``python -m camctrl_jax.build_dataset COMMAND --out DIR ...``."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from camctrl_jax import __version__

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

  # training on both, four labelled clips to one unlabelled: see configs/stage1.py
"""

_VIDEOS = """\
Cut videos into clips: pick frames at --fps by their time stamps, resize to cover --height x --width, crop the
centre (intrinsics follow), and pair them with poses and captions.

--source    a video (mp4, mov, mkv, webm, avi, ...), an image, a folder of images (the frames of one video),
            or a folder with any of these below it.
--poses     a file for a single source, or a folder with one pose file (or pose folder) per source of the
            same name: RealEstate10K, COLMAP, transforms.json, TUM, MotionCtrl JSON, poses.npy, ... One pose
            per source frame. Sources without a pose file become unlabelled clips.
--captions  a folder with NAME.txt per source (one phrasing per line), one .txt for all, a .json (name -> text
            or list of texts), a .jsonl ({"file": .., "caption": ..}) or a .csv with the columns file and
            caption.

A source that cannot be used (truncated video, wrong number of poses, NaN pose, empty caption file, ...) is
skipped, counted and listed with its reason in report.json, and so are poses and captions whose video is
missing. More than --max-bad-share of them stops the run.
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

Captions are encoded by python -m camctrl_jax.data.encode_text, which takes --shard too; name its file here
with --text-embeddings, or in the configuration of the run.
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    raw = argparse.RawDescriptionHelpFormatter
    main_parser = argparse.ArgumentParser(
        prog="python -m camctrl_jax.build_dataset",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=raw,
    )
    main_parser.add_argument("--version", action="version", version=f"camctrl_jax {__version__}")
    commands = main_parser.add_subparsers(dest="command", required=True, metavar="worlds|videos|latents")

    worlds = commands.add_parser("worlds", help="procedural scenes", description=_WORLDS, formatter_class=raw)
    _add_common(worlds)
    worlds.add_argument("--count", type=int, default=100, metavar="N", help="number of worlds (default 100)")
    worlds.add_argument("--seed", type=int, default=0, metavar="S", help="seeds S to S+N-1 (default 0)")
    worlds.add_argument("--static", action="store_true", help="the same worlds with every object at rest")
    worlds.add_argument(
        "--samples", type=int, default=2, metavar="K", help="KxK rays per pixel (default 2: anti-aliased)"
    )
    worlds.add_argument(
        "--unlabelled-share",
        type=float,
        default=0.0,
        metavar="X",
        help="hide the cameras of this share of clips, to try joint training (default 0)",
    )
    worlds.add_argument(
        "--workers",
        type=int,
        default=None,
        metavar="N",
        help="processes that sample scenes (default: by count)",
    )

    videos = commands.add_parser("videos", help="your own videos", description=_VIDEOS, formatter_class=raw)
    videos.add_argument("--source", required=True, metavar="PATH", help="see above")
    _add_common(videos)
    videos.add_argument("--poses", metavar="PATH", help="see above; without it all clips are unlabelled")
    videos.add_argument("--metric", action="store_true", help="the poses' translations are metres")
    videos.add_argument("--captions", metavar="PATH", help="see above; without it captions are empty")
    videos.add_argument(
        "--min-frames", type=int, default=17, metavar="T", help="shortest clip to keep, 4k+1 (default 17)"
    )
    videos.add_argument(
        "--stride", type=int, default=None, metavar="N", help="frames between clip starts (default: --frames)"
    )
    videos.add_argument(
        "--image-fps", type=float, default=None, metavar="F", help="rate of image folders (default: --fps)"
    )
    videos.add_argument("--stills", action="store_true", help="every image is a clip of one frame")
    videos.add_argument(
        "--max-bad-share", type=float, default=0.2, metavar="X", help="stop beyond this share (default 0.2)"
    )

    latents = commands.add_parser(
        "latents", help="a dataset's latents", description=_LATENTS, formatter_class=raw
    )
    latents.add_argument("--source", required=True, nargs="+", metavar="DIR", help="datasets with videos")
    _add_target(latents)
    _add_stored(latents, needs_latents=True)
    latents.add_argument("--shard", default="0/1", metavar="K/N", help="see above (default: everything)")
    latents.add_argument("--batch", type=int, default=4, metavar="N", help="clips in one call (default 4)")
    latents.add_argument("--workers", type=int, default=4, metavar="N", help="decoding threads (default 4)")
    latents.add_argument(
        "--max-bad-share", type=float, default=0.05, metavar="X", help="fail beyond this share (default 0.05)"
    )
    return main_parser


def _add_target(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--out", required=True, metavar="DIR", help="dataset folder to write; must not exist yet")
    add("--overwrite", action="store_true", help="replace the dataset that is at --out")


def _add_common(command: argparse.ArgumentParser) -> None:
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
        metavar="NPZ",
        help="store embeddings of the captions too, from a file of precomputed text",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = parser().parse_args(argv)
    # A terminated build removes its unfinished folder on the way out.
    previous = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    from camctrl_jax.data.bad_clips import ClipError, TooManyBadClips
    from camctrl_jax.data.clips.writing import EmptyDataset

    try:
        build(arguments)
    except (ClipError, TooManyBadClips, EmptyDataset, OSError, ValueError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        signal.signal(signal.SIGTERM, previous)
    return 0


def build(arguments: argparse.Namespace) -> None:
    """Build the dataset that the parsed ``arguments`` ask for and print where it is."""
    import tensorflow_datasets as tfds

    from camctrl_jax.data.bad_clips import SkipTally, TooManyBadClips
    from camctrl_jax.data.clips.dataset import is_dataset, open_clips
    from camctrl_jax.data.clips.writing import EmptyDataset, check_target, write_clips
    from camctrl_jax.data.encode_clips import encoded_records, job_digest, shard_folder

    tfds.disable_progress_bar()  # progress is counted in worlds, videos and clips, below
    max_bad_share = getattr(arguments, "max_bad_share", 0.0)
    job = None
    if arguments.command == "latents":
        datasets, shard = _latent_sources(arguments)
        text_file = arguments.text_embeddings
        job = job_digest(datasets, None if text_file is None else Path(text_file), shard)
        # The whole shard is judged at its end: decoding a bad clip costs little.
        tally = SkipTally(max_bad_share, minimum=len(shard.of(sum(map(len, datasets)))))
        out = shard_folder(Path(arguments.out), shard)
        encoder = _encoder(arguments.latents)
        if is_dataset(out) and not arguments.overwrite:
            made = open_clips(out).report()
            if (made.get("job"), made.get("latents_of")) == (job, encoder.fingerprint()):
                print(f"{out} is complete: nothing to do")
                return
        check_target(out, arguments.overwrite)
    else:
        if not 0 <= arguments.crf <= 51:
            raise ValueError(f"--crf {arguments.crf:g}: expected a quality from 0 (lossless) to 51 (worst).")
        tally = SkipTally(max_bad_share)
        out = check_target(arguments.out, arguments.overwrite)  # before any work is done
        encoder = _encoder(arguments.latents)
    totals = {"clips": 0, "frames": 0, "labelled": 0}
    started = time.monotonic()

    def counted(records):
        for record in records:
            totals["clips"] += 1
            totals["frames"] += record.num_frames
            totals["labelled"] += record.labelled
            yield record

    def report() -> dict[str, Any]:
        return {
            "version": __version__,
            "settings": {name: value for name, value in vars(arguments).items() if name != "overwrite"},
            "latents_of": None if encoder is None else encoder.fingerprint(),
            **({} if job is None else {"job": job}),
            "totals": totals,
            "sources": {"used": tally.used, "skipped": len(tally.skipped)},
            "skipped_by_reason": tally.by_reason(),
            "skipped": [vars(skipped) for skipped in tally.skipped],
            "annotations_without_video": tally.unmatched,
            "remarks_on_poses": tally.remarks,
        }

    if arguments.command == "worlds":
        records = _world_records(arguments, encoder)
    elif arguments.command == "latents":
        records = encoded_records(
            datasets,
            shard,
            encoder,
            tally,
            batch=arguments.batch,
            workers=arguments.workers,
            text=_text(arguments.text_embeddings),
            progress=_progress("clips"),
        )
    else:
        records = _video_records(arguments, tally, encoder)
    try:
        count = write_clips(out, counted(records), report=report, overwrite=arguments.overwrite)
    except (TooManyBadClips, EmptyDataset) as error:
        if not tally.skipped:
            raise
        listing = _failed_report(out, report())
        raise type(error)(f"{error} All skipped sources: {listing}") from error
    seconds = time.monotonic() - started
    print(
        f"{count} clips ({totals['labelled']} labelled, {totals['frames']} frames) in {seconds:.0f} s, "
        f"{len(tally.skipped)} sources skipped{': ' * bool(tally.skipped)}{tally.describe_reasons()}"
    )
    if tally.unmatched:
        print(f"{len(tally.unmatched)} pose or caption entries belong to no source; the report lists them")
    if tally.remarks:
        print(f"{len(tally.remarks)} remarks on pose files are in the report; the first: {tally.remarks[0]}")
    print(f"dataset: {out}")
    print(f"report:  {out / 'report.json'}")


def _latent_sources(arguments: argparse.Namespace) -> tuple[list[Any], Any]:
    """The datasets to encode, opened and checked, and the shard."""
    from camctrl_jax.data.clips import dataset_folders, open_clips
    from camctrl_jax.data.encode_clips import check_request
    from camctrl_jax.data.shards import Shard

    for name in ("batch", "workers"):
        if getattr(arguments, name) < 1:
            raise ValueError(f"--{name} {getattr(arguments, name)}: expected 1 or more.")
    shard = Shard.parse(arguments.shard)
    datasets = [open_clips(part) for folder in arguments.source for part in dataset_folders(folder)]
    check_request(datasets, Path(arguments.out), shard, arguments.text_embeddings is not None)
    return datasets, shard


def _failed_report(out: Path, report: dict[str, Any]) -> Path:
    from camctrl_jax.camera.formats.atomic import write_text

    path = out.with_name(f"{out.name}.failed.json")
    write_text(path, json.dumps(report, indent=2) + "\n")
    return path


def _encoder(spec: str | None) -> Any:
    """The latent encoder of a weights spec, or None."""
    if spec is None:
        return None
    from camctrl_jax.data.latents import LatentEncoder
    from camctrl_jax.interop.pretrained import load_vae

    return LatentEncoder(*load_vae(spec))


def _text(path: str | None) -> Any:
    """The precomputed text of a file, or None."""
    if path is None:
        return None
    from camctrl_jax.data.text import PrecomputedText

    return PrecomputedText.load(path)


def _progress(what: str) -> Callable[[int, int], None]:
    """Prints a line to stderr every few seconds."""
    started = last = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= 5.0 or done == total:
            last = now
            left = (now - started) / max(done, 1) * (total - done)
            print(f"{done}/{total} {what}, {left:.0f} s left", file=sys.stderr, flush=True)

    return show


def _world_records(arguments: argparse.Namespace, encoder: Any) -> Any:
    from camctrl_jax.data.clips.record import check_clip_shape
    from camctrl_jax.data.worlds_clips import world_records
    from camctrl_jax.worlds import WorldsConfig

    check_clip_shape(arguments.frames, arguments.height, arguments.width)
    if arguments.count < 1 or arguments.seed < 0:
        raise ValueError(
            f"--count {arguments.count} --seed {arguments.seed}: expected at least 1 world, no negative seed."
        )
    if not 0 <= arguments.unlabelled_share <= 1:
        raise ValueError(f"--unlabelled-share {arguments.unlabelled_share:g}: expected a share from 0 to 1.")
    if arguments.workers is not None and arguments.workers < 0:
        raise ValueError(f"--workers {arguments.workers}: expected 0 (no processes) or more.")
    return world_records(
        range(arguments.seed, arguments.seed + arguments.count),
        height=arguments.height,
        width=arguments.width,
        config=WorldsConfig(frames=arguments.frames, fps=arguments.fps, static=arguments.static),
        samples=arguments.samples,
        encoder=encoder,
        crf=arguments.crf,
        unlabelled_share=arguments.unlabelled_share,
        text=_text(arguments.text_embeddings),
        workers=arguments.workers,
        progress=_progress("worlds"),
    )


def _video_records(arguments: argparse.Namespace, tally: Any, encoder: Any) -> Any:
    from camctrl_jax.data.video import IMAGE_SUFFIXES
    from camctrl_jax.data.video_clips import Captions, CutSettings, Poses, find_sources, video_records

    root = Path(arguments.source)
    stills = arguments.stills or root.suffix.lower() in IMAGE_SUFFIXES
    settings = CutSettings(
        fps=arguments.fps,
        frames=1 if stills else arguments.frames,
        min_frames=1 if stills else min(arguments.min_frames, arguments.frames),
        stride=arguments.stride,
        height=arguments.height,
        width=arguments.width,
        image_fps=arguments.image_fps,
        crf=arguments.crf,
    )
    sources = find_sources(root, stills=stills)
    if arguments.poses and len(sources) > 1 and Path(arguments.poses).is_file():
        raise ValueError(
            f"--poses {arguments.poses} is one file, but {root} holds {len(sources)} sources: name a folder "
            "with a pose file of the same name for each."
        )
    return video_records(
        sources,
        root,
        settings,
        tally,
        poses=Poses(arguments.poses, metric=arguments.metric) if arguments.poses else None,
        captions=Captions(arguments.captions) if arguments.captions else None,
        text=_text(arguments.text_embeddings),
        encoder=encoder,
        progress=_progress("sources"),
    )


if __name__ == "__main__":
    sys.exit(main())
