"""How the server of explore answers while visitors look and others generate, or how long one of them waits.

  python -m camctrl_jax.explore --folder /tmp/explored --port 8009 &
  python benchmarks/explore.py --url http://127.0.0.1:8009
  python benchmarks/explore.py --url http://127.0.0.1:8009 --first-frame 5 --steps 8

Pollers ask twice a second for the list of explorations, the latest of them, thumbnails and parts of videos;
generators start an exploration from a world and go on from it, one clip after the other, until the time is
over; what they asked for is then waited for. Nothing else may run on the machine. Use a folder of its own.

--first-frame N has one visitor: N starts, each of another world, then N clips that go on from the last one.
Printed are seconds from the request: to each stage, as the job's events tell it (the server looks for them
every 0.1 s, so shorter stages may be missing), to done, and to the first bytes of the video. The first clip
after a start of the server, and the first that goes on, compile; to see what a filled compilation cache is
worth, start the server twice with the same JAX_COMPILATION_CACHE_DIR.
"""

from __future__ import annotations

import argparse
import json
import statistics
import threading
import time
import urllib.error
import urllib.request
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

PAUSE = 0.5  # seconds between looks of a poller
ENDED = ("done", "failed", "cancelled")
ALONE = "benchmark-first-frame"  # the visitor of --first-frame


@dataclass
class Times:
    """Seconds of answers by what was asked, what went wrong, and seconds of clips; for any thread."""

    url: str
    answers: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    errors: list[str] = field(default_factory=list)
    clips: list[float] = field(default_factory=list)

    def ask(
        self, what: str, path: str, visitor: str, body: dict[str, Any] | None = None, **more: str
    ) -> bytes:
        """The body of an answer, b"" of a refusal or failure, which is counted."""
        headers = {"X-Visitor": visitor, "Content-Type": "application/json", **more}
        data = None if body is None else json.dumps(body).encode()
        began = time.perf_counter()
        try:
            with urllib.request.urlopen(
                urllib.request.Request(self.url + path, data, headers), timeout=120
            ) as answer:
                found = answer.read()
        except (OSError, urllib.error.URLError) as error:
            self.errors.append(f"{what}: {error}")
            return b""
        self.answers[what].append(time.perf_counter() - began)
        return found


def poll(times: Times, visitor: str, over: threading.Event) -> None:
    """Look at what there is until it is over."""
    while not over.wait(PAUSE):
        listed = json.loads(times.ask("list", "/v1/explorations", visitor) or b"{}")
        for each in listed.get("explorations", ())[:3]:
            told = times.ask("exploration", f"/v1/explorations/{each['id']}", visitor)
            for clip in json.loads(told or b"{}").get("clips", ())[-1:]:
                times.ask("thumbnail", f"/v1/clips/{clip['id']}/thumbnail", visitor)
                times.ask("video", f"/v1/clips/{clip['id']}/content", visitor, Range="bytes=0-65535")


def generate(times: Times, visitor: str, seed: int, steps: int, over: threading.Event) -> None:
    """Make one clip after the other until it is over."""
    began = time.perf_counter()
    request = {"worlds_seed": seed, "path": "dolly in 0.5 m", "steps": steps}
    told = times.ask("start", "/v1/explorations", visitor, request)
    job = json.loads(told)["job"] if told else None
    while job is not None:
        while job["state"] not in ENDED:
            time.sleep(PAUSE)
            job = json.loads(times.ask("job", f"/v1/jobs/{job['id']}", visitor) or json.dumps(job))
        if job["state"] != "done":
            times.errors.append(f"{job['state']}: {job.get('error')}")
            return
        times.clips.append(time.perf_counter() - began)
        if over.is_set():
            return
        began = time.perf_counter()
        path = f"/v1/explorations/{job['exploration']}/clips"
        told = times.ask("extend", path, visitor, {"path": "pan right 10 deg", "steps": steps})
        job = json.loads(told) if told else None


def first_frame(times: Times, what: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Make one clip, print when each stage began and when the video was there; the job as it ended."""
    began = time.perf_counter()
    told = json.loads(times.ask(what, path, ALONE, body) or b"null")
    if told is None:
        raise SystemExit(f"{what} was refused: {times.errors[-1]}")
    job, stages = told.get("job", told), {}
    request = urllib.request.Request(f"{times.url}/v1/jobs/{job['id']}/events", None, {"X-Visitor": ALONE})
    with urllib.request.urlopen(request, timeout=600) as events:
        for line in events:
            if line.startswith(b"data: "):
                job = json.loads(line[6:])
                stages.setdefault(job["stage"], time.perf_counter() - began)
    if job["state"] != "done":
        raise SystemExit(f"{what} {job['state']}: {job.get('error')}")
    times.ask("video", f"/v1/clips/{job['clip']}/content", ALONE, Range="bytes=0-1023")
    there = time.perf_counter() - began
    told_stages = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in stages.items())
    print(f"{what}: video there after {there:.2f} s ({told_stages})", flush=True)
    times.clips.append(there)
    return job


def first_frames(times: Times, number: int, steps: int) -> None:
    """Starts, then extensions of the last, one after the other; medians leave the first of each out."""
    exploration = ""
    for place in range(number):
        body = {"worlds_seed": 1_000_003 + place, "path": "dolly in 0.5 m", "steps": steps}
        exploration = first_frame(times, "start", "/v1/explorations", body)["exploration"]
    for place in range(number):
        body = {"path": "pan left 10 deg" if place % 2 else "dolly in 0.2 m", "steps": steps}
        first_frame(times, "extension", f"/v1/explorations/{exploration}/clips", body)
    for what, found in (("start", times.clips[:number]), ("extension", times.clips[number:])):
        if number > 1:
            print(f"{what}, median without the first: {statistics.median(found[1:]):.2f} s")


def main() -> None:
    """Run for a while and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", default="http://127.0.0.1:8008")
    parser.add_argument("--pollers", type=int, default=20)
    parser.add_argument("--generators", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--steps", type=int, default=4, help="of sampling")
    parser.add_argument(
        "--first-frame", type=int, default=0, metavar="N", help="time N starts and N extensions"
    )
    options = parser.parse_args()
    times, over = Times(options.url.rstrip("/")), threading.Event()
    model = json.loads(times.ask("model", "/v1/model", "benchmark-model"))
    size = f"{model['height']}x{model['width']}"
    heading = f"{model['name']}, {size}, {model['frames']} frames, {model['device']}"
    if options.first_frame:
        print(heading)
        first_frames(times, options.first_frame, options.steps)
        return
    threads = [
        threading.Thread(target=poll, args=(times, f"benchmark-poll-{place}", over))
        for place in range(options.pollers)
    ] + [
        threading.Thread(
            target=generate, args=(times, f"benchmark-make-{place}", 1_000_000 + place, options.steps, over)
        )
        for place in range(options.generators)
    ]
    for thread in threads:
        thread.start()
    time.sleep(options.seconds)
    over.set()
    for thread in threads:
        thread.join()
    print(heading)
    print(f"{'':12}{'answers':>9}{'median ms':>11}{'95 % ms':>10}{'slowest ms':>12}")
    every = [each for found in times.answers.values() for each in found]
    for what, found in [*sorted(times.answers.items()), ("all", every)]:
        last = sorted(found)[max(0, round(0.95 * len(found)) - 1)]
        print(
            f"{what:12}{len(found):9}{1e3 * statistics.median(found):11.1f}{1e3 * last:10.1f}"
            f"{1e3 * max(found):12.1f}"
        )
    if times.clips:
        print(f"{len(times.clips)} clips, from asking to done: median {statistics.median(times.clips):.1f} s")
    print(f"{len(times.errors)} errors", *sorted(set(times.errors))[:10], sep="\n  ")


if __name__ == "__main__":
    main()
