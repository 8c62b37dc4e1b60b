"""Parts of a take: single frames, and windows with captions that are true of what they show."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from camctrl_jax.errors import InvalidValue
from camctrl_jax.worlds.captions import actors, caption_phrasings, floor_at
from camctrl_jax.worlds.places.solids import glance
from camctrl_jax.worlds.scene import World, WorldObject

_GLANCES = 4  # coarse pictures of a window from which it is described
_LEAST_RAYS = 2  # of one such picture on an object that is spoken of
_LEAST_FINE_RAYS = 4  # of one of four times as many rays, where the coarse ones show no object


def at_frames(world: World, frames: Sequence[int] | np.ndarray) -> World:
    """Some frames of a world, in any order: the same poses, objects and moving masks as in the whole.

    Captions stay those of the whole. The flow and occlusion of what is rendered are between neighbours in
    the new order, with objects where the whole has them.

    Args:
        frames: indices, each from 0 to ``world.frames - 1``.

    Raises:
        InvalidValue: no frames, or frames that the world does not have.
    """
    chosen = np.asarray(frames, int)
    if chosen.size == 0 or chosen.min() < 0 or chosen.max() >= world.frames:
        raise InvalidValue(f"frames {frames} of a world of {world.frames}; expected 0 to {world.frames - 1}")
    poses = np.append(chosen, chosen[-1] + 1)  # what a scene has one more of
    scene = dataclasses.replace(
        world.scene,
        position=world.scene.position[poses],
        rotation=world.scene.rotation[poses],
        moving=world.scene.moving[chosen],
    )
    places = {int(frame): place for place, frame in enumerate(chosen)}
    returns = tuple((places[a], places[b]) for a, b in world.returns if a in places and b in places)
    return dataclasses.replace(
        world,
        scene=scene,
        cameras=world.cameras[chosen],
        reference=world.reference_pose,
        returns=returns,
    )


def window(take: World, start: int, frames: int) -> World:
    """``frames`` neighbouring frames of a take from ``start`` on, described by what they show.

    Poses stay in the axes of the take, and ``World.reference`` is that of the take's first frame.

    Raises:
        InvalidValue: the take has no such frames.
    """
    if frames < 1 or start < 0 or start + frames > take.frames:
        raise InvalidValue(
            f"frames {start} to {start + frames} of a take of {take.frames}; expected at least one, within it"
        )
    return described(at_frames(take, range(start, start + frames)))


def described(world: World) -> World:
    """A place with its objects, ground, wall and captions told as its frames show them.

    An object is ``visible`` if it is seen in the first frame or in at least half of a few glances, from
    nearest to farthest in the picture's sense: the largest first. Where that is none, the glances are finer
    and more, and what any of them shows is visible. Its motion is what it does in these frames. The ground is
    the floor under the object that captions speak of first, and without one that which is seen most.
    """
    slots = [item.slot for item in world.objects]
    counts = _looks(world, _GLANCES, 12, 20)
    shown = (counts[0] >= _LEAST_RAYS) | ((counts >= _LEAST_RAYS).mean(axis=0) >= 0.5)
    if not shown[slots].any():
        finer = _looks(world, 2 * _GLANCES, 24, 40)
        shown = (finer >= _LEAST_FINE_RAYS).any(axis=0)
        shares = finer.sum(axis=0) / finer.sum()
    else:
        shares = counts.sum(axis=0) / counts.sum()
    objects = [
        dataclasses.replace(_in_motion(world, item), visible=bool(shown[item.slot])) for item in world.objects
    ]
    objects.sort(key=lambda item: (not item.visible, -shares[item.slot], item.slot))
    walls = [f for f in world.fixtures if f.style and f.kind in ("wall", "house", "block")]
    largest = max(walls, key=lambda f: shares[f.slot], default=None)
    near = largest is not None and shares[largest.slot] > 0.06
    world = dataclasses.replace(world, objects=tuple(objects), wall=largest.style if near else "")
    told = actors(world)
    if told:
        ground = floor_at(world, world.scene.position[0, told[0].slot])
    else:
        floors = [item for item in world.fixtures if item.kind in ("ground", "floor")]
        ground = max(floors, key=lambda item: shares[item.slot]).style
    world = dataclasses.replace(world, ground=ground)
    return dataclasses.replace(world, captions=caption_phrasings(world))


def _looks(world: World, most: int, rows: int, columns: int) -> np.ndarray:
    """Rays i64 [looks, S + 1] that meet each slot in coarse pictures spread over the frames; the sky last."""
    times = np.unique(np.linspace(0, world.frames - 1, most).round().astype(int))
    cameras, surfaces = world.cameras, world.scene.slots.surfaces
    counts = []
    for t in times:
        slots, _ = glance(world.scene, t, cameras.world_from_camera[t], cameras.intrinsics[t], rows, columns)
        counts.append(np.bincount(slots.ravel() % (surfaces + 1), minlength=surfaces + 1))  # the sky is -1
    return np.stack(counts)


def _in_motion(world: World, item: WorldObject) -> WorldObject:
    """The object with the motion that it has in these frames."""
    scene = world.scene
    track = scene.position[:, item.slot].astype(np.float64)
    if not scene.moving[:, item.slot].any():
        return dataclasses.replace(item, motion="rest", direction="")
    kind = item.motion
    if kind in ("slide", "return"):
        shift = track[-1] - track[0]
        gone = float(np.linalg.norm(np.diff(track, axis=0), axis=1).sum())
        straight = float(np.linalg.norm(shift))
        kind = "slide" if straight > 0.95 * gone and straight > 0.15 else "return"
        if kind == "slide":
            right, _, ahead = world.cameras.rotations[0].T @ shift
            if abs(right) >= abs(ahead):
                direction = "right" if right > 0 else "left"
            else:
                direction = "away" if ahead > 0 else "closer"
            return dataclasses.replace(item, motion="slide", direction=direction)
    return dataclasses.replace(item, motion=kind, direction="")
