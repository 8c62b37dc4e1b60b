"""A flow map: one student for any number of steps, beyond the paper.

The network is told where a step leads (``MMDiTConfig.target_time``), and answers with the velocity that leads
there. Steps have lengths of 2^k / ``teacher_steps`` in unshifted time, each aligned to its length, as those
of samplers with a power of two of steps are. The shortest (k = 0) it learns from the guided teacher, all
others from two steps of half the length of its own moving average; guidance enters through the shortest only.
Source: shortcut models (arXiv 2410.12557).

A quarter of each batch learns from the teacher. Which samples is fixed by position, so that no more than
their branches of guidance are computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh
from ml_collections import ConfigDict

from camctrl_jax.data.stream import Batch
from camctrl_jax.diffusion.condition import Condition
from camctrl_jax.diffusion.distillation import guided, interval_times, merged_velocity
from camctrl_jax.diffusion.guidance import Guidance
from camctrl_jax.models.placement import Placement
from camctrl_jax.sampling.pipeline import Denoiser
from camctrl_jax.training import students
from camctrl_jax.training.objective import Frozen, Metrics, Work
from camctrl_jax.training.state import Params, TrainState
from camctrl_jax.training.students import Student, student_fields
from camctrl_jax.training.values import require

AVERAGE = "average"  # the role of the student's moving average in what a loss reads
EVERY = 4  # of so many samples one learns from the teacher


@dataclass(frozen=True, kw_only=True)
class FlowMap(Student):
    """Regression of the velocity over a step, from the teacher's or two of the average's.

    Batches, metrics and tasks are those of :class:`Denoise`; further metrics are the losses of samples that
    learn from the teacher (``loss_teacher``) and of those that learn from the average (``loss_average``).

    Attributes:
        teacher_steps: the number of shortest steps, a power of two.
        block: neighbouring samples that learn from the same: the batch is cut into blocks of so many, of
            which every fourth learns from the teacher. A multiple of ``update.accumulate``, so that every
            part of an accumulated batch has its quarter.
    """

    teacher_steps: int
    block: int = 1

    @property
    def levels(self) -> int:
        """The level of the longest step, which is all of the flow."""
        return self.teacher_steps.bit_length() - 1

    def times(self, key: Array, count: int, tokens: int) -> dict[str, Array]:
        """A step each: start, middle and end of it, f32 [B, 3]."""
        level_key, time_key = jax.random.split(key)
        levels = jax.random.randint(level_key, (count,), 1, self.levels + 1)
        levels = jnp.where(jnp.arange(count) // self.block % EVERY == 0, 0, levels)
        times = interval_times(time_key, levels, self.teacher_steps, self.flow.shift_of(tokens))
        return {"time": times[:, 0], "times": times, "until": times[:, 2]}

    def step(self, state: TrainState, batch: Batch, rng: Array, frozen: Frozen) -> tuple[TrainState, Metrics]:
        """One update; the moving average is asked as it was before it."""
        return super().step(state, batch, rng, {**frozen, AVERAGE: state.ema})

    def measure(self, params: Params, batch: Batch, key: Array, frozen: Frozen) -> Metrics:
        """As in training, of a batch as a whole."""
        whole = replace(self, update=replace(self.update, accumulate=1))
        return super(FlowMap, whole).measure(params, batch, key, {**frozen, AVERAGE: params})

    def target(
        self, inputs: Mapping[str, Array], condition: Condition, noisy: Array, frozen: Frozen
    ) -> Array:
        """The guided velocity of the teacher, or that of two steps of the average."""
        taught, rest = self._split((condition, inputs["noise"], noisy, inputs["times"]))
        condition, noise, state, times = taught
        of_teacher = self.guided_teacher(condition, noise, frozen)(state, times[:, 0], times[:, 2])
        condition, noise, state, times = rest
        model = Denoiser(replace(self.model, remat="none"), self.dtype, self.placement)
        flow = guided(partial(model, frozen[AVERAGE]), Guidance(), condition, None, noise)
        of_average = merged_velocity(flow, state, times)
        return self._joined(of_teacher, of_average)

    def metrics(self, aside: Any, batch: Batch) -> Metrics:
        """Those of :class:`Denoise`, and the two kinds of targets."""
        taught = jnp.arange(len(aside.samples)) // self.block % EVERY == 0
        return super().metrics(aside, batch) | {
            "loss_teacher": jnp.mean(aside.samples, where=taught),
            "loss_average": jnp.mean(aside.samples, where=jnp.logical_not(taught)),
        }

    def work(self, batch: Mapping[str, Any]) -> Work:
        """Of the student, of the teacher's evaluations, and of the average's."""
        count = (self.branches + 2 * (EVERY - 1)) / EVERY
        return self.with_forward(super().work(batch), count)

    def _split(self, tree: Any) -> tuple[Any, Any]:
        """Arrays [B, ...] as those of the samples that learn from the teacher, and those of the others.

        Neighbours stay together: cut over devices, none has to move.
        """
        block = self.block // self.update.accumulate

        def groups(x: Array) -> Array:
            return x.reshape(-1, EVERY, block, *x.shape[1:])

        taught = jax.tree.map(lambda x: groups(x)[:, 0].reshape(-1, *x.shape[1:]), tree)
        rest = jax.tree.map(lambda x: groups(x)[:, 1:].reshape(-1, *x.shape[1:]), tree)
        return taught, rest

    def _joined(self, taught: Array, rest: Array) -> Array:
        """Inverse of :meth:`_split`, of one array."""
        block, shape = self.block // self.update.accumulate, taught.shape[1:]
        parts = taught.reshape(-1, 1, block, *shape), rest.reshape(-1, EVERY - 1, block, *shape)
        return jnp.concatenate(parts, axis=1).reshape(-1, *shape)


def settings() -> dict[str, dict[str, Any]]:
    """The groups of ``config`` that are this objective's, with their defaults."""
    return students.settings()


def check(config: ConfigDict) -> None:
    """Raises: ConfigError for settings of this objective that cannot work."""
    students.check(config)
    for name in ("steps", "teacher_steps"):
        value = config.distil[name]
        require(
            config,
            value & (value - 1) == 0,
            f"distil.{name}",
            "expected a power of two: steps of a flow map are halved",
        )


def build(config: ConfigDict, mesh: Mesh, placement: Placement | None = None) -> FlowMap:
    """The objective of a configuration; see ``build_objective``."""
    students.check_shares(config, mesh, EVERY, "a quarter learns from the teacher")
    given = student_fields(config, mesh, placement)
    steps, finest = config.distil.steps, config.distil.teacher_steps
    others = (2**level for level in range(finest.bit_length()))
    student = FlowMap(
        **given | {"model": replace(given["model"], target_time=True)},
        method="flow_map",
        valid_steps=(steps, *(count for count in others if count != steps)),
        teacher_steps=finest,
        block=config.accumulate,
    )
    student.check_teacher()
    return student
