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
DRAWN = 8


def drawn(seed: int) -> MMDiTConfig:
    """A random tiny configuration; over eight seeds each switch is on and off, alone and with the others."""
    rng = np.random.default_rng(seed)
    axes = tuple(2 * int(n) for n in rng.integers(1, 6, 3))
    heads, num_single = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    return MMDiTConfig(
        width=heads * sum(axes),
        heads=heads,
        head_dim=sum(axes),
        num_dual=int(rng.integers(1, 3)),
        num_single=num_single,
        num_decoder=int(rng.integers(1, num_single + 1)) if seed & 4 else 0,
        mlp_ratio=float(rng.choice([2.0, 3.5, 4.0])),
        patch=tuple(int(n) for n in rng.choice([(1, 2, 2), (1, 1, 1), (2, 2, 2)])),
        in_channels=int(rng.choice([16, 33])),
        out_channels=int(rng.choice([8, 16])),
        text_dim=int(rng.integers(8, 40)),
        image_dim=int(rng.integers(8, 24)) if seed % 3 else None,
        rope_axes=axes,
        rope_theta=float(rng.choice([256.0, 10000.0])),
        text_cross_attention_dual=bool(seed & 1),
        text_cross_attention_single=bool(seed & 2),
        camera=None,
    )


# The kinds that presets are made of, and what is drawn.
CONFIGS = {
    "dual": small(num_dual=2),
    "worlds": small(num_single=2, mlp_ratio=3.5),
    "motif": small(num_dual=2, num_single=4, num_decoder=2, text_cross_attention_single=True, image_dim=20),
} | {f"drawn_{seed}": drawn(seed) for seed in range(DRAWN)}
MASKS = (PREFIX, ANY, None)


def test_drawn_configurations_cover_every_switch():
    configs = [CONFIGS[f"drawn_{seed}"] for seed in range(DRAWN)]
    for name in ("text_cross_attention_dual", "text_cross_attention_single"):
        assert {getattr(config, name) for config in configs} == {True, False}
    assert {config.image_dim is None for config in configs} == {True, False}
    assert {config.num_decoder > 0 for config in configs} == {True, False}
    assert len({config.patch for config in configs}) == 3
    assert len({config.rope_theta for config in configs}) == 2


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
        *(
            (f"drawn_{seed}", MASKS[seed % 3], CONFIGS[f"drawn_{seed}"].image_dim is not None)
            for seed in range(DRAWN)
        ),
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


@pytest.mark.parametrize("name", ["worlds", "motif", "drawn_1", "drawn_7"])
def test_bfloat16_stays_near(name):
    config = CONFIGS[name]
    torch, model, params = stock_and_params(name)
    inputs = Inputs.draw(config, PREFIX, config.image_dim is not None)
    output = inputs.in_jax(MMDiT(config, dtype=jnp.bfloat16), params)
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
