"""Run by test_sharded_step.py in a process with eight CPU devices: two steps on one device and on meshes.

Prints one JSON line per mesh: relative L2 distance of the update and of the loss from those of the single
device, and the share of the parameters that a device holds.
"""

import json
import sys
from pathlib import Path

import jax
import numpy as np
import optax

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
from nano_batches import batch_of

from camctrl_jax.models import MMDiT, mmdit_preset
from camctrl_jax.parallel.mesh import MeshConfig, make_mesh
from camctrl_jax.parallel.sharding import ShardingRules, place_batch
from camctrl_jax.training.denoise import DenoiseConfig, make_denoise_step
from camctrl_jax.training.state import create_state

MESHES = {
    "one device": MeshConfig(),
    "data and fsdp": MeshConfig(data=2, fsdp=4),
    "fsdp, context and tensor": MeshConfig(data=1, fsdp=2, context=2, tensor=2),
}


def flat(params) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(jax.device_get(params))])


def random_params(model: MMDiT) -> dict:
    """No zeros, which would leave most of the network without gradient; NumPy spares compiling the draw."""
    rng = np.random.default_rng(3)

    def draw(path, leaf) -> np.ndarray:
        noise = rng.standard_normal(leaf.shape).astype(np.float32)
        if len(leaf.shape) > 1:
            return noise / np.float32(np.sqrt(np.prod(leaf.shape[:-1])))
        return np.float32(path[-1].key == "scale") + np.float32(0.05) * noise

    return jax.tree.map_with_path(draw, model.abstract_params())


def main() -> None:
    # Plain gradient descent: Adam would turn rounding of vanishing gradients into full steps.
    optimizer = optax.sgd(0.1)
    model = MMDiT(mmdit_preset("nano", num_dual=1, num_single=1, fuse_projections=False))
    params = random_params(model)
    batch = batch_of(8)
    reference = None
    for name, config in MESHES.items():
        mesh = make_mesh(config, jax.devices() if reference else jax.devices()[:1])
        state = create_state(params, optimizer)
        shardings = ShardingRules().shardings(state, mesh)
        state = jax.device_put(state, shardings)
        step = jax.jit(make_denoise_step(model, optimizer, DenoiseConfig()), out_shardings=(shardings, None))
        placed = place_batch(batch, mesh)
        before = flat(state.params)
        losses = []
        for _ in range(2):
            state, metrics = step(state, placed, jax.random.key(5))
            losses.append(float(metrics["loss"]))
        update = flat(state.params) - before
        held = sum(leaf.addressable_shards[0].data.size for leaf in jax.tree.leaves(state.params))
        if reference is None:
            reference = update, losses, held
        distance = float(np.linalg.norm(update - reference[0]) / np.linalg.norm(reference[0]))
        loss = max(abs(a - b) / b for a, b in zip(losses, reference[1]))
        print(json.dumps({"mesh": name, "update": distance, "loss": loss, "held": held / reference[2]}))


if __name__ == "__main__":
    main()
