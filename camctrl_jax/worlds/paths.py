"""Scripted camera paths whose class is known, and whether a path is clear of everything in the scene.

A path is a sum of moves, each over its own window. Translations are along the axes of the first frame's
levelled camera (right, up, forward), so amplitudes and directions are exact; rotations are yaw, pitch and
roll.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from camctrl_jax.worlds.motion import ease
from camctrl_jax.worlds.scene import FIRST_WALL, Move, Scene

# name -> (least, largest) amplitude of scripted paths: metres or degrees.
MOVES: dict[str, tuple[float, float]] = {
    "pan_left": (12.0, 45.0),
    "pan_right": (12.0, 45.0),
    "tilt_up": (4.5, 13.5),
    "tilt_down": (4.5, 13.5),
    "roll_ccw": (3.0, 10.5),
    "roll_cw": (3.0, 10.5),
    "truck_left": (0.75, 2.25),
    "truck_right": (0.75, 2.25),
    "pedestal_up": (0.36, 1.08),
    "pedestal_down": (0.24, 0.84),
    "dolly_in": (0.9, 3.0),
    "dolly_out": (0.9, 2.7),
    "orbit_left": (18.0, 60.0),
    "orbit_right": (18.0, 60.0),
    "arc_left": (12.0, 27.0),
    "arc_right": (12.0, 27.0),
    "curve_left": (18.0, 48.0),
    "curve_right": (18.0, 48.0),
}
ROTATIONS = ("pan_left", "pan_right", "tilt_up", "tilt_down", "roll_ccw", "roll_cw")
TRANSLATIONS = ("truck_left", "truck_right", "pedestal_up", "pedestal_down", "dolly_in", "dolly_out")
SWEEPS = ("orbit_left", "orbit_right", "arc_left", "arc_right", "curve_left", "curve_right")
ARC_PIVOT = 1.8  # an arc goes round a pivot this many times farther away than an orbit's
CURVE_RADIUS = 3.5  # metres, of a curve's circle


@dataclass(frozen=True)
class Start:
    """Where a path begins: camera centre [3] (y down), yaw and pitch in radians, pivot distance of orbits in
    metres."""

    center: np.ndarray
    yaw: float
    pitch: float
    pivot: float


def path_poses(start: Start, moves: tuple[Move, ...], easing: str, frames: int) -> np.ndarray:
    """World-from-camera poses f64 [T, 4, 4] of ``moves`` from ``start``."""
    yaw, pitch, roll = (np.full(frames, value) for value in (start.yaw, start.pitch, 0.0))
    shift = np.zeros((frames, 3))  # right, down, forward of the levelled first camera
    for move in moves:
        span = max(move.stop - move.start, 1e-9)
        progress = move.amplitude * ease((np.arange(frames) - move.start) / span, easing)
        kind, way = move.name.split("_")
        sign = -1.0 if way in ("left", "down", "out", "ccw") else 1.0
        if kind == "truck":
            shift[:, 0] += sign * progress
        elif kind == "pedestal":
            shift[:, 1] -= sign * progress
        elif kind == "dolly":
            shift[:, 2] += sign * progress
        else:
            angle = np.radians(sign * progress)
            if kind == "pan":
                yaw += angle
            elif kind == "tilt":
                pitch += angle
            elif kind == "roll":
                roll += angle
            elif kind in ("orbit", "arc"):  # the camera goes right and turns left: the pivot stays in place
                pivot = start.pivot * (ARC_PIVOT if kind == "arc" else 1.0)
                yaw -= angle
                shift[:, 0] += pivot * np.sin(angle)
                shift[:, 2] += pivot * (1.0 - np.cos(angle))
            else:  # curve: forward along a circle, looking along it
                yaw += angle
                shift[:, 0] += sign * CURVE_RADIUS * (1.0 - np.cos(angle))
                shift[:, 2] += CURVE_RADIUS * np.sin(np.abs(angle))
    poses = np.zeros((frames, 4, 4))
    cy, sy, cp, sp, cr, sr = (
        np.cos(yaw),
        np.sin(yaw),
        np.cos(pitch),
        np.sin(pitch),
        np.cos(roll),
        np.sin(roll),
    )
    right = np.stack([cy, np.zeros(frames), -sy], axis=1)
    down = np.stack([sy * sp, cp, cy * sp], axis=1)
    poses[:, :3, 0] = cr[:, None] * right + sr[:, None] * down
    poses[:, :3, 1] = cr[:, None] * down - sr[:, None] * right
    poses[:, :3, 2] = np.stack([sy * cp, -sp, cy * cp], axis=1)
    cos, sin = np.cos(start.yaw), np.sin(start.yaw)
    poses[:, 0, 3] = start.center[0] + cos * shift[:, 0] + sin * shift[:, 2]
    poses[:, 1, 3] = start.center[1] + shift[:, 1]
    poses[:, 2, 3] = start.center[2] - sin * shift[:, 0] + cos * shift[:, 2]
    poses[:, 3, 3] = 1.0
    return poses


def path_class(moves: tuple[Move, ...]) -> str:
    """The path's class: names joined by '+' when together, by ' then ' when one window follows another."""
    if not moves:
        return "static"
    stages: list[list[Move]] = []
    for move in sorted(moves, key=lambda move: (move.start, move.name)):
        if stages and move.start < max(other.stop for other in stages[-1]) - 1e-9:
            stages[-1].append(move)
        else:
            stages.append([move])
    return " then ".join("+".join(sorted(move.name for move in stage)) for stage in stages)


def _amplitude(rng: np.random.Generator, name: str, share: float) -> float:
    least, largest = MOVES[name]
    return round(rng.uniform(least, largest) * share, 3)


def sample_moves(rng: np.random.Generator, frames: int) -> tuple[tuple[Move, ...], str]:
    """Random moves and their easing. Most paths combine a translation and a rotation; one in twenty-five
    rests."""
    last = frames - 1
    kind = rng.random()
    if kind < 0.04 or last < 1:
        return (), "linear"
    easing = ("linear", "smooth", "smooth", "out", "in")[rng.integers(5)]

    def move(name: str, start: float = 0.0, stop: float = last, share: float = 1.0) -> Move:
        return Move(name, _amplitude(rng, name, share), start, stop)

    def pick(names: tuple[str, ...]) -> str:
        return names[rng.integers(len(names))]

    def rotation_with(translation: str) -> str:
        # A truck or an orbit is mostly joined by the pan that keeps the scene in view.
        if translation.startswith("truck") and rng.random() < 0.6:
            return "pan_left" if translation.endswith("right") else "pan_right"
        if translation.startswith("pedestal") and rng.random() < 0.6:
            return "tilt_down" if translation.endswith("up") else "tilt_up"
        return pick(("pan_left", "pan_right", "pan_left", "pan_right", *ROTATIONS))

    if kind < 0.24:  # one move
        return (move(pick((*TRANSLATIONS, *TRANSLATIONS, "pan_left", "pan_right", *SWEEPS))),), easing
    if kind < 0.36:  # a sweep, with something slight
        extra = pick(
            ("pedestal_up", "pedestal_down", "dolly_in", "tilt_up", "tilt_down", "roll_ccw", "roll_cw")
        )
        return (move(pick(SWEEPS)), move(extra, share=0.6)), easing
    if kind < 0.66:  # translation and rotation
        translation = pick(TRANSLATIONS)
        return (move(translation), move(rotation_with(translation))), easing
    if kind < 0.82:  # two translations and a rotation
        first = pick(("dolly_in", "dolly_in", "dolly_out"))
        second = pick(("truck_left", "truck_right", "pedestal_up", "pedestal_down"))
        moves = [move(first, share=0.85), move(second, share=0.85), move(rotation_with(second), share=0.85)]
        return tuple(moves), easing
    if kind < 0.92:  # one after the other
        turn = round(last * rng.uniform(0.35, 0.65), 1)
        first = pick(TRANSLATIONS)
        second = pick(
            tuple(n for n in (*TRANSLATIONS, *ROTATIONS[:4]) if n.split("_")[0] != first.split("_")[0])
        )
        return (move(first, 0.0, turn, 0.75), move(second, turn, last, 0.75)), "smooth"
    moves = []  # free: four moves in overlapping windows
    kinds = [
        ("truck_left", "truck_right"),
        ("dolly_in", "dolly_out"),
        ("pan_left", "pan_right"),
        ("tilt_up", "tilt_down"),
        ("pedestal_up", "pedestal_down"),
    ]
    for index in rng.permutation(len(kinds))[:4]:
        start = last * rng.uniform(0.0, 0.4)
        moves.append(
            move(pick(kinds[index]), round(start, 1), round(rng.uniform(start + 0.5 * last, last), 1), 0.8)
        )
    return tuple(moves), "smooth"


def surface_distance(scene: Scene, centers: np.ndarray) -> np.ndarray:
    """Distance [T] of camera centres f64 [T, 3] to the nearest surface, negative inside or under ground.

    Objects are taken at their place of the same frame and at that of frame 0, so that the path is also clear
    when the objects are held at rest.
    """
    present = np.flatnonzero(scene.half_size[FIRST_WALL:, 0] > 0) + FIRST_WALL
    nearest = -centers[:, 1]
    for held in (False, True):
        distance = solid_distances(scene, centers, present, held)
        nearest = np.minimum(nearest, distance.min(axis=1, initial=np.inf))
    return nearest


def solid_distances(scene: Scene, centers: np.ndarray, slots: np.ndarray, held: bool = False) -> np.ndarray:
    """Distance [T, K] of camera centres f64 [T, 3] to the surfaces of solids of slots [K], negative inside.

    ``held``: solids are where they are at frame 0, else where they are at the frame of each centre.
    """
    frames = len(centers)
    times = slice(0, 1) if held else slice(0, frames)
    offset = centers[:, None] - scene.position[times][:, slots]
    rotation = np.broadcast_to(scene.rotation[times][:, slots], (frames, len(slots), 3, 3))
    return _outside(scene, slots, np.einsum("tsij,tsi->tsj", rotation, offset))


def _outside(scene: Scene, slots: np.ndarray, local: np.ndarray) -> np.ndarray:
    """Distance [..., K] of points f64 [..., K, 3] in solids' own axes to their surfaces, negative inside."""
    half = scene.half_size[slots].astype(np.float64)
    outside = np.abs(local) - half
    box = np.linalg.norm(np.maximum(outside, 0.0), axis=-1) + np.minimum(outside.max(axis=-1), 0.0)
    sphere = np.linalg.norm(local, axis=-1) - half[:, 0]
    ring = np.stack([np.hypot(local[..., 0], local[..., 2]) - half[:, 0], outside[..., 1]], axis=-1)
    cylinder = np.linalg.norm(np.maximum(ring, 0.0), axis=-1) + np.minimum(ring.max(axis=-1), 0.0)
    round_ones = np.where(slots < scene.slots.first_cylinder, sphere, cylinder)
    return np.where(slots < scene.slots.first_sphere, box, round_ones)


def is_clear(scene: Scene, centers: np.ndarray, clearance: float) -> bool:
    """Whether ``surface_distance`` is at least ``clearance`` everywhere, for less than it costs.

    Only solids whose bounding ball comes near are measured, and first at every eighth frame.
    """
    if -centers[:, 1].max() < clearance:
        return False
    present = np.flatnonzero(scene.half_size[FIRST_WALL:, 0] > 0) + FIRST_WALL
    moving = scene.moving[:, present].any(axis=0)
    reach = np.linalg.norm(scene.half_size[present].astype(np.float64), axis=1) + clearance
    still = scene.position[0, present[~moving]]
    for step in (8, 1):
        times = np.arange(0, len(centers), step)
        few = centers[times]
        for slots, bound, places in (
            (present[~moving], reach[~moving], still),
            (present[moving], reach[moving], scene.position[np.ix_(times, present[moving])]),
            (present[moving], reach[moving], scene.position[0, present[moving]]),
        ):
            offset = few[:, None] - places
            t, k = np.nonzero(np.square(offset).sum(axis=-1) < bound * bound)
            when = times[t] if places.ndim == 3 else np.zeros_like(t)
            local = np.einsum("nij,ni->nj", scene.rotation[when, slots[k]], offset[t, k])
            if (_outside(scene, slots[k], local) < clearance).any():
                return False
    return True


def project(poses: np.ndarray, intrinsics: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(u, v, z) of world points: poses [..., 4, 4], points [..., 3]; u, v are fractions of the image."""
    local = np.einsum("...ij,...i->...j", poses[..., :3, :3], points - poses[..., :3, 3])
    z = np.where(np.abs(local[..., 2]) < 1e-9, 1e-9, local[..., 2])
    u = intrinsics[..., 0] * local[..., 0] / z + intrinsics[..., 2]
    v = intrinsics[..., 1] * local[..., 1] / z + intrinsics[..., 3]
    return np.stack([u, v, local[..., 2]], axis=-1)
