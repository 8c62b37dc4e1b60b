"""Features of a whole clip: a small 3-D network that tells camera path, depth, motion and lost detail.

It is trained on exact labels of procedural worlds; the 64 values that its clip heads read are what a Frechet
distance between sets of clips is taken of.

Axes: B batch, T frames, H, W pixels; K = ceil(T / 4) steps in time, h = ceil(H / 16), w = ceil(W / 16) cells:
what is told of step k is told of frame 4 k.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from camctrl_jax.errors import InvalidValue
from camctrl_jax.models.autoencoder import to_unit_range
from camctrl_jax.models.fingerprint import fingerprint_of_weights

STEP = 4  # frames from one step to the next
POSE = 6  # of a relative pose: translation, rotation vector
DEPTH_TIMES = 3  # first, middle and last third of the clip


@dataclass(frozen=True)
class ClipFeaturesConfig:
    """Sizes of the network.

    Attributes:
        channels: of the convolutions at 1/4, 1/8 and 1/16 of height and width.
        pooled: channels that are pooled.
        grid: places (time, height, width) over which a clip of any size is pooled.
        hidden: units between those places and the features.
        features: D.
        height: pixels that a clip is scaled to before it is looked at.
        frames: fewest frames of a clip.
    """

    channels: tuple[int, int, int] = (32, 64, 96)
    pooled: int = 16
    grid: tuple[int, int, int] = (4, 3, 5)
    hidden: int = 192
    features: int = 64
    height: int = 96
    frames: int = 17

    def __post_init__(self) -> None:
        for name in ("pooled", "hidden", "features", "height", "frames"):
            if getattr(self, name) < 1:
                raise InvalidValue(f"ClipFeaturesConfig.{name}={getattr(self, name)}: expected at least 1.")
        for name in ("channels", "grid"):
            value = tuple(getattr(self, name))  # of JSON, a list
            object.__setattr__(self, name, value)
            if len(value) != 3 or min(value) < 1:
                raise InvalidValue(f"ClipFeaturesConfig.{name}={value}: expected three numbers from 1 on.")


class ClipTruth(NamedTuple):
    """What the network tells of clips, or what is true of them: f32, lengths in metres, angles in radians.

    Attributes:
        poses: [B, Q, 6] from the first frame to the frames at the ends of the Q equal parts of the clip
            (``ClipFeaturesConfig.grid[0]`` of them): translation and rotation vector.
        log_depth: [B, 3, gh, gw] of the first, middle and last third, over ``grid[1:]`` places.
        moving: [B, Q] share of pixels that show what moves, in each part.
        detail: [B, Q] logarithm of the gradient energy in each part over that of the true render: 0 where
            nothing is lost, negative under blur, positive under noise.
        step_poses: [B, K, 6] from two frames before step k to two frames after it, within the clip.
        step_log_depth: [B, K, h, w].
        step_moving: [B, K, h, w].
    """

    poses: Array
    log_depth: Array
    moving: Array
    detail: Array
    step_poses: Array
    step_log_depth: Array
    step_moving: Array


# Typical sizes of the above over worlds: outputs of the layers, and errors of the loss, are in these units.
UNITS = {
    "poses": (0.3, 0.3, 0.3, 0.05, 0.05, 0.05),  # times the number of the part: paths go on
    "log_depth": 0.45,
    "moving": 0.05,
    "detail": 0.5,
    "step_poses": (0.1, 0.1, 0.1, 0.02, 0.02, 0.02),
    "step_log_depth": 0.45,
    "step_moving": 0.2,
}
_MEAN_LOG_DEPTH, _MEAN_MOVING = 2.0, 0.09


def in_units(truth: ClipTruth) -> ClipTruth:
    """Every field from 0 by about 1."""
    parts = jnp.arange(1, truth.poses.shape[1] + 1, dtype=jnp.float32)[:, None]
    return ClipTruth(
        truth.poses / (parts * jnp.asarray(UNITS["poses"])),
        (truth.log_depth - _MEAN_LOG_DEPTH) / UNITS["log_depth"],
        (truth.moving - _MEAN_MOVING) / UNITS["moving"],
        truth.detail / UNITS["detail"],
        truth.step_poses / jnp.asarray(UNITS["step_poses"]),
        (truth.step_log_depth - _MEAN_LOG_DEPTH) / UNITS["step_log_depth"],
        (truth.step_moving - _MEAN_MOVING) / UNITS["step_moving"],
    )


def from_units(scaled: ClipTruth) -> ClipTruth:
    """The inverse of :func:`in_units`."""
    parts = jnp.arange(1, scaled.poses.shape[1] + 1, dtype=jnp.float32)[:, None]
    return ClipTruth(
        scaled.poses * (parts * jnp.asarray(UNITS["poses"])),
        scaled.log_depth * UNITS["log_depth"] + _MEAN_LOG_DEPTH,
        scaled.moving * UNITS["moving"] + _MEAN_MOVING,
        scaled.detail * UNITS["detail"],
        scaled.step_poses * jnp.asarray(UNITS["step_poses"]),
        scaled.step_log_depth * UNITS["step_log_depth"] + _MEAN_LOG_DEPTH,
        scaled.step_moving * UNITS["step_moving"] + _MEAN_MOVING,
    )


def pooled(x: Array, axis: int, places: int) -> Array:
    """Means over ``places`` equal stretches of an axis of any length; they overlap where it is not divisible,
    and repeat where it is shorter.
    """
    length = x.shape[axis]
    weights = np.zeros((places, length), np.float32)
    for place in range(places):
        start, stop = place * length // places, -(-(place + 1) * length // places)
        weights[place, start:stop] = 1.0 / (stop - start)
    moved = jnp.tensordot(jnp.asarray(weights, x.dtype), x, axes=(1, axis))
    return jnp.moveaxis(moved, 0, axis)


class _Residual(nn.Module):
    """x + conv(gelu(norm(x)))."""

    dtype: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        y = nn.gelu(nn.RMSNorm(dtype=self.dtype, name="norm")(x))
        return x + nn.Conv(x.shape[-1], (3, 3, 3), dtype=self.dtype, name="conv")(y)


class ClipFeatureNetwork(nn.Module):
    """Convolutions over time and space, then heads: of every step and cell, and of the clip as a whole.

    Attributes:
        config: sizes.
        dtype: of convolutions; what follows the pooling is float32.
    """

    config: ClipFeaturesConfig
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, video: Array) -> tuple[Array, ClipTruth]:
        """f [B, T, H, W, 3] in [-1, 1] to (features f32 [B, D], what is told, :func:`in_units`)."""
        config, dtype = self.config, self.dtype
        quarter, eighth, sixteenth = config.channels
        x = nn.Conv(quarter, (3, 7, 7), (1, 4, 4), dtype=dtype, name="stem")(video.astype(dtype))
        x = nn.gelu(nn.RMSNorm(dtype=dtype, name="stem_norm")(x))
        x = nn.Conv(eighth, (3, 3, 3), (2, 2, 2), dtype=dtype, name="halving_0")(x)
        x = _Residual(dtype, name="residual_0")(x)
        x = nn.gelu(nn.RMSNorm(dtype=dtype, name="halving_norm")(x))
        x = nn.Conv(sixteenth, (3, 3, 3), (2, 2, 2), dtype=dtype, name="halving_1")(x)
        x = _Residual(dtype, name="residual_1")(x)
        x = nn.gelu(nn.RMSNorm(dtype=dtype, name="final_norm")(x)).astype(jnp.float32)  # [B, K, h, w, C]
        return self._clip(x, *self._steps(x))

    def _steps(self, x: Array) -> tuple[Array, Array, Array]:
        """What is told of steps [B, K, 6] and their cells [B, K, h, w, 2]; places [B, K, gh, gw, pooled]."""
        cells = nn.Dense(2, name="cell_head")(x)
        few = nn.Dense(self.config.pooled, name="pooling")(x)
        places = pooled(pooled(few, 2, self.config.grid[1]), 3, self.config.grid[2])
        flat = places.reshape(*places.shape[:2], -1)
        return (
            nn.Dense(POSE, name="step_head")(nn.gelu(nn.Dense(64, name="step_hidden")(flat))),
            cells,
            places,
        )

    def _clip(self, x: Array, steps: Array, cells: Array, places: Array) -> tuple[Array, ClipTruth]:
        config, batch = self.config, len(x)
        parts, height, width = config.grid
        flat = pooled(places, 1, parts).reshape(batch, -1)
        features = nn.Dense(config.features, name="features")(
            nn.gelu(nn.Dense(config.hidden, name="hidden")(flat))
        )
        told = ClipTruth(
            nn.Dense(parts * POSE, name="pose_head")(features).reshape(batch, parts, POSE),
            nn.Dense(DEPTH_TIMES * height * width, name="depth_head")(features).reshape(
                batch, DEPTH_TIMES, height, width
            ),
            nn.Dense(parts, name="moving_head")(features),
            nn.Dense(parts, name="detail_head")(features),
            steps,
            cells[..., 0],
            cells[..., 1],
        )
        return features, told

    def init_params(self, key: Array) -> Any:
        """Fresh parameters, f32."""
        video = jnp.zeros((1, self.config.frames, self.config.height, 2 * self.config.height, 3))
        return jax.jit(self.init)(key, video)["params"]

    def abstract_params(self) -> Any:
        """Their shapes and dtypes, nothing computed."""
        return jax.eval_shape(self.init_params, jax.random.key(0))


# Layers whose outputs, of unit root mean square over channels, tell how alike two clips look.
_MAPS = ("stem_norm", "halving_norm", "final_norm")


def perceptual_distance(network: ClipFeatureNetwork, params: Any, video: Array, truth: Array) -> Array:
    """How unlike two batches of clips look to the network: f32 [], 0 where they are equal.

    The mean squared difference of its normalised maps at 1/4, 1/8 and 1/16 of height and width, mean over the
    three, as LPIPS does with a network for photographs. Differentiable in ``video``; heads are not computed.

    Args:
        network: the module.
        params: its trained parameters.
        video, truth: f [B, T, H, W, 3] in [-1, 1].
    """

    def maps(clips: Array) -> dict[str, Any]:
        kept = network.apply(
            {"params": params},
            clips,
            capture_intermediates=lambda module, _: module.name in _MAPS,
            mutable=["intermediates"],
        )[1]["intermediates"]
        return {name: kept[name]["__call__"][0].astype(jnp.float32) for name in _MAPS}

    seen, true = maps(video), maps(truth)
    return sum(jnp.square(seen[name] - true[name]).mean() for name in _MAPS) / len(_MAPS)


@partial(jax.jit, static_argnames="network")
def _looked_at(params: Any, video: Array, *, network: ClipFeatureNetwork) -> tuple[Array, ClipTruth]:
    height = network.config.height
    frames = to_unit_range(video)
    if video.shape[2] != height:
        size = (height, max(1, round(video.shape[3] * height / video.shape[2])))
        frames = jax.image.resize(frames, (*video.shape[:2], *size, 3), "linear")  # antialiased
    # The same numbers on every machine: accelerators round products of float32 otherwise.
    with jax.default_matmul_precision("highest"):
        features, told = network.apply({"params": params}, frames)
    return features, from_units(told)


@dataclass(frozen=True)
class ClipFeatures:
    """The trained network, ready to look at clips.

    Attributes:
        config, params: the network.
        batch_size: clips in one call, which bounds memory; results do not depend on it, up to rounding.
    """

    config: ClipFeaturesConfig
    params: Any
    batch_size: int = 8

    def features(self, video: np.ndarray | Array) -> np.ndarray:
        """Features f64 [N, D] of u8 clips [N, T, H, W, 3].

        Clips are scaled to ``config.height`` pixels of height, at the aspect that they have; so clips of
        another size compare, and finer detail than that is not seen. The network knows 12 frames a second.

        Raises:
            InvalidValue: not such an array, or clips that are too small or too short.
        """
        return np.concatenate([features for features, _ in self._batches(video)]).astype(np.float64)

    def told(self, video: np.ndarray | Array) -> ClipTruth:
        """What the network tells of u8 clips [N, T, H, W, 3]; its fields as NumPy arrays."""
        return jax.tree.map(lambda *parts: np.concatenate(parts), *[told for _, told in self._batches(video)])

    def fingerprint(self) -> str:
        """Identifies network and parameters: only features of equal fingerprints compare."""
        return fingerprint_of_weights(self.config, self.params)

    def _batches(self, video: np.ndarray | Array) -> Iterator[tuple[np.ndarray, ClipTruth]]:
        self._check(video)
        network, size = ClipFeatureNetwork(self.config), min(self.batch_size, len(video))
        for start in range(0, len(video), size):
            part = video[start : start + size]
            missing = size - len(part)
            if missing:  # one shape, one compilation
                part = jnp.concatenate([part, jnp.repeat(part[-1:], missing, axis=0)])
            found = jax.device_get(_looked_at(self.params, part, network=network))
            yield jax.tree.map(lambda x, count=size - missing: x[:count], found)

    def _check(self, video: np.ndarray | Array) -> None:
        config, shape = self.config, tuple(np.shape(video))
        if len(shape) != 5 or shape[-1] != 3 or not len(video) or video.dtype != np.uint8:
            raise InvalidValue(
                f"clips have shape {list(shape)} and dtype {video.dtype}; expected u8 [N, T, H, W, 3], with "
                "N >= 1."
            )
        if shape[1] < config.frames or min(shape[2:4]) < config.height:
            raise InvalidValue(
                f"clips are {shape[1]} frames of {shape[2]}x{shape[3]} pixels; these features need at least "
                f"{config.frames} frames of at least {config.height} pixels in height and width."
            )
