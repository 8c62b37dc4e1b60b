"""Folders of real clips and camera paths for docs/results/videos.md, out of the shared test data.

  CAMCTRL_TEST_DATA=/data python docs/results/real_clips.py OUT

writes OUT/true (clips whose cameras are known), OUT/strangers (clips with RealEstate10K paths that are not
theirs, and what goes wrong in practice), OUT/own (pieces of a video with the path that structure from motion
finds for all of it) and OUT/blurred (the same pieces, blurred; cameras are those of OUT/own).
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from camctrl_jax.camera import save_cameras
from camctrl_jax.camera.intrinsics import intrinsics_from_pixels
from camctrl_jax.camera.reading import Reading, read_path
from camctrl_jax.estimators.colmap import Colmap
from camctrl_jax.estimators.motion_masks import EpipolarMasks
from camctrl_jax.evaluate.videos.reading import read_pictures
from camctrl_jax.video.encoding import write_mp4
from camctrl_jax.video.pictures import write_png

LENGTH, EVERY, PIECE, BLUR = 16, 3, 13, 6.0


def true_pairs(data: Path, out: Path) -> None:
    """Five frames of a depth camera's sequence, and three photographs of a published reconstruction."""
    (out / "clips").mkdir(parents=True)
    shutil.copytree(data / "open3d_rgbd/color", out / "clips/open3d")
    shutil.copytree(data / "opensfm_berlin/images", out / "clips/berlin")
    cameras = read_path(data / "open3d_rgbd/trajectory.log", Reading()).pose_file.cameras
    lens = intrinsics_from_pixels((525.0, 525.0, 320.0, 240.0), 480, 640)
    save_cameras(cameras.with_intrinsics(lens), out / "paths/open3d.txt")
    berlin = read_path(data / "opensfm_berlin/reconstruction_example.json", Reading())
    save_cameras(berlin.pose_file.cameras, out / "paths/berlin.txt")


def strangers(data: Path, out: Path) -> None:
    """Seven clips with paths that are not theirs, a frozen one, and four that cannot be measured."""
    (out / "paths").mkdir(parents=True)
    (out / "clips").mkdir()
    paths = sorted((data / "re10k_cameractrl/pose_files").glob("*.txt"))
    dog = read_pictures(data / "vipe_dog/dog-example.mp4", 30.0).frames
    bedroom = read_pictures(data / "sam2_bedroom", 12.0).frames
    clips = {f"dog_{i}": (dog[24 * i :][:LENGTH], 30.0, paths[i]) for i in range(5)}
    clips |= {f"bedroom_{i}": (bedroom[14 * i :][:LENGTH], 12.0, paths[i]) for i in range(2)}
    clips["still"] = (np.repeat(dog[:1], LENGTH, axis=0), 30.0, paths[2])
    clips["short"] = (dog[:9], 30.0, paths[0])
    for name, (frames, fps, path) in clips.items():
        write_mp4(out / f"clips/{name}.mp4", frames, fps)
        shutil.copy(path, out / f"paths/{name}.txt")
    write_mp4(out / "clips/no_cameras.mp4", dog[:LENGTH], 30.0)
    shutil.copy(paths[4], out / "paths/no_video.txt")
    whole = (out / "clips/dog_0.mp4").read_bytes()
    (out / "clips/broken.mp4").write_bytes(whole[: len(whole) // 2])
    shutil.copy(paths[0], out / "paths/broken.txt")


def own_paths(data: Path, out: Path, blurred: Path) -> None:
    """Every third frame of the video, reconstructed at once, in three pieces."""
    video = data / "vipe_dog/dog-example.mp4"
    small, full = read_pictures(video, 30.0, 640), read_pictures(video, 30.0)
    chosen = np.arange(0, len(full.frames), EVERY)[: 3 * PIECE]
    moving = EpipolarMasks().segment(small.frames, small.fps).moving
    found = Colmap(time_limit=900.0).reconstruct(small.frames[chosen], moving[chosen])
    if not found.succeeded:
        raise SystemExit(f"no path of the whole video: {found.message}")
    for piece in range(3):
        part = slice(PIECE * piece, PIECE * (piece + 1))
        save_cameras(found.cameras()[part], out / f"paths/dog_{piece}.txt")
        for place, frame in enumerate(chosen[part]):
            picture = full.frames[frame]
            write_png(out / f"clips/dog_{piece}/{place:03d}.png", picture)
            soft = gaussian_filter(picture.astype(np.float32), (BLUR, BLUR, 0.0)).round().astype(np.uint8)
            write_png(blurred / f"clips/dog_{piece}/{place:03d}.png", soft)


def main(out: Path) -> None:
    """All four folders; ``out`` is new."""
    data = Path(os.environ["CAMCTRL_TEST_DATA"])
    true_pairs(data, out / "true")
    strangers(data, out / "strangers")
    own_paths(data, out / "own", out / "blurred")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
