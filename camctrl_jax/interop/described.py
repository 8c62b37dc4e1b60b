"""Configurations as JSON-able values, in model.json, in checkpoints and beside exported weights."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from camctrl_jax.errors import InvalidValue, UserError
from camctrl_jax.models import CameraConfig

# How a network is run, not what it is: a weights folder does not fix these.
_RUN_TIME_FIELDS = ("attention", "fuse_projections", "remat", "scan_layers")


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
    """

    frames: int
    height: int
    width: int
    fps: float = 12.0
    shift: float | None = None
    text_guidance: float = 1.0
    camera_guidance: float = 2.0


def config_to_json(config: Any) -> dict[str, Any]:
    """A frozen dataclass as JSON-able values, its run-time fields left out."""
    values = dataclasses.asdict(config)
    return json.loads(
        json.dumps({name: value for name, value in values.items() if name not in _RUN_TIME_FIELDS})
    )


def config_from_json(kind: type, values: Mapping[str, Any]) -> Any:
    """The dataclass that ``config_to_json`` took apart; lists become tuples, fields left out their defaults.

    Raises:
        ValueError: an unknown or missing field, or values that the dataclass refuses.
    """
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
    return kind(**{name: _value_from_json(hints[name], value) for name, value in values.items()})


def _value_from_json(hint: Any, value: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, Mapping):
        options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        kinds = [option for option in options if dataclasses.is_dataclass(option)]
        if kinds:
            return config_from_json(kinds[0], value)
    return value
