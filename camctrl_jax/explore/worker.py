"""The one thread that owns the pipeline: takes jobs, makes clips, and goes on whatever happens to one."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np

from camctrl_jax.camera import Cameras
from camctrl_jax.diffusion.guidance import Guidance
from camctrl_jax.diffusion.sampler import Sampling
from camctrl_jax.errors import UserError
from camctrl_jax.explore.jobs import CANCELLED, DONE, FAILED, Job, Queue
from camctrl_jax.explore.model import Model
from camctrl_jax.explore.problems import Refusal, described
from camctrl_jax.explore.scenes import make_scene
from camctrl_jax.explore.schema import CHECKPOINT, STUDENT
from camctrl_jax.explore.store import Store
from camctrl_jax.sampling.exploration import Exploration, ExplorationInUse
from camctrl_jax.sampling.exploration_folder import ExplorationFolder, name_of
from camctrl_jax.sampling.pipeline import Pipeline

_LOG = logging.getLogger(__name__)
NO_STUDENT = (
    "This server has no student for quick looks: start it with --student, or leave the model out to take "
    "the checkpoint."
)
_IDLE = 0.5  # seconds between looks whether the server ends
_PATIENCE, _LOOK = 10.0, 0.02  # seconds for a folder that is in use, and between looks


class Cancelled(Exception):
    """Raised inside the sampler's progress callback: the visitor, or the end of the server, stops it."""


def request_of(
    cameras: Cameras | None, prompt: str, seed: int | None, sampling: Sampling, model: str = CHECKPOINT
) -> dict[str, Any]:
    """What a job keeps on disk. Python writes floats so that they are read the same: so are the pixels.

    Args:
        cameras: None of a clip that is made anew along those of another one.
        prompt, seed, sampling: of the clip.
        model: what makes it.
    """
    return {
        "cameras": None
        if cameras is None
        else {
            "world_from_camera": cameras.world_from_camera.tolist(),
            "intrinsics": cameras.intrinsics.tolist(),
        },
        "prompt": prompt,
        "seed": seed,
        "sampling": asdict(sampling),
        "model": model,
    }


class Worker:
    """Runs jobs until it is stopped."""

    def __init__(self, store: Store, queue: Queue, model: Model, student: Model | None = None) -> None:
        """Nothing runs before :meth:`start`."""
        self._store, self._queue, self._model = store, queue, model
        self._models = {CHECKPOINT: model} | ({} if student is None else {STUDENT: student})
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="explore-worker", daemon=True)

    def start(self) -> None:
        """Begin to take jobs."""
        self._thread.start()

    def stop(self, seconds: float = 10.0) -> None:
        """Stop at the next step. The running job stays on disk and is taken up by the next start."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join(seconds)

    def _run(self) -> None:
        try:
            for model in self._models.values():
                model.pipeline()  # so that the first visitor need not wait for it
        except Exception as error:  # every job will tell its visitor
            _LOG.error("the weights cannot be loaded: %s", error)
        while not self._ending.is_set():
            try:
                job = self._queue.take(_IDLE)
            except UserError as error:  # a full disk: the job waits until there is room
                _LOG.error("a job could not be begun: %s", error)
                self._ending.wait(_IDLE)
                continue
            if job is not None:
                self._safely(job)

    def _safely(self, job: Job) -> None:
        try:
            self._do(job)
        except Exception as error:  # of telling how the job ended; the others must not wait for ever
            _LOG.exception("job %s could not be ended", job.id)
            job.state, job.error = FAILED, described(error)

    def _do(self, job: Job) -> None:
        try:
            if job.cancel:
                raise Cancelled
            clip = {"start": self._start, "extend": self._extend, "scene": self._scene}[job.kind](job)
        except Cancelled:
            if not self._ending.is_set() or job.cancel:
                self._queue.end(job, CANCELLED)
        except UserError as error:
            self._queue.end(job, FAILED, error=described(error))
        except Exception as error:
            _LOG.exception("job %s failed", job.id)
            self._queue.end(job, FAILED, error=described(error))
        else:
            self._queue.end(job, DONE, clip=clip)

    def _start(self, job: Job) -> str:
        folder = self._store.folder(job.exploration)
        if folder.begun():  # finished before the server was killed
            return name_of(1)
        about = self._store.about(job.exploration)
        if about.worlds_seed is not None:
            self._tell(job, "rendering the first frame")
            picture = self._model.first_frame(self._model.world(about.worlds_seed))
        else:
            picture = self._store.start_picture(job.exploration)
        pipeline = self._pipeline(job)
        request = job.request

        def begin() -> Exploration:
            return Exploration.start(
                *(pipeline, folder.path, _cameras(request)),
                image=picture,
                prompt=request["prompt"],
                seed=request["seed"],
                fps=self._model.fps,
                shape=self._model.shape,
                sampling=_sampling(request),
                said=job.said,
                progress=lambda done, steps: self._step(job, done, steps),
            )

        with self._when_free(job, begin) as exploration:
            return exploration.current.name

    def _extend(self, job: Job) -> str:
        folder = self._store.folder(job.exploration)
        pipeline, request = self._pipeline(job), job.request

        def opened() -> Exploration:
            return Exploration.load(pipeline, folder.path, other_weights=self._known(folder, pipeline))

        with self._when_free(job, opened) as exploration:
            made = {clip.name: clip for clip in exploration.clips}.get(job.clip)
            if made is not None and (made.parent, made.prompt, made.said) == (
                *(job.parent, request["prompt"], job.said),
            ):
                return made.name  # finished before the server was killed
            self._queue.will_make(job, name_of(folder.newest(folder.read()[1]) + 1))
            how: dict[str, Any] = {
                "sampling": _sampling(request),
                "progress": lambda done, steps: self._step(job, done, steps),
            }
            if job.refines is not None:
                return exploration.again(job.refines.partition(".")[2], **how).name
            return exploration.extend(
                *(_cameras(request), request["prompt"], request["seed"]),
                of=job.parent,
                said=job.said,
                **how,
            ).name

    def _known(self, folder: ExplorationFolder, pipeline: Pipeline) -> bool:
        """Whether clips of an exploration are of these weights, or of others that this server has."""
        settings, clips, _ = folder.read()
        prints = {settings.fingerprint, *(clip.fingerprint for clip in clips.values())}
        # The parameters of others are not looked at where these made it.
        return pipeline.fingerprint in prints or any(
            model.pipeline().fingerprint in prints for model in self._models.values()
        )

    def _when_free(self, job: Job, opened: Callable[[], Exploration]) -> Exploration:
        """Open an exploration, in which a visitor may be deleting or branching at this moment."""
        end = time.monotonic() + _PATIENCE
        while True:
            try:
                return opened()
            except ExplorationInUse:
                if time.monotonic() > end:
                    raise
            self._tell(job, "waiting for its folder")
            time.sleep(_LOOK)

    def _scene(self, job: Job) -> str:
        self._tell(job, "reading the frames")

        def step(done: int, views: int) -> None:
            self._check(job)
            self._queue.progress(job, "finding depth", done, views)

        report = make_scene(self._store, job.exploration, job.parent, step)
        moves = report["masked"]
        self._queue.remark(
            job,
            f"{report['points']} points. "
            + (
                "Moving things were not looked for, which takes OpenCV and pictures of 32 pixels."
                if moves is None
                else f"{100 * moves:.0f} % of the pictures seems to move and was left out."
            ),
        )
        return job.parent

    def _pipeline(self, job: Job) -> Pipeline:
        model = self._models.get(job.request.get("model", CHECKPOINT))
        if model is None:  # a student that an earlier server had
            raise Refusal("conflict", NO_STUDENT)
        if not model.ready:
            self._tell(job, "loading the weights")
        pipeline = model.pipeline()
        embedder = pipeline.embedder
        if embedder.truncated([job.prompt]):
            self._queue.remark(
                job, f"The prompt is longer than {embedder.max_tokens} tokens; its end is left out."
            )
        self._tell(job, "encoding what is given")
        return pipeline

    def _tell(self, job: Job, stage: str) -> None:
        self._check(job)
        self._queue.progress(job, stage)

    def _step(self, job: Job, done: int, steps: int) -> None:
        self._check(job)
        stage = "sampling" if done < steps else "decoding and writing"
        self._queue.progress(job, stage, done, steps)

    def _check(self, job: Job) -> None:
        if job.cancel or self._ending.is_set():
            raise Cancelled


def _cameras(request: dict[str, Any]) -> Cameras:
    stored = request["cameras"]
    return Cameras(np.array(stored["world_from_camera"]), np.array(stored["intrinsics"]), metric=True)


def _sampling(request: dict[str, Any]) -> Sampling:
    stored = dict(request["sampling"])
    return Sampling(**stored | {"guidance": Guidance(**stored["guidance"])})
