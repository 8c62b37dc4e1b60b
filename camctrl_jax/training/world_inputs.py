"""Worlds that are trained on and measured on: rendered set by set, and streams of their batches."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from functools import partial

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from camctrl_jax.data.mixed import MixedStream, seed_of_set
from camctrl_jax.data.resident import ResidentClips, ResidentStream, check_kinds_there
from camctrl_jax.data.stream import Batch
from camctrl_jax.data.tasks import TaskConfig
from camctrl_jax.data.text import MissingText
from camctrl_jax.data.worlds_clips import batch_shapes, compile_together, worlds_clips
from camctrl_jax.data.worlds_set import Samplers, WorldsSet
from camctrl_jax.errors import InvalidValue
from camctrl_jax.models.autoencoder import Autoencoder
from camctrl_jax.parallel.sharding import batch_sharding, sample_sharding
from camctrl_jax.training.input_settings import (
    Inputs,
    Progress,
    buckets_of,
    embedder_of,
    measured,
    shares_of,
    taken,
)
from camctrl_jax.training.values import ConfigError, require
from camctrl_jax.training.world_sets import of_set, turns_of, views_of
from camctrl_jax.worlds import Places, WorldsConfig
from camctrl_jax.worlds.splits import HELD_OUT_FIRST_SEED

# Of the worlds that a run measures its loss on: far from those that it shows and that evaluations take.
_MEASURED_FIRST_SEED = HELD_OUT_FIRST_SEED + 500_000
_MEASURED_SEEDS = 20_000  # between those of one set and of the next


def worlds_inputs(
    config: ConfigDict, mesh: Mesh, encoder: Autoencoder | None, cameras: bool, progress: Progress
) -> Inputs:
    views = views_of(config)
    for name, view in views.items():
        try:
            _check_world_kinds(view, cameras)
            _check_latents(view, encoder)
        except InvalidValue as error:
            raise of_set(name, error) from error
    clips, before = {}, 0
    total = sum(len(trained_worlds(view)) for view in views.values())
    with _samplers(views) as samplers:
        if len(views) > 1:
            _compile_all(config, views, encoder, mesh)
        for name, view in views.items():
            own = partial(_shown_of_all, progress, before, total)
            seeds = range(*view.data.worlds.seeds)
            clips[name] = render_worlds(view, seeds, encoder, mesh, own, samplers)
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


def held_out_worlds(
    config: ConfigDict, number: int, clips: int, mesh: Mesh, encoder: Autoencoder | None, cameras: bool
) -> tuple[Batch, ...]:
    """Of a set of worlds that is the ``number``-th of its run."""
    fixed = _measured_worlds(config, number, clips)
    rendered = render_worlds(fixed, range(*fixed.data.worlds.seeds), encoder, mesh)
    return taken(_worlds_stream(fixed, mesh, rendered, cameras), fixed, clips, mesh)


def measured_clips(config: ConfigDict, views: Mapping[str, ConfigDict]) -> int:
    """Clips that the loss is measured on, of each set."""
    return -(-config.held_out.clips // len(views))


def _measured_worlds(config: ConfigDict, number: int, clips: int) -> ConfigDict:
    """The configuration of the held-out worlds of a set, the ``number``-th of its run."""
    fixed, count = measured(config), max(clips, config.batch_size)
    first = _MEASURED_FIRST_SEED + number * _MEASURED_SEEDS
    worlds = fixed.data.worlds
    worlds.seeds = (first, first + count)
    worlds.places.windows_per_take = 1  # as many takes as clips: more to tell apart
    # A share so small, or so large, that one kind would be missing among so few still has one of it.
    if worlds.unlabelled_share > 0:
        worlds.unlabelled_share = min(max(worlds.unlabelled_share, 1 / count), 1 - 1 / count)
    return fixed


def render_worlds(
    config: ConfigDict,
    seeds: range,
    encoder: Autoencoder | None,
    mesh: Mesh | None = None,
    progress: Progress | None = None,
    samplers: Samplers | None = None,
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
            workers=_workers(config),
            samplers=samplers,
            cache=data.worlds.cache or None,
            progress=progress,
        )
    except MissingText as error:
        raise ConfigError(
            f"config.data.text.source: {error} Worlds are captioned without a text encoder where "
            "--config.data.text.source= is empty; a run on datasets reads worlds only to show samples "
            "(--config.sample_every=0) and to measure its loss (--config.held_out.datasets)."
        ) from error


def _workers(config: ConfigDict) -> int | None:
    """Processes that sample worlds, as asked; None: as it suits."""
    return None if config.data.worlds.workers < 0 else config.data.worlds.workers


def _samplers(views: Mapping[str, ConfigDict]) -> contextlib.AbstractContextManager[Samplers | None]:
    """The processes that sample all sets of a run; None where those of a set, or none, will do."""
    count = max(trained_worlds(view).workers_of(_workers(view)) for view in views.values())
    return Samplers(count) if len(views) > 1 and count else contextlib.nullcontext()


def batch_shapes_of(
    config: ConfigDict, mesh: Mesh, encoder: Autoencoder | None
) -> list[dict[str, jax.ShapeDtypeStruct]]:
    """The batches that a run on worlds will draw, by shape, dtype and place on the mesh.

    They are known before a world is rendered.
    """
    return [
        {
            name: jax.ShapeDtypeStruct(
                each.shape, each.dtype, sharding=batch_sharding(name, each.shape, mesh)
            )
            for name, each in shapes.items()
        }
        for view in views_of(config).values()
        for shapes in batch_shapes(
            trained_worlds(view), embedder_of(view), buckets_of(view), autoencoder=encoder
        )
    ]


def trained_worlds(config: ConfigDict) -> WorldsSet:
    return _worlds_set(config, range(*config.data.worlds.seeds))


def _worlds_set(config: ConfigDict, seeds: range) -> WorldsSet:
    data = config.data
    return WorldsSet(
        seeds,
        data.height,
        data.width,
        worlds_config(config),
        data.worlds.samples,
        data.worlds.labels,
        data.worlds.places.windows_per_take,
        data.worlds.retrieved,
    )


def worlds_config(config: ConfigDict) -> WorldsConfig:
    data, asked = config.data, config.data.worlds.places
    places = None
    if asked.take_frames:
        places = Places(asked.layout or None, asked.route or None, asked.take_frames)
    return WorldsConfig(frames=data.worlds.frames, aspect=data.width / data.height, places=places)


def _world_shares(config: ConfigDict, cameras: bool) -> tuple[int, int] | None:
    """The same for worlds, which have no unlabelled clips where no share of them loses its cameras."""
    return shares_of(config, cameras) if config.data.worlds.unlabelled_share > 0 else None


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
    shares, worlds = shares_of(config, cameras), config.data.worlds
    if shares is None:
        return
    count = len(trained_worlds(config))
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


def _compile_all(
    config: ConfigDict, views: Mapping[str, ConfigDict], encoder: Autoencoder | None, mesh: Mesh
) -> None:
    """Compile at the same time what all sets need, those that are measured on included."""
    every = list(views.values())
    if config.held_out.every and not config.held_out.datasets:
        clips = measured_clips(config, views)
        every += [_measured_worlds(view, number, clips) for number, view in enumerate(views.values())]
    cache = config.data.worlds.cache or None
    compile_together(
        [trained_worlds(view) for view in every],
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
