"""Connections: uvicorn, which has no clock for the headers of a request, with one."""

from __future__ import annotations

import asyncio
import socket
from types import FrameType
from typing import Any

import h11
import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

_GRACE = 5  # seconds that open connections have when the server ends


class Connection(H11Protocol):
    """Closes a connection on which no whole request head arrives; bodies have their own clock (the guard).

    Attributes:
        head_within: seconds for the head of a request, from its first byte or from the connection's start.
    """

    head_within = 20.0
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Go on waiting as long as the head is not complete."""
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._wait()
        else:
            self._stop()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self._late is None:
            self._late = self.loop.call_later(self.head_within, self._too_late)

    def _stop(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _too_late(self) -> None:
        self._late = None
        self.transport.close()


class _Server(uvicorn.Server):
    """Tells the app at the first signal, so that streams of events end at once and not after the grace."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.config.app.state.ending = True
        super().handle_exit(sig, frame)


def run(app: Starlette, listening: socket.socket) -> None:
    """Serve until a signal says otherwise."""
    config = uvicorn.Config(
        app,
        http=Connection,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE,
        h11_max_incomplete_event_size=32_768,
        limit_concurrency=512,
    )
    _Server(config).run(sockets=[listening])
