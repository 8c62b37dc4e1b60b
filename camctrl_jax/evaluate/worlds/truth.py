"""What is true of a scene: its render, what the first frame shows of it, and renders along other paths."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy import ndimage

from camctrl_jax.camera import Cameras
from camctrl_jax.clip_shape import ClipShape
from camctrl_jax.evaluate.worlds.settings import Settings
from camctrl_jax.metrics.worlds_scores import FIRST_SCORED_FRAME
from camctrl_jax.worlds import World, WorldsConfig, render_rgb, sample_world
from camctrl_jax.worlds.benchmark import BENCHMARK_SCENES, STATIC, benchmark_scene, scaled_path
from camctrl_jax.worlds.corruptions import static_variant
from camctrl_jax.worlds.geometry import moving_now, render_geometry
from camctrl_jax.worlds.scene import Scene

PATH_SCALES = (0.0, 0.25, 0.5, 0.7, 0.85, 1.0, 1.15, 1.3)
"""At which the path is rendered to find out how far a clip went along it."""

SCALED_FRAMES = slice(FIRST_SCORED_FRAME + 3, None, 4)
"""The frames that are compared for that: 9, 13, 17, ..."""

REGIONS = ("hidden", "moving", "still")
_FAR = 1e4  # metres, of the sky
_FILL_BLUR = 4.0  # pixels


@dataclass(frozen=True, eq=False)
class Case:
    """One scene to measure on.

    Attributes:
        index: its place in this evaluation.
        path_class, difficulty: of its path; "own" and "" for a world's own.
        world: scene, true path and captions.
        decoy: another scene's path, from this scene's first camera and with its lens.
        twin: a world as real, with a path of the same class; None where there is none.
    """

    index: int
    path_class: str
    difficulty: str
    world: World
    decoy: Cameras
    twin: World | None = None

    @property
    def stands(self) -> bool:
        """Whether the camera does not move, so that no scale of the path can be told."""
        poses = self.world.cameras.world_from_camera
        return bool(np.abs(poses - poses[0]).max() < 1e-9)


def cases_of(settings: Settings, shape: ClipShape, indices: Sequence[int]) -> list[Case]:
    """Scenes by their places in the evaluation that (resolved) settings describe."""
    config = WorldsConfig(frames=shape.frames, aspect=shape.width / shape.height)
    found: dict[int, Any] = {}  # a scene is its neighbour's decoy as well

    def get(index: int) -> Any:
        if index not in found:
            if settings.paths == "benchmark":
                found[index] = benchmark_scene(index % BENCHMARK_SCENES, config)
            else:
                found[index] = sample_world(settings.first_seed + index % settings.count, config)
        return found[index]

    cases = []
    for index in indices:
        scene, other = get(index), get(index + 1)
        if settings.paths == "benchmark":
            twin = benchmark_scene(index, config, twin=True).world
            decoy = decoy_path(scene.world, other.world)
            cases.append(Case(index, scene.path_class, scene.difficulty, scene.world, decoy, twin))
        else:
            kind = "own" if scene.moves else STATIC
            cases.append(Case(index, kind, "", scene, decoy_path(scene, other)))
    return cases


def decoy_path(world: World, other: World) -> Cameras:
    """Another world's path from this world's first camera, with its lens."""
    first = world.cameras.world_from_camera[0]
    path = other.cameras.relative_to(0).transformed(first)
    return dataclasses.replace(path.with_intrinsics(world.cameras.intrinsics), times=world.cameras.times)


@dataclass(frozen=True, eq=False)
class Truth:
    """What is known of a scene, on the host.

    Attributes:
        case: which.
        video: u8 [T, H, W, 3], the true render.
        scaled: u8 [A, F, H, W, 3], rendered along the path at ``PATH_SCALES``, frames ``SCALED_FRAMES``.
        warp: u8 [T, H, W, 3], the first frame seen along the path by exact geometry (:func:`warped`).
        moving: bool [T, H, W], what moves from this frame to the next.
        regions: bool [T, H, W] by name: "moving" pixels show what moves at any time of the clip, "hidden"
            ones what stands and is not seen in the first frame, "still" ones what stands and is.
        twin: u8 [T, H, W, 3], the render of ``case.twin``, or None.
    """

    case: Case
    video: np.ndarray
    scaled: np.ndarray
    warp: np.ndarray
    moving: np.ndarray
    regions: dict[str, np.ndarray]
    twin: np.ndarray | None = None

    @cached_property
    def repeated(self) -> np.ndarray:
        """The first frame at all times, u8 [T, H, W, 3]."""
        return np.broadcast_to(self.video[:1], self.video.shape)


def truths(
    cases: Sequence[Case], shape: ClipShape, samples: int, each: Callable[..., Any] = map
) -> list[Truth]:
    """Render scenes with ``samples`` squared rays a pixel; ``each`` maps over scenes, in threads perhaps."""
    size, worlds = (shape.height, shape.width), [case.world for case in cases]
    video = np.asarray(render_rgb(worlds, *size, samples))
    _, instances, seen = render_geometry(worlds, *size)
    at_rest, _, seen_at_rest = render_geometry([static_variant(world) for world in worlds], *size)
    scaled = _along_scaled(cases, size, samples)
    twins: list[np.ndarray | None] = [None] * len(cases)
    if all(case.twin is not None for case in cases):
        twins = list(np.asarray(render_rgb([case.twin for case in cases], *size, samples)))

    def finished(place: int) -> Truth:
        case, known = cases[place], seen[place]
        ever = np.concatenate([[False], case.world.scene.moving.any(axis=0)])[instances[place]]
        regions = {"hidden": ~ever & ~known, "moving": ever, "still": ~ever & known}
        warp = warped(video[place, 0], at_rest[place], seen_at_rest[place], case.world.cameras)
        moving = moving_now(case.world, instances[place])
        return Truth(case, video[place], scaled[place], warp, moving, regions, twins[place])

    return list(each(finished, range(len(cases))))


def _along_scaled(cases: Sequence[Case], size: tuple[int, int], samples: int) -> np.ndarray:
    """u8 [N, A, F, H, W, 3]."""
    worlds = [
        at_frames(along(case.world, scaled_path(case.world.cameras, scale)), SCALED_FRAMES)
        for case in cases
        for scale in PATH_SCALES
    ]
    video = np.asarray(render_rgb(worlds, *size, samples))
    return video.reshape(len(cases), len(PATH_SCALES), *video.shape[1:])


def along(world: World, cameras: Cameras) -> World:
    """The same world, filmed along another path."""
    return dataclasses.replace(world, cameras=cameras)


def at_frames(world: World, frames: slice) -> World:
    """Some frames of a world only."""
    chosen = np.arange(world.frames)[frames]
    poses = np.append(chosen, chosen[-1] + 1)  # what it has one more of
    arrays = world.scene.arrays() | {
        "position": world.scene.position[poses],
        "rotation": world.scene.rotation[poses],
        "moving": world.scene.moving[chosen],
    }
    return dataclasses.replace(world, scene=Scene(**arrays), cameras=world.cameras[chosen])


# -------------------------------------------------------------------------------------------- exact geometry


def warped(first: np.ndarray, depth: np.ndarray, seen: np.ndarray, cameras: Cameras) -> np.ndarray:
    """The first frame seen along a path by exact geometry: what a static scene without guessing allows.

    What the first frame does not show is filled with the blurred colour of the nearest pixel that it does.

    Args:
        first: u8 [H, W, 3].
        depth: f [T, H, W], z-depth of every frame of the scene at rest.
        seen: bool [T, H, W], whether the first frame shows what a pixel of the scene at rest shows.
        cameras: of the frames.

    Returns:
        u8 [T, H, W, 3].
    """
    colours, video = first.astype(np.float32), np.empty((*depth.shape, 3), np.uint8)
    for t, (distance, known) in enumerate(zip(depth, seen, strict=True)):
        row, column = _in_first(distance, cameras.world_from_camera[t], cameras)
        image = np.stack([_sampled(colours[..., c], row, column) for c in range(3)], axis=-1)
        if not known.any():
            image = np.broadcast_to(colours.mean(axis=(0, 1)), image.shape)
        elif not known.all():
            nearest = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
            fill = ndimage.gaussian_filter(image[tuple(nearest)], (_FILL_BLUR, _FILL_BLUR, 0))
            image = np.where(known[..., None], image, fill)
        video[t] = np.round(image).clip(0, 255)
    return video


def _in_first(depth: np.ndarray, pose: np.ndarray, cameras: Cameras) -> tuple[np.ndarray, np.ndarray]:
    """(row, column) in the first frame of what the pixels of another frame [H, W] show."""
    first, lens = cameras.world_from_camera[0], cameras.intrinsics[0]
    height, width = depth.shape
    u, v = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    rays = np.stack([(u - lens[2]) / lens[0], (v - lens[3]) / lens[1], np.ones_like(u)], axis=-1)
    point = rays * np.minimum(depth, _FAR)[..., None] @ pose[:3, :3].T + pose[:3, 3]
    local = (point - first[:3, 3]) @ first[:3, :3]
    ahead = np.maximum(local[..., 2], 1e-3)
    column = (lens[0] * local[..., 0] / ahead + lens[2]) * width - 0.5
    row = (lens[1] * local[..., 1] / ahead + lens[3]) * height - 0.5
    return row, column


def _sampled(channel: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    return ndimage.map_coordinates(channel, [row, column], order=1, mode="nearest")
