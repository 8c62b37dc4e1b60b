"""Worlds straight into device memory: sampled by processes, rendered and encoded on the accelerators.

No files and no download: this is what ``:worlds`` configurations train on. Scenes are sampled in numpy by a
pool of processes while the devices render and encode the previous ones; the host never holds more than a few
chunks.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax import Array
from jax.sharding import Mesh

from camctrl_jax import __version__
from camctrl_jax.camera.framing import relative_to_first, relative_to_reference
from camctrl_jax.data.every_device import EveryDevice
from camctrl_jax.data.gathering import shapes_of_batch
from camctrl_jax.data.resident import ResidentClips, embed_captions
from camctrl_jax.data.stream import COARSE_TRUTH, Bucket
from camctrl_jax.data.text import TextEmbedder
from camctrl_jax.data.worlds_set import Sampled, Samplers, WorldsSet, sampled_worlds
from camctrl_jax.errors import FileFailure, InvalidValue
from camctrl_jax.models.autoencoder import Autoencoder
from camctrl_jax.worlds import World
from camctrl_jax.worlds.truth import CELL

Progress = Callable[[int, int], None]

_CHUNK = 32  # clips that a device renders and encodes together


def worlds_clips(
    worlds: WorldsSet,
    embedder: TextEmbedder,
    *,
    autoencoder: Autoencoder | None = None,
    mesh: Mesh | None = None,
    chunk: int = _CHUNK,
    workers: int | None = None,
    samplers: Samplers | None = None,
    cache: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> ResidentClips:
    """Clips of worlds, in device memory.

    Args:
      worlds: which.
      embedder: for all captions of all clips.
      autoencoder: store its normalised latents in float16. None: store u8 video.
      mesh: all its devices render and encode, and the clips lie on each of them; all its processes must call
        this alike. None or one device: the default device works alone.
      chunk: clips that a device renders and encodes together; bounds its memory during the build.
      workers: processes that sample scenes; None picks by the number of clips and cores, 0 uses none.
      samplers: processes that are there, in place of any others.
      cache: folder in which finished sets are kept. A set is found again only if seeds, worlds, size, VAE
        parameters, text settings and the source of ``camctrl_jax.worlds`` are the same.
      progress: called with (clips done, clips in all) after each chunk.

    Returns: ``ResidentClips`` named as ``WorldsSet.ids``.
    """
    if worlds.retrieved and autoencoder is None:
        raise InvalidValue(
            f"retrieved={worlds.retrieved}, but these clips are kept as video: frames are retrieved as "
            "latents. Keep latents (config.data.worlds.encode), or retrieve nothing (0)."
        )
    with EveryDevice(mesh, len(worlds), chunk) as devices:
        stored = _stored(worlds, embedder, autoencoder, cache)
        # Processes may have disks of their own: they read only what all of them have.
        if stored is not None and devices.all_agree((stored / "clips.json").exists()):
            logging.info("worlds %s: reading %s", worlds.seeds, stored)
            clips = ResidentClips.load(stored)
        else:
            clips = _build(worlds, embedder, autoencoder, devices, workers, samplers, progress)
            if stored is not None:
                _save(clips, stored)
        return clips if devices.everywhere is None else clips.distributed(devices.everywhere)


def batch_shapes(
    worlds: WorldsSet,
    embedder: TextEmbedder,
    buckets: Sequence[Bucket],
    *,
    autoencoder: Autoencoder | None = None,
) -> list[dict[str, jax.ShapeDtypeStruct]]:
    """Shapes and dtypes of the batches of streams of a set, bucket by bucket, before there are any clips.

    Arguments are those of :func:`worlds_clips`.
    """
    frames, size = worlds.config.frames, (worlds.height, worlds.width)
    vectors, _ = embedder.embed([""])
    tokens, width = vectors.shape[1:]
    shapes: dict[str, tuple[tuple[int, ...], Any]] = {
        "world_from_camera": ((1, frames, 4, 4), jnp.float32),
        "intrinsics": ((1, frames, 4), jnp.float32),
        "text": ((1, 1, tokens, width), jnp.float16),
        "text_mask": ((1, 1, tokens), bool),
        "empty_text": ((tokens, width), jnp.float16),
        "empty_mask": ((tokens,), bool),
    }
    if autoencoder is None:
        shapes["video"] = (1, frames, *size, 3), jnp.uint8
    else:
        shapes["latents"] = (1, *autoencoder.config.latent_shape(frames, *size)), jnp.float16
    if worlds.labels:
        cells = (1, frames, worlds.height // CELL, worlds.width // CELL)
        shapes |= dict.fromkeys(COARSE_TRUTH, (cells, jnp.float16))
    if worlds.retrieved:
        alone = autoencoder.config.latent_shape(1, *size)[1:]
        shapes["retrieved_latents"] = (1, worlds.candidates, *alone), jnp.float16
        shapes["retrieved_world_from_camera"] = (1, worlds.candidates, 4, 4), jnp.float32
        shapes["retrieved_intrinsics"] = (1, worlds.candidates, 4), jnp.float32
    arrays = {name: jax.ShapeDtypeStruct(*each) for name, each in shapes.items()}
    return [shapes_of_batch(arrays, bucket.batch_size, bucket.frames, worlds.retrieved) for bucket in buckets]


def compile_together(
    sets: Sequence[WorldsSet],
    embedder: TextEmbedder,
    *,
    autoencoder: Autoencoder | None = None,
    mesh: Mesh | None = None,
    chunk: int = _CHUNK,
    cache: str | os.PathLike[str] | None = None,
) -> None:
    """Compile what renders and encodes several sets, all at the same time, ahead of :func:`worlds_clips`.

    Sets of different sizes and lengths have programs of their own, and a GPU's take minutes when they are
    compiled one after the other. A chunk of each set is made and thrown away. Arguments are those of
    :func:`worlds_clips`; sets that the cache has are left out.
    """
    wanted: dict[tuple, WorldsSet] = {}
    for worlds in sets:
        stored = _stored(worlds, embedder, autoencoder, cache)
        if stored is None or not (stored / "clips.json").exists():
            wanted.setdefault(_programs_of(worlds, mesh, chunk), worlds)

    def compile_for(worlds: WorldsSet) -> None:
        with EveryDevice(mesh, len(worlds), chunk) as devices:
            devices.try_out(
                partial(_rows, worlds, _encoders(autoencoder, devices)), worlds.sample([0]) * devices.part
            )

    if len(wanted) > 1:
        with ThreadPoolExecutor(len(wanted)) as threads:
            list(threads.map(compile_for, wanted.values()))


def _programs_of(worlds: WorldsSet, mesh: Mesh | None, chunk: int) -> tuple:
    """Sets that are equal in this are rendered and encoded by the same programs."""
    with EveryDevice(mesh, len(worlds), chunk) as devices:
        part = devices.part
    size = (worlds.height, worlds.width, worlds.samples, worlds.config.frames)
    return (*size, worlds.config.places is None, worlds.retrieved, worlds.labels, part)


def _stored(
    worlds: WorldsSet,
    embedder: TextEmbedder,
    autoencoder: Autoencoder | None,
    cache: str | os.PathLike[str] | None,
) -> Path | None:
    """Where the cache keeps a set."""
    return None if cache is None else Path(cache) / f"worlds-{_digest(worlds, embedder, autoencoder)}"


def _encoders(autoencoder: Autoencoder | None, devices: EveryDevice) -> list[Autoencoder]:
    """One for each device of this process."""
    if autoencoder is None:
        return []
    return [replace(autoencoder, params=params) for params in devices.copies(autoencoder.params)]


def _rows(
    worlds: WorldsSet, encoders: Sequence[Autoencoder], place: int, clips: Sequence[Sampled]
) -> dict[str, Array]:
    """What is kept of some clips, made by the ``place``-th device of this process."""
    windows = [clip.world for clip in clips]
    video = worlds.render(windows)
    latents = {"latents": encoders[place].encode(video, dtype=jnp.float16)} if encoders else {}
    made = (latents or {"video": video}) | worlds.truth(windows)
    if worlds.retrieved:
        frames = worlds.render([clip.memory for clip in clips])  # [n, M, H, W, 3]
        alone = encoders[place].encode(frames.reshape(-1, 1, *frames.shape[2:]), dtype=jnp.float16)
        made["retrieved_latents"] = alone.reshape(*frames.shape[:2], *alone.shape[2:])
    return made


def _digest(worlds: WorldsSet, embedder: TextEmbedder, autoencoder: Autoencoder | None) -> str:
    """Identifies everything that clips follow from."""
    latents = None
    if autoencoder is not None:
        latents = [autoencoder.fingerprint(), jnp.dtype(autoencoder.dtype).name]
    facts = {
        "seeds": [worlds.seeds.start, worlds.seeds.stop, worlds.seeds.step],
        "size": [worlds.height, worlds.width],
        "samples": worlds.samples,
        "worlds": asdict(worlds.config),
        "source": source_digest(resources.files("camctrl_jax.worlds")),
        "text": embedder.settings(),
        "latents": latents,
        "version": __version__,
    }
    if worlds.labels:
        facts["labels"] = True
    if worlds.windows_per_take > 1:
        facts["windows_per_take"] = worlds.windows_per_take
    if worlds.retrieved:
        selector = resources.files("camctrl_jax.camera").joinpath("retrieval.py").read_bytes()
        facts["retrieved"] = [worlds.retrieved, hashlib.sha256(selector).hexdigest()[:16]]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _save(clips: ResidentClips, folder: Path) -> None:
    try:
        clips.save(folder)
    except FileFailure:
        if not (folder / "clips.json").exists():  # else another process of the job wrote the same clips
            raise


def source_digest(package: Traversable) -> str:
    """Of the modules of a package; when it changes, the same seeds may give other worlds or pictures."""
    digest = hashlib.sha256()
    for module in sorted(package.iterdir(), key=lambda file: file.name):
        if module.name.endswith(".py"):
            digest.update(f"{module.name}\n".encode() + module.read_bytes())
        elif module.is_dir() and module.name != "__pycache__":
            digest.update(f"{module.name}/{source_digest(module)}\n".encode())
    return digest.hexdigest()[:16]


def _build(
    worlds: WorldsSet,
    embedder: TextEmbedder,
    autoencoder: Autoencoder | None,
    devices: EveryDevice,
    workers: int | None,
    samplers: Samplers | None,
    progress: Progress | None,
) -> ResidentClips:
    rows = partial(_rows, worlds, _encoders(autoencoder, devices))
    small: dict[str, list[np.ndarray]] = {}  # what stays on the host until the end, chunk by chunk
    texts = []
    processes = worlds.workers_of(workers)
    sampled_chunks = sampled_worlds(
        worlds, devices.numbers, chunk=devices.own, workers=processes, samplers=samplers
    )
    for sampled in sampled_chunks:
        done = devices.add(rows, sampled)
        for name, values in _cameras_of(sampled).items():
            small.setdefault(name, []).append(values)
        texts.append(embed_captions(embedder, [clip.world.captions for clip in sampled]))
        if progress is not None:
            progress(done, len(worlds))
    slots = devices.largest(max(text["text"].shape[1] for text in texts))

    def text(name: str) -> np.ndarray:
        return devices.gathered(np.concatenate([_with_slots(text[name], slots) for text in texts]))

    empty, empty_mask = embedder.embed([""])
    arrays = {
        **devices.rows(),
        **{name: jnp.asarray(devices.gathered(np.concatenate(values))) for name, values in small.items()},
        "text": jnp.asarray(text("text")),
        "text_mask": jnp.asarray(text("text_mask")),
        "empty_text": jnp.asarray(empty[0].astype(np.float16)),
        "empty_mask": jnp.asarray(empty_mask[0]),
    }
    counts = devices.gathered(np.concatenate([text["caption_count"] for text in texts]))
    return ResidentClips(
        arrays=arrays,
        caption_count=counts,
        labelled=np.ones(len(worlds), bool),
        ids=worlds.ids,
        shared_reference=worlds.shared_reference,
    )


def _cameras_of(clips: Sequence[Sampled]) -> dict[str, np.ndarray]:
    """Poses and intrinsics f32 of windows, and of the frames that may be retrieved for them."""
    parts = {"": [clip.world for clip in clips]}
    if clips[0].memory is not None:
        parts["retrieved_"] = [clip.memory for clip in clips]
    found = {}
    for prefix, worlds in parts.items():
        poses = np.stack([_relative_poses(world) for world in worlds])
        found[f"{prefix}world_from_camera"] = poses.astype(np.float32)
        lenses = np.stack([world.cameras.intrinsics for world in worlds])
        found[f"{prefix}intrinsics"] = lenses.astype(np.float32)
    return found


def _relative_poses(world: World) -> np.ndarray:
    """Poses f64 [T, 4, 4] from the camera of frame 0, or from the take's, of which the world is a window."""
    poses = world.cameras.world_from_camera
    if world.reference is None:
        return relative_to_first(poses)
    return relative_to_reference(poses, world.reference)


def _with_slots(array: np.ndarray, slots: int) -> np.ndarray:
    """[n, K, ...] padded with zeros to [n, slots, ...]."""
    return np.pad(array, [(0, 0), (0, slots - array.shape[1])] + [(0, 0)] * (array.ndim - 2))
