"""``evaluate captions``: whether the colours that captions name appear in text to video."""

from camctrl_jax.evaluate.captions.report import captions_page
from camctrl_jax.evaluate.captions.running import evaluate_captions
from camctrl_jax.evaluate.captions.settings import Settings

__all__ = ["Settings", "captions_page", "evaluate_captions"]
