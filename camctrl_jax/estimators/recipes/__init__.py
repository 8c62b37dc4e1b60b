"""Recipes: published estimators as programs, with the commands, files, weights and licences that they need.

Nothing here was run on the real weights by those who wrote it; commands and formats are those of the public
code, and docs/results/estimators.md says how each was checked. Each function takes the
:class:`~camctrl_jax.estimators.process.Installation` where a user has it and returns an adapter; where the
public code lacks a command line for a clip, a runner of ``camctrl_jax/estimators/runners`` is started in the
user's environment. What the licences say is a note from public sources and needs a human reading.
"""

from camctrl_jax.estimators.recipes.appearance import clip
from camctrl_jax.estimators.recipes.depth import depth_pro, depth_pro_transformers
from camctrl_jax.estimators.recipes.flow import raft, raft_torchvision
from camctrl_jax.estimators.recipes.masks import sam2, tmo
from camctrl_jax.estimators.recipes.structure import megasam, megasam_masks, vggsfm, vggt, vggt_points

__all__ = [
    "clip",
    "depth_pro",
    "depth_pro_transformers",
    "megasam",
    "megasam_masks",
    "raft",
    "raft_torchvision",
    "sam2",
    "tmo",
    "vggsfm",
    "vggt",
    "vggt_points",
]
