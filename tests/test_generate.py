"""``generate``: what it writes, that it repeats, and what it says when a request cannot work."""

from __future__ import annotations

import json
import shutil
from dataclasses import astuple

import numpy as np
import pytest
from nano_weights import save_nano

from camctrl_jax.camera import resolve_path, save_cameras
from camctrl_jax.camera.framing import Framing
from camctrl_jax.checkpoints import weights
from camctrl_jax.data.text import TEXT_FORMAT, TEXT_FORMAT_VERSION
from camctrl_jax.errors import UserError
from camctrl_jax.files.safetensors import write_safetensors
from camctrl_jax.generate.__main__ import main
from camctrl_jax.generate.plan import prepare
from camctrl_jax.generate.request import Request
from camctrl_jax.video.pictures import write_png

pytest.importorskip("av", reason="videos are written by PyAV")
pytest.importorskip("matplotlib", reason="figures are drawn by matplotlib")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_nano(tmp_path_factory.mktemp("weights") / "nano")


@pytest.fixture
def image(tmp_path):
    """A picture of another shape than the model's: 40 x 100."""
    path = tmp_path / "image.png"
    write_png(path, np.random.default_rng(0).integers(0, 256, (40, 100, 3)).astype(np.uint8))
    return path


def run(*arguments) -> int:
    return main([str(argument) for argument in arguments])


def test_image_to_video_writes_everything_and_repeats_exactly(folder, image, tmp_path):
    def once(name: str, seed: int = 3):
        status = run(
            *("--checkpoint", folder, "--image", image, "--prompt", "a red ball", "--camera", "dolly in 1 m"),
            *("--steps", 2, "--seed", seed, "--out", tmp_path / name, "--camera-guidance", 3),
        )
        assert status == 0
        return tmp_path / name

    first, second, other = once("first"), once("second"), once("other", seed=4)
    names = {"video.mp4", "trajectory.png", "frames.png", "generation.json"}
    assert {path.name for path in first.iterdir()} == names
    # PNG is lossless: equal files are equal frames, whatever a video encoder makes of them.
    frames = (first / "frames.png").read_bytes()
    assert frames == (second / "frames.png").read_bytes()
    assert frames != (other / "frames.png").read_bytes()

    record = json.loads((first / "generation.json").read_text())
    assert record["prompt"] == "a red ball"
    assert record["sampling"]["seed"] == 3
    assert record["sampling"]["guidance"] == {"text": 1.0, "camera": 3.0, "camera_without_text": None}
    path = resolve_path("dolly in 1 m", 9)
    np.testing.assert_allclose(record["camera"]["world_from_camera"], path.world_from_camera)
    assert record["camera"]["path_length_m"] == pytest.approx(1.0)
    assert record["clip"] == {"frames": 9, "fps": 12.0, "height": 32, "width": 48}
    assert set(record["versions"]) >= {"camctrl_jax", "jax", "python", "device"}
    assert set(record["files"].values()) == names


def test_written_video_has_the_size_and_rate_that_were_asked_for(folder, tmp_path):
    import av

    out = tmp_path / "out"
    arguments = ("--checkpoint", folder, "--camera", "orbit_left", "--prompt", "a box", "--steps", 1)
    assert run(*arguments, "--fps", 8, "--out", out) == 0
    with av.open(str(out / "video.mp4")) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert float(stream.average_rate) == 8
    assert np.stack(frames).shape == (9, 32, 48, 3)


def test_world_gives_frame_caption_path_and_truth(folder, tmp_path):
    out = tmp_path / "out"
    assert run("--checkpoint", folder, "--worlds-seed", 1_000_001, "--steps", 1, "--out", out) == 0
    record = json.loads((out / "generation.json").read_text())
    from camctrl_jax.worlds import WorldsConfig, sample_world

    world = sample_world(1_000_001, WorldsConfig(frames=9, aspect=1.5))
    assert record["prompt"] == world.captions[0]
    path = world.cameras.relative_to(0)
    np.testing.assert_allclose(record["camera"]["world_from_camera"], path.world_from_camera)
    assert {"truth.mp4", "comparison.mp4"} <= {entry.name for entry in out.iterdir()}
    assert 0 < record["measured"]["psnr_db"] < 100


def test_truth_of_a_world_is_rendered_along_the_path_that_was_asked_for(folder, tmp_path):
    request = Request(tmp_path, checkpoint=str(folder), worlds_seed=1_000_001, camera="pan left 20 deg")
    plan = prepare(request)
    turned = plan.start.world.cameras.relative_to(0)
    expected = resolve_path("pan left 20 deg", 9)
    np.testing.assert_allclose(turned.world_from_camera, expected.world_from_camera, atol=1e-12)


def test_lens_of_a_path_file_follows_the_crop_of_the_image(folder, image, tmp_path):
    own = (0.5, 1.25, 0.5, 0.5)  # square pixels at 40 x 100
    save_cameras(resolve_path("dolly in 1 m", 9, intrinsics=own), tmp_path / "path.txt", "realestate10k")
    request = Request(tmp_path / "o", checkpoint=str(folder), image=image, camera=str(tmp_path / "path.txt"))
    plan = prepare(request)
    framing = Framing.cover((40, 100), (32, 48))
    np.testing.assert_allclose(plan.cameras.intrinsics[0], framing.intrinsics(np.asarray(own)), rtol=1e-6)
    # Square pixels stay square: fx/W * W = fy/H * H.
    focal = plan.cameras.intrinsics[0, :2] * (48, 32)
    assert focal[0] == pytest.approx(focal[1], rel=0.02)


def test_lens_of_a_path_file_without_an_image_keeps_square_pixels(folder, tmp_path):
    own = (0.5, 0.5 * 16 / 9, 0.5, 0.5)
    save_cameras(resolve_path("dolly in 1 m", 9, intrinsics=own), tmp_path / "path.txt", "realestate10k")
    plan = prepare(
        Request(tmp_path / "o", checkpoint=str(folder), camera=str(tmp_path / "path.txt"), prompt="x")
    )
    focal = plan.cameras.intrinsics[0, :2] * (48, 32)
    assert focal[0] == pytest.approx(focal[1], rel=0.02)
    assert plan.cameras.intrinsics[0, 1] == pytest.approx(own[1], rel=0.01)  # cropped at the sides only


def test_lens_of_a_sentence_has_square_pixels_at_any_size(folder, tmp_path):
    plan = prepare(Request(tmp_path, checkpoint=str(folder), camera="dolly in 1 m", prompt="x", width=64))
    np.testing.assert_allclose(plan.cameras.intrinsics[0], (0.5, 1.0, 0.5, 0.5))


def test_given_intrinsics_belong_to_the_whole_image(folder, image, tmp_path):
    own = (0.4, 1.0, 0.5, 0.5)
    request = Request(tmp_path, checkpoint=str(folder), camera="dolly in 1 m", image=image, intrinsics=own)
    expected = Framing.cover((40, 100), (32, 48)).intrinsics(np.asarray(own))
    np.testing.assert_allclose(prepare(request).cameras.intrinsics[0], expected)


def test_path_is_scaled_and_starts_at_the_identity(folder, tmp_path):
    moved = resolve_path("dolly in 1 m", 9).transformed(
        resolve_path("pan left 90 deg", 2).world_from_camera[1]
    )
    save_cameras(moved, tmp_path / "path.txt", "realestate10k")
    request = Request(
        tmp_path, checkpoint=str(folder), camera=str(tmp_path / "path.txt"), prompt="x", camera_scale=2.5
    )
    cameras = prepare(request).cameras
    np.testing.assert_allclose(cameras.world_from_camera[0], np.eye(4), atol=1e-6)
    np.testing.assert_allclose(cameras.positions[-1], (0, 0, 2.5), atol=1e-5)


def test_real_path_and_real_image_are_accepted(folder, tmp_path, test_data):
    paths = sorted(test_data("re10k_cameractrl").rglob("*.txt"))
    images = sorted(test_data("sam2_bedroom").glob("*.jpg"))
    assert paths
    assert images
    plan = prepare(Request(tmp_path, checkpoint=str(folder), image=images[0], camera=str(paths[0])))
    assert plan.start.first_frame.shape == (32, 48, 3)
    assert len(plan.cameras) == 9
    focal = plan.cameras.intrinsics[0, :2] * (48, 32)
    assert 0.8 < focal[0] / focal[1] < 1.25


GOOD = {"camera": "dolly in 1 m", "prompt": "a ball"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"checkpoint": "nowhere"}, "No weights at 'nowhere'"),
        ({"camera": None}, "--camera is missing"),
        ({"camera": "fly me to the moon"}, "fly me to the moon"),
        ({"camera": "missing.txt"}, "missing.txt: no such file"),
        ({"camera_scale": -1.0}, "--camera-scale -1"),
        ({"frames": 10}, "frames=10"),
        ({"frames": 0}, "frames=0"),
        ({"height": 50}, "height=50"),
        ({"fps": -1.0}, "--fps -1"),
        ({"fps": float("nan")}, "--fps nan"),
        (
            {"intrinsics": (500.0, 500.0, 320.0, 240.0)},
            r"--intrinsics: .* \(500, 500, .* look like pixels",
        ),
        ({"intrinsics": (0.5, 0.9, 0.5, 0.5), "worlds_seed": 1_000_000}, "a world has a lens of its own"),
        ({"steps": 0}, "steps is 0"),
        ({"shift": -2.0}, "shift is -2"),
        ({"seed": -1}, "seed is -1"),
        ({"text_guidance": float("nan")}, "Guidance.text"),
        ({"camera_guidance_without_text": 2.0}, "belongs to --guidance cfgp"),
        ({"worlds_seed": -4}, "--worlds-seed -4"),
    ],
)
def test_requests_that_cannot_work_are_refused_before_any_work(folder, tmp_path, changes, message):
    out = tmp_path / "out"
    with pytest.raises(UserError, match=message):
        prepare(Request(**{"out": out, "checkpoint": str(folder)} | GOOD | changes))
    assert not out.exists()


def test_unusable_images_are_named(folder, tmp_path, image):
    request = {"out": tmp_path / "out", "checkpoint": str(folder), "camera": "dolly in 1 m"}
    with pytest.raises(UserError, match=r"absent\.png"):
        prepare(Request(**request, image=tmp_path / "absent.png"))
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"broken\.png"):
        prepare(Request(**request, image=broken))
    with pytest.raises(UserError, match="choose one"):
        prepare(Request(**request, image=image, worlds_seed=1_000_000))


def test_prompt_that_is_not_among_precomputed_ones_is_refused(folder, tmp_path):
    copy = tmp_path / "weights"
    shutil.copytree(folder, copy)
    texts = json.dumps(["", "a ball"]).encode()
    tensors = {
        "texts": np.frombuffer(texts, np.uint8),
        "counts": np.full(2, 3, np.int32),
        "tokens.00000": np.ones((6, 64), np.float16),
    }
    facts = {"format": TEXT_FORMAT, "format_version": TEXT_FORMAT_VERSION}
    facts |= {"max_tokens": "8", "texts_per_part": "256"}
    write_safetensors(tmp_path / "text.safetensors", tensors, facts)
    content = json.loads((copy / "model.json").read_text())
    content["text"] = {"kind": "precomputed", "source": str(tmp_path / "text.safetensors")}
    (copy / "model.json").write_text(json.dumps(content))
    assert prepare(Request(tmp_path / "out", checkpoint=str(copy), **GOOD)).prompt == "a ball"
    with pytest.raises(UserError, match="no embedding of 'another ball'"):
        prepare(Request(tmp_path / "out", checkpoint=str(copy), **GOOD | {"prompt": "another ball"}))


def test_base_model_takes_no_camera(tmp_path):
    base = save_nano(tmp_path / "base", camera=False)
    with pytest.raises(UserError, match="has no camera input"):
        prepare(Request(tmp_path / "out", checkpoint=str(base), **GOOD))
    plan = prepare(Request(tmp_path / "out", checkpoint=str(base), prompt="a ball"))
    assert plan.cameras is None


def test_autoencoder_and_absent_default_weights_are_explained(tmp_path, monkeypatch):
    vae = save_nano(tmp_path / "vae", mmdit=False)
    with pytest.raises(UserError, match="no transformer"):
        prepare(Request(tmp_path / "out", checkpoint=str(vae), **GOOD))
    monkeypatch.setattr(weights, "default_folder", lambda: tmp_path / "worlds")
    with pytest.raises(UserError, match="embedded default weights are absent"):
        prepare(Request(tmp_path / "out", **GOOD))


def test_weights_of_another_preset_end_with_one_line_and_status_1(tmp_path, capsys):
    folder = save_nano(tmp_path / "nano")
    content = json.loads((folder / "model.json").read_text())
    content["mmdit"]["num_single"] = 2
    (folder / "model.json").write_text(json.dumps(content))
    status = run("--checkpoint", folder, "--camera", "static", "--prompt", "x", "--out", tmp_path / "out")
    printed = capsys.readouterr().err.strip().splitlines()
    assert status == 1
    assert printed[-1].startswith("error: ")
    assert "missing: single_transformer_blocks_1" in printed[-1]


def test_a_place_that_cannot_be_written_is_named(folder, tmp_path, capsys):
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "out"
    assert run("--checkpoint", folder, "--camera", "static", "--prompt", "x", "--out", out) == 1
    printed = capsys.readouterr().err.strip().splitlines()
    assert printed[-1].startswith(f"error: cannot write {out}: ")


def test_what_is_unusual_is_noted(folder, tmp_path):
    path = tmp_path / "path.txt"
    save_cameras(resolve_path("dolly in 1 m", 9).scaled(1.0, metric=False), path, "realestate10k")
    sizes = {"frames": 13, "width": 64}
    request = Request(
        tmp_path / "o", str(folder), camera=str(path), worlds_seed=5, prompt="ball " * 40, **sizes
    )
    notes = "\n".join(prepare(request).notes)
    assert "13 frames are more than the 9" in notes
    assert "32x64 is not the size" in notes
    assert "world 5 may be one of the training worlds" in notes
    assert "does not say its unit" in notes
    assert "longer than 32 tokens" in notes


def test_guidance_is_what_was_asked_for(folder, tmp_path):
    request = {"out": tmp_path, "checkpoint": str(folder), **GOOD}
    plan = prepare(Request(**request, guidance="cfgp", text_guidance=3.0, camera_guidance=4.0))
    assert astuple(plan.sampling.guidance) == (3.0, 4.0, 4.0)
    plan = prepare(Request(**request))
    assert astuple(plan.sampling.guidance)[:2] == (1.0, 2.0)  # as the weights say
    plan = prepare(Request(**request | {"camera": "none"}))
    assert plan.cameras is None
    assert plan.sampling.guidance.evaluations() == 1


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as ended:
        run("--help")
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for word in ("--camera", "dolly in 1.5 m", "generation.json", "--worlds-seed", "default"):
        assert word in text
