"""What an evaluation of explorations needs before its first take: settings checked, networks loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

import camctrl_jax
from camctrl_jax.checkpoints.pipelines import check_clip_size, load_pipeline, open_model
from camctrl_jax.checkpoints.weights import Weights
from camctrl_jax.errors import InvalidValue, file_failures
from camctrl_jax.evaluate.explorations.arms import Arm, default_arms, fitted_arm, parse_arm
from camctrl_jax.evaluate.explorations.settings import Plan, Settings
from camctrl_jax.evaluate.explorations.summary import RECONSTRUCTION, TRUE
from camctrl_jax.evaluate.students import student_entry
from camctrl_jax.evaluate.worlds.looking import Looks
from camctrl_jax.evaluate.worlds.store import FORMAT_VERSION, Store, fingerprint_of
from camctrl_jax.models.autoencoder import compute_dtype
from camctrl_jax.models.fingerprint import fingerprint_of_weights
from camctrl_jax.sampling.pipeline import Pipeline

_VERSION = 1  # of what is measured

ROWS_OF_TRUTH = (TRUE, RECONSTRUCTION)
"""What is measured beside the arms."""


@dataclass(frozen=True)
class Request:
    """A request that can be met.

    Attributes:
        settings: resolved.
        plan: how long everything is.
        arms: what is compared, fitted to the weights.
        model, autoencoder: the weights, configurations only.
    """

    settings: Settings
    plan: Plan
    arms: tuple[Arm, ...]
    model: Weights
    autoencoder: Weights


@dataclass(frozen=True)
class Bench:
    """Everything loaded that explorations are measured with.

    Attributes:
        settings, plan, arms: as of the request.
        pipeline: the model.
        looks: estimators, or None.
        stores: where records are kept, by row.
    """

    settings: Settings
    plan: Plan
    arms: tuple[Arm, ...]
    pipeline: Pipeline
    looks: Looks | None
    stores: Mapping[str, Store]

    def poses_key(self, index: int) -> str | None:
        """Of the estimates that a world is to have."""
        return self.looks.poses_key if self.looks is not None and index < self.settings.poses else None

    def complete(self, row: str, index: int) -> bool:
        """Whether the store holds everything of a row and a world that the settings ask for."""
        record = self.stores[row].read(index)
        if record is None or (self.settings.keep and not self.stores[row].video(index).exists()):
            return False
        key = self.poses_key(index)
        return key is None or record.get("poses_key") == key or "failed" in record


def checked(settings: Settings) -> Request:
    """The request, if it can be met; nothing is loaded or written.

    Raises:
        UserError: what cannot work, by name.
    """
    model, autoencoder = open_model(settings.checkpoint, settings.vae)
    settings = settings.resolved(jax.default_backend() != "cpu", model)
    if model.mmdit_config.camera is None:
        raise InvalidValue(
            f"{settings.checkpoint} has no camera input: it is a base model, and cannot be led along a path. "
            "Train one from it with configs/stage1.py and configs/stage2.py."
        )
    defaults = model.sampling
    sizes = (getattr(settings, name) or getattr(defaults, name) for name in ("frames", "height", "width"))
    shape = autoencoder.vae_config.clip_shape(*sizes)
    plan = Plan.of(settings, check_clip_size(model, autoencoder, shape))
    plan.routes(settings)
    trained = defaults.retrieved
    names = settings.arms or default_arms(trained, shape.frames - plan.added)
    arms = tuple(fitted_arm(parse_arm(name), trained, shape, plan.added) for name in names)
    return Request(settings, plan, arms, model, autoencoder)


def loaded(request: Request) -> Bench:
    """Load estimators and networks, and make the folder.

    Raises:
        UserError: a package for the estimators is missing, weights are damaged, the folder cannot be made.
    """
    settings = request.settings
    looks = Looks.default(with_poses=True) if settings.poses else None
    with file_failures(settings.out):
        settings.out.mkdir(parents=True, exist_ok=True)
    pipeline = load_pipeline(request.model, request.autoencoder, float32=settings.float32)
    prints = [
        pipeline.autoencoder.fingerprint(),
        fingerprint_of_weights(pipeline.denoiser.config, pipeline.params),
    ]
    takes = _takes(request)
    stores = {
        TRUE: Store(settings.out / TRUE, fingerprint_of(_VERSION, TRUE, takes)),
        RECONSTRUCTION: Store(
            settings.out / RECONSTRUCTION, fingerprint_of(_VERSION, RECONSTRUCTION, takes, prints[0])
        ),
    }
    how = {name: getattr(settings, name) for name in ("steps", "camera_guidance", "text_guidance", "prompts")}
    for arm in request.arms:
        about = {name: value for name, value in asdict(arm).items() if name != "name"}
        print_ = fingerprint_of(_VERSION, takes, how, about, prints)
        stores[arm.name] = Store(settings.out / arm.folder, print_)
    return Bench(settings, request.plan, request.arms, pipeline, looks, stores)


def _takes(request: Request) -> dict[str, Any]:
    """What the takes and the videos of them depend on."""
    settings, plan = request.settings, request.plan
    return {
        "shape": asdict(plan.shape),
        "clips": plan.clips,
        "added": plan.added,
        "routes": plan.routes(settings),
        "first_seed": settings.first_seed,
        "samples": settings.samples,
        # A run that begins on a CPU and goes on elsewhere must not mix the two.
        "compute": jnp.dtype(compute_dtype(settings.float32)).name,
    }


def described(request: Request, bench: Bench) -> dict[str, Any]:
    """What ``results.json`` begins with."""
    settings, plan = request.settings, request.plan
    values = {name: str(v) if isinstance(v, Path) else v for name, v in asdict(settings).items()}
    looks = bench.looks
    return {
        "kind": "explorations",
        "format": [FORMAT_VERSION, _VERSION],
        "request": values,
        "arms": [asdict(arm) for arm in request.arms],
        "clip": {
            "frames": plan.shape.frames,
            "height": plan.shape.height,
            "width": plan.shape.width,
            "clips": plan.clips,
            "added": plan.added,
        },
        "weights": {
            "checkpoint": str(request.model.path),
            "autoencoder": str(request.autoencoder.path),
            **student_entry(request.model),
        },
        "versions": {
            "camctrl_jax": camctrl_jax.__version__,
            "jax": jax.__version__,
            "device": jax.devices()[0].device_kind,
        },
        "estimates": {"motion": None, "poses": None if looks is None else looks.poses_key},
        "estimators": {} if looks is None else looks.described(),
    }


def evaluations(request: Request) -> int:
    """Network evaluations of one clip that all explorations take, branches of guidance counted."""
    settings, count = request.settings, 0
    for arm in (None, *request.arms):
        sampling = settings.sampling(arm)
        clips = 1 if arm is None else request.plan.clips - 1
        count += clips * sampling.steps * sampling.guidance.evaluations()
    return count * settings.count
