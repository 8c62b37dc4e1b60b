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
from camctrl_jax.camera.description import describe_file
from camctrl_jax.camera.formats import (
    FORMATS,
    Format,
    PoseFile,
    existing_path,
    format_named,
    save_cameras,
)
from camctrl_jax.camera.interpolation import EASINGS, flip_horizontal, resample
from camctrl_jax.camera.playing import (
    MOST_FRAMES,
    Playing,
    at_rate,
    check_rate,
    given_options,
    pace_kept,
    part_of,
    take_playing,
    timed,
)
from camctrl_jax.camera.presets import PRESETS, preset, resolve_path
from camctrl_jax.camera.reading import ReadPath, read_path, take_reading
from camctrl_jax.errors import InvalidValue, exit_status, file_failures
from camctrl_jax.pose_options import add_playing_options, add_reading_options, image_size

Size = tuple[int, int]  # height, width

_DESCRIPTION = """\
Read, write, make, draw and describe camera paths.

  info     what a pose file holds: format, convention, length, rotation, field of view
  convert  from one pose format to another
  preset   make a path from a preset or a sentence
  preview  draw paths (pose files, presets, sentences) into one figure

Formats are recognised by content. Camera axes are OpenCV's (x right, y down, z forward) throughout; what
each format does differently is converted, and `info` says what that was. Where a file departs from its own
format, --invert, --axes and --quaternions say how; what looks like it is hinted at.
"""

_EXAMPLES = """\
examples:
  python -m camctrl_jax.camera info clip.txt
  python -m camctrl_jax.camera info sparse/0 --json
  python -m camctrl_jax.camera convert clip.txt colmap_model --to colmap --image-size 720x1280
  python -m camctrl_jax.camera convert cameras.json#cam05 dolly.txt
  python -m camctrl_jax.camera convert slam.txt part.txt --quaternions wxyz --range 100:400 --fps 12
  python -m camctrl_jax.camera preset --list
  python -m camctrl_jax.camera preset orbit_left --degrees 90 --distance 2.5 -o orbit.txt
  python -m camctrl_jax.camera preset "dolly in 1.5 m, then pan left 40 deg while rising 0.3 m" -o path.txt
  python -m camctrl_jax.camera preview orbit.txt spiral_in "truck left 1 m" -o paths.png
"""


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of frames")
    if int(text) > MOST_FRAMES:
        raise argparse.ArgumentTypeError(f"{text} frames are more than {MOST_FRAMES:,}")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    formats = "\n".join(f"  {known.name:16} {known.summary}" for known in FORMATS)
    parser = argparse.ArgumentParser(
        prog="python -m camctrl_jax.camera",
        description=_DESCRIPTION,
        epilog=f"formats:\n{formats}\n\n{_EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add_command in (_add_info, _add_convert, _add_preset, _add_preview):
        add_command(commands)
    return parser


def _command(commands: Any, name: str, run: Any, summary: str, examples: Sequence[str]) -> Any:
    """The ``add_argument`` of a new command, which calls ``run`` with what was parsed."""
    lines = "\n".join(f"  python -m camctrl_jax.camera {name} {example}" for example in examples)
    parser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"examples:\n{lines}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser.add_argument


def _add_writing(add: Any) -> None:
    add(
        "--to",
        dest="target_format",
        choices=[known.name for known in FORMATS if known.write is not None],
        default="realestate10k",
        help="format to write (default: realestate10k)",
    )


def _add_info(commands: Any) -> None:
    add = _command(
        commands,
        "info",
        _info,
        "say what a pose file holds",
        ["clip.txt", "transforms.json --json", "cameras.json#cam05", "poses.npy --image-size 480x832"],
    )
    add("file", help="pose file or folder; FILE#CAMERA picks one of several cameras")
    add("--json", dest="as_json", action="store_true", help="print JSON")
    add_reading_options(add)


def _add_convert(commands: Any) -> None:
    add = _command(
        commands,
        "convert",
        _convert,
        "convert a pose file to another format",
        [
            "clip.txt clip.json --to transforms_json --image-size 720x1280",
            "sparse/0 clip.txt",
            "slam.txt clip.txt --scale 0.01 --metric --relative --frames 49",
            "slam.txt clip.txt --quaternions wxyz --range 100:400 --fps 12",
            "poses.txt clip.txt --to tum --source-fps 10 --fps 24",
        ],
    )
    add("file", help="pose file or folder; FILE#CAMERA picks one of several cameras")
    add("output", help="file to write; a folder for colmap, colmap_text and lingbot")
    add_reading_options(add)
    _add_writing(add)
    add_playing_options(add)
    add("--relative", action="store_true", help="make the first camera the origin")
    add("--scale", type=float, metavar="FACTOR", help="multiply all translations")
    add("--metric", action="store_true", help="state that the result is in metres")
    add(
        "--frames",
        type=_positive,
        help="resample to this many frames, evenly over the whole path; with --fps, that many from its start",
    )
    add(
        "--fps",
        type=float,
        metavar="F",
        help="resample to F frames a second at the path's own pace, which its times or --source-fps say",
    )
    add("--reverse", action="store_true", help="travel the path backwards")
    add("--flip", action="store_true", help="mirror left and right, as for a flipped video")


def _add_preset(commands: Any) -> None:
    add = _command(
        commands,
        "preset",
        _preset,
        "make a path from a preset or a sentence",
        [
            "--list",
            "orbit_left --degrees 90 --distance 2.5 -o orbit.txt",
            '"dolly in 1.5 m, then pan left 40 deg while rising 0.3 m" -o path.txt',
            '"truck right 1 m with handheld, then hold 1 s" --frames 97 --fps 24 -o path.txt',
        ],
    )
    add("path", nargs="?", help="name of a preset, or a sentence in quotes")
    add(
        "--list",
        dest="listed",
        action="store_true",
        help="list the presets, their sentences and what others call them",
    )
    add("-o", "--output", help="file to write; without it the path is only described")
    _add_writing(add)
    add("--frames", type=_positive, default=49, help="number of frames (default: 49)")
    add("--fps", type=float, default=12.0, help="frames per second (default: 12)")
    add("--metres", type=float, help="how far a preset moves")
    add("--degrees", type=float, help="how far a preset turns")
    add("--factor", type=float, help="how much a preset zooms")
    add("--turns", type=float, help="how often a circle or spiral goes round")
    add("--distance", type=float, help="metres to the subject of an orbit, swing or dolly zoom")
    add("--radius", type=float, help="metres, of a circle or spiral")
    add("--seed", type=int, help="which handheld shake")
    add("--easing", choices=list(EASINGS), help="pace of a preset (default: smooth)")
    add(
        "--facing-subject",
        action="store_const",
        const=True,
        help="keep facing the subject of a preset",
    )
    add("--image-size", type=image_size, metavar="HEIGHTxWIDTH", help="for --to a format that stores pixels")


def _add_preview(commands: Any) -> None:
    add = _command(
        commands,
        "preview",
        _preview,
        "draw paths into one figure",
        ["clip.txt -o clip.png", 'orbit_left spiral_in "dolly in 2 m with handheld" -o paths.png'],
    )
    add("paths", nargs="+", help="pose files, presets or sentences")
    add("-o", "--output", required=True, help="figure to write: .png, .pdf or .svg")
    add("--frames", type=_positive, default=49, help="frames of presets and sentences (default: 49)")
    add("--fps", type=float, default=12.0, help="frames per second (default: 12)")
    add_reading_options(add)


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


def _info(file: str, as_json: bool, **options: Any) -> None:
    reading = take_reading(options)
    description = describe_file(
        file, format=reading.format, image_size=reading.image_size, convention=reading.convention
    )
    print(json.dumps(description, indent=2) if as_json else _describe(description))


def _convert(file: str, output: str, target_format: str, **options: Any) -> None:
    reading, playing = take_reading(options), take_playing(options)
    read = read_path(file, reading)
    cameras, names, remarks = _changed(read.pose_file, playing, file, **options)
    size = reading.image_size or read.pose_file.image_size
    save_cameras(cameras, output, target_format, image_size=size, names=names)
    for remark in (*_told(read), *(f"note: {remark}" for remark in remarks)):
        print(remark, file=sys.stderr)
    for remark in _spaced(len(cameras), read.format, format_named(target_format)):
        print(f"note: {remark}", file=sys.stderr)
    for lost in _lost(dataclasses.replace(read.pose_file, cameras=cameras), format_named(target_format)):
        print(f"note: {target_format} cannot hold {lost}", file=sys.stderr)
    print(f"{output}: {len(cameras)} frames, {read.format.name} -> {target_format}")


def _told(read: ReadPath, source: str = "") -> list[str]:
    """Notes and hints as lines."""
    where = f"{source}: " if source else ""
    return [f"note: {where}{note}" for note in read.pose_file.notes] + [
        f"looks odd: {where}{hint}" for hint in read.hints
    ]


def _changed(
    pose_file: PoseFile,
    playing: Playing,
    source: str,
    *,
    scale: float | None,
    metric: bool,
    relative: bool,
    reverse: bool,
    flip: bool,
    frames: int | None,
    fps: float | None,
) -> tuple[Cameras, Sequence[str], tuple[str, ...]]:
    """What ``convert`` makes of a path and of the names of its frames, and what there is to say about it."""
    cameras, names = part_of(pose_file.cameras, pose_file.names, playing.part, source)
    cameras, remarks = timed(cameras, playing.source_fps)
    if scale is not None:
        cameras = cameras.scaled(scale, metric=False)
    if metric:
        cameras = dataclasses.replace(cameras, metric=True)
    if relative:
        cameras = cameras.relative_to(0)
    if reverse:
        cameras, names = cameras.reversed(), names[::-1]
    if flip:
        cameras = flip_horizontal(cameras)
    if fps is not None:
        check_rate("--fps", fps)
        whole, cameras = cameras, at_rate(cameras, fps, frames, source=source)
        remarks += pace_kept(whole, len(cameras), fps) if frames is not None else ()
    elif frames is not None:
        cameras = resample(cameras, frames)
    if names and (fps is not None or frames is not None):
        names = ()
        remarks += ("the names of the pictures are left out: resampled frames lie between them",)
    return cameras, names, remarks


def _spaced(poses: int, source: Format | None, target: Format) -> list[str]:
    """What to say where a pose of the target stands for more pictures than one of the source."""
    every, own = target.pictures_per_pose, 1 if source is None else source.pictures_per_pose
    if every <= own or poses < 2:
        return []
    fewer = (own * (poses - 1)) // every + 1
    return [
        f"{target.name} holds a pose for every {every} pictures: the {poses} poses are written as those of "
        f"{every * (poses - 1) + 1} pictures. If each is of one picture, --frames {fewer} keeps the speed"
    ]


def _lost(pose_file: PoseFile, target: Format) -> list[str]:
    """What the file holds and the target format cannot."""
    held = {
        "intrinsics": pose_file.intrinsics_from == "file",
        "times": pose_file.cameras.times is not None,
        "metric": pose_file.cameras.metric,
    }
    meaning = {"intrinsics": "intrinsics", "times": "times", "metric": "that lengths are metres"}
    return [meaning[name] for name, there in held.items() if there and name not in target.holds]


def _preset(
    path: str | None,
    listed: bool,
    output: str | None,
    target_format: str,
    frames: int,
    fps: float,
    image_size: Size | None,
    **amounts: Any,
) -> None:
    if listed:
        for name, (text, summary, elsewhere) in PRESETS.items():
            print(f"{name:18} {text:26} {summary}" + (f" [{elsewhere}]" if elsewhere else ""))
        return
    if path is None:
        raise InvalidValue("name a preset or give a sentence; --list shows the presets")
    amounts = {name: value for name, value in amounts.items() if value is not None}
    if amounts and path not in PRESETS:
        raise InvalidValue(
            f"--{next(iter(amounts)).replace('_', '-')} goes with a preset; a sentence says it itself: "
            f"{path!r}"
        )
    if path in PRESETS:
        cameras = preset(path, frames, fps=fps, **amounts)
    else:
        cameras = resolve_path(path, frames, fps)
    if output:
        save_cameras(cameras, output, target_format, image_size=image_size)
        for remark in _spaced(len(cameras), None, format_named(target_format)):
            print(f"note: {remark}", file=sys.stderr)
    where = f"{output}: " if output else ""
    print(
        f"{where}{len(cameras)} frames at {fps:g} frames/s, {cameras.path_length:.4g} m, "
        f"{cameras.total_rotation:.4g} deg"
    )


def _preview(
    paths: Sequence[str],
    output: str,
    frames: int,
    fps: float,
    **options: Any,
) -> None:
    # Only here: it brings what draws figures, which the other commands do without.
    from camctrl_jax.viz.trajectory import save_trajectory_figure

    reading = take_reading(options)
    drawn: dict[str, Cameras] = {}
    for spec in paths:
        if existing_path(spec) is not None:
            read = read_path(spec, reading)
            cameras, title = read.pose_file.cameras, Path(spec).name
            for line in _told(read, spec):
                print(line, file=sys.stderr)
        else:
            cameras, title = resolve_path(spec, frames, fps), spec
        drawn[title if title not in drawn else f"{title} ({len(drawn) + 1})"] = cameras
    given = given_options(reading, Playing())
    if given and not any(map(existing_path, paths)):
        raise InvalidValue(
            f"{', '.join(given)} would say how a pose file is read, and none of "
            f"{', '.join(map(repr, paths))} is one; leave that out"
        )
    with file_failures(output):
        print(save_trajectory_figure(drawn, output))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; errors that a user can act on go to stderr and give exit status 2."""
    values = vars(_parser().parse_args(argv))
    run = values.pop("run")
    return exit_status(lambda: run(**values), failed=2)


if __name__ == "__main__":
    sys.exit(main())
