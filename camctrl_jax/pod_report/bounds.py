"""What bounds a compiled step, and what to change where it does not fit."""

from __future__ import annotations

from ml_collections import ConfigDict

from camctrl_jax.parallel.chips import Chip
from camctrl_jax.pod_report.compiling import Report


def fits(report: Report, chip: Chip) -> bool:
    """Whether a device has the memory."""
    return report.memory is not None and report.needed <= chip.memory


def times(config: ConfigDict, report: Report, chip: Chip) -> dict[str, float]:
    """Seconds of a step if one resource alone bounded it: 'compute', 'memory', 'links', 'network'."""
    work = report.step.work
    seconds = {"compute": (work.flops + work.recomputed) / report.step.devices / chip.flops}
    seconds["memory"] = memory_traffic(config, report) / chip.memory_rate
    near = sum(collective.bytes for collective in report.collectives if not collective.across)
    far = sum(collective.bytes for collective in report.collectives if collective.across)
    seconds["links"] = near / chip.link_rate
    if far:
        seconds["network"] = far / chip.network_rate
    return seconds


def memory_traffic(config: ConfigDict, report: Report) -> float:
    """Bytes that a device reads and writes in a step, estimated: the compiler counts the body of a scan once.

    The state is read and written once; every pass over the layers reads their weights in half precision and
    moves activations.
    """
    step, mesh = report.step, report.step.mesh
    work = step.work
    state = 0.0 if report.memory is None else report.memory.state
    local = mesh["data"] * mesh["fsdp"] * mesh["context"]
    activations = (work.activations + work.hidden_activations / mesh["tensor"]) / local
    weights = 2.0 * 2.0 * step.parameters / mesh["tensor"] * config.accumulate
    return 2.0 * state + work.passes * (activations + weights)


def advice(config: ConfigDict, report: Report, chip: Chip) -> list[str]:
    """What to change where it does not fit, the cheapest first."""
    if fits(report, chip):
        return []
    mesh, model = report.step.mesh, config.model
    lines = []
    state = report.memory.state if report.memory else 0.0
    if state > 0.4 * chip.memory:
        if mesh["data"] > 1:
            lines.append("--config.mesh.data=1 --config.mesh.fsdp=-1: cut the state over all devices")
        if config.optimizer.moments != "bfloat16":
            lines.append("--config.optimizer.moments=bfloat16: shorter moments")
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
