"""Weights in and out: weights folders, and diffusers folders in both directions.

  python -m camctrl_jax.export weights --checkpoint runs/stage1 --out my_weights
  python -m camctrl_jax.export from-diffusers --source Motif-Video-2B --out weights/motif_2b
  python -m camctrl_jax.export to-diffusers --checkpoint runs/stage1 --out my_model

weights         what can be shared and loaded by name here: averages in bfloat16, configurations, a card
from-diffusers  a checkpoint of the transformer and the autoencoder in a diffusers folder, bit for bit
to-diffusers    a folder of stock diffusers components for PyTorch, with the camera layer and what runs it

Every result is a weights spec: pass it to --checkpoint, --vae or --config.init_from. Nothing is ever
overwritten. Options: python -m camctrl_jax.export COMMAND --help
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
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
    from camctrl_jax.data.safetensors import SafetensorsError
    from camctrl_jax.interop.pretrained import WeightsError
    from camctrl_jax.training.checkpoint import CheckpointError

    try:
        files = options.command(options)
    except (ExportError, WeightsError, SafetensorsError, CheckpointError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for path in files:
        print(f"{path.stat().st_size / 1e6:10.2f} MB  {path}")
    return 0


def _weights_command(options: argparse.Namespace) -> list[Path]:
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
    return sorted(folder.iterdir())


def _from_diffusers_command(options: argparse.Namespace) -> list[Path]:
    for line in import_diffusers(options.source, options.out):
        print(line)
    print(f"checkpoint: {options.out}")
    return []


def _to_diffusers_command(options: argparse.Namespace) -> list[Path]:
    folder, notes = export_diffusers(
        options.out,
        checkpoint=options.checkpoint,
        vae=options.vae,
        with_vae=not options.no_vae,
        ema=not options.raw,
        dtype=None if options.dtype == "stored" else options.dtype,
    )
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    return sorted(path for path in folder.rglob("*") if path.is_file())


def import_diffusers(source: str | os.PathLike, out: str | os.PathLike) -> list[str]:
    """Make a checkpoint of the transformer and the autoencoder in a diffusers folder, every bit kept.

    Parameters are read one at a time onto all devices, split as in training, so that neither the host nor a
    device holds the model twice.

    Args:
        source: folder with ``transformer/`` or ``vae/`` or both.
        out: the checkpoint, a directory that must not exist or be empty.

    Returns:
        A line for people about each network.

    Raises:
        WeightsError, SafetensorsError, CheckpointError: weights that are absent, damaged or of another model,
            or a full disk. Nothing is left behind.
    """
    from camctrl_jax.camera.formats.atomic import folder_when_complete, is_in_use
    from camctrl_jax.interop.diffusers_import import find_diffusers_folder
    from camctrl_jax.interop.pretrained import WeightsError
    from camctrl_jax.parallel.mesh import MeshConfig, make_mesh
    from camctrl_jax.parallel.parameters import place_on
    from camctrl_jax.training.architecture import imported_architecture
    from camctrl_jax.training.checkpoint import save_networks

    source, out = Path(source), Path(out)
    found = find_diffusers_folder(source) if source.is_dir() else None
    if found is None:
        raise WeightsError(
            f"{source} is no diffusers folder: it has neither transformer/ nor vae/ with a config.json. "
            f"It was looked up from {Path.cwd()}."
        )
    if is_in_use(out):
        raise WeightsError(f"{out} already exists and is not an empty folder: choose another --out.")
    mmdit = None if found.transformer is None else found.transformer_config()
    vae = None if found.vae is None else found.vae_config()
    sampling, clip = found.sampling(), None
    config: dict[str, Any] = {"imported": {"folder": source.resolve().name, "shift": found.shift()}}
    if sampling is not None:
        stored = asdict(sampling)
        config["sample"] = {name: stored.pop(name) for name in ("text_guidance", "camera_guidance")}
        clip = stored
    config["architecture"] = imported_architecture(mmdit, vae, clip)
    place = place_on(make_mesh(MeshConfig(data=1, fsdp=-1)))
    networks = {}
    if mmdit is not None:
        networks["mmdit"] = found.transformer_params(place)
    if vae is not None:
        networks["vae"] = found.vae_params(place)
    with folder_when_complete(out) as partial:
        save_networks(partial, networks, config)
    return [f"{name}: {_summary(params)}" for name, params in networks.items()]


def _summary(params: Mapping[str, Any]) -> str:
    import jax

    leaves = jax.tree.leaves(params)
    dtypes = ", ".join(sorted({str(leaf.dtype) for leaf in leaves}))
    return f"{len(leaves)} parameters, {sum(leaf.size for leaf in leaves) / 1e6:,.1f}M values, {dtypes}"


def export_diffusers(
    out: str | os.PathLike,
    *,
    checkpoint: str,
    vae: str | None = None,
    with_vae: bool = True,
    ema: bool = True,
    dtype: Any = None,
) -> tuple[Path, list[str]]:
    """Write a folder that stock diffusers classes load, with the camera layer and what runs it in PyTorch.

    Args:
        out: the folder; must not exist, or be empty.
        checkpoint: weights spec of the transformer.
        vae: weights spec of the autoencoder; by default the one the transformer was trained with.
        with_vae: False leaves the autoencoder out: name the base model's when running it.
        ema: of a training run's transformer, the moving average rather than the raw parameters.
        dtype: 'bfloat16' or 'float32'; None keeps what is stored.

    Returns:
        The folder, and what the user should know, one line each.

    Raises:
        WeightsError, CheckpointError: weights that cannot be found or used.
    """
    import ml_dtypes
    import numpy as np

    from camctrl_jax.camera.formats.atomic import is_in_use
    from camctrl_jax.interop.diffusers_export import Exported, write_diffusers_folder
    from camctrl_jax.interop.pretrained import WeightsError, open_weights

    model = open_weights(checkpoint)
    if model.mmdit_config is None:
        raise WeightsError(f"{checkpoint} holds no transformer: there is nothing to run in PyTorch.")
    if is_in_use(Path(out)):
        raise WeightsError(f"{out} already exists and is not an empty folder: choose another --out.")
    if not ema and (model.kind != "run" or "imported" in model.facts["config"]):
        raise WeightsError(f"{checkpoint} holds one set of parameters only: leave --raw out.")
    notes: list[str] = []
    autoencoder = _autoencoder_of(model, vae)
    if with_vae and autoencoder is None:
        notes.append("vae/ is left out: the checkpoint does not say which autoencoder it belongs to (--vae).")
    written = autoencoder if with_vae else None
    exported = Exported(
        transformer=(model.mmdit_config, model.mmdit_params(dtype=None, ema=ema)),
        vae=None
        if written is None
        # Its average always: the transformer was trained on that, and so were the latent statistics measured.
        else (written.vae_config, written.vae_params(dtype=None)),
        sampling=model.sampling,
        shift=_shift_of(model, autoencoder, notes),
        null_text=_null_text_of(model, notes),
        readme=_torch_card(Path(out).name, model, written is not None),
    )
    types = {None: None, "bfloat16": ml_dtypes.bfloat16, "float32": np.float32}
    return write_diffusers_folder(Path(out), exported, dtype=types[dtype]), notes


def _autoencoder_of(model: Weights, vae: str | None) -> Weights | None:
    """The autoencoder that belongs to a transformer (or the one named), or None if nothing says which."""
    from camctrl_jax.interop.pretrained import WeightsError, open_weights

    spec = vae or model.vae_spec
    if spec in (None, "random"):
        return None
    autoencoder = model if vae is None and model.vae_config is not None else open_weights(spec)
    if autoencoder.vae_config is None and autoencoder.vae_spec:
        autoencoder = open_weights(autoencoder.vae_spec)  # a run of a transformer stands for its autoencoder
    if autoencoder.vae_config is None:
        raise WeightsError(f"{spec} holds no autoencoder: name one that does with --vae, or --no-vae.")
    theirs, ours = autoencoder.vae_config.z_dim, model.mmdit_config.out_channels
    if theirs != ours:
        raise WeightsError(
            f"The transformer of {model.spec} makes {ours} latent channels, the autoencoder of {spec} has "
            f"{theirs}: name another --vae."
        )
    return autoencoder


def _shift_of(model: Weights, autoencoder: Weights | None, notes: list[str]) -> float:
    """The scheduler's timestep shift at the clips a model was trained on, or that of where it came from."""
    from math import prod

    from camctrl_jax.diffusion.flow import shift_for_tokens
    from camctrl_jax.interop.diffusers_import import find_diffusers_folder

    clip = model.sampling
    if clip is not None and clip.shift is not None:
        return clip.shift
    if clip is not None and autoencoder is not None:
        latents = autoencoder.vae_config.latent_shape(clip.frames, clip.height, clip.width)
        return shift_for_tokens(prod(latents[:3]) // prod(model.mmdit_config.patch))
    if model.kind == "diffusers":
        shift = find_diffusers_folder(model.path).shift()
    else:
        shift = model.facts.get("config", {}).get("imported", {}).get("shift")
    if shift is None:
        notes.append("the scheduler's shift is 1: nothing is known of the clips; set it when sampling.")
    return 1.0 if shift is None else shift


def _null_text_of(model: Weights, notes: list[str]) -> Any:
    """Embedding and mask of the empty prompt, or None with a note that says why."""
    from camctrl_jax.data.text import embedder_from_settings
    from camctrl_jax.interop.diffusers_import import find_diffusers_folder

    reason = "the checkpoint does not say how its text was embedded"
    if model.kind == "diffusers":
        found = find_diffusers_folder(model.path).null_text()
        if found is not None:
            return found
    elif model.text is not None:
        try:
            return embedder_from_settings(model.text).embed([""])
        except (OSError, ValueError) as error:
            reason = str(error)
    notes.append(f"text/ is left out: {reason.rstrip('.')}.")
    return None


def _torch_card(title: str, model: Weights, has_vae: bool) -> str:
    """README of an exported diffusers folder."""
    vae = "" if has_vae else " --vae BASE_MODEL_FOLDER"
    camera = (
        "`camera/` holds the camera layer, which the stock class does not have, and its convention:\n"
        "Pluecker maps (moment, direction) of frames 0, 4, 8, ..., OpenCV axes, metres, relative to the\n"
        "first frame of the first clip."
        if model.mmdit_config.camera is not None
        else "The model has no camera layer: it is a base model."
    )
    return f"""# {title}

Weights of camctrl_jax for PyTorch. `transformer/`{" and `vae/`" if has_vae else ""} load in the stock
classes of diffusers:

```python
from diffusers import MotifVideoTransformer3DModel
transformer = MotifVideoTransformer3DModel.from_pretrained("{title}", subfolder="transformer")
```

{camera}

`camera_pipeline.py` stands alone (torch, diffusers, safetensors, numpy). It makes clips along a camera path,
goes on from a clip, and weighs text and camera:

```
python camera_pipeline.py --help
python camera_pipeline.py --folder .{vae} --image first.png --poses poses.npy \\
    --intrinsics intrinsics.npy --out clip.mp4
```
"""


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
    if weights.kind != "run" or "imported" in weights.facts["config"]:
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

    from camctrl_jax.data.safetensors import flatten
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
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _weights_arguments(commands)
    _from_diffusers_arguments(commands)
    _to_diffusers_arguments(commands)
    return parser.parse_args(argv)


def _command(commands: Any, name: str, function: Any, summary: str, description: str) -> Any:
    """A subcommand's parser, and its ``add_argument``."""
    parser = commands.add_parser(
        name,
        help=summary,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(command=function)
    return parser.add_argument


def _weights_arguments(commands: Any) -> None:
    add = _command(
        commands,
        "weights",
        _weights_command,
        "a weights folder",
        """Make a weights folder out of training runs: what can be shipped, shared and loaded by name.

  python -m camctrl_jax.export weights --checkpoint runs/stage1 --out my_weights

The folder holds the moving averages of the newest checkpoints in bfloat16 (vectors in float32), in files
below 16 MB, with every configuration that is needed to load them and a model card.

The autoencoder is the one that the run was trained with, unless --vae names another. --evaluation takes the
results.json of `python -m camctrl_jax.evaluate` and puts its figures into the facts and the card.""",
    )
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


def _from_diffusers_arguments(commands: Any) -> None:
    add = _command(
        commands,
        "from-diffusers",
        _from_diffusers_command,
        "a checkpoint from a diffusers folder",
        """Import the transformer and the autoencoder of a diffusers folder (Motif-Video-2B, Wan 2.1 VAE).

  python -m camctrl_jax.export from-diffusers --source Motif-Video-2B --out weights/motif_2b
  python -m camctrl_jax.train --config=configs/stage1.py:motif_2b --config.init_from=weights/motif_2b ...

Sizes come from the config.json of each component. Every tensor keeps its bits and its dtype (bfloat16 or
float32); missing, unknown and misshaped tensors are refused by name. Pickles are never opened.
A diffusers folder is itself a weights spec: training can start from it without this step.""",
    )
    add(
        "--source",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder with transformer/ or vae/ or both, or a component's own folder",
    )
    add("--out", type=Path, required=True, metavar="DIR", help="the checkpoint to make")


def _to_diffusers_arguments(commands: Any) -> None:
    add = _command(
        commands,
        "to-diffusers",
        _to_diffusers_command,
        "a diffusers folder for PyTorch",
        """Write a model as stock diffusers components, with its camera layer and what runs it in PyTorch.

  python -m camctrl_jax.export to-diffusers --checkpoint runs/stage1 --out my_model --dtype bfloat16
  python my_model/camera_pipeline.py --help

transformer/ and vae/ are strict checkpoints of MotifVideoTransformer3DModel and AutoencoderKLWan; camera/
holds the camera layer and its convention, text/ the empty prompt, scheduler/ the timestep shift.""",
    )
    add("--checkpoint", required=True, metavar="SPEC", help="any weights spec with a transformer")
    add("--out", type=Path, required=True, metavar="DIR", help="the folder to make")
    add("--vae", metavar="SPEC", help="autoencoder (default: the one the checkpoint was trained with)")
    add("--no-vae", action="store_true", help="leave the autoencoder out, e.g. where the base has it")
    add("--raw", action="store_true", help="a run's raw parameters (default: their moving average)")
    add(
        "--dtype",
        choices=("stored", "bfloat16", "float32"),
        default="stored",
        help="of transformer and autoencoder (default: as stored; training runs hold float32)",
    )


if __name__ == "__main__":
    sys.exit(main())
