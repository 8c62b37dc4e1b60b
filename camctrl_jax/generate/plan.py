"""A request with everything looked up and checked, before any expensive work."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from camctrl_jax.camera import Cameras
from camctrl_jax.camera.formats import Convention
from camctrl_jax.camera.framing import Framing, null_intrinsics
from camctrl_jax.camera.orientation import Orientation
from camctrl_jax.camera.playing import PlayedPath, Playing, played_path
from camctrl_jax.camera.reading import Reading
from camctrl_jax.checkpoints.pipelines import check_clip_size, open_model
from camctrl_jax.checkpoints.weights import Weights
from camctrl_jax.clip_shape import ClipShape
from camctrl_jax.data.text import embedder_from_settings
from camctrl_jax.diffusion.guidance import Guidance
from camctrl_jax.diffusion.sampler import Sampling, initial_noise
from camctrl_jax.errors import InvalidValue
from camctrl_jax.extras import require
from camctrl_jax.generate.request import NO_CAMERA, Request
from camctrl_jax.interop.described import SamplingDefaults
from camctrl_jax.video.decoding import SourceFrame, list_images, read_frames
from camctrl_jax.worlds import World, WorldsConfig, sample_world
from camctrl_jax.worlds.splits import HELD_OUT_FIRST_SEED


@dataclass(frozen=True)
class Start:
    """Where a clip starts.

    Attributes:
        world: whose first frame and truth are rendered, or None.
        image: the picture as it was decoded, or None for T2V and for worlds.
        first_frame: u8 [H, W, 3] of it, or None.
        framing: how the image was cropped and resized.
    """

    world: World | None = None
    image: SourceFrame | None = None
    first_frame: np.ndarray | None = None
    framing: Framing | None = None

    @property
    def given(self) -> bool:
        """Whether the first frame is given."""
        return self.world is not None or self.first_frame is not None


@dataclass(frozen=True)
class Plan:
    """What will be done; nothing expensive has been done yet.

    Attributes:
        request: as asked.
        model, autoencoder: what the weights specs stand for.
        shape, fps, prompt, sampling: what will be used.
        start: where the clip starts.
        cameras: the path for the model, relative to its first frame, or None.
        notes: what the user should know, one line each.
    """

    request: Request
    model: Weights
    autoencoder: Weights
    shape: ClipShape
    fps: float
    prompt: str
    sampling: Sampling
    start: Start
    cameras: Cameras | None
    notes: tuple[str, ...]


def prepare(request: Request) -> Plan:
    """Look up weights, path and image and check that they fit together.

    Raises:
        UserError: names the value, file or extra at fault.
    """
    for module in ("av", "matplotlib"):
        require(module, extra="quickstart")
    if request.image is not None and request.worlds_seed is not None:
        raise InvalidValue("--image and --worlds-seed both give the first frame: choose one.")
    if request.intrinsics is not None and request.worlds_seed is not None:
        raise InvalidValue("--intrinsics and --worlds-seed clash: a world has a lens of its own.")
    if request.out.exists() and not request.out.is_dir():
        raise InvalidValue(f"--out {request.out} is a file: name a folder.")
    model, autoencoder = open_model(request.checkpoint, request.vae)
    notes: list[str] = []
    shape, fps = _clip(request, model.sampling, notes)
    shape = check_clip_size(model, autoencoder, shape)
    sampling = _sampling(request, model.sampling)
    initial_noise([request.seed], (1,))  # checks the seed
    start = _start(request, shape, fps, notes)
    prompt = _prompt(request.prompt, start, model, notes)
    if _wants_path(request, has_camera=model.mmdit_config.camera is not None):
        cameras = _path(request, shape, fps, start, notes)
        if start.world is not None and request.camera is not None:
            # The truth of this request is the same world seen along the path that was asked for.
            first = start.world.cameras.world_from_camera[0]
            start = replace(start, world=replace(start.world, cameras=cameras.transformed(first)))
    else:
        cameras = None
        # Without a path the camera branches are equal: leave them out.
        guidance = replace(sampling.guidance, camera=0.0, camera_without_text=None)
        sampling = replace(sampling, guidance=guidance)
    return Plan(request, model, autoencoder, shape, fps, prompt, sampling, start, cameras, tuple(notes))


def _clip(request: Request, defaults: SamplingDefaults, notes: list[str]) -> tuple[ClipShape, float]:
    """Size and frame rate."""
    frames, height, width, fps = (
        getattr(defaults if getattr(request, name) is None else request, name)
        for name in ("frames", "height", "width", "fps")
    )
    if not 0 < fps < float("inf"):
        raise InvalidValue(f"--fps {fps:g}: expected a positive number of frames per second.")
    if frames > defaults.frames:
        notes.append(f"{frames} frames are more than the {defaults.frames} the model was trained on.")
    if (height, width) != (defaults.height, defaults.width):
        notes.append(
            f"{height}x{width} is not the size the model was trained on, {defaults.height}x{defaults.width}."
        )
    return ClipShape(frames, height, width), fps


def _sampling(request: Request, defaults: SamplingDefaults) -> Sampling:
    text, camera = (
        getattr(defaults if getattr(request, name) is None else request, name)
        for name in ("text_guidance", "camera_guidance")
    )
    without_text = request.camera_guidance_without_text
    if request.guidance == "cfgp" and without_text is None:
        without_text = camera
    if request.guidance == "eq3" and without_text is not None:
        raise InvalidValue(
            "--camera-guidance-without-text belongs to --guidance cfgp; add that, or leave it out."
        )
    guidance = Guidance(text=text, camera=camera, camera_without_text=without_text)
    return Sampling(guidance, request.steps, request.shift)


def _start(request: Request, shape: ClipShape, fps: float, notes: list[str]) -> Start:
    seed = request.worlds_seed
    if seed is not None:
        if seed < 0:
            raise InvalidValue(f"--worlds-seed {seed}: expected 0 or more.")
        if seed < HELD_OUT_FIRST_SEED:
            notes.append(
                f"world {seed} may be one of the training worlds; held-out are {HELD_OUT_FIRST_SEED} and "
                "above."
            )
        config = WorldsConfig(frames=shape.frames, fps=fps, aspect=shape.width / shape.height)
        return Start(world=sample_world(seed, config))
    if request.image is not None:
        return _start_of_image(request.image, shape, notes)
    return Start()


def _start_of_image(path: Path, shape: ClipShape, notes: list[str]) -> Start:
    if path.is_dir() and list_images(path):
        path = list_images(path)[0]
    frame = next(read_frames(path))
    notes += [f"{path}: {remark}" for remark in frame.remarks]
    framing = Framing.cover(frame.size, (shape.height, shape.width))
    frame = replace(frame, name=path.name)
    return Start(image=frame, first_frame=frame.rgb(framing), framing=framing)


def _prompt(asked: str | None, start: Start, model: Weights, notes: list[str]) -> str:
    prompt = asked
    if prompt is None:
        prompt = start.world.captions[0] if start.world is not None else ""
    if prompt == "" and not start.given:
        notes.append("there is neither a prompt nor an image: the model chooses the scene itself.")
    embedder = embedder_from_settings(model.text)
    if embedder.truncated([prompt]):
        notes.append(f"the prompt is longer than {embedder.max_tokens} tokens; its end is left out.")
    return prompt


def _wants_path(request: Request, has_camera: bool) -> bool:
    """Whether the model is told what the camera does."""
    spec = request.camera
    if not has_camera:
        if spec is None or spec == NO_CAMERA:
            return False
        raise InvalidValue(
            f"{request.checkpoint} has no camera input: it is a base model. Train one from it "
            f"(configs/stage1.py with --config.init_from={request.checkpoint}), use --checkpoint default, or "
            "leave --camera out."
        )
    if spec == NO_CAMERA:
        return False
    if spec is None and request.worlds_seed is None:
        raise InvalidValue(
            '--camera is missing. Say what the camera does: --camera "dolly in 1 m", --camera orbit_left, '
            f"--camera path.txt, or --camera {NO_CAMERA}."
        )
    if not request.camera_scale > 0:
        raise InvalidValue(f"--camera-scale {request.camera_scale:g}: expected a positive factor.")
    return True


def _path(request: Request, shape: ClipShape, fps: float, start: Start, notes: list[str]) -> Cameras:
    """The path in metres from its first frame, with the lens of what is seen."""
    spec, world, framing = request.camera, start.world, start.framing
    if spec is None:
        return world.cameras.scaled(request.camera_scale).relative_to(0)
    played = _played(request, shape, fps, notes)
    cameras = played.cameras.validate(f"--camera {spec}")
    if played.source is not None and start.image is not None:
        cameras = _as_shown(cameras, played, start.image, request, notes)
    if world is not None:
        cameras = cameras.with_intrinsics(world.cameras.intrinsics)
    elif request.intrinsics is not None:
        cameras = cameras.with_intrinsics(request.intrinsics).validate("--intrinsics")
        if framing is not None:
            cameras = cameras.with_intrinsics(framing.intrinsics(cameras.intrinsics))
    elif played.source is not None and played.source.pose_file.intrinsics_from == "file":
        # A file knows the lens of its own video: take it, through the crop that the picture went through.
        own = cameras.intrinsics
        if framing is None:
            # Without a picture its shape follows from square pixels: width / height = (fy/H) / (fx/W).
            source = 1000, max(1, round(1000 * float(np.median(own[:, 1] / own[:, 0]))))
            framing = Framing.cover(source, (shape.height, shape.width))
        cameras = cameras.with_intrinsics(framing.intrinsics(own))
    else:
        cameras = cameras.with_intrinsics(_default_lens(played, shape))
    if not cameras.metric and request.camera_scale == 1.0:
        notes.append(
            f"{spec} does not say its unit; its path of {cameras.path_length:.2f} units is taken as metres. "
            "--camera-scale changes that."
        )
    return cameras.scaled(request.camera_scale, metric=True).relative_to(0)


def _played(request: Request, shape: ClipShape, fps: float, notes: list[str]) -> PlayedPath:
    """The path of --camera as the clip takes it, in the world that it comes in."""
    reading = Reading(
        request.source_format,
        request.image_size,
        Convention(request.invert, request.axes, request.quaternions),
    )
    playing = Playing(request.part, request.source_fps, own_pace=request.pace == "own")
    lens = null_intrinsics(shape.height, shape.width)
    played = played_path(request.camera, shape.frames, fps, intrinsics=lens, reading=reading, playing=playing)
    notes += [f"{request.camera}: {remark}" for remark in played.remarks]
    return played


def _default_lens(played: PlayedPath, shape: ClipShape) -> np.ndarray:
    """The lens of a preset or sentence; of a file without one that of a picture 53 degrees high."""
    if played.source is None:
        return played.cameras.intrinsics
    return null_intrinsics(shape.height, shape.width)


def _as_shown(
    cameras: Cameras, played: PlayedPath, image: SourceFrame, request: Request, notes: list[str]
) -> Cameras:
    """Cameras of the picture as it is shown, of a file that may hold those of the picture as it is stored."""
    pose_file = played.source.pose_file
    named = {Path(name).name: place for place, name in reversed([*enumerate(pose_file.names)])}
    first = range(len(pose_file.names))[slice(*(request.part or (None, None)))]
    place = named.get(image.name)
    if place is not None and first and first[0] != place:
        notes.append(
            f"{request.camera}: the picture {image.name} is frame {place} of the pose file, the path "
            f"begins at frame {first[0]}; --range {place}: begins at the picture."
        )
    if image.orientation == Orientation():
        return cameras
    (height, width), stored, size = image.size, image.stored_size, pose_file.image_size
    if size == (height, width) != stored:
        return cameras
    if size == stored != (height, width):
        notes.append(
            f"{request.image} is turned to be shown, and {request.camera} gives its size as it is stored, "
            f"{size[0]}x{size[1]}: its poses and lens are turned alike."
        )
        return image.orientation.cameras(cameras)
    remedy = " --image-size says which picture they belong to." if stored != (height, width) else ""
    notes.append(
        f"{request.image} is turned or mirrored to be shown; {request.camera} does not tell whether its "
        "poses were estimated before or after that, and is taken to belong to the picture as it is shown, "
        f"{height}x{width}.{remedy}"
    )
    return cameras
