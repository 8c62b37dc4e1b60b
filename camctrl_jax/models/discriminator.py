"""PatchGAN discriminators for the adversarial term of the VAE: one for frames, one for clips.

Spectral normalisation on every convolution, no batch statistics, as in Seaweed-7B (arXiv 2504.08685, section
3.1). Axes: B batch, T frames, H, W pixels, C channels; channels last.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Sizes of a patch discriminator.

    Attributes:
        base_dim: channels of the first convolution, doubled by each further one up to ``max_dim``.
        max_dim: largest number of channels.
        depth: strided convolutions; each halves height and width.
        temporal: convolve over time as well (kernel 3, halving time with space), for clips.
    """

    base_dim: int = 64
    max_dim: int = 512
    depth: int = 3
    temporal: bool = False


def spectral_norm(kernel: Array) -> Array:
    """Largest singular value of a kernel seen as a matrix [everything else, out], differentiable.

    The direction comes from the Gram matrix squared five times, the 32nd power: deterministic and
    without the running vector that the usual power iteration has to keep. No gradient flows through it.

    Args:
        kernel: f32 [..., C_in, C_out].

    Returns:
        f32 [].
    """
    matrix = kernel.astype(jnp.float32).reshape(-1, kernel.shape[-1])  # [n, C_out]
    frozen = lax.stop_gradient(matrix)
    power = jnp.matmul(frozen.T, frozen, precision="highest")
    for _ in range(5):
        power = power / jnp.maximum(jnp.trace(power), 1e-30)
        power = jnp.matmul(power, power, precision="highest")
    # Every column of the limit is a multiple of the leading direction; the largest is the safest.
    column = power[:, jnp.argmax(jnp.diagonal(power))]
    direction = column / jnp.maximum(jnp.linalg.norm(column), 1e-30)
    return jnp.linalg.norm(jnp.matmul(matrix, direction, precision="highest"))


class SpectralConv(nn.Module):
    """Convolution whose kernel is divided by its largest singular value."""

    features: int
    kernel_size: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, ..., C] -> [B, ..., features]."""
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        kernel = kernel / jnp.maximum(spectral_norm(kernel), 1e-12)
        spatial = "DHW"[-len(self.kernel_size) :]
        y = lax.conv_general_dilated(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            self.strides,
            "SAME",
            dimension_numbers=(f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"),
        )
        return y + bias.astype(self.dtype)


class PatchDiscriminator(nn.Module):
    """Scores overlapping patches: positive for real, negative for reconstructed.

    ``temporal`` false takes frames [N, H, W, 3], true takes clips [B, T, H, W, 3]; both in [-1, 1]. Returns
    f32 logits, one per patch.
    """

    config: DiscriminatorConfig
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        config = self.config
        time = (3,) if config.temporal else ()
        halve = (2,) * (2 + len(time))
        keep = (1,) * (2 + len(time))
        for i in range(config.depth):
            features = min(config.base_dim * 2**i, config.max_dim)
            x = SpectralConv(features, (*time, 4, 4), halve, self.dtype, name=f"down_{i}")(x)
            x = nn.leaky_relu(x, 0.2)
        features = min(config.base_dim * 2**config.depth, config.max_dim)
        x = nn.leaky_relu(SpectralConv(features, (*time, 3, 3), keep, self.dtype, name="middle")(x), 0.2)
        return SpectralConv(1, (*time, 3, 3), keep, self.dtype, name="logits")(x).astype(jnp.float32)


def discriminator_hinge(real: Array, fake: Array) -> Array:
    """Hinge loss of the discriminator: mean max(0, 1 - real) + mean max(0, 1 + fake), halved."""
    return 0.5 * (jnp.mean(jax.nn.relu(1.0 - real)) + jnp.mean(jax.nn.relu(1.0 + fake)))


def generator_hinge(fake: Array) -> Array:
    """Hinge loss of the generator: -mean fake."""
    return -jnp.mean(fake)
