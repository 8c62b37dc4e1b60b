"""Generate a video along a camera path: from a prompt, or from a first image and a prompt.

  python -m camctrl_jax.generate --image room.jpg --prompt "a quiet room" \\
      --camera "dolly in 1 m, then pan left 30 deg" --out outputs/room

What the camera does (--camera) is one of
  a pose file      RealEstate10K txt, COLMAP, transforms.json, TUM, ... (see python -m camctrl_jax.camera)
  a preset         dolly_in, orbit_left, ...  (python -m camctrl_jax.camera preset --list)
  a sentence       "dolly in 1.5 m, then pan left 40 deg while rising 0.3 m"
  none             the model is told nothing about the camera
A pose file's whole path is spread over the clip; --range takes a part of it, --pace own keeps its speed.

Where it starts
  --image FILE     a picture, or the first frame of a video, cropped and resized to the model's size
  --worlds-seed N  first frame, caption and path of procedural world N (held-out ones: 1000000 and above);
                   the true render of the same path is written beside the result
  neither          from the prompt alone

What comes out, in --out
  video.mp4        the clip
  trajectory.png   the camera path
  frames.png       some of its frames in a row
  generation.json  everything that made it: weights, prompt, path as numbers, seed, guidance, versions
  with --worlds-seed also truth.mp4 and comparison.mp4

Many clips, one after the other
  --script FILE    a tour: start, seed, steps and a list of clips in YAML (docs/generating.md). --out gets
                   the exploration, which Python goes on with, and one video of all clips. The same
                   command again takes up a tour that was stopped.

The same command gives the same video on the same machine; --seed changes it. On a laptop, --steps 12 is a
good first look. Guidance above 1 follows the prompt or the camera more strongly, at more work per step.
A student, distilled for few steps with guidance folded in, is sampled as its weights say and takes no other.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from camctrl_jax.errors import InvalidValue, exit_status
from camctrl_jax.mesh_option import add_mesh_option
from camctrl_jax.pose_options import add_playing_options, add_reading_options

# Options that go beside --script.
BESIDE_SCRIPT = ("out", "checkpoint", "vae", "float32", "mesh")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; expected failures end with one message on standard error and exit code 1."""
    values = _parse(argv)
    return exit_status(lambda: _generate(values))


def _generate(values: dict[str, Any]) -> None:
    # Only now, so that --help answers at once.
    from camctrl_jax.camera.playing import take_playing
    from camctrl_jax.camera.reading import take_reading
    from camctrl_jax.generate import command
    from camctrl_jax.generate.request import Request

    script = values.pop("script")
    if script is not None:
        from camctrl_jax.generate.tour import run_script

        _check_beside_script(values)
        chosen = {name: values[name] for name in BESIDE_SCRIPT}
        _tell(run_script(script, **chosen))
        return
    reading = take_reading(values)
    playing = take_playing(values, own_pace=values.pop("pace") == "own")
    request = Request(**values, reading=reading, playing=playing)
    _tell(command.run(request))


def _tell(files: Mapping[str, Path]) -> None:
    for name, path in files.items():
        print(f"{name:12} {path}")


def _check_beside_script(values: dict[str, Any]) -> None:
    """Refuse options that a script says itself."""
    usual = vars(_parser().parse_args(["--out", "."]))
    given = [name for name in values if name not in BESIDE_SCRIPT and values[name] != usual[name]]
    if given:
        option = {"source_format": "from", "part": "range"}.get(given[0], given[0]).replace("_", "-")
        raise InvalidValue(
            f"--{option} beside --script: the script says that itself, for all clips or for each; only "
            f"{', '.join('--' + name for name in BESIDE_SCRIPT)} go beside it."
        )


def _parse(argv: Sequence[str] | None) -> dict[str, Any]:
    values = vars(_parser().parse_args(argv))
    if values["intrinsics"] is not None:
        values["intrinsics"] = tuple(values["intrinsics"])
    return values


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m camctrl_jax.generate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_scene(parser)
    _add_sampling(parser)
    _add_clip(parser)
    return parser


def _add_scene(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="folder for the results; created if needed")
    add("--prompt", help="what is in the scene")
    add("--camera", metavar="FILE|PRESET|WORDS", help="the camera path, see above")
    add("--image", type=Path, metavar="FILE", help="first frame: a picture, or a video's first frame")
    add(
        "--worlds-seed",
        type=int,
        metavar="N",
        help="start from procedural world N and compare with its true render",
    )
    add("--script", type=Path, metavar="FILE", help="a tour of many clips in YAML, see above")
    weights = parser.add_argument_group("weights")
    add = weights.add_argument
    add(
        "--checkpoint",
        default="default",
        metavar="SPEC",
        help="'default' or 'student' (in the package), a run directory, or a weights folder",
    )
    add("--vae", metavar="SPEC", help="another autoencoder than the one the checkpoint was trained with")
    add("--float32", action="store_true", help="compute in float32 on an accelerator too")
    add_mesh_option(add)


def _add_sampling(parser: argparse.ArgumentParser) -> None:
    sampling = parser.add_argument_group("sampling")
    add = sampling.add_argument
    add(
        "--steps",
        type=int,
        help="Euler steps (default: as the weights say, 32 unless they are a student; 12 for a quick look)",
    )
    add("--seed", type=int, default=0, help="of the noise (default 0)")
    add(
        "--text-guidance",
        type=float,
        metavar="W",
        help="weight of the prompt; 1 is none (default: the model's)",
    )
    add(
        "--camera-guidance",
        type=float,
        metavar="W",
        help="weight of the camera; 1 is none (default: the model's)",
    )
    add(
        "--guidance",
        choices=("eq3", "cfgp"),
        default="eq3",
        help="eq3: joint guidance; cfgp: CFG', weighs the camera without text too (one evaluation more)",
    )
    add(
        "--camera-guidance-without-text",
        type=float,
        metavar="W",
        help="first camera weight of cfgp (default: --camera-guidance)",
    )
    add(
        "--history-guidance",
        type=float,
        default=1.0,
        metavar="W",
        help="weight of the first frame against none; 1 is none (default), 1.5 holds on to it more (one "
        "evaluation more), above 3 motion freezes",
    )
    add("--shift", type=float, help="timestep shift (default: as in training)")


def _add_clip(parser: argparse.ArgumentParser) -> None:
    clip = parser.add_argument_group("the clip (default: as the model was trained)")
    add = clip.add_argument
    add("--frames", type=int, help="4k+1")
    add("--fps", type=float, help="frames per second of the video and of spoken speeds")
    add("--height", type=int, help="pixels, a multiple of 16")
    add("--width", type=int, help="pixels, a multiple of 16")
    recorded = parser.add_argument_group("a pose file as --camera")
    add = recorded.add_argument
    add_reading_options(add)
    add_playing_options(add)
    add(
        "--pace",
        choices=("fit", "own"),
        default="fit",
        help="fit: the whole path is spread over the clip (default); own: the path keeps its speed, the clip "
        "takes its beginning, and the camera stands still where the path is shorter",
    )
    add(
        "--poses-of",
        choices=("auto", "shown", "stored"),
        default="auto",
        help="whether its poses belong to an --image that is turned or mirrored as shown or as stored "
        "(default auto: stored if the pose file has the size of the stored picture and not of the shown one)",
    )
    lens = parser.add_argument_group("the camera in detail")
    add = lens.add_argument
    add(
        "--camera-scale",
        type=float,
        default=1.0,
        metavar="F",
        help="multiply the path's translations, e.g. to metres for a file without a unit",
    )
    add(
        "--intrinsics",
        type=float,
        nargs=4,
        metavar=("FX", "FY", "CX", "CY"),
        help="of the image as it is shown, as fractions fx/W fy/H cx/W cy/H (default: the pose file's; else "
        "53 degrees high)",
    )


if __name__ == "__main__":
    sys.exit(main())
