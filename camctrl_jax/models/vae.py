"""The causal video autoencoder of Wan 2.1: 4x in time, 8x in space, 16 channels; weight-compatible with
diffusers.

Axes: B batch, T = 4k+1 frames, L = k+1 latents, H, W pixels, h = H/8, w = W/8, C channels; channels last.

No statistic and no convolution looks ahead in time: the latents of a prefix are the prefix of the latents, an
image is the first latent of its video, and a stream encoded or decoded chunk by chunk in constant memory
equals the whole clip. The reference schedule (frame 0, then groups of 4) is one case of this: layers behave
the same for any chunking, because only the temporal resampling treats a clip's first frame differently (see
causal_conv.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jax import Array, lax

from camctrl_jax.clip_shape import ClipShape
from camctrl_jax.errors import InvalidValue
from camctrl_jax.models.causal_conv import (
    CausalConv3d,
    ChannelNorm,
    ConvForm,
    Downsample,
    FrameAttention,
    Past,
    ResidualBlock,
    Upsample,
)

VIDEO_CHANNELS = 3
LOG_VARIANCE_RANGE = (-30.0, 20.0)

# Statistics of the released Wan 2.1 latents, per channel.
WAN21_LATENTS_MEAN = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)  # fmt: skip
WAN21_LATENTS_STD = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)  # fmt: skip


@dataclass(frozen=True)
class VAEConfig:
    """Sizes of the autoencoder; the fields of diffusers' ``AutoencoderKLWan`` with ``is_residual`` false.

    ``base_dim`` and ``decoder_base_dim`` times ``dim_mult`` are the widths from full to lowest resolution;
    ``temporal_downsample`` says for each halving of space whether it also halves time (diffusers spells the
    field ``temperal_downsample``); ``patch_size`` 2 moves 2x2 pixels into channels before the first
    convolution. ``latents_mean`` and ``latents_std`` are used outside the autoencoder, by :func:`normalise`.

    ``frame_wise_levels`` is our own: levels (0 is the full resolution) whose 3x3x3 convolutions become 1x3x3,
    which look at one frame at a time; the last level is also that of the middle. The stock class holds such
    kernels with zeros for the frames before.
    """

    base_dim: int = 96
    decoder_base_dim: int | None = None
    z_dim: int = 16
    dim_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    attn_scales: tuple[float, ...] = ()
    temporal_downsample: tuple[bool, ...] = (False, True, True)
    patch_size: int | None = None
    latents_mean: tuple[float, ...] = WAN21_LATENTS_MEAN
    latents_std: tuple[float, ...] = WAN21_LATENTS_STD
    # Left out of what fingerprints are made of, so that those of earlier weights stay: kernels tell it, too.
    frame_wise_levels: tuple[int, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if len(self.temporal_downsample) != len(self.dim_mult) - 1:
            raise InvalidValue(
                f"temporal_downsample={self.temporal_downsample} must have one entry for each step between "
                f"the {len(self.dim_mult)} widths of dim_mult={self.dim_mult}."
            )
        for name in ("latents_mean", "latents_std"):
            if len(getattr(self, name)) != self.z_dim:
                raise InvalidValue(
                    f"{name} has {len(getattr(self, name))} values for z_dim={self.z_dim} channels."
                )
        if any(std <= 0 for std in self.latents_std):
            raise InvalidValue(f"latents_std={self.latents_std} must be positive.")
        if not set(self.frame_wise_levels) <= set(range(len(self.dim_mult))):
            raise InvalidValue(
                f"frame_wise_levels={self.frame_wise_levels}: there are the levels 0 to "
                f"{len(self.dim_mult) - 1} only."
            )

    def time_taps(self, level: int) -> int:
        """Frames that a convolution of this level looks at."""
        return 1 if level in self.frame_wise_levels else 3

    @property
    def pixel_patch(self) -> int:
        """Side of the pixel square that becomes channels before the first convolution."""
        return self.patch_size or 1

    @property
    def spatial_stride(self) -> int:
        """Pixels per latent position along height and width."""
        return self.pixel_patch * 2 ** len(self.temporal_downsample)

    @property
    def temporal_stride(self) -> int:
        """Frames per latent after the first."""
        return 2 ** sum(self.temporal_downsample)

    def clip_shape(self, frames: int, height: int, width: int) -> ClipShape:
        """The size of a video with the strides of this autoencoder, unchecked."""
        return ClipShape(frames, height, width, self.temporal_stride, self.spatial_stride)

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """(L, h, w, z_dim) of a video of ``frames`` x ``height`` x ``width``.

        Raises:
            InvalidValue: none fits; names the value and the nearest that works.
        """
        return *self.clip_shape(frames, height, width).check((1, 1, 1)).latent_shape, self.z_dim


def pixels_to_channels(x: Array, patch: int) -> Array:
    """[B, T, H, W, C] -> [B, T, H/p, W/p, C*p*p], channel order (C, column in patch, row in patch) as in Wan
    2.2.
    """
    return rearrange(x, "b t (h row) (w column) c -> b t h w (c column row)", row=patch, column=patch)


def channels_to_pixels(x: Array, patch: int) -> Array:
    """Inverse of :func:`pixels_to_channels`."""
    return rearrange(x, "b t h w (c column row) -> b t (h row) (w column) c", row=patch, column=patch)


def normalise(latents: Array, config: VAEConfig) -> Array:
    """(z - mean) / std per channel, [..., z_dim]: what the diffusion model sees. float32."""
    mean, std = (jnp.asarray(v, jnp.float32) for v in (config.latents_mean, config.latents_std))
    return (latents.astype(jnp.float32) - mean) / std


def denormalise(latents: Array, config: VAEConfig) -> Array:
    """Inverse of :func:`normalise`: what :meth:`VAE.decode` takes. float32."""
    mean, std = (jnp.asarray(v, jnp.float32) for v in (config.latents_mean, config.latents_std))
    return latents.astype(jnp.float32) * std + mean


class _Stage(nn.Module):
    """What encoder and decoder share: settings and the two layers they are made of."""

    config: VAEConfig
    dtype: Any
    form: ConvForm
    remat: bool

    def residual(self, features: int, level: int, name: str) -> ResidualBlock:
        block = nn.remat(ResidualBlock) if self.remat else ResidualBlock
        return block(features, self.dtype, self.form, self.config.time_taps(level), name=name)

    def conv(self, features: int, level: int, name: str) -> CausalConv3d:
        kernel = (self.config.time_taps(level), 3, 3)
        return CausalConv3d(features, kernel, self.dtype, self.form, name=name)

    @property
    def lowest(self) -> int:
        """The level of the middle."""
        return len(self.config.dim_mult) - 1


class MidBlock(_Stage):
    """Residual block, frame-wise attention, residual block, at the lowest resolution."""

    @nn.compact
    def __call__(self, x: Array, past: Past = None) -> tuple[Array, Past]:
        past, future = past or {}, {}
        for name in ("resnets_0", "resnets_1"):
            x, future[name] = self.residual(x.shape[-1], self.lowest, name)(x, past.get(name))
            if name == "resnets_0":
                x = FrameAttention(self.dtype, name="attentions_0")(x)
        return x, future


class Encoder(_Stage):
    """[B, T, H/p, W/p, 3*p*p] -> [B, L, h, w, 2*z_dim]."""

    @nn.compact
    def __call__(self, x: Array, past: Past = None) -> tuple[Array, Past]:
        config = self.config
        past, future = past or {}, {}

        def run(layer: nn.Module, name: str, x: Array) -> Array:
            y, future[name] = layer(x, past.get(name))
            return y

        x = run(self.conv(config.base_dim, 0, "conv_in"), "conv_in", x)
        index, scale = 0, 1.0
        for level, multiple in enumerate(config.dim_mult):
            features = config.base_dim * multiple
            for _ in range(config.num_res_blocks):
                name = f"down_blocks_{index}"
                x = run(self.residual(features, level, name), name, x)
                index += 1
                if scale in config.attn_scales:
                    x = FrameAttention(self.dtype, name=f"down_blocks_{index}")(x)
                    index += 1
            if level < len(config.temporal_downsample):
                name = f"down_blocks_{index}"
                x = run(Downsample(config.temporal_downsample[level], self.dtype, name=name), name, x)
                index += 1
                scale /= 2
        middle = MidBlock(config, self.dtype, self.form, self.remat, name="mid_block")
        x = run(middle, "mid_block", x)
        x = nn.silu(ChannelNorm(name="norm_out")(x)).astype(self.dtype)
        x = run(self.conv(2 * config.z_dim, self.lowest, "conv_out"), "conv_out", x)
        return x, future


class UpBlock(_Stage):
    """``num_res_blocks`` + 1 residual blocks, then (but for the last) an upsampling that halves the width."""

    features: int
    level: int
    temporal: bool | None  # None: no upsampling

    @nn.compact
    def __call__(self, x: Array, past: Past = None) -> tuple[Array, Past]:
        past, future = past or {}, {}
        for i in range(self.config.num_res_blocks + 1):
            name = f"resnets_{i}"
            x, future[name] = self.residual(self.features, self.level, name)(x, past.get(name))
        if self.temporal is not None:
            name = "upsamplers_0"
            upsample = Upsample(self.features // 2, self.temporal, self.dtype, name=name)
            x, future[name] = upsample(x, past.get(name))
        return x, future


class Decoder(_Stage):
    """[B, L, h, w, z_dim] -> [B, T, H/p, W/p, 3*p*p]."""

    @nn.compact
    def __call__(self, x: Array, past: Past = None) -> tuple[Array, Past]:
        config = self.config
        past, future = past or {}, {}

        def run(layer: nn.Module, name: str, x: Array) -> Array:
            y, future[name] = layer(x, past.get(name))
            return y

        base = config.decoder_base_dim or config.base_dim
        x = run(self.conv(base * config.dim_mult[-1], self.lowest, "conv_in"), "conv_in", x)
        middle = MidBlock(config, self.dtype, self.form, self.remat, name="mid_block")
        x = run(middle, "mid_block", x)
        upsampling = (*config.temporal_downsample[::-1], None)
        for i, (multiple, temporal) in enumerate(zip(config.dim_mult[::-1], upsampling)):
            name = f"up_blocks_{i}"
            sizes = (base * multiple, self.lowest - i, temporal)
            x = run(UpBlock(config, self.dtype, self.form, self.remat, *sizes, name=name), name, x)
        x = nn.silu(ChannelNorm(name="norm_out")(x)).astype(self.dtype)
        x = run(self.conv(VIDEO_CHANNELS * config.pixel_patch**2, 0, "conv_out"), "conv_out", x)
        return x, future


class VAE(nn.Module):
    """The autoencoder. Call its methods through ``apply``: ``vae.apply({"params": p}, video,
    method=VAE.encode)``.

    Attributes:
        config: sizes.
        dtype: dtype of the convolutions; parameters are float32 and norms run in float32 whatever it is.
        conv_form: how 3x3x3 convolutions are run: 'auto', 'direct' or 'taps'; same parameters and result.
        remat: recompute residual blocks in the backward pass instead of storing their activations.
    """

    config: VAEConfig
    dtype: Any = jnp.float32
    conv_form: ConvForm = "auto"
    remat: bool = False

    def setup(self) -> None:
        stage = (self.config, self.dtype, self.conv_form, self.remat)
        pointwise = (1, 1, 1)
        self.encoder = Encoder(*stage)
        self.quant_conv = CausalConv3d(2 * self.config.z_dim, pointwise, self.dtype)
        self.post_quant_conv = CausalConv3d(self.config.z_dim, pointwise, self.dtype)
        self.decoder = Decoder(*stage)

    def __call__(self, video: Array) -> Array:
        """Reconstruct from the latent mean: [B, T, H, W, 3] -> [B, T, H, W, 3]. Also what ``init`` is called
        with.
        """
        return self.decode(self.encode(video)[0])

    def init_params(self, rng: Array) -> dict:
        """Fresh parameters as a nested dict. float32."""
        side = self.config.spatial_stride
        # Jitted, the forward pass that init traces is dropped and only the initialisers run.
        return jax.jit(self.init)(rng, jnp.zeros((1, 1, side, side, VIDEO_CHANNELS)))["params"]

    def abstract_params(self) -> dict:
        """Shapes and dtypes of :meth:`init_params`, without computing anything."""
        return jax.eval_shape(self.init_params, jax.random.key(0))

    def encode(self, video: Array) -> tuple[Array, Array]:
        """Mean and log-variance of the latents of a whole clip.

        Args:
            video: float [B, T, H, W, 3] in [-1, 1]; T = 4k+1, H and W multiples of ``config.spatial_stride``.

        Returns: (mean, log-variance), each float32 [B, L, h, w, z_dim], L = k+1, not normalised.
        Raises: ValueError for other sizes.
        """
        self.config.latent_shape(*video.shape[1:4])
        mean, log_variance, _ = self.encode_chunk(video)
        return mean, log_variance

    def decode(self, latents: Array, clip: bool = True) -> Array:
        """Video of a whole clip's latents.

        Args:
            latents: [B, L, h, w, z_dim], not normalised.
            clip: clamp to [-1, 1] as the reference does. Not for training: a clamped pixel has no gradient.

        Returns: float32 [B, T, H, W, 3], T = 4(L-1)+1.
        """
        return self.decode_chunk(latents, None, clip)[0]

    def encode_chunk(self, video: Array, past: Past = None) -> tuple[Array, Array, Past]:
        """Encode the next frames of a stream.

        Args:
            video: [B, T, H, W, 3]; 4k+1 frames if ``past`` is None (the stream starts), else 4k frames.
            past: what the previous call returned last, or None.

        Returns: (mean, log-variance, past for the next call); k+1 latents at the start, else k.
        """
        frames, stride = video.shape[1], self.config.temporal_stride
        expected = 1 if past is None else 0
        if frames % stride != expected % stride or frames == 0:
            raise InvalidValue(
                f"A chunk of {frames} frames: pass {stride}k{'+1' if past is None else ''} frames at "
                f"{'the start' if past is None else 'a later place'} of a stream."
            )
        self.config.latent_shape(1, *video.shape[2:4])
        x = pixels_to_channels(video.astype(self.dtype), self.config.pixel_patch)
        x, past = self.encoder(x, past)
        x, _ = self.quant_conv(x)
        mean, log_variance = jnp.split(x.astype(jnp.float32), 2, axis=-1)
        return mean, jnp.clip(log_variance, *LOG_VARIANCE_RANGE), past

    def decode_chunk(self, latents: Array, past: Past = None, clip: bool = True) -> tuple[Array, Past]:
        """Decode the next latents of a stream: (video, past for the next call). See :meth:`encode_chunk`."""
        if latents.shape[-1] != self.config.z_dim:
            raise InvalidValue(
                f"Latents of {latents.shape[-1]} channels; this autoencoder has {self.config.z_dim}."
            )
        x, _ = self.post_quant_conv(latents.astype(self.dtype))
        x, past = self.decoder(x, past)
        video = channels_to_pixels(x.astype(jnp.float32), self.config.pixel_patch)
        return jnp.clip(video, -1.0, 1.0) if clip else video, past


def _scan_chunks(step, sequence: Array, size: int, past: Past, outputs_per_chunk: int) -> list[Array]:
    """Run ``step(chunk, past) -> (list of arrays, past)`` over ``sequence`` [B, N, ...] in chunks of ``size``
    entries.

    The tail is filled with copies of the last entry and what they give is cut off: later entries change
    nothing before. Returns the outputs, each [B, N // size * outputs_per_chunk, ...].
    """
    entries = sequence.shape[1]
    chunks = -(-entries // size)
    missing = chunks * size - entries
    if missing:
        sequence = jnp.concatenate([sequence, jnp.repeat(sequence[:, -1:], missing, axis=1)], axis=1)

    def body(past, i):
        outputs, past = step(lax.dynamic_slice_in_dim(sequence, i * size, size, axis=1), past)
        return past, outputs

    _, outputs = lax.scan(body, past, jnp.arange(chunks))
    keep = entries * outputs_per_chunk // size
    merged = []
    for y in outputs:  # [chunks, B, outputs_per_chunk, ...]
        y = jnp.moveaxis(y, 0, 1)
        merged.append(y.reshape(y.shape[0], -1, *y.shape[3:])[:, :keep])
    return merged


def encode_streaming(vae: VAE, params: Any, video: Array, latents_per_chunk: int = 1) -> tuple[Array, Array]:
    """:meth:`VAE.encode` with activations for one chunk at a time: the first frame, then 4 frames per latent.

    Equal to the whole-clip result up to rounding. Jit it with ``vae`` and ``latents_per_chunk`` static.
    """
    vae.config.latent_shape(*video.shape[1:4])

    def encode(chunk, past):
        mean, log_variance, past = vae.apply({"params": params}, chunk, past, method=VAE.encode_chunk)
        return [mean, log_variance], past

    first, past = encode(video[:, :1], None)
    if video.shape[1] == 1:
        return tuple(first)
    size = latents_per_chunk * vae.config.temporal_stride
    rest = _scan_chunks(encode, video[:, 1:], size, past, latents_per_chunk)
    return tuple(jnp.concatenate(pair, axis=1) for pair in zip(first, rest))


def decode_streaming(
    vae: VAE, params: Any, latents: Array, latents_per_chunk: int = 1, clip: bool = True
) -> Array:
    """:meth:`VAE.decode` with activations for one chunk at a time: the first latent, then
    ``latents_per_chunk``.

    Equal to the whole-clip result up to rounding. Jit it with ``vae``, ``latents_per_chunk`` and ``clip``
    static.
    """

    def decode(chunk, past):
        video, past = vae.apply({"params": params}, chunk, past, clip, method=VAE.decode_chunk)
        return [video], past

    (first,), past = decode(latents[:, :1], None)
    if latents.shape[1] == 1:
        return first
    frames = latents_per_chunk * vae.config.temporal_stride
    (rest,) = _scan_chunks(decode, latents[:, 1:], latents_per_chunk, past, frames)
    return jnp.concatenate([first, rest], axis=1)


# Feature maps of the full resolution that are alive at once, as XLA schedules the open autoencoder: one more
# latent of 384x640 pixels takes 1.06 GiB in bfloat16.
_LIVE_MAPS = 6
# Bytes of activations that a whole clip may take. More was slower for the open autoencoder at 384x640 on a
# GPU (docs/results/performance.md); one clip of the worlds' size fits whole.
CHUNK_MEMORY = int(1.5 * 2**30)


def latents_within(
    memory: int, config: VAEConfig, height: int, width: int, dtype: Any, clips: int = 1
) -> int:
    """How many latents of each clip can be encoded or decoded at once in about ``memory`` bytes of
    activations; at least one.

    Args:
        memory: bytes.
        config: the autoencoder.
        height, width: of the video, in pixels.
        dtype: of the convolutions.
        clips: in the batch.
    """
    channels = max(config.base_dim, config.decoder_base_dim or 0)
    positions = config.temporal_stride * height * width // config.pixel_patch**2
    each = _LIVE_MAPS * clips * positions * channels * jnp.dtype(dtype).itemsize
    return max(1, int(memory // each))


def encode_within(vae: VAE, params: Any, video: Array, memory: int | None = None) -> tuple[Array, Array]:
    """:meth:`VAE.encode`, streamed in chunks where the whole clip would take more than ``memory`` bytes.

    Equal to the whole clip up to rounding. Jit it with ``vae`` and ``memory`` static.
    """
    latents = vae.config.latent_shape(*video.shape[1:4])[0]
    chunk = _chunk(vae, latents, *video.shape[2:4], len(video), memory)
    if chunk is None:
        return vae.apply({"params": params}, video, method=VAE.encode)
    return encode_streaming(vae, params, video, chunk)


def decode_within(vae: VAE, params: Any, latents: Array, memory: int | None = None) -> Array:
    """:meth:`VAE.decode`, streamed in chunks where the whole clip would take more than ``memory`` bytes."""
    clips, length, *size = latents.shape[:4]
    height, width = (side * vae.config.spatial_stride for side in size)
    chunk = _chunk(vae, length, height, width, clips, memory)
    if chunk is None:
        return vae.apply({"params": params}, latents, method=VAE.decode)
    return decode_streaming(vae, params, latents, chunk)


def _chunk(vae: VAE, latents: int, height: int, width: int, clips: int, memory: int | None) -> int | None:
    """Latents of one chunk, of chunks as equal as can be; None if the whole clip fits."""
    if memory is None:
        return None
    most = latents_within(memory, vae.config, height, width, vae.dtype, clips)
    if latents <= most:
        return None
    later = latents - 1  # a stream starts with one latent, that of its first frame
    return -(-later // -(-later // most))
