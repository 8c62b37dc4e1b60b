"""What a model takes over from weights that exist already."""

from __future__ import annotations

import jax

from camctrl_jax.training.checkpoint import check_same_shapes, flat_shapes
from camctrl_jax.training.state import Params

# Parameters that a stage may add to the weights it starts from; they keep their own initialisation.
_NEW_PARTS = ("camera_embedder",)


def take_over(wanted: Params, loaded: Params, origin: str) -> tuple[Params, set[str]]:
    """What a model takes over from existing weights.

    The camera layer may be missing from the source (a base model was trained without); its own zero
    initialisation then begins as exactly the base. Camera weights that this model has no layer for are left
    out.

    Args:
        wanted: parameters of the model of this run, arrays or ``jax.ShapeDtypeStruct``.
        loaded: nested dict of arrays, numpy or JAX; those on a mesh stay there.
        origin: where they come from, for the message.

    Returns:
        (parameters taken over, in the dtype of ``wanted``; top-level names that have to be initialised).

    Raises:
        CheckpointError: the sizes differ; names the first parameter that does.
    """
    new = {name for name in _NEW_PARTS if name in wanted and name not in loaded}
    wanted = {name: part for name, part in wanted.items() if name not in new}
    loaded = {name: part for name, part in loaded.items() if name in wanted or name not in _NEW_PARTS}
    check_same_shapes(flat_shapes(loaded), flat_shapes(wanted), origin)
    return jax.tree.map(lambda leaf, array: array.astype(leaf.dtype), wanted, loaded), new
