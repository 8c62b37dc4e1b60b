"""Depth and points of scenes against the truth of worlds: python docs/results/scene.py WHAT ...

  still SIZE SEED...       plane sweep of true renders of worlds at rest, e.g. still 96x160 1000000 1000001
  moving SIZE SEED...      the same worlds with what moves: no masks, masks without weights, true masks
  sparse SIZE SEED...      COLMAP's triangulation with known cameras, 13 views of worlds at rest
  generated DIR            a folder of generate --worlds-seed, against the depth of its world at rest
  look SCENE PICTURE       points.ply of a scene from a place beside and above its path, as a PNG file

Prints rows of Markdown. The error is that of the depth of every pixel that has one, relative to the true
depth of the pixel's centre, the sky counting as infinitely wrong; coverage is the share of all pixels that
have a depth, and of those that do not show the sky. Core-seconds are those of the whole process, all cores
together, compiling included where it is the first of its size.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

from camctrl_jax.camera.cameras import Cameras
from camctrl_jax.camera.formats import load_cameras
from camctrl_jax.errors import InvalidValue, UserError
from camctrl_jax.estimators.motion_masks import EpipolarMasks
from camctrl_jax.estimators.protocols import dilate
from camctrl_jax.estimators.triangulation import Triangulation
from camctrl_jax.metrics.psnr import psnr
from camctrl_jax.reconstruction.dense_depth import dense_depth
from camctrl_jax.reconstruction.fusion import fused_cloud
from camctrl_jax.video.decoding import read_video
from camctrl_jax.video.pictures import write_png
from camctrl_jax.worlds import WorldsConfig, at_frames, render, sample_world

HEAD = (
    "| world | camera | masks | median error | 90 % | over 10 % | coverage | without sky | points | parallax "
    "deg | s | core-s |\n|---|---|---|---|---|---|---|---|---|---|---|---|"
)


def world_of(seed: int, size: tuple[int, int], *, still: bool):
    return sample_world(seed, WorldsConfig(aspect=size[1] / size[0], static=still))


def errors_of(depth: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Relative errors [P] of known depths, infinite where the truth is the sky."""
    known = np.isfinite(depth)
    near = np.isfinite(true)
    return np.where(near, np.abs(depth / np.where(near, true, 1.0) - 1.0), np.inf)[known]


def row(name, camera, masks, frames, cameras, moving, true):
    """One row; the figures of it, or None of a clip that was refused."""
    start, cpu = time.monotonic(), time.process_time()
    try:
        found = dense_depth(frames, cameras, moving)
        if not np.isfinite(found.depth).any():
            raise InvalidValue("the scene is empty.")
    except UserError as error:
        print(f"| {name} | {camera} | {masks} | refused: {str(error)[:60]} | | | | | | | | |", flush=True)
        return None
    cloud = fused_cloud(found.depth, frames[found.frames], cameras[found.frames])
    wall, cpu = time.monotonic() - start, time.process_time() - cpu
    true = true[found.frames]
    known, error = np.isfinite(found.depth), errors_of(found.depth, true)
    near = np.isfinite(true)
    figures = [
        100 * np.median(error),
        100 * np.quantile(error, 0.9),
        100 * (error > 0.1).mean(),
        100 * known.mean(),
        100 * (known & near).sum() / near.sum(),
        len(cloud.points),
        found.parallax,
        wall,
        cpu,
    ]
    print(f"| {name} | {camera} | {masks} | {cells(figures)} |", flush=True)
    return figures


def cells(figures) -> str:
    median, tail, wrong, all_pixels, near, points, parallax, wall, cpu = figures
    return (
        f"{median:.2f} % | {tail:.1f} % | {wrong:.1f} % | {all_pixels:.0f} % | {near:.0f} % | {points:.0f} | "
        f"{parallax:.1f} | {wall:.0f} | {cpu:.0f}"
    )


def total(rows) -> None:
    """The row of medians over worlds."""
    rows = [figures for figures in rows if figures is not None]
    if len(rows) > 1:
        print(f"| **median of {len(rows)}** | | | {cells(np.median(rows, axis=0))} |", flush=True)


def still(size, seeds) -> None:
    print(HEAD, flush=True)
    rows = []
    for seed in seeds:
        world = world_of(seed, size, still=True)
        truth = render(world, *size)
        rows.append(row(seed, world.path_class, "-", truth.rgb, world.cameras, None, truth.depth))
    total(rows)


def moving(size, seeds) -> None:
    print(HEAD, flush=True)
    rows = {"none": [], "without weights": [], "true": []}
    for seed in seeds:
        world = world_of(seed, size, still=False)
        truth = render(world, *size)
        found = EpipolarMasks().segment(truth.rgb, world.fps).moving
        given = {"none": None, "without weights": dilate(found, 2), "true": dilate(truth.moving, 2)}
        for name, masks in given.items():
            figures = row(seed, world.path_class, name, truth.rgb, world.cameras, masks, truth.depth)
            rows[name].append(figures)
    for name, figures in rows.items():
        print(f"{name}:")
        total(figures)


def sparse(size, seeds) -> None:
    print(
        "| world | camera | points | median error | 90 % | track length | s |\n|---|---|---|---|---|---|---|"
    )
    for seed in seeds:
        world = at_frames(world_of(seed, size, still=True), np.arange(0, 49, 4))
        truth = render(world, *size)
        start = time.monotonic()
        try:
            model, cloud = Triangulation().reconstruct(truth.rgb, world.cameras)
        except UserError as error:
            print(f"| {seed} | {world.path_class} | refused: {str(error)[:60]} | | | | |", flush=True)
            continue
        wall = time.monotonic() - start
        frame, point = model.observation_frame, model.observation_point
        inverse = world.cameras.camera_from_world
        depth = (inverse[frame, 2, :3] * cloud.points[point]).sum(-1) + inverse[frame, 2, 3]
        x, y = model.observation_xy.astype(int).T
        true = truth.depth[frame, np.clip(y, 0, size[0] - 1), np.clip(x, 0, size[1] - 1)]
        error = 100 * errors_of(depth, true)
        print(
            f"| {seed} | {world.path_class} | {len(cloud.points)} | {np.median(error):.2f} % | "
            f"{np.quantile(error, 0.9):.1f} % | {model.mean_track_length:.1f} | {wall:.0f} |",
            flush=True,
        )


def generated(folder: Path) -> None:
    """Also the true render of the same path, from the same files, beside."""
    record = json.loads((folder / "generation.json").read_text())
    size = record["clip"]["height"], record["clip"]["width"]
    world = world_of(int(record["request"]["worlds_seed"]), size, still=False)
    path = record["camera"]
    cameras = Cameras(path["world_from_camera"], path["intrinsics"], metric=True)
    along = cameras.transformed(world.cameras.world_from_camera[0])
    truth = render(replaced(world, along), *size)
    print(f"PSNR to the true render {float(psnr(read_video(folder / 'video.mp4'), truth.rgb)):.1f} dB\n")
    print(HEAD, flush=True)
    notes = []
    for name in ("video", "truth"):
        frames = read_video(folder / f"{name}.mp4")
        row(f"{world.seed}, {name}", record["request"]["camera"], "none", frames, cameras, None, truth.depth)
        found = dense_depth(frames, cameras)
        true = truth.depth[found.frames]
        known = np.isfinite(found.depth) & np.isfinite(true)
        ratio = found.depth[known] / true[known]
        scale = float(np.median(ratio))
        notes.append(
            f"{name}: depth is {scale:.3f} of the true one in the median; with that out the median error "
            f"is {100 * np.median(np.abs(ratio / scale - 1)):.2f} %"
        )
    print("", *notes, sep="\n")


def replaced(world, cameras):
    import dataclasses

    return dataclasses.replace(world, cameras=cameras)


def look(scene: Path, picture: Path) -> None:
    """Points as squares of a pixel or more, the nearest in front."""
    header, _, data = (scene / "points.ply").read_bytes().partition(b"end_header\n")
    assert b"float confidence" in header
    points = np.frombuffer(data, np.dtype([("xyz", "<f4", 3), ("rgb", "u1", 3), ("confidence", "<f4")]))
    cameras = load_cameras(scene / "transforms.json")
    middle = cameras[len(cameras) // 2]
    pose = middle.world_from_camera[0].copy()
    depth = float(np.median((middle.camera_from_world[0] @ np.c_[points["xyz"], np.ones(len(points))].T)[2]))
    # A sixth of the way round the middle of the scene, and a little above.
    turn, tilt = np.radians(20.0), np.radians(12.0)
    about = np.array(
        [
            [np.cos(turn), 0, np.sin(turn)],
            [np.sin(turn) * np.sin(tilt), np.cos(tilt), -np.cos(turn) * np.sin(tilt)],
            [-np.sin(turn) * np.cos(tilt), np.sin(tilt), np.cos(turn) * np.cos(tilt)],
        ]
    )
    centre = pose[:3, 3] + depth * pose[:3, 2]
    pose[:3, :3] = pose[:3, :3] @ about.T
    pose[:3, 3] = centre - 1.1 * depth * pose[:3, 2]
    height, width = 480, 800
    lens = middle.intrinsics[0]
    seen = (points["xyz"] - pose[:3, 3]) @ pose[:3, :3]
    z = seen[:, 2]
    ahead = z > 0.05 * depth
    u = (seen[ahead, 0] / z[ahead] * lens[0] + lens[2]) * width
    v = (seen[ahead, 1] / z[ahead] * lens[1] + lens[3]) * height
    order = np.argsort(-z[ahead], kind="stable")  # far ones first
    canvas = np.full((height, width, 3), 255, np.uint8)
    colours = points["rgb"][ahead]
    for dy in range(-1, 2):
        for dx in range(-1, 2):
            x, y = (u + dx).astype(int)[order], (v + dy).astype(int)[order]
            inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            if dx == dy == -1:
                nearest = np.full((height, width), np.inf)
            far = z[ahead][order]
            np.minimum.at(nearest, (y[inside], x[inside]), far[inside])
    for dy in range(-1, 2):
        for dx in range(-1, 2):
            x, y = (u + dx).astype(int)[order], (v + dy).astype(int)[order]
            inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            inside[inside] &= far[inside] <= nearest[y[inside], x[inside]] * 1.0001
            canvas[y[inside], x[inside]] = colours[order][inside]
    write_png(picture, canvas)


def main() -> None:
    what, *rest = sys.argv[1:] or [""]
    if what in ("still", "moving", "sparse"):
        size = tuple(int(number) for number in rest[0].split("x"))
        {"still": still, "moving": moving, "sparse": sparse}[what](size, [int(seed) for seed in rest[1:]])
    elif what == "generated":
        generated(Path(rest[0]))
    elif what == "look":
        look(Path(rest[0]), Path(rest[1]))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
