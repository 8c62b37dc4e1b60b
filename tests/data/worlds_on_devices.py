"""Run by test_worlds_clips.py in a process with four CPU devices: worlds rendered and encoded on all of them.

Prints one JSON line about the clips of a mesh of four, compared with those of one device.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from nano_weights import random_params

from camctrl_jax.checkpoints.weights import expected_vae
from camctrl_jax.data.text import WordEmbedder
from camctrl_jax.data.worlds_clips import worlds_clips
from camctrl_jax.data.worlds_set import WorldsSet
from camctrl_jax.models import vae_preset
from camctrl_jax.models.autoencoder import Autoencoder
from camctrl_jax.parallel.mesh import MeshConfig, make_mesh
from camctrl_jax.worlds import WorldsConfig


def main() -> None:
    config = vae_preset("nano", num_res_blocks=0)
    params = random_params(expected_vae(config), seed=0)
    autoencoder = Autoencoder(config, params, dtype=jnp.float32, batch_size=2)
    worlds = WorldsSet(range(14), 32, 48, WorldsConfig(frames=9), samples=1)
    mesh = make_mesh(MeshConfig(data=2, fsdp=2))
    rendered: list[tuple[int, int]] = []
    progress: list[tuple[int, int]] = []

    class Watched(WorldsSet):
        def render(self, sampled):
            video = super().render(sampled)
            rendered.extend((device.id, len(sampled)) for device in video.devices())
            return video

    watched = Watched(worlds.seeds, 32, 48, worlds.config, 1)
    options = {"chunk": 3, "workers": 0}
    one = worlds_clips(worlds, WordEmbedder(dim=8), **options)
    all_four = worlds_clips(
        watched, WordEmbedder(dim=8), mesh=mesh, progress=lambda *call: progress.append(call), **options
    )
    latents = worlds_clips(worlds, WordEmbedder(dim=8), autoencoder=autoencoder, **options).arrays["latents"]
    spread = worlds_clips(worlds, WordEmbedder(dim=8), autoencoder=autoencoder, mesh=mesh, **options)
    difference = np.asarray(spread.arrays["latents"], np.float32) - np.asarray(latents, np.float32)
    equal = {name: bool(np.array_equal(array, all_four.arrays[name])) for name, array in one.arrays.items()}
    arrays = [*all_four.arrays.values(), *spread.arrays.values()]
    found = {
        "video_equal": equal.pop("video"),
        "others_equal": all(equal.values())
        and bool(np.array_equal(one.caption_count, all_four.caption_count)),
        "latent_difference": float(np.abs(difference).max()),
        "devices_at_work": sorted({device for device, _ in rendered}),
        "largest_part": max(count for _, count in rendered),
        "replicated": all(a.is_fully_replicated and len(a.devices()) == jax.device_count() for a in arrays),
        "progress": progress,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
