"""What exact geometry without motion reaches: python docs/results/static_follower.py [WORLDS]

The first frame of every held-out world is warped along the camera path with the true depth of the world at
rest; what it does not show is filled with the blurred colour of the nearest pixel that it does. The same with
the path of another world. Prints PSNR of frames 6 to 49 against the true render.
"""

import dataclasses
import sys

import numpy as np
from held_out import HeldOut, camera_scores

from camctrl_jax.evaluate.worlds.truth import warped
from camctrl_jax.metrics.psnr import psnr
from camctrl_jax.metrics.worlds_scores import FIRST_SCORED_FRAME
from camctrl_jax.worlds import World, WorldsConfig, render, sample_world
from camctrl_jax.worlds.corruptions import static_variant
from camctrl_jax.worlds.geometry import render_geometry

HEIGHT, WIDTH = 96, 160


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
        video, seen = follow(frames, still)
        true_path.append(video)
        hidden.append(1.0 - seen[FIRST_SCORED_FRAME:].mean())
        still = dataclasses.replace(still, cameras=along_decoy)
        decoy_path.append(follow(frames, still)[0])
    truth, at_rest = np.stack(truth), np.stack(at_rest)
    scores = camera_scores(truth, np.stack(true_path), np.stack(decoy_path))
    print("warped:", {name: value for name, value in scores.items() if name != "per_world"})
    print(f"not in the first frame: {np.mean(hidden):.1%} of pixels")
    scored = slice(FIRST_SCORED_FRAME, None)
    print(f"true render of the world at rest: {psnr(at_rest[:, scored], truth[:, scored]).mean():.2f} dB")


def follow(frames, world: World) -> tuple[np.ndarray, np.ndarray]:
    """u8 [T, H, W, 3]: the first frame seen from every camera of ``world``; bool [T, H, W]: what it shows."""
    depth, _, seen = render_geometry([world], HEIGHT, WIDTH)
    return warped(frames.rgb[0], depth[0], seen[0], world.cameras), seen[0]


if __name__ == "__main__":
    main()
