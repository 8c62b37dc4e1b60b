"""The page of explore in a real Chromium, against a server of canned answers."""

from __future__ import annotations

import pytest
from page_browser import CHROMIUM, DESKTOP, watched
from page_stub import Stub


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    if not CHROMIUM.exists():
        pytest.skip(f"needs {CHROMIUM} (Debian's package chromium)")
    with playwright.sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def stub():
    stub = Stub()
    yield stub
    stub.close()


@pytest.fixture
def errors():
    """What the browser reported."""
    return []


@pytest.fixture
def visit(browser, stub, errors):
    """Opens the page; at the end nothing may have gone elsewhere, and nothing been reported as an error."""
    contexts, elsewhere = [], []

    def opened(viewport=DESKTOP, before="", **options):
        context = browser.new_context(viewport=viewport, accept_downloads=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.add_init_script(before)
        page.set_default_timeout(20_000)
        watched(page, stub.url, elsewhere, errors)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert elsewhere == []
    assert errors == []
