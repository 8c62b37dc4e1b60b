"""``evaluate worlds``: the benchmark on procedural worlds that no training has seen."""

from camctrl_jax.evaluate.worlds.comparing import CompareSettings, compare_results, comparison_markdown
from camctrl_jax.evaluate.worlds.fooling import fool, fooling_table
from camctrl_jax.evaluate.worlds.report import benchmark_page
from camctrl_jax.evaluate.worlds.running import evaluate_worlds
from camctrl_jax.evaluate.worlds.settings import Settings

__all__ = [
    "CompareSettings",
    "Settings",
    "benchmark_page",
    "compare_results",
    "comparison_markdown",
    "evaluate_worlds",
    "fool",
    "fooling_table",
]
