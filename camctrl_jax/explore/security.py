"""What every request has to pass, and what every answer carries.

A page elsewhere in the visitor's browser must not steer the server (Origin), nor reach it under a name of its
own (Host, against DNS rebinding); our page loads nothing from elsewhere (Content-Security-Policy).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from camctrl_jax.explore.problems import Refusal

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' "
    "blob:; connect-src 'self'; font-src 'self'; worker-src 'self' blob:; manifest-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "X-Frame-Options": "DENY",
}
LOCAL = ("127.0.0.1", "localhost", "[::1]")
MOST_BODY = 4_000_000
MOST_UPLOAD = 40_000_000
_SLOWEST = 60.0  # seconds for a body
_UPLOADS = ("/v1/explorations", "/v1/videos")  # POST: the routes that take a picture


class Guard:
    """ASGI middleware around everything."""

    def __init__(self, app: ASGIApp, hosts: Iterable[str] = (), most_seconds: float = _SLOWEST) -> None:
        """Args:
        app: what is guarded.
        hosts: names that the server is reached by, besides those of this machine; without ports.
        most_seconds: that a body may take to arrive.
        """
        self._app, self._hosts = app, frozenset({*LOCAL, *(host.lower() for host in hosts)})
        self._most_seconds = most_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, begun = Headers(scope=scope), False

        async def with_headers(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                mutable = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    mutable[name] = value
                if scope["path"].startswith("/v1/"):
                    mutable.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            self._check_names(headers)
            if headers.get("content-encoding", "identity") != "identity":
                raise Refusal("unsupported", "Send the body as it is, without Content-Encoding.")
            most = MOST_UPLOAD if _takes_picture(scope, headers) else MOST_BODY
            told = headers.get("content-length", "0")
            if told.isdigit() and int(told) > most:
                raise _too_large(most)
            await self._app(scope, self._counted(receive, most), with_headers)
        except Refusal as refusal:
            if begun:
                raise
            await _answer(refusal, with_headers)

    def _check_names(self, headers: Headers) -> None:
        host = headers.get("host", "").lower()
        if _name(host) not in self._hosts:
            raise Refusal(
                "forbidden",
                f"This server is not known as {host[:100]!r}: open it as {LOCAL[0]} or {LOCAL[1]}, or start "
                "it with --allow-host NAME.",
            )
        origin = headers.get("origin")
        if origin is not None and (origin == "null" or urlsplit(origin).netloc.lower() != host):
            raise Refusal("forbidden", f"A page of {origin[:100]!r} may not use this server.")
        site = headers.get("sec-fetch-site", "none")
        if site not in ("same-origin", "none") and headers.get("sec-fetch-mode") != "navigate":
            raise Refusal("forbidden", "A page of another site may not use this server.")

    def _counted(self, receive: Receive, most: int) -> Receive:
        """``receive`` that refuses a body which is too long or too slow."""
        size, complete = 0, False
        loop = asyncio.get_running_loop()
        end = loop.time() + self._most_seconds

        async def counted() -> Message:
            nonlocal size, complete
            if complete:  # what comes now is the end of the connection, which may take as long as it likes
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), max(0.01, end - loop.time()))
            except TimeoutError:
                raise Refusal(
                    "bad_request", f"The body took more than {self._most_seconds:g} s to arrive: try again."
                ) from None
            size += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if size > most:
                raise _too_large(most)
            return message

        return counted


def _takes_picture(scope: Scope, headers: Headers) -> bool:
    form = headers.get("content-type", "").strip().lower().startswith("multipart/form-data")
    return form and scope["method"] == "POST" and scope["path"] in _UPLOADS


def _name(host: str) -> str:
    """A Host without its port."""
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


def _too_large(most: int) -> Refusal:
    return Refusal("too_large", f"The body is over {most / 1e6:g} MB, the most there may be: send less.")


async def _answer(refusal: Refusal, send: Send) -> None:
    body = json.dumps(refusal.body).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
