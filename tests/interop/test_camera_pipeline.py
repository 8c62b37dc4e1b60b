"""The PyTorch file of exported folders against the JAX pipeline, with the embedded weights in float32."""

from __future__ import annotations

import ast
import functools
import json
import re
import resource
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nano_weights import SAMPLING, STUDENT, TEXT, random_params

import camctrl_jax.interop
from camctrl_jax.camera import compose, resolve_path
from camctrl_jax.camera.plucker import plucker_map
from camctrl_jax.checkpoints.pipelines import load_pipeline, open_model
from camctrl_jax.checkpoints.weights import (
    WeightsError,
    expected_mmdit,
    expected_vae,
    open_weights,
    save_weights_folder,
)
from camctrl_jax.clip_shape import ClipShape
from camctrl_jax.diffusion.guidance import Guidance
from camctrl_jax.diffusion.sampler import Sampling, initial_noise
from camctrl_jax.export.from_diffusers import import_diffusers
from camctrl_jax.export.to_diffusers import export_diffusers
from camctrl_jax.files.safetensors import write_safetensors
from camctrl_jax.interop.described import Distilled
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


def save_stock(directory: Path, distilled: Distilled | None = None) -> Path:
    """The nano models with random weights everywhere: text, camera and condition all reach the sample."""
    told = distilled is not None and distilled.method == "flow_map"
    vae, mmdit = vae_preset("nano"), mmdit_preset("nano", num_single=1, target_time=told)
    return save_weights_folder(
        directory,
        vae=(vae, random_params(expected_vae(vae), 0)),
        mmdit=(mmdit, random_params(expected_mmdit(mmdit), 1)),
        text=TEXT,
        sampling=SAMPLING,
        distilled=distilled,
        card="# nano\n",
    )


@pytest.fixture(scope="module")
def nano_weights(tmp_path_factory):
    return save_stock(tmp_path_factory.mktemp("weights") / "nano")


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
    with pytest.raises(ValueError, match=r"world_from_camera and intrinsics .* no camera layer"):
        nano.sample(*SIZE, **nano_inputs(nano_jax))
    base = dict.fromkeys(("world_from_camera", "intrinsics", "camera_guidance"))
    assert nano.sample(*SIZE, **nano_inputs(nano_jax, **base)).shape == (1, 3, 4, 6, 16)


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
        ({"world_from_camera": None}, "intrinsics without world_from_camera says nothing"),
        (
            {"world_from_camera": None, "intrinsics": None, "reference": np.eye(4)[None, None]},
            "reference without world_from_camera",
        ),
        (
            {"noise": np.zeros((1, 2, 4, 6, 16))},
            r"noise is \[1, 2, 4, 6, 16\]: expected \[B, 3, 4, 6, 16\] for a clip of 9 frames of 32x48",
        ),
        ({"noise": np.zeros((3, 4, 6, 16))}, r"noise is \[3, 4, 6, 16\]: expected \[B, 3, 4, 6, 16\]"),
        ({"noise": np.zeros((1, 3, 4, 6, 8))}, r"noise is \[1, 3, 4, 6, 8\]: expected"),
        ({"noise": np.zeros((1, 16, 3, 4, 6))}, r"noise is \[1, 16, 3, 4, 6\]: expected"),
        ({"text": (np.zeros((1, 3, 5)), np.ones((1, 3)))}, r"\[1, 3, 5\] .* expected \[B, N, 64\]"),
        ({"condition": np.zeros((1, 9, 32, 48, 3), np.uint8)}, "nothing is left to sample"),
    ],
)
def test_wrong_inputs_are_named(nano, nano_jax, changes, message):
    with pytest.raises(ValueError, match=message):
        nano.sample(*SIZE, **nano_inputs(nano_jax, **changes))


def test_going_on_without_the_memory_that_weights_were_trained_with_is_said(nano, monkeypatch):
    monkeypatch.setitem(nano.sampling, "retrieved", 4)
    monkeypatch.setattr(nano, "sample", lambda *sizes, **options: None)
    monkeypatch.setattr(nano, "decode", lambda latents: np.zeros((1, 9, 32, 48, 3), np.uint8))
    with pytest.warns(UserWarning, match="trained with 4 earlier frames"):
        nano.extend(np.zeros((1, 5, 32, 48, 3), np.uint8), new_latents=1, condition_latents=2)


def test_clips_that_go_on_are_seen_from_the_camera_of_their_training(nano, monkeypatch):
    seen = []
    monkeypatch.setattr(nano, "sample", lambda *sizes, **options: seen.append(options.get("reference")))
    monkeypatch.setattr(nano, "decode", lambda latents: np.zeros((1, 9, 32, 48, 3), np.uint8))
    poses = np.tile(np.eye(4), (13, 1, 1))
    poses[:, 0, 3] = np.arange(13)

    def extend(latents):
        options = {"new_latents": 1, "world_from_camera": poses, "intrinsics": LENS}
        nano.extend(np.zeros((1, 9, 32, 48, 3), np.uint8), condition_latents=latents, **options)

    extend(2)
    np.testing.assert_array_equal(seen.pop()[0], poses[:1])
    extend(1)  # as in image to video
    monkeypatch.setitem(nano.sampling, "reference", "clip")
    extend(2)
    assert seen == [None, None]


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
    with pytest.raises(ValueError, match="retrieved=2: the stock transformer numbers latents from 0 on"):
        nano.extend(video, new_latents=1, condition_latents=2, retrieved=2)
    longer = np.tile(np.eye(4), (41, 1, 1))  # which part of it would be meant?
    with pytest.raises(ValueError, match=r"41 poses: .* 13 in all"):
        nano.extend(video, new_latents=1, condition_latents=2, world_from_camera=longer, intrinsics=LENS)
    for condition in (video[:, :3], video[:, :1] / np.float32(255), video[:, :1, :16]):
        with pytest.raises(ValueError, match=r"expected uint8 \[B, 4k.1, 32, 48, 3\]"):
            nano.sample(9, 32, 48, condition=condition)


def broken_pose(change):
    poses = np.tile(np.eye(4), (9, 1, 1))
    change(poses[5])
    return poses


BROKEN_POSES = [
    (lambda pose: pose.__setitem__((0, 3), np.nan), "frame 5 holds NaN or infinity"),
    (lambda pose: pose.__setitem__((0, 0), np.inf), "frame 5 holds NaN or infinity"),
    (lambda pose: pose.__imul__(2.0), "frame 5 has another last row"),
    (lambda pose: pose[:3, :3].__imul__(1.01), "frame 5 holds no rotation"),
    (lambda pose: pose[:3, :3].__imul__(-1.0), "frame 5 is mirrored"),
]


@pytest.mark.parametrize(("change", "message"), BROKEN_POSES)
def test_poses_that_are_no_cameras_are_refused_by_frame(
    module, nano, on_disk, nano_folder, capsys, change, message
):
    poses, good = broken_pose(change), np.tile(np.eye(4), (9, 1, 1))
    with pytest.raises(ValueError, match=f"^Poses: {message}"):
        nano.sample(*SIZE, world_from_camera=poses, intrinsics=LENS)
    with pytest.raises(ValueError, match=f"^Poses so far: {message}"):
        module.check_beginning(good[None], poses, 9)
    with pytest.raises(ValueError, match=f"^Poses: {message}"):
        module.check_beginning(poses[None], good, 9)
    with pytest.raises(ValueError, match=r"^The reference: frame 0 "):
        nano.sample(*SIZE, world_from_camera=good, intrinsics=LENS, reference=poses[None, 5:6])
    np.save(on_disk / "broken.npy", poses)
    given = ("--poses", "broken.npy", "--intrinsics", "lens.npy", "--out", "clip.npy")
    assert command(module, nano_folder, on_disk, *given) == 1
    assert f"error: --poses {on_disk / 'broken.npy'}: {message.split(' (')[0]}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, "frame 3 holds NaN"),
        (-np.inf, "up to inf"),
        (0.0, "frame 3 has an fx or fy of 0"),
        (-0.5, "fx or fy"),
    ],
)
def test_lenses_and_noise_that_are_none_are_refused(module, nano, value, message):
    poses, lenses = np.tile(np.eye(4), (9, 1, 1)), np.tile(LENS, (9, 1))
    wrong = lenses.copy()
    wrong[3, 1] = value
    with pytest.raises(ValueError, match=f"^Intrinsics.*{message}"):
        nano.sample(*SIZE, world_from_camera=poses, intrinsics=wrong)
    with pytest.raises(ValueError, match=f"^Intrinsics so far.*{message}"):
        module.check_beginning(poses[None], poses, 9, lenses[None], wrong)
    noise = np.zeros((1, 3, 4, 6, 16), np.float32)
    noise[0, 1, 2, 3, 4] = np.nan
    with pytest.raises(ValueError, match="noise holds NaN"):
        nano.sample(*SIZE, noise=noise)


def test_clips_of_one_stem_keep_their_own_paths_and_a_failed_one_changes_nothing(
    module, tmp_path, monkeypatch
):
    frames, poses = np.zeros((9, 16, 16, 3), np.uint8), np.tile(np.eye(4), (9, 1, 1))
    moved = poses + np.eye(4, k=3)
    for name, path in (("clip.npy", poses), ("clip.mp4", moved)):
        module.write_frames(tmp_path / name, frames, 12, path, LENS)
    for name, path in (("clip.npy", poses), ("clip.mp4", moved)):
        np.testing.assert_array_equal(module.read_cameras(tmp_path / f"{name}.cameras.npz")[0], path)
    names = sorted(path.name for path in tmp_path.iterdir())

    def full(*arguments, **values):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module.np, "savez", full)
        with pytest.raises(OSError, match="the disk is full"):
            module.write_frames(tmp_path / "clip.npy", frames + 1, 12, moved, LENS)
    assert np.load(tmp_path / "clip.npy").max() == 0
    np.testing.assert_array_equal(module.read_cameras(tmp_path / "clip.npy.cameras.npz")[0], poses)
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    beside = tmp_path / "clip.npy.cameras.npz"
    whole = beside.read_bytes()
    for length in (0, 4, 100, len(whole) // 2, len(whole) - 30):
        beside.write_bytes(whole[:length])
        with pytest.raises(
            ValueError, match=r"clip\.npy\.cameras\.npz is not the path of a clip .*--video-poses"
        ):
            module.read_cameras(beside)


def test_named_poses_leave_the_lens_beside_the_clip_checked(module, nano_folder, on_disk, capsys):
    lens = ("--intrinsics", "lens.npy")
    assert command(module, nano_folder, on_disk, "--poses", "poses.npy", *lens, "--out", "clip.npy") == 0
    np.save(on_disk / "wide.npy", np.multiply(LENS, 1.1))
    goes_on = ("--video", "clip.npy", *LENGTHS, "--poses", "longer.npy", "--video-poses", "poses.npy")
    assert command(module, nano_folder, on_disk, *goes_on, "--intrinsics", "wide.npy", "--out", "no.npy") == 1
    assert "lenses do not begin with those of the video" in capsys.readouterr().err
    assert command(module, nano_folder, on_disk, *goes_on, *lens, "--out", "yes.npy") == 0
    (on_disk / "clip.npy.cameras.npz").write_bytes(b"PK\x03\x04")
    assert command(module, nano_folder, on_disk, *goes_on, *lens, "--out", "yes.npy") == 0
    assert "clip.npy.cameras.npz tells no lenses of the video" in capsys.readouterr().err


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


def test_a_path_that_does_not_begin_with_the_videos_is_refused(nano):
    """With the distance at the frame that is furthest off; made of the video's own path it is taken."""
    video = np.zeros((1, 9, 32, 48, 3), np.uint8)
    path = resolve_path("dolly in 1 m then pan left 20 deg", 9)
    other = resolve_path("dolly in 1 m then pan left 20 deg", 13)  # the same, more slowly
    theirs, ours = path.relative_to(0).world_from_camera, other.relative_to(0).world_from_camera[:9]
    apart = np.linalg.norm(ours[:, :3, 3] - theirs[:, :3, 3], axis=1)
    size = {"new_latents": 1, "condition_latents": 2, "steps": 1}
    so_far = {"world_from_camera_so_far": path.world_from_camera, "intrinsics_so_far": path.intrinsics}
    with pytest.raises(ValueError, match="does not begin with that of the video: at frame") as told:
        nano.extend(video, **size, **in_torch(other), **so_far)
    frame = int(re.search(r"at frame (\d+)", str(told.value))[1])
    cosine = (np.trace(ours[frame, :3, :3].T @ theirs[frame, :3, :3]) - 1) / 2
    assert f"they are {apart[frame]:.3g} units and " in str(told.value)
    degrees = float(re.search(r"and (\S+) degrees apart", str(told.value))[1])
    assert degrees == pytest.approx(np.degrees(np.arccos(cosine)), rel=1e-2)
    longer = compose(path, resolve_path("truck right 1 m", 5))
    moved = longer.transformed(resolve_path("orbit left 90 deg", 2).world_from_camera[1])
    unchecked = nano.extend(video, **size, **in_torch(moved))
    np.testing.assert_array_equal(nano.extend(video, **size, **in_torch(moved), **so_far), unchecked)
    with pytest.raises(ValueError, match="lenses do not begin with those of the video"):
        nano.extend(video, **size, **in_torch(longer) | {"intrinsics": path.intrinsics[0] * 1.01}, **so_far)
    for given, message in (
        (
            {"world_from_camera_so_far": path.world_from_camera[:8]},
            "9 frames: they are another clip's",
        ),
        ({"world_from_camera_so_far": np.eye(4)}, r"Poses so far are \[4, 4\]"),
        ({"intrinsics_so_far": path.intrinsics}, "intrinsics_so_far without world_from_camera_so_far"),
    ):
        with pytest.raises(ValueError, match=message):
            nano.extend(video, **size, **in_torch(longer), **given)
    with pytest.raises(ValueError, match="expected the poses of the whole path"):
        nano.extend(video, **size, **so_far)


@pytest.fixture
def on_disk(tmp_path):
    """Poses, a longer path that begins with them, one that does not, and a lens."""
    path = resolve_path("dolly in 1 m then pan left 20 deg", 9)
    paths = {
        "poses": path,
        "longer": compose(path, resolve_path("truck right 1 m", 9)),
        "other": resolve_path("dolly in 1 m then pan left 20 deg, then truck right 1 m", 17),
    }
    for name, cameras in paths.items():
        np.save(tmp_path / f"{name}.npy", cameras.world_from_camera)
    np.save(tmp_path / "lens.npy", LENS)
    return tmp_path


def command(module, nano_folder, folder, *options):
    """The exported command; names that end with .npy or .mp4 are of files in ``folder``."""
    options = [str(folder / word) if word.endswith((".npy", ".mp4")) else word for word in options]
    return module.main(["--folder", str(nano_folder), "--steps", "1", *options])


LENGTHS = ("--new-latents", "2", "--condition-latents", "2")


def test_the_command_keeps_the_path_beside_a_clip_and_checks_the_next(module, nano_folder, on_disk, capsys):
    def run(*options):
        return command(module, nano_folder, on_disk, *options)

    lens = ("--intrinsics", "lens.npy")
    assert run("--poses", "poses.npy", *lens, "--out", "clip.npy") == 0
    with np.load(on_disk / "clip.npy.cameras.npz") as kept:
        np.testing.assert_array_equal(kept["world_from_camera"], np.load(on_disk / "poses.npy"))
        np.testing.assert_array_equal(kept["intrinsics"], np.tile(LENS, (9, 1)))
    goes_on = ("--video", "clip.npy", *lens, *LENGTHS)
    capsys.readouterr()
    assert run(*goes_on, "--poses", "other.npy", "--out", "wrong.npy") == 1
    assert re.search(r"error: The path does not begin .* units and .* degrees apart", capsys.readouterr().err)
    assert not (on_disk / "wrong.npy").exists()
    assert run(*goes_on, "--poses", "longer.npy", "--out", "longer_clip.npy") == 0
    assert "not checked" not in capsys.readouterr().err
    with np.load(on_disk / "longer_clip.npy.cameras.npz") as kept:  # and so the next clip is checked, too
        np.testing.assert_array_equal(kept["world_from_camera"], np.load(on_disk / "longer.npy"))
    # A clip from elsewhere: its poses are named, or it is said that nothing is known.
    (on_disk / "clip.npy.cameras.npz").unlink()
    named = ("--video-poses", "poses.npy")
    assert run(*goes_on, *named, "--poses", "other.npy", "--out", "wrong.npy") == 1
    assert "does not begin with that of the video" in capsys.readouterr().err
    assert run(*goes_on, "--poses", "other.npy", "--out", "free.npy") == 0
    assert "clip.npy.cameras.npz is not there: it is not checked" in capsys.readouterr().err
    (on_disk / "clip.npy.cameras.npz").write_bytes(b"damaged")
    assert run(*goes_on, "--poses", "longer.npy", "--out", "wrong.npy") == 1
    assert "clip.npy.cameras.npz is not the path of a clip" in capsys.readouterr().err
    # A clip of the same name without a path has none that is kept.
    assert run("--out", "clip.npy") == 0
    assert not (on_disk / "clip.npy.cameras.npz").exists()
    assert run("--video", "longer_clip.npy", *LENGTHS, "--out", "free.npy") == 0
    assert "without --poses what comes follows none" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--poses", "poses.npy", "--intrinsics", "lens.npy"),
            "--poses cannot be followed: .* no camera/",
        ),
        (("--camera-guidance", "2"), "--camera-guidance cannot be followed"),
        (("--camera-without-text", "2"), "--camera-without-text cannot be followed"),
    ],
)
def test_a_folder_without_camera_refuses_what_it_would_ignore(
    module, nano_folder, on_disk, capsys, options, message
):
    base = shutil.copytree(nano_folder, on_disk / "base")
    shutil.rmtree(base / "camera")
    assert command(module, base, on_disk, *options, "--out", "clip.npy") == 1
    assert re.search(message, capsys.readouterr().err)
    assert not (on_disk / "clip.npy").exists()
    assert command(module, base, on_disk, "--out", "clip.npy") == 0
    pipeline = module.CameraPipeline.from_folder(base, module.torch.float32)
    with pytest.raises(ValueError, match="camera_guidance cannot be followed"):
        pipeline.generate(camera_guidance=2.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--intrinsics", "lens.npy"), "--poses and --intrinsics belong together"),
        (("--poses", "poses.npy"), "--poses and --intrinsics belong together"),
        (("--pixels", "32", "48"), "--pixels says nothing without --intrinsics"),
        (("--prompt", "a ball"), "--text"),
        (("--negative-prompt", "a ball"), "--text"),
        (("--text", "text", "--prompt", "a ball"), "holds one text, without its words: 'a ball'"),
        (("--text", "text", "--negative-prompt", "a ball"), "holds one text, without its words: 'a ball'"),
        (("--new-latents", "2"), "--new-latents says nothing without --video"),
        (("--condition-latents", "2"), "--condition-latents says nothing without --video"),
        (("--video-poses", "poses.npy"), "--video-poses says nothing without --video"),
        (
            ("--video", "video.npy", "--video-poses", "poses.npy"),
            "says nothing without --poses",
        ),
        (("--video", "video.npy", "--image", "video.npy"), "--image and --video exclude each other"),
        (("--video", "video.npy", "--frames", "9"), "--frames and --video exclude each other"),
        (("--poses", "video.npy", "--intrinsics", "empty.npy"), "--intrinsics .*empty.npy is no npy file"),
        (("--poses", "text.npy", "--intrinsics", "lens.npy"), "--poses .*text.npy is no npy file"),
        (("--video", "lens.npy"), r"lens.npy holds an array \[4\]: expected frames"),
    ],
)
def test_options_that_would_be_ignored_are_refused(module, nano_folder, on_disk, capsys, options, message):
    np.save(on_disk / "video.npy", np.zeros((9, 32, 48, 3), np.uint8))
    (on_disk / "empty.npy").touch()
    (on_disk / "text.npy").write_text("version https://git-lfs.github.com/spec/v1\n")
    text = {"embeds": np.zeros((1, 2, 64), np.float32), "mask": np.ones((1, 2), bool)}
    write_safetensors(on_disk / "text", text)
    options = [str(on_disk / "text") if word == "text" else word for word in options]
    assert command(module, nano_folder, on_disk, *options, "--out", "clip.npy") == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert re.search(message, error), error
    assert not (on_disk / "clip.npy").exists()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("scheduler/scheduler_config.json", '{"shift": "abc"}', "shift is 'abc'; expected a number"),
        ("scheduler/scheduler_config.json", "version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
        ("sampling.json", "{", "sampling.json is not JSON"),
        ("camera/config.json", "[1]", "holds a list, expected a JSON object"),
    ],
)
def test_damaged_settings_of_a_folder_are_named(module, nano_folder, tmp_path, file, content, message):
    copy = shutil.copytree(nano_folder, tmp_path / "copy")
    (copy / file).write_text(content)
    with pytest.raises(ValueError, match=message) as told:
        module.CameraPipeline.from_folder(copy, module.torch.float32)
    assert str(copy / file) in str(told.value)


@pytest.mark.parametrize(
    ("file", "field", "value", "message"),
    [
        ("sampling.json", "shift", "abc", "shift is 'abc'; expected a number above 0"),
        ("sampling.json", "text_guidance", "x", "text_guidance is 'x'; expected a number"),
        ("sampling.json", "camera_guidance", None, "camera_guidance is None"),
        ("sampling.json", "frames", 9.0, "frames is 9.0; expected a whole number above 0"),
        ("sampling.json", "retrieved", "two", "retrieved is 'two'; expected a whole number"),
        ("camera/config.json", "translation_scale", "x", "translation_scale is 'x'"),
        ("transformer/config.json", "num_layers", "2", "does not describe a MotifVideoTransformer3DModel"),
    ],
)
def test_fields_of_another_type_are_named(module, nano_folder, tmp_path, file, field, value, message):
    folder = tmp_path / "copy"
    shutil.copytree(nano_folder, folder)
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(content | {field: value}))
    with pytest.raises(ValueError, match=re.escape(message)):
        module.CameraPipeline.from_folder(folder, module.torch.float32)


@pytest.mark.parametrize(
    "file", ["camera/camera_embedder.safetensors", "text/null.safetensors", "transformer"]
)
def test_pointers_of_git_lfs_in_a_folder_are_named(module, nano_folder, tmp_path, file):
    folder = tmp_path / "copy"
    shutil.copytree(nano_folder, folder)
    path = next((folder / file).glob("*.safetensors")) if (folder / file).is_dir() else folder / file
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(ValueError, match=r"is a Git LFS pointer.*git lfs pull"):
        module.CameraPipeline.from_folder(folder, module.torch.float32)


def test_a_full_disk_leaves_the_clip_that_was_there(module, tmp_path, monkeypatch):
    clip = tmp_path / "clip.npy"
    module.write_frames(clip, np.ones((1, 4, 4, 3), np.uint8), 12)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match=r"clip\.npy: the disk is full\. Free some space"):
            module.write_frames(clip, np.zeros((100, 40, 40, 3), np.uint8), 12)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert np.load(clip).max() == 1
    assert [path.name for path in tmp_path.iterdir()] == ["clip.npy"]


@pytest.mark.parametrize("with_vae", [True, False])
def test_the_stock_pipeline_loads_the_folder(module, nano_weights, tmp_path, with_vae):
    """Null for what is not in the folder: diffusers takes that from its caller only."""
    from diffusers import DiffusionPipeline

    folder, _ = export_diffusers(tmp_path / "out", checkpoint=str(nano_weights), with_vae=with_vae)
    absent = dict.fromkeys(("text_encoder", "tokenizer", "guider") + (() if with_vae else ("vae",)))
    loaded = DiffusionPipeline.from_pretrained(folder, **absent)
    assert type(loaded).__name__ == "MotifVideoPipeline"
    networks = {"transformer": loaded.transformer} | ({"vae": loaded.vae} if with_vae else {})
    for name, network in networks.items():
        stored = module.load_file(folder / name / "diffusion_pytorch_model.safetensors")
        found = network.state_dict()
        assert found.keys() == stored.keys()
        assert all(module.torch.equal(found[key].to(stored[key].dtype), stored[key]) for key in stored)
    shift = json.loads((folder / "scheduler/scheduler_config.json").read_text())["shift"]
    assert loaded.scheduler.config.shift == shift


def test_the_documented_longer_path_begins_with_the_documented_clips(module, tmp_path, monkeypatch):
    """As the page's commands and its Python make them, through the files that they write."""
    from camctrl_jax.camera.__main__ import main

    page = (Path(__file__).parents[2] / "docs" / "pytorch.md").read_text("utf-8")
    monkeypatch.chdir(tmp_path)
    for line in re.findall(r"^python -m camctrl_jax\.camera (.*)$", page, re.MULTILINE):
        assert main(shlex.split(line)) == 0
    for source in re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE):
        exec(compile(source, "pytorch.md", "exec"), {})
    arrays = {
        f"{folder}/{name}": np.load(tmp_path / folder / f"{name}.npy").astype(np.float64)
        for folder in ("walk", "longer")
        for name in ("poses", "intrinsics")
    }
    assert len(arrays["walk/poses"]) == 49
    assert len(arrays["longer/poses"]) == 97
    lenses = np.broadcast_to(arrays["longer/intrinsics"], (97, 4)) / [160, 96, 160, 96]
    so_far = np.broadcast_to(arrays["walk/intrinsics"], (49, 4)) / [160, 96, 160, 96]
    poses = arrays["longer/poses"]
    module.check_beginning(poses[None], arrays["walk/poses"], 49, lenses[None], so_far)
    # What the page once showed, one movement over more frames, is told apart.
    other = resolve_path("dolly in 1 m then pan left 20 deg, then truck right 1 m", 97)
    with pytest.raises(ValueError, match="degrees apart"):
        module.check_beginning(other.world_from_camera[None], arrays["walk/poses"], 49)


# ---------------------------------------------------------------------------------------------- students


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return save_stock(tmp_path_factory.mktemp("weights") / "student", STUDENT)


@pytest.fixture(scope="module")
def student_folder(tmp_path_factory, student):
    return export_diffusers(tmp_path_factory.mktemp("exported") / "student", checkpoint=str(student))[0]


def test_student_gives_the_sample_of_jax_by_default(module, student, student_folder):
    stored = json.loads((student_folder / "sampling.json").read_text())
    assert (stored["steps"], stored["text_guidance"], stored["camera_guidance"]) == (4, 1.0, 1.0)
    assert stored["distilled"]["guidance_folded"] == {"text": 1.0, "camera": 2.0}
    assert STUDENT.said in (student_folder / "README.md").read_text()
    ours = load_pipeline(*open_model(student), float32=True)
    path = resolve_path("dolly in 1 m", 9)
    clips = ClipBatch([PROMPT], [5], ClipShape(9, HEIGHT, WIDTH), [path])
    expected = ours.sample(clips, Sampling(Guidance(), 4))
    theirs = module.CameraPipeline.from_folder(student_folder, module.torch.float32)
    calls = []
    theirs.transformer.register_forward_hook(lambda *_: calls.append(1))
    latents = theirs.sample(
        *(9, HEIGHT, WIDTH),
        text=ours.embedder.embed([PROMPT]),
        noise=np.asarray(initial_noise([5], (3, HEIGHT // 8, WIDTH // 8, 16))),
        **in_torch(path),
    )
    assert len(calls) == 4
    assert relative_l2(latents, expected) <= TOLERANCE


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"steps": 32}, "steps is 32: these weights are a student made for 4 steps"),
        ({"text_guidance": 3.0}, "text_guidance is 3"),
        ({"camera_guidance": 2.0}, "camera_guidance is 2"),
        ({"camera_without_text": 1.0}, "camera_without_text is 1"),
    ],
)
def test_what_a_student_was_not_made_for_is_refused_in_torch_too(
    module, student_folder, tmp_path, capsys, asked, message
):
    theirs = module.CameraPipeline.from_folder(student_folder, module.torch.float32)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        theirs.sample(9, HEIGHT, WIDTH, **asked)
    assert "guidance folded in: text 1, camera 2" in str(caught.value)
    out = tmp_path / "clip.npy"
    options = [f"--{name.replace('_', '-')}={value}" for name, value in asked.items()]
    assert module.main(["--folder", str(student_folder), "--out", str(out), *options]) == 1
    assert message in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.slow
def test_folder_from_before_there_were_students_takes_32_steps_and_any(
    module, nano_folder, tmp_path, monkeypatch
):
    old = Path(shutil.copytree(nano_folder, tmp_path / "old"))
    stored = json.loads((old / "sampling.json").read_text())
    assert (stored.pop("steps"), "distilled" in stored) == (32, False)
    (old / "sampling.json").write_text(json.dumps(stored))
    grids = []
    whole = module.time_grid
    monkeypatch.setattr(module, "time_grid", lambda *asked: grids.append(asked[0]) or whole(*asked))
    for folder in (old, nano_folder):
        theirs = module.CameraPipeline.from_folder(folder, module.torch.float32)
        theirs.sample(5, HEIGHT, WIDTH)
        theirs.sample(5, HEIGHT, WIDTH, steps=2, text_guidance=3.0)
    assert grids == [32, 2, 32, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "flow_map"}, "a flow map is told the time that a step jumps to"),
        ({"valid_steps": [0]}, "valid_steps is 0"),
        ({"valid_steps": 4}, "expected method, valid_steps, guidance_folded"),
        ({"guidance_folded": {"text": "3"}}, "guidance_folded.text is '3'"),
    ],
)
def test_what_cannot_be_run_as_a_student_is_named(module, student_folder, tmp_path, change, message):
    damaged = Path(shutil.copytree(student_folder, tmp_path / "damaged"))
    stored = json.loads((damaged / "sampling.json").read_text())
    stored["distilled"] |= change
    (damaged / "sampling.json").write_text(json.dumps(stored))
    with pytest.raises(ValueError, match=re.escape(message)):
        module.CameraPipeline.from_folder(damaged, module.torch.float32)


def test_flow_map_is_not_exported_and_why(tmp_path):
    made = replace(STUDENT, method="flow_map", valid_steps=(4, 1))
    weights = save_stock(tmp_path / "map", made)
    with pytest.raises(WeightsError, match=r"an input that the stock class .* does not have"):
        export_diffusers(tmp_path / "out", checkpoint=str(weights))
    assert not (tmp_path / "out").exists()


def test_student_is_one_when_it_comes_back(student_folder, tmp_path):
    opened = open_weights(student_folder)
    assert (opened.distilled, opened.sampling.steps) == (STUDENT, 4)
    import_diffusers(student_folder, tmp_path / "run")
    assert open_weights(tmp_path / "run").distilled == STUDENT
