"""What the benchmarks share: every task in a process of its own, timed alike, one table at the end.

Tasks run one after the other on the same machine, so that a ratio compares like with like; each has its own
process, so that neither sees the memory or the compilation cache of another.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

# For a task that compiles everything, whatever ran before it.
NO_CACHE = {"JAX_COMPILATION_CACHE_DIR": "", "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"}


def cache_in(folder: str) -> dict[str, str]:
    """For tasks that find in a folder what those before them compiled."""
    return {
        "JAX_COMPILATION_CACHE_DIR": folder,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def add_common_arguments(parser: argparse.ArgumentParser, tasks: Sequence[str]) -> None:
    """``--repeats``, ``--only``, and the task of a child process."""
    parser.add_argument("--repeats", type=int, default=8, help="calls in a row that are timed")
    parser.add_argument("--only", nargs="+", choices=tasks, metavar="TASK", help=f"of {', '.join(tasks)}")
    parser.add_argument("--seconds", type=float, default=900.0, help="a task that takes longer is stopped")
    parser.add_argument("--task", choices=tasks, help=argparse.SUPPRESS)


def run_tasks(
    script: str,
    tasks: Sequence[str],
    options: argparse.Namespace,
    environment: dict[str, dict[str, str]],
    arguments: Sequence[str] = (),
) -> dict[str, dict[str, Any]]:
    """Run ``script`` once per task, with the arguments of this process, ``arguments`` and ``--task``.

    ``environment`` adds variables by task. Gives {task: its result}; a task that fails is reported and left
    out.
    """
    results = {}
    for task in options.only or tasks:
        command = [sys.executable, script, *sys.argv[1:], *arguments, "--task", task]
        variables = os.environ | environment.get(task, {})
        try:
            done = subprocess.run(
                command, env=variables, capture_output=True, text=True, check=False, timeout=options.seconds
            )
        except subprocess.TimeoutExpired as stopped:
            said = (stopped.stderr or b"")[-500:].decode(errors="replace")
            print(f"{task}: stopped after {options.seconds:.0f} s\n{said}", file=sys.stderr, flush=True)
            continue
        line = next((line for line in done.stdout.splitlines() if line.startswith("RESULT ")), None)
        if line is None:
            print(f"{task} failed:\n{done.stderr[-3000:]}", file=sys.stderr, flush=True)
            continue
        results[task] = json.loads(line.removeprefix("RESULT "))
        print(f"{task}: {results[task]}", file=sys.stderr, flush=True)
    return results


def report(result: dict[str, Any]) -> None:
    """What a child process calls at its end."""
    print("RESULT", json.dumps(result), flush=True)


def seconds_per_call(
    run: Callable[[], Any], wait: Callable[[Any], Any], repeats: int, rounds: int = 3
) -> float:
    """Time of one of ``repeats`` calls of ``run`` in a row, of which the last is waited for, as a training
    loop makes them; the median of ``rounds``, after a first call.
    """
    wait(run())
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        for _ in range(repeats):
            result = run()
        wait(result)
        times.append((time.perf_counter() - started) / repeats)
    return statistics.median(times)


def jax_machine() -> dict[str, str]:
    """Names of the card and the versions, for the head of a table."""
    import jax

    return {"card": jax.devices()[0].device_kind, "jax": jax.__version__}


def jax_peak_bytes() -> int | None:
    """Highest use of device memory by this process, of the fullest device; None where it is not counted."""
    import jax

    peaks = [(device.memory_stats() or {}).get("peak_bytes_in_use") for device in jax.local_devices()]
    return None if None in peaks else max(peaks)


def jax_compiled(function: Callable, *args: Any, **kwargs: Any) -> tuple[Callable, dict[str, float]]:
    """``jax.jit(function)`` compiled for these arguments, and the seconds that tracing and compiling took."""
    import jax

    jitted = function if hasattr(function, "lower") else jax.jit(function)
    started = time.perf_counter()
    lowered = jitted.lower(*args, **kwargs)
    traced = time.perf_counter()
    print(f"traced in {traced - started:.1f} s", file=sys.stderr, flush=True)
    compiled = lowered.compile()
    seconds = time.perf_counter() - traced
    print(f"compiled in {seconds:.1f} s", file=sys.stderr, flush=True)
    return compiled, {"trace_s": traced - started, "compile_s": seconds}


def machine_of(results: dict[str, dict[str, Any]]) -> dict[str, str]:
    """The card and the versions that the tasks reported."""
    return {key: r[key] for r in results.values() for key in ("card", "jax", "torch") if key in r}


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; None is shown as a dash."""

    def shown(value: Any) -> str:
        if value is None:
            return "-"
        return (
            f"{value:.3g}"
            if isinstance(value, float) and abs(value) < 100
            else (f"{value:,.0f}" if isinstance(value, float) else str(value))
        )

    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(map(shown, row)) + " |" for row in rows]
    return "\n".join(lines)


def gib(size: float | None) -> float | None:
    """Bytes in GiB."""
    return None if size is None else size / 2**30
