"""How processes find each other, and a job that loses one: it ends, and goes on with another number."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from camctrl_jax.parallel.hosts import Hosts, hosts_of

ROOT = Path(__file__).parents[2]
STEPS = 16


@pytest.mark.parametrize(
    ("environment", "hosts"),
    [
        ({}, Hosts("alone")),
        (
            {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"},
            Hosts("explicit", "a:1", 2, 1),
        ),
        (
            {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"},
            Hosts("alone"),
        ),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8", "SLURM_PROCID": "3"}, Hosts("slurm")),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8"}, Hosts("alone")),  # not started by srun
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, Hosts("alone")),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, Hosts("tpu")),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, Hosts("alone")),
        ({"MEGASCALE_COORDINATOR_ADDRESS": "a"}, Hosts("tpu")),
        ({"CAMCTRL_HOSTS": "all"}, Hosts("tpu")),
    ],
)
def test_the_environment_tells_the_hosts(environment, hosts):
    assert hosts_of(environment) == hosts


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"JAX_PROCESS_ID": ""}, "JAX_PROCESS_ID is not; set all three"),
        ({"JAX_PROCESS_ID": "2"}, r"JAX_PROCESS_ID=2, but there are JAX_NUM_PROCESSES=2 .* count from 0"),
        ({"JAX_PROCESS_ID": "one"}, "must be numbers"),
        ({"JAX_COORDINATOR_ADDRESS": "a"}, "has no port; expected e.g. a:1234"),
    ],
)
def test_variables_that_contradict_each_other_are_named(changes, message):
    given = {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}
    with pytest.raises(ValueError, match=message):
        hosts_of(given | changes)


def start(workdir, devices, process=None):
    """A training process of a tiny run with so many CPU devices; ``process`` is (port, index of two)."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "PYTHONUNBUFFERED": "1"}
    if process is not None:
        port, index = process
        environment |= {
            "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
            "JAX_NUM_PROCESSES": "2",
            "JAX_PROCESS_ID": str(index),
            "CAMCTRL_HEARTBEAT_SECONDS": "10",
        }
    command = [
        *(sys.executable, "-m", "camctrl_jax.train", "--config=configs/stage1.py:nano"),
        *(f"--workdir={workdir}", f"--config.steps={STEPS}", "--config.log_every=1"),
        *("--config.checkpoint_every=4", "--config.batch_size=10", "--config.model.num_single=0"),
        *("--config.mesh.data=1", "--config.mesh.fsdp=2", "--config.mesh.tensor=4"),
        *("--config.model.width=96", "--config.model.heads=4", "--config.optimizer.warmup_steps=2"),
    ]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)


def losses(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines}


@pytest.mark.slow
def test_a_job_that_loses_a_process_ends_and_goes_on_with_another_number(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    alone = start(whole, devices=8)
    output = alone.communicate(timeout=300)[0]
    assert alone.returncode == 0, output

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    first, second = (start(parts, 4, (port, index)) for index in (0, 1))
    drained = threading.Thread(target=second.communicate, daemon=True)
    drained.start()
    seen = []
    for line in first.stdout:
        seen.append(line)
        match = re.match(r"step (\d+)/", line)
        if match and int(match[1]) >= 10:
            second.send_signal(signal.SIGKILL)
            break
    seen.append(first.communicate(timeout=120)[0])  # it does not wait for ever
    output = "".join(seen)
    assert "in 2 processes" in output
    assert first.returncode not in (0, None), output
    assert "error: another process of this job has ended" in output, output
    assert "Traceback" not in output

    again = start(parts, devices=8)
    output = again.communicate(timeout=300)[0]
    assert again.returncode == 0, output
    step = int(re.search(r"parameters from .*checkpoints/(\d+)", output)[1])
    assert 4 <= step < STEPS
    expected, found = losses(whole), losses(parts)
    assert found.keys() == expected.keys() == set(range(1, STEPS + 1))
    for number in expected:
        assert found[number] == pytest.approx(expected[number], rel=1e-6), number
