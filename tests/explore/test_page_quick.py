"""Quick looks and their refining at the page, in a real Chromium."""

from __future__ import annotations

import json
import threading
import time

import pytest
from nano_weights import STUDENT, save_nano
from page_browser import DESKTOP, PHONE, axe, extended, shot, started, tab_to, until, watched

pytestmark = pytest.mark.slow
QUICK = {"name": "student", "steps": 4, "said": "progressive distillation", "valid_steps": [4]}


@pytest.fixture
def looking(visit, stub):
    """The page on a server with a student, with a first clip by the checkpoint."""
    stub.model = {"quick": QUICK}
    return started(visit())


def glanced(page, sentence, seconds=20):
    """Takes a quick look along a path."""
    before = page.locator("#tree button").count()
    page.fill("#sentence", sentence)
    page.get_by_role("button", name="Quick look", exact=True).click()
    until(page, f"document.querySelectorAll('#tree button').length > {before}", seconds)


def clips_of(stub):
    return [clip for exploration in stub.explorations.values() for clip in exploration["clips"]]


def test_server_without_a_student_offers_no_quick_look(visit):
    page = started(visit())
    assert page.get_by_role("button", name="Quick look").count() == 0
    assert page.get_by_role("button", name="Refine").count() == 0
    assert page.locator("#quick-note").inner_text() == ""
    assert page.locator("#tree .quick").count() == 0


def test_clips_of_a_checkpoint_that_is_a_student_itself_are_no_quick_looks(looking, stub):
    page = looking
    glanced(page, "hold")
    assert page.locator("#tree .quick").count() == 1
    stub.model = {"student": {"said": QUICK["said"], "valid_steps": [4]}}
    page.reload()
    page.wait_for_selector("#tree button")
    assert page.locator("#tree .quick").count() == 0
    assert not any(page.locator(id).is_visible() for id in ("#refine", "#quick"))


def test_quick_look_is_marked_and_refined_to_a_sibling_that_is_gone_on_from(looking, stub):
    page = looking
    assert "4 steps instead of 6" in page.locator("#quick-note").inner_text()
    page.get_by_text("Seed, steps and guidance").click()
    page.fill("#steps", "5")
    page.fill("#seed", "23")
    glanced(page, "pan right 40 deg")
    body = next(body for body in reversed(stub.bodies) if "model" in body)
    assert (body["model"], body["seed"]) == ("student", 23)
    assert "steps" not in body  # those are the checkpoint's
    assert page.locator("#tree .quick").all_inner_texts() == ["quick look"]
    assert page.locator("#tree button[aria-pressed=true] .quick").count() == 1
    assert page.locator("#refine-note").inner_text().startswith("A quick look by the student.")
    shot(page, "quick-look")
    assert axe(page) == []

    stub.hold.set()
    page.get_by_role("button", name="Refine this clip").click()
    page.locator("#jobs p").filter(has_text="Refined clip (pan right 40 deg)").wait_for()
    page.get_by_role("button", name="Refine this clip").click()
    page.locator("#problem").filter(has_text="being refined already").wait_for()
    shot(page, "quick-look-refining")
    stub.hold.clear()
    until(page, "document.querySelector('#form-title').textContent === 'Next clip, after clip 3'")
    first, quick, fine = clips_of(stub)
    assert (quick["parent"], fine["parent"]) == (first["id"], first["id"])
    assert [clip["model"] for clip in (first, quick, fine)] == ["checkpoint", "student", "checkpoint"]
    assert [request for request in stub.requests if request[1].endswith("/refine")] == [
        ("POST", f"/v1/clips/{quick['id']}/refine")
    ]
    assert page.locator("#refine").is_hidden()  # of what the checkpoint made
    assert page.locator("#tree .quick").count() == 1
    shot(page, "quick-look-refined")
    assert axe(page) == []
    extended(page, "hold")
    body = next(body for body in reversed(stub.bodies) if "parent" in body and body.get("path") == "hold")
    assert "model" not in body
    assert (clips_of(stub)[-1]["parent"], clips_of(stub)[-1]["model"]) == (fine["id"], "checkpoint")


def test_quick_first_clip_is_refined_in_an_exploration_of_its_own(visit, stub):
    stub.model = {"quick": QUICK}
    page = visit()
    glanced(page, "dolly in 1 m")
    begun = page.evaluate("location.hash")
    page.click("#refine")
    until(page, f"location.hash !== '{begun}' && document.querySelectorAll('#tree button').length === 1")
    assert page.locator("#tree .quick").count() == 0
    assert [clip["model"] for clip in clips_of(stub)] == ["student", "checkpoint"]
    page.go_back()
    page.goto(f"{stub.url}{begun}")
    page.wait_for_selector("#tree .quick")


def test_quick_look_and_refining_are_reached_with_the_keyboard_and_read_out(looking, stub):
    page = looking
    page.locator("#sentence").focus()
    tab_to(page, "#quick")
    page.keyboard.press("Enter")
    until(page, "document.querySelectorAll('#tree button').length > 1")
    told = page.locator("#refine").get_attribute("aria-describedby")
    assert "beside it" in page.locator(f"#{told}").inner_text()
    page.locator("#play").focus()
    tab_to(page, "#refine")
    page.keyboard.press("Space")
    until(page, "document.querySelectorAll('#tree button').length > 2")
    until(page, "document.activeElement.id === 'player-title'")  # the button is gone
    assert [clip["model"] for clip in clips_of(stub)][1:] == ["student", "checkpoint"]
    page.locator("#sentence").focus()
    page.keyboard.press("Enter")  # generates, as ever
    until(page, "document.querySelectorAll('#tree button').length > 3")
    assert clips_of(stub)[-1]["model"] == "checkpoint"


@pytest.fixture
def real(tmp_path):
    """Where a real server with a student samples; both have random parameters."""
    pytest.importorskip("starlette", reason="needs the extra explore")
    uvicorn = pytest.importorskip("uvicorn", reason="needs the extra explore")
    from camctrl_jax.explore.app import make_app
    from camctrl_jax.explore.model import Model
    from camctrl_jax.explore.serving import make_service

    teacher = Model(str(save_nano(tmp_path / "teacher")))
    student = Model(str(save_nano(tmp_path / "student", distilled=STUDENT, seed=5)), teacher=teacher)
    app = make_app(make_service(tmp_path / "served", teacher, student=student))
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


def test_quick_looks_are_refined_on_the_real_server(real, browser):
    page, elsewhere, errors = browser.new_page(viewport=DESKTOP), [], []
    watched(page, real, elsewhere, errors)
    assert "4 steps instead of 32" in page.locator("#quick-note").inner_text()
    glanced(page, "dolly in 0.2 m", 60)
    glanced(page, "pan right 10 deg", 60)
    page.click("#refine")
    until(page, "document.querySelectorAll('#tree button').length === 3", 60)
    until(page, "document.querySelector('#form-title').textContent === 'Next clip, after clip 3'")
    assert page.locator("#tree .quick").count() == 2
    name = page.evaluate("location.hash").lstrip("#")
    first, quick, fine = json.loads(page.request.get(f"{real}v1/explorations/{name}").body())["clips"]
    assert (fine["parent"], fine["seed"], fine["cameras"]) == (first["id"], quick["seed"], quick["cameras"])
    assert [clip["steps"] for clip in (first, quick, fine)] == [4, 4, 32]
    page.locator("#tree button").first.click()
    page.click("#refine")
    until(page, f"location.hash !== '#{name}' && document.querySelectorAll('#tree button').length === 1", 60)
    assert page.locator("#tree .quick").count() == 0
    shot(page, "quick-look-real")
    page.close()
    assert (errors, elsewhere) == ([], [])


def test_quick_looks_on_a_phone(visit, stub):
    stub.model = {"quick": QUICK}
    page = visit(PHONE, has_touch=True, is_mobile=True)
    glanced(page, "truck left 1 m")
    assert axe(page) == []
    wide = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    assert page.evaluate(wide)
    shot(page, "quick-look-phone")
