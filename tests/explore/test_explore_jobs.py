"""The queue: fair between visitors, on disk before it answers, and there again after a restart."""

from __future__ import annotations

import pytest

pytest.importorskip("msgspec", reason="part of the explore extra")

from camctrl_jax.errors import FileFailure
from camctrl_jax.explore import jobs
from camctrl_jax.explore.jobs import CANCELLED, DONE, QUEUED, RUNNING, Queue
from camctrl_jax.explore.problems import Refusal


def filled(folder, *visitors):
    queue = Queue(folder, 100, 100)
    return queue, [queue.add("extend", visitor, "e", {}) for visitor in visitors]


def test_visitors_take_turns_whoever_asked_more(tmp_path):
    queue, added = filled(tmp_path, *"aaaabbc")
    told = [added.index(job) for job in queue.waiting()]
    taken = []
    while (job := queue.take(0)) is not None:
        assert queue.position(job) == 0
        taken.append(added.index(job))
        queue.end(job, DONE, "0001")
    assert taken == told
    assert [added[place].visitor for place in taken] == list("abcabaa")


def test_a_newcomer_comes_before_the_second_job_of_who_was_just_served(tmp_path):
    queue, _ = filled(tmp_path, *"aaa")
    first = queue.take(0)
    newcomer = queue.add("extend", "b", "e", {})
    assert queue.position(newcomer) == 1
    queue.end(first, DONE, "0001")
    assert queue.take(0) is newcomer


def test_a_restart_finds_what_waits_and_first_what_was_running(tmp_path):
    queue, added = filled(tmp_path, *"aab")
    running = queue.take(0)
    queue.will_make(running, "0002")
    for step in range(5):
        queue.progress(running, "sampling", step, 200)
    again = Queue(tmp_path, 100, 100)
    # A page that goes on listening to its events asks for those after the last one that it saw.
    assert again.get(running.id).version > running.version
    assert [job.id for job in again.waiting()] == [running.id, added[2].id, added[1].id]
    taken = again.take(0)
    assert (taken.id, taken.clip, taken.state) == (running.id, "0002", RUNNING)


def test_a_cancel_outlives_a_kill(tmp_path):
    queue, _ = filled(tmp_path, "a", "a")
    running = queue.take(0)
    queue.cancel(running)
    waiting = queue.cancel(queue.waiting()[1])
    again = Queue(tmp_path, 100, 100)
    assert again.get(running.id).cancel
    assert again.get(waiting.id).state == CANCELLED


def test_a_job_that_cannot_be_written_is_not_accepted(tmp_path, monkeypatch):
    queue, _ = filled(tmp_path, "a")

    def full(*_):
        raise FileFailure("cannot write: the disk is full")

    monkeypatch.setattr(jobs, "write_json", full)
    with pytest.raises(FileFailure):
        queue.add("extend", "a", "e", {})
    assert len(queue.waiting()) == 1
    running = queue.waiting()[0]
    queue.end(running, DONE, "0001")  # known in memory, and no error
    assert running.state == DONE


def test_a_cancel_that_cannot_be_written_is_an_error_and_the_job_stays_as_it_is_on_disk(
    tmp_path, monkeypatch
):
    queue, _ = filled(tmp_path, "a", "a")
    running = queue.take(0)
    waiting = queue.waiting()[1]

    def full(*_):
        raise FileFailure("cannot write: the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "write_json", full)
        for job in (running, waiting):
            with pytest.raises(FileFailure):
                queue.cancel(job)
    again = Queue(tmp_path, 100, 100)
    for job, state in ((running, RUNNING), (waiting, QUEUED)):
        assert (job.state, job.cancel) == (state, False)
        assert (again.get(job.id).state, again.get(job.id).cancel) == (state, False)
    assert queue.cancel(waiting).state == CANCELLED  # once there is room
    assert Queue(tmp_path, 100, 100).get(waiting.id).version >= waiting.version


def test_a_damaged_file_of_a_job_is_left_alone_and_told(tmp_path):
    _, (job, other) = filled(tmp_path, "a", "b")
    (tmp_path / f"{job.id}.json").write_text("{")
    again = Queue(tmp_path, 100, 100)
    assert [each.id for each in again.waiting()] == [other.id]
    assert job.id in again.unreadable[0]
    assert (tmp_path / f"{job.id}.json").exists()


def test_time_left_follows_the_pace_after_the_first_step(tmp_path, monkeypatch):
    queue, _ = filled(tmp_path, "a")
    now = [1000.0]
    monkeypatch.setattr(jobs.time, "time", lambda: now[0])
    job = queue.take(0)
    now[0] += 50  # compiling
    queue.progress(job, "sampling", 1, 10)
    assert job.seconds_left is None
    now[0] += 2
    queue.progress(job, "sampling", 2, 10)
    assert job.seconds_left == 16.0


def test_names_of_jobs_lead_nowhere_else(tmp_path):
    queue, _ = filled(tmp_path, "a")
    for name in ("../x", "", "j" + "0" * 16):
        with pytest.raises(Refusal):
            queue.get(name)
    assert queue.all()[0].state == QUEUED
