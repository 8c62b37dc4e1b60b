"""Worlds straight into device memory: sampled by processes, rendered and encoded on the accelerator.

No files and no download: this is what ``:worlds`` configurations train on. Scenes are sampled in numpy by a
pool of processes while the device renders and encodes the previous ones; the host never holds more than a few
chunks.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, replace
from importlib import resources
from importlib.resources.abc import Traversable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax import Array, lax

from camctrl_jax import __version__
from camctrl_jax.data.clips.record import ClipRecord
from camctrl_jax.data.framing import relative_to_first
from camctrl_jax.data.latents import LatentEncoder
from camctrl_jax.data.randomness import generator_at
from camctrl_jax.data.resident import ResidentClips, embed_captions
from camctrl_jax.data.text import TextEmbedder
from camctrl_jax.data.video import encode_mp4
from camctrl_jax.worlds import World, WorldsConfig, render_rgb, sample_world

Progress = Callable[[int, int], None]


def _leave_devices_alone() -> None:
    """Run in every sampling process: it shares the machine with the one that owns the accelerator."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    jax.config.update("jax_platforms", "cpu")


def _sample_all(seeds: Sequence[int], config: WorldsConfig) -> list[World]:
    return [sample_world(seed, config) for seed in seeds]


def sampled_worlds(
    seeds: Sequence[int], config: WorldsConfig, *, chunk: int, workers: int
) -> Iterator[list[World]]:
    """Worlds of ``seeds`` in order, ``chunk`` at a time.

    With workers, spawned processes sample ahead by at most two chunks each, so host memory stays bounded.
    With 0 workers the calling process samples, which is as good for small numbers and needs no importable
    main module.
    """
    chunks = [seeds[start : start + chunk] for start in range(0, len(seeds), chunk)]
    if workers == 0:
        for each in chunks:
            yield _sample_all(each, config)
        return
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_leave_devices_alone)
    try:
        waiting: deque = deque()
        ahead = iter(chunks)
        for each in itertools.islice(ahead, 2 * workers):
            waiting.append(pool.submit(_sample_all, each, config))
        while waiting:
            done = waiting.popleft().result()
            with contextlib.suppress(StopIteration):
                waiting.append(pool.submit(_sample_all, next(ahead), config))
            yield done
    except BrokenProcessPool as error:
        raise RuntimeError(
            "the processes that sample worlds died. If this comes from a script, start its work under "
            "`if __name__ == '__main__':` (the processes import the script again); or pass workers=0."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@functools.partial(jax.jit, donate_argnums=0)
def _insert(store: Array, rows: Array, start: Array) -> Array:
    """Write ``rows`` [n, ...] into ``store`` [C, ...] from ``start`` on, in place."""
    return lax.dynamic_update_slice_in_dim(store, rows.astype(store.dtype), start, axis=0)


def worlds_clips(
    seeds: range,
    *,
    height: int,
    width: int,
    embedder: TextEmbedder,
    config: WorldsConfig | None = None,
    samples: int = 2,
    vae: tuple[Any, Any] | None = None,
    unlabelled_share: float = 0.0,
    chunk: int = 32,
    workers: int | None = None,
    cache: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> ResidentClips:
    """Clips of the worlds of ``seeds``, in device memory.

    Args:
      seeds: one clip per seed; the same seed is the same clip everywhere.
      height, width: pixels, multiples of 16.
      embedder: for all captions of all clips.
      config: of the worlds; None is ``WorldsConfig()``. Its aspect follows height and width.
      samples: rays per pixel and axis.
      vae: (VAEConfig, parameters): store normalised latents in float16. None: store u8 video.
      unlabelled_share: this share of clips loses its cameras, see ``ResidentClips.with_unlabelled``.
      chunk: clips rendered and encoded together; bounds device memory during the build.
      workers: processes that sample scenes; None picks by the number of clips and cores, 0 uses none.
      cache: folder in which finished sets are kept. A set is found again only if seeds, worlds, size, VAE
        parameters, text settings and the source of ``camctrl_jax.worlds`` are the same.
      progress: called with (clips done, clips in all) after each chunk.

    Returns: ``ResidentClips`` named ``world-<seed>``.
    """
    if height % 16 or width % 16 or min(height, width) < 16:
        raise ValueError(f"worlds of {height}x{width} pixels; expected multiples of 16.")
    if len(seeds) == 0:
        raise ValueError(f"no world seeds in {seeds}; give a range such as range(0, 1000).")
    config = _at_size(WorldsConfig() if config is None else config, height, width)
    encoder = None if vae is None else LatentEncoder(*vae)
    stored = None
    if cache is not None:
        facts = {
            "seeds": [seeds.start, seeds.stop, seeds.step],
            "size": [height, width],
            "samples": samples,
            "worlds": asdict(config),
            "source": source_digest(resources.files("camctrl_jax.worlds")),
            "text": embedder.settings(),
            "latents": None if encoder is None else [encoder.fingerprint(), jnp.dtype(encoder.dtype).name],
            "version": __version__,
        }
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
        stored = Path(cache) / f"worlds-{digest}"
        if (stored / "clips.json").exists():
            logging.info("worlds %s: reading %s", seeds, stored)
            clips = ResidentClips.load(stored)
            return clips.with_unlabelled(unlabelled_share, seeds.start) if unlabelled_share else clips
    clips = _build(seeds, config, height, width, samples, encoder, embedder, chunk, workers, progress)
    if stored is not None:
        stored.parent.mkdir(parents=True, exist_ok=True)
        clips.save(stored)
    # Hiding cameras comes after the cache: the same clips serve every share.
    return clips.with_unlabelled(unlabelled_share, seeds.start) if unlabelled_share else clips


def source_digest(package: Traversable) -> str:
    """Of the modules of a package; when it changes, the same seeds may give other worlds or pictures."""
    digest = hashlib.sha256()
    for module in sorted(package.iterdir(), key=lambda file: file.name):
        if module.name.endswith(".py"):
            digest.update(f"{module.name}\n".encode() + module.read_bytes())
    return digest.hexdigest()[:16]


def _at_size(config: WorldsConfig, height: int, width: int) -> WorldsConfig:
    """The configuration with the aspect ratio of the pictures, so that pixels are square."""
    return replace(config, aspect=width / height)


def _worker_count(workers: int | None, clips: int) -> int:
    """Starting processes takes seconds: it pays for many clips only."""
    if workers is not None:
        return workers
    return 0 if clips < 256 else min(16, os.cpu_count() or 1)


def _build(
    seeds: range,
    config: WorldsConfig,
    height: int,
    width: int,
    samples: int,
    encoder: LatentEncoder | None,
    embedder: TextEmbedder,
    chunk: int,
    workers: int | None,
    progress: Progress | None,
) -> ResidentClips:
    count, chunk = len(seeds), min(chunk, len(seeds))
    workers = _worker_count(workers, count)
    store: Array | None = None
    poses, intrinsics, texts = [], [], []
    done = 0
    for worlds in sampled_worlds(seeds, config, chunk=chunk, workers=workers):
        # The last chunk is filled up with copies, so that one compilation serves all.
        video = render_rgb(worlds + [worlds[-1]] * (chunk - len(worlds)), height, width, samples)
        rows = video if encoder is None else encoder(video)
        if store is None:
            store = jnp.zeros((count, *rows.shape[1:]), rows.dtype)
        # Wait for the chunk before this one: its device memory is free before another one is asked for, while
        # the device still has work queued.
        jax.block_until_ready(store)
        store = _insert(store, rows[: len(worlds)], jnp.int32(done))
        del video, rows
        poses.append(
            relative_to_first(np.stack([world.cameras.world_from_camera for world in worlds])).astype(
                np.float32
            )
        )
        intrinsics.append(np.stack([world.cameras.intrinsics for world in worlds]).astype(np.float32))
        texts.append(embed_captions(embedder, [world.captions for world in worlds]))
        done += len(worlds)
        if progress is not None:
            progress(done, count)
    slots = max(text["text"].shape[1] for text in texts)
    padded = [
        {name: _with_slots(array, slots) if array.ndim > 1 else array for name, array in text.items()}
        for text in texts
    ]
    empty, empty_mask = embedder.embed([""])
    arrays = {
        "video" if encoder is None else "latents": store,
        "world_from_camera": jnp.asarray(np.concatenate(poses)),
        "intrinsics": jnp.asarray(np.concatenate(intrinsics)),
        "text": jnp.asarray(np.concatenate([text["text"] for text in padded])),
        "text_mask": jnp.asarray(np.concatenate([text["text_mask"] for text in padded])),
        "empty_text": jnp.asarray(empty[0].astype(np.float16)),
        "empty_mask": jnp.asarray(empty_mask[0]),
    }
    return ResidentClips(
        arrays=arrays,
        caption_count=np.concatenate([text["caption_count"] for text in padded]),
        labelled=np.ones(count, bool),
        ids=tuple(f"world-{seed}" for seed in seeds),
    )


def _with_slots(array: np.ndarray, slots: int) -> np.ndarray:
    """[n, K, ...] padded with zeros to [n, slots, ...]."""
    return np.pad(array, [(0, 0), (0, slots - array.shape[1])] + [(0, 0)] * (array.ndim - 2))


def world_records(
    seeds: range,
    *,
    height: int,
    width: int,
    config: WorldsConfig | None = None,
    samples: int = 2,
    encoder: LatentEncoder | None = None,
    crf: float = 12.0,
    unlabelled_share: float = 0.0,
    text: TextEmbedder | None = None,
    chunk: int = 8,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Iterator[ClipRecord]:
    """Records for a dataset of the worlds of ``seeds``, one per seed and in their order.

    Args: as those of ``worlds_clips``; with an ``encoder`` records hold latents, otherwise mp4 of quality
      ``crf``.
      text: store embeddings of the captions too.
    """
    config = _at_size(WorldsConfig() if config is None else config, height, width)
    hidden = generator_at(seeds.start, 0).permutation(len(seeds))[: round(unlabelled_share * len(seeds))]
    hidden_seeds = {seeds[int(index)] for index in hidden}
    chunk = min(chunk, len(seeds))
    done = 0
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        for worlds in sampled_worlds(seeds, config, chunk=chunk, workers=_worker_count(workers, len(seeds))):
            video = render_rgb(worlds + [worlds[-1]] * (chunk - len(worlds)), height, width, samples)
            if encoder is None:
                frames = np.asarray(video)[: len(worlds)]
                videos = threads.map(lambda clip: encode_mp4(clip, config.fps, crf=crf), frames)
                contents = [{"video": content} for content in videos]
            else:
                latents = np.asarray(encoder(video))[: len(worlds)]
                contents = [{"latents": clip} for clip in latents]
            for world, content in zip(worlds, contents):
                if text is not None:
                    vectors, mask = text.embed(world.captions)
                    content |= {"text": vectors.astype(np.float16), "text_mask": mask}
                yield ClipRecord(
                    id=f"world-{world.seed}",
                    num_frames=config.frames,
                    height=height,
                    width=width,
                    fps=config.fps,
                    cameras=None if world.seed in hidden_seeds else world.cameras,
                    captions=tuple(world.captions),
                    source=f"world of seed {world.seed}",
                    **content,
                )
            done += len(worlds)
            if progress is not None:
                progress(done, len(seeds))
