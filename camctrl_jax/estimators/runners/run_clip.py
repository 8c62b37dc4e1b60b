"""Embeddings of the pictures of a clip by CLIP.

  python run_clip.py --weights FOLDER --images DIR --out DIR

Needs torch, transformers, numpy and Pillow; nothing is downloaded. Writes OUT/embeddings.npy, f32 [T, D].
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import CLIPVisionModelWithProjection

# What CLIP's pictures were normalised by in training.
MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
SPREAD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--weights", required=True)
parser.add_argument("--images", required=True, type=Path)
parser.add_argument("--out", required=True, type=Path)
options = parser.parse_args()

device = "cuda" if torch.cuda.is_available() else "cpu"
model = (
    CLIPVisionModelWithProjection.from_pretrained(options.weights, local_files_only=True).to(device).eval()
)
side = model.config.image_size
embeddings = []
with torch.no_grad():
    for path in sorted(options.images.glob("*.png")):
        picture = Image.open(path).convert("RGB")
        scale = side / min(picture.size)
        size = [max(side, round(scale * length)) for length in picture.size]
        picture = picture.resize(size, Image.Resampling.BICUBIC)
        left, top = (size[0] - side) // 2, (size[1] - side) // 2
        picture = picture.crop((left, top, left + side, top + side))
        pixels = (np.asarray(picture, np.float32) / 255.0 - MEAN) / SPREAD
        pixels = torch.from_numpy(pixels).permute(2, 0, 1)[None].to(device)
        embeddings.append(model(pixel_values=pixels).image_embeds[0].float().cpu().numpy())
np.save(options.out / "embeddings.npy", np.stack(embeddings))
