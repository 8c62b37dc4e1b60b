"""The Wan 2.1 autoencoder beside stock diffusers: encoding and decoding of one clip in bfloat16.

  python benchmarks/vae.py

The same random weights and inputs for both. Ours runs as the pipeline runs it, chunk by chunk within a budget
of memory; the peer is diffusers' AutoencoderKLWan, as it is and with its encoder and decoder under
torch.compile. The last column is the relative L2 difference from the peer without torch.compile: two bfloat16
computations of one function.
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

PEER, COMPILED, OURS = "diffusers", "diffusers, torch.compile", "ours"
WORKS = ("decode", "encode")
TASKS = tuple(f"{work}: {side}" for work in WORKS for side in (PEER, COMPILED, OURS))


def draw(options: argparse.Namespace, work: str) -> tuple[Any, dict, Any]:
    """(configuration, parameters, input f32 with channels last), equal in every process."""
    import jax
    import numpy as np

    from camctrl_jax.models import VAE, vae_preset

    config = vae_preset("wan21", base_dim=options.base_dim)
    rng = np.random.default_rng(0)

    def leaf(path: tuple, shape: Any) -> Any:
        noise = rng.standard_normal(shape.shape, np.float32)
        if path[-1].key == "gamma":
            return 1.0 + 0.1 * noise
        return noise / np.float32(np.sqrt(np.prod(shape.shape[:-1]))) if len(shape.shape) > 1 else 0.1 * noise

    params = jax.tree_util.tree_map_with_path(leaf, VAE(config).abstract_params())
    size = (options.frames, options.height, options.width)
    if work == "decode":
        return config, params, rng.standard_normal((1, *config.latent_shape(*size)), np.float32)
    return config, params, rng.uniform(-1, 1, (1, *size, 3)).astype(np.float32)


def run_ours(options: argparse.Namespace, work: str) -> tuple[dict[str, Any], Any]:
    import jax
    import jax.numpy as jnp
    import numpy as np

    from camctrl_jax.models import VAE, decode_within, encode_within
    from camctrl_jax.models.vae import CHUNK_MEMORY

    config, params, given = draw(options, work)
    vae = VAE(config, jnp.dtype(options.dtype))
    memory = CHUNK_MEMORY if options.memory is None else int(options.memory * 2**30)
    given = jax.device_put(jnp.asarray(given, vae.dtype))
    params = jax.tree.map(lambda x: jax.device_put(jnp.asarray(x, vae.dtype)), params)

    def run(params: Any, x: Any) -> Any:
        if work == "decode":
            return decode_within(vae, params, x, memory).astype(vae.dtype)
        return encode_within(vae, params, x, memory)[0].astype(vae.dtype)

    compiled, seconds = jax_compiled(run, params, given)
    took = seconds_per_call(lambda: compiled(params, given), jax.block_until_ready, options.repeats)
    out = np.asarray(compiled(params, given), np.float32)
    return {"ms": 1e3 * took, "peak": jax_peak_bytes(), **seconds, **jax_machine()}, out


def run_peer(options: argparse.Namespace, work: str, compiled: bool) -> tuple[dict[str, Any], Any]:
    import time

    import numpy as np
    import torch
    from diffusers import AutoencoderKLWan

    from camctrl_jax.interop.keys import export_vae
    from camctrl_jax.interop.stock_configs import vae_to_stock

    device = "cuda" if torch.cuda.is_available() else "cpu"
    config, params, given = draw(options, work)
    vae = AutoencoderKLWan(**vae_to_stock(config))
    vae.load_state_dict({name: torch.from_numpy(np.array(x)) for name, x in export_vae(params).items()})
    vae.to(device, getattr(torch, options.dtype)).eval()
    given = torch.from_numpy(given).permute(0, 4, 1, 2, 3).to(device, vae.dtype).contiguous()
    if compiled:
        torch._dynamo.config.recompile_limit = 32  # the first frames of a clip are other programs
        vae.decoder, vae.encoder = torch.compile(vae.decoder), torch.compile(vae.encoder)

    @torch.no_grad()
    def run() -> Any:
        if work == "decode":
            return vae.decode(given, return_dict=False)[0]
        return vae.encode(given, return_dict=False)[0].mode()

    def wait(_: Any) -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    started = time.perf_counter()
    wait(run())
    first = time.perf_counter() - started
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    took = seconds_per_call(run, wait, options.repeats)
    out = run().float().permute(0, 2, 3, 4, 1).cpu().numpy()
    card = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else None
    return {"ms": 1e3 * took, "peak": peak, "compile_s": first, "card": card, "torch": torch.__version__}, out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=49)
    parser.add_argument("--height", type=int, default=384)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--base-dim", type=int, default=96, help="96 is the full width")
    parser.add_argument("--memory", type=float, help="GiB of activations, about, instead of the pipeline's")
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--outputs", help=argparse.SUPPRESS)
    add_common_arguments(parser, TASKS)
    options = parser.parse_args()
    import numpy as np

    if options.task:
        work, side = options.task.split(": ")
        done = run_ours(options, work) if side == OURS else run_peer(options, work, side == COMPILED)
        result, out = done
        np.save(Path(options.outputs) / f"{TASKS.index(options.task)}.npy", out)
        return report(result)
    with tempfile.TemporaryDirectory() as outputs:
        # The peer's process draws the weights with JAX, which must not take the device's memory for that.
        environment = {
            task: NO_CACHE if task.endswith(OURS) else NO_CACHE | {"JAX_PLATFORMS": "cpu"} for task in TASKS
        }
        results = run_tasks(__file__, TASKS, options, environment, ("--outputs", outputs))
        videos = {task: np.load(Path(outputs) / f"{TASKS.index(task)}.npy") for task in results}
    rows = []
    for task, result in results.items():
        work = task.split(": ")[0]
        peers = [results.get(f"{work}: {side}", {}).get("ms") for side in (PEER, COMPILED)]
        stock = videos.get(f"{work}: {PEER}")
        difference = None
        if stock is not None:
            difference = float(np.linalg.norm(videos[task] - stock) / np.linalg.norm(stock))
        ratios = [None if ms is None else ms / result["ms"] for ms in peers]
        rows.append((task, result["ms"], *ratios, gib(result["peak"]), result.get("compile_s"), difference))
    print(f"\n{machine_of(results)}; {options.frames}x{options.height}x{options.width}, {options.dtype}\n")
    columns = ("", "ms", "times diffusers", "times torch.compile", "peak GiB", "compile s", "difference")
    print(table(columns, rows))


if __name__ == "__main__":
    main()
