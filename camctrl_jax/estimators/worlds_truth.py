"""The exact truth of a world behind the protocols of estimators, to measure against and to test with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from camctrl_jax.camera.cameras import Cameras
from camctrl_jax.errors import InvalidValue
from camctrl_jax.estimators.protocols import (
    DepthResult,
    Fingerprint,
    MotionMasks,
    PointCloud,
    SfmResult,
    checked_frames,
)
from camctrl_jax.worlds import Frames, World, render
from camctrl_jax.worlds.scene import SKY_INSTANCE


@dataclass(frozen=True, eq=False)
class WorldsTruth:
    """All six protocols but embeddings, of one world. What is asked about must be the world's frames.

    The pixels that are passed are not looked at, only their shape: blurred, noisy or generated pictures of
    the same frames have the same truth.

    Attributes:
        world: the world.
        size: (height, width) of the pictures.
        frames: which frames of the world the clip consists of, increasing; None is all.
    """

    world: World
    size: tuple[int, int]
    frames: tuple[int, ...] | None = None

    @cached_property
    def rendered(self) -> Frames:
        """All frames of the world with their truth."""
        return render(self.world, *self.size)

    @property
    def chosen(self) -> np.ndarray:
        """Indices of the frames, i64 [T]."""
        return np.arange(self.world.frames) if self.frames is None else np.asarray(self.frames)

    @property
    def rgb(self) -> np.ndarray:
        """The clip itself, u8 [T, H, W, 3]."""
        return self.rendered.rgb[self.chosen]

    @property
    def cameras(self) -> Cameras:
        """Of the clip's frames, metric."""
        return self.world.cameras[self.chosen]

    def fingerprint(self) -> Fingerprint:
        settings = (("seed", self.world.seed), ("size", tuple(self.size)), ("frames", self.frames))
        return Fingerprint("worlds truth", "1", settings)

    def segment(self, frames: np.ndarray, fps: float) -> MotionMasks:
        """What moves at any time between this frame of the clip and the next one (of the last: the world's
        next)."""
        self._check(frames)
        chosen, moving = self.chosen, self.world.scene.moving  # bool [world frames, slots]
        ends = np.append(chosen[1:], chosen[-1] + 1)
        masks = []
        for start, end in zip(chosen, ends, strict=True):
            instances = self.rendered.instances[start]
            slots = np.append(moving[start : max(end, start + 1)].any(axis=0), False)
            masks.append(slots[np.where(instances == SKY_INSTANCE, len(slots) - 1, instances - 1)])
        return MotionMasks(np.stack(masks))

    def reconstruct(
        self,
        frames: np.ndarray,
        masks: np.ndarray | None = None,
        intrinsics: np.ndarray | None = None,
        times: np.ndarray | None = None,
    ) -> SfmResult:
        """The world's cameras, metric; every frame registered, no points."""
        self._check(frames)
        return SfmResult.of_cameras(self.cameras)

    def depth(self, frames: np.ndarray, intrinsics: np.ndarray | None = None) -> DepthResult:
        """z-depth in metres; the sky is not valid."""
        self._check(frames)
        depth = self.rendered.depth[self.chosen]
        return DepthResult(depth, np.isfinite(depth), self.cameras.intrinsics)

    def flow(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Flow of frames that follow one another: ``a`` is the clip but its last frame, ``b`` but its first.

        Raises:
            InvalidValue: another number of pairs, or a clip that leaves frames of the world out.
        """
        chosen = self.chosen
        if (np.diff(chosen) != 1).any():
            raise InvalidValue(
                "the true flow of a world is from each of its frames to the next: leave none out."
            )
        self._check(a, len(chosen) - 1)
        self._check(b, len(chosen) - 1)
        return self.rendered.flow[chosen[:-1]]

    def points(self, frames: np.ndarray, cameras: Cameras | None = None) -> PointCloud:
        """Every pixel that is neither sky nor movable, in the world's metres."""
        self._check(frames)
        ours = self.cameras
        height, width = self.size
        v, u = np.meshgrid(
            (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing="ij"
        )
        points, colours = [], []
        for pose, lens, index in zip(ours.world_from_camera, ours.intrinsics, self.chosen, strict=True):
            depth = self.rendered.depth[index].astype(np.float64)
            still = (self.rendered.instances[index] != SKY_INSTANCE) & np.isfinite(depth)
            still &= ~self._movable[self.rendered.instances[index]]
            x, y = (u - lens[2]) / lens[0] * depth, (v - lens[3]) / lens[1] * depth
            points.append(np.stack([x, y, depth], axis=-1)[still] @ pose[:3, :3].T + pose[:3, 3])
            colours.append(self.rendered.rgb[index][still])
        joined = np.concatenate(points)
        return PointCloud(
            joined, np.concatenate(colours), np.ones(len(joined), np.float32), ours, metric=True
        )

    @cached_property
    def _movable(self) -> np.ndarray:
        """By instance: whether it moves at any time."""
        return np.append(False, self.world.scene.moving.any(axis=0))

    def _check(self, frames: np.ndarray, count: int | None = None) -> None:
        expected = (len(self.chosen) if count is None else count, *self.size, 3)
        if checked_frames(frames).shape != expected:
            raise InvalidValue(
                f"frames are {list(np.shape(frames))}, those of world {self.world.seed} {list(expected)}."
            )
