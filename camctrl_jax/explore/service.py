"""What visitors can do, without HTTP: everything is checked here before a job is accepted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

import camctrl_jax
from camctrl_jax.camera import Cameras
from camctrl_jax.camera.presets import PRESETS
from camctrl_jax.diffusion.sampler import Sampling
from camctrl_jax.explore.jobs import ENDED, RUNNING, Job, Queue
from camctrl_jax.explore.known_world import KnownWorld, Told, warnings_of_points
from camctrl_jax.explore.model import MOST_PIXELS, Model
from camctrl_jax.explore.paths import Asked, Place, asked_path
from camctrl_jax.explore.problems import Refusal
from camctrl_jax.explore.scenes import points_of
from camctrl_jax.explore.schema import (
    CHECKPOINT,
    MOST_POSES,
    MOST_PROMPT,
    NewClip,
    NewExploration,
    PathRequest,
    Refinement,
)
from camctrl_jax.explore.security import MOST_BODY, MOST_UPLOAD
from camctrl_jax.explore.store import About, Store, Tree
from camctrl_jax.explore.views import (
    Answer,
    cameras_view,
    clip_view,
    damaged_view,
    exploration_view,
    is_mine,
    job_view,
    summary_view,
)
from camctrl_jax.explore.worker import NO_STUDENT, Worker, request_of
from camctrl_jax.sampling.exploration_folder import Clip, line_of
from camctrl_jax.video.encoding import write_mp4

Ground = Callable[[Cameras], list[Told]]
"""What a path, in the frame of its exploration, runs into."""

SAID = (
    "Say what the camera does: 'dolly in 1.5 m, then pan left 40 deg while rising 0.3 m'. A comma or 'then' "
    "begins the next stage, 'while' and 'and' join moves. Verbs: dolly, truck, pedestal, pan, tilt, roll, "
    "orbit, arc, crane, zoom, hold and others; presets show them."
)


@dataclass(frozen=True)
class Service:
    """A server without its transport.

    Attributes:
        store, queue, model, worker: its parts.
        student: what makes quick looks, if there is one.
        rendering: held while a true render is made, one at a time.
        changing: held while a job is accepted that needs a clip, or clips are deleted or made current.
    """

    store: Store
    queue: Queue
    model: Model
    worker: Worker
    student: Model | None = None
    rendering: threading.Lock = field(default_factory=threading.Lock)
    changing: threading.Lock = field(default_factory=threading.Lock)

    def facts(self) -> Answer:
        """``GET /v1/model``."""
        model, quick, usual = self.model, self.student, self.model.sampling
        return {
            "name": model.checkpoint,
            "ready": model.ready,
            "camera": True,
            "image": True,
            "frames": model.shape.frames,
            "added": model.added,
            "height": model.shape.height,
            "width": model.shape.width,
            "fps": model.fps,
            "steps": usual.steps,
            "retrieved": model.extension.retrieved,
            "guidance": {
                "text": usual.guidance.text,
                "camera": usual.guidance.camera,
                "history": usual.guidance.history,
            },
            "student": model.student,
            "quick": None
            if quick is None
            else {"name": quick.checkpoint, "steps": quick.sampling.steps} | quick.student,
            "trained_on": model.trained_on,
            "device": jax.devices()[0].device_kind,
            "limits": {
                "image_bytes": MOST_UPLOAD,
                "body_bytes": MOST_BODY,
                "image_pixels": MOST_PIXELS,
                "prompt_characters": MOST_PROMPT,
                "prompt_tokens": model.embedder.max_tokens,
                "poses": MOST_POSES,
                "queue": self.queue.most,
                "queue_per_visitor": self.queue.most_of_one,
                "storage_bytes": self.store.most_bytes,
            },
        }

    def presets(self) -> Answer:
        """``GET /v1/presets``."""
        return {"presets": [{"name": n, "summary": p.summary} for n, p in PRESETS.items()], "help": SAID}

    def status(self) -> Answer:
        """``GET /v1/status``."""
        waiting = [job for job in self.queue.all() if job.state not in ENDED]
        running = sum(job.state == RUNNING for job in waiting)
        return {
            "queued": len(waiting) - running,
            "running": running,
            "storage_bytes": self.store.size(),
            "storage_limit": self.store.most_bytes,
            "version": camctrl_jax.__version__,
        }

    def explorations(self, visitor: str) -> Answer:
        """All, the newest first; one that is deleted meanwhile is left out."""
        found, jobs = [], self.queue.by_exploration()
        for name in self.store.ids():
            try:
                found.append(summary_view(self.store, jobs.get(name, []), name, visitor))
            except Refusal as refusal:
                if refusal.type != "not_found":
                    found.append(damaged_view(name))
        return {"explorations": sorted(found, key=lambda each: -each["created"])}

    def exploration(self, name: str, visitor: str) -> Answer:
        """One of them."""
        return exploration_view(self.store, self.queue, name, visitor)

    def clip(self, name: str) -> Answer:
        """One clip."""
        exploration, tree, clip = self.store.clip(name)
        in_world = self.store.about(exploration).worlds_seed is not None
        return clip_view(self.store, exploration, tree, clip, in_world)

    def job(self, name: str, visitor: str) -> Answer:
        """One job."""
        return job_view(self.queue, self.queue.get(name), visitor)

    def jobs(self, visitor: str) -> Answer:
        """A visitor's jobs, the newest first."""
        mine = [job for job in self.queue.all() if job.visitor == visitor]
        return {"jobs": [job_view(self.queue, job, visitor) for job in reversed(mine)]}

    def preview(self, asked: PathRequest) -> Answer:
        """What a path would be."""
        if asked.exploration is None:
            if asked.parent is not None:
                raise Refusal("bad_request", "parent without exploration: name both or neither.", "parent")
            place, own = self._beginning(asked.worlds_seed)
            ground = self._ground_of(asked.worlds_seed)
        else:
            tree = self._tree(asked.exploration)
            clip = self._parent(asked.exploration, tree, asked.parent)
            place, own = self._after(asked.exploration, clip), None
            ground = self._ground(asked.exploration, tree, clip)
        path = self._asked(asked, place, own)
        # In the frame of the exploration, the camera where it begins included.
        shown = path.cameras.transformed(place.last.world_from_camera[0])
        frames = place.poses - place.goes_on
        return {
            "cameras": cameras_view(shown),
            "said": path.said,
            "length_m": round(path.cameras.path_length, 4),
            "rotation_deg": round(path.cameras.total_rotation, 3),
            "seconds": round(frames / place.fps, 3),
            "remarks": list(path.remarks),
            "warnings": self._warnings(path, place, ground),
        }

    def start(self, asked: NewExploration, image: bytes | None, visitor: str) -> Answer:
        """A new exploration, whose first clip is a job."""
        if image is not None and asked.worlds_seed is not None:
            raise Refusal("bad_request", "image and worlds_seed: start from one of them.", "worlds_seed")
        self.store.check_room()
        self.queue.check_room(visitor)
        place, own = self._beginning(asked.worlds_seed)
        path = self._asked(asked, place, own)
        prompt = asked.prompt or ""
        self.model.check_prompt(prompt)
        if asked.prompt is None and asked.worlds_seed is not None:
            prompt = self.model.world(asked.worlds_seed).captions[0]
        maker = self._maker(asked.model)
        given = image is not None or asked.worlds_seed is not None
        sampling = _of_first(maker.asked(asked, maker.sampling), given)
        picture = None if image is None else self.model.picture(image)
        title = asked.title or prompt[:60] or path.said
        name = self.store.create(About(title, visitor, time.time(), asked.worlds_seed), picture)
        try:
            request = request_of(path.cameras, prompt, asked.seed or 0, sampling, asked.model)
            told = self._remarks(path, place, self._ground_of(asked.worlds_seed))
            job = self.queue.add(
                *("start", visitor, name, request), said=path.said, prompt=prompt, remarks=told
            )
        except Exception:
            self.store.remove(name)
            raise
        return {"exploration": self.exploration(name, visitor), "job": job_view(self.queue, job, visitor)}

    def extend(self, exploration: str, asked: NewClip, visitor: str) -> Answer:
        """One more clip, which is a job."""
        self.store.check_room()
        tree = self._tree(exploration)
        parent = self._parent(exploration, tree, asked.parent)
        place = self._after(exploration, parent)
        path = self._asked(asked, place, None)
        prompt = parent.prompt if asked.prompt is None else asked.prompt
        if asked.prompt is not None:
            self.model.check_prompt(prompt)
        maker, usual = self._maker(asked.model), tree.settings.sampling
        if next(iter(tree.clips.values())).student != (maker.student is not None):
            usual = maker.sampling  # the exploration's is how weights of the other kind began it
        sampling = maker.asked(asked, replace(usual, shift=None))
        request = request_of(path.cameras, prompt, asked.seed, sampling, asked.model)
        told = self._remarks(path, place, self._ground(exploration, tree, parent))
        with self.changing:
            self._parent(exploration, self._tree(exploration), f"{exploration}.{parent.name}")
            job = self.queue.add(
                *("extend", visitor, exploration, request),
                parent=parent.name,
                said=path.said,
                prompt=prompt,
                remarks=told,
            )
        return job_view(self.queue, job, visitor)

    def refine(self, name: str, asked: Refinement, visitor: str) -> Answer:
        """A clip of a student again, by the checkpoint, with its path, prompt and seed; a job.

        It becomes a sibling of the clip. A first clip has none: it becomes that of another exploration.
        """
        self.store.check_room()
        exploration, tree, clip = self.store.clip(name)
        if not clip.student:
            raise Refusal(
                "conflict", f"Clip {clip.name} is no quick look by a student: it needs no refining."
            )
        if self.model.student is not None:
            raise Refusal(
                "conflict",
                "The checkpoint of this server is a student itself and refines nothing: start it with the "
                "teacher.",
            )
        sampling = self.model.asked(asked, self.model.sampling)
        about = {"said": clip.said, "prompt": clip.prompt, "refines": name}
        if clip.parent is None:
            job = self._refine_first(exploration, tree, clip, sampling, visitor, about)
            return job_view(self.queue, job, visitor)
        request = request_of(None, clip.prompt, clip.seed, sampling)
        with self.changing:
            self.store.clip(name)  # it may be deleted by now
            job = self.queue.add(*("extend", visitor, exploration, request), parent=clip.parent, **about)
        return job_view(self.queue, job, visitor)

    def _refine_first(
        self, old: str, tree: Tree, clip: Clip, sampling: Sampling, visitor: str, about: Answer
    ) -> Job:
        """The job that begins an exploration as another one began."""
        settings, shape = tree.settings, self.model.shape
        sizes = settings.frames, settings.height, settings.width, settings.fps
        ours = shape.frames, shape.height, shape.width, self.model.fps
        if sizes != ours:
            raise Refusal(
                "conflict",
                f"Clip {clip.name} has {sizes[0]} frames of {sizes[1]}x{sizes[2]} at {sizes[3]:g} a second; "
                f"these weights begin with {ours[0]} of {ours[1]}x{ours[2]} at {ours[3]:g}.",
            )
        self.queue.check_room(visitor)
        known, picture = self.store.about(old), self.store.start_picture(old)
        given = picture is not None or known.worlds_seed is not None
        request = request_of(
            self.store.cameras(old, clip), clip.prompt, clip.seed, _of_first(sampling, given)
        )
        title = f"{known.title[:190]}, refined"
        name = self.store.create(About(title, visitor, time.time(), known.worlds_seed), picture)
        try:
            return self.queue.add("start", visitor, name, request, **about)
        except Exception:
            self.store.remove(name)
            raise

    def make_scene(self, name: str, visitor: str) -> Answer:
        """Points of a clip's line, which are a job."""
        self.store.check_room()
        with self.changing:
            exploration, _, clip = self.store.clip(name)
            job = self.queue.add(
                *("scene", visitor, exploration, {}), parent=clip.name, said="3-D", prompt=clip.prompt
            )
        return job_view(self.queue, job, visitor)

    def cancel(self, name: str, visitor: str) -> Answer:
        """End a job of this visitor."""
        job = self.queue.get(name)
        if job.visitor != visitor:
            raise Refusal("forbidden", "This job is another visitor's: only they can cancel it.")
        return job_view(self.queue, self.queue.cancel(job), visitor)

    def set_current(self, exploration: str, clip: str, visitor: str) -> Answer:
        """Branch: go on from any clip."""
        with self.changing:
            found = self._parent(exploration, self._tree(exploration), clip, "clip")
            self.store.set_current(exploration, found.name)
        return self.exploration(exploration, visitor)

    def delete_clip(self, name: str, visitor: str) -> Answer:
        """Delete a clip from which nothing goes on, nor will."""
        exploration, _, clip = self.store.clip(name)
        self._check_owner(exploration, visitor)
        with self.changing:
            waiting = self._waiting(exploration)
            if any(job.parent == clip.name for job in waiting):
                raise Refusal("conflict", f"A job goes on from clip {clip.name}: wait for it, or cancel it.")
            if any(job.refines == name for job in waiting):
                raise Refusal("conflict", f"A job refines clip {clip.name}: wait for it, or cancel it.")
            self.store.delete_clip(exploration, clip.name)
        return self.exploration(exploration, visitor)

    def remove(self, exploration: str, visitor: str) -> None:
        """Delete an exploration without jobs."""
        self._check_owner(exploration, visitor)
        with self.changing:
            if self._waiting(exploration):
                raise Refusal("conflict", "Jobs of this exploration wait: cancel them first.")
            self.store.remove(exploration)

    def truth(self, name: str) -> Path:
        """The path of the true render of a clip, which is made when it is asked for the first time."""
        exploration, tree, clip = self.store.clip(name)
        world = self._world(exploration, tree)
        if world is None:
            raise Refusal("not_found", "Only explorations that began in a world have true renders.")
        path = self.store.made(exploration, clip.name, "truth.mp4")
        with self.rendering:
            if not path.is_file():
                self.store.check_room()
                settings, cameras = tree.settings, self.store.cameras(exploration, clip)
                frames = world.render(cameras, clip.first, settings.height, settings.width)
                write_mp4(path, frames, settings.fps)
        return path

    def _check_owner(self, exploration: str, visitor: str) -> None:
        if not is_mine(self.store.about(exploration), visitor):
            raise Refusal(
                "forbidden",
                "This exploration is another visitor's, and only they can delete in it; anybody may go on "
                "from its clips.",
            )

    def _world(self, exploration: str, tree: Tree) -> KnownWorld | None:
        """The world that it began in, as its own settings made it, whatever the weights are now."""
        seed, settings = self.store.about(exploration).worlds_seed, tree.settings
        if seed is None:
            return None
        aspect = settings.width / settings.height
        return KnownWorld(self.model.world_of(seed, settings.frames, settings.fps, aspect))

    def _ground_of(self, seed: int | None) -> Ground:
        """What is known of where a first clip goes."""
        world = None if seed is None else KnownWorld(self.model.world(seed))
        return lambda cameras: [] if world is None else world.warnings(cameras, 0)

    def _ground(self, exploration: str, tree: Tree, parent: Clip) -> Ground:
        """What is known of where a clip goes that goes on from another one."""
        world = self._world(exploration, tree)
        if world is not None:
            return lambda cameras: world.warnings(cameras, parent.end - 1)
        points = points_of(self.store, exploration, line_of(tree.clips, parent.name))
        return lambda cameras: [] if points is None else warnings_of_points(cameras, points)

    def _warnings(self, path: Asked, place: Place, ground: Ground) -> list[Told]:
        """What is odd about a path, before anything is computed."""
        there = path.cameras.transformed(place.last.world_from_camera[0])
        frames = place.poses - place.goes_on
        return [*path.warnings, *self.model.warnings(path.cameras, frames), *ground(there)]

    def _remarks(self, path: Asked, place: Place, ground: Ground) -> list[str]:
        return [*path.remarks, *(told["message"] for told in self._warnings(path, place, ground))]

    def _waiting(self, exploration: str) -> list[Job]:
        return [job for job in self.queue.of(exploration) if job.state not in ENDED]

    def _tree(self, exploration: str) -> Tree:
        tree = self.store.tree(exploration)
        if tree.problem is not None:
            raise Refusal("conflict", f"The exploration is damaged: {tree.problem}")
        if not tree.clips:
            raise Refusal(
                "conflict",
                "The exploration has no clip yet: wait for its first one."
                if self._waiting(exploration)
                else "The first clip of this exploration was cancelled or failed: start another one.",
            )
        return tree

    def _parent(self, exploration: str, tree: Tree, clip: str | None, param: str = "parent") -> Clip:
        if clip is None:
            return tree.clips[tree.current]
        owner, _, name = clip.partition(".")
        if owner != exploration or name not in tree.clips:
            raise Refusal("bad_request", f"{clip[:80]!r} is no clip of {exploration}.", param)
        return tree.clips[name]

    def _maker(self, name: str) -> Model:
        """What is to make a clip."""
        if name == CHECKPOINT:
            return self.model
        if self.student is None:
            raise Refusal("bad_request", NO_STUDENT, "model")
        return self.student

    def _beginning(self, worlds_seed: int | None) -> tuple[Place, Cameras | None]:
        model, own, lens = self.model, None, self.model.lens
        if worlds_seed is not None:
            own = model.world(worlds_seed).cameras.relative_to(0)
            lens = own.intrinsics[0]
        last = Cameras(np.eye(4)[None], lens, metric=True)
        size = model.shape.height, model.shape.width
        return Place(last, model.shape.frames, model.fps, size, goes_on=False), own

    def _after(self, exploration: str, clip: Clip) -> Place:
        tree, last = self.store.tree(exploration), self.store.cameras(exploration, clip)[-1]
        settings = tree.settings
        added = self.model.shape.temporal_stride * settings.extension.new_latents
        return Place(last, added + 1, settings.fps, (settings.height, settings.width), goes_on=True)

    def _asked(self, fields: Any, place: Place, own: Cameras | None) -> Asked:
        if fields.pose_file is None:
            return asked_path(fields, place, self.store.scratch, own)
        with self.store.own_scratch() as scratch:
            return asked_path(fields, place, scratch, own)


def _of_first(sampling: Sampling, given: bool) -> Sampling:
    """How a first clip is sampled. There is nothing before one from a prompt alone to hold on to."""
    if given or sampling.guidance.history == 1.0:
        return sampling
    return replace(sampling, guidance=replace(sampling.guidance, history=1.0))
