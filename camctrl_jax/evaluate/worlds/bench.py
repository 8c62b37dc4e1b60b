"""What an evaluation needs before its first scene: settings checked, networks and estimators loaded."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import camctrl_jax
from camctrl_jax.checkpoints.clip_features import (
    DEFAULT_SPEC,
    default_clip_features_folder,
    load_clip_features,
)
from camctrl_jax.checkpoints.pipelines import check_clip_size, load_autoencoder, load_pipeline, open_model
from camctrl_jax.checkpoints.weights import Weights, open_weights
from camctrl_jax.clip_shape import ClipShape
from camctrl_jax.errors import InvalidValue, file_failures
from camctrl_jax.evaluate.students import student_entry
from camctrl_jax.evaluate.worlds.looking import Looks, worth_another_try
from camctrl_jax.evaluate.worlds.settings import Settings
from camctrl_jax.evaluate.worlds.store import FORMAT_VERSION, Store, fingerprint_of
from camctrl_jax.evaluate.worlds.summary import LEAST_CLIPS
from camctrl_jax.extras import MissingExtra
from camctrl_jax.interop.described import SamplingDefaults
from camctrl_jax.metrics.worlds_scores import FIRST_SCORED_FRAME
from camctrl_jax.models.autoencoder import Autoencoder, compute_dtype
from camctrl_jax.models.fingerprint import fingerprint_of_weights
from camctrl_jax.sampling.pipeline import Pipeline

Say = Callable[[str], None]
Features = Callable[[np.ndarray], np.ndarray]
"""Of clips u8 [N, T, H, W, 3], f [N, D]."""

LEAST_FEATURE_FRAMES = 17


@dataclass(frozen=True)
class Subject:
    """What is measured, configurations only.

    Attributes:
        model: the transformer, or None to measure an autoencoder alone.
        autoencoder: what encodes and decodes.
        shape: of the clips.
    """

    model: Weights | None
    autoencoder: Weights
    shape: ClipShape


@dataclass(frozen=True)
class Bench:
    """Everything loaded that scenes are measured with.

    Attributes:
        settings: resolved.
        shape: of the clips.
        vae: the autoencoder.
        pipeline: None to measure the autoencoder alone.
        features: for the Frechet distance, or None.
        looks: estimators of motion, appearance and cameras, or None.
    """

    settings: Settings
    shape: ClipShape
    vae: Autoencoder
    pipeline: Pipeline | None
    features: Features | None
    looks: Looks | None

    def keys(self, index: int) -> dict[str, str]:
        """What is to be estimated of a scene, and the keys of what that depends on."""
        if self.looks is None:
            return {}
        wanted = {
            "motion": (self.settings.motion, self.looks.motion_key),
            "poses": (self.settings.poses, self.looks.poses_key),
        }
        return {name: key for name, (count, key) in wanted.items() if index < count}

    def complete(self, store: Store, index: int) -> bool:
        """Whether the store holds everything of a scene that these settings ask for."""
        record = store.read(index)
        if record is None or ("poses" in self.keys(index) and worth_another_try(record)):
            return False
        if self.settings.videos and not (record.get("video") and store.video(index).exists()):
            return False
        return all(record.get(name, {}).get("key") == key for name, key in self.keys(index).items())


@dataclass(frozen=True)
class Opened:
    """An evaluation that can begin.

    Attributes:
        bench: what it is done with.
        described: what ``results.json`` begins with.
        store: where scenes are kept.
        missing: the scenes that are not there yet.
        started: ``time.monotonic`` before anything was loaded.
    """

    bench: Bench
    described: dict[str, Any]
    store: Store
    missing: list[int]
    started: float

    @property
    def seconds(self) -> float:
        """Since it was started."""
        return round(time.monotonic() - self.started, 1)

    def stored(self) -> tuple[list[dict[str, Any]], list[dict[str, np.ndarray]]]:
        """Records and arrays of all scenes, once they are measured; estimates that are not asked for, or were
        made in another way, are left out.

        Raises:
            InvalidValue: a scene is gone again.
        """
        count = self.bench.settings.count
        records = [self.store.read(index) for index in range(count)]
        if None in records:
            raise InvalidValue(
                f"{self.store.path(records.index(None))} was measured, and is gone or of other settings now: "
                "does another run write into the same folder? Give each --out a folder of its own, and run "
                "this command again."
            )
        for index, record in enumerate(records):
            keys = self.bench.keys(index)
            for name in ("motion", "poses"):
                if record.get(name, {}).get("key") != keys.get(name, ""):
                    record.pop(name, None)
        return records, [self.store.arrays(index) for index in range(count)]


def opened(settings: Settings, say: Say, folder: str = "") -> Opened:
    """Check a request, load the networks, and find out what is measured already.

    Args:
        settings: as they were given.
        say: called with a line of progress.
        folder: of the records, inside ``settings.out``; other kinds of records have another one.

    Raises:
        UserError: what cannot work, found before any expensive work; nothing is written then.
    """
    asked_for_motion = bool(settings.motion)
    subject = open_subject(settings)
    settings = settings.resolved(jax.default_backend() != "cpu", subject.model)
    looks, without = load_looks(settings, asked_for_motion)
    features, features_name = load_features(settings.features, subject.shape, settings.count)
    with file_failures(settings.out):
        settings.out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    bench = load_bench(settings, subject, features, looks)
    described = describe(settings, subject, features_name)
    # What a comparison of two results must find equal: how scenes are kept, and how they were looked at.
    described["format"] = FORMAT_VERSION
    described["estimates"] = {
        "motion": looks.motion_key if looks is not None and settings.motion else None,
        "poses": None if looks is None else looks.poses_key,
    }
    described["estimators"] = {"without": without} if looks is None else looks.described()
    store = Store(
        settings.out / folder, fingerprint_of(folder, described["depends_on"], weights_prints(bench))
    )
    missing = [i for i in range(settings.count) if not bench.complete(store, i)]
    done, shape = settings.count - len(missing), subject.shape
    others = sum(store.holds_another(i) for i in missing)
    say(
        f"{settings.count} scenes of {shape.frames} frames, {shape.height}x{shape.width}"
        + (f"; {done} are measured already" if done else "")
        + (f"; {others} of other settings, weights or versions are measured anew" if others else "")
        + (f"; without motion and appearance: {without}" if without and settings.motion else "")
    )
    return Opened(bench, described, store, missing, started)


def load_looks(settings: Settings, asked_for_motion: bool) -> tuple[Looks | None, str]:
    """The estimators that (resolved) settings need, and why there are none.

    Raises:
        MissingExtra: what was asked for by name needs a package that is not installed.
    """
    if not (settings.motion or settings.poses):
        return None, "not asked for"
    try:
        return Looks.default(with_poses=settings.poses > 0), ""
    except MissingExtra as missing:
        if asked_for_motion or settings.poses:
            raise
        return None, str(missing)


def load_features(spec: str, shape: ClipShape, count: int) -> tuple[Features | None, str]:
    """Clip features by their spec, and what identifies them; None where they are left out or do not apply."""
    if spec == "none":
        return None, "none"
    if spec == DEFAULT_SPEC and not default_clip_features_folder().exists():
        return None, "none: this package has no clip features"
    network = load_clip_features(spec)
    least, frames = network.config.height, max(LEAST_FEATURE_FRAMES, network.config.frames)
    if shape.frames < frames or min(shape.height, shape.width) < least:
        return None, f"none: these features need {frames} frames of {least} pixels or more"
    if count < LEAST_CLIPS:
        return None, f"none: a Frechet distance needs {LEAST_CLIPS} clips"
    return network.features, network.fingerprint()


def load_bench(settings: Settings, subject: Subject, features: Features | None, looks: Looks | None) -> Bench:
    """Load the networks."""
    if subject.model is None:
        vae = load_autoencoder(subject.autoencoder, compute_dtype(settings.float32))
        return Bench(settings, subject.shape, vae, None, features, looks)
    pipeline = load_pipeline(subject.model, subject.autoencoder, float32=settings.float32)
    return Bench(settings, subject.shape, pipeline.autoencoder, pipeline, features, looks)


def open_subject(settings: Settings) -> Subject:
    """Look up the weights and check that they can make and measure such clips."""
    opened = open_weights(settings.checkpoint)
    if opened.mmdit_config is None:
        if settings.vae is not None:
            raise InvalidValue(
                f"--checkpoint {settings.checkpoint} is an autoencoder itself, and so is "
                f"--vae {settings.vae}: leave --vae out, or name a transformer with --checkpoint."
            )
        if opened.vae_config is None:
            raise InvalidValue(
                f"--checkpoint {settings.checkpoint} holds neither a transformer nor an autoencoder: there "
                "is nothing to evaluate. Name a run of configs/stage1.py or configs/vae.py that has a "
                "checkpoint, or a folder of weights."
            )
        shape = settings.shape(SamplingDefaults(frames=49, height=96, width=160))
        shape = opened.vae_config.clip_shape(shape.frames, shape.height, shape.width).check((1, 1, 1))
        return Subject(None, opened, _long_enough(shape))
    model, autoencoder = open_model(settings.checkpoint, settings.vae)
    if model.mmdit_config.camera is None:
        raise InvalidValue(
            f"{settings.checkpoint} has no camera input: it is a base model, and there is nothing to compare."
            " Train one from it with configs/stage1.py."
        )
    return Subject(
        model, autoencoder, _long_enough(check_clip_size(model, autoencoder, settings.shape(model.sampling)))
    )


def _long_enough(shape: ClipShape) -> ClipShape:
    least = FIRST_SCORED_FRAME + 4
    if shape.frames < least:
        raise InvalidValue(
            f"frames={shape.frames}: PSNR is taken from frame {FIRST_SCORED_FRAME + 1} on; take {least} or "
            "more."
        )
    return shape


def describe(settings: Settings, subject: Subject, features: str) -> dict[str, Any]:
    """What is measured, JSON-able; ``depends_on`` is the part of the request that single scenes depend on."""
    request = {
        name: str(value) if isinstance(value, Path) else value for name, value in asdict(settings).items()
    }
    shape = subject.shape
    aside = (
        "out",
        "batch_size",
        "shown",
        "videos",
        "laptop",
        "poses",
        "motion",
        "checkpoint",
        "vae",
        "features",
    )
    depends_on = {name: value for name, value in request.items() if name not in aside}
    if settings.paths == "benchmark":
        depends_on.pop("count")  # decoys of own paths wrap round; those of the benchmark do not
    return {
        "request": request,
        "depends_on": depends_on
        | {"frames": shape.frames, "height": shape.height, "width": shape.width, "features": features}
        # A run that begins on a CPU and goes on elsewhere must not mix the two.
        | {"compute": jnp.dtype(compute_dtype(settings.float32)).name},
        "weights": {"checkpoint": str((subject.model or subject.autoencoder).path),
                    "autoencoder": str(subject.autoencoder.path), **student_entry(subject.model)},
        "clip": {"frames": shape.frames, "height": shape.height, "width": shape.width},
        "versions": {"camctrl_jax": camctrl_jax.__version__, "jax": jax.__version__,
                     "device": jax.devices()[0].device_kind, "features": features},
    }  # fmt: skip


def weights_prints(bench: Bench) -> list[str]:
    prints = [bench.vae.fingerprint()]
    if bench.pipeline is not None:
        prints.append(fingerprint_of_weights(bench.pipeline.denoiser.config, bench.pipeline.params))
    return prints
