"""The page as the real server hands it out, under its headers and with its answers; nothing is sampled."""

from __future__ import annotations

import threading
import time

import pytest
from page_browser import watched


@pytest.fixture
def served(tmp_path):
    """Where the weights in the package are served; they are not loaded before a job asks for them."""
    pytest.importorskip("starlette", reason="needs the extra explore")
    uvicorn = pytest.importorskip("uvicorn", reason="needs the extra explore")
    from camctrl_jax.explore.app import make_app
    from camctrl_jax.explore.model import Model
    from camctrl_jax.explore.serving import make_service

    app = make_app(make_service(tmp_path / "served", Model("default", None)))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    stop = time.monotonic() + 60
    while not server.started:
        assert time.monotonic() < stop
        time.sleep(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    server.should_exit = True
    thread.join(20)


@pytest.mark.slow
def test_page_previews_paths_under_the_servers_own_policy(served, browser):
    page, errors, elsewhere = browser.new_page(), [], []
    answer = watched(page, served, elsewhere, errors)
    assert "script-src 'self';" in answer.headers["content-security-policy"]
    assert page.locator("#problem").inner_text() == ""
    said = page.locator("#preview-sum")
    page.fill("#sentence", "dolly in 1.25 m")
    said.filter(has_text="1.25 m").wait_for()
    page.get_by_label("The world's own").check()  # its lens and path are the server's to know
    said.filter(has_not_text="1.25 m").filter(has_text="degrees").wait_for()
    page.get_by_label("Preset", exact=True).first.check()
    page.select_option("#preset", "orbit_left")
    page.fill("#amount", "20")
    said.filter(has_text="20 degrees").wait_for()
    page.get_by_label("Sentence", exact=True).first.check()
    page.fill("#sentence", "dolly in 9 m")
    page.locator("#warnings li").filter(has_text="9.0 m").wait_for()
    page.close()
    assert (errors, elsewhere) == ([], [])
