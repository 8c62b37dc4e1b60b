"""Rectified flow: the interpolant, its velocity, how times are drawn, and the masked loss.

Pure functions over arrays; they know neither the model nor the sampler. Convention: t = 0 is data, t = 1 is
noise, x_t = (1 - t) x_0 + t eps, and the network predicts the velocity v = eps - x_0.

Axes: B batch, L latent frames, h w latent height and width, C channels.
Source: rectified flow (arXiv 2209.03003) with the timestep shift of SD3 (arXiv 2403.03206); the shift
follows the number of video tokens as in APT (arXiv 2501.08316).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from camctrl_jax.errors import InvalidValue

# APT trains 720p two-second clips, 46,800 tokens, with a shift of 12; theory scales it with the square root.
_ANCHOR_SHIFT = 12.0
_ANCHOR_TOKENS = 46_800

TIME_SAMPLINGS = ("uniform", "logit_normal")


@dataclass(frozen=True)
class FlowConfig:
    """How training times are drawn.

    Attributes:
        shift: timestep shift s; ``None`` takes :func:`shift_for_tokens` of the clip's token count.
        time_sampling: ``"uniform"`` on (0, 1), or ``"logit_normal"`` as in SD3; both are shifted afterwards.
        logit_mean: mean of the logit-normal distribution.
        logit_std: standard deviation of the logit-normal distribution.
    """

    shift: float | None = None
    time_sampling: str = "uniform"
    logit_mean: float = 0.0
    logit_std: float = 1.0

    def __post_init__(self) -> None:
        if self.time_sampling not in TIME_SAMPLINGS:
            raise InvalidValue(
                f"time_sampling={self.time_sampling!r} is unknown; choose one of {TIME_SAMPLINGS}."
            )
        if self.shift is not None and not self.shift > 0:
            raise InvalidValue(
                f"shift={self.shift} must be positive; 1 means no shift, None follows the token count."
            )
        if not self.logit_std > 0:
            raise InvalidValue(f"logit_std={self.logit_std} must be positive.")

    def shift_of(self, tokens: int) -> float:
        """The configured shift, or the one that belongs to ``tokens`` video tokens."""
        return shift_for_tokens(tokens) if self.shift is None else self.shift


def shift_for_tokens(tokens: int) -> float:
    """Timestep shift for a clip of ``tokens`` video tokens: 12 sqrt(N / 46800).

    192x320 at 49 frames (3,120 tokens) gives 3.1, 384x640 at 49 frames (12,480 tokens) gives 6.2.
    """
    if tokens < 1:
        raise InvalidValue(f"tokens={tokens} must be at least 1.")
    return _ANCHOR_SHIFT * math.sqrt(tokens / _ANCHOR_TOKENS)


def shift_time(t: Array | float, shift: float) -> Array | float:
    """Move times towards noise: s t / (1 + (s - 1) t); s = 1 is the identity, 0 and 1 stay fixed.

    Args:
        t: times in [0, 1], any shape.
        shift: s > 0.

    Returns:
        Times of the same shape.
    """
    return shift * t / (1.0 + (shift - 1.0) * t)


def sample_times(key: Array, batch: int, tokens: int, config: FlowConfig) -> Array:
    """Draw one shifted time per sample.

    Args:
        key: a ``jax.random.key``.
        batch: number of samples B.
        tokens: video tokens of one sample, from which the shift follows unless the config fixes it.
        config: distribution and shift.

    Returns:
        f32 [B] in [0, 1).
    """
    if config.time_sampling == "uniform":
        t = jax.random.uniform(key, (batch,), jnp.float32)
    else:
        t = jax.nn.sigmoid(
            config.logit_mean + config.logit_std * jax.random.normal(key, (batch,), jnp.float32)
        )
    return shift_time(t, config.shift_of(tokens))


def interpolate(clean: Array, noise: Array, t: Array) -> Array:
    """x_t = (1 - t) x_0 + t eps.

    Args:
        clean: x_0, f [B, ...].
        noise: eps, same shape.
        t: f32 [B].
    """
    t = t.reshape(t.shape + (1,) * (clean.ndim - t.ndim))  # [B, 1, ...]
    return (1.0 - t) * clean + t * noise


def velocity_target(clean: Array, noise: Array) -> Array:
    """dx_t/dt = eps - x_0, the regression target; shapes as given."""
    return noise - clean


def generation_loss(prediction: Array, target: Array, condition_mask: Array) -> tuple[Array, Array]:
    """Mean squared error over the tokens to generate; condition latents do not count.

    Args:
        prediction: f [B, L, h, w, C], computed in float32 whatever its dtype.
        target: same shape.
        condition_mask: bool [B, L], True where the latent frame is a given condition.

    Returns:
        (loss, per_sample): the mean over all latent frames to generate of the batch, f32 [], and the mean
        within each sample, f32 [B] (zero for a sample that is all condition).
    """
    error = jnp.square(prediction.astype(jnp.float32) - target.astype(jnp.float32))
    error = error.mean(axis=(2, 3, 4))  # [B, L]
    error = jnp.where(condition_mask, 0.0, error)
    count = jnp.logical_not(condition_mask).sum(axis=1).astype(jnp.float32)  # [B] latent frames to generate
    per_sample = error.sum(axis=1) / jnp.maximum(count, 1.0)
    return error.sum() / jnp.maximum(count.sum(), 1.0), per_sample
