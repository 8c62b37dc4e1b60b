"""Carrying out a plan: sample the clip, write its files."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np

from camctrl_jax.checkpoints.pipelines import load_pipeline
from camctrl_jax.diffusion.sampler import Sampling
from camctrl_jax.errors import file_failures
from camctrl_jax.files.json_file import write_json
from camctrl_jax.generate.plan import Plan, prepare
from camctrl_jax.generate.record import generation_record
from camctrl_jax.generate.request import Request
from camctrl_jax.metrics.psnr import psnr
from camctrl_jax.sampling.on_mesh import said
from camctrl_jax.sampling.pipeline import ClipBatch
from camctrl_jax.video.encoding import write_mp4
from camctrl_jax.video.pictures import frame_strip, shown_frames, video_grid, write_png
from camctrl_jax.viz.trajectory import save_trajectory_figure
from camctrl_jax.worlds import render_rgb


def run(request: Request) -> dict[str, Path]:
    """Prepare a request, tell its notes, carry it out; returns the files by name."""
    plan = prepare(request)
    for note in plan.notes:
        print(f"note: {note}", file=sys.stderr)
    return generate(plan)


def generate(plan: Plan) -> dict[str, Path]:
    """Carry out a plan and write its files; returns them by name.

    Files of an earlier run in the same folder are replaced, each only when its successor is complete.
    """
    out = plan.request.out
    with file_failures(out):
        out.mkdir(parents=True, exist_ok=True)
    say = Progress()
    started = time.monotonic()
    video, truth, sampling = _sample(plan, say)
    sampled = time.monotonic()
    files = _write_pictures(plan, video, truth)
    measured = {} if truth is None else {"psnr_db": float(psnr(video[1:], truth[1:]))}
    files["settings"] = out / "generation.json"
    record = generation_record(plan, sampling, measured, files)
    record["seconds"] = {
        "in all": round(time.monotonic() - started, 2),
        "to the video": round(sampled - started, 2),
    }
    write_json(files["settings"], record)
    return files


def _sample(plan: Plan, say: Progress) -> tuple[np.ndarray, np.ndarray | None, Sampling]:
    """The clip u8 [T, H, W, 3]; of a world the true render of the same path; and how it was sampled."""
    request, shape, world = plan.request, plan.shape, plan.start.world
    say(f"{request.checkpoint}: reading the weights")
    pipeline = load_pipeline(plan.model, plan.autoencoder, float32=request.float32, mesh=plan.mesh)
    truth, condition = None, None
    if world is not None:
        say(f"rendering world {world.seed}")
        truth = np.asarray(render_rgb([world], shape.height, shape.width))[0]
        condition = truth[None, :1]
    elif plan.start.first_frame is not None:
        condition = plan.start.first_frame[None, None]

    sampling = plan.sampling
    if sampling.shift is None:
        sampling = replace(sampling, shift=pipeline.shift(shape))
    evaluations = sampling.guidance.evaluations(camera_input=plan.model.mmdit_config.camera is not None)
    say(
        f"sampling {shape.frames} frames of {shape.height}x{shape.width} on {_devices(plan)}: "
        f"{sampling.steps} steps x {evaluations} model evaluations (compiling first)"
    )
    clips = ClipBatch(
        prompts=[plan.prompt],
        seeds=[request.seed],
        shape=shape,
        cameras=None if plan.cameras is None else [plan.cameras],
        condition=condition,
    )
    latents = pipeline.sample(clips, sampling, say.step)
    say("decoding")
    return pipeline.autoencoder.decode(latents)[0], truth, sampling


def _devices(plan: Plan) -> str:
    """What it is sampled on, in words."""
    kind = jax.devices()[0].device_kind
    return kind if plan.mesh is None else f"{kind}, mesh {said(plan.mesh)}"


def _write_pictures(plan: Plan, video: np.ndarray, truth: np.ndarray | None) -> dict[str, Path]:
    """Videos and figures, by name."""
    out = plan.request.out
    files = {"video": out / "video.mp4"}
    write_mp4(files["video"], video, plan.fps)
    rows, labels = [video], ["generated"]
    if truth is not None:
        files |= {"truth": out / "truth.mp4", "comparison": out / "comparison.mp4"}
        write_mp4(files["truth"], truth, plan.fps)
        write_mp4(files["comparison"], video_grid(np.stack([truth, video]), columns=2), plan.fps)
        rows, labels = [truth, video], ["true render", "generated"]
    if plan.cameras is not None:
        files["trajectory"] = out / "trajectory.png"
        save_trajectory_figure(plan.cameras, files["trajectory"])
    shown = shown_frames(plan.shape.frames)
    files["frames"] = out / "frames.png"
    write_png(files["frames"], frame_strip(rows, shown, labels, [f"{i / plan.fps:.1f} s" for i in shown]))
    return files


class Progress:
    """Lines on standard error: what is being done, and how far the sampling is."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._live = clock, sys.stderr.isatty()
        self._first: float | None = None

    def __call__(self, message: str) -> None:
        print(message, file=sys.stderr, flush=True)

    def step(self, done: int, steps: int) -> None:
        """One sampling step is done; the first one includes compilation and is not counted as speed."""
        now = self._clock()
        if self._first is None or done == 1:
            self._first = now
        rate = (now - self._first) / (done - 1) if done > 1 else None
        left = "" if rate is None else f", {rate:.2g} s a step, {rate * (steps - done):.0f} s left"
        line = f"  step {done}/{steps}{left}"
        if self._live:
            print(f"\r{line:60}", end="\n" if done == steps else "", file=sys.stderr, flush=True)
        elif done == steps or done % max(1, steps // 4) == 0:
            print(line, file=sys.stderr, flush=True)
