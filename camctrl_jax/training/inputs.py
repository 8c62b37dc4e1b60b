"""From ``config.data`` to a stream of batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from camctrl_jax.data.latents import LatentEncoder
from camctrl_jax.data.resident import ResidentClips
from camctrl_jax.data.stream import BatchStream, Bucket, latent_count
from camctrl_jax.data.tasks import TaskConfig
from camctrl_jax.data.text import PrecomputedText, TextEmbedder, WordEmbedder
from camctrl_jax.data.worlds_clips import worlds_clips
from camctrl_jax.models import VAEConfig
from camctrl_jax.training.config import ConfigError, mmdit_config
from camctrl_jax.training.state import Params
from camctrl_jax.worlds import WorldsConfig

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Inputs:
    """What a run reads.

    Attributes:
        stream: training batches.
        text: settings of the text embedder, stored beside the model.
        fps: frames per second of the clips.
        probe: ``probe(count)`` yields videos u8 [B, T, H, W, 3] of whole clips, ``count`` clips in all, the
            same every time; only where batches hold video.
    """

    stream: BatchStream
    text: dict
    fps: float
    probe: Callable[[int], Iterator[Any]]


def open_inputs(
    config: ConfigDict, mesh: Mesh, vae: tuple[VAEConfig, Params] | None, progress: Progress
) -> Inputs:
    """Open the data of a run at its beginning.

    Args:
        config: the run's configuration.
        mesh: where batches go.
        vae: the frozen autoencoder of a denoising run.
        progress: called with (clips done, clips in all) while worlds are rendered.

    Raises:
        ConfigError: there are no such data, or they do not fit the config.
    """
    try:
        if config.data.kind == "worlds":
            return _worlds_inputs(config, mesh, vae, progress)
        return _dataset_inputs(config, vae)
    except (ValueError, FileNotFoundError) as error:
        raise ConfigError(f"config.data: {error}") from error


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
    except (ValueError, OSError) as error:
        raise ConfigError(f"config.data.text.source={text.source!r}: {error}") from error
    if embedder.dim != text.dim:
        raise ConfigError(
            f"config.data.text.dim={text.dim}, but the embeddings in {text.source} have {embedder.dim} "
            f"channels; set --config.data.text.dim={embedder.dim}"
        )
    return embedder


def _shares_of(config: ConfigDict) -> tuple[int, int] | None:
    """Labelled to unlabelled clips; None, all clips alike, where no camera is learned."""
    if config.objective == "vae" or not config.model.camera:
        return None
    return tuple(config.data.labelled_to_unlabelled)


def render_worlds(
    config: ConfigDict, seeds: range, vae: tuple[VAEConfig, Params] | None, progress: Progress | None = None
) -> ResidentClips:
    """Clips of some worlds, sized as ``config.data`` says; latents where ``vae`` is given, else video."""
    data = config.data
    try:
        return worlds_clips(
            seeds,
            height=data.height,
            width=data.width,
            embedder=embedder_of(config),
            config=WorldsConfig(frames=data.worlds.frames, aspect=data.width / data.height),
            samples=data.worlds.samples,
            vae=vae,
            workers=None if data.worlds.workers < 0 else data.worlds.workers,
            cache=data.worlds.cache or None,
            progress=progress,
        )
    except KeyError as error:  # precomputed text lacks a caption
        raise ConfigError(
            f"config.data.text.source: {error.args[0]} Worlds are captioned without a text encoder where "
            "--config.data.text.source= is empty; a run on datasets reads worlds only to show samples "
            "(--config.sample_every=0)."
        ) from error


def held_out_clips(config: ConfigDict) -> dict[str, jax.Array]:
    """A batch of the held-out worlds ``config.sample.seeds`` with u8 ``video``, cameras and text, nothing
    dropped.
    """
    seeds = range(*config.sample.seeds)
    stream = render_worlds(config, seeds, vae=None).stream(
        batch_size=len(seeds),
        seed=0,
        tasks=TaskConfig(t2v=0.0, i2v=1.0, extension=0.0, text_dropout=0.0, camera_dropout=0.0),
        buckets=(Bucket(config.data.frames, len(seeds)),),
    )
    return next(stream)


def tokens_of(config: ConfigDict) -> int:
    """Video tokens of a training clip, from which the timestep shift follows."""
    t, h, w = mmdit_config(config).patch
    data = config.data
    return latent_count(data.frames) * (data.height // 8) * (data.width // 8) // (t * h * w)


def _worlds_inputs(
    config: ConfigDict, mesh: Mesh, vae: tuple[VAEConfig, Params] | None, progress: Progress
) -> Inputs:
    worlds = config.data.worlds
    clips = render_worlds(config, range(*worlds.seeds), vae if worlds.encode else None, progress)
    shares = _shares_of(config) if worlds.unlabelled_share > 0 else None
    if shares is not None:
        clips = clips.with_unlabelled(worlds.unlabelled_share, config.seed)
    if mesh.size > 1:
        clips = clips.placed(NamedSharding(mesh, PartitionSpec()))
    batch_sharding = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    stream = clips.stream(
        batch_size=config.batch_size,
        seed=config.seed,
        tasks=_tasks_of(config),
        labelled_to_unlabelled=shares,
        buckets=buckets_of(config),
        batch_sharding=batch_sharding,
    )

    def probe(count: int) -> Iterator[jax.Array]:
        # Another seed: the probe has its own order, and never moves the training stream.
        size = min(config.batch_size, count)
        whole = clips.stream(batch_size=size, seed=config.seed + 1, batch_sharding=batch_sharding)
        for _ in range(-(-count // size)):
            yield next(whole)["video"]

    return Inputs(stream, embedder_of(config).settings(), WorldsConfig().fps, probe)


def _dataset_inputs(config: ConfigDict, vae: tuple[VAEConfig, Params] | None) -> Inputs:
    from camctrl_jax.data.pipeline import ClipStream, PipelineConfig  # brings Grain and TFDS, slow to import

    data = config.data
    embedder = embedder_of(config)
    settings = PipelineConfig(
        datasets=tuple(data.datasets),
        unlabelled=tuple(data.unlabelled),
        buckets=buckets_of(config),
        labelled_to_unlabelled=_shares_of(config),
        tasks=_tasks_of(config),
        seed=config.seed,
        latents_of=None if vae is None else LatentEncoder(*vae).fingerprint(),
        fps=data.fps,
        workers=data.workers,
    )
    process = {"process_index": jax.process_index(), "process_count": jax.process_count()}

    def probe(count: int) -> Iterator[np.ndarray]:
        size = min(config.batch_size, count)
        whole = (Bucket(data.frames, size, height=data.height, width=data.width),)
        # In the calling process: a few batches are not worth a pool of workers.
        stream = ClipStream(
            dataclasses.replace(settings, buckets=whole, seed=config.seed + 1, workers=0), embedder, **process
        )
        for _ in range(-(-count // size)):
            yield next(stream)["video"]
        stream.close()

    return Inputs(ClipStream(settings, embedder, **process), embedder.settings(), data.fps, probe)


def _tasks_of(config: ConfigDict) -> TaskConfig:
    return TaskConfig(**config.tasks)
