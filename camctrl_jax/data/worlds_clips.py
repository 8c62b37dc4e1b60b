"""Worlds straight into device memory: sampled by processes, rendered and encoded on the accelerators.

No files and no download: this is what ``:worlds`` configurations train on. Scenes are sampled in numpy by a
pool of processes while the devices render and encode the previous ones; the host never holds more than a few
chunks.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, replace
from importlib import resources
from importlib.resources.abc import Traversable
from multiprocessing import get_context
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax import Array
from jax.sharding import Mesh

from camctrl_jax import __version__
from camctrl_jax.camera.framing import relative_to_first, relative_to_reference
from camctrl_jax.clip_shape import ClipShape
from camctrl_jax.data.clips.record import ClipRecord
from camctrl_jax.data.every_device import EveryDevice
from camctrl_jax.data.randomness import generator_at
from camctrl_jax.data.resident import ResidentClips, embed_captions
from camctrl_jax.data.text import TextEmbedder
from camctrl_jax.errors import FileFailure, InvalidValue, UserError
from camctrl_jax.models.autoencoder import Autoencoder
from camctrl_jax.video.encoding import encode_mp4
from camctrl_jax.worlds import World, WorldsConfig, render_coarse_truth, render_rgb, sample_world

Progress = Callable[[int, int], None]


class SamplersDied(UserError):
    """The processes that sample worlds ended without a result."""


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
        raise SamplersDied(
            "the processes that sample worlds died. If this comes from a script, start its work under "
            "`if __name__ == '__main__':` (the processes import the script again); or pass workers=0."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True)
class WorldsSet:
    """Which worlds, and how they are pictured.

    Attributes:
      seeds: one clip per seed; the same seed is the same clip everywhere.
      height, width: pixels, multiples of 16.
      config: of the worlds. Its aspect follows height and width, so that pixels are square.
      samples: rays per pixel and axis.
      labels: clips bring their coarse truth as well; see :meth:`truth`.

    Raises:
      InvalidValue: no seeds, or a size that clips cannot have.
    """

    seeds: range
    height: int
    width: int
    config: WorldsConfig = field(default_factory=WorldsConfig)
    samples: int = 2
    labels: bool = False

    def __post_init__(self) -> None:
        ClipShape(self.config.frames, self.height, self.width).check()
        if len(self.seeds) == 0:
            raise InvalidValue(f"no world seeds in {self.seeds}; give a range such as range(0, 1000).")
        object.__setattr__(self, "config", replace(self.config, aspect=self.width / self.height))

    def __len__(self) -> int:
        return len(self.seeds)

    @property
    def ids(self) -> tuple[str, ...]:
        """A name for each clip."""
        return tuple(f"world-{seed}" for seed in self.seeds)

    @property
    def windows_of_takes(self) -> bool:
        """Whether clips are windows out of longer takes, with poses from the takes' first cameras."""
        places = self.config.places
        return places is not None and places.take_frames not in (None, self.config.frames)

    def render(self, worlds: Sequence[World]) -> Array:
        """Videos u8 [n, T, H, W, 3] of some of them, on the default device."""
        return render_rgb(worlds, self.height, self.width, self.samples)

    def truth(self, worlds: Sequence[World]) -> dict[str, Array]:
        """``log_depth`` and ``moving_share`` f16 [n, T, H / 16, W / 16] of some of them, if ``labels``; see
        ``camctrl_jax.worlds.render_coarse_truth``.
        """
        if not self.labels:
            return {}
        log_depth, moving_share = render_coarse_truth(worlds, self.height, self.width)
        return {"log_depth": log_depth.astype(jnp.float16), "moving_share": moving_share.astype(jnp.float16)}


def worlds_clips(
    worlds: WorldsSet,
    embedder: TextEmbedder,
    *,
    autoencoder: Autoencoder | None = None,
    mesh: Mesh | None = None,
    chunk: int = 32,
    workers: int | None = None,
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
      cache: folder in which finished sets are kept. A set is found again only if seeds, worlds, size, VAE
        parameters, text settings and the source of ``camctrl_jax.worlds`` are the same.
      progress: called with (clips done, clips in all) after each chunk.

    Returns: ``ResidentClips`` named ``world-<seed>``.
    """
    with EveryDevice(mesh, len(worlds), chunk) as devices:
        stored = None if cache is None else Path(cache) / f"worlds-{_digest(worlds, embedder, autoencoder)}"
        # Processes may have disks of their own: they read only what all of them have.
        if stored is not None and devices.all_agree((stored / "clips.json").exists()):
            logging.info("worlds %s: reading %s", worlds.seeds, stored)
            clips = ResidentClips.load(stored)
        else:
            clips = _build(worlds, embedder, autoencoder, devices, workers, progress)
            if stored is not None:
                _save(clips, stored)
        return clips if devices.everywhere is None else clips.distributed(devices.everywhere)


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


def _worker_count(workers: int | None, clips: int) -> int:
    """Starting processes takes seconds: it pays for many clips only."""
    if workers is not None:
        return workers
    return 0 if clips < 256 else min(16, os.cpu_count() or 1)


def _build(
    worlds: WorldsSet,
    embedder: TextEmbedder,
    autoencoder: Autoencoder | None,
    devices: EveryDevice,
    workers: int | None,
    progress: Progress | None,
) -> ResidentClips:
    encoders: list[Autoencoder] = []
    if autoencoder is not None:
        encoders = [replace(autoencoder, params=params) for params in devices.copies(autoencoder.params)]

    def rows(place: int, sampled: Sequence[World]) -> dict[str, Array]:
        video = worlds.render(sampled)
        latents = {"latents": encoders[place].encode(video, dtype=jnp.float16)} if encoders else {}
        return (latents or {"video": video}) | worlds.truth(sampled)

    poses, intrinsics, texts = [], [], []
    seeds = [worlds.seeds[number] for number in devices.numbers]
    for sampled in sampled_worlds(
        seeds, worlds.config, chunk=devices.own, workers=_worker_count(workers, len(seeds))
    ):
        done = devices.add(rows, sampled)
        poses.append(np.stack([_relative_poses(world) for world in sampled]).astype(np.float32))
        intrinsics.append(np.stack([world.cameras.intrinsics for world in sampled]).astype(np.float32))
        texts.append(embed_captions(embedder, [world.captions for world in sampled]))
        if progress is not None:
            progress(done, len(worlds))
    slots = devices.largest(max(text["text"].shape[1] for text in texts))

    def text(name: str) -> np.ndarray:
        return devices.gathered(np.concatenate([_with_slots(text[name], slots) for text in texts]))

    empty, empty_mask = embedder.embed([""])
    arrays = {
        **devices.rows(),
        "world_from_camera": jnp.asarray(devices.gathered(np.concatenate(poses))),
        "intrinsics": jnp.asarray(devices.gathered(np.concatenate(intrinsics))),
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
        shared_reference=worlds.windows_of_takes,
    )


def _relative_poses(world: World) -> np.ndarray:
    """Poses f64 [T, 4, 4] from the camera of frame 0, or from the take's, of which the world is a window."""
    poses = world.cameras.world_from_camera
    if world.reference is None:
        return relative_to_first(poses)
    return relative_to_reference(poses, world.reference)


def _with_slots(array: np.ndarray, slots: int) -> np.ndarray:
    """[n, K, ...] padded with zeros to [n, slots, ...]."""
    return np.pad(array, [(0, 0), (0, slots - array.shape[1])] + [(0, 0)] * (array.ndim - 2))


def world_records(
    worlds: WorldsSet,
    *,
    encoder: Autoencoder | None = None,
    crf: float = 12.0,
    unlabelled_share: float = 0.0,
    text: TextEmbedder | None = None,
    chunk: int = 8,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Iterator[ClipRecord]:
    """Records for a dataset of worlds, one per seed and in their order.

    Args:
      worlds: which.
      encoder: records hold its latents; None: mp4 of quality ``crf``.
      unlabelled_share: this share of the clips loses its cameras.
      text: store embeddings of the captions too.
      chunk, workers, progress: as those of ``worlds_clips``.
    """
    seeds, config, count = worlds.seeds, worlds.config, len(worlds)
    hidden = generator_at(seeds.start, 0).permutation(count)[: round(unlabelled_share * count)]
    hidden_seeds = {seeds[int(index)] for index in hidden}
    chunk = min(chunk, count)
    done = 0
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        for sampled in sampled_worlds(seeds, config, chunk=chunk, workers=_worker_count(workers, count)):
            # The last chunk is filled up with copies, so that one compilation serves all.
            video = worlds.render(sampled + [sampled[-1]] * (chunk - len(sampled)))
            if encoder is None:
                frames = np.asarray(video)[: len(sampled)]
                videos = threads.map(lambda clip: encode_mp4(clip, config.fps, crf=crf), frames)
                contents = [{"video": content} for content in videos]
            else:
                latents = np.asarray(encoder.encode(video, dtype=jnp.float16))[: len(sampled)]
                contents = [{"latents": clip} for clip in latents]
            for world, content in zip(sampled, contents):
                if text is not None:
                    vectors, mask = text.embed(world.captions)
                    content |= {"text": vectors.astype(np.float16), "text_mask": mask}
                yield ClipRecord(
                    id=f"world-{world.seed}",
                    num_frames=config.frames,
                    height=worlds.height,
                    width=worlds.width,
                    fps=config.fps,
                    cameras=None if world.seed in hidden_seeds else world.cameras,
                    captions=tuple(world.captions),
                    source=f"world of seed {world.seed}",
                    **content,
                )
            done += len(sampled)
            if progress is not None:
                progress(done, count)
