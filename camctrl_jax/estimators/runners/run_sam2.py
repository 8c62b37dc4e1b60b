"""Masks of a clip by SAM 2, from rough masks of what moves.

  python run_sam2.py --weights sam2.1_hiera_large.pt --config configs/sam2.1/sam2.1_hiera_l.yaml --images DIR
  --masks DIR --out DIR

Runs in SAM 2's environment. In the frame with the largest rough mask, each connected part of at least 0.2 %
of the picture is an object, shown by its box and its middle; all are followed forwards and backwards.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sam2.build_sam import build_sam2_video_predictor

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--weights", required=True)
parser.add_argument("--config", required=True)
parser.add_argument("--images", required=True, type=Path)
parser.add_argument("--masks", required=True, type=Path)
parser.add_argument("--out", required=True, type=Path)
options = parser.parse_args()


def parts(mask, least):
    """Connected parts of a mask [H, W], as lists of (row, column), by filling."""
    left, found = mask.copy(), []
    for row, column in np.argwhere(mask):
        if not left[row, column]:
            continue
        left[row, column] = False
        stack, part = [(row, column)], []
        while stack:
            y, x = stack.pop()
            part.append((y, x))
            for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if 0 <= v < left.shape[0] and 0 <= u < left.shape[1] and left[v, u]:
                    left[v, u] = False
                    stack.append((v, u))
        if len(part) >= least:
            found.append(np.array(part))
    return found


paths = sorted(options.images.glob("*.png"))
rough = np.stack([np.asarray(Image.open(options.masks / path.name).convert("L")) > 0 for path in paths])
moving = np.zeros(rough.shape, bool)
shown = int(rough.sum(axis=(1, 2)).argmax())
objects = parts(rough[shown], 0.002 * rough[shown].size)
if objects:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    predictor = build_sam2_video_predictor(options.config, options.weights, device=device)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        for index, path in enumerate(paths):  # its reader takes JPEG files with numbers as names
            Image.open(path).convert("RGB").save(Path(folder) / f"{index:05d}.jpg", quality=98)
        state = predictor.init_state(video_path=folder)
        for identity, part in enumerate(objects, 1):
            box = np.array([*part.min(axis=0)[::-1], *part.max(axis=0)[::-1]], np.float32)
            middle = part[np.abs(part - part.mean(axis=0)).sum(axis=1).argmin()][::-1]
            predictor.add_new_points_or_box(
                inference_state=state,
                frame_idx=shown,
                obj_id=identity,
                points=np.array([middle], np.float32),
                labels=np.array([1], np.int32),
                box=box,
            )
        for backwards in (False, True):
            for frame, _, logits in predictor.propagate_in_video(state, reverse=backwards):
                moving[frame] |= (logits > 0).any(dim=0)[0].cpu().numpy()
for path, mask in zip(paths, moving):
    Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).save(options.out / path.name)
