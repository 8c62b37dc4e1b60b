"""Camera paths in words: ``"dolly in 1.5 m, then pan left 40 deg while rising 0.3 m"``.

The grammar, read by one function per rule below (``{}`` repeats, ``[]`` is optional, ``|`` separates
choices)::

    path      = stage { separator stage }
    separator = "," | ";" | "." | "then" | "and then", also several of them
    stage     = move { ("while" | "and" | "with") move }
    move      = verb { direction } { detail }
    detail    = number [unit]                        how far, how much: 1.5 m, 40 deg, 2x, 3 turns
              | ("around" | "at") number [unit]      distance to the subject, in metres
              | "radius" number [unit]
              | "seed" number                        which handheld shake
              | ("over" | "for") number [unit]       how long the stage takes, in seconds
              | "linearly" | "smoothly" | "easing in" | "easing out"
              | "facing the subject" [("around" | "at") number [unit]]    keep it in the middle of the picture

Moves joined by "while", "and" or "with" happen together; a comma or "then" starts the next stage. What is
not said has a default (``camctrl_jax.camera.verbs``). A number may lack its unit where only one makes sense.
Case, underscores and hyphens do not matter, so every preset name is also a sentence: ``orbit_left`` is "orbit
left".
"""

from __future__ import annotations

import difflib
import math
import re
import textwrap
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from numpy.typing import ArrayLike

from camctrl_jax.camera.cameras import Cameras
from camctrl_jax.camera.intrinsics import DEFAULT_INTRINSICS
from camctrl_jax.camera.moves import Move, Stage, path_of
from camctrl_jax.camera.verbs import VERBS, Asked, Verb
from camctrl_jax.errors import UserError


class PathTextError(UserError, ValueError):
    """A sentence that is not understood. The message points at the word and lists what would be."""


_SPELLINGS: Mapping[tuple[str, ...], Verb] = MappingProxyType(
    {tuple(spelling.split()): verb for verb in VERBS for spelling in verb.spellings}
)
_LONGEST_SPELLING = max(len(words) for words in _SPELLINGS)

_DIRECTION_WORDS: Mapping[str, str] = MappingProxyType(
    dict.fromkeys(("in", "forward", "forwards", "ahead", "closer"), "in")
    | dict.fromkeys(("out", "back", "backward", "backwards", "away"), "out")
    | {"left": "left", "right": "right"}
    | dict.fromkeys(("up", "upward", "upwards"), "up")
    | dict.fromkeys(("down", "downward", "downwards"), "down")
    | dict.fromkeys(("clockwise", "cw"), "clockwise")
    | dict.fromkeys(("anticlockwise", "counterclockwise", "ccw", "acw"), "anticlockwise")
)

_UNITS: Mapping[str, tuple[str, float]] = MappingProxyType(
    dict.fromkeys(("m", "metre", "metres", "meter", "meters"), ("length", 1.0))
    | dict.fromkeys(("cm", "centimetre", "centimetres", "centimeter", "centimeters"), ("length", 0.01))
    | dict.fromkeys(("mm", "millimetre", "millimetres", "millimeter", "millimeters"), ("length", 0.001))
    | dict.fromkeys(("deg", "degree", "degrees", "°"), ("angle", 1.0))
    | dict.fromkeys(("rad", "radian", "radians"), ("angle", math.degrees(1.0)))
    | dict.fromkeys(("x", "times"), ("factor", 1.0))
    | dict.fromkeys(("turn", "turns", "loop", "loops"), ("turns", 1.0))
    | dict.fromkeys(("s", "sec", "second", "seconds"), ("time", 1.0))
)

_QUANTITIES: Mapping[str, str] = MappingProxyType(
    {
        "length": "a length ('1.5 m', '30 cm')",
        "angle": "an angle ('40 deg')",
        "factor": "a factor ('2x')",
        "turns": "a number of turns ('2 turns')",
        "time": "a time ('2 s')",
        "distance": "a distance to the subject ('around 3 m')",
        "radius": "a radius ('radius 30 cm')",
        "seed": "a seed ('seed 7')",
    }
)

# Words that say nothing here: "pan to the left by 40 deg".
_FILLERS = frozenset({"the", "to", "by", "a", "an", "camera", "of"})
_TOGETHER = frozenset({"while", "and", "with"})
_EASINGS: Mapping[str, str] = MappingProxyType({"linearly": "linear", "smoothly": "smooth"})


class _Token(NamedTuple):
    kind: str  # "word", "number", "separator" or "end"
    text: str
    start: int
    end: int


def _tokens(text: str) -> list[_Token]:
    """Words, numbers and separators with their place in the text."""
    tokens = []
    place = 0
    pattern = re.compile(
        r"(?P<number>\d+(?:\.\d+)?|\.\d+)|(?P<word>[^\W\d_]+|°)|(?P<separator>[,;]|\.(?=\s|$))|(?P<gap>[\s_\-]+)"
    )
    while place < len(text):
        match = pattern.match(text, place)
        if match is None:
            raise _error(text, place, place + 1, f"the character {text[place]!r} is not understood")
        if match.lastgroup == "gap" and "-" in match[0] and text[match.end() : match.end() + 1].isdigit():
            raise _error(
                text,
                match.end() - 1,
                match.end() + 1,
                "amounts are not negative; turn the direction round instead",
            )
        if match.lastgroup != "gap":
            tokens.append(_Token(match.lastgroup, match[0].lower(), match.start(), match.end()))
        place = match.end()
    tokens = [token for token in tokens if token.text not in _FILLERS or token.kind != "word"]
    return [*tokens, _Token("end", "the end of the text", len(text), len(text))]


def _error(text: str, start: int, end: int, message: str) -> PathTextError:
    shown = text.replace("\n", " ").replace("\t", " ")
    moves = ", ".join(
        verb.name + (" " + "/".join(verb.directions) if verb.directions else "") for verb in VERBS
    )
    listing = (
        f"moves: {moves}",
        "amounts: 1.5 m, 30 cm, 40 deg, 2x, 2 turns, around 3 m (to the subject), radius 30 cm, over 2 s, "
        "seed 7",
        "manner: linearly, smoothly, easing in, easing out, facing the subject",
        "joined by: 'then' or ',' for one after the other; 'while', 'and', 'with' for together",
        "example: dolly in 1.5 m, then pan left 40 deg while rising 0.3 m, then hold 1 s",
    )
    understood = "\n".join(textwrap.fill(line, 100, subsequent_indent="  ") for line in listing)
    return PathTextError(f"{message}\n  {shown}\n  {' ' * start}{'^' * max(1, end - start)}\n{understood}")


class _Parser:
    """Recursive descent over the tokens of one text; each method reads one rule of the module's grammar."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = _tokens(text)
        self.place = 0

    @property
    def next(self) -> _Token:
        return self.tokens[self.place]

    def take(self) -> _Token:
        token = self.tokens[self.place]
        self.place += 1
        return token

    def accept(self, *words: str) -> bool:
        """Take the words if they come next."""
        ahead = self.tokens[self.place : self.place + len(words)]
        if [token.text for token in ahead] != list(words):
            return False
        self.place += len(words)
        return True

    def fail(self, message: str, token: _Token | None = None) -> PathTextError:
        token = token or self.next
        return _error(self.text, token.start, token.end, message)

    def path(self) -> tuple[Stage, ...]:
        stages = [self.stage()]
        while self.separator():
            if self.next.kind == "end":
                break
            stages.append(self.stage())
        if self.next.kind != "end":
            raise self.fail(f"{self.next.text!r} is not understood here")
        return tuple(stages)

    def separator(self) -> bool:
        start = self.place
        while self.next.kind == "separator" or self.accept("then") or self.accept("and", "then"):
            if self.next.kind == "separator":
                self.take()
        return self.place > start

    def stage(self) -> Stage:
        first = self.next
        manner: dict[str, float | str | bool] = {}
        moves = list(self.move(manner))
        while self.next.text in _TOGETHER and self.tokens[self.place + 1].text != "then":
            self.take()
            moves.extend(self.move(manner))
        stage = Stage(tuple(moves), **manner)
        try:
            _ = stage.distance
        except ValueError as error:
            raise self.fail(str(error), first) from None
        return stage

    def move(self, manner: dict[str, float | str | bool]) -> tuple[Move, ...]:
        """One move; duration and manner belong to the whole stage and go into ``manner``."""
        token = self.next
        verb, directions = self.verb()
        while (direction := self.direction()) is not None:
            if direction not in verb.directions:
                raise self.fail(self.wrong_direction(verb, direction), self.tokens[self.place - 1])
            opposite = next(b if direction == a else a for a, b in verb.axes if direction in (a, b))
            if opposite in directions:
                raise self.fail(f"{verb.name} was given opposite directions", self.tokens[self.place - 1])
            directions.add(direction)
        if len(directions) < verb.needed:
            raise self.fail(f"{verb.name} needs a direction: {', '.join(verb.directions)}")
        amounts: dict[str, float] = {}
        while self.detail(verb, amounts, manner):
            pass
        try:
            return verb.moves(Asked(frozenset(directions), {**verb.defaults, **amounts}))
        except ValueError as error:
            raise self.fail(str(error), token) from None

    def verb(self) -> tuple[Verb, set[str]]:
        for length in range(_LONGEST_SPELLING, 0, -1):
            words = tuple(token.text for token in self.tokens[self.place : self.place + length])
            if words in _SPELLINGS:
                self.place += length
                verb = _SPELLINGS[words]
                implied = verb.implied.get(" ".join(words))
                return verb, {implied} if implied else set()
        if self.next.kind == "end":
            raise self.fail("a move is missing at the end" if self.place else "the camera path is empty")
        known = [spelling for words in _SPELLINGS for spelling in words]
        close = difflib.get_close_matches(self.next.text, known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise self.fail(f"{self.next.text!r} is not a camera move{hint}")

    def direction(self) -> str | None:
        for prefix in ("anti", "counter"):
            if self.accept(prefix, "clockwise"):
                return "anticlockwise"
        if self.next.text in _DIRECTION_WORDS:
            return _DIRECTION_WORDS[self.take().text]
        return None

    def wrong_direction(self, verb: Verb, direction: str) -> str:
        expected = f"expected {', '.join(verb.directions)}" if verb.directions else "it takes no direction"
        hints = {
            ("pan", "up"): "; to turn upwards use 'tilt up 15 deg', to rise 'pedestal up 0.5 m'",
            ("pan", "down"): "; to turn downwards use 'tilt down 15 deg', to sink 'pedestal down 0.5 m'",
            ("tilt", "left"): "; to turn sideways use 'pan left 30 deg'",
            ("tilt", "right"): "; to turn sideways use 'pan right 30 deg'",
            ("dolly", "left"): "; to move sideways use 'truck left 1 m'",
            ("dolly", "right"): "; to move sideways use 'truck right 1 m'",
        }
        return f"{verb.name} does not go {direction}: {expected}{hints.get((verb.name, direction), '')}"

    def detail(self, verb: Verb, amounts: dict[str, float], manner: dict[str, float | str | bool]) -> bool:
        """One amount, subject, radius, seed, duration or easing; false when something else comes next."""
        token = self.next
        if self.accept("over") or self.accept("for"):
            self.set_once(manner, "seconds", self.number("time"), token)
        elif self.next.text in _EASINGS:
            self.set_once(manner, "easing", _EASINGS[self.take().text], token)
        elif self.accept("easing", "in") or self.accept("easing", "out"):
            self.set_once(manner, "easing", f"ease_{self.tokens[self.place - 1].text}", token)
        elif self.accept("facing", "subject") or self.accept("facing"):
            self.set_once(manner, "facing_subject", True, token)
            if self.accept("at") or self.accept("around"):
                self.set_once(manner, "subject", self.number("length"), token)
        elif self.next.text in ("around", "at"):
            while self.accept("around") or self.accept("at") or self.accept("subject"):
                pass
            self.set_amount(verb, amounts, "distance", self.number("length"), token)
        elif self.accept("radius"):
            self.set_amount(verb, amounts, "radius", self.number("length"), token)
        elif self.accept("seed"):
            self.set_amount(verb, amounts, "seed", self.number(None), token)
        elif self.next.kind == "number":
            quantity, value = self.amount(verb)
            if quantity == "time":
                if not value > 0:
                    raise self.fail("a duration must be positive", token)
                self.set_once(manner, "seconds", value, token)
            else:
                self.set_amount(verb, amounts, quantity, value, token)
        else:
            return False
        return True

    def amount(self, verb: Verb) -> tuple[str, float]:
        """A number with its unit, or without one where the verb takes only one quantity."""
        token = self.take()
        unit = self.unit()
        if unit is not None:
            return unit[0], float(token.text) * unit[1]
        plain = [quantity for quantity in ("length", "angle", "factor", "turns") if quantity in verb.defaults]
        if verb.name == "hold":
            plain = ["time"]
        if len(plain) != 1:
            takes = ", ".join(_QUANTITIES[quantity] for quantity in (plain or verb.defaults)) or "no amount"
            raise self.fail(f"{token.text} needs a unit here: {verb.name} takes {takes}", token)
        return plain[0], float(token.text)

    def number(self, quantity: str | None) -> float:
        """A number, whose unit may be left out but must fit."""
        if self.next.kind != "number":
            raise self.fail(f"expected {_QUANTITIES[quantity] if quantity else 'a number'}")
        token = self.take()
        unit = self.unit() if quantity else None
        if unit is not None and unit[0] != quantity:
            raise self.fail(f"expected {_QUANTITIES[quantity]}", self.tokens[self.place - 1])
        value = float(token.text) * (unit[1] if unit else 1.0)
        if quantity == "time" and not value > 0:
            raise self.fail("a duration must be positive", token)
        return value

    def unit(self) -> tuple[str, float] | None:
        return _UNITS[self.take().text] if self.next.text in _UNITS else None

    def set_amount(
        self, verb: Verb, amounts: dict[str, float], quantity: str, value: float, token: _Token
    ) -> None:
        if quantity not in verb.defaults:
            takes = ", ".join(_QUANTITIES[known] for known in verb.defaults) or "no amount"
            hints = {
                ("pan", "length"): "; to move sideways use 'truck'",
                ("tilt", "length"): "; to rise use 'pedestal up'",
                ("zoom", "length"): "; to move the camera use 'dolly in'",
                ("dolly", "factor"): "; to magnify use 'zoom in 2x'",
            }
            raise self.fail(
                f"{verb.name} does not take {_QUANTITIES[quantity]}: it takes {takes}"
                f"{hints.get((verb.name, quantity), '')}",
                token,
            )
        self.set_once(amounts, quantity, value, token)

    def set_once(self, known: dict, name: str, value: float | str | bool, token: _Token) -> None:
        if name in known:
            raise self.fail(f"the {name} was already given as {known[name]}", token)
        known[name] = value


def stages_from_text(text: str) -> tuple[Stage, ...]:
    """The stages that a sentence describes.

    Raises:
        PathTextError: pointing at the word that is not understood, and listing what is.
    """
    return _Parser(text).path()


def path_from_text(
    text: str, frames: int, fps: float = 12.0, intrinsics: ArrayLike = DEFAULT_INTRINSICS
) -> Cameras:
    """The camera path that a sentence describes: metric, starting at the identity, with times.

    Args:
        text: see the module's grammar.
        frames: number of frames; the clip lasts (frames - 1) / fps seconds, which the stages share evenly
            unless they say "over 2 s".
        fps: frames per second.
        intrinsics: [4] fractions at the start.

    Raises:
        PathTextError: pointing at the word that is not understood, and listing what is.
        ValueError: when the timed stages need more time than the clip has.
    """
    return path_of(stages_from_text(text), frames, fps=fps, intrinsics=intrinsics)
