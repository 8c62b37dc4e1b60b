"""What only real connections show: clients that are slow or leave, and work that holds nobody up."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import signal
import socket
import threading
import time
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="part of the explore extra")
pytest.importorskip("uvicorn", reason="part of the explore extra")
pytest.importorskip("python_multipart", reason="part of the explore extra")
pytest.importorskip("av", reason="videos are written by PyAV")

import uvicorn
from exploring import LONG
from nano_weights import save_nano

from camctrl_jax.explore import connections, downloads
from camctrl_jax.explore.app import make_app
from camctrl_jax.explore.connections import Connection
from camctrl_jax.explore.model import Model
from camctrl_jax.explore.schema import NewExploration
from camctrl_jax.explore.security import Guard
from camctrl_jax.explore.serving import make_service
from camctrl_jax.explore.store import About


class Impatient(Connection):
    head_within = 0.3


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return Model(str(save_nano(tmp_path_factory.mktemp("weights") / "nano")))


@pytest.fixture(scope="module")
def service(model, tmp_path_factory):
    return make_service(tmp_path_factory.mktemp("served"), model)


@pytest.fixture(scope="module")
def app(service):
    return make_app(service)


@pytest.fixture(scope="module")
def port(app):
    config = uvicorn.Config(app, http=Impatient, log_level="critical", timeout_graceful_shutdown=1)
    server, listening = uvicorn.Server(config), socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield listening.getsockname()[1]
    server.should_exit = app.state.ending = True
    thread.join(LONG)


@contextlib.contextmanager
def connected(port):
    with socket.create_connection(("127.0.0.1", port), timeout=LONG) as connection:
        yield connection


def head(port, path, method="GET", more=""):
    return f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{more}\r\n".encode()


def answered(connection):
    """The status and body of an answer on a connection that stays open."""
    answer = b""
    while b"\r\n\r\n" not in answer:
        part = connection.recv(65536)
        assert part, answer
        answer += part
    top, _, body = answer.partition(b"\r\n\r\n")
    size = next(int(line[16:]) for line in top.lower().split(b"\r\n") if line.startswith(b"content-length: "))
    while len(body) < size:
        body += connection.recv(65536)
    return int(top.split()[1]), json.loads(body)


@pytest.mark.parametrize("first", [b"", b"GET /v1/status HTTP/1.1\r\nHost: 127.0"])
def test_who_does_not_finish_the_head_of_a_request_is_hung_up_on(port, first):
    with connected(port) as connection:
        connection.sendall(first)
        assert connection.recv(1) == b""


def test_drips_into_the_head_of_a_second_request_do_not_hold_the_connection(port):
    with connected(port) as connection:
        connection.sendall(head(port, "/v1/status"))
        assert answered(connection)[0] == 200
        with contextlib.suppress(ConnectionError):
            for letter in b"GET /v1/status HTTP/1.1\r\nX-Slow: " + b"y" * 10_000:
                connection.sendall(bytes([letter]))
                time.sleep(0.01)
            pytest.fail("the server listened to the end")


def test_a_body_that_takes_longer_than_a_head_may_is_read(port):
    body = json.dumps({"path": "hold"}).encode()
    with connected(port) as connection:
        connection.sendall(head(port, "/v1/paths", "POST", f"Content-Length: {len(body)}\r\n") + body[:5])
        time.sleep(2 * Impatient.head_within)
        connection.sendall(body[5:])
        assert answered(connection)[0] == 200


@pytest.mark.parametrize("said", ["\u00b2", "x", ""])
def test_an_event_id_that_is_no_number_is_passed_over(port, service, said):
    job = service.queue.cancel(service.queue.add("scene", "anna-0000", "e", {}))
    asked = head(port, f"/v1/jobs/{job.id}/events", more="Last-Event-ID: SAID\r\n")
    with connected(port) as connection:
        connection.sendall(asked.replace(b"SAID", said.encode("latin-1")))
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_short_answers_come_while_all_threads_for_long_work_are_taken(port, service, app, monkeypatch):
    """More videos than there are threads in all are asked for, and none of them is ready."""
    begun, ready, ended = threading.Semaphore(0), threading.Event(), []

    def never(*_):
        begun.release()
        ended.append(ready.wait(LONG))
        raise FileNotFoundError

    monkeypatch.setattr(type(service), "truth", never)
    with contextlib.ExitStack() as stack:
        stack.callback(ready.set)
        for _ in range(50):
            stack.enter_context(connected(port)).sendall(head(port, "/v1/clips/e0123456789abcdef.0001/truth"))
        begun.acquire()
        with connected(port) as connection:
            for path in ("/v1/status", "/v1/explorations", "/v1/presets"):
                connection.sendall(head(port, path))
                assert answered(connection)[0] == 200
        assert ended == []


def test_events_do_not_stop_the_server_while_a_job_is_written(port, service, monkeypatch):
    job = service.queue.add("scene", "anna", "e", {})
    with service.queue.steady(), connected(port) as listening, connected(port) as other:
        listening.sendall(head(port, f"/v1/jobs/{job.id}/events"))
        assert b"retry" in listening.recv(4096)
        time.sleep(0.05)  # until the job is looked at
        other.sendall(head(port, "/v1/openapi.json"))
        assert answered(other)[0] == 200


def test_a_job_goes_on_when_its_listener_leaves_and_no_file_stays_open_for_who_left(port, service):
    asked = NewExploration(path="hold", steps=2)
    job = service.queue.get(service.start(asked, None, "anna")["job"]["id"])
    with connected(port) as listening:
        listening.sendall(head(port, f"/v1/jobs/{job.id}/events"))
        assert listening.recv(10)
    until(lambda: job.state in ("done", "failed"))
    assert job.state == "done", job.error
    video = service.store.folder(job.exploration).clip(job.clip) / "video.mp4"
    video.write_bytes(bytes(30_000_000))  # more than the system takes from the server at once
    with connected(port) as leaving:
        leaving.sendall(head(port, f"/v1/clips/{job.exploration}.{job.clip}/content"))
        assert leaving.recv(10)
        until(lambda: str(video) in open_files())
    until(lambda: str(video) not in open_files())


def open_files():
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(os.readlink(entry))
    return found


def until(true):
    stop = time.monotonic() + LONG
    while not true():
        assert time.monotonic() < stop
        time.sleep(0.01)


def test_a_body_that_does_not_come_is_refused_in_the_end():
    async def app(scope, receive, send):
        await receive()

    async def receive():
        await asyncio.Event().wait()

    async def send(message):
        sent.append(message)

    sent = []
    scope = {"type": "http", "path": "/v1/paths", "headers": [(b"host", b"127.0.0.1")]}
    asyncio.run(Guard(app, most_seconds=0.05)(scope, receive, send))
    assert sent[0]["status"] == 400
    assert b"to arrive" in sent[1]["body"]


def test_a_signal_ends_streams_of_events_before_the_server_waits_for_them(service):
    app = make_app(service)
    server = connections._Server(uvicorn.Config(app))
    server.handle_exit(signal.SIGTERM, None)
    assert app.state.ending
    assert server.should_exit


def test_a_project_is_packed_as_it_is_sent_and_leaves_nothing(service, tmp_path):
    name = service.store.create(About("", "anna", 1.0), None)
    content = {}
    for place in range(3):
        path = tmp_path / f"{place}.bin"
        path.write_bytes(bytes([place]) * 700_000)
        content[f"a/{place}.bin"] = path
    parts = list(downloads._zipped(content))
    assert max(map(len, parts)) < 1_000_000
    with zipfile.ZipFile(io.BytesIO(b"".join(parts))) as packed:
        assert packed.testzip() is None
        assert {each: packed.read(each) for each in packed.namelist()} == {
            each: path.read_bytes() for each, path in content.items()
        }
    half = downloads._zipped(content)
    next(half)
    half.close()  # the client has gone
    assert list(service.store.scratch.iterdir()) == []
    service.store.remove(name)
