"""Estimators by name, as a configuration or a command line names them.

    choose("sfm", {"name": "colmap", "options": {"mode": "global"}})
    choose("masks", {"name": "tmo", "python": "/envs/tmo/bin/python", "repository": "TMO", "weights":
    "TMO_rn101.pth"})
    choose("depth", {"name": "import", "options": {"path": "depth/{clip}", "metres": 0.001}})
    choose("video_features", {"name": "i3d", "weights": "i3d_torchscript.pt"})

``{clip}`` in the path of an imported estimator stands for the name of a clip
(:func:`~camctrl_jax.estimators.protocols.for_clip`). OpenCV and torch are imported only when something that
needs them is chosen or used.
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

KINDS = ("flow", "masks", "sfm", "depth", "embeddings", "video_features", "points")
_PLACE = ("python", "repository", "weights", "environment", "time_limit", "keep_failed", "work_in")
_WEIGHTS, _HERE = ("weights",), ()


def names(kind: str) -> tuple[str, ...]:
    """What :func:`choose` knows of a kind; the first is the default, where there is one.

    There is none of depth, video features and points, which need weights or files of the user.
    """
    return tuple(_factories(kind))


def choose(kind: str, settings: Mapping[str, Any] | str) -> Any:
    """The estimator that settings describe.

    Args:
        kind: one of :data:`KINDS`.
        settings: a name alone, or ``name``; for programs of other environments also the fields of
            :class:`~camctrl_jax.estimators.process.Installation`; ``weights`` alone for what runs here but
            needs a file; ``options``, what the recipe or class takes.

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
    taken, make = known[name]
    foreign = sorted(set(settings) - set(taken))
    if foreign:
        own = " and ".join((*taken, "options"))
        raise InvalidValue(
            f"{kind}: {name} runs here, not in another environment: it takes {own}, no {foreign[0]!r}."
        )
    if taken == _WEIGHTS and not settings:
        raise InvalidValue(f"{kind}: {name} needs a file: give it as weights.")
    if name == "sam2" and isinstance(options.get("prompts", "epipolar"), (str, Mapping)):
        options["prompts"] = choose("masks", options.get("prompts", "epipolar"))
    try:
        return make(Installation(**settings), **options) if taken == _PLACE else make(**settings, **options)
    except TypeError as error:
        raise InvalidValue(f"{kind}: {name}: {error}.") from error


def _factories(kind: str) -> dict[str, tuple[tuple[str, ...], Callable[..., Any]]]:
    """{name: (the fields that it takes beside options, what makes it)}.

    ``_PLACE`` are those of a program of another environment; others run here.
    """
    if kind == "flow":
        return {
            "dis": (_HERE, _dis),
            "raft": (_PLACE, recipes.raft),
            "raft-torchvision": (_PLACE, recipes.raft_torchvision),
            "import": (_HERE, imported.ImportedFlow),
        }
    if kind == "masks":
        return {
            "epipolar": (_HERE, _epipolar),
            "tmo": (_PLACE, recipes.tmo),
            "sam2": (_PLACE, recipes.sam2),
            "megasam": (_PLACE, recipes.megasam_masks),
            "import": (_HERE, imported.ImportedMasks),
        }
    if kind == "sfm":
        return {
            "colmap": (_HERE, Colmap),
            "vggsfm": (_PLACE, recipes.vggsfm),
            "vggt": (_PLACE, recipes.vggt),
            "megasam": (_PLACE, recipes.megasam),
            "import": (_HERE, imported.ImportedPoses),
        }
    if kind == "depth":
        return {
            "depth-pro": (_PLACE, recipes.depth_pro),
            "depth-pro-transformers": (_PLACE, recipes.depth_pro_transformers),
            "import": (_HERE, imported.ImportedDepth),
        }
    if kind == "embeddings":
        return {
            "histograms": (_HERE, HistogramEmbedder),
            "clip": (_PLACE, recipes.clip),
            "import": (_HERE, imported.ImportedEmbeddings),
        }
    if kind == "video_features":
        return {
            "i3d": (_WEIGHTS, _i3d),
            "import": (_HERE, imported.ImportedVideoFeatures),
        }
    if kind == "points":
        return {
            "vggt": (_PLACE, recipes.vggt_points),
            "import": (_HERE, imported.ImportedPoints),
        }
    raise InvalidValue(f"there is no kind of estimator {kind!r}; there are {', '.join(KINDS)}.")


def _dis(**options: Any) -> Any:
    from camctrl_jax.estimators.opencv_flow import DisFlow

    return DisFlow(**options)


def _epipolar(**options: Any) -> Any:
    from camctrl_jax.estimators.motion_masks import EpipolarMasks

    return EpipolarMasks(**options)


def _i3d(**options: Any) -> Any:
    from camctrl_jax.estimators.i3d import I3d

    return I3d(**options)
