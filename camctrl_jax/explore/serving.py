"""Put the parts of a server together and run it."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from types import MappingProxyType

from camctrl_jax.errors import InvalidValue
from camctrl_jax.explore.jobs import Queue
from camctrl_jax.explore.model import Model
from camctrl_jax.explore.service import Service
from camctrl_jax.explore.store import Store
from camctrl_jax.explore.worker import Worker
from camctrl_jax.extras import require

EVERYWHERE = MappingProxyType({"0.0.0.0": "127.0.0.1", "::": "::1"})
"""Addresses that mean all of a machine's, and the one to open on the machine itself."""
EXTRA = ("starlette", "uvicorn", "msgspec", "python_multipart", "av")


def make_service(
    folder: Path,
    model: Model,
    *,
    student: Model | None = None,
    queue: int = 32,
    queue_per_visitor: int = 6,
    storage: float = 20.0,
) -> Service:
    """Open the folder of a server.

    Args:
        folder: of everything; made if need be.
        model: what makes clips.
        student: what makes quick looks, if there is one.
        queue, queue_per_visitor: jobs that may wait.
        storage: gigabytes.

    Raises:
        FileInUse: another server has the folder.
    """
    store = Store(folder, int(storage * 1e9))
    jobs = Queue(store.jobs, queue, queue_per_visitor)
    return Service(store, jobs, model, Worker(store, jobs, model, student), student)


def serve(
    *,
    folder: Path,
    checkpoint: str,
    student: str | None,
    vae: str | None,
    float32: bool,
    mesh: str | None,
    host: str,
    port: int,
    allow_host: list[str],
    queue: int,
    queue_per_visitor: int,
    storage: float,
) -> None:
    """Serve until a signal says otherwise; see ``__main__`` for the options."""
    for module in EXTRA:
        require(module, extra="explore")
    from camctrl_jax.explore.app import make_app
    from camctrl_jax.explore.connections import run

    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    listening = _listening(host, port)  # before weights are looked up
    model = Model(checkpoint, vae, float32=float32, mesh=mesh)
    quick = None if student is None else Model(student, vae, float32=float32, mesh=mesh, teacher=model)
    for line in (*model.notes, *(() if quick is None else quick.notes)):
        print(f"note: {line}", flush=True)
    service = make_service(
        *(folder, model), student=quick, queue=queue, queue_per_visitor=queue_per_visitor, storage=storage
    )
    for line in service.queue.unreadable:
        print(f"note: this job cannot be read and is left alone: {line}", flush=True)
    waiting = len(service.queue.waiting())
    if waiting:
        print(f"{waiting} jobs wait since the last time", flush=True)
    bound, port = listening.getsockname()[:2]
    everywhere = bound in EVERYWHERE  # however that was said
    for line in addresses(bound if everywhere else host, port, allow_host, own_address):
        print(line, flush=True)
    own = [] if everywhere else [_shown(host)]
    try:
        run(make_app(service, [*allow_host, *own]), listening)
    finally:
        service.store.close()


def addresses(host: str, port: int, allowed: Sequence[str], own: Callable[[], str | None]) -> list[str]:
    """What is said at start of where to open the page.

    Args:
        host, port: what the server listens on.
        allowed: names it is also known by.
        own: finds an address of this machine in its network; asked only when one is needed.
    """
    everywhere = EVERYWHERE.get(host)
    lines = [f"explore at http://{_shown(everywhere or host)}:{port}  (Ctrl-C ends it)"]
    lines += [f"and at http://{name}:{port}" for name in allowed]
    if everywhere is not None and not allowed:
        found = own()
        lines.append(
            f"note: other machines reach this one as http://{found or 'ADDRESS'}:{port} and are refused "
            f"until it is started with --allow-host {found or 'ADDRESS'}, the name or address they open."
        )
    return lines


def own_address() -> str | None:
    """The IPv4 address of this machine in the network it reaches others by; None without one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            asking.connect(("192.0.2.1", 9))  # of documentation; connecting a datagram socket sends nothing
        except OSError:
            return None
        return asking.getsockname()[0]


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(512)  # who opens the page as soon as it is told of waits, and is not refused
    except OSError as error:
        listening.close()
        raise InvalidValue(
            f"cannot listen on {host}:{port}: {error.strerror or error}; choose another --port or --host."
        ) from error
    return listening
