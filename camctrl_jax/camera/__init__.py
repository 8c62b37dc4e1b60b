"""Camera geometry, usable on its own: poses, intrinsics, path files, trajectories, Pluecker maps.

Conventions are stated in :mod:`camctrl_jax.camera.cameras`. NumPy float64 on the host throughout; only the
Pluecker map is JAX, and JAX is imported when it is first asked for, so that ``python -m
camctrl_jax.camera`` starts fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from camctrl_jax.camera.cameras import CameraError, Cameras
from camctrl_jax.camera.description import describe_file
from camctrl_jax.camera.formats import (
    FORMATS,
    PoseFileError,
    detect_format,
    load_cameras,
    read_pose_file,
    save_cameras,
)
from camctrl_jax.camera.interpolation import (
    EASINGS,
    compose,
    flip_horizontal,
    interpolate_keyframes,
    look_along_path,
    look_at,
    resample,
    sample_at,
)
from camctrl_jax.camera.intrinsics import (
    DEFAULT_INTRINSICS,
    centre_crop_box,
    crop_resize_intrinsics,
    intrinsics_from_pixels,
    intrinsics_in_pixels,
)
from camctrl_jax.camera.moves import (
    Circle,
    DollyZoom,
    Handheld,
    Lemniscate,
    Orbit,
    Stage,
    Swing,
    Travel,
    Turn,
    Zoom,
    path_of,
)
from camctrl_jax.camera.path_text import PathTextError, path_from_text
from camctrl_jax.camera.presets import PRESETS, preset, resolve_path

if TYPE_CHECKING:
    from camctrl_jax.camera.plucker import plucker_map

__all__ = [
    "DEFAULT_INTRINSICS",
    "EASINGS",
    "FORMATS",
    "PRESETS",
    "CameraError",
    "Cameras",
    "Circle",
    "DollyZoom",
    "Handheld",
    "Lemniscate",
    "Orbit",
    "PathTextError",
    "PoseFileError",
    "Stage",
    "Swing",
    "Travel",
    "Turn",
    "Zoom",
    "centre_crop_box",
    "compose",
    "crop_resize_intrinsics",
    "describe_file",
    "detect_format",
    "flip_horizontal",
    "interpolate_keyframes",
    "intrinsics_from_pixels",
    "intrinsics_in_pixels",
    "load_cameras",
    "look_along_path",
    "look_at",
    "path_from_text",
    "path_of",
    "plucker_map",
    "preset",
    "read_pose_file",
    "resample",
    "resolve_path",
    "sample_at",
    "save_cameras",
]


def __getattr__(name: str) -> Any:
    if name == "plucker_map":
        from camctrl_jax.camera.plucker import plucker_map

        return plucker_map
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
