"""Camera moves in the words of film, with amplitudes in metres and degrees, and the paths they make.

A path is a sequence of stages; the moves of one stage happen together. Directions follow the set:

* the vertical is that of the first camera, which is taken to stand level;
* ``pan`` turns about the vertical and ``pedestal`` rises along it, so the horizon stays level;
* ``truck``, ``dolly``, ``tilt`` and ``roll`` use the camera's own axes at the start of the stage: the track
  is laid where the camera looks, and panning on the way does not bend it;
* an orbit carries the rig around a subject straight ahead of the camera at the start of the stage, and
  carries the track with it: "orbit left 90 deg while dollying in 1 m" is a spiral towards the subject.

Rolling clockwise is as seen from behind the camera; the picture then turns anticlockwise.

By code::

    path_of([Stage((Travel(forward=1.5),)), Stage((Turn(pan=-40), Travel(up=0.3)), seconds=2)], frames=49)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from camctrl_jax.camera import rotations
from camctrl_jax.camera.cameras import Cameras
from camctrl_jax.camera.interpolation import easing_function
from camctrl_jax.camera.intrinsics import DEFAULT_INTRINSICS
from camctrl_jax.errors import InvalidValue

SUBJECT_DISTANCE = 3.0
"""Metres from the camera to the subject, where a move needs one and none is given."""


class Channels(NamedTuple):
    """What the rig has done so far in a stage. Entries are float64 [N] or 0; contributions add up."""

    right: ArrayLike = 0.0  # metres along the camera's own x axis
    forward: ArrayLike = 0.0  # metres along its own z axis
    down: ArrayLike = 0.0  # metres along its own y axis
    rise: ArrayLike = 0.0  # metres along the vertical
    pan: ArrayLike = 0.0  # degrees to the right about the vertical
    tilt: ArrayLike = 0.0  # degrees up about its own x axis
    roll: ArrayLike = 0.0  # degrees clockwise about its own z axis
    azimuth: ArrayLike = 0.0  # degrees around the subject, to the camera's right
    elevation: ArrayLike = 0.0  # degrees around the subject, upwards
    log_zoom: ArrayLike = 0.0  # natural logarithm of the focal length's factor


@dataclass(frozen=True)
class Travel:
    """Truck (right), pedestal (up) and dolly (forward) in metres."""

    right: float = 0.0
    up: float = 0.0
    forward: float = 0.0

    def channels(self, progress: np.ndarray, seconds: np.ndarray) -> Channels:
        return Channels(right=self.right * progress, rise=self.up * progress, forward=self.forward * progress)


@dataclass(frozen=True)
class Turn:
    """Pan (right), tilt (up) and roll (clockwise) in degrees."""

    pan: float = 0.0
    tilt: float = 0.0
    roll: float = 0.0

    def channels(self, progress: np.ndarray, seconds: np.ndarray) -> Channels:
        return Channels(pan=self.pan * progress, tilt=self.tilt * progress, roll=self.roll * progress)


@dataclass(frozen=True)
class Orbit:
    """Around a subject ``distance`` metres ahead, always facing it: degrees to the right and upwards."""

    right: float = 0.0
    up: float = 0.0
    distance: float = SUBJECT_DISTANCE

    def channels(self, progress: np.ndarray, seconds: np.ndarray) -> Channels:
        return Channels(azimuth=self.right * progress, elevation=self.up * progress)


@dataclass(frozen=True)
class Swing:
    """Around the subject to one side, through the middle to the other, and back: ``degrees`` to each side."""

    degrees: float = 20.0
    distance: float = SUBJECT_DISTANCE

    def channels(self, progress: np.ndarray, seconds: np.ndarray) -> Channels:
        return Channels(azimuth=self.degrees * np.sin(2.0 * np.pi * progress))


@dataclass(frozen=True)
class Zoom:
    """Focal length times ``factor``; the camera stands still. Every frame magnifies by the same ratio."""

    factor: float = 1.5

    def __post_init__(self) -> None:
        if not self.factor > 0:
            raise InvalidValue(f"the zoom factor is {self.factor:g}; expected a positive number")

    def channels(self, progress: np.ndarray, seconds: np.ndarray) -> Channels:
        return Channels(log_zoom=math.log(self.factor) * progress)


@dataclass(frozen=True)
class DollyZoom:
    """Dolly ``forward`` metres, zooming so that a subject ``distance`` metres ahead keeps its size."""

    forward: float = 1.0
    distance: float = SUBJECT_DISTANCE

    def __post_init__(self) -> None:
        if not self.forward < self.distance:
            raise InvalidValue(
                f"a dolly zoom of {self.forward:g} m runs into its subject at {self.distance:g} m; "
                "shorten it or put the subject farther away"
            )

    def channels(self, progress: np.ndarray, seconds: np.ndarray) -> Channels:
        travelled = self.forward * progress
        return Channels(forward=travelled, log_zoom=np.log((self.distance - travelled) / self.distance))


@dataclass(frozen=True)
class Circle:
    """Around a circle of ``radius`` metres in the picture plane, looking straight ahead.

    It starts at the circle's bottom. Positive ``turns`` go clockwise as seen from behind the camera;
    ``forward`` metres make it a spiral.
    """

    radius: float = 0.3
    turns: float = 1.0
    forward: float = 0.0

    def channels(self, progress: np.ndarray, seconds: np.ndarray) -> Channels:
        angle = 2.0 * np.pi * self.turns * progress
        return Channels(
            right=-self.radius * np.sin(angle),
            down=-self.radius * (1.0 - np.cos(angle)),
            forward=self.forward * progress,
        )


@dataclass(frozen=True)
class Lemniscate:
    """A lying figure of eight, ``width`` metres wide, facing a subject ``distance`` metres ahead.

    The path lies on the sphere around the subject and starts at the crossing, to the right and upwards.
    """

    width: float = 1.0
    distance: float = SUBJECT_DISTANCE

    def channels(self, progress: np.ndarray, seconds: np.ndarray) -> Channels:
        half_angle = np.degrees(0.5 * self.width / self.distance)
        angle = 2.0 * np.pi * progress
        # Gerono's lemniscate: x = sin, y = sin cos.
        return Channels(
            azimuth=half_angle * np.sin(angle), elevation=half_angle * np.sin(angle) * np.cos(angle)
        )


@dataclass(frozen=True)
class Handheld:
    """The unrest of a hand: smooth noise with the given standard deviations, the same for the same seed.

    Sums of sines between 0.3 and 3 Hz whose amplitude falls with frequency, zero at the start of the stage.
    It runs on seconds, so a longer clip shakes longer, not slower.
    """

    metres: float = 0.01
    degrees: float = 0.5
    seed: int = 0

    def channels(self, progress: np.ndarray, seconds: np.ndarray) -> Channels:
        generator = np.random.default_rng(self.seed)
        frequency = np.geomspace(0.3, 3.0, 8)  # Hz
        weight = 1.0 / frequency
        weight *= math.sqrt(2.0 / (weight**2).sum())  # unit variance
        phase = generator.uniform(0.0, 2.0 * np.pi, (6, 8))
        angle = 2.0 * np.pi * frequency * seconds[:, None, None] + phase  # [N, 6, 8]
        noise = ((np.sin(angle) - np.sin(phase)) * weight).sum(axis=-1).T  # [6, N]
        right, down, forward = self.metres * noise[:3]
        pan, tilt, roll = self.degrees * noise[3:] * ((1.0,), (1.0,), (0.5,))
        return Channels(right=right, down=down, forward=forward, pan=pan, tilt=tilt, roll=roll)


Move = Travel | Turn | Orbit | Swing | Zoom | DollyZoom | Circle | Lemniscate | Handheld


@dataclass(frozen=True)
class Stage:
    """Moves that happen together.

    Attributes:
        moves: none means the camera holds still.
        seconds: how long it takes; None shares what the other stages leave, evenly.
        easing: name in :data:`camctrl_jax.camera.interpolation.EASINGS`.
        facing_subject: turn all the while so that the subject stays in the middle of the picture.
        subject: metres to the subject, straight ahead at the start; None leaves it to the moves.
    """

    moves: tuple[Move, ...] = ()
    seconds: float | None = None
    easing: str = "smooth"
    facing_subject: bool = False
    subject: float | None = None

    def __post_init__(self) -> None:
        easing_function(self.easing)
        if self.seconds is not None and not (math.isfinite(self.seconds) and self.seconds > 0):
            raise InvalidValue(
                f"a stage of {self.seconds} s; expected a positive duration, or None to share the rest"
            )

    @property
    def distance(self) -> float:
        """Metres to the subject of this stage. Moves that name different subjects are refused."""
        distances = {move.distance for move in self.moves if hasattr(move, "distance")}
        if self.subject is not None:
            distances.add(self.subject)
        if any(not distance > 0 for distance in distances):
            raise InvalidValue(
                f"the subject must lie ahead of the camera, got a distance of {min(distances):g} m"
            )
        if len(distances) > 1:
            listed = " and ".join(f"{distance:g} m" for distance in sorted(distances))
            raise InvalidValue(f"moves made together must share one subject, got subjects at {listed}")
        return distances.pop() if distances else SUBJECT_DISTANCE


@dataclass(frozen=True)
class _RigState:
    """Where a stage starts from."""

    rotation: np.ndarray = field(default_factory=lambda: np.eye(3))
    position: np.ndarray = field(default_factory=lambda: np.zeros(3))
    zoom: float = 1.0


def path_of(
    stages: Sequence[Stage],
    frames: int,
    *,
    fps: float = 12.0,
    intrinsics: ArrayLike = DEFAULT_INTRINSICS,
) -> Cameras:
    """The camera path that starts at the identity and performs the stages one after the other.

    Args:
        stages: at least one. Stages without a duration share the time the others leave.
        frames: number of frames, at least 1; the clip lasts (frames - 1) / fps seconds.
        fps: frames per second.
        intrinsics: [4] or [frames, 4] fractions; zooms multiply the focal lengths.

    Returns:
        A metric path of ``frames`` frames with times.

    Raises:
        ValueError: when the stages need more time than the clip has, or disagree about the subject.
    """
    if frames < 1:
        raise InvalidValue(f"a path needs at least 1 frame, got {frames}")
    if not (math.isfinite(fps) and fps > 0):
        raise InvalidValue(f"fps is {fps}; expected a positive number")
    if not stages:
        raise InvalidValue("a path needs at least one stage; an empty Stage() holds the camera still")
    times = np.arange(frames) / fps
    ends = np.cumsum(_durations(stages, frames, fps))
    starts = np.concatenate([[0.0], ends[:-1]])

    poses = np.tile(np.eye(4), (frames, 1, 1))
    zooms = np.ones(frames)
    state = _RigState()
    stage_of_frame = np.minimum(np.searchsorted(ends, times - 1e-9), len(stages) - 1)  # [T]
    for index, stage in enumerate(stages):
        chosen = np.flatnonzero(stage_of_frame == index)
        # The end of the stage, which need not fall on a frame, is where the next one starts.
        elapsed = np.append(times[chosen] - starts[index], ends[index] - starts[index])
        rotation, position, zoom = _perform(stage, state, elapsed)
        poses[chosen, :3, :3], poses[chosen, :3, 3] = rotation[:-1], position[:-1]
        zooms[chosen] = zoom[:-1]
        state = _RigState(rotation[-1], position[-1], float(zoom[-1]))
    rows = np.broadcast_to(np.asarray(intrinsics, dtype=np.float64), (frames, 4)).copy()
    rows[:, :2] *= zooms[:, None]
    return Cameras(poses, rows, times, metric=True).validate("generated path")


def _durations(stages: Sequence[Stage], frames: int, fps: float) -> np.ndarray:
    """Seconds of each stage; together they never exceed the clip by more than rounding to whole frames."""
    clip = (frames - 1) / fps
    given = sum(stage.seconds for stage in stages if stage.seconds is not None)
    open_stages = sum(stage.seconds is None for stage in stages)
    if given > clip + 1.0 / fps + 1e-9 or (open_stages and given >= clip and clip > 0):
        needed = math.ceil(given * fps - 1e-9) + 1 + open_stages
        for_the_rest = f" and leave no time for {open_stages} more" if open_stages else ""
        raise InvalidValue(
            f"the timed stages take {given:g} s{for_the_rest}, but {frames} frames at {fps:g} frames/s last "
            f"{clip:g} s; ask for at least {needed} frames or shorten them"
        )
    share = (clip - given) / open_stages if open_stages else 0.0
    durations = np.array([share if stage.seconds is None else stage.seconds for stage in stages])
    if given > clip > 0:  # by less than a frame: "over 4 s" of 48 frames at 12 frames/s
        durations *= clip / given
    return durations


def _perform(
    stage: Stage, start: _RigState, elapsed: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rotations [N, 3, 3], positions [N, 3] and zoom factors [N] at ``elapsed`` seconds, the end last."""
    duration = elapsed[-1]
    if duration > 0:
        done = np.clip(elapsed / duration, 0.0, 1.0)
    else:  # a clip of one frame shows the start and leaves the end to the state alone
        done = np.append(np.zeros(len(elapsed) - 1), 1.0)
    progress = easing_function(stage.easing)(done)
    total = Channels(*(np.zeros_like(elapsed) for _ in Channels._fields))
    for move in stage.moves:
        total = Channels(*(a + b for a, b in zip(total, move.channels(progress, elapsed))))

    vertical = np.array([0.0, 1.0, 0.0])  # downwards: a positive angle about it turns right
    right, down, forward = start.rotation.T
    # Around the subject: first up or down about the camera's own right, then around the vertical.
    carried = rotations.about(vertical, -np.radians(total.azimuth)) @ rotations.about(
        right, -np.radians(total.elevation)
    )  # [N, 3, 3]
    subject = start.position + stage.distance * forward
    track = (
        total.right[:, None] * right + total.down[:, None] * down + total.forward[:, None] * forward
    )  # [N, 3]
    offset = (carried @ (start.position - subject + track)[..., None])[..., 0]
    position = subject + offset - total.rise[:, None] * vertical
    own = rotations.about(np.array([1.0, 0.0, 0.0]), np.radians(total.tilt)) @ rotations.about(
        np.array([0.0, 0.0, 1.0]), np.radians(total.roll)
    )
    if stage.facing_subject:
        sight = np.concatenate([[forward], subject - position])  # its first row is the start of the stage
        aim = rotations.aimed(sight, vertical, np.broadcast_to(start.rotation, (len(sight), 3, 3)))
        carried = aim[1:] @ aim[0].T
    rotation = rotations.about(vertical, np.radians(total.pan)) @ carried @ start.rotation @ own
    return rotation, position, start.zoom * np.exp(total.log_zoom)
