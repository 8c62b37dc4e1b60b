"""Masks from the motion_prob.npy of MegaSaM, [T, h, w], low where things move.

  python run_megasam_masks.py motion_prob.npy --images DIR --out DIR --threshold 0.5

Needs numpy and Pillow. Enlarges to the size of the pictures; writes 255 = moving under their names.
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
    values = np.asarray(Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.BILINEAR))
    Image.fromarray(np.where(values < options.threshold, 255, 0).astype(np.uint8)).save(
        options.out / path.name
    )
