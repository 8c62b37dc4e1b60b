"""``evaluate explorations``: clips in a row on held-out places, and what memory is worth there."""

from camctrl_jax.evaluate.explorations.report import explorations_page
from camctrl_jax.evaluate.explorations.running import evaluate_explorations
from camctrl_jax.evaluate.explorations.settings import Settings

__all__ = ["Settings", "evaluate_explorations", "explorations_page"]
