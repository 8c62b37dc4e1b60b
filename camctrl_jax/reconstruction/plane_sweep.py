"""Dense depth of pictures with known cameras: a plane sweep in JAX, without weights.

For each pixel of a reference picture and each of many depths, uniform in inverse depth, the other pictures
are looked up where that point would be seen, and compared by zero-mean normalised cross-correlation of small
windows (the plane sweep of Collins, CVPR 1996; the score as in Schönberger et al., ECCV 2016). The mean of
the better half of the views is taken, so that a view in which the point is hidden does not count against it;
a parabola through the best plane and its neighbours gives the depth between planes.

A depth is believed where other pictures, swept on their own, say the same within a few per cent
(:func:`agreement`). What is wrong in one picture is wrong otherwise in the next: of all rules here this one
throws out most of what is false.

All functions are pure. Poses are world-from-camera f64 or f32 [4, 4] with OpenCV axes, lenses fx/W, fy/H,
cx/W, cy/H; depth is z-depth in the unit of the poses; pixel centres lie at +0.5.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

_LEAST_SPREAD = 0.004  # standard deviation of a window that can be told from its neighbours, of grey 0 to 1


def projections(
    pose: np.ndarray, lens: np.ndarray, poses: np.ndarray, lenses: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Matrices f32 [S, 3, 4] from pixels and inverse depth of one view to homogeneous pixels of others.

    A point at pixel (u, v) and inverse depth w of the view is seen by another at ``M @ (u, v, 1, w)``, whose
    third coordinate is the depth there over the depth here.

    Args:
        pose [4, 4], lens [4]: the view; poses [S, 4, 4], lenses [S, 4]: the others.
        size: (height, width) of all of them.
    """
    height, width = size
    pixels = np.array([width, height, width, height], np.float64)

    def matrix(lens: np.ndarray) -> np.ndarray:
        fx, fy, cx, cy = np.asarray(lens, np.float64) * pixels
        return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])

    back = np.linalg.inv(matrix(lens))
    made = []
    for other, other_lens in zip(np.asarray(poses, np.float64), lenses, strict=True):
        there = np.linalg.inv(other) @ np.asarray(pose, np.float64)
        there = matrix(other_lens) @ there[:3]
        made.append(np.concatenate([there[:, :3] @ back, there[:, 3:]], axis=1))
    return np.array(made).astype(np.float32).reshape(-1, 3, 4)


def _pixels(height: int, width: int) -> tuple[jax.Array, jax.Array]:
    v, u = jnp.meshgrid(jnp.arange(height) + 0.5, jnp.arange(width) + 0.5, indexing="ij")
    return u, v


def _corners(picture: jax.Array) -> jax.Array:
    """Each pixel with its right, lower and lower right neighbours, [H * W, 4]: one look-up gets all four."""
    right = jnp.concatenate([picture[:, 1:], picture[:, -1:]], axis=1)
    both = jnp.stack([picture, right], axis=-1)
    below = jnp.concatenate([both[1:], both[-1:]], axis=0)
    return jnp.concatenate([both, below], axis=-1).reshape(-1, 4)


def _sampled(corners: jax.Array, size: tuple[int, int], x: jax.Array, y: jax.Array) -> jax.Array:
    """Bilinear values at pixel coordinates (centres at +0.5), which lie inside."""
    height, width = size
    x, y = jnp.clip(x - 0.5, 0.0, width - 1.0), jnp.clip(y - 0.5, 0.0, height - 1.0)
    left, top = jnp.floor(x), jnp.floor(y)
    a, b = x - left, y - top
    index = top.astype(jnp.int32) * width + left.astype(jnp.int32)
    four = corners.at[index].get(mode="promise_in_bounds")
    upper = four[..., 0] * (1 - a) + four[..., 1] * a
    lower = four[..., 2] * (1 - a) + four[..., 3] * a
    return upper * (1 - b) + lower * b


def _summed(maps: jax.Array, radius: int) -> jax.Array:
    """Means over windows of 2 radius + 1 pixels a side, [..., H, W]; at the edge over what there is."""
    for axis in (-1, -2):
        pad = [(0, 0)] * maps.ndim
        pad[axis] = (radius, radius)
        wide, size = jnp.pad(maps, pad), maps.shape[axis]
        maps = sum(jax.lax.slice_in_dim(wide, k, k + size, axis=axis) for k in range(2 * radius + 1))
        # Zeros beyond the edge, counted in, would be an edge that all pictures share, whatever they show.
        place = np.arange(size)
        inside = np.minimum(place + radius, size - 1) - np.maximum(place - radius, 0) + 1
        shape = [1] * maps.ndim
        shape[axis] = size
        maps = maps / inside.reshape(shape).astype(np.float32)
    return maps


@partial(jax.jit, static_argnames=("radius", "best"))
def sweep(
    reference: jax.Array,
    sources: jax.Array,
    matrices: jax.Array,
    inverse_depths: jax.Array,
    usable: jax.Array,
    seen: jax.Array,
    *,
    radius: int = 2,
    best: int = 2,
) -> tuple[jax.Array, jax.Array]:
    """Inverse depth and score of every pixel of one picture.

    Args:
        reference: f32 [H, W], grey, 0 to 1.
        sources: f32 [S, H, W].
        matrices: f32 [S, 3, 4], see :func:`projections`.
        inverse_depths: f32 [D], increasing, D at least 3.
        usable: bool [D, S]: which sources tell something of which plane.
        seen: bool [S, H, W]: pixels of the sources that count (not of moving things).
        radius: of the windows, pixels.
        best: so many of the best views are averaged.

    Returns:
        f32 [H, W] each: inverse depth, NaN where no plane has a score or the best is the first or the last
        one; the mean correlation there, -1 to 1.
    """
    height, width = reference.shape
    u, v = _pixels(height, width)
    across = matrices[:, :, 0, None, None] * u + matrices[:, :, 1, None, None] * v
    across = across + matrices[:, :, 2, None, None]  # [S, 3, H, W]
    corners = jax.vmap(_corners)(sources - 0.5)
    shown = jax.vmap(_corners)(seen.astype(jnp.float32))
    masked = ~seen.all()
    here = reference - 0.5
    mean = _summed(here, radius)
    spread = jnp.maximum(_summed(here * here, radius) - mean * mean, 0.0)
    textured = spread > _LEAST_SPREAD**2
    sample = jax.vmap(lambda four, x, y: _sampled(four, (height, width), x, y))

    def scores(args: tuple[jax.Array, jax.Array]) -> jax.Array:
        inverse, use = args
        x, y, z = jnp.moveaxis(across + matrices[:, :, 3, None, None] * inverse, 1, 0)
        ahead = z > 1e-3
        x, y = x / jnp.where(ahead, z, 1.0), y / jnp.where(ahead, z, 1.0)
        inside = ahead & (x >= 0) & (x <= width) & (y >= 0) & (y <= height) & use[:, None, None]
        other = sample(corners, x, y)
        inside = inside & jax.lax.cond(
            masked, lambda: sample(shown, x, y) > 0.99, lambda: jnp.ones(inside.shape, bool)
        )
        sums = _summed(jnp.stack([other, other * other, other * here]), radius)
        variance = jnp.maximum(sums[1] - sums[0] ** 2, 0.0)
        likeness = (sums[2] - sums[0] * mean) * jax.lax.rsqrt(jnp.maximum(variance * spread, 1e-12))
        likeness = jnp.where(inside & (variance > _LEAST_SPREAD**2), jnp.clip(likeness, -1.0, 1.0), -1.0)
        return _mean_of_best(likeness, best)

    volume = jax.lax.map(scores, (inverse_depths, usable))  # [D, H, W]
    return _peak(volume, inverse_depths, textured)


def _mean_of_best(likeness: jax.Array, best: int) -> jax.Array:
    """The mean [H, W] of the ``best`` largest of [S, H, W]; by a network of exchanges, S is small."""
    rows = list(likeness)
    best = min(best, len(rows))
    for taken in range(best):
        for other in range(len(rows) - 1, taken, -1):
            low, high = jnp.minimum(rows[other - 1], rows[other]), jnp.maximum(rows[other - 1], rows[other])
            rows[other - 1], rows[other] = high, low
    return sum(rows[:best]) / best


def _peak(volume: jax.Array, inverse_depths: jax.Array, textured: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The place between planes and the height of the highest score, [H, W] each."""
    planes = len(inverse_depths)
    place = jnp.argmax(volume, axis=0)
    inner = jnp.clip(place, 1, planes - 2)
    low, middle, high = (jnp.take_along_axis(volume, (inner + step)[None], axis=0)[0] for step in (-1, 0, 1))
    bend = low - 2.0 * middle + high
    shift = jnp.where(bend < -1e-6, 0.5 * (low - high) / jnp.where(bend < -1e-6, bend, -1.0), 0.0)
    shift = jnp.clip(shift, -0.5, 0.5)
    gap = jnp.where(shift > 0, inverse_depths[inner + 1], inverse_depths[inner - 1]) - inverse_depths[inner]
    found = inverse_depths[inner] + jnp.abs(shift) * gap
    good = textured & (place == inner) & (middle > -0.5)
    return jnp.where(good, found, jnp.nan), jnp.where(good, middle, -1.0)


@jax.jit
def agreement(
    inverse: jax.Array, others: jax.Array, matrices: jax.Array, tolerance: float
) -> tuple[jax.Array, jax.Array]:
    """In how many other pictures a pixel's depth is found again, and the mean of all that agree.

    Args:
        inverse: f32 [H, W] inverse depth of one picture, NaN where unknown.
        others: f32 [S, H, W], of the others, each in its own camera.
        matrices: f32 [S, 3, 4], from this picture to the others.
        tolerance: of depth, relative.

    Returns:
        i32 [H, W], other pictures that agree; f32 [H, W], the mean inverse depth in this picture's camera of
        all of them and its own.
    """
    height, width = inverse.shape
    u, v = _pixels(height, width)
    known = jnp.isfinite(inverse)
    own = jnp.where(known, inverse, 1.0)

    def look(carry, args):
        count, total = carry
        other, there = args
        x, y, z = (there[i, 0] * u + there[i, 1] * v + there[i, 2] + there[i, 3] * own for i in range(3))
        ahead = z > 1e-3
        safe = jnp.where(ahead, z, 1.0)
        x, y = x / safe, y / safe
        inside = ahead & (x >= 0) & (x < width) & (y >= 0) & (y < height)
        # The nearest pixel: between two depths there may be nothing.
        column = jnp.clip(x.astype(jnp.int32), 0, width - 1)
        row = jnp.clip(y.astype(jnp.int32), 0, height - 1)
        told = other[row, column]  # inverse depth of what is seen there
        expected = own / safe
        agrees = known & inside & (jnp.abs(told - expected) <= tolerance * expected)
        # Depth there follows from depth here along the ray of this pixel; the other estimate is taken back
        # along it by the ratio of both, which is exact for a surface that is even over half a pixel.
        count = count + agrees
        total = total + jnp.where(agrees, own * told / jnp.where(agrees, expected, 1.0), 0.0)
        return (count, total), None

    start = (jnp.zeros(inverse.shape, jnp.int32), own)
    (count, total), _ = jax.lax.scan(look, start, (others, matrices))
    return count, jnp.where(known, total / (count + 1.0), jnp.nan)
