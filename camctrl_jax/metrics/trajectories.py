"""How far an estimated camera path is from the true one: TransErr and RotErr, and forms that stay sound.

The paper's appendix, section 6.1: centre both paths, scale the estimate, turn it by the rotation that aligns
its camera positions best (SVD), move it onto the reference, and take means over the frames. This is Umeyama's
similarity. Positions alone fix no rotation about the line of a straight path, and none at all for a camera
that only turns: ``rot_err_deg`` may be anything there. ``degenerate`` says when; ``rot_err_aligned_deg`` and
``rot_err_first_deg`` stay sound. NumPy float64 throughout; every pose is world from camera, 4x4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from camctrl_jax.camera import rotations
from camctrl_jax.camera.cameras import ROTATION_TOLERANCE
from camctrl_jax.errors import InvalidValue

DEGENERATE_BELOW = 0.2
"""Second over first singular value of the centred positions, below which a path is near a line.

Of ten real paths with 1 degree of noise an axis, those below this read up to 24 degrees in the median after
an alignment by positions, and 1.5 after one by rotations; above it 2 to 3.
"""

ROUGH_ABOVE = 1.3
"""Von Neumann's ratio of the positions, above which a path is jitter and not a motion (:func:`roughness`).

Of independent noise it is 2 in the mean, above 1.3 in 99 % of draws of 8 frames and in 99.9 % of 16. The
smoothest paths that turn about are far below: 0.05 to 0.2 at 16 frames, real paths 0.05 to 0.07, sparse
keyframes of a hand-held camera 0.98.
"""

STANDS_BELOW = 0.02
"""Extent of a path over the depth of the scene, below which the camera stands, for all that pictures tell."""

_STILL = 1e-9  # of the largest coordinate: positions that differ by less are rounding


@dataclass(frozen=True)
class Similarity:
    """``x -> scale * rotation @ x + translation``."""

    rotation: np.ndarray  # f64 [3, 3]
    translation: np.ndarray  # f64 [3]
    scale: float

    def poses(self, poses: np.ndarray) -> np.ndarray:
        """World-from-camera poses f64 [T, 4, 4] in the other world."""
        moved = poses.copy()
        moved[:, :3, :3] = self.rotation @ poses[:, :3, :3]
        moved[:, :3, 3] = self.scale * poses[:, :3, 3] @ self.rotation.T + self.translation
        return moved


def align_positions(estimate: np.ndarray, reference: np.ndarray, *, with_scale: bool = True) -> Similarity:
    """The similarity that brings positions f64 [T, 3] closest to others, least squares (Umeyama 1991).

    An estimate or a reference that stands still gives scale 1, since none is determined.
    """
    mean_estimate, mean_reference = estimate.mean(axis=0), reference.mean(axis=0)
    x, y = estimate - mean_estimate, reference - mean_reference
    u, _, vt = np.linalg.svd(y.T @ x / len(x))
    keep = np.array([1.0, 1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = (u * keep) @ vt
    return _similarity(rotation, x, y, mean_estimate, mean_reference, with_scale)


def align_rotations(estimate: np.ndarray, reference: np.ndarray, *, with_scale: bool = True) -> Similarity:
    """The similarity whose rotation is the mean of what turns the cameras f64 [T, 4, 4] onto the others.

    Chordal mean: the rotation nearest to ``sum_i R_reference,i R_estimate,i^T``. Determined for every path,
    a straight one and a standing one included; scale and translation follow from the positions.
    """
    summed = np.einsum("tij,tkj->ik", reference[:, :3, :3], estimate[:, :3, :3])
    rotation = rotations.nearest(summed)
    mean_estimate, mean_reference = estimate[:, :3, 3].mean(axis=0), reference[:, :3, 3].mean(axis=0)
    x, y = estimate[:, :3, 3] - mean_estimate, reference[:, :3, 3] - mean_reference
    return _similarity(rotation, x, y, mean_estimate, mean_reference, with_scale)


def _similarity(
    rotation: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    mean_x: np.ndarray,
    mean_y: np.ndarray,
    with_scale: bool,
) -> Similarity:
    """The best scale and translation for a rotation, of centred positions [T, 3]."""
    scale = _best_scale(x @ rotation.T, y) if with_scale else 1.0
    return Similarity(rotation, mean_y - scale * rotation @ mean_x, scale)


def _best_scale(x: np.ndarray, y: np.ndarray) -> float:
    """The scale s >= 0 with the least ``|s x - y|``: 0 for a path that goes the other way, 1 for no path."""
    spread = float((x**2).sum())
    return max(float((x * y).sum()), 0.0) / spread if spread > 0.0 else 1.0


@dataclass(frozen=True)
class PathErrors:
    """Errors of one estimated path. Lengths are in units of the reference, angles in degrees.

    Attributes:
        frames: T.
        trans_err: TransErr, mean distance of positions after alignment by positions.
        rot_err_deg: RotErr, mean angle between orientations after the same alignment.
        trans_err_aligned, rot_err_aligned_deg: the same after alignment by rotations.
        trans_err_first, rot_err_first_deg: the same after the first cameras coincide, with the scale that
            fits best; the first frame, which is 0 by construction, is not in the means.
        rpe_trans, rpe_rot_deg: mean error of the motion from each frame to the next, after the alignment.
        scale: of the alignment by positions.
        path_length: of the reference.
        spread_ratio: second over first singular value of the centred reference positions, 0 on a line.
        roughness: of the reference, see :func:`roughness`.
        degenerate: whether one of the paths is too near a line, a point or a turn on the spot for
            ``rot_err_deg``, or is nothing but jitter: a straight estimate of a bent path leaves the rotation
            as free as the reverse. With the depth of the scene also a smooth path that is small beside it.
        sum_rot_first_rad, sum_trans_first: sums over frames relative to the first, as the code of CamI2V
            reports them (radians; both paths divided by their own largest distance from the first camera).
            Never to be put in one column with means.
    """

    frames: int
    trans_err: float
    rot_err_deg: float
    trans_err_aligned: float
    rot_err_aligned_deg: float
    trans_err_first: float
    rot_err_first_deg: float
    rpe_trans: float
    rpe_rot_deg: float
    scale: float
    path_length: float
    spread_ratio: float
    roughness: float
    degenerate: bool
    sum_rot_first_rad: float
    sum_trans_first: float


def path_errors(
    estimate: np.ndarray, reference: np.ndarray, *, scene_depth: float | None = None
) -> PathErrors:
    """Errors of an estimated path against the true one.

    Args:
        estimate, reference: world-from-camera poses f64 [T, 4, 4], frame by frame, T >= 2.
        scene_depth: how far away things are, in the reference's unit, where that is known: a reference that
            strays less than 2 % of it from its mean is ``degenerate``. Poses alone have no scale: without it
            a smooth small sway of a camera on a tripod cannot be told from a path.

    Raises:
        InvalidValue: for other shapes, another number of frames, values that are not finite, or poses that
            are no rigid motions.
    """
    estimate, reference = _checked(estimate, reference)
    similarity = align_positions(estimate[:, :3, 3], reference[:, :3, 3])
    aligned = similarity.poses(estimate)
    turned = align_rotations(estimate, reference).poses(estimate)
    first = _first_frames_joined(estimate, reference)
    places = reference[:, :3, 3]
    ratio = spread_ratio(places)
    stands = scene_depth is not None and _extent(places) < STANDS_BELOW * scene_depth
    motion_errors = _relative(aligned[:-1], aligned[1:]), _relative(reference[:-1], reference[1:])
    differences = np.linalg.inv(motion_errors[1]) @ motion_errors[0]
    sum_rotation, sum_translation = _sums_relative_to_first(estimate, reference)
    return PathErrors(
        frames=len(reference),
        trans_err=float(_distances(aligned, reference).mean()),
        rot_err_deg=float(_angles(aligned, reference).mean()),
        trans_err_aligned=float(_distances(turned, reference).mean()),
        rot_err_aligned_deg=float(_angles(turned, reference).mean()),
        trans_err_first=float(_distances(first, reference)[1:].mean()),
        rot_err_first_deg=float(_angles(first, reference)[1:].mean()),
        rpe_trans=float(np.linalg.norm(differences[:, :3, 3], axis=1).mean()),
        rpe_rot_deg=float(rotations.angle_degrees(differences[:, :3, :3]).mean()),
        scale=similarity.scale,
        path_length=float(np.linalg.norm(np.diff(places, axis=0), axis=1).sum()),
        spread_ratio=ratio,
        roughness=roughness(places),
        degenerate=bool(stands or _fixes_no_rotation(places) or _fixes_no_rotation(estimate[:, :3, 3])),
        sum_rot_first_rad=sum_rotation,
        sum_trans_first=sum_translation,
    )


def spread_ratio(positions: np.ndarray) -> float:
    """Second over first singular value of centred positions [T, 3]; 0 for a line and for a point."""
    centred = positions - positions.mean(axis=0)
    singular = np.linalg.svd(centred, compute_uv=False)
    if singular[0] <= _STILL * max(1.0, float(np.abs(positions).max())):
        return 0.0
    return float(singular[1] / singular[0])


def roughness(positions: np.ndarray) -> float:
    """Von Neumann's ratio (1941): mean square of the steps over the variance of positions [T, 3].

    About 2 where positions are independent noise, a camera on a tripod as structure from motion sees it; 2
    over the square of the number of frames and less for a motion. It has no unit and does not ask how large
    the jitter is. Of 3 poses it is 1.5 or more whatever they do, and of 5 that turn quickly up to 1.8: so few
    cannot be told from jitter. 0 for a camera that stands exactly.
    """
    if _extent(positions) <= _STILL * max(1.0, float(np.abs(positions).max())):
        return 0.0
    steps = (np.diff(positions, axis=0) ** 2).sum(axis=1).mean()
    return float(steps / ((positions - positions.mean(axis=0)) ** 2).sum(axis=1).mean())


def _extent(positions: np.ndarray) -> float:
    """The largest distance of a position from their mean."""
    return float(np.linalg.norm(positions - positions.mean(axis=0), axis=1).max())


def _fixes_no_rotation(positions: np.ndarray) -> bool:
    """Whether positions [T, 3] leave the rotation of an alignment free: a line, a point, or jitter."""
    return spread_ratio(positions) < DEGENERATE_BELOW or roughness(positions) > ROUGH_ABOVE


def _checked(estimate: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    estimate, reference = np.asarray(estimate, np.float64), np.asarray(reference, np.float64)
    for name, poses in (("estimated", estimate), ("reference", reference)):
        if poses.ndim != 3 or poses.shape[1:] != (4, 4) or len(poses) < 2:
            raise InvalidValue(
                f"the {name} path has shape {list(poses.shape)}; expected [frames, 4, 4] of 2 frames or more."
            )
        if not np.isfinite(poses).all():
            raise InvalidValue(f"the {name} path holds NaN or infinity.")
        turns = poses[:, :3, :3]
        mirrored, off = np.linalg.det(turns) <= 0.0, rotations.deviation(turns) > ROTATION_TOLERANCE
        bent = np.abs(poses[:, 3] - (0.0, 0.0, 0.0, 1.0)).max(axis=1) > ROTATION_TOLERANCE
        wrong = np.flatnonzero(mirrored | off | bent)
        if len(wrong):
            raise InvalidValue(
                f"the {name} path has {len(wrong)} poses that are no rigid motions, the first that of frame "
                f"{wrong[0]}: scaled, mirrored, transposed or rounded too far. Angles would mean nothing."
            )
    if len(estimate) != len(reference):
        raise InvalidValue(
            f"the estimate has {len(estimate)} poses and the reference {len(reference)}: they are compared "
            "frame by frame."
        )
    return estimate, reference


def _first_frames_joined(estimate: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """The estimate in the reference's world, the first cameras on each other, at the scale that fits best."""
    from_first = np.linalg.inv(estimate[0]) @ estimate
    wanted = np.linalg.inv(reference[0]) @ reference
    from_first[:, :3, 3] *= _best_scale(from_first[:, :3, 3], wanted[:, :3, 3])
    return reference[0] @ from_first


def _relative(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return np.linalg.inv(before) @ after


def _distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.linalg.norm(one[:, :3, 3] - other[:, :3, 3], axis=1)


def _angles(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return rotations.angle_degrees(np.swapaxes(one[:, :3, :3], 1, 2) @ other[:, :3, :3])


def _sums_relative_to_first(estimate: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    paths = [np.linalg.inv(poses[0]) @ poses for poses in (estimate, reference)]
    angles = np.radians(_angles(*paths))
    offsets = []
    for poses in paths:
        farthest = np.linalg.norm(poses[:, :3, 3], axis=1).max()
        offsets.append(poses[:, :3, 3] / (farthest if farthest > 0.0 else 1.0))
    return float(angles.sum()), float(np.linalg.norm(offsets[0] - offsets[1], axis=1).sum())
