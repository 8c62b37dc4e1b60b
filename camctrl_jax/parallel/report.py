"""Compile a training step for machines that are not there, and say whether it fits and what bounds it.

  python -m camctrl_jax.parallel.report --config=configs/stage2.py --topology=v5p:4x4x8

Topologies: a grid of TPU chips (v5e, v5p, v6e, such as v6e:8x8) or a number of GPUs (h100x64). Any value of
the recipe can be changed: --config.mesh.context=4. What is compiled is the step that train.py runs, with the
same state, shardings and batch. It takes a CPU, and the compiler: pip install 'camctrl_jax[tpu]', or for GPUs
jax-cuda13-plugin and jax-cuda13-pjrt of the version of jax, without dependencies.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import math
import re
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camctrl_jax.parallel.machines import Chip, Machine, machine_of, set_environment

if TYPE_CHECKING:  # read once the environment is set
    from ml_collections import ConfigDict

    from camctrl_jax.parallel.collectives import Collective
    from camctrl_jax.training.program import Program

_GIB = 2.0**30
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
        frozen: the autoencoder's parameters, where the step does not read them but the run holds them.
        peak: the most that is in use at a time, everything included.
        host: kept in the memory of the host for the backward pass.
    """

    state: float
    frozen: float
    peak: float
    host: float


@dataclass(frozen=True)
class Report:
    """What compiling told.

    Attributes:
        memory: None where it did not fit, and the compiler says ``needed`` only.
        needed: bytes on one device.
        flops: of one step over all devices: (the model's, with recomputation).
        collectives: what devices exchange.
        seconds: that compiling took.
    """

    memory: Memory | None
    needed: float
    flops: tuple[float, float]
    collectives: list[Collective]
    seconds: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; expected failures end with one message on standard error and exit code 1."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    from camctrl_jax.training.config import ConfigError

    parser = argparse.ArgumentParser(
        prog="python -m camctrl_jax.parallel.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", required=True, help="recipe and variant, e.g. configs/stage2.py:motif_2b")
    parser.add_argument("--topology", required=True, help="e.g. v5p:4x4x8, v6e:8x8 or h100x64")
    parser.add_argument(
        "--batch", choices=("latents", "video"), default="latents", help="what batches hold (latents)"
    )
    parser.add_argument("--out", help="also write the report to this Markdown file")
    overrides = [argument for argument in arguments if argument.startswith("--config.")]
    options = parser.parse_args([argument for argument in arguments if argument not in overrides])
    try:
        config = _config(options.config, overrides)
        machine = machine_of(options.topology)
        program = _program(config, machine, options.batch)
        report = compile_step(config, program, machine, options.batch)
    except (ConfigError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    text = markdown(config, program, machine, report, options.batch, options.config, arguments)
    print(text)
    if options.out:
        path = Path(options.out)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return 0 if fits(report, machine.chip) else 2


def _config(spec: str, overrides: Sequence[str]) -> ConfigDict:
    """The recipe with values changed as on train.py's command line, and a stand-in for data not named."""
    from camctrl_jax.training.config import ConfigError, check_config, check_overrides, load_recipe

    config = load_recipe(spec)
    check_overrides(overrides, config)
    for override in overrides:
        key, _, value = override.removeprefix("--config.").partition("=")
        with contextlib.suppress(ValueError, SyntaxError):  # else it is a word
            value = ast.literal_eval(value)
        try:
            config.update_from_flattened_dict({key: value})
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{override}: {error}") from error
    if config.data.kind == "datasets" and not (*config.data.datasets, *config.data.unlabelled):
        config.data.datasets = ("data",)
    check_config(config)
    if config.objective != "denoise":
        raise ConfigError("config.objective='vae': reports are made for denoising runs")
    return config


def _program(config: ConfigDict, machine: Machine, batch: str) -> Program:
    from camctrl_jax.models import vae_preset
    from camctrl_jax.parallel.activations import MeshPlacement
    from camctrl_jax.parallel.mesh import make_mesh
    from camctrl_jax.training.config import run_parts
    from camctrl_jax.training.program import build_program

    settings = run_parts(config).mesh
    mesh = make_mesh(settings, machine.devices)
    placement = None
    if machine.devices[0].platform == "gpu":
        placement = MeshPlacement(mesh, settings.context_attention, stand_in_attention)
    small = config.model.preset in ("worlds", "nano")
    return build_program(config, mesh, vae_preset(config.model.preset if small else "wan21"), placement)


def batch_of(config: ConfigDict, kind: str) -> dict[str, tuple[tuple[int, ...], Any]]:
    """{field: (global shape, dtype)} of a training batch of clips; ``kind`` is 'latents' or 'video'."""
    import numpy as np

    from camctrl_jax.data.stream import latent_count

    data, count = config.data, config.batch_size
    latents = latent_count(data.frames)
    clips = {
        "latents": ((count, latents, data.height // 8, data.width // 8, 16), np.float16),
        "video": ((count, data.frames, data.height, data.width, 3), np.uint8),
    }
    return {
        kind: clips[kind],
        "world_from_camera": ((count, data.frames, 4, 4), np.float32),
        "intrinsics": ((count, data.frames, 4), np.float32),
        "camera_valid": ((count,), np.bool_),
        "condition_mask": ((count, latents), np.bool_),
        "text": ((count, data.text.max_tokens, data.text.dim), np.float32),
        "text_mask": ((count, data.text.max_tokens), np.bool_),
        "clip_index": ((count,), np.int32),
    }


def compile_step(config: ConfigDict, program: Program, machine: Machine, batch: str) -> Report:
    """Lower and compile the step of a program; nothing runs."""
    import jax

    from camctrl_jax.parallel.collectives import collectives_of

    def held(tree: Any, shardings: Any) -> Any:
        return jax.tree.map(
            lambda leaf, home: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=home), tree, shardings
        )

    state = held(program.abstract_state, program.shardings)
    frozen = jax.eval_shape(program.vae.init_params, jax.random.key(0))
    frozen_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(frozen))
    frozen = held(frozen, jax.tree.map(lambda _: program.everywhere, frozen))
    key = held(jax.eval_shape(lambda: jax.random.key(0)), program.everywhere)
    fields = program.abstract_batch(batch_of(config, batch))
    lowered = program.jitted_step.lower(state, fields, key, frozen)
    flops = step_flops(config, program)
    begin = time.perf_counter()
    try:
        compiled = lowered.compile(_COMPILER_OPTIONS.get(machine.devices[0].platform))
    except jax.errors.JaxRuntimeError as error:
        found = _OUT_OF_MEMORY.search(str(error))
        if not found:
            raise
        needed = float(found[1]) * _UNITS[found[2]]
        return Report(None, needed, flops, [], time.perf_counter() - begin)
    seconds = time.perf_counter() - begin
    analysis = compiled.memory_analysis()
    state_bytes = sum(
        leaf.dtype.itemsize * math.prod(leaf.sharding.shard_shape(leaf.shape))
        for leaf in jax.tree.leaves(state)
    )
    unread = frozen_bytes if batch == "latents" else 0.0
    peak = analysis.peak_memory_in_bytes or (
        analysis.argument_size_in_bytes
        + analysis.output_size_in_bytes
        - analysis.alias_size_in_bytes
        + analysis.temp_size_in_bytes
    )
    memory = Memory(state_bytes, unread, peak + unread, analysis.host_temp_size_in_bytes)
    hosts = [device.process_index for device in program.mesh.devices.flat]
    if machine.devices[0].platform == "tpu":  # the chips of a slice are one grid, whatever hosts they have
        hosts = [0] * len(hosts)
    return Report(memory, memory.peak, flops, collectives_of(compiled.as_text(), hosts), seconds)


def step_flops(config: ConfigDict, program: Program) -> tuple[float, float]:
    """Operations of one step over all devices: (forward and backward, those and what is computed again)."""
    from camctrl_jax.data.stream import latent_count
    from camctrl_jax.models.flops import mmdit_flops

    data = config.data
    grid = (latent_count(data.frames), data.height // 8, data.width // 8)
    one = mmdit_flops(program.parts.model, grid, data.text.max_tokens)
    count = config.batch_size
    return count * one.training, count * (one.training + one.recomputed(config.model.remat))


def stand_in_attention(query: Any, key: Any, value: Any, key_lengths: Any = None, **_: Any) -> Any:
    """Takes the place of cuDNN's kernel, whose library the compiler asks for; its results mean nothing.

    Its arrays are those of the kernel: the backward pass keeps query, key, value, output and the sum of every
    row's exponentials (f32 [B, N, S]), so memory and exchange are those of the real program.
    """
    import jax
    import jax.numpy as jnp

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


def fits(report: Report, chip: Chip) -> bool:
    """Whether a device has the memory."""
    return report.memory is not None and report.needed <= chip.memory


def times(config: ConfigDict, program: Program, report: Report, chip: Chip) -> dict[str, float]:
    """Seconds of a step if one resource alone bounded it: 'compute', 'memory', 'links', 'network'."""
    seconds = {"compute": report.flops[1] / program.mesh.size / chip.flops}
    seconds["memory"] = memory_traffic(config, program, report) / chip.memory_rate
    near = sum(collective.bytes for collective in report.collectives if not collective.across)
    far = sum(collective.bytes for collective in report.collectives if collective.across)
    seconds["links"] = near / chip.link_rate
    if far:
        seconds["network"] = far / chip.network_rate
    return seconds


def memory_traffic(config: ConfigDict, program: Program, report: Report) -> float:
    """Bytes that a device reads and writes in a step, estimated: the compiler counts the body of a scan once.

    The state is read and written once; every pass over a block reads its weights in half precision and moves
    about 12 widths and 4 widths of the MLP per token; there are three passes, four with recomputation.
    """
    import jax

    from camctrl_jax.training.inputs import tokens_of

    model = program.parts.model
    mesh = program.mesh.shape
    state = 0.0 if report.memory is None else report.memory.state
    parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(program.abstract_params))
    blocks = model.num_dual + model.num_single
    tokens = tokens_of(config) + config.data.text.max_tokens
    local = config.batch_size * tokens / (mesh["data"] * mesh["fsdp"] * mesh["context"])
    passes = 3 if config.model.remat == "none" else 4
    activations = 2.0 * local * blocks * (12 * model.width + 4 * model.mlp_dim / mesh["tensor"])
    weights = 2.0 * 2.0 * parameters / mesh["tensor"] * config.accumulate
    return 2.0 * state + passes * (activations + weights)


def advice(config: ConfigDict, program: Program, report: Report, chip: Chip) -> list[str]:
    """What to change where it does not fit, the cheapest first."""
    if fits(report, chip):
        return []
    mesh, model = program.mesh.shape, config.model
    lines = []
    state = report.memory.state if report.memory else 0.0
    if state > 0.4 * chip.memory:
        if mesh["data"] > 1:
            lines.append("--config.mesh.data=1 --config.mesh.fsdp=-1: cut the state over all devices")
        if config.optimizer.moments != "int8":
            lines.append("--config.optimizer.moments=int8 (or bfloat16): shorter moments")
    if model.remat in ("none", "dots"):
        lines.append("--config.model.remat=full: keep the input of every block only")
    per_device = config.batch_size // (mesh["data"] * mesh["fsdp"] * config.accumulate)
    if per_device > 1:
        lines.append(
            f"--config.accumulate={config.accumulate * per_device}: one clip a device at a time, "
            f"instead of {per_device}"
        )
    else:
        larger = 2 * mesh["context"]
        lines.append(
            f"--config.mesh.context={larger} with mesh.fsdp={max(mesh['fsdp'] // 2, 1)}: "
            f"every clip over {larger} devices"
        )
    if model.remat != "offload":
        lines.append("--config.model.remat=offload: keep results of products in the memory of the host")
    return lines


def markdown(
    config: ConfigDict,
    program: Program,
    machine: Machine,
    report: Report,
    batch: str,
    spec: str,
    arguments: Sequence[str],
) -> str:
    """The report as Markdown; ``spec`` is the recipe's, ``arguments`` those of the command line."""
    import jax

    from camctrl_jax.training.inputs import tokens_of

    chip, mesh = machine.chip, program.mesh
    parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(program.abstract_params))
    data = config.data
    command = " ".join(shlex.quote(argument) for argument in arguments)
    gib = lambda size: f"{size / _GIB:.2f} GiB"  # noqa: E731
    lines = [
        f"# {spec} on {machine.topology}",
        "",
        "```bash",
        f"python -m camctrl_jax.parallel.report {command}",
        "```",
        "",
        f"Compiled ahead of time with jax {jax.__version__}; nothing ran. Compiler: {report.seconds:.0f} s.",
        "",
        "| | |",
        "|---|---|",
        f"| model | {config.model.preset}, {parameters / 1e9:.2f}B parameters"
        f"{', layers scanned' if program.scanned else ''} |",
        f"| clips | {config.batch_size} a step in {config.accumulate} part(s), {data.frames} frames of "
        f"{data.height}x{data.width}: {tokens_of(config)} video tokens, "
        f"{data.text.max_tokens} of text; batches of {batch} |",
        f"| mesh | {', '.join(f'{axis} {size}' for axis, size in mesh.shape.items())}; context attention "
        f"{program.parts.mesh.context_attention} |",
        f"| settings | remat {config.model.remat}, moments {config.optimizer.moments}, {config.dtype} |",
        "",
        "## Memory of one device",
        "",
    ]
    limit = f"{gib(report.needed)} of {gib(chip.memory)}: {report.needed / chip.memory:.0%}"
    verdict = "It fits" if fits(report, chip) else "**It does not fit**"
    if report.memory is None:
        lines += [f"{verdict}: the compiler needs {limit}."]
    else:
        lines += [
            "| part | size |",
            "|---|---|",
            f"| state (parameters, average, moments) | {gib(report.memory.state)} |",
        ]
        if report.memory.frozen:
            lines += [
                f"| the frozen autoencoder, which this step does not read | {gib(report.memory.frozen)} |"
            ]
        if report.memory.host:
            lines += [f"| in the memory of the host | {gib(report.memory.host)} |"]
        lines += [f"| peak, everything included | {gib(report.memory.peak)} |", "", f"{verdict}: {limit}."]
    changes = advice(config, program, report, chip)
    if changes:
        lines += ["", "What to change, the cheapest first:", "", *(f"* `{line}`" for line in changes)]
    model_flops, all_flops = report.flops
    lines += [
        "",
        "## Operations of a step",
        "",
        f"{model_flops:.3g} by formula (`camctrl_jax/models/flops.py`), {all_flops:.3g} with what remat "
        f"'{config.model.remat}' computes again; {all_flops / mesh.size:.3g} on each device.",
    ]
    if report.memory is not None:
        lines += [
            "",
            "## What devices exchange in a step",
            "",
            "| collective | devices | across hosts | count | sent by each device |",
            "|---|---|---|---|---|",
        ]
        for c in report.collectives:
            across = "yes" if c.across else "no"
            lines += [f"| {c.kind} | {c.group} | {across} | {c.count} | {c.bytes / 1e9:.3f} GB |"]
        seconds = times(config, program, report, chip)
        bound = max(seconds, key=seconds.get)
        share = model_flops / mesh.size / chip.flops / max(seconds.values())
        lines += [
            "",
            "## What bounds it",
            "",
            "| resource | seconds, if nothing else took time |",
            "|---|---|",
            *(f"| {name} | {value:.2f} |" for name, value in seconds.items()),
            "",
            f"Bound by {bound}. With everything else hidden behind it the model would reach {share:.0%} of "
            "the peak rate: a limit from data sheets, not a prediction of what will be measured.",
        ]
    if machine.devices[0].platform == "gpu":
        lines += [
            "",
            "cuDNN's attention kernel cannot be compiled without its library. A stand-in with the arrays "
            "that the kernel reads, writes and keeps takes its place, so memory and exchange are those of "
            "the real program; Triton kernels and autotuning are off.",
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    set_environment()
    sys.exit(main())
