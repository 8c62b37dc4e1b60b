"""Estimators by name, as a configuration or a command line names them.

    choose("sfm", {"name": "colmap", "options": {"mode": "global"}})
    choose("masks", {"name": "tmo", "python": "/envs/tmo/bin/python", "repository": "TMO", "weights":
    "TMO_rn101.pth"}) choose("depth", {"name": "import", "options": {"path": "depth", "metres": 0.001}})

OpenCV is imported only when something that needs it is chosen.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any

from camctrl_jax.errors import InvalidValue
from camctrl_jax.estimators import imported, recipes
from camctrl_jax.estimators.colmap import Colmap
from camctrl_jax.estimators.histograms import HistogramEmbedder
from camctrl_jax.estimators.process import Installation

KINDS = ("flow", "masks", "sfm", "depth", "embeddings")
_PLACE = ("python", "repository", "weights", "environment", "time_limit", "keep_failed", "work_in")


def names(kind: str) -> tuple[str, ...]:
    """What :func:`choose` knows of a kind; the first is the default, where there is one (not for depth)."""
    return tuple(_factories(kind))


def choose(kind: str, settings: Mapping[str, Any] | str) -> Any:
    """The estimator that settings describe.

    Args:
        kind: one of :data:`KINDS`.
        settings: a name alone, or ``name``; for programs of other environments also the fields of
            :class:`~camctrl_jax.estimators.process.Installation`; ``options``, what the recipe or class
            takes.

    Raises:
        InvalidValue: an unknown kind, name or field, with those there are; options that do not fit.
    """
    settings = {"name": settings} if isinstance(settings, str) else dict(settings)
    name, options = settings.pop("name", None), dict(settings.pop("options", {}))
    known = _factories(kind)
    if name not in known:
        close = difflib.get_close_matches(str(name), known, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise InvalidValue(f"there is no {kind} estimator {name!r}{hint}; there are {', '.join(known)}.")
    unknown = sorted(set(settings) - set(_PLACE))
    if unknown:
        fields = ", ".join(("name", *_PLACE, "options"))
        raise InvalidValue(f"{kind}: {name}: unknown setting {unknown[0]!r}; there are {fields}.")
    outside, make = known[name]
    if settings and not outside:
        raise InvalidValue(
            f"{kind}: {name} runs here, not in another environment: it takes options, no "
            f"{sorted(settings)[0]!r}."
        )
    if name == "sam2" and isinstance(options.get("prompts", "epipolar"), (str, Mapping)):
        options["prompts"] = choose("masks", options.get("prompts", "epipolar"))
    try:
        return make(Installation(**settings), **options) if outside else make(**options)
    except TypeError as error:
        raise InvalidValue(f"{kind}: {name}: {error}.") from error


def _factories(kind: str) -> dict[str, tuple[bool, Callable[..., Any]]]:
    """{name: (whether it is a program of another environment, what makes it)}."""
    if kind == "flow":
        return {
            "dis": (False, _dis),
            "raft": (True, recipes.raft),
            "raft-torchvision": (True, recipes.raft_torchvision),
            "import": (False, imported.ImportedFlow),
        }
    if kind == "masks":
        return {
            "epipolar": (False, _epipolar),
            "tmo": (True, recipes.tmo),
            "sam2": (True, recipes.sam2),
            "megasam": (True, recipes.megasam_masks),
            "import": (False, imported.ImportedMasks),
        }
    if kind == "sfm":
        return {
            "colmap": (False, Colmap),
            "vggsfm": (True, recipes.vggsfm),
            "vggt": (True, recipes.vggt),
            "megasam": (True, recipes.megasam),
            "import": (False, imported.ImportedPoses),
        }
    if kind == "depth":
        return {
            "depth-pro": (True, recipes.depth_pro),
            "depth-pro-transformers": (True, recipes.depth_pro_transformers),
            "import": (False, imported.ImportedDepth),
        }
    if kind == "embeddings":
        return {
            "histograms": (False, HistogramEmbedder),
            "clip": (True, recipes.clip),
            "import": (False, imported.ImportedEmbeddings),
        }
    raise InvalidValue(f"there is no kind of estimator {kind!r}; there are {', '.join(KINDS)}.")


def _dis(**options: Any) -> Any:
    from camctrl_jax.estimators.opencv_flow import DisFlow

    return DisFlow(**options)


def _epipolar(**options: Any) -> Any:
    from camctrl_jax.estimators.motion_masks import EpipolarMasks

    return EpipolarMasks(**options)
