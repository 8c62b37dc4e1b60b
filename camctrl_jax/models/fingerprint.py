"""What tells one set of weights from another."""

from __future__ import annotations

import hashlib
from typing import Any

import jax
import numpy as np


def fingerprint_of_weights(config: Any, params: Any) -> str:
    """16 hexadecimal digits of a network's configuration and of every byte of its parameters, as float32."""
    digest = hashlib.sha256(repr(config).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.asarray(leaf, np.float32).tobytes())
    return digest.hexdigest()[:16]
