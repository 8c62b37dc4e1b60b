"""Held-out worlds with the paths that were drawn with them, for the scripts beside this file."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from camctrl_jax.camera import Cameras
from camctrl_jax.clip_shape import ClipShape
from camctrl_jax.diffusion.sampler import Sampling
from camctrl_jax.evaluate.worlds.sampling import noise_seed
from camctrl_jax.metrics.psnr import psnr
from camctrl_jax.metrics.worlds_scores import FIRST_SCORED_FRAME
from camctrl_jax.models.autoencoder import Autoencoder
from camctrl_jax.sampling.pipeline import ClipBatch, Pipeline
from camctrl_jax.worlds import World, WorldsConfig, render_rgb, sample_world


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


def camera_scores(truth: np.ndarray, true_path: np.ndarray, decoy_path: np.ndarray) -> dict[str, Any]:
    """How much better the true path is than a decoy and than standing still.

    Args:
        truth, true_path, decoy_path: u8 [N, T, H, W, 3].

    Returns:
        JSON-able: PSNR in dB per world and on average, gains with standard errors, the share of worlds won.
    """
    scored = slice(FIRST_SCORED_FRAME, None)
    still = np.broadcast_to(truth[:, :1], truth.shape)
    videos = {"true_path": true_path, "decoy_path": decoy_path, "first_frame_repeated": still}
    values = {name: psnr(video[:, scored], truth[:, scored]) for name, video in videos.items()}
    scores: dict[str, Any] = {"psnr_db": {name: float(value.mean()) for name, value in values.items()}}
    for name in ("decoy_path", "first_frame_repeated"):
        gain = values["true_path"] - values[name]
        scores[f"against_{name}"] = {
            "gain_db": float(gain.mean()),
            "standard_error": _standard_error(gain),
            "won": float(np.mean(gain > 0)),
        }
    return scores | {"per_world": {name: value.tolist() for name, value in values.items()}}


def _standard_error(values: np.ndarray) -> float:
    return float(np.std(values, ddof=1) / math.sqrt(len(values)))
