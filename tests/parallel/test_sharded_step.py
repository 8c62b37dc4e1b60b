"""A sharded step gives what an unsharded one gives; in a process of its own, which has eight devices."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_sharded_equals_unsharded():
    # Unoptimised code compiles in half the time, and says the same about sharding.
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    script = Path(__file__).with_name("sharded_step.py")
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = {line["mesh"]: line for line in map(json.loads, done.stdout.splitlines())}
    for name in ("data and fsdp", "fsdp, context and tensor"):
        assert lines[name]["update"] < 1e-5
        assert lines[name]["loss"] < 1e-5
    # Each device holds about a quarter of the parameters in both: fsdp 4, and fsdp 2 x tensor 2.
    assert lines["one device"]["held"] == 1.0
    assert lines["data and fsdp"]["held"] < 0.4
    assert lines["fsdp, context and tensor"]["held"] < 0.4
