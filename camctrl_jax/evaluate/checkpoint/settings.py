"""What ``evaluate checkpoint`` is asked to do."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from camctrl_jax.camera.reading import Reading
from camctrl_jax.diffusion.guidance import Guidance
from camctrl_jax.diffusion.sampler import Sampling
from camctrl_jax.errors import InvalidValue, MissingFile
from camctrl_jax.evaluate.videos.settings import LEAST
from camctrl_jax.interop.described import Distilled, SamplingDefaults
from camctrl_jax.sampling.students import check_sampling

TASKS = ("i2v", "t2v", "extension")


@dataclass(frozen=True)
class Amounts:
    """How much is sampled where the settings do not say: seeds of each clip, Euler steps, clips at a time."""

    seeds: int
    steps: int
    batch_size: int


ACCELERATOR = Amounts(2, 32, 8)
CPU = Amounts(1, 8, 1)


@dataclass(frozen=True)
class CheckpointSettings:
    """What to measure; None is "as the model was trained" or, for amounts, "by the device" (``Amounts``).

    Attributes:
        out: folder for clips and results; what is there already of the same weights and settings is kept.
        checkpoint, vae: weights specs.
        videos: a video, a folder of pictures, or a folder with any of these below it; or None.
        cameras: its pose files, as ``build_dataset videos --poses`` takes them.
        captions: its captions, as ``build_dataset videos --captions`` takes them, or None.
        dataset: a folder that ``build_dataset`` wrote, in place of these three.
        count: at most so many clips; None is all.
        per_video: at most so many clips of one video, one after the other from its start.
        image_fps: of folders of pictures; None is ``fps``.
        reading: how to read the pose files.
        poses_of: whether poses of turned pictures belong to them as "shown" or as "stored"; "auto".
        camera_scale: factor on all translations, to the unit that the model was trained in.
        tasks: some of ``TASKS``.
        seeds: samples of each clip and task, of other noise.
        steps, camera_guidance: each with each is one row of the tables.
        text_guidance, history_guidance: weights of the text, and of given frames (1 is none).
        clips: more than 1 are explorations: so many clips, each going on from the one before.
        retrieved: earlier frames that each further clip is shown; None is as many as the weights were trained
            with.
        decoys: also sample I2V of every clip along the path of another one.
        frames, height, width, fps: of the clips.
        batch_size: clips at a time.
        float32: compute in float32 on an accelerator, too.
        estimates: measure with estimators, as ``evaluate videos`` does.
        pose_frames, longest_side, known_lens, jobs: as of ``evaluate videos``.
        shown: clips on each of ``best.png`` and ``worst.png``.
    """

    out: Path
    checkpoint: str = "default"
    vae: str | None = None
    videos: Path | None = None
    cameras: Path | None = None
    captions: Path | None = None
    dataset: Path | None = None
    count: int | None = None
    per_video: int = 1
    image_fps: float | None = None
    reading: Reading = field(default_factory=Reading)
    poses_of: str = "auto"
    camera_scale: float = 1.0
    tasks: tuple[str, ...] = ("i2v",)
    seeds: int | None = None
    steps: tuple[int, ...] | None = None
    camera_guidance: tuple[float, ...] | None = None
    text_guidance: float | None = None
    history_guidance: float = 1.0
    clips: int = 1
    retrieved: int | None = None
    decoys: bool = False
    frames: int | None = None
    height: int | None = None
    width: int | None = None
    fps: float | None = None
    batch_size: int | None = None
    float32: bool = False
    estimates: bool = True
    pose_frames: int = 16
    longest_side: int = 640
    known_lens: bool = True
    jobs: int = 1
    shown: int = 3

    def __post_init__(self) -> None:
        least = {"count": 1, "per_video": 1, "seeds": 1, "clips": 1, "batch_size": 1, "retrieved": 0, **LEAST}
        for name, value in least.items():
            given = getattr(self, name, None)
            if given is not None and given < value:
                raise InvalidValue(f"--{name.replace('_', '-')} {given}: expected {value} or more.")
        for name in ("steps", "camera_guidance"):
            if getattr(self, name) == ():
                raise InvalidValue(f"--{name.replace('_', '-')}: expected one or more numbers.")
        unknown = sorted(set(self.tasks) - set(TASKS))
        if unknown or not self.tasks:
            raise InvalidValue(f"--tasks {' '.join(unknown)}: expected some of {', '.join(TASKS)}.")
        if self.decoys and "i2v" not in self.tasks:
            raise InvalidValue("--decoys are paths of i2v: add i2v to --tasks, or leave --decoys out.")
        for name in ("fps", "image_fps", "camera_scale"):
            given = getattr(self, name)
            if given is not None and not 0 < given < float("inf"):
                raise InvalidValue(f"--{name.replace('_', '-')} {given:g}: expected a positive number.")
        if self.out.exists() and not self.out.is_dir():
            raise InvalidValue(f"--out {self.out} is a file: name a folder.")
        self._check_clips()

    def _check_clips(self) -> None:
        if (self.videos is None) == (self.dataset is None):
            raise InvalidValue(
                "Name the clips to compare with: --videos DIR with --cameras DIR, or --dataset DIR (one of "
                "the two)."
            )
        if self.videos is not None:
            if self.cameras is None:
                raise InvalidValue(
                    "--videos needs --cameras: a folder with a pose file of the same name for each video."
                )
            for name in ("videos", "cameras"):
                if not getattr(self, name).exists():
                    raise MissingFile(f"--{name} {getattr(self, name)}: no such file or folder.")
            if self.captions is None and "t2v" in self.tasks:
                raise InvalidValue("--tasks t2v makes clips from captions: name them with --captions.")
            return
        unset = {"cameras": None, "captions": None, "image_fps": None, "per_video": 1, "poses_of": "auto"}
        given = [
            f"--{name.replace('_', '-')}" for name, value in unset.items() if getattr(self, name) != value
        ]
        given += ["how to read pose files"] if self.reading != Reading() else []
        if given:
            raise InvalidValue(f"{', '.join(given)}: belongs to --videos; a --dataset holds its own.")

    def resolved(
        self, defaults: SamplingDefaults, on_accelerator: bool, distilled: Distilled | None = None
    ) -> CheckpointSettings:
        """The same with every amount filled in.

        Args:
            defaults: of the weights.
            on_accelerator: whether there is one.
            distilled: of a student, which is sampled as its weights say, whatever the device.

        Raises:
            InvalidValue: steps or guidance that a student was not made for.
        """
        amounts = ACCELERATOR if on_accelerator else CPU
        steps = amounts.steps if distilled is None else defaults.steps
        settings = dataclasses.replace(
            self,
            seeds=self.seeds or amounts.seeds,
            steps=tuple(dict.fromkeys(self.steps or (steps,))),
            batch_size=self.batch_size or amounts.batch_size,
            camera_guidance=tuple(dict.fromkeys(self.camera_guidance or (defaults.camera_guidance,))),
            text_guidance=defaults.text_guidance if self.text_guidance is None else self.text_guidance,
            retrieved=defaults.retrieved if self.retrieved is None else self.retrieved,
            fps=self.fps or defaults.fps,
        )
        for sampling in settings.samplings():
            check_sampling(sampling, distilled)
        return settings

    def samplings(self) -> list[Sampling]:
        """One for each row of the tables, of settings that are :meth:`resolved`."""
        return [
            Sampling(Guidance(self.text_guidance, weight, history=self.history_guidance), steps)
            for steps, weight in product(self.steps, self.camera_guidance)
        ]


def row_folder(sampling: Sampling) -> str:
    """What the folder of a row is called: ``steps32_camera2_text1``."""
    guidance = sampling.guidance
    history = "" if guidance.history == 1.0 else f"_history{guidance.history:g}"
    return f"steps{sampling.steps}_camera{guidance.camera:g}_text{guidance.text:g}{history}"
