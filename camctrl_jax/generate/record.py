"""What ``generation.json`` says: everything that made a clip."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax

import camctrl_jax
from camctrl_jax.camera import Cameras
from camctrl_jax.diffusion.sampler import Sampling
from camctrl_jax.generate.plan import Plan
from camctrl_jax.interop.described import config_to_json


def generation_record(
    plan: Plan, sampling: Sampling, measured: Mapping[str, float], files: Mapping[str, Path]
) -> dict[str, Any]:
    """JSON-able.

    Args:
        plan: what was done.
        sampling: how, with the shift that was used.
        measured: figures in dB.
        files: what was written, by name.
    """
    device, framing, shape = jax.devices()[0], plan.start.framing, plan.shape
    student = plan.model.distilled
    distilled = {} if student is None else {"distilled": config_to_json(student)}
    return {
        "request": {name: str(value) if isinstance(value, Path) else value
                    for name, value in asdict(plan.request).items()},
        "weights": {
            "checkpoint": str(plan.model.path.absolute()),
            "autoencoder": str(plan.autoencoder.path.absolute()),
            "mmdit": config_to_json(plan.model.mmdit_config),
            "vae": config_to_json(plan.autoencoder.vae_config),
            "text": dict(plan.model.text),
            **distilled,
        },
        "prompt": plan.prompt,
        "clip": {"frames": shape.frames, "fps": plan.fps, "height": shape.height, "width": shape.width},
        "first_frame": None if framing is None else asdict(framing),
        "sampling": {
            "seed": plan.request.seed,
            "noise": "jax.random.normal(jax.random.key(seed, impl='threefry2x32'), [L, h, w, C], float32)",
            "steps": sampling.steps,
            "shift": sampling.shift,
            "guidance": asdict(sampling.guidance),
            "mesh": None if plan.mesh is None else asdict(plan.mesh),
            "dtype": "float32" if plan.request.float32 or device.platform == "cpu" else "bfloat16",
        },
        "camera": None if plan.cameras is None else _path_record(plan.cameras),
        "measured": dict(measured),
        "files": {name: path.name for name, path in files.items()},
        "versions": {
            "camctrl_jax": camctrl_jax.__version__,
            **{name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "numpy")},
            "python": platform.python_version(),
            "device": f"{device.platform}: {device.device_kind}",
        },
    }  # fmt: skip


def _path_record(cameras: Cameras) -> dict[str, Any]:
    return {
        "convention": "world_from_camera, OpenCV axes (x right, y down, z forward), metres; "
        "intrinsics are fx/W, fy/H, cx/W, cy/H",
        "world_from_camera": cameras.world_from_camera.tolist(),
        "intrinsics": cameras.intrinsics.tolist(),
        "path_length_m": cameras.path_length,
        "total_rotation_deg": cameras.total_rotation,
    }
