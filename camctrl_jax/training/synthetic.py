"""Clips that count as real for a critic: those that a student makes in several steps, in place of the data's.

What the data hold may be out of a small generator's reach; what a student of a few steps makes is nearer
(LADD, arXiv 2403.12015, trains on its teacher's clips alone).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh
from ml_collections import ConfigDict

from camctrl_jax.checkpoints.weights import Weights, WeightsError, open_weights
from camctrl_jax.diffusion.adversarial import generated
from camctrl_jax.diffusion.condition import Condition
from camctrl_jax.diffusion.distillation import guided, merged_velocity
from camctrl_jax.diffusion.flow import FlowConfig
from camctrl_jax.diffusion.guidance import Guidance
from camctrl_jax.diffusion.sampler import time_grid
from camctrl_jax.models import MMDiT, MMDiTConfig, mmdit_in_dtype
from camctrl_jax.models.placement import Placement
from camctrl_jax.sampling.pipeline import Denoiser
from camctrl_jax.training.state import Params
from camctrl_jax.training.students import Teacher
from camctrl_jax.training.values import ConfigError

SYNTHETIC = "synthetic"  # the role of the frozen student that makes them
REAL_KEY = "config.adversarial.real"
WITHOUT = "--config.adversarial.real= --config.adversarial.anchor=0 lets the data's clips count as real"


@dataclass(frozen=True)
class SyntheticClips:
    """Who makes them, and in how many steps.

    Attributes:
        student: asked as it is: guidance is folded in.
        steps: of its sampler.
        model: its transformer, without gradient.
        flow: what shifts its times.
        dtype: of matrix products.
        placement: where intermediate values live.
    """

    student: Teacher
    steps: int
    model: MMDiTConfig
    flow: FlowConfig
    dtype: Any
    placement: Placement

    def params(self, mesh: Mesh | None) -> Params:
        """Its parameters in the form of the step; see ``Teacher.params``."""
        return self.student.params(self.model, mesh, self.dtype)

    def shapes(self) -> Any:
        """Their shapes and dtypes."""
        cast = partial(mmdit_in_dtype, dtype=self.dtype)
        return jax.eval_shape(cast, MMDiT(self.model).abstract_params())

    def check_start(self, weights: Weights) -> None:
        """Raises: ConfigError if the generator that starts from ``weights`` holds another guidance: it would
        learn this one's, and be stored with its own.
        """
        theirs, ours = dict(weights.distilled.guidance_folded), self.student.folded
        if theirs != ours:
            raise ConfigError(
                f"{REAL_KEY}={self.student.spec!r} holds the guidance {ours}, and config.init_from="
                f"{weights.spec!r}, which would learn it, {theirs}: name students of the same guidance; "
                f"{WITHOUT}"
            )

    def check_taught_by(self, teacher: Teacher) -> None:
        """Raises: ConfigError if it learned from another than the run's teacher. Reads the teacher's weights;
        where either is not known there is nothing to compare.
        """
        known = self.student.weights and self.student.weights.distilled.teacher_sha256
        if known and teacher.fingerprint and known != teacher.fingerprint:
            raise ConfigError(
                f"{REAL_KEY}={self.student.spec!r} is a student of a transformer {known}, and "
                f"config.distil.teacher={teacher.spec!r} is {teacher.fingerprint}: name a student of this "
                f"teacher; {WITHOUT}"
            )

    def made(self, params: Params, noise: Array, condition: Condition) -> Array:
        """Clips f32 [B, R + L, h, w, C] from noise of that shape, as the sampler makes them; what is given
        as it is.

        Args:
            params: of :meth:`params`.
            noise: f32 [B, R + L, h, w, C].
            condition: what steers them.
        """
        _, latents, height, width, _ = noise.shape
        tokens = (latents - condition.retrieved) * height * width // math.prod(self.model.patch)
        velocity = partial(Denoiser(self.model, self.dtype, self.placement), params)
        flow = guided(velocity, Guidance(), condition, None, noise)
        grid = jnp.asarray(time_grid(self.steps, self.flow.shift_of(tokens)))
        times = jnp.broadcast_to(grid, (len(noise), len(grid)))
        merged = merged_velocity(flow, noise, times)
        return generated(noise, merged, condition.given, condition.mask)


def open_synthetic(config: ConfigDict, fields: Mapping[str, Any]) -> SyntheticClips | None:
    """The student that ``config.adversarial.real`` names, configurations only; None: clips of the data.

    ``fields`` are those of the run's own student, of which model, times, dtype and placement are read.

    Raises:
        ConfigError: it is not there, no student, or not made for so many steps.
    """
    spec, steps = config.adversarial.real, config.adversarial.real_steps
    if not spec:
        return None
    try:
        weights = open_weights(spec)
    except WeightsError as error:
        raise ConfigError(f"{REAL_KEY}={spec!r}: {error}") from error
    if weights.distilled is None or weights.mmdit_config is None:
        raise ConfigError(
            f"{REAL_KEY}={spec!r} is no student: expected one, which holds its guidance, such as 'student'; "
            f"{WITHOUT}"
        )
    if steps not in weights.distilled.valid_steps:
        raise ConfigError(
            f"config.adversarial.real_steps={steps}: {REAL_KEY}={spec!r} was made for "
            f"{', '.join(map(str, weights.distilled.valid_steps))} steps; set "
            f"--config.adversarial.real_steps={weights.distilled.valid_steps[0]}"
        )
    model = replace(fields["model"], target_time=weights.mmdit_config.target_time, remat="none")
    shared = {name: fields[name] for name in ("flow", "dtype", "placement")}
    return SyntheticClips(Teacher(spec, weights, Guidance()), steps, model, **shared)
