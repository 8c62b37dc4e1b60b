"""What ``evaluate explorations`` measures, and on how much."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from camctrl_jax.checkpoints.weights import Weights
from camctrl_jax.clip_shape import ClipShape
from camctrl_jax.diffusion.guidance import Guidance
from camctrl_jax.diffusion.sampler import Sampling
from camctrl_jax.errors import InvalidValue
from camctrl_jax.evaluate.explorations.arms import Arm, parse_arm
from camctrl_jax.evaluate.students import check_rows, usual_row
from camctrl_jax.evaluate.worlds.sampling import given_frames
from camctrl_jax.worlds.places.routes import LEAST_FRAMES
from camctrl_jax.worlds.splits import EXPLORATIONS_FIRST_SEED, check_held_out

RETURNING = ("out_and_back", "there_and_back", "detour", "loop")
"""Routes that come back to places, which is what an exploration is measured on."""

PROMPTS = ("clips", "first", "none")


@dataclass(frozen=True)
class Size:
    """How much is measured, where the settings do not say."""

    count: int
    clips: int
    steps: int
    batch_size: int


ACCELERATOR = Size(32, 10, 32, 8)
LAPTOP = Size(4, 4, 4, 1)
CAMERA_GUIDANCE = 2.0


@dataclass(frozen=True)
class Settings:
    """What to measure; None is "as the model was trained" or, for amounts, "by the device" (``Size``).

    Attributes:
        out: folder for the results.
        checkpoint, vae: weights specs.
        arms: names, see ``arms.parse_arm``; None: those that the weights were trained for.
        count: worlds.
        clips: in a row, the first one included.
        steps: Euler steps.
        camera_guidance, text_guidance: weights.
        routes: some of ``RETURNING``, in turns; None: those for which the explorations are long enough.
        prompts: "clips": each clip has the caption of its own frames, as in training; "first": that of the
            first clip; "none".
        first_seed: of the worlds.
        frames, height, width: of a clip, in pixels.
        new_frames: that each further clip adds, a multiple of 4; None: what 13 given frames leave.
        samples: rays per pixel and axis of the render.
        batch_size: worlds at a time.
        poses: worlds whose cameras are estimated, the first ones.
        shown: worlds on the strips.
        keep: write all videos, lossless.
        float32: compute in float32 on an accelerator, too.
        laptop: the smaller amounts; None is by the device.
    """

    out: Path
    checkpoint: str = "default"
    vae: str | None = None
    arms: tuple[str, ...] | None = None
    count: int | None = None
    clips: int | None = None
    steps: int | None = None
    camera_guidance: float | None = None
    text_guidance: float = 1.0
    routes: tuple[str, ...] | None = None
    prompts: str = "clips"
    first_seed: int = EXPLORATIONS_FIRST_SEED
    frames: int | None = None
    height: int | None = None
    width: int | None = None
    new_frames: int | None = None
    samples: int = 2
    batch_size: int | None = None
    poses: int = 0
    shown: int = 6
    keep: bool = False
    float32: bool = False
    laptop: bool | None = None

    def __post_init__(self) -> None:
        least = {"count": 1, "clips": 2, "steps": 1, "samples": 1, "batch_size": 1, "poses": 0, "shown": 0}
        for name, smallest in least.items():
            value = getattr(self, name)
            if value is not None and value < smallest:
                raise InvalidValue(f"{name}={value}: expected at least {smallest}.")
        if self.new_frames is not None and (self.new_frames < 4 or self.new_frames % 4):
            raise InvalidValue(f"new_frames={self.new_frames}: expected a multiple of 4, such as 36.")
        if self.prompts not in PROMPTS:
            raise InvalidValue(f"prompts={self.prompts!r}: expected one of {', '.join(PROMPTS)}.")
        for name, values in (("arms", self.arms), ("routes", self.routes)):
            if values is not None and (
                isinstance(values, str) or not values or len(set(values)) < len(values)
            ):
                raise InvalidValue(f"{name}={values!r}: expected a tuple of one or more, each once.")
        for route in self.routes or ():
            if route not in RETURNING:
                raise InvalidValue(f"routes: {route!r} is none of {', '.join(RETURNING)}.")
        for name in self.arms or ():
            self.sampling(parse_arm(name))
        check_held_out(range(self.first_seed, self.first_seed + (self.count or 1)))
        self.sampling(None)

    def resolved(self, on_accelerator: bool, model: Weights | None = None) -> Settings:
        """The same with every amount filled in.

        Args:
            on_accelerator: whether there is one.
            model: what is sampled; a student is sampled as its weights say, whatever the device.

        Raises:
            InvalidValue: steps or guidance, those of an arm included, that a student was not made for.
        """
        small = not on_accelerator if self.laptop is None else self.laptop
        size = LAPTOP if small else ACCELERATOR
        # What fits in memory is a question of the device, not of how much is asked for.
        batch = (ACCELERATOR if on_accelerator else LAPTOP).batch_size
        steps, weight = usual_row(model, size.steps, CAMERA_GUIDANCE)
        settings = dataclasses.replace(
            self,
            count=self.count or size.count,
            clips=self.clips or size.clips,
            steps=self.steps or steps,
            camera_guidance=weight if self.camera_guidance is None else self.camera_guidance,
            batch_size=self.batch_size or batch,
            laptop=small,
        )
        check_rows(model, map(settings.sampling, (None, *map(parse_arm, self.arms or ()))))
        return settings

    def sampling(self, arm: Arm | None) -> Sampling:
        """Of an arm; of None that of the first clip, which has no history and is the same for all arms."""
        camera = CAMERA_GUIDANCE if self.camera_guidance is None else self.camera_guidance
        guidance = Guidance(self.text_guidance, camera, history=1.0 if arm is None else arm.history)
        return Sampling(guidance, self.steps or 1, condition_noise=0.0 if arm is None else arm.noise)


@dataclass(frozen=True)
class Plan:
    """How long everything is.

    Attributes:
        shape: of a clip, as the model makes it.
        clips: in a row.
        added: frames that each further clip adds, the same for all arms.
    """

    shape: ClipShape
    clips: int
    added: int

    @classmethod
    def of(cls, settings: Settings, shape: ClipShape) -> Plan:
        """Of settings that are resolved.

        Raises:
            InvalidValue: clips too short to go on from, or that add more than they hold.
        """
        added = settings.new_frames or shape.frames - given_frames("extension", shape)
        if not 0 < added < shape.frames:
            raise InvalidValue(
                f"--new-frames {added}: clips of {shape.frames} frames can add at most "
                f"{shape.frames - 1}, and need 9 frames or more to be gone on from."
            )
        return cls(shape, settings.clips, added)

    @property
    def frames(self) -> int:
        """Of an exploration."""
        return self.shape.frames + (self.clips - 1) * self.added

    def new(self, clip: int) -> range:
        """The frames that a clip adds; of the first one all."""
        if clip == 0:
            return range(self.shape.frames)
        start = self.shape.frames + (clip - 1) * self.added
        return range(start, start + self.added)

    def routes(self, settings: Settings) -> tuple[str, ...]:
        """Those that the worlds have in turns.

        Raises:
            InvalidValue: a route that is asked for needs longer explorations.
        """
        # Of places at twelve frames a second, as all these are.
        fits = [route for route in RETURNING if LEAST_FRAMES[route] <= self.frames]
        for route in settings.routes or ():
            if route not in fits:
                raise InvalidValue(
                    f"--routes {route}: explorations of {self.clips} clips have {self.frames} frames, and it "
                    f"needs {LEAST_FRAMES[route]}. Take more --clips, or leave it out."
                )
        if not fits:
            raise InvalidValue(
                f"explorations of {self.frames} frames are too short to come back; they need "
                f"{min(LEAST_FRAMES[route] for route in RETURNING)}. Take more --clips."
            )
        return settings.routes or tuple(fits)
