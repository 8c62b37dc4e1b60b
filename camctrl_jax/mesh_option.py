"""The option of commands that sample on several devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def add_mesh_option(add: Callable[..., Any]) -> None:
    """``--mesh``; ``add`` is ``add_argument`` of a parser or of a group."""
    add(
        "--mesh",
        metavar="SIZES",
        help="devices that share each clip: a number of them, or sizes by axis such as context=4 or "
        "data=3,context=2 (default: one device)",
    )
