"""A sharded step gives what an unsharded one gives; in a process of its own, which has eight devices."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def lines():
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    root = str(Path(__file__).parents[2])
    environment["PYTHONPATH"] = os.pathsep.join([root, environment.get("PYTHONPATH", "")])
    script = Path(__file__).with_name("sharded_step.py")
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return {line["case"]: line for line in map(json.loads, done.stdout.splitlines())}


CASES = [
    "dual, data",
    "dual, fsdp",
    "dual, tensor",
    "dual, context allgather",
    "dual, context ulysses",
    "dual, accumulated, data, fsdp and tensor",
    "heads, all axes, allgather",
    "heads, all axes, ulysses, scanned, accumulated",
    "retrieved, all axes, scanned, accumulated",
    "bank, all axes, accumulated",
    "camera, all axes, scanned",
    "distil, all axes, scanned, accumulated",
    "consistency, all axes, scanned, accumulated",
    "adversarial, data",
    "adversarial, all axes, scanned, accumulated",
    "anchored, all axes, scanned, accumulated",
    "flow map, all axes, scanned, accumulated",
]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_sharded_equals_unsharded(lines, case):
    assert lines[case]["update"] < 1e-5
    assert lines[case]["loss"] < 1e-5


@pytest.mark.slow
def test_parameters_are_shared_out(lines):
    assert lines["dual"]["held"] == 1.0
    assert lines["dual, fsdp"]["held"] < 0.2
    # About a quarter of the parameters on each device: fsdp 2 x tensor 2.
    assert lines["heads, all axes, allgather"]["held"] < 0.4
