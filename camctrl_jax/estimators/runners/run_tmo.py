"""Motion masks of a clip by TMO, which has no command line of its own for one.

  python run_tmo.py --repository TMO --weights TMO_rn101.pth --images DIR --out DIR

Runs in TMO's environment. Reads DIR/*.png, writes a mask beside each name: 255 = moving.
"""

import argparse
import inspect
import sys
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--repository", required=True)
parser.add_argument("--weights", required=True)
parser.add_argument("--images", required=True, type=Path)
parser.add_argument("--out", required=True, type=Path)
parser.add_argument("--backbone", default="rn101")
parser.add_argument("--flow", choices=("images",), default="images", help="what the second input is")
options = parser.parse_args()

# Its class fetches a backbone of ImageNet, which its own weights then replace: make it of random numbers.
resnet101 = torchvision.models.resnet101
torchvision.models.resnet101 = lambda pretrained=False, **settings: resnet101(**settings)
sys.path.insert(0, options.repository)
from tmo import TMO  # noqa: E402

device = "cuda" if torch.cuda.is_available() else "cpu"
# TMO(ver, aos) in later versions of the code, TMO() in the first.
arguments = (options.backbone, False)[: len(inspect.signature(TMO.__init__).parameters) - 1]
model = TMO(*arguments).eval()
# Old versions of torch cannot be told to unpickle nothing but numbers.
numbers_only = {"weights_only": True} if "weights_only" in inspect.signature(torch.load).parameters else {}
model.load_state_dict(torch.load(options.weights, map_location="cpu", **numbers_only))
model.to(device)

paths = sorted(options.images.glob("*.png"))
with torch.no_grad():
    for path in paths:  # it judges frame by frame
        picture = np.asarray(Image.open(path).convert("RGB"), np.float32) / 255.0
        picture = torch.from_numpy(picture).permute(2, 0, 1)[None, None].to(device)  # [B, L, 3, H, W]
        mask = model(picture, picture)["masks"][0, 0, 0].cpu().numpy()
        Image.fromarray(np.where(mask > 0, 255, 0).astype(np.uint8)).save(options.out / path.name)
