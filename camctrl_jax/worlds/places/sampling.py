"""Sampling a place from a seed: layout, objects that move in it, and a take through it."""

from __future__ import annotations

import dataclasses

import numpy as np

from camctrl_jax.camera import Cameras
from camctrl_jax.errors import InvalidValue
from camctrl_jax.worlds.drafts import Draft, lighting
from camctrl_jax.worlds.paths import is_clear
from camctrl_jax.worlds.places.actors import populate
from camctrl_jax.worlds.places.layouts import lay_out, place_ground
from camctrl_jax.worlds.places.navigation import Map
from camctrl_jax.worlds.places.routes import LEAST_FRAMES, Route, Walker, find_route
from camctrl_jax.worlds.places.site import Site
from camctrl_jax.worlds.places.solids import Footprints, glance
from camctrl_jax.worlds.places.tracks import Pace, Stand, poses_of
from camctrl_jax.worlds.scene import (
    GROUND,
    LAYOUTS,
    PLACE_SLOTS,
    ROUTES,
    Fixture,
    Places,
    Scene,
    World,
    WorldObject,
    WorldsConfig,
)
from camctrl_jax.worlds.windows import described, window

_STREAM = 29  # keeps the draws of places apart from those of other worlds of the same seed
# What is drawn beside scenes, which are numbered from 0. (The stream [seed, 29] is that of [seed, 29, 0]:
# drawn from it, the kind of a place tells its light.)
_CUT, _KINDS = 1000, 1001
_SCENES, _STARTS = 24, 10  # scenes tried for a route, starts and routes tried in one scene
_LAST_RESORTS = ("wander",) * 8 + ("clips",) * 16  # routes tried when those scenes have no room for theirs
_LAYOUT_SHARES = (0.4, 0.35, 0.25)
_ROUTE_SHARES = (0.25, 0.15, 0.12, 0.1, 0.13, 0.13, 0.06, 0.06)
_LEAST_ELEVATION = 0.75  # radians, of the sun
_STANDS = 8  # places looked round from for one start
_SLACK = 0.18  # metres that a way drawn tight keeps more than the clearance, for its corners to be rounded
_LOOKS = 48  # frames between the looks that a take must stand


def sample_place(seed: int, config: WorldsConfig) -> World:
    """The place of ``seed`` with its take, or the window of it that ``config`` asks for.

    A route for which there is no room in many scenes gives way to one that needs less, ``wander`` and in the
    end ``clips``, so that no seed stops the making of a set: ``World.path_class`` says which it is, and
    ``World.route_asked`` which it should have been, if one was asked for.

    Raises:
        InvalidValue: the route needs more frames, or nothing is clear.
    """
    places = config.places or Places()
    frames = places.take_frames or config.frames
    rng = np.random.default_rng([int(seed), _STREAM, _KINDS])
    layout = places.layout or LAYOUTS[rng.choice(len(LAYOUTS), p=_LAYOUT_SHARES)]
    route, given = _route_name(rng, places.route, frames, config.fps), places.route is not None
    scenes = _SCENES if given else _SCENES // 2
    names = [route] * scenes + [name for name in _LAST_RESORTS if name != route or not given]
    for attempt, name in enumerate(names):
        inner = np.random.default_rng([int(seed), _STREAM, attempt])
        take = _sample(inner, int(seed), config, layout, name, frames)
        if take is not None:
            break
    else:
        raise InvalidValue(
            f"no clear path of {frames} frames in {len(names)} scenes of seed {seed}; lower "
            f"WorldsConfig.clearance ({config.clearance} m), or take another Places.layout"
        )
    if given and name != route:
        take = dataclasses.replace(take, route_asked=route)
    if frames == config.frames:
        return described(take)
    start = int(np.random.default_rng([int(seed), _STREAM, _CUT]).integers(frames - config.frames + 1))
    return window(take, start, config.frames)


def _route_name(rng: np.random.Generator, asked: str | None, frames: int, fps: float) -> str:
    needed = {name: 1 + round((least - 1) * fps / 12.0) for name, least in LEAST_FRAMES.items()}
    if asked is not None:
        if frames < needed[asked]:
            raise InvalidValue(
                f"a route {asked!r} in {frames} frames at {fps:g} a second; it needs {needed[asked]} or more"
            )
        return asked
    shares = np.array(
        [share * (frames >= needed[name]) for name, share in zip(ROUTES, _ROUTE_SHARES, strict=True)]
    )
    return ROUTES[rng.choice(len(ROUTES), p=shares / shares.sum())]


def _sample(
    rng: np.random.Generator, seed: int, config: WorldsConfig, layout: str, name: str, frames: int
) -> World | None:
    draft = Draft.empty(frames, PLACE_SLOTS)
    light, sun, sky = lighting(rng)
    sun = _between_walls(sun)
    ground, surface = place_ground(rng, layout)
    draft.lay_ground(surface)
    site = Site(rng, draft)
    lay_out(site, layout)
    objects, covered = populate(site, frames, config.fps)
    scene = draft.scene(sun, sky)
    grid = _map(site, covered, config.clearance)
    if grid is None or len(objects) < 8:
        return None
    focal = rng.uniform(0.60, 0.75)
    intrinsics = np.array([focal, focal * config.aspect, 0.5, 0.5])
    for _ in range(_STARTS):
        walker = Walker(
            rng,
            grid,
            _start(rng, grid, scene, intrinsics),
            Pace(rng.uniform(0.5, 0.75), np.radians(rng.uniform(15.0, 22.0))),
            frames,
            config.fps,
            _landmarks(site, scene, objects),
        )
        route = find_route(name, walker)
        if route is not None and _stands(scene, route, intrinsics, config.clearance):
            break
    else:
        return None
    cameras = Cameras(
        route.poses, np.tile(intrinsics, (frames, 1)), np.arange(frames) / config.fps, metric=True
    )
    fixtures = (Fixture(GROUND, "ground", ground), *site.fixtures)
    return World(
        seed, config.fps, scene, cameras, (), name, (), tuple(objects), ground, "", light,
        setting=layout, fixtures=fixtures, returns=route.returns,
    )  # fmt: skip


def _between_walls(sun: np.ndarray) -> np.ndarray:
    """The light of an open scene for one with walls: a higher sun, and more light from below in the shade."""
    direction = sun[0]
    elevation = max(float(np.arcsin(-direction[1])), _LEAST_ELEVATION)
    flat = np.hypot(direction[0], direction[2])
    x, z = direction[[0, 2]] / flat * np.cos(elevation)
    return np.stack([np.array([x, -np.sin(elevation), z]), sun[1], sun[2], 0.85 * sun[2]])


def _map(site: Site, covered: Footprints, clearance: float) -> Map | None:
    west, south = (min(getattr(area, side) for area in site.areas) for side in ("west", "south"))
    east, north = (max(getattr(area, side) for area in site.areas) for side in ("east", "north"))
    return Map.of(site.solid.with_more(covered), clearance + _SLACK, west, east, south, north)


def _start(rng: np.random.Generator, grid: Map, scene: Scene, intrinsics: np.ndarray) -> Stand:
    """A free place, rather in the middle, with objects in view before and behind if a few tries find one."""
    away = np.linalg.norm(grid.cells, axis=1)
    weight = (grid.clearance > grid.keep + 0.15) * np.exp(-0.5 * (away / 4.0) ** 2) + 1e-9
    weight /= weight.sum()
    for _ in range(_STANDS):
        x, z = grid.cells[rng.choice(len(grid.cells), p=weight)]
        yaws = rng.uniform(-np.pi, np.pi, 12)
        ahead = np.array([x, z]) + 2.5 * np.stack([np.sin(yaws), np.cos(yaws)], axis=1)
        yaw = float(yaws[grid.clear(np.array([x, z]), ahead).argmax()])
        stand = Stand(x, z, rng.uniform(1.15, 1.7), yaw, np.radians(rng.uniform(-9.0, -2.0)))
        if _things(scene, stand, 0.0, intrinsics) >= 2 and _things(scene, stand, np.pi, intrinsics) >= 1:
            break
    return stand


def _things(scene: Scene, stand: Stand, turn: float, intrinsics: np.ndarray) -> int:
    """How many objects are seen from a stand, turned by an angle."""
    track = np.array([[stand.x, stand.z, stand.yaw + turn]])
    pose = poses_of(track, stand.height, stand.pitch, np.zeros((1, 4)))[0]
    slots, _ = glance(scene, 0, pose, intrinsics, 8, 14)
    return int((np.bincount(slots[slots >= scene.slots.first_box]) >= 2).sum())


def _landmarks(
    site: Site, scene: Scene, objects: list[WorldObject]
) -> tuple[tuple[float, float, float], ...]:
    """What there is to walk round: (x, z, radius)."""
    still = [item.slot for item in objects if item.motion in ("rest", "spin", "bounce")]
    things = [
        (*scene.position[0, slot, [0, 2]].tolist(), float(np.hypot(*scene.half_size[slot, [0, 2]])))
        for slot in still
    ]
    return (*site.landmarks, *things)


def _stands(scene: Scene, route: Route, intrinsics: np.ndarray, clearance: float) -> bool:
    """Whether a take is clear of everything at all its frames and mostly shows something worth it."""
    things, open_ = [], []
    for t in range(0, len(route.poses), _LOOKS):
        slots, depth = glance(scene, t, route.poses[t], intrinsics)
        counts = np.bincount(slots[slots >= 0], minlength=scene.slots.surfaces)
        things.append((counts[scene.slots.first_box :] >= 2).sum())
        open_.append(np.median(depth) > 1.8)
        if t == 0 and not (things[0] >= 2 and open_[0] and is_clear(scene, route.poses[:, :3, 3], clearance)):
            return False  # soon known of most that fail
    return bool(np.mean(open_) > 0.8 and np.mean(np.array(things) >= 1) > 0.7)
