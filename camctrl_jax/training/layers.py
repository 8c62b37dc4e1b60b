"""One state in two forms: an entry per layer, which checkpoints hold, and layers stacked for a scan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from camctrl_jax.models import MMDiTConfig, layer_names, stack_layers, unstack_layers


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
