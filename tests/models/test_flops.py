"""The formula against the compiler's own count, where the compiler can count."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from camctrl_jax.models import CameraConfig, MMDiT, MMDiTConfig, mmdit_preset
from camctrl_jax.models.flops import mmdit_flops
from camctrl_jax.models.mmdit.layers import CameraEmbed, project_camera
from camctrl_jax.models.placement import ONE_DEVICE

# Wide enough that products outweigh norms and activations, which the compiler counts as well.
SMALL = MMDiTConfig(width=512, heads=4, head_dim=128, num_dual=2, text_dim=64, rope_axes=(16, 56, 56))


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        dataclasses.replace(
            SMALL,
            num_dual=1,
            num_single=2,
            num_decoder=1,
            text_cross_attention_single=True,
            shared_modulation=True,
        ),
    ],
)
def test_the_formula_is_what_the_compiler_counts(config):
    grid, text = (3, 8, 12), 16
    model = MMDiT(config)
    arguments = (
        {"params": model.abstract_params()},
        *(jax.ShapeDtypeStruct((1, *shape), jnp.float32) for shape in ((*grid, 33), (), (text, 64))),
        None,
        jax.ShapeDtypeStruct((1, *grid, 6), jnp.float32),
    )
    counted = jax.jit(model.apply).lower(*arguments).cost_analysis()["flops"]
    formula = mmdit_flops(config, grid, text).forward
    assert formula < counted < 1.06 * formula


@pytest.mark.parametrize("kind", ["deep", "every"])
def test_what_another_camera_adds_is_what_the_compiler_counts(kind):
    camera = CameraConfig(encoder="deep") if kind == "deep" else CameraConfig(injection="every")
    config, grid = dataclasses.replace(SMALL, camera=camera), (3, 16, 16)
    model = CameraEmbed.of(config, ONE_DEVICE, name=None)
    maps = jax.ShapeDtypeStruct((1, *grid, 6), jnp.float32)

    def all_of_it(maps):
        embed = model.bind({"params": params})
        features = embed.features(maps)
        found = [embed.tokens(features)]
        if kind == "every":
            kernels, biases = embed.of_blocks("dual")
            found += [project_camera(features, weights) for weights in zip(kernels, biases)]
        return found

    params = jax.tree.map(
        lambda leaf: jnp.ones(leaf.shape), jax.eval_shape(model.init, jax.random.key(0), maps)
    )
    params = params["params"]
    counted = jax.jit(all_of_it).lower(maps).cost_analysis()["flops"]
    bare = mmdit_flops(dataclasses.replace(config, camera=None), grid, 16).products
    formula = mmdit_flops(config, grid, 16).products - bare
    assert formula == pytest.approx(counted, rel=0.1)  # at the edges a convolution multiplies less


def test_the_open_base_takes_what_was_counted_by_hand():
    """About 5.6e13 for 31 x 24 x 48 latents and 512 text tokens, 9.4e13 for 13 x 48 x 80."""
    config = mmdit_preset("motif_2b")
    assert mmdit_flops(config, (31, 24, 48), 512).forward == pytest.approx(5.6e13, rel=0.03)
    assert mmdit_flops(config, (13, 48, 80), 512).forward == pytest.approx(9.4e13, rel=0.03)


def test_recomputation_counts_what_its_policy_repeats():
    flops = mmdit_flops(SMALL, (3, 8, 12), 16)
    assert flops.recomputed("none") == 0
    assert flops.recomputed("full") == flops.forward
    assert flops.recomputed("dots") == flops.recomputed("offload") == flops.attention
    assert flops.training == 3 * (flops.products + flops.attention)
