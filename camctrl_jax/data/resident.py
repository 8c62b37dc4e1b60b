"""Clips that live in device memory, and the stream that draws batches from them.

For worlds and other small sets: 20,000 clips of normalised latents are 2 GB. A batch is one jitted gather;
all that crosses from the host is a small integer table, drawn from (seed, step) alone, so the position is one
number.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import NamedSharding

from camctrl_jax.camera.framing import null_intrinsics, relative_to_first
from camctrl_jax.clip_shape import SPATIAL_STRIDE, frames_of
from camctrl_jax.data.clip_sets import fingerprint
from camctrl_jax.data.gathering import gather_batch
from camctrl_jax.data.positions import Drawn, pool_of
from camctrl_jax.data.randomness import generator_at
from camctrl_jax.data.stepped import SteppedStream
from camctrl_jax.data.stream import Batch, Bucket, Interleaving, check_ratio
from camctrl_jax.data.tasks import TaskConfig, draw_tasks
from camctrl_jax.data.text import TextEmbedder
from camctrl_jax.errors import InvalidValue
from camctrl_jax.files.atomic import replaced_folder
from camctrl_jax.parallel.sharding import distribute

_ORDER, _DRAWS, _UNLABELLED = 1, 2, 3  # what a generator is for, as part of its position


def embed_captions(
    embedder: TextEmbedder, captions: Sequence[Sequence[str]], slots: int | None = None
) -> dict[str, np.ndarray]:
    """Embed every caption of every clip.

    Args:
      embedder: how.
      captions: per clip one or more phrasings.
      slots: K, room for phrasings per clip; None takes the largest count, more than K are cut.

    Returns: ``text`` f16 [C, K, N, D], ``text_mask`` bool [C, K, N], ``caption_count`` i32 [C].
    """
    counts = np.asarray([len(phrasings) for phrasings in captions], np.int32)
    if counts.size == 0 or counts.min() < 1:
        raise InvalidValue(
            "embed_captions needs at least one caption per clip; use '' for a clip without a caption."
        )
    slots = int(counts.max()) if slots is None else slots
    counts = np.minimum(counts, slots)
    flat = [phrasing for phrasings, count in zip(captions, counts) for phrasing in phrasings[:count]]
    unique = {text: row for row, text in enumerate(dict.fromkeys(flat))}
    texts = list(unique)
    blocks = [embedder.embed(texts[start : start + 2048]) for start in range(0, len(texts), 2048)]
    vectors = np.concatenate([block.astype(np.float16) for block, _ in blocks])
    mask = np.concatenate([block for _, block in blocks])
    text = np.zeros((len(captions), slots, *vectors.shape[1:]), np.float16)
    text_mask = np.zeros((len(captions), slots, mask.shape[1]), bool)
    for clip, (phrasings, count) in enumerate(zip(captions, counts)):
        rows = [unique[phrasing] for phrasing in phrasings[:count]]
        text[clip, :count], text_mask[clip, :count] = vectors[rows], mask[rows]
    return {"text": text, "text_mask": text_mask, "caption_count": counts}


@dataclass(frozen=True)
class ResidentClips:
    """C clips of equal shape with everything training needs, as device arrays.

    Attributes:
      arrays: ``video`` u8 [C, T, H, W, 3] or ``latents`` f16 [C, L, h, w, 16] (normalised);
        ``world_from_camera`` f32 [C, T, 4, 4] relative to frame 0 or to the reference of the take;
        ``intrinsics`` f32 [C, T, 4]; ``text`` f16
        [C, K, N, D]; ``text_mask`` bool [C, K, N]; ``empty_text`` f16 [N, D] and ``empty_mask`` bool [N] of
        the empty prompt. Where the truth is known and asked for, ``log_depth`` and ``moving_share`` f16
        [C, T, H / 16, W / 16]. Where frames are retrieved, the M = 2 R candidates of every clip, those that
        were selected for it first: ``retrieved_latents`` f16 [C, M, h, w, 16], each encoded alone,
        ``retrieved_world_from_camera`` f32 [C, M, 4, 4] from the same reference, ``retrieved_intrinsics``
        f32 [C, M, 4].
      caption_count: i32 [C] on the host, phrasings in use of the K slots.
      labelled: bool [C] on the host; clips that are not carry identity poses.
      ids: C names, for logs.
      shared_reference: poses are relative to the first camera of a take, of which clips are windows or from
        which the stream cuts them, and samples that extend a clip keep them so, as every clip of an
        exploration does (see ``TaskConfig.reference``); other samples begin one, and are relative to their
        own first frame.
    """

    arrays: dict[str, Array]
    caption_count: np.ndarray
    labelled: np.ndarray
    ids: tuple[str, ...]
    shared_reference: bool = False

    def __post_init__(self) -> None:
        arrays = self.arrays
        if ("video" in arrays) == ("latents" in arrays):
            raise InvalidValue(f"ResidentClips needs either 'video' or 'latents', got {sorted(arrays)}.")
        count = len(self.ids)
        per_clip = {name: array.shape[0] for name, array in arrays.items() if not name.startswith("empty_")}
        per_clip |= {"caption_count": len(self.caption_count), "labelled": len(self.labelled)}
        wrong = {name: size for name, size in per_clip.items() if size != count}
        if count == 0 or wrong:
            raise InvalidValue(
                f"ResidentClips: {count} ids, but these fields hold another number of clips: {wrong}."
            )
        if "video" in arrays and arrays["video"].shape[1] != self.frames:
            raise InvalidValue(
                f"ResidentClips: {arrays['video'].shape[1]} video frames with {self.frames} poses."
            )
        if "latents" in arrays and frames_of(arrays["latents"].shape[1]) != self.frames:
            raise InvalidValue(
                f"ResidentClips: {arrays['latents'].shape[1]} latents need "
                f"{frames_of(arrays['latents'].shape[1])} poses, got {self.frames}."
            )

    @classmethod
    def build(
        cls,
        *,
        world_from_camera: np.ndarray,
        intrinsics: np.ndarray,
        captions: Sequence[Sequence[str]],
        embedder: TextEmbedder,
        ids: Sequence[str],
        video: Array | np.ndarray | None = None,
        latents: Array | np.ndarray | None = None,
        labelled: np.ndarray | None = None,
    ) -> ResidentClips:
        """Put clips on the default device.

        Args:
          world_from_camera: f64 [C, T, 4, 4] in any world; made relative to frame 0 in float64.
          intrinsics: [C, T, 4], normalised.
          captions: per clip one or more phrasings, all embedded with ``embedder``.
          ids: C names.
          video or latents: see ``arrays``.
          labelled: bool [C]; None means all are.
        """
        empty, empty_mask = embedder.embed([""])
        text = embed_captions(embedder, captions)
        frames = {"video": video} if video is not None else {"latents": latents}
        clips = cls(
            arrays={
                name: jnp.asarray(value)
                for name, value in {
                    **frames,
                    "world_from_camera": relative_to_first(world_from_camera).astype(np.float32),
                    "intrinsics": np.asarray(intrinsics, np.float32),
                    "text": text["text"],
                    "text_mask": text["text_mask"],
                    "empty_text": empty[0].astype(np.float16),
                    "empty_mask": empty_mask[0],
                }.items()
            },
            caption_count=text["caption_count"],
            labelled=np.ones(len(ids), bool),
            ids=tuple(ids),
        )
        return clips if labelled is None else clips._hiding(~np.asarray(labelled, bool))

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def frames(self) -> int:
        """T, frames of every clip."""
        return self.arrays["world_from_camera"].shape[1]

    @property
    def retrieved(self) -> int:
        """R, frames that samples are shown beside their window; half of the candidates."""
        return self.arrays["retrieved_latents"].shape[1] // 2 if "retrieved_latents" in self.arrays else 0

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        if "video" in self.arrays:
            return self.arrays["video"].shape[2], self.arrays["video"].shape[3]
        height, width = self.arrays["latents"].shape[2:4]
        return SPATIAL_STRIDE * height, SPATIAL_STRIDE * width

    def with_unlabelled(self, share: float, seed: int) -> ResidentClips:
        """The same clips, a share of which loses its cameras: which ones depends on the seed alone.

        Joint training on worlds is exercised this way: hidden clips carry identity poses and square-pixel
        intrinsics, as real videos without poses do.
        """
        if not 0.0 <= share < 1.0:
            raise InvalidValue(f"unlabelled share is {share}; expected at least 0 and less than 1.")
        chosen = generator_at(seed, _UNLABELLED).permutation(len(self))[: round(share * len(self))]
        hidden = np.zeros(len(self), bool)
        hidden[chosen] = True
        return self._hiding(hidden)

    def _hiding(self, hidden: np.ndarray) -> ResidentClips:
        """The same clips with the cameras of ``hidden`` (bool [C]) replaced by those of unlabelled clips."""
        if not hidden.any():
            return self
        here, arrays = jnp.asarray(hidden), dict(self.arrays)
        for prefix in ("", "retrieved_") if self.retrieved else ("",):
            poses, lenses = f"{prefix}world_from_camera", f"{prefix}intrinsics"
            arrays[poses] = jnp.where(here[:, None, None, None], jnp.eye(4), arrays[poses])
            null = null_intrinsics(*self.image_size)
            arrays[lenses] = jnp.where(here[:, None, None], null, arrays[lenses])
        return replace(self, arrays=arrays, labelled=self.labelled & ~hidden)

    def distributed(self, sharding: NamedSharding) -> ResidentClips:
        """The same clips under another sharding, usually replicated over a mesh."""
        return replace(self, arrays=distribute(self.arrays, dict.fromkeys(self.arrays, sharding)))

    def stream(
        self,
        *,
        batch_size: int,
        seed: int,
        tasks: TaskConfig | None = None,
        labelled_to_unlabelled: tuple[int, int] | None = None,
        buckets: Sequence[Bucket] | None = None,
        batch_sharding: jax.sharding.Sharding | None = None,
    ) -> ResidentStream:
        """An endless stream of batches; see ``ResidentStream``. Without buckets, whole clips of
        ``batch_size``.
        """
        return ResidentStream(
            self,
            buckets=tuple(buckets) if buckets else (Bucket(frames=self.frames, batch_size=batch_size),),
            seed=seed,
            tasks=TaskConfig() if tasks is None else tasks,
            labelled_to_unlabelled=labelled_to_unlabelled,
            batch_sharding=batch_sharding,
        )

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the clips as .npy files and a JSON for later runs; the folder appears when complete."""
        with replaced_folder(folder, overwrite=True) as partial:
            for name, array in self.arrays.items():
                np.save(partial / f"{name}.npy", np.asarray(array), allow_pickle=False)
            facts = {
                "ids": list(self.ids),
                "caption_count": self.caption_count.tolist(),
                "labelled": self.labelled.tolist(),
                "arrays": sorted(self.arrays),
            }
            if self.shared_reference:
                facts["shared_reference"] = True
            (partial / "clips.json").write_text(json.dumps(facts))

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> ResidentClips:
        """Read what ``save`` wrote onto the default device."""
        folder = Path(folder)
        facts = json.loads((folder / "clips.json").read_text())
        return cls(
            arrays={
                name: jnp.asarray(np.load(folder / f"{name}.npy", allow_pickle=False, mmap_mode="r"))
                for name in facts["arrays"]
            },
            caption_count=np.asarray(facts["caption_count"], np.int32),
            labelled=np.asarray(facts["labelled"], bool),
            ids=tuple(facts["ids"]),
            shared_reference=facts.get("shared_reference", False),
        )


def draw_retrieved(rng: np.random.Generator, samples: int, count: int) -> np.ndarray:
    """Which of its 2 ``count`` candidates each sample is shown: i64 [samples, count].

    Half of the samples are shown the first half, those that were selected, as in sampling; the others any of
    all, in any order, so that frames that do not help are known, too.
    """
    order = rng.random((samples, 2 * count)).argsort(axis=1)[:, :count]
    return np.where(rng.random((samples, 1)) < 0.5, np.arange(count), order)


def _check_only_extension(tasks: TaskConfig, buckets: Sequence[Bucket]) -> None:
    shortest = min(bucket.latents for bucket in buckets)
    if tasks.t2v or tasks.i2v or not tasks.extension or shortest <= max(tasks.extension_latents[0], 1):
        raise InvalidValue(
            "frames are retrieved for clips that are extended, all of a batch alike: expected the tasks "
            f"t2v=0, i2v=0 and extension=1, not {tasks.t2v:g}, {tasks.i2v:g} and {tasks.extension:g}, and no "
            f"batches of {shortest} latents: after {tasks.extension_latents[0]} none is left to generate."
        )


def check_kinds_there(ratio: tuple[int, int], labelled: int, unlabelled: int) -> None:
    """Check that there are clips of each kind that a ratio asks for.

    Args:
      ratio: labelled to unlabelled.
      labelled, unlabelled: how many clips there are of each kind.

    Raises:
      ValueError: names the kind that is missing, and the remedy.
    """
    for name, count, weight, alone in (
        ("labelled", labelled, ratio[0], "0,1"),
        ("unlabelled", unlabelled, ratio[1], "1,0"),
    ):
        if weight and not count:
            other = {"labelled": "smaller", "unlabelled": "larger"}[name]
            raise InvalidValue(
                f"labelled_to_unlabelled={ratio[0]},{ratio[1]}, but none of the {labelled + unlabelled} "
                f"clips is {name}: take a {other} --config.data.worlds.unlabelled_share, more worlds, or "
                f"clips of the other kind alone: --config.data.labelled_to_unlabelled={alone}."
            )


def clips_identity(ids: Sequence[str], seed: int) -> dict[str, Any]:
    """What the position of a stream on clips of these ids is valid for."""
    return {"kind": "resident", "seed": seed, "clips": len(ids), "ids": fingerprint("\n".join(ids).encode())}


class ResidentStream(SteppedStream):
    """Batches from ``ResidentClips``: every clip once per pass, in an order drawn anew for each pass.

    Everything about step n follows from (seed, n). With ``labelled_to_unlabelled=(4, 1)`` each run of five
    samples holds exactly four labelled clips and one unlabelled one, so a batch size divisible by five has
    constant composition. With several buckets (say windows of 17 frames and single images for a VAE) steps
    take turns by their weights. Windows of a video start at a random frame; windows of latents are prefixes,
    because a causal VAE's first latent stands for a single frame.
    """

    def __init__(
        self,
        clips: ResidentClips,
        *,
        buckets: tuple[Bucket, ...],
        seed: int,
        tasks: TaskConfig,
        labelled_to_unlabelled: tuple[int, int] | None = None,
        batch_sharding: jax.sharding.Sharding | None = None,
    ) -> None:
        for bucket in buckets:
            if bucket.frames > clips.frames:
                raise InvalidValue(
                    f"a bucket of {bucket.frames} frames cannot be cut from clips of {clips.frames}."
                )
            if bucket.height is not None and (bucket.height, bucket.width) != clips.image_size:
                raise InvalidValue(
                    f"a bucket of {bucket.height}x{bucket.width} pixels cannot be served from resident clips "
                    f"of {clips.image_size[0]}x{clips.image_size[1]}; leave height and width out."
                )
        if clips.retrieved:
            _check_only_extension(tasks, buckets)
        self.clips, self.buckets, self.seed, self.tasks = clips, buckets, seed, tasks
        self.batch_sharding = batch_sharding
        check_ratio(labelled_to_unlabelled)
        if labelled_to_unlabelled is None:
            self._kinds, self._pools = ("",), (np.arange(len(clips)),)
            self._mix = Interleaving((1,))
        else:
            self._kinds = ("labelled", "unlabelled")
            self._pools = (np.flatnonzero(clips.labelled), np.flatnonzero(~clips.labelled))
            self._mix = Interleaving(labelled_to_unlabelled)
            check_kinds_there(labelled_to_unlabelled, *map(len, self._pools))
        self._turns = Interleaving(tuple(bucket.weight for bucket in buckets))
        self._order = functools.lru_cache(maxsize=4 * len(buckets))(self._draw_order)
        jit_options = {} if batch_sharding is None else {"out_shardings": batch_sharding}
        self._gather = jax.jit(gather_batch, static_argnames=("frames", "shared_reference"), **jit_options)

    def _draw_order(self, bucket: int, pool: int, epoch: int) -> np.ndarray:
        """The clips of a pool in the order of one pass over them."""
        return generator_at(self.seed, _ORDER, bucket, pool, epoch).permutation(self._pools[pool])

    def picks_at(self, step: int) -> tuple[Bucket, np.ndarray]:
        """The bucket of a step and its integer table (see ``gather_batch``); pure host work."""
        chosen, turn = self._turns(np.asarray(step))
        which, turn = int(chosen), int(turn)
        bucket = self.buckets[which]
        pool, place = self._mix(turn * bucket.batch_size + np.arange(bucket.batch_size))
        clip = np.empty(bucket.batch_size, np.int64)
        for index, members in enumerate(self._pools):
            here = np.flatnonzero(pool == index)
            epoch, offset = np.divmod(place[here], max(len(members), 1))
            for each in np.unique(epoch):
                rows = here[epoch == each]
                clip[rows] = self._order(which, index, int(each))[offset[epoch == each]]
        rng = generator_at(self.seed, _DRAWS, step)
        tasks = draw_tasks(self.tasks, rng, self.clips.labelled[clip], bucket.latents)
        draw_caption, draw_start = rng.random((2, bucket.batch_size))
        starts = self.clips.frames - bucket.frames + 1 if "video" in self.clips.arrays else 1
        columns = (
            clip,
            np.floor(draw_caption * self.clips.caption_count[clip]),
            np.floor(draw_start * starts),
            tasks.camera_valid,
            tasks.text_dropped,
        )
        parts = [np.stack(columns, axis=1), tasks.condition_mask]
        if self.clips.retrieved:
            parts.append(draw_retrieved(rng, bucket.batch_size, self.clips.retrieved))
        return bucket, np.concatenate(parts, axis=1).astype(np.int32)

    def batch_at(self, step: int) -> Batch:
        """The batch of any step, without moving the position."""
        bucket, picks = self.picks_at(step)
        shared = self.clips.shared_reference and self.tasks.reference == "take"
        return self._gather(self.clips.arrays, picks, frames=bucket.frames, shared_reference=shared)

    def drawn_by(self, batches: int) -> list[Drawn]:
        """What every bucket draws in so many batches."""
        pools = {k: pool_of(p) for k, p, w in zip(self._kinds, self._pools, self._mix.weights) if w}
        drawn = []
        for bucket, turns in zip(self.buckets, self._turns.before(batches)):
            clips = dict(zip(self._kinds, self._mix.before(turns * bucket.batch_size)))
            clips = {kind: clips[kind] for kind in pools}
            drawn.append(Drawn(bucket.name, bucket.batch_size, turns, clips, pools))
        return drawn

    def identity(self) -> dict[str, Any]:
        """What the position is valid for."""
        return clips_identity(self.clips.ids, self.seed)

    def describe(self, batch: Batch) -> list[str]:
        """The ids of a batch's clips."""
        return [self.clips.ids[index] for index in np.asarray(batch["clip_index"]).tolist()]
