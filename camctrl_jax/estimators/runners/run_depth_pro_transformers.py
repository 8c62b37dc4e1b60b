"""Metric depth of a clip by DepthProForDepthEstimation of transformers.

  python run_depth_pro_transformers.py --weights FOLDER --images DIR --work DIR --out DIR

Needs torch, transformers, numpy and Pillow; nothing is downloaded. The class takes no focal length: depth is
made of what it predicts, W / f times the inverse of a metre, with the true f where WORK/intrinsics.npy (fx/W,
...) gives it and with its own, which goes to OUT/focal_px.npy, where not. Writes one npy f32 [H, W] a
picture, metres.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import DepthProForDepthEstimation

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--weights", required=True)
parser.add_argument("--images", required=True, type=Path)
parser.add_argument("--work", required=True, type=Path)
parser.add_argument("--out", required=True, type=Path)
options = parser.parse_args()

device = "cuda" if torch.cuda.is_available() else "cpu"
model = DepthProForDepthEstimation.from_pretrained(options.weights, local_files_only=True).to(device).eval()
side = round(model.config.patch_size / min(model.config.scaled_images_ratios))  # 1536 as published
known = options.work / "intrinsics.npy"
intrinsics = np.load(known) if known.exists() else None
focals = []
with torch.no_grad():
    for index, path in enumerate(sorted(options.images.glob("*.png"))):
        pixels = np.array(Image.open(path).convert("RGB"), np.float32) / 127.5 - 1.0
        height, width = pixels.shape[:2]
        picture = torch.from_numpy(pixels).permute(2, 0, 1)[None].to(device)
        picture = torch.nn.functional.interpolate(picture, (side, side), mode="bilinear", align_corners=False)
        found = model(pixel_values=picture)
        if intrinsics is not None:
            focal = float(intrinsics[index, 0]) * width
        else:
            angle = torch.deg2rad(found.field_of_view.float().reshape(()))
            focal = float(0.5 * width / torch.tan(0.5 * angle))
        focals.append(focal)
        inverse = found.predicted_depth.float()[:, None] * (width / focal)
        inverse = torch.nn.functional.interpolate(
            inverse, (height, width), mode="bilinear", align_corners=False
        )
        depth = 1.0 / inverse[0, 0].clamp(1e-4, 1e4)
        np.save(options.out / f"{path.stem}.npy", depth.cpu().numpy().astype(np.float32))
if intrinsics is None:
    np.save(options.out / "focal_px.npy", np.array(focals))
