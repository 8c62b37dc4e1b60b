"""Whether a path looks as if its file departed from its format, and which option would mend that.

A path is read again in every likely convention, and what can be measured is compared: which way the camera
moves along its line of sight, how smooth its centres are, whether it stays upright, where its lines of sight
meet, and whether its first pose is the identity. What cannot be told from a path (the inverse of a pan is a
pan the other way) is not guessed at.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from camctrl_jax.camera import rotations
from camctrl_jax.camera.cameras import Cameras
from camctrl_jax.camera.formats.posefile import Convention, Format
from camctrl_jax.camera.rereading import first_rotation, reread

_SMOOTHER = 3.0  # how many times smoother the inverse path must be to be worth a word
_ALONG = 0.8  # of the way along the line of sight is nearly all of it
_EXACTLY_ALONG = 0.97  # and this is all of it, but for noise
_EXACTLY_MEETING = 0.006  # of the distance; real hands that circle a subject stay above
_UPRIGHT = 0.04  # the camera's x axes lie in a plane; hand-held cameras of published files stay below
_AT_IDENTITY = 5.0  # degrees


@dataclass(frozen=True)
class _Look:
    """What a path looks like in one convention.

    Attributes:
        departs: from the convention in which it was read.
        quaternions: the order in which they are read; "" where there are none.
        moves: how many steps go anywhere.
        backwards: whether nearly every step goes backwards along the line of sight.
        forward: share of the way along the line of sight, from 1, forwards, to -1, backwards.
        turns: degrees in all about the camera's x, y and z axes: tilting, panning, rolling.
        extent: the longest side of the box around the centres.
        rough: second differences of the centres over first ones: 0 on a straight even path, about 1.7 for
            white noise.
        tipped: how far the camera's x axes are from lying in one plane, as an upright camera's do.
        spread: how far they are from lying on one line.
        meeting: distance along the lines of sight to where they meet, negative behind; 0 where they do not.
        missed: by what share of it they pass that place by; infinity where they do not meet.
        still: whether the centre stays at one place, off the origin.
        pivot: the centre, where it stays at one place on the z axis of the world, off the origin; else 0.
        first: how far the first matrix of the file is from the identity, in degrees.
        start: how far the first camera is from the axes of the world, in degrees.
    """

    departs: Convention
    quaternions: str
    moves: int
    backwards: bool
    forward: float
    turns: np.ndarray
    extent: float
    rough: float
    tipped: float
    spread: float
    meeting: float
    missed: float
    still: bool
    pivot: float
    first: float
    start: float


@dataclass(frozen=True)
class _Sign:
    """Something odd about a path as it was read.

    Attributes:
        seen: in words.
        mended: whether another look does not have it.
        strong: whether it is hardly ever meant.
        exact: whether what mends it could hardly be so by chance, however odd it looks besides.
    """

    seen: str
    mended: Callable[[_Look], bool]
    strong: bool = False
    exact: bool = False


def misread(cameras: Cameras, pose_format: Format, read: Convention) -> str:
    """What makes another reading likely, and the options for it, the likeliest first; "" if nothing does.

    Args:
        cameras: as they were read.
        pose_format: of the file.
        read: the convention in which they were read.
    """
    if len(cameras) < 5:
        return ""
    seen = _look(cameras, pose_format, read, read)
    looks = [_look(cameras, pose_format, read, other) for other in _others(pose_format, read)]
    signs = [sign for find in _SIGNS for sign in find(seen, looks)]
    if not signs:
        return ""
    strong = [sign for sign in signs if sign.strong]
    weighed = strong or signs
    exact = [sign for sign in signs if sign.exact]
    likely = [
        look
        for look in looks
        if strong or _plausible(look) > _plausible(seen) or any(sign.mended(look) for sign in exact)
    ]
    most = max((sum(sign.mended(look) for sign in weighed) for look in likely), default=0)
    if not most:
        return ""
    explaining = [look for look in likely if sum(sign.mended(look) for sign in weighed) == most]
    fewest = min(_departures(look, read) for look in explaining)
    explaining = [look for look in explaining if _departures(look, read) == fewest]
    # Among equals, the path that starts at the identity, as those of clips do.
    explaining.sort(key=lambda look: _plausible(look) + (look.start < _AT_IDENTITY), reverse=True)
    told = [sign.seen for sign in signs if any(map(sign.mended, explaining))]
    listed = "; or ".join(_reading(look, read, pose_format) for look in explaining)
    # Files of clips begin at the identity: where this one does in another order, that order was meant.
    pull_back = seen.forward < -0.3 and not strong
    before, behind = ("a pull-back; or ", "") if pull_back else ("", "; or the camera did move like this")
    return f"{', and '.join(told)}: {before}{listed}{behind}"


def _departures(look: _Look, read: Convention) -> int:
    """In how many respects a reading is another one."""
    departs = look.departs
    return (
        (departs.inverse != read.inverse)
        + (departs.axes != read.axes)
        + (departs.quaternions != read.quaternions)
    )


def _others(pose_format: Format, read: Convention) -> list[Convention]:
    """Likely conventions that are not the one in which a file was read: one departure, and pairs of them."""
    flipped = dataclasses.replace(read, inverse=not read.inverse)
    axes = read.axes.upper() or pose_format.axes
    turned = [
        dataclasses.replace(read, axes="" if code == pose_format.axes else code)
        for code in ("RUB", "RDF", "FLU", "FRD")
        if code != axes
    ]
    both = [dataclasses.replace(flipped, axes=other.axes) for other in turned if other.axes[:1] != "F"]
    order = read.quaternions or pose_format.quaternions
    if not order:
        return [flipped, *turned, *both]
    swapped = "wxyz" if order == "xyzw" else "xyzw"
    swapped = "" if swapped == pose_format.quaternions else swapped
    mixed = [
        dataclasses.replace(other, quaternions=swapped)
        for other in (read, flipped, *turned)
        if other.axes[:1] != "F" or other.axes == read.axes
    ]
    return [flipped, *turned, *both, *mixed]


def _look(cameras: Cameras, pose_format: Format, read: Convention, other: Convention) -> _Look:
    path = cameras if other == read else reread(cameras, pose_format, read, other)
    positions, rotation = path.positions, path.rotations
    scale = max(1.0, float(np.abs(positions).max(initial=0.0)))
    steps = np.diff(positions, axis=0)
    length = np.linalg.norm(steps, axis=1)
    moving = length > 1e-6 * scale
    along = (steps * rotation[:-1, :, 2]).sum(axis=1)[moving] / length[moving]
    stride = max(1, (len(path) - 1) // 12)  # longer steps, which noise shakes less
    forward = _forward(positions[::stride], rotation[::stride, :, 2], 1e-6 * scale)
    bends = np.linalg.norm(np.diff(positions, n=2, axis=0), axis=1).mean()
    right = rotation[:, :, 0]
    spans = np.sqrt(np.clip(np.linalg.eigvalsh(right.T @ right / len(right)), 0.0, None))
    turns = rotations.to_vectors(np.swapaxes(rotation[:-stride:stride], 1, 2) @ rotation[stride::stride])
    meeting, missed = _meeting(positions, rotation[:, :, 2])
    centre = positions.mean(axis=0)
    still = bool(np.ptp(positions, axis=0).max() < 0.02 * np.linalg.norm(centre))
    on_axis = still and np.abs(centre[:2]).max() < 0.02 * abs(centre[2])
    return _Look(
        departs=other,
        quaternions=other.quaternions or pose_format.quaternions,
        moves=int(moving.sum()),
        backwards=bool(moving.sum() >= 4 and along.mean() < -_ALONG),
        forward=forward,
        turns=np.degrees(np.abs(turns).sum(axis=0)),
        extent=float(np.ptp(positions, axis=0).max()),
        rough=float(bends / length.mean()) if moving.any() else 0.0,
        tipped=float(spans[0]),
        spread=float(spans[1]),
        meeting=meeting,
        missed=missed,
        still=still,
        pivot=float(centre[2]) if on_axis else 0.0,
        first=first_rotation(path, pose_format, other),
        start=float(rotations.angle_degrees(rotation[0])),
    )


def _forward(positions: np.ndarray, sight: np.ndarray, least: float) -> float:
    steps = np.diff(positions, axis=0)
    total = np.linalg.norm(steps, axis=1).sum()
    mean = sight[:-1] + sight[1:]
    mean = mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
    return float((steps * mean).sum() / total) if total > least * len(steps) else 0.0


def _meeting(positions: np.ndarray, sight: np.ndarray) -> tuple[float, float]:
    across = np.eye(3) - sight[:, :, None] * sight[:, None, :]
    if np.linalg.eigvalsh(across.sum(axis=0))[0] < 1e-3 * len(positions):
        return 0.0, np.inf  # parallel
    point = np.linalg.solve(across.sum(axis=0), (across @ positions[:, :, None]).sum(axis=0)[:, 0])
    along = ((point - positions) * sight).sum(axis=1)
    passed = np.linalg.norm(point - positions - along[:, None] * sight, axis=1)
    missed = np.sqrt((passed**2).mean()) / max(float(np.abs(along).mean()), 1e-12)
    if missed > 0.03 or not (along * along[0] > 0).all():
        return 0.0, np.inf
    return float(along.mean()), float(missed)


def _first_pose(seen: _Look, looks: list[_Look]) -> list[_Sign]:
    """Files of clips mostly begin at the identity, which in the wrong order is half a turn."""
    other = next((look for look in looks if look.quaternions != seen.quaternions), None)
    if other is None or other.first > _AT_IDENTITY or seen.first < 90.0:
        return []
    text = (
        f"the first quaternion turns by {seen.first:.0f} degrees, but "
        f"{'is' if other.first < 0.1 else 'is nearly'} the identity in the order {other.quaternions}"
    )

    def mended(look: _Look) -> bool:
        return look.quaternions != seen.quaternions or look.start < _AT_IDENTITY

    return [_Sign(text, mended, strong=True)]


def _backwards(seen: _Look, looks: list[_Look]) -> list[_Sign]:
    if not seen.backwards:
        return []
    text = "the camera moves backwards along its line of sight nearly all the way"
    return [_Sign(text, lambda look: look.forward > _ALONG or look.moves == 0)]


def _rough(seen: _Look, looks: list[_Look]) -> list[_Sign]:
    """Rotation noise shakes the centre of a wrongly inverted camera by its distance to the origin.

    So this speaks on real, noisy data.
    """
    inverse = next(look for look in looks if look.departs.inverse)
    if seen.rough < 0.2 or inverse.rough == 0.0 or seen.rough < _SMOOTHER * inverse.rough:
        return []
    if seen.extent < 0.2 * inverse.extent:
        return []  # a camera that stands still, and trembles
    text = f"the centres are {seen.rough / inverse.rough:.1f} times smoother if the matrices are inverted"
    return [_Sign(text, lambda look: look.rough <= seen.rough / _SMOOTHER)]


def _oblique(seen: _Look, looks: list[_Look]) -> list[_Sign]:
    """A camera that looks exactly where it goes in another reading, and past it in this one."""
    turned = seen.turns.sum() > 10.0
    if seen.moves < 8 or abs(seen.forward) > _ALONG or not (turned or abs(seen.forward) > 0.1):
        return []
    text = (
        f"the camera moves at {np.degrees(np.arccos(seen.forward)):.0f} degrees to its line of sight on "
        "average, and along it if the file is read otherwise"
    )

    def mended(look: _Look) -> bool:
        renamed = look.departs.axes != seen.departs.axes
        single = _departures(look, seen.departs) == 1
        least = max(_ALONG, 0.15 - seen.forward) if seen.forward < -0.3 else _EXACTLY_ALONG
        return look.forward > least and single and not renamed

    return [_Sign(text, mended)] if any(map(mended, looks)) else []


def _rolling(seen: _Look, looks: list[_Look]) -> list[_Sign]:
    """A walk is upright and turns to its sides; in wrong axes it rolls or tips over."""
    tilt, pan, roll = seen.turns
    odd = seen.turns.sum() > 100.0 or (seen.turns.sum() > 40.0 and roll > tilt)
    if seen.moves < 8 or not odd or pan > 0.5 * seen.turns.sum():
        return []
    text = f"the camera tilts by {tilt:.0f} and rolls by {roll:.0f} degrees in all but pans by {pan:.0f} only"

    def mended(look: _Look) -> bool:
        panning = look.turns[1] > 0.7 * look.turns.sum() and look.forward > _ALONG
        upright = look.tipped < max(_UPRIGHT, 0.5 * seen.tipped)
        return panning and upright and _departures(look, seen.departs) == 1

    return [_Sign(text, mended)] if any(map(mended, looks)) else []


def _tipping(seen: _Look, looks: list[_Look]) -> list[_Sign]:
    """A long walk looks around and stays upright."""
    if seen.tipped < _UPRIGHT or seen.spread < 0.3 or seen.moves < 50 or seen.turns.sum() < 180.0:
        return []
    text = "the camera does not stay upright, as it does if the file is read otherwise"

    def mended(look: _Look) -> bool:
        single = _departures(look, seen.departs) == 1
        return single and look.tipped < 0.25 * seen.tipped and look.spread > 0.3

    return [_Sign(text, mended)] if any(map(mended, looks)) else []


def _pivoting(seen: _Look, looks: list[_Look]) -> list[_Sign]:
    """The inverse of a camera that goes round a point and faces it turns around a point that it does not see.

    Where that camera went round the origin, it turns on the spot.
    """
    looks_ahead = seen.forward > _ALONG or (seen.still and not seen.pivot)
    if looks_ahead or seen.missed < 0.008 or seen.meeting < 0 or seen.turns.sum() < 15.0:
        return []

    def mended(look: _Look) -> bool:
        turned_over = look.departs == dataclasses.replace(seen.departs, inverse=not seen.departs.inverse)
        facing = look.meeting > 0 and look.missed < min(_EXACTLY_MEETING, 0.2 * seen.missed)
        return turned_over and facing and look.turns[2] < 0.5 * look.turns.sum()

    if seen.pivot:
        text = f"the camera turns on the spot, {abs(seen.pivot):.3g} along the z axis of the world"
    else:
        text = "the camera turns around a point that it does not look at, and at one if the file is inverted"
    return [_Sign(text, mended, exact=True)] if any(map(mended, looks)) else []


def _outwards(seen: _Look, looks: list[_Look]) -> list[_Sign]:
    """Around a subject a camera faces it."""
    if seen.meeting >= 0 or seen.turns.sum() < 10.0 or seen.moves < 8:
        return []
    text = "all lines of sight meet behind the camera, as if it went around a subject with its back to it"
    return [_Sign(text, lambda look: look.meeting > 0 or look.moves == 0)]


_SIGNS = (_first_pose, _backwards, _rough, _pivoting, _oblique, _rolling, _tipping, _outwards)


def _plausible(look: _Look) -> float:
    """How natural a path looks; to compare readings of one file."""
    departs = look.departs
    cost = 0.3 * (departs.inverse + bool(departs.axes) + bool(departs.quaternions))
    cost += 0.2 * (departs.axes[:1] == "F")
    score = 2.0 * look.forward if abs(look.forward) > 0.5 else 0.0
    score += 0.5 * (look.meeting > 0) - 1.0 * (look.meeting < 0)
    score -= min(look.tipped, 0.3) * 10.0 * (look.spread > 0.1)
    score -= 1.0 * bool(look.pivot)
    score -= 2.0 * min(look.rough, 1.0)
    score += 1.0 * (look.quaternions != "" and look.first < _AT_IDENTITY)
    total = look.turns.sum()
    score += float(look.turns[1] / total) if total > 20.0 else 0.0
    return float(score - cost)


def _reading(look: _Look, read: Convention, pose_format: Format) -> str:
    """The options of a reading, and what they say about the file."""
    departs, options, meaning = look.departs, [], []
    if departs.quaternions != read.quaternions:
        options.append(f"--quaternions {look.quaternions}")
        first = "first" if look.quaternions == "wxyz" else "last"
        meaning.append(f"quaternions are written scalar {first}")
    if departs.inverse:
        options.append("--invert")
    if departs.inverse != read.inverse:
        said = (
            "world-to-camera" if pose_format.convention.startswith("world-to-camera") else "camera-to-world"
        )
        found = {"world-to-camera": "camera-to-world", "camera-to-world": "world-to-camera"}[said]
        meaning.append(f"matrices are {found if departs.inverse else said}")
    if departs.axes:
        options.append(f"--axes {departs.axes}")
    if departs.axes != read.axes:
        name = {"RUB": "OpenGL, z backwards", "RDF": "OpenCV", "FLU": "ROS", "FRD": "NED"}
        code = departs.axes or pose_format.axes
        meaning.append(f"camera axes are {code} ({name.get(code, 'as the format says')})")
    told = " ".join(options) or "no option"
    return f"{' and '.join(meaning)} (try {told})"
