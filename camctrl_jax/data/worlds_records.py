"""Worlds as records of a dataset on disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import jax.numpy as jnp
import numpy as np

from camctrl_jax.data.clips.record import ClipRecord
from camctrl_jax.data.randomness import generator_at
from camctrl_jax.data.text import TextEmbedder
from camctrl_jax.data.worlds_set import WorldsSet, sampled_worlds
from camctrl_jax.errors import InvalidValue
from camctrl_jax.models.autoencoder import Autoencoder
from camctrl_jax.video.encoding import encode_mp4

Progress = Callable[[int, int], None]


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
    """Records for a dataset of worlds, in the order of ``WorldsSet.ids``.

    Args:
      worlds: which.
      encoder: records hold its latents; None: mp4 of quality ``crf``.
      unlabelled_share: this share of the clips loses its cameras.
      text: store embeddings of the captions too.
      chunk, workers, progress: as those of ``worlds_clips``.
    """
    if worlds.retrieved:
        raise InvalidValue("records hold no retrieved frames; make them of a set with retrieved=0.")
    config, count, ids = worlds.config, len(worlds), worlds.ids
    hidden = set(
        generator_at(worlds.seeds.start, 0).permutation(count)[: round(unlabelled_share * count)].tolist()
    )
    chunk = min(chunk, count)
    done = 0
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        processes = worlds.workers_of(workers)
        for clips in sampled_worlds(worlds, range(count), chunk=chunk, workers=processes):
            sampled = [clip.world for clip in clips]
            # The last chunk is filled up with copies, so that one compilation serves all.
            video = worlds.render(sampled + [sampled[-1]] * (chunk - len(sampled)))
            if encoder is None:
                frames = np.asarray(video)[: len(sampled)]
                videos = threads.map(lambda clip: encode_mp4(clip, config.fps, crf=crf), frames)
                contents = [{"video": content} for content in videos]
            else:
                latents = np.asarray(encoder.encode(video, dtype=jnp.float16))[: len(sampled)]
                contents = [{"latents": clip} for clip in latents]
            for number, (world, content) in enumerate(zip(sampled, contents), done):
                if text is not None:
                    vectors, mask = text.embed(world.captions)
                    content |= {"text": vectors.astype(np.float16), "text_mask": mask}
                yield ClipRecord(
                    id=ids[number],
                    num_frames=config.frames,
                    height=worlds.height,
                    width=worlds.width,
                    fps=config.fps,
                    cameras=None if number in hidden else world.cameras,
                    reference=world.reference_pose if worlds.shared_reference else None,
                    captions=tuple(world.captions),
                    source=f"world of seed {world.seed}",
                    **content,
                )
            done += len(sampled)
            if progress is not None:
                progress(done, count)
