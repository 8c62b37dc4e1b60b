"""Properties of the transformer: the camera, masks, initialisation, twins of execution, sizes."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from camctrl_jax.models import (
    CameraConfig,
    MMDiT,
    MMDiTConfig,
    layer_names,
    mmdit_in_dtype,
    mmdit_preset,
    stack_layers,
    unstack_layers,
)
from camctrl_jax.models.attention import attention, choose_implementation
from camctrl_jax.models.mmdit.layers import (
    RETRIEVED_TIME,
    apply_rope,
    patches,
    rope_tables,
    timestep_features,
    unpatch,
    valid_first,
)

CONFIG = dataclasses.replace(mmdit_preset("nano"), num_dual=1, num_single=2, num_decoder=1, text_dim=12)


def random_params(config: MMDiTConfig, seed: int = 0) -> dict:
    """Random everywhere, the zero-initialised parts included."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        noise = rng.standard_normal(leaf.shape).astype(np.float32)
        if len(leaf.shape) > 1:
            return noise / np.float32(np.sqrt(np.prod(leaf.shape[:-1])))
        return np.float32(path[-1].key == "scale") + np.float32(0.2) * noise

    return jax.tree.map_with_path(draw, MMDiT(config).abstract_params())


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(1)
    return {
        "latents": rng.standard_normal((2, 3, 4, 6, 33), np.float32),
        "timesteps": np.array([0.9, 0.3], np.float32),
        "text": rng.standard_normal((2, 5, 12), np.float32),
        "text_mask": np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], bool),
        "plucker": rng.standard_normal((2, 3, 4, 6, 6), np.float32),
    }


@pytest.fixture(scope="module")
def params():
    return random_params(CONFIG)


@pytest.fixture(scope="module")
def fresh_params():
    """As a new model draws them, from the generator that compiles fast."""
    return MMDiT(CONFIG).init_params(jax.random.key(0, impl="unsafe_rbg"))


def run(config, params, inputs, dtype=jnp.float32, **changes):
    inputs = {**inputs, **changes}
    network, retrieved = MMDiT(config, dtype=dtype), inputs.pop("retrieved", 0)
    apply = jax.jit(lambda p, x: network.apply({"params": p}, **x, retrieved=retrieved))
    return np.asarray(apply(params, inputs))


def without_camera(params: dict) -> dict:
    return {name: value for name, value in params.items() if name != "camera_embedder"}


CAMERAS = [
    CameraConfig(),
    CameraConfig(encoder="deep"),
    CameraConfig(injection="every"),
    CameraConfig(encoder="deep", injection="every"),
]
# The paper's camera and the one with most layers always, the two between where minutes do not count.
cameras = pytest.mark.parametrize(
    "camera",
    [
        pytest.param(
            camera,
            id=f"{camera.encoder}-{camera.injection}",
            marks=pytest.mark.slow if number in (1, 2) else [],
        )
        for number, camera in enumerate(CAMERAS)
    ],
)


def fresh_camera(config: MMDiTConfig) -> dict:
    return MMDiT(config).init_params(jax.random.key(0, impl="unsafe_rbg"))["camera_embedder"]


@cameras
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_new_camera_equals_the_model_without_camera_exactly(params, inputs, dtype, camera):
    config, bare = (dataclasses.replace(CONFIG, camera=value) for value in (camera, None))
    with_camera = run(config, {**params, "camera_embedder": fresh_camera(config)}, inputs, dtype)
    expected = run(bare, without_camera(params), inputs, dtype, plucker=None)
    assert np.any(expected != 0)
    np.testing.assert_array_equal(with_camera, expected)


@cameras
def test_the_gradient_reaches_every_way_in_of_a_new_camera(params, inputs, camera):
    config = dataclasses.replace(CONFIG, num_single=4, num_decoder=2, camera=camera)
    params, fresh = random_params(config), fresh_camera(config)

    @jax.jit
    def gradient(camera):
        def loss(camera):
            changed = {**params, "camera_embedder": camera}
            return jnp.mean(MMDiT(config).apply({"params": changed}, **inputs) ** 2)

        return jax.grad(loss)(camera)

    first = gradient(fresh)
    ways_in = ["kernel"]
    if camera.injection == "every":
        ways_in += ["dual_kernel", "single_kernel"]
    for name in ways_in:
        blocks = first[name] if name != "kernel" else first[name][None]
        assert all(np.any(block) for block in blocks), name
    # Once the last layers are open, the convolutions before them learn too.
    opened = jax.tree.map(lambda leaf, grad: leaf - 0.1 * grad, fresh, first)
    dead = [path for path, leaf in jax.tree.leaves_with_path(gradient(opened)) if not np.any(leaf)]
    assert not dead, dead


@cameras
@pytest.mark.parametrize("decoders", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_scanned_layers_with_a_camera_equal_the_loop(inputs, camera, decoders):
    config = dataclasses.replace(CONFIG, num_dual=2, num_single=4, num_decoder=decoders, camera=camera)
    params = random_params(config)
    scanned = dataclasses.replace(config, scan_layers=True, remat="dots")
    stacked = stack_layers(params, config)
    assert jax.tree.map(jnp.shape, MMDiT(scanned).abstract_params()) == jax.tree.map(jnp.shape, stacked)
    expected = run(config, params, inputs)
    np.testing.assert_allclose(run(scanned, stacked, inputs), expected, atol=1e-5)
    assert np.abs(run(config, params, inputs, plucker=None) - expected).max() > 1e-2
    np.testing.assert_allclose(
        run(scanned, stacked, inputs, plucker=None), run(config, params, inputs, plucker=None), atol=1e-5
    )


def test_every_block_adds_the_camera_through_its_own_layer(inputs):
    config = dataclasses.replace(
        CONFIG, num_dual=2, num_single=4, num_decoder=2, camera=CameraConfig(injection="every")
    )
    params = random_params(config)
    whole, camera = run(config, params, inputs), params["camera_embedder"]
    assert camera["dual_kernel"].shape == (2, 24, config.width)
    assert camera["single_kernel"].shape == (2, 24, config.width)  # not the decoder's
    for kind in ("dual", "single"):
        for block in range(2):
            less = camera | {f"{kind}_{part}": camera[f"{kind}_{part}"].copy() for part in ("kernel", "bias")}
            for part in ("kernel", "bias"):
                less[f"{kind}_{part}"][block] = 0
            assert np.abs(run(config, params | {"camera_embedder": less}, inputs) - whole).max() > 1e-3


def test_a_deep_camera_reads_pixels_from_the_latent_grid_on(inputs):
    config = dataclasses.replace(CONFIG, camera=CameraConfig("pixel", encoder="deep"))
    params = random_params(config)
    assert config.camera.patch == (1, 16, 16)
    assert params["camera_embedder"]["conv_in"]["kernel"].shape == (3, 3, 64 * 6, 64)
    assert params["camera_embedder"]["kernel"].shape == (1, 2, 2, 64, config.width)
    pixels = np.random.default_rng(3).standard_normal((2, 3, 32, 48, 6)).astype(np.float32)
    assert run(config, params, inputs, plucker=pixels).shape == (2, 3, 4, 6, 16)
    with pytest.raises(ValueError, match=r"camera\.patch=\(1, 3, 3\) must be a multiple of patch"):
        dataclasses.replace(CONFIG, camera=CameraConfig(patch=(1, 3, 3), encoder="deep"))


@pytest.mark.parametrize("field", ["resolution", "encoder", "injection"])
def test_an_unknown_camera_is_refused_with_the_choices(field):
    with pytest.raises(ValueError, match=rf"camera\.{field}='huge' is unknown; choose '\w+' or '\w+'"):
        CameraConfig(**{field: "huge"})


def test_zero_pluecker_map_is_no_camera_up_to_the_bias(params, inputs):
    zero = run(CONFIG, params, inputs, plucker=np.zeros_like(inputs["plucker"]))
    # Without camera layer, its bias moved to the patch embedding that it is added to.
    bare = without_camera(params)
    moved_bias = bare["x_embedder"]["bias"] + params["camera_embedder"]["bias"]
    bare["x_embedder"] = {**bare["x_embedder"], "bias": moved_bias}
    expected = run(CONFIG, bare, inputs, plucker=None)
    np.testing.assert_allclose(zero, expected, atol=2e-5)
    assert np.abs(zero - run(CONFIG, params, inputs, plucker=None)).max() > 1e-2


def test_the_camera_reaches_the_output_and_a_shift_of_one_pose_is_seen(params, inputs):
    moved = inputs["plucker"].copy()
    moved[:, 1] += 0.1
    assert np.abs(run(CONFIG, params, inputs, plucker=moved) - run(CONFIG, params, inputs)).max() > 1e-3


def test_pixel_camera_takes_maps_on_the_pixel_grid(inputs):
    config = dataclasses.replace(CONFIG, camera=CameraConfig("pixel", (1, 16, 16)))
    params = random_params(config)
    assert params["camera_embedder"]["kernel"].shape == (1, 16, 16, 6, config.width)
    pixels = np.random.default_rng(3).standard_normal((2, 3, 32, 48, 6)).astype(np.float32)
    assert run(config, params, inputs, plucker=pixels).shape == (2, 3, 4, 6, 16)
    with pytest.raises(ValueError, match=r"Pluecker map.*\[B, 3, 32, 48, 6\]"):
        MMDiT(config).apply({"params": params}, **inputs)


def test_masked_text_equals_cropped_text(params, inputs):
    one = {name: value[:1] for name, value in inputs.items()}
    cropped = run(CONFIG, params, one, text=one["text"][:, :3], text_mask=None)
    np.testing.assert_allclose(run(CONFIG, params, one), cropped, atol=1e-5)
    # Garbage where the mask is false, and a mask with holes, change nothing either.
    garbage = np.where(one["text_mask"][..., None], one["text"], 1e3).astype(np.float32)
    order = [3, 0, 4, 1, 2]
    holes = run(CONFIG, params, one, text=garbage[:, order], text_mask=one["text_mask"][:, order])
    np.testing.assert_allclose(holes, cropped, atol=1e-5)


def test_samples_of_a_batch_do_not_mix(params, inputs):
    alone = run(CONFIG, params, {name: value[1:] for name, value in inputs.items()})
    np.testing.assert_allclose(run(CONFIG, params, inputs)[1:], alone, atol=1e-5)


def test_fresh_model_predicts_zero_and_learns_in_its_first_steps(inputs, fresh_params):
    network, params = MMDiT(CONFIG), fresh_params
    assert not np.any(run(CONFIG, params, inputs))
    target = np.random.default_rng(5).standard_normal((2, 3, 4, 6, 16)).astype(np.float32)

    @jax.jit
    def step(params):
        loss = lambda p: jnp.mean((network.apply({"params": p}, **inputs) - target) ** 2)  # noqa: E731
        value, gradient = jax.value_and_grad(loss)(params)
        # Sign steps, as Adam's first: zero-initialised layers open one after the other.
        return value, jax.tree.map(lambda p, g: p - 2e-3 * jnp.sign(g), params, gradient), gradient

    first, params, _ = step(params)
    for _ in range(6):
        value, params, gradient = step(params)
    assert value < 0.97 * first
    dead = [path for path, leaf in jax.tree.leaves_with_path(gradient) if not np.any(leaf)]
    # Text and context streams of the last encoder block end there when decoder blocks follow.
    assert not dead, dead


@pytest.mark.parametrize("shared", [True, False])
def test_scanned_layers_equal_the_loop(inputs, shared):
    blocks = {"num_dual": 2, "num_single": 4, "num_decoder": 2}
    config = dataclasses.replace(CONFIG, **blocks, shared_modulation=shared, text_cross_attention_single=True)
    params = random_params(config)
    scanned = dataclasses.replace(config, scan_layers=True, remat="dots")
    stacked = stack_layers(params, config)
    shapes = jax.tree.map(jnp.shape, MMDiT(scanned).abstract_params())
    assert shapes == jax.tree.map(jnp.shape, stacked)
    np.testing.assert_allclose(run(scanned, stacked, inputs), run(config, params, inputs), atol=1e-5)
    assert jax.tree.all(jax.tree.map(np.array_equal, unstack_layers(stacked, config), params))


def test_fresh_layers_differ_and_are_the_same_in_both_forms():
    config = dataclasses.replace(CONFIG, num_dual=2, num_single=5, num_decoder=3)
    key = jax.random.key(0, impl="unsafe_rbg")
    params = MMDiT(config).init_params(key)
    scanned = MMDiT(dataclasses.replace(config, scan_layers=True)).init_params(key)
    assert jax.tree.all(jax.tree.map(np.array_equal, stack_layers(params, config), scanned))
    small = np.zeros((1, *config.patch, config.in_channels)), np.zeros(1), np.zeros((1, 1, config.text_dim))
    plain = jax.jit(MMDiT(config).init)(key, *small)["params"]  # as Flax draws layers one by one
    assert jax.tree.structure(params) == jax.tree.structure(plain)
    for kind, i, j in (("transformer_blocks", 0, 1), ("single_transformer_blocks", 2, 3)):
        layers = params[f"{kind}_{i}"], params[f"{kind}_{j}"], plain[f"{kind}_{i}"]
        for first, second, drawn in zip(*map(jax.tree.leaves, layers), strict=True):
            assert bool(np.any(first != second)) == bool(np.std(drawn) > 0)
            np.testing.assert_allclose(np.std(first), np.std(drawn), rtol=0.1)


def generators(jaxpr):
    """Random draws in a program, those of a scan's body once."""
    count = 0
    for equation in jaxpr.eqns:
        count += equation.primitive.name == "random_bits"
        for inner in equation.params.values():
            inner = getattr(inner, "jaxpr", inner)  # closed, or not
            count += generators(inner) if hasattr(inner, "eqns") else 0
    return count


def test_the_program_that_draws_parameters_does_not_grow_with_depth():
    small = np.zeros((1, *CONFIG.patch, CONFIG.in_channels)), np.zeros(1), np.zeros((1, 1, CONFIG.text_dim))

    def sizes(layers):
        model = MMDiT(dataclasses.replace(CONFIG, num_dual=layers, num_single=layers, num_decoder=layers))
        one_by_one = jax.make_jaxpr(model.init)(jax.random.key(0), *small)
        return generators(jax.make_jaxpr(model.init_params)(jax.random.key(0)).jaxpr), generators(
            one_by_one.jaxpr
        )

    (few, few_alone), (many, many_alone) = sizes(2), sizes(8)
    assert few == many > 0
    assert many_alone > few_alone > few  # as Flax draws layers one by one


def test_a_model_without_equal_blocks_has_one_form():
    config = dataclasses.replace(CONFIG, num_dual=0, num_single=1, num_decoder=0)
    assert layer_names(config) == ("", "")
    params = MMDiT(config).abstract_params()
    assert jax.tree.structure(stack_layers(params, config)) == jax.tree.structure(params)


@pytest.mark.parametrize("scan", [True, False])
def test_parameters_rounded_in_advance_give_the_same_numbers(params, inputs, scan):
    config = dataclasses.replace(CONFIG, scan_layers=scan)
    params = stack_layers(params, config) if scan else params
    rounded = mmdit_in_dtype(params, jnp.bfloat16)
    dtypes = {str(leaf.dtype) for leaf in jax.tree.leaves(rounded)}
    assert dtypes == {"bfloat16", "float32"}
    whole = run(config, params, inputs, jnp.bfloat16)
    np.testing.assert_array_equal(run(config, rounded, inputs, jnp.bfloat16), whole)


def test_recomputation_gives_the_same_gradients(inputs):
    config = dataclasses.replace(CONFIG, num_single=1, num_decoder=0)
    params = random_params(config)

    def gradient(remat):
        network = MMDiT(dataclasses.replace(config, remat=remat))
        return jax.jit(jax.grad(lambda p: jnp.mean(network.apply({"params": p}, **inputs) ** 2)))(params)

    expected = gradient("none")
    for remat in ("dots", "full", "offload"):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), gradient(remat), expected)


def test_attention_ignores_keys_beyond_the_length():
    rng = np.random.default_rng(0)
    query, key, value = (rng.standard_normal((2, n, 3, 8)).astype(np.float32) for n in (4, 6, 6))
    lengths = np.array([6, 2])
    out = np.asarray(attention(query, key, value, jnp.asarray(lengths)))
    for b, length in enumerate(lengths):
        scores = np.einsum("snh,knh->nsk", query[b], key[b, :length]).astype(np.float64) / np.sqrt(8)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        np.testing.assert_allclose(out[b], np.einsum("nsk,knh->snh", weights, value[b, :length]), atol=1e-6)


def test_attention_implementation_is_chosen_by_backend_and_dtype(monkeypatch):
    assert choose_implementation("auto", jnp.bfloat16) == "xla"
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert choose_implementation("auto", jnp.dtype(jnp.bfloat16)) == "cudnn"
    assert choose_implementation("auto", jnp.dtype(jnp.float32)) == "xla"
    assert choose_implementation("xla", jnp.dtype(jnp.bfloat16)) == "xla"
    with pytest.raises(ValueError, match="'flash' is unknown"):
        choose_implementation("flash", jnp.float32)


def test_rotary_embedding_is_a_rotation_of_interleaved_pairs():
    grid, axes, theta = (2, 3, 4), (4, 6, 2), 100.0
    cos, sin = rope_tables(grid, axes, theta)
    x = np.random.default_rng(0).standard_normal((1, 24, 2, 12)).astype(np.float32)
    token = np.ravel_multi_index((1, 2, 3), grid)
    angles = np.concatenate([p / theta ** (np.arange(0, d, 2) / d) for p, d in zip((1, 2, 3), axes)])
    as_complex = (x[..., 0::2] + 1j * x[..., 1::2])[0, token] * np.exp(1j * angles)
    rotated = np.asarray(apply_rope(jnp.asarray(x), cos, sin))[0, token]
    np.testing.assert_allclose(rotated[:, 0::2] + 1j * rotated[:, 1::2], as_complex, atol=1e-6)


def test_retrieved_latents_have_times_of_their_own_and_leave_the_window_where_it_was():
    grid, axes, theta = (3, 2, 2), (4, 6, 2), 100.0
    alone = rope_tables(grid, axes, theta)
    both = rope_tables((2 + 3, 2, 2), axes, theta, retrieved=2)
    earlier = 2 * 4  # tokens
    for table, window in zip(both, alone):
        np.testing.assert_array_equal(table[earlier:], window)
    x = np.random.default_rng(0).standard_normal((1, 20, 1, 12)).astype(np.float32)
    as_complex = x[..., 0::2] + 1j * x[..., 1::2]
    rotated = np.asarray(apply_rope(jnp.asarray(x), *both))
    for token, time in ((0, RETRIEVED_TIME), (4, RETRIEVED_TIME - 1), (8, 0)):
        turned = as_complex[0, token, 0, :2] * np.exp(1j * time / theta ** (np.arange(0, 4, 2) / 4))
        found = rotated[0, token, 0]
        np.testing.assert_allclose(found[0:4:2] + 1j * found[1:4:2], turned, atol=1e-6)


def test_what_was_retrieved_reaches_the_window_whatever_the_form_of_the_layers(params, inputs):
    config = dataclasses.replace(CONFIG, num_single=4, num_decoder=2)
    params, scanned = random_params(config), dataclasses.replace(config, scan_layers=True)
    found = run(config, params, inputs | {"retrieved": 1})
    assert found.shape == (2, 3, 4, 6, 16)
    stacked = run(scanned, stack_layers(params, config), inputs | {"retrieved": 1})
    assert np.linalg.norm(found - stacked) <= 1e-5 * np.linalg.norm(found)
    other = inputs["latents"].copy()
    other[:, 0] += 1.0
    moved = run(config, params, inputs | {"retrieved": 1, "latents": other})
    assert np.linalg.norm((moved - found)[:, 1:]) > 1e-3 * np.linalg.norm(found)
    # Its place in time is not that of a window's first latent.
    assert np.linalg.norm((run(config, params, inputs) - found)[:, 1:]) > 1e-3 * np.linalg.norm(found)


def test_patches_round_trip_in_the_order_of_the_tokens():
    x = np.random.default_rng(0).standard_normal((1, 2, 4, 6, 3)).astype(np.float32)
    tokens = patches(x, (1, 2, 2))
    assert tokens.shape == (1, 12, 12)
    np.testing.assert_array_equal(tokens[0, 6 + 3 + 1].reshape(2, 2, 3), x[0, 1, 2:4, 2:4])
    # Output channels come before the position within the patch.
    back = unpatch(tokens.reshape(1, 12, 4, 3).transpose(0, 1, 3, 2).reshape(1, 12, 12), (2, 2, 3), (1, 2, 2))
    np.testing.assert_array_equal(back, x)


def test_timestep_features_start_with_cosines_of_a_thousand_times_t():
    features = np.asarray(timestep_features(jnp.array([0.25], jnp.float32)))[0]
    np.testing.assert_allclose(features[[0, 128]], [np.cos(250.0), np.sin(250.0)], atol=1e-5)
    np.testing.assert_allclose(features[127], np.cos(250.0 * 10000.0 ** (-127 / 128)), atol=1e-5)


def test_valid_tokens_move_to_the_front_in_order():
    text = np.arange(8, dtype=np.float32).reshape(2, 4, 1)
    moved, lengths = valid_first(text, np.array([[0, 1, 0, 1], [1, 1, 0, 0]], bool))
    np.testing.assert_array_equal(lengths, [2, 2])
    np.testing.assert_array_equal(moved[:, :2, 0], [[1, 3], [4, 5]])


def test_faulty_inputs_and_settings_are_named(params, inputs):
    network = MMDiT(CONFIG)

    def call(**changes):
        network.apply({"params": params}, **{**inputs, **changes})

    with pytest.raises(ValueError, match=r"expected .*33"):
        call(latents=inputs["latents"][..., :32])
    with pytest.raises(ValueError, match="cut into patches"):
        call(latents=inputs["latents"][:, :, :3])
    with pytest.raises(ValueError, match="7 channels; this model takes 12"):
        call(text=np.zeros((2, 5, 7), np.float32))
    with pytest.raises(ValueError, match="Pluecker map has shape"):
        call(plucker=inputs["plucker"][:, :2])
    with pytest.raises(ValueError, match="3 of 3 latent frames are said to be retrieved"):
        call(retrieved=3)
    with pytest.raises(ValueError, match="without camera"):
        MMDiT(dataclasses.replace(CONFIG, camera=None)).apply({"params": without_camera(params)}, **inputs)
    with pytest.raises(ValueError, match="width=50"):
        dataclasses.replace(CONFIG, width=50)
    with pytest.raises(ValueError, match="rope_axes"):
        dataclasses.replace(CONFIG, rope_axes=(8, 8, 10))
    with pytest.raises(ValueError, match="num_decoder"):
        dataclasses.replace(CONFIG, num_decoder=9)


def test_presets_are_sized_by_the_user():
    paper = mmdit_preset("paper", width=512, num_dual=6)
    assert (paper.heads, paper.head_dim, paper.num_single, paper.num_decoder) == (8, 64, 0, 0)
    assert mmdit_preset("paper", heads=4).width == 256
    with pytest.raises(ValueError, match="no field 'depth'"):
        mmdit_preset("paper", depth=3)
    with pytest.raises(ValueError, match=r"'huge'.*choose one of motif_2b, nano, paper, paper_8b, worlds"):
        mmdit_preset("huge")
