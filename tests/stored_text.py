"""Files of precomputed text without a text encoder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from camctrl_jax.data.text import TEXT_FORMAT, TEXT_FORMAT_VERSION
from camctrl_jax.files.safetensors import write_safetensors


def write_text_file(
    path: Path, embeddings: Mapping[str, np.ndarray], max_tokens: int, texts_per_part: int = 2
) -> Path:
    """Write embeddings [n, D] of texts as ``python -m camctrl_jax.encode_text`` does; returns the path."""
    texts = list(embeddings)
    tensors = {
        "texts": np.frombuffer(json.dumps(texts).encode(), np.uint8),
        "counts": np.asarray([len(embeddings[text]) for text in texts], np.int32),
    }
    for part, start in enumerate(range(0, len(texts), texts_per_part)):
        own = texts[start : start + texts_per_part]
        tensors[f"tokens.{part:05d}"] = np.concatenate([embeddings[text] for text in own]).astype(np.float16)
    metadata = {
        "format": TEXT_FORMAT,
        "format_version": TEXT_FORMAT_VERSION,
        "texts_per_part": str(texts_per_part),
        "max_tokens": str(max_tokens),
    }
    write_safetensors(path, tensors, metadata)
    return path
