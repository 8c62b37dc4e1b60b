"""The training step of a recipe, compiled for a machine, and what the compiler tells.

This is the only file here that calls ``camctrl_jax.training``; the others read its :class:`Report`.
"""

from __future__ import annotations

import ast
import contextlib
import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from camctrl_jax.clip_shape import ClipShape
from camctrl_jax.parallel.activations import MeshPlacement
from camctrl_jax.parallel.mesh import MeshConfig, make_mesh
from camctrl_jax.pod_report.collectives import Collective, collectives_of
from camctrl_jax.pod_report.machines import Machine
from camctrl_jax.training.command_line import with_plain_lists
from camctrl_jax.training.config import check_config, check_overrides, load_recipe
from camctrl_jax.training.objective import Work
from camctrl_jax.training.objectives.denoise import AUTOENCODER
from camctrl_jax.training.program import Program, build_program
from camctrl_jax.training.values import UNTRAINED, ConfigError, mmdit_config
from camctrl_jax.training.world_sets import views_of

_OUT_OF_MEMORY = re.compile(r"Used ([\d.]+)([KMGT]?) of ([\d.]+)([KMGT]?)")
# Less search for the fastest schedule: minutes less to compile. What devices exchange is written
# otherwise, too: an all-gather may appear as an all-reduce, which sends twice as much.
_COMPILER_OPTIONS = {"tpu": {"exec_time_optimization_effort": -1.0}}
_UNITS = {"": 1.0, "K": 2.0**10, "M": 2.0**20, "G": 2.0**30, "T": 2.0**40}


@dataclass(frozen=True)
class Memory:
    """Bytes on one device.

    Attributes:
        state: parameters, average and optimizer state (arguments that are updated in place).
        frozen: the autoencoder's parameters, where the step does not read them but the run holds them; a
            teacher's are among those that it reads.
        peak: the most that is in use at a time, everything included.
        host: kept in the memory of the host for the backward pass.
    """

    state: float
    frozen: float
    peak: float
    host: float


@dataclass(frozen=True)
class Step:
    """What was compiled.

    Attributes:
        parameters: of the model.
        scanned: whether its layers are stacked and scanned.
        video_tokens: of one clip.
        mesh: devices along each axis.
        work: operations and memory traffic over all devices.
    """

    parameters: int
    scanned: bool
    video_tokens: int
    mesh: Mapping[str, int]
    work: Work

    @property
    def devices(self) -> int:
        """Of the mesh."""
        return math.prod(self.mesh.values())


@dataclass(frozen=True)
class Report:
    """What compiling told.

    Attributes:
        step: what was compiled.
        memory: None where it did not fit, and the compiler says ``needed`` only.
        needed: bytes on one device.
        collectives: what devices exchange.
        seconds: that compiling took.
    """

    step: Step
    memory: Memory | None
    needed: float
    collectives: list[Collective]
    seconds: float


def config_of(spec: str, overrides: Sequence[str]) -> ConfigDict:
    """The recipe with values changed as on train.py's command line, and a stand-in for data not named.

    Of a recipe with several sets of worlds that of a run on one of them: the one with the largest batches.
    """
    config = load_recipe(spec)
    check_overrides(overrides, config)
    for override in with_plain_lists(overrides, config):
        key, _, value = override.removeprefix("--config.").partition("=")
        with contextlib.suppress(ValueError, SyntaxError):  # else it is a word
            value = ast.literal_eval(value)
        try:
            config.update_from_flattened_dict({key: value})
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{override}: {error}") from error
    if config.data.kind == "datasets" and not (*config.data.datasets, *config.data.unlabelled):
        config.data.datasets = ("data",)
    # Nothing is read: an autoencoder and a teacher of their usual sizes, and texts of the same width, stand
    # in for files.
    config.distil.teacher = UNTRAINED
    check_config(config)
    config.vae.weights, config.data.text.source = UNTRAINED, ""
    return max(views_of(config).values(), key=_latents_of_batch)


def _latents_of_batch(config: ConfigDict) -> int:
    """Latent pixels in a training batch of clips, with those of retrieved frames."""
    frames, height, width = clip_shape(config).latent_shape
    return config.batch_size * (frames + config.data.worlds.retrieved) * height * width


def program_of(config: ConfigDict, machine: Machine) -> Program:
    """The step of a recipe on the devices of a machine."""
    mesh = make_mesh(MeshConfig(**config.mesh), machine.devices)
    placement = None
    if machine.devices[0].platform == "gpu":
        placement = MeshPlacement(mesh, config.mesh.context_attention, stand_in_attention)
    return build_program(config, mesh, placement)


def batch_of(config: ConfigDict, kind: str) -> dict[str, tuple[tuple[int, ...], Any]]:
    """{field: (global shape, dtype)} of a training batch of clips; ``kind`` is 'latents' or 'video'."""
    data, count = config.data, config.batch_size
    shape = clip_shape(config)
    clips = {
        "latents": ((count, *shape.latent_shape, 16), np.float16),
        "video": ((count, data.frames, data.height, data.width, 3), np.uint8),
    }
    retrieved, memory = data.worlds.retrieved if data.kind == "worlds" else 0, {}
    if retrieved:
        memory = {
            "retrieved_latents": ((count, retrieved, *shape.latent_shape[1:], 16), np.float16),
            "retrieved_world_from_camera": ((count, retrieved, 4, 4), np.float32),
            "retrieved_intrinsics": ((count, retrieved, 4), np.float32),
        }
    return memory | {
        kind: clips[kind],
        "world_from_camera": ((count, data.frames, 4, 4), np.float32),
        "intrinsics": ((count, data.frames, 4), np.float32),
        "camera_valid": ((count,), np.bool_),
        "condition_mask": ((count, shape.latents), np.bool_),
        "text": ((count, data.text.max_tokens, data.text.dim), np.float32),
        "text_mask": ((count, data.text.max_tokens), np.bool_),
        "clip_index": ((count,), np.int32),
    }


def compile_step(config: ConfigDict, program: Program, machine: Machine, batch: str) -> Report:
    """Lower and compile the step of a program for batches of ``batch``; nothing runs."""
    fields = program.abstract_batch(batch_of(config, batch))
    step = step_of(config, program, fields)
    state = _held(program.abstract_state, program.shardings)
    frozen = program.objective.frozen_shapes()
    # Batches of latents do not read the autoencoder, but the run holds it.
    unread = _bytes(frozen.get(AUTOENCODER, {})) if batch == "latents" else 0.0
    frozen = _held(frozen, program.frozen_homes(frozen))
    key = _held(jax.eval_shape(lambda: jax.random.key(0)), program.everywhere)
    lowered = program.jitted_step.lower(state, fields, key, frozen)
    platform = machine.devices[0].platform
    begin = time.perf_counter()
    try:
        compiled = lowered.compile(_COMPILER_OPTIONS.get(platform))
    except jax.errors.JaxRuntimeError as error:
        found = _OUT_OF_MEMORY.search(str(error))
        if not found:
            raise
        needed = float(found[1]) * _UNITS[found[2]]
        return Report(step, None, needed, [], time.perf_counter() - begin)
    seconds = time.perf_counter() - begin
    memory = _memory(compiled.memory_analysis(), state, unread)
    hosts = [device.process_index for device in program.mesh.devices.flat]
    if platform == "tpu":  # the chips of a slice are one grid, whatever hosts they have
        hosts = [0] * len(hosts)
    return Report(step, memory, memory.peak, collectives_of(compiled.as_text(), hosts), seconds)


def step_of(config: ConfigDict, program: Program, fields: Mapping[str, Any]) -> Step:
    """What will be compiled for batches of ``fields``, arrays or their shapes.

    Raises:
        ConfigError: what it takes is not known.
    """
    work = program.objective.work(fields)
    if work is None:
        raise ConfigError(
            f"config.objective={config.objective!r}: there is no formula for what its steps take, and a "
            "report needs one (Objective.work)."
        )
    return Step(
        parameters=sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(program.abstract_params)),
        scanned=program.objective.scanned is not None,
        video_tokens=clip_shape(config).tokens(mmdit_config(config).patch),
        mesh=dict(program.mesh.shape),
        work=work,
    )


def clip_shape(config: ConfigDict) -> ClipShape:
    """Of the clips of a recipe."""
    return ClipShape(config.data.frames, config.data.height, config.data.width)


def _held(tree: Any, shardings: Any) -> Any:
    """Shapes and dtypes with where they live."""
    return jax.tree.map(
        lambda leaf, home: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=home), tree, shardings
    )


def _bytes(tree: Any) -> float:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _memory(analysis: Any, state: Any, unread: float) -> Memory:
    """From the compiler's analysis; ``unread`` bytes are held by the run and unknown to the compiler."""
    state_bytes = sum(
        leaf.dtype.itemsize * math.prod(leaf.sharding.shard_shape(leaf.shape))
        for leaf in jax.tree.leaves(state)
    )
    peak = analysis.peak_memory_in_bytes or (
        analysis.argument_size_in_bytes
        + analysis.output_size_in_bytes
        - analysis.alias_size_in_bytes
        + analysis.temp_size_in_bytes
    )
    return Memory(state_bytes, unread, peak + unread, analysis.host_temp_size_in_bytes)


def stand_in_attention(query: Any, key: Any, value: Any, key_lengths: Any = None, **_: Any) -> Any:
    """Takes the place of cuDNN's kernel, whose library the compiler asks for; its results mean nothing.

    Its arrays are those of the kernel: the backward pass keeps query, key, value, output and the sum of every
    row's exponentials (f32 [B, N, S]), so memory and exchange are those of the real program.
    """

    @jax.custom_vjp
    def attend(query: Any, key: Any, value: Any) -> Any:
        return forward(query, key, value)[0]

    def forward(query: Any, key: Any, value: Any) -> Any:
        out = query * (jnp.mean(key, axis=1, keepdims=True) + jnp.mean(value, axis=1, keepdims=True))
        sums = jnp.sum(query.astype(jnp.float32), axis=-1).swapaxes(1, 2)  # [B, N, S]
        return out, (query, key, value, out, sums)

    def backward(kept: Any, gradient: Any) -> Any:
        query, key, value, out, sums = kept
        scaled = gradient * out * sums.swapaxes(1, 2)[..., None].astype(gradient.dtype)
        mean = jnp.mean(scaled, axis=1, keepdims=True)
        return scaled * query, mean * key, mean * value

    attend.defvjp(forward, backward)
    return attend(query, key, value)
