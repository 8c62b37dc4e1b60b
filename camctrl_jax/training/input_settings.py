"""What ``config.data`` says, as values of the data room; what a run reads."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict

from camctrl_jax.data.stream import Batch, BatchStream, Bucket
from camctrl_jax.data.text import PrecomputedText, TextEmbedder, WordEmbedder
from camctrl_jax.errors import UserError
from camctrl_jax.parallel.sharding import distribute_batch
from camctrl_jax.training.values import ConfigError

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Inputs:
    """What a run reads.

    Attributes:
        stream: training batches.
        probe: ``probe(count)`` yields videos u8 [B, T, H, W, 3] of whole clips on the mesh, ``count`` clips
            in all, the same every time; only where batches hold video.
        reports: a line for every dataset: what of it is drawn, and why the rest is not.
        remarks: what a user should know of these, whole sentences.
    """

    stream: BatchStream
    probe: Callable[[int], Iterator[Any]]
    reports: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def buckets_of(config: ConfigDict) -> tuple[Bucket, ...]:
    """The batch shapes of a run: clips, images, or both in turns."""
    data = config.data
    buckets = []
    if data.video_turns:
        buckets.append(Bucket(data.frames, config.batch_size, data.video_turns, data.height, data.width))
    if data.image_turns:
        images = data.image_batch or config.batch_size
        buckets.append(Bucket(1, images, data.image_turns, data.height, data.width))
    return tuple(buckets)


def embedder_of(config: ConfigDict) -> TextEmbedder:
    """The text embedder of a run.

    Raises:
        ConfigError: ``config.data.text.source`` is not there, damaged, or of another width than
            ``config.data.text.dim``.
    """
    text = config.data.text
    if not text.source:
        return WordEmbedder(dim=text.dim, max_tokens=text.max_tokens)
    try:
        embedder = PrecomputedText.load(text.source)
    except (UserError, OSError) as error:
        raise ConfigError(f"config.data.text.source={text.source!r}: {error}") from error
    if embedder.dim != text.dim:
        raise ConfigError(
            f"config.data.text.dim={text.dim}, but the embeddings in {text.source} have {embedder.dim} "
            f"channels; set --config.data.text.dim={embedder.dim}"
        )
    return embedder


def shares_of(config: ConfigDict, cameras: bool) -> tuple[int, int] | None:
    """Labelled to unlabelled clips; None, all clips alike, where no camera is learned."""
    return tuple(config.data.labelled_to_unlabelled) if cameras else None


def measured(config: ConfigDict) -> ConfigDict:
    """The configuration with what measurements of all runs share."""
    fixed = config.copy_and_resolve_references()
    fixed.seed = 0
    fixed.data.image_turns, fixed.data.video_turns = 0, 1
    return fixed


def taken(stream: BatchStream, config: ConfigDict, clips: int, mesh: Mesh) -> tuple[Batch, ...]:
    """The first batches of a stream, about ``clips`` clips and at least one batch, on the mesh; closes it."""
    count = max(1, clips // config.batch_size)
    batches = tuple(distribute_batch(batch, mesh) for batch in itertools.islice(stream, count))
    stream.close()
    return batches
