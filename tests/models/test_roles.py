"""Every parameter of every network has a role, and what has none is refused."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from camctrl_jax.models import (
    VAE,
    CameraConfig,
    ClipFeatureNetwork,
    MMDiT,
    clip_features_preset,
    mmdit_preset,
    vae_preset,
)
from camctrl_jax.models.critic import Critic, CriticConfig
from camctrl_jax.models.discriminator import DiscriminatorConfig, PatchDiscriminator
from camctrl_jax.models.presets import CLIP_FEATURES_PRESETS, MMDIT_PRESETS, VAE_PRESETS
from camctrl_jax.models.roles import ADDED_PARTS, ENCODER_PARTS, dotted, find_role, role_of

EVERYTHING = {
    "text_cross_attention_dual": True,
    "text_cross_attention_single": True,
    "image_dim": 32,
    "target_time": True,
    "camera": CameraConfig(encoder="deep", injection="every"),
}


def discriminators():
    for temporal in (False, True):
        clip = jnp.zeros((1, *((5,) if temporal else ()), 16, 16, 3))
        network = PatchDiscriminator(DiscriminatorConfig(temporal=temporal))
        yield jax.eval_shape(network.init, jax.random.key(0), clip)["params"]


def networks():
    for name in MMDIT_PRESETS:
        for changes in ({}, EVERYTHING, {"scan_layers": True}, EVERYTHING | {"scan_layers": True}):
            yield MMDiT(mmdit_preset(name, **changes)).abstract_params()
    for name in VAE_PRESETS:
        yield VAE(vae_preset(name)).abstract_params()
    yield VAE(vae_preset("nano", attn_scales=(0.5,))).abstract_params()
    yield dict(zip(("image", "video"), discriminators()))
    for changes in ({}, {"scan_layers": True}):
        critic = Critic(CriticConfig(mmdit_preset("nano", **changes)))
        backbone = MMDiT(critic.config.backbone).abstract_params()
        yield jax.eval_shape(critic.init_params, jax.random.key(0), backbone)
    for name in CLIP_FEATURES_PRESETS:
        yield ClipFeatureNetwork(clip_features_preset(name)).abstract_params()


def test_every_leaf_has_a_role_that_fits_its_shape():
    count = 0
    for params in networks():
        for path, leaf in jax.tree_util.tree_leaves_with_path(params):
            role = role_of(path)
            assert role.matrix == path[-1].key.endswith("kernel"), path
            assert len(role.axes) == (2 if role.matrix else 0), path
            assert len(leaf.shape) >= len(role.axes), path
            count += 1
    assert count > 3000


def test_a_role_is_found_by_the_end_of_a_path_however_it_is_written():
    kernel = role_of("transformer_blocks_3.attn.to_q.kernel")
    assert role_of("opt_state.0.mu.transformer_blocks_3.attn.to_q.kernel") == kernel
    assert role_of(("ema", "transformer_blocks_0_to_3", "attn", "to_q", "kernel")) == kernel
    keys = (jax.tree_util.GetAttrKey("params"), jax.tree_util.SequenceKey(1), jax.tree_util.DictKey("step"))
    assert dotted(keys) == "params.1.step"


def test_layers_next_to_data_are_told_from_those_between():
    assert role_of("params.proj_out.kernel").edge
    assert not role_of("params.single_transformer_blocks_7.proj_out.kernel").edge
    assert role_of("decoder.conv_in.kernel").edge
    assert not role_of("decoder.up_blocks_0.resnets_0.conv1.kernel").edge


@pytest.mark.parametrize(
    "name",
    ["kernel", "params.head.kernel", "transformer_blocks_0.attn.to_r.kernel", "my_proj_out.kernel", ""],
)
def test_a_name_without_a_role_is_refused(name):
    assert find_role(name) is None
    with pytest.raises(ValueError, match="has no role: add a row"):
        role_of(name)


def test_parts_that_are_named_are_there():
    assert set(ENCODER_PARTS) <= VAE(vae_preset("nano")).abstract_params().keys()
    assert set(ADDED_PARTS) <= MMDiT(mmdit_preset("nano", target_time=True)).abstract_params().keys()
