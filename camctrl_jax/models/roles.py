"""What every parameter is: declared once, read by sharding, optimizer, freezing and rounding.

A row of the table names parameters by the end of their dotted path, so that it also holds for moments and
averages, whose paths end alike (``opt_state.0.mu.transformer_blocks_0.attn.to_q.kernel``), and for stacked
layers (``transformer_blocks_0_to_11``). A new layer needs a row; a test says so.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from camctrl_jax.errors import InvalidValue

# Top-level parts of an autoencoder that make latents of video.
ENCODER_PARTS = ("encoder", "quant_conv")
# Top-level parts that a stage may add to the weights it starts from; they keep their own initialisation.
ADDED_PARTS = ("camera_embedder", "target_time_embed")
# Those of them that weights stay what they are without: a flow map without its layer is another network.
OPTIONAL_PARTS = ("camera_embedder",)


@dataclass(frozen=True)
class Role:
    """What a parameter is.

    Attributes:
        matrix: a matrix or convolution, which decays and which Muon makes orthogonal; else a vector.
        axes: what its last dimensions are: 'width' (channels of a stream), 'hidden' (heads, hidden units,
            channels that a layer makes), or 'whole' (one that no cut fits). Empty for vectors, and
            earlier dimensions (windows of convolutions, stacked layers) have no name.
        edge: of a first or last layer, next to data: its sizes are those of the data, and rare inputs need
            steps of their own size, so that Muon leaves it to AdamW.
        float32: computed in float32 whatever the dtype of the network.
    """

    matrix: bool
    axes: tuple[str, ...] = ()
    edge: bool = False
    float32: bool = False


_VECTOR, _VECTOR32 = Role(matrix=False), Role(matrix=False, float32=True)
_INTO = Role(matrix=True, axes=("width", "hidden"))
_INTO32 = replace(_INTO, float32=True)
_BACK = Role(matrix=True, axes=("hidden", "width"))  # a product back into the stream
_BACK32 = replace(_BACK, float32=True)


def _layer(names: str, kernel: Role, bias: Role | None = None) -> tuple[tuple[str, Role], ...]:
    """Rows of layers with kernel and bias; the bias is computed in float32 where the kernel is."""
    if bias is None:
        bias = _VECTOR32 if kernel.float32 else _VECTOR
    return (rf"{names}\.kernel", kernel), (rf"{names}\.bias", bias)


_BLOCK = r"(single_)?transformer_blocks_\d+(_to_\d+)?"
_HEAD = r"judgement\.head_\d+"
_STAGE = r"(encoder|decoder)"
_RESIDUAL = rf"{_STAGE}\.(mid_block\.resnets_\d+|down_blocks_\d+|up_blocks_\d+\.resnets_\d+)"
_ATTENTION = rf"{_STAGE}\.(mid_block\.attentions_\d+|down_blocks_\d+)"
_RESAMPLING = rf"{_STAGE}\.(down_blocks_\d+|up_blocks_\d+\.upsamplers_\d+)"

# The first row that matches decides.
_ROWS: tuple[tuple[str, Role], ...] = (
    # The transformer: in and out
    *_layer("x_embedder", replace(_INTO, edge=True), _VECTOR32),
    *_layer("camera_embedder", replace(_INTO32, edge=True)),
    *_layer(r"camera_embedder\.(conv_in|resnets_\d+\.conv[12])", replace(_INTO32, edge=True)),
    (r"camera_embedder\.(dual|single)_kernel", replace(_INTO32, edge=True)),
    (r"camera_embedder\.(dual|single)_bias", _VECTOR32),
    *_layer(r"(context|image)_embedder\.linear_1", _INTO),
    *_layer(r"(context|image)_embedder\.linear_2", _BACK),
    (r"image_embedder\.norm_(in|out)\.(scale|bias)", _VECTOR32),
    *_layer(r"time_text_embed\.timestep_embedder\.linear_1", _INTO32),
    *_layer(r"time_text_embed\.timestep_embedder\.linear_2", _BACK32),
    *_layer(r"target_time_embed\.linear_1", _INTO32),
    *_layer(r"target_time_embed\.linear_2", _BACK32),
    (r"shared_modulation\.(norm1|norm1_context|norm)_kernel", _INTO32),
    *_layer(r"norm_out\.linear", _INTO32),
    # its blocks
    *_layer(rf"{_BLOCK}\.(norm1|norm1_context|norm)\.linear", _INTO32),
    *_layer(rf"{_BLOCK}\.(attn|cross_attn)\.(to_[qkv]|add_[qkv]_proj)", _INTO),
    *_layer(rf"{_BLOCK}\.(attn|cross_attn)\.(to_out_0|to_add_out)", _BACK),
    (rf"{_BLOCK}\.(attn|cross_attn)\.norm_(q|k|added_q|added_k)\.scale", _VECTOR32),
    *_layer(rf"{_BLOCK}\.(ff|ff_context)\.net_0_proj", _INTO),
    *_layer(rf"{_BLOCK}\.(ff|ff_context)\.net_2", _BACK),
    *_layer(rf"{_BLOCK}\.proj_mlp", _INTO),
    # Its rows are [attention | MLP]: a cut of all of them fits neither part.
    *_layer(rf"{_BLOCK}\.proj_out", Role(matrix=True, axes=("whole", "width"))),
    *_layer("proj_out", Role(matrix=True, axes=("whole", "width"), edge=True)),
    # What a critic adds to it
    (rf"{_HEAD}\.query", _VECTOR32),
    (rf"{_HEAD}\.norm_(tokens|query|mlp|q|k)\.scale", _VECTOR32),
    *_layer(rf"{_HEAD}\.(to_[qkv]|mlp_in)", _INTO),
    *_layer(rf"{_HEAD}\.(to_out_0|mlp_out)", _BACK),
    (r"judgement\.norm_logit\.(scale|bias)", _VECTOR32),
    *_layer(r"judgement\.logit", replace(_INTO32, edge=True)),
    # The autoencoder
    *_layer(rf"{_STAGE}\.conv_(in|out)", replace(_INTO, edge=True)),
    *_layer(r"(post_)?quant_conv", _INTO),
    *_layer(rf"{_RESIDUAL}\.(conv1|conv2|conv_shortcut)", _INTO),
    *_layer(rf"{_ATTENTION}\.(to_qkv|proj)", _INTO),
    *_layer(rf"{_RESAMPLING}\.(resample_1|time_conv)", _INTO),
    (rf"({_RESIDUAL}\.norm[12]|{_ATTENTION}\.norm|{_STAGE}\.norm_out)\.gamma", _VECTOR32),
    # The network of clip features; its channels are few and its first layers next to data
    *_layer("stem", replace(_INTO, edge=True)),
    *_layer(r"(halving_\d+|residual_\d+\.conv)", _INTO),
    *_layer("(pooling|step_hidden|hidden|features)", _INTO32),
    *_layer("(cell|step|pose|depth|moving|detail)_head", replace(_INTO32, edge=True)),
    (r"(stem_norm|halving_norm|final_norm|residual_\d+\.norm)\.scale", _VECTOR32),
    # The discriminators, whose kernels are divided by their spectral norm before they are rounded
    *_layer(r"(down_\d+|middle|logits)", _INTO32, _VECTOR),
)
_PATTERNS = tuple((re.compile(rf"(?:.*\.)?(?:{pattern})"), role) for pattern, role in _ROWS)


def dotted(path: str | Iterable[Any]) -> str:
    """A path as one string: parts of a name, or keys as ``jax.tree_util`` gives them, joined by dots."""
    if isinstance(path, str):
        return path
    return ".".join(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path)


@functools.cache
def _find(name: str) -> Role | None:
    return next((role for pattern, role in _PATTERNS if pattern.fullmatch(name)), None)


def find_role(path: str | Iterable[Any]) -> Role | None:
    """As :func:`role_of`; None for what is no parameter, such as the counters and keys of a state."""
    return _find(dotted(path))


def role_of(path: str | Iterable[Any]) -> Role:
    """The role of the parameter whose path ends so.

    Args:
        path: dotted, or its parts, or keys of ``jax.tree_util``.

    Raises:
        InvalidValue: no row of the table names it.
    """
    role = find_role(path)
    if role is None:
        raise InvalidValue(
            f"parameter {dotted(path)} has no role: add a row for its layer to camctrl_jax/models/roles.py."
        )
    return role
