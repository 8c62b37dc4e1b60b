"""What a sentence can ask of the camera: verbs, their directions, amounts, and the moves they stand for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from camctrl_jax.camera.moves import (
    SUBJECT_DISTANCE,
    Circle,
    DollyZoom,
    Handheld,
    Lemniscate,
    Move,
    Orbit,
    Swing,
    Travel,
    Turn,
    Zoom,
)
from camctrl_jax.errors import InvalidValue


@dataclass(frozen=True)
class Asked:
    """What a sentence asks of one verb, defaults filled in.

    ``amounts`` holds the verb's quantities: ``length`` in metres, ``angle`` in degrees, ``factor``,
    ``turns``, ``distance`` and ``radius`` in metres, ``seed``.
    """

    directions: frozenset[str]
    amounts: Mapping[str, float]

    def sign(self, positive: str, negative: str) -> float:
        """+1 or -1 after the direction asked for, 0 if neither was."""
        return float(positive in self.directions) - float(negative in self.directions)

    def turned(self) -> float:
        """+1 for clockwise (the default of verbs that may do without a direction), -1 for anticlockwise."""
        return -1.0 if "anticlockwise" in self.directions else 1.0


@dataclass(frozen=True)
class Verb:
    """One thing a sentence can ask for.

    Attributes:
        name: the first spelling, used in messages.
        spellings: all of them, words separated by single spaces.
        axes: pairs of opposite directions; at most one of each pair may be asked for.
        needed: how many directions must be given.
        defaults: the quantities it takes, with what is meant when none is given.
        moves: what it does.
        implied: directions that the spelling itself implies, for example "rise" implies up.
    """

    spellings: tuple[str, ...]
    moves: Callable[[Asked], tuple[Move, ...]]
    axes: tuple[tuple[str, str], ...] = ()
    needed: int = 0
    defaults: Mapping[str, float] = field(default_factory=dict)
    implied: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.spellings[0]

    @property
    def directions(self) -> tuple[str, ...]:
        return tuple(direction for axis in self.axes for direction in axis)


_IN_OUT = ("in", "out")
_LEFT_RIGHT = ("left", "right")
_UP_DOWN = ("up", "down")
_CLOCK = ("clockwise", "anticlockwise")


def _travel(asked: Asked) -> tuple[Move, ...]:
    right, up, forward = (asked.sign(*pair) for pair in (("right", "left"), ("up", "down"), ("in", "out")))
    length = asked.amounts["length"] / math.sqrt(max(1, len(asked.directions)))  # diagonals: in all
    return (Travel(right * length, up * length, forward * length),)


def _turn(asked: Asked) -> tuple[Move, ...]:
    angle = asked.amounts["angle"] / math.sqrt(max(1, len(asked.directions)))
    return (Turn(pan=asked.sign("right", "left") * angle, tilt=asked.sign("up", "down") * angle),)


def _roll(asked: Asked) -> tuple[Move, ...]:
    side = asked.sign("right", "left") or asked.turned()
    return (Turn(roll=side * asked.amounts["angle"]),)


def _orbit(asked: Asked) -> tuple[Move, ...]:
    angle = asked.amounts["angle"] / math.sqrt(max(1, len(asked.directions)))
    return (
        Orbit(
            asked.sign("right", "left") * angle,
            asked.sign("up", "down") * angle,
            asked.amounts["distance"],
        ),
    )


def _arc(asked: Asked) -> tuple[Move, ...]:
    angle = asked.amounts["angle"]
    if not angle > 0:
        raise InvalidValue("an arc of 0 degrees has no centre; use 'truck' to move straight")
    distance = asked.amounts["length"] / math.radians(angle)
    return (Orbit(asked.sign("right", "left") * angle, 0.0, distance),)


def _crane(asked: Asked) -> tuple[Move, ...]:
    up = asked.sign("up", "down")
    return Travel(up=up * asked.amounts["length"]), Turn(tilt=-up * asked.amounts["angle"])


def _round_zoom(asked: Asked) -> tuple[Move, ...]:
    side = asked.sign("right", "left") or 1.0
    inwards = asked.sign("in", "out")
    return (
        Orbit(right=side * asked.amounts["angle"], distance=asked.amounts["distance"]),
        Travel(forward=inwards * asked.amounts["length"]),
    )


def _zoom(asked: Asked) -> tuple[Move, ...]:
    factor = asked.amounts["factor"]
    if not factor > 0:
        raise InvalidValue("a zoom factor must be positive: 'zoom in 2x' doubles the focal length")
    return (Zoom(factor if "in" in asked.directions else 1.0 / factor),)


def _dolly_zoom(asked: Asked) -> tuple[Move, ...]:
    return (DollyZoom(asked.sign("in", "out") * asked.amounts["length"], asked.amounts["distance"]),)


def _circle(asked: Asked) -> tuple[Move, ...]:
    return (Circle(asked.amounts["radius"], asked.turned() * asked.amounts["turns"]),)


def _spiral(asked: Asked) -> tuple[Move, ...]:
    forward = (asked.sign("in", "out") or 1.0) * asked.amounts["length"]
    return (Circle(asked.amounts["radius"], asked.turned() * asked.amounts["turns"], forward),)


def _lemniscate(asked: Asked) -> tuple[Move, ...]:
    return (Lemniscate(asked.amounts["length"], asked.amounts["distance"]),)


def _swing(asked: Asked) -> tuple[Move, ...]:
    side = asked.sign("right", "left") or 1.0
    return (Swing(side * asked.amounts["angle"], asked.amounts["distance"]),)


def _handheld(asked: Asked) -> tuple[Move, ...]:
    return (Handheld(asked.amounts["length"], asked.amounts["angle"], int(asked.amounts["seed"])),)


def _nothing(asked: Asked) -> tuple[Move, ...]:
    return ()


VERBS: tuple[Verb, ...] = (
    Verb(("hold", "static", "stationary", "stay", "wait", "hold still"), _nothing),
    Verb(
        ("dolly", "dollying", "push", "pushing", "pull", "pulling"),
        _travel,
        (_IN_OUT,),
        1,
        {"length": 1.5},
        {"push": "in", "pushing": "in", "pull": "out", "pulling": "out"},
    ),
    Verb(("truck", "trucking", "strafe", "strafing"), _travel, (_LEFT_RIGHT, _UP_DOWN), 1, {"length": 1.0}),
    Verb(
        ("pedestal", "boom", "rise", "rising", "descend", "descending", "sink", "sinking"),
        _travel,
        (_UP_DOWN,),
        1,
        {"length": 0.5},
        {"rise": "up", "rising": "up"} | dict.fromkeys(("descend", "descending", "sink", "sinking"), "down"),
    ),
    Verb(
        ("move", "moving", "fly", "flying", "go", "going"),
        _travel,
        (_IN_OUT, _LEFT_RIGHT, _UP_DOWN),
        1,
        {"length": 1.0},
    ),
    Verb(("pan", "panning", "turn", "turning"), _turn, (_LEFT_RIGHT,), 1, {"angle": 30.0}),
    Verb(("tilt", "tilting"), _turn, (_UP_DOWN,), 1, {"angle": 15.0}),
    Verb(("look", "looking"), _turn, (_LEFT_RIGHT, _UP_DOWN), 1, {"angle": 45.0}),
    Verb(("roll", "rolling", "spin", "spinning"), _roll, (_CLOCK, _LEFT_RIGHT), 1, {"angle": 30.0}),
    Verb(
        ("orbit", "orbiting"),
        _orbit,
        (_LEFT_RIGHT, _UP_DOWN),
        1,
        {"angle": 45.0, "distance": SUBJECT_DISTANCE},
    ),
    Verb(("arc", "arcing"), _arc, (_LEFT_RIGHT,), 1, {"length": 2.0, "angle": 30.0}),
    Verb(("crane", "craning"), _crane, (_UP_DOWN,), 1, {"length": 1.0, "angle": 14.0}),
    Verb(
        ("round zoom",),
        _round_zoom,
        (_IN_OUT, _LEFT_RIGHT),
        1,
        {"angle": 90.0, "length": 1.5, "distance": SUBJECT_DISTANCE},
    ),
    Verb(("zoom", "zooming"), _zoom, (_IN_OUT,), 1, {"factor": 1.5}),
    Verb(
        ("dolly zoom", "dolly zooming"),
        _dolly_zoom,
        (_IN_OUT,),
        1,
        {"length": 1.0, "distance": SUBJECT_DISTANCE},
    ),
    Verb(("circle", "circling"), _circle, (_CLOCK,), 0, {"radius": 0.3, "turns": 1.0}),
    Verb(
        ("spiral", "spiralling", "spiraling"),
        _spiral,
        (_IN_OUT, _CLOCK),
        0,
        {"length": 1.0, "radius": 0.3, "turns": 2.0},
    ),
    Verb(
        ("lemniscate", "figure eight", "figure of eight"),
        _lemniscate,
        (),
        0,
        {"length": 1.0, "distance": SUBJECT_DISTANCE},
    ),
    Verb(("swing", "swinging"), _swing, (_LEFT_RIGHT,), 0, {"angle": 20.0, "distance": SUBJECT_DISTANCE}),
    Verb(
        ("handheld", "handheld shake", "hand held", "shake", "shaking"),
        _handheld,
        (),
        0,
        {"length": 0.01, "angle": 0.5, "seed": 0.0},
    ),
)
"""Everything a sentence can ask for. The longest spelling wins: a "dolly zoom" is not a "dolly"."""
