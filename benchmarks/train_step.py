"""Training of Motif-Video-2B on one device: forward and backward beside stock diffusers, and whole steps.

  python benchmarks/train_step.py

Random weights and inputs of the full size: latents of 31x24x48 (8,928 video tokens) and 512 text tokens, one
clip, all tokens valid for both sides; tasks with ', prompt' have --prompt valid ones, under a mask, as both
sides train. Ours differentiates float32 weights and computes in bfloat16; the peer is diffusers in bfloat16
under torch.compile. 'whole step' is what configs/stage1.py:motif_2b runs: clipping, AdamW with float32
moments, and the average of the weights on top. It is measured twice, the second time from the compilation
cache that the first one filled.

Model TFLOP/s counts the forward pass by formula (camctrl_jax.models.flops) and the backward pass as two.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from harness import (
    NO_CACHE,
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

PEER, OURS = "diffusers, torch.compile", "ours"
PROMPT = {side: f"{side}, prompt" for side in (PEER, OURS)}
PEER_OF = dict.fromkeys((PEER, OURS), PEER) | dict.fromkeys(PROMPT.values(), PROMPT[PEER])
STEP, STEP_AGAIN = "ours, whole step", "ours, whole step, warm start"
TASKS = (PEER, OURS, *PROMPT.values(), STEP, STEP_AGAIN)


def model_config(options: argparse.Namespace, **changes: Any):
    """The transformer's sizes: motif_2b, with fewer layers or a smaller width where asked for."""
    from camctrl_jax.models import mmdit_preset

    if options.layers:
        dual, single, decoder = options.layers
        changes |= {"num_dual": dual, "num_single": single, "num_decoder": decoder}
    if options.heads:
        changes |= {"heads": options.heads}
    return mmdit_preset("motif_2b", remat=options.remat, scan_layers=options.scan, **changes)


def add_text_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--text", type=int, default=512, help="text tokens")
    parser.add_argument("--prompt", type=int, default=100, help="valid text tokens of the tasks ', prompt'")


def parse_arguments(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The command line, which must not ask for a prompt longer than the text."""
    options = parser.parse_args()
    if not 0 < options.prompt <= options.text:
        parser.error(f"--prompt={options.prompt} must be from 1 to --text={options.text}")
    return options


def flops_of(options: argparse.Namespace) -> float:
    from camctrl_jax.models.flops import mmdit_flops

    return options.batch * mmdit_flops(model_config(options), tuple(options.latents), options.text).training


def random_params(model: Any) -> Any:
    """Random float32 parameters of a model, as :func:`random_of` draws them."""
    return random_of(model.abstract_params())


def random_of(shapes: Any) -> Any:
    """Random parameters of these shapes and dtypes, none of them zero: matrices of 1/50, gains about 1."""
    import jax
    import jax.numpy as jnp

    def drawn(key: Any, shape: tuple[int, ...], dtype: Any) -> Any:
        return (0.02 * jax.random.normal(key, shape, jnp.float32)).astype(dtype)

    # One small program per shape: one of all leaves takes a GPU's compiler longer than the model.
    normal = jax.jit(drawn, static_argnums=(1, 2))
    keys = iter(jax.random.split(jax.random.key(0, impl="unsafe_rbg"), 10_000))

    def draw(path: tuple, leaf: Any) -> Any:
        noise = normal(next(keys), leaf.shape, leaf.dtype)
        return 1.0 + noise if path[-1].key in ("scale", "gamma") else noise

    return jax.tree_util.tree_map_with_path(draw, shapes)


def random_batch(options: argparse.Namespace, config: Any) -> dict[str, Any]:
    import jax
    import jax.numpy as jnp

    keys = jax.random.split(jax.random.key(1), 5)
    batch, grid = options.batch, tuple(options.latents)
    return {
        "latents": jax.random.normal(keys[0], (batch, *grid, config.in_channels)),
        "time": jax.random.uniform(keys[1], (batch,)),
        "text": jax.random.normal(keys[2], (batch, options.text, config.text_dim)).astype(jnp.bfloat16),
        "plucker": jax.random.normal(keys[3], (batch, *grid, 6)),
        "target": jax.random.normal(keys[4], (batch, *grid, config.out_channels)),
    }


def random_clips(options: argparse.Namespace, count: int, text_dim: int) -> dict[str, Any]:
    """A training batch of ``count`` labelled clips on the host, each with its first frame given."""
    import numpy as np

    from camctrl_jax.clip_shape import frames_of

    frames, height, width = options.latents
    poses, rng = frames_of(frames), np.random.default_rng(0)
    return {
        "latents": rng.standard_normal((count, frames, height, width, 16)).astype(np.float32),
        "text": rng.standard_normal((count, options.text, text_dim)).astype(np.float32),
        "text_mask": np.ones((count, options.text), bool),
        "condition_mask": np.tile(np.arange(frames) < 1, (count, 1)),
        "world_from_camera": np.tile(np.eye(4, dtype=np.float32), (count, poses, 1, 1)),
        "intrinsics": np.tile(np.float32([1.0, 1.0, 0.5, 0.5]), (count, poses, 1)),
        "camera_valid": np.ones(count, bool),
    }


def run_ours(options: argparse.Namespace, valid: int | None) -> dict[str, Any]:
    """Forward and backward pass of the velocity loss, gradients in float32."""
    import jax
    import jax.numpy as jnp

    from camctrl_jax.models import MMDiT
    from camctrl_jax.parallel.compiler import compiler_options

    config = model_config(options)
    model = MMDiT(config, jnp.dtype(options.dtype))
    params, batch = random_params(MMDiT(config)), random_batch(options, config)
    mask = None if valid is None else jnp.arange(options.text)[None] < jnp.full((options.batch, 1), valid)

    def loss(params: Any, batch: dict[str, Any]) -> Any:
        read = [batch[name] for name in ("latents", "time", "text")]
        velocity = model.apply({"params": params}, *read, mask, batch["plucker"])
        return jnp.mean(jnp.square(velocity - batch["target"]))

    graded = jax.jit(jax.value_and_grad(loss), compiler_options=compiler_options())
    run, seconds = jax_compiled(graded, params, batch)
    took = seconds_per_call(lambda: run(params, batch), jax.block_until_ready, options.repeats)
    value, gradients = run(params, batch)
    first = gradients["x_embedder"]["kernel"]
    assert bool(jnp.isfinite(value) & jnp.all(jnp.isfinite(first)) & jnp.any(first != 0))
    return {"ms": 1e3 * took, "peak": jax_peak_bytes(), **seconds, **jax_machine()}


def run_step(options: argparse.Namespace, settings: Any = None, devices: Any = None) -> dict[str, Any]:
    """A whole step of configs/stage1.py:motif_2b on latents, on one device or on a mesh of ``settings``."""
    import dataclasses
    import time

    import jax
    import jax.numpy as jnp

    from camctrl_jax.models import MMDiT
    from camctrl_jax.parallel.mesh import MeshConfig, make_mesh
    from camctrl_jax.parallel.sharding import distribute_batch
    from camctrl_jax.training.config import default_config
    from camctrl_jax.training.program import build_program

    settings, devices = settings or MeshConfig(), devices or jax.devices()[:1]
    mesh = make_mesh(settings, devices)
    config = default_config()
    config.mesh.update(dataclasses.asdict(settings))
    config.objective, config.model.preset, config.vae.weights = "denoise", "motif_2b", "random"
    config.model.remat, config.model.scan_layers = options.remat, options.scan
    if options.layers:
        config.model.num_dual, config.model.num_single, config.model.num_decoder = options.layers
    if options.heads:
        config.model.heads = options.heads
    config.dtype, config.batch_size = options.dtype, options.batch
    config.data.text.dim, config.data.text.max_tokens = 2560, options.text
    config.steps = 10_000
    program = build_program(config, mesh)
    sizes = program.objective.model
    params = random_params(MMDiT(dataclasses.replace(sizes, scan_layers=False)))
    state = jax.jit(program.create, out_shardings=program.shardings)(params, jax.random.key(0))
    del params
    batch = random_clips(options, options.batch, sizes.text_dim)
    batch = distribute_batch(batch, mesh)
    key = jax.random.key(1, impl="unsafe_rbg")
    started = time.perf_counter()
    step, seconds = jax_compiled(program.jitted_step, state, batch, key, {})
    state, _ = step(state, batch, key, {})
    jax.block_until_ready(state)
    first = time.perf_counter() - started

    def run() -> Any:
        nonlocal state
        state, metrics = step(state, batch, key, {})
        return metrics["loss"]

    took = seconds_per_call(run, jax.block_until_ready, options.repeats)
    assert bool(jnp.isfinite(run()))
    return {"ms": 1e3 * took, "peak": jax_peak_bytes(), "first_s": first, **seconds, **jax_machine()}


def peer_transformer(options: argparse.Namespace, device: str) -> Any:
    """diffusers' transformer with random weights, on a GPU with its blocks under torch.compile."""
    import torch
    from diffusers import MotifVideoTransformer3DModel

    from camctrl_jax.interop.stock_configs import mmdit_to_stock

    torch.manual_seed(0)
    with torch.device(device):
        model = MotifVideoTransformer3DModel(**mmdit_to_stock(model_config(options, camera=None)))
    model.to(getattr(torch, options.dtype))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    if device == "cuda":
        model.compile_repeated_blocks(fullgraph=True)
    return model


def run_peer(options: argparse.Namespace, valid: int | None) -> dict[str, Any]:
    """Forward and backward pass of diffusers' transformer in bfloat16."""
    import time

    import torch

    device, dtype = "cuda" if torch.cuda.is_available() else "cpu", getattr(torch, options.dtype)
    model = peer_transformer(options, device).train()

    def draw(*shape: int) -> Any:
        return torch.randn(options.batch, *shape, device=device, dtype=dtype)

    grid = options.latents
    latents, target = draw(model.config.in_channels, *grid), draw(16, *grid)
    text, timestep = draw(options.text, model.config.text_embed_dim), torch.full((options.batch,), 500.0)
    timestep = timestep.to(device)
    mask = None
    if valid is not None:
        mask = (torch.arange(options.text, device=device) < valid).expand(options.batch, -1)

    def run() -> Any:
        model.zero_grad(set_to_none=True)
        out = model(latents, timestep, text, mask, return_dict=False)[0]
        loss = torch.mean((out.float() - target.float()) ** 2)
        loss.backward()
        return loss

    def wait(_: Any) -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    started = time.perf_counter()
    wait(run())
    first = time.perf_counter() - started
    took = seconds_per_call(run, wait, options.repeats)
    card = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else None
    return {"ms": 1e3 * took, "peak": peak, "first_s": first, "card": card, "torch": torch.__version__}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--latents", type=int, nargs=3, default=(31, 24, 48), metavar=("L", "H", "W"))
    add_text_arguments(parser)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--remat", default="none", help="a policy of camctrl_jax.models.remat")
    parser.add_argument("--scan", action="store_true", help="scan over the layers")
    parser.add_argument("--layers", type=int, nargs=3, metavar=("DUAL", "SINGLE", "DECODER"))
    parser.add_argument("--heads", type=int, help="12 is the full width")
    add_common_arguments(parser, TASKS)
    options = parse_arguments(parser)
    if options.task:
        run = {
            OURS: lambda: run_ours(options, None),
            PROMPT[OURS]: lambda: run_ours(options, options.prompt),
            STEP: lambda: run_step(options),
            STEP_AGAIN: lambda: run_step(options),
            PEER: lambda: run_peer(options, None),
            PROMPT[PEER]: lambda: run_peer(options, options.prompt),
        }[options.task]
        return report(run())
    with tempfile.TemporaryDirectory() as cache:
        environment = dict.fromkeys((PEER, OURS, *PROMPT.values()), NO_CACHE)
        environment |= dict.fromkeys((STEP, STEP_AGAIN), cache_in(cache))
        results = run_tasks(__file__, TASKS, options, environment)
    flops = flops_of(options)
    beside = {task: results.get(PEER_OF.get(task), {}).get("ms") for task in results}
    rows = [
        (
            task,
            result["ms"],
            None if task in PROMPT.values() else flops / result["ms"] / 1e9,
            None if beside[task] is None else beside[task] / result["ms"],
            gib(result["peak"]),
            result.get("trace_s"),
            result.get("compile_s"),
        )
        for task, result in results.items()
    ]
    print(
        f"\n{machine_of(results)}; {flops / 3e12:.1f} TFLOP forward; "
        f"remat {options.remat}, scan {options.scan}; "
        f"'prompt' has {options.prompt} of {options.text} text tokens\n"
    )
    columns = ("", "ms", "model TFLOP/s", "times the peer", "peak GiB", "trace s", "compile s")
    print(table(columns, rows))


if __name__ == "__main__":
    main()
