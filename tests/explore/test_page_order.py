"""The page of explore where answers come late: whoever has gone elsewhere meanwhile is not pulled back."""

from __future__ import annotations

import pytest
from page_browser import extended, started, until

pytestmark = pytest.mark.slow
FIRST, SECOND = "e0000000", "e0000001"
READING = ("GET", f"/v1/explorations/{FIRST}")


class Held:
    """Holds back the requests of a method to a path of this page until they are let go."""

    def __init__(self, page, method, path):
        self.page, self.path, self.routes = page, path, []

        def hold(route):
            if route.request.method == method and self.routes is not None:
                self.routes.append(route)
            else:
                route.continue_()

        page.route(f"**{path}", hold)

    def wait(self):
        for _ in range(200):
            if self.routes:
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"nothing asked for {self.path}")

    def let_go(self):
        routes, self.routes = self.routes, None
        with self.page.expect_response(f"**{self.path}"):
            for route in routes:
                route.continue_()
        self.page.wait_for_timeout(300)  # for what nobody wants to happen


def two(visit):
    """A page with the first of two explorations open, which has two clips; the second one has one."""
    page = started(visit())
    extended(page, "pan left 10 deg")
    page.click("#new")
    until(page, "document.querySelector('#form-title').textContent === 'New exploration'")
    started(page)
    until(page, f"document.querySelector('#explorations').value === '{SECOND}'")
    go(page, FIRST, 2)
    return page


def go(page, exploration, clips):
    page.select_option("#explorations", exploration)
    until(page, f"location.hash === '#{exploration}'")
    until(page, f"document.querySelectorAll('#tree button').length === {clips}")


def second_is_open(page):
    assert page.evaluate("location.hash") == f"#{SECOND}"
    assert page.locator("#explorations").input_value() == SECOND
    clips = page.locator("#tree button").evaluate_all("(buttons) => buttons.map((b) => b.dataset.clip)")
    assert clips == [f"{SECOND}.0001"]
    assert page.locator("#form-title").inner_text() == "Next clip, after clip 1"
    assert page.locator("#jobs > li").count() == 0
    assert page.locator("#problem").inner_text() == ""


def test_exploration_chosen_last_is_the_one_that_opens(visit, stub):
    page = two(visit)
    go(page, SECOND, 1)
    held = Held(page, *READING)
    page.select_option("#explorations", FIRST)
    held.wait()
    page.select_option("#explorations", "")
    until(page, "document.querySelector('#form-title').textContent === 'New exploration'")
    go(page, SECOND, 1)
    held.let_go()
    second_is_open(page)


def test_refusal_of_what_is_no_longer_wanted_is_not_told(visit, stub, errors):
    page = two(visit)
    held = Held(page, *READING)
    page.click("#new")
    page.select_option("#explorations", FIRST)
    held.wait()
    go(page, SECOND, 1)
    del stub.explorations[FIRST]
    held.let_go()
    second_is_open(page)
    errors[:] = [e for e in errors if "404" not in e]


def test_job_that_ends_pulls_nobody_back(visit, stub):
    page = two(visit)
    stub.hold.set()
    page.click("#generate")
    page.wait_for_selector("#jobs progress[value]")
    held = Held(page, *READING)
    stub.hold.clear()
    held.wait()
    go(page, SECOND, 1)
    held.let_go()
    second_is_open(page)
    go(page, FIRST, 3)


def test_events_that_are_lost_pull_nobody_back(visit, stub, errors):
    page = two(visit)
    stub.hold.set()
    stub.refused_events = 1
    held = Held(page, *READING)
    page.click("#generate")
    held.wait()
    go(page, SECOND, 1)
    held.let_go()
    second_is_open(page)
    errors[:] = [e for e in errors if "503" not in e]


@pytest.mark.parametrize(
    ("presses", "method", "path"),
    [
        (["#tree li:first-child > button", "#branch"], "PUT", f"/v1/explorations/{FIRST}/current"),
        (["#undo"], "PUT", f"/v1/explorations/{FIRST}/current"),
        (["#delete-clip", "#ask button[value=yes]"], "DELETE", f"/v1/clips/{FIRST}.0002"),
        (["#generate"], "POST", f"/v1/explorations/{FIRST}/clips"),
        (["#make-scene"], "POST", f"/v1/clips/{FIRST}.0002/scene"),
        (["#new", "#generate"], "POST", "/v1/explorations"),
    ],
    ids=["branch", "undo", "delete", "extend", "scene", "start"],
)
def test_answer_to_what_was_asked_elsewhere_pulls_nobody_back(visit, stub, presses, method, path):
    page = two(visit)
    stub.hold.set()
    held = Held(page, method, path)
    for press in presses:
        page.click(press)
        page.wait_for_timeout(100)
    held.wait()
    go(page, SECOND, 1)
    held.let_go()
    second_is_open(page)
    if method == "POST":  # the job is seen, with the way to it
        page.locator("#others li").wait_for()
        assert page.locator("#others li").count() == 1


def test_what_is_deleted_is_what_the_question_was_about(visit, stub):
    page = two(visit)
    page.click("#delete-exploration")
    page.evaluate(f"location.hash = '{SECOND}'")
    until(page, "document.querySelectorAll('#tree button').length === 1")
    page.click("#ask button[value=yes]")
    until(page, "document.querySelectorAll('#explorations option').length === 2")
    assert list(stub.explorations) == [SECOND]
    second_is_open(page)


def test_what_a_job_remarks_later_is_shown_and_outlasts_it(visit, stub):
    page = started(visit())
    found = "3,000 points were found"
    stub.told = {1: "moving things were not looked for", -1: f"{found}. --points 9000 asks for more"}
    stub.hold.set()
    page.click("#make-scene")
    until(page, "document.querySelector('#jobs .note')?.textContent.includes('not looked for')")
    assert page.locator("#jobs .note li").all_inner_texts() == ["the prompt is the stub's", stub.told[1]]
    stub.hold.clear()
    until(page, "document.querySelector('#message').textContent.includes('points are shown')")
    assert page.locator("#jobs > li").count() == 0
    said = page.locator("#told-remarks li").all_inner_texts()
    assert said == ["the prompt is the stub's", stub.told[1], found]
    stub.hold.set()
    page.click("#generate")
    until(page, "document.querySelectorAll('#told-remarks li').length === 0")
