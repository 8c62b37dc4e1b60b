"""The formula against the compiler's own count, where the compiler can count."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from camctrl_jax.models import MMDiT, MMDiTConfig, mmdit_preset
from camctrl_jax.models.flops import mmdit_flops

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
