"""Consistency distillation: a student that makes clips in one step, and the start of ``adversarial``.

Its clips are soft: where several are possible it shows their mean. Adversarial post-training (APT, arXiv
2501.08316) then sharpens them. The teacher's steps are those of its sampler's shifted grid, which follows the
number of tokens of a window; guidance is folded in by the teacher, unless it is a student itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
from jax import Array
from jax.sharding import Mesh
from ml_collections import ConfigDict

from camctrl_jax.diffusion.condition import Condition
from camctrl_jax.diffusion.consistency import consistency_velocity
from camctrl_jax.diffusion.distillation import guided, step_times
from camctrl_jax.diffusion.guidance import Guidance
from camctrl_jax.models.placement import Placement
from camctrl_jax.sampling.pipeline import Denoiser
from camctrl_jax.training import students
from camctrl_jax.training.objective import Frozen, Work
from camctrl_jax.training.state import Params
from camctrl_jax.training.students import Student, student_fields
from camctrl_jax.training.update import Aside
from camctrl_jax.training.values import require

_STUDENT = "student"  # the role, among what gets no gradient, of the student's parameters as they are


@dataclass(frozen=True, kw_only=True)
class Consistency(Student):
    """Regression of the velocity whose straight line ends where the student's own ends a step later.

    Batches, metrics and tasks are those of :class:`Denoise`. The target is the student itself, not an average
    of it (arXiv 2506.09350 has none either).

    Attributes:
        teacher_steps: Euler steps of the teacher from noise to data, between which the student agrees with
            itself.
    """

    teacher_steps: int

    def times(self, key: Array, count: int, tokens: int) -> dict[str, Array]:
        """One of the teacher's steps each: where it starts, and ``times`` f32 [B, 2], start and end."""
        steps, shift = self.teacher_steps, self.flow.shift_of(tokens)
        times = step_times(key, count, steps, steps, shift)
        return {"time": times[:, 0], "times": times}

    def loss(self, params: Params, inputs: Mapping[str, Array], frozen: Frozen) -> tuple[Array, Aside]:
        """As of denoising; the student sees its own answers, which get no gradient."""
        return super().loss(params, inputs, {**frozen, _STUDENT: jax.lax.stop_gradient(params)})

    def target(
        self, inputs: Mapping[str, Array], condition: Condition, noisy: Array, frozen: Frozen
    ) -> Array:
        """The velocity that agrees with the student's answer where the teacher leads."""

        def student(state: Array, time: Array, condition: Condition) -> Array:
            return Denoiser(self.model, self.dtype, self.placement)(frozen[_STUDENT], state, time, condition)

        noise = inputs["noise"]
        own = guided(student, Guidance(), condition, None, noise)
        teacher = self.guided_teacher(condition, noise, frozen)
        return consistency_velocity(teacher, own, noisy, inputs["times"])

    def work(self, batch: Mapping[str, Any]) -> Work:
        """Of the student with its backward pass, of its answer, and of the teacher's evaluations."""
        return self.with_forward(super().work(batch), self.branches + 1)


def settings() -> dict[str, dict[str, Any]]:
    """The groups of ``config`` that are this objective's, with their defaults."""
    return students.settings()


def check(config: ConfigDict) -> None:
    """Raises: ConfigError for settings of this objective that cannot work."""
    students.check(config)
    require(
        config, config.distil.steps == 1, "distil.steps", "a consistency model makes one step: expected 1"
    )


def build(config: ConfigDict, mesh: Mesh, placement: Placement | None = None) -> Consistency:
    """The objective of a configuration; see ``build_objective``."""
    student = Consistency(
        **student_fields(config, mesh, placement),
        method="consistency",
        valid_steps=(1,),
        teacher_steps=config.distil.teacher_steps,
    )
    student.check_teacher()
    return student
