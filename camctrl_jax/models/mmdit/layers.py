"""Functions without parameters and small layers of the transformer.

Axes: B batch, L latent frames, h, w latent grid, V video tokens (L*h*w / patch), S tokens, D width, H head
dimension. Norms, rotary embedding, modulation, time and camera are computed in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax import Array

from camctrl_jax.models.causal_conv import Conv2d, fold_time, unfold_time
from camctrl_jax.models.mmdit.config import (
    CAMERA_BLOCKS,
    CAMERA_CHANNELS,
    PLUCKER_CHANNELS,
    TIME_CHANNELS,
    MMDiTConfig,
)
from camctrl_jax.models.placement import ONE_DEVICE, Placement

NORM_EPS = 1e-6
IMAGE_NORM_EPS = 1e-5
# Rotary time of the first retrieved latent; those after it count down. Before every window's 0, and as far
# from it as 32 frames are: a retrieved frame is no neighbour in time of what is generated.
RETRIEVED_TIME = -8.0

_kernel_init = nn.initializers.xavier_uniform()
_zeros = nn.initializers.zeros

# --------------------------------------------------------------------------------------------------
# Functions without parameters


def timestep_features(timesteps: Array) -> Array:
    """Sinusoid of 1000 t, cosines first: f32 [B] in [0, 1] -> f32 [B, 256]."""
    half = TIME_CHANNELS // 2
    # The exponents are rounded to float32 as in the reference: at angles near 1000 the last bit is felt.
    exponents = np.float32(-np.log(10000.0)) * np.arange(half, dtype=np.float32) / np.float32(half)
    frequencies = np.exp(exponents.astype(np.float64)).astype(np.float32)
    angles = 1000.0 * timesteps.astype(jnp.float32)[:, None] * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def rope_tables(
    grid: tuple[int, int, int], axes: tuple[int, int, int], theta: float, retrieved: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Factors of the 3-D rotary embedding for :func:`apply_rope`, each f32 [t*h*w, H], computed in float64.

    The first holds every pair's cosine twice, the second its sine as (-sin, sin). Constants are kept as they
    are read: the compiler would work them out anew for every layer. ``grid`` is the token grid (t, h, w),
    ``axes`` the head channels of each axis; positions are integers from 0. The times of the first
    ``retrieved`` of t count down from ``RETRIEVED_TIME``, and 0 is what follows them.
    """
    times, *places = (np.arange(n, dtype=np.float64) for n in grid)
    times = np.concatenate([RETRIEVED_TIME - times[:retrieved], times[: len(times) - retrieved]])
    positions = np.meshgrid(times, *places, indexing="ij")
    angles = [
        position.reshape(-1, 1) / theta ** (np.arange(0, dim, 2, dtype=np.float64) / dim)
        for position, dim in zip(positions, axes)
    ]
    angles = np.repeat(np.concatenate(angles, axis=1), 2, axis=1)
    signs = np.tile([-1.0, 1.0], angles.shape[1] // 2)
    return np.cos(angles).astype(np.float32), (signs * np.sin(angles)).astype(np.float32)


@jax.named_scope("rope")
def apply_rope(x: Array, cos: Array, sin: Array) -> Array:
    """Rotate interleaved channel pairs (0,1), (2,3), ...: x f32 [B, S, heads, H], cos and sin [S, H].

    Pairs are swapped rather than taken apart and stacked, so that forward and backward pass are one
    elementwise operation each.
    """
    swapped = jnp.flip(x.reshape(*x.shape[:-1], -1, 2), axis=-1).reshape(x.shape)
    return x * cos[:, None] + swapped * sin[:, None]


def layer_norm(x: Array, eps: float = NORM_EPS) -> Array:
    """Layer norm without affine part, in and to float32."""
    x = x.astype(jnp.float32)
    x = x - jnp.mean(x, axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + eps)


@jax.named_scope("modulation")
def modulate(x: Array, shift: Array, scale: Array, dtype: Any) -> Array:
    """LayerNorm(x) (1 + scale) + shift in float32, then cast: x [B, S, D]; shift, scale f32 [B, D]."""
    return (layer_norm(x) * (1.0 + scale[:, None]) + shift[:, None]).astype(dtype)


def head_norm(x: Array, gain: Array, rope: tuple[Array, Array] | None) -> Array:
    """RMS norm per head, gain and rotary embedding in float32, in the dtype of x: x [B, S, heads, H], gain
    f32 [H].
    """
    dtype, x = x.dtype, x.astype(jnp.float32)
    inverse = jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + NORM_EPS)
    # The rotation first: it leaves one elementwise operation after the reduction.
    scaled = x * gain if rope is None else apply_rope(x * gain, *rope)
    return (scaled * inverse).astype(dtype)


def add_gated(x: Array, gate: Array, update: Array) -> Array:
    """x + gate * update in float32, in the dtype of x: x, update [B, S, D]; gate f32 [B, D]."""
    return (x.astype(jnp.float32) + gate[:, None] * update.astype(jnp.float32)).astype(x.dtype)


@jax.named_scope("patchify")
def patches(x: Array, patch: tuple[int, int, int]) -> Array:
    """[B, L, h, w, C] -> [B, V, pt*ph*pw*C], tokens in (l, h, w) order."""
    t, h, w = patch
    return rearrange(x, "b (l t) (y h) (x w) c -> b (l y x) (t h w c)", t=t, h=h, w=w)


@jax.named_scope("unpatchify")
def unpatch(x: Array, grid: tuple[int, int, int], patch: tuple[int, int, int]) -> Array:
    """[B, V, C*pt*ph*pw] (channel order C, pt, ph, pw) -> [B, L, h, w, C]."""
    sizes = dict(zip("lyxthw", (*grid, *patch)))
    return rearrange(x, "b (l y x) (c t h w) -> b (l t) (y h) (x w) c", **sizes)


def valid_first(text: Array, mask: Array) -> tuple[Array, Array]:
    """Move the valid tokens to the front, in order: ([B, N, D], int [B] lengths).

    Text tokens carry no position inside the model, so this changes nothing but the layout, and makes any mask
    a prefix mask, which the fused attention kernels take as a length.
    """
    order = jnp.argsort(~mask, axis=1, stable=True)
    return jnp.take_along_axis(text, order[..., None], axis=1), jnp.sum(mask, axis=1, dtype=jnp.int32)


# --------------------------------------------------------------------------------------------------
# Layers


class KernelAndBias(nn.Module):
    """Kernel [inputs, features] and bias [features] of a linear layer, in ``dtype``, for the caller to
    multiply by.
    """

    features: int
    dtype: Any

    @nn.compact
    def __call__(self, inputs: int) -> tuple[Array, Array]:
        kernel = self.param("kernel", _kernel_init, (inputs, self.features))
        bias = self.param("bias", _zeros, (self.features,))
        return kernel.astype(self.dtype), bias.astype(self.dtype)


def project(x: Array, weights: Sequence[tuple[Array, Array]], fuse: bool) -> list[Array]:
    """x [..., D] times several kernels. Fused, it is one product, and one instead of many for the gradient of
    x.
    """
    if not fuse:
        return [x @ kernel + bias for kernel, bias in weights]
    kernels, biases = zip(*weights)
    y = x @ jnp.concatenate(kernels, axis=1) + jnp.concatenate(biases)
    return jnp.split(y, np.cumsum([k.shape[1] for k in kernels])[:-1], axis=-1)


# Kernel f32 [F, D] and bias f32 [D] of a projection of camera features, or those of several blocks.
CameraWeights = tuple[Array, Array]


def project_camera(features: Array, weights: CameraWeights) -> Array:
    """f32 [B, V, F] -> f32 [B, V, D], in full float32."""
    kernel, bias = weights
    return jnp.matmul(features, kernel, precision=jax.lax.Precision.HIGHEST) + bias


def add_camera(video: Array, features: Array, weights: CameraWeights) -> Array:
    """Video tokens [B, V, D] with a projection of the camera's features added in float32, in their dtype."""
    return (video.astype(jnp.float32) + project_camera(features, weights)).astype(video.dtype)


def dense(features: int, dtype: Any, name: str, kernel_init: Any = _kernel_init) -> nn.Dense:
    return nn.Dense(features, dtype=dtype, param_dtype=jnp.float32, kernel_init=kernel_init, name=name)


class Modulation(nn.Module):
    """The adaLN vectors of one stream of one block: ``chunks`` arrays f32 [B, D], zero at initialisation.

    ``shared`` is the already projected conditioning [B, chunks*D] when all blocks share the weight matrix.
    """

    chunks: int
    placement: Placement

    @nn.compact
    def __call__(self, conditioning: Array, shared: Array | None) -> list[Array]:
        vectors = ModulationLinear(self.chunks, name="linear")(conditioning, shared)
        # Whole vectors on every device: cut along D, they would pull the streams they act on with them.
        return jnp.split(self.placement.constrain(vectors, "batch", None), self.chunks, axis=-1)


class ModulationLinear(nn.Module):
    """Linear layer D -> chunks*D in float32, or only its bias if the product is given."""

    chunks: int

    @nn.compact
    def __call__(self, conditioning: Array, shared: Array | None) -> Array:
        features = self.chunks * conditioning.shape[-1]
        if shared is None:
            shared = conditioning @ self.param("kernel", _zeros, (conditioning.shape[-1], features))
        return shared + self.param("bias", _zeros, (features,))


class SharedModulation(nn.Module):
    """The weight matrices that all blocks share; gives their products with the conditioning, f32 [B,
    chunks*D].
    """

    config: MMDiTConfig

    @nn.compact
    def __call__(self, conditioning: Array) -> dict[str, Array]:
        kinds = {}
        if self.config.num_dual:
            kinds |= {"norm1": 6, "norm1_context": 6}
        if self.config.num_single:
            kinds |= {"norm": 3}
        width = self.config.width
        return {
            kind: conditioning @ self.param(f"{kind}_kernel", _zeros, (width, chunks * width))
            for kind, chunks in kinds.items()
        }


class HeadNorm(nn.Module):
    """RMS norm per head with a learned gain, then optionally the rotary embedding; float32 inside.

    [B, S, D] -> [B, S, heads, H] in the dtype of the input.
    """

    heads: int

    @nn.compact
    def __call__(self, x: Array, rope: tuple[Array, Array] | None) -> Array:
        x = split_heads(x, self.heads)
        gain = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        return head_norm(x, gain, rope)


def split_heads(x: Array, heads: int) -> Array:
    """[B, S, D] -> [B, S, heads, H]."""
    return x.reshape(*x.shape[:2], heads, -1)


def merge_heads(x: Array) -> Array:
    """[B, S, heads, H] -> [B, S, D]."""
    return x.reshape(*x.shape[:2], -1)


class PatchEmbed(nn.Module):
    """Non-overlapping patches to tokens: [B, L, h, w, C] -> f32 [B, V, D]; kernel kept as [pt, ph, pw, C, D].

    The result is not rounded to ``dtype`` here, so that the camera is added before the one rounding.
    """

    width: int
    patch: tuple[int, int, int]
    dtype: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        # Initialised as the matrix it is: xavier would count a convolution's window on the output side.
        flat = (int(np.prod(self.patch)) * x.shape[-1], self.width)
        shape = (*self.patch, x.shape[-1], self.width)
        kernel = self.param("kernel", lambda rng: _kernel_init(rng, flat, jnp.float32).reshape(shape))
        bias = self.param("bias", _zeros, (self.width,))
        x = patches(x.astype(self.dtype), self.patch)
        kernel = kernel.reshape(flat).astype(self.dtype)
        return jnp.matmul(x, kernel, preferred_element_type=jnp.float32) + bias


class CameraBlock(nn.Module):
    """SiLU, 3x3 convolution, twice, plus the input: [N, h, w, C] -> same."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        y = x
        for name in ("conv1", "conv2"):
            y = Conv2d(x.shape[-1], name=name)(nn.silu(y))
        return x + y


class CameraEmbed(nn.Module):
    """Pluecker map to tokens, zero at initialisation: f32 [B, L, h, w, 6] -> f32 [B, V, D].

    Computed in full float32: half precision would round directions to 0.2 degrees and positions to
    millimetres.

    Attributes:
        width: D.
        patch: of the projection.
        fold: (t, h, w) of the map that the deep encoder takes as one position of its convolutions; None for
            no convolutions.
        dual, single: blocks of each kind that take the features through a projection of their own.
        placement: where intermediate values live.
    """

    width: int
    patch: tuple[int, int, int]
    fold: tuple[int, int, int] | None = None
    dual: int = 0
    single: int = 0
    placement: Placement = ONE_DEVICE

    @classmethod
    def of(cls, config: MMDiTConfig, placement: Placement, name: str | None) -> CameraEmbed:
        """The one of a transformer."""
        camera = config.camera
        patch, fold, counts = camera.patch, None, (0, 0)
        if camera.encoder == "deep":
            patch, fold = config.patch, tuple(m // p for m, p in zip(camera.patch, config.patch))
        if camera.injection == "every":
            counts = config.num_dual, config.num_single - config.num_decoder
        return cls(config.width, patch, fold, *counts, placement, name=name)

    def setup(self) -> None:
        channels = PLUCKER_CHANNELS
        if self.fold is not None:
            channels = CAMERA_CHANNELS
            self.conv_in = Conv2d(channels)
            self.resnets = [CameraBlock() for _ in range(CAMERA_BLOCKS)]
        self.kernel = self.param("kernel", _zeros, (*self.patch, channels, self.width))
        self.bias = self.param("bias", _zeros, (self.width,))
        features = int(np.prod(self.patch)) * channels
        kinds = {"dual": self.dual, "single": self.single}
        self.projections = {
            kind: (
                self.param(f"{kind}_kernel", _zeros, (blocks, features, self.width)),
                self.param(f"{kind}_bias", _zeros, (blocks, self.width)),
            )
            for kind, blocks in kinds.items()
            if blocks
        }

    def __call__(self, plucker: Array) -> Array:
        return self.tokens(self.features(plucker))

    def features(self, plucker: Array) -> Array:
        """What every way in projects: f32 [B, L, h, w, 6] -> f32 [B, V, F]."""
        x = plucker.astype(jnp.float32)
        if self.fold is not None:
            # Whole clips: cut along rows, as the tokens they become would have it, convolutions exchange
            # their edges, and XLA has got that wrong (four parts of four rows).
            axes = ("batch", None, None, None, None)
            sizes = dict(zip("thw", self.fold))
            x = rearrange(x, "b (l t) (y h) (x w) c -> b l y x (t h w c)", **sizes)
            with jax.default_matmul_precision("highest"):
                x = self.conv_in(fold_time(self.placement.constrain(x, *axes)))
                for block in self.resnets:
                    x = block(x)
            x = self.placement.constrain(unfold_time(x, plucker.shape[0]), *axes)
        return patches(x, self.patch)

    def tokens(self, features: Array) -> Array:
        """What is added to the video tokens before the first block: f32 [B, V, F] -> f32 [B, V, D]."""
        return project_camera(features, (self.kernel.reshape(-1, self.width), self.bias))

    def of_blocks(self, kind: str) -> CameraWeights | None:
        """Kernels f32 [blocks, F, D] and biases f32 [blocks, D] of the 'dual' or 'single' blocks' own
        projections; None where they have none.
        """
        return self.projections.get(kind)


class TwoLayer(nn.Module):
    """Linear, activation, linear."""

    features: int
    activation: Any
    dtype: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = self.activation(dense(self.features, self.dtype, "linear_1")(x))
        return dense(self.features, self.dtype, "linear_2")(x)


class ImageEmbed(nn.Module):
    """Image-encoder features to context tokens: [B, I, image_dim] -> [B, I, D]. Exact GELU, affine norms, eps
    1e-5.
    """

    width: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        def norm(x: Array, name: str) -> Array:
            layer = nn.LayerNorm(
                epsilon=IMAGE_NORM_EPS, dtype=jnp.float32, use_fast_variance=False, name=name
            )
            return layer(x).astype(self.dtype)

        x = dense(x.shape[-1], self.dtype, "linear_1")(norm(x, "norm_in"))
        x = dense(self.width, self.dtype, "linear_2")(nn.gelu(x, approximate=False))
        return norm(x, "norm_out")


class TimeEmbed(nn.Module):
    """f32 [B] in [0, 1] -> f32 [B, D]."""

    width: int

    @nn.compact
    def __call__(self, timesteps: Array) -> Array:
        embed = TwoLayer(self.width, nn.silu, jnp.float32, name="timestep_embedder")
        return embed(timestep_features(timesteps))


class TargetTimeEmbed(nn.Module):
    """The time that a step leads to, f32 [B] in [0, 1] -> f32 [B, D]; zero at initialisation."""

    width: int

    @nn.compact
    def __call__(self, until: Array) -> Array:
        x = nn.silu(dense(self.width, jnp.float32, "linear_1")(timestep_features(until)))
        return dense(self.width, jnp.float32, "linear_2", kernel_init=_zeros)(x)


class OutputNorm(nn.Module):
    """Layer norm with (scale, shift) from the timestep: the opposite order of the blocks' modulation."""

    dtype: Any
    placement: Placement

    @nn.compact
    def __call__(self, x: Array, conditioning: Array) -> Array:
        linear = dense(2 * x.shape[-1], jnp.float32, "linear", kernel_init=_zeros)
        vectors = self.placement.constrain(linear(conditioning), "batch", None)
        scale, shift = jnp.split(vectors, 2, axis=-1)
        return modulate(x, shift, scale, self.dtype)
