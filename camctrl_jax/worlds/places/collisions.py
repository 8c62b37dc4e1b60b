"""Paths that run into solids, with the truth of where: for evaluation only, never to train on.

A camera that is sent into a wall asks for pictures that no world has: published camera control fails there.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from camctrl_jax.errors import InvalidValue
from camctrl_jax.worlds.paths import solid_distances, surface_distance
from camctrl_jax.worlds.places.solids import SKY, first_hits
from camctrl_jax.worlds.places.tracks import Leg, in_time, poses_of, shortest, turn_by
from camctrl_jax.worlds.scene import FIRST_WALL, GROUND, World
from camctrl_jax.worlds.windows import described

_WAYS = 48  # directions looked into
_DEPTH = 0.35  # metres from the surface to where the path ends, inside or beyond
_PACE = 0.9  # metres a second at most


@dataclass(frozen=True, eq=False)
class Collision:
    """Where a camera path runs into something.

    Attributes:
        slot: of the solid; its instance id is slot + 1.
        frame: the first frame at which the camera's centre is inside it.
        inside: bool [T], frames at which it is. It is in no other solid at any frame.
        distance: f64 [T], metres to the nearest surface, negative inside.
    """

    slot: int
    frame: int
    inside: np.ndarray
    distance: np.ndarray


def run_into(world: World, seed: int = 0) -> tuple[World, Collision]:
    """The same scene, in which the camera turns from its first pose to something solid and goes into it.

    The solid stands still, and is met in the second half of the path, by a camera that goes straight and at
    the height of its first pose. Frames from ``Collision.frame`` on show the scene as the renderer has it:
    solids that the camera is in are not there. A place is described anew, as its frames show it.

    Args:
        world: of 9 frames or more, with or without a place to explore.
        seed: of the choice among what is near enough.

    Raises:
        InvalidValue: a shorter world, or nothing solid within reach.
    """
    frames = world.frames
    if frames < 9:
        raise InvalidValue(f"a world of {frames} frames is too short to run into something; take 9 or more")
    rng = np.random.default_rng([seed, 4])
    first = world.cameras.world_from_camera[0]
    eye, yaw = first[:3, 3], float(np.arctan2(-first[2, 0], first[0, 0]))
    yaws = yaw + np.linspace(-np.pi, np.pi, _WAYS, endpoint=False)
    rays = np.stack([np.sin(yaws), np.zeros(_WAYS), np.cos(yaws)], axis=1)
    slots, depth = first_hits(world.scene, 0, eye, rays)
    reach = _PACE * (frames - 1) / world.fps
    still = ~world.scene.moving.any(axis=0)
    solids = np.flatnonzero(world.scene.half_size[FIRST_WALL:, 0] > 0) + FIRST_WALL
    met = (slots != SKY) & (slots != GROUND) & (depth + _DEPTH < reach) & still[np.maximum(slots, 0)]
    for way in rng.permutation(np.flatnonzero(met)):
        poses = _straight(first, yaw, float(yaws[way]), float(depth[way]), frames, world.fps)
        distance = surface_distance(world.scene, poses[:, :3, 3])
        inside = distance < 0
        entered = solid_distances(world.scene, poses[:, :3, 3], solids) < 0  # [T, K]; solids may overlap
        alone = (inside == entered[:, solids == slots[way]][:, 0]).all() and (entered.sum(axis=1) < 2).all()
        if inside.any() and inside.argmax() >= frames // 2 and alone:
            cameras = dataclasses.replace(world.cameras, world_from_camera=poses)
            path = dataclasses.replace(world, cameras=cameras, path_class="collision", moves=(), returns=())
            path = described(path) if path.setting else path  # of others the first frame tells, and stays
            return path, Collision(int(slots[way]), int(inside.argmax()), inside, distance)
    raise InvalidValue(
        f"nothing solid within {reach:.1f} m of the first camera of world {world.seed}; take another world "
        "or more frames"
    )


def _straight(
    first: np.ndarray, yaw: float, goal: float, depth: float, frames: int, fps: float
) -> np.ndarray:
    """Poses [T, 4, 4]: a turn in the first part of the path, then straight on, into the surface."""
    pitch = float(np.arcsin(np.clip(-first[1, 2], -1.0, 1.0)))
    turn = turn_by(yaw, shortest(goal - yaw))
    way = np.array([np.sin(goal), np.cos(goal)])
    along = np.linspace(0.0, depth + _DEPTH, 200)
    points = np.concatenate(
        [
            np.stack([np.full_like(turn, first[0, 3]), np.full_like(turn, first[2, 3]), turn], axis=1),
            np.stack([first[0, 3] + way[0] * along, first[2, 3] + way[1] * along, np.full(200, turn[-1])], 1),
        ]
    )
    share = 0.35 * min(1.0, abs(turn[-1] - yaw) / 1.5)
    seconds = np.concatenate([np.linspace(0.0, share, len(turn)), np.linspace(share, 1.0, 200)])
    track = in_time(Leg(points, seconds), frames, fps)
    return poses_of(track, float(-first[1, 3]), pitch, np.zeros((frames, 4)))
