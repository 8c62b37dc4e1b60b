"""Optical flow of pairs of pictures by RAFT as its authors publish it, whose demo shows flow but does not
save it.

  python run_raft.py --repository RAFT --weights raft-things.pth --first DIR --second DIR --out DIR

Runs in RAFT's environment. Writes one npy f32 [H, W, 2] a pair, in pixels.
"""

import argparse
import inspect
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--repository", required=True, type=Path)
parser.add_argument("--weights", required=True)
parser.add_argument("--first", required=True, type=Path)
parser.add_argument("--second", required=True, type=Path)
parser.add_argument("--out", required=True, type=Path)
parser.add_argument("--iterations", type=int, default=20)
options = parser.parse_args()

sys.path.insert(0, str(options.repository / "core"))
from raft import RAFT  # noqa: E402
from utils.utils import InputPadder  # noqa: E402

device = "cuda" if torch.cuda.is_available() else "cpu"
model = RAFT(argparse.Namespace(small=False, mixed_precision=False, alternate_corr=False, dropout=0.0))
# Old versions of torch cannot be told to unpickle nothing but numbers.
numbers_only = {"weights_only": True} if "weights_only" in inspect.signature(torch.load).parameters else {}
weights = torch.load(options.weights, map_location="cpu", **numbers_only)
model.load_state_dict({name.removeprefix("module."): value for name, value in weights.items()})
model.to(device).eval()


def picture(path):
    return (
        torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)[None].float().to(device)
    )


with torch.no_grad():
    for path in sorted(options.first.glob("*.png")):
        a, b = picture(path), picture(options.second / path.name)
        padder = InputPadder(a.shape)
        _, flow = model(*padder.pad(a, b), iters=options.iterations, test_mode=True)
        flow = padder.unpad(flow)[0].permute(1, 2, 0).cpu().numpy()
        np.save(options.out / f"{path.stem}.npy", flow.astype(np.float32))
