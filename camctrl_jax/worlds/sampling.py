"""Sampling a world from a seed: looks, layout, motion, then a camera path that is clear of all of it."""

from __future__ import annotations

import dataclasses

import numpy as np

from camctrl_jax.camera import Cameras
from camctrl_jax.errors import InvalidValue
from camctrl_jax.worlds.captions import caption_phrasings
from camctrl_jax.worlds.corruptions import static_variant
from camctrl_jax.worlds.drafts import Draft, lighting, sample_shape
from camctrl_jax.worlds.motion import Motion, rotations, sample_motion
from camctrl_jax.worlds.paths import Start, path_class, path_poses, project, sample_moves, surface_distance
from camctrl_jax.worlds.places.sampling import sample_place
from camctrl_jax.worlds.scene import (
    FIRST_BOX,
    FIRST_CYLINDER,
    FIRST_SPHERE,
    FIRST_WALL,
    SURFACES,
    Scene,
    World,
    WorldObject,
    WorldsConfig,
)
from camctrl_jax.worlds.surfaces import (
    COLOR_NAMES,
    GROUNDS,
    MATERIALS,
    WALL_STYLES,
    contrasting,
    ground_surface,
    object_surface,
    wall_surface,
)

_PLACES = 16  # places tried at once for one object
_PATHS = 40  # camera paths tried for one world
_GAP = 0.15  # least gap between two objects, metres


def _walls(rng: np.random.Generator, draft: Draft) -> str:
    """Place none to three walls round the far side of the scene; returns the style of the back wall or ''."""
    number = rng.choice([0, 1, 2, 3], p=[0.12, 0.33, 0.3, 0.25])
    if number == 0:
        return ""
    style = WALL_STYLES[rng.integers(len(WALL_STYLES))]
    color = COLOR_NAMES[rng.integers(len(COLOR_NAMES))]
    second = contrasting(rng, color)
    height = rng.uniform(1.6, 3.4)
    turn, back = rng.normal(0.0, 0.12), rng.uniform(8.2, 10.5)
    sides = [0, *rng.permutation([-1, 1])][:number]
    for index, side in enumerate(sides):
        slot = FIRST_WALL + index
        length = rng.uniform(9.0, 15.0) if side == 0 else rng.uniform(5.0, 7.5)
        center = (
            np.array([0.0, 0.0, back])
            if side == 0
            else np.array([side * rng.uniform(4.3, 5.6), 0.0, back - 4.0])
        )
        yaw = turn + (0.0 if side == 0 else side * (np.pi / 2 + rng.normal(0.0, 0.06)))
        cos, sin = np.cos(turn), np.sin(turn)
        center[0], center[2] = (
            cos * center[0] + sin * (center[2] - 5.0),
            5.0 - sin * center[0] + cos * (center[2] - 5.0),
        )
        center[1] = -0.5 * height
        draft.position[:, slot] = center
        draft.rotation[:, slot] = rotations(np.array([yaw]), np.array([1.0, 0.0, 0.0]), np.zeros(1))[0]
        draft.half_size[slot] = 0.5 * length, 0.5 * height, 0.12
        if index and rng.random() < 0.5:
            look = WALL_STYLES[rng.integers(len(WALL_STYLES))]
        else:
            look = style
        draft.paint(slot, wall_surface(rng, look, color, second))
    return style


def _motion_kind(rng: np.random.Generator, kind: str, word: str) -> str:
    if word in ("pillar", "tower"):
        return ("rest", "rest", "rest", "spin", "slide")[rng.integers(5)]
    if kind == "sphere":
        return ("rest", "slide", "slide", "return", "bounce", "bounce", "orbit")[rng.integers(7)]
    if kind == "cylinder":
        return ("rest", "rest", "slide", "return", "orbit", "spin", "bounce")[rng.integers(7)]
    return ("rest", "rest", "spin", "spin", "slide", "return", "orbit", "bounce")[rng.integers(8)]


def _place(
    rng: np.random.Generator, motion: Motion, radius: float, tracks: np.ndarray, radii: np.ndarray
) -> np.ndarray | None:
    """A ground place (x, z) where the whole motion stays in the scene and apart from the objects placed so
    far.

    ``tracks`` f64 [K, T+1, 2] and ``radii`` [K] are the ground tracks of those objects.
    """
    z = rng.uniform(2.8, 7.6, _PLACES)
    x = rng.uniform(-1.0, 1.0, _PLACES) * (0.62 * z + 0.2)
    track = np.stack([x, z], axis=1)[:, None] + motion.shift[None, :, ::2]  # [places, T+1, 2]
    low, high = motion.shift[:, ::2].min(axis=0) - radius, motion.shift[:, ::2].max(axis=0) + radius
    good = (z + low[1] > 2.0) & (z + high[1] < 8.4) & (x + low[0] > -3.9) & (x + high[0] < 3.9)
    track = track[good]
    if len(radii) and len(track):
        apart = track[:, None, ::6] - tracks[None, :, ::6]  # [places, K, times, 2]
        apart = (apart[..., 0] ** 2 + apart[..., 1] ** 2).min(axis=-1)
        track = track[(apart > (radius + radii + _GAP) ** 2).all(axis=1)]
    return track[0, 0] if len(track) else None


def _direction_word(motion: Motion) -> str:
    """Where a slide goes first, seen from the first frame (which looks along +z, more or less)."""
    if motion.kind != "slide":
        return ""
    x, _, z = motion.shift[-1]
    if abs(x) >= abs(z):
        return "right" if x > 0 else "left"
    return "away" if z > 0 else "closer"


def _objects(rng: np.random.Generator, config: WorldsConfig, draft: Draft) -> list[WorldObject]:
    target = int(rng.integers(config.min_objects, config.max_objects + 1))
    slots = [*range(FIRST_BOX, SURFACES)]
    chosen = rng.permutation(slots)[:target]
    frames = config.frames
    objects: list[WorldObject] = []
    tracks, radii = np.zeros((target, frames + 1, 2)), np.zeros(target)
    colors = rng.permutation(len(COLOR_NAMES))
    for slot in chosen:
        kind = "box" if slot < FIRST_SPHERE else "sphere" if slot < FIRST_CYLINDER else "cylinder"
        word, half = sample_shape(rng, kind)
        radius = float(np.hypot(half[0], half[2])) if kind == "box" else float(half[0])
        place = None
        motion_kind = _motion_kind(rng, kind, word)
        for attempt in range(3):
            motion = sample_motion(
                rng, motion_kind if attempt < 2 else "rest", kind, radius, frames, config.fps
            )
            place = _place(rng, motion, radius, tracks[: len(objects)], radii[: len(objects)])
            if place is not None:
                break
        if place is None:
            continue  # the scene is full: this slot stays absent
        color = COLOR_NAMES[colors[len(objects) % len(colors)]]
        material = MATERIALS[rng.integers(len(MATERIALS))]
        second = contrasting(rng, color)
        draft.paint(slot, object_surface(rng, material, color, second, half))
        draft.half_size[slot] = half
        start_yaw = rng.uniform(-np.pi, np.pi) if kind != "box" else rng.uniform(-0.9, 0.9)
        base = np.array([place[0], -half[1], place[1]])
        draft.position[:, slot] = base + motion.shift
        draft.rotation[:, slot] = rotations(motion.yaw + start_yaw, motion.axle, motion.roll)
        tracks[len(objects)], radii[len(objects)] = place + motion.shift[:, ::2], radius
        objects.append(
            WorldObject(
                int(slot), word, color, second, material, motion.kind, _direction_word(motion), visible=False
            )
        )
    return objects


def _intrinsics(rng: np.random.Generator, aspect: float) -> np.ndarray:
    focal = rng.uniform(0.60, 0.75)
    return np.array([focal, focal * aspect, 0.5, 0.5])


def _path(
    rng: np.random.Generator, config: WorldsConfig, scene: Scene, slots: list[int], intrinsics: np.ndarray
):
    """(poses, moves, class) of a path that is clear of everything and keeps the scene in view."""
    centers = scene.position[: config.frames, slots].astype(np.float64)  # [T, K, 3]
    last = config.frames - 1
    moves: tuple = ()
    for attempt in range(_PATHS):
        center = np.array([rng.uniform(-1.0, 1.0), -rng.uniform(1.0, 2.0), rng.uniform(-0.9, 0.5)])
        target = np.array([0.0, -0.6, 5.0]) + np.array([rng.normal(0, 0.35), 0.0, 0.0]) - center
        yaw = np.arctan2(target[0], target[2]) + rng.normal(0.0, 0.06)
        pitch = np.arctan2(-target[1], np.hypot(target[0], target[2])) + rng.normal(0.0, 0.03)
        start = Start(center, float(yaw), float(pitch), float(rng.uniform(4.0, 5.5)))
        # Late attempts give up moving rather than clearance.
        moves, easing = sample_moves(rng, config.frames) if attempt < _PATHS - 8 else ((), "linear")
        poses = path_poses(start, moves, easing, config.frames)
        height = -poses[:, 1, 3]
        if height.min() < 0.55 or height.max() > 2.9:
            continue
        ends = project(poses[[0, last]][:, None], intrinsics, centers[[0, last]])
        seen = ((np.abs(ends[..., :2] - 0.5) < 0.49).all(axis=-1)) & (ends[..., 2] > 0.8)
        need = min(3, len(slots))
        if (
            seen[0].sum() < need
            or seen[1].sum() < min(2, need)
            or (seen[0] & seen[1]).sum() < 0.5 * seen[0].sum()
        ):
            continue
        if surface_distance(scene, poses[:, :3, 3]).min() < config.clearance:
            continue
        return poses, moves, path_class(moves)
    return None


def sample_world(seed: int, config: WorldsConfig = WorldsConfig()) -> World:  # noqa: B008 (frozen)
    """The world of ``seed``: the same arrays and captions on every call and every machine.

    Raises ValueError for a configuration no world can have.
    """
    config.validate()
    if config.places is not None:
        world = sample_place(seed, config)
        return static_variant(world) if config.static else world
    for attempt in range(20):
        world = _sample(np.random.default_rng([int(seed), attempt]), int(seed), config)
        if world is not None:
            return static_variant(world) if config.static else world
    raise InvalidValue(
        f"no clear camera path in 20 scenes of seed {seed}; lower WorldsConfig.clearance "
        f"({config.clearance} m) or max_objects ({config.max_objects})"
    )


def _sample(rng: np.random.Generator, seed: int, config: WorldsConfig) -> World | None:
    draft = Draft.empty(config.frames)
    light, sun, sky = lighting(rng)
    ground = GROUNDS[rng.integers(len(GROUNDS))]
    draft.lay_ground(ground_surface(rng, ground))
    wall = _walls(rng, draft)
    objects = _objects(rng, config, draft)
    scene = draft.scene(sun, sky)
    intrinsics = _intrinsics(rng, config.aspect)
    path = _path(rng, config, scene, [item.slot for item in objects], intrinsics)
    if path is None:
        return None
    poses, moves, name = path
    cameras = Cameras(
        poses, np.tile(intrinsics, (config.frames, 1)), np.arange(config.frames) / config.fps, metric=True
    )
    objects = _by_visibility(objects, scene, poses[0], intrinsics)
    world = World(seed, config.fps, scene, cameras, (), name, moves, tuple(objects), ground, wall, light)
    return dataclasses.replace(world, captions=caption_phrasings(world))


def _by_visibility(
    objects: list[WorldObject], scene: Scene, pose: np.ndarray, intrinsics: np.ndarray
) -> list[WorldObject]:
    """The objects with ``visible`` set, by their size in the first frame; those not visible come last."""
    slots = [item.slot for item in objects]
    centers = scene.position[0, slots].astype(np.float64)
    half = scene.half_size[slots]
    seen = project(pose, intrinsics, centers)
    visible = (np.abs(seen[:, :2] - 0.5) < 0.5).all(axis=1) & (seen[:, 2] > 0.5)
    ray = centers - pose[:3, 3]
    distance = np.linalg.norm(ray, axis=1)
    # Another object stands before a centre if the ray to the centre passes it within its radius.
    along = ray @ ray.T / distance[:, None]  # [to, other]
    miss = np.sqrt(np.maximum(distance[None] ** 2 - along**2, 0.0))
    before = (along > 0) & (along < distance[:, None] - 1e-6) & (miss < half.max(axis=1)[None])
    visible &= ~before.any(axis=1)
    size = half[:, 0] * half[:, 1] / distance**2
    order = np.argsort(-(size + 1e3 * visible), kind="stable")
    return [dataclasses.replace(objects[i], visible=bool(visible[i])) for i in order]
