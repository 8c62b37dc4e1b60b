"""Names and layouts of the weights in diffusers' checkpoints, as one table per model used in both directions.

A row says: the parameter at ``path`` (entries of the nested dict joined by '/') is the tensor ``key`` of the
PyTorch model, with the axes arranged as ``layout`` tells. ``{i}``, ``{j}``, ``{k}`` stand for numbers and
``{part}`` for 'encoder' or 'decoder'. ``{each}`` on the right writes one equal copy per block of the kind
that ``each`` names, and reads them only if they are equal.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from camctrl_jax.errors import InvalidValue
from camctrl_jax.interop.finite import FILE_CAUSE, own_share, refuse_non_finite
from camctrl_jax.interop.stock_configs import check_camera
from camctrl_jax.models import VAE, CameraConfig, MMDiT, MMDiTConfig, VAEConfig

# PyTorch axes from ours. Ours: linear [in, out], conv2d [kh, kw, in, out], conv3d [kt, kh, kw, in, out], gain
# [C].
_TO_TORCH = {"same": None, "linear": (1, 0), "conv2d": (3, 2, 0, 1), "conv3d": (4, 3, 0, 1, 2)}
_TRAILING_ONES = {"gain2d": 2, "gain3d": 3}
_PLACEHOLDERS = {"i": r"\d+", "j": r"\d+", "k": r"\d+", "part": "encoder|decoder"}


@dataclass(frozen=True)
class KeyRule:
    """One row of a table; see the module's docstring."""

    path: str
    key: str
    layout: str
    each: str | None = None


def _layer(path: str, key: str, layout: str) -> tuple[KeyRule, KeyRule]:
    return KeyRule(f"{path}/kernel", f"{key}.weight", layout), KeyRule(f"{path}/bias", f"{key}.bias", "same")


def _gain(path: str, key: str, layout: str) -> tuple[KeyRule]:
    return (KeyRule(f"{path}/gamma", f"{key}.gamma", layout),)


def _residual_block(path: str, key: str) -> tuple[KeyRule, ...]:
    return (
        *_gain(f"{path}/norm{{k}}", f"{key}.norm{{k}}", "gain3d"),
        *_layer(f"{path}/conv{{k}}", f"{key}.conv{{k}}", "conv3d"),
        *_layer(f"{path}/conv_shortcut", f"{key}.conv_shortcut", "conv3d"),
    )


def _frame_attention(path: str, key: str) -> tuple[KeyRule, ...]:
    return (
        *_gain(f"{path}/norm", f"{key}.norm", "gain2d"),
        *_layer(f"{path}/to_qkv", f"{key}.to_qkv", "conv2d"),
        *_layer(f"{path}/proj", f"{key}.proj", "conv2d"),
    )


def _resampling(path: str, key: str) -> tuple[KeyRule, ...]:
    return (
        *_layer(f"{path}/resample_1", f"{key}.resample.1", "conv2d"),
        *_layer(f"{path}/time_conv", f"{key}.time_conv", "conv3d"),
    )


VAE_KEYS: tuple[KeyRule, ...] = (
    *_layer("quant_conv", "quant_conv", "conv3d"),
    *_layer("post_quant_conv", "post_quant_conv", "conv3d"),
    *_layer("{part}/conv_in", "{part}.conv_in", "conv3d"),
    *_layer("{part}/conv_out", "{part}.conv_out", "conv3d"),
    *_gain("{part}/norm_out", "{part}.norm_out", "gain3d"),
    *_residual_block("{part}/mid_block/resnets_{i}", "{part}.mid_block.resnets.{i}"),
    *_frame_attention("{part}/mid_block/attentions_{i}", "{part}.mid_block.attentions.{i}"),
    *_residual_block("encoder/down_blocks_{i}", "encoder.down_blocks.{i}"),
    *_frame_attention("encoder/down_blocks_{i}", "encoder.down_blocks.{i}"),
    *_resampling("encoder/down_blocks_{i}", "encoder.down_blocks.{i}"),
    *_residual_block("decoder/up_blocks_{i}/resnets_{j}", "decoder.up_blocks.{i}.resnets.{j}"),
    *_resampling("decoder/up_blocks_{i}/upsamplers_{j}", "decoder.up_blocks.{i}.upsamplers.{j}"),
)


def _linears(path: str, key: str, *names: str) -> tuple[KeyRule, ...]:
    """Linear layers below ``path``; a number in a PyTorch name ('to_out.0') is joined by '_' in ours."""
    return tuple(
        rule
        for name in names
        for rule in _layer(f"{path}/{name.replace('.', '_')}", f"{key}.{name}", "linear")
    )


def _head_norms(path: str, key: str, *names: str) -> tuple[KeyRule, ...]:
    return tuple(KeyRule(f"{path}/{name}/scale", f"{key}.{name}.weight", "same") for name in names)


def _cross_attention(path: str, key: str) -> tuple[KeyRule, ...]:
    path, key = f"{path}/cross_attn", f"{key}.cross_attn"
    return (
        *_linears(path, key, "to_q", "to_k", "to_v", "to_out.0"),
        *_head_norms(path, key, "norm_q", "norm_k"),
    )


_DUAL, _DUAL_KEY = "transformer_blocks_{i}", "transformer_blocks.{i}"
_SINGLE, _SINGLE_KEY = "single_transformer_blocks_{i}", "single_transformer_blocks.{i}"

MMDIT_KEYS: tuple[KeyRule, ...] = (
    *_layer("x_embedder", "x_embedder.proj", "conv3d"),
    *_linears("context_embedder", "context_embedder", "linear_1", "linear_2"),
    *_linears("image_embedder", "image_embedder", "linear_1", "linear_2"),
    *(
        KeyRule(f"image_embedder/{norm}/{ours}", f"image_embedder.{norm}.{theirs}", "same")
        for norm in ("norm_in", "norm_out")
        for ours, theirs in (("scale", "weight"), ("bias", "bias"))
    ),
    *_linears(
        "time_text_embed/timestep_embedder", "time_text_embed.timestep_embedder", "linear_1", "linear_2"
    ),
    *_linears(f"{_DUAL}/norm1", f"{_DUAL_KEY}.norm1", "linear"),
    *_linears(f"{_DUAL}/norm1_context", f"{_DUAL_KEY}.norm1_context", "linear"),
    *_linears(f"{_DUAL}/attn", f"{_DUAL_KEY}.attn", "to_q", "to_k", "to_v", "to_out.0"),
    *_linears(f"{_DUAL}/attn", f"{_DUAL_KEY}.attn", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
    *_head_norms(f"{_DUAL}/attn", f"{_DUAL_KEY}.attn", "norm_q", "norm_k", "norm_added_q", "norm_added_k"),
    *_cross_attention(_DUAL, _DUAL_KEY),
    *_linears(f"{_DUAL}/ff", f"{_DUAL_KEY}.ff", "net.0.proj", "net.2"),
    *_linears(f"{_DUAL}/ff_context", f"{_DUAL_KEY}.ff_context", "net.0.proj", "net.2"),
    *_linears(f"{_SINGLE}/norm", f"{_SINGLE_KEY}.norm", "linear"),
    *_linears(f"{_SINGLE}/attn", f"{_SINGLE_KEY}.attn", "to_q", "to_k", "to_v"),
    *_head_norms(f"{_SINGLE}/attn", f"{_SINGLE_KEY}.attn", "norm_q", "norm_k"),
    *_cross_attention(_SINGLE, _SINGLE_KEY),
    *_linears(_SINGLE, _SINGLE_KEY, "proj_mlp", "proj_out"),
    *_linears("norm_out", "norm_out", "linear"),
    *_layer("proj_out", "proj_out", "linear"),
    *(
        KeyRule(
            f"shared_modulation/{norm}_kernel",
            f"{blocks}.{{each}}.{norm}.linear.weight",
            "linear",
            each=blocks,
        )
        for blocks, norm in (
            ("transformer_blocks", "norm1"),
            ("transformer_blocks", "norm1_context"),
            ("single_transformer_blocks", "norm"),
        )
    ),
)

# Not part of the stock model: kept in a file of its own beside it.
CAMERA_KEYS: tuple[KeyRule, ...] = (
    KeyRule("kernel", "weight", "conv3d"),
    KeyRule("bias", "bias", "same"),
)


def to_torch_layout(array: np.ndarray, layout: str) -> np.ndarray:
    """Our arrangement of axes -> PyTorch's."""
    if layout in _TRAILING_ONES:
        return array.reshape(array.shape + (1,) * _TRAILING_ONES[layout])
    axes = _TO_TORCH[layout]
    return array if axes is None else array.transpose(axes)


def from_torch_layout(array: np.ndarray, layout: str) -> np.ndarray:
    """PyTorch's arrangement of axes -> ours."""
    if layout in _TRAILING_ONES:
        return array.reshape(array.shape[: array.ndim - _TRAILING_ONES[layout]])
    axes = _TO_TORCH[layout]
    return array if axes is None else array.transpose(np.argsort(axes))


@dataclass(frozen=True)
class KeyMatch:
    """One parameter in both worlds: its path here, its tensor (or equal copies) there, of ``torch_shape``."""

    path: tuple[str, ...]
    keys: tuple[str, ...]
    layout: str
    torch_shape: tuple[int, ...]


def _pattern(template: str) -> re.Pattern:
    pattern = re.escape(template)
    for name, expression in _PLACEHOLDERS.items():
        pattern = pattern.replace(re.escape(f"{{{name}}}"), f"(?P<{name}>{expression})")
    return re.compile(pattern)


def _leaves(tree: Mapping, prefix: tuple[str, ...] = ()) -> Iterable[tuple[tuple[str, ...], Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*prefix, name))
        else:
            yield (*prefix, name), value


def key_matches(params: Mapping, table: tuple[KeyRule, ...]) -> list[KeyMatch]:
    """Match every parameter (arrays or shapes with dtype) with its row of ``table``.

    Raises ValueError for a parameter that no row describes.
    """
    patterns = [(_pattern(rule.path), rule) for rule in table]
    found = []
    for path, leaf in _leaves(params):
        name = "/".join(path)
        matches = ((pattern.fullmatch(name), rule) for pattern, rule in patterns)
        match, rule = next(((m, rule) for m, rule in matches if m), (None, None))
        if match is None:
            raise InvalidValue(
                f"Parameter {name} {tuple(leaf.shape)} has no counterpart in the table of PyTorch names."
            )
        keys = (rule.key.format(**match.groupdict()),) if rule.each is None else ()
        if rule.each is not None:
            numbers = sorted(
                int(m[1]) for entry in params if (m := re.fullmatch(rf"{rule.each}_(\d+)", entry)) is not None
            )
            keys = tuple(rule.key.format(each=number) for number in numbers)
        shape = to_torch_layout(np.broadcast_to(np.float32(0), leaf.shape), rule.layout).shape
        found.append(KeyMatch(path, keys, rule.layout, shape))
    return found


def _listed(names: Iterable[str], limit: int = 5) -> str:
    names = sorted(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def import_params(
    tensors: Mapping[str, Any],
    params: Mapping,
    table: tuple[KeyRule, ...],
    *,
    source: str = "the checkpoint",
    keep: Callable[[tuple[str, ...], np.ndarray], Any] | None = None,
) -> dict:
    """PyTorch tensors -> nested dict of parameters, dtype kept.

    Args:
        tensors: arrays by PyTorch name; each is read once, in turn, so a lazy mapping never holds them all.
        params: nested dict of the expected parameters; only the shapes of its leaves are used.
        table: VAE_KEYS, MMDIT_KEYS or CAMERA_KEYS.
        source: what to call the tensors in errors, such as the file's path.
        keep: called with (path, array) of every parameter; what it returns is stored (a sharded array, say).

    Raises: ValueError naming missing, unknown or misshaped tensors, tensors that hold NaN or infinity, and
    copies that differ where one is shared.
    """
    plan = key_matches(params, table)
    expected = {key for match in plan for key in match.keys}
    missing, unknown = expected - tensors.keys(), tensors.keys() - expected
    if missing or unknown:
        problems = {"missing": missing, "unknown": unknown}
        listed = "; ".join(f"{problem}: {_listed(keys)}" for problem, keys in problems.items() if keys)
        raise InvalidValue(
            f"{source} does not hold the weights of this model ({len(expected)} tensors expected, "
            f"{len(tensors)} found; {listed}). Check that the configuration beside it is its own."
        )
    result: dict = {}
    for match in plan:
        first = None
        for key in match.keys:
            array = np.asarray(tensors[key])
            if array.shape != match.torch_shape:
                raise InvalidValue(
                    f"{source}: {key} has shape {array.shape}, this model needs {match.torch_shape}."
                )
            where = tensors.path(key) if hasattr(tensors, "path") else source
            refuse_non_finite(own_share(array), f"{where}: {key}", FILE_CAUSE)
            if first is None:
                first = array
            elif not np.array_equal(first, array):
                raise InvalidValue(
                    f"{source}: {key} differs from {match.keys[0]}, but this model shares one matrix "
                    "among them. Load it with shared_modulation=False."
                )
        array = from_torch_layout(first, match.layout)
        node = result
        for name in match.path[:-1]:
            node = node.setdefault(name, {})
        node[match.path[-1]] = array if keep is None else keep(match.path, array)
    return result


def export_params(params: Mapping, table: tuple[KeyRule, ...]) -> dict[str, np.ndarray]:
    """Nested dict of parameters -> arrays by PyTorch name, dtype kept, shared matrices under every key.

    Arrays with other axes than ours are transposed views: they take memory only where they are written.
    """
    leaves = dict(_leaves(params))
    tensors = {}
    for match in key_matches(params, table):
        array = to_torch_layout(np.asarray(leaves[match.path]), match.layout)
        tensors |= dict.fromkeys(match.keys, array)
    return tensors


def import_vae(tensors: Mapping[str, Any], config: VAEConfig, **options: Any) -> dict:
    """Tensors of an ``AutoencoderKLWan`` -> parameters of :class:`VAE`. Options: :func:`import_params`."""
    return import_params(tensors, VAE(config).abstract_params(), VAE_KEYS, **options)


def import_mmdit(
    tensors: Mapping[str, Any],
    config: MMDiTConfig,
    camera_tensors: Mapping[str, Any] | None = None,
    **options: Any,
) -> dict:
    """Tensors of a ``MotifVideoTransformer3DModel`` -> parameters of :class:`MMDiT`.

    ``camera_tensors`` are those of the camera layer ('weight' [D, 6, t, h, w], 'bias' [D]); without them a
    model with a camera gets its zero initialisation, in float32. Options as in :func:`import_params`.
    """
    check_camera(config.camera)
    abstract = dict(MMDiT(config).abstract_params())
    camera = abstract.pop("camera_embedder", None)
    params = import_params(tensors, abstract, MMDIT_KEYS, **options)
    if camera_tensors is not None and camera is None:
        raise InvalidValue("Camera weights were given for a model without camera (config.camera is None).")
    if camera is not None:
        if camera_tensors is None:
            zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), camera)
            camera_tensors = export_params(zeros, CAMERA_KEYS)
        wrapped = {"camera_embedder": camera}
        table = tuple(KeyRule(f"camera_embedder/{rule.path}", rule.key, rule.layout) for rule in CAMERA_KEYS)
        params |= import_params(camera_tensors, wrapped, table, **options)
    return params


def export_vae(params: Mapping) -> dict[str, np.ndarray]:
    """Parameters of :class:`VAE` -> tensors of a stock ``AutoencoderKLWan``.

    Kernels that look at one frame (``VAEConfig.frame_wise_levels``) get zeros for the two frames before it.
    """
    return export_params(jax.tree.map(_with_frames_before, params), VAE_KEYS)


def _with_frames_before(leaf: Any) -> Any:
    if leaf.ndim != 5 or leaf.shape[:3] != (1, 3, 3):
        return leaf
    return np.pad(np.asarray(leaf), [(2, 0)] + [(0, 0)] * 4)


def export_mmdit(params: Mapping) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray] | None]:
    """Parameters of :class:`MMDiT` -> (tensors of a stock ``MotifVideoTransformer3DModel``, camera tensors or
    None).

    Raises: InvalidValue for a camera that the exported pipeline does not know.
    """
    params = dict(params)
    camera = params.pop("camera_embedder", None)
    if camera is not None and camera.keys() != {rule.path for rule in CAMERA_KEYS}:
        check_camera(
            CameraConfig(
                encoder="deep" if "conv_in" in camera else "patchify",
                injection="every" if camera.keys() & {"dual_kernel", "single_kernel"} else "first",
            )
        )
    return export_params(params, MMDIT_KEYS), None if camera is None else export_params(camera, CAMERA_KEYS)
