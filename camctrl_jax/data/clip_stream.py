"""Batches from datasets of annotated clips on disk, with Grain.

Per bucket and per pool (labelled, unlabelled): this process's share of the clips -> shuffle -> repeat ->
decode, cut, resize, crop, draw the task. Then the pools are mixed at a fixed ratio, batched, and the
buckets take turns. All of it is a function of one position, so a restored stream continues with identical
batches.
"""

from __future__ import annotations

import functools
import itertools
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import grain  # half a second, which only runs on datasets pay: they alone import this module
import numpy as np
from absl import logging

from camctrl_jax.camera import flip_horizontal
from camctrl_jax.camera.framing import Framing, null_intrinsics, relative_to_first, relative_to_reference
from camctrl_jax.data.bad_clips import TooManyBadClips
from camctrl_jax.data.clip_sets import ClipSets
from camctrl_jax.data.eligibility import KINDS, DatasetReport, Limits, Selection, plan_of
from camctrl_jax.data.positions import Drawn, check_same_clips, differences_of, pool_of
from camctrl_jax.data.randomness import generator_at
from camctrl_jax.data.stream import Batch, Bucket, check_ratio
from camctrl_jax.data.tasks import TaskConfig, draw_tasks
from camctrl_jax.data.text import MissingText, TextEmbedder
from camctrl_jax.errors import ClipError, InvalidValue
from camctrl_jax.video.decoding import read_video

_REPLACEMENTS = 8  # clips tried in the place of one that cannot be decoded
_REPLACED = "replaced"  # element field: numbers of the clips that failed, -1 where none


def _ignore_signals(worker: int, workers: int) -> None:
    """Ctrl-C and a scheduler's SIGTERM reach worker processes, too: the one that trains decides when they
    end, for it still needs batches on its way to a checkpoint.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


@dataclass(frozen=True)
class ClipStreamConfig:
    """What to draw batches from, and how.

    Attributes:
      datasets: dataset folders; each clip says itself whether it is labelled.
      unlabelled: dataset folders whose cameras are ignored.
      buckets: batch shapes; see ``Bucket``. A bucket without a size needs clips of one size.
      labelled_to_unlabelled: exact ratio in every run of that many samples; (1, 0) draws labelled clips
        alone, (0, 1) unlabelled ones; None draws from all clips alike.
      tasks: task weights and dropout.
      seed: of everything random.
      latents_of: fingerprint (``Autoencoder.fingerprint``) of the VAE that cached latents must come from;
        None does not check.
      fps: only clips of this rate (within 5 %) are used; None takes all.
      every_dataset: refuse a dataset of which no clip is drawn in any bucket.
      max_upscale: clips that would have to be enlarged more than this to fill a bucket are not used in it.
      random_crop: crop at a random place instead of the centre; intrinsics follow.
      flip: share of clips mirrored left to right with their cameras. Captions that say left or right turn
        wrong.
      max_bad_share: stop when more than this share of the drawn clips cannot be decoded.
      threads, prefetch: reading threads, and batches held ready.
      workers: decoding processes; 0 decodes in the threads. Processes need a ``__main__`` guard and parsed
        absl flags, and the position they save is valid for the same number of them only.
    """

    datasets: tuple[str, ...]
    buckets: tuple[Bucket, ...]
    unlabelled: tuple[str, ...] = ()
    labelled_to_unlabelled: tuple[int, int] | None = (4, 1)
    tasks: TaskConfig = field(default_factory=TaskConfig)
    seed: int = 0
    latents_of: str | None = None
    fps: float | None = 12.0
    every_dataset: bool = True
    max_upscale: float = 1.0
    random_crop: bool = False
    flip: float = 0.0
    max_bad_share: float = 0.05
    threads: int = 4
    prefetch: int = 4
    workers: int = 0

    def __post_init__(self) -> None:
        if not self.datasets and not self.unlabelled:
            raise InvalidValue("no dataset is given; name folders that build_dataset wrote.")
        if not self.buckets:
            raise InvalidValue("no bucket is given; e.g. buckets=(Bucket(frames=49, batch_size=8),).")
        check_ratio(self.labelled_to_unlabelled)
        for name in ("flip", "max_bad_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InvalidValue(f"{name} is {getattr(self, name)}; expected a share between 0 and 1.")


@dataclass(frozen=True, eq=False)
class _MakeElement:
    """Clip number -> one element of a batch. A Grain random map: ``rng`` depends on the position only."""

    clips: ClipSets
    members: np.ndarray  # the clips of this pool, in which replacements are found
    labelled: bool
    size: tuple[int, int]
    bucket: Bucket
    config: ClipStreamConfig
    embedder: TextEmbedder

    def __call__(self, number: int, rng: np.random.Generator) -> dict[str, Any]:
        failed = np.full(_REPLACEMENTS, -1, np.int32)
        draws = rng.random(5)
        tasks = draw_tasks(self.config.tasks, rng, np.asarray([self.labelled]), self.bucket.latents)
        extends = int(tasks.condition_mask[0].sum()) > 1 and self.config.tasks.reference == "take"
        for attempt in range(_REPLACEMENTS):
            try:
                element = self._element(int(number), draws, bool(tasks.text_dropped[0]), extends)
            except ClipError as error:
                logging.warning("clip %s is replaced: %s", self.clips.name(int(number)), error)
                failed[attempt], last = number, error
                number = self.members[rng.integers(len(self.members))]
                continue
            return element | {
                "camera_valid": tasks.camera_valid[0],
                "condition_mask": tasks.condition_mask[0],
                _REPLACED: failed,
            }
        names = ", ".join(self.clips.name(int(each)) for each in failed)
        raise TooManyBadClips(
            f"{_REPLACEMENTS} clips drawn one after another cannot be decoded: {names}. The last one: {last}"
        )

    def _element(self, number: int, draws: np.ndarray, text_dropped: bool, from_take: bool) -> dict[str, Any]:
        """The sample of a clip; ``from_take``: poses from the first camera of its take, where it has one."""
        record = self.clips.record(number)
        frames, (height, width) = self.bucket.frames, self.size
        choose_caption, choose_start, choose_top, choose_left, choose_flip = draws
        anchor = (choose_top, choose_left) if self.config.random_crop else (0.5, 0.5)
        framing = Framing.cover((record.height, record.width), self.size, anchor)
        flipped = choose_flip < self.config.flip
        element: dict[str, Any] = {"clip_index": np.int32(number)}
        if record.latents is not None:
            start = 0  # a causal VAE's first latent stands for one frame: only a prefix is a clip of its own
            element["latents"] = record.latents[: self.bucket.latents]
        else:
            start = int(choose_start * (record.num_frames - frames + 1))
            video = read_video(
                record.video,
                start=start,
                frames=frames,
                size=(record.height, record.width),
                framing=None if (record.height, record.width) == self.size else framing,
                name=record.id,
            )
            element["video"] = np.ascontiguousarray(video[:, :, ::-1]) if flipped else video
        if self.labelled and record.cameras is not None:
            cameras = record.cameras[start : start + frames]
            cameras = cameras.with_intrinsics(framing.intrinsics(cameras.intrinsics))
            cameras = flip_horizontal(cameras) if flipped else cameras
            poses = cameras.world_from_camera
            if from_take and record.reference is not None:
                mirror = np.diag([-1.0, 1.0, 1.0, 1.0]) if flipped else np.eye(4)  # as flip_horizontal does
                poses = relative_to_reference(poses, mirror @ record.reference @ mirror)
            else:
                poses = relative_to_first(poses)
            if not np.isfinite(poses).all():
                raise ClipError("bad_pose", f"{record.id}: a pose is not finite.")
            intrinsics = cameras.intrinsics
        else:
            poses = np.tile(np.eye(4), (frames, 1, 1))
            intrinsics = np.tile(null_intrinsics(height, width), (frames, 1))
        element["world_from_camera"] = poses.astype(np.float32)
        element["intrinsics"] = intrinsics.astype(np.float32)
        phrasing = int(choose_caption * len(record.captions))
        if text_dropped or record.text is None:
            try:
                text, mask = self.embedder.embed(["" if text_dropped else record.captions[phrasing]])
            except MissingText as error:
                raise ClipError("no_embedding", f"{record.id}: {error}") from error
            element["text"], element["text_mask"] = text[0], mask[0]
        else:
            element["text"] = record.text[phrasing].astype(np.float32)
            element["text_mask"] = record.text_mask[phrasing]
        return element


def _shares(weights: Sequence[int]) -> list[float]:
    """The weights that are not 0, as shares of 1: what Grain mixes by."""
    return [weight / sum(weights) for weight in weights if weight]


def _turns_before(turn: int, weights: Sequence[int]) -> list[int]:
    """How many of the first ``turn`` turns each part with a weight had in Grain's mixture of them."""
    shares = _shares(weights)
    numbered = [
        grain.MapDataset.range(2**40).map(functools.partial(_tagged, part)) for part in range(len(shares))
    ]
    mixed = grain.MapDataset.mix(numbered, weights=shares)
    before: dict[int, int] = {}
    following = itertools.count(turn)
    while len(before) < len(shares) - 1:  # the place of a turn in its part is the number of its earlier turns
        part, place = mixed[next(following)]
        before.setdefault(part, place)
    rest = turn - sum(before.values())
    return [before.get(part, rest) for part in range(len(shares))]


def _tagged(part: int, place: int) -> tuple[int, int]:
    return part, place


class ClipStream:
    """Batches of numpy arrays from datasets on disk; each process gets its own share of every batch.

    Unlabelled clips have ``camera_valid`` False, identity poses and square-pixel intrinsics. A clip that
    cannot be decoded is replaced by another one, which follows from the position too; it is counted and
    listed with its reason (:meth:`bad_clips`), and too large a share stops the run.

    Attributes:
      config, embedder: as given.
      reports: what is drawn of every dataset, and why the rest is not.
      remarks: what a user should know of that, whole sentences.
    """

    def __init__(
        self,
        config: ClipStreamConfig,
        embedder: TextEmbedder,
        *,
        process_index: int = 0,
        process_count: int = 1,
    ) -> None:
        """Open the datasets and sort out which clips fit which bucket.

        Raises:
          FileNotFoundError: a folder is not there, or holds no dataset.
          ValueError: a dataset, a kind or a process for which there is no clip to draw (the message counts
            why, and says what to do), datasets that cannot be mixed, or a batch size that does not divide
            among the processes.
        """
        self.config, self.embedder = config, embedder
        self._process = (process_index, process_count)
        for bucket in config.buckets:
            if bucket.batch_size % process_count:
                raise InvalidValue(
                    f"a batch of {bucket.batch_size} cannot be split among {process_count} processes."
                )
        self._clips = ClipSets.open(config.datasets, config.unlabelled)
        if self._clips.latents and (config.flip or config.random_crop):
            raise InvalidValue("flip and random_crop need videos; these datasets hold cached latents.")
        for dataset in self._clips.datasets if self._clips.latents and config.latents_of else ():
            found = dataset.report().get("latents_of")
            if found != config.latents_of:
                raise InvalidValue(
                    f"{dataset.folder} holds latents of the VAE {found}, this run uses {config.latents_of}: "
                    "they do not mean the same. Build the dataset again with --latents naming this run's VAE."
                )
        limits = Limits(config.labelled_to_unlabelled, config.fps, config.max_upscale, process_count)
        plan = plan_of(self._clips, config.buckets, limits, config.every_dataset)
        self.reports: tuple[DatasetReport, ...] = plan.reports
        self.remarks: tuple[str, ...] = plan.remarks
        self._selections = plan.selections
        self._ids = self._clips.fingerprint()
        self._drawn = self._replaced = self._batches = 0
        self._skipped = 0  # batches before the first of the iterator
        self._bad: dict[str, str] = {}
        self._dataset = self._build()
        self._iterator = iter(self._dataset)

    def _build(self) -> Any:
        config = self.config
        batches = [self._bucket_batches(*numbered) for numbered in enumerate(self._selections)]
        # Bucket turns depend on the weights alone, so every process draws the same shape at the same step.
        mixed = grain.MapDataset.mix(batches, weights=_shares([bucket.weight for bucket in config.buckets]))
        if self._skipped:  # a batch follows from its number, so the sequence can begin anywhere
            mixed = mixed.slice(slice(self._skipped, None))
        ready = mixed.to_iter_dataset(grain.ReadOptions(config.threads, max(config.prefetch, config.threads)))
        if config.workers:
            ready = ready.mp_prefetch(
                grain.MultiprocessingOptions(
                    num_workers=config.workers, per_worker_buffer_size=config.prefetch
                ),
                worker_init_fn=_ignore_signals,
            )
        return ready

    def _bucket_batches(self, number: int, selection: Selection) -> Any:
        """The endless batches of one bucket, for this process."""
        process_index, process_count = self._process
        bucket = selection.bucket
        parts = []
        for kind, pool in enumerate(selection.pools):
            if not selection.weights[kind]:
                continue
            members = pool[process_index::process_count]
            # Seeds differ between processes, so that equal positions do not draw equal tasks everywhere.
            seeds = (
                generator_at(self.config.seed, number, kind, process_index).integers(2**31, size=2).tolist()
            )
            make = _MakeElement(
                self._clips, members, kind == 0, selection.size, bucket, self.config, self.embedder
            )
            parts.append(
                grain.MapDataset.source(members)
                .shuffle(seed=seeds[0])
                .repeat()
                .random_map(make, seed=seeds[1])
            )
        samples = grain.MapDataset.mix(parts, weights=_shares(selection.weights))
        return samples.batch(bucket.batch_size // process_count, drop_remainder=True)

    def _drawn_by(self, batches: int) -> list[Drawn]:
        """What every bucket draws in so many batches, by all processes."""
        process_count = self._process[1]
        turns = _turns_before(batches, [bucket.weight for bucket in self.config.buckets])
        drawn = []
        for selection, turn in zip(self._selections, turns):
            kinds = [kind for kind, weight in zip(KINDS, selection.weights) if weight]
            own = _turns_before(turn * selection.bucket.batch_size // process_count, selection.weights)
            drawn.append(
                Drawn(
                    selection.bucket.name,
                    selection.bucket.batch_size,
                    turn,
                    {kind: count * process_count for kind, count in zip(kinds, own)},
                    {k: pool_of(p) for k, p in zip(KINDS, selection.pools) if k in kinds},
                )
            )
        return drawn

    def __iter__(self) -> ClipStream:
        return self

    def __next__(self) -> Batch:
        batch = next(self._iterator)
        self._batches += 1
        failed = batch.pop(_REPLACED)
        self._drawn += len(failed)
        bad = np.unique(failed[failed >= 0])
        self._replaced += int((failed >= 0).any(axis=1).sum())
        for number in bad.tolist():
            if self._clips.name(number) not in self._bad:
                self._bad[self._clips.name(number)] = self._why_bad(number)
        if self._replaced > self.config.max_bad_share * max(self._drawn, 100):
            raise TooManyBadClips(
                f"{self._replaced} of {self._drawn} drawn clips could not be decoded, more than the allowed "
                f"share of {self.config.max_bad_share:g}; the last ones: "
                f"{', '.join(map(self._clips.name, bad.tolist()))}. Build the dataset again, or allow more "
                "bad clips if this is expected."
            )
        return batch

    def _why_bad(self, number: int) -> str:
        """The error of a clip that failed, met again here: batches carry numbers, not messages."""
        try:
            record = self._clips.record(number)
            if record.video is not None:
                read_video(record.video, size=(record.height, record.width), name=record.id)
            if record.text is None:
                self.embedder.embed(record.captions)
        except (ClipError, MissingText) as error:
            return str(error)
        return "it failed where it was decoded, and not when it was decoded again"

    def bad_clips(self) -> dict[str, str]:
        """``folder/id`` -> why, of every clip that was replaced so far, runs before a resume included."""
        return dict(self._bad)

    def state(self) -> dict[str, Any]:
        """The position of this process: a number of batches, with what had been drawn by then.

        Exact for the same number of processes and workers. With another number of processes each has another
        share of the clips: the stream goes on after as many batches, which then hold other clips.
        """
        return {
            **self._identity(),
            "ids": self._ids,
            "buckets": [drawn.to_json() for drawn in self._drawn_by(self._batches)],
            "batches": self._batches,
            "skipped": self._skipped,
            "position": self._iterator.get_state(),
            "drawn": self._drawn,
            "replaced": self._replaced,
            "bad_clips": self._bad,
        }

    def _identity(self) -> dict[str, Any]:
        return {
            "kind": "clips",
            "seed": self.config.seed,
            "clips": [len(dataset) for dataset in self._clips.datasets],
            "process": list(self._process),
            "workers": self.config.workers,
        }

    def restore(self, state: dict[str, Any]) -> tuple[str, ...]:
        """Continue at a saved position, and say how the clips that follow are not those that would have.

        Raises:
          ValueError: a position in other clips, or of another seed.
        """
        identity = self._identity()
        found = {name: state.get(name) for name in identity}
        exact = found == identity and "position" in state
        check_same_clips(state, identity | {"ids": self._ids})
        if not exact and "batches" not in state:
            raise InvalidValue(
                f"this data position counts no batches, and is valid for {found['process'][1]} processes "
                f"with {found['workers']} workers each only; these are {identity['process'][1]} with "
                f"{identity['workers']}."
            )
        self._iterator.close()
        skipped = int(state.get("skipped", 0)) if exact else int(state["batches"])
        if skipped != self._skipped:
            self._skipped = skipped
            self._dataset = self._build()
        self._iterator = iter(self._dataset)
        if exact:
            self._iterator.set_state(state["position"])
        self._batches = int(state.get("batches", 0))
        self._drawn, self._replaced = int(state["drawn"]), int(state["replaced"])
        self._bad = dict(state["bad_clips"])
        own, there = self._process[1], (found["process"] or self._process)[1]
        if self._batches and own != there:
            return (
                f"in {own} process{'es' * (own > 1)}, where there were {there}, each has another "
                f"share of the clips. The data go on after as many batches ({self._batches}), in another "
                "order: which clips come again before others have come once is not known",
            )
        saved = [Drawn.from_json(drawn) for drawn in state.get("buckets", ())]
        return differences_of(saved, self._drawn_by(self._batches), self._batches) if saved else ()

    def describe(self, batch: Batch) -> list[str]:
        """``folder/id`` of every clip of a batch."""
        return [self._clips.name(number) for number in np.asarray(batch["clip_index"]).tolist()]

    def close(self) -> None:
        """Stop reading ahead and end the worker processes; the stream cannot be used afterwards."""
        self._iterator.close()
