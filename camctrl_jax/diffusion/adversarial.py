"""The losses of adversarial post-training: pure functions of logits, positive for real.

Source: APT (arXiv 2501.08316), non-saturating with an approximated R1 penalty; relativistic pairing, the
same penalty on what is generated, and centering are those of its successors (arXiv 2506.09350, and the
adversarial flow models of the same first author).

Axes: B batch, F logits of a sample (one for each latent frame, or one).
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from camctrl_jax.diffusion.flow import shift_time
from camctrl_jax.errors import InvalidValue

LOSSES = ("ns", "rp")
_SAME_MAPS = 1e-3  # by no more than this do Pluecker maps of the same cameras differ


@dataclass(frozen=True)
class AdversarialConfig:
    """What critic and generator minimise.

    Attributes:
        loss: 'ns', non-saturating: each clip is judged by itself; 'rp', relativistic: a generated clip and
            the true one of the same condition are judged against each other.
        penalty: lambda of (D(x) - D(x + sigma n))^2 on true clips, n standard normal: about lambda sigma^2
            times the squared gradient of D (approximated R1). Without it training collapses.
        fake_penalty: lambda of the same on generated clips (R2); 0 is off.
        sigma: standard deviation of the noise that the penalties move clips by.
        penalty_every: of so many samples one is penalised, which saves as much.
        centering: weight of (D(x) + D(G))^2, which keeps relativistic logits near 0.
        wrong_camera: weight of a third kind of clip, a true one with the cameras of another: without a camera
            in sight of the critic, nothing asks the generator to follow it. 0 is off.
        anchor: of the generator, weight of the mean squared distance, in latents, from the clip that a
            student of more steps makes of the same noise. Without it clips may get sharper, and those of
            different noise more alike. 0 is off.
    """

    loss: str = "rp"
    penalty: float = 100.0
    fake_penalty: float = 0.0
    sigma: float = 0.1
    penalty_every: int = 1
    centering: float = 0.0
    wrong_camera: float = 0.0
    anchor: float = 0.0

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise InvalidValue(f"adversarial.loss={self.loss!r}: expected 'ns' or 'rp' (relativistic).")
        for name in ("penalty", "fake_penalty", "centering", "wrong_camera", "anchor"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InvalidValue(f"adversarial.{name}={getattr(self, name)}: expected 0 (off) or more.")
        if not 0 < self.sigma < float("inf"):
            raise InvalidValue(f"adversarial.sigma={self.sigma}: expected a positive number, such as 0.1.")
        if self.penalty_every < 1:
            raise InvalidValue(f"adversarial.penalty_every={self.penalty_every}: expected at least 1.")


def critic_loss(real: Array, fake: Array, kind: str) -> Array:
    """What the critic minimises for each pair of logits, f32 [B, F]; at equal logits 2 log 2 ('ns') or log 2.

    Args:
        real: f32 [B, F], of true clips.
        fake: f32 [B, F], of generated ones.
        kind: of ``AdversarialConfig.loss``.
    """
    if kind == "rp":
        return jax.nn.softplus(fake - real)
    return jax.nn.softplus(-real) + jax.nn.softplus(fake)


def wrong_camera_loss(real: Array, wrong: Array, kind: str) -> Array:
    """What the critic minimises for true clips with wrong cameras, logits ``wrong``: f32 [B, F]."""
    return jax.nn.softplus(wrong - real) if kind == "rp" else jax.nn.softplus(wrong)


def cameras_differ(maps: Array, others: Array) -> Array:
    """Of which samples two sets of Pluecker maps [B, ...] are not the same, bool [B]: the cameras of another
    clip that holds still, or moves alike, are no wrong ones.
    """
    apart = jnp.abs(maps.astype(jnp.float32) - others.astype(jnp.float32))
    return apart.max(axis=tuple(range(1, apart.ndim))) > _SAME_MAPS


def one_of_every(x: Array, every: int, first: Array | int) -> Array:
    """Of every so many neighbouring samples the ``first``-th, i32 []: [B, ...] -> [B / every, ...].

    Cut over devices that each hold a multiple of ``every``, no sample has to move.
    """
    if every == 1:
        return x
    groups = x.reshape(-1, every, *x.shape[1:])
    return jax.lax.dynamic_index_in_dim(groups, first, axis=1, keepdims=False)


def generator_loss(real: Array, fake: Array, kind: str) -> Array:
    """What the generator minimises, f32 [B, F]; arguments as of :func:`critic_loss`."""
    return jax.nn.softplus(real - fake) if kind == "rp" else jax.nn.softplus(-fake)


def penalty(plain: Array, moved: Array) -> Array:
    """(D(x) - D(x + sigma n))^2, f32 [B, F]; its mean over n is sigma^2 |w|^2 for D(x) = w x + b.

    Args:
        plain: f32 [B, F], logits of x.
        moved: f32 [B, F], logits of x + sigma n. The gradient flows through both.
    """
    return jnp.square(plain - moved)


def critic_times(uniform: Array, shift: float) -> Array:
    """Times that a critic is told, f32 [B] in (0, 1].

    Never 0, where it collapses (APT, section 3.3); what it reads is clean at all of them.

    Args:
        uniform: f32 [B] in [0, 1).
        shift: timestep shift.
    """
    return shift_time(1.0 - uniform, shift)


def generated(noise: Array, velocity: Array, clean: Array, mask: Array) -> Array:
    """What a one-step model makes: noise - velocity, given latents as they are. f32 [B, L, h, w, C].

    Args:
        noise: z, f32 [B, L, h, w, C].
        velocity: of the model at (z, t = 1), same shape.
        clean: the given latents, same shape; read where they are given.
        mask: bool [B, L], True where the latent frame is given.
    """
    made = noise - velocity.astype(jnp.float32)
    return jnp.where(mask[:, :, None, None, None], clean.astype(jnp.float32), made)


def mean_over(values: Array, weights: Array) -> Array:
    """Mean of f32 [B, F] by weights [B, F], f32 []; 0 where nothing weighs."""
    weights = weights.astype(jnp.float32)
    # where, not multiply: a frame that does not count may hold anything.
    return jnp.where(weights > 0, values * weights, 0.0).sum() / jnp.maximum(weights.sum(), 1.0)


def means_of_samples(values: Array, weights: Array) -> Array:
    """Mean of every sample, f32 [B]; arguments as of :func:`mean_over`; NaN for a sample that has none."""
    return jnp.mean(values, axis=1, where=weights > 0)
