"""A run directory belongs to one run at a time, and to nobody once that run is gone."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from camctrl_jax.checkpoints.run_lock import LOCK_FILE, RunInProgress, run_lock

HOLD = """
import sys, time
from camctrl_jax.checkpoints.run_lock import run_lock
with run_lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_run_is_refused_and_told_who_holds_the_directory(tmp_path, holder):
    with pytest.raises(RunInProgress) as told, run_lock(tmp_path):
        raise AssertionError("it was let in")
    assert f"process {holder.pid} on {socket.gethostname()}" in str(told.value)
    assert "--workdir" in str(told.value)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_lock_whose_process_is_gone_is_taken_over(tmp_path, holder, number):
    holder.send_signal(number)
    holder.wait()
    with run_lock(tmp_path):
        assert f'"process": {os.getpid()}' in (tmp_path / LOCK_FILE).read_text()


def test_it_is_free_again_afterwards(tmp_path):
    for _ in range(2):
        with run_lock(tmp_path / "new" / "run"):
            pass
