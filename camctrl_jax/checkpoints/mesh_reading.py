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


def dtype_of(dtype: Any, path: str) -> Any:
    """The dtype that a parameter is read in.

    Args:
        dtype: of all of them, a function of the dotted path, or None for the stored one.
        path: dotted.
    """
    return dtype(path) if callable(dtype) and not isinstance(dtype, type) else dtype


def onto_mesh(mesh: Mesh, dtype: Any = None) -> Keep:
    """Keep every parameter on a mesh as the training step has it; they come one at a time.

    A process reads only the parts that its own devices hold.

    Args:
        mesh: where to.
        dtype: of the result, or a function of the dotted path; None keeps the stored one.
    """

    def keep(path: tuple[str, ...], array: np.ndarray) -> jax.Array:
        name = ".".join(path)
        kept, sharding = dtype_of(dtype, name), NamedSharding(mesh, spec_of(name, array.shape, mesh))

        def part(index: tuple[slice, ...]) -> np.ndarray:
            # A copy: the file's pages are given back, and a CPU device keeps the array it is given.
            return np.array(array[index], dtype=kept or array.dtype, order="C")

        # Waited for, or hundreds of copies would queue up in host memory.
        return jax.block_until_ready(jax.make_array_from_callback(array.shape, sharding, part))

    return keep
