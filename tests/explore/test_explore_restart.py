"""A server that is killed in the middle of a clip: the next one takes the job up, to the same pixels."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("starlette", reason="part of the explore extra")
pytest.importorskip("uvicorn", reason="part of the explore extra")
pytest.importorskip("av", reason="videos are written by PyAV")

from nano_weights import STUDENT, save_nano

from camctrl_jax.video.decoding import read_frames

pytestmark = pytest.mark.slow
LONG = 120.0


class Server:
    """``python -m camctrl_jax.explore`` in a process of its own."""

    def __init__(self, folder, weights, *options):
        command = [sys.executable, "-m", "camctrl_jax.explore", "--folder", str(folder), "--port", "0"]
        self.process = subprocess.Popen(
            [*command, "--checkpoint", str(weights), *options],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
        )
        self.said = []
        for line in self.process.stdout:
            self.said.append(line)
            if line.startswith("explore at http://"):
                self.port = int(line.split()[2].rpartition(":")[2])
                return
        raise AssertionError(self.said)

    def ask(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        assert answer.status < 300, content
        return json.loads(content)

    def until(self, job, ready):
        stop = time.monotonic() + LONG
        while not ready(found := self.ask("GET", f"/v1/jobs/{job['id']}")):
            assert found["state"] not in ("failed", "cancelled"), found
            assert time.monotonic() < stop, found
            time.sleep(0.01)
        return found

    def kill(self, how=signal.SIGKILL):
        self.process.send_signal(how)
        self.process.wait(30)
        self.process.stdout.close()


def begun(server, steps=200):
    created = server.ask("POST", "/v1/explorations", {"path": "dolly in 0.2 m", "steps": 2, "seed": 5})
    server.until(created["job"], lambda job: job["state"] == "done")
    name = created["exploration"]["id"]
    return name, server.ask("POST", f"/v1/explorations/{name}/clips", {"path": "hold", "steps": steps})


def frames_of(folder, name, clip):
    path = folder / "explorations" / name / "exploration" / "clips" / clip / "frames.mp4"
    return np.stack([frame.rgb() for frame in read_frames(path)])


def test_a_killed_server_is_taken_up_to_the_same_pixels(tmp_path):
    weights = save_nano(tmp_path / "nano")
    server = Server(tmp_path / "whole", weights)
    try:
        whole, job = begun(server)
        server.until(job, lambda job: job["state"] == "done")
    finally:
        server.kill(signal.SIGTERM)
    for how in (signal.SIGKILL, signal.SIGTERM):
        folder = tmp_path / how.name
        server = Server(folder, weights)
        try:
            name, job = begun(server)
            server.until(job, lambda job: job["done"] >= 5)
        finally:
            server.kill(how)
        clip = folder / "explorations" / name / "exploration" / "clips" / "0002"
        assert how != signal.SIGKILL or not clip.exists()
        made = clip.exists()  # asked to end, it may have got there
        server = Server(folder, weights)
        try:
            assert made or any("1 jobs wait" in line for line in server.said)
            found = server.until(job, lambda job: job["state"] == "done")
            assert found["clip"] == f"{name}.0002"
            assert len(server.ask("GET", f"/v1/explorations/{name}")["clips"]) == 2
        finally:
            server.kill(signal.SIGTERM)
        for clip in ("0001", "0002"):
            np.testing.assert_array_equal(
                frames_of(folder, name, clip), frames_of(tmp_path / "whole", whole, clip)
            )


def test_refining_is_taken_up_by_the_next_server_to_the_same_pixels(tmp_path):
    weights = save_nano(tmp_path / "nano")
    options = "--student", str(save_nano(tmp_path / "student", distilled=STUDENT, seed=5))

    def refined(folder, how):
        """Frames of a refined clip, of a server that is killed meanwhile if ``how`` says so."""
        server = Server(folder, weights, *options)
        try:
            asked = {"path": "dolly in 0.2 m", "model": "student", "seed": 5}
            job = server.ask("POST", "/v1/explorations", asked)["job"]
            name = server.until(job, lambda job: job["state"] == "done")["exploration"]
            asked = {"path": "pan left 10 deg", "model": "student"}
            job = server.ask("POST", f"/v1/explorations/{name}/clips", asked)
            clip = server.until(job, lambda job: job["state"] == "done")["clip"]
            job = server.ask("POST", f"/v1/clips/{clip}/refine", {"steps": 200})
            if how is not None:
                server.until(job, lambda job: job["done"] >= 5)
                server.kill(how)
                server = Server(folder, weights, *options)
            found = server.until(job, lambda job: job["state"] == "done")
            assert (found["clip"], found["refines"]) == (f"{name}.0003", clip)
            clips = server.ask("GET", f"/v1/explorations/{name}")["clips"]
            assert [one["model"] for one in clips] == ["student", "student", "checkpoint"]
            assert clips[1]["seed"] == clips[2]["seed"]
        finally:
            server.kill(signal.SIGTERM)
        return frames_of(folder, name, "0003")

    whole = refined(tmp_path / "whole", None)
    np.testing.assert_array_equal(refined(tmp_path / "killed", signal.SIGKILL), whole)


def test_a_server_that_is_killed_while_it_writes_a_clip_leaves_no_half_of_it(tmp_path):
    weights = save_nano(tmp_path / "nano")
    server = Server(tmp_path / "served", weights)
    try:
        name, job = begun(server, steps=3)
        clips = tmp_path / "served" / "explorations" / name / "exploration" / "clips"
        stop = time.monotonic() + LONG
        while not os.path.exists(clips / ".0002.0.partial") and not os.path.exists(clips / "0002"):
            assert time.monotonic() < stop
    finally:
        server.kill()
    server = Server(tmp_path / "served", weights)
    try:
        assert server.until(job, lambda job: job["state"] == "done")["clip"] == f"{name}.0002"
        assert len(server.ask("GET", f"/v1/explorations/{name}")["clips"]) == 2
    finally:
        server.kill(signal.SIGTERM)
    assert sorted(entry.name for entry in clips.iterdir()) == ["0001", "0002"]
    assert len(frames_of(tmp_path / "served", name, "0002"))


def test_a_second_server_on_the_same_folder_ends_with_a_message(tmp_path):
    weights = save_nano(tmp_path / "nano")
    server = Server(tmp_path / "served", weights)
    try:
        second = subprocess.run(
            [
                *(sys.executable, "-m", "camctrl_jax.explore", "--port", "0"),
                *("--folder", str(tmp_path / "served"), "--checkpoint", str(weights)),
            ],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert second.returncode == 1
        assert "is in use" in second.stderr
        assert str(server.process.pid) in second.stderr
    finally:
        server.kill(signal.SIGTERM)
