"""What tells one set of weights from another."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def fingerprint_of_weights(config: Any, params: Any) -> str:
    """16 hexadecimal digits of a network's configuration and of every byte of its parameters, as float32."""
    digest = hashlib.sha256(repr(config).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.asarray(leaf, np.float32).tobytes())
    return digest.hexdigest()[:16]


def fingerprint_of_networks(*networks: tuple[Any, Any]) -> str:
    """16 hexadecimal digits of networks, the same in float32 and in what bfloat16 makes of it.

    Args:
        networks: of each its configuration, JSON-able, and its parameters.
    """
    digest = hashlib.sha256()
    for described, params in networks:
        digest.update(json.dumps(described, sort_keys=True).encode())
        # Sorted: scanned layers, taken apart, come in another order.
        leaves = {
            jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        }
        for path in sorted(leaves):
            digest.update(path.encode())
            digest.update(np.asarray(leaves[path]).astype(jnp.bfloat16).tobytes())
    return digest.hexdigest()[:16]
