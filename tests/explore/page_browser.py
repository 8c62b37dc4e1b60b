"""What is done with a browser: wait, look, press, and let axe-core judge."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

CHROMIUM = Path("/usr/bin/chromium")
WEB = Path(__file__).parents[2] / "web"
AXE = WEB / "node_modules" / "axe-core" / "axe.min.js"
DESKTOP, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}
AXE_FAILURES = """async () => (await axe.run()).violations.map(
  (v) => `${v.id}: ${v.nodes.map((n) => n.target.join(" ")).join(", ")}`)"""


def watched(page, url, elsewhere, errors):
    """Opens a server's page; what it asks of others, and what the browser reports, goes to the two lists."""
    own = (url, "blob:" + url, "data:")
    page.on("request", lambda r: None if r.url.startswith(own) else elsewhere.append(r.url))
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda e: errors.append(str(e)))
    answer = page.goto(url)
    page.wait_for_selector("html[data-ready]")
    return answer


def until(page, expression, seconds=20):
    """Waits for an expression; the page's policy forbids the eval that Playwright's own waiting needs."""
    for _ in range(20 * seconds):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"it never came to: {expression}\n{page.locator('body').inner_text()}")


def asked(page, stub, field, fits):
    """The last request with a field of which something holds, once there is one."""
    for _ in range(200):
        found = [body[field] for body in list(stub.bodies) if field in body and fits(body[field])]
        if found:
            return found[-1]
        page.wait_for_timeout(50)
    raise AssertionError(f"no request with such a {field}: {stub.bodies[-3:]}")


def started(page, sentence="dolly in 1 m"):
    page.get_by_label("Sentence", exact=True).last.fill(sentence)
    page.get_by_role("button", name="Generate").click()
    page.wait_for_selector("#tree button")
    return page


def extended(page, sentence):
    before = page.locator("#tree button").count()
    page.fill("#sentence", sentence)
    page.click("#generate")
    until(page, f"document.querySelectorAll('#tree button').length > {before}")


def shot(page, name):
    """A screenshot, where CAMCTRL_SCREENSHOTS names a folder for them."""
    if folder := os.environ.get("CAMCTRL_SCREENSHOTS"):
        page.wait_for_timeout(700)
        page.screenshot(path=f"{folder}/{name}.png", full_page=True)


def axe(page):
    if not AXE.exists():
        pytest.skip("needs axe-core: npm ci in web/")
    page.evaluate(AXE.read_text())
    return page.evaluate(AXE_FAILURES)


def tab_to(page, selector):
    """Goes on with the Tab key alone, and says if there is no way."""
    for _ in range(90):
        page.keyboard.press("Tab")
        if page.evaluate("(s) => document.activeElement.matches(s)", selector):
            return
    raise AssertionError(f"the Tab key never comes to {selector}")
