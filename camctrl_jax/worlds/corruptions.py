"""Variants of a world with truth of what was changed: held still, shaken, jumped, cut, zoomed, frozen.

Every function is pure: World -> World (held still), or World -> (World, Corruption). The corrupted world is a
world like any other: its cameras are those that its frames were taken with, so its rendered truth stays
exact. What makes it bad data is what ``Corruption`` says. A place is described anew, as its frames then show
it, and keeps the returns whose pictures still are the same.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from camctrl_jax.camera import Cameras
from camctrl_jax.errors import InvalidValue
from camctrl_jax.worlds.captions import caption_phrasings
from camctrl_jax.worlds.motion import ease
from camctrl_jax.worlds.paths import is_clear, surface_distance
from camctrl_jax.worlds.places.solids import first_hits
from camctrl_jax.worlds.scene import FIRST_WALL, World, moving_mask
from camctrl_jax.worlds.windows import described

CENTER = np.array([0.0, 0.0, 5.0])  # about the middle of every scene, on the ground
_CLEARANCE = 0.3
_TRIES = 200


@dataclass(frozen=True, eq=False)
class Corruption:
    """What was done to a world, and where.

    ``affected`` bool [T]: frames that differ from the uncorrupted clip (shake, jump, cut, zoom), or that
    repeat the frame before them (freeze). ``breaks`` are the frames t at which something is discontinuous
    between t - 1 and t. ``magnitude`` is in ``unit``.
    """

    kind: str
    affected: np.ndarray
    breaks: tuple[int, ...]
    magnitude: float
    unit: str


def static_variant(world: World, camera: bool = False) -> World:
    """The world with every object held at its place of frame 0; with ``camera`` the camera rests too."""
    scene, frames = world.scene, world.frames
    position, rotation = (
        np.repeat(pose[:1], frames + 1, axis=0) for pose in (scene.position, scene.rotation)
    )
    scene = dataclasses.replace(
        scene, position=position, rotation=rotation, moving=moving_mask(position, rotation)
    )
    objects = tuple(dataclasses.replace(item, motion="rest", direction="") for item in world.objects)
    world = dataclasses.replace(world, scene=scene, objects=objects)
    if camera:
        held = np.repeat(world.cameras.world_from_camera[:1], frames, axis=0)
        cameras = dataclasses.replace(world.cameras, world_from_camera=held)
        world = dataclasses.replace(world, cameras=cameras, moves=(), path_class="static", returns=())
    if world.setting:
        return described(world)
    return dataclasses.replace(world, captions=caption_phrasings(world))


def shake(
    world: World,
    seed: int,
    start: int = 0,
    stop: int | None = None,
    degrees: float = 0.8,
    metres: float = 0.02,
) -> tuple[World, Corruption]:
    """Independent jitter of the camera in frames ``start`` to ``stop`` (excluded), standard deviations per
    axis."""
    stop = _window(world, start, stop)
    rng = np.random.default_rng([seed, 1])
    affected = _between(world, start, stop)
    poses = world.cameras.world_from_camera.copy()
    poses[start:stop, :3, 3] += rng.normal(0.0, metres, (stop - start, 3))
    poses[start:stop, :3, :3] = poses[start:stop, :3, :3] @ _rotation_vectors(
        rng.normal(0.0, np.radians(degrees), (stop - start, 3))
    )
    return _with_poses(world, poses), Corruption("shake", affected, (), degrees, "degrees")


def jump(
    world: World, seed: int, at: int | None = None, metres: float = 0.6, degrees: float = 8.0
) -> tuple[World, Corruption]:
    """From frame ``at`` on, the camera stands ``metres`` aside and is turned by ``degrees``.

    In a place it does not jump through walls.

    Raises:
        InvalidValue: a jump of no size or a long one, or no clear place for it.
    """
    if not 0.0 < metres <= 3.0:
        raise InvalidValue(
            f"a jump of {metres} m; expected 0 to 3 m (a longer one leaves the scene: use a cut)"
        )
    rng = np.random.default_rng([seed, 2])
    at = _cut_frame(world, rng, at)
    source = world.cameras.world_from_camera
    for _ in range(_TRIES):
        way, sign = rng.uniform(-np.pi, np.pi), rng.choice([-1.0, 1.0])
        poses = source.copy()
        poses[at:, :3, :3] = _about_vertical(sign * np.radians(degrees)) @ poses[at:, :3, :3]
        poses[at:, :3, 3] += metres * np.array([np.sin(way), 0.0, np.cos(way)])
        if _clear(world, poses) and not (world.setting and _hidden(world, at, source[at], poses[at, :3, 3])):
            truth = Corruption("jump", _between(world, at, world.frames), (at,), metres, "metres")
            return _with_poses(world, poses), truth
    raise InvalidValue(
        f"no clear place {metres} m aside of frame {at} in world {world.seed}; use a smaller jump"
    )


def cut(world: World, seed: int, at: int | None = None) -> tuple[World, Corruption]:
    """From frame ``at`` on, the same scene is seen by another camera, on the other side of a good part of a
    circle.

    The path goes on with the same relative motion, so only the cut itself gives it away. In a place the
    circle is about what the camera looks at, which the second camera sees as well.

    Raises:
        InvalidValue: no clear second camera; rooms and streets have room for none more often.
    """
    rng = np.random.default_rng([seed, 3])
    at = _cut_frame(world, rng, at)
    source = world.cameras.world_from_camera
    middle = _looked_at(world, at) if world.setting else CENTER
    for attempt in range(_TRIES):
        # The widest cuts are tried first; walls may leave room for narrow ones only.
        angle = rng.choice([-1.0, 1.0]) * rng.uniform(40.0, 130.0) * (1.0 - 0.5 * attempt / _TRIES)
        scale = rng.uniform(0.75, 1.0)
        turn = _about_vertical(np.radians(angle))
        poses = source.copy()
        poses[at:, :3, :3] = turn @ poses[at:, :3, :3]
        poses[at:, :3, 3] = middle + scale * (poses[at:, :3, 3] - middle) @ turn.T
        poses[at:, 1, 3] = source[at:, 1, 3]
        centers = poses[:, :3, 3]
        clear = _clear(world, poses)
        if world.setting:
            clear = clear and not _hidden(world, at, poses[at], middle)
        else:
            clear = clear and not (_wall_between(world, centers[at]) or _wall_between(world, centers[-1]))
        if clear:
            truth = Corruption("cut", _between(world, at, world.frames), (at,), abs(float(angle)), "degrees")
            return _with_poses(world, poses), truth
    raise InvalidValue(f"no clear second camera for a cut in world {world.seed}; cut another world")


def zoom(
    world: World, start: int = 0, stop: int | None = None, factor: float = 1.6
) -> tuple[World, Corruption]:
    """The focal length changes smoothly by ``factor`` between frames ``start`` and ``stop``, and stays
    there."""
    stop = _window(world, start, stop)
    if not factor > 0:
        raise InvalidValue(f"zoom factor is {factor}; expected a positive number")
    progress = ease((np.arange(world.frames) - start) / max(stop - 1 - start, 1), "smooth")
    intrinsics = world.cameras.intrinsics.copy()
    intrinsics[:, :2] *= factor ** progress[:, None]
    cameras = dataclasses.replace(world.cameras, intrinsics=intrinsics)
    return _changed(world, cameras=cameras), Corruption("zoom", progress > 0, (), factor, "times")


def freeze(world: World, start: int, count: int) -> tuple[World, Corruption]:
    """Frames ``start + 1`` to ``start + count`` repeat frame ``start``; then time is where it would have
    been."""
    if not (start >= 0 and count >= 1 and start + count < world.frames):
        raise InvalidValue(
            f"cannot freeze {count} frames after frame {start} of {world.frames}; expected start >= 0, "
            "count >= 1 and at least one later frame"
        )
    index = np.arange(world.frames + 1)
    index[start : start + count + 1] = start
    position, rotation = world.scene.position[index], world.scene.rotation[index]
    scene = dataclasses.replace(
        world.scene, position=position, rotation=rotation, moving=moving_mask(position, rotation)
    )
    cameras = world.cameras[index[:-1]]
    cameras = dataclasses.replace(cameras, times=world.cameras.times)
    affected = _between(world, start + 1, start + count + 1)
    frozen = _changed(world, scene=scene, cameras=cameras)
    return frozen, Corruption("freeze", affected, (start + count + 1,), float(count), "frames")


def _with_poses(world: World, poses: np.ndarray) -> World:
    cameras = Cameras(poses, world.cameras.intrinsics, world.cameras.times, metric=True)
    return _changed(world, cameras=cameras)


def _changed(world: World, **changes: object) -> World:
    """The world with other frames; a place with what is true of them."""
    world = dataclasses.replace(world, **changes)
    if not world.setting:
        return world
    poses, lenses = world.cameras.world_from_camera, world.cameras.intrinsics
    same = [(poses[a] == poses[b]).all() and (lenses[a] == lenses[b]).all() for a, b in world.returns]
    returns = tuple(pair for pair, equal in zip(world.returns, same, strict=True) if equal)
    return described(dataclasses.replace(world, returns=returns))


def _clear(world: World, poses: np.ndarray) -> bool:
    """Whether a path keeps clear of all surfaces."""
    if world.setting:
        return is_clear(world.scene, poses[:, :3, 3], _CLEARANCE)
    return bool(surface_distance(world.scene, poses[:, :3, 3]).min() > _CLEARANCE)


def _looked_at(world: World, frame: int) -> np.ndarray:
    """A point [3] on the ground below what the middle of a frame of a place shows."""
    pose = world.cameras.world_from_camera[frame]
    way = np.array([pose[0, 2], 0.0, pose[2, 2]]) / np.hypot(pose[0, 2], pose[2, 2])
    _, depth = first_hits(world.scene, frame, pose[:3, 3], way[None])
    middle = pose[:3, 3] + min(0.6 * float(depth[0]), 3.5) * way
    return np.array([middle[0], 0.0, middle[2]])


def _hidden(world: World, frame: int, pose: np.ndarray, point: np.ndarray) -> bool:
    """Whether anything stands between a camera and the place of ``point`` [3], at the camera's height."""
    way = point - pose[:3, 3]
    way[1] = 0.0
    _, depth = first_hits(world.scene, frame, pose[:3, 3], way[None])
    return bool(depth[0] < 1.0)


def _between(world: World, start: int, stop: int) -> np.ndarray:
    index = np.arange(world.frames)
    return (index >= start) & (index < stop)


def _window(world: World, start: int, stop: int | None) -> int:
    stop = world.frames if stop is None else stop
    if not 0 <= start < stop <= world.frames:
        raise InvalidValue(
            f"frames {start} to {stop} of {world.frames}: expected 0 <= start < stop <= {world.frames}"
        )
    return stop


def _cut_frame(world: World, rng: np.random.Generator, at: int | None) -> int:
    if at is None:
        at = int(rng.integers(world.frames // 3, max(2 * world.frames // 3, world.frames // 3 + 1)))
    if not 1 <= at < world.frames:
        raise InvalidValue(f"frame {at} of {world.frames}: expected 1 to {world.frames - 1}")
    return at


def _wall_between(world: World, eye: np.ndarray) -> bool:
    """Whether a wall stands between ``eye`` and the middle of the scene."""
    points = eye + np.linspace(0.0, 1.0, 60)[:, None] * (CENTER - (0.0, 0.5, 0.0) - eye)
    for slot in range(FIRST_WALL, world.scene.slots.first_box):
        half = world.scene.half_size[slot]
        local = (points - world.scene.position[0, slot]) @ world.scene.rotation[0, slot]
        if half[0] > 0 and (np.abs(local) < half + np.array([0.0, 0.0, 0.1])).all(axis=1).any():
            return True
    return False


def _about_vertical(angle: float) -> np.ndarray:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, 0.0, sin], [0.0, 1.0, 0.0], [-sin, 0.0, cos]])


def _rotation_vectors(vectors: np.ndarray) -> np.ndarray:
    """Rotations [N, 3, 3] of rotation vectors [N, 3], radians (Rodrigues)."""
    angle = np.linalg.norm(vectors, axis=1)[:, None, None]
    x, y, z = (vectors / np.maximum(angle[:, 0], 1e-12)).T
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=1).reshape(-1, 3, 3)
    return np.eye(3) + np.sin(angle) * cross + (1.0 - np.cos(angle)) * (cross @ cross)
