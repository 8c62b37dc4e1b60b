"""Worlds as arrays that the renderer takes, one world or many of the same shape."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from camctrl_jax.errors import InvalidValue
from camctrl_jax.worlds.scene import World


def stack_worlds(worlds: Sequence[World]) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Scene arrays with a leading axis N, poses f32 [N, T, 4, 4] and intrinsics f32 [N, T, 4]."""
    if not worlds:
        raise InvalidValue("no worlds to stack; expected at least one")
    lengths = sorted({world.frames for world in worlds})
    if len(lengths) > 1:
        raise InvalidValue(
            f"worlds of {lengths} frames do not stack; sample them with one WorldsConfig.frames"
        )
    if len({world.scene.slots for world in worlds}) > 1:
        raise InvalidValue("worlds with and without places to explore do not stack; sample them alike")
    scenes = [world.scene.arrays() for world in worlds]
    poses, intrinsics = zip(*(camera_arrays(world) for world in worlds), strict=True)
    return (
        {name: np.stack([scene[name] for scene in scenes]) for name in scenes[0]},
        np.stack(poses),
        np.stack(intrinsics),
    )


def camera_arrays(world: World) -> tuple[np.ndarray, np.ndarray]:
    """Poses f32 [T, 4, 4] and intrinsics f32 [T, 4] of a world."""
    return (
        np.asarray(world.cameras.world_from_camera, np.float32),
        np.asarray(world.cameras.intrinsics, np.float32),
    )


def check_size(height: int, width: int, samples: int) -> None:
    """Raise InvalidValue for pictures without pixels or rays."""
    for name, value in (("height", height), ("width", width), ("samples", samples)):
        if value < 1:
            raise InvalidValue(f"{name} is {value}; expected at least 1")
