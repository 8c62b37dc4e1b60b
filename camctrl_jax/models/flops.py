"""How many floating-point operations the transformer takes, by formula: the compiler counts the body of a
scan once and sees nothing inside fused attention kernels.

A product of [a, b] and [b, c] counts 2 a b c; everything that is not a matrix product counts nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from camctrl_jax.models.mmdit.config import (
    CAMERA_BLOCKS,
    CAMERA_CHANNELS,
    PLUCKER_CHANNELS,
    TIME_CHANNELS,
    MMDiTConfig,
)


@dataclass(frozen=True)
class Flops:
    """Operations of one forward pass for one clip.

    Attributes:
        products: matrix products with parameters.
        attention: products of queries with keys and of weights with values.
    """

    products: float
    attention: float

    @property
    def forward(self) -> float:
        """All of a forward pass."""
        return self.products + self.attention

    @property
    def training(self) -> float:
        """Forward and backward pass, the latter counted as two forward passes; no recomputation."""
        return 3.0 * self.forward

    def recomputed(self, remat: str) -> float:
        """What the policy called ``remat`` computes again in the backward pass."""
        if remat == "full":
            return self.forward
        return self.attention if remat in ("dots", "offload") else 0.0


def mmdit_flops(config: MMDiTConfig, grid: tuple[int, int, int], text: int, image: int = 0) -> Flops:
    """Operations of a forward pass for one clip.

    Args:
        config: the transformer.
        grid: latent frames, height and width of the latents, as :class:`MMDiT` gets them.
        text: text tokens, padding included.
        image: image tokens.
    """
    width, mlp = config.width, config.mlp_dim
    (t, h, w), (pt, ph, pw) = grid, config.patch
    video = (t // pt) * (h // ph) * (w // pw)
    volume, context = pt * ph * pw, text + image
    joint = video + context

    products = 2.0 * video * width * volume * (config.in_channels + config.out_channels)
    if config.camera is not None:
        products += _camera_products(config, video)
    products += 2.0 * text * width * (config.text_dim + width)
    if image:
        products += 2.0 * image * config.image_dim * (config.image_dim + width)
    products += 2.0 * width * (TIME_CHANNELS + width)  # of the time
    products += 2.0 * width * 2 * width  # of the output's modulation

    def modulation(chunks: int, blocks: int) -> float:
        return 2.0 * chunks * width**2 * (min(blocks, 1) if config.shared_modulation else blocks)

    cross = 2.0 * width**2 * (2 * video + 2 * text), 4.0 * video * text * width  # products, attention
    dual = config.num_dual
    products += modulation(12, dual) + dual * 2.0 * joint * width * (4 * width + 2 * mlp)
    attention = dual * 4.0 * joint**2 * width
    if dual and not config.num_single:  # nothing reads the context that the last block gives
        products -= 2.0 * context * width * (width + 2 * mlp)
    if config.text_cross_attention_dual:
        products, attention = products + dual * cross[0], attention + dual * cross[1]

    products += modulation(3, config.num_single)
    single_product = 2.0 * width * (3 * width + mlp + (width + mlp))  # of one token in one block
    encoder, decoder = config.num_single - config.num_decoder, config.num_decoder
    products += encoder * joint * single_product + decoder * 2 * video * single_product
    attention += encoder * 4.0 * joint**2 * width + decoder * 4.0 * (2 * video) ** 2 * width
    for blocks, others in ((encoder, context), (decoder, video)):
        if blocks:  # of the others, the last block computes keys and values only
            products -= others * (single_product - 2.0 * 2 * width**2)
            attention -= 4.0 * others * (video + others) * width
    if config.text_cross_attention_single:
        products, attention = products + encoder * cross[0], attention + encoder * cross[1]
    return Flops(products, attention)


def _camera_products(config: MMDiTConfig, video: int) -> float:
    """What the camera adds, for so many video tokens."""
    camera, products = config.camera, 0.0
    features = prod(camera.patch) * PLUCKER_CHANNELS  # of one token
    if camera.encoder == "deep":
        positions = video * prod(config.patch)  # of the convolutions
        channels_in = features // prod(config.patch)
        kernels = 9 * CAMERA_CHANNELS * (channels_in + 2 * CAMERA_BLOCKS * CAMERA_CHANNELS)
        products += 2.0 * positions * kernels
        features = prod(config.patch) * CAMERA_CHANNELS
    projections = 1
    if camera.injection == "every":
        projections += config.num_dual + config.num_single - config.num_decoder
    return products + projections * 2.0 * video * features * config.width
