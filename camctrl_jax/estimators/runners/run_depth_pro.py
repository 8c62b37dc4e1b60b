"""Metric depth of a clip by Apple's Depth Pro, whose own command reads focal lengths from EXIF only.

  python run_depth_pro.py --weights depth_pro.pt --images DIR --work DIR --out DIR

Needs the package depth_pro and Pillow. Where WORK/intrinsics.npy (fx/W, ...) is there, its focal lengths are
used; otherwise the estimated ones go to OUT/focal_px.npy. Writes one npy f32 [H, W] a picture, metres.
"""

import argparse
import dataclasses
from pathlib import Path

import numpy as np
import torch
from depth_pro import create_model_and_transforms
from depth_pro.depth_pro import DEFAULT_MONODEPTH_CONFIG_DICT
from PIL import Image

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--weights", required=True)
parser.add_argument("--images", required=True, type=Path)
parser.add_argument("--work", required=True, type=Path)
parser.add_argument("--out", required=True, type=Path)
options = parser.parse_args()

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
config = dataclasses.replace(DEFAULT_MONODEPTH_CONFIG_DICT, checkpoint_uri=options.weights)
model, transform = create_model_and_transforms(config=config, device=device)
model.eval()
known = options.work / "intrinsics.npy"
intrinsics = np.load(known) if known.exists() else None
focals = []
for index, path in enumerate(sorted(options.images.glob("*.png"))):
    picture = np.array(Image.open(path).convert("RGB"))
    focal = None
    if intrinsics is not None:
        focal = torch.tensor(float(intrinsics[index, 0]) * picture.shape[1], device=device)
    with torch.no_grad():
        found = model.infer(transform(picture), f_px=focal)
    focals.append(float(found["focallength_px"]))
    np.save(options.out / f"{path.stem}.npy", found["depth"].float().cpu().numpy().astype(np.float32))
if intrinsics is None:
    np.save(options.out / "focal_px.npy", np.array(focals))
