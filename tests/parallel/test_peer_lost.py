"""Which errors say that another process of the job has ended, and which are a run's own."""

import jax
import pytest

from camctrl_jax.parallel.hosts import is_peer_lost

# As Gloo, NCCL and the coordination service wrote them.
LOST = [
    "UNKNOWN: Gloo all-reduce failed: [external/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by "
    "peer [127.0.0.1]:63708",
    "UNKNOWN: Gloo all-reduce failed: [external/gloo/gloo/transport/tcp/pair.cc:538] Read error "
    "[127.0.0.1]:52112: Connection reset by peer",
    "INTERNAL: NCCL operation ncclGroupEnd() failed: remote process exited or there was a network error. "
    "Last NCCL warning(error) log entry (may be unrelated) ''.",
    "UNAVAILABLE: The following tasks are unhealthy (stopped sending heartbeats):\n"
    "/job:jax_worker/replica:0/task:1\nThe tasks have crashed.",
    "UNAVAILABLE: Task /job:jax_worker/replica:0/task:1 heartbeat timeout. This indicates that the remote "
    "task has failed, got preempted, or crashed unexpectedly.",
    "UNAVAILABLE: Failed to send RPC to coordination service. Either the leader task was "
    "preempted/died/restarted unexpectedly or this task is experiencing network issues.",
]
OWN = [
    "INTERNAL: NCCL operation ncclCommInitRankConfig(...) failed: unhandled cuda error: Cuda failure 2 "
    "'out of memory'",
    "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 3298534883328 bytes.",
    "INTERNAL: NCCL operation ncclAllReduce(...) failed: invalid usage. peer access is not supported between "
    "these two devices",
    "INVALID_ARGUMENT: Gloo all-reduce failed: unsupported element type",
    "NOT_FOUND: coordination service key camctrl/latest is unknown",
]


@pytest.fixture
def several_processes(monkeypatch):
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)


@pytest.mark.usefixtures("several_processes")
@pytest.mark.parametrize("message", LOST)
def test_what_the_runtime_says_of_a_lost_process_is_known(message):
    assert is_peer_lost(jax.errors.JaxRuntimeError(message))


@pytest.mark.usefixtures("several_processes")
@pytest.mark.parametrize("message", OWN)
def test_a_failure_of_this_process_is_not_that_of_another(message):
    assert not is_peer_lost(jax.errors.JaxRuntimeError(message))


@pytest.mark.usefixtures("several_processes")
@pytest.mark.parametrize("kind", [ValueError, RuntimeError, ConnectionResetError, KeyboardInterrupt])
def test_only_errors_of_the_runtime_count(kind):
    assert not is_peer_lost(kind(LOST[0]))
    assert not is_peer_lost(kind("a peer review of the heartbeat in nccl and gloo"))


def test_a_process_alone_has_no_peers():
    assert not is_peer_lost(jax.errors.JaxRuntimeError(LOST[0]))
