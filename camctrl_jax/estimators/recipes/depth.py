"""Metric depth: Depth Pro as Apple publishes it, and the class of transformers.

Depth is proportional to the focal length: a wrong one scales every metre. Pass intrinsics only if they are
right.
"""

from __future__ import annotations

from camctrl_jax.estimators.process import Installation, Program
from camctrl_jax.estimators.programs import ProgramDepth
from camctrl_jax.estimators.recipes.runner import READING, runner

_CLIP = ("--images", "{images}", "--work", "{work}", "--out", "{out}")


def depth_pro(installation: Installation) -> ProgramDepth:
    """Depth Pro (github.com/apple/ml-depth-pro), installed as the package ``depth_pro``; depth_pro.pt."""
    return ProgramDepth(
        Program(
            "Depth Pro",
            (("{python}", runner("depth_pro"), "--weights", "{weights}", *_CLIP),),
            installation,
            weight_names=("depth_pro.pt",),
            licence="Code: Apple's sample code licence; weights: apple-amlr or apple-ascl, depending on the "
            f"revision. {READING}",
        ),
        farthest=200.0,
    )


def depth_pro_transformers(installation: Installation) -> ProgramDepth:
    """DepthProForDepthEstimation of transformers, from a local folder (config.json, model.safetensors)."""
    return ProgramDepth(
        Program(
            "Depth Pro (transformers)",
            (("{python}", runner("depth_pro_transformers"), "--weights", "{weights}", *_CLIP),),
            installation,
            weight_names=("a folder such as apple/DepthPro-hf",),
            licence="Code Apache-2.0; weights apple-amlr or apple-ascl, depending on the revision. "
            + READING,
        ),
        farthest=200.0,
    )
