"""What ``evaluate worlds`` measures, and on how much."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from camctrl_jax.checkpoints.weights import Weights
from camctrl_jax.clip_shape import ClipShape
from camctrl_jax.diffusion.guidance import Guidance
from camctrl_jax.diffusion.sampler import Sampling
from camctrl_jax.errors import InvalidValue
from camctrl_jax.evaluate.students import check_rows, usual_row
from camctrl_jax.interop.described import SamplingDefaults
from camctrl_jax.worlds.benchmark import BENCHMARK_SCENES
from camctrl_jax.worlds.splits import HELD_OUT_FIRST_SEED, check_held_out

TASKS = ("i2v", "t2v", "extension")
PATHS = ("benchmark", "own")


@dataclass(frozen=True)
class Size:
    """How much is measured, where the settings do not say.

    Attributes:
        count: scenes.
        seeds: samples of each.
        steps: Euler steps.
        camera_guidance: weight of the camera.
        batch_size: scenes at a time.
        motion: scenes whose motion and appearance are looked at: about five seconds of a core a clip,
            and six clips a scene.
    """

    count: int
    seeds: int
    steps: int
    camera_guidance: float
    batch_size: int
    motion: int


ACCELERATOR = Size(BENCHMARK_SCENES, 4, 32, 2.0, 32, 29)
LAPTOP = Size(10, 2, 8, 2.0, 1, 5)
"""Every class of paths once and a standing camera; few steps: under 15 minutes on two cores."""


@dataclass(frozen=True)
class Settings:
    """What to measure; None is "as the model was trained" or, for amounts, "by the device" (``Size``).

    Attributes:
        out: folder for the results.
        checkpoint, vae: weights specs.
        count: scenes, the first ones of the benchmark.
        seeds: samples of each scene and task, of other noise.
        steps, camera_guidance: each with each is one row of the tables.
        text_guidance, history_guidance: weights of the text, and of given frames (1 is none).
        tasks: some of ``TASKS``.
        paths: "benchmark", or "own": the worlds from ``first_seed`` on with the paths drawn with them.
        first_seed: of the worlds with paths of their own.
        frames, height, width: of the clips, in pixels.
        samples: rays per pixel and axis of the render.
        batch_size: scenes at a time.
        shown: scenes on each strip, the best and the worst ones.
        videos: write every scene as a video, too.
        float32: compute in float32 on an accelerator, too.
        features: spec of the clip features of the Frechet distance; "none" leaves it out.
        motion: scenes whose motion strength and appearance consistency are estimated, the first ones; 0
            leaves them out. None is by the device, and none where OpenCV is not installed.
        poses: scenes whose cameras are estimated by structure from motion, the first ones: 29 are every class
            of paths at every difficulty once, and two standing cameras; 57 are that twice, and three.
        laptop: the smaller amounts; None is by the device.
    """

    out: Path
    checkpoint: str = "default"
    vae: str | None = None
    count: int | None = None
    seeds: int | None = None
    steps: tuple[int, ...] | None = None
    camera_guidance: tuple[float, ...] | None = None
    text_guidance: float = 1.0
    history_guidance: float = 1.0
    tasks: tuple[str, ...] = TASKS
    paths: str = "benchmark"
    first_seed: int | None = None
    frames: int | None = None
    height: int | None = None
    width: int | None = None
    samples: int = 2
    batch_size: int | None = None
    shown: int = 3
    videos: bool = False
    float32: bool = False
    features: str = "default"
    motion: int | None = None
    poses: int = 0
    laptop: bool | None = None

    def __post_init__(self) -> None:
        for name, least in (
            ("samples", 1),
            ("seeds", 1),
            ("batch_size", 1),
            ("shown", 0),
            ("poses", 0),
            ("motion", 0),
        ):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InvalidValue(f"{name}={value}: expected at least {least}.")
        for name in ("steps", "camera_guidance"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, tuple) or not value):
                raise InvalidValue(
                    f"{name}={value!r}: expected a tuple of one or more numbers, such as (2, 32)."
                )
        for name, known in (("tasks", TASKS), ("paths", PATHS)):
            value = getattr(self, name)
            unknown = set((value,) if isinstance(value, str) else value) - set(known)
            if unknown:
                raise InvalidValue(f"{name}: {sorted(unknown)} is none of {', '.join(known)}.")
        if self.count is not None and self.count < 2:
            raise InvalidValue(
                f"count={self.count}: at least 2 scenes are needed, each is the other's decoy."
            )
        if self.paths == "benchmark":
            if self.first_seed is not None:
                raise InvalidValue(
                    f"first_seed={self.first_seed}: the benchmark's scenes have fixed seeds. Take --paths "
                    "own for other worlds, with the paths that were drawn with them."
                )
            if self.count is not None and self.count > BENCHMARK_SCENES:
                raise InvalidValue(f"count={self.count}: the benchmark has {BENCHMARK_SCENES} scenes.")
        else:
            check_held_out(range(self._first_seed, self._first_seed + (self.count or 2)))
        self.samplings()

    @property
    def _first_seed(self) -> int:
        return HELD_OUT_FIRST_SEED if self.first_seed is None else self.first_seed

    def resolved(self, on_accelerator: bool, model: Weights | None = None) -> Settings:
        """The same with every amount filled in.

        Args:
            on_accelerator: whether there is one.
            model: what is sampled; a student is sampled as its weights say, whatever the device.

        Raises:
            InvalidValue: steps or guidance that a student was not made for.
        """
        small = not on_accelerator if self.laptop is None else self.laptop
        size = LAPTOP if small else ACCELERATOR
        # What fits in memory is a question of the device, not of how much is asked for.
        batch = (ACCELERATOR if on_accelerator else LAPTOP).batch_size
        steps, weight = usual_row(model, size.steps, size.camera_guidance)
        settings = dataclasses.replace(
            self,
            count=self.count or size.count,
            seeds=self.seeds or size.seeds,
            steps=self.steps or (steps,),
            camera_guidance=self.camera_guidance or (weight,),
            batch_size=self.batch_size or batch,
            first_seed=self._first_seed if self.paths == "own" else None,
            motion=size.motion if self.motion is None else self.motion,
            laptop=small,
        )
        check_rows(model, settings.samplings())
        return settings

    def samplings(self) -> list[Sampling]:
        """One for each row of the tables, of settings that are :meth:`resolved`."""
        return [
            Sampling(Guidance(self.text_guidance, weight, history=self.history_guidance), steps)
            for steps, weight in product(self.steps or (1,), self.camera_guidance or (1.0,))
        ]

    def shape(self, defaults: SamplingDefaults) -> ClipShape:
        """As asked for, or the defaults."""
        return ClipShape(
            *(
                getattr(defaults if getattr(self, name) is None else self, name)
                for name in ("frames", "height", "width")
            )
        )


def row_name(sampling: Sampling) -> str:
    """How a row is called in files: ``32 steps, camera 2, text 1``."""
    guidance = sampling.guidance
    history = "" if guidance.history == 1.0 else f", history {guidance.history:g}"
    return f"{sampling.steps} steps, camera {guidance.camera:g}, text {guidance.text:g}{history}"
