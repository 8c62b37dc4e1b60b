"""From ``config.data`` to streams of batches: what is trained on, what is measured on, what is shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from camctrl_jax.data.clip_sets import shared_folders
from camctrl_jax.data.clips import dataset_folders
from camctrl_jax.data.clips.dataset import check_is_dataset
from camctrl_jax.data.mixed import sets_identity
from camctrl_jax.data.positions import check_same_clips
from camctrl_jax.data.resident import clips_identity
from camctrl_jax.data.stream import Batch, Bucket
from camctrl_jax.data.tasks import TaskConfig
from camctrl_jax.errors import InvalidValue, MissingFile, UserError
from camctrl_jax.models.autoencoder import Autoencoder
from camctrl_jax.parallel.sharding import distribute_batch
from camctrl_jax.training.input_settings import (
    Inputs,
    Progress,
    buckets_of,
    embedder_of,
    measured,
    shares_of,
    taken,
)
from camctrl_jax.training.objective import PreviewClips
from camctrl_jax.training.values import ConfigError, value_of
from camctrl_jax.training.world_inputs import (
    batch_shapes_of,
    held_out_worlds,
    measured_clips,
    render_worlds,
    trained_worlds,
    worlds_config,
    worlds_inputs,
)
from camctrl_jax.training.world_sets import views_of
from camctrl_jax.worlds import sample_world

if TYPE_CHECKING:  # it brings Grain, see _clip_stream
    from camctrl_jax.data.clip_stream import ClipStream


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
            return worlds_inputs(config, mesh, encoder, cameras, progress)
        return _dataset_inputs(config, mesh, encoder, cameras)
    except ConfigError:
        raise
    except (InvalidValue, MissingFile) as error:
        raise ConfigError(f"config.data: {error}") from error


def batch_shapes(
    config: ConfigDict, mesh: Mesh, encoder: Autoencoder | None
) -> list[dict[str, jax.ShapeDtypeStruct]]:
    """The batches of a run, by shape, dtype and place on the mesh, before its data are opened.

    Empty where batches are read from disk. Arguments are those of :func:`open_inputs`.
    """
    return batch_shapes_of(config, mesh, encoder) if config.data.kind == "worlds" else []


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
    sets = {name: trained_worlds(view).ids for name, view in views_of(config).items()}
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
        clips = measured_clips(config, views)
        return {
            name: held_out_worlds(view, number, clips, mesh, encoder, cameras)
            for number, (name, view) in enumerate(views.items())
        }
    except ConfigError:
        raise
    except UserError as error:
        raise ConfigError(f"config.held_out: {error}") from error


def _held_out_datasets(config: ConfigDict, mesh: Mesh, encoder: Autoencoder | None) -> tuple[Batch, ...]:
    fixed, held = measured(config), config.held_out
    fixed.data.datasets, fixed.data.unlabelled, fixed.data.workers = tuple(held.datasets), (), 0
    # One shape, that of training clips; every clip alike.
    return taken(_clip_stream(fixed, encoder, buckets_of(fixed), shares=None), fixed, held.clips, mesh)


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
    captions = tuple(sample_world(seed, worlds_config(config)).captions[0] for seed in shown)
    return PreviewClips(batch, captions)


def _dataset_inputs(config: ConfigDict, mesh: Mesh, encoder: Autoencoder | None, cameras: bool) -> Inputs:
    def probe(count: int) -> Iterator[jax.Array]:
        size = min(config.batch_size, count)
        # In the calling process: a few batches are not worth a pool of workers.
        probing = config.copy_and_resolve_references()
        probing.seed, probing.data.workers = config.seed + 1, 0
        buckets = _whole_clips(config, size)
        shares = shares_of(config, cameras)
        stream = _clip_stream(probing, encoder, buckets, shares, every_dataset=False)
        for _ in range(-(-count // size)):
            yield distribute_batch({"video": next(stream)["video"]}, mesh)["video"]
        stream.close()

    stream = _clip_stream(config, encoder, buckets_of(config), shares_of(config, cameras))
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
