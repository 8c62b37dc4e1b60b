"""What exact geometry without motion reaches: python docs/results/static_follower.py [WORLDS]

The first frame of every held-out world is warped along the camera path with the true depth of the world at
rest; what it does not show is filled with the blurred colour of the nearest pixel that it does. The same with
the path of another world, as `camctrl_jax.evaluate` does. Prints PSNR of frames 6 to 49 against the true
render.
"""

import dataclasses
import sys

import numpy as np
from scipy import ndimage

from camctrl_jax.evaluate.worlds import HeldOut
from camctrl_jax.metrics.psnr import psnr
from camctrl_jax.metrics.worlds_scores import FIRST_SCORED_FRAME, camera_scores
from camctrl_jax.worlds import Frames, World, WorldsConfig, render, sample_world
from camctrl_jax.worlds.corruptions import static_variant

HEIGHT, WIDTH = 96, 160
FAR = 1e4  # metres, of the sky
BLUR = 4.0  # pixels


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 64
    config = WorldsConfig(aspect=WIDTH / HEIGHT)
    worlds = tuple(sample_world(seed, config) for seed in range(1_000_000, 1_000_000 + count))
    truth, at_rest, true_path, decoy_path, hidden = [], [], [], [], []
    for world, decoy in zip(worlds, HeldOut(worlds, np.empty(0)).decoys(), strict=True):
        still = static_variant(world)
        first = world.cameras.world_from_camera[0]
        along_decoy = dataclasses.replace(world.cameras, world_from_camera=first @ decoy.world_from_camera)
        frames = render(world, HEIGHT, WIDTH)
        frames_at_rest = render(still, HEIGHT, WIDTH)
        truth.append(frames.rgb)
        at_rest.append(frames_at_rest.rgb)
        video, share = follow(frames, frames_at_rest, still)
        true_path.append(video)
        hidden.append(share)
        still = dataclasses.replace(still, cameras=along_decoy)
        decoy_path.append(follow(frames, render(still, HEIGHT, WIDTH), still)[0])
    truth, at_rest = np.stack(truth), np.stack(at_rest)
    scores = camera_scores(truth, np.stack(true_path), np.stack(decoy_path))
    print("warped:", {name: value for name, value in scores.items() if name != "per_world"})
    print(f"not in the first frame: {np.mean(hidden):.1%} of pixels")
    scored = slice(FIRST_SCORED_FRAME, None)
    print(f"true render of the world at rest: {psnr(at_rest[:, scored], truth[:, scored]).mean():.2f} dB")


def follow(frames: Frames, at_rest: Frames, world: World) -> tuple[np.ndarray, float]:
    """(u8 [T, H, W, 3], share of pixels filled): the first frame seen from every camera of ``world``."""
    poses, lens = world.cameras.world_from_camera, world.cameras.intrinsics[0]
    first, depth = frames.rgb[0].astype(np.float64), np.minimum(frames.depth[0], FAR)
    u, v = np.meshgrid((np.arange(WIDTH) + 0.5) / WIDTH, (np.arange(HEIGHT) + 0.5) / HEIGHT)
    rays = np.stack([(u - lens[2]) / lens[0], (v - lens[3]) / lens[1], np.ones_like(u)], axis=-1)
    video, filled = [], []
    for pose, distance in zip(poses, at_rest.depth, strict=True):
        point = rays * np.minimum(distance, FAR)[..., None] @ pose[:3, :3].T + pose[:3, 3]
        local = (point - poses[0, :3, 3]) @ poses[0, :3, :3]
        z = np.maximum(local[..., 2], 1e-3)
        column = (lens[0] * local[..., 0] / z + lens[2]) * WIDTH - 0.5
        row = (lens[1] * local[..., 1] / z + lens[3]) * HEIGHT - 0.5
        image = np.stack([_sampled(first[..., c], row, column, 1) for c in range(3)], axis=-1)
        inside = (abs(column - WIDTH / 2 + 0.5) < WIDTH / 2) & (abs(row - HEIGHT / 2 + 0.5) < HEIGHT / 2)
        near = np.abs(_sampled(depth, row, column, 0) - z) < 0.1 * z + 0.1
        seen = inside & near & (local[..., 2] > 0.01)
        if not seen.all():
            nearest = ndimage.distance_transform_edt(~seen, return_distances=False, return_indices=True)
            fill = ndimage.gaussian_filter(image[tuple(nearest)], (BLUR, BLUR, 0))
            image = np.where(seen[..., None], image, fill)
        video.append(np.round(image).clip(0, 255).astype(np.uint8))
        filled.append(1.0 - seen.mean())
    return np.stack(video), float(np.mean(filled[FIRST_SCORED_FRAME:]))


def _sampled(channel: np.ndarray, row: np.ndarray, column: np.ndarray, order: int) -> np.ndarray:
    return ndimage.map_coordinates(channel, [row, column], order=order, mode="nearest")


if __name__ == "__main__":
    main()
