"""Small batches of every kind, with the fields of the data room."""

import numpy as np

FRAMES, LATENTS, HEIGHT, WIDTH = 9, 3, 4, 6  # latent height and width; pixels are eight times as many
TEXT_TOKENS, TEXT_DIM = 4, 64


def batch_of(count, *, seed=0, frames=FRAMES, labelled=None, images_of=False, retrieved=0):
    """A batch with ``latents`` around one colour, or (``images_of``) with u8 ``video`` of fading patches; and
    with latents of ``retrieved`` frames, seen from the first poses.
    """
    rng = np.random.default_rng(seed)
    latents = (frames - 1) // 4 + 1
    poses = np.tile(np.eye(4, dtype=np.float32), (count, frames, 1, 1))
    poses[:, :, :3, 3] = np.cumsum(rng.normal(size=(count, frames, 3)) * 0.1, axis=1)
    poses[:, 0, :3, 3] = 0
    batch = {
        "world_from_camera": poses,
        "intrinsics": np.tile(np.float32([0.6, 1.0, 0.5, 0.5]), (count, frames, 1)),
        "camera_valid": np.arange(count) % 5 != 4 if labelled is None else np.full(count, labelled),
        "condition_mask": (np.arange(latents) < 1)[None]
        & (np.arange(count) % 2 == 1)[:, None]
        & (latents > 1),
        "text": rng.normal(size=(count, TEXT_TOKENS, TEXT_DIM)).astype(np.float32),
        "text_mask": np.arange(TEXT_TOKENS)[None] < rng.integers(1, TEXT_TOKENS + 1, count)[:, None],
        "clip_index": np.arange(count, dtype=np.int32),
    }
    if images_of:
        small = rng.random((count, 1, 2, 3, 3))
        video = np.repeat(np.repeat(small, HEIGHT * 4, axis=2), WIDTH * 8 // 3, axis=3)
        fade = np.linspace(1.0, 0.6, frames)[None, :, None, None, None]
        return batch | {"video": np.uint8(255 * video * fade)}
    content = np.sign(rng.normal(size=16)) + 0.3 * rng.normal(size=(count, latents, HEIGHT, WIDTH, 16))
    batch = batch | {"latents": content.astype(np.float16)}
    if retrieved:
        batch |= {
            "retrieved_latents": rng.normal(size=(count, retrieved, HEIGHT, WIDTH, 16)).astype(np.float16),
            "retrieved_world_from_camera": poses[:, 1 : 1 + retrieved],
            "retrieved_intrinsics": batch["intrinsics"][:, :retrieved],
        }
    return batch
