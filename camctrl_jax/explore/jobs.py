"""Jobs: what visitors asked for, on disk until it is done, in a queue that is fair between visitors.

A job is written when it is accepted and whenever its state changes, not at every step, so that a server that
was killed finds what was asked for and takes it up.
"""

from __future__ import annotations

import logging
import re
import secrets
import threading
import time
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import msgspec

from camctrl_jax.errors import UserError
from camctrl_jax.explore.problems import Refusal
from camctrl_jax.files.json_file import read_json, write_json

_LOG = logging.getLogger(__name__)
QUEUED, RUNNING, DONE, FAILED, CANCELLED = "queued", "running", "done", "failed", "cancelled"
ENDED = frozenset({DONE, FAILED, CANCELLED})
_ID = re.compile(r"j[0-9a-f]{16}")
_MORE_THAN_SEEN = 1_000_000
_VISITORS_KEPT = 10_000
_KEPT = 500  # ended jobs; older ones are forgotten, their clips are not


@dataclass
class Job:
    """One piece of work.

    Attributes:
        id, kind, visitor, exploration: kind is "start", "extend" or "scene".
        request: what the worker needs: the checked path as numbers, prompt, seed, sampling, which weights.
        parent, clip: names of clips: what it goes on from; what it makes, once that is known.
        refines: id of the clip of a student that it makes anew.
        said, prompt: for people.
        state: one of the words above.
        cancel: whether it was asked to end.
        error: why it failed.
        remarks: what was assumed, for people.
        created, began, ended: seconds since 1970.
        order: in which it was accepted.
        stage, done, steps, step_began: of the running one; not on disk.
        version: of what visitors see.
    """

    id: str
    kind: Literal["start", "extend", "scene"]
    visitor: str
    exploration: str
    request: dict[str, Any]
    parent: str | None = None
    clip: str | None = None
    refines: str | None = None
    said: str = ""
    prompt: str = ""
    state: Literal["queued", "running", "done", "failed", "cancelled"] = QUEUED
    cancel: bool = False
    error: dict[str, Any] | None = None
    remarks: list[str] = field(default_factory=list)
    created: float = field(default_factory=time.time)
    began: float | None = None
    ended: float | None = None
    order: int = 0
    stage: str = "waiting"
    done: int = 0
    steps: int = 0
    first_step: float | None = None
    version: int = 1

    @property
    def seconds_left(self) -> float | None:
        """From the pace of the steps so far; the first step, which may compile, tells little."""
        if self.state != RUNNING or self.first_step is None or self.done < 2:
            return None
        pace = (time.time() - self.first_step) / (self.done - 1)
        return round(max(0.0, pace * (self.steps - self.done)), 1)

    @property
    def elapsed(self) -> float:
        """Seconds of running."""
        if self.began is None:
            return 0.0
        return round((self.ended or time.time()) - self.began, 2)


class Queue:
    """All jobs. Every method may be called from any thread."""

    def __init__(self, folder: Path, most: int, most_of_one: int) -> None:
        """Read what is on disk; jobs that were running wait again, before all others."""
        self.folder, self.most, self.most_of_one = folder, most, most_of_one
        self._changed = threading.Condition()
        self._jobs: dict[str, Job] = {}
        self._served: dict[str, float] = {}
        self.unreadable: list[str] = []
        found = []
        for path in folder.glob("j*.json"):
            try:
                found.append(msgspec.convert(read_json(path), Job))
            except (UserError, msgspec.ValidationError) as error:
                self.unreadable.append(f"{path}: {error}")
        for job in sorted(found, key=lambda job: job.order):
            self._jobs[job.id] = job
            if job.began is not None:
                self._served[job.visitor] = max(job.began, self._served.get(job.visitor, 0.0))
            if job.state not in ENDED:
                job.stage, job.done, job.first_step = "waiting", 0, None
                # Pages saw versions that are not on disk, and ask for later ones.
                job.version += _MORE_THAN_SEEN
        self._order = max((job.order for job in found), default=0)

    def steady(self) -> AbstractContextManager[Any]:
        """A context in which no job changes."""
        return self._changed

    def add(self, kind: str, visitor: str, exploration: str, request: dict[str, Any], **about: Any) -> Job:
        """Accept a job: it is on disk when this returns.

        Raises:
            Refusal: the queue is full, for all or for the visitor.
        """
        with self._changed:
            self.check_room(visitor)
            self._order += 1
            name = f"j{secrets.token_hex(8)}"
            job = Job(name, kind, visitor, exploration, request, order=self._order, **about)
            self._write(job)
            self._jobs[name] = job
            self._forget()
            self._touch_waiting()
            self._changed.notify_all()
            return job

    def check_room(self, visitor: str) -> None:
        """That a visitor may ask for more.

        Raises:
            Refusal: names the cap.
        """
        with self._changed:
            waiting = [job for job in self._jobs.values() if job.state not in ENDED]
            mine = sum(job.visitor == visitor for job in waiting)
            if len(waiting) >= self.most:
                raise Refusal("queue_full", f"{len(waiting)} jobs wait, the most there may be: try later.")
            if mine >= self.most_of_one:
                raise Refusal(
                    "queue_full",
                    f"{mine} of your jobs wait, the most of one visitor: wait for one, or cancel one.",
                )

    def get(self, name: str) -> Job:
        """A job by its id.

        Raises:
            Refusal: there is none.
        """
        job = self._jobs.get(name) if _ID.fullmatch(name) else None
        if job is None:
            raise Refusal(
                "not_found", f"There is no job {name[:80]!r}; jobs that ended long ago are forgotten."
            )
        return job

    def all(self) -> list[Job]:
        """In order of asking."""
        with self._changed:
            return list(self._jobs.values())

    def of(self, exploration: str) -> list[Job]:
        """Those of one exploration."""
        return [job for job in self.all() if job.exploration == exploration]

    def by_exploration(self) -> dict[str, list[Job]]:
        """All, by the exploration that they are of."""
        found: dict[str, list[Job]] = {}
        for job in self.all():
            found.setdefault(job.exploration, []).append(job)
        return found

    def waiting(self) -> list[Job]:
        """In the order in which they will run: the running one first, then the visitor who was served the
        longest ago, and so on in turn.
        """
        with self._changed:
            queued = sorted((j for j in self._jobs.values() if j.state == QUEUED), key=lambda j: j.order)
            running = [job for job in self._jobs.values() if job.state == RUNNING]
            served, found = dict(self._served), list(running)
            now = time.time()
            while queued:
                turn = min(queued, key=lambda job: (served.get(job.visitor, 0.0), job.order))
                now += 1.0
                served[turn.visitor] = now
                queued.remove(turn)
                found.append(turn)
            return found

    def position(self, job: Job) -> int | None:
        """How many run before it; None of one that ended."""
        if job.state in ENDED:
            return None
        return next((place for place, other in enumerate(self.waiting()) if other is job), None)

    def take(self, seconds: float) -> Job | None:
        """The next job, which is running from now on; None if there is none within so many seconds."""
        with self._changed:
            job = self._next()
            if job is None:
                self._changed.wait(seconds)
                job = self._next()
            if job is None:
                return None
            job.state, job.began, job.stage = RUNNING, time.time(), "starting"
            self._served.pop(job.visitor, None)  # so that it is the last of the dictionary
            self._served[job.visitor] = job.began
            while len(self._served) > _VISITORS_KEPT:
                del self._served[next(iter(self._served))]
            self._saved(job)
            return job

    def _next(self) -> Job | None:
        # What a killed server was making comes first: it waited already.
        return next(iter(self.waiting()), None)

    def progress(self, job: Job, stage: str, done: int = 0, steps: int = 0) -> None:
        """Tell where the running job is."""
        with self._changed:
            if done >= 1 and job.first_step is None:
                job.first_step = time.time()
            job.stage, job.done, job.steps = stage, done, steps or job.steps
            job.version += 1

    def remark(self, job: Job, text: str) -> None:
        """Tell something about the job that its visitor should know."""
        with self._changed:
            if text not in job.remarks:
                job.remarks.append(text)
                job.version += 1

    def will_make(self, job: Job, clip: str) -> None:
        """Say on disk which clip the job makes, so that one that was finished is known after a kill."""
        with self._changed:
            job.clip = clip
            self._saved(job)

    def end(self, job: Job, state: str, clip: str | None = None, error: dict[str, Any] | None = None) -> None:
        """The job has ended."""
        with self._changed:
            job.state, job.clip, job.error, job.ended = state, clip, error, time.time()
            job.stage = state
            try:
                self._saved(job)
            except UserError as failure:  # a full disk: a restart finds out what became of the job
                _LOG.error("the end of job %s is not on disk: %s", job.id, failure)
            self._touch_waiting()

    def cancel(self, job: Job) -> Job:
        """Take it out of the queue, or ask the worker to stop at its next step; nothing if it has ended.

        Raises:
            FileFailure: it cannot be written, so the job goes on: a restart would make it all the same.
        """
        with self._changed:
            fresh: dict[str, Any] = {"cancel": True, "version": job.version + 1}
            if job.state == QUEUED:
                fresh |= {"state": CANCELLED, "stage": CANCELLED, "ended": time.time()}
            elif job.state == RUNNING and not job.cancel:
                fresh |= {"stage": "stopping"}
            else:
                return job
            self._write(replace(job, **fresh))
            for name, value in fresh.items():
                setattr(job, name, value)
            self._touch_waiting()
            self._changed.notify_all()
            return job

    def _touch_waiting(self) -> None:
        for job in self._jobs.values():
            if job.state == QUEUED:
                job.version += 1

    def _saved(self, job: Job) -> None:
        job.version += 1
        self._write(job)
        self._changed.notify_all()

    def _write(self, job: Job) -> None:
        write_json(self.folder / f"{job.id}.json", asdict(job))

    def _forget(self) -> None:
        ended = [job for job in self._jobs.values() if job.state in ENDED]
        for job in ended[: max(0, len(ended) - _KEPT)]:
            del self._jobs[job.id]
            (self.folder / f"{job.id}.json").unlink(missing_ok=True)
