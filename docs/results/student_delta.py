"""The embedded student against its whole weights: python docs/results/student_delta.py WHOLE [DELTA]

Image to video of 16 held-out worlds, 49 frames of 96x160, four steps and one, the same noise with both; PSNR
of the decoded frames after the first, one's against the other's. DELTA is `student` unless it is given.
"""

import sys

import numpy as np

from camctrl_jax.checkpoints.pipelines import load_pipeline, open_model
from camctrl_jax.clip_shape import ClipShape
from camctrl_jax.metrics.psnr import psnr
from camctrl_jax.sampling.pipeline import ClipBatch, Pipeline
from camctrl_jax.sampling.students import usual_sampling
from camctrl_jax.worlds import WorldsConfig, at_frames, caption_phrasings, render_rgb, sample_world

SHAPE = ClipShape(49, 96, 160)
SEEDS = range(1_000_000, 1_000_016)


def main(whole: str, delta: str = "student") -> None:
    worlds = [sample_world(seed, WorldsConfig(aspect=SHAPE.width / SHAPE.height)) for seed in SEEDS]
    first = np.stack([render_rgb([at_frames(w, [0])], SHAPE.height, SHAPE.width)[0] for w in worlds])
    one, other = (load_pipeline(*open_model(spec)) for spec in (whole, delta))
    for steps in (4, 1):
        found = []
        for number, world in enumerate(worlds):
            given = first[number : number + 1]
            clips = ClipBatch([caption_phrasings(world)[0]], [number], SHAPE, [world.cameras], given)
            frames = [sampled(each, clips, steps)[:, 1:] for each in (one, other)]
            found.append(float(psnr(*frames)[0]))
        ends = f"least {min(found):.2f}, most {max(found):.2f}"
        print(f"{steps} steps, {len(found)} clips: median {np.median(found):.2f} dB, {ends}", flush=True)


def sampled(pipeline: Pipeline, clips: ClipBatch, steps: int) -> np.ndarray:
    sampling = usual_sampling(pipeline.defaults, pipeline.distilled, steps=steps)
    return np.asarray(pipeline.autoencoder.decode(pipeline.sample(clips, sampling)))


if __name__ == "__main__":
    main(*sys.argv[1:])
