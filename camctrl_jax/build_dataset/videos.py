"""``build_dataset videos``: videos and image folders of one's own, cut into clips."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from camctrl_jax.build_dataset.building import Building, ClipOptions, show_progress
from camctrl_jax.build_dataset.listing import closing_lines, describe_sources, print_sources, report_of
from camctrl_jax.camera.reading import Reading
from camctrl_jax.data.bad_clips import SkipTally
from camctrl_jax.data.captions import Captions
from camctrl_jax.data.clips.writing import check_target
from camctrl_jax.data.pose_files import Poses
from camctrl_jax.data.sources import find_sources
from camctrl_jax.data.video_clips import CutSettings, SourceNotes, video_records
from camctrl_jax.video.decoding import IMAGE_SUFFIXES

AS_IT_SAYS = Reading()


@dataclass(frozen=True, kw_only=True)
class VideosOptions(ClipOptions):
    """What the command line asks for.

    Attributes:
        source: a video, an image, a folder of images, or a folder with any of these below it.
        every_folder: take folders that accompany others (masks, depth, reduced copies) as sources, too.
        poses: a file for a single source or, if it names their pictures, for several folders of pictures; or
            a folder with one of the same name for each source.
        reading: how pose files are read.
        poses_of: whether poses belong to turned pictures as "stored" or as "shown"; "auto" tells by size.
        metric: the poses' translations are metres.
        captions: a file, or a folder with one of the same name for each.
        min_frames: shortest clip to keep.
        stride: frames from the start of one clip to the next; None is ``frames``.
        image_fps: rate of image folders; None is ``fps``.
        stills: every image is a clip of one frame.
        max_bad_share: stop beyond this share of sources that cannot be used.
    """

    source: Path
    every_folder: bool = False
    poses: Path | None = None
    reading: Reading = AS_IT_SAYS
    poses_of: str = "auto"
    metric: bool = False
    captions: Path | None = None
    min_frames: int = 17
    stride: int | None = None
    image_fps: float | None = None
    stills: bool = False
    max_bad_share: float = 0.2


def build(options: VideosOptions) -> None:
    """Build the dataset and print where it is."""
    tally = SkipTally(options.max_bad_share, what="sources")
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
    root = options.source
    found = find_sources(root, stills=stills, every_folder=options.every_folder)
    captions = Captions(options.captions) if options.captions else None
    poses = None
    if options.poses:
        poses = Poses(
            options.poses,
            found.sources,
            root,
            metric=options.metric,
            reading=options.reading,
            poses_of=options.poses_of,
        )
    rows, notes = describe_sources(found, root, poses, captions), SourceNotes()
    print_sources(rows, found)
    encoder = options.encoder()
    records = video_records(
        found,
        root,
        settings,
        tally,
        notes,
        poses=poses,
        captions=captions,
        text=options.text(),
        encoder=encoder,
        progress=show_progress("sources"),
    )
    building = Building("videos", options, out, tally, encoder)
    building.more = lambda: report_of(rows, found, notes, poses)
    building.closing = lambda: closing_lines(notes, poses)
    building.write(records)
