"""What objectives that distil have in common: the teacher, and a student that starts as it.

The teacher is frozen, in the dtype of the run's matrix products, cut over the mesh as the student is. It is
compared with the run from its configuration alone, before gigabytes are read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh
from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from camctrl_jax.checkpoints.architecture import Architecture
from camctrl_jax.checkpoints.weights import Weights, WeightsError, open_weights
from camctrl_jax.diffusion.condition import Condition, NullText
from camctrl_jax.diffusion.distillation import Flow, guided
from camctrl_jax.diffusion.guidance import Guidance
from camctrl_jax.diffusion.sampler import Sampling
from camctrl_jax.interop.described import FOLDED, Distilled
from camctrl_jax.models import MMDiT, MMDiTConfig, mmdit_in_dtype, stack_layers
from camctrl_jax.models.fingerprint import fingerprint_of_parameters
from camctrl_jax.models.placement import Placement
from camctrl_jax.parallel.sharding import batch_shards, shardings_of
from camctrl_jax.sampling.pipeline import Denoiser
from camctrl_jax.training.objective import Frozen, Work
from camctrl_jax.training.objectives import denoise
from camctrl_jax.training.objectives.denoise import Denoise, Shown
from camctrl_jax.training.state import Params, TrainState
from camctrl_jax.training.values import UNTRAINED, ConfigError, require
from camctrl_jax.training.world_sets import views_of

# Fields of Distilled that the configuration of a run gives, and where.
_LASTING = {
    "method": "config.objective",
    "guidance_folded": "config.distil.text_guidance, camera_guidance and camera_without_text",
    "valid_steps": "config.distil.steps and teacher_steps",
}
TEACHER = "teacher"  # the roles of the frozen teacher, and of the empty prompt's embedding
NULL_TEXT = "null_text"
_KEY = "config.distil.teacher"
# Fields of a transformer that change neither its parameters nor what it computes, or are the student's own.
_MAY_DIFFER = ("attention", "fuse_projections", "remat", "scan_layers", "target_time")


@dataclass(frozen=True)
class Teacher:
    """Who is asked.

    Attributes:
        spec: its weights spec; 'random' is an untrained one, for tests.
        weights: what it names, configurations only; None for 'random'.
        guidance: what it is asked with.
    """

    spec: str
    weights: Weights | None
    guidance: Guidance

    @property
    def distilled(self) -> Distilled | None:
        """What it is a student of itself, if it is one."""
        return None if self.weights is None else self.weights.distilled

    @property
    def folded(self) -> dict[str, float | None]:
        """The guidance that its student holds: what it is asked with, or what it holds itself."""
        if self.distilled is not None:
            return dict(self.distilled.guidance_folded)
        return {name: getattr(self.guidance, name) for name in FOLDED}

    @cached_property
    def fingerprint(self) -> str:
        """Of its transformer, as stored; '' of an untrained one. Reads the weights into host memory once."""
        if self.weights is None:
            return ""
        return fingerprint_of_parameters(self.weights.mmdit_params(dtype=None))

    def params(self, model: MMDiTConfig, mesh: Mesh | None, dtype: Any) -> Params:
        """Its parameters in the form of the step.

        Args:
            model: its configuration; with ``scan_layers`` equal layers are stacked.
            mesh: where they are read to; None: into host memory.
            dtype: of the run's matrix products.

        Raises:
            WeightsError: they are damaged, or hold NaN or infinity.
        """
        params = mmdit_in_dtype(self.start(model, mesh), dtype)
        if not model.scan_layers:
            return params
        stack = partial(stack_layers, config=model)
        homes = None if mesh is None else shardings_of(jax.eval_shape(stack, params), mesh)
        return jax.jit(stack, out_shardings=homes)(params)

    def start(self, model: MMDiTConfig, mesh: Mesh | None) -> Params:
        """Its parameters in float32, one entry per layer."""
        if self.weights is None:
            return _drawn(MMDiT(replace(model, scan_layers=False)).abstract_params())
        return self.weights.mmdit_params(mesh=mesh)


@dataclass(frozen=True, kw_only=True)
class Student(Denoise):
    """Denoising clips as a teacher does; what is asked of it, objectives say in ``times`` and ``target``.

    Attributes:
        teacher: who is asked.
        method: of :class:`Distilled`.
        valid_steps: of :class:`Distilled`.
        mesh: over all devices of the run; None in tests.
    """

    teacher: Teacher
    method: str
    valid_steps: tuple[int, ...]
    mesh: Mesh | None = None
    shared_out = (TEACHER,)
    lasting = tuple(_LASTING)  # what cannot change while it is trained

    @property
    def begins_as(self) -> str:
        """A student starts as its teacher."""
        return self.teacher.spec

    @property
    def teacher_model(self) -> MMDiTConfig:
        """The teacher's transformer, as it computes in this run: without gradient, nothing is kept."""
        return replace(self.model, target_time=False, remat="none")

    @property
    def distilled(self) -> Distilled:
        """What is stored with the student."""
        return Distilled(self.method, self.teacher.fingerprint, self.teacher.folded, self.valid_steps)

    def guided_teacher(self, condition: Condition, noise: Array, frozen: Frozen) -> Flow:
        """The velocity that the student is to know without guidance, of some examples."""
        velocity = partial(Denoiser(self.teacher_model, self.dtype, self.placement), frozen[TEACHER])
        return guided(velocity, self.teacher.guidance, condition, NullText(**frozen[NULL_TEXT]), noise)

    def frozen(self) -> dict[str, Params]:
        """The autoencoder, the teacher and the empty prompt."""
        _ = self.teacher.fingerprint  # now, while its weights are certainly there
        text, mask = self.embedder.embed([""])
        return super().frozen() | {
            TEACHER: self.teacher.params(self.teacher_model, self.mesh, self.dtype),
            NULL_TEXT: {"text": text, "mask": mask},
        }

    def frozen_shapes(self) -> dict[str, Any]:
        """Their shapes and dtypes."""
        cast = partial(mmdit_in_dtype, dtype=self.dtype)
        size = 1, self.embedder.max_tokens
        return super().frozen_shapes() | {
            TEACHER: jax.eval_shape(cast, MMDiT(self.teacher_model).abstract_params()),
            NULL_TEXT: {
                "text": jax.ShapeDtypeStruct((*size, self.embedder.dim), np.float32),
                "mask": jax.ShapeDtypeStruct(size, np.bool_),
            },
        }

    def check_start(self, spec: str) -> None:
        """As for denoising; of an untrained teacher there is nothing to compare."""
        if not spec == self.teacher.spec == UNTRAINED:
            super().check_start(spec)

    def check_resumed(self, before: Architecture | None, saved: Mapping[str, Any], origin: str) -> None:
        """Raises: ConfigError if the checkpoint is no student, one of another kind, or of another teacher.

        Of all parameters the teacher's are read, last: a path alone does not say who it is.
        """
        remedy = (
            "use the old values, or begin another student with another --workdir; --config.init_from names "
            "what it starts from"
        )
        theirs = None if before is None else before.distilled
        if theirs is None:
            raise ConfigError(f"{origin} is no student, this run makes one ({self.method}): {remedy}")
        ours = Distilled(self.method, "", self.teacher.folded, self.valid_steps)
        for name in self.lasting:
            was, now = getattr(theirs, name), getattr(ours, name)
            if was != now:
                raise ConfigError(
                    f"{origin} is a student with {name}={was}, this run has {name}={now} "
                    f"({_LASTING[name]}): {remedy}"
                )
        known, teacher = theirs.teacher_sha256, self.teacher
        if bool(known) != (teacher.weights is not None) or known != teacher.fingerprint:
            was = saved.get("distil", {}).get("teacher")
            raise ConfigError(
                f"{origin} has learned from {_KEY}={was!r} as it was then (fingerprint {known or 'none'}), "
                f"and {_KEY}={teacher.spec!r} is another teacher: {remedy}"
            )

    def starting_params(self, spec: str, mesh: Mesh) -> Params:
        """The teacher's own, or those of another transformer that fits."""
        if spec == self.teacher.spec == UNTRAINED:
            return self.teacher.start(self.teacher_model, mesh)
        return super().starting_params(spec, mesh)

    def check_distilled(self, weights: Weights) -> None:
        """Raises: ConfigError if these weights to start from are a student of another kind."""
        theirs, teacher = weights.distilled, self.teacher.weights
        if theirs is None or (teacher is not None and weights.path == teacher.path):
            return
        if (theirs.method, dict(theirs.guidance_folded)) != (self.method, self.teacher.folded):
            raise ConfigError(
                f"config.init_from={weights.spec!r} is a student ({theirs.method}, guidance "
                f"{dict(theirs.guidance_folded)} folded in), and this run makes another ({self.method}, "
                f"{self.teacher.folded}): leave it empty, and the student starts as its teacher"
            )

    def check_teacher(self, teacher: Teacher | None = None, key: str = _KEY) -> None:
        """Compare the teacher, or another one that ``key`` names, with the run: all that configurations tell.

        Raises:
            ConfigError: it was made for other sizes, texts, latents or times.
        """
        weights = (self.teacher if teacher is None else teacher).weights
        if weights is None:
            return
        theirs = weights.mmdit_config
        if theirs is None:
            raise ConfigError(f"{key}={weights.spec!r} holds no transformer")
        for field in fields(MMDiTConfig):
            found, ours = getattr(theirs, field.name), getattr(self.model, field.name)
            if field.name not in _MAY_DIFFER and found != ours:
                raise ConfigError(
                    f"{key}={weights.spec!r} has {field.name}={found}, the student (config.model) {ours}: a "
                    "student has the sizes of its teacher; name weights that have these"
                )
        self.check_inputs_of(weights, key)
        if weights.sampling is not None and weights.sampling.shift != self.flow.shift:
            raise ConfigError(
                f"{key}={weights.spec!r} was trained with config.flow.shift={weights.sampling.shift}, this "
                f"run has {self.flow.shift}: its steps would be others"
            )

    def describe(
        self, state: TrainState, probe: Callable[[int], Iterable[Any]], before: Architecture | None
    ) -> Architecture:
        """As a transformer's, and what kind of student it is."""
        return replace(super().describe(state, probe, before), distilled=self.distilled)

    def with_forward(self, work: Work, count: float) -> Work:
        """The work of a step that evaluates networks of the student's size ``count`` times more for every
        sample, without gradient.
        """
        passes = int(np.ceil(count))
        return replace(work, flops=work.flops * (1.0 + count / 3.0), passes=work.passes + passes)

    @property
    def branches(self) -> int:
        """Evaluations that the guided teacher takes."""
        return self.teacher.guidance.evaluations(camera_input=self.model.camera is not None)


def settings() -> dict[str, dict[str, Any]]:
    """The group of ``config`` that objectives with a teacher have in common, with its defaults."""
    return {
        "distil": {
            "teacher": "",  # a weights spec, as init_from; 'random' is an untrained one, for tests
            "steps": 16,  # the student's, in sampling; of a flow map those it is sampled with first
            "teacher_steps": 32,  # a multiple of them
            # What the teacher is asked with, and the student then holds. Of a teacher that is a student
            # itself: 1, 1, None.
            "text_guidance": 1.0,
            "camera_guidance": 2.0,
            "camera_without_text": placeholder(float),  # given: CFG' in place of Eq. 3
        }
    }


def check(config: ConfigDict) -> None:
    """Raises: ConfigError for settings of a student that cannot work."""
    denoise.check(config)
    distil = config.distil
    require(
        config, distil.teacher != "", "distil.teacher", "expected the weights of a teacher, e.g. 'default'"
    )
    require(config, distil.steps >= 1, "distil.steps", "expected at least 1")
    require(
        config,
        distil.teacher_steps > distil.steps and distil.teacher_steps % distil.steps == 0,
        "distil.teacher_steps",
        f"expected a multiple of distil.steps={distil.steps}, such as {2 * distil.steps}",
    )
    for name in ("noise", "error_bank"):
        require(
            config,
            not config.condition[name],
            f"condition.{name}",
            "expected 0: a student learns what its teacher makes of given frames as they are",
        )
    guidance_of(config)


def check_shares(config: ConfigDict, mesh: Mesh, every: int, what: str) -> None:
    """Raises: ConfigError for batches of which devices, or parts, cannot have one sample in ``every`` each.

    ``what`` happens to it.
    """
    shards = batch_shards(mesh) * config.accumulate
    for name, view in views_of(config).items():
        for size in (view.batch_size, view.data.image_batch):
            if size % (every * shards):
                key = f"config.data.sets.{name}.batch_size" if name else "config.batch_size"
                raise ConfigError(
                    f"{key}: of a batch of {size} {what}, on each of {batch_shards(mesh)} parts of mesh.data "
                    f"x mesh.fsdp and in each of {config.accumulate} turns (config.accumulate); choose a "
                    f"multiple of {every * shards} (image_batch, too)"
                )


def guidance_of(config: ConfigDict) -> Guidance:
    """What the teacher is asked with."""
    distil = config.distil
    return Guidance(distil.text_guidance, distil.camera_guidance, distil.camera_without_text)


def open_teacher(config: ConfigDict) -> Teacher:
    """The teacher of a run: configurations only.

    Raises:
        ConfigError: it is not there, or a flow map.
    """
    distil, guidance = config.distil, guidance_of(config)
    if distil.teacher == UNTRAINED:
        return Teacher(distil.teacher, None, guidance)
    try:
        weights = open_weights(distil.teacher)
    except WeightsError as error:
        raise ConfigError(f"{_KEY}={distil.teacher!r}: {error}") from error
    if weights.distilled is not None and weights.distilled.method == "flow_map":
        raise ConfigError(
            f"{_KEY}={distil.teacher!r} is a student itself (flow_map), and makes any number of steps "
            "already: there is nothing to merge. Name its teacher."
        )
    return Teacher(distil.teacher, weights, guidance)


def open_asked(config: ConfigDict) -> Teacher:
    """As :func:`open_teacher`, of a run that asks it for velocities.

    Raises:
        ConfigError: it is a student that guidance is folded into already, or that takes other steps.
    """
    teacher, distil = open_teacher(config), config.distil
    student = teacher.distilled
    if student is None:
        return teacher
    what = f"{_KEY}={distil.teacher!r} is a student itself ({student.method})"
    if teacher.guidance != Guidance():
        given = {name: getattr(teacher.guidance, name) for name in FOLDED}
        raise ConfigError(
            f"{what}, with guidance {dict(student.guidance_folded)} folded in, and would be asked with "
            f"{given} on top: set --config.distil.text_guidance=1 --config.distil.camera_guidance=1, without "
            "camera_without_text"
        )
    if distil.teacher_steps not in student.valid_steps:
        steps = student.valid_steps[0]
        if steps == 1:
            raise ConfigError(f"{what}, made for one step: there is nothing to merge. Name its teacher.")
        remedy = f"--config.distil.teacher_steps={steps}"
        if distil.steps >= steps or steps % distil.steps:
            remedy += f" --config.distil.steps={steps // 2 if steps % 2 == 0 else 1}"
        raise ConfigError(
            f"{what}, made for {steps} steps, and config.distil.teacher_steps={distil.teacher_steps}: set "
            f"{remedy}"
        )
    return teacher


def student_fields(
    config: ConfigDict, mesh: Mesh, placement: Placement | None = None, teacher: Teacher | None = None
) -> dict[str, Any]:
    """The fields of a :class:`Student` that a configuration gives, all but ``method`` and ``valid_steps``.

    It is shown with its own steps, without guidance. ``teacher`` is by default one that is asked.
    """
    teacher = open_asked(config) if teacher is None else teacher
    plain = denoise.build(config, mesh, placement)
    shown = plain.shown
    own = {"text_guidance": 1.0, "camera_guidance": 1.0, "steps": config.distil.steps}
    sampling = Sampling(Guidance(), config.distil.steps, shown.sampling.shift)
    return {field.name: getattr(plain, field.name) for field in fields(plain)} | {
        "shown": Shown(sampling, dataclasses.replace(shown.defaults, **own)),
        "teacher": teacher,
        "mesh": mesh,
    }


def _drawn(shapes: Mapping[str, Any]) -> Params:
    """Parameters of an untrained teacher. Layers that begin at zero are drawn, too: from a network that
    answers zero nothing could be learned.
    """
    numbers = np.random.default_rng(0)

    def draw(path: Any, leaf: Any) -> np.ndarray:
        values = numbers.standard_normal(leaf.shape).astype(np.float32)
        if len(leaf.shape) > 1:
            return values / np.float32(np.sqrt(np.prod(leaf.shape[:-1])))
        return np.float32(path[-1].key == "scale") + np.float32(0.05) * values

    return jax.tree_util.tree_map_with_path(draw, shapes)
