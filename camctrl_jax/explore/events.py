"""Server-sent events of a job: the job at every change, with its version as the id."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable

from starlette.concurrency import run_in_threadpool

from camctrl_jax.explore.jobs import ENDED, Job
from camctrl_jax.explore.views import Answer

_LOOK = 0.1  # seconds
_ALIVE = 15.0  # seconds between signs of life, which keep proxies from closing the connection


async def events(
    job: Job, view: Callable[[Job], Answer], after: int, ending: Callable[[], bool]
) -> AsyncIterator[bytes]:
    """Frames of ``text/event-stream``, until the job or the server ends.

    Args:
        job: whose changes are told.
        view: of it.
        after: the last version that was seen; -1 for none.
        ending: whether the server ends.
    """
    loop = asyncio.get_running_loop()
    told, last = after, loop.time()
    yield b"retry: 1000\n\n"
    while True:
        if job.version > told:
            shown = await run_in_threadpool(view, job)  # which waits while a job is written to disk
            told, last = shown["version"], loop.time()
            yield f"id: {told}\nevent: job\ndata: {json.dumps(shown, allow_nan=False)}\n\n".encode()
        elif loop.time() - last > _ALIVE:
            last = loop.time()
            yield b": alive\n\n"
        if (job.state in ENDED and job.version <= told) or ending():
            return
        await asyncio.sleep(_LOOK)
