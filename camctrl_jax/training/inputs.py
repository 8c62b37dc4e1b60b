"""From ``config.data`` to streams of batches: what is trained on, what is measured on, what is shown."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from camctrl_jax.data.clip_sets import shared_folders
from camctrl_jax.data.clips import dataset_folders
from camctrl_jax.data.clips.dataset import check_is_dataset
from camctrl_jax.data.mixed import MixedStream, seed_of_set, sets_identity
from camctrl_jax.data.positions import check_same_clips
from camctrl_jax.data.resident import ResidentClips, ResidentStream, check_kinds_there, clips_identity
from camctrl_jax.data.stream import Batch, BatchStream, Bucket
from camctrl_jax.data.tasks import TaskConfig
from camctrl_jax.data.text import MissingText, PrecomputedText, TextEmbedder, WordEmbedder
from camctrl_jax.data.worlds_clips import compile_together, worlds_clips
from camctrl_jax.data.worlds_set import WorldsSet
from camctrl_jax.errors import InvalidValue, MissingFile, UserError
from camctrl_jax.models.autoencoder import Autoencoder
from camctrl_jax.parallel.sharding import distribute_batch, sample_sharding
from camctrl_jax.training.objective import PreviewClips
from camctrl_jax.training.values import ConfigError, require, value_of
from camctrl_jax.training.world_sets import of_set, turns_of, views_of
from camctrl_jax.worlds import Places, WorldsConfig, sample_world
from camctrl_jax.worlds.splits import HELD_OUT_FIRST_SEED

if TYPE_CHECKING:  # it brings Grain, see _clip_stream
    from camctrl_jax.data.clip_stream import ClipStream

Progress = Callable[[int, int], None]

# Of the worlds that a run measures its loss on: far from those that it shows and that evaluations take.
_MEASURED_FIRST_SEED = HELD_OUT_FIRST_SEED + 500_000
_MEASURED_SEEDS = 20_000  # between those of one set and of the next


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


def open_inputs(
    config: ConfigDict, mesh: Mesh, encoder: Autoencoder | None, cameras: bool, progress: Progress
) -> Inputs:
    """Open the data of a run at its beginning.

    Args:
        config: the run's configuration.
        mesh: where batches go.
        encoder: makes latents of what is rendered, and is what cached latents must come from; None: video.
        cameras: whether labelled and unlabelled clips are mixed at the configured ratio.
        progress: called with (clips done, clips in all) while worlds are rendered.

    Raises:
        ConfigError: there are no such data, or they do not fit the config.
    """
    try:
        if config.data.kind == "worlds":
            return _worlds_inputs(config, mesh, encoder, cameras, progress)
        return _dataset_inputs(config, mesh, encoder, cameras)
    except ConfigError:
        raise
    except (InvalidValue, MissingFile) as error:
        raise ConfigError(f"config.data: {error}") from error


def check_folders(config: ConfigDict) -> None:
    """Check that every dataset that a run will read is there, before any work.

    Raises:
        ConfigError: names the key and the folder.
    """
    keys = ["held_out.datasets"] if config.held_out.every else []
    keys += ["data.datasets", "data.unlabelled"] if config.data.kind == "datasets" else []
    for key in keys:
        for folder in value_of(config, key):
            try:
                for part in dataset_folders(folder):
                    check_is_dataset(part)
            except (InvalidValue, MissingFile) as error:
                raise ConfigError(f"config.{key}: {error}") from error


def check_position(config: ConfigDict, position: Mapping[str, Any]) -> None:
    """Check, before worlds are rendered, that the position of a checkpoint is one in them.

    Raises:
        InvalidValue: says what differs.
    """
    if config.data.kind != "worlds":
        return  # datasets are opened at once, and streams check
    sets = {name: _trained_worlds(view).ids for name, view in views_of(config).items()}
    alone = sets.get("")
    own = sets_identity(sets, config.seed) if alone is None else clips_identity(alone, config.seed)
    check_same_clips(position, own)


def held_out_remarks(config: ConfigDict) -> tuple[str, ...]:
    """Sentences on datasets that the loss is measured on and that are trained on, too."""
    if not config.held_out.every or config.data.kind != "datasets":
        return ()
    trained = (*config.data.datasets, *config.data.unlabelled)
    return tuple(
        f"{held} is named under held_out.datasets, and is trained on ({other}): its loss is not one on clips "
        "that were never seen"
        for held, other in shared_folders(tuple(config.held_out.datasets), trained)
    )


def held_out_batches(
    config: ConfigDict, mesh: Mesh, encoder: Autoencoder | None, cameras: bool
) -> dict[str, tuple[Batch, ...]]:
    """Batches that are never trained on, the same in every run, on the mesh.

    Of the datasets ``config.held_out.datasets``, or of held-out worlds; tasks and dropout are those of
    training.

    Returns:
        By set of worlds; under the name "" where there are no sets.

    Raises:
        ConfigError: there are no such data, or they do not fit the config.
    """
    try:
        if config.held_out.datasets:
            return {"": _held_out_datasets(config, mesh, encoder)}
        views = views_of(config)
        clips = _measured_clips(config, views)
        return {
            name: _held_out_worlds(view, number, clips, mesh, encoder, cameras)
            for number, (name, view) in enumerate(views.items())
        }
    except ConfigError:
        raise
    except UserError as error:
        raise ConfigError(f"config.held_out: {error}") from error


def _held_out_datasets(config: ConfigDict, mesh: Mesh, encoder: Autoencoder | None) -> tuple[Batch, ...]:
    fixed, held = _measured(config), config.held_out
    fixed.data.datasets, fixed.data.unlabelled, fixed.data.workers = tuple(held.datasets), (), 0
    # One shape, that of training clips; every clip alike.
    return _taken(_clip_stream(fixed, encoder, buckets_of(fixed), shares=None), fixed, held.clips, mesh)


def _held_out_worlds(
    config: ConfigDict, number: int, clips: int, mesh: Mesh, encoder: Autoencoder | None, cameras: bool
) -> tuple[Batch, ...]:
    """Of a set of worlds that is the ``number``-th of its run."""
    fixed = _measured_worlds(config, number, clips)
    rendered = render_worlds(fixed, range(*fixed.data.worlds.seeds), encoder, mesh)
    return _taken(_worlds_stream(fixed, mesh, rendered, cameras), fixed, clips, mesh)


def _measured_clips(config: ConfigDict, views: Mapping[str, ConfigDict]) -> int:
    """Clips that the loss is measured on, of each set."""
    return -(-config.held_out.clips // len(views))


def _measured_worlds(config: ConfigDict, number: int, clips: int) -> ConfigDict:
    """The configuration of the held-out worlds of a set, the ``number``-th of its run."""
    fixed, count = _measured(config), max(clips, config.batch_size)
    first = _MEASURED_FIRST_SEED + number * _MEASURED_SEEDS
    worlds = fixed.data.worlds
    worlds.seeds = (first, first + count)
    worlds.places.windows_per_take = 1  # as many takes as clips: more to tell apart
    # A share so small, or so large, that one kind would be missing among so few still has one of it.
    if worlds.unlabelled_share > 0:
        worlds.unlabelled_share = min(max(worlds.unlabelled_share, 1 / count), 1 - 1 / count)
    return fixed


def _measured(config: ConfigDict) -> ConfigDict:
    """The configuration with what measurements of all runs share."""
    fixed = config.copy_and_resolve_references()
    fixed.seed = 0
    fixed.data.image_turns, fixed.data.video_turns = 0, 1
    return fixed


def _taken(stream: BatchStream, config: ConfigDict, clips: int, mesh: Mesh) -> tuple[Batch, ...]:
    count = max(1, clips // config.batch_size)
    batches = tuple(distribute_batch(batch, mesh) for batch in itertools.islice(stream, count))
    stream.close()
    return batches


def preview_clips(config: ConfigDict) -> PreviewClips:
    """The held-out worlds ``config.sample.seeds``, whole, nothing dropped, on the host."""
    config = config.copy_and_resolve_references()
    config.data.worlds.retrieved, config.data.worlds.places.windows_per_take = 0, 1
    seeds = range(*config.sample.seeds)
    data = config.data
    clips = render_worlds(config, seeds, None)
    stream = clips.stream(
        batch_size=len(seeds),
        seed=0,
        tasks=TaskConfig(t2v=0.0, i2v=1.0, extension=0.0, text_dropout=0.0, camera_dropout=0.0),
        buckets=(Bucket(data.frames, len(seeds)),),
    )
    batch = {name: np.asarray(array) for name, array in next(stream).items()}
    shown = [seeds[index] for index in batch["clip_index"].tolist()]
    captions = tuple(sample_world(seed, _worlds_config(config)).captions[0] for seed in shown)
    return PreviewClips(batch, captions)


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


def render_worlds(
    config: ConfigDict,
    seeds: range,
    encoder: Autoencoder | None,
    mesh: Mesh | None = None,
    progress: Progress | None = None,
) -> ResidentClips:
    """Clips of some worlds, sized as ``config.data`` says; latents where an ``encoder`` is given, else video.

    With a mesh all of its devices work, and the clips are on all of them.
    """
    data = config.data
    try:
        return worlds_clips(
            _worlds_set(config, seeds),
            embedder_of(config),
            autoencoder=encoder,
            mesh=mesh,
            workers=None if data.worlds.workers < 0 else data.worlds.workers,
            cache=data.worlds.cache or None,
            progress=progress,
        )
    except MissingText as error:
        raise ConfigError(
            f"config.data.text.source: {error} Worlds are captioned without a text encoder where "
            "--config.data.text.source= is empty; a run on datasets reads worlds only to show samples "
            "(--config.sample_every=0) and to measure its loss (--config.held_out.datasets)."
        ) from error


def _worlds_set(config: ConfigDict, seeds: range) -> WorldsSet:
    data = config.data
    return WorldsSet(
        seeds,
        data.height,
        data.width,
        _worlds_config(config),
        data.worlds.samples,
        data.worlds.labels,
        data.worlds.places.windows_per_take,
        data.worlds.retrieved,
    )


def _trained_worlds(config: ConfigDict) -> WorldsSet:
    return _worlds_set(config, range(*config.data.worlds.seeds))


def _worlds_config(config: ConfigDict) -> WorldsConfig:
    data, asked = config.data, config.data.worlds.places
    places = None
    if asked.take_frames:
        places = Places(asked.layout or None, asked.route or None, asked.take_frames)
    return WorldsConfig(frames=data.worlds.frames, aspect=data.width / data.height, places=places)


def _shares_of(config: ConfigDict, cameras: bool) -> tuple[int, int] | None:
    """Labelled to unlabelled clips; None, all clips alike, where no camera is learned."""
    return tuple(config.data.labelled_to_unlabelled) if cameras else None


def _world_shares(config: ConfigDict, cameras: bool) -> tuple[int, int] | None:
    """The same for worlds, which have no unlabelled clips where no share of them loses its cameras."""
    return _shares_of(config, cameras) if config.data.worlds.unlabelled_share > 0 else None


def _worlds_stream(
    config: ConfigDict, mesh: Mesh, clips: ResidentClips, cameras: bool, name: str = ""
) -> ResidentStream:
    """Training batches of clips, of a set of a name where there are sets."""
    shares = _world_shares(config, cameras)
    if shares is not None:
        clips = clips.with_unlabelled(config.data.worlds.unlabelled_share, config.seed)
    return clips.stream(
        batch_size=config.batch_size,
        seed=seed_of_set(config.seed, name) if name else config.seed,
        tasks=TaskConfig(**config.tasks),
        labelled_to_unlabelled=shares,
        buckets=buckets_of(config),
        batch_sharding=sample_sharding(mesh),
    )


def _check_world_kinds(config: ConfigDict, cameras: bool) -> None:
    """Check, before worlds are rendered, that there will be clips of each kind that is drawn."""
    shares, worlds = _shares_of(config, cameras), config.data.worlds
    if shares is None:
        return
    count = len(_trained_worlds(config))
    unlabelled = round(worlds.unlabelled_share * count)
    if worlds.unlabelled_share > 0 or not shares[0]:
        check_kinds_there(shares, count - unlabelled, unlabelled)


def _check_latents(config: ConfigDict, encoder: Autoencoder | None) -> None:
    """Check, before worlds are rendered, that there will be latents where frames are retrieved."""
    require(
        config,
        encoder is not None or not config.data.worlds.retrieved,
        "data.worlds.retrieved",
        f"the objective {config.objective!r} reads videos, and frames are retrieved as latents: expected 0",
    )


def _worlds_report(config: ConfigDict, clips: ResidentClips, cameras: bool, name: str) -> str:
    shares, count = _world_shares(config, cameras), len(clips)
    hidden = 0 if shares is None else round(config.data.worlds.unlabelled_share * count)
    drawn = count
    if shares is not None and not all(shares):
        drawn = count - hidden if shares[0] else hidden
    report = f"worlds: {count} clips, {count - hidden} labelled; drawn: {drawn}"
    if not name:
        return report
    size = sum(array.nbytes for array in clips.arrays.values()) / 2**30
    kind = "windows of takes" if config.data.worlds.places.take_frames else "worlds"
    shape = f"{config.data.frames} frames, {config.data.height}x{config.data.width}, {size:.2f} GiB a device"
    return f"{name} ({kind}): {report.removeprefix('worlds: ')}; {shape}"


def _worlds_inputs(
    config: ConfigDict, mesh: Mesh, encoder: Autoencoder | None, cameras: bool, progress: Progress
) -> Inputs:
    views = views_of(config)
    for name, view in views.items():
        try:
            _check_world_kinds(view, cameras)
            _check_latents(view, encoder)
        except InvalidValue as error:
            raise of_set(name, error) from error
    if len(views) > 1:
        _compile_all(config, views, encoder, mesh)
    clips, before = {}, 0
    total = sum(len(_trained_worlds(view)) for view in views.values())
    for name, view in views.items():
        own = partial(_shown_of_all, progress, before, total)
        clips[name] = render_worlds(view, range(*view.data.worlds.seeds), encoder, mesh, own)
        before += len(clips[name])

    def probe(count: int) -> Iterator[jax.Array]:
        for name, view in views.items():  # of each set as many
            yield from _probed(view, mesh, clips[name], -(-count // len(views)))

    streams = {name: _worlds_stream(view, mesh, clips[name], cameras, name) for name, view in views.items()}
    alone = streams.get("")
    return Inputs(
        MixedStream(streams, turns_of(config), config.seed) if alone is None else alone,
        probe,
        tuple(_worlds_report(view, clips[name], cameras, name) for name, view in views.items()),
    )


def _compile_all(
    config: ConfigDict, views: Mapping[str, ConfigDict], encoder: Autoencoder | None, mesh: Mesh
) -> None:
    """Compile at the same time what all sets need, those that are measured on included."""
    every = list(views.values())
    if config.held_out.every and not config.held_out.datasets:
        clips = _measured_clips(config, views)
        every += [_measured_worlds(view, number, clips) for number, view in enumerate(views.values())]
    cache = config.data.worlds.cache or None
    compile_together(
        [_trained_worlds(view) for view in every],
        embedder_of(config),
        autoencoder=encoder,
        mesh=mesh,
        cache=cache,
    )


def _shown_of_all(progress: Progress, before: int, total: int, done: int, count: int) -> None:
    """The progress of one set as that of all."""
    del count
    progress(before + done, total)


def _probed(config: ConfigDict, mesh: Mesh, clips: ResidentClips, count: int) -> Iterator[jax.Array]:
    """Videos of ``count`` clips."""
    # Another seed: the probe has its own order, and never moves the training stream.
    size = min(config.batch_size, count)
    whole = clips.stream(batch_size=size, seed=config.seed + 1, batch_sharding=sample_sharding(mesh))
    for _ in range(-(-count // size)):
        yield next(whole)["video"]


def _dataset_inputs(config: ConfigDict, mesh: Mesh, encoder: Autoencoder | None, cameras: bool) -> Inputs:
    def probe(count: int) -> Iterator[jax.Array]:
        size = min(config.batch_size, count)
        # In the calling process: a few batches are not worth a pool of workers.
        probing = config.copy_and_resolve_references()
        probing.seed, probing.data.workers = config.seed + 1, 0
        buckets = _whole_clips(config, size)
        shares = _shares_of(config, cameras)
        stream = _clip_stream(probing, encoder, buckets, shares, every_dataset=False)
        for _ in range(-(-count // size)):
            yield distribute_batch({"video": next(stream)["video"]}, mesh)["video"]
        stream.close()

    stream = _clip_stream(config, encoder, buckets_of(config), _shares_of(config, cameras))
    return Inputs(stream, probe, tuple(map(str, stream.reports)), stream.remarks)


def _whole_clips(config: ConfigDict, batch_size: int) -> tuple[Bucket, ...]:
    """The longest clips of a run: images where it draws nothing else."""
    data = config.data
    frames = data.frames if data.video_turns else 1
    return (Bucket(frames, batch_size, height=data.height, width=data.width),)


def _clip_stream(
    config: ConfigDict,
    encoder: Autoencoder | None,
    buckets: tuple[Bucket, ...],
    shares: tuple[int, int] | None,
    every_dataset: bool = True,
) -> ClipStream:
    """Batches of ``config.data.datasets``, of this process."""
    # Brings Grain and TFDS, which runs on worlds do without: slow to import, and absent on bare machines.
    from camctrl_jax.data.clip_stream import ClipStream, ClipStreamConfig

    data = config.data
    settings = ClipStreamConfig(
        datasets=tuple(data.datasets),
        unlabelled=tuple(data.unlabelled),
        buckets=buckets,
        labelled_to_unlabelled=shares,
        tasks=TaskConfig(**config.tasks),
        seed=config.seed,
        latents_of=None if encoder is None else encoder.fingerprint(),
        fps=data.fps,
        every_dataset=every_dataset,
        workers=data.workers,
    )
    process = {"process_index": jax.process_index(), "process_count": jax.process_count()}
    return ClipStream(settings, embedder_of(config), **process)
