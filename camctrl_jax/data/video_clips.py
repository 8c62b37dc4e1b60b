"""Raw videos to annotated clips: pair the frames with poses and captions, cut, resize and crop.

A source is a video file, a folder of images (its frames) or a single image. One that cannot be used raises
``ClipError`` and costs only itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from camctrl_jax.camera import Cameras
from camctrl_jax.camera.framing import Framing
from camctrl_jax.clip_shape import ClipShape, longest_clip
from camctrl_jax.data.bad_clips import SkipTally
from camctrl_jax.data.captions import Captions
from camctrl_jax.data.clips.record import ClipRecord
from camctrl_jax.data.companions import drawn_within
from camctrl_jax.data.pose_files import Poses, SourcePoses
from camctrl_jax.data.sources import Found, below, pictures_of
from camctrl_jax.data.text import MissingText, PrecomputedText
from camctrl_jax.errors import ClipError, InvalidValue
from camctrl_jax.models.autoencoder import Autoencoder
from camctrl_jax.video.decoding import SourceFrame, read_frames, resample
from camctrl_jax.video.encoding import encode_mp4


@dataclass(frozen=True)
class CutSettings:
    """How videos become clips.

    Attributes:
      fps: frames per second of the clips; frames are picked by time stamps, never blended.
      frames: T = 4k+1, the length of a clip.
      min_frames: what is left at the end of a video is kept, shortened to 4k+1 frames, if it has this many.
      stride: frames from the start of one clip to the start of the next; None is ``frames``: no overlap.
      height, width: size of the clips, multiples of 16; pictures are resized to cover it and cropped to the
        centre.
      image_fps: frames per second that folders of images are taken to have; None is ``fps``.
      crf: quality of the mp4; lower is better and larger; None is lossless.
    """

    fps: float = 12.0
    frames: int = 49
    min_frames: int = 17
    stride: int | None = None
    height: int = 96
    width: int = 160
    image_fps: float | None = None
    crf: float | None = 12.0

    def __post_init__(self) -> None:
        ClipShape(self.frames, self.height, self.width).check()
        ClipShape(self.min_frames, self.height, self.width).check(prefix="min_")
        if self.min_frames > self.frames:
            raise InvalidValue(
                f"min_frames is {self.min_frames}, more than the {self.frames} frames of a clip."
            )
        if self.stride is not None and self.stride < 1:
            raise InvalidValue(f"stride is {self.stride}; expected at least one frame.")
        if not self.fps > 0 or (self.image_fps is not None and not self.image_fps > 0):
            raise InvalidValue(
                f"fps is {self.fps} and image_fps {self.image_fps}; expected positive numbers."
            )


@dataclass
class SourceNotes:
    """What there is to say about sources, besides which were skipped.

    Attributes:
      labelled_sources: how many have clips with cameras.
      labelled_frames: of all clips.
      media: remarks on how sources were decoded, with the sources that each is about.
      pictures_without_pose: by source, the names of pictures that the pose file lacks.
    """

    labelled_sources: int = 0
    labelled_frames: int = 0
    media: dict[str, list[str]] = field(default_factory=dict)
    pictures_without_pose: dict[str, list[str]] = field(default_factory=dict)

    def remark(self, source: Path, remarks: Iterable[str]) -> None:
        """Take remarks on a source; those of a frame mostly say what the one before said."""
        for remark in remarks:
            sources = self.media.setdefault(remark, [])
            if sources[-1:] != [str(source)]:
                sources.append(str(source))


def cut_source(
    source: Path,
    root: Path,
    settings: CutSettings,
    notes: SourceNotes,
    tally: SkipTally,
    *,
    poses: Poses | None = None,
    captions: Captions | None = None,
    text: PrecomputedText | None = None,
    encoder: Autoencoder | None = None,
) -> Iterator[ClipRecord]:
    """The clips of one source, decoded once and never held as a whole.

    Where some pictures have no pose, or are missing by the poses in between, clips are cut from the runs of
    pictures between these places.

    Raises ClipError for a source that cannot be used; nothing is yielded then, unless the damage only shows
    while decoding: clips before a damaged frame are sound.
    """
    phrasings = captions.find(source, root) if captions is not None else ("",)
    embedded: dict[str, np.ndarray] = {}
    if text is not None:
        try:
            vectors, mask = text.embed(phrasings)
        except MissingText as error:
            raise ClipError("no_text_embedding", f"{source}: {error}") from error
        embedded = {"text": vectors.astype(np.float16), "text_mask": mask}
    image_fps = settings.image_fps or settings.fps
    frames = read_frames(source, image_fps=image_fps)
    first = next(frames)
    frames.close()
    pictures = pictures_of(source)
    labels = poses.find(source, pictures, first, tally.remarks) if poses is not None else None
    without_pose: list[str] = []
    if labels is not None:
        without_pose = [picture.name for picture, pose in zip(pictures, labels.pose_of) if pose < 0]
        if without_pose:
            notes.pictures_without_pose[str(source)] = without_pose
    notes.remark(source, filter(None, [drawn_within(pictures)]))
    framing = Framing.cover(first.size, (settings.height, settings.width))

    def record(taken: list[_Taken]) -> ClipRecord:
        kept = longest_clip(len(taken))
        start = taken[0].index
        video = np.stack([each.picture for each in taken[:kept]])
        chosen = None
        if labels is not None:
            poses_taken, lenses, metric = zip(*(each.camera for each in taken[:kept]))
            chosen = Cameras(np.stack(poses_taken), framing.intrinsics(np.stack(lenses)), metric=all(metric))
        return ClipRecord(
            id=f"{below(source, root)}#{start:06d}",
            num_frames=kept,
            height=settings.height,
            width=settings.width,
            fps=settings.fps,
            cameras=chosen,
            captions=phrasings,
            video=None if encoder is not None else encode_mp4(video, settings.fps, crf=settings.crf),
            latents=None
            if encoder is None
            else np.asarray(encoder.encode(video[None], dtype=jnp.float16)[0]),
            source=f"{source} from frame {start}",
            **embedded,
        ).validate()

    longest, made = 0, 0
    decoded = resample(read_frames(source, image_fps=image_fps), settings.fps, str(source))
    for run in _runs(decoded, source, first, labels):
        cutting = _Cutting(settings)
        for frame in run:
            notes.remark(source, frame.remarks)
            if cutting.wants():
                camera = None
                if labels is not None:
                    camera = labels.cameras.camera(frame, labels.pose_of[frame.index])
                cutting.take(_Taken(frame.index, frame.rgb(framing), camera))
            if cutting.full:
                yield record(cutting.clip())
                made += 1
        if cutting.rest:
            yield record(cutting.clip())
            made += 1
        longest = max(longest, cutting.seen)
    if not made:
        lacking = ""
        if without_pose:
            lacking = (
                f" in a row with a pose; {len(without_pose)} of its {len(labels.pose_of)} pictures have "
                f"none, such as {without_pose[0]!r}"
            )
        if labels is not None and (gaps := int(labels.run_of.max())):
            lacking += f"; by the poses in between, pictures are missing in {gaps} places"
        raise ClipError(
            "too_short",
            f"{source}: {longest} frames at {settings.fps:g} fps{lacking}; a clip needs at least "
            f"{settings.min_frames}.",
        )


def _runs(
    frames: Iterator[SourceFrame], source: Path, first: SourceFrame, labels: SourcePoses | None
) -> Iterator[Iterator[SourceFrame]]:
    """The checked frames of a source as runs without a gap, each to be used up before the next."""

    def run_of(frame: SourceFrame) -> int:
        if frame.size != first.size:
            raise ClipError("mixed_sizes", f"{source}: the picture size changes at frame {frame.index}.")
        if labels is None:
            return 0
        if frame.index >= len(labels.pose_of):
            raise ClipError(
                "pose_count", f"{source}: {len(labels.pose_of)} poses, but there is a frame {frame.index}."
            )
        return int(labels.run_of[frame.index])

    for number, run in itertools.groupby(frames, key=run_of):
        if number >= 0:
            yield run


class _Taken(NamedTuple):
    """A frame for a clip: its number in the source, u8 [H, W, 3], and what a pose file says of its camera."""

    index: int
    picture: np.ndarray
    camera: tuple[np.ndarray, np.ndarray, bool] | None


class _Cutting:
    """Cuts one run of pictures: takes them one by one, and says when a clip is there."""

    def __init__(self, settings: CutSettings) -> None:
        self._frames, self._fewest = settings.frames, settings.min_frames
        self._stride = settings.stride or settings.frames
        self._taken: list[_Taken] = []
        self._skip = 0  # frames to pass over before the next clip
        self._unseen = 0  # frames in no clip yet
        self._made = 0
        self.seen = 0

    def wants(self) -> bool:
        """Whether the next frame is for a clip; passes over it if not."""
        self.seen += 1
        passed = self._skip > 0
        self._skip -= passed
        return not passed

    def take(self, frame: _Taken) -> None:
        """The next frame."""
        self._taken.append(frame)
        self._unseen += 1

    @property
    def full(self) -> bool:
        """Whether there is a clip of full length."""
        return len(self._taken) == self._frames

    @property
    def rest(self) -> bool:
        """Whether what is left at the end of the run makes a clip that shows something new."""
        enough = len(self._taken) >= self._fewest
        return enough and (self._unseen >= self._fewest or not self._made)

    def clip(self) -> list[_Taken]:
        """The clip that is there; those of its frames that the next one shares stay."""
        clip = self._taken
        self._skip = max(0, self._stride - self._frames)
        self._taken = self._taken[self._stride :]
        self._unseen = 0
        self._made += 1
        return clip


def video_records(
    found: Found,
    root: Path,
    settings: CutSettings,
    tally: SkipTally,
    notes: SourceNotes,
    *,
    poses: Poses | None = None,
    captions: Captions | None = None,
    text: PrecomputedText | None = None,
    encoder: Autoencoder | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[ClipRecord]:
    """The clips of all sources. Bad ones are skipped and counted in ``tally``, which stops at too many.

    ``progress`` is called with (sources done, sources in all). What else there is to say goes to ``notes``.
    """
    for name, reason, message in found.broken:
        tally.skip(name, ClipError(reason, message))
    for folder, remark in found.remarks:
        notes.remark(folder, [remark])
    for done, source in enumerate(found.sources, start=1):
        made = labelled = 0
        try:
            for record in cut_source(
                source,
                root,
                settings,
                notes,
                tally,
                poses=poses,
                captions=captions,
                text=text,
                encoder=encoder,
            ):
                made += 1
                labelled += record.num_frames if record.labelled else 0
                yield record
            tally.use()
        except ClipError as error:
            if error.reason == "no_pose":  # one picture of many, and the others are sources of their own
                notes.pictures_without_pose.setdefault(str(source.parent), []).append(source.name)
            else:
                before = "clip before that is" if made == 1 else "clips before that are"
                kept = f" The {made} {before} kept." if made else ""
                tally.skip(str(source), ClipError(error.reason, f"{error}{kept}"))
        notes.labelled_sources += labelled > 0
        notes.labelled_frames += labelled
        if progress is not None:
            progress(done, len(found.sources))
    tally.unmatched += [
        name for annotations in (poses, captions) if annotations for name in annotations.unmatched()
    ]
    tally.remarks = list(dict.fromkeys(tally.remarks))  # one pose file may serve many sources
    tally.finish()
