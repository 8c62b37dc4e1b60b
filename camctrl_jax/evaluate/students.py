"""Students in evaluations: how they are sampled, and what results say of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from camctrl_jax.checkpoints.weights import Weights
from camctrl_jax.diffusion.sampler import Sampling
from camctrl_jax.interop.described import config_to_json
from camctrl_jax.sampling.students import check_sampling


def usual_row(model: Weights | None, steps: int, camera_guidance: float) -> tuple[int, float]:
    """Steps and camera guidance where none are asked for: those given, or a student's own."""
    if model is None or model.distilled is None:
        return steps, camera_guidance
    return model.sampling.steps, model.sampling.camera_guidance


def check_rows(model: Weights | None, samplings: Iterable[Sampling]) -> None:
    """That weights can be sampled in all these ways.

    Raises:
        InvalidValue: a student was not made for one of them.
    """
    for sampling in samplings:
        check_sampling(sampling, None if model is None else model.distilled)


def student_entry(model: Weights | None) -> dict[str, Any]:
    """Of a student, what the entry 'weights' of results says besides, JSON-able: what it was made for."""
    if model is None or model.distilled is None:
        return {}
    return {"distilled": config_to_json(model.distilled) | {"said": model.distilled.said}}


def student_lines(results: Mapping[str, Any]) -> list[str]:
    """Lines of a page that say so; none of a model that is no student."""
    distilled = results["weights"].get("distilled")
    if distilled is None:
        return []
    return ["", f"The weights are a student, sampled without guidance: {distilled['said']}."]
