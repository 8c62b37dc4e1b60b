"""Parameters from host memory or files to the mesh, one at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from camctrl_jax.parallel.sharding import spec_of

# (path of a parameter, its array) -> what is kept of it.
Keep = Callable[[tuple[str, ...], np.ndarray], Any]


def onto_mesh(mesh: Mesh, dtype: Any = None) -> Keep:
    """Keep every parameter on a mesh as the training step has it; they come one at a time.

    A process reads only the parts that its own devices hold.

    Args:
        mesh: where to.
        dtype: of the result; None keeps the stored one.
    """

    def keep(path: tuple[str, ...], array: np.ndarray) -> jax.Array:
        sharding = NamedSharding(mesh, spec_of(".".join(path), array.shape, mesh))

        def part(index: tuple[slice, ...]) -> np.ndarray:
            # A copy: the file's pages are given back, and a CPU device keeps the array it is given.
            return np.array(array[index], dtype=dtype or array.dtype, order="C")

        # Waited for, or hundreds of copies would queue up in host memory.
        return jax.block_until_ready(jax.make_array_from_callback(array.shape, sharding, part))

    return keep
