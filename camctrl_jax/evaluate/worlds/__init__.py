"""``evaluate worlds``: the benchmark on procedural worlds that no training has seen."""

from camctrl_jax.evaluate.worlds.fooling import fool, fooling_table
from camctrl_jax.evaluate.worlds.report import benchmark_page
from camctrl_jax.evaluate.worlds.running import evaluate_worlds
from camctrl_jax.evaluate.worlds.settings import Settings

__all__ = [
    "Settings",
    "benchmark_page",
    "evaluate_worlds",
    "fool",
    "fooling_table",
]
