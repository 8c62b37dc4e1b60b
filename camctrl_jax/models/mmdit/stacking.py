"""Two forms of the parameters: an entry per layer, which checkpoints hold, and layers stacked for a scan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from camctrl_jax.models.mmdit.config import MMDiTConfig
from camctrl_jax.models.roles import role_of


def stack_name(name: str, indices: range) -> str:
    """Entry of the stacked parameters of blocks ``name``_i for i in ``indices``."""
    return f"{name}_{indices.start}_to_{indices.stop - 1}"


def equal_blocks(singles: range) -> range:
    """Those of consecutive single blocks that compute alike: all but the last, which is narrow."""
    return singles[:-1]


def stacks(config: MMDiTConfig) -> list[tuple[str, range]]:
    """The runs of equal blocks: (name, indices) of each."""
    first_decoder = config.num_single - config.num_decoder
    runs = [
        ("transformer_blocks", range(config.num_dual)),
        ("single_transformer_blocks", equal_blocks(range(first_decoder))),
        ("single_transformer_blocks", equal_blocks(range(first_decoder, config.num_single))),
    ]
    return [(name, indices) for name, indices in runs if len(indices)]


def layer_names(config: MMDiTConfig) -> tuple[str, str]:
    """(an entry of per-layer parameters, an entry of stacked ones) that the other form does not have; empty
    where no two blocks are alike and both forms are one.
    """
    if not stacks(config):
        return "", ""
    name, indices = stacks(config)[0]
    return f"{name}_{indices.start}", stack_name(name, indices)


def stack_layers(params: dict, config: MMDiTConfig) -> dict:
    """Per-layer parameters -> those of the ``scan_layers`` twin, with a leading axis over equal blocks."""
    params = dict(params)
    for name, indices in stacks(config):
        layers = [params.pop(f"{name}_{i}") for i in indices]
        params[stack_name(name, indices)] = jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)
    return params


def unstack_layers(params: dict, config: MMDiTConfig) -> dict:
    """Inverse of :func:`stack_layers`: the form that checkpoints hold."""
    params = dict(params)
    for name, indices in stacks(config):
        stacked = params.pop(stack_name(name, indices))
        for position, i in enumerate(indices):
            params[f"{name}_{i}"] = jax.tree.map(lambda leaf, p=position: leaf[p], stacked)
    return params


def stack_state(tree: Any, config: MMDiTConfig) -> Any:
    """Any tree that holds parameters (or moments, averages ...) with one entry per layer -> stacked."""
    return _converted(tree, layer_names(config)[0], lambda params: stack_layers(params, config))


def unstack_state(tree: Any, config: MMDiTConfig) -> Any:
    """Inverse of :func:`stack_state`."""
    return _converted(tree, layer_names(config)[1], lambda params: unstack_layers(params, config))


def _converted(tree: Any, marker: str, convert: Callable[[dict], dict]) -> Any:
    """Every dictionary with the entry ``marker`` converted, wherever in the tree it is."""

    def holds_layers(node: Any) -> bool:
        return isinstance(node, dict) and marker in node

    return jax.tree.map(
        lambda node: convert(node) if holds_layers(node) else node, tree, is_leaf=holds_layers
    )


def mmdit_in_dtype(params: dict, dtype: Any) -> dict:
    """Parameters with those rounded to ``dtype`` that :class:`MMDiT` of this dtype rounds itself.

    The network gives the same numbers from them, from half the memory. For sampling; training keeps float32.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf if role_of(path).float32 else leaf.astype(dtype), params
    )
