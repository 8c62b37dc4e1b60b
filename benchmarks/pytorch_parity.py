"""The sample of an exported model in PyTorch against JAX: a guided clip from an image, and its extension.

  python benchmarks/pytorch_parity.py

Both in float32 on the CPU, with the same noise: the embedded weights at their full size, 49 frames of 96x160,
32 steps, Eq. 3 with weights 1.8 (text) and 2.5 (camera). The extension adds 48 frames, each side to its own
video of whole levels. About ten minutes on two cores; --frames and --steps make it shorter.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import jax
import numpy as np
import torch

from camctrl_jax.camera import resolve_path
from camctrl_jax.checkpoints.pipelines import load_pipeline, open_model
from camctrl_jax.clip_shape import ClipShape, latents_of
from camctrl_jax.diffusion.guidance import Guidance
from camctrl_jax.diffusion.sampler import Sampling, initial_noise
from camctrl_jax.export.to_diffusers import export_diffusers
from camctrl_jax.interop.camera_pipeline import CameraPipeline
from camctrl_jax.sampling.pipeline import ClipBatch
from camctrl_jax.worlds import WorldsConfig, render_rgb, sample_world

PROMPT = "a red ball rolls past two blue boxes"
TEXT, CAMERA = 1.8, 2.5


def relative_l2(value: np.ndarray, reference: np.ndarray) -> float:
    value, reference = np.asarray(value, np.float64), np.asarray(reference, np.float64)
    return float(np.linalg.norm(value - reference) / np.linalg.norm(reference))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=49, help="of the clip, 4k+1")
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--condition-latents", type=int, default=4)
    options = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    ours = load_pipeline(*open_model("default"), float32=True)
    height, width, frames = ours.defaults.height, ours.defaults.width, options.frames
    given = options.condition_latents
    new = latents_of(frames) - given  # the extension has as many latents as the clip: one program
    path = resolve_path("dolly in 1 m then pan left 30 deg", frames + 4 * new)
    world = sample_world(1_000_001, WorldsConfig(frames=2, aspect=width / height))
    image = np.asarray(render_rgb([world], height, width))[:, :1]
    text = ours.embedder.embed([PROMPT])
    shape = ours.autoencoder.config.latent_shape(frames, height, width)
    noises = [np.asarray(initial_noise([seed], shape)) for seed in (5, 6)]

    with tempfile.TemporaryDirectory() as scratch:
        folder, _ = export_diffusers(Path(scratch) / "exported", checkpoint="default")
        theirs = CameraPipeline.from_folder(folder, torch.float32, "cpu")

    # What an extension samples, beside the frames that it returns.
    seen: dict[str, np.ndarray] = {}

    def recorded(function, name):
        def decode(latents):
            seen[name] = np.asarray(latents)
            return function(latents)

        return decode

    theirs.decode = recorded(theirs.decode, "torch")
    shared = {"steps": options.steps}
    weights = {"text_guidance": TEXT, "camera_guidance": CAMERA}
    camera = {"world_from_camera": path.world_from_camera, "intrinsics": path.intrinsics}
    first = {name: array[:frames] for name, array in camera.items()}
    clip = theirs.generate(
        frames=frames, height=height, width=width, text=text, condition=image, noise=noises[0],
        **first, **weights, **shared,
    )  # fmt: skip
    size, sampling = ClipShape(frames, height, width), Sampling(Guidance(TEXT, CAMERA), options.steps)
    expected = ours.sample(ClipBatch([PROMPT], [5], size, [path[:frames]], image), sampling)
    expected_clip = ours.autoencoder.decode(expected)
    print("| case | relative L2 of the latents | largest difference of the frames, of 255 |\n|---|---|---|")

    def row(name: str, latents: np.ndarray, reference: np.ndarray, video: np.ndarray, truth: np.ndarray):
        off = np.abs(video.astype(int) - truth).max()
        print(f"| {name} | {relative_l2(latents, reference):.1e} | {off} |", flush=True)

    row("image to video", seen["torch"], np.asarray(expected), clip, expected_clip)
    longer = theirs.extend(
        clip, text=text, noise=noises[1], new_latents=new, condition_latents=given,
        **camera, **weights, **shared,
    )  # fmt: skip
    start = frames - 4 * (given - 1) - 1
    window = ClipBatch(
        [PROMPT], [6], size, [path[start:]], expected_clip[:, start:], [path.world_from_camera[0]]
    )
    expected = ours.sample(window, sampling)
    decoded = ours.autoencoder.decode(expected)
    row(
        "its extension", seen["torch"][:, given:], np.asarray(expected)[:, given:],
        longer[:, frames:], decoded[:, 4 * given - 3 :],
    )  # fmt: skip


if __name__ == "__main__":
    main()
