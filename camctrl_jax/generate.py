"""Generate a video along a camera path: from a prompt, or from a first image and a prompt.

  python -m camctrl_jax.generate --image room.jpg --prompt "a quiet room" \\
      --camera "dolly in 1 m, then pan left 30 deg" --out outputs/room

What the camera does (--camera) is one of
  a pose file      RealEstate10K txt, COLMAP, transforms.json, TUM, ... (see python -m camctrl_jax.camera)
  a preset         dolly_in, orbit_left, ...  (python -m camctrl_jax.camera preset --list)
  a sentence       "dolly in 1.5 m, then pan left 40 deg while rising 0.3 m"
  none             the model is told nothing about the camera

Where it starts
  --image FILE     a picture, or the first frame of a video, cropped and resized to the model's size
  --worlds-seed N  first frame, caption and path of procedural world N (held-out ones: 1000000 and above);
                   the true render of the same path is written beside the result
  neither          from the prompt alone

What comes out, in --out
  video.mp4        the clip
  trajectory.png   the camera path
  frames.png       some of its frames in a row
  generation.json  everything that made it: weights, prompt, path as numbers, seed, guidance, versions
  with --worlds-seed also truth.mp4 and comparison.mp4

The same command gives the same video on the same machine; --seed changes it. On a laptop, --steps 12 is a
good first look. Guidance above 1 follows the prompt or the camera more strongly, at more work per step.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from camctrl_jax.camera import Cameras
    from camctrl_jax.data.framing import Framing
    from camctrl_jax.diffusion.guidance import Guidance
    from camctrl_jax.interop.pretrained import Weights

NO_CAMERA = "none"
STRIP_FRAMES = 7


class GenerateError(Exception):
    """A request that cannot be carried out; the message says why and what to do instead."""


@dataclass(frozen=True)
class Request:
    """What the command line asks for; None is "as the model was trained" or "not given"."""

    out: Path
    checkpoint: str = "default"
    vae: str | None = None
    prompt: str | None = None
    image: Path | None = None
    worlds_seed: int | None = None
    camera: str | None = None
    camera_scale: float = 1.0
    intrinsics: tuple[float, float, float, float] | None = None
    frames: int | None = None
    fps: float | None = None
    height: int | None = None
    width: int | None = None
    steps: int = 32
    shift: float | None = None
    guidance: str = "eq3"
    text_guidance: float | None = None
    camera_guidance: float | None = None
    camera_guidance_without_text: float | None = None
    seed: int = 0
    float32: bool = False


@dataclass(frozen=True)
class Plan:
    """A request with everything looked up and checked; nothing expensive has been done yet.

    Attributes:
        request: as asked.
        model, autoencoder: what the weights specs stand for.
        frames, fps, height, width, prompt, guidance, shift: what will be used.
        cameras: the path for the model, relative to its first frame, or None.
        first_frame: u8 [H, W, 3], or None for T2V.
        world: the world whose truth is rendered, or None.
        framing: how the image was cropped and resized.
        notes: what the user should know, one line each.
    """

    request: Request
    model: Weights
    autoencoder: Weights
    frames: int
    fps: float
    height: int
    width: int
    prompt: str
    guidance: Guidance
    shift: float | None
    cameras: Cameras | None
    first_frame: np.ndarray | None
    world: Any
    framing: Framing | None
    notes: tuple[str, ...]


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; expected failures end with one message on standard error and exit code 1."""
    request = _parse(argv)
    from camctrl_jax.training.checkpoint import CheckpointError

    try:
        plan = prepare(request)
        for note in plan.notes:
            print(f"note: {note}", file=sys.stderr)
        files = generate(plan)
    except (GenerateError, CheckpointError, ImportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for name, path in files.items():
        print(f"{name:12} {path}")
    return 0


def prepare(request: Request) -> Plan:
    """Look up weights, path and image and check that they fit together, before any expensive work.

    Raises:
        GenerateError: anything that cannot work.
        ImportError: an extra is not installed; names it.
    """
    from camctrl_jax.data.bad_clips import ClipError
    from camctrl_jax.extras import require

    for module in ("av", "matplotlib"):
        require(module, extra="quickstart")
    try:
        return _prepare(request)
    except (ValueError, ClipError, FileNotFoundError) as error:
        # All of these name the file or value at fault: weights, path files, sentences, images, sizes.
        raise GenerateError(str(error)) from error


def _prepare(request: Request) -> Plan:
    from camctrl_jax.diffusion.guidance import Guidance
    from camctrl_jax.diffusion.sampler import initial_noise, time_grid
    from camctrl_jax.pipeline import check_clip_size, open_model

    if request.image is not None and request.worlds_seed is not None:
        raise GenerateError("--image and --worlds-seed both give the first frame: choose one.")
    if request.intrinsics is not None and request.worlds_seed is not None:
        raise GenerateError("--intrinsics and --worlds-seed clash: a world has a lens of its own.")
    if request.out.exists() and not request.out.is_dir():
        raise GenerateError(f"--out {request.out} is a file: name a folder.")
    model, autoencoder = open_model(request.checkpoint, request.vae)
    defaults, notes = model.sampling, []
    frames, fps, height, width = (
        getattr(defaults if getattr(request, name) is None else request, name)
        for name in ("frames", "fps", "height", "width")
    )
    check_clip_size(model, autoencoder, frames, height, width)
    if not 0 < fps < float("inf"):
        raise GenerateError(f"--fps {fps:g}: expected a positive number of frames per second.")
    if frames > defaults.frames:
        notes.append(f"{frames} frames are more than the {defaults.frames} the model was trained on.")
    if (height, width) != (defaults.height, defaults.width):
        notes.append(
            f"{height}x{width} is not the size the model was trained on, {defaults.height}x{defaults.width}."
        )
    time_grid(request.steps, 1.0 if request.shift is None else request.shift)
    initial_noise([request.seed], (1,))
    camera_weight = defaults.camera_guidance if request.camera_guidance is None else request.camera_guidance
    without_text = request.camera_guidance_without_text
    if request.guidance == "cfgp" and without_text is None:
        without_text = camera_weight
    if request.guidance == "eq3" and without_text is not None:
        raise GenerateError(
            "--camera-guidance-without-text belongs to --guidance cfgp; add that, or leave it out."
        )
    guidance = Guidance(
        text=defaults.text_guidance if request.text_guidance is None else request.text_guidance,
        camera=camera_weight,
        camera_without_text=without_text,
    )

    world = framing = first_frame = None
    if request.worlds_seed is not None:
        world = _sample_world(request.worlds_seed, frames, fps, height, width, notes)
    if request.image is not None:
        first_frame, framing = _read_first_frame(request.image, height, width)
    prompt = request.prompt
    if prompt is None:
        prompt = world.captions[0] if world is not None else ""
    if prompt == "" and first_frame is None and world is None:
        notes.append("there is neither a prompt nor an image: the model chooses the scene itself.")
    _check_prompt(model, prompt, notes)
    cameras = _choose_path(request, model, frames, fps, height, width, framing, world, notes)
    if cameras is None:
        # Without a path the camera branches are equal: leave them out.
        guidance = replace(guidance, camera=0.0, camera_without_text=None)
    elif world is not None and request.camera is not None:
        # The truth of this request is the same world seen along the path that was asked for.
        world = replace(world, cameras=cameras.transformed(world.cameras.world_from_camera[0]))
    return Plan(
        request, model, autoencoder, frames, fps, height, width, prompt, guidance, request.shift, cameras,
        first_frame, world, framing, tuple(notes),
    )  # fmt: skip


def _check_prompt(model: Weights, prompt: str, notes: list[str]) -> None:
    from camctrl_jax.data.text import embedder_from_settings

    embedder = embedder_from_settings(model.text)
    try:
        if embedder.truncated([prompt]):
            notes.append(f"the prompt is longer than {embedder.max_tokens} tokens; its end is left out.")
    except KeyError as error:  # a text that nobody has encoded
        raise GenerateError(error.args[0]) from error


def _sample_world(seed: int, frames: int, fps: float, height: int, width: int, notes: list[str]) -> Any:
    from camctrl_jax.worlds import WorldsConfig, sample_world
    from camctrl_jax.worlds.splits import HELD_OUT_FIRST_SEED

    if seed < 0:
        raise GenerateError(f"--worlds-seed {seed}: expected 0 or more.")
    if seed < HELD_OUT_FIRST_SEED:
        notes.append(
            f"world {seed} may be one of the training worlds; held-out are {HELD_OUT_FIRST_SEED} and above."
        )
    return sample_world(seed, WorldsConfig(frames=frames, fps=fps, aspect=width / height))


def _read_first_frame(path: Path, height: int, width: int) -> tuple[np.ndarray, Framing]:
    from camctrl_jax.data.framing import Framing
    from camctrl_jax.data.video import list_images, read_frames

    if path.is_dir() and list_images(path):
        path = list_images(path)[0]
    frame = next(read_frames(path))
    framing = Framing.cover(frame.size, (height, width))
    return frame.rgb(framing), framing


def _choose_path(
    request: Request,
    model: Weights,
    frames: int,
    fps: float,
    height: int,
    width: int,
    framing: Framing | None,
    world: Any,
    notes: list[str],
) -> Cameras | None:
    import numpy as np

    from camctrl_jax.camera import resolve_path
    from camctrl_jax.camera.formats import existing_path
    from camctrl_jax.data.framing import Framing, null_intrinsics

    spec = request.camera
    if model.mmdit_config.camera is None:
        if spec is None or spec == NO_CAMERA:
            return None
        raise GenerateError(
            f"{request.checkpoint} has no camera input: it is a base model. Train one from it "
            f"(configs/stage1.py with --config.init_from={request.checkpoint}), use --checkpoint default, or "
            "leave --camera out."
        )
    if spec == NO_CAMERA:
        return None
    if spec is None and world is None:
        raise GenerateError(
            '--camera is missing. Say what the camera does: --camera "dolly in 1 m", --camera orbit_left, '
            f"--camera path.txt, or --camera {NO_CAMERA}."
        )
    if not request.camera_scale > 0:
        raise GenerateError(f"--camera-scale {request.camera_scale:g}: expected a positive factor.")
    if spec is None:
        return world.cameras.scaled(request.camera_scale).relative_to(0)
    cameras = resolve_path(spec, frames, fps, null_intrinsics(height, width)).validate(f"--camera {spec}")
    if world is not None:
        cameras = cameras.with_intrinsics(world.cameras.intrinsics)
    elif request.intrinsics is not None:
        cameras = cameras.with_intrinsics(request.intrinsics).validate("--intrinsics")
        if framing is not None:
            cameras = cameras.with_intrinsics(framing.intrinsics(cameras.intrinsics))
    elif existing_path(spec) is not None:
        # A file knows the lens of its own video: take it, through the crop that the picture went through.
        own = resolve_path(spec, frames, fps).intrinsics
        if framing is None:
            # Without a picture its shape follows from square pixels: width / height = (fy/H) / (fx/W).
            source = 1000, max(1, round(1000 * float(np.median(own[:, 1] / own[:, 0]))))
            framing = Framing.cover(source, (height, width))
        cameras = cameras.with_intrinsics(framing.intrinsics(own))
    if not cameras.metric and request.camera_scale == 1.0:
        notes.append(
            f"{spec} does not say its unit; its path of {cameras.path_length:.2f} units is taken as metres. "
            "--camera-scale changes that."
        )
    return cameras.scaled(request.camera_scale, metric=True).relative_to(0)


def generate(plan: Plan) -> dict[str, Path]:
    """Carry out a plan and write its files; returns them by name.

    Files of an earlier run in the same folder are replaced, each only when its successor is complete.
    """
    import jax
    import numpy as np

    from camctrl_jax.data.video import write_mp4
    from camctrl_jax.metrics.psnr import psnr
    from camctrl_jax.pipeline import Pipeline
    from camctrl_jax.training.checkpoint import write_json
    from camctrl_jax.viz.trajectory import save_trajectory_figure
    from camctrl_jax.viz.video import frame_strip, video_grid, write_png
    from camctrl_jax.worlds import render_rgb

    request, out = plan.request, plan.request.out
    out.mkdir(parents=True, exist_ok=True)
    say = _Progress()
    started = time.monotonic()
    say(f"{request.checkpoint}: reading the weights")
    try:
        pipeline = Pipeline.load(plan.model, plan.autoencoder, float32=request.float32)
    except ValueError as error:  # damaged files, or weights of another preset
        raise GenerateError(str(error)) from error
    truth, condition = None, None
    if plan.world is not None:
        say(f"rendering world {plan.world.seed}")
        truth = np.asarray(render_rgb([plan.world], plan.height, plan.width))[0]
        condition = truth[None, :1]
    elif plan.first_frame is not None:
        condition = plan.first_frame[None, None]

    evaluations = plan.guidance.evaluations(camera_input=plan.model.mmdit_config.camera is not None)
    say(
        f"sampling {plan.frames} frames of {plan.height}x{plan.width} on {jax.devices()[0].device_kind}: "
        f"{request.steps} steps x {evaluations} model evaluations (compiling first)"
    )
    shift = pipeline.shift(plan.frames, plan.height, plan.width) if plan.shift is None else plan.shift
    latents = pipeline.sample(
        [plan.prompt],
        [request.seed],
        frames=plan.frames,
        height=plan.height,
        width=plan.width,
        guidance=plan.guidance,
        steps=request.steps,
        cameras=None if plan.cameras is None else [plan.cameras],
        condition=condition,
        shift=shift,
        progress=say.step,
    )
    say("decoding")
    video = pipeline.autoencoder.decode(latents)[0]
    sampled = time.monotonic()

    files = {"video": out / "video.mp4"}
    write_mp4(files["video"], video, plan.fps)
    rows, labels = [video], ["generated"]
    measured = {}
    if truth is not None:
        files |= {"truth": out / "truth.mp4", "comparison": out / "comparison.mp4"}
        write_mp4(files["truth"], truth, plan.fps)
        write_mp4(files["comparison"], video_grid(np.stack([truth, video]), columns=2), plan.fps)
        rows, labels = [truth, video], ["true render", "generated"]
        measured["psnr_db"] = float(psnr(video[1:], truth[1:]))
    if plan.cameras is not None:
        files["trajectory"] = out / "trajectory.png"
        save_trajectory_figure(plan.cameras, files["trajectory"])
    shown = shown_frames(plan.frames)
    times = [f"{index / plan.fps:.1f} s" for index in shown]
    files["frames"] = out / "frames.png"
    write_png(files["frames"], frame_strip(rows, shown, labels, times))
    files["settings"] = out / "generation.json"
    record = _record(plan, shift, measured, {name: path.name for name, path in files.items()})
    record["seconds"] = {
        "in all": round(time.monotonic() - started, 2),
        "to the video": round(sampled - started, 2),
    }
    write_json(files["settings"], record)
    return files


def shown_frames(frames: int) -> np.ndarray:
    """Indices of the frames of a strip: evenly spread, the first and the last among them."""
    import numpy as np

    return np.unique(np.linspace(0, frames - 1, min(STRIP_FRAMES, frames)).round().astype(int))


def _record(plan: Plan, shift: float, measured: dict, files: dict[str, str]) -> dict[str, Any]:
    """Everything that made a clip, JSON-able."""
    import jax

    import camctrl_jax
    from camctrl_jax.interop.pretrained import config_to_json

    cameras, device, framing = plan.cameras, jax.devices()[0], plan.framing
    return {
        "request": {name: str(value) if isinstance(value, Path) else value
                    for name, value in asdict(plan.request).items()},
        "weights": {
            "checkpoint": str(plan.model.path.absolute()),
            "autoencoder": str(plan.autoencoder.path.absolute()),
            "mmdit": config_to_json(plan.model.mmdit_config),
            "vae": config_to_json(plan.autoencoder.vae_config),
            "text": dict(plan.model.text),
        },
        "prompt": plan.prompt,
        "clip": {"frames": plan.frames, "fps": plan.fps, "height": plan.height, "width": plan.width},
        "first_frame": None if framing is None else asdict(framing),
        "sampling": {
            "seed": plan.request.seed,
            "noise": "jax.random.normal(jax.random.key(seed, impl='threefry2x32'), [L, h, w, C], float32)",
            "steps": plan.request.steps,
            "shift": shift,
            "guidance": asdict(plan.guidance),
            "dtype": "float32" if plan.request.float32 or device.platform == "cpu" else "bfloat16",
        },
        "camera": None if cameras is None else {
            "convention": "world_from_camera, OpenCV axes (x right, y down, z forward), metres; "
                          "intrinsics are fx/W, fy/H, cx/W, cy/H",
            "world_from_camera": cameras.world_from_camera.tolist(),
            "intrinsics": cameras.intrinsics.tolist(),
            "path_length_m": cameras.path_length,
            "total_rotation_deg": cameras.total_rotation,
        },
        "measured": measured,
        "files": files,
        "versions": {
            "camctrl_jax": camctrl_jax.__version__,
            **{name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "numpy")},
            "python": platform.python_version(),
            "device": f"{device.platform}: {device.device_kind}",
        },
    }  # fmt: skip


class _Progress:
    """Lines on standard error: what is being done, and how far the sampling is."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._live = clock, sys.stderr.isatty()
        self._first: float | None = None

    def __call__(self, message: str) -> None:
        print(message, file=sys.stderr, flush=True)

    def step(self, done: int, steps: int) -> None:
        """One sampling step is done; the first one includes compilation and is not counted as speed."""
        now = self._clock()
        if self._first is None:
            self._first = now
        rate = (now - self._first) / (done - 1) if done > 1 else None
        left = "" if rate is None else f", {rate:.2g} s a step, {rate * (steps - done):.0f} s left"
        line = f"  step {done}/{steps}{left}"
        if self._live:
            print(f"\r{line:60}", end="\n" if done == steps else "", file=sys.stderr, flush=True)
        elif done == steps or done % max(1, steps // 4) == 0:
            print(line, file=sys.stderr, flush=True)


def _parse(argv: Sequence[str] | None) -> Request:
    parser = argparse.ArgumentParser(
        prog="python -m camctrl_jax.generate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="folder for the results; created if needed")
    add("--prompt", help="what is in the scene")
    add("--camera", metavar="FILE|PRESET|WORDS", help="the camera path, see above")
    add("--image", type=Path, metavar="FILE", help="first frame: a picture, or a video's first frame")
    add(
        "--worlds-seed",
        type=int,
        metavar="N",
        help="start from procedural world N and compare with its true render",
    )
    weights = parser.add_argument_group("weights")
    add = weights.add_argument
    add(
        "--checkpoint",
        default="default",
        metavar="SPEC",
        help="'default' (in the package), a run directory, or a weights folder",
    )
    add("--vae", metavar="SPEC", help="another autoencoder than the one the checkpoint was trained with")
    add("--float32", action="store_true", help="compute in float32 on an accelerator too")
    sampling = parser.add_argument_group("sampling")
    add = sampling.add_argument
    add("--steps", type=int, default=32, help="Euler steps (default 32; 12 for a quick look)")
    add("--seed", type=int, default=0, help="of the noise (default 0)")
    add(
        "--text-guidance",
        type=float,
        metavar="W",
        help="weight of the prompt; 1 is none (default: the model's)",
    )
    add(
        "--camera-guidance",
        type=float,
        metavar="W",
        help="weight of the camera; 1 is none (default: the model's)",
    )
    add(
        "--guidance",
        choices=("eq3", "cfgp"),
        default="eq3",
        help="eq3: joint guidance; cfgp: CFG', weighs the camera without text too (one evaluation more)",
    )
    add(
        "--camera-guidance-without-text",
        type=float,
        metavar="W",
        help="first camera weight of cfgp (default: --camera-guidance)",
    )
    add("--shift", type=float, help="timestep shift (default: as in training)")
    clip = parser.add_argument_group("the clip (default: as the model was trained)")
    add = clip.add_argument
    add("--frames", type=int, help="4k+1")
    add("--fps", type=float, help="frames per second of the video and of spoken speeds")
    add("--height", type=int, help="pixels, a multiple of 16")
    add("--width", type=int, help="pixels, a multiple of 16")
    lens = parser.add_argument_group("the camera in detail")
    add = lens.add_argument
    add(
        "--camera-scale",
        type=float,
        default=1.0,
        metavar="F",
        help="multiply the path's translations, e.g. to metres for a file without a unit",
    )
    add(
        "--intrinsics",
        type=float,
        nargs=4,
        metavar=("FX", "FY", "CX", "CY"),
        help="of the image as fractions fx/W fy/H cx/W cy/H (default: the pose file's; else 53 degrees high)",
    )
    values = vars(parser.parse_args(argv))
    if values["intrinsics"] is not None:
        values["intrinsics"] = tuple(values["intrinsics"])
    return Request(**values)


if __name__ == "__main__":
    sys.exit(main())
