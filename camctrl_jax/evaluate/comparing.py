"""``evaluate compare``: which kind of results there are, and their comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from camctrl_jax.errors import InvalidValue
from camctrl_jax.files.json_file import read_json


@dataclass(frozen=True)
class CompareSettings:
    """What to compare.

    Attributes:
        first, second: folders of ``evaluate worlds``, ``explorations``, ``checkpoint`` or ``videos``, or
            their ``results.json``.
        rows: of all but videos, the row of each to compare, as its results name it ("32 steps, camera 2,
            text 1", "steps32_camera2_text1", "last-13"); None takes equal ones, or the only one of each.
        strips: a PNG of the true render and both results side by side, of worlds, captions and explorations.
        shown: scenes on it.
        same_noise: how near first samples of worlds come to each other, too: of a student and its teacher.
    """

    first: Path
    second: Path
    rows: tuple[str, str] | None = None
    strips: Path | None = None
    shown: int = 6
    same_noise: bool = False


def compare_results(settings: CompareSettings) -> tuple[dict[str, Any], str]:
    """Paired differences, second minus first, over what both results have; plain values, and a page.

    Raises:
        UserError: no such results, results of two kinds or of two protocols, nothing in common.
    """
    paths = (settings.first, settings.second)
    names = (str(settings.first), str(settings.second))
    results = [read_json(path / "results.json" if path.is_dir() else path) for path in paths]
    kinds = [_kind(result, name) for result, name in zip(results, names, strict=True)]
    if kinds[0] != kinds[1]:
        raise InvalidValue(
            f"{names[0]} is of evaluate {kinds[0]} and {names[1]} of evaluate {kinds[1]}: they measure other "
            "clips by other means, and do not compare."
        )
    if settings.strips is not None and kinds[0] in ("checkpoint", "videos"):
        raise InvalidValue(
            f"--strips is for results of evaluate worlds, captions and explorations; those of {kinds[0]} "
            "keep videos, which are to be looked at themselves."
        )
    if settings.same_noise and kinds[0] != "worlds":
        raise InvalidValue(
            f"--same-noise is for results of evaluate worlds, whose samples keep frames; these are of "
            f"evaluate {kinds[0]}."
        )
    # Only one of them, and late: the other's imports are not needed.
    if kinds[0] == "videos":
        from camctrl_jax.evaluate.videos.comparing import compare_videos, videos_comparison_markdown

        if settings.rows is not None:
            raise InvalidValue(
                "--rows is for results of evaluate worlds, explorations or checkpoint; those of evaluate "
                "videos have none."
            )
        found = compare_videos(results[0], results[1], names)
        return found, videos_comparison_markdown(found)
    if kinds[0] == "checkpoint":
        from camctrl_jax.evaluate.checkpoint.comparing import (
            checkpoints_comparison_markdown,
            compare_checkpoints,
        )

        found = compare_checkpoints(results[0], results[1], names, settings.rows)
        return found, checkpoints_comparison_markdown(found)
    # Of worlds, captions and explorations: all tell every value of every scene.
    from camctrl_jax.evaluate.worlds.comparing import compare_worlds, worlds_comparison_markdown

    found = compare_worlds(results[0], results[1], names, settings.rows)
    page = worlds_comparison_markdown(found)
    if kinds[0] != "worlds":  # whose rows say how they were sampled
        found["settings_apart"] = _settings_apart(results)
        page += "".join(
            f"\n\nSampled with {name} {one} in the first, {other} in the second."
            for name, (one, other) in found["settings_apart"].items()
        )
    first, second = (path if path.is_dir() else path.parent for path in paths)
    if settings.same_noise:
        # Only now: most comparisons look at no frames.
        from camctrl_jax.evaluate.same_noise import same_noise, same_noise_markdown

        found["same_noise"] = same_noise((first, second), (results[0], results[1]), settings.rows)
        page += f"\n\n{same_noise_markdown(found['same_noise'], names)}"
    if settings.strips is not None:
        # Only now: most comparisons draw nothing.
        from camctrl_jax.evaluate.strips import write_strips

        write_strips(
            settings.strips,
            (first, second),
            (results[0], results[1]),
            kinds[0],
            settings.shown,
            settings.rows,
        )
    return found, page


def _settings_apart(results: Sequence[Mapping[str, Any]]) -> dict[str, tuple[Any, Any]]:
    """How two results were sampled otherwise, but for the weights and what rows are called after."""
    first, second = (result.get("request", {}) for result in results)
    names = ("steps", "camera_guidance", "prompts") + (("text_guidance",) if "arms" in first else ())
    return {
        name: (first.get(name), second.get(name)) for name in names if first.get(name) != second.get(name)
    }


def _kind(result: Mapping[str, Any], name: str) -> str:
    if result.get("kind") in ("captions", "explorations"):
        return result["kind"]
    if "per_scene" in result:
        return "worlds"
    if result.get("kind") in ("checkpoint", "videos"):
        return result["kind"]
    if "summary" in result and "clips" in result:
        raise InvalidValue(
            f"{name} was written before such results could be compared: run its command again (or it is of "
            "evaluate cameras, which does not compare)."
        )
    raise InvalidValue(
        f"{name}: no results of evaluate captions, checkpoint, explorations, videos or worlds."
    )
