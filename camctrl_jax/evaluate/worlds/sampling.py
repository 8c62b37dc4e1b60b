"""The clips that are judged: what a model samples of scenes, task by task, and what its autoencoder keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from camctrl_jax.camera import Cameras
from camctrl_jax.clip_shape import ClipShape
from camctrl_jax.diffusion.sampler import Sampling
from camctrl_jax.evaluate.worlds.truth import Truth
from camctrl_jax.metrics.worlds_scores import FIRST_SCORED_FRAME
from camctrl_jax.models.autoencoder import Autoencoder
from camctrl_jax.sampling.pipeline import ClipBatch, Pipeline
from camctrl_jax.worlds import World, WorldsConfig, render_rgb, sample_world

CONTEXT_LATENTS = 4
"""What an extension goes on from: 13 frames; a third of shorter clips."""

_NEXT_SAMPLE = 1_000_003  # added to a world's own noise seed for each further sample


def given_frames(task: str, shape: ClipShape) -> int:
    """How many first frames a task is given."""
    if task == "t2v":
        return 0
    if task == "i2v":
        return 1
    stride = (shape.frames - 1) // (shape.latents - 1)
    return stride * (min(CONTEXT_LATENTS, max(2, shape.latents // 3)) - 1) + 1


def scored_frames(task: str, shape: ClipShape) -> slice:
    """Those that are scored: all of T2V; of I2V from the sixth on, since every method scores high before it;
    of an extension, those that are new."""
    return slice({"t2v": 0, "i2v": FIRST_SCORED_FRAME}.get(task, given_frames(task, shape)), None)


@dataclass(frozen=True, eq=False)
class Samples:
    """What a model made of some scenes at one row of the table.

    Attributes:
        task: which.
        sampling: how.
        videos: u8 [S, N, T, H, W, 3], S samples of N scenes.
        decoys: u8 [N, T, H, W, 3], along decoy paths with the noise of the first sample; I2V only.
    """

    task: str
    sampling: Sampling
    videos: np.ndarray
    decoys: np.ndarray | None


def samples_of(
    pipeline: Pipeline,
    truths: Sequence[Truth],
    samplings: Sequence[Sampling],
    tasks: Sequence[str],
    seeds: int,
) -> Iterator[Samples]:
    """Sample scenes in every way that is asked for; a clip does not depend on the scenes around it."""
    paths = [truth.case.world.cameras for truth in truths]
    for sampling in samplings:
        for task in tasks:
            videos = np.stack(
                [sample_task(pipeline, truths, task, paths, sampling, number) for number in range(seeds)]
            )
            decoys = None
            if task == "i2v":
                decoy_paths = [truth.case.decoy for truth in truths]
                decoys = sample_task(pipeline, truths, task, decoy_paths, sampling, 0)
            yield Samples(task, sampling, videos, decoys)


def sample_task(
    pipeline: Pipeline,
    truths: Sequence[Truth],
    task: str,
    cameras: Sequence[Cameras],
    sampling: Sampling,
    number: int,
) -> np.ndarray:
    """One sample of every scene along ``cameras``, u8 [N, T, H, W, 3]; ``number`` chooses the noise.

    The frames that an extension is given are those of the truth in the result, too.
    """
    video = np.stack([truth.video for truth in truths])
    shape = ClipShape(*video.shape[1:4])
    shape = pipeline.autoencoder.config.clip_shape(shape.frames, shape.height, shape.width)
    given = given_frames(task, shape)
    clips = ClipBatch(
        prompts=[truth.case.world.captions[0] for truth in truths],
        seeds=[noise_seed(truth.case.world, number) for truth in truths],
        shape=shape,
        cameras=cameras,
        condition=video[:, :given] if given else None,
    )
    made = pipeline.autoencoder.decode(pipeline.sample(clips, sampling))
    if task == "extension":
        made = np.concatenate([video[:, :given], made[:, given:]], axis=1)
    return made


def noise_seed(world: World, number: int) -> int:
    """Of the sample ``number`` of a world; that of the first is the world's own."""
    return (world.seed + _NEXT_SAMPLE * number) % 2**32


def reconstruct(vae: Autoencoder, video: np.ndarray, batch_size: int) -> np.ndarray:
    """u8 [N, T, H, W, 3] through the autoencoder and back."""
    return in_batches(lambda rows: vae.decode(vae.encode(video[rows])), len(video), batch_size)


def in_batches(function: Callable[[list[int]], Any], count: int, batch_size: int) -> np.ndarray:
    """``function`` of the rows 0..count-1 in batches of one size, the last filled up; on the host."""
    batch_size = min(batch_size, count)
    pieces = []
    for start in range(0, count, batch_size):
        rows = [min(row, count - 1) for row in range(start, start + batch_size)]
        pieces.append(np.asarray(function(rows))[: count - start])
    return np.concatenate(pieces)


# ---------------------------------------------------------------------- held-out worlds with their own paths


@dataclass(frozen=True)
class HeldOut:
    """Held-out worlds and their truth.

    Attributes:
        worlds: N of them.
        video: u8 [N, T, H, W, 3], rendered.
    """

    worlds: tuple[World, ...]
    video: np.ndarray

    def decoys(self) -> list[Cameras]:
        """For each world the path of the next one, from its own first frame and with its own lens."""
        paths = [world.cameras.relative_to(0) for world in self.worlds]
        return [
            other.with_intrinsics(own.intrinsics)
            for own, other in zip(paths, paths[1:] + paths[:1], strict=True)
        ]


def held_out_worlds(seeds: Sequence[int], shape: ClipShape, samples: int, batch_size: int) -> HeldOut:
    """Sample and render the worlds of ``seeds`` with ``samples`` rays per pixel and axis."""
    config = WorldsConfig(frames=shape.frames, aspect=shape.width / shape.height)
    worlds = [sample_world(seed, config) for seed in seeds]
    video = in_batches(
        lambda rows: render_rgb([worlds[i] for i in rows], shape.height, shape.width, samples),
        len(worlds),
        batch_size,
    )
    return HeldOut(tuple(worlds), video)


def sample_worlds(
    pipeline: Pipeline, truth: HeldOut, cameras: Sequence[Cameras], sampling: Sampling, batch_size: int
) -> np.ndarray:
    """Image-to-video of every world along ``cameras``, u8 [N, T, H, W, 3]; the noise is the world's own."""
    shape = ClipShape(*truth.video.shape[1:4])

    def sample(rows: list[int]) -> np.ndarray:
        clips = ClipBatch(
            prompts=[truth.worlds[i].captions[0] for i in rows],
            seeds=[noise_seed(truth.worlds[i], 0) for i in rows],
            shape=shape,
            cameras=[cameras[i] for i in rows],
            condition=truth.video[rows, :1],
        )
        return pipeline.autoencoder.decode(pipeline.sample(clips, sampling))

    return in_batches(sample, len(truth.worlds), batch_size)
