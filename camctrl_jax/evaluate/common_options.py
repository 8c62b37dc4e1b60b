"""Options that several commands of ``evaluate`` share; ``add`` is a parser's ``add_argument``."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def add_model(add: Any) -> None:
    """Which weights."""
    add(
        "--checkpoint",
        default="default",
        metavar="SPEC",
        help="'default' or 'student' (in the package), a run directory, or a weights folder",
    )
    add("--vae", metavar="SPEC", help="another autoencoder than the one the checkpoint was trained with")


def add_rows(add: Any, guidance: str) -> None:
    """The rows of the tables: every number of steps with every weight; ``guidance`` names its default."""
    add(
        "--steps",
        type=int,
        nargs="+",
        metavar="N",
        help="Euler steps, one or several numbers, each with every guidance weight (default: 32; 8 on a CPU; "
        "a student's own)",
    )
    add(
        "--camera-guidance",
        type=float,
        nargs="+",
        metavar="W",
        help=f"one or several weights, each a row of the tables (default: {guidance}; a student's: 1, none)",
    )


def add_size(add: Any) -> None:
    """The size of clips."""
    add("--frames", type=int, help="of a clip, 4k+1 (default: as the model was trained)")
    add("--height", type=int, help="pixels (default: as the model was trained)")
    add("--width", type=int, help="pixels (default: as the model was trained)")


def add_estimating(add: Any) -> None:
    """How estimators look at clips."""
    add(
        "--pose-frames",
        type=int,
        default=16,
        metavar="N",
        help="poses are estimated for at most so many frames of a clip, evenly spread (default 16)",
    )
    add(
        "--longest-side",
        type=int,
        default=640,
        metavar="PX",
        help="estimators see pictures of at most so many pixels a side (default 640)",
    )
    add(
        "--estimate-lens",
        dest="known_lens",
        action="store_false",
        help="estimate focal lengths too, instead of taking those that were asked for as true",
    )
    add("--estimators", type=Path, metavar="FILE", help="JSON with other estimators, see evaluate videos")
    add("--fvd", type=Path, metavar="FILE", help="I3D as TorchScript: Frechet distance to the reference")
    add(
        "--jobs",
        type=int,
        metavar="N",
        help="clips at a time (default: one for each core, at most 8; 1 with programs of other environments)",
    )
    add("--shown", type=int, default=3, metavar="N", help="clips on best.png and worst.png (default 3)")
