"""``python -m camctrl_jax.camera``: camera paths at the command line, without a model."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from camctrl_jax.camera.cameras import Cameras
from camctrl_jax.camera.formats import (
    FORMATS,
    Format,
    PoseFile,
    describe_file,
    existing_path,
    format_named,
    read_pose_file,
    save_cameras,
)
from camctrl_jax.camera.interpolation import EASINGS, flip_horizontal, resample
from camctrl_jax.camera.presets import PRESETS, preset, resolve_path

_DESCRIPTION = """\
Read, write, make, draw and describe camera paths.

  info     what a pose file holds: format, convention, length, rotation, field of view
  convert  from one pose format to another
  preset   make a path from a preset or a sentence
  preview  draw paths (pose files, presets, sentences) into one figure

Formats are recognised by content. Camera axes are OpenCV's (x right, y down, z forward) throughout; what
each format does differently is converted, and `info` says what that was.
"""

_EXAMPLES = """\
examples:
  python -m camctrl_jax.camera info clip.txt
  python -m camctrl_jax.camera info sparse/0 --json
  python -m camctrl_jax.camera convert clip.txt colmap_model --to colmap --image-size 720x1280
  python -m camctrl_jax.camera convert cameras.json#cam05 dolly.txt
  python -m camctrl_jax.camera preset --list
  python -m camctrl_jax.camera preset orbit_left --degrees 90 --distance 2.5 -o orbit.txt
  python -m camctrl_jax.camera preset "dolly in 1.5 m, then pan left 40 deg while rising 0.3 m" -o path.txt
  python -m camctrl_jax.camera preview orbit.txt spiral_in "truck left 1 m" -o paths.png
"""


def _image_size(text: str) -> tuple[int, int]:
    height, cross, width = text.lower().partition("x")
    if not (cross and height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHTxWIDTH, for example 720x1280")
    return int(height), int(width)


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of frames")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    formats = "\n".join(f"  {known.name:16} {known.summary}" for known in FORMATS)
    parser = argparse.ArgumentParser(
        prog="python -m camctrl_jax.camera",
        description=_DESCRIPTION,
        epilog=f"formats:\n{formats}\n\n{_EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, summary: str, examples: Sequence[str]) -> argparse.ArgumentParser:
        lines = "\n".join(f"  python -m camctrl_jax.camera {name} {example}" for example in examples)
        return commands.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog=f"examples:\n{lines}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def reading(subparser: argparse.ArgumentParser) -> None:
        names = [known.name for known in FORMATS]
        subparser.add_argument(
            "--from", dest="source_format", choices=names, help="default: detected by content"
        )
        subparser.add_argument(
            "--image-size",
            type=_image_size,
            metavar="HEIGHTxWIDTH",
            help="picture size, for formats with intrinsics in pixels that do not say it",
        )

    def writing(subparser: argparse.ArgumentParser) -> None:
        subparser.add_argument(
            "--to",
            dest="target_format",
            choices=[known.name for known in FORMATS],
            default="realestate10k",
            help="format to write (default: realestate10k)",
        )

    info = command(
        "info",
        "say what a pose file holds",
        ["clip.txt", "transforms.json --json", "cameras.json#cam05", "poses.npy --image-size 480x832"],
    )
    info.add_argument("file", help="pose file or folder; FILE#CAMERA picks one of several cameras")
    info.add_argument("--json", action="store_true", help="print JSON")
    reading(info)

    convert = command(
        "convert",
        "convert a pose file to another format",
        [
            "clip.txt clip.json --to transforms_json --image-size 720x1280",
            "sparse/0 clip.txt",
            "slam.txt clip.txt --scale 0.01 --metric --relative --frames 49",
        ],
    )
    convert.add_argument("file", help="pose file or folder; FILE#CAMERA picks one of several cameras")
    convert.add_argument("output", help="file to write; a folder for colmap, colmap_text and lingbot")
    reading(convert)
    writing(convert)
    convert.add_argument("--relative", action="store_true", help="make the first camera the origin")
    convert.add_argument("--scale", type=float, metavar="FACTOR", help="multiply all translations")
    convert.add_argument("--metric", action="store_true", help="state that the result is in metres")
    convert.add_argument("--frames", type=_positive, help="resample to this many frames")
    convert.add_argument("--reverse", action="store_true", help="travel the path backwards")
    convert.add_argument("--flip", action="store_true", help="mirror left and right, as for a flipped video")

    make = command(
        "preset",
        "make a path from a preset or a sentence",
        [
            "--list",
            "orbit_left --degrees 90 --distance 2.5 -o orbit.txt",
            '"dolly in 1.5 m, then pan left 40 deg while rising 0.3 m" -o path.txt',
            '"truck right 1 m with handheld, then hold 1 s" --frames 97 --fps 24 -o path.txt',
        ],
    )
    make.add_argument("path", nargs="?", help="name of a preset, or a sentence in quotes")
    make.add_argument(
        "--list", action="store_true", help="list the presets, their sentences and what others call them"
    )
    make.add_argument("-o", "--output", help="file to write; without it the path is only described")
    writing(make)
    make.add_argument("--frames", type=_positive, default=49, help="number of frames (default: 49)")
    make.add_argument("--fps", type=float, default=12.0, help="frames per second (default: 12)")
    make.add_argument("--metres", type=float, help="how far a preset moves")
    make.add_argument("--degrees", type=float, help="how far a preset turns")
    make.add_argument("--factor", type=float, help="how much a preset zooms")
    make.add_argument("--turns", type=float, help="how often a circle or spiral goes round")
    make.add_argument("--distance", type=float, help="metres to the subject of an orbit, swing or dolly zoom")
    make.add_argument("--radius", type=float, help="metres, of a circle or spiral")
    make.add_argument("--seed", type=int, help="which handheld shake")
    make.add_argument("--easing", choices=list(EASINGS), help="pace of a preset (default: smooth)")
    make.add_argument("--facing-subject", action="store_true", help="keep facing the subject of a preset")
    make.add_argument(
        "--image-size", type=_image_size, metavar="HEIGHTxWIDTH", help="for --to a format that stores pixels"
    )

    preview = command(
        "preview",
        "draw paths into one figure",
        ["clip.txt -o clip.png", 'orbit_left spiral_in "dolly in 2 m with handheld" -o paths.png'],
    )
    preview.add_argument("paths", nargs="+", help="pose files, presets or sentences")
    preview.add_argument("-o", "--output", required=True, help="figure to write: .png, .pdf or .svg")
    preview.add_argument(
        "--frames", type=_positive, default=49, help="frames of presets and sentences (default: 49)"
    )
    preview.add_argument("--fps", type=float, default=12.0, help="frames per second (default: 12)")
    reading(preview)
    return parser


def _describe(description: dict[str, Any]) -> str:
    unit = description["unit"]
    horizontal, vertical = description["fov_deg"]
    fx, fy, cx, cy = description["intrinsics"]
    rows = [
        ("format", f"{description['format']} ({description['summary']})"),
        ("convention", description["convention"]),
        ("frames", description["frames"]),
        (
            "path length",
            f"{description['path_length']:.4g} {unit}, {description['net_distance']:.4g} {unit} end to end",
        ),
        (
            "rotation",
            f"{description['total_rotation_deg']:.4g} deg in all, {description['net_rotation_deg']:.4g} "
            "deg end to end",
        ),
        (
            "field of view",
            f"{horizontal:.1f} x {vertical:.1f} deg" + (", varies" if description["intrinsics_vary"] else ""),
        ),
        (
            "intrinsics",
            f"fx/W {fx:.6g}, fy/H {fy:.6g}, cx/W {cx:.6g}, cy/H {cy:.6g}; from: "
            f"{description['intrinsics_from']}",
        ),
    ]
    if description["image_size"]:
        height, width = description["image_size"]
        rows.append(("picture", f"{height} x {width} (height x width)"))
    if description["duration_s"] is not None:
        rate = f", {description['fps']:.4g} frames/s on average" if description["fps"] else ""
        rows.append(("time", f"{description['duration_s']:.4g} s{rate}"))
    rows += [("note", note) for note in description["notes"]]
    rows += [("looks odd", hint) for hint in description["hints"]]
    return "\n".join(f"{name + ':':15}{value}" for name, value in rows)


def _info(arguments: argparse.Namespace) -> None:
    description = describe_file(
        arguments.file, format=arguments.source_format, image_size=arguments.image_size
    )
    print(json.dumps(description, indent=2) if arguments.json else _describe(description))


def _convert(arguments: argparse.Namespace) -> None:
    source_format, pose_file = read_pose_file(
        arguments.file, format=arguments.source_format, image_size=arguments.image_size
    )
    cameras, names = pose_file.cameras, pose_file.names
    if arguments.scale is not None:
        cameras = cameras.scaled(arguments.scale, metric=False)
    if arguments.metric:
        cameras = dataclasses.replace(cameras, metric=True)
    if arguments.relative:
        cameras = cameras.relative_to(0)
    if arguments.reverse:
        cameras, names = cameras.reversed(), names[::-1]
    if arguments.flip:
        cameras = flip_horizontal(cameras)
    if arguments.frames is not None:
        cameras, names = resample(cameras, arguments.frames), ()
    image_size = arguments.image_size or pose_file.image_size
    save_cameras(cameras, arguments.output, arguments.target_format, image_size=image_size, names=names)
    for note in pose_file.notes:
        print(f"note: {note}", file=sys.stderr)
    for lost in _lost(pose_file, format_named(arguments.target_format)):
        print(f"note: {arguments.target_format} cannot hold {lost}", file=sys.stderr)
    print(f"{arguments.output}: {len(cameras)} frames, {source_format.name} -> {arguments.target_format}")


def _lost(pose_file: PoseFile, target: Format) -> list[str]:
    """What the file holds and the target format cannot."""
    held = {
        "intrinsics": pose_file.intrinsics_from == "file",
        "times": pose_file.cameras.times is not None,
        "metric": pose_file.cameras.metric,
    }
    meaning = {"intrinsics": "intrinsics", "times": "times", "metric": "that lengths are metres"}
    return [meaning[name] for name, there in held.items() if there and name not in target.holds]


def _preset(arguments: argparse.Namespace) -> None:
    if arguments.list:
        for name, (text, summary, elsewhere) in PRESETS.items():
            print(f"{name:18} {text:26} {summary}" + (f" [{elsewhere}]" if elsewhere else ""))
        return
    if arguments.path is None:
        raise ValueError("name a preset or give a sentence; --list shows the presets")
    amounts = {
        name: getattr(arguments, name)
        for name in ("metres", "degrees", "factor", "turns", "distance", "radius", "seed", "easing")
        if getattr(arguments, name) is not None
    }
    if arguments.facing_subject:
        amounts["facing_subject"] = True
    if amounts and arguments.path not in PRESETS:
        raise ValueError(
            f"--{next(iter(amounts)).replace('_', '-')} goes with a preset; a sentence says it itself: "
            f"{arguments.path!r}"
        )
    if arguments.path in PRESETS:
        cameras = preset(arguments.path, arguments.frames, fps=arguments.fps, **amounts)
    else:
        cameras = resolve_path(arguments.path, arguments.frames, arguments.fps)
    if arguments.output:
        save_cameras(cameras, arguments.output, arguments.target_format, image_size=arguments.image_size)
    where = f"{arguments.output}: " if arguments.output else ""
    print(
        f"{where}{len(cameras)} frames at {arguments.fps:g} frames/s, {cameras.path_length:.4g} m, "
        f"{cameras.total_rotation:.4g} deg"
    )


def _preview(arguments: argparse.Namespace) -> None:
    from camctrl_jax.viz.trajectory import save_trajectory_figure

    paths: dict[str, Cameras] = {}
    for spec in arguments.paths:
        if existing_path(spec) is not None:
            _, pose_file = read_pose_file(
                spec, format=arguments.source_format, image_size=arguments.image_size
            )
            cameras, title = pose_file.cameras, Path(spec).name
        else:
            cameras, title = resolve_path(spec, arguments.frames, arguments.fps), spec
        paths[title if title not in paths else f"{title} ({len(paths) + 1})"] = cameras
    print(save_trajectory_figure(paths, arguments.output))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; errors that a user can act on go to stderr and give exit status 2."""
    arguments = _parser().parse_args(argv)
    run = {"info": _info, "convert": _convert, "preset": _preset, "preview": _preview}[arguments.command]
    try:
        run(arguments)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
