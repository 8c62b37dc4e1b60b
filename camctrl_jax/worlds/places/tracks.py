"""Camera tracks: ways on the ground with a gaze, told in time, and the poses that follow.

A track begins and ends at rest at exactly the poses that it was given, so that tracks join, and what returns
returns to the very same pose.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import correlate1d

_STEP = 0.04  # metres between points of a way
_ROUND = 0.55  # metres over which corners are rounded, to each side
_TURN_STEP = np.radians(1.0)
_RAMP = 8.0 / 12.0  # seconds from rest to full speed, and back, unless a leg is short
_SMOOTH = 2.5 / 12.0  # seconds, standard deviation of the Gaussian that makes changes of speed soft


@dataclass(frozen=True)
class Stand:
    """A camera that stands: (x, z) in metres, height of the eye, yaw and pitch in radians."""

    x: float
    z: float
    height: float
    yaw: float
    pitch: float

    @property
    def point(self) -> np.ndarray:
        return np.array([self.x, self.z])


@dataclass(frozen=True)
class Pace:
    """How fast a camera goes, metres a second, and turns, radians a second."""

    speed: float
    turn: float


@dataclass(frozen=True, eq=False)
class Leg:
    """Dense points [N, 3] (x, z, yaw) of a way from one stand to another, and the seconds [N] they take."""

    points: np.ndarray
    seconds: np.ndarray

    @property
    def duration(self) -> float:
        return float(self.seconds[-1])


def turn_by(start: float, angle: float) -> np.ndarray:
    """Yaws of a turn on the spot, both ends included."""
    return start + np.linspace(0.0, angle, max(2, int(abs(angle) / _TURN_STEP)))


def shortest(angle: float) -> float:
    """The same angle between -180 and 180 degrees."""
    return float((angle + np.pi) % (2.0 * np.pi) - np.pi)


def walk(points: np.ndarray, start: float | None, stop: float | None, pace: Pace) -> Leg:
    """A way through points [N, 2], looking ahead along it.

    ``start`` and ``stop`` are yaws from which and to which the camera turns at its ends; None: none.
    """
    line = rounded(points)
    ahead, behind = max(1, int(0.9 / _STEP)), max(1, int(0.3 / _STEP))
    index = np.arange(len(line))
    way = line[np.minimum(index + ahead, len(line) - 1)] - line[np.maximum(index - behind, 0)]
    yaw = np.unwrap(np.arctan2(way[:, 0], way[:, 1]))
    xz = line
    if start is not None:
        turn = yaw[0] + turn_by(shortest(start - yaw[0]), -shortest(start - yaw[0]))
        xz, yaw = np.concatenate([np.repeat(xz[:1], len(turn), 0), xz]), np.concatenate([turn, yaw])
    if stop is not None:
        turn = turn_by(yaw[-1], shortest(stop - yaw[-1]))
        xz, yaw = np.concatenate([xz, np.repeat(xz[-1:], len(turn), 0)]), np.concatenate([yaw, turn])
    return timed(np.concatenate([xz, yaw[:, None]], axis=1), pace)


def timed(points: np.ndarray, pace: Pace) -> Leg:
    """Points [N, 3] (x, z, yaw) with the seconds that they take: a turn slows the walk."""
    steps = np.diff(points, axis=0)
    seconds = np.hypot(np.hypot(steps[:, 0], steps[:, 1]) / pace.speed, steps[:, 2] / pace.turn)
    return Leg(points, np.concatenate([[0.0], np.cumsum(seconds)]))


def rounded(points: np.ndarray) -> np.ndarray:
    """A polyline [N, 2] sampled densely, with round corners and the same ends."""
    lengths = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    at = np.linspace(0.0, lengths[-1], max(3, int(lengths[-1] / _STEP)))
    line = np.stack([np.interp(at, lengths, points[:, i]) for i in range(2)], axis=1)
    width = min(int(_ROUND / _STEP), (len(line) - 1) // 2)
    for _ in range(2):
        line = _smoothed(line, np.full(2 * (width // 2) + 1, 1.0))
    return line


def _smoothed(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Moving averages [N, ...] with both ends held: beyond them the values go on as if turned about the
    end."""
    reach = len(weights) // 2
    if reach == 0:
        return values
    before, after = 2 * values[:1] - values[reach:0:-1], 2 * values[-1:] - values[-2 : -reach - 2 : -1]
    padded = np.concatenate([before, values, after])
    out = correlate1d(padded, weights / weights.sum(), axis=0)[reach:-reach]
    out[0], out[-1] = values[0], values[-1]
    return out


def in_time(leg: Leg, frames: int, fps: float) -> np.ndarray:
    """(x, z, yaw) f64 [frames, 3] of a leg, at rest at both ends: it starts and stops within ``_RAMP``."""
    if frames == 1:
        return leg.points[:1].copy()
    u = np.linspace(0.0, 1.0, frames)
    ramp = min(0.3, _RAMP * fps / (frames - 1))  # share of the time to reach full speed
    full = 1.0 / (1.0 - ramp)
    progress = np.where(
        u < ramp,
        0.5 * full * u * u / ramp,
        np.where(u > 1.0 - ramp, 1.0 - 0.5 * full * (1.0 - u) ** 2 / ramp, full * (u - 0.5 * ramp)),
    )
    values = np.stack(
        [np.interp(progress * leg.duration, leg.seconds, leg.points[:, i]) for i in range(3)], 1
    )
    width = _SMOOTH * fps
    reach = min(round(2.4 * width), (frames - 1) // 2)
    values = _smoothed(values, np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2))
    values[0], values[-1] = leg.points[0], leg.points[-1]
    return values


def sway(rng: np.random.Generator, frames: int, seconds: float) -> np.ndarray:
    """Slow changes of (gaze, pitch, roll, height) f64 [frames, 4], zero at both ends; radians and metres."""
    u = np.linspace(0.0, 1.0, frames)
    envelope = np.minimum(1.0, 6.0 * np.minimum(u, 1.0 - u))
    envelope = envelope * envelope * (3.0 - 2.0 * envelope)
    most = np.array([np.radians(16.0), np.radians(5.0), np.radians(2.5), 0.15]) * rng.uniform(0.0, 1.0, 4)
    cycles = rng.uniform(0.05, 0.11, 4) * seconds
    return envelope[:, None] * most * np.sin(2.0 * np.pi * (u[:, None] * cycles + rng.random(4)))


def poses_of(track: np.ndarray, height: float, pitch: float, swaying: np.ndarray) -> np.ndarray:
    """World-from-camera f64 [T, 4, 4] of (x, z, yaw) [T, 3] at a height, with the sway added."""
    yaw, tilt, roll = track[:, 2] + swaying[:, 0], pitch + swaying[:, 1], swaying[:, 2]
    cy, sy, cp, sp, cr, sr = (f(a) for a in (yaw, tilt, roll) for f in (np.cos, np.sin))
    right = np.stack([cy, np.zeros_like(cy), -sy], axis=1)
    down = np.stack([sy * sp, cp, cy * sp], axis=1)
    poses = np.zeros((len(track), 4, 4))
    poses[:, :3, 0] = cr[:, None] * right + sr[:, None] * down
    poses[:, :3, 1] = cr[:, None] * down - sr[:, None] * right
    poses[:, :3, 2] = np.stack([sy * cp, -sp, cy * cp], axis=1)
    poses[:, 0, 3], poses[:, 2, 3] = track[:, 0], track[:, 1]
    poses[:, 1, 3] = -height - swaying[:, 3]
    poses[:, 3, 3] = 1.0
    return poses
