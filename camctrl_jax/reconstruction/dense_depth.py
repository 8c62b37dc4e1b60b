"""Depth maps of a clip with known cameras: which frames, which pairs, which depths, and what is believed.

:mod:`~camctrl_jax.reconstruction.plane_sweep` sweeps one picture; here the clip is laid out for it. Nothing
depends on the unit of the poses: the range of depths comes from a coarse sweep, whose planes are spaced by
ratio and which uses each pair of frames only for depths at which its baseline tells something.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from camctrl_jax.camera.cameras import Cameras
from camctrl_jax.errors import InvalidValue
from camctrl_jax.estimators.protocols import checked_frames, checked_masks
from camctrl_jax.reconstruction.plane_sweep import agreement, projections, sweep

_COARSE_HEIGHT, _COARSE_PLANES = 48, 96
_COARSE_VIEWS, _COARSE_SOURCES = 6, 8
_TELLING = (0.04, 0.5)  # baselines over depth between which a pair of frames tells the coarse sweep something
_COARSE_FARTHEST = 200.0  # extents of the path
_MARGIN = 1.25  # on both ends of the depths that the coarse sweep finds
_LEAST_OVERLAP = 0.4  # share of a view that its partners see
_SAME_POSE = 1e-3  # of the extent of the path, and radians
_LEAST_FOUND = 40  # pixels of the coarse sweep


class NoParallax(InvalidValue):
    """The camera does not move enough for depth to be told from its pictures."""


@dataclass(frozen=True)
class SweepSettings:
    """How dense depth is found. The defaults were chosen on worlds that no figure is reported of.

    Attributes:
        planes: depths that are tried, evenly spaced in inverse depth.
        radius: of the windows that are compared, pixels.
        views: key frames at most, each of which gets a depth map; None is half of the clip's frames, at least
            8 and at most 24, of long clips a quarter, at most 96.
        sources: pictures that each is compared with.
        best: of these, so many that fit best count.
        least_angle: median degrees between the rays to a point from both pictures of a pair.
        most_angle: of the same, above which pictures look too different.
        tolerance: relative difference of depths that agree.
        agree: other views that must agree.
        score: least mean correlation.
        near, far: bounds of depth in the unit of the poses; None finds them.
    """

    planes: int = 128
    radius: int = 2
    views: int | None = None
    sources: int = 4
    best: int = 2
    least_angle: float = 3.0
    most_angle: float = 20.0
    tolerance: float = 0.02
    agree: int = 4
    score: float = 0.5
    near: float | None = None
    far: float | None = None

    def __post_init__(self) -> None:
        least = {"planes": 8, "radius": 1, "sources": 1, "best": 1, "agree": 1}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise InvalidValue(f"{name} is {getattr(self, name)}; expected at least {value}.")
        if self.views is not None and self.views < 2:
            raise InvalidValue(f"views is {self.views}; expected at least 2.")
        if not 0.0 < self.tolerance < 1.0:
            raise InvalidValue(f"tolerance is {self.tolerance}; expected a share between 0 and 1.")
        if not 0.0 < self.least_angle < self.most_angle:
            raise InvalidValue(
                f"least_angle is {self.least_angle}, most_angle {self.most_angle}; expected degrees, "
                "0 < least_angle < most_angle."
            )
        ends = [value for value in (self.near, self.far) if value is not None]
        if any(not (np.isfinite(value) and value > 0) for value in ends) or sorted(ends) != ends:
            raise InvalidValue(f"near is {self.near}, far {self.far}; expected 0 < near < far.")


@dataclass(frozen=True, eq=False)
class DenseDepth:
    """Depth maps of key frames.

    Attributes:
        frames: i64 [K], which frames of the clip they are.
        depth: f32 [K, H, W], z-depth in the unit of the poses; NaN where it is not known or not believed.
        swept: bool [K, H, W], where the sweep gave a depth at all, agreed on or not.
        score: f32 [K, H, W], mean correlation.
        agreeing: i32 [K, H, W], other key frames that agree.
        near, far: range of the planes.
        parallax: median degrees between the rays from a view and its sources.
    """

    frames: np.ndarray
    depth: np.ndarray
    swept: np.ndarray
    score: np.ndarray
    agreeing: np.ndarray
    near: float
    far: float
    parallax: float

    @property
    def coverage(self) -> float:
        """Share of the key frames' pixels that have a depth."""
        return float(np.isfinite(self.depth).mean())


def key_frames(cameras: Cameras, count: int) -> np.ndarray:
    """Frames i64 [at most count] of a path, spread evenly over what it moves; the first and last among them.

    Where the camera rests one frame tells as much as many. Motion is distance over the path's extent plus
    turning over 60 degrees.
    """
    if len(cameras) <= count:
        return np.arange(len(cameras))
    steps = np.linalg.norm(np.diff(cameras.positions, axis=0), axis=1)
    total = steps.sum()
    motion = (steps / total if total > 0 else 0.0 * steps) + cameras.rotation_steps / 60.0 + 1e-9
    done = np.concatenate([[0.0], np.cumsum(motion)])
    return np.unique(np.searchsorted(done, np.linspace(0.0, done[-1], count) * (1 - 1e-12)))


def views_of(frames: int, settings: SweepSettings) -> int:
    """How many key frames a clip of so many frames gets at most."""
    if settings.views is not None:
        return settings.views
    return max(8, min(frames // 2, 24), min(frames // 4, 96))


def dense_depth(
    frames: np.ndarray,
    cameras: Cameras,
    masks: np.ndarray | None = None,
    settings: SweepSettings | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> DenseDepth:
    """Depth maps of the key frames of a clip.

    Work and memory grow with the key frames: pictures are swept one at a time.

    Args:
        frames: u8 [T, H, W, 3].
        cameras: of all frames.
        masks: bool [T, H, W], True = ignore (what moves).
        progress: called with (views done, views).

    Raises:
        NoParallax: the camera stands, turns only, or moves too little for its scene.
        InvalidValue: arrays that do not fit each other, pictures too small.
        CameraError: a pose or lens that is none, such as NaN.
    """
    settings = settings or SweepSettings()
    frames, masks = checked_frames(frames), checked_masks(masks, checked_frames(frames))
    height, width = frames.shape[1:3]
    if len(cameras) != len(frames):
        raise InvalidValue(f"there are {len(cameras)} poses for {len(frames)} frames; each needs its own.")
    if min(height, width) < 4 * settings.radius + 2:
        raise InvalidValue(
            f"pictures of {height}x{width} pixels are too small for windows of {2 * settings.radius + 1}."
        )
    cameras.validate("cameras of the clip")
    chosen = key_frames(cameras, views_of(len(frames), settings))
    path, grey = cameras[chosen], _grey(frames[chosen])
    seen = np.ones(grey.shape, bool) if masks is None else ~masks[chosen]
    extent = _extent(path)
    if extent <= 1e-9 * (1.0 + np.abs(path.positions).max()):
        raise NoParallax(_still(0.0, "it does not leave its place", settings))
    near, far, middle = depth_range(grey, seen, path, settings)
    angles, overlap = pair_angles(path, middle, (height, width))
    partners = [_partners(k, angles, overlap, settings) for k in range(len(chosen))]
    paired = [angles[k, other] for k, row in enumerate(partners) for other in row]
    with_partners, needed = sum(map(bool, partners)), 1 + min(settings.agree, len(chosen) - 1)
    if with_partners < needed:
        best = float(np.where(overlap >= _LEAST_OVERLAP, angles, 0.0).max())
        if best > settings.most_angle:
            raise InvalidValue(
                f"only {with_partners} of {len(chosen)} views have another {settings.least_angle:g} to "
                f"{settings.most_angle:g} degrees away, {needed} must; the widest pair has {best:.0f}: views "
                "are too far apart. Take more frames (--views, or a video of a higher frame rate)."
            )
        why = (
            f"its path spans {extent:.3g}, the middle of its scene is {middle:.3g} away; {with_partners} of "
            f"{len(chosen)} views have another at such an angle, {needed} must"
        )
        raise NoParallax(_still(best, why, settings))
    planes = np.linspace(1 / far, 1 / near, settings.planes).astype(np.float32)
    inverse, score = [], []
    for k, row in enumerate(partners):
        found = [np.full((height, width), np.nan, np.float32), np.full((height, width), -1.0, np.float32)]
        if row:
            found = _swept(k, row, grey, seen, path, planes, settings)
        inverse.append(np.where(seen[k] & (found[1] >= settings.score), found[0], np.nan))
        score.append(found[1])
        if progress is not None:
            progress(k + 1, len(partners))
    inverse, score = np.stack(inverse), np.stack(score)
    depth, agreeing = believed(inverse, path, settings)
    return DenseDepth(
        chosen,
        depth,
        np.isfinite(inverse),
        score,
        agreeing,
        float(near),
        float(far),
        float(np.median(paired)),
    )


def _swept(k, row, grey, seen, path, planes, settings):
    """Sweep view ``k`` against the views ``row``; a short row is filled up with views that do not count."""
    filled = np.array([*row, *([row[-1]] * (settings.sources - len(row)))])
    usable = np.zeros((len(planes), len(filled)), bool)
    usable[:, : len(row)] = True
    matrices = projections(
        path.world_from_camera[k],
        path.intrinsics[k],
        path.world_from_camera[filled],
        path.intrinsics[filled],
        grey.shape[1:],
    )
    best = min(settings.best, len(row))
    found = sweep(
        grey[k], grey[filled], matrices, planes, usable, seen[filled], radius=settings.radius, best=best
    )
    return [np.asarray(array) for array in found]


def believed(inverse: np.ndarray, path: Cameras, settings: SweepSettings) -> tuple[np.ndarray, np.ndarray]:
    """Depth f32 [K, H, W] where enough other views agree, the mean of all that do, else NaN; and how many
    agree, i32 [K, H, W]. ``inverse`` f32 [K, H, W] is inverse depth, NaN where unknown.

    Views from one pose are one witness: their pictures are the same, and so are their mistakes.
    """
    size = inverse.shape[1:]
    depth, counts = [], []
    on_device = jnp.asarray(inverse)
    same = _first_of_pose(path)
    witnesses = np.unique(same)
    for k in range(len(inverse)):
        others = witnesses[witnesses != same[k]]
        matrices = projections(
            path.world_from_camera[k],
            path.intrinsics[k],
            path.world_from_camera[others],
            path.intrinsics[others],
            size,
        )
        count, mean = agreement(on_device[k], on_device[others], matrices, settings.tolerance)
        kept = np.asarray(count) >= min(settings.agree, len(others))
        depth.append(np.where(kept, 1.0 / np.asarray(mean), np.nan).astype(np.float32))
        counts.append(np.asarray(count))
    return np.stack(depth), np.stack(counts)


def _grey(frames: np.ndarray) -> np.ndarray:
    """f32 [K, H, W], 0 to 1."""
    return (frames @ (np.array([0.299, 0.587, 0.114], np.float32) / 255.0)).astype(np.float32)


def _extent(path: Cameras) -> float:
    """The largest distance between two camera centres."""
    apart = path.positions[:, None] - path.positions[None]
    return float(np.linalg.norm(apart, axis=-1).max())


def _first_of_pose(path: Cameras) -> np.ndarray:
    """For each view the first that has its pose, to a thousandth of the path's extent and of a radian."""
    apart = np.linalg.norm(path.positions[:, None] - path.positions[None], axis=-1) / _extent(path)
    turned = np.abs(path.rotations[:, None] - path.rotations[None]).max((-1, -2))
    return np.argmax((apart <= _SAME_POSE) & (turned <= _SAME_POSE), axis=1)


def _still(degrees: float, why: str, settings: SweepSettings) -> str:
    return (
        f"the camera shows too little parallax: {degrees:.1f} degrees between rays to a point of the scene, "
        f"at least {settings.least_angle:g} are needed ({why}). A camera that stands or only turns cannot be "
        "triangulated; take a path that goes sideways, round or ahead."
    )


def pair_angles(path: Cameras, depth: float, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Median degrees between the rays of two views to points at ``depth`` before the first, f64 [K, K], and
    the share of these points that the second sees, f64 [K, K]."""
    u, v = np.meshgrid(np.linspace(0.1, 0.9, 6), np.linspace(0.1, 0.9, 5))
    count = len(path)
    angles, shares = np.zeros((count, count)), np.zeros((count, count))
    centres, lenses, inverse = path.positions, path.intrinsics, path.camera_from_world
    for k in range(count):
        lens = lenses[k]
        points = np.stack([(u - lens[2]) / lens[0], (v - lens[3]) / lens[1], np.ones_like(u)], -1)
        points = depth * points.reshape(-1, 3) @ path.rotations[k].T + centres[k]  # [P, 3]
        seen = np.einsum("kij,pj->kpi", inverse[:, :3, :3], points) + inverse[:, None, :3, 3]
        z = np.where(seen[..., 2] > 1e-9, seen[..., 2], np.nan)
        x = lenses[:, None, 0] * seen[..., 0] / z + lenses[:, None, 2]
        y = lenses[:, None, 1] * seen[..., 1] / z + lenses[:, None, 3]
        inside = (x >= 0) & (x <= 1) & (y >= 0) & (y <= 1)
        rays = points[None] - centres[:, None]
        rays = rays / np.maximum(np.linalg.norm(rays, axis=-1, keepdims=True), 1e-12)
        between = np.degrees(np.arccos(np.clip((rays * rays[k]).sum(-1), -1.0, 1.0)))
        for other in range(count):
            shares[k, other] = inside[other].mean()
            if inside[other].any():
                angles[k, other] = np.median(between[other][inside[other]])
    return angles, shares


def _partners(k: int, angles: np.ndarray, overlap: np.ndarray, settings: SweepSettings) -> list[int]:
    """What view ``k`` is compared with: views spread over those with enough parallax, in order of time."""
    fits = (
        (angles[k] >= settings.least_angle)
        & (angles[k] <= settings.most_angle)
        & (overlap[k] >= _LEAST_OVERLAP)
    )
    fits[k] = False
    found = np.flatnonzero(fits)
    if len(found) <= settings.sources:
        return found.tolist()
    return found[np.unique(np.linspace(0, len(found) - 1, settings.sources).round().astype(int))].tolist()


def depth_range(
    grey: np.ndarray, seen: np.ndarray, path: Cameras, settings: SweepSettings
) -> tuple[float, float, float]:
    """(near, far, middle) of the scene in the unit of the poses, by a coarse sweep over small pictures.

    Raises:
        NoParallax: nothing that several pictures agree on.
    """
    if settings.near is not None and settings.far is not None:
        return settings.near, settings.far, 2.0 / (1.0 / settings.near + 1.0 / settings.far)
    factor = max(1, round(grey.shape[1] / _COARSE_HEIGHT))
    small, shown = _reduced(grey, factor), _reduced(seen.astype(np.float32), factor) > 0.99
    path = _cropped(path, grey.shape[1:], [factor * side for side in small.shape[1:]])
    extent = _extent(path)
    views = np.unique(np.linspace(0, len(path) - 1, _COARSE_VIEWS).round().astype(int))
    apart = np.linalg.norm(path.positions[:, None] - path.positions[None], axis=-1)
    closest = np.median(np.sort(apart + np.diag(np.full(len(path), np.inf)), axis=1)[:, 0])
    nearest = max(closest / _TELLING[1], extent / 1000.0)
    planes = np.geomspace(1 / (_COARSE_FARTHEST * extent), 1 / nearest, _COARSE_PLANES).astype(np.float32)
    inverse = []
    for k in views:
        order = np.argsort(apart[k], kind="stable")[1:]
        row = order[np.unique(np.linspace(0, len(order) - 1, _COARSE_SOURCES).round().astype(int))]
        ratio = planes[:, None] * apart[k, row]
        usable = (ratio >= _TELLING[0]) & (ratio <= _TELLING[1])
        usable[:, -1] |= ratio[:, -1] < _TELLING[0]  # the widest pair tells most of what is far away
        matrices = projections(
            path.world_from_camera[k],
            path.intrinsics[k],
            path.world_from_camera[row],
            path.intrinsics[row],
            small.shape[1:],
        )
        found, _ = sweep(small[k], small[row], matrices, planes, usable, shown[row], radius=2, best=1)
        inverse.append(np.where(shown[k], np.asarray(found), np.nan))
    coarse = SweepSettings(tolerance=0.1, agree=2)
    depth, _ = believed(np.stack(inverse), path[views], coarse)
    depth = depth[np.isfinite(depth)]
    if len(depth) < _LEAST_FOUND:
        raise NoParallax(
            _still(
                0.0, f"only {len(depth)} pixels of small pictures have a depth that others confirm", settings
            )
        )
    near, middle, far = np.quantile(depth, [0.005, 0.5, 0.98])
    near, far = settings.near or near / _MARGIN, settings.far or far * _MARGIN
    if near >= far:
        raise InvalidValue(f"the scene lies between {near:.3g} and {far:.3g}: near and far leave nothing.")
    return float(near), float(far), float(middle)


def _reduced(maps: np.ndarray, factor: int) -> np.ndarray:
    """Means [K, H // factor, W // factor] of blocks; what is left over at the right and bottom is dropped."""
    count, height, width = maps.shape
    height, width = height // factor, width // factor
    blocks = maps[:, : height * factor, : width * factor].reshape(count, height, factor, width, factor)
    return blocks.mean((2, 4))


def _cropped(path: Cameras, size: Sequence[int], kept: Sequence[int]) -> Cameras:
    """The path of pictures of ``size`` of which the upper left (height, width) ``kept`` remains."""
    (height, width), (rows, columns) = size, kept
    grown = np.array([width / columns, height / rows] * 2)
    return Cameras(path.world_from_camera, path.intrinsics * grown, metric=path.metric)
