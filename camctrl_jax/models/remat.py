"""What the backward pass keeps of a block, and what it computes again, by name."""

from __future__ import annotations

from typing import Any, Literal

import flax.linen as nn
import jax

from camctrl_jax.errors import InvalidValue

Remat = Literal["none", "dots", "full", "offload"]

REMAT_POLICIES: dict[str, Any] = {
    "none": None,  # keep everything; fastest, and the most memory
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,  # keep the results of matrix products
    "full": jax.checkpoint_policies.nothing_saveable,  # keep a block's input only
    # As 'dots', with the results in the memory of the host until the backward pass wants them.
    "offload": jax.checkpoint_policies.offload_dot_with_no_batch_dims("device", "pinned_host"),
}


def check_remat(name: str) -> None:
    """Raises: ValueError if no policy has this name."""
    if name not in REMAT_POLICIES:
        raise InvalidValue(
            f"remat={name!r} is unknown; choose {', '.join(map(repr, REMAT_POLICIES))}: from no "
            "recomputation to all of it, 'offload' with results kept in the memory of the host."
        )


def rematerialised(block: type[nn.Module], name: Remat, scanned: bool) -> type[nn.Module]:
    """A block whose backward pass follows the policy called ``name``; the same numbers.

    Args:
        block: the module class.
        name: a key of ``REMAT_POLICIES``.
        scanned: the block becomes the body of a scan, where nothing has to keep the compiler from merging
            the recomputation with the original.
    """
    if name == "none":
        return block
    return nn.remat(block, policy=REMAT_POLICIES[name], prevent_cse=not scanned)
