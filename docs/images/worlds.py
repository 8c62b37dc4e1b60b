"""Draw the picture of docs/worlds.md: python docs/images/worlds.py OUT.jpg

One place a row: from above with the path of the camera, yellow where it ends, and five of its 500 frames.
"""

import dataclasses
import sys

import matplotlib.pyplot as plt
import numpy as np

from camctrl_jax.camera import Cameras
from camctrl_jax.worlds import Places, World, WorldsConfig, at_frames, render_rgb, sample_world

SHOWN = (("garden", "loop", 4_000_003), ("rooms", "there_and_back", 4_000_004), ("town", "loop", 4_000_008))
SIZE, METRES, COLUMNS = (144, 240), 26.0, 5


def from_above(world: World, height: float = 60.0) -> np.ndarray:
    """u8 [H, H, 3]: the place seen from far above, north up."""
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]]), (0, -height, 0)
    focal = height / METRES
    cameras = Cameras(pose[None], np.array([[focal, focal, 0.5, 0.5]]), np.zeros(1), metric=True)
    clear = world.scene.sky.copy()
    clear[3, 2] = 0.0  # no haze
    scene = dataclasses.replace(at_frames(world, [0]).scene, sky=clear)
    view = dataclasses.replace(at_frames(world, [0]), scene=scene, cameras=cameras)
    return np.asarray(render_rgb([view], 2 * SIZE[0], 2 * SIZE[0])[0, 0])


def main() -> None:
    figure, axes = plt.subplots(
        len(SHOWN), COLUMNS + 1, figsize=(11, 4.2), width_ratios=[0.62] + [1] * COLUMNS, layout="constrained"
    )
    for row, (layout, route, seed) in zip(axes, SHOWN, strict=True):
        world = sample_world(seed, WorldsConfig(frames=500, places=Places(layout, route)))
        half, (x, _, z) = METRES / 2, world.cameras.positions.T
        row[0].imshow(from_above(world), extent=(-half, half, -half, half))
        row[0].scatter(x, z, c=np.arange(500), cmap="autumn", s=1.5)
        row[0].set_title(f"{layout}:\n{route.replace('_', ' ')}", fontsize=7)
        chosen = np.linspace(0, 499, COLUMNS).round().astype(int)
        frames = np.asarray(render_rgb([at_frames(world, chosen)], *SIZE)[0])
        for axis, frame, index in zip(row[1:], frames, chosen, strict=True):
            axis.imshow(frame)
            axis.set_title(f"{index / 12:.0f} s", fontsize=8)
        for axis in row:
            axis.axis("off")
    figure.savefig(sys.argv[1], dpi=100)


if __name__ == "__main__":
    main()
