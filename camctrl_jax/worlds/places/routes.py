"""Routes through a place: ways of many clips, and which of their frames come back to the very same pose.

* clips: moves of single clips one after the other, each of about four seconds;
* wander: on and on, through places not seen before;
* out_and_back: some way, and the same poses in reverse;
* there_and_back: some way, a turn, the way back, a turn: the first pose again;
* detour: A, B, C and B again;
* loop: to the first pose again by another way;
* around: once round a thing, looking at it;
* turn: 360 degrees on the spot, twice when there is time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from camctrl_jax.worlds.paths import Start, path_poses, sample_moves
from camctrl_jax.worlds.places.navigation import Map
from camctrl_jax.worlds.places.site import RING
from camctrl_jax.worlds.places.tracks import (
    Leg,
    Pace,
    Stand,
    in_time,
    poses_of,
    shortest,
    sway,
    timed,
    turn_by,
    walk,
)

LEAST_FRAMES = {
    "clips": 1,
    "wander": 25,
    "out_and_back": 25,
    "there_and_back": 289,
    "detour": 241,
    "loop": 337,
    "around": 289,
    "turn": 217,
}
"""Frames that a route needs at the usual twelve a second."""

_CLIP = 4.0  # seconds of one clip of a route of clips
_TRIES = 6
_LEAST_LEG = 8.0 / 12.0  # seconds
_HASTE, _IDLE = 1.3, 0.5  # a way takes between these times the seconds there are


@dataclass(frozen=True, eq=False)
class Route:
    """Poses f64 [T, 4, 4] and the frames (earlier, later) at which they are the very same."""

    poses: np.ndarray
    returns: tuple[tuple[int, int], ...]


@dataclass(frozen=True, eq=False)
class Walker:
    """What finding a route needs: where one can go, from where, and for how long."""

    rng: np.random.Generator
    map: Map
    start: Stand
    pace: Pace
    frames: int
    fps: float
    landmarks: tuple[tuple[float, float, float], ...]

    @property
    def seconds(self) -> float:
        return (self.frames - 1) / self.fps

    def fits(self, leg: Leg, seconds: float) -> bool:
        """Whether the leg can be gone in that time at about the walker's pace."""
        return _IDLE * seconds < leg.duration < _HASTE * seconds

    def posed(self, tracks: list[np.ndarray], quiet: bool = False) -> np.ndarray:
        """Poses of tracks that follow one another: the last frame of each is the first of the next."""
        stand, poses = self.start, []
        for number, track in enumerate(tracks):
            changes = sway(self.rng, len(track), len(track) / self.fps) * (0.25 if quiet else 1.0)
            part = poses_of(track, stand.height, stand.pitch, changes)
            poses.append(part if number == 0 else part[1:])
        return np.concatenate(poses)


def find_route(name: str, walker: Walker) -> Route | None:
    """A route of this name from where the walker stands; None where this try found none."""
    return {
        "clips": _clips,
        "wander": _wander,
        "out_and_back": _out_and_back,
        "there_and_back": _there_and_back,
        "detour": _detour,
        "loop": _loop,
        "around": _around,
        "turn": _turn,
    }[name](walker)


def _far(walker: Walker, cost: np.ndarray, least: float, most: float) -> int | None:
    """A cell whose way costs between ``least`` and ``most`` metres; the far ones are liked best."""
    found = np.flatnonzero((cost >= least) & (cost <= most) & (walker.map.clearance > walker.map.keep + 0.1))
    if len(found) == 0:
        return None
    weight = cost[found] ** 2
    return int(walker.rng.choice(found, p=weight / weight.sum()))


def _reach(walker: Walker, seconds: float) -> tuple[float, float]:
    """Least and largest cost of a way that takes about so long, with its turns."""
    metres = walker.pace.speed * seconds
    return 0.45 * metres, 1.0 * metres


def _clips(walker: Walker) -> Route | None:
    poses = _chained(walker, walker.frames)
    return None if poses is None else Route(poses, ())


def _chained(walker: Walker, frames: int) -> np.ndarray | None:
    """Poses of clips one after the other, each with the moves of a single-clip path."""
    rng, here = walker.rng, walker.start
    poses = [poses_of(np.array([[here.x, here.z, here.yaw]]), here.height, here.pitch, np.zeros((1, 4)))]
    left, clip = frames - 1, max(1, round(_CLIP * walker.fps))
    while left > 0:
        length = left if left < 1.5 * clip else clip
        for _ in range(24):
            moves, easing = sample_moves(rng, length + 1)
            if not moves or any(move.name.startswith("roll") for move in moves):
                continue
            center = np.array([here.x, -here.height, here.z])
            part = path_poses(
                Start(center, here.yaw, here.pitch, rng.uniform(3.0, 5.0)), moves, easing, length + 1
            )
            last = part[-1]
            level = abs(np.arcsin(np.clip(-last[1, 2], -1.0, 1.0))) < np.radians(14.0)
            heights = -part[:, 1, 3]
            if not (level and heights.min() > 0.8 and heights.max() < 2.1):
                continue
            if walker.map.apart(part[:, [0, 2], 3]).all():
                break
        else:
            return None
        poses.append(part[1:])
        here = Stand(
            last[0, 3],
            last[2, 3],
            -last[1, 3],
            float(np.arctan2(-last[2, 0], last[0, 0])),
            float(np.arcsin(-last[1, 2])),
        )
        left -= length
    return np.concatenate(poses)


def _wander(walker: Walker) -> Route | None:
    leg = _ramble(walker, walker.seconds)
    return None if leg is None else Route(walker.posed([in_time(leg, walker.frames, walker.fps)]), ())


def _ramble(walker: Walker, seconds: float) -> Leg | None:
    """A way that takes about so long, from far place to far place, away from where it was before."""
    grid, points = walker.map, [walker.start.point[None]]
    at = grid.nearest_cell(walker.start.point)
    dear = np.ones(len(grid.cells))
    for _ in range(8):
        cost, before = grid.ways(at, dear)
        goal = _far(walker, cost, 1.0, max(2.0, min(1.2 * walker.pace.speed * seconds, 14.0)))
        if goal is None:
            return None
        points.append(grid.way(before, goal)[1:])
        gone = np.concatenate(points)
        leg = walk(gone, walker.start.yaw, None, walker.pace)
        if leg.duration > 0.75 * seconds:
            return leg if walker.fits(leg, seconds) else None
        near = np.linalg.norm(grid.cells[:, None] - points[-1][None], axis=-1).min(axis=1) < 1.5
        dear = dear + 2.0 * near
        at = goal
    return None


def _out_and_back(walker: Walker) -> Route | None:
    last = walker.frames - 1
    out = last // 2 + 1
    if walker.rng.random() < 0.4:
        poses = _chained(walker, out)
        if poses is None:
            return None
    else:
        leg = _ramble(walker, (out - 1) / walker.fps)
        if leg is None:
            return None
        poses = walker.posed([in_time(leg, out, walker.fps)])
    index = np.minimum(np.arange(walker.frames), last - np.arange(walker.frames))
    early = [t for t in range(0, out - round(walker.fps), 8) if _is_left(poses, t)]
    pairs = [(t, last - t) for t in early] or [(0, last)]
    return Route(poses[index], tuple(pairs))


def _is_left(poses: np.ndarray, frame: int) -> bool:
    """Whether later poses are elsewhere than that of ``frame``, or look elsewhere."""
    gone = np.linalg.norm(poses[frame:, :3, 3] - poses[frame, :3, 3], axis=1).max()
    return bool(gone > 0.5 or (poses[frame:, :3, 2] @ poses[frame, :3, 2]).min() < np.cos(np.pi / 4))


def _there_and_back(walker: Walker) -> Route | None:
    half = walker.frames // 2
    grid = walker.map
    cost, before = grid.ways(grid.nearest_cell(walker.start.point))
    goal = _far(walker, cost, *_reach(walker, 0.8 * half / walker.fps))
    if goal is None:
        return None
    way = np.concatenate([walker.start.point[None], grid.way(before, goal)[1:]])
    there = walk(way, walker.start.yaw, None, walker.pace)
    back = walk(way[::-1], there.points[-1, 2], walker.start.yaw, walker.pace)
    return _joined(walker, [there, back], ((0, 2),))


def _detour(walker: Walker) -> Route | None:
    """A to B, on to C, and to B again, by another way where there is one; nearer ones where time is short."""
    grid, third = walker.map, walker.seconds / 3.2
    here, from_here = grid.ways(grid.nearest_cell(walker.start.point))
    for share in (1.0, 0.75, 0.55):
        b = _far(walker, here, *_reach(walker, share * third))
        if b is None:
            return None
        first = np.concatenate([walker.start.point[None], grid.way(from_here, b)[1:]])
        cost, before = grid.ways(b, 1.0 + 3.0 * _near(grid, first, 1.2))
        c = _far(walker, cost, *_reach(walker, share * third))
        if c is None:
            return None
        second = grid.way(before, c)
        third_way = _other_way(grid, c, b, second)
        legs = [walk(first, walker.start.yaw, None, walker.pace)]
        legs.append(walk(second, legs[0].points[-1, 2], None, walker.pace))
        legs.append(walk(third_way, legs[1].points[-1, 2], legs[0].points[-1, 2], walker.pace))
        route = _joined(walker, legs, ((1, 3),))
        if route is not None:
            return route
    return None


def _loop(walker: Walker) -> Route | None:
    """There by one way and back by another, apart by more than a body's width for most of it."""
    grid = walker.map
    at = grid.nearest_cell(walker.start.point)
    cost, before = grid.ways(at)
    for _ in range(_TRIES):
        goal = _far(walker, cost, *_reach(walker, 0.6 * walker.seconds))
        if goal is None:
            return None
        there = grid.way(before, goal)
        back = _other_way(grid, goal, at, there)
        apart = np.linalg.norm(_dense(back)[:, None] - _dense(there)[None], axis=-1).min(axis=1)
        if apart.max() < 1.8:
            continue
        points = np.concatenate([walker.start.point[None], there[1:], back[1:-1], walker.start.point[None]])
        leg = walk(points, walker.start.yaw, walker.start.yaw, walker.pace)
        if walker.fits(leg, walker.seconds):
            return _joined(walker, [leg], ((0, 1),))
    return None


def _dense(points: np.ndarray) -> np.ndarray:
    steps = [np.linspace(a, b, 12, endpoint=False) for a, b in zip(points[:-1], points[1:], strict=True)]
    return np.concatenate([*steps, points[-1:]])


def _near(grid: Map, points: np.ndarray, reach: float) -> np.ndarray:
    """Bool [C]: cells near a way, but not near its ends."""
    line = _dense(points)
    near = np.linalg.norm(grid.cells[:, None] - line[None], axis=-1).min(axis=1) < reach
    for end in (points[0], points[-1]):
        near &= np.linalg.norm(grid.cells - end, axis=1) > 0.8
    return near


def _other_way(grid: Map, start: int, stop: int, first: np.ndarray) -> np.ndarray:
    """A way between two cells that avoids another one where it can."""
    _, before = grid.ways(start, 1.0 + 8.0 * _near(grid, first, 1.3))
    return grid.way(before, stop, ahead=6)  # drawn tighter, it would be the first way again


def _around(walker: Walker) -> Route | None:
    """Once round a landmark, looking at it all the way. The walker starts beside it."""
    rng = walker.rng
    if not walker.landmarks:
        return None
    for index in rng.permutation(len(walker.landmarks)):
        x, z, radius = walker.landmarks[index]
        ring = radius + rng.uniform(*RING)
        sign = rng.choice([-1.0, 1.0])
        angle = rng.uniform(-np.pi, np.pi) + sign * np.linspace(0.0, 2.0 * np.pi, 240)
        points = np.stack([x + ring * np.sin(angle), z + ring * np.cos(angle)], axis=1)
        points[-1] = points[0]
        leg = timed(np.concatenate([points, (angle + np.pi)[:, None]], axis=1), walker.pace)
        if walker.fits(leg, walker.seconds) and walker.map.inside(points):
            return _joined(walker, [leg], ((0, 1),), quiet=True)
    return None


def _turn(walker: Walker) -> Route | None:
    """Round on the spot, or on a small circle, once or twice."""
    rng, start = walker.rng, walker.start
    turns = 2 if walker.seconds > 28.0 else 1
    sign, radius = rng.choice([-1.0, 1.0]), rng.choice([0.0, 0.25])
    yaw = turn_by(start.yaw, sign * 2.0 * np.pi)
    points = np.stack(
        [
            start.x + radius * sign * (np.cos(start.yaw) - np.cos(yaw)),
            start.z + radius * sign * (np.sin(yaw) - np.sin(start.yaw)),
            yaw,
        ],
        axis=1,
    )
    points[-1, :2] = points[0, :2]
    leg = timed(points, Pace(walker.pace.speed, walker.pace.turn * 0.8))
    again = Leg(points + np.array([0.0, 0.0, sign * 2.0 * np.pi]), leg.seconds)
    legs = [leg, again][:turns]
    return _joined(walker, legs, tuple((0, k + 1) for k in range(turns)))


def _joined(
    walker: Walker, legs: list[Leg], same: tuple[tuple[int, int], ...], quiet: bool = False
) -> Route | None:
    """The route of legs that share the time by their durations; ``same`` are joints of equal pose."""
    total = sum(leg.duration for leg in legs)
    if not _IDLE * walker.seconds < total < _HASTE * walker.seconds:
        return None
    ends = np.round(np.cumsum([leg.duration for leg in legs]) / total * (walker.frames - 1)).astype(int)
    joints = [0, *ends.tolist()]
    if min(np.diff(joints)) < _LEAST_LEG * walker.fps:
        return None
    tracks = [in_time(leg, n + 1, walker.fps) for leg, n in zip(legs, np.diff(joints), strict=True)]
    poses = walker.posed(tracks, quiet=quiet)
    for first, later in same:
        if abs(shortest(tracks[later - 1][-1, 2] - _yaw_at(tracks, first))) > 1e-6:
            return None
        poses[joints[later]] = poses[joints[first]]  # but for rounding, it is
    return Route(poses, tuple((joints[first], joints[later]) for first, later in same))


def _yaw_at(tracks: list[np.ndarray], joint: int) -> float:
    return tracks[0][0, 2] if joint == 0 else tracks[joint - 1][-1, 2]
