"""The page in a real Chromium on the real server, which samples with the weights in the package."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from page_browser import DESKTOP, PHONE, axe, shot, until, watched

from camctrl_jax.video.decoding import count_frames
from camctrl_jax.video.pictures import encode_png

ROOT = Path(__file__).parents[2]
STEPS, LONG = "2", 180  # of sampling; seconds
# Runs explore and writes down every address that it looks up, connects to or sends to.
WATCHED = """
import sys
def hear(event, given):
    if event in ("socket.getaddrinfo", "socket.gethostbyname"):
        told.write(f"{given[0]}\\n")
    elif event in ("socket.connect", "socket.sendto", "socket.sendmsg") and isinstance(given[1], tuple):
        told.write(f"{given[1][0]}\\n")
told = open(sys.argv[1], "a", buffering=1)
sys.addaudithook(hear)
from camctrl_jax.explore.__main__ import main
sys.exit(main(sys.argv[2:]))
"""
HOME = {"127.0.0.1", "::1", "localhost", "None"}


class Server:
    """A process that serves explore; ``url`` is where."""

    def __init__(self, folder: Path):
        self.folder, self.told, self.port = folder, folder.parent / "told.txt", "0"
        self.start()

    def start(self):
        """Again on the same port, after the first time."""
        environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | {"PYTHONPATH": str(ROOT)}
        options = ["--folder", str(self.folder), "--port", self.port]
        command = [sys.executable, "-c", WATCHED, str(self.told), *options]
        self.process = subprocess.Popen(
            command, env=environment, cwd=self.folder.parent, stdout=subprocess.PIPE, text=True
        )
        line = next(line for line in self.process.stdout if line.startswith("explore at "))
        self.url = line.split()[2] + "/"
        self.port = self.url.rstrip("/").rsplit(":", 1)[1]

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def addresses(self) -> set[str]:
        return set(self.told.read_text().split())


@pytest.fixture
def server(tmp_path, browser):
    for module in ("starlette", "uvicorn", "msgspec", "python_multipart"):
        pytest.importorskip(module, reason="needs the extra explore")
    server = Server(tmp_path / "served")
    yield server
    server.process.terminate()
    server.process.wait(20)
    server.process.stdout.close()


@pytest.fixture
def visit(server, browser):
    """Opens the page at a size; at the end neither browser nor server may have asked anything elsewhere."""
    contexts, elsewhere, errors = [], [], []

    def opened(viewport, **options):
        context = browser.new_context(viewport=viewport, **options)
        contexts.append(context)
        page = context.new_page()
        watched(page, server.url, elsewhere, errors)
        page.get_by_text("Seed, steps and guidance").click()
        page.fill("#steps", STEPS)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert elsewhere == []
    assert [e for e in errors if "net::ERR" not in e] == []  # what the browser says of a killed server
    assert server.addresses() <= HOME


def generated(page, sentence, count):
    """Asks for a clip along a sentence and waits until there are so many."""
    page.fill("#sentence", sentence)
    page.locator("#preview-sum").filter(has_text="m").wait_for()
    page.click("#generate")
    until(page, f"document.querySelectorAll('#tree button').length >= {count}", LONG)


def told(page, server) -> dict:
    """The exploration that the page shows, as the API tells it."""
    name = page.evaluate("location.hash").lstrip("#")
    return json.loads(page.request.get(f"{server.url}v1/explorations/{name}").body())


def downloaded(page, link) -> Path:
    with page.expect_download() as download:
        page.click(link)
    return Path(download.value.path())


@pytest.mark.slow
def test_world_is_explored_through_a_kill_of_the_server(server, visit):
    page = visit(DESKTOP)
    generated(page, "dolly in 0.6 m", 1)
    generated(page, "pan right 15 deg", 2)
    shot(page, "real-two-clips")
    assert axe(page) == []

    page.fill("#sentence", "truck left 0.5 m")
    page.click("#generate")
    page.wait_for_selector("#jobs progress[value]")
    page.click("#jobs button")
    until(page, "document.querySelector('#jobs p')?.textContent.endsWith('cancelled')", LONG)
    page.click("#jobs button")
    assert page.locator("#tree button").count() == 2

    page.locator("#tree button").first.click()
    page.click("#branch")
    until(page, "document.querySelector('#form-title').textContent === 'Next clip, after clip 1'")
    page.click("#generate")
    page.wait_for_selector("#jobs progress[value]")
    server.kill()
    server.start()
    until(page, "document.querySelectorAll('#tree button').length === 3", LONG)
    until(page, "document.querySelector('#problem').textContent === ''")
    exploration = told(page, server)
    first, second, third = exploration["clips"]
    assert second["parent"] == third["parent"] == first["id"]
    assert exploration["current"] == third["id"]
    turned, moved = (np.array(c["cameras"]["world_from_camera"][-1]) for c in (second, third))
    assert np.degrees(np.arctan2(turned[0, 2], turned[2, 2])) == pytest.approx(15, abs=0.5)
    np.testing.assert_allclose(moved[:3, 3], [-0.5, 0, 0.6], atol=0.02)

    page.reload()
    page.wait_for_selector("#tree button")
    assert page.locator("#tree button").count() == 3
    page.check("#compare")
    until(page, "document.querySelector('#truth').readyState >= 2", LONG)
    shot(page, "real-compare")
    page.fill("#sentence", "dolly in 20 m")
    page.locator("#warnings").filter(has_text="20.0 m").filter(has_text="runs into").wait_for()
    shot(page, "real-warnings")
    page.click("#downloads summary")
    assert count_frames(downloaded(page, "#get-clip")) == third["frames"]
    assert count_frames(downloaded(page, "#get-line")) == first["frames"] + third["frames"]
    cameras = json.loads(downloaded(page, "#get-cameras").read_text())
    assert len(cameras["frames"]) == third["frames"]
    with zipfile.ZipFile(downloaded(page, "#get-project")) as project:
        assert project.testzip() is None
        assert sum(name.endswith("/video.mp4") for name in project.namelist()) == 3


@pytest.mark.slow
def test_picture_is_explored_on_a_phone_and_seen_in_3d(server, visit, tmp_path):
    across, down = np.meshgrid(np.arange(300), np.arange(200))
    checks = ((across // 25 + down // 25) % 2)[..., None] * np.array([120, 90, 60]) + 60
    (tmp_path / "checks.png").write_bytes(encode_png(checks.astype(np.uint8)))
    page = visit(PHONE, has_touch=True, is_mobile=True)
    page.get_by_label("Picture", exact=True).first.check()
    page.set_input_files("#picture", tmp_path / "checks.png")
    page.fill("#prompt", "a wall of checks")
    generated(page, "truck right 0.8 m", 1)
    clip = told(page, server)["clips"][0]
    assert (clip["prompt"], clip["truth"]) == ("a wall of checks", None)
    assert page.locator("#compare-box").is_hidden()
    page.tap("#look")
    shot(page, "real-phone")
    page.tap("#make-scene")
    until(page, "document.querySelector('#message').textContent.includes('points are shown')", LONG)
    assert axe(page) == []
    shot(page, "real-phone-points")
