"""What each field of a configuration may be: its kind, its length and its range."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from camctrl_jax.errors import InvalidValue


@dataclass(frozen=True)
class Kind:
    """What a value may be.

    Attributes:
        words: for people, as in "expected ...".
        holds: whether a value of JSON is of the kind. True and false are no numbers, 2.0 is no integer.
    """

    words: str
    holds: Callable[[Any], bool]


def whole(least: int, most: int) -> Kind:
    """An integer in a range, both ends included."""
    return Kind(
        f"an integer from {least} to {most:,}",
        lambda value: type(value) is int and least <= value <= most,
    )


def number(above: float | None = None, least: float | None = None) -> Kind:
    """A finite number, above a bound or not below one."""
    bound = (
        f" above {above:g}" if above is not None else f" of {least:g} or more" if least is not None else ""
    )

    def holds(value: Any) -> bool:
        if type(value) not in (int, float) or not math.isfinite(value):
            return False
        return (above is None or value > above) and (least is None or value >= least)

    return Kind(f"a finite number{bound}", holds)


def row_of(kind: Kind, length: int | None = None) -> Kind:
    """A list of such values, of a given length or of any."""
    return Kind(
        f"a list of {'' if length is None else f'{length}, each '}{kind.words}",
        lambda value: (
            isinstance(value, (list, tuple))
            and (length is None or len(value) == length)
            and all(map(kind.holds, value))
        ),
    )


def or_null(kind: Kind) -> Kind:
    """Such a value, or null."""
    return Kind(f"{kind.words}, or null", lambda value: value is None or kind.holds(value))


FLAG = Kind("true or false", lambda value: type(value) is bool)
TEXT = Kind("text", lambda value: isinstance(value, str))
SIZE = whole(1, 1_000_000)


def check_fields(values: Mapping[str, Any], kinds: Mapping[str, Kind], source: str) -> None:
    """Raises: InvalidValue naming the source, the field, its value and what was expected."""
    for name, kind in kinds.items():
        if name in values and not kind.holds(values[name]):
            raise InvalidValue(f"{source}: {name} is {shown(values[name])}; expected {kind.words}.")


def shown(value: Any, limit: int = 80) -> str:
    """A value as JSON's readers know it, cut where it is long."""
    words = {None: "null", True: "true", False: "false"}
    text = words[value] if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= limit else f"{text[:limit]}..."
