"""The weights that are explored with: what is known of them at once, and the pipeline once it is needed."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import numpy as np

from camctrl_jax.camera import Cameras
from camctrl_jax.camera.framing import Framing, null_intrinsics
from camctrl_jax.checkpoints.pipelines import check_clip_size, load_pipeline, open_model
from camctrl_jax.clip_shape import ClipShape
from camctrl_jax.data.text import TextEmbedder, embedder_from_settings
from camctrl_jax.diffusion.sampler import Sampling
from camctrl_jax.errors import ClipError, InvalidValue, UserError
from camctrl_jax.explore.problems import Refusal
from camctrl_jax.explore.quick import check_student
from camctrl_jax.explore.schema import Refinement, SamplingFields
from camctrl_jax.interop.described import config_to_json
from camctrl_jax.sampling.exploration_model import usual_extension
from camctrl_jax.sampling.on_mesh import SamplingWork, mesh_of_words, said
from camctrl_jax.sampling.pipeline import Extension, Pipeline
from camctrl_jax.sampling.students import fitting_sampling, unfit, usual_sampling
from camctrl_jax.video.containers import open_source
from camctrl_jax.video.decoding import read_frames
from camctrl_jax.worlds import World, WorldsConfig, render_rgb, sample_world
from camctrl_jax.worlds.windows import at_frames

MOST_PIXELS = 50_000_000
_LOOKED_AT = 64  # worlds, for what paths of training span
_INNER = (5, 95)  # percent
_WORLDS_KEPT = 16
_ROUNDED = 1.001


class Model:
    """Weights by their spec. Only :meth:`pipeline` reads parameters, and only the worker calls it."""

    def __init__(
        self,
        checkpoint: str,
        vae: str | None = None,
        *,
        float32: bool = False,
        mesh: str | None = None,
        teacher: Model | None = None,
    ) -> None:
        """Look the weights up.

        Args:
            checkpoint, vae: weights specs.
            float32: compute in float32 on an accelerator too.
            mesh: the words of ``--mesh``; None is one device.
            teacher: what these weights, a student's, make quick looks for. Its autoencoder is shared, and its
                devices are.

        Raises:
            UserError: there are none, or they have no camera; a mesh that cannot work; no student of that
                teacher.
        """
        self.checkpoint = checkpoint
        self.weights, self.autoencoder = open_model(checkpoint, vae)
        self._float32, self._pipeline, self._teacher = float32, None, teacher
        if self.weights.mmdit_config.camera is None:
            raise InvalidValue(f"{checkpoint} is a base model without a camera input: nobody could steer it.")
        if teacher is not None:
            check_student(self.weights, self.autoencoder, teacher.weights, teacher.autoencoder)
        defaults = self.weights.sampling
        self.shape: ClipShape = check_clip_size(
            *(self.weights, self.autoencoder), ClipShape(defaults.frames, defaults.height, defaults.width)
        )
        self.fps: float = defaults.fps
        self.extension: Extension = usual_extension(defaults, self.shape)
        self.sampling: Sampling = usual_sampling(defaults, self.weights.distilled)
        self._mesh, self.notes = None, ()
        if teacher is not None and teacher._mesh is not None:
            mesh = said(teacher._mesh)  # the autoencoder that they share lies there
        if mesh is not None:
            work = (self.weights.mmdit_config, self.shape, self.sampling.guidance, self.extension)
            self._mesh, self.notes = mesh_of_words(mesh, SamplingWork.of_clips(*work))
        self.world_of = functools.lru_cache(_WORLDS_KEPT)(_world_of)
        self.trained_on = self._spans() if teacher is None else teacher.trained_on

    @property
    def ready(self) -> bool:
        """Whether the parameters are in memory."""
        return self._pipeline is not None

    @property
    def student(self) -> dict[str, Any] | None:
        """What a student is, for the page and programs; None of a model that is none."""
        distilled = self.weights.distilled
        return None if distilled is None else config_to_json(distilled) | {"said": distilled.said}

    @property
    def added(self) -> int:
        """Frames of every clip but the first."""
        return self.shape.temporal_stride * self.extension.new_latents

    @property
    def lens(self) -> np.ndarray:
        """[4], of what starts from a picture or a prompt."""
        return null_intrinsics(self.shape.height, self.shape.width).astype(np.float64)

    def pipeline(self) -> Pipeline:
        """The parameters, read at the first call."""
        if self._pipeline is None:
            loaded = None if self._teacher is None else self._teacher.pipeline().autoencoder
            self._pipeline = load_pipeline(
                self.weights, self.autoencoder, float32=self._float32, mesh=self._mesh, loaded=loaded
            )
        return self._pipeline

    @functools.cached_property
    def embedder(self) -> TextEmbedder:
        """Of prompts. It needs no parameters."""
        return embedder_from_settings(self.weights.text)

    def check_prompt(self, prompt: str) -> None:
        """That all of a prompt reaches the weights.

        Raises:
            Refusal: its end would be left out.
        """
        if self.embedder.truncated([prompt]):
            raise Refusal(
                "bad_request",
                f"prompt: these weights take {self.embedder.max_tokens} words or parts of words, and the end "
                "of this prompt would be left out: make it shorter.",
                "prompt",
            )

    def world(self, seed: int) -> World:
        """A procedural world as long as a first clip."""
        return self.world_of(seed, *self._world_options())

    def first_frame(self, world: World) -> np.ndarray:
        """u8 [H, W, 3]."""
        return np.asarray(render_rgb([at_frames(world, [0])], self.shape.height, self.shape.width))[0, 0]

    def picture(self, content: bytes) -> np.ndarray:
        """An uploaded picture, or the first frame of a video, as u8 [H, W, 3] of the clips' size.

        Raises:
            Refusal: it is none, or too large to be decoded.
        """
        try:
            with open_source(content, "the picture") as opened:
                width, height = opened.stream.width, opened.stream.height
            if width * height > MOST_PIXELS:
                raise Refusal(
                    "too_large",
                    f"The picture has {width}x{height} pixels, more than {MOST_PIXELS / 1e6:.0f} million: "
                    "make it smaller.",
                    "image",
                )
            frame = next(read_frames(content, name="the picture"))
        except (ClipError, StopIteration) as error:
            raise Refusal("bad_request", f"image: {error or 'it holds no frame'}", "image") from error
        return frame.rgb(Framing.cover(frame.size, (self.shape.height, self.shape.width)))

    def asked(self, fields: SamplingFields | Refinement, usual: Sampling) -> Sampling:
        """How a request wants a clip sampled, where it differs from what is usual.

        Raises:
            Refusal: weights that are none, or what a student was not made for; names the field.
        """
        distilled = self.weights.distilled
        usual = fitting_sampling(usual, self.weights.sampling, distilled)
        guidance, weights = usual.guidance, fields.guidance
        try:
            if weights is not None:
                named = {"text": weights.text, "camera": weights.camera, "history": weights.history}
                guidance = replace(guidance, **{k: v for k, v in named.items() if v is not None})
            steps = usual.steps if fields.steps is None else fields.steps
            asked = replace(usual, guidance=guidance, steps=steps)
        except UserError as error:
            raise Refusal("bad_request", str(error), "guidance") from error
        found = unfit(asked, distilled)
        if found is not None:
            field, message = found
            raise Refusal("bad_request", message, field if field == "steps" else f"guidance.{field}")
        return asked

    def warnings(self, cameras: Cameras, frames: int) -> list[dict[str, str]]:
        """Where the path of a clip of so many frames leaves what these weights were trained on.

        Args:
            cameras: of the clip; where it goes on from another one, the last of that comes first.
            frames: that the clip gets.
        """
        share = frames / self.shape.frames
        speed, turning = _paces(cameras, self.fps)
        found = []
        for name, value, most, told in (
            ("length_m", cameras.path_length, share, "moves {:.1f} m in this clip"),
            ("rotation_deg", cameras.total_rotation, share, "turns {:.0f} degrees in this clip"),
            ("speed_m_s", speed, 1.0, "moves at {:.1f} m a second at its fastest"),
            ("turning_deg_s", turning, 1.0, "turns by {:.0f} degrees a second at its fastest"),
        ):
            span = self.trained_on[name]
            if span is not None and value > _ROUNDED * span[1] * most:
                found.append(
                    {
                        "type": "outside_training",
                        "message": f"The camera {told.format(value)}; in training it seldom did more than "
                        f"{span[1] * most:.1f}. The clip may follow it less.",
                    }
                )
        return found

    def _spans(self) -> dict[str, Any]:
        """What the paths of training span in a clip; known of weights that were trained on worlds."""
        names = ("length_m", "rotation_deg", "speed_m_s", "turning_deg_s")
        if self.weights.text.get("kind") != "words":
            return dict.fromkeys(names) | {"said": "not known of these weights"}
        paths = [_world_of(seed, *self._world_options()).cameras for seed in range(_LOOKED_AT)]
        values = [(path.path_length, path.total_rotation, *_paces(path, self.fps)) for path in paths]
        spans = np.percentile(values, _INNER, axis=0).T.round(2).tolist()
        share = f"{_INNER[1] - _INNER[0]} %"
        return dict(zip(names, spans, strict=True)) | {
            "said": f"{share} of the paths of procedural worlds, in a first clip"
        }

    def _world_options(self) -> tuple[int, float, float]:
        return self.shape.frames, self.fps, self.shape.width / self.shape.height


def _world_of(seed: int, frames: int, fps: float, aspect: float) -> World:
    """A procedural world of so many frames."""
    return sample_world(seed, WorldsConfig(frames=frames, fps=fps, aspect=aspect))


def _paces(cameras: Cameras, fps: float) -> tuple[float, float]:
    """Metres and degrees per second, where they are most."""
    if len(cameras) < 2:
        return 0.0, 0.0
    steps = np.linalg.norm(np.diff(cameras.positions, axis=0), axis=1)
    return float(steps.max() * fps), float(cameras.rotation_steps.max() * fps)
