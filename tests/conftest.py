"""Shared fixtures: the folder of real test inputs, and a CPU JAX with a persistent compilation cache."""

from __future__ import annotations

import gc
import os
import tempfile
from importlib.metadata import version
from pathlib import Path

# Set before anything imports JAX: tests run on the CPU everywhere, and the cache lets the workers of one run
# (and later runs) share compiled programs.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(tempfile.gettempdir()) / "camctrl_jax_test_cache")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.02")
# Small models spend their time in the compiler: what it does not optimise, and does not split for threads,
# compiles in half the time; what it emits in the older of its two ways, which later versions have no more, in
# half of that.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
    + (" --xla_cpu_use_fusion_emitters=false" if version("jax").startswith("0.10.") else ""),
)

import pytest

TEST_DATA_VARIABLE = "CAMCTRL_TEST_DATA"


def pytest_collection_finish():
    """Modules and collected tests live until the end: the garbage collector need not look at them again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def test_data():
    """A function from a relative path to a real test input; skips with a reason where it is absent."""
    root = os.environ.get(TEST_DATA_VARIABLE)

    def find(relative: str) -> Path:
        if not root:
            pytest.skip(f"{TEST_DATA_VARIABLE} is not set; it names the folder that holds {relative}")
        path = Path(root) / relative
        if not path.exists():
            pytest.skip(f"{path} is absent ({TEST_DATA_VARIABLE}={root})")
        return path

    return find


@pytest.fixture(scope="session", autouse=True)
def parsed_flags():
    """Grain's worker processes read absl flags, which must have been parsed."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["tests"])
