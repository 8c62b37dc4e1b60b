"""What a run optimises, as a value: the one interface between an objective and everything that runs it.

The recipe (``run.py``), the loop and checkpoints know an objective only as what stands here. An objective of
one's own is one file in ``objectives/``; ``config.objective`` is the name of the file. Beside its class the
file has three functions: ``settings()``, the groups of the configuration that are its own;
``check(config)``; and ``build(config, mesh, placement)``. A network of one's own has rows in
``models/roles.py``, which say how its parameters are sharded and optimised.

A subclass says how parameters begin (``init``), how a batch becomes examples (``examples``) and what is
minimised over them (``loss``). That is enough to train, accumulate, shard, resume and measure; the rest has
defaults.
"""

from __future__ import annotations

import abc
import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh
from ml_collections import ConfigDict

from camctrl_jax.checkpoints.architecture import Architecture
from camctrl_jax.data.stream import Batch
from camctrl_jax.errors import InvalidValue
from camctrl_jax.models import MMDiTConfig
from camctrl_jax.models.autoencoder import Autoencoder
from camctrl_jax.models.placement import Placement
from camctrl_jax.training import objectives
from camctrl_jax.training.state import Params, TrainState, create_state
from camctrl_jax.training.update import Aside, Examples, Update
from camctrl_jax.training.values import ConfigError

Frozen = Mapping[str, Params]  # by role: parameters that a step reads and does not train
Metrics = dict[str, Array]


@dataclass(frozen=True)
class Work:
    """What one step takes, over all devices, by formula.

    Attributes:
        flops: operations of forward and backward pass.
        recomputed: operations that the backward pass does again, by remat.
        passes: over all layers, each of which reads their weights.
        activations: bytes that one pass reads and writes, about, whatever ``mesh.tensor`` is.
        hidden_activations: further bytes, of which each of ``mesh.tensor`` devices has its part.
    """

    flops: float
    recomputed: float = 0.0
    passes: int = 3
    activations: float = 0.0
    hidden_activations: float = 0.0


@dataclass(frozen=True)
class PreviewClips:
    """Held-out clips that a run shows what it can do on, the same on every process.

    Attributes:
        batch: fields of ``camctrl_jax.data.stream``, on the host, with u8 ``video``; nothing is dropped.
        captions: of the clips.
    """

    batch: Batch
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Preview:
    """What a model in training makes beside the truth.

    Attributes:
        video: u8 [N, T, H, W, 3].
        truth: u8 [N, T, H, W, 3].
        metrics: scalars to log.
    """

    video: np.ndarray
    truth: np.ndarray
    metrics: dict[str, float]


class Objective(abc.ABC):
    """What a run optimises. Frozen: its state is a ``TrainState``.

    Attributes:
        update: optimizer, accumulation and average.
        scanned: the transformer whose equal layers the step holds stacked, or None; checkpoints hold one
            entry per layer in any case.
        reads_cameras: whether batches mix labelled and unlabelled clips at a fixed ratio.
        shared_out: roles of ``frozen`` whose parameters are cut over the mesh as trained ones are; others lie
            whole on every device.
        begins_as: weights spec of what a run starts from where ``config.init_from`` names nothing; ''
            is scratch.
    """

    update: Update
    scanned: MMDiTConfig | None = None
    reads_cameras: bool = True
    shared_out: tuple[str, ...] = ()
    begins_as: str = ""

    # What an objective must say.

    @abc.abstractmethod
    def init(self, key: Array) -> Params:
        """Fresh parameters, one entry per layer."""

    @abc.abstractmethod
    def examples(self, batch: Batch, key: Array, frozen: Frozen) -> Examples:
        """What the loss is computed of, random numbers drawn: the same for the same batch and key."""

    @abc.abstractmethod
    def loss(self, params: Params, inputs: Any, frozen: Frozen) -> tuple[Array, Aside]:
        """The loss f32 [] of the inputs of some examples: the mean over samples by their weights.

        Where a step accumulates, it sees a part of the batch, and parts count by the sums of their weights:
        the mean has to be by the same weights, or the result depends on ``config.accumulate``.
        """

    # What it may say.

    def state(self, params: Params, key: Array) -> TrainState:
        """A state at step 0 of parameters in the form of the step."""
        del key
        return create_state(params, self.update.optimizer)

    def starting_others(self, mesh: Mesh) -> dict[str, Params]:
        """By role in ``TrainState.others``: top-level parts of parameters, one entry per layer, that a fresh
        run reads from weights in place of what :meth:`state` made.
        """
        del mesh
        return {}

    def metrics(self, aside: Aside, batch: Batch) -> Metrics:
        """f32 [] each, to log beside ``loss`` and ``grad_norm``; NaN where a batch has none."""
        del batch
        return dict(aside.means)

    def step(self, state: TrainState, batch: Batch, rng: Array, frozen: Frozen) -> tuple[TrainState, Metrics]:
        """One update: (next state, f32 [] metrics).

        ``rng`` is one key for the whole run: the step folds its number into it, so step n draws the same
        noise in a resumed run.
        """
        key = jax.random.fold_in(rng, state.step)
        examples = self.examples(batch, key, frozen)
        new_state, aside, metrics = self.update.minimise(state, partial(self.loss, frozen=frozen), examples)
        return new_state, metrics | self.metrics(aside, batch)

    def measured(self, state: TrainState) -> Params:
        """What :meth:`measure` looks at: the average."""
        return state.ema

    def measure(self, params: Params, batch: Batch, key: Array, frozen: Frozen) -> Metrics:
        """``loss`` and the metrics of a batch that is not trained on, f32 []; ``params`` of
        :meth:`measured`.
        """
        value, aside = self.loss(params, self.examples(batch, key, frozen).inputs, frozen)
        return {"loss": value} | self.metrics(aside, batch)

    def frozen(self) -> dict[str, Params]:
        """Parameters that the step reads and does not train, by role, in host memory or on the mesh."""
        return {}

    def frozen_shapes(self) -> dict[str, Any]:
        """Their shapes and dtypes, without reading them."""
        return {}

    def encoder(self, frozen: Frozen) -> Autoencoder | None:
        """What makes latents of the videos that batches would hold; None: the step reads video."""
        del frozen
        return None

    def check_start(self, spec: str) -> None:
        """Compare weights that a run would start from with it, by their configurations alone.

        Raises:
            ConfigError: they do not belong with this objective.
        """
        del spec

    def check_resumed(self, before: Architecture | None, saved: Mapping[str, Any], origin: str) -> None:
        """Compare a checkpoint that a run would go on from with it, before parameters are read.

        Args:
            before: what it says that its parameters are.
            saved: the configuration of the run that wrote it.
            origin: what it is, for the message.

        Raises:
            ConfigError: going on would make of it what neither run was to make.
        """
        del saved
        student = None if before is None else before.distilled
        if student is not None:
            raise ConfigError(
                f"{origin} is a student ({student.said}), and this run would unlearn it: go on with the "
                "old config.objective, or begin another run with another --workdir; --config.init_from names "
                "what it starts from"
            )

    def starting_params(self, spec: str, mesh: Mesh) -> Params:
        """Parameters that ``config.init_from`` names, if they belong with this objective."""
        del mesh
        raise InvalidValue(f"config.init_from={spec!r}: this objective starts from scratch only.")

    def describe(
        self, state: TrainState, probe: Callable[[int], Iterable[Any]], before: Architecture | None
    ) -> Architecture:
        """What the parameters are, to store with a checkpoint of ``state``.

        Args:
            state: in the form of checkpoints.
            probe: ``probe(count)`` gives videos u8 [B, T, H, W, 3] on the mesh, ``count`` clips in all, the
                same every time.
            before: what the parameters were at the start: those of the run's own checkpoint or of
                ``config.init_from``; None from scratch.
        """
        del state, probe, before
        return Architecture()

    def preview(self, clips: PreviewClips, frozen: Frozen, mesh: Mesh) -> Callable[[Params], Preview] | None:
        """A function that shows what parameters on the mesh can do on held-out clips."""
        del clips, frozen, mesh
        return None

    def work(self, batch: Mapping[str, Any]) -> Work | None:
        """What a step on a batch of these shapes takes; None where no formula is known."""
        del batch
        return None


def objective_names() -> tuple[str, ...]:
    """The names that ``config.objective`` can have: the files of ``objectives/``."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(objectives.__path__)))


def build_objective(config: ConfigDict, mesh: Mesh, placement: Placement | None = None) -> Objective:
    """The objective of a configuration.

    Args:
        config: checked by ``check_config``.
        mesh: over all devices of the run.
        placement: where a transformer's intermediate values live; None is what the mesh says.

    Raises:
        InvalidValue: a value that cannot work, or weights that are absent.
    """
    return objective_module(config.objective).build(config, mesh, placement)


def objective_module(name: str) -> Any:
    """The module of an objective.

    Raises:
        InvalidValue: there is none of this name.
    """
    if name not in objective_names():
        raise InvalidValue(f"config.objective={name!r}: expected one of {', '.join(objective_names())}.")
    return importlib.import_module(f"{objectives.__name__}.{name}")


def equal_weights(batch: Batch) -> Array:
    """Weights of examples that all count alike: i32 [B] of ones."""
    return jnp.ones(len(next(iter(batch.values()))), jnp.int32)
