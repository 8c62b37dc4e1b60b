"""How long a clip takes with a teacher and with its students, in one process after the other, warm.

  python benchmarks/students.py default runs/student_16:16 runs/flow_map:4 runs/flow_map:1

Each argument is a weights spec, and after a colon the number of Euler steps, where it is not the usual one.
One image-to-video clip with a camera is sampled with the guidance that the weights say, then decoded. Up to
the latents (the picture encoded, the transformer's evaluations) and decoding are timed apart: the median of
--repeats after a first call, which compiles.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from harness import jax_machine, table


def timed(spec: str, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of one spec."""
    import jax
    import numpy as np

    from camctrl_jax.camera.presets import preset
    from camctrl_jax.checkpoints.pipelines import load_pipeline, open_model
    from camctrl_jax.clip_shape import ClipShape
    from camctrl_jax.sampling.pipeline import ClipBatch
    from camctrl_jax.sampling.students import usual_sampling

    path, _, steps = spec.rpartition(":")
    path, steps = (path, int(steps)) if path and steps.isdigit() else (spec, None)
    model, autoencoder = open_model(path)
    pipeline = load_pipeline(model, autoencoder)
    sampling = usual_sampling(model.sampling, model.distilled, steps=steps)
    shape = ClipShape(options.frames, *options.size)
    shape = autoencoder.vae_config.clip_shape(shape.frames, shape.height, shape.width)
    frame = np.random.default_rng(0).integers(0, 256, (1, 1, *options.size, 3), np.uint8)
    clips = ClipBatch([""], [0], shape, [preset("dolly_in", shape.frames)], frame)
    evaluations = sampling.steps * sampling.guidance.evaluations()
    network, decoder = [], []
    for number in range(options.repeats + 1):
        started = time.perf_counter()
        latents = jax.block_until_ready(pipeline.sample(replace(clips, seeds=[number]), sampling))
        between = time.perf_counter()
        pipeline.autoencoder.decode(latents)
        network.append(between - started)
        decoder.append(time.perf_counter() - between)
    medians = [statistics.median(times[1:]) for times in (network, decoder)]
    return {"evaluations": evaluations, "network": medians[0], "decoder": medians[1], **jax_machine()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("specs", nargs="+", metavar="SPEC[:STEPS]")
    parser.add_argument("--size", type=int, nargs=2, default=(96, 160), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--frames", type=int, default=49)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    found = {spec: timed(spec, options) for spec in options.specs}
    machine = next(iter(found.values()))
    print(f"\n{machine['card']}, jax {machine['jax']}; {options.frames} frames of {options.size}\n")
    rows = [
        (spec, r["evaluations"], r["network"], r["decoder"], r["network"] + r["decoder"])
        for spec, r in found.items()
    ]
    print(table(("weights", "evaluations", "to latents s", "decoding s", "whole s"), rows))


if __name__ == "__main__":
    main()
