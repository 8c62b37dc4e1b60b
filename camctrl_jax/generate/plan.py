"""A request with everything looked up and checked, before any expensive work."""

from __future__ import annotations

from dataclasses import dataclass, replace

from camctrl_jax.camera import Cameras
from camctrl_jax.camera.formats import existing_path
from camctrl_jax.camera.playing import given_options
from camctrl_jax.checkpoints.pipelines import check_clip_size, open_model
from camctrl_jax.checkpoints.weights import Weights
from camctrl_jax.clip_shape import ClipShape
from camctrl_jax.data.text import embedder_from_settings
from camctrl_jax.diffusion.sampler import Sampling, initial_noise
from camctrl_jax.errors import InvalidValue
from camctrl_jax.extras import require
from camctrl_jax.generate.path import path_of_request
from camctrl_jax.generate.request import NO_CAMERA, Request
from camctrl_jax.generate.start import Start, start_of_request
from camctrl_jax.interop.described import SamplingDefaults
from camctrl_jax.parallel.mesh import MeshConfig
from camctrl_jax.sampling.on_mesh import SamplingWork, mesh_of_words
from camctrl_jax.sampling.students import usual_sampling
from camctrl_jax.video.encoding import LEAST_FPS, MOST_FPS


@dataclass(frozen=True)
class Plan:
    """What will be done; nothing expensive has been done yet.

    Attributes:
        request: as asked, its steps filled in.
        model, autoencoder: what the weights specs stand for.
        shape, fps, prompt, sampling: what will be used.
        start: where the clip starts.
        cameras: the path for the model, relative to its first frame, or None.
        notes: what the user should know, one line each.
        mesh: the devices that share the work; None is one device.
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
    mesh: MeshConfig | None = None


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
    _check_path_options(request)
    model, autoencoder = open_model(request.checkpoint, request.vae)
    shape, fps, of_clip = _clip(request, model.sampling)
    shape = check_clip_size(model, autoencoder, shape)
    sampling = sampling_of_request(request, model)
    request = replace(request, steps=sampling.steps)
    initial_noise([request.seed], (1,))  # checks the seed
    start, of_start = start_of_request(request, shape, fps)
    sampling, of_history = _weighed(sampling, start)
    prompt, of_prompt = _prompt(request.prompt, start, model)
    of_path: tuple[str, ...] = ()
    if _wants_path(request, has_camera=model.mmdit_config.camera is not None):
        cameras, of_path = path_of_request(request, shape, fps, start)
        if start.world is not None and request.camera is not None:
            # The truth of this request is the same world seen along the path that was asked for.
            first = start.world.cameras.world_from_camera[0]
            start = replace(start, world=replace(start.world, cameras=cameras.transformed(first)))
    else:
        cameras = None
        if model.distilled is None:
            # Without a path the camera branches are equal: leave them out. A student has one call anyway.
            guidance = replace(sampling.guidance, camera=0.0, camera_without_text=None)
            sampling = replace(sampling, guidance=guidance)
    mesh, of_mesh = None, ()
    if request.mesh is not None:
        work = SamplingWork.of_clips(model.mmdit_config, shape, sampling.guidance)
        mesh, of_mesh = mesh_of_words(request.mesh, work)
    notes = (*of_clip, *of_start, *of_history, *of_prompt, *of_path, *of_mesh)
    return Plan(request, model, autoencoder, shape, fps, prompt, sampling, start, cameras, notes, mesh)


def _check_path_options(request: Request) -> None:
    """Refuse options of a pose file where there is none; those beside a preset, its reader refuses."""
    given = given_options(request.reading, request.playing)
    given += ["--poses-of"] if request.poses_of != "auto" else []
    if given and request.camera in (None, NO_CAMERA):
        where = "without --camera" if request.camera is None else f"with --camera {NO_CAMERA}"
        raise InvalidValue(
            f"{', '.join(given)}: there is no pose file {where} to read; name it with --camera, or leave the "
            "options out."
        )
    if request.poses_of != "auto" and (request.image is None or existing_path(request.camera) is None):
        lacks = "--image" if request.image is None else "pose file as --camera"
        raise InvalidValue(
            f"--poses-of {request.poses_of} says how the poses of a file belong to a turned --image: there "
            f"is no {lacks}; leave it out."
        )


def _clip(request: Request, defaults: SamplingDefaults) -> tuple[ClipShape, float, list[str]]:
    """Size, frame rate, and what there is to say about them."""
    notes = []
    frames, height, width, fps = (
        getattr(defaults if getattr(request, name) is None else request, name)
        for name in ("frames", "height", "width", "fps")
    )
    if not LEAST_FPS <= fps <= MOST_FPS:
        raise InvalidValue(f"--fps {fps:g}: expected frames per second, from {LEAST_FPS:g} to {MOST_FPS:g}.")
    if frames > defaults.frames:
        notes.append(f"{frames} frames are more than the {defaults.frames} the model was trained on.")
    if (height, width) != (defaults.height, defaults.width):
        notes.append(
            f"{height}x{width} is not the size the model was trained on, {defaults.height}x{defaults.width}."
        )
    return ClipShape(frames, height, width), fps, notes


def sampling_of_request(request: Request, model: Weights) -> Sampling:
    """How a request is sampled, before anything is known of where it starts.

    Raises:
        InvalidValue: options that clash, or that a student was not made for.
    """
    without_text = request.camera_guidance_without_text
    if request.guidance == "cfgp" and without_text is None:
        camera = request.camera_guidance
        without_text = model.sampling.camera_guidance if camera is None else camera
    if request.guidance == "eq3" and without_text is not None:
        raise InvalidValue(
            "--camera-guidance-without-text belongs to --guidance cfgp; add that, or leave it out."
        )
    return usual_sampling(
        *(model.sampling, model.distilled),
        steps=request.steps,
        text=request.text_guidance,
        camera=request.camera_guidance,
        camera_without_text=without_text,
        history=request.history_guidance,
        shift=request.shift,
    )


def _weighed(sampling: Sampling, start: Start) -> tuple[Sampling, list[str]]:
    """Without history guidance where nothing is given that it could weigh."""
    if start.given or sampling.guidance.history == 1.0:
        return sampling, []
    guidance = replace(sampling.guidance, history=1.0)
    note = "--history-guidance weighs the first frame; none is given, so it does nothing."
    return replace(sampling, guidance=guidance), [note]


def _prompt(asked: str | None, start: Start, model: Weights) -> tuple[str, list[str]]:
    prompt, notes = asked, []
    if prompt is None:
        prompt = start.world.captions[0] if start.world is not None else ""
    if prompt == "" and not start.given:
        notes.append("there is neither a prompt nor an image: the model chooses the scene itself.")
    embedder = embedder_from_settings(model.text)
    if embedder.truncated([prompt]):
        notes.append(f"the prompt is longer than {embedder.max_tokens} tokens; its end is left out.")
    return prompt, notes


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
