"""Arms of a comparison: from which frames each clip of an exploration goes on."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

import numpy as np

from camctrl_jax.camera import Cameras
from camctrl_jax.camera.retrieval import select_frames
from camctrl_jax.clip_shape import ClipShape, frames_of, latents_of
from camctrl_jax.errors import InvalidValue

FIRST, RANDOM, RETRIEVED, TRUTH = "first", "random", "retrieved", "truth"
_RECENT = 5  # last frames of arms with a memory, unless their name says
_STREAM = 71  # keeps random choices apart from other draws of the same seed

_EXPECTED = (
    "expected last-49, last-13, last-5 (4k + 1 last frames), last-5-first, random-4, retrieved-4 or "
    "retrieved-4-truth, each perhaps with +history1.5 or +noise0.05"
)


@dataclass(frozen=True)
class Arm:
    """One way to go on.

    Attributes:
        name: as it was given.
        last: the frames that are given from the end of the video, 4k + 1.
        memory: what is retrieved beside them: "" for nothing, or one of ``FIRST`` (the first frame alone),
            ``RANDOM``, ``RETRIEVED`` (by what the coming cameras will see) and ``TRUTH`` (the same frames of
            the true render: what memory could do if the video had no faults).
        retrieved: how many frames; 0 is as many as the weights were trained with.
        history: weight of history guidance, 1 is off.
        noise: level of the noise on condition latents, see ``Sampling.condition_noise``.
        window: frames that a clip is made in, the given ones included; 0 until the arm is fitted.
    """

    name: str
    last: int
    memory: str = ""
    retrieved: int = 0
    history: float = 1.0
    noise: float = 0.0
    window: int = 0

    @property
    def folder(self) -> str:
        """Its name as a folder's."""
        return self.name.replace("+", "_")

    @property
    def condition_latents(self) -> int:
        """Lc."""
        return latents_of(self.last)

    @property
    def choice(self) -> Arm:
        """What decides which frames are retrieved: arms with equal ones retrieve the same, wherever from."""
        memory = RETRIEVED if self.memory == TRUTH else self.memory
        return Arm("", self.last, memory, self.retrieved)

    def indices(self, history: Cameras, target: Cameras, seed: int) -> np.ndarray:
        """Which of the frames before the last ones are retrieved, i64 [R].

        Args:
            history: cameras of all frames so far, the last ones included.
            target: those of the frames to come.
            seed: of random choices.
        """
        count, earlier = self.retrieved, max(len(history) - self.last, 1)
        if self.memory == FIRST:
            return np.zeros(count, np.int64)
        if self.memory == RANDOM:
            rng = np.random.default_rng([_STREAM, seed])
            return np.resize(rng.permutation(earlier), count)
        return select_frames(history[:earlier], target, count, given=history[-self.last :])


def parse_arm(text: str) -> Arm:
    """The arm of a name, such as ``retrieved-4+history1.5``.

    Raises:
        InvalidValue: no such name.
    """
    base, *switches = text.split("+")
    numbers = {}
    for switch in switches:
        found = re.fullmatch(r"(history|noise)([0-9.]+)", switch)
        try:
            numbers[found[1]] = float(found[2])
        except (TypeError, ValueError):
            raise InvalidValue(f"arm {text!r}: {switch!r} is no switch; {_EXPECTED}.") from None
    if len(numbers) < len(switches):
        raise InvalidValue(f"arm {text!r}: a switch is given twice.")
    if found := re.fullmatch(r"last-(\d+)(-first)?", base):
        arm = Arm(text, int(found[1]), FIRST if found[2] else "", **numbers)
    elif found := re.fullmatch(r"(random|retrieved)-(\d+)(-truth)?", base):
        kind, count, truth = found.groups()
        if int(count) < 1 or (truth and kind == "random"):
            raise InvalidValue(f"arm {text!r}: {_EXPECTED}.")
        arm = Arm(text, _RECENT, TRUTH if truth else kind, int(count), **numbers)
    else:
        raise InvalidValue(f"arm {text!r}: {_EXPECTED}.")
    if arm.last < 1 or arm.last != frames_of(latents_of(arm.last)):
        raise InvalidValue(f"arm {text!r}: {arm.last} last frames; expected 4k + 1 of them, such as 5 or 13.")
    if not math.isfinite(arm.history) or not math.isfinite(arm.noise):
        raise InvalidValue(f"arm {text!r}: {_EXPECTED}.")
    return arm


def fitted_arm(arm: Arm, trained: int, shape: ClipShape, added: int) -> Arm:
    """The arm with its window and its number of retrieved frames, if weights can sample it.

    The window is a clip as the weights make it; for arms that are given more than it has room for, it is
    twice as long (97 frames of 49), as ``configs/stage2.py:worlds`` trains extension without memory, too.

    Args:
        arm: as it was parsed.
        trained: how many retrieved frames the weights were trained with; 0 without memory.
        shape: of the clips that they make.
        added: frames that every further clip adds.

    Raises:
        InvalidValue: they cannot; says why and what would do.
    """
    if arm.memory and not trained:
        raise InvalidValue(
            f"arm {arm.name}: these weights were trained without retrieved frames (retrieved=0), and would "
            "not know what to make of any. Take arms like last-13 and last-5, or weights of a stage 2 with "
            "memory."
        )
    window = shape.frames if arm.last <= shape.frames - added else 2 * shape.frames - 1
    longest = min(shape.frames, window - added)
    if arm.last > longest:
        raise InvalidValue(
            f"arm {arm.name}: after a first clip of {shape.frames} frames, and with {added} to add, at most "
            f"{longest} can be given. Take last-{longest}, or fewer --new-frames."
        )
    if arm.memory and window > shape.frames:
        raise InvalidValue(
            f"arm {arm.name}: {arm.last} given frames and {added} to add need a window of {window} frames, "
            f"and memory is trained in windows of {shape.frames}. Give at most {shape.frames - added}, or "
            "take fewer --new-frames."
        )
    return replace(arm, window=window, retrieved=arm.retrieved or trained if arm.memory else 0)


def default_arms(trained: int, last: int) -> tuple[str, ...]:
    """Names of the arms that are measured unless others are asked for.

    Args:
        trained: how many retrieved frames the weights were trained with; 0 without memory.
        last: frames that an extension is given as a rule.
    """
    names = (f"last-{last}", f"last-{min(last, _RECENT)}")
    if trained:
        memory = f"random-{trained}", f"retrieved-{trained}", f"retrieved-{trained}-truth"
        names = (names[0], f"{names[1]}-first", *memory)
    return tuple(dict.fromkeys(names))
