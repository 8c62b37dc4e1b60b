"""The discriminator of adversarial post-training: a transformer that reads, with heads that judge.

Its backbone is the diffusion transformer itself, made to start from its weights and trained whole. At three
depths a token of its own looks at the video tokens by cross-attention; what the three have seen becomes one
logit. APT (arXiv 2501.08316) gives a clip one logit; its successor (arXiv 2506.09350) gives every latent
frame one, judged by the tokens of that frame.

Axes: B batch, L latent frames of the window, R retrieved ones, V video tokens, P tokens of what is judged at
once, D width, H head dimension.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from camctrl_jax.errors import InvalidValue
from camctrl_jax.models.mmdit import MMDiT, MMDiTConfig
from camctrl_jax.models.mmdit.layers import NORM_EPS, HeadNorm, dense, merge_heads, split_heads
from camctrl_jax.models.placement import ONE_DEVICE, Placement

DEPTHS = (0.44, 0.72, 1.0)  # blocks 16, 26 and 36 of 36
LOGITS = ("frame", "clip")
# Parts of the transformer that come after what is tapped.
_UNREAD = ("norm_out", "proj_out")


@dataclass(frozen=True)
class CriticConfig:
    """What a critic is.

    Attributes:
        backbone: sizes of the transformer.
        logits: 'frame', one for each latent frame; 'clip', one for all.
        depths: shares of the blocks after which heads look; those that name the same block share a head.
    """

    backbone: MMDiTConfig
    logits: str = "frame"
    depths: tuple[float, ...] = DEPTHS

    def __post_init__(self) -> None:
        if self.logits not in LOGITS:
            raise InvalidValue(f"logits={self.logits!r} is unknown; choose {' or '.join(map(repr, LOGITS))}.")
        if not self.depths or not all(0 < depth <= 1 for depth in self.depths):
            raise InvalidValue(
                f"depths={self.depths}: expected shares of the blocks in (0, 1], such as {DEPTHS}."
            )
        if self.logits == "frame" and self.backbone.patch[0] != 1:
            raise InvalidValue(
                f"logits='frame' needs patches of one latent frame; those of this model are "
                f"{self.backbone.patch}: choose logits='clip'."
            )

    @property
    def taps(self) -> tuple[int, ...]:
        """Numbers of the blocks after which heads look, from 1."""
        depth = self.backbone.depth
        return tuple(sorted({max(1, round(share * depth)) for share in self.depths}))


class Head(nn.Module):
    """One learned token that attends to others: a cross-attention block, f32 [B, D] of [B, P, D].

    Norms and the softmax are computed in float32, matrix products in ``dtype``.
    """

    heads: int
    dtype: Any

    @nn.compact
    def __call__(self, tokens: Array) -> Array:
        width = tokens.shape[-1]
        query = self.param("query", nn.initializers.normal(1.0), (width,))[None, None]  # [1, 1, D]
        normed = RootMeanSquareNorm(name="norm_tokens")(tokens).astype(self.dtype)
        asked = RootMeanSquareNorm(name="norm_query")(query).astype(self.dtype)
        asked = HeadNorm(self.heads, name="norm_q")(dense(width, self.dtype, "to_q")(asked), None)
        key = HeadNorm(self.heads, name="norm_k")(dense(width, self.dtype, "to_k")(normed), None)
        value = split_heads(dense(width, self.dtype, "to_v")(normed), self.heads)
        # One query: plain products, which the compiler can cut over tokens as well.
        scores = jnp.einsum("nh,bpnh->bnp", asked[0, 0], key, preferred_element_type=jnp.float32)
        weights = jax.nn.softmax(scores * key.shape[-1] ** -0.5, axis=-1).astype(self.dtype)
        seen = jnp.einsum("bnp,bpnh->bnh", weights, value)[:, None]  # [B, 1, heads, H]
        x = query + dense(width, self.dtype, "to_out_0")(merge_heads(seen)).astype(jnp.float32)
        hidden = RootMeanSquareNorm(name="norm_mlp")(x).astype(self.dtype)
        hidden = nn.gelu(dense(4 * width, self.dtype, "mlp_in")(hidden), approximate=True)
        return (x + dense(width, self.dtype, "mlp_out")(hidden).astype(jnp.float32))[:, 0]


class RootMeanSquareNorm(nn.Module):
    """RMS norm over channels with a learned gain, to float32."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = x.astype(jnp.float32)
        gain = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + NORM_EPS) * gain


class Judgement(nn.Module):
    """The heads and the logit: f32 [B] of a list of tokens [B, P, D], one for each depth."""

    heads: int
    dtype: Any

    @nn.compact
    def __call__(self, tapped: list[Array]) -> Array:
        seen = [Head(self.heads, self.dtype, name=f"head_{i}")(x) for i, x in enumerate(tapped)]
        joined = nn.LayerNorm(epsilon=NORM_EPS, dtype=jnp.float32, name="norm_logit")(
            jnp.concatenate(seen, axis=-1)
        )
        return dense(1, jnp.float32, "logit")(joined)[:, 0]


@dataclass(frozen=True)
class Critic:
    """The discriminator as a pure function of its parameters, {"backbone": ..., "judgement": ...}.

    Attributes:
        config: what it is.
        dtype: compute dtype of matrix products.
        placement: where the backbone's intermediate values live.
    """

    config: CriticConfig
    dtype: Any = jnp.float32
    placement: Placement = ONE_DEVICE

    def __call__(
        self,
        params: dict,
        latents: Array,
        timesteps: Array,
        text: Array,
        text_mask: Array,
        plucker: Array | None,
        retrieved: int = 0,
    ) -> Array:
        """Logits, positive for real: f32 [B, L] of 'frame' (the window's), f32 [B, 1] of 'clip'.

        Args:
            params: of :meth:`init_params`, the backbone's with an entry per layer or stacked, as its
                configuration says.
            latents: [B, R + L, h, w, in_channels]: clean latents | clean condition latents | mask.
            timesteps: f32 [B] in (0, 1]; the latents are clean whatever they are.
            text, text_mask, plucker, retrieved: as :class:`MMDiT` takes them.
        """
        backbone = self.config.backbone
        tapped = MMDiT(backbone, self.dtype, self.placement).apply(
            {"params": params["backbone"]},
            latents,
            timesteps,
            text,
            text_mask,
            plucker,
            retrieved=retrieved,
            taps=self.config.taps,
        )
        batch, frames = latents.shape[0], latents.shape[1] // backbone.patch[0]
        # [B, frames, tokens of a frame, D], retrieved frames left out.
        tapped = [x.reshape(batch, frames, -1, x.shape[-1])[:, retrieved:] for x in tapped]
        parts = frames - retrieved if self.config.logits == "frame" else 1
        judged = [x.reshape(batch * parts, -1, x.shape[-1]) for x in tapped]
        logits = self._judgement.apply({"params": params["judgement"]}, judged)
        return logits.reshape(batch, parts)

    def init_params(self, key: Array, backbone: dict) -> dict:
        """Parameters that begin with those of a transformer (what comes after its blocks left out) and fresh
        heads.
        """
        width = self.config.backbone.width
        tokens = [jnp.zeros((1, 1, width))] * len(self.config.taps)
        return {
            "backbone": read_by_critics(backbone),
            "judgement": self._judgement.init(key, tokens)["params"],
        }

    @property
    def _judgement(self) -> Judgement:
        return Judgement(self.config.backbone.heads, self.dtype)


def read_by_critics(transformer: dict) -> dict:
    """Those of a transformer's parameters that a critic has."""
    return {name: part for name, part in transformer.items() if name not in _UNREAD}
