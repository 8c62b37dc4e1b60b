"""What a critic of latents can see: how much noise on latents shows in what is decoded of them, and at which
told times an untrained critic's backbone tells the noise, and clips of one step, from true latents.

  python docs/results/critic_sight.py

Two minutes on two cores.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from camctrl_jax.checkpoints.pipelines import load_pipeline, open_model
from camctrl_jax.diffusion.condition import Condition
from camctrl_jax.diffusion.guidance import Guidance
from camctrl_jax.diffusion.sampler import Sampling
from camctrl_jax.metrics.sharpness import gradient_energy
from camctrl_jax.models import MMDiT
from camctrl_jax.models.critic import CriticConfig
from camctrl_jax.sampling.pipeline import ClipBatch, Pipeline
from camctrl_jax.worlds.benchmark import benchmark_scene
from camctrl_jax.worlds.rendering import render

SCENES, BATCH, FOLDS = 16, 4, 4
SIZE = 49, 96, 160
LEVELS = (0.02, 0.05, 0.1, 0.2)  # standard deviations; latents have about 1
TIMES = (0.05, 0.1, 0.2, 0.4, 0.7, 0.95)


def change(video: np.ndarray) -> float:
    """Mean absolute difference of neighbouring frames, u8 [N, T, H, W, 3] -> grey levels."""
    return float(np.abs(np.diff(video.astype(np.float32), axis=1)).mean())


def psnr(video: np.ndarray, other: np.ndarray) -> float:
    """Mean over clips, dB."""
    error = np.square(video.astype(np.float32) - other).mean(axis=(1, 2, 3, 4))
    return float(np.mean(10 * np.log10(255**2 / error)))


def noise_on_latents(
    pipeline: Pipeline, videos: np.ndarray, latents: np.ndarray, rng: np.random.Generator
) -> None:
    """Decode latents with more and more noise."""
    kept, noise = pipeline.autoencoder.decode(latents), rng.normal(size=latents.shape).astype(np.float32)
    print("noise | dB to the reconstruction | gradient energy / truth | change in time / truth")
    for level in (0.0, *LEVELS):
        video = pipeline.autoencoder.decode(latents + level * noise) if level else kept
        near = psnr(video, kept) if level else float("inf")
        sharp = gradient_energy(video).mean() / gradient_energy(videos).mean()
        print(f"{level} | {near:.1f} | {sharp:.2f} | {change(video) / change(videos):.2f}")


def features(model: MMDiT, params: dict, latents: jax.Array, time: jax.Array, told: Condition) -> jax.Array:
    """Means and deviations over the tokens of a frame of what a critic's heads read: f32 [B, L - 1, F]."""
    taps = CriticConfig(model.config).taps
    seen = model.apply(
        {"params": params},
        told.inputs(latents),
        time,
        told.text,
        told.text_mask,
        told.plucker,
        taps=taps,
    )
    found = []
    for tokens in seen:
        frames = tokens.reshape(*latents.shape[:2], -1, tokens.shape[-1]).astype(jnp.float32)
        frames *= jax.lax.rsqrt(jnp.square(frames).mean(-1, keepdims=True) + 1e-6)
        found += [frames.mean(2), frames.std(2)]
    return jnp.concatenate(found, -1)[:, 1:]  # the first latent is given


def told_apart(real: np.ndarray, other: np.ndarray) -> float:
    """How many frames a ridge regression puts on the right side, of scenes that it was not fitted to."""
    right = []
    for fold in range(FOLDS):
        held = np.arange(len(real)) % FOLDS == fold
        x = np.concatenate([each[~held].reshape(-1, each.shape[-1]) for each in (real, other)])
        y = np.repeat([1.0, -1.0], len(x) // 2)
        mean, deviation = x.mean(0), x.std(0) + 1e-6
        x = (x - mean) / deviation
        weights = x.T @ np.linalg.solve(x @ x.T + len(x) * np.eye(len(x)), y)
        for each, side in ((real, 1), (other, -1)):
            answer = (each[held].reshape(-1, each.shape[-1]) - mean) / deviation @ weights
            right.append(np.mean(np.sign(answer) == side))
    return float(np.mean(right))


def main() -> None:
    teacher, student = (load_pipeline(*open_model(name)) for name in ("default", "student"))
    rng = np.random.default_rng(0)
    shape = student.autoencoder.config.clip_shape(*SIZE)
    videos, real, fake, told = [], [], [], []
    for first in range(0, SCENES, BATCH):
        worlds = [benchmark_scene(first + i).world for i in range(BATCH)]
        video = np.stack([np.asarray(render(world, *SIZE[1:]).rgb) for world in worlds])
        clips = ClipBatch(
            prompts=[world.captions[0] for world in worlds],
            seeds=[first + i for i in range(BATCH)],
            shape=shape,
            cameras=[world.cameras for world in worlds],
            condition=video[:, :1],
        )
        made = np.asarray(student.sample(clips, Sampling(Guidance(), 1)))
        latents = np.array(student.autoencoder.encode(video))
        latents[:, 0] = made[:, 0]  # the given frame is the same in both
        videos.append(video), real.append(latents), fake.append(made)
        told.append(teacher.condition(clips)[0])
    noise_on_latents(student, videos[0], real[0], rng)

    model = MMDiT(teacher.denoiser.config, jnp.float32)
    look = jax.jit(lambda latents, time, told: features(model, teacher.params, latents, time, told))
    noise = [rng.normal(size=each.shape).astype(np.float32) for each in real]
    for each in noise:
        each[:, 0] = 0.0
    kinds = {"one step": fake}
    for level in (0.1, 0.03):
        kinds[f"noise {level}"] = [a + level * n for a, n in zip(real, noise)]
    print("told time | frames told from true latents, of clips not seen: " + ", ".join(kinds))
    for time in TIMES:

        def all_of(clips: list[np.ndarray], time: float = time) -> np.ndarray:
            times = jnp.full(BATCH, time)
            return np.concatenate([np.asarray(look(a, times, c)) for a, c in zip(clips, told)])

        true = all_of(real)
        print(time, *(f"| {told_apart(true, all_of(clips)):.3f}" for clips in kinds.values()), flush=True)


if __name__ == "__main__":
    main()
