"""A server of nano weights for the tests of explore."""

from __future__ import annotations

import time
from pathlib import Path

from starlette.testclient import TestClient

from camctrl_jax.explore.app import make_app
from camctrl_jax.explore.model import Model
from camctrl_jax.explore.serving import make_service

ANNA, BERT = {"X-Visitor": "anna-0000"}, {"X-Visitor": "bert-0000"}
LONG = 60.0  # seconds after which a test gives up


def served(folder: Path, model: Model, **options) -> TestClient:
    """A client of a server; the worker runs inside ``with``."""
    service = make_service(folder, model, **options)
    return TestClient(make_app(service), base_url="http://127.0.0.1:8008")


def ended(client: TestClient, job: dict) -> dict:
    """A job once it has ended."""
    stop = time.monotonic() + LONG
    while job["state"] in ("queued", "running"):
        assert time.monotonic() < stop, job
        time.sleep(0.02)
        job = client.get(f"/v1/jobs/{job['id']}", headers=ANNA).json()
    return job


def done(client: TestClient, job: dict) -> dict:
    """A job that has to succeed, once it has."""
    job = ended(client, job)
    assert job["state"] == "done", job
    return job


def error_of(response, status: int) -> dict:
    """The error of an answer, which has the one form."""
    assert response.status_code == status, response.text
    assert set(response.json()) == {"error"}
    error = response.json()["error"]
    assert set(error) == {"type", "message", "param"}
    assert error["message"]
    return error
