"""``generate``: what it writes, that it repeats, and what it says when a request cannot work."""

from __future__ import annotations

import json
import shutil
from dataclasses import astuple, replace

import numpy as np
import pytest
from nano_weights import STUDENT, save_nano

from camctrl_jax.camera import Cameras, resolve_path, save_cameras
from camctrl_jax.camera.formats import Convention
from camctrl_jax.camera.framing import Framing
from camctrl_jax.camera.playing import Playing
from camctrl_jax.camera.reading import Reading
from camctrl_jax.checkpoints import weights
from camctrl_jax.data.text import TEXT_FORMAT, TEXT_FORMAT_VERSION
from camctrl_jax.errors import UserError
from camctrl_jax.files.safetensors import write_safetensors
from camctrl_jax.generate.__main__ import main
from camctrl_jax.generate.plan import prepare
from camctrl_jax.generate.request import Request
from camctrl_jax.video.decoding import read_frames
from camctrl_jax.video.pictures import write_png

pytest.importorskip("av", reason="videos are written by PyAV")
pytest.importorskip("matplotlib", reason="figures are drawn by matplotlib")


INVERSE = Reading(convention=Convention(inverse=True))


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
    guidance = {"text": 1.0, "camera": 3.0, "camera_without_text": None, "history": 1.0}
    assert record["sampling"]["guidance"] == guidance
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
        ({"fps": 1e-9}, "--fps 1e-09: expected .* from 0.1 to 1000"),
        (
            {"intrinsics": (500.0, 500.0, 320.0, 240.0)},
            r"--intrinsics: .* \(500, 500, .* look like pixels",
        ),
        ({"intrinsics": (0.5, 0.9, 0.5, 0.5), "worlds_seed": 1_000_000}, "a world has a lens of its own"),
        ({"steps": 0}, "steps is 0"),
        ({"shift": -2.0}, "shift is -2"),
        ({"seed": -1}, "seed is -1"),
        ({"text_guidance": float("nan")}, "Guidance.text"),
        ({"history_guidance": float("inf")}, "Guidance.history"),
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
    assert astuple(plan.sampling.guidance) == (3.0, 4.0, 4.0, 1.0)
    plan = prepare(Request(**request))
    assert astuple(plan.sampling.guidance)[:2] == (1.0, 2.0)  # as the weights say
    plan = prepare(Request(**request, history_guidance=1.5))
    assert plan.sampling.guidance.history == 1.0  # from a prompt alone there is none
    assert any("--history-guidance weighs the first frame; none is given" in note for note in plan.notes)
    plan = prepare(Request(**request, history_guidance=1.5, worlds_seed=1_000_000))
    assert plan.sampling.guidance.history == 1.5
    assert plan.sampling.guidance.evaluations() == 3
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


# --- pose files ------------------------------------------------------------------------------------------


def straight(frames: int, fps: float | None = 30.0) -> Cameras:
    """A walk forwards, a centimetre a pose."""
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, 2, 3] = np.arange(frames) * 0.01
    return Cameras(poses, (0.6, 1.0, 0.5, 0.5), None if fps is None else np.arange(frames) / fps, True)


def plan_of(folder, tmp_path, path, **changes):
    return prepare(
        Request(tmp_path / "o", checkpoint=str(folder), camera=str(path), **{"prompt": "x"} | changes)
    )


def test_a_long_path_is_squeezed_with_its_factor_of_speed(folder, tmp_path):
    path = tmp_path / "path.txt"
    save_cameras(straight(1000), path)
    plan = plan_of(folder, tmp_path, path)  # 9 frames at 12 a second
    np.testing.assert_allclose(plan.cameras.positions[:, 2], np.linspace(0, 9.99, 9), atol=1e-6)
    (note,) = plan.notes
    assert note.startswith(f"{path}: 1000 poses become 9 frames: every frame moves 125 poses on")
    assert "33.3 s play in 0.6667 s, 49.9 times as fast as recorded" in note


def test_a_range_and_the_paths_own_pace_can_be_asked_for(folder, tmp_path):
    path = tmp_path / "path.txt"
    save_cameras(straight(1000), path)
    plan = plan_of(folder, tmp_path, path, playing=Playing((100, 109)))
    np.testing.assert_allclose(plan.cameras.positions[:, 2], np.arange(9) * 0.01, atol=1e-6)
    plan = plan_of(folder, tmp_path, path, playing=Playing((100, None), own_pace=True))
    np.testing.assert_allclose(plan.cameras.positions[:, 2], np.arange(9) * 0.3 / 12, atol=1e-6)
    assert "takes the first 0.6667 s of the path's 29.97 s" in plan.notes[0]
    plan = plan_of(
        folder, tmp_path, path, playing=Playing((0, 11), own_pace=True)
    )  # a third of a second: 4 frames move
    np.testing.assert_allclose(plan.cameras.positions[4:, 2], 0.1, atol=1e-6)
    assert "the camera stands still in the last 4 frames" in plan.notes[0]


def test_options_of_a_pose_file_reach_it_from_the_command_line(folder, tmp_path, capsys):
    path = tmp_path / "slam.txt"
    save_cameras(straight(97), path, "tum")
    rows = [line.split() for line in path.read_text().splitlines() if line[0] != "#"]
    path.write_text("".join(" ".join([*row[:4], row[7], *row[4:7]]) + "\n" for row in rows))
    arguments = ("--checkpoint", folder, "--camera", path, "--prompt", "x", "--steps", 1)
    assert run(*arguments, "--out", tmp_path / "wrong") == 0
    printed = capsys.readouterr().err
    assert f"note: {path}: the first quaternion turns by 180 degrees" in printed
    assert "(try --quaternions wxyz)" in printed
    options = ("--quaternions", "wxyz", "--range", "40:49", "--from", "tum")
    assert run(*arguments, *options, "--out", tmp_path / "right") == 0
    assert "quaternion" not in capsys.readouterr().err
    record = json.loads((tmp_path / "right" / "generation.json").read_text())
    positions = np.array(record["camera"]["world_from_camera"])[:, :3, 3]
    np.testing.assert_allclose(positions[:, 2], np.arange(9) * 0.01, atol=1e-9)
    assert record["request"]["playing"]["part"] == [40, 49]
    assert record["request"]["reading"]["convention"]["quaternions"] == "wxyz"


def test_inverse_poses_are_hinted_at_and_inverted(folder, tmp_path):
    meant = resolve_path("dolly in 1.5 m, then pan left 40 deg", 49)
    path = tmp_path / "poses.txt"
    save_cameras(Cameras(meant.camera_from_world, meant.intrinsics), path, "kitti")
    assert any("(try --invert)" in note for note in plan_of(folder, tmp_path, path).notes)
    plan = plan_of(folder, tmp_path, path, reading=INVERSE)
    assert not any("try" in note for note in plan.notes)
    expected = meant[np.arange(0, 49, 6)].world_from_camera
    np.testing.assert_allclose(plan.cameras.world_from_camera, expected, atol=1e-9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"playing": Playing((5, 200))}, "--range 5:200: reaches beyond the path; .* has 97 poses"),
        ({"playing": Playing(own_pace=True)}, "holds no times.* or take --pace fit"),
        ({"reading": Reading("tum")}, "does not look like tum .*; leave --from .* out"),
        ({"reading": Reading(convention=Convention(axes="XYZ"))}, "camera axes 'XYZ'"),
        (
            {"camera": "dolly in 1 m", "playing": Playing((0, 5))},
            "is a preset or a sentence: --range",
        ),
        ({"camera": "orbit_left", "reading": INVERSE}, "'orbit_left' is a preset or a sentence: --invert"),
        ({"camera": "none", "reading": INVERSE}, "--invert: there is no pose file with --camera none"),
        ({"camera": "none", "playing": Playing((0, 5))}, "--range: there is no pose file with --camera none"),
        (
            {"camera": "dolly in 1 m", "poses_of": "stored"},
            "--poses-of stored .* there is no --image",
        ),
        ({"poses_of": "shown"}, "--poses-of shown .* there is no --image"),
    ],
)
def test_options_that_the_path_cannot_follow_are_refused(folder, tmp_path, changes, message):
    path = tmp_path / "poses.txt"
    save_cameras(straight(97, fps=None), path, "kitti")
    with pytest.raises(UserError, match=message):
        plan_of(folder, tmp_path, **{"path": changes.pop("camera", path)} | changes)


def test_options_of_a_pose_file_without_a_path_are_refused(folder, tmp_path, image):
    for changes in ({"reading": INVERSE}, {"playing": Playing(source_fps=30.0)}, {"poses_of": "stored"}):
        with pytest.raises(UserError, match="there is no pose file without --camera to read"):
            prepare(Request(tmp_path / "o", checkpoint=str(folder), worlds_seed=1_000_001, **changes))
    with pytest.raises(UserError, match="there is no pose file as --camera"):
        plan_of(folder, tmp_path, "dolly in 1 m", image=image, poses_of="stored")


def test_one_pose_is_said_to_stand_still(folder, tmp_path):
    save_cameras(straight(20), tmp_path / "path.txt")
    plan = plan_of(folder, tmp_path, tmp_path / "path.txt", playing=Playing((5, 6)))
    assert plan.cameras.path_length == 0
    assert any("the path is one pose: the camera stands still in all 9 frames" in each for each in plan.notes)


def test_a_file_without_a_lens_gets_the_one_of_a_sentence(folder, tmp_path, image):
    path = tmp_path / "poses.txt"
    save_cameras(straight(9, fps=None), path, "kitti")
    expected = plan_of(folder, tmp_path, "dolly in 1 m", image=image).cameras.intrinsics
    np.testing.assert_allclose(plan_of(folder, tmp_path, path, image=image).cameras.intrinsics, expected)
    np.testing.assert_allclose(plan_of(folder, tmp_path, path).cameras.intrinsics, expected)


@pytest.fixture
def turned_image(tmp_path):
    """A picture stored lying, 40 x 80, that is shown standing: EXIF says a quarter turn."""
    pillow = pytest.importorskip("PIL.Image", reason="pictures with orientation are made by Pillow")
    picture = pillow.fromarray(np.random.default_rng(0).integers(0, 256, (40, 80, 3)).astype(np.uint8))
    exif = pillow.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "turned.jpg", exif=exif)
    return tmp_path / "turned.jpg"


def test_poses_of_the_stored_picture_are_turned_with_it(folder, tmp_path, turned_image):
    (frame,) = read_frames(turned_image)
    assert (frame.stored_size, frame.size) == ((40, 80), (80, 40))
    walk = resolve_path("truck right 1 m", 9, intrinsics=(0.6, 1.2, 0.45, 0.52))
    path = tmp_path / "transforms.json"
    save_cameras(walk, path, "transforms_json", image_size=(40, 80))
    plan = plan_of(folder, tmp_path, path, image=turned_image)
    expected = frame.orientation.cameras(walk).relative_to(0)
    np.testing.assert_allclose(plan.cameras.world_from_camera, expected.world_from_camera, atol=1e-6)
    # Shown a quarter turn clockwise, what was right is down.
    np.testing.assert_allclose(plan.cameras.positions[-1], (0, 1, 0), atol=1e-6)
    framing = Framing.cover((80, 40), (32, 48))
    np.testing.assert_allclose(plan.cameras.intrinsics, framing.intrinsics(expected.intrinsics), rtol=1e-6)
    assert any("by its size of 40x80: its poses and lens were turned alike" in note for note in plan.notes)

    plan = plan_of(folder, tmp_path, path, image=turned_image, poses_of="shown")
    np.testing.assert_allclose(plan.cameras.positions[-1], (1, 0, 0), atol=1e-6)
    assert not any("its poses" in note for note in plan.notes)


@pytest.mark.parametrize("size", [(80, 139), (90, 120), (1080, 1920)])
def test_lying_poses_of_a_picture_stored_lying_are_turned_whatever_their_ratio(
    folder, tmp_path, turned_image, size
):
    save_cameras(resolve_path("truck right 1 m", 9), tmp_path / "t.json", "transforms_json", image_size=size)
    plan = plan_of(folder, tmp_path, tmp_path / "t.json", image=turned_image)
    np.testing.assert_allclose(plan.cameras.positions[-1], (0, 1, 0), atol=1e-6)
    assert any(f"by its size of {size[0]}x{size[1]}" in note for note in plan.notes)


def test_poses_of_the_shown_picture_stay_as_they_are(folder, tmp_path, turned_image):
    walk = resolve_path("truck right 1 m", 9, intrinsics=(1.2, 0.6, 0.52, 0.45))
    path = tmp_path / "transforms.json"
    save_cameras(walk, path, "transforms_json", image_size=(160, 80))  # twice the size, the same shape
    plan = plan_of(folder, tmp_path, path, image=turned_image)
    np.testing.assert_allclose(plan.cameras.positions[-1], (1, 0, 0), atol=1e-6)
    framing = Framing.cover((80, 40), (32, 48))
    np.testing.assert_allclose(plan.cameras.intrinsics, framing.intrinsics(walk.intrinsics), rtol=1e-6)
    assert not any("its poses" in note for note in plan.notes)


def test_where_a_file_does_not_tell_the_picture_is_taken_as_shown_and_that_is_said(
    folder, tmp_path, turned_image
):
    path = tmp_path / "poses.txt"
    save_cameras(resolve_path("truck right 1 m", 9), path, "realestate10k")
    plan = plan_of(folder, tmp_path, path, image=turned_image)
    np.testing.assert_allclose(plan.cameras.positions[-1], (1, 0, 0), atol=1e-6)
    assert any("--poses-of stored for the picture as it is stored" in note for note in plan.notes)
    plan = plan_of(folder, tmp_path, path, image=turned_image, poses_of="stored")
    np.testing.assert_allclose(plan.cameras.positions[-1], (0, 1, 0), atol=1e-6)


def test_given_intrinsics_belong_to_the_image_as_shown(folder, tmp_path, turned_image):
    own = (1.2, 0.6, 0.5, 0.5)
    plan = plan_of(folder, tmp_path, "dolly in 1 m", image=turned_image, intrinsics=own)
    framing = Framing.cover((80, 40), (32, 48))
    np.testing.assert_allclose(plan.cameras.intrinsics[0], framing.intrinsics(np.asarray(own)))


def test_a_picture_that_the_file_names_is_found_in_it(folder, tmp_path, image):
    path, names = tmp_path / "transforms.json", [f"images/frame_{index}.png" for index in range(12)]
    save_cameras(resolve_path("dolly in 1 m", 12), path, "transforms_json", image_size=(40, 100), names=names)
    shutil.copy(image, tmp_path / "frame_3.png")
    (note,) = [
        note
        for note in plan_of(folder, tmp_path, path, image=tmp_path / "frame_3.png").notes
        if "frame_3" in note
    ]
    assert "is frame 3 of the pose file, the path begins at frame 0; --range 3:" in note
    plan = plan_of(folder, tmp_path, path, image=tmp_path / "frame_3.png", playing=Playing((3, None)))
    assert not any("is frame 3" in note for note in plan.notes)


def test_remarks_of_the_image_are_told(folder, tmp_path, image, monkeypatch):
    from camctrl_jax.generate import start

    def remarked(path):
        for frame in read_frames(path):
            yield replace(frame, remarks=("its transparency was laid on black",))

    monkeypatch.setattr(start, "read_frames", remarked)
    plan = plan_of(folder, tmp_path, "dolly in 1 m", image=image)
    assert f"{image}: its transparency was laid on black" in plan.notes


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return save_nano(tmp_path_factory.mktemp("weights") / "student", distilled=STUDENT)


def test_student_is_sampled_as_its_weights_say_and_the_record_says_what_it_is(student, folder, tmp_path):
    asked = ("--prompt", "a ball", "--camera", "dolly in 1 m", "--checkpoint", student)
    assert run(*asked, "--out", tmp_path / "own") == 0
    record = json.loads((tmp_path / "own" / "generation.json").read_text())
    assert record["sampling"]["steps"] == 4
    none = {"text": 1.0, "camera": 1.0, "camera_without_text": None, "history": 1.0}
    assert record["sampling"]["guidance"] == none
    assert record["weights"]["distilled"]["guidance_folded"] == {"text": 1.0, "camera": 2.0}
    plain = prepare(Request(tmp_path / "o", checkpoint=str(folder), camera="dolly in 1 m", prompt="x"))
    assert (plain.sampling.steps, plain.sampling.guidance.camera, plain.request.steps) == (32, 2.0, 32)


def test_student_without_a_path_takes_one_call_too(student, tmp_path):
    plan = prepare(Request(tmp_path / "o", checkpoint=str(student), camera="none", prompt="x"))
    assert plan.cameras is None
    assert plan.sampling.guidance.evaluations() == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--steps", 32), "steps is 32: these weights are a student made for 4 steps"),
        (("--camera-guidance", 2), "guidance to the camera is 2"),
        (("--text-guidance", 3), "guidance to the text is 3"),
        (("--guidance", "cfgp"), "guidance to the camera without text (CFG') is 1"),
        (("--history-guidance", 1.5), "guidance to past frames is 1.5"),
    ],
)
def test_what_a_student_was_not_made_for_is_refused_before_anything_is_made(
    student, tmp_path, capsys, options, message
):
    out = tmp_path / "out"
    status = run(
        *("--prompt", "a ball", "--camera", "dolly in 1 m", "--checkpoint", student, "--out", out, *options)
    )
    told = capsys.readouterr().err
    assert status == 1
    assert message in told
    assert "folded in: camera guidance 2" in told
    assert not out.exists()
