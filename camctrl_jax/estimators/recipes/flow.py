"""Optical flow: RAFT as its authors publish it, and torchvision's."""

from __future__ import annotations

from camctrl_jax.errors import InvalidValue
from camctrl_jax.estimators.process import Installation, Program
from camctrl_jax.estimators.programs import ProgramFlow
from camctrl_jax.estimators.recipes.runner import READING, runner

_PAIRS = ("--first", "{first}", "--second", "{second}", "--out", "{out}")


def raft(installation: Installation, *, iterations: int = 20) -> ProgramFlow:
    """RAFT (github.com/princeton-vl/RAFT): ``repository`` with core/raft.py, one file of weights.

    Its environment: torch, scipy, opencv, Pillow. Weights carry the prefix "module." of DataParallel.
    """
    command = ("{python}", runner("raft"), "--repository", "{repository}", "--weights", "{weights}", *_PAIRS)
    return ProgramFlow(
        Program(
            "RAFT",
            ((*command, "--iterations", str(iterations)),),
            installation,
            needs=("core/raft.py",),
            weight_names=("raft-things.pth (or another)",),
            licence=f"BSD-3-Clause. {READING}",
        )
    )


def raft_torchvision(installation: Installation, *, size: str = "large", iterations: int = 12) -> ProgramFlow:
    """RAFT of torchvision: nothing but torch, torchvision, numpy and Pillow, and a file of weights.

    Args:
        size: "large" or "small"; weights raft_large_C_T_SKHT_V2-ff5fadd5.pth or
            raft_small_C_T_V2-01064c6d.pth.
    """
    if size not in ("large", "small"):
        raise InvalidValue(f"size is {size!r}; expected 'large' or 'small'.")
    command = ("{python}", runner("raft_torchvision"), "--weights", "{weights}", *_PAIRS)
    return ProgramFlow(
        Program(
            "torchvision RAFT",
            ((*command, "--size", size, "--iterations", str(iterations)),),
            installation,
            weight_names=(f"raft_{size}_*.pth",),
            licence=f"BSD-3-Clause; the data it was trained on have terms of their own. {READING}",
        )
    )
