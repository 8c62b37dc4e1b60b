"""Named camera paths, and the one function that turns whatever a user names a path by into a path.

Every preset is a sentence of :mod:`camctrl_jax.camera.path_text`. The names follow film: a pan turns, a
truck moves sideways, a dolly moves forwards, a zoom changes the focal length. Most published camera-control
models call the truck "pan" and the dolly "zoom"; ``elsewhere`` says which of their names means the same move.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from camctrl_jax.camera.cameras import Cameras
from camctrl_jax.camera.formats import existing_path, load_cameras
from camctrl_jax.camera.interpolation import easing_function, resample
from camctrl_jax.camera.intrinsics import DEFAULT_INTRINSICS
from camctrl_jax.camera.moves import SUBJECT_DISTANCE, path_of
from camctrl_jax.camera.path_text import PathTextError, stages_from_text
from camctrl_jax.errors import InvalidValue, MissingFile


class Preset(NamedTuple):
    """A sentence of the path grammar, what it shows, and what others call it."""

    text: str
    summary: str
    elsewhere: str = ""


def _sided(
    name: str, directions: str, summary: str, elsewhere: Mapping[str, str] | None = None
) -> dict[str, Preset]:
    named = {}
    for direction in directions.split():
        text = f"{name} {direction}"
        named[text.replace(" ", "_").replace("anticlockwise", "ccw").replace("clockwise", "cw")] = Preset(
            text, summary.format(direction=direction), (elsewhere or {}).get(direction, "")
        )
    return named


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "static": Preset("hold", "the camera does not move", "CamI2V stationary, SEVA none"),
        **_sided(
            "pan", "left right", "turns {direction} on the spot", {"left": "turn left", "right": "turn right"}
        ),
        **_sided("tilt", "up down", "turns {direction} on the spot"),
        **_sided(
            "roll",
            "clockwise anticlockwise",
            "turns about the line of sight, {direction} seen from behind the camera",
            {
                "clockwise": "MotionCtrl SPIN-CW-60, GEN3C clockwise",
                "anticlockwise": "VideoX-Fun ACW, CamI2V rotate clockwise",
            },
        ),
        **_sided(
            "look", "left right up down", "turns far {direction} on the spot", {"left": "CamI2V look left"}
        ),
        **_sided(
            "truck",
            "left right",
            "moves {direction}, looking straight ahead",
            {
                "left": "'pan left' of VideoX-Fun, CamI2V, AC3D; GameCraft A",
                "right": "'pan right'; GameCraft D",
            },
        ),
        **{
            f"truck_{side}_{height}": Preset(
                f"truck {side} {height}",
                f"moves {side} and {height}, looking straight ahead",
                f"VideoX-Fun Pan_{side.title()}_{height.title()}",
            )
            for side in ("left", "right")
            for height in ("up", "down")
        },
        **_sided(
            "pedestal",
            "up down",
            "moves {direction}, looking straight ahead",
            {"up": "'pan up' of VideoX-Fun, CamI2V", "down": "'pan down'"},
        ),
        **_sided(
            "dolly",
            "in out",
            "moves {direction} along the line of sight",
            {
                "in": "'zoom in' of VideoX-Fun, CamI2V, MotionCtrl; GameCraft W",
                "out": "'zoom out'; GameCraft S",
            },
        ),
        **_sided(
            "zoom", "in out", "changes the focal length; the camera stands still", {"in": "SEVA zoom-in"}
        ),
        **_sided(
            "dolly zoom",
            "in out",
            "moves {direction} while zooming against it: the subject keeps its size",
            {"in": "SEVA dolly zoom-in", "out": "SEVA dolly zoom-out"},
        ),
        **_sided(
            "orbit",
            "left right up down",
            "moves {direction} around a subject, facing it",
            {"left": "CamI2V orbit left, AC3D rotate_around", "right": "SEVA orbit"},
        ),
        **_sided(
            "arc",
            "left right",
            "a short orbit given by its length: moves {direction}, keeping the subject in view",
            {"left": "ReCamMaster arc left", "right": "ReCamMaster arc right"},
        ),
        **_sided(
            "crane",
            "up down",
            "moves {direction} while tilting to keep the subject in view",
            {"up": "ReCamMaster translate up", "down": "ReCamMaster translate down"},
        ),
        **_sided(
            "swing", "left right", "swings around the subject, {direction} first", {"left": "Uni3C swing1"}
        ),
        "round_zoom_in": Preset("round zoom in", "orbits right while closing in", "MotionCtrl Round-ZoomIn"),
        "round_zoom_out": Preset("round zoom out", "orbits right while drawing back"),
        **_sided(
            "circle",
            "clockwise anticlockwise",
            "goes around a circle, looking straight ahead",
            {"clockwise": "AC3D circle"},
        ),
        **_sided(
            "spiral",
            "in out",
            "goes around a circle while moving {direction}",
            {"in": "SEVA and AC3D spiral"},
        ),
        "lemniscate": Preset("lemniscate", "a figure of eight, facing the subject", "SEVA lemniscate"),
        "handheld": Preset("handheld", "stands still in an unsteady hand"),
        "handheld_dolly_in": Preset("dolly in with handheld", "walks forward with an unsteady hand"),
    }
)
"""Every preset by name."""


def preset(
    name: str,
    frames: int,
    *,
    fps: float = 12.0,
    metres: float | None = None,
    degrees: float | None = None,
    factor: float | None = None,
    turns: float | None = None,
    distance: float | None = None,
    radius: float | None = None,
    seed: int | None = None,
    facing_subject: bool = False,
    easing: str = "smooth",
    intrinsics: ArrayLike = DEFAULT_INTRINSICS,
) -> Cameras:
    """A named path: metric, starting at the identity, with times.

    Args:
        name: a key of :data:`PRESETS`.
        frames: number of frames; the move takes them all.
        fps: frames per second.
        metres, degrees, factor, turns: amplitude, in the quantities the move has; None keeps its default.
        distance: metres to the subject of an orbit, swing, lemniscate or dolly zoom, or of facing_subject.
        radius: metres, of a circle or spiral.
        seed: which handheld shake.
        facing_subject: turn all the while so that the subject stays in the middle of the picture.
        easing: "linear" for constant speed as in most published presets, "smooth", "ease_in" or "ease_out".
        intrinsics: [4] fractions at the start.

    Raises:
        ValueError: for an unknown name (with the nearest one) or an amount that the move does not have.
    """
    if name not in PRESETS:
        close = difflib.get_close_matches(name, PRESETS, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise InvalidValue(f"unknown preset {name!r}{hint}; known are {', '.join(PRESETS)}")
    easing_function(easing)
    around = "around {} m"
    own_subject = any(
        hasattr(move, "distance") for stage in stages_from_text(PRESETS[name].text) for move in stage.moves
    )
    if facing_subject and not own_subject:
        around = "facing the subject at {} m"
        distance = SUBJECT_DISTANCE if distance is None else distance
    amounts = {
        "{} m": metres,
        "{} deg": degrees,
        "{} x": factor,
        "{} turns": turns,
        "radius {} m": radius,
        "seed {}": seed,
        around: distance,
    }
    for amount in amounts.values():
        if amount is not None and not (np.isfinite(amount) and amount >= 0):
            raise InvalidValue(
                f"preset {name!r}: an amplitude is positive, the name says the way; got {amount}"
            )
    said = [
        form.format(np.format_float_positional(amount, trim="-"))
        for form, amount in amounts.items()
        if amount is not None
    ]
    text = " ".join([PRESETS[name].text, *said])
    stages = [dataclasses.replace(stage, easing=easing) for stage in stages_from_text(text)]
    return path_of(stages, frames, fps=fps, intrinsics=intrinsics)


def resolve_path(
    spec: str | Path, frames: int, fps: float = 12.0, intrinsics: ArrayLike | None = None
) -> Cameras:
    """The path that a user names: a pose file or folder, a preset, or a sentence.

    Args:
        spec: tried in this order: an existing file or folder, the name of a preset, a sentence of
            :mod:`camctrl_jax.camera.path_text`.
        frames: the result has that many; a file's path is resampled to them, first and last pose kept.
        fps: frame rate of the result, whose times start at 0. A file's own pace is stretched to fit.
        intrinsics: [4] or [frames, 4] fractions that replace the file's; None keeps those of the file, or
            takes the default for a preset or a sentence.

    Returns:
        A path of ``frames`` frames. A file keeps its own world: use ``relative_to(0)`` to start at the
        identity.

    Raises:
        FileNotFoundError: when ``spec`` looks like a path and nothing is there.
        ValueError: when it is neither a file, nor a preset, nor a sentence; the message shows all three
            readings.
    """
    if existing_path(spec) is not None:
        cameras = resample(load_cameras(spec), frames).with_fps(fps)
        return cameras if intrinsics is None else cameras.with_intrinsics(intrinsics)
    text = str(spec).strip()
    if isinstance(spec, Path) or "/" in text or "\\" in text or Path(text.split("#")[0]).suffix in _SUFFIXES:
        raise MissingFile(
            f"{text}: no such file or folder. A camera path is a pose file, a preset "
            "(list them: python -m camctrl_jax.camera preset --list) or a sentence such as "
            "'dolly in 1.5 m, then pan left 40 deg'"
        )
    start = DEFAULT_INTRINSICS if intrinsics is None else intrinsics
    name = text.lower().replace("-", "_").replace(" ", "_")
    if name in PRESETS:
        return preset(name, frames, fps=fps, intrinsics=start)
    try:
        stages = stages_from_text(text)
    except PathTextError as error:
        close = difflib.get_close_matches(name, PRESETS, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise PathTextError(f"{error}\nnor is it an existing file or a preset{hint}") from None
    return path_of(stages, frames, fps=fps, intrinsics=start)


_SUFFIXES = frozenset({".txt", ".json", ".npy", ".npz", ".bin", ".log", ".csv", ".tum"})
