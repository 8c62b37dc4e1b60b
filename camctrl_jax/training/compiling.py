"""The step, compiled for every shape of batch at the same time, before the first of them.

A run on several sets of clips has as many programs. One after the other, each at its first batch, they take a
GPU minutes in which it does nothing else. Shapes are known before there are clips, so all this can happen
while these are made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
from jax import Array

from camctrl_jax.data.stream import Batch
from camctrl_jax.training.objective import Frozen
from camctrl_jax.training.program import Program
from camctrl_jax.training.state import TrainState

Step = Callable[[TrainState, Batch, Array], tuple[TrainState, Mapping[str, Array]]]
_Shape = tuple[tuple[str, tuple[int, ...], Any], ...]


def step_of(
    program: Program,
    state: TrainState,
    shapes: Iterable[Mapping[str, jax.ShapeDtypeStruct]],
    key: Array,
    frozen: Frozen,
) -> Step:
    """The jitted step as a function ``(state, batch, key) -> (state, metrics)`` that donates the state.

    Args:
        program: whose step.
        state: at the beginning, on the mesh; it is only looked at.
        shapes: of all batches, with their shardings: what is compiled now. Other batches are compiled when
            they come.
        key: of the run.
        frozen: what the step reads but does not train.
    """
    compiled: dict[_Shape, Callable[..., Any]] = {}
    batches = {_shape(batch): dict(batch) for batch in shapes}
    # Several processes must compile in the same order.
    if batches and jax.process_count() == 1:
        lowered = {
            shape: program.jitted_step.lower(state, batch, key, frozen) for shape, batch in batches.items()
        }
        with ThreadPoolExecutor(len(lowered)) as threads:
            compiled = dict(zip(lowered, threads.map(lambda one: one.compile(), lowered.values())))

    def step(state: TrainState, batch: Batch, key: Array) -> tuple[TrainState, Mapping[str, Array]]:
        return compiled.get(_shape(batch), program.jitted_step)(state, batch, key, frozen)

    return step


def _shape(batch: Mapping[str, Any]) -> _Shape:
    return tuple((name, array.shape, array.dtype) for name, array in sorted(batch.items()))
