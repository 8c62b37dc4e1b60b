"""``evaluate worlds``: reconstruction and camera control on procedural worlds that no training has seen."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import jax
import numpy as np

import camctrl_jax
from camctrl_jax.camera import Cameras
from camctrl_jax.checkpoints.pipelines import check_clip_size, load_autoencoder, load_pipeline, open_model
from camctrl_jax.checkpoints.weights import Weights, open_weights
from camctrl_jax.clip_shape import ClipShape
from camctrl_jax.diffusion.guidance import Guidance
from camctrl_jax.diffusion.sampler import Sampling
from camctrl_jax.errors import InvalidValue, file_failures
from camctrl_jax.extras import require
from camctrl_jax.files.atomic import write_text
from camctrl_jax.files.json_file import write_json
from camctrl_jax.interop.described import SamplingDefaults
from camctrl_jax.metrics.worlds_scores import (
    FIRST_SCORED_FRAME,
    camera_scores,
    markdown_report,
    reconstruction_scores,
)
from camctrl_jax.models.autoencoder import Autoencoder, compute_dtype
from camctrl_jax.sampling.pipeline import ClipBatch, Pipeline
from camctrl_jax.video.encoding import write_mp4
from camctrl_jax.video.pictures import frame_strip, shown_frames, video_grid, write_png
from camctrl_jax.worlds import World, WorldsConfig, render_rgb, sample_world
from camctrl_jax.worlds.splits import check_held_out

Say = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """What to measure; None is "as the model was trained".

    Attributes:
        out: folder for the results.
        checkpoint, vae: weights specs.
        count, first_seed: the worlds.
        steps, camera_guidance: each with each is one row of the table.
        text_guidance: weight of the text.
        frames, height, width: of the clips, in pixels.
        samples: rays per pixel and axis of the render.
        batch_size: clips at a time; None is by the device.
        shown: worlds on the strip.
        videos: write the shown worlds as a video, too.
        float32: compute in float32 on an accelerator, too.
    """

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

    def __post_init__(self) -> None:
        if self.count < 2:
            raise InvalidValue(
                f"count={self.count}: at least 2 worlds are needed, each is the other's decoy."
            )
        for name, least in (("samples", 1), ("batch_size", 1), ("shown", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InvalidValue(f"{name}={value}: expected at least {least}.")
        for name in ("steps", "camera_guidance"):
            value = getattr(self, name)
            if not isinstance(value, tuple) or not value:
                raise InvalidValue(
                    f"{name}={value!r}: expected a tuple of one or more numbers, such as (2, 32)."
                )
        check_held_out(self.seeds)
        self.samplings()

    @property
    def seeds(self) -> range:
        """Of the worlds."""
        return range(self.first_seed, self.first_seed + self.count)

    def samplings(self) -> list[Sampling]:
        """One for each row of the table."""
        return [
            Sampling(Guidance(self.text_guidance, weight), steps)
            for steps, weight in product(self.steps, self.camera_guidance)
        ]

    def shape(self, defaults: SamplingDefaults) -> ClipShape:
        """As asked for, or the defaults."""
        return ClipShape(
            *(
                getattr(defaults if getattr(self, name) is None else self, name)
                for name in ("frames", "height", "width")
            )
        )


@dataclass(frozen=True)
class Subject:
    """What is measured, configurations only.

    Attributes:
        model: the transformer, or None to measure an autoencoder alone.
        autoencoder: what encodes and decodes.
        shape: of the clips.
    """

    model: Weights | None
    autoencoder: Weights
    shape: ClipShape


@dataclass(frozen=True)
class HeldOut:
    """Held-out worlds and their truth.

    Attributes:
        worlds: N of them.
        video: u8 [N, T, H, W, 3], rendered.
    """

    worlds: tuple[World, ...]
    video: np.ndarray

    def decoys(self) -> list[Cameras]:
        """For each world the path of the next one, from its own first frame and with its own lens."""
        paths = [world.cameras.relative_to(0) for world in self.worlds]
        return [
            other.with_intrinsics(own.intrinsics)
            for own, other in zip(paths, paths[1:] + paths[:1], strict=True)
        ]


def evaluate_worlds(settings: Settings, say: Say | None = None) -> dict[str, Any]:
    """Evaluate on held-out worlds and write the results; returns what ``results.json`` holds.

    Args:
        settings: what to measure.
        say: called with a line before each part of the work; standard error by default.

    Raises:
        UserError: what cannot work, found before any expensive work.
    """
    say = say or (lambda line: print(line, file=sys.stderr, flush=True))
    require("matplotlib", extra="eval")
    if settings.videos:
        require("av", extra="eval")
    subject = open_subject(settings)
    with file_failures(settings.out):
        settings.out.mkdir(parents=True, exist_ok=True)
    batch_size = settings.batch_size
    if batch_size is None:
        batch_size = 2 if jax.default_backend() == "cpu" else 32
    started = time.monotonic()
    pipeline = None
    if subject.model is None:
        vae = load_autoencoder(subject.autoencoder, compute_dtype(settings.float32))
    else:
        pipeline = load_pipeline(subject.model, subject.autoencoder, float32=settings.float32)
        vae = pipeline.autoencoder

    shape = subject.shape
    say(f"rendering {settings.count} held-out worlds of {shape.frames} frames, {shape.height}x{shape.width}")
    truth = held_out_worlds(settings.seeds, shape, settings.samples, batch_size)
    results = _described(settings, subject)
    say("reconstructing them with the autoencoder")
    reconstructed = reconstruct(vae, truth.video, batch_size)
    results["reconstruction"] = reconstruction_scores(reconstructed, truth.video)
    columns = {"true render": truth.video}
    if pipeline is None:
        columns["reconstructed"] = reconstructed
    else:
        results["camera"], sampled = _camera_rows(pipeline, truth, settings.samplings(), batch_size, say)
        columns |= sampled
    results["seconds"] = round(time.monotonic() - started, 1)
    return _write(settings, results, columns, truth.worlds[0].fps)


def open_subject(settings: Settings) -> Subject:
    """Look up the weights and check that they can make and measure such clips."""
    opened = open_weights(settings.checkpoint)
    if opened.mmdit_config is None:
        if settings.vae is not None:
            raise InvalidValue(
                f"--checkpoint {settings.checkpoint} is an autoencoder itself, and so is "
                f"--vae {settings.vae}: leave --vae out, or name a transformer with --checkpoint."
            )
        if opened.vae_config is None:
            raise InvalidValue(
                f"--checkpoint {settings.checkpoint} holds neither a transformer nor an autoencoder: there "
                "is nothing to evaluate. Name a run of configs/stage1.py or configs/vae.py that has a "
                "checkpoint, or a folder of weights."
            )
        shape = settings.shape(SamplingDefaults(frames=49, height=96, width=160))
        shape = opened.vae_config.clip_shape(shape.frames, shape.height, shape.width)
        return Subject(None, opened, shape.check((1, 1, 1)))
    model, autoencoder = open_model(settings.checkpoint, settings.vae)
    if model.mmdit_config.camera is None:
        raise InvalidValue(
            f"{settings.checkpoint} has no camera input: it is a base model, and there is nothing to compare."
            " Train one from it with configs/stage1.py."
        )
    shape = check_clip_size(model, autoencoder, settings.shape(model.sampling))
    if shape.frames <= FIRST_SCORED_FRAME:
        raise InvalidValue(
            f"frames={shape.frames}: PSNR is taken from frame {FIRST_SCORED_FRAME + 1} on; take 9 or more."
        )
    return Subject(model, autoencoder, shape)


def held_out_worlds(seeds: Sequence[int], shape: ClipShape, samples: int, batch_size: int) -> HeldOut:
    """Sample and render the worlds of ``seeds`` with ``samples`` rays per pixel and axis."""
    config = WorldsConfig(frames=shape.frames, aspect=shape.width / shape.height)
    worlds = [sample_world(seed, config) for seed in seeds]
    video = in_batches(
        lambda rows: render_rgb([worlds[i] for i in rows], shape.height, shape.width, samples),
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
    pipeline: Pipeline, truth: HeldOut, cameras: Sequence[Cameras], sampling: Sampling, batch_size: int
) -> np.ndarray:
    """Image-to-video of every world along ``cameras``, u8 [N, T, H, W, 3]; the noise is the world's own."""
    shape = ClipShape(*truth.video.shape[1:4])

    def sample(rows: list[int]) -> np.ndarray:
        clips = ClipBatch(
            prompts=[truth.worlds[i].captions[0] for i in rows],
            seeds=[truth.worlds[i].seed % 2**32 for i in rows],
            shape=shape,
            cameras=[cameras[i] for i in rows],
            condition=truth.video[rows, :1],
        )
        return pipeline.autoencoder.decode(pipeline.sample(clips, sampling))

    return in_batches(sample, len(truth.worlds), batch_size)


def _camera_rows(
    pipeline: Pipeline, truth: HeldOut, samplings: Sequence[Sampling], batch_size: int, say: Say
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """The scores of each sampling, and the last one's videos by name."""
    paths = {"true path": [world.cameras for world in truth.worlds], "decoy path": truth.decoys()}
    rows, videos = [], {}
    for sampling in samplings:
        text, camera = sampling.guidance.text, sampling.guidance.camera
        say(f"sampling with camera guidance {camera:g}: true and decoy paths, {sampling.steps} steps")
        videos = {
            name: sample_worlds(pipeline, truth, cameras, sampling, batch_size)
            for name, cameras in paths.items()
        }
        rows.append(
            {"camera_guidance": camera, "text_guidance": text, "steps": sampling.steps}
            | camera_scores(truth.video, videos["true path"], videos["decoy path"])
        )
    return rows, videos


def _described(settings: Settings, subject: Subject) -> dict[str, Any]:
    """What was measured, JSON-able."""
    shape = subject.shape
    return {
        "request": {name: str(value) if isinstance(value, Path) else value
                    for name, value in asdict(settings).items()},
        "weights": {"checkpoint": str((subject.model or subject.autoencoder).path),
                    "autoencoder": str(subject.autoencoder.path)},
        "seeds": list(settings.seeds),
        "clip": {"frames": shape.frames, "height": shape.height, "width": shape.width},
        "versions": {"camctrl_jax": camctrl_jax.__version__, "jax": jax.__version__,
                     "device": jax.devices()[0].device_kind},
    }  # fmt: skip


def _write(
    settings: Settings, results: dict[str, Any], columns: dict[str, np.ndarray], fps: float
) -> dict[str, Any]:
    """Write tables and pictures; returns the results with the names of the files.

    Args:
        settings: where, and how much is shown.
        results: so far.
        columns: videos u8 [N, T, H, W, 3] to show beside each other, by name.
        fps: of the videos.
    """
    out, files = settings.out, ["results.json", "results.md"]
    shown = min(settings.shown, settings.count)
    rows = [video[i] for i in range(shown) for video in columns.values()]
    if rows:
        indices = shown_frames(len(rows[0]))
        times = [f"{index / fps:.1f} s" for index in indices]
        strip = frame_strip(rows, indices, list(columns) * shown, times, group=len(columns))
        write_png(out / "strip.png", strip)
        files.append("strip.png")
    if rows and settings.videos:
        write_mp4(out / "comparison.mp4", video_grid(np.stack(rows), columns=len(columns)), fps)
        files.append("comparison.mp4")
    results = results | {"files": files}
    write_text(out / "results.md", markdown_report(results) + "\n")
    write_json(out / "results.json", results)
    return results
