"""Optical flow of pairs of pictures by torchvision's RAFT.

  python run_raft_torchvision.py --weights raft_large_C_T_SKHT_V2-ff5fadd5.pth --first DIR --second DIR --out
  DIR

Needs torch, torchvision, numpy and Pillow. Writes one npy f32 [H, W, 2] a pair, in pixels. Pictures whose
sides are not multiples of 8, or shorter than the 128 pixels that it needs, are padded with their border.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.models.optical_flow import raft_large, raft_small

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--weights", required=True)
parser.add_argument("--first", required=True, type=Path)
parser.add_argument("--second", required=True, type=Path)
parser.add_argument("--out", required=True, type=Path)
parser.add_argument("--size", choices=("large", "small"), default="large")
parser.add_argument("--iterations", type=int, default=12)
options = parser.parse_args()

device = "cuda" if torch.cuda.is_available() else "cpu"
model = (raft_large if options.size == "large" else raft_small)(weights=None, progress=False)
model.load_state_dict(torch.load(options.weights, map_location="cpu", weights_only=True))
model.to(device).eval()


def picture(path):
    pixels = np.array(Image.open(path).convert("RGB"), np.float32) / 127.5 - 1.0
    height, width = pixels.shape[:2]
    more = [(0, max(128, -(-side // 8) * 8) - side) for side in (height, width)]
    pixels = np.pad(pixels, (*more, (0, 0)), mode="edge")
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].to(device), (height, width)


with torch.no_grad():
    for path in sorted(options.first.glob("*.png")):
        (a, (height, width)), (b, _) = picture(path), picture(options.second / path.name)
        flow = model(a, b, num_flow_updates=options.iterations)[-1]
        flow = flow[0, :, :height, :width].permute(1, 2, 0).cpu().numpy()
        np.save(options.out / f"{path.stem}.npy", flow.astype(np.float32))
