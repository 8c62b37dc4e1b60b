"""Captions from the scene grammar, with a closed vocabulary.

Captions name objects, colours, materials, motions, the surroundings and the light. They do not speak of the
camera, so that only the camera condition can carry its motion; ``caption_phrasings(world, camera=True)`` adds
it.
"""

from __future__ import annotations

import re

import numpy as np

from camctrl_jax.worlds.scene import SHAPES, Move, World, WorldObject
from camctrl_jax.worlds.surfaces import COLOR_NAMES

_GROUND = {
    "grass": "on grass",
    "sand": "on sand",
    "plaza": "on a paved plaza",
    "planks": "on wooden planks",
    "snow": "on snow",
    "carpet": "on a patchwork carpet",
    "asphalt": "on asphalt",
}
_WALL = {
    "brick": "a brick wall",
    "dotted": "a dotted wall",
    "striped": "a striped wall",
    "checkered": "a checkered wall",
    "tiled": "a tiled wall",
    "wooden": "a wooden wall",
    "concrete": "a concrete wall",
}
_SETTING = {"garden": "in a garden", "rooms": "in a room", "town": "in a street"}
_LIGHT = {
    "midday": "under a midday sun",
    "morning": "in morning light",
    "evening": "in warm evening light",
    "dusk": "at dusk",
    "overcast": "under an overcast sky",
}
_TWO_COLORS = ("striped", "checkered", "dotted", "tiled", "marbled")
_MOTION = {
    "rest": ("stands still", "rests"),
    "return": ("moves back and forth", "shuttles"),
    "bounce": ("bounces", "hops"),
    "orbit": ("moves in a circle", "circles"),
    "spin": ("spins", "turns"),
}
_DIRECTION = {
    "left": ("to the left", "left"),
    "right": ("to the right", "right"),
    "away": ("away", "away"),
    "closer": ("closer", "closer"),
}
_MOVE = {
    "pan_left": "pans left",
    "pan_right": "pans right",
    "tilt_up": "tilts up",
    "tilt_down": "tilts down",
    "roll_ccw": "rolls anticlockwise",
    "roll_cw": "rolls clockwise",
    "truck_left": "trucks left",
    "truck_right": "trucks right",
    "pedestal_up": "rises",
    "pedestal_down": "sinks",
    "dolly_in": "dollies in",
    "dolly_out": "dollies out",
    "orbit_left": "orbits left",
    "orbit_right": "orbits right",
    "arc_left": "arcs left",
    "arc_right": "arcs right",
    "curve_left": "curves left",
    "curve_right": "curves right",
}


def _noun(item: WorldObject, full: bool) -> str:
    """'a red and white striped ball', or short 'a red ball'."""
    words = [item.color]
    if full and item.material in _TWO_COLORS:
        words = [item.color, "and", item.second_color, item.material]
    elif full and item.material in ("wooden", "shiny"):
        words = [item.material, item.color]
    phrase = " ".join([*words, item.shape])
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def _verb(item: WorldObject, style: int) -> str:
    if item.motion == "slide":
        return (
            f"{('rolls', 'moves')[style] if item.shape == 'ball' else ('slides', 'moves')[style]} "
            f"{_DIRECTION[item.direction][style]}"
        )
    return _MOTION[item.motion][style]


def _joined(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def floor_at(world: World, point: np.ndarray) -> str:
    """The style of the floor under a point [3] of a place, or of the ground between floors."""
    scene = world.scene
    for item in world.fixtures:
        if item.kind == "floor":
            away = np.abs(point - scene.position[0, item.slot])
            if (away[[0, 2]] <= scene.half_size[item.slot, [0, 2]]).all():  # floors lie along the axes
                return item.style
    return next((item.style for item in world.fixtures if item.kind == "ground"), world.ground)


def actors(world: World) -> list[WorldObject]:
    """The objects that are in view, those that move first: what captions speak of, in this order."""
    in_view = [item for item in world.objects if item.visible]
    return sorted(in_view, key=lambda item: item.motion == "rest")


def _place(world: World, light: bool, floor: bool = True) -> str:
    parts = [_GROUND[world.ground]] if floor else []
    if world.setting:
        parts.append(_SETTING[world.setting])
    if world.wall:
        parts.append(f"{'beside' if world.setting else 'in front of'} {_WALL[world.wall]}")
    if light:
        parts.append(_LIGHT[world.lighting])
    return " ".join(parts)


def _camera(world: World) -> str:
    if world.setting and np.ptp(world.cameras.world_from_camera, axis=0).max() > 1e-9:
        return "the camera moves"  # a take has no single moves
    moves: tuple[Move, ...] = world.moves
    return "the camera " + (_joined([_MOVE[move.name] for move in moves]) if moves else "stays still")


def caption_phrasings(world: World, camera: bool = False) -> tuple[str, ...]:
    """Several phrasings of one world, short to long, lower case without full stops, at most 32 words each.

    Whatever is said to be on a floor is on it: in a place with several, phrasings that name the floor leave
    out what stands on another one. With ``camera`` every phrasing ends with the camera's moves (and may be
    longer).
    """
    shown = [item for item in world.objects if item.visible]
    told = actors(world)
    if not told and world.setting:  # a few looks at walls show no object
        phrasings = [f"a scene {_place(world, light)}" for light in (False, True)]
    elif not told:
        phrasings = [_place(world, light=True)]
    else:
        here = {item.slot for item in told if _stands_on(world, item, world.ground)}
        told = [item for item in told if item.slot in here]
        shared = {item.slot for item in shown[:4]} <= here
        phrasings = [
            f"{_noun(told[0], False)} {_verb(told[0], 0)} {_GROUND[world.ground]}",
            f"{_joined([f'{_noun(item, True)} {_verb(item, 0)}' for item in told[:2]])} "
            f"{_place(world, False)}",
            f"{_joined([f'{_noun(item, False)} {_verb(item, 1)}' for item in told[:3]])} "
            f"{_place(world, True)}",
            f"a scene {_place(world, True, floor=shared)} with "
            f"{_joined([_noun(item, False) for item in shown[:4]])}",
        ]
    if camera:
        phrasings = [f"{phrasing}, {_camera(world)}" for phrasing in phrasings]
    return tuple(phrasings)


def _stands_on(world: World, item: WorldObject, floor: str) -> bool:
    return not world.fixtures or floor_at(world, world.scene.position[0, item.slot]) == floor


def words(caption: str) -> list[str]:
    """The words of a caption, lower case, punctuation dropped."""
    return re.findall(r"[a-z]+", caption.lower())


def vocabulary() -> tuple[str, ...]:
    """Every word that a caption can hold, sorted."""
    phrases = [
        *_GROUND.values(),
        *_WALL.values(),
        *_SETTING.values(),
        *_LIGHT.values(),
        *(phrase for pair in _DIRECTION.values() for phrase in pair),
        *_MOVE.values(),
        *(phrase for pair in _MOTION.values() for phrase in pair),
        *_TWO_COLORS,
        *COLOR_NAMES,
        *(shape for kind in SHAPES.values() for shape in kind),
        "a an and in front of rolls slides moves scene beside with the camera stays still wooden shiny",
    ]
    return tuple(sorted({word for phrase in phrases for word in words(phrase)}))
