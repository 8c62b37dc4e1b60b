"""``/v1/videos``: one clip from a prompt or a picture, in the form of OpenAI's API.

Every video is an exploration of one clip; its id is the job's. ``path`` and ``cameras`` are what that API
lacks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from camctrl_jax.explore.jobs import Job
from camctrl_jax.explore.problems import Refusal
from camctrl_jax.explore.schema import CamerasRequest, NewExploration, read
from camctrl_jax.explore.service import Service
from camctrl_jax.explore.views import Answer

FIELDS = frozenset({"model", "prompt", "seconds", "size", "seed", "path", "cameras"})
_STATUS = {
    "queued": "queued",
    "running": "in_progress",
    "done": "completed",
    "failed": "failed",
    "cancelled": "failed",
}


def asked_video(fields: Mapping[str, Any], service: Service) -> NewExploration:
    """The fields of a form, or of JSON, as a request of ours.

    Raises:
        Refusal: a size or length that the weights do not make, an unknown field.
    """
    unknown = sorted(set(fields) - FIELDS)
    if unknown:
        raise Refusal("bad_request", f"The form has an unknown field {unknown[0][:80]!r}.", unknown[0][:80])
    shape, fps = service.model.shape, service.model.fps
    size, seconds = f"{shape.width}x{shape.height}", shape.frames / fps
    if fields.get("size", size) != size:
        raise Refusal("bad_request", f"size: these weights make {size}.", "size")
    try:
        asked = float(fields.get("seconds", seconds))
        seed = int(fields["seed"]) if "seed" in fields else None
    except (ValueError, TypeError, OverflowError) as error:
        raise Refusal("bad_request", f"seconds and seed: expected numbers ({error}).", "seconds") from error
    if not abs(asked - seconds) <= 1:
        raise Refusal("bad_request", f"seconds: these weights make clips of {seconds:.2f} s.", "seconds")
    body: Answer = {"prompt": fields.get("prompt", ""), "seed": seed}
    if "path" in fields:
        body["path"] = fields["path"]
    if "cameras" in fields:
        said = fields["cameras"]  # a text of JSON in a form
        content = said if isinstance(said, str) else json.dumps(said)
        body["cameras"] = msgspec.to_builtins(read(CamerasRequest, content.encode(), "cameras"))
    if "path" not in fields and "cameras" not in fields:
        body["path"] = "hold"
    return read(NewExploration, json.dumps(body).encode())


def video_view(service: Service, job: Job) -> Answer:
    """A video in that form."""
    if job.kind != "start":
        raise Refusal("not_found", f"There is no video {job.id!r}.")
    shape, fps = service.model.shape, service.model.fps
    with service.queue.steady():
        status = _STATUS[job.state]
        error = job.error or ({"type": "cancelled", "message": "It was cancelled.", "param": None})
        return {
            "id": job.id,
            "object": "video",
            "status": status,
            "progress": 100 if status == "completed" else int(100 * job.done / max(1, job.steps + 1)),
            "created_at": int(job.created),
            "completed_at": int(job.ended) if job.ended and status == "completed" else None,
            "model": service.model.checkpoint,
            "prompt": job.prompt,
            "size": f"{shape.width}x{shape.height}",
            "seconds": f"{shape.frames / fps:.2f}",
            "error": {"code": error["type"], "message": error["message"]} if status == "failed" else None,
            "exploration": job.exploration,
        }
