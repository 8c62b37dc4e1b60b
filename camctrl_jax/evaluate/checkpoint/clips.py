"""The true clips: cut, framed and written down once, each with its pose file, before anything is sampled.

``reference/NAME.mp4`` is lossless and ``cameras/NAME.txt`` has a pose for each of its frames: both are what
the model is given and compared with, and what ``evaluate videos`` takes for another model on these clips.
``prepared/NAME.json`` says what they were made of; clips whose sources have not changed are kept.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from camctrl_jax.camera import Cameras, load_cameras, save_cameras
from camctrl_jax.camera.framing import Framing
from camctrl_jax.clip_shape import ClipShape
from camctrl_jax.data.bad_clips import SkipTally
from camctrl_jax.data.captions import Captions
from camctrl_jax.data.clip_sets import ClipSets
from camctrl_jax.data.clips import ClipRecord
from camctrl_jax.data.pose_files import Poses
from camctrl_jax.data.sources import below, find_sources, pictures_of
from camctrl_jax.data.text import MissingText, TextEmbedder
from camctrl_jax.data.video_clips import CutSettings, SourceNotes, cut_source
from camctrl_jax.errors import ClipError, InvalidValue, UserError
from camctrl_jax.evaluate.checkpoint.settings import CheckpointSettings
from camctrl_jax.files.atomic import written_file
from camctrl_jax.files.json_file import read_json, write_json
from camctrl_jax.video.decoding import read_video
from camctrl_jax.video.encoding import encode_mp4

Say = Callable[[str], None]
REFERENCE, CAMERAS, PREPARED = "reference", "cameras", "prepared"
_FORMAT = 1  # of what is prepared; counts up where the same sources give other clips


@dataclass(frozen=True)
class TrueClip:
    """One clip with its camera path.

    Attributes:
        name: of its files.
        source: where it comes from, in words.
        caption: its first phrasing, or "".
        fps: frames per second.
        digest: of the bytes of its video and its pose file, and of the caption.
    """

    name: str
    source: str
    caption: str
    fps: float
    digest: str

    def video(self, out: Path) -> np.ndarray:
        """u8 [T, H, W, 3], exactly what was cut."""
        return read_video(self.video_file(out))

    def cameras(self, out: Path) -> Cameras:
        """T poses, those of the pose file."""
        return load_cameras(self.cameras_file(out))

    def video_file(self, out: Path) -> Path:
        """Its lossless video."""
        return out / REFERENCE / f"{self.name}.mp4"

    def cameras_file(self, out: Path) -> Path:
        """Its pose file."""
        return out / CAMERAS / f"{self.name}.txt"


@dataclass
class TrueClips:
    """All clips of an evaluation.

    Attributes:
        clips: those that can be used, in order.
        failed: what cannot be used: (reason, message) by name. Counted, never dropped.
        remarks: what was assumed, as sentences.
    """

    clips: list[TrueClip] = field(default_factory=list)
    failed: dict[str, tuple[str, str]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


def prepare_clips(
    settings: CheckpointSettings, shape: ClipShape, embedder: TextEmbedder, say: Say
) -> TrueClips:
    """Cut, frame and write all clips.

    Args:
        settings: resolved.
        shape: of a clip; of an exploration, of all of its clips together.
        embedder: what will embed the captions.
        say: called with a line of progress.

    Raises:
        UserError: there is nothing to sample; says why of what was looked at. Also where ``out`` holds clips
            of another evaluation: they would be measured as clips without a sample.
    """
    made = TrueClips()
    jobs = _of_dataset(settings, shape)
    if settings.videos is not None:
        jobs = _of_videos(settings, shape, made.remarks)
    for number, job in enumerate(jobs, start=1):
        if settings.count is not None and len(made.clips) >= settings.count:
            break
        wanted = settings.per_video
        if settings.count is not None:
            wanted = min(wanted, settings.count - len(made.clips))
        _run(job, wanted, settings, embedder, made)
        if number % 50 == 0:
            say(f"looked at {number} videos or clips: {len(made.clips)} clips, {len(made.failed)} failed")
    if not made.clips:
        reasons = {}
        for reason, message in made.failed.values():
            reasons.setdefault(reason, message)
        first = " ".join(reasons.values())
        raise InvalidValue(f"None of {len(made.failed)} videos or clips can be used. {first}")
    _check_folder(settings.out, made)
    return made


def _check_folder(out: Path, made: TrueClips) -> None:
    names = {clip.name for clip in made.clips}
    for folder in (REFERENCE, CAMERAS):
        there = [path.stem for path in (out / folder).iterdir() if not path.name.startswith(".")]
        others = sorted(set(there) - names)
        if others:
            gone = next((name for name in others if name in made.failed), None)
            why = "" if gone is None else f" {gone} was there and cannot be used now: {made.failed[gone][1]}"
            raise InvalidValue(
                f"--out {out}: {folder}/ holds clips that are not asked for ({len(others)}, such as "
                f"{others[0]}): choose another folder, or ask for the same clips and more.{why}"
            )


@dataclass(frozen=True)
class _Job:
    """What gives some clips.

    Attributes:
        name: of its entry and, with a number behind it, of its clips.
        key: what its clips depend on, JSON-able; raises ClipError.
        records: gives at most so many clips, whose videos are lossless, and remarks to the list that it is
            given; raises ClipError.
    """

    name: str
    key: Callable[[], dict[str, Any]]
    records: Callable[[int, list[str]], Iterator[ClipRecord]]


def _run(
    job: _Job, wanted: int, settings: CheckpointSettings, embedder: TextEmbedder, made: TrueClips
) -> None:
    """Add a job's clips, or why there are none. Nothing is written of a job that fails half-way."""
    path = settings.out / PREPARED / f"{job.name}.json"
    remarks: list[str] = []
    records: list[ClipRecord] = []
    try:
        key = json.loads(json.dumps(job.key() | {"wanted": wanted}))
        entry = _kept(path, key, settings.out)
        if entry is None:
            records = list(job.records(wanted, remarks))
        for record in records:
            _check_cameras(record)
        for caption in [record.captions[0] for record in records] + _captions(entry):
            _check_caption(caption, job.name, settings, embedder)
    except ClipError as error:
        made.failed[job.name] = (error.reason, str(error))
        return
    except (UserError, OSError) as error:
        made.failed[job.name] = ("unusable", str(error))
        return
    if entry is None:
        names = [f"{job.name}_{number}" if number else job.name for number in range(len(records))]
        twice = next((clip.name for clip in made.clips if clip.name in names), None)
        if twice is not None:
            raise InvalidValue(f"two clips would share the name {twice}: rename one of their videos.")
        clips = [_written(record, name, settings) for record, name in zip(records, names, strict=True)]
        entry = {"key": key, "clips": [asdict(clip) for clip in clips], "remarks": remarks}
        write_json(path, entry)
    made.clips += [TrueClip(**values) for values in entry["clips"]]
    made.remarks += entry["remarks"]


def _captions(entry: dict[str, Any] | None) -> list[str]:
    return [] if entry is None else [clip["caption"] for clip in entry["clips"]]


def _kept(path: Path, key: dict[str, Any], out: Path) -> dict[str, Any] | None:
    """The entry of clips that are there already, made of the same."""
    if not path.exists():
        return None
    try:
        entry = read_json(path)
        clips = [TrueClip(**values) for values in entry["clips"]]
        same = entry["key"] == key and all(clip.digest == _digest(clip, out) for clip in clips)
    except (UserError, KeyError, TypeError, OSError):  # damaged, or files are gone: made anew
        return None
    return entry if same else None


def _digest(clip: TrueClip, out: Path) -> str:
    digest = hashlib.sha256(clip.caption.encode())
    for file in (clip.video_file(out), clip.cameras_file(out)):
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _written(record: ClipRecord, name: str, settings: CheckpointSettings) -> TrueClip:
    """Write the two files of a clip."""
    clip = TrueClip(name, record.source, record.captions[0], record.fps, "")
    # Seen from its first frame, in the unit of the model: what is asked of it and measured by.
    cameras = record.cameras.orthonormalised().relative_to(0).scaled(settings.camera_scale)
    cameras = replace(cameras, times=np.arange(len(cameras)) / record.fps)
    with written_file(clip.video_file(settings.out)) as file:
        file.write(record.video)
    save_cameras(cameras, clip.cameras_file(settings.out))
    return replace(clip, digest=_digest(clip, settings.out))


def _check_cameras(record: ClipRecord) -> None:
    if record.cameras is None:
        raise ClipError(
            "no_cameras", f"{record.source or record.id}: has no camera path, and the model is to follow one."
        )


def _check_caption(caption: str, name: str, settings: CheckpointSettings, embedder: TextEmbedder) -> None:
    if "t2v" in settings.tasks and not caption:
        raise ClipError("no_caption", f"{name}: has no caption, and --tasks t2v makes clips from one.")
    try:
        embedder.embed([caption])
    except MissingText as error:
        raise ClipError("no_text_embedding", f"{name}: {error}") from error


# ------------------------------------------------------------------------------------------- videos of a user


def _of_videos(settings: CheckpointSettings, shape: ClipShape, remarks: list[str]) -> Iterator[_Job]:
    """Jobs; ``remarks`` takes what is left out at once and, at the end, what was asked for by no video."""
    root = settings.videos
    found = find_sources(root, option="--videos")
    poses = Poses(
        settings.cameras,
        found.sources,
        root,
        reading=settings.reading,
        poses_of=settings.poses_of,
        option="--cameras",
    )
    captions = Captions(settings.captions) if settings.captions is not None else None
    cut = CutSettings(
        fps=settings.fps,
        frames=shape.frames,
        min_frames=shape.frames,
        height=shape.height,
        width=shape.width,
        image_fps=settings.image_fps,
        crf=None,
    )
    remarks += [f"{each.path}: not taken, {each.why}" for each in found.left_out]
    remarks += [f"{copy}: has the same bytes as {first}; both count" for copy, first in found.copies]
    remarks += [f"{folder}: {remark}" for folder, remark in found.remarks]
    located: set[Path] = set()
    for path, reason, message in found.broken:
        yield _broken(path, reason, message)
    for source, name in zip(found.sources, _names(found.sources, root), strict=True):
        yield _video(source, name, root, cut, poses, captions, settings, located)
    # Clips that are kept from an earlier run did not ask ``poses`` for them again.
    within = located | {folder for each in located for folder in each.parents}
    unused = [each for each in poses.unmatched() if Path(each) not in within and poses.path not in located]
    unused += captions.unmatched() if captions is not None else []
    remarks += [f"{each}: belongs to no video" for each in unused]


def _names(sources: Sequence[Path], root: Path) -> list[str]:
    """A file name for each: its place without suffix, with it where two would be the same."""
    places = [below(source, root) for source in sources]
    stems = [
        "__".join(place.with_suffix("").parts) if place.suffix else "__".join(place.parts) for place in places
    ]
    count = Counter(stems)
    names = [
        stem if count[stem] == 1 else "__".join(place.parts).replace(".", "_")
        for stem, place in zip(stems, places, strict=True)
    ]
    twice = next((name for name, number in Counter(names).items() if number > 1), None)
    if twice is not None:
        clash = [str(source) for source, name in zip(sources, names, strict=True) if name == twice]
        raise InvalidValue(f"--videos: {' and '.join(clash[:2])} would share the name {twice}: rename one.")
    return names


def _broken(path: str, reason: str, message: str) -> _Job:
    def key() -> dict[str, Any]:
        raise ClipError(reason, message)

    return _Job(path, key, lambda wanted, remarks: iter(()))  # fails before the name becomes a file's


def _video(
    source: Path,
    name: str,
    root: Path,
    cut: CutSettings,
    poses: Poses,
    captions: Captions | None,
    settings: CheckpointSettings,
    located: set[Path],
) -> _Job:
    """The job of one video; ``located`` takes its pose file."""

    def key() -> dict[str, Any]:
        file = poses.locate(source)
        if file is None:
            raise ClipError(
                "no_cameras",
                f"{source}: {settings.cameras} holds no pose file of its name, and the model is to follow "
                "one.",
            )
        located.add(file)
        files = [
            *(pictures_of(source) or [source]),
            *_files(Path(str(file).rpartition("#")[0] or file)),
        ]
        return {
            "format": _FORMAT,
            "cut": asdict(cut),
            "reading": asdict(settings.reading),
            "poses_of": settings.poses_of,
            "camera_scale": settings.camera_scale,
            "files": [[str(file.absolute()), file.stat().st_size, file.stat().st_mtime_ns] for file in files],
            "captions": [""] if captions is None else captions.find(source, root),
        }

    def records(wanted: int, remarks: list[str]) -> Iterator[ClipRecord]:
        notes, tally = SourceNotes(), SkipTally(1.0, what="videos")
        clips = cut_source(source, root, cut, notes, tally, poses=poses, captions=captions)
        yield from itertools.islice(clips, wanted)
        remarks += [*tally.remarks, *(f"{source}: {remark}" for remark in notes.media)]

    return _Job(name, key, records)


def _files(path: Path) -> list[Path]:
    return sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]


# ----------------------------------------------------------------------------------------- a dataset of clips


def _of_dataset(settings: CheckpointSettings, shape: ClipShape) -> Iterator[_Job]:
    sets = ClipSets.open([str(settings.dataset)], [])
    if sets.latents:
        raise InvalidValue(
            f"--dataset {settings.dataset}: holds latents in place of videos, and there is nothing to "
            "compare pictures with: name the dataset that they were made of."
        )
    if not sets.labelled().any():
        raise InvalidValue(
            f"--dataset {settings.dataset}: none of its {len(sets)} clips has a camera path (build_dataset "
            "videos --poses, or build_dataset worlds, make such)."
        )
    ids = sets.column("id").tolist()
    names = ["".join(c if c.isalnum() or c in "-_" else "_" for c in each).strip("_") for each in ids]
    count = Counter(names)
    for number, name in enumerate(names):
        yield _record(sets, number, f"{name}_{number}" if count[name] > 1 else name, shape, settings)


def _record(sets: ClipSets, number: int, name: str, shape: ClipShape, settings: CheckpointSettings) -> _Job:
    def key() -> dict[str, Any]:
        record = sets.record(number)
        _check_cameras(record)
        _check_record(record, shape, settings.fps)
        return {
            "format": _FORMAT,
            "shape": asdict(shape),
            "camera_scale": settings.camera_scale,
            "id": record.id,
            "video": hashlib.sha256(record.video).hexdigest(),
            "cameras": hashlib.sha256(record.cameras.world_from_camera.tobytes()).hexdigest(),
            "intrinsics": hashlib.sha256(record.cameras.intrinsics.tobytes()).hexdigest(),
            "captions": record.captions,
        }

    def records(wanted: int, remarks: list[str]) -> Iterator[ClipRecord]:
        record = sets.record(number)
        size, target = (record.height, record.width), (shape.height, shape.width)
        framing = Framing.cover(size, target)
        video = read_video(
            record.video,
            frames=shape.frames,
            size=size,
            framing=None if size == target else framing,
            name=record.id,
        )
        cameras = record.cameras[: shape.frames]
        yield replace(
            record,
            num_frames=shape.frames,
            height=shape.height,
            width=shape.width,
            cameras=cameras.with_intrinsics(framing.intrinsics(cameras.intrinsics)),
            video=encode_mp4(video, record.fps, crf=None),
        )

    return _Job(name, key, records)


def _check_record(record: ClipRecord, shape: ClipShape, fps: float) -> None:
    """As training sorts clips out: none is shortened to less, played at another rate, or enlarged."""
    if record.num_frames < shape.frames:
        raise ClipError("too_short", f"{record.id}: {record.num_frames} frames; {shape.frames} are needed.")
    if abs(record.fps / fps - 1.0) >= 0.05:
        raise ClipError(
            "other_rate", f"{record.id}: {record.fps:g} fps; the clips are to have {fps:g} (--fps)."
        )
    if record.height < shape.height or record.width < shape.width:
        raise ClipError(
            "too_small",
            f"{record.id}: {record.height}x{record.width} pixels, less than {shape.height}x{shape.width}.",
        )
