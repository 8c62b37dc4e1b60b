r"""How fast worlds are sampled and rendered, on this machine's default JAX device.

    taskset -c 0 env JAX_PLATFORMS=cpu XLA_FLAGS=--xla_cpu_multi_thread_eigen=false \
        python benchmarks/worlds_render.py                 # one CPU core; goal: 20 frames/s at 128x192, 2x2
    python benchmarks/worlds_render.py --clips 2000        # a GPU; goal: 20,000 clips of 49 x 96x160 in 300 s
    python benchmarks/worlds_render.py --cullings          # a GPU; every way to visit the slots of places
    python benchmarks/worlds_render.py --sampling          # a CPU; worlds and windows, without pictures

Times are the best of ``--repeats``, after compilation, which is reported apart. On a CPU the processor time
is given beside the wall time: on one core of a busy machine it is the figure that an idle machine would show.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np

from camctrl_jax.worlds import Places, WorldsConfig, iterate_rgb, render, sample_world, window
from camctrl_jax.worlds.culling import Culling, default_culling

CULLINGS = {
    "one at a time": Culling(),
    "one, by count": Culling(by_count=True),
    "4 together": Culling(together=4),
    "8 together": Culling(together=8),
    "4, by count": Culling(together=4, by_count=True),
    "8, by count": Culling(together=8, by_count=True),
    "all": Culling(listed=False),
    "all, 4 together": Culling(listed=False, together=4),
    "all, 8 together": Culling(listed=False, together=8),
}


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


def time_sampling(seeds: int, frames: int, take_frames: int = 500) -> None:
    """Print processor time of worlds, of windows out of takes, and of more windows of the same take."""

    def each(function, arguments) -> str:
        spent = []
        for argument in arguments:
            start = time.process_time()
            function(*argument)
            spent.append(1e3 * (time.process_time() - start))
        return f"{np.mean(spent):.2f} | {np.median(spent):.2f} | {max(spent):.0f}"

    small = WorldsConfig(frames=frames)
    places = WorldsConfig(frames=frames, places=Places(take_frames=take_frames))
    takes = [
        sample_world(seed, WorldsConfig(frames=take_frames, places=Places())) for seed in range(min(8, seeds))
    ]
    starts = range(0, take_frames - frames, 40)
    print(f"| {seeds} seeds, processor time | mean ms | median | most |\n|---|---|---|---|")
    print(f"| small world of {frames} |", each(sample_world, [(seed, small) for seed in range(seeds)]), "|")
    print(
        f"| window of {frames} out of a take of {take_frames} |",
        each(sample_world, [(seed, places) for seed in range(seeds)]),
        "|",
    )
    print("| one more window of a take |",
          each(window, [(take, start, frames) for take in takes for start in starts]), "|")  # fmt: skip


def compare_cullings(clips: int, frames: int, repeats: int, names: list[str]) -> None:
    """Print frames per second of small worlds, and of places in every way to visit their slots."""
    sizes = ((96, 160), clips), ((192, 320), max(1, clips // 4))
    small = [sample_world(seed, WorldsConfig(frames=frames)) for seed in range(clips)]
    places = WorldsConfig(frames=frames, places=Places(take_frames=frames + 96))
    begun = time.perf_counter()
    places = [sample_world(seed, places) for seed in range(clips)]
    device = jax.devices()[0]
    print(
        f"{device.device_kind} ({device.platform}), jax {jax.__version__}, {frames} frames a clip, 2x2 rays, "
        f"default {default_culling()}; sampling a place {1e3 * (time.perf_counter() - begun) / clips:.0f} ms"
    )
    rows = [("small worlds", small, Culling())] + [(name, places, CULLINGS[name]) for name in names]
    jobs = [(name, worlds[:count], size, how) for name, worlds, how in rows for size, count in sizes]

    def run(job) -> str:
        _, worlds, size, how = job
        digest = hashlib.sha256()
        for part in iterate_rgb(worlds, *size, 2, culling=how):
            digest.update(np.asarray(part))
        return digest.hexdigest()[:8]

    begun = time.perf_counter()
    with ThreadPoolExecutor(8) as threads:
        pictures = list(threads.map(run, jobs))
    print(f"compiled in {time.perf_counter() - begun:.0f} s", flush=True)
    print("\n| slots | size | clips | frames/s | pictures |\n|---|---|---|---|---|")
    begun = time.perf_counter()
    for job, picture in zip(jobs, pictures, strict=True):
        name, worlds, (height, width), how = job

        def bulk(worlds=worlds, height=height, width=width, how=how):
            for part in iterate_rgb(worlds, height, width, 2, culling=how):
                part.block_until_ready()

        seconds = min(timed(bulk)[0] for _ in range(repeats))
        speed = len(worlds) * frames / seconds
        print(f"| {name} | {height}x{width} | {len(worlds)} | {speed:.0f} | {picture} |", flush=True)
    print(f"\nmeasured in {time.perf_counter() - begun:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    on_cpu = jax.default_backend() == "cpu"
    parser.add_argument(
        "--clips", type=int, help="clips of the bulk rows (default: 2 on a CPU, else 1000; of --cullings 136)"
    )
    parser.add_argument("--frames", type=int, default=49)
    parser.add_argument(
        "--chunk", type=int, default=None, help="worlds rendered at once (default: by device)"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--places", action="store_true", help="worlds to explore, which have more solids")
    parser.add_argument(
        "--cullings",
        nargs="*",
        choices=list(CULLINGS),
        metavar="NAME",
        help=f"compare ways to visit the slots of places: all, or some of {', '.join(map(repr, CULLINGS))}",
    )
    parser.add_argument(
        "--sampling", type=int, nargs="?", const=60, metavar="SEEDS", help="time sampling alone (default 60)"
    )
    arguments = parser.parse_args()
    if arguments.sampling:
        time_sampling(arguments.sampling, arguments.frames)
        return
    usual = 2 if on_cpu else 1000 if arguments.cullings is None else 136
    clips = usual if arguments.clips is None else arguments.clips
    if arguments.cullings is not None:
        compare_cullings(clips, arguments.frames, arguments.repeats, arguments.cullings or list(CULLINGS))
        return
    config = WorldsConfig(frames=arguments.frames, places=Places() if arguments.places else None)
    count = max(50, clips)
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
    del worlds[clips:]
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
