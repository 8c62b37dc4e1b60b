"""The scenes of the worlds benchmark: held-out worlds, each with a camera path of a stated class and size.

256 scenes: nine classes of paths by three difficulties, nine scenes of each, and thirteen in which the camera
stands. The first scenes are as balanced as their number allows: the first ten hold every class once, so that
a part of the benchmark is a benchmark, too. Same index, same scene, on every machine.

A scene is that of a held-out seed: looks, objects, motion and first camera. Its path starts from that camera:

* forward, sideways, pan, orbit: one move;
* turns_1, turns_2, turns_3: stages one after the other, forward and sideways by turns; a sideways stage pans
  back to where it came from;
* out_and_back: one move and the same way back, to the very first pose;
* detour: round a rectangle, to the very first pose by another way.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from camctrl_jax.camera import Cameras, rotations
from camctrl_jax.errors import InvalidValue
from camctrl_jax.worlds.paths import Start, path_poses, project, surface_distance
from camctrl_jax.worlds.sampling import sample_world
from camctrl_jax.worlds.scene import FIRST_BOX, Move, Scene, World, WorldsConfig

BENCHMARK_SCENES = 256
BENCHMARK_FIRST_SEED = 2_000_000
TWINS_FIRST_SEED = 3_000_000
NEXT_TRY = 1_000
"""Added to a seed whose scene leaves no room for its path, as often as it takes."""

STATIC = "static"
PATH_CLASSES = (
    "forward",
    "sideways",
    "pan",
    "orbit",
    "turns_1",
    "turns_2",
    "turns_3",
    "out_and_back",
    "detour",
)
DIFFICULTIES = ("easy", "medium", "hard")

SIZES: dict[str, tuple[float, float, float]] = {
    "forward": (1.0, 1.8, 2.6),
    "sideways": (0.8, 1.4, 2.0),
    "pan": (15.0, 28.0, 42.0),
    "orbit": (20.0, 36.0, 52.0),
    "stage": (0.5, 0.8, 1.1),
    "stage_pan": (6.0, 11.0, 16.0),
    "side": (0.6, 0.9, 1.2),
    "side_pan": (7.0, 12.0, 17.0),
}
"""Easy, medium, hard: metres, and degrees of pans and orbits. ``stage`` is each stage of turns_n, ``side``
each side of a detour. An out_and_back goes ``OUT_SHARE`` of its move's size and back."""
OUT_SHARE = 0.75

LARGEST_SCALE = 1.3
"""A path this many times as long still meets no surface, so that it may be rendered at several scales."""

_ROUNDS = 27  # of all classes; a standing camera after every second one, the last left out
_TRIES = 12  # directions and pivots tried in one scene
_SEEDS = 200


@dataclass(frozen=True, eq=False)
class BenchmarkScene:
    """A scene with its path.

    Attributes:
        index: 0 to 255.
        path_class: one of ``PATH_CLASSES``, or "static".
        difficulty: one of ``DIFFICULTIES``; "" for a camera that stands.
        world: scene, path and captions; ``world.seed`` is the held-out seed.
    """

    index: int
    path_class: str
    difficulty: str
    world: World


def benchmark_cell(index: int) -> tuple[str, str]:
    """(path class, difficulty) of a scene of the benchmark."""
    if not 0 <= index < BENCHMARK_SCENES:
        raise InvalidValue(f"scene {index}: the benchmark has scenes 0 to {BENCHMARK_SCENES - 1}.")
    return _CELLS[index]


def _cells() -> tuple[tuple[str, str], ...]:
    cells = []
    for turn in range(_ROUNDS):
        cells += [(name, DIFFICULTIES[(turn + place) % 3]) for place, name in enumerate(PATH_CLASSES)]
        if turn % 2 == 0 and turn < _ROUNDS - 1:
            cells.append((STATIC, ""))
    return tuple(cells)


_CELLS = _cells()
assert len(_CELLS) == BENCHMARK_SCENES


def benchmark_scene(
    index: int,
    config: WorldsConfig = WorldsConfig(),  # noqa: B008 (frozen)
    *,
    twin: bool = False,
) -> BenchmarkScene:
    """A scene of the benchmark, with its path.

    Args:
        index: 0 to 255.
        config: frames, rate and aspect of the clips.
        twin: another scene with a path of the same class and difficulty: what is as real, and not the same.

    Raises:
        InvalidValue: another index, or a configuration in which no path fits.
    """
    if config.places is not None:
        raise InvalidValue(
            "benchmark scenes lie in front of the first camera; leave WorldsConfig.places out (Places.route "
            "gives paths in places)"
        )
    name, difficulty = benchmark_cell(index)
    first = TWINS_FIRST_SEED if twin else BENCHMARK_FIRST_SEED
    for attempt in range(_SEEDS):
        seed = first + index + NEXT_TRY * attempt
        world = _with_path(sample_world(seed, config), name, difficulty, config)
        if world is not None:
            return BenchmarkScene(index, name, difficulty, world)
    raise InvalidValue(
        f"scene {index}: no {difficulty} {name} path is clear in {_SEEDS} worlds; lower "
        f"WorldsConfig.clearance ({config.clearance} m)."
    )


def scaled_path(cameras: Cameras, factor: float) -> Cameras:
    """The path with every shift and turn since its first camera ``factor`` times as large, from 0 on."""
    first = cameras.world_from_camera[0]
    path = np.linalg.inv(first) @ cameras.world_from_camera
    path[:, :3, :3] = rotations.from_vectors(factor * rotations.to_vectors(path[:, :3, :3]))
    path[:, :3, 3] *= factor
    return dataclasses.replace(cameras, world_from_camera=first @ path)


def _with_path(world: World, name: str, difficulty: str, config: WorldsConfig) -> World | None:
    """The world with a path of this class; None where none of a few is clear and keeps something in view."""
    start_pose = world.cameras.world_from_camera[0]
    rng = np.random.default_rng([world.seed, 7])
    for _ in range(1 if name == STATIC else _TRIES):
        poses, moves = _path(rng, name, difficulty, start_pose, config.frames)
        cameras = dataclasses.replace(world.cameras, world_from_camera=poses)
        if _fits(world.scene, cameras, config.clearance):
            return dataclasses.replace(world, cameras=cameras, moves=moves, path_class=name)
    return None


def _path(
    rng: np.random.Generator, name: str, difficulty: str, first: np.ndarray, frames: int
) -> tuple[np.ndarray, tuple[Move, ...]]:
    """(poses f64 [T, 4, 4] from the pose ``first``, moves) of a random path of a class."""
    if name == STATIC:
        return np.repeat(first[None], frames, axis=0), ()
    size = DIFFICULTIES.index(difficulty)
    last, start = frames - 1, _start(first, float(rng.uniform(4.0, 5.5)))
    side = ("left", "right")[rng.integers(2)]
    if name.startswith("turns_"):
        moves = _turns(rng, int(name[-1]) + 1, size, side, last)
    elif name == "detour":
        moves = _detour(rng, size, side, last)
    elif name == "out_and_back":
        kind = PATH_CLASSES[rng.integers(4)]
        half = last / 2.0
        moves = (_single(kind, SIZES[kind][size] * OUT_SHARE, side, half),)
        there = path_poses(start, moves, "smooth", frames)
        there[0] = first
        # Frame T-1-t is frame t: the very same poses, back to the first one.
        return there[np.minimum(np.arange(frames), last - np.arange(frames))], moves
    else:
        moves = (_single(name, SIZES[name][size], side, last),)
    poses = path_poses(start, moves, "smooth", frames)
    poses[0] = first  # but for rounding, it is
    if name == "detour":
        poses[-1] = first
    return poses, moves


def _single(name: str, size: float, side: str, stop: float) -> Move:
    word = {
        "forward": "dolly_in",
        "sideways": f"truck_{side}",
        "pan": f"pan_{side}",
        "orbit": f"orbit_{side}",
    }
    return Move(word[name], size, 0.0, stop)


def _turns(rng: np.random.Generator, stages: int, size: int, side: str, last: float) -> tuple[Move, ...]:
    """Forward and sideways by turns, sideways to alternating sides, so that the path stays near."""
    moves, forward = [], bool(rng.integers(2))
    for stage in range(stages):
        window = last * stage / stages, last * (stage + 1) / stages
        if forward:
            moves.append(Move("dolly_in", SIZES["stage"][size], *window))
        else:
            moves.append(Move(f"truck_{side}", SIZES["stage"][size], *window))
            moves.append(Move(f"pan_{_other(side)}", SIZES["stage_pan"][size], *window))
            side = _other(side)
        forward = not forward
    return tuple(moves)


def _detour(rng: np.random.Generator, size: int, side: str, last: float) -> tuple[Move, ...]:
    """Round a rectangle: every move has its opposite two stages later."""
    sides = [(f"truck_{side}", f"truck_{_other(side)}"), ("dolly_in", "dolly_out")]
    if rng.integers(2):
        sides.reverse()
    moves = []
    for stage in range(4):
        window = last * stage / 4, last * (stage + 1) / 4
        way = sides[stage % 2][stage // 2]
        moves.append(Move(way, SIZES["side"][size], *window))
        if way.startswith("truck"):
            moves.append(Move(f"pan_{_other(way.split('_')[1])}", SIZES["side_pan"][size], *window))
    return tuple(moves)


def _other(side: str) -> str:
    return "left" if side == "right" else "right"


def _start(pose: np.ndarray, pivot: float) -> Start:
    """Where a level camera stands and looks: the inverse of what ``path_poses`` does."""
    yaw = np.arctan2(-pose[2, 0], pose[0, 0])
    pitch = np.arcsin(np.clip(-pose[1, 2], -1.0, 1.0))
    return Start(pose[:3, 3].copy(), float(yaw), float(pitch), pivot)


def _fits(scene: Scene, cameras: Cameras, clearance: float) -> bool:
    """Whether a path is clear of all solids, at its largest scale too, and never leaves the scene behind."""
    farther = scaled_path(cameras, LARGEST_SCALE).positions
    for positions, least in ((cameras.positions, clearance), (farther, 0.25 * clearance)):
        if surface_distance(scene, positions).min() < least:
            return False
    height = -cameras.positions[:, 1]
    if height.min() < 0.55 or height.max() > 2.9:
        return False
    present = (
        np.flatnonzero(scene.half_size[FIRST_BOX:, 0] > 0) + FIRST_BOX
    )  # objects, without ground and walls
    shown = slice(None, None, 4)
    centers = scene.position[:-1][shown, present].astype(np.float64)
    seen = project(cameras.world_from_camera[shown, None], cameras.intrinsics[shown, None], centers)
    inside = (np.abs(seen[..., :2] - 0.5) < 0.49).all(axis=-1) & (seen[..., 2] > 0.8)
    return bool(inside.any(axis=1).all())
