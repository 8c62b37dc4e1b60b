"""``evaluate explorations``: from settings to results, world by world, going on where a run stopped."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from camctrl_jax.errors import ClipError, InvalidValue
from camctrl_jax.evaluate.device_memory import memory_failures
from camctrl_jax.evaluate.explorations.bench import (
    ROWS_OF_TRUTH,
    Bench,
    checked,
    described,
    evaluations,
    loaded,
)
from camctrl_jax.evaluate.explorations.measuring import exploration_record
from camctrl_jax.evaluate.explorations.report import write_results
from camctrl_jax.evaluate.explorations.sampling import (
    Compilations,
    counted_compilations,
    explored,
    first_clips,
    reconstructed,
    retrieved_of,
)
from camctrl_jax.evaluate.explorations.settings import Settings
from camctrl_jax.evaluate.explorations.summary import CAMERA, TRUE, summarised
from camctrl_jax.evaluate.explorations.takes import Truth, rendered, take_of
from camctrl_jax.evaluate.worlds.looking import Clip
from camctrl_jax.extras import require
from camctrl_jax.video.encoding import write_mp4

Say = Callable[[str], None]
Made = list[tuple[np.ndarray, dict[str, Any]] | None]
"""Of takes: a video u8 [T, H, W, 3] and what is noted of its making; None of one that is not finite."""


def evaluate_explorations(settings: Settings, say: Say | None = None) -> dict[str, Any]:
    """Explore held-out places, clip after clip, and write the results; returns what ``results.json`` holds.

    Args:
        settings: what to measure.
        say: called with a line of progress; standard error by default.

    Raises:
        UserError: what cannot work, found before any expensive work.
    """
    say = say or (lambda line: print(line, file=sys.stderr, flush=True))
    require("matplotlib", extra="eval")
    if settings.keep:
        require("av", extra="eval")
    started = time.monotonic()
    request = checked(settings)
    bench = loaded(request)
    settings, plan = bench.settings, bench.plan
    missing = [
        index
        for index in range(settings.count)
        if not all(bench.complete(row, index) for row in bench.stores)
    ]
    others = sum(store.holds_another(index) for store in bench.stores.values() for index in missing)
    say(
        f"{settings.count} worlds, {plan.clips} clips of {plan.frames} frames in all, "
        f"{plan.shape.height}x{plan.shape.width}; arms: {', '.join(arm.name for arm in bench.arms)}; about "
        f"{evaluations(request)} network evaluations of a clip"
        + (
            f"; {settings.count - len(missing)} worlds are measured already"
            if len(missing) < settings.count
            else ""
        )
        + (f"; {others} records of other settings, weights or versions are replaced" if others else "")
    )
    _measure(bench, missing, say)
    records = {
        row: [store.read(index) for index in range(settings.count)] for row, store in bench.stores.items()
    }
    _check(bench, records)
    takes = [record["take"] for record in records[TRUE]]
    results = described(request, bench)
    results |= {"seconds": round(time.monotonic() - started, 1), "measured_now": len(missing)}
    results |= summarised(takes, records, [arm.name for arm in bench.arms])
    results["running"] = {arm.name: _running(records[arm.name]) for arm in bench.arms}
    strips = [
        {
            row: store.arrays(index)["strip"]
            for row, store in bench.stores.items()
            if "failed" not in records[row][index]
        }
        for index in range(min(settings.shown, settings.count))
    ]
    return write_results(settings.out, results, strips)


def _check(bench: Bench, records: dict[str, list[dict[str, Any] | None]]) -> None:
    for row, found in records.items():
        if None in found:
            raise InvalidValue(
                f"{bench.stores[row].path(found.index(None))} was measured, and is gone or of other settings "
                "now: does another run write into the same folder? Give each --out a folder of its own, and "
                "run this command again."
            )


def _measure(bench: Bench, missing: Sequence[int], say: Say) -> None:
    """Measure worlds and keep each row of each as soon as it is done; the cores measure what the device has
    made while it makes what comes next."""
    size, compilations, started = bench.settings.batch_size, counted_compilations(), time.monotonic()
    pool = ThreadPoolExecutor(os.cpu_count() or 1)
    try:
        pending: list[Future] = []
        for first in range(0, len(missing), size):
            indices = list(missing[first : first + size])
            with memory_failures(size):
                begun = _begun(bench, indices, compilations, pool)
            for future in pending:
                future.result()
            pending = begun
            done = first + len(indices)
            left = (time.monotonic() - started) / done * (len(missing) - done)
            say(f"{done} of {len(missing)} worlds; about {left:.0f} s left")
        for future in pending:
            future.result()
    except KeyboardInterrupt:  # nobody who stops a run wants to wait for a queue of measures
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    finally:  # what is made is measured and kept, whatever goes wrong
        pool.shutdown()


def _begun(
    bench: Bench, indices: list[int], compilations: Compilations, pool: ThreadPoolExecutor
) -> list[Future]:
    """Make all that is missing of some worlds, and start to measure it."""
    settings, plan, size = bench.settings, bench.plan, bench.settings.batch_size
    # One size of batch, one compilation: the last batch is filled up.
    filled = indices + indices[-1:] * (min(size, settings.count) - len(indices))
    truths = rendered([take_of(settings, plan, index) for index in filled], plan, settings.samples)

    def together(places: Sequence[int]) -> list[Truth]:
        return [truths[place] for place in places]

    def first_of(places: Sequence[int]) -> Made:
        videos = first_clips(bench.pipeline, settings, plan, together(places))
        return [(video, {}) for video in videos]

    arms = [arm for arm in bench.arms if any(not bench.complete(arm.name, index) for index in indices)]
    # A pool of its own: what is measured of earlier worlds must not keep the device waiting.
    choosing = ThreadPoolExecutor(os.cpu_count() or 1)
    choices = {
        choice: [choosing.submit(retrieved_of, choice, plan, truth) for truth in truths]
        for choice in dict.fromkeys(arm.choice for arm in arms if arm.memory)
    }
    choosing.shutdown(wait=False)
    futures: list[Future] = []

    def kept(row: str, made: Made) -> None:
        for place, index in enumerate(indices):
            futures.append(pool.submit(_keep, bench, row, index, truths[place], made[place]))

    def wanted(row: str) -> bool:
        return not all(bench.complete(row, index) for index in indices)

    everything = list(range(len(filled)))
    if wanted(TRUE):
        kept(TRUE, [(truth.video, {}) for truth in truths])
    for row in ROWS_OF_TRUTH[1:]:
        if wanted(row):
            kept(
                row,
                _safely(
                    lambda p: [(v, {}) for v in reconstructed(bench.pipeline, plan, together(p))], everything
                ),
            )
    begun = _safely(first_of, everything) if arms else []
    sound = [place for place in everything if begun and begun[place] is not None]
    for arm in arms:

        def explore(places: Sequence[int], arm=arm) -> Made:
            start = np.stack([begun[place][0] for place in places])
            known = [choices[arm.choice][place].result() for place in places] if arm.memory else None
            found = explored(
                bench.pipeline, settings, plan, arm, together(places), start, compilations, known
            )
            notes = {name: getattr(found, name) for name in ("compiled", "memory", "held", "kept")}
            chosen = (
                np.asarray(found.retrieved).swapaxes(0, 1).tolist()
                if found.retrieved
                else [None] * len(places)
            )
            return [
                (video, notes | {"retrieved": each}) for video, each in zip(found.videos, chosen, strict=True)
            ]

        made: Made = [None] * len(filled)
        if sound:
            places = sound + sound[-1:] * (len(filled) - len(sound))
            for place, one in zip(places, _safely(explore, places), strict=True):
                made[place] = one
        kept(arm.name, made)
    return futures


def _safely(make: Callable[[Sequence[int]], Made], places: Sequence[int]) -> Made:
    """What ``make`` makes of a batch; where a clip of it is not finite, each by itself, in batches of that
    size, and None of those that are not."""
    try:
        return make(places)
    except ClipError as error:
        if error.reason != "not_finite":
            raise
    found: dict[int, Any] = {}
    for place in dict.fromkeys(places):
        try:
            found[place] = make([place] * len(places))[0]
        except ClipError as error:
            if error.reason != "not_finite":
                raise
            found[place] = None
    return [found[place] for place in places]


def _keep(
    bench: Bench, row: str, index: int, truth: Truth, made: tuple[np.ndarray, dict[str, Any]] | None
) -> None:
    """Measure one row of a world and keep it."""
    store, plan = bench.stores[row], bench.plan
    if made is None:
        store.write(index, {"failed": "not_finite"}, {})
        return
    video, notes = made
    record = exploration_record(video, truth, plan)
    if row == TRUE:
        record["take"] = _about(truth)
        for clip in record["clips"]:  # 100 dB of itself
            for name in [name for name in clip if name.startswith("psnr")]:
                del clip[name]
    key = bench.poses_key(index)
    if key is not None:
        _look(bench, record, video, truth)
        record["poses_key"] = key
    if bench.settings.keep:
        write_mp4(store.video(index), video, truth.take.world.fps, crf=None)
    lasts = [plan.new(clip).stop - 1 for clip in range(plan.clips)]
    strip = np.concatenate([video[:1], video[lasts]])
    store.write(index, record | notes, {"strip": strip})


def _about(truth: Truth) -> dict[str, Any]:
    take = truth.take
    shares = [{name: float(region.mean()) for name, region in one.items()} for one in truth.regions]
    return {
        "index": take.index,
        "seed": take.world.seed,
        "route": take.route,
        "layout": take.layout,
        "prompts": list(take.prompts),
        "returns": [list(pair) for pair in truth.returns],
        "shares": shares,
    }


def _look(bench: Bench, record: dict[str, Any], video: np.ndarray, truth: Truth) -> None:
    """Estimate the cameras of every clip, the frame before it included."""
    world = truth.take.world
    for clip, found in enumerate(record["clips"]):
        new = bench.plan.new(clip)
        part = slice(max(new.start - 1, 0), new.stop)
        shown = Clip(np.ascontiguousarray(video[part]), world.cameras[part], world.fps)
        pose = bench.looks.of_clip(shown, motion=False, poses=True).get("pose")
        if pose is not None:  # else the camera stands or turns on the spot
            found["pose"] = pose
            found |= {name: pose.get(name) for name in CAMERA}


def _running(records: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Programs compiled and peak memory by clip, of the worlds that were made first and of all."""
    made = [record for record in records if "compiled" in record]
    if not made:
        return None
    return {
        "compiled": made[0]["compiled"],
        "memory": made[0]["memory"],
        "compiled_after_second": max(sum(record["compiled"][1:]) for record in made),
        "memory_after_second": max(record["memory"][-1] - record["memory"][0] for record in made),
        # Records of before have none.
        "held_after_second": max(
            (record["held"][-1] - record["held"][0] for record in made if "held" in record), default=None
        ),
        "given_frames_untouched": all(record["kept"] for record in made),
    }
