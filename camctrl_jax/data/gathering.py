"""From clips in device memory and a table of picks to a batch, in one program on the devices."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from camctrl_jax.clip_shape import latents_of
from camctrl_jax.data.stream import COARSE_TRUTH, Batch


def _relative(first: Array, poses: Array) -> Array:
    """Poses f32 [B, N, 4, 4] seen from cameras of pose [B, 1, 4, 4].

    The rigid inverse of the first pose times every pose; float32 on values of a few metres, written out so
    that no backend's reduced matmul precision touches geometry.
    """
    rotation = jnp.swapaxes(first[..., :3, :3], -1, -2)
    turned = jnp.sum(rotation[..., :, :, None] * poses[:, :, None, :3, :3], axis=-2)
    moved = jnp.sum(rotation * (poses[:, :, :3, 3] - first[:, :, :3, 3])[..., None, :], axis=-1)
    top = jnp.concatenate([turned, moved[..., None]], axis=-1)
    bottom = jnp.broadcast_to(jnp.asarray([0.0, 0.0, 0.0, 1.0], poses.dtype), (*top.shape[:2], 1, 4))
    return jnp.concatenate([top, bottom], axis=-2)


def shapes_of_batch(
    arrays: Mapping[str, jax.ShapeDtypeStruct], size: int, frames: int, retrieved: int = 0
) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and dtypes of a batch of ``size`` clips of ``frames`` that shows ``retrieved`` frames beside.

    Args:
      arrays: those of the clips, of any number of them.
    """
    picks = jax.ShapeDtypeStruct((size, 5 + latents_of(frames) + retrieved), jnp.int32)
    return jax.eval_shape(partial(gather_batch, frames=frames), dict(arrays), picks)


def gather_batch(
    arrays: dict[str, Array], picks: Array, *, frames: int, shared_reference: bool = False
) -> Batch:
    """One batch. ``picks`` i32 [B, 5 + L + R]: clip, caption, first frame, camera valid, text dropped,
    condition mask, candidates that are retrieved. With ``shared_reference`` samples with two or more
    condition latents keep their stored poses.
    """
    clip, caption, start = picks[:, 0], picks[:, 1], picks[:, 2]
    latents = latents_of(frames)

    def window(array: Array, length: int) -> Array:
        """[B, length, ...]: frames start .. start + length of the chosen clips."""
        sizes = (1, length, *array.shape[2:])
        zeros = (0,) * (array.ndim - 2)
        return jax.vmap(lambda c, s: lax.dynamic_slice(array, (c, s, *zeros), sizes)[0])(clip, start)

    batch: Batch = {}
    if "video" in arrays:
        batch["video"] = window(arrays["video"], frames)
    else:
        batch["latents"] = window(arrays["latents"], latents)  # start is 0: a prefix of the clip's latents
    poses = window(arrays["world_from_camera"], frames)  # [B, T, 4, 4]
    extends = jnp.sum(picks[:, 5 : 5 + latents], axis=1) > 1
    kept = (extends & shared_reference)[:, None, None, None]
    first = (jnp.arange(frames) == 0)[None, :, None, None]
    relative = jnp.where(first, jnp.eye(4), _relative(poses[:, :1], poses))
    batch["world_from_camera"] = jnp.where(kept, poses, relative)
    if "retrieved_latents" in arrays:
        places = clip[:, None], picks[:, 5 + latents :]  # [B, R]
        batch |= {name: array[places] for name, array in arrays.items() if name.startswith("retrieved_")}
        elsewhere = batch["retrieved_world_from_camera"]
        relative = _relative(poses[:, :1], elsewhere)
        batch["retrieved_world_from_camera"] = jnp.where(kept, elsewhere, relative)
    batch["intrinsics"] = window(arrays["intrinsics"], frames)
    for name in COARSE_TRUTH:
        if name in arrays:
            batch[name] = window(arrays[name], frames).astype(jnp.float32)
    batch["camera_valid"] = picks[:, 3].astype(bool)
    batch["condition_mask"] = picks[:, 5 : 5 + latents].astype(bool)
    dropped = picks[:, 4].astype(bool)
    text = jnp.where(dropped[:, None, None], arrays["empty_text"], arrays["text"][clip, caption])
    batch["text"] = text.astype(jnp.float32)
    batch["text_mask"] = jnp.where(dropped[:, None], arrays["empty_mask"], arrays["text_mask"][clip, caption])
    batch["clip_index"] = clip
    return batch
