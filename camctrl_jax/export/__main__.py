"""Weights in and out: weights folders, diffusers folders in both directions; and clips out to 3-D.

  python -m camctrl_jax.export weights --checkpoint runs/stage1 --out my_weights
  python -m camctrl_jax.export from-diffusers --source Motif-Video-2B --out weights/motif_2b
  python -m camctrl_jax.export to-diffusers --checkpoint runs/stage1 --out my_model
  python -m camctrl_jax.export features --checkpoint runs/features --out my_features
  python -m camctrl_jax.export scene outputs/first --out outputs/first_scene

weights         what can be shared and loaded by name here: averages in bfloat16, configurations, a card
from-diffusers  a checkpoint of the transformer and the autoencoder in a diffusers folder, bit for bit
to-diffusers    a folder of stock diffusers components for PyTorch, with the camera layer and what runs it
features        the network that a Frechet distance between sets of worlds is taken with, at most 2 MB
scene           a clip with cameras as points: PLY, GLB, a COLMAP project and transforms.json

Every result but the last two is a weights spec: pass it to --checkpoint, --vae or --config.init_from. Nothing
is ever overwritten. Options: python -m camctrl_jax.export COMMAND --help
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from camctrl_jax.errors import InvalidValue, exit_status, file_failures
from camctrl_jax.export.scene_options import SCENE, add_scene_arguments
from camctrl_jax.files.json_file import read_json


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; expected failures end with one message on standard error and exit code 1."""
    values = vars(_parse(argv))
    command = values.pop("command")
    return exit_status(lambda: command(**values))


# Each imports what does the work only once the command line is read, so that --help answers at once.


def _weights(
    out: Path,
    facts: Path | None,
    evaluation: Path | None,
    card: Path | None,
    text_guidance: float | None,
    camera_guidance: float | None,
    **sources: Any,
) -> None:
    from camctrl_jax.export import weights

    guidance = {"text_guidance": text_guidance, "camera_guidance": camera_guidance}
    folder = weights.export_weights(
        out,
        sampling={name: value for name, value in guidance.items() if value is not None},
        facts=None if facts is None else read_json(facts),
        evaluation=None if evaluation is None else read_json(evaluation),
        card=None if card is None else _read_text(card),
        **sources,
    )
    _list(sorted(folder.iterdir()))


def _from_diffusers(source: Path, out: Path, variant: str | None) -> None:
    from camctrl_jax.export import from_diffusers

    _silence_writers()
    lines, notes = from_diffusers.import_diffusers(source, out, variant)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    for line in lines:
        print(line)
    print(f"checkpoint: {out}")


def _silence_writers() -> None:
    """A failed write is said once: Orbax's many writers would each print a traceback, then and at the end."""
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    print_it = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            print_it(unraisable)

    sys.unraisablehook = hook


def _to_diffusers(out: Path, no_vae: bool, raw: bool, dtype: str, **sources: Any) -> None:
    from camctrl_jax.export import to_diffusers

    folder, notes = to_diffusers.export_diffusers(
        out, with_vae=not no_vae, ema=not raw, dtype=None if dtype == "stored" else dtype, **sources
    )
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    _list(sorted(path for path in folder.rglob("*") if path.is_file()))


def _features(out: Path, checkpoint: str, facts: Path | None, card: Path | None) -> None:
    from camctrl_jax.export import features

    folder = features.export_features(
        out,
        checkpoint=checkpoint,
        facts=None if facts is None else read_json(facts),
        card=None if card is None else _read_text(card),
    )
    _list(sorted(folder.iterdir()))


def _scene(**values: Any) -> None:
    from camctrl_jax.camera.reading import take_reading
    from camctrl_jax.export import scene
    from camctrl_jax.reconstruction.dense_depth import SweepSettings

    sweep = ("planes", "views", "agree", "tolerance", "least_angle", "near", "far")
    settings = SweepSettings(**{name: values.pop(name) for name in sweep})
    reading = take_reading(values)
    out = values["out"]
    values["formats"] = tuple(dict.fromkeys(values["formats"]))
    report = scene.export_scene(scene.SceneRequest(reading=reading, settings=settings, **values))
    covered = f", {100 * report['coverage']:.0f} % of the pixels" if "coverage" in report else ""
    print(f"{report['points']} points{covered}, {report['seconds']} s")
    _list(sorted(path for path in out.iterdir() if path.is_file()))


def _read_text(path: Path) -> str:
    try:
        with file_failures(path, "read"):
            return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidValue(f"{path} is not UTF-8 text: {error}.") from error


def _list(files: Sequence[Path]) -> None:
    for path in files:
        print(f"{path.stat().st_size / 1e6:10.2f} MB  {path}")


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
    _features_arguments(commands)
    add_scene_arguments(_command(commands, "scene", _scene, "a clip with cameras as points", SCENE))
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
        _weights,
        "a weights folder",
        """Make a weights folder out of training runs: what can be shipped, shared and loaded by name.

  python -m camctrl_jax.export weights --checkpoint runs/stage1 --out my_weights

The folder holds the moving averages of the newest checkpoints in bfloat16 (vectors in float32), in files
below 16 MB, with every configuration that is needed to load them and a model card.

A student can be stored as its difference from its teacher, about half a byte for each weight:

  python -m camctrl_jax.export weights --checkpoint runs/flow_map --delta-of default --out my_student

Its autoencoder is then the teacher's, whose folder has to stay where it is beside it.

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
    add(
        "--delta-of",
        metavar="SPEC",
        help="a student's teacher, a weights folder: store the student as its difference from that",
    )
    add("--out", type=Path, required=True, metavar="DIR", help="the folder to make")
    for kind in ("text", "camera"):
        add(
            f"--{kind}-guidance",
            type=float,
            metavar="W",
            help="default weight to store (default: the run's; a student holds its own and takes none)",
        )
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
        _from_diffusers,
        "a checkpoint from a diffusers folder",
        """Import the transformer and the autoencoder of a diffusers folder (Motif-Video-2B, Wan 2.1 VAE).

  python -m camctrl_jax.export from-diffusers --source Motif-Video-2B --out weights/motif_2b
  python -m camctrl_jax.train --config=configs/stage1.py:motif_2b --config.init_from=weights/motif_2b ...

Sizes come from the config.json of each component. Every tensor keeps its bits and its dtype (bfloat16 or
float32); missing, unknown and misshaped tensors, NaN and infinity are refused by name. Pickles are never
opened. Where a component holds its weights several times, the full ones are read, else the only variant in
float32, else the only one in bfloat16; --variant names another. One shard or several makes no difference.
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
    add("--variant", metavar="NAME", help="which of several weights, e.g. bf16 (default: the full ones)")


def _to_diffusers_arguments(commands: Any) -> None:
    add = _command(
        commands,
        "to-diffusers",
        _to_diffusers,
        "a diffusers folder for PyTorch",
        """Write a model as stock diffusers components, with its camera layer and what runs it in PyTorch.

  python -m camctrl_jax.export to-diffusers --checkpoint runs/stage1 --out my_model --dtype bfloat16
  python my_model/camera_pipeline.py --help

transformer/ and vae/ are strict checkpoints of MotifVideoTransformer3DModel and AutoencoderKLWan; camera/
holds the camera layer and its convention, text/ the empty prompt, scheduler/ the timestep shift.
model_index.json is what DiffusionPipeline.from_pretrained takes of it (docs/pytorch.md).

A student's steps are in sampling.json, and camera_pipeline.py takes no other ones and no guidance. A flow map
is refused: it is told the time it jumps to, an input that the stock class does not have.""",
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


def _features_arguments(commands: Any) -> None:
    add = _command(
        commands,
        "features",
        _features,
        "a folder of clip features",
        """Make a folder of clip features out of a run of configs/features.py.

  python -m camctrl_jax.export features --checkpoint runs/features --out my_features

The folder holds the moving average of the newest checkpoint (matrices in float16, vectors in float32), the
configuration it was trained with, and a card. The same run gives the same bytes.""",
    )
    add("--checkpoint", required=True, metavar="SPEC", help="run of configs/features.py, or such a folder")
    add("--out", type=Path, required=True, metavar="DIR", help="the folder to make")
    add("--facts", type=Path, metavar="FILE", help="JSON object of further facts (compute, licence, ...)")
    add(
        "--card",
        type=Path,
        metavar="FILE",
        help="Markdown to use as the card in place of the written one",
    )


if __name__ == "__main__":
    sys.exit(main())
