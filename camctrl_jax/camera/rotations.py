"""Rotation matrices: angles, quaternions, projection, interpolation. NumPy float64, leading axes are free."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation, RotationSpline, Slerp


def deviation(matrices: np.ndarray) -> np.ndarray:
    """How far [..., 3, 3] are from orthonormal: the largest entry of ``|R^T R - I|``. Float64 [...]."""
    return np.abs(np.swapaxes(matrices, -1, -2) @ matrices - np.eye(3)).max(axis=(-1, -2))


def nearest(matrices: np.ndarray) -> np.ndarray:
    """The rotations nearest to [..., 3, 3] in the Frobenius norm (orthogonal Procrustes)."""
    u, _, vt = np.linalg.svd(matrices)
    u[..., :, 2] *= np.linalg.det(u @ vt)[..., None]
    return u @ vt


def angle_degrees(matrices: np.ndarray) -> np.ndarray:
    """Rotation angles of [..., 3, 3] in degrees, 0 to 180, precise at both ends. Float64 [...]."""
    twice_sine = np.linalg.norm(
        np.stack(
            [
                matrices[..., 2, 1] - matrices[..., 1, 2],
                matrices[..., 0, 2] - matrices[..., 2, 0],
                matrices[..., 1, 0] - matrices[..., 0, 1],
            ]
        ),
        axis=0,
    )
    return np.degrees(np.arctan2(twice_sine, np.trace(matrices, axis1=-2, axis2=-1) - 1.0))


def about(axis: np.ndarray, radians: np.ndarray) -> np.ndarray:
    """Rotations [N, 3, 3] by [N] angles about one unit axis [3], right-handed (Rodrigues' formula)."""
    x, y, z = axis
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    radians = np.asarray(radians, dtype=np.float64)[..., None, None]
    return np.eye(3) + np.sin(radians) * cross + (1.0 - np.cos(radians)) * (cross @ cross)


def aimed(forward: np.ndarray, down: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """Rotations whose z axis points along ``forward`` and whose x axis is level.

    Args:
        forward: [N, 3], of any length; below a millionth the camera keeps its rotation.
        down: [3], the vertical.
        otherwise: [N, 3, 3], the rotations to keep there, and whose x axis serves when looking straight up
            or down.

    Returns:
        float64 [N, 3, 3].
    """
    length = np.linalg.norm(forward, axis=1, keepdims=True)  # [N, 1]
    known = length > 1e-6
    forward = np.where(known, forward / np.maximum(length, 1e-12), otherwise[:, :, 2])
    right = np.cross(down, forward)
    upright = np.linalg.norm(right, axis=1, keepdims=True)
    right = np.where(upright > 1e-6, right, otherwise[:, :, 0])
    right = right - (right * forward).sum(axis=1, keepdims=True) * forward
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    rotation = np.stack([right, np.cross(forward, right), forward], axis=-1)
    return np.where(known[:, :, None], rotation, otherwise)


def from_quaternions(xyzw: np.ndarray) -> np.ndarray:
    """Rotation matrices [N, 3, 3] of quaternions [N, 4], scalar last; they need not have unit length."""
    return Rotation.from_quat(xyzw).as_matrix()


def to_quaternions(matrices: np.ndarray) -> np.ndarray:
    """Unit quaternions [N, 4], scalar last and not negative, of nearly orthonormal [N, 3, 3]."""
    return Rotation.from_matrix(nearest(matrices)).as_quat(canonical=True)


def from_vectors(vectors: np.ndarray) -> np.ndarray:
    """Rotation matrices [N, 3, 3] of rotation vectors [N, 3] (axis times angle in radians)."""
    return Rotation.from_rotvec(vectors).as_matrix()


def to_vectors(matrices: np.ndarray) -> np.ndarray:
    """Rotation vectors [N, 3] (axis times angle in radians) of nearly orthonormal [N, 3, 3]."""
    return Rotation.from_matrix(nearest(matrices)).as_rotvec()


def slerp(knots: np.ndarray, matrices: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Spherical linear interpolation of [K, 3, 3] given at increasing knots [K]. Float64 [N, 3, 3]."""
    return Slerp(knots, Rotation.from_matrix(nearest(matrices)))(np.clip(at, knots[0], knots[-1])).as_matrix()


def spline(knots: np.ndarray, matrices: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Like :func:`slerp`, with continuous angular velocity and acceleration through the knots."""
    rotation_spline = RotationSpline(knots, Rotation.from_matrix(nearest(matrices)))
    return rotation_spline(np.clip(at, knots[0], knots[-1])).as_matrix()
