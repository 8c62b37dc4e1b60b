"""What is on disk when something went wrong there, and threads that ask for it at once."""

from __future__ import annotations

import json
import os
import threading

import numpy as np
import pytest

pytest.importorskip("msgspec", reason="part of the explore extra")

from camctrl_jax.camera import Cameras
from camctrl_jax.camera.framing import null_intrinsics
from camctrl_jax.explore import store as module
from camctrl_jax.explore.jobs import Queue
from camctrl_jax.explore.problems import Refusal
from camctrl_jax.explore.service import Service
from camctrl_jax.explore.store import About, Store
from camctrl_jax.files.json_file import read_json

ABOUT = About("a room", "anna-0000", 1.0)


@pytest.fixture
def store(tmp_path):
    with_room = Store(tmp_path / "served", 10**9)
    yield with_room
    with_room.close()


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"title": 3, "visitor": "x", "created": 1}'])
def test_a_damaged_exploration_is_listed_as_such_and_hides_no_other(store, content):
    whole, damaged = store.create(ABOUT, None), store.create(ABOUT, None)
    (store.home(damaged) / "about.json").write_text(content)
    service = Service(store, Queue(store.jobs, 9, 9), model=None, worker=None)
    states = {each["id"]: each["state"] for each in service.explorations("anna-0000")["explorations"]}
    assert states == {whole: "failed", damaged: "damaged"}
    with pytest.raises(Refusal, match=r"about\.json") as refused:
        service.exploration(damaged, "anna-0000")
    assert refused.value.status == 409
    with pytest.raises(Refusal, match=r"about\.json"):
        service.remove(damaged, "anna-0000")
    assert store.home(damaged).is_dir()


def test_what_a_killed_server_was_writing_is_cleared_away_and_nothing_else(store):
    kept = store.create(ABOUT, None)
    for left in (store.explorations / ".e0123456789abcdef.0.partial", store.jobs / ".j01.json.0.partial"):
        left.mkdir()
        (left / "half").write_text("x")
    store.close()
    again = Store(store.root, 10**9)
    assert [entry.name for entry in again.explorations.iterdir()] == [kept]
    assert list(again.jobs.iterdir()) == []
    again.close()


def test_what_was_made_of_an_exploration_while_it_was_deleted_goes_and_clips_never(store):
    gone, kept = "e0123456789abcdef", "eabcdef0123456789"
    for path in (store.explorations / gone / "made" / "0001", store.explorations / gone / "exploration"):
        path.mkdir(parents=True)
        (path / "exploration.lock").write_text("x")
    (store.explorations / kept / "exploration" / "clips" / "0001").mkdir(parents=True)  # about.json was lost
    store.close()
    again = Store(store.root, 10**9)
    assert again.ids() == [kept]
    again.close()


def test_a_job_file_with_other_content_is_told_and_left(store):
    queue = Queue(store.jobs, 9, 9)
    job = queue.add("extend", "anna", "e", {})
    path = store.jobs / f"{job.id}.json"
    for name, value in (("kind", "dance"), ("state", "lost"), ("created", "yesterday")):
        content = read_json(path) | {name: value}
        path.write_text(json.dumps(content))
        again = Queue(store.jobs, 9, 9)
        assert again.all() == []
        assert name in again.unreadable[0]
        path.write_text(json.dumps(content | {name: getattr(job, name)}))
    assert len(Queue(store.jobs, 9, 9).all()) == 1


def test_a_file_that_was_replaced_within_a_tick_of_the_clock_is_another_one(tmp_path):
    path = tmp_path / "cursor.json"
    assert module.changed(path) == (0, 0)
    found = []
    for text in ("1", "2"):
        new = tmp_path / text
        new.write_text(text)
        os.utime(new, ns=(10**18, 10**18))
        new.replace(path)
        found.append(module.changed(path))
    assert found[0] != found[1]
    assert module.changed(path) == found[1]


def test_many_threads_read_more_cameras_than_are_kept(store, monkeypatch):
    """Each gets its own, though what one of them reads drives out what another one is about to use."""
    kept = module.Kept(2)
    lens = null_intrinsics(32, 48).astype(np.float64)
    cameras = [Cameras(np.eye(4)[None], lens * (1 + place)) for place in range(8)]
    wrong = []

    def read(place):
        for turn in range(3000):
            key = (place + turn) % 8
            found = kept.get(key)
            if found is None:
                found = kept.put(key, cameras[key])
            if found is not cameras[key]:
                wrong.append(key)

    threads = [threading.Thread(target=read, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert sum(kept.get(key) is not None for key in range(8)) == 2


def test_the_last_served_visitors_are_known_and_not_all_that_ever_were(tmp_path, monkeypatch):
    from camctrl_jax.explore import jobs

    monkeypatch.setattr(jobs, "_VISITORS_KEPT", 3)
    queue = Queue(tmp_path, 99, 99)
    for visitor in "abcdea":
        queue.add("extend", visitor, "e", {})
        queue.end(queue.take(0), "done", "0001")
    assert list(queue._served) == ["d", "e", "a"]
