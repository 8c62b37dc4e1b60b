"""Explorations clip by clip: what a model makes along a take, whatever it goes on from."""

from __future__ import annotations

import resource
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import jax
import numpy as np

from camctrl_jax.camera import Cameras
from camctrl_jax.clip_shape import latents_of
from camctrl_jax.evaluate.explorations.arms import TRUTH, Arm
from camctrl_jax.evaluate.explorations.settings import Plan, Settings
from camctrl_jax.evaluate.explorations.takes import Truth
from camctrl_jax.sampling.pipeline import ClipBatch, Extension, Pipeline, RetrievedFrames

_NEXT_CLIP = 7_368_787  # added to a world's own noise seed for each further clip

Compilations = Callable[[], int]
"""How many programs this process has compiled so far."""


@dataclass(frozen=True, eq=False)
class Exploration:
    """What an arm made of some takes.

    Attributes:
        videos: u8 [N, T, H, W, 3].
        retrieved: of every further clip and take, which frames were retrieved.
        compiled: programs compiled for each clip.
        memory: peak bytes after each clip, of the device where it tells, else of this process. Never falls,
            and an earlier arm may have reached it: what a clip leaves behind is in ``held``.
        held: bytes of the device in use after each clip, where it tells, else of JAX's arrays.
        kept: whether every further clip left the frames before it as they were, bit for bit.
    """

    videos: np.ndarray
    retrieved: list[list[list[int]]]
    compiled: list[int]
    memory: list[int]
    held: list[int]
    kept: bool


def counted_compilations() -> Compilations:
    """Start to count; JAX offers no way to stop, and counting costs nothing."""
    count = [0]

    def listen(event: str, _: float, **__: object) -> None:
        count[0] += event == "/jax/core/compile/backend_compile_duration"

    jax.monitoring.register_event_duration_secs_listener(listen)
    return lambda: count[0]


def peak_memory() -> int:
    """Bytes; of the default device where it tells, else of this process on the host."""
    stats = jax.devices()[0].memory_stats() or {}
    return int(stats.get("peak_bytes_in_use", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))


def held_memory() -> int:
    """Bytes in use now; of the default device where it tells, else of all of JAX's arrays."""
    stats = jax.devices()[0].memory_stats() or {}
    if "bytes_in_use" in stats:
        return int(stats["bytes_in_use"])
    return sum(array.nbytes for array in jax.live_arrays())


def first_clips(pipeline: Pipeline, settings: Settings, plan: Plan, truths: Sequence[Truth]) -> np.ndarray:
    """I2V from the true first frames: u8 [N, frames of a clip, H, W, 3], which all arms go
    on from.

    Raises:
        ClipError: a clip is not finite.
    """
    length = plan.shape.frames
    clips = ClipBatch(
        prompts=[truth.take.prompts[0] for truth in truths],
        seeds=[noise_seed(truth, 0) for truth in truths],
        shape=plan.shape,
        cameras=[truth.take.world.cameras[:length] for truth in truths],
        condition=np.stack([truth.video[:1] for truth in truths]),
    )
    return pipeline.autoencoder.decode(pipeline.sample(clips, settings.sampling(None)))


def retrieved_of(arm: Arm, plan: Plan, truth: Truth) -> list[np.ndarray]:
    """Which frames an arm with a memory retrieves for every further clip of a take, each i64 [R]. By poses
    alone, so that it can be known before there is a video."""
    path, found = truth.take.world.cameras, []
    for clip in range(1, plan.clips):
        new = plan.new(clip)
        found.append(arm.indices(path[: new.start], path[new.start : new.stop], noise_seed(truth, clip)))
    return found


def explored(
    pipeline: Pipeline,
    settings: Settings,
    plan: Plan,
    arm: Arm,
    truths: Sequence[Truth],
    first: np.ndarray,
    compilations: Compilations,
    retrieved: Sequence[Sequence[np.ndarray]] | None = None,
) -> Exploration:
    """All clips of an arm, along the true paths.

    Every clip is sampled in a window that the weights were trained with, whatever is given of it; of what it
    adds beyond ``plan.added`` frames nothing is kept, so that all arms have equal clips.

    Args:
        pipeline, settings, plan, arm: what makes which clips.
        truths: of N takes.
        first: u8 [N, frames of a clip, H, W, 3], the clips that they go on from.
        compilations: of this process.
        retrieved: of every take what :func:`retrieved_of` finds, if that is known already.

    Raises:
        ClipError: a clip is not finite.
    """
    if arm.memory and retrieved is None:
        retrieved = [retrieved_of(arm, plan, truth) for truth in truths]
    window = Extension(latents_of(arm.window) - arm.condition_latents, arm.condition_latents)
    made = plan.shape.temporal_stride * window.new_latents
    sampling, video = settings.sampling(arm), first
    used, compiled, memory, held, kept = [], [], [], [], True
    for clip in range(1, plan.clips):
        start, before = plan.new(clip).start, compilations()
        paths = [_path(truth.take.world.cameras, start + made) for truth in truths]
        clips = ClipBatch(
            prompts=[truth.take.prompts[clip] for truth in truths],
            seeds=[noise_seed(truth, clip) for truth in truths],
            shape=plan.shape,
            cameras=paths,
        )
        if arm.memory:
            chosen = [found[clip - 1] for found in retrieved]
            used.append([indices.tolist() for indices in chosen])
            shown = [truth.video for truth in truths] if arm.memory == TRUTH else video
            clips = replace(
                clips,
                retrieved=RetrievedFrames(
                    np.stack([frames[indices] for frames, indices in zip(shown, chosen, strict=True)]),
                    [path[indices] for path, indices in zip(paths, chosen, strict=True)],
                ),
            )
        longer = pipeline.extend(video, clips, window, sampling)
        kept &= bool(np.array_equal(longer[:, :start], video))
        video = longer[:, : start + plan.added]
        compiled.append(compilations() - before)
        memory.append(peak_memory())
        held.append(held_memory())
    return Exploration(video, used, compiled, memory, held, kept)


def _path(cameras: Cameras, frames: int) -> Cameras:
    """The first frames of a path; beyond its end it goes back as it came, which nothing kept shows."""
    last = len(cameras) - 1
    index = np.arange(frames)
    return replace(cameras[last - np.abs(last - index)], times=None)


def noise_seed(truth: Truth, clip: int) -> int:
    """Of a world and a clip, the same for all arms and weights."""
    return (truth.take.world.seed + _NEXT_CLIP * clip) % 2**32


def reconstructed(pipeline: Pipeline, plan: Plan, truths: Sequence[Truth]) -> np.ndarray:
    """The true renders through the autoencoder and back, in the windows that clips are made in: u8 [N, T, H,
    W, 3], what no arm can beat but by luck.

    Raises:
        ClipError: a clip is not finite.
    """
    videos, length = np.stack([truth.video for truth in truths]), plan.shape.frames
    parts = []
    for clip in range(plan.clips):
        new = plan.new(clip)
        kept = pipeline.autoencoder.decode(
            pipeline.autoencoder.encode(videos[:, new.stop - length : new.stop])
        )
        parts.append(kept[:, length - len(new) :])
    return np.concatenate(parts, axis=1)
