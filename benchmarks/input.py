"""Clips per second that one core reads: mp4 against cached latents.

  python benchmarks/input.py

Builds two datasets of the same worlds, one of mp4 and one of latents of the embedded autoencoder, and draws
batches from each as training does, every thread on one core. A step of training that takes longer than its
clips take to read, divided by the cores that read, never waits.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from harness import add_common_arguments, report, run_tasks, table

VIDEO, LATENTS = "mp4", "latents"
TASKS = (VIDEO, LATENTS)


def build(options: argparse.Namespace, folder: Path, kind: str) -> None:
    from camctrl_jax.build_dataset.__main__ import main as build_dataset

    size = ("--frames", options.frames, "--height", options.height, "--width", options.width)
    latents = ("--latents", "default") if kind == LATENTS else ()
    command = ("worlds", "--out", folder, "--count", options.clips, *size, *latents)
    if build_dataset([str(word) for word in command]):
        raise SystemExit(f"the dataset of {kind} was not built")


def run(options: argparse.Namespace, kind: str) -> dict[str, Any]:
    from camctrl_jax.data.clip_stream import Bucket, ClipStream, ClipStreamConfig
    from camctrl_jax.data.text import WordEmbedder

    folder = Path(options.datasets) / kind
    build(options, folder, kind)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # threads that start later inherit it
    bucket = Bucket(frames=options.frames, batch_size=options.batch)
    config = ClipStreamConfig(datasets=(str(folder),), buckets=(bucket,), labelled_to_unlabelled=None)
    stream = ClipStream(config, WordEmbedder())
    try:
        for _ in range(config.prefetch + 1):  # what was read ahead while nobody counted
            batch = next(stream)
        started = time.perf_counter()
        for _ in range(options.repeats):
            batch = next(stream)
        seconds = time.perf_counter() - started
    finally:
        stream.close()
    held = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / options.clips
    (name,) = {"video", "latents"} & set(batch)
    clips = options.repeats * options.batch
    return {
        "clips_s": clips / seconds,
        "bytes": held,
        "field": f"{batch[name].dtype}{list(batch[name].shape)}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=32, help="in each dataset")
    parser.add_argument("--frames", type=int, default=49)
    parser.add_argument("--height", type=int, default=96)
    parser.add_argument("--width", type=int, default=160)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--datasets", help=argparse.SUPPRESS)
    add_common_arguments(parser, TASKS)
    options = parser.parse_args()
    if options.task:
        return report(run(options, options.task))
    with tempfile.TemporaryDirectory() as folder:
        results = run_tasks(__file__, TASKS, options, {}, ("--datasets", folder))
    rows = [
        (task, r["clips_s"], r["clips_s"] * options.frames, r["bytes"] / 1e3, r["field"])
        for task, r in results.items()
    ]
    print(f"\n{options.frames} frames of {options.height}x{options.width}, one core\n")
    print(table(("", "clips/s", "frames/s", "kB on disk a clip", "batch"), rows))


if __name__ == "__main__":
    main()
