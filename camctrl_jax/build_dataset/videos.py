"""``build_dataset videos``: videos and image folders of one's own, cut into clips."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from camctrl_jax.build_dataset.building import Building, ClipOptions, show_progress
from camctrl_jax.data.bad_clips import SkipTally
from camctrl_jax.data.clips.writing import check_target
from camctrl_jax.data.video_clips import Captions, CutSettings, Poses, find_sources, video_records
from camctrl_jax.errors import InvalidValue
from camctrl_jax.video.decoding import IMAGE_SUFFIXES


@dataclass(frozen=True, kw_only=True)
class VideosOptions(ClipOptions):
    """What the command line asks for.

    Attributes:
        source: a video, an image, a folder of images, or a folder with any of these below it.
        poses: a file for a single source, or a folder with one of the same name for each.
        metric: the poses' translations are metres.
        captions: a file, or a folder with one of the same name for each.
        min_frames: shortest clip to keep.
        stride: frames from the start of one clip to the next; None is ``frames``.
        image_fps: rate of image folders; None is ``fps``.
        stills: every image is a clip of one frame.
        max_bad_share: stop beyond this share of sources that cannot be used.
    """

    source: Path
    poses: Path | None = None
    metric: bool = False
    captions: Path | None = None
    min_frames: int = 17
    stride: int | None = None
    image_fps: float | None = None
    stills: bool = False
    max_bad_share: float = 0.2


def build(options: VideosOptions) -> None:
    """Build the dataset and print where it is."""
    tally = SkipTally(options.max_bad_share)
    out = check_target(options.out, options.overwrite)  # before any work is done
    stills = options.stills or options.source.suffix.lower() in IMAGE_SUFFIXES
    settings = CutSettings(
        fps=options.fps,
        frames=1 if stills else options.frames,
        min_frames=1 if stills else min(options.min_frames, options.frames),
        stride=options.stride,
        height=options.height,
        width=options.width,
        image_fps=options.image_fps,
        crf=options.crf,
    )
    sources = find_sources(options.source, stills=stills)
    if options.poses and len(sources) > 1 and options.poses.is_file():
        raise InvalidValue(
            f"--poses {options.poses} is one file, but {options.source} holds {len(sources)} sources: name a "
            "folder with a pose file of the same name for each."
        )
    encoder = options.encoder()
    records = video_records(
        sources,
        options.source,
        settings,
        tally,
        poses=Poses(options.poses, metric=options.metric) if options.poses else None,
        captions=Captions(options.captions) if options.captions else None,
        text=options.text(),
        encoder=encoder,
        progress=show_progress("sources"),
    )
    Building("videos", options, out, tally, encoder).write(records)
