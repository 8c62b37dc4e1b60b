"""How an object moves: places and turns over time, relative to where it starts.

A motion has a window. Before and after it the object rests exactly: poses of neighbouring frames are equal,
so the motion mask is false there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from camctrl_jax.errors import InvalidValue

MOTIONS = ("rest", "slide", "return", "bounce", "orbit", "spin")


@dataclass(frozen=True)
class Motion:
    """Motion of one object over T + 1 frames, starting from its place and turn at frame 0."""

    kind: str
    shift: np.ndarray  # f64 [T+1, 3] metres, y down
    yaw: np.ndarray  # f64 [T+1] radians about the vertical, positive to the right seen from above
    roll: np.ndarray  # f64 [T+1] radians about ``axle``: a rolling ball
    axle: np.ndarray  # f64 [3] unit
    pauses: bool  # starts late or stops early


def ease(u: np.ndarray, kind: str) -> np.ndarray:
    """Progress 0 to 1 for time ``u`` (clipped to 0..1): 'linear', 'smooth', 'in' or 'out'. Exact at both
    ends."""
    u = np.clip(u, 0.0, 1.0)
    if kind == "linear":
        return u
    if kind == "smooth":
        return u * u * (3.0 - 2.0 * u)
    if kind == "in":
        return u * u
    if kind == "out":
        return u * (2.0 - u)
    raise InvalidValue(f"unknown easing {kind!r}; expected 'linear', 'smooth', 'in' or 'out'")


def _window(rng: np.random.Generator, frames: int) -> tuple[np.ndarray, float, bool]:
    """(time 0..1 over the window at T + 1 frames, the window's share of the clip, whether it leaves a
    rest)."""
    start, stop = 0.0, 1.0
    pauses = bool(rng.random() < 0.45)
    if pauses:
        which = rng.integers(3)
        if which != 1:
            start = rng.uniform(0.15, 0.4)
        if which != 0:
            stop = rng.uniform(0.6, 0.85)
    first, last = round(start * frames), max(round(stop * frames), round(start * frames) + 1)
    u = np.clip((np.arange(frames + 1) - first) / (last - first), 0.0, 1.0)
    return u, (last - first) / frames, pauses


def sample_motion(
    rng: np.random.Generator, kind: str, shape: str, size: float, frames: int, fps: float
) -> Motion:
    """A random motion of ``kind`` for an object of ``shape`` ('box', 'sphere', 'cylinder') and radius
    ``size``."""
    shift, yaw, roll = np.zeros((frames + 1, 3)), np.zeros(frames + 1), np.zeros(frames + 1)
    axle = np.array([1.0, 0.0, 0.0])
    if kind == "rest":
        return Motion(kind, shift, yaw, roll, axle, False)
    u, share, pauses = _window(rng, frames)
    seconds = max(share * frames / fps, 1.0 / fps)
    sign = rng.choice([-1.0, 1.0])
    if kind in ("slide", "return"):
        heading = rng.uniform(-np.pi, np.pi)
        if rng.random() < 0.6:  # mostly across the view: seen better than along it
            heading = (0.5 if sign > 0 else -0.5) * np.pi + rng.normal(0.0, 0.35)
        way = np.array([np.sin(heading), 0.0, np.cos(heading)])
        distance = min(rng.uniform(0.25, 0.6) * seconds, 2.2)
        if kind == "slide":
            progress = ease(u, "smooth" if rng.random() < 0.5 else "linear")
        else:
            progress = 0.5 - 0.5 * np.cos(2.0 * np.pi * u)
            progress[u >= 1.0] = 0.0  # exactly back
        travelled = distance * progress
        shift = travelled[:, None] * way
        if shape == "sphere":  # rolls without slipping; y is down, so the axle points to the right of the way
            roll, axle = -travelled / size, np.array([way[2], 0.0, -way[0]])
    elif kind == "bounce":
        bounces = max(1, round(seconds * rng.uniform(0.8, 1.3)))
        phase = (u * bounces) % 1.0
        shift[:, 1] = -rng.uniform(0.35, 0.9) * 4.0 * phase * (1.0 - phase)
        if rng.random() < 0.4:
            distance = rng.uniform(0.15, 0.35) * seconds
            shift[:, 0] = sign * distance * u
    elif kind == "orbit":
        radius = rng.uniform(0.4, 0.9)
        start = rng.uniform(-np.pi, np.pi)
        angle = start + sign * min(rng.uniform(0.5, 1.1) * seconds, 2.0 * np.pi) * ease(u, "smooth")
        shift[:, 0] = radius * (np.sin(angle) - np.sin(start))
        shift[:, 2] = radius * (np.cos(angle) - np.cos(start))
        yaw = angle - start
    elif kind == "spin":
        yaw = sign * rng.uniform(0.35, 0.9) * seconds * ease(u, "smooth" if rng.random() < 0.5 else "linear")
    else:
        raise InvalidValue(f"unknown motion {kind!r}; expected one of {MOTIONS}")
    return Motion(kind, shift, yaw, roll, axle, pauses)


def rotations(yaw: np.ndarray, axle: np.ndarray, roll: np.ndarray) -> np.ndarray:
    """Rotations [T, 3, 3]: first the turn ``yaw`` about the vertical, then ``roll`` about the fixed
    ``axle``."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    turn = np.zeros((len(yaw), 3, 3))
    turn[:, 0, 0] = turn[:, 2, 2] = cos
    turn[:, 0, 2], turn[:, 2, 0] = sin, -sin
    turn[:, 1, 1] = 1.0
    if not np.any(roll):
        return turn
    x, y, z = axle
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    rolled = (
        np.eye(3)
        + np.sin(roll)[:, None, None] * cross
        + (1.0 - np.cos(roll))[:, None, None] * (cross @ cross)
    )
    return rolled @ turn
