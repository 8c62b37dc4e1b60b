"""Training of Motif-Video-2B on several devices of one host beside one of them.

  python benchmarks/scaling.py

Whole steps on latents with the settings of configs/stage1.py:motif_2b and configs/stage2.py:motif_2b:
clipping, AdamW with float32 moments and the average of the weights, every layer's activations computed again
in the backward pass, equal layers in a scan. 'devices' of the table is all that there are.

'fsdp' gives every device clips of its own, as many as the one device has alone. It shares out parameters and
optimizer state, and with them the update, so that it could even be faster than one device; exchange costs.
'context' cuts one clip of 29,760 video tokens (121 frames at 384x640) over the devices, and repeats the
update on each. Ulysses needs a number of devices that divides the heads. The peak includes initialisation,
which holds the whole parameters once more.
"""

from __future__ import annotations

import argparse
import copy
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from harness import NO_CACHE, add_common_arguments, gib, machine_of, report, run_tasks, table
from train_step import flops_of, run_step

ONE, FSDP = "one device", "fsdp"
LONG, ALLGATHER, ULYSSES = (
    "one device, long clip",
    "context, long clip, all-gather",
    "context, long clip, Ulysses",
)
TASKS = (ONE, FSDP, LONG, ALLGATHER, ULYSSES)


def sized(options: argparse.Namespace, task: str, devices: int) -> argparse.Namespace:
    """The options with the clips of a task, for the functions of train_step.py."""
    changed = copy.copy(options)
    changed.remat, changed.scan = "full", True
    changed.latents = options.latents if task in (ONE, FSDP) else options.long_latents
    changed.batch = options.batch * (devices if task == FSDP else 1) if task in (ONE, FSDP) else 1
    return changed


def run_task(options: argparse.Namespace) -> dict[str, Any]:
    import jax

    from camctrl_jax.parallel.mesh import MeshConfig

    task, devices = options.task, jax.devices()
    if task in (ONE, LONG):
        devices = devices[:1]
    if task == FSDP:
        mesh = MeshConfig(data=1, fsdp=len(devices))
    else:
        exchange = "ulysses" if task == ULYSSES else "allgather"
        mesh = MeshConfig(data=1, context=len(devices), context_attention=exchange)
    result = run_step(sized(options, task, len(devices)), mesh, devices)
    return {"devices": len(devices), **result}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sizes = {"type": int, "nargs": 3, "metavar": ("L", "H", "W")}
    parser.add_argument("--latents", default=(31, 24, 48), **sizes, help="of a clip, without context")
    parser.add_argument("--long-latents", default=(31, 48, 80), **sizes, help="of the clip that is cut")
    parser.add_argument("--batch", type=int, default=2, help="clips on one device, without context")
    parser.add_argument("--text", type=int, default=512, help="text tokens")
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--layers", type=int, nargs=3, metavar=("DUAL", "SINGLE", "DECODER"))
    parser.add_argument("--heads", type=int, help="12 is the full width")
    add_common_arguments(parser, TASKS)
    options = parser.parse_args()
    if options.task:
        return report(run_task(options))
    results = run_tasks(__file__, TASKS, options, dict.fromkeys(TASKS, NO_CACHE))
    rows = []
    for task, result in results.items():
        changed = sized(options, task, result["devices"])
        one = results.get(ONE if task in (ONE, FSDP) else LONG)
        each = changed.batch / result["ms"] / result["devices"]
        alone = None if one is None else (options.batch if task in (ONE, FSDP) else 1) / one["ms"]
        rows.append(
            (
                task,
                result["devices"],
                changed.batch,
                result["ms"],
                flops_of(changed) / result["devices"] / result["ms"] / 1e9,
                None if alone is None else each / alone,
                None if alone is None else each * result["devices"] / alone,
                gib(result["peak"]),
                result["compile_s"],
            )
        )
    print(f"\n{machine_of(results)}\n")
    columns = (
        "",
        "devices",
        "clips",
        "ms",
        "model TFLOP/s a device",
        "of one device's rate",
        "times one device",
    )
    print(table((*columns, "peak GiB a device", "compile s"), rows))


if __name__ == "__main__":
    main()
