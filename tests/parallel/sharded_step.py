"""Run by test_sharded_step.py in a process with eight CPU devices: one update under many arrangements.

Prints one JSON line for each: relative L2 distance of the gradient and of the loss from those of the plain
step on one device, and the share of the parameters that a device holds.
"""

import dataclasses
import json
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import optax

sys.path.insert(0, str(Path(__file__).parents[1]))
from nano_batches import HEIGHT, TEXT_DIM, TEXT_TOKENS, WIDTH, batch_of

from camctrl_jax.data.text import WordEmbedder
from camctrl_jax.diffusion.adversarial import AdversarialConfig
from camctrl_jax.diffusion.guidance import Guidance
from camctrl_jax.models import (
    CameraConfig,
    MMDiT,
    MMDiTConfig,
    mmdit_preset,
    stack_layers,
    unstack_state,
    vae_preset,
)
from camctrl_jax.models.critic import Critic, CriticConfig
from camctrl_jax.parallel.activations import placement_of
from camctrl_jax.parallel.mesh import MeshConfig, make_mesh
from camctrl_jax.parallel.sharding import distribute, distribute_batch, shardings_of
from camctrl_jax.training.condition_errors import ConditionConfig, bank_of
from camctrl_jax.training.objectives.adversarial import Adversarial
from camctrl_jax.training.objectives.consistency import Consistency
from camctrl_jax.training.objectives.denoise import Denoise
from camctrl_jax.training.objectives.distil import Distil
from camctrl_jax.training.objectives.flow_map import FlowMap
from camctrl_jax.training.program import Program
from camctrl_jax.training.state import TrainState
from camctrl_jax.training.students import NULL_TEXT, TEACHER, Teacher
from camctrl_jax.training.synthetic import SYNTHETIC, SyntheticClips
from camctrl_jax.training.update import Update

# Every kind of block: dual, single with cross-attention to the text, decoder.
BLOCKS = mmdit_preset(
    "nano", num_dual=1, num_single=2, num_decoder=1, fuse_projections=False, text_cross_attention_single=True
)
DUAL = dataclasses.replace(BLOCKS, num_single=0, num_decoder=0)
# More heads, for meshes that cut them twice, and two blocks of each single kind: the last of a kind computes
# the first stream only, those before it all of them.
HEADS = dataclasses.replace(BLOCKS, heads=4, head_dim=12, rope_axes=(4, 4, 4), num_single=4, num_decoder=2)
# Convolutions before the tokens are cut, and every block with a camera layer of its own.
CAMERA = dataclasses.replace(HEADS, camera=CameraConfig(encoder="deep", injection="every"))

one = MeshConfig()
mesh = partial(MeshConfig, data=1)

RETRIEVED = 2  # frames beside the windows of the cases that are named so, and of those with a bank
BANK = bank_of(ConditionConfig(error_bank=0.7, error_bank_size=3), [(HEIGHT, WIDTH)], 16)

# name -> (model, mesh, parts of an accumulated batch)
CASES: dict[str, tuple[MMDiTConfig, MeshConfig, int]] = {
    "dual": (DUAL, one, 1),
    "dual, data": (DUAL, mesh(data=8), 1),
    "dual, fsdp": (DUAL, mesh(fsdp=8), 1),
    "dual, tensor": (DUAL, mesh(data=4, tensor=2), 1),
    "dual, context allgather": (DUAL, mesh(data=4, context=2), 1),
    "dual, context ulysses": (DUAL, mesh(data=4, context=2, context_attention="ulysses"), 1),
    "dual, accumulated, data, fsdp and tensor": (DUAL, mesh(data=2, fsdp=2, tensor=2), 2),
    "heads": (HEADS, one, 1),
    "heads, all axes, allgather": (HEADS, mesh(fsdp=2, context=2, tensor=2), 1),
    "heads, all axes, ulysses, scanned, accumulated": (
        dataclasses.replace(HEADS, scan_layers=True, remat="full"),
        mesh(fsdp=2, context=2, tensor=2, context_attention="ulysses"),
        2,
    ),
    "retrieved": (HEADS, one, 1),
    "retrieved, all axes, scanned, accumulated": (
        dataclasses.replace(HEADS, scan_layers=True),
        mesh(fsdp=2, context=2, tensor=2),
        2,
    ),
    "bank": (DUAL, one, 1),
    "bank, all axes, accumulated": (DUAL, mesh(fsdp=2, context=2, tensor=2), 2),
    "camera": (CAMERA, one, 1),
    "camera, all axes, scanned": (
        dataclasses.replace(CAMERA, scan_layers=True),
        mesh(fsdp=2, context=2, tensor=2),
        1,
    ),
    "distil": (HEADS, one, 1),
    "distil, all axes, scanned, accumulated": (
        dataclasses.replace(HEADS, scan_layers=True),
        mesh(fsdp=2, context=2, tensor=2),
        2,
    ),
    "consistency": (HEADS, one, 1),
    "consistency, all axes, scanned, accumulated": (
        dataclasses.replace(HEADS, scan_layers=True),
        mesh(fsdp=2, context=2, tensor=2),
        2,
    ),
    "adversarial": (HEADS, one, 1),
    "adversarial, data": (HEADS, mesh(data=8), 1),
    "adversarial, all axes, scanned, accumulated": (
        dataclasses.replace(HEADS, scan_layers=True),
        mesh(fsdp=2, context=2, tensor=2),
        2,
    ),
    "anchored": (HEADS, one, 1),
    "anchored, all axes, scanned, accumulated": (
        dataclasses.replace(HEADS, scan_layers=True),
        mesh(fsdp=2, context=2, tensor=2),
        2,
    ),
    "flow map": (dataclasses.replace(HEADS, target_time=True), one, 1),
    "flow map, all axes, scanned, accumulated": (
        dataclasses.replace(HEADS, target_time=True, scan_layers=True),
        mesh(fsdp=2, context=2, tensor=2),
        2,
    ),
}


def flat(params: dict) -> np.ndarray:
    leaves = [np.ravel(leaf) for leaf in jax.tree.leaves(jax.device_get(params))]
    return np.concatenate([np.zeros(0, np.float32), *leaves])


def random_params(config: MMDiTConfig) -> dict:
    """No zeros, which would leave most of the network without gradient; NumPy spares compiling the draw."""
    rng = np.random.default_rng(3)

    def draw(path, leaf) -> np.ndarray:
        noise = rng.standard_normal(leaf.shape).astype(np.float32)
        if len(leaf.shape) > 1:
            return noise / np.float32(np.sqrt(np.prod(leaf.shape[:-1])))
        return np.float32(path[-1].key == "scale") + np.float32(0.05) * noise

    return jax.tree.map_with_path(
        draw, MMDiT(dataclasses.replace(config, scan_layers=False)).abstract_params()
    )


def objective_of(kind: str, optimizer: optax.GradientTransformation, accumulate: int, **fields) -> Denoise:
    update, vae = Update(optimizer, accumulate=accumulate), vae_preset("nano")
    common = {"update": update, "vae": vae, **fields}
    taught = {
        "embedder": WordEmbedder(dim=TEXT_DIM, max_tokens=TEXT_TOKENS),
        "teacher": Teacher("random", None, Guidance(2.0, 3.0)),
        "teacher_steps": 8,
        "valid_steps": (4,),
    }
    if kind == "distil":
        return Distil(**common, **taught, method="progressive", steps=4)
    if kind == "consistency":
        return Consistency(**common, **taught | {"valid_steps": (1,)}, method="consistency")
    if kind in ("adversarial", "anchored"):
        del taught["teacher_steps"]
        critic = Critic(CriticConfig(fields["model"]), placement=fields["placement"])
        # A large step sideways: the difference of nearly equal logits would be mostly rounding.
        losses = AdversarialConfig(penalty=1.0, sigma=1.0, fake_penalty=0.5, wrong_camera=0.5)
        own = {"method": "adversarial", "settings": losses, "critic": critic, "critic_update": update}
        plain = Adversarial(**common, **taught, **own)
        if kind == "adversarial":
            return plain
        student = dataclasses.replace(plain.model, target_time=True, remat="none")
        made = SyntheticClips(
            Teacher("random", None, Guidance()), 2, student, plain.flow, plain.dtype, plain.placement
        )
        losses = dataclasses.replace(losses, anchor=10.0)
        return dataclasses.replace(plain, settings=losses, synthetic=made)
    if kind == "flow map":
        return FlowMap(**common, **taught, method="flow_map", block=2)
    return Denoise(**common, bank=BANK if kind == "bank" else None)


def updated(
    config: MMDiTConfig, mesh_config: MeshConfig, accumulate: int, kind: str
) -> tuple[np.ndarray, float, int]:
    """(parameter changes of one step, of all networks, one entry per layer; its loss; entries that one device
    holds). With an error bank two steps of extensions, of which the second is disturbed with errors of the
    first.
    """
    # Plain gradient descent: Adam would turn rounding of vanishing gradients into full steps.
    optimizer = optax.sgd(0.1)
    plain = mesh_config == one
    mesh = make_mesh(mesh_config, jax.devices()[:1] if plain else jax.devices())
    placement = placement_of(mesh, mesh_config.context_attention)
    objective = objective_of(kind, optimizer, accumulate, model=config, placement=placement)
    frozen = {}
    if kind in ("distil", "flow map", "consistency", "anchored"):
        read = objective.frozen()
        frozen = {role: read[role] for role in (TEACHER, NULL_TEXT) if role in read}
        if kind == "anchored":
            student = objective.synthetic.model
            drawn = random_params(student)
            frozen[SYNTHETIC] = stack_layers(drawn, student) if student.scan_layers else drawn
        frozen = distribute(frozen, Program(objective, mesh).frozen_homes(frozen))
    params = random_params(config)
    state = objective.state(stack_layers(params, config) if config.scan_layers else params, jax.random.key(0))
    shardings = shardings_of(state, mesh)
    others = flat(networks(state, config)[1])
    state = jax.device_put(state, shardings)
    step = jax.jit(objective.step, out_shardings=(shardings, None))
    memory = 0 if kind in ("dual", "heads", "camera") else RETRIEVED
    batch = batch_of(16 if kind == "flow map" else 8, retrieved=memory)
    if kind == "bank":
        batch |= {"condition_mask": np.arange(3) < np.full((8, 1), 2)}
    batch = distribute_batch(batch, mesh)
    for _ in range(2 if kind == "bank" else 1):
        state, metrics = step(state, batch, jax.random.key(5), frozen)
    held = sum(leaf.addressable_shards[0].data.size for leaf in jax.tree.leaves(state.params))
    after, others_after = networks(state, config)
    changes = flat(after) - flat(params), flat(others_after) - others
    return np.concatenate(changes), float(metrics["loss"]), held


def networks(state: TrainState, config: MMDiTConfig) -> tuple[dict, dict]:
    """Parameters of the network that the run is for, and of others, one entry per layer."""
    trained = state.params, {role: other.params for role, other in state.others.items()}
    return unstack_state(trained, config) if config.scan_layers else trained


def main() -> None:
    references = {}
    for name, case in CASES.items():
        kind = name.split(",")[0]
        update, loss, held = updated(*case, kind)
        plain = references.setdefault(kind, (update, loss, held))
        distance = float(np.linalg.norm(update - plain[0]) / np.linalg.norm(plain[0]))
        print(
            json.dumps(
                {
                    "case": name,
                    "update": distance,
                    "loss": abs(loss - plain[1]) / plain[1],
                    "held": held / plain[2],
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
