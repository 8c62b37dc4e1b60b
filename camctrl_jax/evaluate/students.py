"""What results say of weights that are a student's, and on which page it stands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from camctrl_jax.checkpoints.weights import Weights
from camctrl_jax.interop.described import config_to_json


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
