"""The clips that are judged: what a model samples of scenes, task by task, and what its autoencoder keeps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from camctrl_jax.camera import Cameras
from camctrl_jax.clip_shape import ClipShape
from camctrl_jax.diffusion.sampler import Sampling
from camctrl_jax.evaluate.worlds.truth import Truth
from camctrl_jax.metrics.worlds_scores import FIRST_SCORED_FRAME
from camctrl_jax.models.autoencoder import Autoencoder
from camctrl_jax.sampling.pipeline import ClipBatch, Pipeline
from camctrl_jax.worlds import World

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
        finite: bool [S, N], whether all of a clip was finite; the others mean nothing.
        decoys: u8 [N, T, H, W, 3], along decoy paths with the noise of the first sample; I2V only.
        decoys_finite: bool [N] of these.
    """

    task: str
    sampling: Sampling
    videos: np.ndarray
    finite: np.ndarray
    decoys: np.ndarray | None
    decoys_finite: np.ndarray | None

    def decoy_of(self, place: int) -> np.ndarray | None:
        """u8 [T, H, W, 3] of a scene, if there is one."""
        return self.decoys[place] if self.decoys is not None and self.decoys_finite[place] else None


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
            clips = [sample_task(pipeline, truths, task, paths, sampling, number) for number in range(seeds)]
            videos, finite = (np.stack(parts) for parts in zip(*clips, strict=True))
            decoys = None, None
            if task == "i2v":
                decoy_paths = [truth.case.decoy for truth in truths]
                decoys = sample_task(pipeline, truths, task, decoy_paths, sampling, 0)
            yield Samples(task, sampling, videos, finite, *decoys)


def sample_task(
    pipeline: Pipeline,
    truths: Sequence[Truth],
    task: str,
    cameras: Sequence[Cameras],
    sampling: Sampling,
    number: int,
) -> tuple[np.ndarray, np.ndarray]:
    """One sample of every scene along ``cameras``, and whether it is finite; ``number`` chooses the noise.

    Returns:
        u8 [N, T, H, W, 3], bool [N].

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
    made, finite = pipeline.autoencoder.decode_checked(pipeline.sample(clips, sampling))
    if task == "extension":
        made = np.concatenate([video[:, :given], made[:, given:]], axis=1)
    return made, finite


def noise_seed(world: World, number: int) -> int:
    """Of the sample ``number`` of a world; that of the first is the world's own."""
    return (world.seed + _NEXT_SAMPLE * number) % 2**32


def reconstruct(vae: Autoencoder, video: np.ndarray) -> list[np.ndarray | None]:
    """Each clip of u8 [N, T, H, W, 3] through the autoencoder and back; None where that is not finite."""
    kept, finite = vae.decode_checked(vae.encode(video))
    return [clip if sound else None for clip, sound in zip(kept, finite, strict=True)]
