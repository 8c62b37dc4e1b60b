"""``export weights``: a weights folder out of training runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from camctrl_jax.checkpoints.pipelines import open_model
from camctrl_jax.checkpoints.runs import latest_step
from camctrl_jax.checkpoints.weights import (
    Weights,
    WeightsError,
    as_base,
    cause_of_non_finite,
    load_vae,
    open_weights,
    save_weights_folder,
)
from camctrl_jax.errors import InvalidValue
from camctrl_jax.export.cards import model_card
from camctrl_jax.interop.described import Distilled
from camctrl_jax.interop.finite import RUN_CAUSE
from camctrl_jax.models.fingerprint import fingerprint_of_parameters

# Entries of a run's configuration that tell where things lay on the machine it ran on, or how it was logged.
_LOCAL_KEYS = frozenset(
    {
        "init_from",
        "workdir",
        "cache",
        "workers",
        "datasets",
        "source",
        "unlabelled",
        "architecture",
        "sample",
        "held_out",
        "profile",
        "log_every",
        "checkpoint_every",
        "keep_checkpoints",
        "sample_every",
        "vae",
        "mesh",
    }
)


def export_weights(
    out: Path,
    *,
    checkpoint: str,
    vae: str | None = None,
    delta_of: str | None = None,
    sampling: Mapping[str, float] | None = None,
    facts: Mapping[str, Any] | None = None,
    evaluation: Mapping[str, Any] | None = None,
    card: str | None = None,
    title: str | None = None,
) -> Path:
    """Write a weights folder from runs (or from other weights folders).

    Args:
        out: the folder; must not exist, or be empty.
        checkpoint: weights spec of the transformer, or of an autoencoder alone.
        vae: weights spec of the autoencoder; by default the one the transformer was trained with.
        delta_of: weights spec of a student's teacher, a weights folder: the student's transformer is stored
            as a difference from it, and the autoencoder is the teacher's; None stores both networks.
        sampling: defaults of sampling (``text_guidance``, ``camera_guidance``) to store in place of the
            run's; of a student none can be stored.
        facts: JSON-able facts to add (seeds, compute, licence, ...).
        evaluation: what ``results.json`` of an evaluation holds.
        card: the model card, Markdown; None writes one from the facts.
        title: heading of the card that is written.

    Raises:
        WeightsError: weights that are absent, do not fit their configuration, or a ``vae`` beside an
            autoencoder alone; a ``delta_of`` that is not the student's teacher, or of another autoencoder.
        InvalidValue: guidance to store with a student.
    """
    base = None if delta_of is None else as_base(open_weights(delta_of))
    opened = open_weights(checkpoint)
    if opened.mmdit_config is None:
        if vae is not None:
            raise WeightsError(f"{checkpoint} is an autoencoder itself, and so is {vae}: leave --vae out.")
        model, autoencoder = None, opened
    else:
        model, autoencoder = open_model(checkpoint, vae)
        _check_guidance(sampling or {}, model.distilled)
    if base is not None:
        _check_taught(opened, autoencoder, base)
    gathered: dict[str, Any] = {}
    if base is None:
        gathered["autoencoder"] = training_facts(autoencoder, "autoencoder")
    if model is not None:
        gathered["transformer"] = training_facts(model, "transformer")
    gathered |= dict(facts or {})
    if evaluation is not None:
        gathered["evaluation"] = _portable(evaluation)
    defaults = None if model is None else replace(model.sampling, **(sampling or {}))
    distilled = None if model is None else model.distilled
    networks = {
        "vae": None if base is not None else (autoencoder.vae_config, autoencoder.vae_params()),
        "mmdit": None if model is None else (model.mmdit_config, model.mmdit_params()),
    }
    if card is None:
        card = model_card(title or out.name, networks, defaults, gathered, evaluation, distilled, delta_of)
    return save_weights_folder(
        out,
        **networks,
        text=None if model is None else model.text,
        sampling=defaults,
        facts=gathered,
        distilled=distilled,
        delta_of=base,
        card=card,
        causes={
            "vae": cause_of_non_finite(autoencoder),
            "mmdit": RUN_CAUSE if model is None else cause_of_non_finite(model),
        },
    )


def _check_guidance(sampling: Mapping[str, float], distilled: Distilled | None) -> None:
    """Refuse to store guidance with weights that hold it already."""
    given = [f"--{name.replace('_', '-')} {value:g}" for name, value in sampling.items()]
    if given and distilled is not None:
        raise InvalidValue(
            f"{', '.join(given)}: these weights are a student, sampled without guidance ({distilled.said}): "
            "there is none to store. Leave it out, or export the teacher."
        )


def _check_taught(student: Weights, autoencoder: Weights, teacher: Weights) -> None:
    """Refuse to store as a difference what is no student of these weights, or decodes with others."""
    remedy = "Name its teacher with --delta-of, or leave --delta-of out."
    if student.mmdit_config is None or student.distilled is None:
        raise WeightsError(
            f"{student.spec} is not a student: only those are stored as a difference from their teacher. "
            "Leave --delta-of out."
        )
    sizes = [replace(each.mmdit_config, target_time=False) for each in (student, teacher)]
    if sizes[0] != sizes[1]:
        differs = [
            f"{name} {getattr(sizes[0], name)!r} instead of {getattr(sizes[1], name)!r}"
            for name in (each.name for each in fields(sizes[0]))
            if getattr(sizes[0], name) != getattr(sizes[1], name)
        ]
        raise WeightsError(
            f"{student.spec} has other sizes than {teacher.spec}: {'; '.join(differs)}. {remedy}"
        )
    fingerprint = fingerprint_of_parameters(teacher.mmdit_params(dtype=None))
    if student.distilled.teacher_sha256 != fingerprint:
        raise WeightsError(
            f"{student.spec} is a student of the transformer "
            f"{student.distilled.teacher_sha256 or '(unknown)'}, and that of {teacher.spec} is "
            f"{fingerprint}. {remedy}"
        )
    own = load_vae(teacher.spec)
    if autoencoder.vae_config != own[0] or fingerprint_of_parameters(
        autoencoder.vae_params()
    ) != fingerprint_of_parameters(own[1]):
        raise WeightsError(
            f"The autoencoder of {autoencoder.spec} is not that of {teacher.spec}, which a difference takes: "
            "leave --delta-of out, so that it is stored."
        )


def training_facts(weights: Weights, part: str) -> dict[str, Any]:
    """How weights were trained, without what is particular to the machine.

    Args:
        weights: what was opened.
        part: "autoencoder" or "transformer"; of a weights folder, its own facts about it.
    """
    if weights.kind != "run" or "imported" in weights.facts["config"]:
        return dict(weights.facts.get(part, {}))
    return {"steps": latest_step(weights.path), "config": without_local(weights.facts["config"])}


def without_local(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a run without what was particular to its machine or its logs."""
    return {
        name: without_local(value) if isinstance(value, Mapping) else value
        for name, value in config.items()
        if name not in _LOCAL_KEYS and value is not None
    }


def _portable(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Results without paths of the machine and without the values of single worlds."""
    kept = {
        name: value
        for name, value in evaluation.items()
        if name in ("seeds", "clip", "versions", "seconds", "reconstruction", "camera")
    }
    if "reconstruction" in kept:
        kept["reconstruction"] = _on_average(kept["reconstruction"])
    if "camera" in kept:
        kept["camera"] = [_on_average(row) for row in kept["camera"]]
    return kept


def _on_average(scores: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in scores.items() if name != "per_world"}
