"""Progressive distillation: the student makes in one step what its guided teacher makes in several.

Guidance is folded in once, by the first student; the teacher of the next is that student, asked without any
(``camctrl_jax.diffusion.distillation``). Steps are those of the samplers' shifted grids, which follow the
number of tokens of a window, so that windows of other sizes have other times.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jax import Array
from jax.sharding import Mesh
from ml_collections import ConfigDict

from camctrl_jax.diffusion.condition import Condition
from camctrl_jax.diffusion.distillation import merged_velocity, step_times
from camctrl_jax.models.placement import Placement
from camctrl_jax.training import students
from camctrl_jax.training.objective import Frozen, Work
from camctrl_jax.training.students import Student, student_fields


@dataclass(frozen=True, kw_only=True)
class Distil(Student):
    """Regression of the velocity that several guided steps of the teacher come to.

    Batches, metrics and tasks are those of :class:`Denoise`. The teacher is asked inside the loss, so that
    ``config.accumulate`` bounds its memory, too.

    Attributes:
        steps: the student's Euler steps.
        teacher_steps: the teacher's, a multiple of them.
    """

    steps: int
    teacher_steps: int

    def times(self, key: Array, count: int, tokens: int) -> dict[str, Array]:
        """One of the student's steps each: its start, and the teacher's times within, f32 [B, N + 1]."""
        times = step_times(key, count, self.steps, self.teacher_steps, self.flow.shift_of(tokens))
        return {"time": times[:, 0], "times": times}

    def target(
        self, inputs: Mapping[str, Array], condition: Condition, noisy: Array, frozen: Frozen
    ) -> Array:
        """The mean velocity of the teacher's steps."""
        return merged_velocity(
            self.guided_teacher(condition, inputs["noise"], frozen), noisy, inputs["times"]
        )

    def work(self, batch: Mapping[str, Any]) -> Work:
        """Of the student, and of the teacher's evaluations."""
        return self.with_forward(super().work(batch), self.branches * self.teacher_steps // self.steps)


def settings() -> dict[str, dict[str, Any]]:
    """The groups of ``config`` that are this objective's, with their defaults."""
    return students.settings()


def check(config: ConfigDict) -> None:
    """Raises: ConfigError for settings of this objective that cannot work."""
    students.check(config)


def build(config: ConfigDict, mesh: Mesh, placement: Placement | None = None) -> Distil:
    """The objective of a configuration; see ``build_objective``."""
    distil = config.distil
    student = Distil(
        **student_fields(config, mesh, placement),
        method="progressive",
        valid_steps=(distil.steps,),
        steps=distil.steps,
        teacher_steps=distil.teacher_steps,
    )
    student.check_teacher()
    return student
