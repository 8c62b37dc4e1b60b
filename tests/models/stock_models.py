"""diffusers' models with weights that leave no part of the network idle, as oracles."""

from __future__ import annotations

import re

import numpy as np
import pytest

from camctrl_jax.interop.keys import key_matches

_INSTALL = "is absent; install it with pip install 'camctrl_jax[torch]'"
_GAIN = re.compile(r"norm\w*\.(weight|gamma)$")
_SHARPENED = re.compile(r"(norm_(added_)?[qk]|to_v|add_v_proj|to_out\.0|to_add_out)\.weight$")


def torch_and_diffusers():
    """The two modules, or a skip that says what is missing."""
    torch = pytest.importorskip("torch", reason=f"torch {_INSTALL}")
    return torch, pytest.importorskip("diffusers", reason=f"diffusers {_INSTALL}")


def randomise(model, seed: int, scale: float = 1.0) -> None:
    """Random weights everywhere: matrices keep the variance, gains lie around 1, biases around 0.

    The gains of queries and keys and the paths of the values are doubled: attention sharp enough that a
    fault in masks, rotary embedding or text shows in the output.
    """
    torch, _ = torch_and_diffusers()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if _GAIN.search(name):
                value = 1.0 + 0.2 * noise
            elif name.endswith("bias"):
                value = 0.1 * noise
            else:
                value = scale * noise / np.sqrt(parameter[0].numel())
            parameter.copy_(2.0 * value if _SHARPENED.search(name) else value)
    model.eval()


def numpy_state(model) -> dict[str, np.ndarray]:
    return {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}


def state_shapes(model) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def tensor_shapes(params, table) -> dict[str, tuple[int, ...]]:
    """What exporting would write, by name and shape, without making it."""
    return {key: entry.torch_shape for entry in key_matches(params, table) for key in entry.keys}


def relative_l2(value, reference) -> float:
    value, reference = np.asarray(value, np.float64), np.asarray(reference, np.float64)
    assert value.shape == reference.shape
    return float(np.linalg.norm(value - reference) / np.linalg.norm(reference))


def channels_first(array) -> np.ndarray:
    """[B, T, H, W, C] -> [B, C, T, H, W]."""
    return np.ascontiguousarray(np.moveaxis(np.asarray(array), -1, 1))


def channels_last(array) -> np.ndarray:
    """[B, C, T, H, W] -> [B, T, H, W, C]."""
    return np.moveaxis(np.asarray(array), 1, -1)
