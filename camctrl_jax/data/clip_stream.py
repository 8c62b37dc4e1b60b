"""Batches from datasets of annotated clips on disk, with Grain.

Per bucket and per pool (labelled, unlabelled): this process's share of the clips -> shuffle -> repeat ->
decode, cut, resize, crop, draw the task. Then the pools are mixed at a fixed ratio, batched, and the
buckets take turns. All of it is a function of one position, so a restored stream continues with identical
batches.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from typing import Any

import grain  # half a second, which only runs on datasets pay: they alone import this module
import numpy as np
from absl import logging

from camctrl_jax.camera import flip_horizontal
from camctrl_jax.camera.framing import Framing, null_intrinsics, relative_to_first
from camctrl_jax.data.bad_clips import TooManyBadClips
from camctrl_jax.data.clips import ClipDataset, ClipRecord, dataset_folders, open_clips
from camctrl_jax.data.randomness import generator_at
from camctrl_jax.data.stream import Batch, Bucket
from camctrl_jax.data.tasks import TaskConfig, draw_tasks
from camctrl_jax.data.text import MissingText, TextEmbedder
from camctrl_jax.errors import ClipError, InvalidValue
from camctrl_jax.video.decoding import read_video

_REPLACEMENTS = 8  # clips tried in the place of one that cannot be decoded
_KINDS = ("labelled", "unlabelled")
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
      labelled_to_unlabelled: exact ratio in every run of that many samples; None draws from all clips alike.
      tasks: task weights and dropout.
      seed: of everything random.
      latents_of: fingerprint (``Autoencoder.fingerprint``) of the VAE that cached latents must come from;
        None does not check.
      fps: only clips of this rate (within 5 %) are used; None takes all.
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
        for name in ("flip", "max_bad_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InvalidValue(f"{name} is {getattr(self, name)}; expected a share between 0 and 1.")


@dataclass(frozen=True, eq=False)
class _Clips:
    """All clips of all datasets under one running number. Can be pickled for worker processes."""

    datasets: tuple[ClipDataset, ...]
    hidden: tuple[bool, ...]  # per dataset: its cameras are ignored
    offsets: np.ndarray  # i64 [datasets + 1]

    def locate(self, number: int) -> tuple[int, int]:
        """Dataset and number in it."""
        which = int(np.searchsorted(self.offsets, number, side="right")) - 1
        return which, int(number - self.offsets[which])

    def column(self, name: str) -> np.ndarray:
        """A field of the index over all clips."""
        return np.concatenate([dataset.index[name] for dataset in self.datasets])

    def labelled(self) -> np.ndarray:
        """bool over all clips."""
        return np.concatenate(
            [dataset.index["labelled"] & (not hide) for dataset, hide in zip(self.datasets, self.hidden)]
        )

    def name(self, number: int) -> str:
        """Folder and id of a clip."""
        which, inside = self.locate(number)
        return self.datasets[which].clip_name(inside)

    def record(self, number: int) -> ClipRecord:
        """Read a clip. Raises ClipError when its bytes are damaged."""
        which, inside = self.locate(number)
        return self.datasets[which].read(inside)


@dataclass(frozen=True, eq=False)
class _MakeElement:
    """Clip number -> one element of a batch. A Grain random map: ``rng`` depends on the position only."""

    clips: _Clips
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
        for attempt in range(_REPLACEMENTS):
            try:
                element = self._element(int(number), draws, bool(tasks.text_dropped[0]))
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

    def _element(self, number: int, draws: np.ndarray, text_dropped: bool) -> dict[str, Any]:
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
            poses = relative_to_first(cameras.world_from_camera)
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


class ClipStream:
    """Batches of numpy arrays from datasets on disk; each process gets its own share of every batch.

    Unlabelled clips have ``camera_valid`` False, identity poses and square-pixel intrinsics. A clip that
    cannot be decoded is replaced by another one, which follows from the position too; it is counted and
    listed with its reason (:meth:`bad_clips`), and too large a share stops the run.
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
          ValueError: a bucket for which no clip is left (the message counts why), datasets that cannot be
            mixed, or a batch size that does not divide among the processes.
        """
        self.config, self.embedder = config, embedder
        self._process = (process_index, process_count)
        opened = [
            (open_clips(part), hide)
            for folders, hide in ((config.datasets, False), (config.unlabelled, True))
            for folder in folders
            for part in dataset_folders(folder)
        ]
        datasets, hidden = zip(*opened)
        self._clips = _Clips(datasets, hidden, np.cumsum([0, *(len(dataset) for dataset in datasets)]))
        if len({dataset.latents for dataset in datasets}) > 1:
            kinds = ", ".join(f"{d.folder}: {'latents' if d.latents else 'video'}" for d in datasets)
            raise InvalidValue(f"datasets with cached latents and with videos cannot be mixed ({kinds}).")
        self._latents = datasets[0].latents
        if self._latents and (config.flip or config.random_crop):
            raise InvalidValue("flip and random_crop need videos; these datasets hold cached latents.")
        for dataset in datasets if self._latents and config.latents_of else ():
            found = dataset.report().get("latents_of")
            if found != config.latents_of:
                raise InvalidValue(
                    f"{dataset.folder} holds latents of the VAE {found}, this run uses {config.latents_of}: "
                    "they do not mean the same. Build the dataset again with --latents naming this run's VAE."
                )
        self._drawn = self._replaced = self._batches = 0
        self._skipped = 0  # batches before the first of the iterator
        self._bad: dict[str, str] = {}
        self._dataset = self._build()
        self._iterator = iter(self._dataset)

    def _build(self) -> Any:
        config = self.config
        batches = [self._bucket_batches(number, bucket) for number, bucket in enumerate(config.buckets)]
        weights = np.asarray([bucket.weight for bucket in config.buckets], np.float64)
        # Bucket turns depend on the weights alone, so every process draws the same shape at the same step.
        mixed = grain.MapDataset.mix(batches, weights=list(weights / weights.sum()))
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

    def _bucket_batches(self, number: int, bucket: Bucket) -> Any:
        """The endless batches of one bucket, for this process."""
        process_index, process_count = self._process
        if bucket.batch_size % process_count:
            raise InvalidValue(
                f"a batch of {bucket.batch_size} cannot be split among {process_count} processes."
            )
        eligible, size = self._eligible(bucket)
        parts, weights = [], []
        for kind, (pool, weight) in enumerate(self._pools(bucket, eligible)):
            if not weight:
                continue
            members = pool[process_index::process_count]
            # Seeds differ between processes, so that equal positions do not draw equal tasks everywhere.
            seeds = (
                generator_at(self.config.seed, number, kind, process_index).integers(2**31, size=2).tolist()
            )
            make = _MakeElement(self._clips, members, kind == 0, size, bucket, self.config, self.embedder)
            parts.append(
                grain.MapDataset.source(members)
                .shuffle(seed=seeds[0])
                .repeat()
                .random_map(make, seed=seeds[1])
            )
            weights.append(weight)
        samples = grain.MapDataset.mix(parts, weights=[weight / sum(weights) for weight in weights])
        return samples.batch(bucket.batch_size // process_count, drop_remainder=True)

    def _pools(self, bucket: Bucket, eligible: np.ndarray) -> list[tuple[np.ndarray, int]]:
        """The labelled and the unlabelled clips of a bucket, over all processes, and the weight of each kind.

        Every process needs at least one clip of each kind that is drawn. Whether it has one follows from the
        whole pools, so all processes decide alike: one that raises while others train would leave them
        waiting. A ratio that cannot be kept is refused. Where every clip is alike, a pool smaller than the
        number of processes is left out, which loses these few clips and nothing else.
        """
        process_count = self._process[1]
        labelled = self._clips.labelled()
        pools = [np.flatnonzero(eligible & labelled), np.flatnonzero(eligible & ~labelled)]
        ratio = self.config.labelled_to_unlabelled
        alike = ratio is None
        weights = [len(pool) for pool in pools] if ratio is None else list(ratio)
        small = [bool(weight) and len(pool) < process_count for pool, weight in zip(pools, weights)]
        if alike and any(weight and not few for weight, few in zip(weights, small)):
            for kind in np.flatnonzero(small).tolist():
                names = ", ".join(map(self._clips.name, pools[kind].tolist()))
                logging.warning(
                    "%d %s clips of the bucket %s are not used (%s): they are fewer than the %d processes",
                    *(len(pools[kind]), _KINDS[kind], bucket, names, process_count),
                )
                weights[kind] = 0
            return list(zip(pools, weights))
        if any(small) or not any(weights):
            kind = small.index(True) if any(small) else 0
            count = len(pools[kind])
            found = {0: f"no {_KINDS[kind]} clip fits", 1: f"only 1 {_KINDS[kind]} clip fits"}.get(
                count, f"only {count} {_KINDS[kind]} clips fit"
            )
            raise InvalidValue(
                f"{found} the bucket {bucket}, and each of {process_count} processes needs one: "
                f"{self._why_not(bucket, labelled == (kind == 0))}"
            )
        return list(zip(pools, weights))

    def _eligible(self, bucket: Bucket) -> tuple[np.ndarray, tuple[int, int]]:
        """Which clips fit a bucket, bool over all clips, and its size in pixels."""
        checks = self._checks(bucket)
        eligible = np.logical_and.reduce(list(checks.values()))
        if bucket.height is not None and bucket.width is not None:
            return eligible, (bucket.height, bucket.width)
        sizes = np.unique(
            np.stack([self._clips.column("height"), self._clips.column("width")], axis=1)[eligible], axis=0
        )
        if len(sizes) > 1:
            listing = ", ".join(f"{height}x{width}" for height, width in sizes)
            raise InvalidValue(
                f"the clips have several sizes ({listing}); give the bucket a height and a width."
            )
        return eligible, tuple(int(side) for side in sizes[0]) if len(sizes) else (16, 16)

    def _checks(self, bucket: Bucket) -> dict[str, np.ndarray]:
        """What a clip must satisfy to fit a bucket: name of the check -> bool over all clips."""
        column = self._clips.column
        checks = {f"{bucket.frames} frames": column("num_frames") >= bucket.frames}
        if self.config.fps is not None:
            checks[f"{self.config.fps:g} fps"] = np.abs(column("fps") / self.config.fps - 1.0) < 0.05
        if bucket.height is not None and bucket.width is not None:
            if self._latents:
                fits = (column("height") == bucket.height) & (column("width") == bucket.width)
            else:
                scale = np.maximum(bucket.height / column("height"), bucket.width / column("width"))
                fits = scale <= self.config.max_upscale + 1e-6
            checks[f"{bucket.height}x{bucket.width} pixels"] = fits
        return checks

    def _why_not(self, bucket: Bucket, of_kind: np.ndarray) -> str:
        """How many clips of a kind pass each check."""
        passed = ", ".join(
            f"{int((check & of_kind).sum())} have {name}" for name, check in self._checks(bucket).items()
        )
        return f"of {int(of_kind.sum())} such clips {passed}."

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
        """The position of this process, valid for the same data and seed.

        Exact for the same number of processes and workers. With another number every process has another
        share of the clips: the stream goes on after as many batches, which then hold other clips.
        """
        return {
            **self._identity(),
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

    def restore(self, state: dict[str, Any]) -> None:
        """Continue at a saved position; a state of other data or another seed is refused."""
        identity = self._identity()
        found = {name: state.get(name) for name in identity}
        exact = found == identity and "position" in state
        shared = ("kind", "seed", "clips")
        if not exact and ("batches" not in state or any(found[name] != identity[name] for name in shared)):
            raise InvalidValue(
                f"this data position does not belong to this stream: it says {found}, the stream is "
                f"{identity}. Resume with the data settings and the seed of the run that saved it."
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

    def describe(self, batch: Batch) -> list[str]:
        """``folder/id`` of every clip of a batch."""
        return [self._clips.name(number) for number in np.asarray(batch["clip_index"]).tolist()]

    def close(self) -> None:
        """Stop reading ahead and end the worker processes; the stream cannot be used afterwards."""
        self._iterator.close()
