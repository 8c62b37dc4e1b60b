"""The report for people."""

from __future__ import annotations

from collections.abc import Sequence

import jax
from ml_collections import ConfigDict

from camctrl_jax.parallel.chips import Chip
from camctrl_jax.pod_report.bounds import advice, fits, times
from camctrl_jax.pod_report.compiling import Report, Step, compile_step, config_of, program_of
from camctrl_jax.pod_report.machines import Machine, machine_of

_GIB = 2.0**30


def report(
    recipe: str, overrides: Sequence[str], topology: str, batch: str, command: str
) -> tuple[str, bool]:
    """Compile the step of a recipe for a machine.

    Args:
        recipe: file and variant.
        overrides: values to change, as on train.py's command line.
        topology: the machine, see ``machine_of``.
        batch: what batches hold, 'latents' or 'video'.
        command: arguments of the command line, to repeat it.

    Returns:
        The report in Markdown, and whether a device has the memory.

    Raises:
        UserError: a recipe or a topology that cannot work.
    """
    config, machine = config_of(recipe, overrides), machine_of(topology)
    found = compile_step(config, program_of(config, machine), machine, batch)
    lines = [
        f"# {recipe} on {machine.topology}",
        "",
        "```bash",
        f"python -m camctrl_jax.pod_report {command}",
        "```",
        "",
        f"Compiled ahead of time with jax {jax.__version__}; nothing ran. Compiler: {found.seconds:.0f} s.",
        "",
        *_settings(config, found.step, batch),
        *_memory(config, found, machine.chip),
        *_operations(config, found.step),
    ]
    if found.memory is not None:
        lines += [*_exchange(found), *_bounds(config, found, machine.chip)]
    return "\n".join([*lines, *_limits(machine)]), fits(found, machine.chip)


def _gib(size: float) -> str:
    return f"{size / _GIB:.2f} GiB"


def _settings(config: ConfigDict, step: Step, batch: str) -> list[str]:
    data = config.data
    return [
        "| | |",
        "|---|---|",
        f"| model | {config.model.preset}, {step.parameters / 1e9:.2f}B parameters"
        f"{', layers scanned' if step.scanned else ''} |",
        f"| clips | {config.batch_size} a step in {config.accumulate} part(s), {data.frames} frames of "
        f"{data.height}x{data.width}: {step.video_tokens} video tokens, "
        f"{data.text.max_tokens} of text; batches of {batch} |",
        f"| mesh | {', '.join(f'{axis} {size}' for axis, size in step.mesh.items())}; context attention "
        f"{config.mesh.context_attention} |",
        f"| settings | remat {config.model.remat}, moments {config.optimizer.moments}, {config.dtype} |",
        "",
    ]


def _memory(config: ConfigDict, found: Report, chip: Chip) -> list[str]:
    lines = ["## Memory of one device", ""]
    limit = f"{_gib(found.needed)} of {_gib(chip.memory)}: {found.needed / chip.memory:.0%}"
    verdict = "It fits" if fits(found, chip) else "**It does not fit**"
    if found.memory is None:
        lines += [f"{verdict}: the compiler needs {limit}."]
    else:
        memory = found.memory
        lines += ["| part | size |", "|---|---|"]
        lines += [f"| state (parameters, average, moments) | {_gib(memory.state)} |"]
        if memory.frozen:
            lines += [f"| the frozen autoencoder, which this step does not read | {_gib(memory.frozen)} |"]
        if memory.host:
            lines += [f"| in the memory of the host | {_gib(memory.host)} |"]
        lines += [f"| peak, everything included | {_gib(memory.peak)} |", "", f"{verdict}: {limit}."]
    changes = advice(config, found, chip)
    if changes:
        lines += ["", "What to change, the cheapest first:", "", *(f"* `{line}`" for line in changes)]
    return lines


def _operations(config: ConfigDict, step: Step) -> list[str]:
    everything = step.work.flops + step.work.recomputed
    return [
        "",
        "## Operations of a step",
        "",
        f"{step.work.flops:.3g} by formula (`camctrl_jax/models/flops.py`), {everything:.3g} with what remat "
        f"'{config.model.remat}' computes again; {everything / step.devices:.3g} on each device.",
    ]


def _exchange(found: Report) -> list[str]:
    rows = [
        f"| {each.kind} | {each.group} | {'yes' if each.across else 'no'} | {each.count} | "
        f"{each.bytes / 1e9:.3f} GB |"
        for each in found.collectives
    ]
    return [
        "",
        "## What devices exchange in a step",
        "",
        "| collective | devices | across hosts | count | sent by each device |",
        "|---|---|---|---|---|",
        *rows,
    ]


def _bounds(config: ConfigDict, found: Report, chip: Chip) -> list[str]:
    seconds = times(config, found, chip)
    bound = max(seconds, key=seconds.get)
    share = found.step.work.flops / found.step.devices / chip.flops / max(seconds.values())
    return [
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


def _limits(machine: Machine) -> list[str]:
    if machine.devices[0].platform != "gpu":
        return []
    return [
        "",
        "cuDNN's attention kernel cannot be compiled without its library. A stand-in with the arrays "
        "that the kernel reads, writes and keeps takes its place, so memory and exchange are those of "
        "the real program; Triton kernels and autotuning are off.",
    ]
