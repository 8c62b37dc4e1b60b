"""What every way of building a dataset shares: options, counting, the report, the end of the work."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from camctrl_jax import __version__
from camctrl_jax.build_dataset.listing import many
from camctrl_jax.checkpoints.weights import load_vae
from camctrl_jax.data.bad_clips import SkipTally, TooManyBadClips
from camctrl_jax.data.clips.record import ClipRecord
from camctrl_jax.data.clips.writing import EmptyDataset, write_clips
from camctrl_jax.data.text import PrecomputedText
from camctrl_jax.errors import InvalidValue
from camctrl_jax.files.json_file import write_json
from camctrl_jax.models.autoencoder import Autoencoder, compute_dtype

tfds.disable_progress_bar()  # progress is counted in worlds, videos and clips, below

ENCODED_TOGETHER = 16  # clips in one call of the autoencoder
_REMARKS_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """Of every command.

    Attributes:
        out: dataset folder to write.
        overwrite: replace the dataset that is there.
        latents: weights spec of the autoencoder whose latents are stored in place of video.
        text_embeddings: file of precomputed text; embeddings of the captions are stored too.
    """

    out: Path
    overwrite: bool = False
    latents: str | None = None
    text_embeddings: Path | None = None

    def encoder(self) -> Autoencoder | None:
        """What makes the latents."""
        if self.latents is None:
            return None
        return Autoencoder(*load_vae(self.latents), compute_dtype(), ENCODED_TOGETHER)

    def text(self) -> PrecomputedText | None:
        """Embeddings of the captions."""
        return None if self.text_embeddings is None else PrecomputedText.load(self.text_embeddings)


@dataclass(frozen=True, kw_only=True)
class ClipOptions(BuildOptions):
    """Of commands that make new clips: their frames, rate, size in pixels, and the quality of their mp4."""

    frames: int = 49
    fps: float = 12.0
    height: int = 96
    width: int = 160
    crf: float = 12.0

    def __post_init__(self) -> None:
        if not 0 <= self.crf <= 51:
            raise InvalidValue(f"--crf {self.crf:g}: expected a quality from 0 (lossless) to 51 (worst).")


@dataclass
class Building:
    """One dataset on its way.

    Attributes:
        command: its name, for the report.
        options: as asked for, for the report.
        out: where it goes, checked.
        tally: counts sources.
        encoder: what makes latents of the clips, if anything does.
        job: identifies what all shards of a job are made of.
        more: what the report says besides; called when it is written.
        closing: further lines to print at the end.
        totals: of the clips so far.
    """

    command: str
    options: BuildOptions
    out: Path
    tally: SkipTally
    encoder: Autoencoder | None
    job: str | None = None
    more: Callable[[], dict[str, Any]] = dict
    closing: Callable[[], Sequence[str]] = tuple
    totals: dict[str, int] = field(default_factory=lambda: {"clips": 0, "frames": 0, "labelled": 0})

    def write(self, records: Iterable[ClipRecord]) -> None:
        """Write the dataset and print where it is.

        Raises:
            TooManyBadClips, EmptyDataset: names the list of what was skipped.
        """
        started, tally = time.monotonic(), self.tally
        try:
            written = write_clips(
                self.out, self._counted(records), report=self.report, overwrite=self.options.overwrite
            )
        except (TooManyBadClips, EmptyDataset) as error:
            if not tally.skipped:
                raise
            listing = self.out.with_name(f"{self.out.name}.failed.json")
            write_json(listing, self.report())
            reasons = ""
            if isinstance(error, EmptyDataset):  # the other one says why
                reasons = f" Skipped: {tally.describe_reasons()}. {tally.describe_first()}"
            raise type(error)(f"{error}{reasons} All skipped sources: {listing}") from error
        seconds = time.monotonic() - started
        print(
            f"{many(written, 'clip')} ({self.totals['labelled']} labelled, {self.totals['frames']} frames) "
            f"in {seconds:.0f} s, {many(len(tally.skipped), 'source')} skipped{': ' * bool(tally.skipped)}"
            f"{tally.describe_reasons()}"
        )
        if tally.unmatched:
            entries = many(len(tally.unmatched), "pose or caption entry", "pose or caption entries")
            print(f"without a source: {entries}; the report lists them")
        if tally.remarks:
            print(f"{many(len(tally.remarks), 'remark')} on pose files, in the report; the first:")
            for remark in tally.remarks[:_REMARKS_SHOWN]:
                print(f"  {remark}")
        for line in self.closing():
            print(line)
        print(f"dataset: {self.out}")
        print(f"report:  {self.out / 'report.json'}")

    def report(self) -> dict[str, Any]:
        """What is known so far, JSON-able."""
        tally = self.tally
        return {
            "version": __version__,
            "settings": {"command": self.command, **_as_json(self.options)},
            "latents_of": None if self.encoder is None else self.encoder.fingerprint(),
            **({} if self.job is None else {"job": self.job}),
            "totals": self.totals,
            "sources": {"used": tally.used, "skipped": len(tally.skipped)},
            "skipped_by_reason": tally.by_reason(),
            "skipped": [vars(skipped) for skipped in tally.skipped],
            "annotations_without_video": tally.unmatched,
            "remarks_on_poses": tally.remarks,
            **self.more(),
        }

    def _counted(self, records: Iterable[ClipRecord]) -> Iterator[ClipRecord]:
        for record in records:
            self.totals["clips"] += 1
            self.totals["frames"] += record.num_frames
            self.totals["labelled"] += record.labelled
            yield record


def _as_json(options: BuildOptions) -> dict[str, Any]:
    values = {entry.name: getattr(options, entry.name) for entry in fields(options)}
    del values["overwrite"]
    for name, value in values.items():
        if is_dataclass(value):
            values[name] = asdict(value)
        elif isinstance(value, tuple):
            values[name] = [str(each) for each in value]
        elif isinstance(value, Path):
            values[name] = str(value)
    return values


def show_progress(what: str) -> Callable[[int, int], None]:
    """Prints a line to stderr every few seconds; called with how many are done, and how many there are."""
    started = last = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= 5.0 or done == total:
            last = now
            left = (now - started) / max(done, 1) * (total - done)
            print(f"{done}/{total} {what}, {left:.0f} s left", file=sys.stderr, flush=True)

    return show
