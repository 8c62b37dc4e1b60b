"""The camera path type, and the conventions every other part of the package relies on.

* A matrix is named ``a_from_b``: it maps column vectors of coordinates in b to coordinates in a.
* Camera axes are OpenCV's: x right, y down, z forward. The world is right-handed; in a path made here it is
  the first camera, so y points down in the world too.
* Intrinsics are fractions of the picture: ``fx / width, fy / height, cx / width, cy / height``. Pixel centres
  lie at +0.5, so a picture's centre is (0.5, 0.5) and resizing changes no intrinsics.
* Translations are metres where ``metric`` is true, and in an unknown unit otherwise.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from camctrl_jax.camera import rotations
from camctrl_jax.errors import UserError

ROTATION_TOLERANCE = 1e-3
"""Largest entry of ``|R^T R - I|`` that is still taken for rounding. Published files stay below 2e-6."""


class CameraError(UserError, ValueError):
    """Poses, intrinsics or times that cannot describe a camera path."""


@dataclass(frozen=True, eq=False)
class Cameras:
    """A camera path: one pose and one set of intrinsics per frame. Immutable; arrays are copied and locked.

    Attributes:
        world_from_camera: float64 [T, 4, 4], OpenCV camera axes.
        intrinsics: float64 [T, 4], fx/W, fy/H, cx/W, cy/H. A single [4] row is repeated for every frame.
        times: float64 [T] in seconds, or None when the source gives none.
        metric: whether translations are metres.

    Raises:
        CameraError: for shapes that do not fit together. Values are checked by :meth:`validate`.
    """

    world_from_camera: np.ndarray
    intrinsics: np.ndarray
    times: np.ndarray | None = None
    metric: bool = False

    def __post_init__(self) -> None:
        poses = np.array(self.world_from_camera, dtype=np.float64)
        if poses.ndim != 3 or poses.shape[1:] != (4, 4):
            raise CameraError(f"world_from_camera has shape {poses.shape}; expected [frames, 4, 4]")
        intrinsics = np.array(self.intrinsics, dtype=np.float64)
        if intrinsics.shape == (4,):
            intrinsics = np.tile(intrinsics, (len(poses), 1))
        if intrinsics.shape != (len(poses), 4):
            raise CameraError(
                f"intrinsics have shape {intrinsics.shape} for {len(poses)} poses; expected "
                f"[{len(poses)}, 4] (fx/W, fy/H, cx/W, cy/H for each frame) or one [4] row"
            )
        times = None if self.times is None else np.array(self.times, dtype=np.float64)
        if times is not None and times.shape != (len(poses),):
            raise CameraError(
                f"times have shape {times.shape} for {len(poses)} poses; expected [{len(poses)}]"
            )
        for name, array in (("world_from_camera", poses), ("intrinsics", intrinsics), ("times", times)):
            if array is not None:
                array.setflags(write=False)
            object.__setattr__(self, name, array)
        object.__setattr__(self, "metric", bool(self.metric))

    def __len__(self) -> int:
        return len(self.world_from_camera)

    def __getitem__(self, frames: int | slice | ArrayLike) -> Cameras:
        """The cameras of the given frames. An integer gives a path of one frame."""
        if isinstance(frames, (int, np.integer)):
            if not -len(self) <= frames < len(self):
                raise IndexError(f"frame {frames} of a path of {len(self)} frames")
            frames = [frames]
        index = frames if isinstance(frames, slice) else np.asarray(frames)
        return dataclasses.replace(
            self,
            world_from_camera=self.world_from_camera[index],
            intrinsics=self.intrinsics[index],
            times=None if self.times is None else self.times[index],
        )

    def __repr__(self) -> str:
        unit = "m" if self.metric else "units"
        return f"Cameras({len(self)} frames, {self.path_length:.3g} {unit}, {self.total_rotation:.3g} deg)"

    @property
    def positions(self) -> np.ndarray:
        """Camera centres in the world, float64 [T, 3]."""
        return self.world_from_camera[:, :3, 3]

    @property
    def rotations(self) -> np.ndarray:
        """World-from-camera rotations, float64 [T, 3, 3]; their columns are the camera's x, y, z axes."""
        return self.world_from_camera[:, :3, :3]

    @property
    def camera_from_world(self) -> np.ndarray:
        """The extrinsics of the literature: inverse poses, float64 [T, 4, 4]."""
        return np.linalg.inv(self.world_from_camera)

    @property
    def path_length(self) -> float:
        """Summed distance between consecutive centres, in metres if ``metric``."""
        return float(np.linalg.norm(np.diff(self.positions, axis=0), axis=1).sum())

    @property
    def rotation_steps(self) -> np.ndarray:
        """Angle in degrees between consecutive frames, float64 [T - 1]."""
        return rotations.angle_degrees(np.swapaxes(self.rotations[:-1], 1, 2) @ self.rotations[1:])

    @property
    def total_rotation(self) -> float:
        """Summed angle between consecutive frames, in degrees."""
        return float(self.rotation_steps.sum())

    @property
    def net_rotation(self) -> float:
        """Angle between the first and the last frame, in degrees."""
        return float(rotations.angle_degrees(self.rotations[0].T @ self.rotations[-1]))

    @property
    def fov_degrees(self) -> np.ndarray:
        """Horizontal and vertical field of view of every frame in degrees, float64 [T, 2]."""
        return np.degrees(2.0 * np.arctan(0.5 / self.intrinsics[:, :2]))

    def validate(self, source: str = "camera path", locations: Sequence[str] | None = None) -> Cameras:
        """Check every value and return the path itself.

        Args:
            source: what the error message names, usually the file.
            locations: where each frame comes from, for example ``"line 7"``. Default: ``"frame 5"``.

        Raises:
            CameraError: naming the first bad frame, its value, what was expected and what to do.
        """

        def fail(frame: int, message: str) -> None:
            where = locations[frame] if locations is not None else f"frame {frame}"
            raise CameraError(f"{source}: {where}: {message}")

        if len(self) == 0:
            raise CameraError(f"{source}: holds no poses; at least one is needed")
        for frame in np.flatnonzero(~np.isfinite(self.world_from_camera).all(axis=(1, 2))):
            fail(frame, "the pose holds NaN or infinity; drop this frame or estimate its pose again")
        for frame in np.flatnonzero(np.abs(self.world_from_camera[:, 3] - (0, 0, 0, 1)).max(axis=1) > 1e-6):
            row = np.array2string(self.world_from_camera[frame, 3], precision=6)
            fail(frame, f"the last row of the pose is {row}, expected [0 0 0 1]; is the matrix transposed?")
        deviation = rotations.deviation(self.rotations)  # [T]
        determinant = np.linalg.det(self.rotations)  # [T]
        for frame in np.flatnonzero(deviation > ROTATION_TOLERANCE):
            fail(
                frame,
                f"the rotation is not orthonormal: |R^T R - I| reaches {deviation[frame]:.3g}, at most "
                f"{ROTATION_TOLERANCE:g} is accepted. Check the order of the numbers, take a scale out of "
                "the matrix, or project it onto the nearest rotation with Cameras.orthonormalised()",
            )
        for frame in np.flatnonzero(determinant < 0):
            fail(
                frame,
                f"the rotation has determinant {determinant[frame]:.3f}: it mirrors, it does not rotate. "
                "Convert the source's left-handed axes first",
            )
        check_intrinsics(self.intrinsics, fail)
        if self.times is not None:
            for frame in np.flatnonzero(~np.isfinite(self.times)):
                fail(frame, f"the time is {self.times[frame]}, expected seconds")
            for frame in np.flatnonzero(np.diff(self.times) <= 0) + 1:
                fail(
                    frame,
                    f"time {self.times[frame]:.6f} s does not come after {self.times[frame - 1]:.6f} s; "
                    "times must increase. Sort the frames, or leave the times out",
                )
        return self

    def relative_to(self, frame: int = 0) -> Cameras:
        """The same path seen from one of its own cameras: that frame becomes the identity."""
        return self.transformed(np.linalg.inv(self.world_from_camera[frame]))

    def transformed(self, new_from_world: ArrayLike) -> Cameras:
        """The same path in another world frame, given the rigid 4x4 transform to it."""
        poses = np.asarray(new_from_world, dtype=np.float64) @ self.world_from_camera
        return dataclasses.replace(self, world_from_camera=poses)

    def scaled(self, factor: float, *, metric: bool | None = None) -> Cameras:
        """All translations times ``factor``. Pass ``metric=True`` when the result is in metres."""
        if not (np.isfinite(factor) and factor > 0):
            raise CameraError(f"cannot scale a path by {factor}; expected a positive number")
        poses = self.world_from_camera.copy()
        poses[:, :3, 3] *= factor
        return dataclasses.replace(
            self, world_from_camera=poses, metric=self.metric if metric is None else metric
        )

    def reversed(self) -> Cameras:
        """The path travelled backwards. Times still increase, with the same gaps in reverse order."""
        backwards = self[::-1]
        if self.times is None:
            return backwards
        return dataclasses.replace(backwards, times=self.times[0] + self.times[-1] - backwards.times)

    def with_fps(self, fps: float) -> Cameras:
        """The same frames played at ``fps`` frames per second, starting at 0 s."""
        return dataclasses.replace(self, times=np.arange(len(self)) / fps)

    def with_intrinsics(self, intrinsics: ArrayLike) -> Cameras:
        """The same poses with other intrinsics, [T, 4] or one [4] row."""
        return dataclasses.replace(self, intrinsics=np.asarray(intrinsics, dtype=np.float64))

    def orthonormalised(self) -> Cameras:
        """Every rotation replaced by the nearest one (orthogonal Procrustes by SVD)."""
        poses = self.world_from_camera.copy()
        poses[:, :3, :3] = rotations.nearest(self.rotations)
        return dataclasses.replace(self, world_from_camera=poses)


def check_intrinsics(intrinsics: np.ndarray, fail) -> None:
    """Check normalised intrinsics [T, 4]; ``fail(frame, message)`` is called for the first bad frame."""
    for frame in np.flatnonzero(~np.isfinite(intrinsics).all(axis=1)):
        fail(
            frame, f"the intrinsics {intrinsics[frame]} hold NaN or infinity; expected fx/W, fy/H, cx/W, cy/H"
        )
    for frame in np.flatnonzero(look_like_pixels(intrinsics)):
        values = ", ".join(f"{value:g}" for value in intrinsics[frame])
        fail(
            frame,
            f"the intrinsics ({values}) look like pixels; expected fractions of width and height "
            "(fx/W, fy/H, cx/W, cy/H). If they are pixels, divide fx and cx by the width, fy and cy by the "
            "height; readers of files do so with image_size=(height, width)",
        )
    for frame in np.flatnonzero((intrinsics[:, :2] <= 0).any(axis=1)):
        fail(frame, f"the focal lengths {intrinsics[frame, :2]} are not positive")


def look_like_pixels(intrinsics: np.ndarray) -> np.ndarray:
    """Which rows of [..., 4] cannot be fractions of the picture. Bool [...].

    A focal length of 20 picture widths is a field of view of 2.9 degrees, a principal point 4 widths away is
    far outside the picture: no published path comes near either, and pixels of any real video exceed both.
    """
    return (np.abs(intrinsics[..., :2]) > 20).any(axis=-1) | (np.abs(intrinsics[..., 2:]) > 4).any(axis=-1)
