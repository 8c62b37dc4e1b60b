"""The multimodal diffusion transformer: sizes, layers, blocks, and parameters in their two forms."""

from camctrl_jax.models.mmdit.config import PLUCKER_CHANNELS, TIME_CHANNELS, CameraConfig, MMDiTConfig
from camctrl_jax.models.mmdit.model import MMDiT
from camctrl_jax.models.mmdit.stacking import (
    layer_names,
    mmdit_in_dtype,
    stack_layers,
    stack_name,
    stack_state,
    stacks,
    unstack_layers,
    unstack_state,
)
from camctrl_jax.models.mmdit.target_time import leading_to

__all__ = [
    "PLUCKER_CHANNELS",
    "TIME_CHANNELS",
    "CameraConfig",
    "MMDiT",
    "MMDiTConfig",
    "layer_names",
    "leading_to",
    "mmdit_in_dtype",
    "stack_layers",
    "stack_name",
    "stack_state",
    "stacks",
    "unstack_layers",
    "unstack_state",
]
