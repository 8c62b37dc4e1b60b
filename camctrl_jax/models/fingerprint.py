"""What tells one set of weights from another."""

from __future__ import annotations

import hashlib
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


def fingerprint_of_parameters(*networks: Any) -> str:
    """16 hexadecimal digits of the parameters of networks, the same in float32 and in bfloat16.

    Of no configuration, whose fields may become more in later versions of this package.
    """
    digest = hashlib.sha256()
    for params in networks:
        # Sorted: scanned layers, taken apart, come in another order.
        leaves = {
            jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        }
        for path in sorted(leaves):
            digest.update(f"{path} {leaves[path].shape}".encode())
            digest.update(np.asarray(leaves[path]).astype(jnp.bfloat16).tobytes())
    return digest.hexdigest()[:16]
