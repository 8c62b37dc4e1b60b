"""What a model makes of clips: task by task, and clip after clip along a long path."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from camctrl_jax.camera import Cameras, rotations
from camctrl_jax.clip_shape import ClipShape, frames_of, latents_of
from camctrl_jax.diffusion.sampler import Sampling
from camctrl_jax.errors import InvalidValue
from camctrl_jax.evaluate.worlds.sampling import given_frames, scored_frames
from camctrl_jax.sampling.pipeline import ClipBatch, Extension, Pipeline

_NEXT_SAMPLE, _NEXT_CLIP = 1_000_003, 7_368_787  # added to a clip's seed, so that no two noises are one


@dataclass(frozen=True)
class Plan:
    """How long everything is.

    Attributes:
        shape: of one clip, as the model makes it.
        clips: of one exploration; 1 is a clip by itself.
        retrieved: earlier frames that each further clip is shown.
    """

    shape: ClipShape
    clips: int = 1
    retrieved: int = 0

    def __post_init__(self) -> None:
        if self.clips > 1 and self.context >= self.shape.frames:
            raise InvalidValue(
                f"--clips {self.clips}: clips of {self.shape.frames} frames are too short to go on from; "
                f"{frames_of(3, self.shape.temporal_stride)} or more are needed."
            )

    @property
    def context(self) -> int:
        """Frames that a clip which goes on from another one is given."""
        return given_frames("extension", self.shape)

    @property
    def extension(self) -> Extension:
        """How an exploration goes on: by clips of the shape that the model was trained on."""
        context = latents_of(self.context, self.shape.temporal_stride)
        return Extension(max(self.shape.latents - context, 1), context, self.retrieved)

    @property
    def added(self) -> int:
        """Frames that each further clip adds."""
        return self.shape.temporal_stride * self.extension.new_latents

    @property
    def frames(self) -> int:
        """Of an exploration."""
        return self.shape.frames + (self.clips - 1) * self.added

    @property
    def whole(self) -> ClipShape:
        """Shape of the exploration."""
        return ClipShape(
            self.frames,
            self.shape.height,
            self.shape.width,
            self.shape.temporal_stride,
            self.shape.spatial_stride,
        )

    def given(self, task: str) -> int:
        """How many first frames a task is given."""
        return given_frames(task, self.shape)

    def scored(self, task: str) -> slice:
        """The frames that are scored."""
        return scored_frames(task, self.shape)

    def windows(self, task: str) -> list[slice]:
        """The scored frames of each clip of an exploration: of further clips all that they add."""
        starts = [self.scored(task).start, *range(self.shape.frames, self.frames, self.added)]
        return [slice(a, b) for a, b in zip(starts, [*starts[1:], self.frames], strict=True)]


def noise_seed(name: str, sample: int, clip: int) -> int:
    """Of a clip's own name, so that it does not depend on what else is sampled, nor on the weights."""
    return (zlib.crc32(name.encode()) + _NEXT_SAMPLE * sample + _NEXT_CLIP * clip) % 2**32


def sample_batch(
    pipeline: Pipeline,
    plan: Plan,
    task: str,
    names: Sequence[str],
    prompts: Sequence[str],
    paths: Sequence[Cameras],
    truth: np.ndarray,
    sampling: Sampling,
    sample: int,
) -> np.ndarray:
    """One sample of some clips or explorations; the frames that a task is given stay those of the truth.

    Args:
        pipeline, plan, task: what makes which clips.
        names, prompts: N each; noise follows from the names.
        paths: N of ``plan.frames`` poses.
        truth: u8 [N, plan.frames, H, W, 3], of which the first frames are given.
        sampling: how.
        sample: its number, for the noise.

    Returns:
        u8 [N, plan.frames, H, W, 3]. An extension's given frames are the truth's; the first frame of I2V is
        as the autoencoder keeps it.
    """
    given = plan.given(task)
    clips = ClipBatch(
        prompts=list(prompts),
        seeds=[noise_seed(name, sample, 0) for name in names],
        shape=plan.shape,
        cameras=[path[: plan.shape.frames] for path in paths],
        condition=truth[:, :given] if given else None,
    )
    video = pipeline.autoencoder.decode(pipeline.sample(clips, sampling))
    if task == "extension":
        video = np.concatenate([truth[:, :given], video[:, given:]], axis=1)
    for clip in range(1, plan.clips):
        end = plan.shape.frames + clip * plan.added
        further = ClipBatch(
            prompts=list(prompts),
            seeds=[noise_seed(name, sample, clip) for name in names],
            shape=plan.shape,
            cameras=[path[:end] for path in paths],
        )
        video = pipeline.extend(video, further, plan.extension, sampling)
    return video


def decoy_paths(paths: Sequence[Cameras]) -> list[Cameras | None]:
    """For each path the next other one, from the same first frame and with its own lens.

    Clips of one video, one after the other, often move alike, and a gain over the same path says nothing:
    such paths are passed over. None where all others are alike.
    """
    joined = [path.relative_to(0) for path in paths]
    decoys = []
    for number, own in enumerate(joined):
        others = [*joined[number + 1 :], *joined[:number]]
        other = next((each for each in others if _apart(own, each)), None)
        decoys.append(None if other is None else other.with_intrinsics(own.intrinsics))
    return decoys


def _apart(one: Cameras, other: Cameras) -> bool:
    """Whether two paths from one first camera part: by 2 degrees, or a tenth of the longer path, anywhere."""
    turns = np.swapaxes(one.world_from_camera[:, :3, :3], 1, 2) @ other.world_from_camera[:, :3, :3]
    steps = np.linalg.norm(one.world_from_camera[:, :3, 3] - other.world_from_camera[:, :3, 3], axis=1)
    longer = max(one.path_length, other.path_length)
    return bool(rotations.angle_degrees(turns).max() > 2.0 or steps.max() > 0.1 * longer)
