"""Convolutions that look only backwards in time, and the norm and resampling layers built on them.

Axes: B batch, T frames, H height, W width, C channels; channels last everywhere. Every layer takes ``past``,
what it must remember of earlier frames (None: the clip starts here), and returns the ``past`` of the frames
to come, so that one code path serves whole clips and streams.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

from camctrl_jax.errors import InvalidValue

ConvForm = Literal["auto", "direct", "taps"]
Past = Any  # None, an array, or a dict of these by layer name


def _kernel_init(rng: Array, shape: tuple[int, ...]) -> Array:
    """Uniform with variance 1 / fan-in.

    Drawn as a matrix: random bits over five axes take XLA three times as long to compile.
    """
    flat = (math.prod(shape[:-1]), shape[-1])
    return nn.initializers.lecun_uniform()(rng, flat, jnp.float32).reshape(shape)


def choose_conv_form(form: ConvForm) -> Literal["direct", "taps"]:
    """Resolve ``'auto'``: 2-D convolutions over concatenated time taps on CPU and GPU, 3-D ones elsewhere.

    On one H200 the taps run the 3x3x3 convolutions of this model up to twice as fast as XLA's 3-D
    convolution.
    """
    if form == "auto":
        return "taps" if jax.default_backend() in ("cpu", "gpu") else "direct"
    if form not in ("direct", "taps"):
        raise InvalidValue(f"conv_form={form!r} is unknown; choose 'auto', 'direct' or 'taps'.")
    return form


def fold_time(x: Array) -> Array:
    """[B, T, H, W, C] -> [B*T, H, W, C], the layout of everything that works frame by frame."""
    return x.reshape(-1, *x.shape[2:])


def unfold_time(x: Array, batch: int) -> Array:
    """[B*T, H, W, C] -> [B, T, H, W, C]."""
    return x.reshape(batch, -1, *x.shape[1:])


def conv2d(x: Array, kernel: Array, *, stride: int = 1, padding: tuple | None = None) -> Array:
    """x [N, H, W, C], kernel [kh, kw, C, F] -> [N, H', W', F]; padding defaults to symmetric, same size."""
    kh, kw = kernel.shape[:2]
    if kh == kw == stride == 1:
        return x @ kernel[0, 0]
    if padding is None:
        padding = ((kh // 2, kh // 2), (kw // 2, kw // 2))
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def conv_over_window(window: Array, kernel: Array, *, time_stride: int = 1, form: ConvForm = "auto") -> Array:
    """3-D convolution, valid in time and same-size in space.

    window [B, T + kt - 1, H, W, C], kernel [kt, kh, kw, C, F] -> [B, T', H, W, F] with T' = (T - 1) // stride
    + 1.
    """
    kt, kh, kw, channels, features = kernel.shape
    frames = (window.shape[1] - kt) // time_stride + 1
    # A pointwise kernel in space is a matrix product whatever the form, so only 3x3 kernels take the direct
    # route.
    if choose_conv_form(form) == "direct" and kh * kw > 1:
        return lax.conv_general_dilated(
            window,
            kernel,
            (time_stride, 1, 1),
            ((0, 0), (kh // 2, kh // 2), (kw // 2, kw // 2)),
            dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
        )
    taps = [window[:, i : i + time_stride * frames : time_stride] for i in range(kt)]
    stacked = taps[0] if kt == 1 else jnp.concatenate(taps, axis=-1)  # [B, T', H, W, kt*C]
    flat_kernel = kernel.transpose(1, 2, 0, 3, 4).reshape(kh, kw, kt * channels, features)
    return unfold_time(conv2d(fold_time(stacked), flat_kernel), window.shape[0])


class Conv2d(nn.Module):
    """Frame-wise 3x3 or 1x1 convolution: [B*T, H, W, C] -> [B*T, H', W', features]."""

    features: int
    kernel_size: int = 3
    stride: int = 1
    padding: tuple | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", _kernel_init, shape).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
        return conv2d(x.astype(self.dtype), kernel, stride=self.stride, padding=self.padding) + bias


class CausalConv3d(nn.Module):
    """Convolution over (time, height, width) whose output frame t sees input frames t-kt+1..t only.

    The kernel is kept as [kt, kh, kw, C, features] whatever form it is computed in. The frames before the
    clip are zeros (``past`` None) or the last kt-1 input frames of the previous chunk.
    """

    features: int
    kernel_size: tuple[int, int, int] = (3, 3, 3)
    dtype: Any = jnp.float32
    form: ConvForm = "auto"

    @nn.compact
    def __call__(self, x: Array, past: Past = None) -> tuple[Array, Past]:
        batch, frames, height, width, channels = x.shape
        shape = (*self.kernel_size, channels, self.features)
        kernel = self.param("kernel", _kernel_init, shape).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
        x = x.astype(self.dtype)
        history = self.kernel_size[0] - 1
        if history == 0:
            return conv_over_window(x, kernel, form=self.form) + bias, None
        if past is None:
            past = jnp.zeros((batch, history, height, width, channels), self.dtype)
        window = jnp.concatenate([past, x], axis=1)  # [B, kt-1+T, H, W, C]
        return conv_over_window(window, kernel, form=self.form) + bias, window[:, frames:]


class ChannelNorm(nn.Module):
    """x / max(|x|, 1e-12) * sqrt(C) * gamma over the channels of each position, in float32.

    No statistic crosses positions or frames, which is what makes the autoencoder exactly causal.
    """

    @nn.compact
    def __call__(self, x: Array) -> Array:
        channels = x.shape[-1]
        gamma = self.param("gamma", nn.initializers.ones, (channels,))
        x = x.astype(jnp.float32)
        # The maximum is taken of the square, so that a zero vector has a zero and not an infinite gradient.
        inverse_norm = lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), 1e-24))
        return x * inverse_norm * (channels**0.5 * gamma)


class ResidualBlock(nn.Module):
    """norm, SiLU, conv, norm, SiLU, conv, plus the un-normalised input (through a 1x1x1 conv if widths
    differ). Each convolution looks at ``time_taps`` frames.
    """

    features: int
    dtype: Any = jnp.float32
    form: ConvForm = "auto"
    time_taps: int = 3

    @nn.compact
    def __call__(self, x: Array, past: Past = None) -> tuple[Array, Past]:
        past = past or {}
        future = {}
        if x.shape[-1] == self.features:
            shortcut = x
        else:
            shortcut, _ = CausalConv3d(self.features, (1, 1, 1), self.dtype, name="conv_shortcut")(x)
        h = x
        for i in (1, 2):
            h = nn.silu(ChannelNorm(name=f"norm{i}")(h)).astype(self.dtype)
            kernel = (self.time_taps, 3, 3)
            conv = CausalConv3d(self.features, kernel, self.dtype, self.form, name=f"conv{i}")
            h, future[f"conv{i}"] = conv(h, past.get(f"conv{i}"))
        return h + shortcut, future


class FrameAttention(nn.Module):
    """Self-attention among the positions of one frame: one head of width C, residual. [B, T, H, W, C] in and
    out.
    """

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        batch, frames, height, width, channels = x.shape
        h = ChannelNorm(name="norm")(fold_time(x)).astype(self.dtype)
        qkv = Conv2d(3 * channels, 1, dtype=self.dtype, name="to_qkv")(h)  # [B*T, H, W, 3C]
        qkv = qkv.reshape(batch * frames, height * width, 3, 1, channels)
        # One head as wide as the model: wider than the fused kernels take, so XLA computes it.
        h = jax.nn.dot_product_attention(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2], implementation="xla")
        h = Conv2d(channels, 1, dtype=self.dtype, name="proj")(h.reshape(-1, height, width, channels))
        return x + unfold_time(h, batch)


class HalveTime(nn.Module):
    """Temporal convolution of kernel 3, stride 2, without padding: frames (2i, 2i+1, 2i+2) give output i."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, window: Array) -> Array:
        channels = window.shape[-1]
        kernel = self.param("kernel", _kernel_init, (3, 1, 1, channels, channels)).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (channels,)).astype(self.dtype)
        return conv_over_window(window, kernel, time_stride=2) + bias


class Downsample(nn.Module):
    """Halve height and width, and time if ``temporal``: of T = 2k+1 frames k+1 remain, of 2k later ones k.

    The first frame of a clip bypasses the temporal convolution; later outputs see frames (2i-2, 2i-1, 2i).
    """

    temporal: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, past: Past = None) -> tuple[Array, Past]:
        batch, channels = x.shape[0], x.shape[-1]
        spatial = Conv2d(channels, stride=2, padding=((0, 1), (0, 1)), dtype=self.dtype, name="resample_1")
        x = unfold_time(spatial(fold_time(x)), batch)
        if not self.temporal:
            return x, None
        window = x if past is None else jnp.concatenate([past, x], axis=1)
        y = HalveTime(self.dtype, name="time_conv")(window)
        if past is None:
            y = jnp.concatenate([x[:, :1], y], axis=1)
        return y, window[:, -1:]


class Upsample(nn.Module):
    """Double height and width, and time if ``temporal``: k+1 frames become 2k+1, k later ones 2k.

    The first frame of a clip bypasses the temporal convolution and never enters its history.
    """

    features: int
    temporal: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, past: Past = None) -> tuple[Array, Past]:
        batch, channels = x.shape[0], x.shape[-1]
        future = None
        if self.temporal:
            time_conv = CausalConv3d(2 * channels, (3, 1, 1), self.dtype, name="time_conv")
            first, later = (x[:, :1], x[:, 1:]) if past is None else (x[:, :0], x)
            doubled, future = time_conv(later, past)  # [B, T, H, W, 2C]
            doubled = doubled.reshape(*later.shape[:4], 2, channels)
            doubled = doubled.transpose(0, 1, 4, 2, 3, 5)  # [B, T, 2, H, W, C]
            doubled = doubled.reshape(batch, 2 * later.shape[1], *later.shape[2:])
            x = jnp.concatenate([first, doubled], axis=1)
        x = fold_time(x)
        n, height, width, _ = x.shape
        x = jnp.broadcast_to(x[:, :, None, :, None], (n, height, 2, width, 2, channels))
        x = x.reshape(n, 2 * height, 2 * width, channels)
        x = Conv2d(self.features, dtype=self.dtype, name="resample_1")(x)
        return unfold_time(x, batch), future
