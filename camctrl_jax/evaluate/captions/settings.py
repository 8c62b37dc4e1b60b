"""What ``evaluate captions`` measures, and on how much."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from camctrl_jax.checkpoints.weights import Weights
from camctrl_jax.clip_shape import ClipShape
from camctrl_jax.diffusion.guidance import Guidance
from camctrl_jax.diffusion.sampler import Sampling
from camctrl_jax.errors import InvalidValue
from camctrl_jax.evaluate.students import check_rows, usual_row
from camctrl_jax.worlds import Places, World, WorldsConfig, sample_world
from camctrl_jax.worlds.splits import check_held_out

FIRST_SEED = 5_000_000
CALIBRATION_FIRST_SEED = 700_000
"""Worlds that the detector is calibrated on: training seeds."""

WORLDS = ("front", "places")
CAMERAS = ("given", "none")
CAMERA_GUIDANCE = 2.0
_TAKE = 241  # frames of the takes that windows of places are cut from


@dataclass(frozen=True)
class Settings:
    """What to measure; None is "as the model was trained" or, for amounts, "by the device".

    Attributes:
        out: folder for the results.
        checkpoint, vae: weights specs.
        worlds: "front", all in front of the first camera, or "places" to explore.
        count: captions.
        seeds: samples of each.
        steps: Euler steps.
        text_guidance: weights, each with each of ``cameras`` a row of the tables.
        cameras: "given", the world's own path, or "none".
        camera_guidance: weight where it is given.
        first_seed: of the worlds whose captions are taken.
        calibration: worlds that the detector is calibrated on.
        frames, height, width: of the clips, in pixels.
        samples: rays per pixel and axis of the renders.
        batch_size: clips at a time.
        motion: captions whose clips' motion strength is estimated, the first ones.
        shown: captions on the strip.
        float32: compute in float32 on an accelerator, too.
    """

    out: Path
    checkpoint: str = "default"
    vae: str | None = None
    worlds: str = "front"
    count: int | None = None
    seeds: int = 1
    steps: int | None = None
    text_guidance: tuple[float, ...] = (1.0,)
    cameras: tuple[str, ...] = ("given",)
    camera_guidance: float | None = None
    first_seed: int = FIRST_SEED
    calibration: int = 192
    frames: int | None = None
    height: int | None = None
    width: int | None = None
    samples: int = 2
    batch_size: int | None = None
    motion: int = 0
    shown: int = 6
    float32: bool = False

    def __post_init__(self) -> None:
        least = {
            "count": 2,
            "seeds": 1,
            "steps": 1,
            "calibration": 8,
            "samples": 1,
            "batch_size": 1,
            "motion": 0,
            "shown": 0,
        }
        for name, smallest in least.items():
            value = getattr(self, name)
            if value is not None and value < smallest:
                raise InvalidValue(f"{name}={value}: expected at least {smallest}.")
        if self.worlds not in WORLDS:
            raise InvalidValue(f"worlds={self.worlds!r}: expected one of {', '.join(WORLDS)}.")
        for name in ("cameras", "text_guidance"):
            value = getattr(self, name)
            if not isinstance(value, tuple) or not value or len(set(value)) < len(value):
                raise InvalidValue(f"{name}={value!r}: expected a tuple of one or more, each once.")
        if set(self.cameras) - set(CAMERAS):
            raise InvalidValue(f"cameras={self.cameras!r}: expected some of {', '.join(CAMERAS)}.")
        check_held_out(range(self.first_seed, self.first_seed + (self.count or 2)))
        self.rows()

    def resolved(self, on_accelerator: bool, model: Weights | None = None) -> Settings:
        """The same with every amount filled in.

        Args:
            on_accelerator: whether there is one.
            model: what is sampled; a student is sampled as its weights say, whatever the device.

        Raises:
            InvalidValue: steps or guidance that a student was not made for.
        """
        steps, weight = usual_row(model, 32 if on_accelerator else 8, CAMERA_GUIDANCE)
        settings = dataclasses.replace(
            self,
            count=self.count or (256 if on_accelerator else 12),
            steps=self.steps or steps,
            camera_guidance=weight if self.camera_guidance is None else self.camera_guidance,
            batch_size=self.batch_size or (32 if on_accelerator else 1),
        )
        check_rows(model, (sampling for _, sampling in settings.rows().values()))
        return settings

    def rows(self) -> dict[str, tuple[str, Sampling]]:
        """By name, whether cameras are given and how clips are sampled."""
        weight = CAMERA_GUIDANCE if self.camera_guidance is None else self.camera_guidance
        return {
            f"text {text:g}, camera {camera}": (
                camera,
                Sampling(Guidance(text, weight if camera == "given" else text), self.steps or 1),
            )
            for camera in self.cameras
            for text in self.text_guidance
        }

    def world(self, seed: int, shape: ClipShape) -> World:
        """The world of a seed, as long as a clip."""
        places = Places(take_frames=max(_TAKE, shape.frames)) if self.worlds == "places" else None
        return sample_world(
            seed, WorldsConfig(frames=shape.frames, aspect=shape.width / shape.height, places=places)
        )
