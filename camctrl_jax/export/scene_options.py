"""The options of ``export scene``. Imports nothing heavy: parsers answer at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from camctrl_jax.pose_options import add_reading_options, image_size

SCENE = """Make a 3-D scene out of a clip with cameras.

  python -m camctrl_jax.export scene outputs/first --out outputs/first_scene
  python -m camctrl_jax.export scene outputs/explored --out explored_scene      a folder of Exploration
  python -m camctrl_jax.export scene video.mp4 --cameras poses.txt --out my_scene
  python -m camctrl_jax.export scene --worlds-seed 1000003 --out world_scene

The folder holds points.ply, scene.glb (points and cameras, y up), images/ with sparse/0 (a COLMAP project),
transforms.json (nerfstudio) and report.json. Points are in the world and unit of the cameras.

dense   a plane sweep on the CPU or an accelerator; no weights (default)
sparse  a few hundred points with tracks, triangulated by COLMAP with the cameras as they are
maps    depth or points of an estimator of yours (VGGT, FLARE, ...), see --maps

The camera must go somewhere: one that stands or only turns shows no depth, and is refused."""


def add_scene_arguments(add: Callable[..., Any]) -> None:
    """Give a parser the options of ``export scene``.

    Args:
        add: its ``add_argument``.
    """
    add(
        "source",
        type=Path,
        nargs="?",
        metavar="SOURCE",
        help="a video, a folder of pictures, of generate or of an exploration",
    )
    add("--out", type=Path, required=True, metavar="DIR", help="the folder to make")
    add("--cameras", type=Path, metavar="FILE", help="its cameras, in any format that camera reads")
    add("--worlds-seed", type=int, metavar="N", help="instead of a source: render procedural world N")
    add(
        "--size",
        type=image_size,
        metavar="HEIGHTxWIDTH",
        help="of the render of a world (default 96x160)",
    )
    add("--frames", type=int, help="of the render of a world (default 49)")
    add("--still", action="store_true", help="the world with everything at rest")
    add("--metric", action="store_true", help="translations of --cameras and depth of --maps are metres")
    add(
        "--poses-of",
        choices=("auto", "shown", "stored"),
        default="auto",
        help="whether --cameras belong to turned pictures as shown or as stored (default: told by size)",
    )
    add(
        "--intrinsics",
        type=float,
        nargs=4,
        metavar=("FX", "FY", "CX", "CY"),
        help="of the pictures, as fractions fx/W fy/H cx/W cy/H, for --cameras that hold no lens",
    )
    add_reading_options(add)
    add("--method", choices=("dense", "sparse", "maps"), default="dense", help="see above")
    add(
        "--maps",
        type=Path,
        metavar="DIR",
        help="depth.npy [T, H, W] or points.npy [T, H, W, 3] of the key frames, which are all frames with "
        "--views as large as the clip is long; perhaps confidence.npy, world_from_camera.npy, intrinsics.npy",
    )
    add("--masks", type=Path, metavar="DIR", help="a picture for each frame; white is left out: what moves")
    add("--motion", action="store_true", help="look for what moves, without weights, and leave it out")
    add(
        "--formats",
        nargs="+",
        choices=("ply", "glb", "colmap", "transforms"),
        default=("ply", "glb", "colmap", "transforms"),
        metavar="FORMAT",
        help="of ply, glb, colmap, transforms (default: all)",
    )
    add("--planes", type=int, default=128, help="depths that are tried (default 128)")
    add("--views", type=int, help="key frames at most (default: by the clip's length, 8 to 96)")
    add("--agree", type=int, default=4, help="other views that must confirm a depth (default 4)")
    add("--tolerance", type=float, default=0.02, help="within this share of it (default 0.02)")
    add(
        "--least-angle",
        type=float,
        default=3.0,
        metavar="DEGREES",
        help="between the rays from two views (default 3)",
    )
    add("--near", type=float, help="least depth, in the unit of the cameras (default: found)")
    add("--far", type=float, help="largest depth (default: found)")
