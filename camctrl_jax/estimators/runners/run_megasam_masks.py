"""Masks from the motion_prob.npy of MegaSaM, [T, h, w], low where things move.

  python run_megasam_masks.py motion_prob.npy --images DIR --out DIR --threshold 0.5

Needs numpy and Pillow. Enlarges to the size of the pictures; writes 255 = moving under their names. MegaSaM
makes pictures about 384 x 512 pixels large and cuts them to multiples of 8: what it cut continues the border.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("probabilities", type=Path)
parser.add_argument("--images", required=True, type=Path)
parser.add_argument("--out", required=True, type=Path)
parser.add_argument("--threshold", type=float, default=0.5)
options = parser.parse_args()

paths = sorted(options.images.glob("*.png"))
still = np.load(options.probabilities)
if len(still) != len(paths):
    raise SystemExit(f"{options.probabilities} has {len(still)} frames, there are {len(paths)} pictures")
for path, values in zip(paths, still):
    size = Image.open(path).size
    whole = [int(side * np.sqrt(384 * 512 / (size[0] * size[1]))) for side in size]
    cut = [side - side % 8 for side in whole]
    seen = size
    if (8 * values.shape[1], 8 * values.shape[0]) == tuple(cut):
        seen = tuple(round(side * kept / made) for side, kept, made in zip(size, cut, whole))
    values = np.asarray(Image.fromarray(values.astype(np.float32)).resize(seen, Image.Resampling.BILINEAR))
    values = np.pad(values, ((0, size[1] - seen[1]), (0, size[0] - seen[0])), mode="edge")
    Image.fromarray(np.where(values < options.threshold, 255, 0).astype(np.uint8)).save(
        options.out / path.name
    )
