"""Bodies of requests: msgspec refuses NaN, unknown fields and wrong lengths before anything else looks."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from camctrl_jax.explore.problems import Refusal

CHECKPOINT, STUDENT = "checkpoint", "student"
"""What makes a clip: the weights that are explored with, or their student for quick looks."""
MOST_POSES = 1024
MOST_PROMPT = 20_000
MOST_STEPS = 200

Row = tuple[float, float, float, float]
Matrix = tuple[Row, Row, Row, Row]
Seed = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
Prompt = Annotated[str, msgspec.Meta(max_length=MOST_PROMPT)]
Steps = Annotated[int, msgspec.Meta(ge=1, le=MOST_STEPS)]
WorldsSeed = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
Poses = Annotated[list[Matrix], msgspec.Meta(max_length=MOST_POSES)]
Weight = Annotated[float, msgspec.Meta(ge=0, le=100)]
Read = TypeVar("Read")


class _Closed(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Refuses what it does not know."""


class GuidanceRequest(_Closed):
    """Weights of guidance; None is as the weights were trained."""

    text: Weight | None = None
    camera: Weight | None = None
    history: Weight | None = None


class CamerasRequest(_Closed):
    """Poses [N, 4, 4] in OpenCV axes and metres, and their lenses [N, 4]."""

    world_from_camera: Poses
    intrinsics: Annotated[list[Row], msgspec.Meta(max_length=MOST_POSES)] | None = None
    intrinsics_unit: Literal["normalised", "pixel"] = "normalised"
    relative_to: Literal["exploration", "last_frame"] = "last_frame"
    metric: bool = True


class KeyFrame(_Closed):
    """A pose that a path goes through, in the frame of the exploration."""

    world_from_camera: Matrix
    time: float | None = None


class PoseFileRequest(_Closed):
    """A text pose file of any known format, and where it departs from that."""

    name: Annotated[str, msgspec.Meta(max_length=255)]
    text: Annotated[str, msgspec.Meta(max_length=2_000_000)]
    range: tuple[int | None, int | None] | None = None
    invert: bool = False
    axes: Annotated[str, msgspec.Meta(max_length=3)] = ""
    quaternions: Literal["", "xyzw", "wxyz"] = ""


class PathFields(_Closed):
    """The ways to say a path; at most one of the first four."""

    path: Annotated[str, msgspec.Meta(max_length=2000)] | None = None
    cameras: CamerasRequest | None = None
    key_frames: Annotated[list[KeyFrame], msgspec.Meta(min_length=2, max_length=64)] | None = None
    pose_file: PoseFileRequest | None = None
    scale: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 1.0

    def given(self) -> list[str]:
        """The names of the ways that were used."""
        ways = ("path", "cameras", "key_frames", "pose_file")
        return [name for name in ways if getattr(self, name) is not None]


class PathRequest(PathFields):
    """``POST /v1/paths``."""

    exploration: str | None = None
    parent: str | None = None
    worlds_seed: WorldsSeed | None = None


class SamplingFields(PathFields):
    """How a clip is sampled, and by which weights."""

    seed: Seed | None = None
    steps: Steps | None = None
    guidance: GuidanceRequest | None = None
    model: Literal["checkpoint", "student"] = CHECKPOINT


class NewExploration(SamplingFields):
    """``POST /v1/explorations``."""

    title: Annotated[str, msgspec.Meta(max_length=200)] = ""
    prompt: Prompt | None = None
    worlds_seed: WorldsSeed | None = None


class NewClip(SamplingFields):
    """``POST /v1/explorations/{id}/clips``."""

    parent: str | None = None
    prompt: Prompt | None = None


class Refinement(_Closed):
    """``POST /v1/clips/{id}/refine``."""

    steps: Steps | None = None
    guidance: GuidanceRequest | None = None


class NewCurrent(_Closed):
    """``PUT /v1/explorations/{id}/current``."""

    clip: str


def read(kind: type[Read], body: bytes, param: str | None = None) -> Read:
    """A body as what it should be.

    Raises:
        Refusal: it is something else; names the field.
    """
    try:
        found = msgspec.json.decode(body, type=kind)
    except UnicodeDecodeError as error:
        raise Refusal("bad_request", "The body is not UTF-8: send JSON.", param) from error
    except RecursionError as error:
        raise Refusal("bad_request", "The body is nested too deeply.", param) from error
    except msgspec.ValidationError as error:
        text, _, where = str(error).partition(" - at `$")
        place = where.rstrip("`").lstrip(".") or param
        raise Refusal("bad_request", f"{place + ': ' if place else ''}{text}.", place) from error
    except msgspec.DecodeError as error:
        raise Refusal("bad_request", f"The body is not JSON: {error}.", param) from error
    _check_finite(msgspec.to_builtins(found), "")
    return found


def _check_finite(value: Any, where: str) -> None:
    """JSON has no NaN, but 1e999 is read as infinity."""
    if isinstance(value, float) and not math.isfinite(value):
        raise Refusal("bad_request", f"{where} is {value}: expected a finite number.", where)
    if isinstance(value, dict):
        for name, inside in value.items():
            _check_finite(inside, f"{where}.{name}".lstrip("."))
    elif isinstance(value, list | tuple):
        for place, inside in enumerate(value):
            _check_finite(inside, f"{where}[{place}]")
