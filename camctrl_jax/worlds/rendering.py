"""An analytic ray caster for worlds in JAX: the same code renders on CPU, GPU and TPU.

Pictures of one world with all their truth, and of many worlds in bulk. How rays meet solids is in ``rays``,
which solids they visit in ``culling``, how hits look in ``shading``, and the truth of pixels in ``truth``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from camctrl_jax.errors import InvalidValue
from camctrl_jax.worlds.culling import Culling, default_culling, in_view, visited
from camctrl_jax.worlds.rays import (
    FAR,
    at_frame,
    directions,
    hit_points,
    lookup,
    nearest_hits,
    rotate,
    rotate_back,
    sunlight,
    unpack_hit,
)
from camctrl_jax.worlds.scene import SLOTS, World
from camctrl_jax.worlds.shading import color_pass, displayed, light_pass, paint_pass
from camctrl_jax.worlds.stacking import check_size, stack_worlds
from camctrl_jax.worlds.truth import CELL, FARTHEST, render_coarse_truth, render_truth

__all__ = [
    "CELL",
    "FAR",
    "FARTHEST",
    "Frames",
    "at_frame",
    "directions",
    "hit_points",
    "in_view",
    "iterate_rgb",
    "iterate_rgb_on_host",
    "lookup",
    "nearest_hits",
    "render",
    "render_coarse_truth",
    "render_rgb",
    "render_truth",
    "rotate",
    "rotate_back",
    "stack_worlds",
    "sunlight",
    "unpack_hit",
]


@dataclass(frozen=True)
class Frames:
    """Rendered frames with their exact truth, on the host. H, W pixels; pixel centres at +0.5.

    * ``rgb`` u8 [T, H, W, 3]
    * ``depth`` f32 [T, H, W]: z-depth of the pixel centre's ray, metres; the sky is ``inf``
    * ``instances`` i32 [T, H, W]: 0 sky, 1 ground, slot + 1 for the rest (``World.instance_names``)
    * ``moving`` bool [T, H, W]: the object seen there moves between frames t and t + 1
    * ``flow`` f32 [T-1, H, W, 2]: where the point seen at a pixel centre of frame t is in frame t + 1, minus
      that centre; pixels, u right, v down. The sky flows as points at infinity. 0 where the point passes
      behind the camera
    * ``occluded`` bool [T-1, H, W]: that point is not seen in frame t + 1: hidden, out of the image or behind
    """

    rgb: np.ndarray
    depth: np.ndarray
    instances: np.ndarray
    moving: np.ndarray
    flow: np.ndarray
    occluded: np.ndarray


def render(world: World, height: int, width: int, samples: int = 2) -> Frames:
    """Render a world with all its truth; arrays on the host.

    ``samples`` squared rays per pixel are averaged for the colours; the truth is that of the pixel centre.
    """
    check_size(height, width, samples)
    rgb = render_rgb([world], height, width, samples)[0]
    return Frames(np.asarray(rgb), *render_truth(world, height, width))


def iterate_rgb(
    worlds: Sequence[World],
    height: int,
    width: int,
    samples: int = 2,
    chunk: int | None = None,
    culling: Culling | None = None,
) -> Iterator[jax.Array]:
    """Yield u8 device arrays [n, T, H, W, 3], ``chunk`` worlds at a time (the last one may be shorter).

    Work memory depends on ``chunk`` alone. By default it keeps about four million rays in flight on an
    accelerator (68 clips of 96x160 with four rays per pixel), and is 1 on a CPU. ``culling`` is how slots of
    places are visited, which changes no pixel; None is what suits the default device.
    """
    check_size(height, width, samples)
    if chunk is None:
        chunk = 1 if jax.default_backend() == "cpu" else max(1, (1 << 22) // (height * width * samples**2))
    if chunk < 1:
        raise InvalidValue(f"chunk is {chunk}; expected at least 1")
    chunk, culling = min(chunk, len(worlds)), culling or default_culling()
    if worlds and worlds[0].scene.slots == SLOTS:
        culling = Culling()  # there is nothing to leave out
    for first in range(0, len(worlds), max(chunk, 1)):
        part = list(worlds[first : first + chunk])
        count = len(part)
        part += part[-1:] * (chunk - count)  # one shape, one compilation
        bands = _bands(height, width, samples, chunk)
        yield _rgb_clips(*stack_worlds(part), height, width, samples, bands, culling)[:count]


def iterate_rgb_on_host(
    worlds: Sequence[World],
    height: int,
    width: int,
    samples: int = 2,
    chunk: int | None = None,
    culling: Culling | None = None,
) -> Iterator[np.ndarray]:
    """As ``iterate_rgb``, as NumPy arrays; the next chunk renders while the caller uses this one."""
    pending = None
    for clips in iterate_rgb(worlds, height, width, samples, chunk, culling):
        if pending is not None:
            yield np.asarray(pending)
        pending = clips
    if pending is not None:
        yield np.asarray(pending)


def render_rgb(
    worlds: Sequence[World],
    height: int,
    width: int,
    samples: int = 2,
    chunk: int | None = None,
    culling: Culling | None = None,
) -> jax.Array:
    """RGB u8 [N, T, H, W, 3] of many worlds, in the memory of the default device.

    Needs that array and the work memory of ``iterate_rgb``; use that where the clips are consumed chunk by
    chunk.
    """
    if not worlds:
        raise InvalidValue("no worlds to render; expected at least one")
    clips, first = None, 0
    for part in iterate_rgb(worlds, height, width, samples, chunk, culling):
        if len(part) == len(worlds):
            return part
        if clips is None:
            clips = jnp.zeros((len(worlds), *part.shape[1:]), jnp.uint8)
        clips, first = _store(clips, part, first), first + len(part)
    return clips


@partial(jax.jit, donate_argnums=0)
def _store(clips, part, first):
    return jax.lax.dynamic_update_slice_in_dim(clips, part, first, axis=0)


def _bands(height: int, width: int, samples: int, worlds: int) -> int:
    """Into how many bands of rows a frame is cut: the rays of one step should stay in a CPU core's cache."""
    limit = 16_384 if jax.default_backend() == "cpu" else 1 << 22
    for bands in range(min(2, height), height + 1):
        if height % bands == 0 and worlds * (height // bands) * width * samples**2 <= limit:
            return bands
    return height


@partial(jax.jit, static_argnums=(3, 4, 5, 6, 7))
def _rgb_clips(scenes, poses, intrinsics, height, width, samples, bands, culling):
    """RGB u8 [N, T, H, W, 3] of N worlds of T frames. ``poses`` f32 [N, T, 4, 4], ``intrinsics`` f32
    [N, T, 4]."""
    worlds, frames = poses.shape[:2]

    def frame(scene, pose, lens):
        return _rgb_frame(scene, pose, lens, height, width, samples, bands, "worlds", culling)

    def clip(scene, poses, intrinsics):
        return jax.lax.map(lambda t: frame(at_frame(scene, t), poses[t], intrinsics[t]), jnp.arange(frames))

    if not culling.by_count:
        return jax.vmap(clip, axis_name="worlds")(scenes, poses, intrinsics)

    def at(number):
        """The scene, pose and lens of one frame, of T x N numbered through."""
        world, t = number // frames, number % frames
        scene = at_frame({name: value[world] for name, value in scenes.items()}, t)
        return scene, poses[world, t], intrinsics[world, t]

    numbers = jnp.arange(worlds * frames).reshape(frames, worlds)
    counts = jax.lax.map(jax.vmap(lambda number: visited(*at(number))), numbers)
    order = jnp.argsort(counts.ravel())
    together = jax.vmap(lambda number: frame(*at(number)), axis_name="worlds")
    pictures = jax.lax.map(together, order.reshape(frames, worlds)).reshape(-1, height, width, 3)
    return pictures[jnp.argsort(order)].reshape(worlds, frames, height, width, 3)


def _rgb_frame(scene, pose, lens, height, width, samples, bands, axis, culling):
    """RGB u8 [H, W, 3] of one world's scene at one frame.

    Every pass is a loop of its own over bands of rows. The results of a loop are stored, so a pass that
    several later expressions need is computed once, and the compiler sees small expressions.
    """
    rows = height // bands
    s = (jnp.arange(samples, dtype=jnp.float32) + 0.5) / samples
    here = in_view(scene, pose, lens, axis, culling)
    eye, camera = pose[:3, 3], pose[:3, :3]
    focal = (lens[0] * width, lens[1] * height)

    def rays(band):
        v = (band * rows + jnp.arange(rows)[None, None, :, None] + s[:, None, None, None]) / height
        u = (jnp.arange(width)[None, None, None, :] + s[None, :, None, None]) / width
        return directions(camera, lens, *jnp.broadcast_arrays(u, v))  # each [samples, samples, rows, W]

    def finish(args):
        band, hits, painted, lighted = args
        colors = color_pass(here, rays(band), hits, painted, lighted)
        colors = jnp.stack([jnp.mean(c, axis=(0, 1)) for c in colors], axis=-1)  # [rows, W, 3]
        return displayed(colors)

    index = jnp.arange(bands)
    hits = jax.lax.map(lambda band: nearest_hits(here, eye, rays(band)), index)
    painted = jax.lax.map(lambda x: paint_pass(here, eye, camera, focal, rays(x[0]), x[1]), (index, hits))
    lighted = jax.lax.map(lambda x: light_pass(here, eye, rays(x[0]), x[1]), (index, hits))
    return jax.lax.map(finish, (index, hits, painted, lighted)).reshape(height, width, 3)
