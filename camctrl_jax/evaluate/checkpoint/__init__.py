"""``evaluate checkpoint``: how well a checkpoint does on clips that a user has, with cameras and truth."""

from camctrl_jax.evaluate.checkpoint.report import page
from camctrl_jax.evaluate.checkpoint.running import evaluate_checkpoint
from camctrl_jax.evaluate.checkpoint.settings import CheckpointSettings

__all__ = ["CheckpointSettings", "evaluate_checkpoint", "page"]
