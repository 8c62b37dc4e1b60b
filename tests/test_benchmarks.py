"""The benchmark of objectives at the size of tests; the others need an accelerator or a peer."""

import importlib
import shlex
from pathlib import Path

import jax
import pytest

TINY = shlex.split("--task flow_map --batch 1 --latents 2 2 4 --text 4 --layers 1 2 1 --heads 1")
OVERRIDES = ["--config.dtype=float32"]


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    return importlib.import_module("objectives")


def test_updates_of_a_recipe_are_timed(benchmark):
    result = benchmark.run_task(benchmark.make_parser().parse_args(TINY), OVERRIDES)
    assert result["clips"] == 4  # one asked for: a quarter of them learns from the teacher
    assert result["ms"] > 0
    assert result["needs"] > 2**20
    task, clips, ms, rate, share, *_ = benchmark.row("flow_map", result)
    assert (task, clips, ms, share) == ("flow_map", 4, result["ms"], None)
    assert rate == pytest.approx(result["flops"] / ms / 1e9)


def test_a_step_that_does_not_fit_is_a_row(benchmark, monkeypatch):
    def exhausted(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate")

    monkeypatch.setattr(benchmark, "seconds_per_update", exhausted)
    result = benchmark.run_task(benchmark.make_parser().parse_args(TINY), OVERRIDES)
    row = benchmark.row("flow_map", result | {"needs": 90 * 2**30})
    assert row[:3] == ("flow_map", 4, "does not fit: needs 90.0 GiB")
