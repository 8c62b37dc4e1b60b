"""How weights are sampled: as they say themselves, and of students nothing else.

A student was distilled from a teacher: its velocity already holds the teacher's guidance, and it was made for
certain numbers of steps. Guidance on top of that, or other steps, would give pictures that nobody trained
for, and would look like faults of the weights.
"""

from __future__ import annotations

import math

from camctrl_jax.diffusion.guidance import Guidance
from camctrl_jax.diffusion.sampler import Sampling
from camctrl_jax.errors import InvalidValue
from camctrl_jax.interop.described import Distilled, SamplingDefaults


def usual_sampling(
    defaults: SamplingDefaults,
    distilled: Distilled | None = None,
    *,
    steps: int | None = None,
    text: float | None = None,
    camera: float | None = None,
    camera_without_text: float | None = None,
    history: float | None = None,
    shift: float | None = None,
) -> Sampling:
    """The sampling of weights, where nothing else is asked for.

    Args:
        defaults: of the weights.
        distilled: what they are, if they are a student's.
        steps: Euler steps; None is as the weights say.
        text, camera: guidance weights; None is as the weights say.
        camera_without_text: of CFG'; None is Eq. 3.
        history: of what is given; None is none.
        shift: timestep shift; None is that of training.

    Raises:
        InvalidValue: what no sampling can have, or this student not; see :func:`check_sampling`.
    """
    guidance = Guidance(
        defaults.text_guidance if text is None else text,
        defaults.camera_guidance if camera is None else camera,
        camera_without_text,
        1.0 if history is None else history,
    )
    sampling = check_sampling(
        Sampling(guidance, defaults.steps if steps is None else steps, shift), distilled
    )
    return sampling if shift is None else check_shift(sampling, defaults.shift, distilled)


def check_shift(sampling: Sampling, usual: float | None, distilled: Distilled | None) -> Sampling:
    """The sampling, if its times are those that a student was taught at; one step has the same under any
    shift.

    Args:
        sampling: with a shift.
        usual: the shift of training, of clips of this size; None where it is not known.
        distilled: what the weights are, if they are a student's.

    Raises:
        InvalidValue: another shift.
    """
    alike = usual is not None and math.isclose(sampling.shift, usual, rel_tol=1e-6)
    if distilled is None or sampling.steps == 1 or alike:
        return sampling
    raise InvalidValue(
        f"shift is {sampling.shift:g}: these weights are a student, which knows the times of its own steps "
        f"alone ({distilled.said}). Leave it out; the teacher's weights take any."
    )


def check_sampling(sampling: Sampling, distilled: Distilled | None) -> Sampling:
    """The sampling, if the weights were made for it; models that are no students take any.

    Raises:
        InvalidValue: a student's steps or guidance; says what is folded in, what is valid, and what to do.
    """
    found = unfit(sampling, distilled)
    if found is not None:
        raise InvalidValue(found[1])
    return sampling


def unfit(sampling: Sampling, distilled: Distilled | None) -> tuple[str, str] | None:
    """What of a sampling a student was not made for: the field and the message; None if nothing.

    The fields are 'steps' and those of ``Guidance``. Noise on what is given (``Sampling.condition_noise``)
    changes what a student is told, not how its velocity is used, and is left to whoever asks for it.
    """
    if distilled is None:
        return None
    if sampling.steps not in distilled.valid_steps:
        valid = " or ".join(map(str, distilled.valid_steps))
        message = (
            f"steps is {sampling.steps}: these weights are a student made for {valid} steps "
            f"({distilled.said}). Take {valid}, leave steps out, or take the teacher's weights for others."
        )
        return "steps", message
    guidance = sampling.guidance
    for name, kind, value, none in (
        ("text", "the text", guidance.text, (1.0,)),
        ("camera", "the camera", guidance.camera, (1.0,)),
        ("camera_without_text", "the camera without text (CFG')", guidance.camera_without_text, (None, 0.0)),
        ("history", "past frames", guidance.history, (1.0,)),
    ):
        if value not in none:
            remedy = "Leave it out" if None in none else "Give 1, or leave it out"
            message = (
                f"guidance to {kind} is {value:g}: these weights are a student, sampled without guidance "
                f"({distilled.said}). {remedy}; the teacher's weights take guidance."
            )
            return name, message
    return None


def fitting_sampling(stored: Sampling, defaults: SamplingDefaults, distilled: Distilled | None) -> Sampling:
    """A sampling that other weights may have been begun with, or what a student is sampled with instead."""
    return stored if unfit(stored, distilled) is None else usual_sampling(defaults, distilled)
