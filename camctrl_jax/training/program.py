"""What a run computes, before it has any arrays: the step, and where every array of its state lives.

``run.py`` runs it; ``camctrl_jax.pod_report`` compiles the same thing for machines that are not there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import jax
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from camctrl_jax.models.mmdit.stacking import stack_state, unstack_state
from camctrl_jax.models.placement import Placement
from camctrl_jax.parallel.compiler import compiler_options
from camctrl_jax.parallel.sharding import batch_sharding, batch_shards, shardings_of
from camctrl_jax.training.objective import Objective, build_objective
from camctrl_jax.training.state import Params, TrainState
from camctrl_jax.training.values import ConfigError
from camctrl_jax.training.world_sets import views_of


@dataclass(frozen=True)
class Program:
    """An objective on a mesh.

    Attributes:
        objective: what is optimised.
        mesh: the devices.
        traced: a profile of the step is made.
    """

    objective: Objective
    mesh: Mesh
    traced: bool = False

    def create(self, params: Params, key: Array, others: Mapping[str, Params] | None = None) -> TrainState:
        """The state, in the form of the step, of parameters with one entry per layer.

        Args:
            params: of the network that the run is for.
            key: for what is drawn.
            others: of ``Objective.starting_others``.
        """
        if self.objective.scanned is not None:
            params, others = (stack_state(tree, self.objective.scanned) for tree in (params, others))
        state = self.objective.state(params, key)
        begun = {
            role: replace(state.others[role], params=state.others[role].params | parts)
            for role, parts in (others or {}).items()
        }
        return replace(state, others=state.others | begun)

    @cached_property
    def abstract_params(self) -> Any:
        """Shapes and dtypes of the parameters, one entry per layer."""
        return jax.eval_shape(self.objective.init, _key())

    @cached_property
    def abstract_state(self) -> Any:
        """Shapes and dtypes of the state, in the form of the step."""
        return jax.eval_shape(lambda key: self.create(self.objective.init(key), key), _key())

    @cached_property
    def shardings(self) -> Any:
        """Where the state lives, in the form of the step."""
        return shardings_of(self.abstract_state, self.mesh)

    @property
    def everywhere(self) -> NamedSharding:
        """The sharding of what every device holds whole."""
        return NamedSharding(self.mesh, PartitionSpec())

    def frozen_homes(self, frozen: Any) -> Any:
        """Where what the step does not train lives: a tree of shardings for that of
        ``Objective.frozen``, or of its shapes.
        """
        return {
            role: shardings_of(params, self.mesh)
            if role in self.objective.shared_out
            else jax.tree.map(lambda _: self.everywhere, params)
            for role, params in frozen.items()
        }

    @cached_property
    def jitted_step(self) -> Any:
        """The step under ``jax.jit``: the state is donated and stays where it is."""
        return jax.jit(
            self.objective.step,
            donate_argnums=0,
            out_shardings=(self.shardings, self.everywhere),
            compiler_options=self._compiler_options,
        )

    @cached_property
    def jitted_measure(self) -> Any:
        """``measure(params, batch, key, frozen)`` under ``jax.jit``, of parameters in the form of the
        step.
        """
        return jax.jit(
            self.objective.measure, out_shardings=self.everywhere, compiler_options=self._compiler_options
        )

    @property
    def _compiler_options(self) -> dict[str, bool | str]:
        return compiler_options(self.mesh.devices.flat[0].platform, traced=self.traced)

    @cached_property
    def stored_state(self) -> Any:
        """Shapes and dtypes of the state as checkpoints hold it: one entry per layer."""
        if self.objective.scanned is None:
            return self.abstract_state
        return jax.eval_shape(partial(unstack_state, config=self.objective.scanned), self.abstract_state)

    @cached_property
    def stored_shardings(self) -> Any:
        """Where a state lies that comes from, or goes to, a checkpoint."""
        return shardings_of(self.stored_state, self.mesh)

    @cached_property
    def to_stored(self) -> Callable[[TrainState], TrainState]:
        """From the form of the step to that of checkpoints."""
        if self.objective.scanned is None:
            return lambda state: state
        unstack = partial(unstack_state, config=self.objective.scanned)
        return jax.jit(unstack, out_shardings=self.stored_shardings)

    @cached_property
    def from_stored(self) -> Callable[[TrainState], TrainState]:
        """From the form of checkpoints to that of the step."""
        if self.objective.scanned is None:
            return lambda state: state
        stack = partial(stack_state, config=self.objective.scanned)
        return jax.jit(stack, out_shardings=self.shardings)

    def abstract_batch(self, batch: dict[str, tuple[tuple[int, ...], Any]]) -> dict[str, Any]:
        """``{name: (global shape, dtype)}`` as arguments to lower the step with."""
        return {
            name: jax.ShapeDtypeStruct(shape, dtype, sharding=batch_sharding(name, shape, self.mesh))
            for name, (shape, dtype) in batch.items()
        }


def build_program(config: ConfigDict, mesh: Mesh, placement: Placement | None = None) -> Program:
    """The program of a configuration on a mesh.

    Args:
        config: checked by ``check_config``.
        mesh: over all devices of the run.
        placement: where a transformer's intermediate values live; None is what the mesh says.

    Raises:
        ConfigError: batches that the mesh, or ``config.accumulate``, cannot split.
        WeightsError: weights that the objective reads are absent.
    """
    check_batches(config, mesh)
    return Program(build_objective(config, mesh, placement), mesh, traced=bool(config.profile))


def check_batches(config: ConfigDict, mesh: Mesh) -> None:
    """Raises: ConfigError for batches that the mesh, or ``config.accumulate``, cannot split."""
    shards = batch_shards(mesh) * config.accumulate
    for name, view in views_of(config).items():
        for size in (view.batch_size, view.data.image_batch):
            if size % shards:
                times = "" if config.accumulate == 1 else f" in {config.accumulate} turns (config.accumulate)"
                keys = "config.batch_size (and data.image_batch)"
                keys = f"config.data.sets.{name}.batch_size (and image_batch)" if name else keys
                raise ConfigError(
                    f"a batch of {size} cannot be split into the {batch_shards(mesh)} parts of mesh.data x "
                    f"mesh.fsdp{times}; choose a multiple of {shards} for {keys}"
                )


def _key() -> Array:
    return jax.eval_shape(lambda: jax.random.key(0, impl="unsafe_rbg"))
