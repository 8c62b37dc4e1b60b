"""Measure what a trained model can do.

  python -m camctrl_jax.evaluate worlds --count 32 --camera-guidance 1 2 --out outputs/evaluation

worlds: procedural worlds that no training has seen (seeds 1000000 and above), whose every camera path has a
true render. Two things are measured:

  reconstruction   the autoencoder alone: PSNR of decoded against rendered frames
  camera           image-to-video from the first frame. PSNR against the true render of frames 6 to the last
                   - with the true path,
                   - with a decoy: the path of another world. A model that ignores the camera scores the same,
                   - of the first frame, repeated.

--checkpoint may also be a run of configs/vae.py; then only the reconstruction is measured.

In --out: results.json (every world's values and the settings), results.md (a table) and strip.png (frames:
true render, true path, decoy path, with the last number of --steps and the last weight of --camera-guidance),
with --videos also comparison.mp4.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from camctrl_jax.metrics.worlds_scores import (
    FIRST_SCORED_FRAME,
    camera_scores,
    markdown_report,
    reconstruction_scores,
)

if TYPE_CHECKING:
    from camctrl_jax.diffusion.guidance import Guidance
    from camctrl_jax.interop.pretrained import SamplingDefaults, Weights
    from camctrl_jax.pipeline import Autoencoder, Pipeline

STRIP_FRAMES = 7


class EvaluateError(Exception):
    """A request that cannot be carried out; the message says why and what to do instead."""


@dataclass(frozen=True)
class Request:
    """What the command line asks for; None is "as the model was trained"."""

    out: Path
    checkpoint: str = "default"
    vae: str | None = None
    count: int = 32
    first_seed: int = 1_000_000
    steps: tuple[int, ...] = (32,)
    camera_guidance: tuple[float, ...] = (1.0, 2.0)
    text_guidance: float = 1.0
    frames: int | None = None
    height: int | None = None
    width: int | None = None
    samples: int = 2
    batch_size: int | None = None
    shown: int = 4
    videos: bool = False
    float32: bool = False


@dataclass(frozen=True)
class HeldOut:
    """Held-out worlds and their truth.

    Attributes:
        worlds: N ``camctrl_jax.worlds.World``.
        video: u8 [N, T, H, W, 3], rendered.
    """

    worlds: tuple[Any, ...]
    video: np.ndarray

    def decoys(self) -> list[Any]:
        """For each world the path of the next one, from its own first frame and with its own lens."""
        paths = [world.cameras.relative_to(0) for world in self.worlds]
        return [
            other.with_intrinsics(own.intrinsics)
            for own, other in zip(paths, paths[1:] + paths[:1], strict=True)
        ]


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; expected failures end with one message on standard error and exit code 1."""
    request = _parse(argv)
    from camctrl_jax.training.checkpoint import CheckpointError

    try:
        results = evaluate_worlds(request)
    except (EvaluateError, CheckpointError, ImportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(markdown_report(results))
    for name in results["files"]:
        print(request.out / name)
    return 0


def evaluate_worlds(request: Request, say: Callable[[str], None] | None = None) -> dict[str, Any]:
    """Evaluate on held-out worlds and write the results; returns what ``results.json`` holds.

    Args:
        request: what to measure.
        say: called with a line before each part of the work; standard error by default.

    Raises:
        EvaluateError: a request that cannot work, found before any expensive work.
    """
    import jax

    import camctrl_jax
    from camctrl_jax.camera.formats.atomic import write_text
    from camctrl_jax.diffusion.guidance import Guidance
    from camctrl_jax.extras import require
    from camctrl_jax.pipeline import Pipeline, compute_dtype, load_autoencoder
    from camctrl_jax.training.checkpoint import write_json
    from camctrl_jax.viz.video import write_png

    say = say or (lambda line: print(line, file=sys.stderr, flush=True))
    require("matplotlib", extra="eval")
    if request.videos:
        require("av", extra="eval")
    try:
        model, autoencoder, size = _prepare(request)
    except ValueError as error:
        raise EvaluateError(str(error)) from error
    request.out.mkdir(parents=True, exist_ok=True)
    frames, height, width = size
    batch_size = request.batch_size
    if batch_size is None:
        batch_size = 2 if jax.default_backend() == "cpu" else 32
    started = time.monotonic()

    try:
        if model is None:
            pipeline, vae = None, load_autoencoder(autoencoder, compute_dtype(request.float32))
        else:
            pipeline = Pipeline.load(model, autoencoder, float32=request.float32)
            vae = pipeline.autoencoder
    except ValueError as error:  # damaged files, or weights of another preset
        raise EvaluateError(str(error)) from error

    say(f"rendering {request.count} held-out worlds of {frames} frames, {height}x{width}")
    truth = held_out_worlds(request, size, batch_size)
    results: dict[str, Any] = {
        "request": {name: str(value) if isinstance(value, Path) else value
                    for name, value in asdict(request).items()},
        "weights": {"checkpoint": str((model or autoencoder).path), "autoencoder": str(autoencoder.path)},
        "seeds": [world.seed for world in truth.worlds],
        "clip": {"frames": frames, "height": height, "width": width},
        "versions": {"camctrl_jax": camctrl_jax.__version__, "jax": jax.__version__,
                     "device": jax.devices()[0].device_kind},
    }  # fmt: skip

    say("reconstructing them with the autoencoder")
    reconstructed = reconstruct(vae, truth.video, batch_size)
    results["reconstruction"] = reconstruction_scores(reconstructed, truth.video)
    rows, labels = [], []
    shown = min(request.shown, request.count)
    if pipeline is None:
        for i in range(shown):
            rows += [truth.video[i], reconstructed[i]]
            labels += ["true render", "reconstructed"]
    else:
        results["camera"] = []
        for steps, weight in product(request.steps, request.camera_guidance):
            say(f"sampling with camera guidance {weight:g}: true and decoy paths, {steps} steps")
            guidance = Guidance(request.text_guidance, weight)
            videos = {
                name: sample_worlds(pipeline, truth, cameras, guidance, steps, batch_size)
                for name, cameras in (
                    ("true_path", [world.cameras for world in truth.worlds]),
                    ("decoy_path", truth.decoys()),
                )
            }
            results["camera"].append(
                {"camera_guidance": weight, "text_guidance": request.text_guidance, "steps": steps}
                | camera_scores(truth.video, videos["true_path"], videos["decoy_path"])
            )
        for i in range(shown):
            rows += [truth.video[i], videos["true_path"][i], videos["decoy_path"][i]]
            labels += ["true render", "true path", "decoy path"]
    results["seconds"] = round(time.monotonic() - started, 1)

    results["files"] = ["results.json", "results.md"]
    if rows:
        write_png(request.out / "strip.png", _strip(rows, labels, truth.worlds[0].fps, len(rows) // shown))
        results["files"].append("strip.png")
    if rows and request.videos:
        from camctrl_jax.data.video import write_mp4
        from camctrl_jax.viz.video import video_grid

        grid = video_grid(np.stack(rows), columns=len(rows) // shown)
        write_mp4(request.out / "comparison.mp4", grid, truth.worlds[0].fps)
        results["files"].append("comparison.mp4")
    write_text(request.out / "results.md", markdown_report(results) + "\n")
    write_json(request.out / "results.json", results)
    return results


def _prepare(request: Request) -> tuple[Weights | None, Weights, tuple[int, int, int]]:
    from camctrl_jax.diffusion.guidance import Guidance
    from camctrl_jax.diffusion.sampler import time_grid
    from camctrl_jax.interop.pretrained import SamplingDefaults, open_weights
    from camctrl_jax.pipeline import check_clip_size, open_model
    from camctrl_jax.worlds.splits import check_held_out

    if request.count < 2:
        raise ValueError(f"count={request.count}: at least 2 worlds are needed, each is the other's decoy.")
    for name, least in (("samples", 1), ("batch_size", 1), ("shown", 0)):
        value = getattr(request, name)
        if value is not None and value < least:
            raise ValueError(f"{name}={value}: expected at least {least}.")
    for name in ("steps", "camera_guidance"):
        value = getattr(request, name)
        if not isinstance(value, tuple) or not value:
            raise ValueError(f"{name}={value!r}: expected a tuple of one or more numbers, such as (2, 32).")
    check_held_out(range(request.first_seed, request.first_seed + request.count))
    for steps in request.steps:
        time_grid(steps, 1.0)
    for weight in request.camera_guidance:
        Guidance(request.text_guidance, weight)
    opened = open_weights(request.checkpoint)
    if opened.mmdit_config is None:
        size = _size(request, SamplingDefaults(frames=49, height=96, width=160))
        opened.vae_config.latent_shape(*size)
        return None, opened, size
    model, autoencoder = open_model(request.checkpoint, request.vae)
    if model.mmdit_config.camera is None:
        raise ValueError(
            f"{request.checkpoint} has no camera input: it is a base model, and there is nothing to compare. "
            "Train one from it with configs/stage1.py."
        )
    size = _size(request, model.sampling)
    check_clip_size(model, autoencoder, *size)
    if size[0] <= FIRST_SCORED_FRAME:
        raise ValueError(
            f"frames={size[0]}: PSNR is taken from frame {FIRST_SCORED_FRAME + 1} on; take 9 or more."
        )
    return model, autoencoder, size


def _size(request: Request, defaults: SamplingDefaults) -> tuple[int, int, int]:
    """Frames, height and width as asked for, or the defaults."""
    return tuple(
        getattr(defaults if getattr(request, name) is None else request, name)
        for name in ("frames", "height", "width")
    )


def held_out_worlds(request: Request, size: tuple[int, int, int], batch_size: int) -> HeldOut:
    """Sample and render the worlds of a request."""
    from camctrl_jax.worlds import WorldsConfig, render_rgb, sample_world

    frames, height, width = size
    config = WorldsConfig(frames=frames, aspect=width / height)
    seeds = range(request.first_seed, request.first_seed + request.count)
    worlds = [sample_world(seed, config) for seed in seeds]
    video = in_batches(
        lambda rows: render_rgb([worlds[i] for i in rows], height, width, request.samples),
        len(worlds),
        batch_size,
    )
    return HeldOut(tuple(worlds), video)


def in_batches(function: Callable[[list[int]], Any], count: int, batch_size: int) -> np.ndarray:
    """``function`` of the rows 0..count-1 in batches of one size, the last filled up; on the host."""
    batch_size = min(batch_size, count)
    pieces = []
    for start in range(0, count, batch_size):
        rows = [min(row, count - 1) for row in range(start, start + batch_size)]
        pieces.append(np.asarray(function(rows))[: count - start])
    return np.concatenate(pieces)


def reconstruct(vae: Autoencoder, video: np.ndarray, batch_size: int) -> np.ndarray:
    """u8 [N, T, H, W, 3] through the autoencoder and back."""
    return in_batches(lambda rows: vae.decode(vae.encode(video[rows])), len(video), batch_size)


def sample_worlds(
    pipeline: Pipeline,
    truth: HeldOut,
    cameras: Sequence[Any],
    guidance: Guidance,
    steps: int,
    batch_size: int,
) -> np.ndarray:
    """Image-to-video of every world along ``cameras``, u8 [N, T, H, W, 3]; the noise is the world's own."""
    _, frames, height, width, _ = truth.video.shape

    def sample(rows: list[int]) -> np.ndarray:
        latents = pipeline.sample(
            [truth.worlds[i].captions[0] for i in rows],
            [truth.worlds[i].seed % 2**32 for i in rows],
            frames=frames,
            height=height,
            width=width,
            guidance=guidance,
            steps=steps,
            cameras=[cameras[i] for i in rows],
            condition=truth.video[rows, :1],
        )
        return pipeline.autoencoder.decode(latents)

    return in_batches(sample, len(truth.worlds), batch_size)


def _strip(rows: list[np.ndarray], labels: list[str], fps: float, group: int) -> np.ndarray:
    from camctrl_jax.viz.video import frame_strip

    frames = len(rows[0])
    shown = np.unique(np.linspace(0, frames - 1, min(STRIP_FRAMES, frames)).round().astype(int))
    times = [f"{index / fps:.1f} s" for index in shown]
    return frame_strip(rows, shown, labels, times, group=group)


def _parse(argv: Sequence[str] | None) -> Request:
    parser = argparse.ArgumentParser(
        prog="python -m camctrl_jax.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(required=True, metavar="worlds")
    worlds = commands.add_parser(
        "worlds",
        help="PSNR on held-out procedural worlds; options: python -m camctrl_jax.evaluate worlds --help",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = worlds.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="folder for the results; created if needed")
    add(
        "--checkpoint",
        default="default",
        metavar="SPEC",
        help="'default' (in the package), a run directory, or a weights folder",
    )
    add("--vae", metavar="SPEC", help="another autoencoder than the one the checkpoint was trained with")
    add("--count", type=int, default=32, help="worlds (default 32)")
    add("--first-seed", type=int, default=1_000_000, help="of the held-out worlds, 1000000 or above")
    add(
        "--steps",
        type=int,
        nargs="+",
        default=[32],
        metavar="N",
        help="Euler steps, one or several numbers, each with every guidance weight (default 32). Few steps "
        "predict the mean of what may happen, which PSNR rewards; many steps draw one example of it",
    )
    add(
        "--camera-guidance",
        type=float,
        nargs="+",
        default=[1.0, 2.0],
        metavar="W",
        help="one or several weights, each a row of the table (default 1 2)",
    )
    add("--text-guidance", type=float, default=1.0, metavar="W", help="default 1: none")
    add("--frames", type=int, help="4k+1 (default: as the model was trained)")
    add("--height", type=int, help="pixels (default: as the model was trained)")
    add("--width", type=int, help="pixels (default: as the model was trained)")
    add("--samples", type=int, default=2, help="rays per pixel and axis of the render (default 2)")
    add(
        "--batch-size",
        type=int,
        metavar="N",
        help="clips at a time (default: 32 on an accelerator, 2 on a CPU)",
    )
    add("--shown", type=int, default=4, help="worlds on the strip (default 4)")
    add("--videos", action="store_true", help="also write the shown worlds as comparison.mp4")
    add("--float32", action="store_true", help="compute in float32 on an accelerator too")
    values = vars(parser.parse_args(argv))
    return Request(**values | {name: tuple(values[name]) for name in ("steps", "camera_guidance")})


if __name__ == "__main__":
    sys.exit(main())
