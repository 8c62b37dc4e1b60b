"""One job on several hosts: how its processes find each other, and what happens when one of them ends.

Every host runs the same command. Where the environment says so, the processes join before anything uses a
device; a process that runs alone joins nothing.

=====================================  ==================================================================
``JAX_COORDINATOR_ADDRESS``            host:port of process 0, with ``JAX_NUM_PROCESSES`` and
                                       ``JAX_PROCESS_ID``: explicit, for any launcher
``SLURM_JOB_ID``, ``SLURM_NTASKS``     set by srun, one task per host
``TPU_WORKER_HOSTNAMES``               set on GKE for every worker of a TPU slice
``MEGASCALE_COORDINATOR_ADDRESS``      set where a job spans several TPU slices
``CAMCTRL_HOSTS=all``                  a TPU pod of virtual machines, which tells by its metadata server only
``CAMCTRL_HEARTBEAT_SECONDS``          silence after which a process counts as lost; 100 if not set
=====================================  ==================================================================
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import jax

from camctrl_jax.errors import InvalidValue

_EXPLICIT = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")

# What the runtime says when a peer is gone. Whole phrases: a run's own error may well speak of peers, or come
# from NCCL or Gloo.
_PEER_LOST = (
    # sockets, under Gloo's collectives and the coordination service
    "connection closed by peer",
    "connection reset by peer",
    "broken pipe",
    "socket closed",
    # NCCL
    "remote process exited or there was a network error",
    # the coordination service
    "heartbeat timeout",
    "stopped sending heartbeats",
    "failed to send rpc to coordination service",
    "coordination service has been shut down",
    "coordination service to shut down before",
    "coordination service has stopped",
    "task has been shut down",
    "most likely indicates that another task died",
)


@dataclass(frozen=True)
class Hosts:
    """How the processes of a job find each other.

    Attributes:
        found_by: 'explicit', 'slurm', 'tpu', or 'alone'.
        coordinator: host:port of process 0, for 'explicit'.
        count: processes, for 'explicit'.
        index: which of them this is, for 'explicit'.
    """

    found_by: str
    coordinator: str | None = None
    count: int | None = None
    index: int | None = None


def hosts_of(environment: Mapping[str, str]) -> Hosts:
    """Read the environment variables of the module's table.

    Raises:
        ValueError: only some of the explicit variables are set, or they contradict each other.
    """
    given = [name for name in _EXPLICIT if environment.get(name)]
    if given:
        missing = [name for name in _EXPLICIT if name not in given]
        if missing:
            raise InvalidValue(
                f"{' and '.join(given)} is set, but {' and '.join(missing)} is not; set all three."
            )
        address, *numbers = (environment[name] for name in _EXPLICIT)
        if not all(number.isdecimal() for number in numbers):
            raise InvalidValue(
                f"{_EXPLICIT[1]}={numbers[0]!r} and {_EXPLICIT[2]}={numbers[1]!r} must be numbers."
            )
        count, index = map(int, numbers)
        if index >= count:
            raise InvalidValue(
                f"{_EXPLICIT[2]}={index}, but there are {_EXPLICIT[1]}={count} processes; count from 0."
            )
        if ":" not in address:
            raise InvalidValue(f"{_EXPLICIT[0]}={address!r} has no port; expected e.g. {address}:1234.")
        return Hosts("explicit", address, count, index) if count > 1 else Hosts("alone")
    if environment.get("SLURM_JOB_ID") and int(environment.get("SLURM_NTASKS") or 1) > 1:
        # Inside an allocation but not started by srun, a process is alone.
        return Hosts("slurm") if environment.get("SLURM_PROCID") else Hosts("alone")
    several = len(environment.get("TPU_WORKER_HOSTNAMES", "").split(",")) > 1
    if (
        several
        or environment.get("MEGASCALE_COORDINATOR_ADDRESS")
        or environment.get("CAMCTRL_HOSTS") == "all"
    ):
        return Hosts("tpu")
    return Hosts("alone")


def join_hosts(environment: Mapping[str, str] = os.environ) -> Hosts:
    """Join the other processes of this job; to be called once, before anything uses a device.

    Raises:
        ValueError: see :func:`hosts_of`.
    """
    hosts = hosts_of(environment)
    if hosts.found_by == "alone" or jax.distributed.is_initialized():
        return hosts
    heartbeat = int(environment.get("CAMCTRL_HEARTBEAT_SECONDS") or 100)
    if hosts.found_by == "explicit":
        jax.distributed.initialize(
            hosts.coordinator, hosts.count, hosts.index, heartbeat_timeout_seconds=heartbeat
        )
    else:
        jax.distributed.initialize(heartbeat_timeout_seconds=heartbeat)
    return hosts


def is_peer_lost(error: BaseException) -> bool:
    """Whether an error means that another process of the job has ended: one of the runtime, in a job of
    several processes, in the words that it has for that.
    """
    if not isinstance(error, jax.errors.JaxRuntimeError) or not jax.distributed.is_initialized():
        return False
    text = str(error).lower()
    return any(phrase in text for phrase in _PEER_LOST)


def leave_at_once(code: int) -> None:
    """End this process without the farewell that the runtime would exchange with processes that are gone."""
    os._exit(code)
