"""From a source picture to a training size: resize to cover, crop, and the intrinsics that follow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from camctrl_jax.camera.intrinsics import crop_resize_intrinsics
from camctrl_jax.errors import InvalidValue


@dataclass(frozen=True)
class Framing:
    """How a picture is resized and then cropped. All sizes are (height, width) in pixels.

    The resized picture is a plain squash of the source to whole pixels, which leaves normalised intrinsics as
    they are; the crop takes whole pixels out of it and changes them. Nothing is rounded in between, so rays
    stay exact.
    """

    resized: tuple[int, int]
    top: int
    left: int
    target: tuple[int, int]

    @classmethod
    def cover(
        cls, source: tuple[int, int], target: tuple[int, int], anchor: tuple[float, float] = (0.5, 0.5)
    ) -> Framing:
        """Fill ``target`` with as much of the source as its aspect ratio allows.

        Args:
          source, target: sizes.
          anchor: where the crop lies, vertically and horizontally, from 0 (top, left) to 1 (bottom, right).
        """
        if min(*source, *target) < 1:
            raise InvalidValue(f"sizes must be positive, got source {source} and target {target}.")
        scale = max(target[0] / source[0], target[1] / source[1])
        resized = tuple(max(goal, round(size * scale)) for goal, size in zip(target, source))
        top, left = (round(place * (size - goal)) for place, size, goal in zip(anchor, resized, target))
        return cls(resized, top, left, target)

    def crop(self, pictures: np.ndarray) -> np.ndarray:
        """[..., H, W, C] of the resized size to the target size; a view."""
        height, width = self.target
        return pictures[..., self.top : self.top + height, self.left : self.left + width, :]

    def intrinsics(self, intrinsics: np.ndarray) -> np.ndarray:
        """Normalised intrinsics f64 [..., 4] of the target picture, from those of the source picture."""
        return crop_resize_intrinsics(
            intrinsics, self.resized, (self.top, self.left, *self.target), self.target
        )


def null_intrinsics(height: int, width: int) -> np.ndarray:
    """f32 [4]: intrinsics given to clips without cameras: square pixels, fy/H = 1, centred."""
    return np.asarray([height / width, 1.0, 0.5, 0.5], np.float32)


def relative_to_first(world_from_camera: np.ndarray) -> np.ndarray:
    """Poses f64 [..., T, 4, 4] seen from the camera of frame 0, which becomes exactly the identity."""
    poses = np.asarray(world_from_camera, np.float64)
    relative = relative_to_reference(poses, poses[..., 0, :, :])
    relative[..., 0, :, :] = np.eye(4)
    return relative


def relative_to_reference(world_from_camera: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Poses f64 [..., T, 4, 4] seen from a camera of pose [..., 4, 4] in the same world."""
    poses = np.asarray(world_from_camera, np.float64)
    first = np.asarray(reference, np.float64)[..., None, :, :]
    rotation = np.swapaxes(first[..., :3, :3], -1, -2)
    relative = np.zeros_like(poses)
    relative[..., :3, :3] = rotation @ poses[..., :3, :3]
    relative[..., :3, 3] = np.squeeze(rotation @ (poses[..., :3, 3:] - first[..., :3, 3:]), -1)
    relative[..., 3, 3] = 1.0
    return relative
