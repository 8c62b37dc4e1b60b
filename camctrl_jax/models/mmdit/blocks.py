"""The blocks of the transformer: dual-stream, single-stream and decoder, and the attention in them.

Axes: B batch, V video tokens, S video and context tokens, D width, H head dimension.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from camctrl_jax.models.mmdit.config import MMDiTConfig
from camctrl_jax.models.mmdit.layers import (
    CameraWeights,
    HeadNorm,
    KernelAndBias,
    Modulation,
    add_camera,
    add_gated,
    dense,
    merge_heads,
    modulate,
    project,
    split_heads,
)
from camctrl_jax.models.placement import Placement, join, split


class Conditioning(NamedTuple):
    """What every block reads."""

    time: Array  # f32 [B, D], after SiLU
    shared: dict[str, Array]  # products of SharedModulation, or empty
    video_rope: tuple[Array, Array]  # of rope_tables, f32 [V, H]
    joint_rope: tuple[Array, Array]  # the same, joined with angle 0 for the context: [S, H]
    key_lengths: Array | None  # int [B], valid keys among [video | image | text]
    text_lengths: Array | None  # int [B], valid keys among the text
    camera: Array | None  # f32 [B, V, F], features that a block with camera weights adds; None for no camera


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
        weights = [KernelAndBias(width, self.dtype, name=name)(width) for name in ("to_k", "to_v")]
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
            weights = [KernelAndBias(width, self.dtype, name=name)(width) for name in names]
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
        self,
        carry: tuple[Array, Array],
        conditioning: Conditioning,
        camera: CameraWeights | None = None,
    ) -> tuple[tuple[Array, Array], None]:
        place = self.placement
        video, context = (place.constrain(stream, "batch", "tokens", None) for stream in carry)
        if camera is not None:
            video = add_camera(video, conditioning.camera, camera)
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
            KernelAndBias(width, self.dtype, name=name)(width) for name in ("to_q", "to_k", "to_v")
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
    def __call__(
        self, x: Array, conditioning: Conditioning, camera: CameraWeights | None = None
    ) -> tuple[Array, None]:
        config, place = self.config, self.placement
        x = place.constrain(x, "batch", "tokens", None)
        lengths = (self.streams[0], sum(self.streams[1:]))
        if camera is not None:
            video, context = split(x, lengths, place.parts)
            x = join([add_camera(video, conditioning.camera, camera), context], place.parts)
        modulation = Modulation(3, place, name="norm")(conditioning.time, conditioning.shared.get("norm"))
        shift, scale, gate = modulation
        normed = modulate(x, shift, scale, self.dtype)  # [B, S, D]
        attended = SingleAttention(config, self.dtype, place, self.streams, name="attn")(
            normed, conditioning, masked=not self.decoder, narrow=self.narrow
        )
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
        kernel, bias = KernelAndBias(config.width, self.dtype, name="proj_out")(config.width + config.mlp_dim)
        of_attention, of_hidden = jnp.split(kernel, [config.width])
        return add_gated(x, gate, (attended @ of_attention + hidden @ of_hidden) + bias), None
