"""Which slots of a scene rays visit, and how: a place has many, of which a picture shows few.

Only those are visited that can be in the picture, or throw a shadow into it, which changes nothing in the
result. What is fastest depends on the machine; see :class:`Culling`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from camctrl_jax.worlds.scene import SLOTS, Slots, slots_of

_STEP = "slots of a step"  # an entry of the scene beside its arrays, a number


def scene_slots(scene) -> Slots:
    """The slots of a scene's arrays."""
    return slots_of(scene["half_size"].shape[-2])


@dataclass(frozen=True)
class Culling:
    """How slots of a place are visited. The pictures are the same; see ``benchmarks/worlds_render.py``.

    Attributes:
        listed: only those that can be in the picture or shade it, else all.
        together: slots of one step of the loop over them. Fewer and fatter steps move less memory where a
            step does not stay in a cache.
        by_count: frames of a batch that list about equally many slots are rendered together. A batch visits
            as many as its fullest frame lists.
    """

    listed: bool = True
    together: int = 1
    by_count: bool = False


def default_culling() -> Culling:
    """What suits the default device: see docs/worlds.md."""
    if jax.default_backend() == "cpu":
        return Culling()
    return Culling(together=4, by_count=True)


def in_view(scene, pose, lens, axis=None, culling=None):
    """The scene at one frame with lists of the slots to visit: exact for all rays within that picture.

    A solid is left out when its box lies wholly beyond one side of the picture's pyramid, or behind the
    camera; as a thrower of shadows, when that box swept away from the sun down to the ground does. Scenes
    with few slots are returned as they are.

    Args:
        scene: of ``at_frame``.
        pose, lens: [4, 4] and [4].
        axis: name of the mapped axis over worlds, if there is one: all of them visit equally many slots.
        culling: how; None is what suits the default device.
    """
    culling = culling or default_culling()
    slots = scene_slots(scene)
    if slots == SLOTS:
        return scene
    if not culling.listed:
        return {**scene, _STEP: culling.together}
    eye, camera = pose[:3, 3], pose[:3, :3]
    left, right = -lens[2] / lens[0], (1.0 - lens[2]) / lens[0]
    top, bottom = -lens[3] / lens[1], (1.0 - lens[3]) / lens[1]
    zero, one = jnp.zeros_like(left), jnp.ones_like(left)
    sides = jnp.stack(
        [
            jnp.stack([one, zero, -left]),
            jnp.stack([-one, zero, right]),
            jnp.stack([zero, one, -top]),
            jnp.stack([zero, -one, bottom]),
            jnp.stack([zero, zero, one]),
        ]
    )
    normals = jnp.sum(camera[None] * sides[:, None, :], axis=-1)  # [5, 3], pointing inwards
    rotation, half, center = scene["rotation"], scene["half_size"], scene["position"]

    def reach(way):
        """How far the box of each slot reaches along ``way`` [..., 3] from its centre."""
        along = jnp.sum(rotation * way[..., None, :, None], axis=-2)
        return jnp.sum(jnp.abs(along) * half, axis=-1)

    offset = center - eye
    here = jnp.sum(normals[:, None] * offset, axis=-1)  # [5, S]
    slack = reach(normals) + 1e-3 * (1.0 + jnp.abs(here))
    sun = scene["sun"][0]
    highest = center[:, 1] - reach(jnp.asarray([0.0, 1.0, 0.0]))
    # Metres from the top of each box to the ground, away from the sun.
    swept = jnp.maximum(-highest, 0.0) / jnp.maximum(-sun[1], 1e-2)
    there = here - swept * jnp.sum(normals * sun, axis=-1)[:, None]
    present = half[:, 0] > 0
    wanted = {
        "seen": present & (here + slack > 0).all(axis=0),
        "shading": present & (jnp.maximum(here, there) + slack > 0).all(axis=0),
    }
    kind = sum((jnp.arange(slots.surfaces) >= first).astype(jnp.int32) for _, first, _ in slots.kinds)
    lists = {}
    for name, chosen in wanted.items():
        order = jnp.argsort(2 * kind + ~chosen)  # stable: the chosen ones of each kind come first
        counts = jnp.stack([jnp.sum(chosen[first:stop]) for _, first, stop in slots.kinds])
        lists[name] = order, counts if axis is None else jax.lax.pmax(counts, axis)
    return {**scene, **lists, _STEP: culling.together}


def visited(scene, pose, lens):
    """How many slots a frame visits: of solids in the picture, and of those that may shade it, i32 []."""
    if scene_slots(scene) == SLOTS:
        return jnp.int32(0)
    here = in_view(scene, pose, lens, culling=Culling())
    return here["seen"][1].sum() + here["shading"][1].sum()


def visit(scene, name, body, start):
    """Fold ``body(slot, value, kind)`` over all slots, or those that ``in_view`` listed under ``name``.

    The order does not matter to what is folded, nor does it matter if a slot is visited twice.
    """
    value, together = start, scene.get(_STEP, 1)
    for index, (kind, first, stop) in enumerate(scene_slots(scene).kinds):
        order = scene[name][0][first:stop] if name in scene else None
        count = scene[name][1][index] if name in scene else stop - first
        if together == 1 and order is None:
            value = jax.lax.fori_loop(first, stop, partial(body, kind=kind), value)
            continue

        def step(i, value, order=order, first=first, last=stop - first - 1, kind=kind):
            for number in range(together):
                # Beyond the listed ones follow others, which are not in view, and the last one again.
                place = i if together == 1 else jnp.minimum(i * together + number, last)
                value = body(first + place if order is None else order[place], value, kind)
            return value

        value = jax.lax.fori_loop(0, -(-count // together), step, value)
    return value
