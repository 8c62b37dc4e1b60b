"""The tables of PyTorch names, without PyTorch: all parameters have rows, faulty checkpoints are named."""

from __future__ import annotations

import dataclasses

import jax
import ml_dtypes
import numpy as np
import pytest

from camctrl_jax.interop.described import config_from_json, config_to_json
from camctrl_jax.interop.keys import (
    MMDIT_KEYS,
    export_mmdit,
    export_vae,
    import_mmdit,
    import_vae,
    key_matches,
)
from camctrl_jax.interop.stock_configs import mmdit_from_stock, mmdit_to_stock, vae_from_stock, vae_to_stock
from camctrl_jax.models import VAE, CameraConfig, MMDiT, mmdit_preset, vae_preset

CONFIG = dataclasses.replace(mmdit_preset("nano"), num_dual=2)


def random_like(abstract, dtype=np.float32):
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape).astype(dtype), abstract)


def equal(a, b) -> bool:
    return jax.tree.structure(a) == jax.tree.structure(b) and jax.tree.all(jax.tree.map(np.array_equal, a, b))


@pytest.fixture(scope="module")
def params():
    return random_like(MMDiT(CONFIG).abstract_params())


@pytest.fixture
def tensors(params):
    return export_mmdit(params)[0]


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_round_trip_is_exact_and_keeps_the_dtype(dtype):
    params = random_like(MMDiT(CONFIG).abstract_params(), dtype)
    tensors, camera = export_mmdit(params)
    assert all(tensor.dtype == dtype for tensor in tensors.values())
    assert equal(import_mmdit(tensors, CONFIG, camera), params)
    vae = random_like(VAE(vae_preset("nano")).abstract_params(), dtype)
    assert equal(import_vae(export_vae(vae), vae_preset("nano")), vae)


def test_a_checkpoint_without_camera_gets_the_neutral_one(params, tensors):
    loaded = import_mmdit(tensors, CONFIG)
    camera = loaded.pop("camera_embedder")
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(camera))
    assert equal(loaded, {name: value for name, value in params.items() if name != "camera_embedder"})


def test_keep_receives_every_parameter_once(params, tensors):
    paths = []

    def keep(path, array):
        paths.append("/".join(path))
        return array.shape

    loaded = import_mmdit(tensors, dataclasses.replace(CONFIG, camera=None), keep=keep)
    assert len(paths) == len(set(paths)) == len(jax.tree.leaves(params)) - 2
    assert loaded["proj_out"]["kernel"] == params["proj_out"]["kernel"].shape


def test_faulty_checkpoints_are_named(tensors):
    name = "single_transformer_blocks.1.attn.to_k.weight"

    missing = {key: tensor for key, tensor in tensors.items() if key != name}
    with pytest.raises(ValueError, match=rf"weights/a\.safetensors.*missing: {name}\)"):
        import_mmdit(missing, CONFIG, source="weights/a.safetensors")
    with pytest.raises(ValueError, match=r"unknown: camera_embedder.weight"):
        import_mmdit({**tensors, "camera_embedder.weight": np.zeros(1)}, CONFIG)
    with pytest.raises(ValueError, match=rf"{name} has shape \(48, 40\), this model needs \(48, 48\)"):
        import_mmdit({**tensors, name: np.zeros((48, 40), np.float32)}, CONFIG)
    shared = "transformer_blocks.1.norm1.linear.weight"
    with pytest.raises(ValueError, match=rf"{shared} differs.*shared_modulation=False"):
        import_mmdit({**tensors, shared: tensors[shared] + 1}, CONFIG)
    with pytest.raises(ValueError, match="without camera"):
        import_mmdit(tensors, dataclasses.replace(CONFIG, camera=None), {"weight": np.zeros(1)})


def test_unshared_model_takes_the_copies_of_a_shared_one(params, tensors):
    loaded = import_mmdit(tensors, dataclasses.replace(CONFIG, shared_modulation=False))
    kernels = [loaded[f"transformer_blocks_{i}"]["norm1"]["linear"]["kernel"] for i in range(2)]
    assert all(np.array_equal(k, params["shared_modulation"]["norm1_kernel"]) for k in kernels)


def test_a_parameter_without_row_is_named(params):
    with pytest.raises(ValueError, match=r"extra/kernel.*no counterpart"):
        key_matches({"extra": {"kernel": np.zeros((2, 2))}}, MMDIT_KEYS)


def test_configurations_round_trip_and_foreign_ones_are_refused():
    for name in ("worlds", "nano", "wan21"):
        assert vae_from_stock(vae_to_stock(vae_preset(name))) == vae_preset(name)
    for name in ("paper", "motif_2b"):
        stock = {**mmdit_to_stock(mmdit_preset(name)), "_class_name": "MotifVideoTransformer3DModel"}
        assert mmdit_from_stock(stock, CameraConfig()) == mmdit_preset(name)
    with pytest.raises(ValueError, match=r"c\.json: is_residual=True is not supported"):
        vae_from_stock({"is_residual": True}, "c.json")
    with pytest.raises(ValueError, match=r"qk_norm='layer_norm' is not supported"):
        mmdit_from_stock({"qk_norm": "layer_norm"})
    with pytest.raises(ValueError, match=r"'guidance_embeds'.*unknown"):
        mmdit_from_stock({"guidance_embeds": True})


@pytest.mark.parametrize("camera", [CameraConfig(encoder="deep"), CameraConfig(injection="every")])
def test_a_camera_that_the_stock_pipeline_does_not_know_is_refused(camera):
    config = dataclasses.replace(CONFIG, camera=camera)
    params = random_like(MMDiT(config).abstract_params())
    named = f"encoder='{camera.encoder}' and injection='{camera.injection}' has no counterpart in PyTorch"
    for attempt in (
        lambda: export_mmdit(params),
        lambda: mmdit_to_stock(config),
        lambda: import_mmdit({}, config),
    ):
        with pytest.raises(ValueError, match=named):
            attempt()


def test_a_stored_camera_is_read_under_its_old_name_too():
    camera = CameraConfig("pixel", (1, 8, 8), encoder="deep")
    assert config_from_json(CameraConfig, config_to_json(camera)) == camera
    assert config_from_json(CameraConfig, {"plucker_res": "pixel", "patch": [1, 8, 8]}) == CameraConfig(
        "pixel", (1, 8, 8)
    )
    config = config_to_json(CONFIG)
    config["camera"] = {"plucker_res": "latent", "patch": [1, 2, 2]}
    assert config_from_json(type(CONFIG), config) == CONFIG
