"""The multimodal diffusion transformer: dual-stream, single-stream and decoder blocks, as in Motif-Video.

One module serves the small ``worlds`` model, the paper's dual-stream model and the open base (presets.py).
Parameters have one entry per layer, named after diffusers' ``MotifVideoTransformer3DModel``.

Axes: B batch, L latent frames, h, w latent grid, V video tokens (L*h*w / patch), I image tokens, N text
tokens, M = I + N context tokens, S = V + M, D width, H head dimension. Modulation, norms, rotary embedding,
the timestep and the camera are computed in float32, the other matrix products in ``dtype``; parameters are
float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from camctrl_jax.models.attention import Implementation
from camctrl_jax.models.placement import (
    ONE_DEVICE,
    Placement,
    check_streams,
    join,
    join_tables,
    split,
)
from camctrl_jax.models.remat import Remat, check_remat, rematerialised

PLUCKER_CHANNELS = 6
TIME_CHANNELS = 256
NORM_EPS = 1e-6
IMAGE_NORM_EPS = 1e-5

_kernel_init = nn.initializers.xavier_uniform()
_zeros = nn.initializers.zeros


@dataclass(frozen=True)
class CameraConfig:
    """How the camera enters: a zero-initialised patchify of the Pluecker map, added once to the video tokens.

    ``plucker_res`` names the grid the map is given on: 'latent' (the latent grid) or 'pixel' (the frames
    themselves, one map per latent frame). ``patch`` must bring that grid to the token grid: (1, 2, 2), or (1,
    16, 16) for pixels.
    """

    plucker_res: Literal["latent", "pixel"] = "latent"
    patch: tuple[int, int, int] = (1, 2, 2)

    def __post_init__(self) -> None:
        if self.plucker_res not in ("latent", "pixel"):
            raise ValueError(f"plucker_res={self.plucker_res!r} is unknown; choose 'latent' or 'pixel'.")


@dataclass(frozen=True)
class MMDiTConfig:
    """Sizes and switches of the transformer.

    ``num_single`` counts all single-stream blocks; the last ``num_decoder`` of them are decoder blocks.
    ``shared_modulation`` uses one adaLN weight matrix for the video streams of all dual blocks, one for their
    text streams and one for all single blocks, with a bias per block; exported, every block gets a copy of
    the matrix. ``fuse_projections`` computes query, key and value of one input as one matrix product (turn
    off to shard their outputs). ``remat`` names a policy of ``camctrl_jax.models.remat``. ``scan_layers``
    stacks the parameters of equal blocks and scans over them: same numbers, shorter compilation, slower on a
    GPU; see :func:`stack_layers`.
    """

    width: int
    heads: int
    head_dim: int
    num_dual: int
    num_single: int = 0
    num_decoder: int = 0
    mlp_ratio: float = 4.0
    patch: tuple[int, int, int] = (1, 2, 2)
    in_channels: int = 33
    out_channels: int = 16
    text_dim: int = 4096
    image_dim: int | None = None
    rope_axes: tuple[int, int, int] = (16, 24, 24)
    rope_theta: float = 10000.0
    text_cross_attention_dual: bool = False
    text_cross_attention_single: bool = False
    shared_modulation: bool = False
    camera: CameraConfig | None = field(default_factory=CameraConfig)
    attention: Implementation = "auto"
    fuse_projections: bool = True
    remat: Remat = "none"
    scan_layers: bool = False

    def __post_init__(self) -> None:
        if self.width != self.heads * self.head_dim:
            raise ValueError(f"width={self.width} must be heads * head_dim = {self.heads} * {self.head_dim}.")
        if sum(self.rope_axes) != self.head_dim or any(axis % 2 for axis in self.rope_axes):
            raise ValueError(
                f"rope_axes={self.rope_axes} must be even numbers that add up to head_dim={self.head_dim}."
            )
        if not 0 <= self.num_decoder <= self.num_single:
            raise ValueError(f"num_decoder={self.num_decoder} must lie in 0..num_single={self.num_single}.")
        check_remat(self.remat)

    @property
    def mlp_dim(self) -> int:
        return int(self.width * self.mlp_ratio)


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
    grid: tuple[int, int, int], axes: tuple[int, int, int], theta: float
) -> tuple[np.ndarray, np.ndarray]:
    """Factors of the 3-D rotary embedding for :func:`apply_rope`, each f32 [t*h*w, H], computed in float64.

    The first holds every pair's cosine twice, the second its sine as (-sin, sin). Constants are kept as they
    are read: the compiler would work them out anew for every layer. ``grid`` is the token grid (t, h, w),
    ``axes`` the head channels of each axis; positions are integers from 0.
    """
    positions = np.meshgrid(*(np.arange(n, dtype=np.float64) for n in grid), indexing="ij")
    angles = [
        position.reshape(-1, 1) / theta ** (np.arange(0, dim, 2, dtype=np.float64) / dim)
        for position, dim in zip(positions, axes)
    ]
    angles = np.repeat(np.concatenate(angles, axis=1), 2, axis=1)
    signs = np.tile([-1.0, 1.0], angles.shape[1] // 2)
    return np.cos(angles).astype(np.float32), (signs * np.sin(angles)).astype(np.float32)


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


def patches(x: Array, patch: tuple[int, int, int]) -> Array:
    """[B, L, h, w, C] -> [B, V, pt*ph*pw*C], tokens in (l, h, w) order."""
    b, *grid, c = x.shape
    (t, h, w), (pt, ph, pw) = (tuple(n // p for n, p in zip(grid, patch)), patch)
    x = x.reshape(b, t, pt, h, ph, w, pw, c).transpose(0, 1, 3, 5, 2, 4, 6, 7)
    return x.reshape(b, t * h * w, pt * ph * pw * c)


def unpatch(x: Array, grid: tuple[int, int, int], patch: tuple[int, int, int]) -> Array:
    """[B, V, C*pt*ph*pw] (channel order C, pt, ph, pw) -> [B, L, h, w, C]."""
    (t, h, w), (pt, ph, pw) = grid, patch
    x = x.reshape(x.shape[0], t, h, w, -1, pt, ph, pw).transpose(0, 1, 5, 2, 6, 3, 7, 4)
    return x.reshape(x.shape[0], t * pt, h * ph, w * pw, -1)


def valid_first(text: Array, mask: Array) -> tuple[Array, Array]:
    """Move the valid tokens to the front, in order: ([B, N, D], int [B] lengths).

    Text tokens carry no position inside the model, so this changes nothing but the layout, and makes any mask
    a prefix mask, which the fused attention kernels take as a length.
    """
    order = jnp.argsort(~mask, axis=1, stable=True)
    return jnp.take_along_axis(text, order[..., None], axis=1), jnp.sum(mask, axis=1, dtype=jnp.int32)


# --------------------------------------------------------------------------------------------------
# Layers


class Weights(nn.Module):
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


class Conditioning(NamedTuple):
    """What every block reads."""

    time: Array  # f32 [B, D], after SiLU
    shared: dict[str, Array]  # products of SharedModulation, or empty
    video_rope: tuple[Array, Array]  # of rope_tables, f32 [V, H]
    joint_rope: tuple[Array, Array]  # the same, joined with angle 0 for the context: [S, H]
    key_lengths: Array | None  # int [B], valid keys among [video | image | text]
    text_lengths: Array | None  # int [B], valid keys among the text


class TextCrossAttention(nn.Module):
    """Attention of the video tokens (rotated queries) to the text tokens (unrotated keys), with its own
    weights.
    """

    config: MMDiTConfig
    dtype: Any
    placement: Placement

    @nn.compact
    def __call__(self, video: Array, text: Array, conditioning: Conditioning) -> Array:
        config, width = self.config, self.config.width
        query = dense(width, self.dtype, "to_q")(video)
        weights = [Weights(width, self.dtype, name=name)(width) for name in ("to_k", "to_v")]
        key, value = project(text, weights, config.fuse_projections)
        out = self.placement.attend(
            HeadNorm(config.heads, name="norm_q")(query, conditioning.video_rope),
            HeadNorm(config.heads, name="norm_k")(key, None),
            split_heads(value, config.heads),
            conditioning.text_lengths,
            (text.shape[1],),
            config.attention,
        )
        return dense(width, self.dtype, "to_out_0")(merge_heads(out))


class JointAttention(nn.Module):
    """Attention over [video | context] with separate projections for the two streams; rotary embedding on the
    video. ``streams`` are the lengths of the video and of what the context was joined from.
    """

    config: MMDiTConfig
    dtype: Any
    placement: Placement
    streams: tuple[int, ...]

    @nn.compact
    def __call__(self, video: Array, context: Array, conditioning: Conditioning) -> tuple[Array, Array]:
        config, width = self.config, self.config.width

        def qkv(x: Array, names: tuple[str, str, str], norms: tuple[str, str], rope) -> list[Array]:
            weights = [Weights(width, self.dtype, name=name)(width) for name in names]
            query, key, value = project(x, weights, config.fuse_projections)
            return [
                HeadNorm(config.heads, name=norms[0])(query, rope),
                HeadNorm(config.heads, name=norms[1])(key, rope),
                split_heads(value, config.heads),
            ]

        of_video = qkv(video, ("to_q", "to_k", "to_v"), ("norm_q", "norm_k"), conditioning.video_rope)
        added = ("add_q_proj", "add_k_proj", "add_v_proj")
        of_context = qkv(context, added, ("norm_added_q", "norm_added_k"), None)
        place = self.placement
        joint = [join(pair, place.parts) for pair in zip(of_video, of_context)]  # each [B, S, heads, H]
        out = place.attend(*joint, conditioning.key_lengths, self.streams, config.attention)
        lengths = (video.shape[1], context.shape[1])
        from_video, from_context = split(merge_heads(out), lengths, place.parts)
        return (
            dense(width, self.dtype, "to_out_0")(from_video),
            dense(width, self.dtype, "to_add_out")(from_context),
        )


class FeedForward(nn.Module):
    """Linear, tanh GELU, linear: [B, S, D] -> [B, S, D]."""

    config: MMDiTConfig
    dtype: Any
    placement: Placement

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = dense(self.config.mlp_dim, self.dtype, "net_0_proj")(x)
        x = nn.gelu(self.placement.constrain(x, "batch", "tokens", "hidden"), approximate=True)
        return dense(self.config.width, self.dtype, "net_2")(x)


class DualBlock(nn.Module):
    """Joint attention and feed-forward with separate weights for video and context."""

    config: MMDiTConfig
    dtype: Any
    placement: Placement
    streams: tuple[int, ...]

    @nn.compact
    def __call__(
        self, carry: tuple[Array, Array], conditioning: Conditioning
    ) -> tuple[tuple[Array, Array], None]:
        place = self.placement
        video, context = (place.constrain(stream, "batch", "tokens", None) for stream in carry)
        shared = conditioning.shared
        v = Modulation(6, place, name="norm1")(conditioning.time, shared.get("norm1"))
        c = Modulation(6, place, name="norm1_context")(conditioning.time, shared.get("norm1_context"))
        # Order of the six: shift, scale, gate of attention; shift, scale, gate of the feed-forward.
        normed_context = modulate(context, c[0], c[1], self.dtype)
        joint = JointAttention(self.config, self.dtype, place, self.streams, name="attn")
        from_video, from_context = joint(
            modulate(video, v[0], v[1], self.dtype), normed_context, conditioning
        )
        video = add_gated(video, v[2], from_video)
        if self.config.text_cross_attention_dual:
            cross = TextCrossAttention(self.config, self.dtype, place, name="cross_attn")
            text = split(normed_context, self.streams[1:], place.parts)[-1]
            video = video + cross(from_video, text, conditioning)
        context = add_gated(context, c[2], from_context)
        feed_forward = FeedForward(self.config, self.dtype, place, name="ff")
        video = add_gated(video, v[5], feed_forward(modulate(video, v[3], v[4], self.dtype)))
        feed_forward = FeedForward(self.config, self.dtype, place, name="ff_context")
        context = add_gated(context, c[5], feed_forward(modulate(context, c[3], c[4], self.dtype)))
        return (video, context), None


class SingleAttention(nn.Module):
    """Attention over one sequence, without output projection: [B, S, D] -> [B, S, D].

    ``narrow``: of the first stream's queries only.
    """

    config: MMDiTConfig
    dtype: Any
    placement: Placement
    streams: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Array, conditioning: Conditioning, masked: bool, narrow: bool = False) -> Array:
        config, width = self.config, self.config.width
        of_query, *others = (
            Weights(width, self.dtype, name=name)(width) for name in ("to_q", "to_k", "to_v")
        )
        if narrow:
            first = split(x, (self.streams[0], sum(self.streams[1:])), self.placement.parts)[0]
            [query] = project(first, [of_query], config.fuse_projections)
            key, value = project(x, others, config.fuse_projections)
        else:
            query, key, value = project(x, [of_query, *others], config.fuse_projections)
        rope = conditioning.video_rope if narrow else conditioning.joint_rope
        out = self.placement.attend(
            HeadNorm(config.heads, name="norm_q")(query, rope),
            HeadNorm(config.heads, name="norm_k")(key, conditioning.joint_rope),
            split_heads(value, config.heads),
            conditioning.key_lengths if masked else None,
            self.streams,
            config.attention,
        )
        return merge_heads(out)


class SingleBlock(nn.Module):
    """Attention and MLP in parallel over [video | context], one set of weights.

    A decoder block is the same over [restarted video | the encoder's video tokens], without mask or
    cross-attention. A ``narrow`` block gives the first stream only, and computes no more of the others than
    their keys and values: what nothing reads of the last block.
    """

    config: MMDiTConfig
    dtype: Any
    placement: Placement
    streams: tuple[int, ...]
    decoder: bool = False
    narrow: bool = False

    @nn.compact
    def __call__(self, x: Array, conditioning: Conditioning) -> tuple[Array, None]:
        config, place = self.config, self.placement
        x = place.constrain(x, "batch", "tokens", None)
        modulation = Modulation(3, place, name="norm")(conditioning.time, conditioning.shared.get("norm"))
        shift, scale, gate = modulation
        normed = modulate(x, shift, scale, self.dtype)  # [B, S, D]
        attended = SingleAttention(config, self.dtype, place, self.streams, name="attn")(
            normed, conditioning, masked=not self.decoder, narrow=self.narrow
        )
        lengths = (self.streams[0], sum(self.streams[1:]))
        if config.text_cross_attention_single and not self.decoder:
            text = split(normed, self.streams, place.parts)[-1]
            cross = TextCrossAttention(config, self.dtype, place, name="cross_attn")
            if self.narrow:
                attended = attended + cross(attended, text, conditioning)
            else:
                video, context = split(attended, lengths, place.parts)
                attended = join([video + cross(video, text, conditioning), context], place.parts)
        if self.narrow:
            x, normed = (split(tokens, lengths, place.parts)[0] for tokens in (x, normed))
        hidden = dense(config.mlp_dim, self.dtype, "proj_mlp")(normed)
        hidden = nn.gelu(place.constrain(hidden, "batch", "tokens", "hidden"), approximate=True)
        # One matrix over [attention | MLP] in the checkpoint; two products spare the joined copy of both, and
        # let the GELU be the end of a product.
        kernel, bias = Weights(config.width, self.dtype, name="proj_out")(config.width + config.mlp_dim)
        of_attention, of_hidden = jnp.split(kernel, [config.width])
        return add_gated(x, gate, (attended @ of_attention + hidden @ of_hidden) + bias), None


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


class CameraEmbed(nn.Module):
    """Pluecker map to tokens, zero at initialisation: f32 [B, L, h, w, 6] -> f32 [B, V, D].

    Computed in full float32: half precision would round directions to 0.2 degrees and positions to
    millimetres.
    """

    width: int
    patch: tuple[int, int, int]

    @nn.compact
    def __call__(self, plucker: Array) -> Array:
        shape = (*self.patch, PLUCKER_CHANNELS, self.width)
        kernel = self.param("kernel", _zeros, shape).reshape(-1, self.width)
        bias = self.param("bias", _zeros, (self.width,))
        x = patches(plucker.astype(jnp.float32), self.patch)
        return jnp.matmul(x, kernel, precision=jax.lax.Precision.HIGHEST) + bias


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


# --------------------------------------------------------------------------------------------------
# The model


class MMDiT(nn.Module):
    """The velocity network.

    Attributes:
        config: sizes and switches.
        dtype: compute dtype of matrix products and of the residual streams (float32 or bfloat16).
        placement: where intermediate values live; changes no number.
    """

    config: MMDiTConfig
    dtype: Any = jnp.float32
    placement: Placement = ONE_DEVICE

    @nn.compact
    def __call__(
        self,
        latents: Array,
        timesteps: Array,
        text: Array,
        text_mask: Array | None = None,
        plucker: Array | None = None,
        image: Array | None = None,
    ) -> Array:
        """Predict the velocity.

        Args:
            latents: [B, L, h, w, in_channels]: noisy latent | clean condition latent | mask.
            timesteps: f32 [B] in [0, 1].
            text: [B, N, text_dim] embeddings.
            text_mask: bool [B, N], true for valid tokens; None means all are.
            plucker: f32 [B, L, h, w, 6] (or [B, L, H, W, 6] for ``plucker_res='pixel'``). Zeros mean
              "no camera", which leaves the camera layer's bias; None leaves the camera layer out.
            image: [B, I, image_dim] image-encoder features, or None.

        Returns: f32 [B, L, h, w, out_channels].
        Raises: ValueError if shapes and configuration disagree.
        """
        config, dtype, place = self.config, self.dtype, self.placement
        grid = self._check(latents, text, plucker, image)

        tokens = PatchEmbed(config.width, config.patch, dtype, name="x_embedder")(latents)  # [B, V, D]
        if config.camera is not None and (plucker is not None or self.is_initializing()):
            if plucker is None:
                size = [n * p for n, p in zip(grid, config.camera.patch)]
                plucker = jnp.zeros((latents.shape[0], *size, PLUCKER_CHANNELS))
            camera = CameraEmbed(config.width, config.camera.patch, name="camera_embedder")(plucker)
            tokens = tokens + camera
        tokens = place.constrain(tokens.astype(dtype), "batch", "tokens", None)

        lengths = None
        missing = -text.shape[1] % place.parts  # tokens that fill up the last part, and that nothing attends
        if missing:
            text_mask = jnp.ones(text.shape[:2], bool) if text_mask is None else text_mask
            text, text_mask = (
                jnp.pad(x, [(0, 0), (0, missing), (0, 0)][: x.ndim]) for x in (text, text_mask)
            )
        if text_mask is not None:
            text, lengths = valid_first(text, text_mask)
        embed = TwoLayer(config.width, lambda x: nn.gelu(x, approximate=True), dtype, name="context_embedder")
        context = embed(text.astype(dtype))  # [B, N, D]
        streams = (tokens.shape[1], text.shape[1])
        if config.image_dim is not None and (image is not None or self.is_initializing()):
            absent = image is None
            if absent:
                image = jnp.zeros((latents.shape[0], 1, config.image_dim))
            embedded = ImageEmbed(config.width, dtype, name="image_embedder")(image)
            if not absent:
                streams = (tokens.shape[1], image.shape[1], text.shape[1])
                context = join([embedded, context], place.parts)  # [B, M, D]
        check_streams(dict(zip(("video", *("image",) * (len(streams) - 2), "text"), streams)), place.parts)

        time = nn.silu(TimeEmbed(config.width, name="time_text_embed")(timesteps))
        shared = SharedModulation(config, name="shared_modulation")(time) if config.shared_modulation else {}
        rope = rope_tables(grid, config.rope_axes, config.rope_theta)
        video_tokens = streams[0]

        def conditioning(*others: int) -> Conditioning:
            """For video tokens followed by streams of these lengths, which have no position."""
            joint_rope = []
            for table, constant in zip(rope, (1.0, 0.0)):
                rest = [np.full((length, config.head_dim), constant, np.float32) for length in others]
                joint_rope.append(jnp.asarray(join_tables([table, *rest], place.parts)))
            key_lengths = None if lengths is None else lengths + sum(streams[:-1])
            video_rope = tuple(jnp.asarray(table) for table in rope)
            return Conditioning(time, shared, video_rope, tuple(joint_rope), key_lengths, lengths)

        video = tokens
        read = conditioning(*streams[1:])
        dual = self._run_layers(DualBlock, "transformer_blocks", range(config.num_dual), streams)
        video, context = dual((video, context), read)
        first_decoder = config.num_single - config.num_decoder
        name = "single_transformer_blocks"
        if first_decoder:
            single = self._run_layers(SingleBlock, name, range(first_decoder), streams)
            video = single(join([video, context], place.parts), read)
        if config.num_decoder:
            indices = range(first_decoder, config.num_single)
            twice = (video_tokens, video_tokens)
            decoder = self._run_layers(SingleBlock, name, indices, twice, decoder=True)
            # The stream restarts from the patch embedding; what was computed so far becomes its context.
            video = decoder(join([tokens, video], place.parts), conditioning(video_tokens))
        video = place.constrain(video, "batch", "tokens", None)

        video = OutputNorm(dtype, place, name="norm_out")(video, time)
        features = config.out_channels * int(np.prod(config.patch))
        video = dense(features, dtype, "proj_out", kernel_init=_zeros)(video)
        return unpatch(video.astype(jnp.float32), grid, config.patch)

    def init_params(self, rng: Array) -> dict:
        """Fresh parameters as a nested dict: adaLN-zero (the output is zero), camera layer zero. float32.

        They are the same whether or not ``config.scan_layers`` stacks them: equal layers are drawn in a scan.
        Drawn one by one, those of a large model take the compiler for a GPU minutes.
        """
        config = replace(self.config, scan_layers=True)
        latents = jnp.zeros((1, *config.patch, config.in_channels))
        text = jnp.zeros((1, 1, config.text_dim))

        # parent=None: a module made in a method is otherwise a part of the module that the method is of.
        alone = MMDiT(config, parent=None)

        @jax.jit  # so that the forward pass that init traces is dropped and only the initialisers run
        def draw(rng: Array) -> dict:
            params = alone.init(rng, latents, jnp.zeros(1), text)["params"]
            return params if self.config.scan_layers else unstack_layers(params, config)

        return draw(rng)

    def abstract_params(self) -> dict:
        """Shapes and dtypes of :meth:`init_params`, without computing anything."""
        return jax.eval_shape(self.init_params, jax.random.key(0))

    def _check(
        self, latents: Array, text: Array, plucker: Array | None, image: Array | None
    ) -> tuple[int, int, int]:
        """The token grid, after comparing every input with the configuration."""
        config = self.config
        size, patch = latents.shape[1:4], config.patch
        if latents.ndim != 5 or latents.shape[-1] != config.in_channels:
            raise ValueError(
                f"latents have shape {latents.shape}; expected [B, L, h, w, {config.in_channels}]."
            )
        if any(n % p for n, p in zip(size, patch)):
            raise ValueError(f"A latent grid of {size} cannot be cut into patches of {patch}.")
        if text.shape[-1] != config.text_dim:
            raise ValueError(
                f"text embeddings have {text.shape[-1]} channels; this model takes {config.text_dim}."
            )
        if image is not None and image.shape[-1] != config.image_dim:
            raise ValueError(
                f"image features have {image.shape[-1]} channels; this model takes {config.image_dim}."
            )
        grid = tuple(n // p for n, p in zip(size, patch))
        if plucker is not None:
            if config.camera is None:
                raise ValueError(
                    "A Pluecker map was given to a model without camera (config.camera is None)."
                )
            expected = (*(n * p for n, p in zip(grid, config.camera.patch)), PLUCKER_CHANNELS)
            if plucker.shape[1:] != expected:
                raise ValueError(
                    f"The Pluecker map has shape {plucker.shape}; latents of {latents.shape} and camera "
                    f"patches of {config.camera.patch} need [B, {', '.join(map(str, expected))}]."
                )
        return grid

    def _run_layers(
        self, block: type[nn.Module], name: str, indices: range, streams: tuple[int, ...], **attributes: Any
    ) -> Any:
        """A function (carry, conditioning) -> carry that applies blocks ``name``_i for i in ``indices`` in
        order. Of single blocks it gives the first of ``streams``.
        """
        config, shape = self.config, (self.dtype, self.placement, streams)
        alone = rematerialised(block, config.remat, scanned=False)
        equal = _equal(indices) if block is SingleBlock else indices
        if config.scan_layers and equal:
            scanned = nn.scan(
                rematerialised(block, config.remat, scanned=True),
                variable_axes={"params": 0},
                split_rngs={"params": True},
                in_axes=nn.broadcast,
                length=len(equal),
            )
            layers = [scanned(config, *shape, name=stack_name(name, equal), **attributes)]
        else:
            layers = [alone(config, *shape, name=f"{name}_{i}", **attributes) for i in equal]
        for i in indices[len(equal) :]:
            layers.append(alone(config, *shape, name=f"{name}_{i}", narrow=True, **attributes))

        def run(carry: Any, conditioning: Conditioning) -> Any:
            for layer in layers:
                carry, _ = layer(carry, conditioning)
            return carry

        return run


# --------------------------------------------------------------------------------------------------
# Parameters as they are computed with

# What is computed in float32 whatever the dtype: the time, the camera, modulation and norms.
_IN_FLOAT32 = ("time_text_embed", "camera_embedder", "shared_modulation", "scale")
_NORMS = ("norm", "norm1", "norm1_context", "norm_in", "norm_out")


def mmdit_in_dtype(params: dict, dtype: Any) -> dict:
    """Parameters with those rounded to ``dtype`` that :class:`MMDiT` of this dtype rounds itself.

    The network gives the same numbers from them, from half the memory. For sampling; training keeps float32.
    """

    def rounded(path: tuple, leaf: Any) -> Any:
        names = [entry.key for entry in path]
        whole = any(name in (*_IN_FLOAT32, *_NORMS) for name in names) or names == ["x_embedder", "bias"]
        return leaf if whole else leaf.astype(dtype)

    return jax.tree_util.tree_map_with_path(rounded, params)


# --------------------------------------------------------------------------------------------------
# Parameters of the scanned twin


def stack_name(name: str, indices: range) -> str:
    """Entry of the stacked parameters of blocks ``name``_i for i in ``indices``."""
    return f"{name}_{indices.start}_to_{indices.stop - 1}"


def _equal(singles: range) -> range:
    """Those of consecutive single blocks that compute alike: all but the last, which is narrow."""
    return singles[:-1]


def _stacks(config: MMDiTConfig) -> list[tuple[str, range]]:
    first_decoder = config.num_single - config.num_decoder
    stacks = [
        ("transformer_blocks", range(config.num_dual)),
        ("single_transformer_blocks", _equal(range(first_decoder))),
        ("single_transformer_blocks", _equal(range(first_decoder, config.num_single))),
    ]
    return [(name, indices) for name, indices in stacks if len(indices)]


def layer_names(config: MMDiTConfig) -> tuple[str, str]:
    """(an entry of per-layer parameters, an entry of stacked ones) that the other form does not have; empty
    where no two blocks are alike and both forms are one.
    """
    stacks = _stacks(config)
    if not stacks:
        return "", ""
    name, indices = stacks[0]
    return f"{name}_{indices.start}", stack_name(name, indices)


def stack_layers(params: dict, config: MMDiTConfig) -> dict:
    """Per-layer parameters -> those of the ``scan_layers`` twin, with a leading axis over equal blocks."""
    params = dict(params)
    for name, indices in _stacks(config):
        layers = [params.pop(f"{name}_{i}") for i in indices]
        params[stack_name(name, indices)] = jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)
    return params


def unstack_layers(params: dict, config: MMDiTConfig) -> dict:
    """Inverse of :func:`stack_layers`: the form that checkpoints hold."""
    params = dict(params)
    for name, indices in _stacks(config):
        stacked = params.pop(stack_name(name, indices))
        for position, i in enumerate(indices):
            params[f"{name}_{i}"] = jax.tree.map(lambda leaf, p=position: leaf[p], stacked)
    return params
