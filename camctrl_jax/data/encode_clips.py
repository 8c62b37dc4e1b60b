"""Clips with videos to clips with cached latents, a shard at a time."""

from __future__ import annotations

import hashlib
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from camctrl_jax.clip_shape import ClipShape
from camctrl_jax.data.bad_clips import SkipTally
from camctrl_jax.data.clips import ClipDataset, ClipRecord
from camctrl_jax.data.clips.dataset import INFO_FILE, is_dataset, shards_of
from camctrl_jax.data.shards import Shard
from camctrl_jax.data.text import MissingText, PrecomputedText
from camctrl_jax.errors import ClipError, InvalidValue
from camctrl_jax.models.autoencoder import Autoencoder
from camctrl_jax.video.decoding import read_video


def check_request(datasets: Sequence[ClipDataset], out: Path, shard: Shard, with_text: bool) -> None:
    """Raise ValueError for datasets that cannot become one dataset of latents, or a place for it that holds
    something else.

    Args:
        datasets: what to encode.
        out: where the whole goes.
        shard: what of it is asked for.
        with_text: embeddings are given; without, all clips or none must have their own.
    """
    for dataset in datasets:
        if dataset.latents:
            raise InvalidValue(f"{dataset.folder} holds latents already; --source must be clips with videos.")
        if out.resolve() in (dataset.folder.resolve(), *dataset.folder.resolve().parents):
            raise InvalidValue(f"--out {out} holds the source {dataset.folder}: choose another folder.")
    shapes = {
        shape
        for dataset in datasets
        for shape in zip(*(dataset.index[name].tolist() for name in ("num_frames", "height", "width")))
    }
    for shape in shapes:
        ClipShape(*shape).check()
    sizes = sorted({shape[1:] for shape in shapes})
    if len(sizes) > 1:
        raise InvalidValue(
            f"the clips have several sizes ({', '.join(f'{h}x{w}' for h, w in sizes)}), and latents of one "
            "dataset have one: build a dataset for each size."
        )
    texts = {dataset.text_shape for dataset in datasets}
    if len(texts) > 1 and not with_text:
        raise InvalidValue(
            f"the sources have different text embeddings ({sorted(map(str, texts))}): name one file for all "
            "with --text-embeddings."
        )
    total = sum(map(len, datasets))
    if shard.count > total:
        raise InvalidValue(f"--shard {shard.index}/{shard.count}: there are only {total} clips.")
    if shard.count > 1 and is_dataset(out):
        raise InvalidValue(f"{out} is a dataset, not a folder of shards: choose another --out.")
    for path, (_, count) in shards_of(out).items():
        if count != shard.count:
            raise InvalidValue(f"{path} is of a job of {count} shards, not {shard.count}: delete it first.")


def job_digest(datasets: Sequence[ClipDataset], text: Path | None, shard: Shard) -> str:
    """Identifies what all shards of a job are made of: the clips by names, lengths and bytes in all, the text
    by its beginning, where its texts are listed, and its size.
    """
    digest = hashlib.sha256(f"{shard.count}".encode())
    for dataset in datasets:
        for name in ("id", "num_frames"):
            digest.update(repr(dataset.index[name].tolist()).encode())
        digest.update((dataset.folder / INFO_FILE).read_bytes())  # tells the bytes of all records
    if text is not None:
        with open(text, "rb") as file:
            digest.update(file.read(1 << 20))
        digest.update(f"{text.stat().st_size}".encode())
    return digest.hexdigest()[:16]


def encoded_records(
    datasets: Sequence[ClipDataset],
    shard: Shard,
    encoder: Autoencoder,
    tally: SkipTally,
    *,
    batch: int = 4,
    workers: int = 4,
    text: PrecomputedText | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[ClipRecord]:
    """The clips of a shard with latents in place of videos; decoding runs ahead of the encoder.

    Args:
        datasets: as :func:`check_request` accepts them; the shard is one of all their clips.
        shard: which clips.
        encoder: gives the latents.
        tally: counts clips, and those that cannot be decoded, have no embedding or whose latents are not
            finite; too many of them raise TooManyBadClips.
        batch: clips that are encoded in one call. Shorter rests are filled up, so that every length of clip
            is compiled once.
        workers: threads that decode.
        text: embeddings to store with the clips; None keeps those that they have.
        progress: called with (clips done, clips in all).
    """
    places = [(dataset, number) for dataset in datasets for number in range(len(dataset))]
    places = [places[number] for number in shard.of(len(places))]
    # Clips of one length together: they share batches.
    places.sort(key=lambda place: int(place[0].index["num_frames"][place[1]]))
    done = 0
    with ThreadPoolExecutor(workers) as pool:
        ahead = _ahead(pool, places, text, limit=2 * max(batch, workers))
        for _, same in itertools.groupby(ahead, key=lambda item: item[0]):
            for group in _batches((future for _, future in same), batch):
                clips = []
                for name, future in group:
                    try:
                        clips.append((name, *future.result()))
                    except ClipError as error:
                        tally.skip(name, error)
                done += len(group)
                if clips:
                    videos = [video for _, _, video in clips]
                    videos += videos[-1:] * (batch - len(videos))
                    latents = np.asarray(encoder.encode(np.stack(videos), dtype=jnp.float16))
                    for (name, record, _), own in zip(clips, latents):
                        if np.isfinite(own).all():
                            tally.use()
                            yield replace(record, video=None, latents=own)
                        else:
                            tally.skip(name, ClipError("non_finite", f"{name}: its latents are not finite."))
                if progress is not None:
                    progress(done, len(places))
    tally.finish()


def _ahead(
    pool: ThreadPoolExecutor,
    places: Sequence[tuple[ClipDataset, int]],
    text: PrecomputedText | None,
    limit: int,
) -> Iterator[tuple[int, tuple[str, Future]]]:
    """(frames, (name, decoded clip)) in order, with at most ``limit`` clips decoded and not yet taken."""
    waiting: deque = deque()
    for dataset, number in places:
        name = dataset.clip_name(number)
        frames = int(dataset.index["num_frames"][number])
        waiting.append((frames, (name, pool.submit(_decoded, dataset, number, name, text))))
        if len(waiting) == limit:
            yield waiting.popleft()
    yield from waiting


def _batches(items: Iterator, size: int) -> Iterator[list]:
    while group := list(itertools.islice(items, size)):
        yield group


def _decoded(
    dataset: ClipDataset, number: int, name: str, text: PrecomputedText | None
) -> tuple[ClipRecord, np.ndarray]:
    """A clip and its video u8 [T, H, W, 3]. Raises ClipError."""
    record = dataset.read(number)
    video = read_video(record.video, frames=record.num_frames, size=(record.height, record.width), name=name)
    if text is not None:
        try:
            vectors, mask = text.embed(record.captions)
        except MissingText as error:
            raise ClipError("no_text_embedding", f"{name}: {error}") from error
        record = replace(record, text=vectors.astype(np.float16), text_mask=mask)
    return record.validate(), video


def shard_folder(out: Path, shard: Shard) -> Path:
    """Where a shard of ``out`` is written; the whole is ``out`` itself."""
    return out if shard.count == 1 else out / f"{shard.index:05d}-of-{shard.count:05d}"
