"""The Starlette app: routes of ``openapi.json`` and the page, on top of :class:`~.service.Service`."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import re
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from camctrl_jax.errors import UserError
from camctrl_jax.explore import downloads
from camctrl_jax.explore.events import events
from camctrl_jax.explore.jobs import ENDED
from camctrl_jax.explore.problems import Refusal, described, refusal_of
from camctrl_jax.explore.schema import NewClip, NewCurrent, NewExploration, PathRequest, Refinement, read
from camctrl_jax.explore.security import HEADERS, MOST_UPLOAD, Guard
from camctrl_jax.explore.service import Service
from camctrl_jax.explore.videos import asked_video, video_view
from camctrl_jax.explore.views import NOBODY, job_view

_LOG = logging.getLogger(__name__)
_HERE = Path(__file__).parent
OPENAPI, PAGE = _HERE / "openapi.json", _HERE / "page"
_VISITOR = re.compile(r"[A-Za-z0-9_-]{8,64}")
_FIELD = 3_000_000  # bytes of the text field of a form
_HEAVY = 2  # threads that render, encode and decode for visitors; all others stay free for short answers
FORMS, JSON = ("multipart/form-data",), "application/json"
_FULL = (errno.ENOSPC, errno.EDQUOT)


def make_app(service: Service, hosts: Iterable[str] = ()) -> Starlette:
    """The app, which starts the worker and stops it.

    Args:
        service: what it serves.
        hosts: names it is reached by, besides those of this machine.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        app.state.ending = False
        service.worker.start()
        yield
        app.state.ending = True
        await run_in_threadpool(service.worker.stop)

    errors = {
        UserError: _user_error,
        OSError: _system_error,
        HTTPException: _http_error,
        Exception: _fault,
    }
    app = Starlette(
        routes=_routes(), lifespan=lifespan, exception_handlers=errors, middleware=[Middleware(Guard, hosts)]
    )
    app.state.service, app.state.ending = service, False
    app.state.heavy = anyio.CapacityLimiter(_HEAVY)
    return app


def _routes() -> list[Any]:
    get, post, put, delete = ["GET"], ["POST"], ["PUT"], ["DELETE"]
    one, clip, job = "/explorations/{exploration}", "/clips/{clip}", "/jobs/{job}"
    api = [
        Route("/openapi.json", _openapi, methods=get),
        Route("/model", _facts, methods=get),
        Route("/presets", _presets, methods=get),
        Route("/status", _status, methods=get),
        Route("/paths", _preview, methods=post),
        Route("/explorations", _explorations, methods=get),
        Route("/explorations", _start, methods=post),
        Route(one, _exploration, methods=get),
        Route(one, _remove, methods=delete),
        Route(f"{one}/clips", _extend, methods=post),
        Route(f"{one}/current", _set_current, methods=put),
        Route(f"{one}/project", _project, methods=get),
        Route(f"{one}/picture", _picture, methods=get),
        Route(clip, _clip, methods=get),
        Route(clip, _delete_clip, methods=delete),
        Route(f"{clip}/content", _content, methods=get),
        Route(f"{clip}/truth", _truth, methods=get),
        Route(f"{clip}/thumbnail", _thumbnail, methods=get),
        Route(f"{clip}/cameras", _cameras, methods=get),
        Route(f"{clip}/scene", _scene, methods=get),
        Route(f"{clip}/scene", _make_scene, methods=post),
        Route(f"{clip}/refine", _refine, methods=post),
        Route("/jobs", _jobs, methods=get),
        Route(job, _job, methods=get),
        Route(f"{job}/events", _events, methods=get),
        Route(f"{job}/cancel", _cancel, methods=post),
        Route("/videos", _new_video, methods=post),
        Route("/videos/{job}", _video, methods=get),
        Route("/videos/{job}/content", _video_content, methods=get),
    ]
    page = [Mount("/", StaticFiles(directory=PAGE, html=True))] if PAGE.is_dir() else []
    return [Mount("/v1", routes=api), *page]


async def _openapi(request: Request) -> Response:
    return Response(OPENAPI.read_bytes(), media_type="application/json")


async def _facts(request: Request) -> Response:
    return await _answer(_service(request).facts)


async def _presets(request: Request) -> Response:
    return await _answer(_service(request).presets)


async def _status(request: Request) -> Response:
    return await _answer(_service(request).status)


async def _preview(request: Request) -> Response:
    asked = read(PathRequest, await _json(request))
    return await _answer(_service(request).preview, asked)


async def _explorations(request: Request) -> Response:
    return await _answer(_service(request).explorations, _visitor(request))


async def _start(request: Request) -> Response:
    asked, image = await _new_exploration(request)
    found = await _heavily(request, _service(request).start, asked, image, _visitor(request))
    return JSONResponse(found, 201)


async def _exploration(request: Request) -> Response:
    return await _answer(_service(request).exploration, request.path_params["exploration"], _visitor(request))


async def _remove(request: Request) -> Response:
    name = request.path_params["exploration"]
    await run_in_threadpool(_service(request).remove, name, _visitor(request))
    return Response(status_code=204)


async def _extend(request: Request) -> Response:
    asked = read(NewClip, await _json(request))
    name = request.path_params["exploration"]
    return await _answer(_service(request).extend, name, asked, _visitor(request), status=202)


async def _set_current(request: Request) -> Response:
    asked = read(NewCurrent, await _json(request))
    name = request.path_params["exploration"]
    return await _answer(_service(request).set_current, name, asked.clip, _visitor(request))


async def _project(request: Request) -> Response:
    name = request.path_params["exploration"]
    return await run_in_threadpool(downloads.project, _service(request).store, name)


async def _picture(request: Request) -> Response:
    name = request.path_params["exploration"]
    return await run_in_threadpool(downloads.start_picture, _service(request).store, name)


async def _clip(request: Request) -> Response:
    return await _answer(_service(request).clip, request.path_params["clip"])


async def _delete_clip(request: Request) -> Response:
    return await _answer(_service(request).delete_clip, request.path_params["clip"], _visitor(request))


async def _content(request: Request) -> Response:
    name, line, kept = request.path_params["clip"], _flag(request, "line"), _flag(request, "download")
    if line:
        return await _heavily(request, downloads.line_video, _service(request).store, name, kept)
    return await run_in_threadpool(downloads.video, _service(request).store, name, kept)


async def _truth(request: Request) -> Response:
    name = request.path_params["clip"]
    path = await _heavily(request, _service(request).truth, name)
    return await run_in_threadpool(downloads.truth, path, name)


async def _thumbnail(request: Request) -> Response:
    frame = _number(request, "frame", 0)
    name = request.path_params["clip"]
    return await run_in_threadpool(downloads.thumbnail, _service(request).store, name, frame)


async def _cameras(request: Request) -> Response:
    pose_format = request.query_params.get("format")
    line = _flag(request, "line", True)
    name = request.path_params["clip"]
    return await run_in_threadpool(downloads.cameras, _service(request).store, name, pose_format, line)


async def _scene(request: Request) -> Response:
    name, kind = request.path_params["clip"], request.query_params.get("format", "glb")
    return await run_in_threadpool(downloads.scene, _service(request).store, name, kind)


async def _make_scene(request: Request) -> Response:
    return await _answer(
        _service(request).make_scene, request.path_params["clip"], _visitor(request), status=202
    )


async def _refine(request: Request) -> Response:
    asked = read(Refinement, await _json(request) or b"{}")
    name = request.path_params["clip"]
    return await _answer(_service(request).refine, name, asked, _visitor(request), status=202)


async def _jobs(request: Request) -> Response:
    return await _answer(_service(request).jobs, _visitor(request))


async def _job(request: Request) -> Response:
    return await _answer(_service(request).job, request.path_params["job"], _visitor(request))


async def _cancel(request: Request) -> Response:
    return await _answer(_service(request).cancel, request.path_params["job"], _visitor(request))


async def _events(request: Request) -> Response:
    service, visitor, app = _service(request), _visitor(request), request.app
    job = service.queue.get(request.path_params["job"])
    last = request.headers.get("last-event-id", "")
    known = last.isascii() and last.isdigit() and len(last) < 12
    after = int(last) if known else _number(request, "after", -1)
    if job.state in ENDED and after >= job.version:
        return Response(status_code=204)  # tells an EventSource not to connect again
    stream = events(
        *(job, lambda job: job_view(service.queue, job, visitor), after), lambda: app.state.ending
    )
    # no-transform and no buffering: proxies pass events on as they come.
    headers = {"Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"}
    return StreamingResponse(stream, media_type="text/event-stream", headers=headers)


async def _new_video(request: Request) -> Response:
    service, visitor = _service(request), _visitor(request)
    fields: dict[str, Any]
    if _kind(request) == JSON:
        fields, image = read(dict[str, str | int | float | dict[str, Any]], await request.body()), None
    else:
        fields, image = await _form(request, "input_reference", (*FORMS, "application/x-www-form-urlencoded"))

    def start() -> Any:
        job = service.start(asked_video(fields, service), image, visitor)["job"]
        return video_view(service, service.queue.get(job["id"]))

    return JSONResponse(await _heavily(request, start))


async def _video(request: Request) -> Response:
    service = _service(request)
    return await _answer(video_view, service, service.queue.get(request.path_params["job"]))


async def _video_content(request: Request) -> Response:
    service = _service(request)
    job = service.queue.get(request.path_params["job"])

    def found() -> Response:
        if video_view(service, job)["status"] != "completed":
            raise Refusal("not_found", f"The video {job.id} is not complete.")
        return downloads.video(service.store, f"{job.exploration}.{job.clip}", False)

    return await run_in_threadpool(found)


async def _new_exploration(request: Request) -> tuple[NewExploration, bytes | None]:
    """The request, and the picture if there is one."""
    if _kind(request) == JSON:
        return read(NewExploration, await request.body()), None
    fields, image = await _form(request, "image", FORMS)
    unknown = sorted(set(fields) - {"request"})
    if unknown:
        raise Refusal("bad_request", f"The form has an unknown field {unknown[0][:80]!r}.", unknown[0][:80])
    return read(NewExploration, fields.get("request", "{}").encode(), "request"), image


async def _form(request: Request, picture: str, kinds: Iterable[str]) -> tuple[dict[str, str], bytes | None]:
    """The text fields of a form, and the one file that it may hold, of the name ``picture``."""
    kind = _kind(request)
    if kind not in kinds:
        raise Refusal("unsupported", f"{kind[:100] or 'no type'}: send JSON, or multipart/form-data.")
    async with request.form(max_files=1, max_fields=10, max_part_size=_FIELD) as form:
        fields: dict[str, str] = {}
        content = None
        for name, value in form.multi_items():
            if isinstance(value, UploadFile) != (name == picture):
                expected = "a file" if name == picture else "text, not a file"
                raise Refusal("bad_request", f"{name[:80]}: expected {expected}.", name[:80])
            if name in fields:
                raise Refusal("bad_request", f"The form has {name[:80]} twice.", name[:80])
            if isinstance(value, UploadFile):
                content = await value.read(MOST_UPLOAD)
            else:
                fields[name] = value
    if content == b"":
        raise Refusal("bad_request", f"{picture}: the file is empty.", picture)
    return fields, content


async def _json(request: Request) -> bytes:
    """The body of a route that takes nothing but JSON."""
    kind = _kind(request)
    if kind not in ("", JSON):
        raise Refusal("unsupported", f"{kind[:100]}: send Content-Type: {JSON}.")
    return await request.body()


def _kind(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _heavily(request: Request, work: Callable[..., Any], *arguments: Any) -> Any:
    """Work of seconds, a few of which are done at a time."""
    return await anyio.to_thread.run_sync(work, *arguments, limiter=request.app.state.heavy)


async def _answer(work: Callable[..., Any], *arguments: Any, status: int = 200) -> Response:
    # In the thread, too: the JSON of a large tree takes a while.
    return await run_in_threadpool(lambda: JSONResponse(work(*arguments), status))


def _service(request: Request) -> Service:
    return request.app.state.service


def _visitor(request: Request) -> str:
    # EventSource cannot send headers: the query says it there.
    said = request.headers.get("x-visitor") or request.query_params.get("visitor")
    if said is None:
        return NOBODY
    if not _VISITOR.fullmatch(said):
        raise Refusal("bad_request", "X-Visitor: expected 8 to 64 of A-Z a-z 0-9 _ -.", "X-Visitor")
    return said


def _flag(request: Request, name: str, usual: bool = False) -> bool:
    said = request.query_params.get(name)
    if said not in (None, "true", "false", "1", "0"):
        raise Refusal("bad_request", f"{name}: expected true or false.", name)
    return usual if said is None else said in ("true", "1")


def _number(request: Request, name: str, usual: int) -> int:
    said = request.query_params.get(name)
    if said is None:
        return usual
    if not (said.isascii() and said.isdigit() and len(said) < 10):
        raise Refusal("bad_request", f"{name}: expected a number from 0.", name)
    return int(said)


async def _user_error(request: Request, error: Exception) -> Response:
    refusal = error if isinstance(error, Refusal) else refusal_of(error)
    return JSONResponse(refusal.body, refusal.status)


async def _system_error(request: Request, error: OSError) -> Response:
    if error.errno not in _FULL:
        return await _fault(request, error)
    return await _user_error(request, Refusal("storage_full", "The server's disk is full: try later."))


async def _http_error(request: Request, error: HTTPException) -> Response:
    kind = {404: "not_found", 405: "not_allowed"}.get(error.status_code, "bad_request")
    message = {
        404: f"There is nothing at {request.url.path[:200]}.",
        405: f"{request.method} is not possible at {request.url.path[:200]}: see /v1/openapi.json.",
    }.get(error.status_code, str(error.detail))
    body = {"error": {"type": kind, "message": message, "param": None}}
    return JSONResponse(body, error.status_code, headers=error.headers)


async def _fault(request: Request, error: Exception) -> Response:
    if not isinstance(error, ClientDisconnect):
        _LOG.error("%s %s failed", request.method, request.url.path, exc_info=error)
    # Outside of the guard, which adds these to every other answer.
    content = json.dumps({"error": described(error)})
    return Response(content, 500, HEADERS, "application/json")
