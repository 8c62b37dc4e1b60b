"""``export features``: a folder of clip features out of a training run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from camctrl_jax.checkpoints.clip_features import (
    StoredClipFeatures,
    open_clip_features,
    save_clip_features,
)
from camctrl_jax.export.weights import without_local


def export_features(
    out: Path, *, checkpoint: str, facts: Mapping[str, Any] | None = None, card: str | None = None
) -> Path:
    """Write a folder of clip features.

    Args:
        out: the folder; must not exist, or be empty.
        checkpoint: run of ``configs/features.py``, or another such folder.
        facts: JSON-able facts to add (compute, figures, licence, ...).
        card: Markdown; None writes one from the facts.

    Raises:
        WeightsError: there are no clip features, or ``out`` is in use.
    """
    opened = open_clip_features(checkpoint)
    gathered = dict(opened.facts)
    if "config" in gathered:
        gathered["config"] = without_local(gathered["config"])
    stored = replace(opened, facts=gathered | dict(facts or {}))
    return save_clip_features(out, stored, _card(stored) if card is None else card)


def _card(stored: StoredClipFeatures) -> str:
    return "\n".join(
        [
            "# Clip features",
            "",
            f"Trained with camctrl_jax: {stored.config.features} features of a clip, read by heads that tell",
            "its camera path, depth and share of moving pixels. Load it by this folder's path:",
            "`camctrl_jax.checkpoints.clip_features.load_clip_features`.",
            "",
            "```json",
            json.dumps(dict(stored.facts), indent=1, sort_keys=True),
            "```",
            "",
        ]
    )
