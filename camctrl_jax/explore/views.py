"""What visitors see of explorations, clips and jobs: the objects of ``openapi.json``."""

from __future__ import annotations

from typing import Any

from camctrl_jax.camera import Cameras
from camctrl_jax.explore.jobs import ENDED, FAILED, Job, Queue
from camctrl_jax.explore.schema import CHECKPOINT, STUDENT
from camctrl_jax.explore.store import START, About, Store, Tree
from camctrl_jax.sampling.exploration_folder import Clip, name_of

Answer = dict[str, Any]

NOBODY = "everybody"
"""The visitor of requests that name none."""


def is_mine(about: About, visitor: str) -> bool:
    """Whether a visitor may delete in an exploration: what nobody by name made is everybody's."""
    return about.visitor in (visitor, NOBODY)


def cameras_view(cameras: Cameras) -> Answer:
    """A path as JSON."""
    return {
        "world_from_camera": cameras.world_from_camera.tolist(),
        "intrinsics": cameras.intrinsics.tolist(),
        "metric": bool(cameras.metric),
    }


def clip_view(store: Store, exploration: str, tree: Tree, clip: Clip, in_world: bool) -> Answer:
    """A clip; ``in_world``: of an exploration that began in a world."""
    name = f"{exploration}.{clip.name}"
    where = f"/v1/clips/{name}"
    scene = (store.made(exploration, clip.name, "scene") / "scene.glb").is_file()
    return {
        "id": name,
        "name": clip.name,
        "parent": None if clip.parent is None else f"{exploration}.{clip.parent}",
        "first": clip.first,
        "frames": clip.frames,
        "prompt": clip.prompt,
        "seed": clip.seed,
        "said": clip.said,
        "steps": clip.sampling.steps,
        "model": STUDENT if clip.student else CHECKPOINT,
        "cameras": cameras_view(store.cameras(exploration, clip)),
        "retrieved": list(clip.retrieved),
        "video": f"{where}/content",
        "thumbnail": f"{where}/thumbnail",
        "truth": f"{where}/truth" if in_world else None,
        "scene": f"{where}/scene" if scene else None,
    }


def exploration_view(store: Store, queue: Queue, exploration: str, visitor: str) -> Answer:
    """An exploration with all its clips."""
    about, tree, jobs = store.about(exploration), store.tree(exploration), queue.of(exploration)
    settings = tree.settings
    waiting = [job for job in jobs if job.state not in ENDED]
    failed = [job for job in jobs if job.state == FAILED][-1:]
    return {
        "id": exploration,
        "title": about.title,
        "created": about.created,
        "mine": is_mine(about, visitor),
        "worlds_seed": about.worlds_seed,
        "state": state_of(tree, jobs),
        "problem": tree.problem,
        "fps": settings and settings.fps,
        "height": settings and settings.height,
        "width": settings and settings.width,
        "current": tree.current and f"{exploration}.{tree.current}",
        "clips": [
            clip_view(store, exploration, tree, clip, about.worlds_seed is not None)
            for clip in tree.clips.values()
        ],
        "jobs": [job_view(queue, job, visitor) for job in (*waiting, *failed)],
    }


def summary_view(store: Store, jobs: list[Job], exploration: str, visitor: str) -> Answer:
    """A line of the list of explorations; ``jobs`` are those of this one."""
    about, tree = store.about(exploration), store.tree(exploration)
    picture = f"/v1/explorations/{exploration}/picture"
    has_picture = (store.home(exploration) / START).is_file()
    first = f"/v1/clips/{exploration}.{name_of(1)}/thumbnail"
    return {
        "id": exploration,
        "title": about.title,
        "created": about.created,
        "mine": is_mine(about, visitor),
        "clips": len(tree.clips),
        "worlds_seed": about.worlds_seed,
        "thumbnail": first if tree.clips else picture if has_picture else None,
        "state": state_of(tree, jobs),
    }


def damaged_view(exploration: str) -> Answer:
    """The line of one of which nothing can be read."""
    return {
        "id": exploration,
        "title": "",
        "created": 0.0,
        "mine": False,
        "clips": 0,
        "worlds_seed": None,
        "thumbnail": None,
        "state": "damaged",
    }


def state_of(tree: Tree, jobs: list[Job]) -> str:
    """ready, starting, failed or damaged."""
    if tree.problem is not None:
        return "damaged"
    if tree.clips:
        return "ready"
    return "starting" if any(job.state not in ENDED for job in jobs) else "failed"


def job_view(queue: Queue, job: Job, visitor: str) -> Answer:
    """A job."""

    def whole(clip: str | None) -> str | None:
        return None if clip is None else f"{job.exploration}.{clip}"

    with queue.steady():
        return {
            "id": job.id,
            "kind": job.kind,
            "state": job.state,
            "version": job.version,
            "mine": job.visitor == visitor,
            "exploration": job.exploration,
            "parent": whole(job.parent),
            "clip": whole(job.clip) if job.state == "done" else None,
            "model": None if job.kind == "scene" else job.request.get("model", CHECKPOINT),
            "refines": job.refines,
            "said": job.said,
            "prompt": job.prompt,
            "position": queue.position(job),
            "stage": job.stage,
            "done": job.done,
            "steps": job.steps or int(job.request.get("sampling", {}).get("steps", 0)),
            "seconds_left": job.seconds_left,
            "elapsed": job.elapsed,
            "created": job.created,
            "error": job.error,
            "remarks": list(job.remarks),
        }
