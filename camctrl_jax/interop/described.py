"""Configurations as JSON-able values, in model.json, in checkpoints and beside exported weights."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from camctrl_jax.errors import InvalidValue, UserError
from camctrl_jax.interop.fields import shown
from camctrl_jax.models import CameraConfig, MMDiTConfig

# How a network is run, not what it is: a weights folder does not fix these.
_RUN_TIME_FIELDS = ("attention", "fuse_projections", "remat", "scan_layers")


DISTILLATIONS = ("progressive", "consistency", "adversarial", "flow_map")
FOLDED = ("text", "camera", "camera_without_text")  # guidance weights that a student can hold ...
_NO_GUIDANCE = dict(zip(FOLDED, (1.0, 1.0, 0.0)))  # ... and what of them is none

# Fields that once had another name, as stored configurations may still call them.
_OLD_NAMES = {CameraConfig: {"plucker_res": "resolution"}}


class WeightsError(UserError, ValueError):
    """Weights that cannot be found or used; the message names the spec, what is wrong and what to do."""


@dataclass(frozen=True)
class SamplingDefaults:
    """What sampling uses unless it is told otherwise: the clips a model was trained on, and good guidance.

    Attributes:
        frames: T = 4k + 1.
        height, width: pixels.
        fps: frames per second.
        shift: timestep shift of training, or None if it followed the number of tokens.
        text_guidance, camera_guidance: weights of ``Guidance``.
        retrieved: earlier frames that extension was trained with beside the recent ones, at most; 0 for a
            model that knows none.
        reference: which camera the poses of extensions were relative to in training, 'take' or 'clip'; see
            ``camctrl_jax.data.tasks.TaskConfig``.
        steps: Euler steps; of a student the first of its ``Distilled.valid_steps``.
    """

    frames: int
    height: int
    width: int
    fps: float = 12.0
    shift: float | None = None
    text_guidance: float = 1.0
    camera_guidance: float = 2.0
    retrieved: int = 0
    reference: str = "take"
    steps: int = 32

    def __post_init__(self) -> None:
        for name in ("frames", "height", "width", "fps", "shift", "steps"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise InvalidValue(f"{name} is {value!r}; expected more than 0")
        if self.retrieved < 0:
            raise InvalidValue(f"retrieved is {self.retrieved!r}; expected 0 or more")
        if self.reference not in ("take", "clip"):
            raise InvalidValue(f"reference is {self.reference!r}; expected 'take' or 'clip'")


@dataclass(frozen=True)
class Distilled:
    """What a student is: by what it was taught, and what its weights can be sampled with.

    Attributes:
        method: the objective that made it: 'progressive', 'consistency', 'adversarial' or 'flow_map'.
        teacher_sha256: fingerprint of its teacher's transformer, or '' where none is known.
        guidance_folded: the guidance weights (fields of ``Guidance``) that its velocity already holds; none
            are added in sampling.
        valid_steps: numbers of steps it was made for, the usual one first.
    """

    method: str
    teacher_sha256: str
    guidance_folded: Mapping[str, float | None]
    valid_steps: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.method not in DISTILLATIONS:
            raise InvalidValue(f"method is {self.method!r}; expected one of {', '.join(DISTILLATIONS)}")
        if not self.valid_steps or min(self.valid_steps) < 1:
            raise InvalidValue(
                f"valid_steps is {self.valid_steps!r}; expected numbers of steps, such as [16]"
            )
        unknown = sorted(set(self.guidance_folded) - set(FOLDED))
        if unknown or not all(
            value is None or _fits(float, value) for value in self.guidance_folded.values()
        ):
            raise InvalidValue(
                f"guidance_folded is {shown(self.guidance_folded)}; expected numbers for {', '.join(FOLDED)}"
            )

    @property
    def said(self) -> str:
        """For people: ``progressive distillation; folded in: camera guidance 2; steps: 4``."""
        folded = [
            f"{name.replace('_', ' ')} guidance {value:g}"
            for name, value in self.guidance_folded.items()
            if value not in (None, _NO_GUIDANCE[name])
        ]
        return (
            f"{self.method.replace('_', ' ')} distillation; folded in: {', '.join(folded) or 'no guidance'}; "
            f"steps: {', '.join(map(str, self.valid_steps))}"
        )

    def defaults(self, sampling: SamplingDefaults) -> SamplingDefaults:
        """The defaults of a student: no guidance is added, and its steps are some that it was made for."""
        steps = sampling.steps if sampling.steps in self.valid_steps else self.valid_steps[0]
        return dataclasses.replace(sampling, text_guidance=1.0, camera_guidance=1.0, steps=steps)


def check_target_time(where: str, mmdit: MMDiTConfig | None, distilled: Distilled | None) -> None:
    """Raises: WeightsError if a transformer that is told where steps lead is no flow map, or the reverse."""
    told = mmdit is not None and mmdit.target_time
    method = None if distilled is None else distilled.method
    if mmdit is not None and told != (method == "flow_map"):
        raise WeightsError(
            f"{where}: mmdit.target_time is {str(told).lower()}, and distilled.method {method!r}; in a flow "
            "map, and nowhere else, it is true and 'flow_map'. Copy the weights again, or use others."
        )


def config_to_json(config: Any) -> dict[str, Any]:
    """A frozen dataclass as JSON-able values, its run-time fields left out."""
    values = dataclasses.asdict(config)
    return json.loads(
        json.dumps({name: value for name, value in values.items() if name not in _RUN_TIME_FIELDS})
    )


def config_from_json(kind: type, values: Mapping[str, Any]) -> Any:
    """The dataclass that ``config_to_json`` took apart; lists become tuples, fields left out their defaults.

    Raises:
        ValueError: an unknown or missing field, one of another kind than the dataclass says (true is no
            number, 2.0 no integer, a row has its length), or values that the dataclass refuses.
    """
    if not isinstance(values, Mapping):
        raise InvalidValue(f"{kind.__name__} is {shown(values)}; expected an object of its fields")
    old_names = _OLD_NAMES.get(kind, {})
    values = {old_names.get(name, name): value for name, value in values.items()}
    hints = typing.get_type_hints(kind)
    unknown = sorted(values.keys() - hints.keys())
    if unknown:
        raise InvalidValue(f"{kind.__name__} has no field {unknown[0]!r}; it has {', '.join(sorted(hints))}")
    required = {
        entry.name
        for entry in dataclasses.fields(kind)
        if entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
    }
    if required - values.keys():
        raise InvalidValue(f"{kind.__name__} needs the fields {', '.join(sorted(required - values.keys()))}")
    for name, value in values.items():
        if not _fits(hints[name], value):
            raise InvalidValue(f"{name} is {shown(value)}; expected {_words(hints[name])}")
    return kind(**{name: _value_from_json(hints[name], value) for name, value in values.items()})


def _fits(hint: Any, value: Any) -> bool:
    """Whether a value of JSON is what a field's annotation says; sizes are not negative."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return any(_fits(part, value) for part in parts)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            return False
        kinds = [parts[0]] * len(value) if parts[-1] is Ellipsis else parts
        return len(value) == len(kinds) and all(map(_fits, kinds, value))
    if origin is typing.Literal:
        return isinstance(value, str)
    if dataclasses.is_dataclass(hint):
        return isinstance(value, Mapping)
    if hint is int:
        return type(value) is int and value >= 0
    if hint is float:
        return type(value) in (int, float) and math.isfinite(value)
    if hint is type(None):
        return value is None
    return not isinstance(hint, type) or isinstance(value, hint)


def _words(hint: Any) -> str:
    """An annotation for people."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_words(part) for part in parts)
    if origin is tuple:
        return f"a list of {'any number' if parts[-1] is Ellipsis else len(parts)}, each {_words(parts[0])}"
    if origin is typing.Literal:
        return " or ".join(map(repr, parts))
    if dataclasses.is_dataclass(hint):
        return f"an object of {', '.join(field.name for field in dataclasses.fields(hint))}"
    words = {int: "an integer of 0 or more", float: "a finite number", bool: "true or false", str: "text"}
    return words.get(hint, "null" if hint is type(None) else str(hint))


def _value_from_json(hint: Any, value: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, Mapping):
        options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        kinds = [option for option in options if dataclasses.is_dataclass(option)]
        if kinds:
            return config_from_json(kinds[0], value)
    return value
