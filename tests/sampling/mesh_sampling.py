"""Run by test_pipeline_mesh.py in a process with eight CPU devices: clips on meshes, and on one device.

Prints one JSON line for each mesh: relative L2 distances by kind of clip, how far decoded bytes are apart,
operations of a device as a share of those of one alone, the share of the parameters that it holds, whether
the weights are known for the same, and programs that were compiled after the first step of watched runs.
"""

import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from nano_weights import save_nano

from camctrl_jax.camera import compose, resolve_path
from camctrl_jax.checkpoints.pipelines import load_pipeline, open_model
from camctrl_jax.clip_shape import ClipShape
from camctrl_jax.diffusion.guidance import Guidance
from camctrl_jax.diffusion.sampler import Sampling, sample
from camctrl_jax.models import VAE
from camctrl_jax.models.autoencoder import Autoencoder
from camctrl_jax.models.vae import decode_within
from camctrl_jax.parallel.mesh import MeshConfig
from camctrl_jax.sampling.pipeline import ClipBatch, Extension, Pipeline, retrieve

SHAPE = ClipShape(9, 64, 64)  # 3 x 8 x 8 latents, 48 video tokens; of an extension with memory 80
RUN = Sampling(Guidance(2.0, 3.0), steps=2)
PATH = resolve_path("dolly in 1 m", SHAPE.frames)
VIDEO = np.random.default_rng(0).integers(0, 256, (1, SHAPE.frames, 64, 64, 3)).astype(np.uint8)
T2V = ClipBatch(["a red ball"], [5], SHAPE, [PATH])
TWO = ClipBatch(["a red ball", "two boxes"], [5, 6], SHAPE, [PATH, resolve_path("pan left 20 deg", 9)])
CLIPS = {"t2v": T2V, "i2v": replace(T2V, condition=VIDEO[:, :1]), "two": TWO}
EXTENSION = Extension(new_latents=1, condition_latents=2, retrieved=2)

MESHES = {
    "data": MeshConfig(data=3),
    "data, filled up": MeshConfig(data=2),
    "context": MeshConfig(data=1, context=4),
    "context, ulysses": MeshConfig(data=1, context=2, context_attention="ulysses"),
    "data and context": MeshConfig(data=3, context=2),
    "all axes": MeshConfig(data=1, fsdp=2, context=2, tensor=2),
    "scanned": MeshConfig(data=2, fsdp=1, context=4),
}


def latents_of(pipeline: Pipeline) -> dict[str, np.ndarray]:
    """Sampled latents by kind of clip."""
    made = {name: pipeline.sample(clips, RUN) for name, clips in CLIPS.items()}
    # An extension before its bytes are rounded, with all evaluations that there are: of CFG' and of history.
    path = compose(PATH, resolve_path("pan right 30 deg", 5))
    window = replace(
        T2V,
        cameras=[path[len(path) - SHAPE.frames :]],
        references=[path.world_from_camera[0]],
        condition=VIDEO[:, -5:],
        retrieved=retrieve(VIDEO, [path], EXTENSION.retrieved, 5),
    )
    made["extension"] = pipeline.sample(window, replace(RUN, guidance=Guidance(2.0, 3.0, 1.5, history=1.5)))
    return {name: np.asarray(latents) for name, latents in made.items()}


def extended(pipeline: Pipeline) -> np.ndarray:
    """Pixels that follow a video."""
    path = compose(PATH, resolve_path("pan right 30 deg", 5))
    longer = pipeline.extend(VIDEO, replace(T2V, cameras=[path]), EXTENSION, RUN)
    return longer[:, SHAPE.frames :].astype(int)


def unrounded(autoencoder: Autoencoder, latents: np.ndarray) -> np.ndarray:
    """What is decoded, before it is made bytes."""

    def decoded(params, latents):
        latents = autoencoder.placement.constrain(latents, "batch", None, "rows", None, None)
        return decode_within(VAE(autoencoder.config), params, latents, autoencoder.memory)

    return np.asarray(jax.jit(decoded)(autoencoder.params, latents))


def flops_of(pipeline: Pipeline) -> dict[str, float]:
    """Operations of a device: in a step of a clip, in decoding it, and in decoding two."""
    condition, null = pipeline.condition(T2V)
    noise = jnp.zeros((1, 3, 8, 8, 16))

    def steps(params, noise):
        return sample(pipeline.denoiser, params, noise, condition, null, replace(RUN, shift=1.0))

    def decoded(params, latents):
        return replace(pipeline.autoencoder, params=params, batch_size=2).decoded(latents)

    def flops(function, params, latents):
        return jax.jit(function).lower(params, latents).compile().cost_analysis()["flops"]

    decoding = partial(flops, decoded, pipeline.autoencoder.params)
    return {
        "step": flops(steps, pipeline.params, noise),
        "decoding": decoding(noise),
        "decoding two": decoding(jnp.concatenate([noise, noise])),
    }


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    """Relative L2 distance."""
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def held(params) -> float:
    """Share of all parameters that the first device holds."""
    leaves = jax.tree.leaves(params)
    return sum(x.addressable_shards[0].data.size for x in leaves) / sum(x.size for x in leaves)


def compiled_after_the_first_step(pipeline: Pipeline) -> int:
    """Programs that watched runs, of one clip and of two, compile after their first step."""
    compiled, counts = [], []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **_: compiled.append(event) if "backend_compile" in event else None
    )
    jax.jit(lambda x: x + 3.25)(np.float32(1))
    assert compiled  # compilations are seen
    for clips in (T2V, TWO):
        pipeline.sample(clips, replace(RUN, steps=4), lambda done, steps: counts.append(len(compiled)))
    assert len(counts) == 8
    return counts[3] - counts[0] + counts[7] - counts[4]


def on_mesh(opened: tuple, name: str) -> Pipeline:
    """The pipeline, scanned in the form of accelerators."""
    if name != "scanned":
        return load_pipeline(*opened, mesh=MESHES[name])
    backend, jax.default_backend = jax.default_backend, lambda: "gpu"
    try:
        pipeline = load_pipeline(*opened, float32=True, mesh=MESHES[name])
    finally:
        jax.default_backend = backend
    assert pipeline.denoiser.config.scan_layers
    return pipeline


def main(folder: Path, names: list[str]) -> None:
    opened = open_model(save_nano(folder))
    alone = load_pipeline(*opened)
    defaults = replace(alone.defaults, retrieved=2)
    alone = replace(alone, defaults=defaults)
    expected, after, flops = latents_of(alone), extended(alone), flops_of(alone)
    pixels = unrounded(alone.autoencoder, expected["t2v"])
    for name in names:
        pipeline = replace(on_mesh(opened, name), defaults=defaults)
        apart = {kind: relative(made, expected[kind]) for kind, made in latents_of(pipeline).items()}
        apart["decoded"] = relative(unrounded(pipeline.autoencoder, expected["t2v"]), pixels)
        line = {
            "mesh": name,
            "apart": apart,
            "bytes": int(np.abs(extended(pipeline) - after).max()),
            "flops": {what: count / flops[what] for what, count in flops_of(pipeline).items()},
            "held": held(pipeline.params),
            "same_weights": pipeline.fingerprint == alone.fingerprint,
            "compiled": compiled_after_the_first_step(pipeline),
        }
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or list(MESHES))
