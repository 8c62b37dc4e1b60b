"""The page of explore in other hands: fingers, a phone, a visitor who owns nothing, one who is in a hurry."""

from __future__ import annotations

import numpy as np
import pytest
from page_browser import PHONE, asked, extended, shot, started, until

pytestmark = pytest.mark.slow
EYE = "#keys li span"  # says where a key frame is, which is where the view looks from


def fingers(page, *moves):
    """Touches the middle of the view with one finger or two, each move a list of their offsets in pixels."""
    box = page.locator("#view").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    protocol = page.context.new_cdp_session(page)

    def send(kind, offsets):
        points = [{"x": x + dx, "y": y + dy, "id": k} for k, (dx, dy) in enumerate(offsets)]
        protocol.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    send("touchStart", moves[0])
    for offsets in moves[1:]:
        send("touchMove", offsets)
    send("touchEnd", [])


def seen_from_last(page, stub):
    """The key frame that is added where the view is, f64 [4, 4], seen from the last camera."""
    page.click("#clear-keys") if page.locator("#keys li").count() else None
    stub.bodies.clear()
    page.click("#add-key")
    keys = np.array([k["world_from_camera"] for k in asked(page, stub, "key_frames", lambda k: len(k) == 2)])
    return np.linalg.inv(keys[0]) @ keys[1]


def test_two_fingers_go_forward_and_sideways_and_one_looks_around(visit, stub):
    page = started(visit(PHONE, has_touch=True, is_mobile=True))
    page.click("#to-last")
    fingers(page, [(-20, 0), (20, 0)], [(-40, 0), (40, 0)], [(-80, 0), (80, 0)])
    pinched = seen_from_last(page, stub)
    np.testing.assert_allclose(pinched[:3, :3], np.eye(3), atol=1e-5)  # a pinch does not turn
    np.testing.assert_allclose(pinched[:2, 3], 0, atol=1e-5)
    assert pinched[2, 3] == pytest.approx(2 * np.log(4), abs=0.05)

    page.click("#to-last")
    fingers(page, [(-20, 0), (20, 0)], [(10, 20), (50, 20)])
    moved = seen_from_last(page, stub)
    assert moved[0, 3] < -0.1  # what is under the fingers goes right, so the camera goes left
    assert moved[1, 3] < -0.05
    assert abs(moved[2, 3]) < 1e-4

    page.click("#to-last")
    fingers(page, [(0, 0)], [(50, 0)])
    turned = seen_from_last(page, stub)
    assert turned[0, 2] < -0.1  # to the left
    np.testing.assert_allclose(turned[:3, 3], 0, atol=1e-5)


def test_job_stays_in_sight_on_a_phone_and_the_clip_is_one_tap_away(visit, stub):
    page = started(visit(PHONE, has_touch=True, is_mobile=True))
    stub.hold.set()
    page.tap("#generate")
    page.wait_for_selector("#jobs progress[value]")
    for where in (0, 10_000):
        page.evaluate(f"scrollTo(0, {where})")
        box = page.locator("#jobs button").bounding_box()
        assert 0 <= box["y"] <= PHONE["height"] - box["height"]
    shot(page, "phone-running")
    page.evaluate("scrollTo(0, 10000)")
    stub.hold.clear()
    page.tap("#look")
    until(page, "document.querySelector('#player-title').textContent === 'Clip 2'")
    until(page, "Math.abs(document.querySelector('#player-title').getBoundingClientRect().top - 200) < 200")
    for name in ("font-size", "min-height"):
        size = page.locator("#sentence").evaluate("(e, n) => parseFloat(getComputedStyle(e)[n])", name)
        assert size >= 16  # below it an iPhone zooms in on what is typed


def test_narrow_screen_shows_all_without_scrolling_sideways(visit):
    page = started(visit({"width": 320, "height": 640}))
    for source in ("Preset", "Key frames", "Pose file"):
        page.get_by_label(source, exact=True).first.check()
        assert page.evaluate("document.documentElement.scrollWidth") <= 320


def test_clip_and_its_cameras_are_seen_together_where_there_is_room(visit):
    page = started(visit())
    view, video = page.locator("#view").bounding_box(), page.locator("#video").bounding_box()
    assert view["x"] + view["width"] <= video["x"]
    assert max(view["y"] + view["height"], video["y"] + video["height"]) <= 900


def test_who_made_nothing_is_told_why_nothing_can_be_deleted(visit, stub):
    page = started(visit())
    assert "first clip" in page.locator("#clip-why").inner_text()
    extended(page, "pan left 10 deg")
    assert page.locator("#clip-why").inner_text() == ""
    assert page.locator("#delete-clip").is_enabled()
    stub.mine = False
    stub.hold.set()
    page.click("#generate")
    page.wait_for_selector("#jobs progress[value]")
    page.reload()
    page.wait_for_selector("#jobs progress[value]")
    assert page.locator("#jobs button").is_hidden()  # of another visitor
    assert "another visitor" in page.locator("#jobs p").inner_text()
    assert page.locator("#delete-clip").is_disabled()
    assert page.locator("#delete-exploration").is_disabled()
    assert "Another visitor" in page.locator("#exploration-why").inner_text()
    assert "not yours" in page.locator("#explorations option:checked").inner_text()


def test_second_click_does_not_make_the_same_clip_again(visit, stub):
    page = started(visit())
    stub.hold.set()
    page.click("#generate")
    page.wait_for_selector("#jobs progress[value]")
    page.click("#generate")
    until(page, "document.querySelector('#problem').textContent.includes('being made already')")
    page.fill("#sentence", "pan left 10 deg")
    page.click("#generate")
    until(page, "document.querySelectorAll('#jobs > li').length === 2")
    assert len(stub.jobs) == 3


def test_clip_is_made_along_what_the_form_says_and_not_along_an_older_answer(visit, stub):
    page = visit()
    stub.hold_paths.set()
    page.fill("#sentence", "pan right 10 deg")
    asked(page, stub, "path", lambda path: path == "pan right 10 deg")
    page.fill("#sentence", "pan left 20 deg")
    with page.expect_response("**/v1/paths"):  # to the first one
        stub.hold_paths.clear()
    page.click("#generate")
    page.wait_for_selector("#tree button")
    assert [job["said"] for job in stub.jobs.values()] == ["pan left 20 deg"]


def test_address_names_the_exploration_and_nothing_else(visit, stub, errors):
    page = started(visit())
    (name,) = stub.explorations
    page.focus("a.skip")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "view"
    assert page.evaluate("location.hash") == f"#{name}"
    page.evaluate("location.hash = 'gone'")
    until(page, "document.querySelector('#problem').textContent.includes('gone')")
    page.goto("about:blank")
    page.goto(stub.url + "#gone")
    page.wait_for_selector("html[data-ready]")
    assert "gone" in page.locator("#problem").inner_text()
    assert page.locator("#form-title").inner_text() == "New exploration"
    page.evaluate(f"location.hash = '{name}'")
    page.wait_for_selector("#tree button")
    errors[:] = [e for e in errors if "404" not in e]


def test_path_that_is_made_longer_keeps_its_words(visit, stub):
    page = visit()
    page.click("#adjust summary")
    page.fill("#length", "2.5")
    until(page, "document.querySelector('#preview-sum').textContent.startsWith('Path: 2.50 m')")
    page.click("#generate")
    page.wait_for_selector("#tree button")
    request = next(body for body in stub.bodies if "worlds_seed" in body and "prompt" in body)
    assert (request["path"], request["scale"]) == ("dolly in 1 m", pytest.approx(2.5, rel=1e-3))


def test_presets_take_the_amount_that_fits_them(visit, stub):
    page = visit()
    page.get_by_label("Preset", exact=True).first.check()
    said = {
        "dolly_in": "dolly in 0.7 m",
        "orbit_left": "orbit left 0.7 deg",
        "circle_cw": "circle cw radius 0.7 m",
    }
    for name, words in said.items():
        page.select_option("#preset", name)
        page.fill("#amount", "0.7")
        asked(page, stub, "path", lambda path, words=words: path == words)
    page.select_option("#preset", "handheld")
    assert page.locator("#amount-box").is_hidden()
    asked(page, stub, "path", lambda path: path == "handheld")


def test_key_frame_is_said_and_put_elsewhere(visit, stub):
    page = started(visit())
    page.click("#to-last")
    page.focus("#view")
    page.keyboard.press("w")
    page.keyboard.press("k")
    until(page, "document.querySelector('#message').textContent.startsWith('Key frame 1: ')")
    first = page.locator(EYE).inner_text()
    assert first.startswith("1. ")
    assert first.endswith(" forward")
    page.focus("#view")
    page.keyboard.press("s")
    page.keyboard.press("e")
    page.get_by_label("Put here key frame 1").click()
    assert " up" in page.locator(EYE).inner_text()
    assert page.locator(EYE).count() == 1


def test_what_is_wrong_is_shown_where_it_is(visit, stub, errors, tmp_path):
    page = started(visit())
    page.evaluate("document.querySelector('#steps').value = '900'")
    page.click("#generate")
    until(page, "document.querySelector('#steps').getAttribute('aria-invalid') === 'true'")
    assert page.locator("#steps").is_visible()  # it was folded away
    assert page.locator("#steps").get_attribute("aria-errormessage") == "problem"
    (tmp_path / "big.txt").write_text("0 " * 1_100_000)
    page.get_by_label("Pose file", exact=True).first.check()
    page.set_input_files("#pose-file", tmp_path / "big.txt")
    until(page, "document.querySelector('#problem').textContent.includes('up to 2 MB')")
    errors[:] = [e for e in errors if "400" not in e]


@pytest.mark.slow
def test_student_offers_its_own_steps_and_no_guidance(visit, stub):
    said = "progressive distillation; folded in: camera guidance 2; steps: 4, 8"
    stub.model = {"steps": 4, "student": {"said": said, "valid_steps": [4, 8]}}
    page = visit()
    page.get_by_text("Seed, steps and guidance").click()
    offered = page.locator("#steps option").all_inner_texts()
    assert offered == ["usual (4)", "4", "8"]
    assert said in page.locator("#student").inner_text()
    assert not any(page.locator(f"#guidance-{kind}").is_visible() for kind in ("text", "camera", "history"))
    page.select_option("#steps", "8")
    started(page)
    # What comes after the request for the clip is the preview of the next path.
    assert next(body for body in reversed(stub.bodies) if "prompt" in body)["steps"] == 8
    assert all("guidance" not in body for body in stub.bodies)


def test_failed_job_says_why_and_stays_away_once_dismissed(visit, stub):
    page = visit()
    stub.failing = True
    page.click("#generate")
    until(page, "document.querySelector('#jobs p')?.textContent.endsWith('failed: the disk is full')")
    until(page, "document.querySelector('#no-clips').textContent.includes('begin a new exploration')")
    assert page.locator("#generate").is_disabled()
    # What has ended covers nothing, and is nobody else's business.
    assert page.locator("#jobs-box").evaluate("(e) => getComputedStyle(e).position") == "static"
    stub.mine = False
    page.reload()
    page.wait_for_selector("html[data-ready]")
    assert page.locator("#jobs > li").count() == 0
    stub.mine = True
    stub.failing = False
    page.click("#new")
    started(page)
    stub.failing = True
    page.click("#generate")
    until(page, "document.querySelector('#jobs p')?.textContent.endsWith('failed: the disk is full')")
    page.click("#jobs button")
    stub.failing = False
    extended(page, "pan left 10 deg")  # with it the exploration, and its last failure, is read anew
    assert page.locator("#jobs > li").count() == 0


def test_points_are_in_the_overview(visit):
    page = started(visit())
    page.click("#make-scene")
    until(page, "document.querySelector('#message').textContent.includes('points are shown')")
    without = {}
    for shown in (False, True):
        page.set_checked("#show-points", shown)
        page.click("#to-all")
        page.click("#add-key")
        without[shown] = page.locator(EYE).last.inner_text()
    assert without[False] != without[True]


def test_without_webgl_everything_but_the_view_works(visit, stub, errors):
    page = visit(before="HTMLCanvasElement.prototype.getContext = () => null;")
    assert page.locator("#no-view").is_visible()
    assert page.locator("#view").is_hidden()
    started(page, "pan right 10 deg")
    extended(page, "dolly in 1 m")
    page.get_by_text("Scale or move the whole path").click()
    page.click("#to-keys")
    assert page.locator("#keys li").count() == 4
    page.click("#generate")
    until(page, "document.querySelectorAll('#tree button').length === 3")
    assert [job["said"] for job in stub.jobs.values()][2] == "5 key frames"
    errors[:] = [e for e in errors if "WebGL" not in e]


def test_another_visitors_clip_takes_nobody_along(visit, stub):
    anna = started(visit())
    bert = visit()
    bert.select_option("#explorations", index=1)
    bert.wait_for_selector("#tree button")
    extended(anna, "pan left 20 deg")
    assert anna.locator("#form-title").inner_text() == "Next clip, after clip 2"
    # Bert hears of it with his own next clip, and goes on from where he was.
    extended(bert, "pan right 20 deg")
    until(bert, "document.querySelector('#form-title').textContent === 'Next clip, after clip 3'")
    extended(anna, "dolly in 1 m")
    until(anna, "document.querySelector('#form-title').textContent === 'Next clip, after clip 4'")
    parents = [clip["parent"] for clip in next(iter(stub.explorations.values()))["clips"]]
    ids = [clip["id"] for clip in next(iter(stub.explorations.values()))["clips"]]
    assert parents == [None, ids[0], ids[0], ids[1]]


def test_who_branches_while_a_clip_is_made_stays_there(visit, stub):
    page = started(visit())
    extended(page, "pan left 20 deg")
    stub.hold.set()
    page.click("#generate")
    page.wait_for_selector("#jobs progress[value]")
    page.locator("#tree button").first.click()
    page.click("#branch")
    until(page, "document.querySelector('#form-title').textContent === 'Next clip, after clip 1'")
    stub.hold.clear()
    until(page, "document.querySelectorAll('#tree button').length === 3")
    assert page.locator("#form-title").inner_text() == "Next clip, after clip 1"
    assert page.locator("#player-title").inner_text() == "Clip 1"
    page.click("#look")
    assert page.locator("#player-title").inner_text() == "Clip 3"
