"""``evaluate worlds --fool``: every measure on clips whose fault is known: what fools it."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict
from typing import Any

import numpy as np
from scipy import ndimage

from camctrl_jax.camera import rotations
from camctrl_jax.errors import ClipError, InvalidValue
from camctrl_jax.evaluate.worlds.bench import Bench, Say, opened
from camctrl_jax.evaluate.worlds.estimates_page import estimates_page
from camctrl_jax.evaluate.worlds.looking import Clip
from camctrl_jax.evaluate.worlds.measuring import clip_measures, distribution_measures
from camctrl_jax.evaluate.worlds.running import Clock, Pools, clip_of, estimated, measure_scenes
from camctrl_jax.evaluate.worlds.sampling import reconstruct, samples_of, scored_frames
from camctrl_jax.evaluate.worlds.settings import Settings
from camctrl_jax.evaluate.worlds.store import Store
from camctrl_jax.evaluate.worlds.summary import EXACT_MASKS, distances, measure_of, motion_table, pose_table
from camctrl_jax.evaluate.worlds.truth import Truth, along, cases_of, truths
from camctrl_jax.files.atomic import write_text
from camctrl_jax.files.json_file import write_json
from camctrl_jax.metrics.distribution import Spread
from camctrl_jax.metrics.psnr import psnr
from camctrl_jax.worlds import Scene, World, render_rgb
from camctrl_jax.worlds.benchmark import scaled_path
from camctrl_jax.worlds.geometry import moving_now, render_geometry
from camctrl_jax.worlds.scene import moving_mask

BLURS = (0.7, 1.5, 3.0)  # pixels, standard deviation
NOISES = (10.0, 30.0)  # grey levels, standard deviation
FASTER = 1.1
SCALED = 0.8

_TRUE = "true render"
_DECOY = "true render along a decoy path"
_SHORTER = f"true render, path times {SCALED:g}"
_FASTER = "truth played 10 % faster"
_SAMPLES = "samples of the weights"
_REPEATED = "one sample repeated"

_COLUMNS = (
    ("psnr", "PSNR, dB", 2),
    ("gain_decoy", "gain over decoy, dB", 2),
    ("gain_repeated", "gain over repeated, dB", 2),
    ("ssim", "SSIM", 3),
    ("alpha", "alpha*", 2),
    ("alpha_off", "its distance from 1", 2),
    ("alpha_bound", "share at the bound", 2),
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
    _check(settings)
    begun = opened(settings, say, "fooling")  # the benchmark's own records in the same folder stay
    measure_scenes(begun.bench, begun.store, begun.missing, say, _started)
    records, arrays = begun.stored()
    results = begun.described | {
        "seconds": begun.seconds,
        "scenes": len(records),
        "rows": _rows(records),
        "frechet": distances(arrays),
        "motion": motion_table(records),
        "poses": pose_table(records),
    }
    write_text(settings.out / "fooling.md", fooling_table(results) + "\n")
    write_json(settings.out / "fooling.json", results)
    return results | {"files": ["fooling.json", "fooling.md"]}


def _check(settings: Settings) -> None:
    """Refuse what would be left out without a word."""
    if settings.paths != "benchmark":
        raise InvalidValue(
            f"--fool --paths {settings.paths}: clips with faults are made of the benchmark's scenes, whose "
            "paths end at rest. Leave --paths out."
        )
    if settings.videos:
        raise InvalidValue("--fool --videos: no videos are written of clips with faults. Leave --videos out.")
    rows = settings.samplings()
    if len(rows) > 1:
        raise InvalidValue(
            f"--fool takes samples of the weights in one way, and was given {len(rows)}: give one number of "
            "--steps and one of --camera-guidance."
        )


# ----------------------------------------------------------------------------------------- clips with faults


def blurred(video: np.ndarray, sigma: float) -> np.ndarray:
    """Every frame of u8 [T, H, W, 3] blurred by a Gaussian of ``sigma`` pixels."""
    return _bytes(ndimage.gaussian_filter(video.astype(np.float32), (0.0, sigma, sigma, 0.0)))


def noisy(video: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise of ``level`` grey levels on every value of u8 [T, H, W, 3]."""
    return _bytes(video + level * rng.standard_normal(video.shape, np.float32))


def faster(world: World, factor: float) -> World:
    """The same world with time running ``factor`` times as fast, 1 to 2.

    The camera arrives early, and stands then, as every path of the benchmark ends at rest. Things cannot go
    on as they would have, since their motions end with the clip: at its end they go back the way they came,
    as fast. Between frames things and camera are on the straight way from one to the next.
    """
    if not 1.0 <= factor <= 2.0:
        raise InvalidValue(f"factor={factor}: things can go back once at most, so expected 1 to 2.")
    last = world.frames - 1
    times = factor * np.arange(world.frames + 1)
    cameras = world.cameras
    place = np.minimum(times[:-1], last)
    poses = _between(cameras.world_from_camera, place)
    # Things have one pose more than there are frames.
    ends = last + 1
    turned = ends - np.abs(ends - times)
    scene = world.scene
    things = np.zeros((*scene.position.shape[:2], 4, 4))
    things[..., :3, :3], things[..., :3, 3], things[..., 3, 3] = scene.rotation, scene.position, 1.0
    things = np.stack([_between(things[:, slot], turned) for slot in range(things.shape[1])], axis=1)
    position = things[..., :3, 3].astype(np.float32)
    rotation = things[..., :3, :3].astype(np.float32)
    arrays = scene.arrays() | {
        "position": position,
        "rotation": rotation,
        "moving": moving_mask(position, rotation),
    }
    cameras = dataclasses.replace(cameras, world_from_camera=poses)
    return dataclasses.replace(world, scene=Scene(**arrays), cameras=cameras)


def _between(poses: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Poses f64 [P, 4, 4] at fractional places among f64 [T, 4, 4]."""
    knots = np.arange(len(poses))
    found = np.zeros((len(places), 4, 4))
    found[:, :3, :3] = rotations.slerp(knots, poses[:, :3, :3], places)
    found[:, :3, 3] = np.stack([np.interp(places, knots, poses[:, axis, 3]) for axis in range(3)], axis=1)
    found[:, 3, 3] = 1.0
    return found


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.round(values).clip(0, 255).astype(np.uint8)


def _blurs() -> dict[str, float]:
    return {f"truth blurred by {sigma:g} px": sigma for sigma in BLURS}


def _noises() -> dict[str, float]:
    return {f"truth with noise of {level:g} levels": level for level in NOISES}


def _faults(truth: Truth, seeds: int) -> dict[str, Callable[[], np.ndarray]]:
    """By name, a function that makes the samples u8 [S, T, H, W, 3] of one scene."""
    video, key = truth.video, truth.case.world.seed

    def same(one: np.ndarray) -> np.ndarray:
        return np.broadcast_to(one, (seeds, *one.shape))

    def each(make: Callable[[np.random.Generator], np.ndarray]) -> np.ndarray:
        return np.stack([make(np.random.default_rng([key, number])) for number in range(seeds)])

    rows: dict[str, Callable[[], np.ndarray]] = {_TRUE: lambda: same(video)}
    for name, sigma in _blurs().items():
        rows[name] = lambda sigma=sigma: same(blurred(video, sigma))
    for name, level in _noises().items():
        rows[name] = lambda level=level: each(lambda rng: noisy(video, level, rng))
    rows["pure noise"] = lambda: each(lambda rng: rng.integers(0, 256, video.shape, np.uint8))
    rows["first frame repeated"] = lambda: same(truth.repeated)
    rows["exact-geometry warp"] = lambda: same(truth.warp)
    if truth.twin is not None:
        rows["another seed's truth"] = lambda: same(truth.twin)
    return rows


def _started(bench: Bench, store: Store, indices: list[int], pools: Pools, clock: Clock) -> list[Future]:
    settings, shape = bench.settings, bench.shape
    filled = indices + indices[-1:] * (min(settings.batch_size, settings.count) - len(indices))
    here = truths(cases_of(settings, shape, filled), shape, settings.samples, pools.helping.map)
    clock.lap("rendering")
    worlds = [truth.case.world for truth in here]
    seeds = max(2, settings.seeds)
    others = {
        _DECOY: [along(truth.case.world, truth.case.decoy) for truth in here],
        _SHORTER: [along(world, scaled_path(world.cameras, SCALED)) for world in worlds],
        _FASTER: [faster(world, FASTER) for world in worlds],
    }
    made: dict[str, np.ndarray] = {}  # [S, N, T, H, W, 3]
    kept = reconstruct(bench.vae, np.stack([truth.video for truth in here]))
    if any(one is None for one in kept):
        raise ClipError("not_finite", "the autoencoder reconstructs NaN or infinity: its rows mean nothing.")
    made["reconstruction"] = _copies(np.stack(kept), seeds)
    made |= {name: _copies(_rendered(moved, bench), seeds) for name, moved in others.items()}
    if bench.pipeline is not None:
        for one in samples_of(bench.pipeline, here, settings.samplings()[:1], ("i2v",), seeds):
            if not (one.finite.all() and one.decoys_finite.all()):
                raise ClipError("not_finite", "the weights sample NaN or infinity: their rows mean nothing.")
            made[_SAMPLES] = one.videos
            made[_REPEATED] = _copies(one.videos[0], seeds)
            made["mean of the samples"] = _copies(_bytes(one.videos.mean(axis=0, dtype=np.float32)), seeds)
            made["samples along a decoy path"] = _copies(one.decoys, seeds)
    faults = list(pools.helping.map(lambda truth: {n: f() for n, f in _faults(truth, seeds).items()}, here))
    made = {name: np.stack([rows[name] for rows in faults], axis=1) for name in faults[0]} | made
    clock.lap("making clips")
    found: dict[str, np.ndarray] = {}
    if bench.features is not None:
        for name, videos in made.items():
            found[f"features/{_stored(name)}"] = bench.features(videos[0]).astype(np.float32)
    clock.lap("features")
    looked = [
        estimated(bench, pools, index, here[place], _clips(bench, index, here, others, made, place))
        for place, index in enumerate(indices)
    ]
    clock.lap("true motion")

    def work(place: int) -> None:
        truth = here[place]
        rows = {name: _row(videos[:, place], truth, kept[place], made[_DECOY][0, place], bench)
                for name, videos in made.items()}  # fmt: skip
        if truth.case.stands:  # a shorter path is the same path
            rows[_SHORTER] = dict.fromkeys(rows[_SHORTER])
        record = {"index": truth.case.index, "seed": truth.case.world.seed, "methods": rows}
        store.write(
            indices[place], record | looked[place](), {name: values[place] for name, values in found.items()}
        )

    return [pools.measuring.submit(work, place) for place in range(len(indices))]


def _clips(
    bench: Bench,
    index: int,
    here: Sequence[Truth],
    others: Mapping[str, Sequence[World]],
    made: Mapping[str, np.ndarray],
    place: int,
) -> dict[str, Clip]:
    """What estimators look at: the first clip of every row, with its true masks where these are known."""
    truth, keys = here[place], bench.keys(index)
    if not keys:
        return {}
    exact: dict[str, np.ndarray] = {}
    if "motion" in keys:
        size = bench.shape.height, bench.shape.width
        exact = {
            name: moving_now(worlds[place], render_geometry([worlds[place]], *size)[1][0])
            for name, worlds in others.items()
        }
    # Pixels that are where they were: noise and blur move nothing.
    of_truth = [_TRUE, "reconstruction", *_blurs(), *_noises()]
    exact |= dict.fromkeys(of_truth, truth.moving)
    clips = {name: clip_of(truth, videos[0, place], moving=exact.get(name)) for name, videos in made.items()}
    if _REPEATED in clips:
        clips[_REPEATED] = clips[_SAMPLES]  # its first clip is theirs
    if "poses" in keys:
        clips[EXACT_MASKS] = clip_of(truth, truth.video, moving=truth.moving, exact_masks=True)
    return clips


def _stored(name: str) -> str:
    """The names that ``summary.distances`` looks for."""
    return {_TRUE: "truth", "another seed's truth": "another world"}.get(name, name)


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
            measure: measure_of(measure, [record["methods"][name].get(measure) for record in records])
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
    return "\n".join([*lines, *estimates_page(results)])


def _cell(found: Mapping[str, Any] | None, digits: int) -> str:
    return "-" if found is None else f"{found['mean']:.{digits}f}"


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
