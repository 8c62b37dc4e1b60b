"""Whether a path looks as if its file departed from its format, and which option would mend that.

A path is read again with one departure at a time. What is looked at hardly comes about otherwise, or is said
to be ambiguous: a first pose that is the identity in another reading; centres that are much smoother in the
inverse; a camera that turns on the spot where its inverse circles the origin; one that goes backwards along
its line of sight, or has its back to what it circles. How natural a path is otherwise is not judged: cars
have side windows, drones look down, and people walk one way and look another.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from camctrl_jax.camera import rotations
from camctrl_jax.camera.cameras import Cameras
from camctrl_jax.camera.formats.posefile import Convention, Format
from camctrl_jax.camera.rereading import first_rotation, reread

_BACKWARDS, _FORWARDS = 0.4, 0.75  # shares of the way along the line of sight; walks are hardly below
_ALONG = 0.85  # is nearly all of it
_SMOOTHER = 3.0  # how many times smoother the centres of the inverse path must be to be worth a word
_AT_IDENTITY = 5.0  # degrees
_STILL = 1e-3  # of the distance to the origin
_CIRCLE = 0.03  # of the radius: how far a camera on a circle may be off it
_LONGEST = 12  # steps in which lines of sight are compared with the way: noise shakes long ones less


@dataclass(frozen=True)
class _Look:
    """What a path looks like in one convention.

    Attributes:
        departs: from the convention in which it was read.
        quaternions: the order in which they are read; "" where there are none.
        forward: share of the way along the line of sight, from 1, forwards, to -1, backwards.
        turned: degrees in all.
        extent: the longest side of the box around the centres.
        bend: the mean second difference of the centres.
        rough: the same over the mean first difference: 0 on a straight even path, about 1.7 for white noise.
        meeting: distance along the lines of sight to where they meet, negative behind; 0 where they do not,
            and where some centres are nearer to it than others.
        spot: where on the z axis of the world the centre stays, off the origin; 0 where it does not.
        first: how far the first matrix of the file is from the identity, in degrees.
        start: how far the first camera is from the axes of the world, in degrees.
    """

    departs: Convention
    quaternions: str
    forward: float
    turned: float
    extent: float
    bend: float
    rough: float
    meeting: float
    spot: float
    first: float
    start: float


@dataclass(frozen=True)
class _Sign:
    """Something odd about a path as it was read.

    Attributes:
        seen: in words.
        mended: whether another look does not have it.
        meant: what it is if the file was read as it was meant.
    """

    seen: str
    mended: Callable[[_Look], bool]
    meant: str = ""


def misread(cameras: Cameras, pose_format: Format, read: Convention) -> str:
    """What makes another reading likely, and the options for it; "" if nothing does.

    Args:
        cameras: as they were read.
        pose_format: of the file.
        read: the convention in which they were read.
    """
    if len(cameras) < 5:
        return ""
    seen = _look(cameras, pose_format, read, read)
    looks = [_look(cameras, pose_format, read, other) for other in _others(pose_format, read)]
    # A first pose that is the identity in another reading says more than the others together.
    for find in (_first_pose, _smoother, _on_the_spot, _backwards, _outwards):
        sign = find(seen, looks)
        if sign is None:
            continue
        likely = [look for look in looks if sign.mended(look)]
        if likely:
            listed = "; or ".join(_reading(look.departs, read, pose_format) for look in likely)
            before, behind = (f"{sign.meant}; or ", "") if sign.meant else ("", "; or it did move like this")
            return f"{sign.seen}: {before}{listed}{behind}"
    return ""


def _others(pose_format: Format, read: Convention) -> list[Convention]:
    """Likely conventions, each with one departure from the one in which a file was read; in this order."""
    others = []
    if order := read.quaternions or pose_format.quaternions:
        swapped = "wxyz" if order == "xyzw" else "xyzw"
        others.append(
            dataclasses.replace(read, quaternions="" if swapped == pose_format.quaternions else swapped)
        )
    inverse = dataclasses.replace(read, inverse=not read.inverse)
    axes = read.axes.upper() or pose_format.axes
    turned = [
        dataclasses.replace(read, axes="" if code == pose_format.axes else code)
        for code in ("RUB", "RDF")
        if code != axes
    ]
    # Files of formats with axes of their own are most often written without turning them.
    others += [inverse, *turned] if pose_format.axes == "RDF" else [*turned, inverse]
    return others


def _look(cameras: Cameras, pose_format: Format, read: Convention, other: Convention) -> _Look:
    path = cameras if other == read else reread(cameras, pose_format, read, other)
    positions, rotation = path.positions, path.rotations
    scale = max(1.0, float(np.abs(positions).max(initial=0.0)))
    length = float(np.linalg.norm(np.diff(positions, axis=0), axis=1).mean())
    bend = float(np.linalg.norm(np.diff(positions, n=2, axis=0), axis=1).mean())
    stride = max(1, (len(path) - 1) // _LONGEST)
    centre = positions.mean(axis=0)
    off_axis = max(float(np.ptp(positions, axis=0).max()), float(np.abs(centre[:2]).max()))
    return _Look(
        departs=other,
        quaternions=other.quaternions or pose_format.quaternions,
        forward=_forward(positions[::stride], rotation[::stride, :, 2], 1e-6 * scale),
        turned=path.total_rotation,
        extent=float(np.ptp(positions, axis=0).max()),
        bend=bend,
        rough=bend / length if length > 1e-6 * scale else 0.0,
        meeting=_meeting(positions, rotation[:, :, 2]),
        spot=float(centre[2]) if off_axis < _STILL * abs(centre[2]) else 0.0,
        first=first_rotation(path, pose_format, other),
        start=float(rotations.angle_degrees(rotation[0])),
    )


def _forward(positions: np.ndarray, sight: np.ndarray, least: float) -> float:
    steps = np.diff(positions, axis=0)
    total = np.linalg.norm(steps, axis=1).sum()
    mean = sight[:-1] + sight[1:]
    mean = mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
    return float((steps * mean).sum() / total) if total > least * len(steps) else 0.0


def _meeting(positions: np.ndarray, sight: np.ndarray) -> float:
    across = np.eye(3) - sight[:, :, None] * sight[:, None, :]
    if np.linalg.eigvalsh(across.sum(axis=0))[0] < 1e-3 * len(positions):
        return 0.0  # parallel
    point = np.linalg.solve(across.sum(axis=0), (across @ positions[:, :, None]).sum(axis=0)[:, 0])
    along = ((point - positions) * sight).sum(axis=1)
    passed = np.linalg.norm(point - positions - along[:, None] * sight, axis=1)
    missed = np.sqrt((passed**2).mean()) / max(float(np.abs(along).mean()), 1e-12)
    circles = (np.abs(along - along.mean()) < _CIRCLE * abs(along.mean())).all()
    return float(along.mean()) if missed < _CIRCLE and circles else 0.0


def _first_pose(seen: _Look, looks: Sequence[_Look]) -> _Sign | None:
    """Files of clips mostly begin at the identity, which in the wrong order is half a turn."""
    other = next((look for look in looks if look.quaternions != seen.quaternions), None)
    if other is None or other.first > _AT_IDENTITY or seen.first < 90.0:
        return None
    text = (
        f"the first quaternion turns by {seen.first:.0f} degrees, but "
        f"{'is' if other.first < 0.1 else 'is nearly'} the identity in the order {other.quaternions}"
    )
    return _Sign(text, lambda look: look.quaternions != seen.quaternions or look.start < _AT_IDENTITY)


def _smoother(seen: _Look, looks: Sequence[_Look]) -> _Sign | None:
    """Rotation noise shakes the centre of a wrongly inverted camera by its distance to the origin.

    So this speaks on real, noisy data. A camera that stands still and trembles is as smooth either way.
    """
    inverse = next(look for look in looks if look.departs.inverse != seen.departs.inverse)
    if seen.rough < 0.2 or seen.bend < _SMOOTHER * inverse.bend or seen.rough < _SMOOTHER * inverse.rough:
        return None
    if inverse.rough == 0.0 or seen.extent < 0.2 * inverse.extent:
        return None
    text = f"the centres are {seen.rough / inverse.rough:.1f} times smoother if the matrices are inverted"
    return _Sign(text, lambda look: look is inverse)


def _on_the_spot(seen: _Look, looks: Sequence[_Look]) -> _Sign | None:
    """The inverse of a camera that goes round the origin and faces it has the origin always ahead of it."""
    inverse = next(look for look in looks if look.departs.inverse != seen.departs.inverse)
    if not seen.spot or seen.turned < 10.0 or inverse.meeting <= 0 or inverse.extent < 0.1 * abs(seen.spot):
        return None
    text = f"the camera turns on the spot, {abs(seen.spot):.3g} along the z axis of the world"
    return _Sign(text, lambda look: look is inverse)


def _backwards(seen: _Look, looks: Sequence[_Look]) -> _Sign | None:
    """A pull-back, or a walk in the wrong direction or axes; nothing tells which."""
    if seen.forward > -_BACKWARDS:
        return None
    share = "nearly all the way" if seen.forward < -_ALONG else "most of the way"
    text = f"the camera moves backwards along its line of sight {share}"
    return _Sign(text, lambda look: look.forward > _FORWARDS, meant="a pull-back")


def _outwards(seen: _Look, looks: Sequence[_Look]) -> _Sign | None:
    """Around a subject a camera faces it."""
    if seen.meeting >= 0 or seen.turned < 30.0 or seen.extent < 0.1 * abs(seen.meeting):
        return None
    text = "all lines of sight meet behind the camera, as if it went around a subject with its back to it"
    return _Sign(text, lambda look: look.meeting > 0, meant="a camera that looks outwards")


def _reading(departs: Convention, read: Convention, pose_format: Format) -> str:
    """What a reading with one departure says about the file, and its options."""
    if departs.quaternions != read.quaternions:
        option, given = "--quaternions", departs.quaternions
        order = given or pose_format.quaternions
        meaning = f"quaternions are written scalar {'first' if order == 'wxyz' else 'last'}"
    elif departs.inverse != read.inverse:
        option, given = "--invert", departs.inverse
        turned_over = departs.inverse != (pose_format.stores == "w2c")
        meaning = f"matrices are {'world-to-camera' if turned_over else 'camera-to-world'}"
    else:
        option, given = "--axes", departs.axes
        code = given or pose_format.axes
        name = {"RUB": "OpenGL, z backwards", "RDF": "OpenCV"}[code]
        meaning = f"camera axes are {code} ({name})"
    if not given:
        return f"{meaning} (leave {option} out)"
    options = [f"--quaternions {departs.quaternions}"] if departs.quaternions else []
    options += ["--invert"] if departs.inverse else []
    options += [f"--axes {departs.axes}"] if departs.axes else []
    return f"{meaning} (try {' '.join(options)})"
