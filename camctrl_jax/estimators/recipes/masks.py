"""Motion masks: TMO, SAM 2."""

from __future__ import annotations

from camctrl_jax.estimators.process import Installation, Program
from camctrl_jax.estimators.programs import ProgramMasks
from camctrl_jax.estimators.protocols import MotionSegmenter
from camctrl_jax.estimators.recipes.runner import READING, runner


def tmo(installation: Installation, *, backbone: str = "rn101", flow: str = "images") -> ProgramMasks:
    """TMO, the segmenter of the paper's appendix (github.com/suhwan-cho/TMO).

    Its environment: Python with torch 1.11 or later, torchvision, Pillow. ``repository`` is its code
    (tmo.py); it has no command line for a clip, so the runner imports its class. One file of weights for each
    backbone.

    Args:
        backbone: "rn101", or "mitb1", which asks the hub of Hugging Face for nvidia/mit-b1: have it in the
            cache (HF_HOME).
        flow: what its second input is: "images", as the appendix has it (the pictures themselves).
    """
    command = ("{python}", runner("tmo"), "--repository", "{repository}", "--weights", "{weights}")
    command += ("--images", "{images}", "--out", "{out}", "--backbone", backbone, "--flow", flow)
    return ProgramMasks(
        Program(
            "TMO",
            (command,),
            installation,
            needs=("tmo.py",),
            weight_names=(f"TMO_{backbone}.pth",),
            licence="Its LICENSE is MIT, its README allows non-commercial research only: take it as "
            f"non-commercial. {READING}",
        )
    )


def sam2(installation: Installation, *, prompts: MotionSegmenter, config: str) -> ProgramMasks:
    """SAM 2 (github.com/facebookresearch/sam2), which follows what it is shown; it does not find motion
    itself.

    Its environment: torch 2.5.1 or later and the package ``sam2``. The runner shows it, in the frame where
    most moves, the parts that ``prompts`` finds, and takes what it follows through the clip, both ways.

    Args:
        prompts: finds moving things roughly, for example
            :class:`~camctrl_jax.estimators.motion_masks.EpipolarMasks`.
        config: its configuration of the weights, e.g. ``configs/sam2.1/sam2.1_hiera_l.yaml``.
    """
    command = ("{python}", runner("sam2"), "--weights", "{weights}", "--config", config)
    command += ("--images", "{images}", "--masks", "{masks}", "--out", "{out}")
    return ProgramMasks(
        Program(
            "SAM 2",
            (command,),
            installation,
            weight_names=("sam2.1_hiera_large.pt (or another size)",),
            licence=f"Code and weights Apache-2.0, one file BSD-3. {READING}",
        ),
        prompts,
    )
