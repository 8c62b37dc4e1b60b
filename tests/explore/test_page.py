"""The page of explore in a real Chromium, against a server of canned answers."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
import pytest
from page_browser import DESKTOP, PHONE, WEB, asked, axe, extended, shot, started, tab_to, until
from page_stub import PAGE

from camctrl_jax.camera.formats import FORMATS
from camctrl_jax.camera.presets import PRESETS, resolve_path
from camctrl_jax.video.pictures import encode_png


def test_page_has_nothing_inline_and_nothing_from_elsewhere():
    html = (PAGE / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=", html)
    assert re.findall(r"<script[^>]*>(.*?)</script>", html, re.S) == [""]
    assert not re.search(r"(src|href)=\"(https?:)?//", html)
    assert "url(" not in (PAGE / "page.css").read_text()
    assert "MIT License" in (PAGE / "LICENSES.txt").read_text()


def test_page_offers_every_camera_format_that_is_written():
    source = (WEB / "src" / "player.js").read_text()
    offered = re.findall(r'"(\w+)"', re.search(r"const FORMATS = \[(.*?)\];", source, re.S)[1])
    assert sorted(offered) == sorted(f.name for f in FORMATS if f.write)
    page = (PAGE / "page.js").read_text()
    assert all(f'"{name}"' in page for name in offered)


def test_amounts_of_presets_are_understood_and_are_what_they_say():
    """Each amount that the page offers, said as the page says it, changes the path by as much."""
    amounts = json.loads((WEB / "src" / "amounts.json").read_text())
    assert set(amounts) <= {name.split("_")[0] for name in PRESETS}
    for name in PRESETS:
        offer = amounts.get(name.split("_")[0])
        if offer is None:
            continue
        paths = []
        for amount in (1, 1.5):
            words = (name.replace("_", " "), offer.get("before", ""), str(amount), offer["said"])
            paths.append(resolve_path(" ".join(filter(None, words)), 25))
        moved = [path.path_length for path in paths]
        turned = [path.total_rotation for path in paths]
        if offer["said"] == "deg":
            assert turned[1] / turned[0] == pytest.approx(1.5, rel=1e-3), name
        elif offer["said"] == "m":
            assert moved[1] / moved[0] == pytest.approx(1.5, rel=1e-3), name
        else:
            lenses = [path.intrinsics[-1, 0] / path.intrinsics[0, 0] for path in paths]
            assert lenses[0] != lenses[1], name


@pytest.mark.slow
def test_committed_page_is_what_its_sources_give(tmp_path):
    node = shutil.which("node")
    if node is None or not (WEB / "node_modules" / "esbuild").exists():
        pytest.skip("needs node, and npm ci in web/")
    subprocess.run([node, "build.mjs", str(tmp_path)], cwd=WEB, check=True, timeout=120)
    built = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert built == {path.name: path.read_bytes() for path in PAGE.iterdir()}


def test_stub_answers_in_the_form_of_the_api(stub):
    """What the page is tried against has the fields that the real server describes, no more and no fewer."""
    schemas = json.loads((PAGE.parent / "openapi.json").read_text())["components"]["schemas"]

    def asked(path, body=None):
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if data else {}
        request = Request(stub.url + path, data, headers)
        with urlopen(request, timeout=20) as answer:
            return json.load(answer)

    def agrees(answer, name):
        assert set(answer) == set(schemas[name]["required"]), name

    agrees(asked("v1/paths", {"path": "dolly in 1 m"}), "PathAnswer")
    agrees(asked("v1/model"), "Model")
    made = asked("v1/explorations", {"path": "dolly in 1 m", "worlds_seed": 3})
    agrees(made, "Created")
    agrees(made["job"], "Job")
    exploration = made["exploration"]
    while exploration["state"] != "ready":
        exploration = asked(f"v1/explorations/{exploration['id']}")
    agrees(exploration, "Exploration")
    agrees(exploration["clips"][0], "Clip")
    agrees(asked("v1/explorations")["explorations"][0], "ExplorationSummary")


@pytest.mark.slow
def test_world_is_explored_cancelled_branched_reloaded_and_downloaded(visit, stub):
    page = started(visit())
    extended(page, "pan right 40 deg")
    assert page.locator("#form-title").inner_text() == "Next clip, after clip 2"

    stub.hold.set()
    page.fill("#sentence", "truck left 1 m")
    page.click("#generate")
    page.wait_for_selector("#jobs progress[value]")
    assert "step" in page.locator("#jobs p").inner_text()
    assert page.locator("#jobs .note").inner_text() == "the prompt is the stub's"
    shot(page, "running")
    page.click("#jobs button")
    until(page, "document.querySelector('#jobs p').textContent.endsWith('cancelled')")
    stub.hold.clear()
    assert page.locator("#tree button").count() == 2

    page.locator("#tree button").first.click()
    page.click("#branch")
    until(page, "document.querySelector('#form-title').textContent === 'Next clip, after clip 1'")
    extended(page, "truck left 1 m")
    (exploration,) = stub.explorations.values()
    first, second, third = exploration["clips"]
    assert third["parent"] == second["parent"] == first["id"]

    page.reload()
    page.wait_for_selector("#tree button")
    assert page.locator("#tree button").count() == 3
    shot(page, "branches")
    page.click("#undo")
    until(page, "document.querySelector('#form-title').textContent === 'Next clip, after clip 1'")

    page.click("#downloads summary")
    for link in ("#get-clip", "#get-line", "#get-cameras", "#get-project"):
        with page.expect_download() as download:
            page.click(link)
        assert Path(download.value.path()).stat().st_size > 0


@pytest.mark.slow
def test_job_goes_on_while_the_page_is_loaded_anew(visit, stub):
    page = started(visit())
    stub.hold.set()
    page.click("#generate")
    page.wait_for_selector("#jobs progress[value]")
    page.reload()
    page.wait_for_selector("#jobs progress")
    stub.hold.clear()
    until(page, "document.querySelectorAll('#tree button').length === 2")


@pytest.mark.slow
def test_job_is_found_again_after_its_events_were_refused(visit, stub, errors):
    page = started(visit())
    stub.refused_events = 2
    page.click("#generate")
    until(page, "document.querySelectorAll('#tree button').length === 2")
    assert stub.refused_events < 2
    errors[:] = [e for e in errors if "503" not in e]  # the browser reports it by itself


@pytest.mark.slow
def test_refusal_is_said_before_anything_is_queued(visit, stub, errors):
    page = visit()
    page.fill("#sentence", "dolly sideways in")
    page.wait_for_selector("#warnings li")
    assert "^^^" in page.locator("#warnings .pointing").inner_text()
    shot(page, "refused")
    page.click("#generate")
    until(page, "document.querySelector('#problem').textContent.includes('path')")
    assert page.locator("#problem").get_attribute("role") == "alert"
    assert stub.jobs == {}
    page.get_by_label("Picture", exact=True).first.check()
    page.fill("#sentence", "dolly in 1 m")
    page.click("#generate")
    until(page, "document.querySelector('#problem').textContent === 'Choose a picture.'")
    errors[:] = [e for e in errors if "400" not in e]


@pytest.mark.slow
def test_pose_file_and_preset_with_an_amount(visit, stub, tmp_path):
    (tmp_path / "walk.txt").write_text("0 0 0 0 0 0 0 1\n1 0 0 1 0 0 0 1\n")
    page = visit()
    page.get_by_label("Pose file", exact=True).first.check()
    page.set_input_files("#pose-file", tmp_path / "walk.txt")
    page.fill("#from-frame", "1")
    until(page, "document.querySelector('#remarks').textContent.includes('metres')")
    sent = asked(page, stub, "pose_file", lambda file: "range" in file)
    assert sent == {"name": "walk.txt", "text": (tmp_path / "walk.txt").read_text(), "range": [1, None]}
    page.get_by_label("Preset", exact=True).first.check()
    page.select_option("#preset", "pan_left")
    page.fill("#amount", "25")
    until(page, "document.querySelector('#preview-sum').textContent.includes('25 degrees')")


@pytest.mark.slow
def test_clip_and_exploration_are_deleted_after_a_question(visit, stub):
    page = started(visit())
    extended(page, "pan left 10 deg")
    for answer, left in (("no", 2), ("yes", 1)):
        page.click("#delete-clip")
        page.click(f"#ask button[value={answer}]")
        page.wait_for_timeout(200)  # for a deletion that nobody wanted
        until(page, f"document.querySelectorAll('#tree button').length === {left}")
    page.click("#delete-exploration")
    page.click("#ask button[value=yes]")
    until(page, "document.querySelector('#form-title').textContent === 'New exploration'")
    assert stub.explorations == {}


@pytest.mark.slow
def test_job_elsewhere_is_seen_and_gone_to(visit, stub):
    page = visit()
    stub.hold.set()
    page.click("#generate")
    page.wait_for_selector("#jobs progress[value]")
    assert page.locator("#no-clips").is_visible()
    page.click("#new")
    page.wait_for_selector("#others button")
    assert page.locator("#form-title").inner_text() == "New exploration"
    page.click("#others button")
    page.wait_for_selector("#jobs progress")
    page.locator("#others-box").wait_for(state="hidden")
    stub.hold.clear()
    page.wait_for_selector("#tree button")


@pytest.mark.slow
def test_everything_is_reached_by_keyboard(visit, stub):
    page = visit()
    tab_to(page, "#sentence")
    page.keyboard.press("Control+A")
    page.keyboard.type("truck right 1 m")
    page.keyboard.press("Enter")
    page.wait_for_selector("#tree button")
    tab_to(page, "#view")
    page.keyboard.press("w")
    tab_to(page, "#play")
    playing = page.inner_text("#play")
    page.keyboard.press("Space")
    until(page, f"document.querySelector('#play').textContent !== '{playing}'")
    tab_to(page, "#generate")
    page.keyboard.press("Enter")
    until(page, "document.querySelectorAll('#tree button').length === 2")
    tab_to(page, "#tree button")
    page.keyboard.press("Enter")
    tab_to(page, "#branch")
    page.keyboard.press("Enter")
    until(page, "document.querySelector('#form-title').textContent === 'Next clip, after clip 1'")


@pytest.mark.slow
def test_two_visitors_branch_the_same_clip(visit, stub):
    anna = started(visit())
    bert = visit()
    bert.select_option("#explorations", index=1)
    bert.wait_for_selector("#tree button")
    extended(anna, "pan left 20 deg")
    bert.fill("#sentence", "pan right 20 deg")
    bert.click("#generate")  # of the clip that Bert sees, though Anna has gone on
    until(bert, "document.querySelectorAll('#tree button').length === 3")
    first, second, third = next(iter(stub.explorations.values()))["clips"]
    assert second["parent"] == third["parent"] == first["id"]
    assert anna.evaluate("localStorage.visitor") != bert.evaluate("localStorage.visitor")


@pytest.mark.slow
def test_key_frames_drawn_while_a_clip_is_made_stay(visit, stub):
    page = started(visit())
    stub.hold.set()
    page.click("#generate")
    page.wait_for_selector("#jobs progress[value]")
    page.click("#add-key")
    page.click("#add-key")
    stub.hold.clear()
    until(page, "document.querySelectorAll('#tree button').length === 2")
    assert page.locator("#keys li").count() == 2
    page.click("#generate")
    until(page, "document.querySelectorAll('#tree button').length === 3")
    assert page.locator("#keys li").count() == 0


@pytest.mark.slow
def test_picture_is_sent_with_the_request(visit, stub, tmp_path):
    picture = encode_png(np.full((96, 160, 3), 90, np.uint8))
    (tmp_path / "room.png").write_bytes(picture)
    page = visit()
    page.get_by_label("Picture", exact=True).first.check()
    page.set_input_files("#picture", tmp_path / "room.png")
    page.fill("#prompt", "a room")
    started(page)
    assert stub.pictures == [picture]
    request = [body for body in stub.bodies if "prompt" in body][-1]
    assert request == {"path": "dolly in 1 m", "prompt": "a room"}
    assert page.locator("#compare-box").is_hidden()


@pytest.mark.slow
def test_key_frames_are_set_by_keyboard_and_begin_at_the_last_camera(visit, stub):
    page = started(visit())
    page.click("#to-last")
    page.focus("#view")
    for keys in (["w"] * 4, ["d"] * 4):
        for key in keys:
            page.keyboard.press(key)
        page.keyboard.press("k")
    assert page.locator("#keys li").count() == 2
    shot(page, "keys")
    clip = next(iter(stub.explorations.values()))["clips"][0]
    last = np.array(clip["cameras"]["world_from_camera"][-1])
    sent = asked(page, stub, "key_frames", lambda keys: len(keys) == 3)
    keys = np.array([k["world_from_camera"] for k in sent])
    np.testing.assert_allclose(keys[0], last, atol=1e-6)
    moved = (np.linalg.inv(last) @ keys)[:, :3, 3]
    assert moved[1, 2] > 0.2  # W is forward, which is z
    assert abs(moved[1, 0]) < 1e-3
    assert moved[2, 0] > 0.2  # D is right, which is x

    page.get_by_text("Move all key frames").click()
    page.fill("#move-up", "0.5")
    page.click("#move-keys")
    sent = asked(page, stub, "key_frames", lambda keys: len(keys) == 3 and keys != sent)
    up = np.array([k["world_from_camera"] for k in sent])
    np.testing.assert_allclose((up - keys)[:, 1, 3], [0, -0.5, -0.5], atol=1e-5)  # y is down
    page.click("#keys [aria-label='Delete key frame 1']")
    assert page.locator("#keys li").count() == 1


@pytest.mark.slow
def test_whole_path_is_scaled_to_metres_and_degrees(visit, stub):
    page = visit()
    page.fill("#sentence", "dolly in 1 m while panning right 40 deg")
    page.click("#adjust summary")
    page.fill("#length", "2.5")
    page.fill("#turning", "20")
    until(page, "document.querySelector('#preview-sum').textContent.startsWith('Path: 2.50 m, 20 deg')")
    sent = [b["cameras"] for b in stub.bodies if "cameras" in b][-1]
    ends = np.array(sent["world_from_camera"])[[0, -1], :3, 3]
    assert sent["relative_to"] == "last_frame"
    assert np.linalg.norm(ends[1] - ends[0]) < 2.5 + 1e-4


@pytest.mark.slow
def test_warnings_are_read_before_compute_is_spent(visit, stub):
    page = visit()
    page.fill("#sentence", "dolly in 9 m")
    page.click("#generate")
    page.wait_for_selector("#warnings li")
    assert "9.0 m" in page.locator("#warnings").inner_text()
    assert stub.jobs == {}
    page.click("#generate")
    page.wait_for_selector("#tree button")
    assert len(stub.jobs) == 1


@pytest.mark.slow
def test_frame_is_chosen_and_compared_with_the_true_render(visit):
    page = started(visit(reduced_motion="reduce"))
    assert page.evaluate("document.querySelector('#video').paused")  # nothing moves by itself
    until(page, "document.querySelector('#video').readyState >= 2")
    page.check("#compare")
    until(page, "document.querySelector('#truth').readyState >= 2")
    page.focus("#scrub")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert page.locator("#frame-number").inner_text() == "4 of 9"
    until(page, "Math.abs(document.querySelector('#truth').currentTime - 3.5 / 8) < 0.02")
    shot(page, "compare")


@pytest.mark.slow
def test_points_are_made_and_shown(visit):
    page = started(visit())
    page.click("#make-scene")
    until(page, "document.querySelector('#message').textContent.includes('3,000 points')")
    shot(page, "points")


@pytest.mark.slow
def test_view_is_drawn_on_demand_only(visit):
    page = started(visit(reduced_motion="reduce"))
    page.wait_for_timeout(1500)
    before = page.get_attribute("#view", "data-drawn")
    page.wait_for_timeout(1000)
    assert page.get_attribute("#view", "data-drawn") == before
    page.focus("#view")
    page.keyboard.press("w")
    until(page, f"Number(document.querySelector('#view').dataset.drawn) > {before}")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_axe_finds_nothing_and_nothing_is_cut_off(visit, size, scheme):
    page = visit(DESKTOP if size == "desktop" else PHONE, color_scheme=scheme, has_touch=size == "phone")
    shot(page, f"new-{size}-{scheme}")
    assert axe(page) == []
    started(page)
    extended(page, "pan left 30 deg")
    for details in page.locator("details:not([open]) > summary").all():
        if details.is_visible():
            details.click()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert axe(page) == []
    shot(page, f"open-{size}-{scheme}")
