"""Put the parts of a server together and run it."""

from __future__ import annotations

import logging
import socket
from pathlib import Path

from camctrl_jax.errors import InvalidValue
from camctrl_jax.explore.jobs import Queue
from camctrl_jax.explore.model import Model
from camctrl_jax.explore.service import Service
from camctrl_jax.explore.store import Store
from camctrl_jax.explore.worker import Worker
from camctrl_jax.extras import require

EXTRA = ("starlette", "uvicorn", "msgspec", "python_multipart", "av")


def make_service(
    folder: Path,
    model: Model,
    *,
    queue: int = 32,
    queue_per_visitor: int = 6,
    storage: float = 20.0,
) -> Service:
    """Open the folder of a server.

    Args:
        folder: of everything; made if need be.
        model: what makes clips.
        queue, queue_per_visitor: jobs that may wait.
        storage: gigabytes.

    Raises:
        FileInUse: another server has the folder.
    """
    store = Store(folder, int(storage * 1e9))
    jobs = Queue(store.jobs, queue, queue_per_visitor)
    return Service(store, jobs, model, Worker(store, jobs, model))


def serve(
    *,
    folder: Path,
    checkpoint: str,
    vae: str | None,
    float32: bool,
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
    model = Model(checkpoint, vae, float32=float32)
    service = make_service(folder, model, queue=queue, queue_per_visitor=queue_per_visitor, storage=storage)
    for line in service.queue.unreadable:
        print(f"note: this job cannot be read and is left alone: {line}", flush=True)
    waiting = len(service.queue.waiting())
    if waiting:
        print(f"{waiting} jobs wait since the last time", flush=True)
    shown = f"[{host}]" if ":" in host else host
    print(f"explore at http://{shown}:{listening.getsockname()[1]}  (Ctrl-C ends it)", flush=True)
    try:
        run(make_app(service, [*allow_host, shown]), listening)
    finally:
        service.store.close()


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
