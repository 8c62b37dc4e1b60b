"""Which earlier frames of a video show what the next cameras will see: the memory of places.

The network conditions on a few recent frames, and so invents a place anew that it left. Retrieval gives it,
besides those, earlier frames that looked at what comes into view (Context as Memory, arXiv 2506.03141,
chooses by overlap of fields of view; here the choice is greedy over *new* coverage, so two frames that show
the same are not both taken). Only poses are used: nothing is known of the scene's depth, so points are
scattered along the rays of the coming cameras, as many between 1 and 2 m as between 10 and 20 m.

How much a frame shows of a point is a number in [0, 1], 0 outside its picture, else the product of two
factors:

* facing: ``1 - angle / pi`` with the angle at the point between the coming camera and the frame's. A surface
  that the coming camera sees has a normal within 90 degrees of the ray to it; this is the share of such
  normals (uniform in the plane of the two rays) whose front the frame sees too. 1 from the same side, 0.5
  from a right angle, 0 from behind.
* resolution: ``min(1, frame's pixels per metre at the point / the coming camera's)``. A frame from twice as
  far, or with half the focal length, counts half.

What hides behind something is not known, and not accounted for.
"""

from __future__ import annotations

import numpy as np

from camctrl_jax.camera.cameras import CameraError, Cameras

POINTS = 1536
TARGET_FRAMES = 8
DEPTH_RANGE = (1.0, 20.0)
NEAR = 0.1
"""Metres. What is nearer to a camera than this is not counted as seen."""
LEAST_GAIN = 0.005
"""Share of the points that a frame must add, or the round of coverage ends."""
ALIKE = 0.2
"""Two frames are alike if they differ by less than this share of what one of them shows."""


def select_frames(
    history: Cameras, target: Cameras, count: int, *, given: Cameras | None = None, seed: int = 0
) -> np.ndarray:
    """Indices of the ``count`` frames of ``history`` that together show most of what ``target`` will look at.

    Greedy: each choice is the frame that adds most to what ``given`` and the choices before it show of the
    points (the earliest of equals: errors of generated video grow with time). When no frame adds half a
    percent, a new round starts that forgets ``given`` and earlier choices, and leaves out frames that are
    alike to an earlier choice: what is shown again is shown from elsewhere. When a round starts with nothing
    to gain, the frame farthest in time from all choices is taken (frame 0 first, the earliest of equals). So
    the answer for a smaller count is the beginning of the answer for a larger one.

    Args:
        history: the frames to choose from, usually all of the video before ``given``. Same world as
            ``target``, positions in metres.
        target: the cameras that are to be generated.
        count: how many indices to return, 0 or more.
        given: frames that the network sees anyway, usually the last ones of the video.
        seed: of the points. The same arguments give the same answer everywhere.

    Returns:
        int64 [count], in order of choice. All differ unless ``history`` has fewer frames than ``count``; then
        the order repeats from its start.

    Raises:
        CameraError: for an empty history or target, or a negative count.
    """
    if count < 0:
        raise CameraError(f"cannot retrieve {count} frames; expected 0 or more")
    if count == 0:
        return np.zeros(0, np.int64)
    if len(history) == 0 or len(target) == 0:
        raise CameraError(
            f"cannot retrieve frames from a history of {len(history)} frames for {len(target)} coming "
            "cameras; both need at least one"
        )
    points, centres, scales = _points(target, seed)
    shown = _shown(history, points, centres, scales)  # [N, P]
    covered = np.zeros(len(points))
    if given is not None and len(given):
        covered = _shown(given, points, centres, scales).max(axis=0)
    order = _greedy(shown, covered, min(count, len(history)))
    return np.resize(order, count)


def coverage(cameras: Cameras, target: Cameras, *, seed: int = 0) -> float:
    """Mean over the points of how much the best of ``cameras`` shows of each, in [0, 1]. See the module."""
    return float(_shown(cameras, *_points(target, seed)).max(axis=0, initial=0.0).mean())


def _points(target: Cameras, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points in the target's frusta [P, 3], each one's camera centre [P, 3] and pixels per metre [P].

    Pixels are counted in pictures: the geometric mean of both normalised focal lengths over depth.
    """
    random = np.random.default_rng(seed)
    frames = np.unique(np.linspace(0, len(target) - 1, TARGET_FRAMES).round().astype(int))
    owner = frames[np.arange(POINTS) % len(frames)]
    position = random.random((POINTS, 2))
    nearest, farthest = np.log(DEPTH_RANGE)
    depth = np.exp(nearest + (farthest - nearest) * random.random(POINTS))
    intrinsics = target.intrinsics[owner]
    in_camera = np.empty((POINTS, 3))
    in_camera[:, :2] = (position - intrinsics[:, 2:]) / intrinsics[:, :2] * depth[:, None]
    in_camera[:, 2] = depth
    centres = target.positions[owner]
    points = np.einsum("pij,pj->pi", target.rotations[owner], in_camera) + centres
    return points, centres, _focal(target)[owner] / depth


def _shown(cameras: Cameras, points: np.ndarray, centres: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """How much each of ``cameras`` shows of each point, float64 [N, P] in [0, 1]."""
    # All pairs in one product of matrices: (x, y, z) in the camera, then (fx x + cx z, fy y + cy z, z), which
    # is inside the picture where the first two lie between 0 and z.
    project = np.swapaxes(cameras.rotations, 1, 2).copy()  # [N, 3, 3], camera from world
    project[:, :2] *= cameras.intrinsics[:, :2, None]
    project[:, :2] += cameras.intrinsics[:, 2:, None] * project[:, 2:]
    at = _product(project.reshape(-1, 3), points.T).reshape(len(cameras), 3, len(points))
    at -= project @ cameras.positions[..., None]
    u, v, z = np.moveaxis(at, 1, 0)
    frame, point = np.nonzero((z > NEAR) & (u >= 0) & (u <= z) & (v >= 0) & (v <= z))

    here, there = points[point] - cameras.positions[frame], (points - centres)[point]
    lengths = np.linalg.norm(here, axis=1) * np.linalg.norm(there, axis=1)
    angle = np.arccos(np.clip((here * there).sum(axis=1) / lengths, -1.0, 1.0))
    resolution = _focal(cameras)[frame] / z[frame, point] / scales[point]
    shown = np.zeros((len(cameras), len(points)))
    shown[frame, point] = (1.0 - angle / np.pi) * np.minimum(1.0, resolution)
    return shown


def _product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """``left @ right`` of [M, 3] and [3, P], in one thread: BLAS takes every core for so small a product, and
    processes that sample worlds side by side, one on every core, then spend their time waiting in it.
    """
    product = left[:, :1] * right[0]
    for column in (1, 2):
        product += left[:, column, None] * right[column]
    return product


def _focal(cameras: Cameras) -> np.ndarray:
    return np.sqrt(cameras.intrinsics[:, 0] * cameras.intrinsics[:, 1])


def _greedy(shown: np.ndarray, covered: np.ndarray, count: int) -> np.ndarray:
    """The first ``count`` choices, all different, int64 [count]; there are at least ``count`` frames."""
    frames, points = shown.shape
    order: list[int] = []
    free, distinct = np.ones(frames, bool), np.ones(frames, bool)
    first_round, fresh_round = True, False
    while len(order) < count:
        gains = np.maximum(shown - covered, 0.0).sum(axis=1)
        gains[~(free if first_round else free & distinct)] = -1.0
        best = gains.max()
        if best >= LEAST_GAIN * points:
            # Equal poses differ in the last bits only, and the first of them is wanted.
            choice = int(np.argmax(gains >= best * (1.0 - 1e-6)))
            covered = np.maximum(covered, shown[choice])
            fresh_round = False
        elif not fresh_round:
            covered, first_round, fresh_round = np.zeros(points), False, True
            continue
        else:
            choice = _farthest_in_time(order, free)
        order.append(choice)
        free[choice] = False
        distinct &= np.abs(shown - shown[choice]).sum(axis=1) >= ALIKE * shown[choice].sum()
    return np.array(order, np.int64)


def _farthest_in_time(order: list[int], free: np.ndarray) -> int:
    if not order:
        return 0
    frames = np.arange(len(free))
    distance = np.abs(frames[:, None] - np.array(order)).min(axis=1)
    return int(np.argmax(np.where(free, distance, -1)))
