"""What the Frechet distance of clip features sees: python docs/results/clip_features.py [--worlds 256]

Sets of clips that differ from true ones in a known way, their distances to the truth of the same worlds and
of other worlds, and how well the network tells the exact labels. Prints Markdown; --json writes the figures.
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from held_out import HeldOut, held_out_worlds, in_batches, reconstruct, sample_worlds
from scipy import ndimage
from scipy.spatial.transform import Rotation

from camctrl_jax.checkpoints.clip_features import load_clip_features
from camctrl_jax.checkpoints.pipelines import load_autoencoder, load_pipeline, open_model
from camctrl_jax.checkpoints.weights import open_vae
from camctrl_jax.clip_shape import ClipShape
from camctrl_jax.diffusion.guidance import Guidance
from camctrl_jax.diffusion.sampler import Sampling
from camctrl_jax.metrics.frechet import FeatureStatistics, frechet_distance
from camctrl_jax.models.autoencoder import compute_dtype
from camctrl_jax.training.objectives.label import clip_errors, truth_of
from camctrl_jax.worlds import World, render_coarse_truth, render_rgb
from camctrl_jax.worlds.splits import HELD_OUT_FIRST_SEED

SHAPE = ClipShape(49, 96, 160)
FASTER, SCALE = 1.1, 0.8
FASTER_NAME = "played 10 % faster"
TRUTH, OTHER, RECONSTRUCTION = "truth", "truth of other worlds", "reconstruction"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--worlds", type=int, default=256, help="in each of the two sets (default 256)")
    parser.add_argument(
        "--features", default="default", metavar="SPEC", help="folder or run (default: shipped)"
    )
    parser.add_argument("--first-seed", type=int, default=HELD_OUT_FIRST_SEED, help="of the worlds")
    parser.add_argument("--samples", action="store_true", help="samples of the shipped model, too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    parser.add_argument("--arrays", type=Path, metavar="FILE", help="write the features (npz)")
    arguments = parser.parse_args()
    if arguments.worlds < 4:
        parser.error("--worlds: 4 or more, since halves are compared, too")
    started, count = time.monotonic(), arguments.worlds
    batch = 2 if jax.default_backend() == "cpu" else 32
    network = load_clip_features(arguments.features)
    first = arguments.first_seed
    here, there = (
        held_out_worlds(range(start, start + count), SHAPE, 2, batch) for start in (first, first + count)
    )
    autoencoder = load_autoencoder(open_vae("default"), compute_dtype())
    features, errors = {}, {}
    for name, video in variants(here, there, autoencoder, batch, arguments.samples):
        features[name] = network.features(video)
        if name in (TRUTH, RECONSTRUCTION, "blurred by 1 px"):
            errors[name] = label_errors(network, here, video)
        print(f"{time.monotonic() - started:6.0f} s  {name}", flush=True)
    errors["always the mean"] = mean_errors(here, network)
    figures = {
        "seeds": [[first, first + count - 1], [first + count, first + 2 * count - 1]],
        "network": network.fingerprint(),
        "device": jax.devices()[0].device_kind,
        "label_errors": errors,
        "distances": distances(features),
    }
    print(report(figures))
    if arguments.arrays:
        np.savez(arguments.arrays, **features)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


def variants(here: HeldOut, there: HeldOut, autoencoder, batch: int, with_samples: bool):
    """(name, u8 [N, T, H, W, 3]) of every row; clips that play faster are shorter, so is their truth."""
    truth, rng = here.video, np.random.default_rng(0)
    yield TRUTH, truth
    yield OTHER, there.video
    yield RECONSTRUCTION, reconstruct(autoencoder, truth, batch)
    for sigma in (0.5, 1.0, 2.0):
        yield f"blurred by {sigma:g} px", blurred(truth, sigma)
    yield "first frame repeated", np.broadcast_to(truth[:, :1], truth.shape)
    yield "frames in reverse", truth[:, ::-1]
    yield "frames in random order", truth[:, rng.permutation(truth.shape[1])]
    for level in (5, 25):
        yield f"noise of {level} of 255 added", noisy(truth, level, rng)
    yield "noise alone", rng.integers(0, 256, truth.shape, np.uint8)
    decoys = [path.world_from_camera for path in here.decoys()]
    yield "another world's path", along(here.worlds, decoys, batch)
    own = [world.cameras.relative_to(0).world_from_camera for world in here.worlds]
    yield f"path scaled by {SCALE:g}", along(here.worlds, [scaled(path, SCALE) for path in own], batch)
    frames = np.round(np.arange(0, SHAPE.frames, FASTER)).astype(int)
    frames = frames[: (len(frames) - 1) // 4 * 4 + 1]
    yield FASTER_NAME, truth[:, frames]
    yield f"truth, {len(frames)} frames", truth[:, : len(frames)]
    yield f"truth of other worlds, {len(frames)} frames", there.video[:, : len(frames)]
    if with_samples:
        pipeline = load_pipeline(*open_model("default", None))
        cameras = [world.cameras for world in here.worlds]
        for steps, guidance in ((2, 1.0), (8, 1.5), (32, 1.5)):
            sampling = Sampling(Guidance(1.0, guidance), steps)
            yield f"sampled in {steps} steps", sample_worlds(pipeline, here, cameras, sampling, batch)


def blurred(video: np.ndarray, sigma: float) -> np.ndarray:
    """Every frame under a Gaussian of ``sigma`` pixels."""
    kernel = np.exp(-0.5 * (np.arange(-8, 9) / sigma) ** 2).astype(np.float32)
    kernel /= kernel.sum()
    clips = (
        ndimage.convolve1d(ndimage.convolve1d(clip.astype(np.float32), kernel, 1), kernel, 2)
        for clip in video
    )
    return np.stack([np.round(clip).clip(0, 255).astype(np.uint8) for clip in clips])


def noisy(video: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """Independent Gaussian noise of standard deviation ``level`` added to every value."""
    clips = (clip + level * rng.standard_normal(clip.shape, np.float32) for clip in video)
    return np.stack([np.round(clip).clip(0, 255).astype(np.uint8) for clip in clips])


def scaled(path: np.ndarray, factor: float) -> np.ndarray:
    """A path [T, 4, 4] from the identity with every shift and every turn ``factor`` times as large."""
    smaller = path.copy()
    smaller[:, :3, 3] *= factor
    turns = Rotation.from_matrix(path[:, :3, :3]).as_rotvec()
    smaller[:, :3, :3] = Rotation.from_rotvec(factor * turns).as_matrix()
    return smaller


def along(worlds: tuple[World, ...], paths: list[np.ndarray], batch: int) -> np.ndarray:
    """The true render of worlds along other paths from their own first cameras."""
    moved = [
        dataclasses.replace(
            world,
            cameras=dataclasses.replace(
                world.cameras, world_from_camera=world.cameras.world_from_camera[0] @ path
            ),
        )
        for world, path in zip(worlds, paths)
    ]
    return in_batches(
        lambda rows: render_rgb([moved[i] for i in rows], SHAPE.height, SHAPE.width), len(moved), batch
    )


def truths(here: HeldOut, network, video: np.ndarray) -> list:
    """What is true of each clip of these worlds."""
    found = []
    for world, render, seen in zip(here.worlds, here.video, video):
        log_depth, moving = render_coarse_truth([world], SHAPE.height, SHAPE.width)
        poses = jnp.asarray(world.cameras.relative_to(0).world_from_camera, jnp.float32)[None]
        fields = {"world_from_camera": poses, "log_depth": log_depth, "moving_share": moving}
        found.append(truth_of(fields | {"video": render[None]}, network.config.grid, seen[None]))
    return found


def label_errors(network, here: HeldOut, video: np.ndarray) -> dict[str, float]:
    """Mean errors of what the network tells of clips."""
    truth = jax.tree.map(lambda *parts: jnp.concatenate(parts), *truths(here, network, video))
    return {name: float(error.mean()) for name, error in clip_errors(network.told(video), truth).items()}


def mean_errors(here: HeldOut, network) -> dict[str, float]:
    """Errors of telling the same of every clip: the mean over them."""
    truth = jax.tree.map(lambda *parts: jnp.concatenate(parts), *truths(here, network, here.video))
    told = jax.tree.map(lambda x: jnp.broadcast_to(x.mean(0), x.shape), truth)
    return {name: float(error.mean()) for name, error in clip_errors(told, truth).items()}


def distances(features: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Of every set to the truth of its own worlds and of others, whole and by halves (their mean); and to the
    reconstruction of its own worlds.
    """
    found = {}
    for name, values in features.items():
        shorter = name.rpartition(", ")[2] if name.endswith(" frames") else ""
        if name == FASTER_NAME:
            shorter = next(other.rpartition(", ")[2] for other in features if other.endswith(" frames"))
        suffix = f", {shorter}" if shorter else ""
        own, others = features[TRUTH + suffix], features[OTHER + suffix]
        half = len(values) // 2
        parts = (slice(None, half), slice(half, 2 * half))
        row = {}
        for column, reference in (("same", own), ("other", others)):
            row[column] = distance(values, reference)
            row[f"{column}_half"] = float(np.mean([distance(values[p], reference[p]) for p in parts]))
        whole = len(suffix) == 0  # shorter clips have no reconstruction of their length
        row["reconstruction"] = distance(values, features[RECONSTRUCTION]) if whole else None
        found[name] = row
    return found


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return frechet_distance(FeatureStatistics.of(a), FeatureStatistics.of(b))


def report(figures: dict) -> str:
    lines = [
        "| told of | last shift, m | last turn, degrees | log depth | moving share | log detail |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in figures["label_errors"].items():
        cells = [f"{row[key]:.3g}" for key in ("shift", "turn", "depth", "moving", "detail")]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        "| clips | same worlds | halves | other worlds | halves | reconstruction |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in figures["distances"].items():
        cells = [f"{row[key]:.3f}" for key in ("same", "same_half", "other", "other_half")]
        cells.append("" if row["reconstruction"] is None else f"{row['reconstruction']:.3f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
