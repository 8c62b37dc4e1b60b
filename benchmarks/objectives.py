"""What an update of each objective that distils takes for Motif-Video-2B on one device, beside denoising.

  python benchmarks/objectives.py

The step is that of the recipe (RECIPES), as training compiles it: optimizer, average, remat and scan are the
recipe's, on a mesh of one device. Parameters are random, those of the teacher, too; batches hold latents, by
default of 49 frames of 384x640, so that no autoencoder is there. Any value of all recipes can be changed:
--config.optimizer.moments=bfloat16.

'needs' is what the compiler says that the step holds at a time. Where a device has less, the row says so, and
nothing runs. Model TFLOP/s counts what the objective asks for by formula (Objective.work), without what remat
computes again. Tasks share a compilation cache, empty at first: no step is in it before its task, but what
the compiler tried of kernels for earlier ones.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from harness import (
    add_common_arguments,
    cache_in,
    gib,
    jax_compiled,
    jax_machine,
    jax_peak_bytes,
    machine_of,
    report,
    run_tasks,
    seconds_per_call,
    table,
)
from train_step import random_clips, random_of

RECIPES = {
    "denoise": "stage2.py:motif_2b",
    "distil": "distill_progressive.py:motif_2b",
    "consistency": "distill_apt.py:consistency_motif_2b",
    "flow_map": "distill_flow_map.py:motif_2b",
    "adversarial": "distill_apt.py:motif_2b",
}
CONFIGS = Path(__file__).parent.parent / "configs"
# JAX may have nearly all of the device's memory, in place of three quarters.
MEMORY = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.95"}


def clips_of(options: argparse.Namespace, task: str) -> int:
    """Clips of an update: those asked for, rounded up to what the objective can split."""
    from camctrl_jax.training.objectives.flow_map import EVERY

    multiple = EVERY if task == "flow_map" else 1
    return -(-options.batch // multiple) * multiple


def config_for(options: argparse.Namespace, overrides: Sequence[str]) -> Any:
    """The recipe of a task at the sizes of the options, with an untrained teacher."""
    from camctrl_jax.clip_shape import SPATIAL_STRIDE, frames_of
    from camctrl_jax.pod_report.compiling import config_of

    frames, height, width = options.latents
    sizes = {
        "batch_size": clips_of(options, options.task),
        "data.frames": frames_of(frames),
        "data.height": SPATIAL_STRIDE * height,
        "data.width": SPATIAL_STRIDE * width,
        "data.text.max_tokens": options.text,
    }
    if options.layers:
        sizes |= zip(("model.num_dual", "model.num_single", "model.num_decoder"), options.layers)
    if options.heads:
        sizes["model.heads"] = options.heads
    sized = [f"--config.{key}={value}" for key, value in sizes.items()]
    return config_of(str(CONFIGS / RECIPES[options.task]), [*sized, *overrides])


def frozen_shapes(program: Any) -> dict[str, Any]:
    """What a step on latents reads and does not train: shapes and dtypes with their places."""
    import jax

    from camctrl_jax.training.objectives.denoise import AUTOENCODER

    shapes = program.objective.frozen_shapes()
    del shapes[AUTOENCODER]
    return jax.tree.map(lambda leaf, home: leaf.update(sharding=home), shapes, program.frozen_homes(shapes))


def drawn_frozen(program: Any) -> dict[str, Any]:
    """The same as arrays on the device: random networks, and the empty prompt."""
    from camctrl_jax.parallel.sharding import distribute
    from camctrl_jax.training.students import NULL_TEXT, TEACHER
    from camctrl_jax.training.synthetic import SYNTHETIC

    shapes = frozen_shapes(program)
    drawn = {role: random_of(shapes[role]) for role in (TEACHER, SYNTHETIC) if role in shapes}
    if NULL_TEXT in shapes:
        drawn[NULL_TEXT] = dict(zip(("text", "mask"), program.objective.embedder.embed([""])))
    return distribute(drawn, program.frozen_homes(drawn))


def drawn_state(program: Any) -> Any:
    """A state of random parameters, made on the device in the form of the step."""
    import jax

    params = random_of(program.abstract_state.params)
    create = jax.jit(program.objective.state, donate_argnums=0, out_shardings=program.shardings)
    return create(params, jax.random.key(0, impl="unsafe_rbg"))


def run_task(options: argparse.Namespace, overrides: Sequence[str]) -> dict[str, Any]:
    """Compile the step of a task from shapes, then time updates, if the device has the memory."""
    import jax

    from camctrl_jax.parallel.mesh import MeshConfig, make_mesh
    from camctrl_jax.parallel.sharding import distribute_batch
    from camctrl_jax.training.program import build_program

    config = config_for(options, overrides)
    mesh = make_mesh(MeshConfig(**config.mesh), jax.devices()[:1])
    program = build_program(config, mesh)
    batch = distribute_batch(random_clips(options, config.batch_size, config.data.text.dim), mesh)
    key = jax.device_put(jax.random.key(1), program.everywhere)
    state = jax.tree.map(
        lambda leaf, home: leaf.update(sharding=home), program.abstract_state, program.shardings
    )
    step, seconds = jax_compiled(program.jitted_step, state, batch, key, frozen_shapes(program))
    result = {
        "clips": config.batch_size,
        "flops": program.objective.work(batch).flops,
        "needs": bytes_needed(step.memory_analysis()),
        **seconds,
        **jax_machine(),
    }
    limit = (jax.devices()[0].memory_stats() or {}).get("bytes_limit")
    if limit is not None and result["needs"] > limit:
        return result
    try:
        took = seconds_per_update(program, step, batch, key, options.repeats)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        print(str(error)[:500], file=sys.stderr, flush=True)
        return result
    return result | {"ms": 1e3 * took, "peak": jax_peak_bytes()}


def seconds_per_update(program: Any, step: Any, batch: Any, key: Any, repeats: int) -> float:
    """Time of an update by the compiled ``step``, which takes over the state every time."""
    import jax
    import jax.numpy as jnp

    frozen = drawn_frozen(program)
    state, loss = drawn_state(program), None

    def run() -> Any:
        nonlocal state, loss
        state, metrics = step(state, batch, key, frozen)
        loss = metrics["loss"]
        return state

    took = seconds_per_call(run, jax.block_until_ready, repeats)
    assert bool(jnp.isfinite(loss))
    return took


def bytes_needed(analysis: Any) -> int:
    """What a compiled step holds at a time: arguments, results that are not written over them, the rest."""
    results = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    return analysis.argument_size_in_bytes + results + analysis.temp_size_in_bytes


def row(task: str, result: dict[str, Any]) -> tuple[Any, ...]:
    """A line of the table."""
    from camctrl_jax.parallel.chips import chip_of

    needs, chip = gib(result["needs"]), chip_of(result["card"])
    if "ms" not in result:
        found = (f"does not fit: needs {needs:.1f} GiB", None, None, None)
    else:
        rate = result["flops"] / result["ms"] * 1e3
        share = None if chip is None else 100.0 * rate / chip.flops
        found = result["ms"], rate / 1e12, share, gib(result["peak"])
    return task, result["clips"], *found, needs, result["compile_s"]


def make_parser() -> argparse.ArgumentParser:
    """The options; further arguments change values of the recipes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--latents", type=int, nargs=3, default=(13, 48, 80), metavar=("L", "H", "W"))
    parser.add_argument("--text", type=int, default=512, help="text tokens")
    parser.add_argument("--batch", type=int, default=1, help="clips; a flow map takes a multiple of four")
    parser.add_argument("--layers", type=int, nargs=3, metavar=("DUAL", "SINGLE", "DECODER"))
    parser.add_argument("--heads", type=int, help="12 is the full width")
    add_common_arguments(parser, tuple(RECIPES))
    parser.set_defaults(repeats=1)  # three times, after a first update
    return parser


def main() -> None:
    options, overrides = make_parser().parse_known_args()
    if options.task:
        return report(run_task(options, overrides))
    # Tasks draw parameters of the same shapes: 90 small programs, compiled once.
    with tempfile.TemporaryDirectory() as cache:
        environment = dict.fromkeys(RECIPES, cache_in(cache) | MEMORY)
        results = run_tasks(__file__, tuple(RECIPES), options, environment)
    print(f"\n{machine_of(results)}; latents {tuple(options.latents)}, {options.text} text tokens\n")
    columns = ("", "clips", "ms", "model TFLOP/s", "% of the peak", "peak GiB", "needs GiB", "compile s")
    print(table(columns, [row(task, result) for task, result in results.items()]))


if __name__ == "__main__":
    main()
