"""Run by test_mixed.py in a process with two CPU devices: sets of two sizes, one with memory, in turns.

Prints one JSON line that compares batches of a mesh of two devices with those of one device.
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
from camctrl_jax.data.mixed import MixedStream, seed_of_set
from camctrl_jax.data.tasks import TaskConfig
from camctrl_jax.data.text import WordEmbedder
from camctrl_jax.data.worlds_clips import worlds_clips
from camctrl_jax.data.worlds_set import WorldsSet
from camctrl_jax.models import vae_preset
from camctrl_jax.models.autoencoder import Autoencoder
from camctrl_jax.parallel.mesh import MeshConfig, make_mesh
from camctrl_jax.parallel.sharding import distribute_batch, sample_sharding
from camctrl_jax.worlds import Places, WorldsConfig

PLACES = WorldsConfig(frames=9, places=Places(take_frames=49))
SETS = {
    "ahead": WorldsSet(range(6), 16, 32, WorldsConfig(frames=9), samples=1),
    "memory": WorldsSet(range(2), 32, 48, PLACES, samples=1, windows_per_take=2, retrieved=2),
}
EXTENSION = TaskConfig(t2v=0, i2v=0, extension=1, extension_latents=(2, 2))


def main() -> None:
    config = vae_preset("nano", num_res_blocks=0)
    params = random_params(expected_vae(config), seed=0)
    autoencoder = Autoencoder(config, params, dtype=jnp.float32, batch_size=2)
    mesh = make_mesh(MeshConfig(data=2))

    def mixed(mesh):
        streams = {
            name: worlds_clips(
                worlds, WordEmbedder(dim=8), autoencoder=autoencoder, mesh=mesh, workers=0
            ).stream(
                batch_size=2,
                seed=seed_of_set(0, name),
                tasks=EXTENSION if worlds.retrieved else None,
                batch_sharding=None if mesh is None else sample_sharding(mesh),
            )
            for name, worlds in SETS.items()
        }
        return MixedStream(streams, (1, 1), 0)

    one, two = mixed(None), mixed(mesh)
    differences, names = {}, []
    for _ in range(4):
        expected, batch = next(one), distribute_batch(next(two), mesh)
        names.append(one.describe(expected) == two.describe(batch))
        for name, array in expected.items():
            apart = np.abs(np.asarray(array, np.float32) - np.asarray(batch[name], np.float32)).max()
            differences[name] = max(differences.get(name, 0.0), float(apart))
    split = {name: len(array.addressable_shards) for name, array in batch.items()}
    halves = {name: array.addressable_shards[0].data.shape[0] for name, array in batch.items()}
    found = {"differences": differences, "names": all(names), "split": split, "halves": halves}
    print(json.dumps(found | {"devices": jax.device_count()}))


if __name__ == "__main__":
    main()
