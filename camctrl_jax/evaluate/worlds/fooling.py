"""``evaluate worlds --fool``: every measure on clips whose fault is known: what fools it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict
from typing import Any

import jax
import numpy as np
from scipy import ndimage

from camctrl_jax.errors import file_failures
from camctrl_jax.evaluate.worlds.measuring import clip_measures, distribution_measures
from camctrl_jax.evaluate.worlds.poses import PoseCheck
from camctrl_jax.evaluate.worlds.running import (
    Bench,
    Clock,
    Pools,
    Say,
    describe,
    load_bench,
    load_features,
    measure_scenes,
    open_subject,
    weights_prints,
)
from camctrl_jax.evaluate.worlds.sampling import reconstruct, samples_of, scored_frames
from camctrl_jax.evaluate.worlds.settings import Settings
from camctrl_jax.evaluate.worlds.store import Store, fingerprint_of
from camctrl_jax.evaluate.worlds.summary import distances, interval_of, pose_table
from camctrl_jax.evaluate.worlds.truth import Truth, along, cases_of, truths
from camctrl_jax.files.atomic import write_text
from camctrl_jax.files.json_file import write_json
from camctrl_jax.metrics.distribution import Spread
from camctrl_jax.metrics.psnr import psnr
from camctrl_jax.worlds import World, render_rgb
from camctrl_jax.worlds.benchmark import scaled_path

BLURS = (0.7, 1.5, 3.0)  # pixels, standard deviation
NOISES = (10.0, 30.0)  # grey levels, standard deviation
FASTER = 1.1
SCALED = 0.8

_SHORTER = f"true render, path times {SCALED:g}"

_COLUMNS = (
    ("psnr", "PSNR, dB", 2),
    ("gain_decoy", "gain over decoy, dB", 2),
    ("gain_repeated", "gain over repeated, dB", 2),
    ("ssim", "SSIM", 3),
    ("alpha", "alpha*", 2),
    ("sharpness", "gradient energy / truth", 2),
    ("sharpness_kept", "/ reconstruction", 2),
    ("alive", "change in time / truth", 2),
    ("energy", "energy score", 2),
    ("spread_over_skill", "spread / skill", 2),
    ("variance_hidden", "variance: hidden", 0),
    ("variance_moving", "moving", 0),
    ("variance_still", "still", 0),
)


def fool(settings: Settings, say: Say | None = None) -> dict[str, Any]:
    """Measure clips with known faults on the scenes of the benchmark; returns what ``fooling.json`` holds.

    With a transformer its own samples are rows, too: as they are, their mean, and one of them repeated.

    Raises:
        UserError: what cannot work, found before any expensive work.
    """
    say = say or (lambda line: print(line, file=sys.stderr, flush=True))
    settings = settings.resolved(jax.default_backend() != "cpu")
    subject = open_subject(settings)
    poses = PoseCheck.default() if settings.poses else None
    features, features_name = load_features(settings.features, subject.shape, settings.count)
    with file_failures(settings.out):
        settings.out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    bench = load_bench(settings, subject, features, poses)
    described = describe(settings, subject, features_name)
    store = Store(
        settings.out / "fooling",  # the benchmark's own records in the same folder stay
        fingerprint_of("fooling", described["depends_on"], settings.poses, weights_prints(bench)),
    )
    missing = [i for i in range(settings.count) if store.read(i) is None]
    say(f"{settings.count} scenes, {settings.count - len(missing)} of them measured already")
    measure_scenes(bench, store, missing, say, _started)
    records = [store.read(i) for i in range(settings.count)]
    arrays = [store.arrays(i) for i in range(settings.count)]
    results = described | {"seconds": round(time.monotonic() - started, 1)}
    results |= {"scenes": len(records), "rows": _rows(records), "frechet": distances(arrays),
                "poses": pose_table(records)}  # fmt: skip
    write_text(settings.out / "fooling.md", fooling_table(results) + "\n")
    write_json(settings.out / "fooling.json", results)
    return results | {"files": ["fooling.json", "fooling.md"]}


# ----------------------------------------------------------------------------------------- clips with faults


def blurred(video: np.ndarray, sigma: float) -> np.ndarray:
    """Every frame of u8 [T, H, W, 3] blurred by a Gaussian of ``sigma`` pixels."""
    return _bytes(ndimage.gaussian_filter(video.astype(np.float32), (0.0, sigma, sigma, 0.0)))


def noisy(video: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise of ``level`` grey levels on every value of u8 [T, H, W, 3]."""
    return _bytes(video + level * rng.standard_normal(video.shape, np.float32))


def faster(video: np.ndarray, factor: float) -> np.ndarray:
    """u8 [T, H, W, 3] played ``factor`` times as fast, the nearest frame at each time; the last one stays."""
    index = np.round(np.arange(len(video)) * factor).astype(int)
    return video[np.minimum(index, len(video) - 1)]


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.round(values).clip(0, 255).astype(np.uint8)


def _faults(truth: Truth, seeds: int) -> dict[str, Callable[[], np.ndarray]]:
    """By name, a function that makes the samples u8 [S, T, H, W, 3] of one scene."""
    video, key = truth.video, truth.case.world.seed

    def same(one: np.ndarray) -> np.ndarray:
        return np.broadcast_to(one, (seeds, *one.shape))

    def each(make: Callable[[np.random.Generator], np.ndarray]) -> np.ndarray:
        return np.stack([make(np.random.default_rng([key, number])) for number in range(seeds)])

    rows: dict[str, Callable[[], np.ndarray]] = {"true render": lambda: same(video)}
    for sigma in BLURS:
        rows[f"truth blurred by {sigma:g} px"] = lambda sigma=sigma: same(blurred(video, sigma))
    for level in NOISES:
        rows[f"truth with noise of {level:g} levels"] = lambda level=level: each(
            lambda rng: noisy(video, level, rng)
        )
    rows["pure noise"] = lambda: each(lambda rng: rng.integers(0, 256, video.shape, np.uint8))
    rows["first frame repeated"] = lambda: same(truth.repeated)
    rows["exact-geometry warp"] = lambda: same(truth.warp)
    if truth.twin is not None:
        rows["another seed's truth"] = lambda: same(truth.twin)
    rows["truth played 10 % faster"] = lambda: same(faster(video, FASTER))
    return rows


def _started(bench: Bench, store: Store, indices: list[int], pools: Pools, clock: Clock) -> list[Future]:
    settings, shape = bench.settings, bench.shape
    filled = indices + indices[-1:] * (min(settings.batch_size, settings.count) - len(indices))
    here = truths(cases_of(settings, shape, filled), shape, settings.samples, pools.helping.map)
    clock.lap("rendering")
    worlds = [truth.case.world for truth in here]
    video = np.stack([truth.video for truth in here])
    kept = reconstruct(bench.vae, video, len(video))
    seeds = max(2, settings.seeds)
    made: dict[str, np.ndarray] = {  # [S, N, T, H, W, 3]
        "reconstruction": _copies(kept, seeds),
        "true render along a decoy path": _copies(
            _rendered([along(t.case.world, t.case.decoy) for t in here], bench), seeds
        ),
        _SHORTER: _copies(
            _rendered([along(world, scaled_path(world.cameras, SCALED)) for world in worlds], bench), seeds
        ),
    }
    if bench.pipeline is not None:
        for one in samples_of(bench.pipeline, here, settings.samplings()[:1], ("i2v",), seeds):
            made["samples of the weights"] = one.videos
            made["one sample repeated"] = _copies(one.videos[0], seeds)
            made["mean of the samples"] = _copies(_bytes(one.videos.mean(axis=0, dtype=np.float32)), seeds)
            made["samples along a decoy path"] = _copies(one.decoys, seeds)
    decoys = made["true render along a decoy path"][0]
    faults = list(pools.helping.map(lambda truth: {n: f() for n, f in _faults(truth, seeds).items()}, here))
    made = {name: np.stack([rows[name] for rows in faults], axis=1) for name in faults[0]} | made
    clock.lap("making clips")
    found: dict[str, np.ndarray] = {}
    if bench.features is not None:
        for name, videos in made.items():
            found[f"features/{_stored(name)}"] = bench.features(videos[0]).astype(np.float32)

    clock.lap("features")

    def work(place: int) -> None:
        truth = here[place]
        rows = {name: _row(videos[:, place], truth, kept[place], decoys[place], bench)
                for name, videos in made.items()}  # fmt: skip
        if truth.case.stands:  # a shorter path is the same path
            rows[_SHORTER] = dict.fromkeys(rows[_SHORTER])
        record: dict[str, Any] = {"index": truth.case.index, "seed": truth.case.world.seed, "methods": rows}
        if bench.poses is not None and indices[place] < settings.poses:
            clips = {name: videos[0, place] for name, videos in made.items() if name != "true render"}
            record["poses"] = bench.poses.of_scene(truth, clips)
        store.write(indices[place], record, {name: values[place] for name, values in found.items()})

    return [pools.measuring.submit(work, place) for place in range(len(indices))]


def _stored(name: str) -> str:
    """The names that ``summary.distances`` looks for."""
    return {"true render": "truth", "another seed's truth": "another world"}.get(name, name)


def _copies(video: np.ndarray, seeds: int) -> np.ndarray:
    return np.broadcast_to(video, (seeds, *video.shape))


def _rendered(worlds: Sequence[World], bench: Bench) -> np.ndarray:
    return np.asarray(render_rgb(worlds, bench.shape.height, bench.shape.width, bench.settings.samples))


def _row(
    samples: np.ndarray, truth: Truth, kept: np.ndarray, decoy: np.ndarray, bench: Bench
) -> dict[str, float | None]:
    scored = scored_frames("i2v", bench.shape)
    values: dict[str, float | None] = asdict(clip_measures(samples[0], truth, scored, kept))
    for name, other in (("decoy", decoy), ("repeated", truth.repeated)):
        values[f"gain_{name}"] = values["psnr"] - float(psnr(other[scored], truth.video[scored]))
    distribution = distribution_measures(samples, truth, scored)
    values["energy"] = distribution["energy"]
    for region, sums in distribution["spread"].items():
        spread = Spread(**sums)
        ending = "" if region == "all" else f"_{region}"
        values[f"variance{ending}"] = spread.per_value
        values[f"spread_over_skill{ending}"] = spread.spread_over_skill
    return values


# ------------------------------------------------------------------------------------------------- the table


def _rows(records: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """By clips and measure, the interval over scenes."""
    return {
        name: {
            measure: interval_of([record["methods"][name].get(measure) for record in records])
            for measure in records[0]["methods"][name]
        }
        for name in records[0]["methods"]
    }


def fooling_table(results: Mapping[str, Any]) -> str:
    """What ``fooling.json`` holds, as Markdown: a row for each kind of clips, a column for each measure."""
    clip, frechet = results["clip"], results["frechet"] or {}
    head = ["clips", *(title for _, title, _ in _COLUMNS)]
    with_distance = "same_scenes" in frechet
    if with_distance:
        head += ["Frechet distance to other worlds", "to the same scenes"]
    lines = [
        f"{results['scenes']} scenes of the worlds benchmark, {clip['frames']} frames of {clip['height']}x"
        f"{clip['width']}, {max(2, results['request']['seeds'])} samples; means over scenes; "
        f"{results['seconds']:g} s on {results['versions']['device']}.",
        "",
        f"| {' | '.join(head)} |",
        "|" + "---|" * len(head),
    ]
    for name, found in results["rows"].items():
        cells = [_cell(found.get(key), digits) for key, _, digits in _COLUMNS]
        if with_distance:
            key = _stored(name)
            cells += [_plain(frechet.get("twins", {}).get(key)), _plain(frechet["same_scenes"].get(key, 0.0))]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    if results["poses"]:
        titles = (
            "clips",
            "all frames registered",
            "and no doubts",
            "RotErr first, degrees",
            "RotErr",
            "TransErr, share of path",
        )
        lines += ["", f"| {' | '.join(titles)} |", "|---|---|---|---|---|---|"]
        for name, row in results["poses"].items():
            cells = [f"{row['all_registered']} of {row['clips']}", str(row["without_doubts"])]
            cells += [_cell(row["rot_err_first_deg"], 2), _cell(row["rot_err_deg"], 2)]
            lines.append(f"| {name} | {' | '.join([*cells, _cell(row['trans_err_share'], 3)])} |")
    return "\n".join(lines)


def _cell(found: Mapping[str, Any] | None, digits: int) -> str:
    return "-" if found is None else f"{found['mean']:.{digits}f}"


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
