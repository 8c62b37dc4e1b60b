"""``evaluate captions``: text to video for held-out captions, and which of the named colours appear."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import camctrl_jax
from camctrl_jax.checkpoints.pipelines import check_clip_size, load_pipeline, open_model
from camctrl_jax.clip_shape import ClipShape
from camctrl_jax.errors import InvalidValue, file_failures
from camctrl_jax.evaluate.captions.detector import Detector, calibrated, looked_at, named_colors
from camctrl_jax.evaluate.captions.report import write_results
from camctrl_jax.evaluate.captions.settings import CALIBRATION_FIRST_SEED, Settings
from camctrl_jax.evaluate.captions.summary import RECONSTRUCTION, TRUE, summarised, with_own
from camctrl_jax.evaluate.device_memory import memory_failures
from camctrl_jax.evaluate.students import student_entry
from camctrl_jax.evaluate.worlds.looking import Clip, Looks
from camctrl_jax.evaluate.worlds.sampling import noise_seed
from camctrl_jax.evaluate.worlds.store import FORMAT_VERSION, Store, fingerprint_of
from camctrl_jax.extras import require
from camctrl_jax.models.autoencoder import compute_dtype
from camctrl_jax.models.fingerprint import fingerprint_of_weights
from camctrl_jax.sampling.pipeline import ClipBatch, Pipeline
from camctrl_jax.worlds import World, render_rgb

Say = Callable[[str], None]

_VERSION = 1  # of what is measured
_TABLES_VERSION = 2  # of what is made of it


def evaluate_captions(settings: Settings, say: Say | None = None) -> dict[str, Any]:
    """Sample captions and write the tables; returns what ``results.json`` holds.

    Args:
        settings: what to measure.
        say: called with a line of progress; standard error by default.

    Raises:
        UserError: what cannot work, found before any expensive work.
    """
    say = say or (lambda line: print(line, file=sys.stderr, flush=True))
    require("matplotlib", extra="eval")
    started = time.monotonic()
    model, autoencoder = open_model(settings.checkpoint, settings.vae)
    settings = settings.resolved(jax.default_backend() != "cpu", model)
    if model.mmdit_config.camera is None and "given" in settings.cameras:
        raise InvalidValue(f"{settings.checkpoint} has no camera input, a base model: take --cameras none.")
    sizes = (
        getattr(settings, name) or getattr(model.sampling, name) for name in ("frames", "height", "width")
    )
    shape = check_clip_size(model, autoencoder, autoencoder.vae_config.clip_shape(*sizes))
    looks = Looks.default(with_poses=False) if settings.motion else None
    with file_failures(settings.out):
        settings.out.mkdir(parents=True, exist_ok=True)
    pipeline = load_pipeline(model, autoencoder, float32=settings.float32)
    stores = _stores(settings, shape, pipeline)
    missing = [
        i
        for i in range(settings.count)
        if not all(_complete(store, i, settings, looks) for store in stores.values())
    ]
    replaced = sum(store.holds_another(i) for store in stores.values() for i in missing)
    say(
        f"{settings.count} captions, {len(missing)} to be sampled; rows: {', '.join(settings.rows())}"
        + (f"; {replaced} records of other settings, weights or versions are replaced" if replaced else "")
    )
    detector = calibrated(
        [settings.world(CALIBRATION_FIRST_SEED + i, shape) for i in range(settings.calibration)],
        shape.height,
        shape.width,
        settings.samples,
    )
    size = settings.batch_size
    for first in range(0, len(missing), size):
        with memory_failures(size):
            _measure(settings, shape, pipeline, stores, detector, looks, missing[first : first + size])
        say(f"{min(first + size, len(missing))} of {len(missing)} captions")
    records = {row: [store.read(i) for i in range(settings.count)] for row, store in stores.items()}
    for row, found in records.items():
        if None in found:
            raise InvalidValue(
                f"{stores[row].path(found.index(None))} is gone or of other settings now: does another run "
                "write into the same folder? Give each --out a folder of its own, and run this again."
            )
    # Each one's other caption is the next one's; the last one's is of a world that is not judged.
    beyond = settings.world(settings.first_seed + settings.count, shape)
    captions = [*(record["caption"] for record in records[TRUE]), caption_of(beyond)]
    request = {name: str(v) if isinstance(v, Path) else v for name, v in asdict(settings).items()}
    results = {
        "kind": "captions",
        "format": [FORMAT_VERSION, _VERSION, _TABLES_VERSION],
        "request": request,
        "clip": {"frames": shape.frames, "height": shape.height, "width": shape.width},
        "weights": {
            "checkpoint": str(model.path),
            "autoencoder": str(autoencoder.path),
            **student_entry(model),
        },
        "versions": {
            "camctrl_jax": camctrl_jax.__version__,
            "jax": jax.__version__,
            "device": jax.devices()[0].device_kind,
        },
        "estimates": {"motion": None if looks is None else looks.motion_key, "poses": None},
        "estimators": {} if looks is None else looks.described(),
        "seconds": round(time.monotonic() - started, 1),
    }
    results |= summarised(with_own(records, captions), detector, list(settings.rows()))
    strips = [
        {row: store.arrays(i)["strip"] for row, store in stores.items()}
        for i in range(min(settings.shown, settings.count))
    ]
    return write_results(settings.out, results, strips)


def _stores(settings: Settings, shape: ClipShape, pipeline: Pipeline) -> dict[str, Store]:
    """Where records are kept, by row; each knows what it depends on."""
    names = ("worlds", "first_seed", "calibration", "samples")
    base = {name: getattr(settings, name) for name in names} | {"shape": asdict(shape)}
    kept = pipeline.autoencoder.fingerprint()
    compute = jnp.dtype(compute_dtype(settings.float32)).name
    prints = [
        kept,
        fingerprint_of_weights(pipeline.denoiser.config, pipeline.params),
        compute,
        settings.seeds,
    ]
    stores = {
        TRUE: Store(settings.out / "truth", fingerprint_of(_VERSION, base)),
        RECONSTRUCTION: Store(settings.out / "reconstruction", fingerprint_of(_VERSION, base, kept, compute)),
    }
    for row, (_, sampling) in settings.rows().items():
        folder = row.replace(", ", "_").replace(" ", "_")
        stores[row] = Store(
            settings.out / folder, fingerprint_of(_VERSION, base, prints, row, asdict(sampling))
        )
    return stores


def _complete(store: Store, index: int, settings: Settings, looks: Looks | None) -> bool:
    record = store.read(index)
    if record is None:
        return False
    return looks is None or index >= settings.motion or record.get("motion_key") == looks.motion_key


def _measure(
    settings: Settings,
    shape: ClipShape,
    pipeline: Pipeline,
    stores: Mapping[str, Store],
    detector: Detector,
    looks: Looks | None,
    indices: Sequence[int],
) -> None:
    """Sample some captions in every way, and keep what the detector says of them."""
    # One size of batch, one compilation: the last batch is filled up.
    filled = [*indices, *[indices[-1]] * (min(settings.batch_size, settings.count) - len(indices))]
    worlds = [settings.world(settings.first_seed + i, shape) for i in filled]
    videos = np.asarray(render_rgb(worlds, shape.height, shape.width, settings.samples))
    kept, finite = pipeline.autoencoder.decode_checked(pipeline.autoencoder.encode(videos))
    made = {TRUE: [(videos, np.ones(len(videos), bool))], RECONSTRUCTION: [(kept, finite)]}
    for row, (camera, sampling) in settings.rows().items():
        made[row] = []
        for number in range(settings.seeds):
            clips = ClipBatch(
                prompts=[caption_of(world) for world in worlds],
                seeds=[noise_seed(world, number) for world in worlds],
                shape=shape,
                cameras=[world.cameras for world in worlds] if camera == "given" else None,
            )
            made[row].append(pipeline.autoencoder.decode_checked(pipeline.sample(clips, sampling)))

    def keep(place: int) -> None:
        index, world = indices[place], worlds[place]
        right = named_colors(caption_of(world))
        # The next world's caption, whether that is judged or not.
        other = named_colors(caption_of(settings.world(settings.first_seed + index + 1, shape)))
        about = {
            "index": index,
            "seed": world.seed,
            "caption": caption_of(world),
            "right": right,
            "wrong": [color for color in other if color not in right],
        }
        for row, samples in made.items():
            scores = [
                detector.scores(video[place]).tolist() if sound[place] else None for video, sound in samples
            ]
            video, frames = samples[0][0][place], looked_at(shape.frames)
            record = about | {"scores": scores}
            if looks is not None and index < settings.motion:
                clip = Clip(np.ascontiguousarray(video), world.cameras, world.fps)
                found = (
                    looks.of_clip(clip, motion=True, poses=False)["motion"] if samples[0][1][place] else {}
                )
                record |= {"motion": found, "motion_key": looks.motion_key}
            stores[row].write(index, record, {"strip": video[frames]})

    # Estimators work on the cores, a caption each.
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        list(pool.map(keep, range(len(indices))))


def caption_of(world: World) -> str:
    """The phrasing that names most things: the last one."""
    return world.captions[-1]
