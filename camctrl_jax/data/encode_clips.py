"""Clips with videos to clips with cached latents, a shard at a time."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from camctrl_jax.data.bad_clips import ClipError, SkipTally
from camctrl_jax.data.clips import ClipDataset, ClipRecord
from camctrl_jax.data.latents import LatentEncoder
from camctrl_jax.data.shards import Shard
from camctrl_jax.data.text import PrecomputedText
from camctrl_jax.data.video import read_video


def check_source(datasets: Sequence[ClipDataset], shard: Shard) -> None:
    """Raise ValueError for datasets that cannot become one dataset of latents, or for too many shards."""
    for dataset in datasets:
        if dataset.latents:
            raise ValueError(f"{dataset.folder} holds latents already; --source must be clips with videos.")
    sizes = {size for dataset in datasets for size in zip(dataset.index["height"], dataset.index["width"])}
    if len(sizes) > 1:
        shown = ", ".join(f"{height}x{width}" for height, width in sorted(sizes))
        raise ValueError(
            f"the clips have several sizes ({shown}), and latents of one dataset have one: build a dataset "
            "for each size."
        )
    total = sum(map(len, datasets))
    if shard.count > total:
        raise ValueError(f"--shard {shard.index}/{shard.count}: there are only {total} clips.")


def encoded_records(
    datasets: Sequence[ClipDataset],
    shard: Shard,
    encoder: LatentEncoder,
    tally: SkipTally,
    *,
    batch: int = 4,
    workers: int = 4,
    text: PrecomputedText | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[ClipRecord]:
    """The clips of a shard with latents in place of videos; decoding runs ahead of the encoder.

    Args:
        datasets: as :func:`check_source` accepts them; the shard is one of all their clips.
        shard: which clips.
        encoder: gives the latents.
        tally: counts clips, and those that cannot be decoded or have no embedding; it stops at too many.
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
                        clips.append(future.result())
                        tally.use()
                    except ClipError as error:
                        tally.skip(name, error)
                done += len(group)
                if clips:
                    videos = [video for _, video in clips]
                    videos += videos[-1:] * (batch - len(videos))
                    latents = np.asarray(encoder(np.stack(videos)))
                    for (record, _), own in zip(clips, latents):
                        yield replace(record, video=None, latents=own).validate()
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
        name = f"{dataset.folder.name}/{dataset.index['id'][number]}"
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
    try:
        record = dataset[number]
    except (ValueError, RuntimeError, UnicodeDecodeError, EOFError) as error:
        raise ClipError("unreadable", f"{name}: the record cannot be read ({error}).") from error
    video = read_video(record.video, frames=record.num_frames, size=(record.height, record.width), name=name)
    if text is not None:
        try:
            vectors, mask = text.embed(record.captions)
        except KeyError as error:
            raise ClipError("no_text_embedding", f"{name}: {error.args[0]}") from error
        record = replace(record, text=vectors.astype(np.float16), text_mask=mask)
    return record, video


def shard_folder(out: Path, shard: Shard) -> Path:
    """Where a shard of ``out`` is written; the whole is ``out`` itself."""
    return out if shard.count == 1 else out / f"{shard.index:05d}-of-{shard.count:05d}"
