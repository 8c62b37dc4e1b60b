"""Make a weights folder out of training runs: what can be shipped, shared and loaded by name.

  python -m camctrl_jax.export weights --checkpoint runs/stage1 --out my_weights

The folder holds the moving averages of the newest checkpoints in bfloat16 (vectors in float32), in files
below 16 MB, with every configuration that is needed to load them and a model card. It is a weights spec: pass
it to --checkpoint, --vae or --config.init_from. Weights are never overwritten.

The autoencoder is the one that the run was trained with, unless --vae names another. --evaluation takes the
results.json of `python -m camctrl_jax.evaluate` and puts its figures into the facts and the card.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from camctrl_jax.interop.pretrained import Weights

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
        "log_every",
        "checkpoint_every",
        "keep_checkpoints",
        "sample_every",
        "vae",
        "mesh",
    }
)


class ExportError(Exception):
    """Weights that cannot be exported; the message says why and what to do instead."""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; expected failures end with one message on standard error and exit code 1."""
    options = _parse(argv)
    from camctrl_jax.interop.pretrained import WeightsError
    from camctrl_jax.training.checkpoint import CheckpointError

    try:
        folder = export_weights(
            options.out,
            checkpoint=options.checkpoint,
            vae=options.vae,
            text_guidance=options.text_guidance,
            camera_guidance=options.camera_guidance,
            facts=_read_json(options.facts),
            evaluation=_read_json(options.evaluation),
            card=None if options.card is None else options.card.read_text("utf-8"),
            title=options.title,
        )
    except (ExportError, WeightsError, CheckpointError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for path in sorted(folder.iterdir()):
        print(f"{path.stat().st_size / 1e6:8.2f} MB  {path}")
    return 0


def export_weights(
    out: Path,
    *,
    checkpoint: str,
    vae: str | None = None,
    text_guidance: float | None = None,
    camera_guidance: float | None = None,
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
        text_guidance, camera_guidance: sampling defaults to store in place of the run's.
        facts: JSON-able facts to add (seeds, compute, licence, ...).
        evaluation: what ``results.json`` of an evaluation holds.
        card: the model card, Markdown; None writes one from the facts.
        title: heading of the card that is written.

    Raises:
        WeightsError: weights that are absent or do not fit their configuration.
    """
    from camctrl_jax.interop.pretrained import open_weights, save_weights_folder
    from camctrl_jax.pipeline import open_model

    opened = open_weights(checkpoint)
    if opened.mmdit_config is None:
        model, autoencoder = None, opened
    else:
        model, autoencoder = open_model(checkpoint, vae)
    gathered: dict[str, Any] = {"autoencoder": training_facts(autoencoder, "autoencoder")}
    if model is not None:
        gathered["transformer"] = training_facts(model, "transformer")
    gathered |= dict(facts or {})
    if evaluation is not None:
        gathered["evaluation"] = _portable(evaluation)
    sampling = None
    if model is not None:
        guidance = {"text_guidance": text_guidance, "camera_guidance": camera_guidance}
        sampling = replace(
            model.sampling, **{name: value for name, value in guidance.items() if value is not None}
        )
    networks = {
        "vae": (autoencoder.vae_config, autoencoder.vae_params()),
        "mmdit": None if model is None else (model.mmdit_config, model.mmdit_params()),
    }
    if card is None:
        card = model_card(title or out.name, networks, sampling, gathered, evaluation)
    return save_weights_folder(
        out,
        **networks,
        text=None if model is None else model.text,
        sampling=sampling,
        facts=gathered,
        card=card,
    )


def training_facts(weights: Weights, part: str) -> dict[str, Any]:
    """How weights were trained, without what is particular to the machine.

    Args:
        weights: what was opened.
        part: "autoencoder" or "transformer"; of a weights folder, its own facts about it.
    """
    if not weights.is_run:
        return dict(weights.facts.get(part, {}))
    from camctrl_jax.training.checkpoint import latest_step

    return {"steps": latest_step(weights.path), "config": _without_local(weights.facts["config"])}


def _without_local(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _without_local(value) if isinstance(value, Mapping) else value
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


def model_card(
    title: str,
    networks: Mapping[str, Any],
    sampling: Any,
    facts: Mapping[str, Any],
    evaluation: Mapping[str, Any] | None,
) -> str:
    """A model card from what is known: what it is, how to use it, data, training, figures, limits."""
    import numpy as np

    from camctrl_jax.interop.safetensors import flatten
    from camctrl_jax.metrics.worlds_scores import markdown_report

    names = {
        "vae": "causal video autoencoder (4x in time, 8x in space)",
        "mmdit": "camera-controlled transformer",
    }
    parts = [
        f"* {names[stem]}: {sum(np.size(x) for x in flatten(network[1]).values()) / 1e6:.1f}M parameters"
        for stem, network in networks.items()
        if network is not None
    ]
    lines = [
        f"# {title}",
        "",
        "Weights of camctrl_jax, matrices in bfloat16, vectors in float32:",
        "",
        *parts,
        "",
    ]
    if sampling is not None:
        lines += [
            f"Trained on clips of {sampling.frames} frames at {sampling.fps:g} fps, "
            f"{sampling.height}x{sampling.width} pixels. Camera translations are metres.",
            "",
            "```",
            "python -m camctrl_jax.generate --checkpoint THIS_FOLDER --worlds-seed 1000000 \\",
            '    --camera "dolly in 1 m" --out outputs/first',
            "```",
            "",
        ]
    lines += ["## Training", ""]
    for part in ("autoencoder", "transformer"):
        if "config" in facts.get(part, {}):
            lines += [f"* {part}: {_training_line(facts[part])}"]
    lines += ["", "The complete configuration and all facts are in `model.json`.", ""]
    if evaluation is not None:
        lines += ["## Figures", "", markdown_report(evaluation), ""]
    extra = {key: value for key, value in facts.items() if isinstance(value, (str, int, float))}
    if extra:
        lines += ["## Facts", "", *(f"* {key}: {value}" for key, value in extra.items()), ""]
    return "\n".join(lines)


def _training_line(facts: Mapping[str, Any]) -> str:
    config = facts["config"]
    line = f"{facts['steps']} steps of batch {config['batch_size']}, seed {config['seed']}"
    data = config.get("data", {})
    if data.get("kind") == "worlds":
        first, end = data["worlds"]["seeds"]
        line += f", procedural worlds of seeds {first} to {end - 1}"
    return line


def _read_json(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    try:
        content = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ExportError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ExportError(f"{path} holds a {type(content).__name__}, expected a JSON object.")
    return content


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m camctrl_jax.export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(required=True, metavar="weights")
    weights = commands.add_parser(
        "weights",
        help="a weights folder; options: python -m camctrl_jax.export weights --help",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = weights.add_argument
    add(
        "--checkpoint",
        required=True,
        metavar="SPEC",
        help="run of the transformer, or of an autoencoder alone",
    )
    add(
        "--vae",
        metavar="SPEC",
        help="run of the autoencoder (default: the one the checkpoint was trained with)",
    )
    add("--out", type=Path, required=True, metavar="DIR", help="the folder to make")
    add("--text-guidance", type=float, metavar="W", help="default weight to store (default: the run's)")
    add("--camera-guidance", type=float, metavar="W", help="default weight to store (default: the run's)")
    add("--evaluation", type=Path, metavar="FILE", help="results.json of an evaluation of these weights")
    add("--facts", type=Path, metavar="FILE", help="JSON object of further facts (compute, licence, ...)")
    add(
        "--card",
        type=Path,
        metavar="FILE",
        help="Markdown to use as the model card in place of the written one",
    )
    add("--title", help="heading of the written card (default: the folder's name)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
