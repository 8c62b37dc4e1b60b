"""Sampling with Motif-Video-2B: four seconds at 384x640, text and camera guidance, beside stock diffusers.

  python benchmarks/sample.py
  python benchmarks/sample.py --only ours --mesh context=4 context=4,attention=ulysses   # on four GPUs

Random weights and inputs of the full size in bfloat16: 49 frames, 512 text tokens, 32 Euler steps of three
network evaluations, then decoding. Ours is what the pipeline runs: the three guidance branches in one call
and all steps in one compiled loop. The peer evaluates diffusers' transformer, its blocks under torch.compile,
three times per step without a camera, and decodes with diffusers' autoencoder as it is (benchmarks/vae.py has
it compiled as well).

Tasks with ', prompt' are what a user of either side gets: the text encoder pads every prompt to 512 tokens,
of which --prompt are valid. diffusers' pipeline computes them all under a mask; ours leaves out what no
prompt needs. The other two tasks have nothing but valid tokens, and the peer has no mask.

--mesh adds our first task once more for each mesh, in the words of `generate --mesh`: the same clip, sampled
and decoded by several devices. 'times ours' is how much faster than on one device in the same run, of the
steps, decoding and both; 'apart' how far a few of the latents are from those of one, as a relative distance:
in bfloat16 that of other roundings after all steps, in float32 about 1e-6. On a CPU,
XLA_FLAGS=--xla_force_host_platform_device_count=4 makes four devices.

--students 16 1 also times ours as students are sampled: so many steps of one evaluation, without guidance.

'compile s' is what the first call of everything took beyond its work.

Model TFLOP/s counts a forward pass by formula (camctrl_jax.models.flops).
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from harness import (
    NO_CACHE,
    add_common_arguments,
    gib,
    jax_machine,
    jax_peak_bytes,
    machine_of,
    report,
    run_tasks,
    table,
)
from train_step import (
    OURS,
    PEER,
    PEER_OF,
    PROMPT,
    add_text_arguments,
    model_config,
    parse_arguments,
    peer_transformer,
    random_params,
)

TASKS = (PEER, OURS, *PROMPT.values())
BRANCHES = 3
SHOWN = 16  # latents that are compared


def run_ours(options: argparse.Namespace, valid: int | None, mesh: str | None = None) -> dict[str, Any]:
    import jax
    import jax.numpy as jnp
    import numpy as np

    from camctrl_jax.diffusion.condition import Condition, NullText
    from camctrl_jax.diffusion.guidance import Guidance
    from camctrl_jax.diffusion.sampler import Sampling, initial_noise, sample
    from camctrl_jax.models import VAE, MMDiT, vae_preset
    from camctrl_jax.models.autoencoder import Autoencoder
    from camctrl_jax.parallel.sharding import distribute_samples
    from camctrl_jax.sampling.on_mesh import (
        SamplingWork,
        autoencoder_on_mesh,
        make_sampling_mesh,
        mesh_denoiser,
        mesh_of_words,
    )
    from camctrl_jax.sampling.pipeline import Denoiser, sampling_form, used_text

    config, dtype = model_config(options), jnp.dtype(options.dtype)
    sampling = Sampling(Guidance(text=7.5, camera=8.0), options.steps, shift=5.0)
    params, devices = random_params(MMDiT(config)), None
    if mesh is None:
        config, params = sampling_form(config, params, dtype)
        denoiser = Denoiser(config, dtype)
    else:
        tokens = int(np.prod(options.latents)) // int(np.prod(config.patch))
        laid_out, notes = mesh_of_words(mesh, SamplingWork(config, (tokens,), (BRANCHES,)))
        print(*notes, sep="\n", file=sys.stderr)
        devices = make_sampling_mesh(laid_out, config)
        denoiser, params = mesh_denoiser(config, params, dtype, devices, laid_out.context_attention)
    vae_config = vae_preset("wan21", base_dim=options.base_dim)
    autoencoder = Autoencoder(vae_config, random_params(VAE(vae_config)), dtype, 1)
    if devices is not None:
        autoencoder = autoencoder_on_mesh(autoencoder, devices)
    shape = (*options.latents, config.out_channels)
    rng = np.random.default_rng(1)
    text, null = rng.standard_normal((2, 1, options.text, config.text_dim), np.float32)
    lengths = (options.text, options.text) if valid is None else (valid, 1)  # the empty prompt is one token
    masks = [np.arange(options.text)[None] < length for length in lengths]
    texts = [jnp.asarray(x) for x in used_text(text, masks[0], null, masks[1])]
    plucker = jnp.asarray(rng.standard_normal((1, *options.latents, 6), np.float32))
    given = jnp.zeros((1, shape[0]), bool)

    def denoise(seed: int, sampling: Sampling = sampling) -> Any:
        noise = initial_noise([seed], shape)
        condition = Condition(*texts[:2], plucker, jnp.zeros_like(noise), given)
        told = noise, condition, NullText(*texts[2:])
        if devices is not None:
            told = distribute_samples(told, devices)
        return jax.block_until_ready(sample(denoiser, params, *told, sampling))

    started = time.perf_counter()
    autoencoder.decode(denoise(0))
    first = time.perf_counter() - started
    started = time.perf_counter()
    latents = denoise(1)
    steps = time.perf_counter() - started
    started = time.perf_counter()
    autoencoder.decode(latents)
    decoded = time.perf_counter() - started
    assert bool(jnp.all(jnp.isfinite(latents)))
    students = {}
    for count in options.students:
        as_student = Sampling(Guidance(), count, shift=5.0)
        denoise(0, as_student)
        started = time.perf_counter()
        denoise(1, as_student)
        students[count] = time.perf_counter() - started
    flat = np.asarray(latents, np.float64).ravel()
    return {
        "latents": flat[:: flat.size // SHOWN][:SHOWN].tolist(),
        "steps_s": steps,
        "decode_s": decoded,
        "students_s": students,
        "compile_s": first - steps - decoded,
        "peak": jax_peak_bytes(),
        **jax_machine(),
    }


def run_peer(options: argparse.Namespace, valid: int | None) -> dict[str, Any]:
    import torch
    from diffusers import AutoencoderKLWan

    from camctrl_jax.interop.stock_configs import vae_to_stock
    from camctrl_jax.models import vae_preset

    device, dtype = "cuda" if torch.cuda.is_available() else "cpu", getattr(torch, options.dtype)
    model = peer_transformer(options, device).eval()
    torch.manual_seed(1)
    vae = AutoencoderKLWan(**vae_to_stock(vae_preset("wan21", base_dim=options.base_dim))).to(device, dtype)

    def draw(*shape: int) -> Any:
        return torch.randn(1, *shape, device=device, dtype=dtype)

    clean = draw(17, *options.latents)
    positions = torch.arange(options.text, device=device)[None]
    masks = [None] * BRANCHES if valid is None else [positions < length for length in (1, valid, valid)]
    # Without text; with it; with the camera as well.
    texts = [(draw(options.text, model.config.text_embed_dim), mask) for mask in masks]

    @torch.no_grad()
    def denoise() -> Any:
        state = draw(16, *options.latents).float()
        for step in range(options.steps):
            timestep = torch.full((1,), 1000.0 * (1 - step / options.steps), device=device)
            inputs = torch.cat([state.to(dtype), clean], dim=1)
            null, prompted, both = (
                model(inputs, timestep, *conditions, return_dict=False)[0].float() for conditions in texts
            )
            state = state - (null + 7.5 * (prompted - null) + 8.0 * (both - prompted)) / options.steps
        wait()
        return state

    @torch.no_grad()
    def decode(latents: Any) -> Any:
        return vae.decode(latents.to(dtype), return_dict=False)[0].float().cpu()

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    started, steps = time.perf_counter(), options.steps
    options.steps = 1
    decode(denoise())
    first, options.steps = time.perf_counter() - started, steps
    started = time.perf_counter()
    latents = denoise()
    took = time.perf_counter() - started
    started = time.perf_counter()
    decode(latents)
    decoded = time.perf_counter() - started
    card = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else None
    times = {"steps_s": took, "decode_s": decoded, "compile_s": first - took / steps - decoded}
    return {**times, "peak": peak, "card": card, "torch": torch.__version__}


def beside_one_device(results: dict[str, dict[str, Any]], tasks: list[str]) -> str:
    """The table of meshes beside ours on one device."""
    one = results[OURS]
    rows = []
    for task in tasks:
        times = [one[part] / results[task][part] for part in ("steps_s", "decode_s")]
        whole = [sum(r[part] for part in ("steps_s", "decode_s")) for r in (one, results[task])]
        there, here = one["latents"], results[task]["latents"]
        distance = math.dist(there, here) / math.hypot(*there)
        rows.append((task, *times, whole[0] / whole[1], f"{distance:.1e}"))
    return table(("times ours", "steps", "decoding", "whole", "apart"), rows)


def students_table(results: dict[str, dict[str, Any]]) -> str:
    """The table of what students would take."""
    rows = [
        (f"{task}, {steps} evaluations", seconds, r["decode_s"], seconds + r["decode_s"])
        for task, r in results.items()
        for steps, seconds in r.get("students_s", {}).items()
    ]
    return table(("as a student", "steps s", "decode s", "whole s"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--latents", type=int, nargs=3, default=(13, 48, 80), metavar=("L", "H", "W"))
    add_text_arguments(parser)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--layers", type=int, nargs=3, metavar=("DUAL", "SINGLE", "DECODER"))
    parser.add_argument("--heads", type=int, help="12 is the full width")
    parser.add_argument("--base-dim", type=int, default=96, help="of the autoencoder; 96 is the full width")
    parser.add_argument("--students", type=int, nargs="+", default=[], metavar="STEPS", help="see above")
    # Read by itself first: what it names are tasks.
    meant = argparse.ArgumentParser(add_help=False)
    for each in (parser, meant):
        each.add_argument("--mesh", nargs="+", default=[], metavar="SIZES", help="as of generate; or several")
    meshes = {f"{OURS}, {mesh}": mesh for mesh in meant.parse_known_args()[0].mesh}
    tasks = (*TASKS, *meshes)
    add_common_arguments(parser, tasks)
    options = parse_arguments(parser)
    options.remat, options.scan = "none", False
    if options.task in meshes:
        return report(run_ours(options, None, meshes[options.task]))
    if options.task:
        run = run_ours if options.task in (OURS, PROMPT[OURS]) else run_peer
        return report(run(options, options.prompt if options.task in PROMPT.values() else None))
    from camctrl_jax.models.flops import mmdit_flops

    if options.only:
        options.only = [*options.only, *(task for task in meshes if task not in options.only)]
    results = run_tasks(__file__, tasks, options, dict.fromkeys(tasks, NO_CACHE))
    forward = mmdit_flops(model_config(options), tuple(options.latents), options.text).forward
    evaluations = BRANCHES * options.steps
    whole = {task: r["steps_s"] + r["decode_s"] for task, r in results.items()}
    peers = PEER_OF | dict.fromkeys(meshes, PEER)
    rows = [
        (
            task,
            r["steps_s"],
            1e3 * r["steps_s"] / evaluations,
            None if task in PROMPT.values() else evaluations * forward / r["steps_s"] / 1e12,
            r["decode_s"],
            whole[task],
            whole[peers[task]] / whole[task] if peers[task] in whole else None,
            gib(r["peak"]),
            r["compile_s"],
        )
        for task, r in results.items()
    ]
    print(
        f"\n{machine_of(results)}; latents {tuple(options.latents)}, {options.steps} steps; "
        f"'prompt' has {options.prompt} of {options.text} text tokens\n"
    )
    columns = ("", "steps s", "ms per evaluation", "model TFLOP/s", "decode s", "whole s", "times the peer")
    print(table((*columns, "peak GiB", "compile s"), rows))
    if options.students:
        print("\n" + students_table(results))
    if OURS in results and any(task in results for task in meshes):
        print("\n" + beside_one_device(results, [task for task in meshes if task in results]))


if __name__ == "__main__":
    main()
