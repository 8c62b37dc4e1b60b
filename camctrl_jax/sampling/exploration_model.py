"""What an exploration asks of a model: settings that it can meet, and a first frame of its size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from camctrl_jax.camera.framing import Framing
from camctrl_jax.clip_shape import ClipShape, frames_of
from camctrl_jax.diffusion.sampler import Sampling, initial_noise
from camctrl_jax.errors import InvalidValue
from camctrl_jax.interop.described import SamplingDefaults
from camctrl_jax.sampling.exploration_folder import Clip, ExplorationSettings, storable
from camctrl_jax.sampling.pipeline import Extension, Pipeline
from camctrl_jax.sampling.students import check_sampling, usual_sampling
from camctrl_jax.video.decoding import read_frames
from camctrl_jax.video.encoding import LEAST_FPS, MOST_FPS

_WITH_MEMORY, _WITHOUT = 2, 4  # condition latents: 5 frames beside retrieved ones, 13 alone


def usual_extension(defaults: SamplingDefaults, shape: ClipShape) -> Extension:
    """How a clip goes on unless it is asked otherwise, in a window as long as the first clip.

    From its last 5 frames and as many retrieved ones as the weights were trained with; of weights without
    memory from the last 13, or a third of a shorter clip.
    """
    given = _WITH_MEMORY if defaults.retrieved else min(_WITHOUT, max(2, shape.latents // 3))
    given = min(given, shape.latents - 1)
    return Extension(shape.latents - given, given, defaults.retrieved)


def window_shape(pipeline: Pipeline, settings: ExplorationSettings) -> ClipShape:
    """Of the first clip, with the strides of the autoencoder."""
    return pipeline.autoencoder.config.clip_shape(settings.frames, settings.height, settings.width)


def settings_of(
    pipeline: Pipeline,
    seed: int,
    shape: ClipShape | None,
    fps: float | None,
    sampling: Sampling | None,
    extension: Extension | None,
) -> ExplorationSettings:
    """With everything that is not asked as the weights were trained."""
    defaults = pipeline.defaults
    shape = shape or ClipShape(defaults.frames, defaults.height, defaults.width)
    fps = defaults.fps if fps is None else fps
    if not LEAST_FPS <= fps <= MOST_FPS:
        raise InvalidValue(f"fps is {fps}: expected frames per second, from {LEAST_FPS:g} to {MOST_FPS:g}.")
    if sampling is None:
        sampling = usual_sampling(defaults, pipeline.distilled)
    check_sampling(sampling, pipeline.distilled)
    # With the strides of the autoencoder, before an extension is made of it.
    shape = pipeline.autoencoder.config.clip_shape(shape.frames, shape.height, shape.width)
    shape.check(pipeline.denoiser.config.patch, least_latents=2)
    extension = extension or usual_extension(defaults, shape)
    settings = storable(
        ExplorationSettings(
            *(seed, fps, shape.frames, shape.height, shape.width), extension, sampling, pipeline.fingerprint
        )
    )
    check_model(pipeline, settings)
    return settings


def check_model(pipeline: Pipeline, settings: ExplorationSettings) -> None:
    """That a model can make clips of an exploration."""
    if pipeline.denoiser.config.camera is None:
        raise InvalidValue("An exploration needs weights with a camera input, and these are a base model's.")
    initial_noise([settings.seed], (1,))  # checks the seed
    shape = window_shape(pipeline, settings).check(pipeline.denoiser.config.patch, least_latents=2)
    extension = settings.extension
    if extension.condition_latents > shape.latents:
        raise InvalidValue(
            f"An extension goes on from {extension.condition_latents} latents, and the first clip has "
            f"{shape.latents}: take fewer condition_latents, or longer clips."
        )
    if extension.retrieved and not pipeline.defaults.retrieved:
        raise InvalidValue(
            f"Extension.retrieved={extension.retrieved}, and these weights were trained without retrieved "
            "frames: take 0, or weights of a stage 2 with memory."
        )


def picture_of(image: np.ndarray | str | Path, settings: ExplorationSettings) -> np.ndarray:
    """The first frame, u8 [H, W, 3] of the clip's size."""
    size = settings.height, settings.width
    if not isinstance(image, np.ndarray):
        frame = next(read_frames(image))
        return frame.rgb(Framing.cover(frame.size, size))
    if image.dtype != np.uint8 or image.shape != (*size, 3):
        raise InvalidValue(
            f"The image is {image.dtype} {list(image.shape)}: expected uint8 [{size[0]}, {size[1]}, 3], or "
            "the path of a picture, which is cropped and resized."
        )
    return image


def completed(clip: Clip, pipeline: Pipeline, settings: ExplorationSettings) -> Clip:
    """The record of a clip that is about to be made, checked, with what makes it.

    Raises:
        InvalidValue: a prompt or seed that is none, a sampling that a student was not made for, or what
            could not be read again.
    """
    if not isinstance(clip.prompt, str):
        raise InvalidValue(f"The prompt is {clip.prompt!r}: expected a text.")
    clip = storable(clip)
    initial_noise([clip.seed], (1,))  # checks the seed
    sampling = check_sampling(clip.sampling, pipeline.distilled)
    if sampling.shift is None:
        # That of the window it is made in, so that the record says all of it.
        given = 0 if clip.parent is None else frames_of(settings.extension.condition_latents)
        window = replace(window_shape(pipeline, settings), frames=given + clip.frames)
        sampling = replace(sampling, shift=pipeline.shift(window))
    return replace(
        clip,
        sampling=sampling,
        fingerprint=pipeline.fingerprint,
        student=pipeline.distilled is not None,
        made_on=f"{_devices_of(pipeline)}, {jnp.dtype(pipeline.denoiser.dtype).name}",
    )


def _devices_of(pipeline: Pipeline) -> str:
    """What it samples on, in words: on a mesh sums are rounded in another order."""
    kind, mesh = jax.devices()[0].device_kind, pipeline.mesh
    if mesh is None:
        return kind
    sizes = (f"{axis}={size}" for axis, size in mesh.shape.items() if size > 1)
    return f"{mesh.size} x {kind} ({', '.join(sizes)})"
