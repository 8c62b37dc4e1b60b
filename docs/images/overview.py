"""Draw the picture of the README: python docs/images/overview.py OUT.png DIR [DIR ...]

DIR: output of `python -m camctrl_jax.generate --worlds-seed N --camera ... --out DIR`. Per folder two rows
of frames, the true render above what was generated, with the camera path at their left.
"""

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from camctrl_jax.video.decoding import read_image, read_video

COLUMNS = 6


def trimmed(picture: np.ndarray) -> np.ndarray:
    """Without its white margins."""
    ink = (picture < 250).any(-1)
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    return picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def main() -> None:
    out, *folders = map(Path, sys.argv[1:])
    figure = plt.figure(figsize=(11, 1.95 * len(folders)), layout="constrained")
    grid = figure.add_gridspec(2 * len(folders), COLUMNS + 1, width_ratios=[1.25] + [1] * COLUMNS)
    for block, folder in enumerate(folders):
        asked = json.loads((folder / "generation.json").read_text())["request"]["camera"]
        path = figure.add_subplot(grid[2 * block : 2 * block + 2, 0])
        path.imshow(trimmed(read_image(folder / "trajectory.png")))
        path.set_title(asked.replace(", then", ",\nthen"), fontsize=9)
        path.axis("off")
        for row, name in enumerate(("truth", "video")):
            video = read_video(folder / f"{name}.mp4")
            for column, index in enumerate(np.linspace(0, len(video) - 1, COLUMNS).round().astype(int)):
                axis = figure.add_subplot(grid[2 * block + row, column + 1])
                axis.imshow(video[index])
                axis.axis("off")
                if block == row == 0:
                    axis.set_title(f"{index / 12:.1f} s", fontsize=8)
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main()
