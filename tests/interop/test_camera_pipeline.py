"""The PyTorch file of exported folders against the JAX pipeline, with the embedded weights in float32."""

from __future__ import annotations

import ast
import functools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from nano_weights import SAMPLING, TEXT, random_params

import camctrl_jax.interop
from camctrl_jax.camera import resolve_path
from camctrl_jax.camera.plucker import plucker_map
from camctrl_jax.checkpoints.pipelines import load_pipeline, open_model
from camctrl_jax.checkpoints.weights import expected_mmdit, expected_vae, save_weights_folder
from camctrl_jax.clip_shape import ClipShape
from camctrl_jax.diffusion.guidance import Guidance
from camctrl_jax.diffusion.sampler import Sampling, initial_noise
from camctrl_jax.export.to_diffusers import export_diffusers
from camctrl_jax.files.safetensors import write_safetensors
from camctrl_jax.models import mmdit_preset, vae_preset
from camctrl_jax.models.mmdit.layers import CameraEmbed
from camctrl_jax.sampling.pipeline import ClipBatch, Extension, Pipeline

pytestmark = pytest.mark.torch

HEIGHT, WIDTH = 32, 48
STEPS = 4
PROMPT = "a red ball rolls past two blue boxes"
TOLERANCE = 1e-4


@functools.cache
def jax_pipeline() -> Pipeline:
    return load_pipeline(*open_model("default"), float32=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return export_diffusers(tmp_path_factory.mktemp("exported") / "worlds", checkpoint="default")[0]


@pytest.fixture(scope="module")
def module():
    pytest.importorskip("torch", reason="torch is absent; install it with pip install 'camctrl_jax[torch]'")
    pytest.importorskip("diffusers", reason="diffusers is absent; pip install 'camctrl_jax[torch]'")
    from camctrl_jax.interop import camera_pipeline

    return camera_pipeline


@pytest.fixture(scope="module")
def pipeline(module, folder):
    return module.CameraPipeline.from_folder(folder, module.torch.float32)


@pytest.fixture(scope="module")
def nano_weights(tmp_path_factory):
    """The nano models with random weights everywhere: text, camera and condition all reach the sample."""
    vae, mmdit = vae_preset("nano"), mmdit_preset("nano", num_single=1)
    return save_weights_folder(
        tmp_path_factory.mktemp("weights") / "nano",
        vae=(vae, random_params(expected_vae(vae), 0)),
        mmdit=(mmdit, random_params(expected_mmdit(mmdit), 1)),
        text=TEXT,
        sampling=SAMPLING,
        card="# nano\n",
    )


@pytest.fixture(scope="module")
def nano_jax(nano_weights):
    return load_pipeline(*open_model(nano_weights), float32=True)


@pytest.fixture(scope="module")
def nano_folder(tmp_path_factory, nano_weights):
    return export_diffusers(tmp_path_factory.mktemp("exported") / "nano", checkpoint=str(nano_weights))[0]


@pytest.fixture
def nano(module, nano_folder):
    return module.CameraPipeline.from_folder(nano_folder, module.torch.float32)


def relative_l2(value, reference) -> float:
    value, reference = np.asarray(value, np.float64), np.asarray(reference, np.float64)
    assert value.shape == reference.shape
    return float(np.linalg.norm(value - reference) / np.linalg.norm(reference))


def make_image(frames: int = 1) -> np.ndarray:
    from camctrl_jax.worlds import WorldsConfig, render_rgb, sample_world

    world = sample_world(1_000_001, WorldsConfig(frames=max(frames, 2), fps=12.0, aspect=WIDTH / HEIGHT))
    return np.asarray(render_rgb([world], HEIGHT, WIDTH))[:, :frames]


def in_torch(path) -> dict[str, np.ndarray]:
    return {"world_from_camera": path.world_from_camera, "intrinsics": path.intrinsics}


def test_guided_image_to_video_and_extension_give_the_sample_of_jax(pipeline):
    """9 frames from an image, then 4 more from the last 5, Eq. 3 with both weights away from 1."""
    ours, path = jax_pipeline(), resolve_path("dolly in 1 m then pan left 30 deg", 13)
    path = path.transformed(resolve_path("orbit left 60 deg", 2).world_from_camera[1])  # any world frame
    text = ours.embedder.embed([PROMPT])
    guidance, weights = Guidance(1.8, 2.5), {"text_guidance": 1.8, "camera_guidance": 2.5}
    image = make_image()
    noise = np.asarray(initial_noise([5], (3, HEIGHT // 8, WIDTH // 8, 16)))
    sampling, shape = Sampling(guidance, STEPS), ClipShape(9, HEIGHT, WIDTH)
    expected = ours.sample(ClipBatch([PROMPT], [5], shape, [path[:9]], image), sampling)
    # The embedded weights do not fix a shift: it follows the number of tokens, here as there.
    latents = pipeline.sample(
        9,
        HEIGHT,
        WIDTH,
        text=text,
        condition=image,
        noise=noise,
        steps=STEPS,
        **in_torch(path[:9]),
        **weights,
    )
    assert relative_l2(latents[:, 1:], np.asarray(expected)[:, 1:]) <= TOLERANCE
    assert relative_l2(latents[:, :1], np.asarray(expected)[:, :1]) <= TOLERANCE

    first, first_jax = pipeline.decode(latents), ours.autoencoder.decode(expected)
    assert np.abs(first.astype(int) - first_jax).max() <= 1
    extension = {"new_latents": 1, "condition_latents": 2}  # 3 latents again: the same program
    longer_jax = ours.extend(
        first_jax, ClipBatch([PROMPT], [6], shape, [path]), Extension(**extension), sampling
    )
    noise = np.asarray(initial_noise([6], (3, HEIGHT // 8, WIDTH // 8, 16)))
    seen = []
    decode, pipeline.decode = pipeline.decode, lambda latents: seen.append(latents) or decode(latents)
    try:
        longer = pipeline.extend(
            first, text=text, noise=noise, steps=STEPS, **in_torch(path), **extension, **weights
        )
    finally:
        del pipeline.decode
    window = ClipBatch(
        [PROMPT], [6], shape, [path[4:]], first_jax[:, 4:], references=[path.world_from_camera[0]]
    )
    expected = ours.sample(window, sampling)
    assert relative_l2(seen[0][:, 2:], np.asarray(expected)[:, 2:]) <= TOLERANCE
    assert longer.shape == (1, 13, HEIGHT, WIDTH, 3)
    np.testing.assert_array_equal(longer[:, :9], first)
    assert np.abs(longer.astype(int) - longer_jax).max() <= 1  # rounded to whole levels in between


SIZE = (9, 32, 48)
LENS = [0.6, 0.9, 0.5, 0.5]


def nano_inputs(nano_jax, **changes):
    path = resolve_path("dolly in 1 m then pan left 40 deg", 9)
    rng = np.random.default_rng(0)
    inputs = {"text": nano_jax.embedder.embed([PROMPT]), "steps": 2, "seeds": [3]} | in_torch(path)
    inputs["condition"] = rng.integers(0, 256, (1, 1, 32, 48, 3)).astype(np.uint8)
    return inputs | {"text_guidance": 2.0, "camera_guidance": 3.0} | changes


def test_text_to_video_without_camera_gives_the_sample_of_jax(nano, nano_jax):
    noise = initial_noise([1, 2], (3, 4, 6, 16))
    prompts = [PROMPT, "two blue boxes"]
    clips = ClipBatch(prompts, [1, 2], ClipShape(*SIZE))
    expected = nano_jax.sample(clips, Sampling(Guidance(2.0, 3.0), steps=3, shift=2.0))
    text, options = nano_jax.embedder.embed(prompts), {"text_guidance": 2.0, "camera_guidance": 3.0}
    sampled = nano.sample(*SIZE, text=text, noise=noise, steps=3, shift=2.0, **options)
    assert relative_l2(sampled, expected) <= TOLERANCE


@pytest.mark.parametrize("weights", [(2.0, 3.0, None), (1.0, 1.0, None), (2.0, 3.0, 1.5), (2.0, 2.0, 0.0)])
@pytest.mark.parametrize("camera_input", [True, False])
def test_branches_are_those_of_jax(module, weights, camera_input):
    theirs = module.guidance_branches(*weights, camera_input)
    ours = Guidance(*weights).branches(camera_input=camera_input)
    assert sorted(theirs) == sorted((branch.text, branch.camera, branch.weight) for branch in ours)


def test_forms_of_guidance_agree_where_they_must(nano, nano_jax):
    eq3 = nano.sample(*SIZE, **nano_inputs(nano_jax))
    np.testing.assert_array_equal(nano.sample(*SIZE, **nano_inputs(nano_jax, camera_without_text=0.0)), eq3)
    prime = nano.sample(*SIZE, **nano_inputs(nano_jax, camera_without_text=1.5))
    assert relative_l2(prime, eq3) > 1e-3
    # Without text the difference of the text vanishes, and CFG' weighs the camera by the sum.
    null = nano_inputs(nano_jax, text=None, camera_guidance=2.0, camera_without_text=1.5)
    total = nano_inputs(nano_jax, text=None, camera_guidance=3.5)
    assert relative_l2(nano.sample(*SIZE, **null), nano.sample(*SIZE, **total)) <= 1e-5


def test_one_branch_at_a_time_gives_the_same_and_needs_no_mask(nano, nano_jax, monkeypatch):
    batched = nano.sample(*SIZE, **nano_inputs(nano_jax))
    masks, forward = [], nano.transformer.forward
    monkeypatch.setattr(
        nano.transformer,
        "forward",
        lambda x, t, text, mask: masks.append(mask) or forward(x, t, text, mask),
    )
    assert relative_l2(nano.sample(*SIZE, **nano_inputs(nano_jax, sequential=True)), batched) <= 1e-5
    assert masks == [None] * 6


def test_guidance_leads_away_from_the_negative_text(nano, nano_jax):
    """It takes the place of the empty prompt; with unit guidance nothing reads it."""
    inputs = nano_inputs(nano_jax)
    negative = nano_jax.embedder.embed(["blurry"])
    changed = nano.sample(9, 32, 48, **inputs, negative_text=negative)
    assert relative_l2(changed, nano.sample(9, 32, 48, **inputs)) > 1e-3
    kept, nano.null_text = nano.null_text, negative
    np.testing.assert_array_equal(nano.sample(9, 32, 48, **inputs), changed)
    nano.null_text = kept
    plain = inputs | {"text_guidance": 1.0, "camera_guidance": 1.0}
    np.testing.assert_array_equal(
        nano.sample(9, 32, 48, **plain, negative_text=negative), nano.sample(9, 32, 48, **plain)
    )


def test_cropped_text_is_masked_text(module, nano, nano_jax):
    torch = module.torch
    embeds, mask = (torch.as_tensor(array) for array in nano_jax.embedder.embed([PROMPT, "a ball"]))
    shuffled = torch.randperm(32, generator=torch.Generator().manual_seed(0))
    embeds, mask = embeds[:, shuffled], mask[:, shuffled]
    cropped, cropped_mask = module.valid_tokens([(embeds[:1], mask[:1]), (embeds[1:], mask[1:])])
    assert cropped.shape == (2, 8, 64)
    assert cropped_mask.sum(1).tolist() == [8, 2]
    x, time = (
        torch.randn(2, 33, 3, 4, 6, generator=torch.Generator().manual_seed(1)),
        torch.tensor([800.0] * 2),
    )
    with torch.no_grad():
        whole = nano.transformer(x, time, embeds, mask).sample
        assert relative_l2(nano.transformer(x, time, cropped, cropped_mask).sample, whole) <= 1e-5
        alone = nano.transformer(x[:1], time[:1], cropped[:1], None).sample
    assert relative_l2(alone, whole[:1]) <= 1e-5
    assert module.valid_tokens([(embeds[:1], mask[:1])])[1] is None


def test_closed_pipeline_leaves_the_stock_transformer(module, nano, nano_jax, nano_folder):
    torch, x = module.torch, np.random.default_rng(2).standard_normal((1, 33, 3, 4, 6), np.float32)
    arguments = (
        torch.as_tensor(x),
        torch.tensor([500.0]),
        torch.as_tensor(nano_jax.embedder.embed([PROMPT])[0]),
    )
    stock = module.MotifVideoTransformer3DModel.from_pretrained(nano_folder / "transformer")
    with torch.no_grad():
        expected = stock(*arguments).sample
        assert torch.equal(nano.transformer(*arguments).sample, expected)  # outside of a sampling step, too
        nano._camera_tokens = torch.ones(1, 18, 48)
        assert not torch.equal(nano.transformer(*arguments).sample, expected)
        nano.close()
        assert torch.equal(nano.transformer(*arguments).sample, expected)
    base = nano.sample(*SIZE, **nano_inputs(nano_jax))
    still = nano_inputs(nano_jax, world_from_camera=None, intrinsics=None)
    np.testing.assert_array_equal(nano.sample(*SIZE, **still), base)


def test_compiled_blocks_break_at_no_graph_and_change_nothing(nano, nano_jax):
    expected = nano.sample(*SIZE, **nano_inputs(nano_jax))
    nano.transformer.compile_repeated_blocks(fullgraph=True, backend="eager")
    assert relative_l2(nano.sample(*SIZE, **nano_inputs(nano_jax)), expected) <= 1e-6


@pytest.mark.parametrize("form", ["latent", "pixel"])
def test_camera_features_are_those_of_jax(module, nano, form):
    path, lens = resolve_path("dolly in 1 m while rolling left 20 deg", 9), [0.6, 0.9, 0.45, 0.55]
    patch, size = ((1, 2, 2), (4, 6)) if form == "latent" else ((1, 16, 16), (32, 48))
    rng, width = np.random.default_rng(0), 48
    kernel = rng.standard_normal((*patch, 6, width), np.float32)
    bias = rng.standard_normal(width, np.float32)
    camera = {"weight": kernel.transpose(4, 3, 0, 1, 2), "bias": bias}
    nano.camera = {name: module.torch.tensor(array) for name, array in camera.items()}
    nano.settings = nano.settings | {"plucker_res": form}
    maps = nano._plucker((1, 3, 4, 6), SIZE, path.world_from_camera, lens, None)
    expected = plucker_map(path.world_from_camera[None, ::4], np.tile(np.float32(lens), (1, 3, 1)), *size)
    assert relative_l2(maps, expected) <= 1e-6
    network = CameraEmbed(width, patch)
    features = network.apply({"params": {"kernel": kernel, "bias": bias}}, expected)
    assert relative_l2(nano._camera_features(maps), features) <= 1e-6


@pytest.mark.parametrize("shift", [1.0, 3.1])
def test_time_grid_is_that_of_the_stock_scheduler(module, shift):
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1.0 / 8, 8).tolist())
    np.testing.assert_allclose(module.time_grid(8, shift), scheduler.sigmas, atol=1e-6)


def test_file_stands_alone(module):
    source = Path(module.__file__).read_text()
    imported = {
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name).split(".")[0]
        for node in ast.walk(ast.parse(source))
        if isinstance(node, (ast.Import, ast.ImportFrom))
    }
    assert imported - sys.stdlib_module_names == {"numpy", "torch", "diffusers", "safetensors", "PIL", "av"}
    command = "import sys, camctrl_jax.interop; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", command], check=False).returncode == 0
    assert not hasattr(camctrl_jax.interop, "__all__")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"world_from_camera": np.tile(np.eye(4), (8, 1, 1)), "intrinsics": LENS},
            "8 poses for a clip of 9 frames",
        ),
        ({"intrinsics": np.tile(LENS, (8, 1))}, "8 intrinsics for 9 poses"),
        ({"world_from_camera": np.eye(4)}, r"Poses are \[4, 4\]: expected \[T, 4, 4\]"),
        ({"intrinsics": [600.0, 600.0, 320.0, 240.0]}, "up to 600: expected .* fx/W"),
        ({"intrinsics": None}, "Intrinsics are"),
        ({"text": (np.zeros((1, 3, 5)), np.ones((1, 3)))}, r"\[1, 3, 5\] .* expected \[B, N, 64\]"),
        ({"condition": np.zeros((1, 9, 32, 48, 3), np.uint8)}, "nothing is left to sample"),
    ],
)
def test_wrong_inputs_are_named(nano, nano_jax, changes, message):
    with pytest.raises(ValueError, match=message):
        nano.sample(*SIZE, **nano_inputs(nano_jax, **changes))


def test_wrong_sizes_and_extensions_are_named(nano):
    with pytest.raises(ValueError, match=r"10 frames of 32x40: expected 4k.1 frames .* multiples of 16"):
        nano.generate(frames=10, height=32, width=40)
    video, poses = np.zeros((1, 9, 32, 48, 3), np.uint8), np.tile(np.eye(4), (12, 1, 1))
    with pytest.raises(ValueError, match="at least 13 frames"):
        nano.extend(video)
    with pytest.raises(ValueError, match="12 poses: expected those of the 9 frames so far and of the 4"):
        nano.extend(video, new_latents=1, condition_latents=2, world_from_camera=poses, intrinsics=LENS)
    with pytest.raises(ValueError, match="new_latents=0"):
        nano.extend(video, new_latents=0)
    longer = np.tile(np.eye(4), (41, 1, 1))  # which part of it would be meant?
    with pytest.raises(ValueError, match=r"41 poses: .* 13 in all"):
        nano.extend(video, new_latents=1, condition_latents=2, world_from_camera=longer, intrinsics=LENS)
    for condition in (video[:, :3], video[:, :1] / np.float32(255), video[:, :1, :16]):
        with pytest.raises(ValueError, match=r"expected uint8 \[B, 4k.1, 32, 48, 3\]"):
            nano.sample(9, 32, 48, condition=condition)


def test_damaged_folders_are_named(module, nano_folder, tmp_path):
    load = functools.partial(module.CameraPipeline.from_folder, dtype=module.torch.float32)
    with pytest.raises(FileNotFoundError, match="not an exported model folder"):
        load(tmp_path)
    copy = shutil.copytree(nano_folder, tmp_path / "copy")
    shutil.rmtree(copy / "vae")
    with pytest.raises(FileNotFoundError, match="no autoencoder"):
        load(copy)
    assert load(copy, vae=nano_folder).vae.config.z_dim == 16
    settings = json.loads((copy / "camera/config.json").read_text())
    (copy / "camera/config.json").write_text(json.dumps(settings | {"order": "direction_first"}))
    with pytest.raises(ValueError, match="order is 'direction_first'"):
        load(copy, vae=nano_folder)
    file = copy / "transformer/diffusion_pytorch_model.safetensors"
    tensors = module.load_file(file)
    tensors.pop("proj_out.bias")
    write_safetensors(
        file, {name: tensor.float().numpy() for name, tensor in tensors.items()}, {"format": "pt"}
    )
    shutil.rmtree(copy / "camera")
    with pytest.raises(ValueError, match=r"missing_keys.*proj_out\.bias"):
        load(copy, vae=nano_folder)
    tensors["proj_out.bias"] = module.torch.zeros(3)
    write_safetensors(
        file, {name: tensor.float().numpy() for name, tensor in tensors.items()}, {"format": "pt"}
    )
    with pytest.raises(ValueError, match=r"do not belong together.*proj_out\.bias"):
        load(copy, vae=nano_folder)


def test_command_line_makes_a_clip_and_goes_on(module, nano, nano_jax, nano_folder, tmp_path, capsys):
    from PIL import Image

    def run(*options: str) -> int:
        return module.main(["--folder", str(nano_folder), "--steps", "2", *options])

    path = resolve_path("dolly in 1 m", 17)
    np.save(tmp_path / "poses.npy", path.world_from_camera[:9])
    np.save(tmp_path / "longer.npy", path.world_from_camera)
    np.save(tmp_path / "lens.npy", np.multiply(LENS, [480, 320, 480, 320]))
    Image.fromarray(make_image()[0, 0]).save(tmp_path / "image.png")
    embeds, mask = nano_jax.embedder.embed([PROMPT])
    write_safetensors(tmp_path / "text.safetensors", {"embeds": embeds, "mask": mask})
    lens = ["--intrinsics", str(tmp_path / "lens.npy"), "--pixels", "320", "480"]
    lens += ["--text", str(tmp_path / "text.safetensors")]
    clip, longer = tmp_path / "clip.npy", tmp_path / "longer.mp4"
    given = ["--image", str(tmp_path / "image.png"), "--poses", str(tmp_path / "poses.npy")]
    assert run(*given, *lens, "--out", str(clip), "--seed", "4") == 0
    image = module.read_frames(tmp_path / "image.png", 32, 48)
    inputs = {"text": (embeds, mask), "world_from_camera": path.world_from_camera[:9], "intrinsics": LENS}
    expected = nano.generate(condition=image, steps=2, seeds=[4], **inputs)
    np.testing.assert_array_equal(np.load(clip), expected[0])

    going_on = ["--video", str(clip), "--poses", str(tmp_path / "longer.npy"), "--new-latents", "2"]
    assert run(*going_on, *lens, "--condition-latents", "2", "--out", str(longer)) == 0
    assert longer.stat().st_size > 1000
    assert str(longer) in capsys.readouterr().out

    assert run("--out", str(tmp_path / "clip.gif")) == 1
    assert "ends with .npy or .mp4" in capsys.readouterr().err
    assert run("--image", "none.png", "--out", str(clip)) == 1
    assert "--image none.png: no such file" in capsys.readouterr().err
    assert run(*given, "--out", str(clip)) == 1
    assert "belong together" in capsys.readouterr().err
    assert run("--prompt", PROMPT, "--out", str(clip)) == 1
    assert "give that too, with --text" in capsys.readouterr().err
