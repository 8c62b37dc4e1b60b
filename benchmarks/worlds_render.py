r"""How fast worlds are sampled and rendered, on this machine's default JAX device.

    taskset -c 0 env JAX_PLATFORMS=cpu XLA_FLAGS=--xla_cpu_multi_thread_eigen=false \
        python benchmarks/worlds_render.py                 # one CPU core; goal: 20 frames/s at 128x192, 2x2
    python benchmarks/worlds_render.py --clips 2000        # a GPU; goal: 20,000 clips of 49 x 96x160 in 300 s

Times are the best of ``--repeats``, after compilation, which is reported apart. On a CPU the processor time
is given beside the wall time: on one core of a busy machine it is the figure that an idle machine would show.
"""

from __future__ import annotations

import argparse
import time

import jax

from camctrl_jax.worlds import Places, WorldsConfig, iterate_rgb, render, sample_world


def timed(function):
    """(wall seconds, processor seconds) of one call, with all device work done."""
    wall, processor = time.perf_counter(), time.process_time()
    jax.block_until_ready(function())
    return time.perf_counter() - wall, time.process_time() - processor


def best(function, repeats: int):
    """Least wall and least processor seconds of ``repeats`` calls, and what the first call took beyond
    that."""
    first = timed(function)
    runs = [timed(function) for _ in range(repeats)]
    fastest = tuple(min(run[i] for run in runs) for i in range(2))
    return fastest, tuple(max(first[i] - fastest[i], 0.0) for i in range(2))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    on_cpu = jax.default_backend() == "cpu"
    parser.add_argument("--clips", type=int, default=2 if on_cpu else 1000, help="clips of the bulk rows")
    parser.add_argument("--frames", type=int, default=49)
    parser.add_argument(
        "--chunk", type=int, default=None, help="worlds rendered at once (default: by device)"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--places", action="store_true", help="worlds to explore, which have more solids")
    arguments = parser.parse_args()
    config = WorldsConfig(frames=arguments.frames, places=Places() if arguments.places else None)
    count = max(50, arguments.clips)
    worlds = []

    def sample():
        worlds[:] = [sample_world(seed, config) for seed in range(count)]

    def row(what, size, samples, frames, fastest, compiling, clips=None):
        speed = f"{frames / fastest[0]:.1f}" + (f" ({frames / fastest[1]:.1f})" if on_cpu else "")
        compiled = f"{compiling[0]:.1f}" + (f" ({compiling[1]:.1f})" if on_cpu else "")
        whole = f"{20_000 * fastest[0] / clips:.0f}" if clips else ""
        print(f"| {what} | {size} | {samples} | {speed} | {compiled} | {whole} |")

    device, unit = jax.devices()[0], ", wall (processor)" if on_cpu else ""
    print(
        f"{device.device_kind} ({device.platform}), jax {jax.__version__}, {arguments.frames} frames a clip\n"
    )
    print(f"| what | size | rays per pixel | frames/s{unit} | compile s{unit} | 20,000 clips, s |")
    print("|---|---|---|---|---|---|")
    fastest, _ = best(sample, arguments.repeats)
    row(f"sample_world, {1e3 * fastest[0] / count:.2f} ms ({1e3 * fastest[1] / count:.2f}) each",
        "", "", count * arguments.frames, fastest, (0.0, 0.0), count)  # fmt: skip
    del worlds[arguments.clips :]
    for height, width in ((96, 160), (128, 192)):
        for samples in (1, 2):

            def bulk(height=height, width=width, samples=samples):
                # Each chunk is dropped once done: this measures rendering, not the memory to hold the clips.
                for part in iterate_rgb(worlds, height, width, samples, arguments.chunk):
                    part.block_until_ready()

            fastest, compiling = best(bulk, arguments.repeats)
            frames = len(worlds) * arguments.frames
            row("RGB", f"{height}x{width}", f"{samples}x{samples}", frames, fastest, compiling, len(worlds))
    fastest, compiling = best(lambda: render(worlds[0], 128, 192).rgb, arguments.repeats)
    row("RGB and all truth, one clip", "128x192", "2x2", arguments.frames, fastest, compiling)


if __name__ == "__main__":
    main()
