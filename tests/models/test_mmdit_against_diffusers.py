"""The transformer against diffusers' MotifVideoTransformer3DModel with random weights and sharp attention."""

from __future__ import annotations

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from stock_models import (
    channels_first,
    channels_last,
    numpy_state,
    randomise,
    relative_l2,
    state_shapes,
    tensor_shapes,
    torch_and_diffusers,
)

from camctrl_jax.interop.keys import CAMERA_KEYS, MMDIT_KEYS, export_mmdit, import_mmdit
from camctrl_jax.interop.stock_configs import mmdit_from_stock, mmdit_to_stock
from camctrl_jax.models import MMDiT, MMDiTConfig, mmdit_preset

pytestmark = pytest.mark.torch

TOLERANCE = 1e-5
PREFIX = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], bool)
ANY = np.array([[0, 1, 1, 0, 1], [1, 0, 0, 1, 0]], bool)

_SMALL = MMDiTConfig(
    width=64, heads=2, head_dim=32, num_dual=1, rope_axes=(8, 12, 12), text_dim=24, camera=None
)
small = functools.partial(dataclasses.replace, _SMALL)

# Every block kind alone and together, both cross-attentions, image tokens, both values of theta that occur.
CONFIGS = {
    "dual": small(num_dual=2),
    "worlds": small(num_single=2, mlp_ratio=3.5),
    "motif": small(num_dual=2, num_single=4, num_decoder=2, text_cross_attention_single=True, image_dim=20),
    "dual_cross": small(num_dual=2, num_single=1, text_cross_attention_dual=True, rope_theta=256.0),
    "only_decoder": small(num_single=1, num_decoder=1, heads=4, width=128),
    "both_cross": small(
        num_single=3,
        num_decoder=1,
        image_dim=12,
        text_cross_attention_dual=True,
        text_cross_attention_single=True,
        in_channels=16,
        out_channels=8,
    ),
    "time_patches": small(num_single=1, patch=(2, 2, 2), heads=4, head_dim=16, rope_axes=(4, 6, 6)),
}


@functools.cache
def stock_and_params(name: str):
    torch, diffusers = torch_and_diffusers()
    model = diffusers.MotifVideoTransformer3DModel(**mmdit_to_stock(CONFIGS[name]))
    randomise(model, seed=len(name))
    return torch, model, import_mmdit(numpy_state(model), CONFIGS[name])


@dataclasses.dataclass(frozen=True)
class Inputs:
    latents: np.ndarray
    times: np.ndarray
    text: np.ndarray
    mask: np.ndarray | None
    image: np.ndarray | None

    @classmethod
    def draw(cls, config: MMDiTConfig, mask, image: bool) -> Inputs:
        rng = np.random.default_rng(0)
        return cls(
            rng.standard_normal((2, 2, 4, 6, config.in_channels), np.float32),
            np.array([0.93, 0.21], np.float32),
            rng.standard_normal((2, 5, config.text_dim), np.float32),
            mask,
            rng.standard_normal((2, 3, config.image_dim), np.float32) if image else None,
        )

    def in_torch(self, torch, model) -> np.ndarray:
        arrays = (channels_first(self.latents), 1000 * self.times, self.text, self.mask, self.image)
        with torch.no_grad():
            return channels_last(model(*(a if a is None else torch.from_numpy(a) for a in arrays)).sample)

    def in_jax(self, network: MMDiT, params) -> np.ndarray:
        run = jax.jit(lambda p, *inputs: network.apply({"params": p}, *inputs))
        return run(params, self.latents, self.times, self.text, self.mask, None, self.image)


@pytest.mark.parametrize(
    ("name", "mask", "image"),
    [
        ("dual", PREFIX, False),
        ("worlds", PREFIX, False),
        ("motif", PREFIX, False),
        ("motif", ANY, True),
        ("dual_cross", None, False),
        ("only_decoder", ANY, False),
        ("both_cross", PREFIX, True),
        ("time_patches", ANY, False),
    ],
)
def test_forward_agrees(name, mask, image):
    torch, model, params = stock_and_params(name)
    inputs = Inputs.draw(CONFIGS[name], mask, image)
    expected = inputs.in_torch(torch, model)
    assert relative_l2(inputs.in_jax(MMDiT(CONFIGS[name]), params), expected) <= TOLERANCE

    # An input that hardly reached the output could be wired wrongly without this test noticing.
    def sensitivity(**changes) -> float:
        return relative_l2(dataclasses.replace(inputs, **changes).in_torch(torch, model), expected)

    assert sensitivity(text=inputs.text[::-1].copy()) > 1e-2
    assert sensitivity(times=inputs.times[::-1].copy()) > 1e-2
    assert mask is None or sensitivity(mask=~mask) > 1e-3
    assert not image or sensitivity(image=inputs.image[::-1].copy()) > 1e-3


@pytest.mark.parametrize("changes", [{"fuse_projections": False}, {"remat": "full"}])
def test_options_of_execution_change_nothing(changes):
    torch, model, params = stock_and_params("motif")
    inputs = Inputs.draw(CONFIGS["motif"], PREFIX, True)
    network = MMDiT(dataclasses.replace(CONFIGS["motif"], **changes))
    assert relative_l2(inputs.in_jax(network, params), inputs.in_torch(torch, model)) <= TOLERANCE


def test_bfloat16_stays_near():
    torch, model, params = stock_and_params("worlds")
    inputs = Inputs.draw(CONFIGS["worlds"], PREFIX, False)
    output = inputs.in_jax(MMDiT(CONFIGS["worlds"], dtype=jnp.bfloat16), params)
    assert output.dtype == jnp.float32
    assert relative_l2(output, inputs.in_torch(torch, model)) <= 3e-2


@pytest.mark.parametrize("name", ["motif_2b", "worlds", "paper"])
def test_presets_have_the_tensors_of_the_stock_class(name):
    torch, diffusers = torch_and_diffusers()
    config = mmdit_preset(name)
    with torch.device("meta"):
        model = diffusers.MotifVideoTransformer3DModel(**mmdit_to_stock(config))
    params = dict(MMDiT(config).abstract_params())
    camera = tensor_shapes(params.pop("camera_embedder"), CAMERA_KEYS)
    assert camera == {"weight": (config.width, 6, 1, 2, 2), "bias": (config.width,)}
    shapes = tensor_shapes(params, MMDIT_KEYS)
    assert shapes == state_shapes(model)
    if name == "motif_2b":
        assert len(shapes) == 902
        assert sum(math.prod(shape) for shape in shapes.values()) == 2_037_809_600


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_every_key_round_trips(name):
    _, model, params = stock_and_params(name)
    state = numpy_state(model)
    exported, camera = export_mmdit(params)
    assert camera is None
    assert exported.keys() == state.keys()
    assert all(np.array_equal(exported[key], state[key]) for key in state)
    assert mmdit_from_stock(dict(model.config)) == CONFIGS[name]


def test_shared_modulation_exports_as_equal_copies_that_the_stock_class_runs():
    torch, diffusers = torch_and_diffusers()
    config = small(num_dual=2, num_single=2, shared_modulation=True)
    network = MMDiT(config)
    rng = np.random.default_rng(3)
    params = jax.tree.map(
        lambda leaf: rng.standard_normal(leaf.shape, np.float32) / np.float32(np.sqrt(leaf.shape[0])),
        network.abstract_params(),
    )
    exported, _ = export_mmdit(params)
    first, second = (exported[f"transformer_blocks.{i}.norm1.linear.weight"] for i in range(2))
    assert np.array_equal(first, second)
    model = diffusers.MotifVideoTransformer3DModel(**mmdit_to_stock(config))
    model.load_state_dict({key: torch.from_numpy(tensor) for key, tensor in exported.items()}, strict=True)
    inputs = Inputs.draw(config, PREFIX, False)
    assert relative_l2(inputs.in_jax(network, params), inputs.in_torch(torch, model)) <= TOLERANCE
    assert jax.tree.all(jax.tree.map(np.array_equal, import_mmdit(exported, config), params))
