"""Random camera paths for property tests."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from camctrl_jax.camera import Cameras

properties = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
"""For every property test of this folder."""


@st.composite
def paths(draw, min_frames: int = 1, max_frames: int = 7, timed: bool | None = None) -> Cameras:
    """Any path: random rotations, positions within 5 units, varying intrinsics, with or without times."""
    frames = draw(st.integers(min_frames, max_frames))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, :3, :3] = Rotation.from_quat(generator.normal(size=(frames, 4))).as_matrix()
    poses[:, :3, 3] = generator.uniform(-5, 5, (frames, 3))
    intrinsics = generator.uniform((0.4, 0.4, 0.3, 0.3), (2.0, 2.0, 0.7, 0.7), (frames, 4))
    if draw(st.booleans()):
        intrinsics[:] = intrinsics[0]
    timed = draw(st.booleans()) if timed is None else timed
    times = np.cumsum(generator.uniform(0.02, 0.5, frames)).round(6) if timed else None
    return Cameras(poses, intrinsics, times, metric=draw(st.booleans()))


def rigid(seed: int) -> np.ndarray:
    """A random rigid transform, [4, 4]."""
    generator = np.random.default_rng(seed)
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_quat(generator.normal(size=4)).as_matrix()
    matrix[:3, 3] = generator.uniform(-5, 5, 3)
    return matrix
