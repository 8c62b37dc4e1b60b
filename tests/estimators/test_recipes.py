"""Each recipe with a fake program that speaks its format. Real weights are nobody's business here."""

import sys
import textwrap

import colmap_files
import numpy as np
import pytest

from camctrl_jax.errors import InvalidValue, MissingFile
from camctrl_jax.estimators import recipes
from camctrl_jax.estimators.colmap_models import read_colours
from camctrl_jax.estimators.process import Installation
from camctrl_jax.estimators.protocols import EstimatorFailed, MotionMasks, SfmStatus


@pytest.fixture
def place(tmp_path):
    """A function from files {name: text} of a repository to an Installation with a file of weights."""

    def make(files=(), weights=("weights.bin",), **settings):
        repository = tmp_path / "repository"
        repository.mkdir(exist_ok=True)
        for name, text in dict(files).items():
            (repository / name).parent.mkdir(parents=True, exist_ok=True)
            (repository / name).write_text(textwrap.dedent(text))
        paths = tuple(tmp_path / name for name in weights)
        for path in paths:
            path.write_bytes(b"weights")
        settings = {"time_limit": 120.0, "work_in": tmp_path / "work", "repository": repository} | settings
        return Installation(sys.executable, weights=paths, **settings)

    return make


# ------------------------------------------------------------------------------------ structure from motion


VGGSFM = """
    import sys, shutil
    from pathlib import Path
    settings = dict(word.split("=", 1) for word in sys.argv[1:])
    scene = Path(settings["SCENE_DIR"])
    assert Path(settings["resume_ckpt"]).read_bytes() == b"weights", settings
    assert settings["auto_download_ckpt"] == "False"
    images, masks = sorted((scene / "images").iterdir()), sorted((scene / "masks").glob("*"))
    assert not masks or [m.name for m in masks] == [i.name for i in images]
    shutil.copytree({model!r}, scene / "sparse")
"""


def test_vggsfm_takes_masks_under_the_same_names_and_gives_sparse_itself(place, clip, tmp_path):
    colmap_files.small_model(tmp_path / "model", left_out=(1,))
    sfm = recipes.vggsfm(place({"demo.py": VGGSFM.format(model=str(tmp_path / "model"))}))
    result = sfm.reconstruct(clip, np.zeros(clip.shape[:3], bool))
    assert result.status is SfmStatus.MODEL, result.message
    assert not result.succeeded
    colmap_files.check_small_model(result, left_out=(1,))
    colmap_files.check_small_model(sfm.reconstruct(clip), left_out=(1,))


def test_vggsfm_names_what_is_missing(place, clip):
    with pytest.raises(MissingFile, match=r"holds no demo\.py"):
        recipes.vggsfm(place()).reconstruct(clip)
    with pytest.raises(MissingFile, match=r"vggsfm_v2_0_0\.bin.*CC BY-NC 4\.0.*human reading"):
        recipes.vggsfm(place({"demo.py": ""}, weights=())).reconstruct(clip)
    with pytest.raises(MissingFile, match=r"video_demo\.py"):
        recipes.vggsfm(place({"demo.py": ""}), sliding_window=True).check()


def test_vggsfm_that_dies_is_a_failed_clip_with_its_traceback(place, clip):
    result = recipes.vggsfm(place({"demo.py": "raise RuntimeError('CUDA out of memory')"})).reconstruct(clip)
    assert (result.status, result.reason) == (SfmStatus.FAILED, "crashed")
    assert "CUDA out of memory" in result.message


VGGT_POINTS = """
    import shutil, sys
    from pathlib import Path
    options = dict(word.partition("=")[::2] for word in sys.argv[1:])
    assert "--use_ba" not in options, "thinned depth maps, not adjusted tracks"
    shutil.copytree({model!r}, Path(options["--scene_dir"]) / "sparse")
"""


def test_vggt_gives_the_points_of_its_model(place, clip, tmp_path):
    colmap_files.small_model(tmp_path / "model")
    found = recipes.vggt_points(
        place({"demo_colmap.py": VGGT_POINTS.format(model=str(tmp_path / "model"))})
    ).points(clip)
    points, colours = read_colours(tmp_path / "model")
    np.testing.assert_array_equal(found.points, points)
    np.testing.assert_array_equal(found.colours, colours)
    assert len(found.cameras) == len(clip)
    assert not found.metric
    with pytest.raises(EstimatorFailed, match="left no points"):
        recipes.vggt_points(
            place({"demo_colmap.py": "import sys, os; os.mkdir(sys.argv[1][12:] + '/sparse')"})
        ).points(clip)


VGGT = """
    import argparse, os, shutil
    from pathlib import Path
    parser = argparse.ArgumentParser()
    parser.add_argument("--scene_dir"); parser.add_argument("--use_ba", action="store_true")
    parser.add_argument("--shared_camera", action="store_true")
    options = parser.parse_args()
    assert options.use_ba and options.shared_camera
    assert Path(os.environ["TORCH_HOME"]).name == "weights.bin"
    from PIL import Image
    first = Image.open(Path(options.scene_dir) / "images" / "00000.png")
    assert first.getpixel((3, 2)) == (0, 0, 0), "masked pixels are painted black"
    shutil.copytree({model!r}, Path(options.scene_dir) / "sparse")
"""


def test_vggt_gets_painted_pictures_and_torch_home(place, clip, tmp_path):
    colmap_files.small_model(tmp_path / "model")
    masks = np.zeros(clip.shape[:3], bool)
    masks[0, 2, 3] = True
    sfm = recipes.vggt(place({"demo_colmap.py": VGGT.format(model=str(tmp_path / "model"))}))
    result = sfm.reconstruct(clip, masks)
    assert result.succeeded, result.message
    colmap_files.check_small_model(result)


MEGASAM = {
    "Depth-Anything/run_videos.py": """
        import sys; from pathlib import Path
        options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
        assert Path(options["--load-from"]).name == "anything.pth"
        Path(options["--outdir"]).mkdir(parents=True)
    """,
    "UniDepth/unidepth.py": "",
    "UniDepth/scripts/demo_mega-sam.py": """
        import sys; from pathlib import Path
        import unidepth  # PYTHONPATH
        options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
        (Path(options["--outdir"]) / options["--scene-name"]).mkdir(parents=True)
    """,
    "base/here": "",
    "outputs/other_droid.npz": "a result of somebody else",
    "camera_tracking_scripts/test_demo.py": """
        import argparse, numpy as np; from pathlib import Path
        parser = argparse.ArgumentParser()
        for name in ("datapath", "weights", "scene_name", "mono_depth_path", "metric_depth_path"):
            parser.add_argument("--" + name)
        parser.add_argument("--disable_vis", action="store_true")
        parser.add_argument("--opt_focal", action="store_true")
        options = parser.parse_args()
        assert (Path(options.mono_depth_path) / options.scene_name).is_dir()
        assert (Path(options.metric_depth_path) / options.scene_name).is_dir()
        assert Path("base/here").exists(), "it runs beside its code"
        count = len(list(Path(options.datapath).iterdir()))
        Path("outputs").mkdir(exist_ok=True)
        poses = np.tile(np.eye(4), (count, 1, 1)); poses[:, 2, 3] = range(count)
        np.savez(f"outputs/{options.scene_name}_droid.npz", images=np.zeros((count, 344, 560, 3), np.uint8),
                 depths=np.ones((count, 344, 560), np.float32), cam_c2w=poses.astype(np.float32),
                 intrinsic=np.array([[336.0, 0, 280], [0, 336.0, 175], [0, 0, 1]]))  # of 350 x 560
        motion = np.ones((count, 43, 70), np.float32); motion[1, :20] = 0.1  # 160 of 350 rows
        Path("reconstructions", options.scene_name).mkdir(parents=True)
        np.save(f"reconstructions/{options.scene_name}/motion_prob.npy", motion)
    """,
}


def test_megasam_runs_three_programs_beside_its_code_and_leaves_the_code_alone(place, clip):
    installation = place(MEGASAM, weights=("megasam.pth", "anything.pth"))
    result = recipes.megasam(installation).reconstruct(clip)
    assert result.succeeded, result.message
    np.testing.assert_allclose(result.cameras().positions[:, 2], [0, 1, 2])
    np.testing.assert_allclose(result.intrinsics[0], [0.6, 0.96, 0.5, 0.5])
    assert not result.metric
    assert len(result.points) == 0
    assert [p.name for p in (installation.repository / "outputs").iterdir()] == ["other_droid.npz"]
    with pytest.raises(InvalidValue, match="takes no masks"):
        recipes.megasam(installation).reconstruct(clip, np.zeros(clip.shape[:3], bool))


def test_megasam_masks_are_where_its_weights_are_low(place, clip):
    installation = place(MEGASAM, weights=("megasam.pth", "anything.pth"))
    moving = recipes.megasam_masks(installation).segment(clip, 12.0).moving
    assert moving.any(axis=(1, 2)).tolist() == [False, True, False]
    assert moving[1, :18].all()  # 18.3 of 40 rows
    assert not moving[1, 19:].any()


def test_megasam_with_other_poses_than_frames_is_a_bad_result(place, clip):
    files = dict(MEGASAM)
    files["camera_tracking_scripts/test_demo.py"] = files["camera_tracking_scripts/test_demo.py"].replace(
        "len(list(Path(options.datapath).iterdir()))", "2"
    )
    result = recipes.megasam(place(files, weights=("a.pth", "anything.pth"))).reconstruct(clip)
    assert (result.reason, "2 poses for 3 frames" in result.message) == ("bad_result", True)


# ------------------------------------------------------------------------ runners in the user's environment


TMO = """
    import torch
    import torchvision as tv
    class TMO(torch.nn.Module):
        def __init__(self{arguments}):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))
            assert tv.models.resnet101(pretrained=True) == "random"
        def forward(self, imgs, flows):
            assert torch.equal(imgs, flows) and imgs.shape[:3] == (1, 1, 3)
            return {{"masks": (imgs.mean(dim=2, keepdim=True) > 0.5).long()}}
"""


TORCHVISION_OF_TMO = """
    class models:
        def resnet101(pretrained=False, weights=None):
            assert not pretrained and weights is None, "that would be fetched"
            return "random"
"""


@pytest.mark.torch
@pytest.mark.parametrize("arguments", ["", ", ver, aos"])
def test_tmo_gets_pictures_as_flow_in_both_versions_of_its_class(place, clip, tmp_path, arguments):
    torch = pytest.importorskip("torch")
    files = {"tmo.py": TMO.format(arguments=arguments), "packages/torchvision.py": TORCHVISION_OF_TMO}
    packages = str(place(files).repository / "packages")
    installation = place(environment={"PYTHONPATH": packages})
    torch.save({"weight": torch.zeros(1)}, installation.weights[0])
    moving = recipes.tmo(installation).segment(clip, 12.0).moving
    mean = clip.astype(np.float64).mean(axis=-1) / 255.0
    away = np.abs(mean - 0.5) > 1e-6
    np.testing.assert_array_equal(moving[away], (mean > 0.5)[away])


SAM2 = {
    "packages/sam2/__init__.py": "",
    "packages/sam2/build_sam.py": """
        import torch
        from pathlib import Path
        class Predictor:
            def init_state(self, video_path):
                names = sorted(p.name for p in Path(video_path).iterdir())
                assert names == ["00000.jpg", "00001.jpg", "00002.jpg"]
                return {}
            def add_new_points_or_box(self, inference_state, frame_idx, obj_id, points, labels, box):
                inference_state[obj_id] = (frame_idx, box, points)
            def propagate_in_video(self, state, reverse=False):
                shown = state[1][0]
                for frame in range(shown, -1, -1) if reverse else range(shown, 3):
                    logits = torch.full((len(state), 1, 40, 64), -1.0)
                    for place, (_, box, points) in enumerate(state.values()):
                        x0, y0, x1, y1 = (int(v) for v in box)
                        assert x0 <= points[0, 0] <= x1 and y0 <= points[0, 1] <= y1
                        logits[place, 0, y0 : y1 + 1, x0 : x1 + 1] = 1.0
                    yield frame, list(state), logits
        def build_sam2_video_predictor(config, weights, device):
            assert config == "configs/some.yaml" and open(weights, "rb").read() == b"weights"
            return Predictor()
    """,
}


class Rough:
    """Two squares in the second frame, one pixel of noise, and less in the first."""

    def segment(self, frames, fps):
        moving = np.zeros(frames.shape[:3], bool)
        moving[1, 5:10, 5:15] = moving[1, 20:30, 40:50] = moving[1, 0, 63] = True
        moving[0, 5:8, 5:8] = True
        return MotionMasks(moving)

    def fingerprint(self):
        from camctrl_jax.estimators import Fingerprint

        return Fingerprint("rough", "1")


@pytest.mark.torch
def test_sam2_is_shown_the_parts_of_the_frame_where_most_moves(place, clip):
    pytest.importorskip("torch")
    installation = place(SAM2)
    packages = str(installation.repository / "packages")
    installation = place(environment={"PYTHONPATH": packages})
    moving = (
        recipes.sam2(installation, prompts=Rough(), config="configs/some.yaml").segment(clip, 12.0).moving
    )
    expected = np.zeros((40, 64), bool)
    expected[5:10, 5:15] = expected[20:30, 40:50] = True
    for frame in moving:
        np.testing.assert_array_equal(frame, expected)


RAFT = {
    "core/raft.py": """
        import torch
        class RAFT(torch.nn.Module):
            def __init__(self, args):
                super().__init__()
                assert args.small is False
                self.gain = torch.nn.Parameter(torch.zeros(1))
            def forward(self, a, b, iters, test_mode):
                assert a.shape[-1] % 8 == 0 and a.shape[-2] % 8 == 0 and iters == 20 and test_mode
                return None, (b - a)[:, :2] * self.gain
    """,
    "core/utils/__init__.py": "",
    "core/utils/utils.py": """
        import torch.nn.functional as F
        class InputPadder:
            def __init__(self, shape):
                self.height, self.width = shape[-2:]
            def pad(self, *pictures):
                more = (0, -self.width % 8, 0, -self.height % 8)
                return [F.pad(picture, more, mode="replicate") for picture in pictures]
            def unpad(self, x):
                return x[..., : self.height, : self.width]
    """,
}


@pytest.mark.torch
def test_raft_loads_weights_of_dataparallel_and_keeps_the_size(place, clip):
    torch = pytest.importorskip("torch")
    installation = place(RAFT)
    torch.save({"module.gain": torch.full((1,), 2.0)}, installation.weights[0])
    clip = clip[:, :37, :61]
    flow = recipes.raft(installation).flow(clip[:-1], clip[1:])
    np.testing.assert_array_equal(flow, 2.0 * (clip[1:].astype(float) - clip[:-1])[..., :2])


TORCHVISION = {
    "packages/torchvision/__init__.py": "",
    "packages/torchvision/models/__init__.py": "",
    "packages/torchvision/models/optical_flow.py": """
        import torch
        class Model(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.gain = torch.nn.Parameter(torch.zeros(1))
            def forward(self, a, b, num_flow_updates):
                assert num_flow_updates == 12 and min(a.shape[-2:]) >= 128 and a.abs().max() <= 1
                assert a.shape[-1] % 8 == 0 and a.shape[-2] % 8 == 0
                return [None, (b - a)[:, :2] * self.gain]
        def raft_large(weights, progress):
            assert weights is None
            return Model()
        raft_small = raft_large
    """,
}


@pytest.mark.torch
def test_torchvision_raft_pads_small_pictures_and_takes_the_last_flow(place, clip):
    torch = pytest.importorskip("torch")
    packages = str(place(TORCHVISION).repository / "packages")
    installation = place(environment={"PYTHONPATH": packages})
    torch.save({"gain": torch.full((1,), 127.5)}, installation.weights[0])
    flow = recipes.raft_torchvision(installation, size="small").flow(clip[:-1], clip[1:])
    np.testing.assert_allclose(flow, (clip[1:].astype(float) - clip[:-1])[..., :2], atol=1e-4)
    with pytest.raises(InvalidValue, match="'large' or 'small'"):
        recipes.raft_torchvision(installation, size="huge")


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.parametrize("size", ["small", "large"])
def test_torchvision_raft_of_random_weights_gives_what_the_class_gives(place, clip, size):
    torch = pytest.importorskip("torch")
    optical_flow = pytest.importorskip(
        "torchvision.models.optical_flow", reason="torchvision is not installed"
    )
    torch.manual_seed(0)
    model = getattr(optical_flow, f"raft_{size}")(weights=None, progress=False).eval()
    installation = place()
    torch.save(model.state_dict(), installation.weights[0])
    frames = np.tile(clip, (1, 4, 2, 1))[:, :136, :128]  # multiples of 8, large enough: no padding
    flow = recipes.raft_torchvision(installation, size=size, iterations=2).flow(frames[:1], frames[1:2])
    pictures = torch.tensor(frames[:2] / 127.5 - 1.0, dtype=torch.float32).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = model(pictures[:1], pictures[1:], num_flow_updates=2)[-1].permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(flow, expected, atol=1e-3)
    assert np.abs(expected).max() > 0.01
    padded = recipes.raft_torchvision(installation, size=size, iterations=2).flow(clip[:1], clip[1:2])
    assert padded.shape == (1, 40, 64, 2)


DEPTH_PRO = {
    "packages/depth_pro/__init__.py": """
        import torch
        class Model:
            def eval(self): pass
            def infer(self, x, f_px=None):
                height, width = x.shape[-2:]
                focal = torch.tensor(50.0) if f_px is None else f_px
                return {"depth": torch.full((height, width), 1.0) * focal / width, "focallength_px": focal}
        def create_model_and_transforms(config, device):
            assert open(config.checkpoint_uri, "rb").read() == b"weights"
            return Model(), lambda picture: torch.from_numpy(picture).permute(2, 0, 1)
    """,
    "packages/depth_pro/depth_pro.py": """
        import dataclasses
        @dataclasses.dataclass
        class Config:
            checkpoint_uri: str = "elsewhere"
        DEFAULT_MONODEPTH_CONFIG_DICT = Config()
    """,
}


@pytest.mark.torch
def test_depth_pro_uses_the_focal_length_that_is_known_and_tells_the_one_it_guessed(place, clip):
    pytest.importorskip("torch")
    packages = str(place(DEPTH_PRO).repository / "packages")
    depth = recipes.depth_pro(place(environment={"PYTHONPATH": packages}))
    known = depth.depth(clip, np.array([[0.5, 0.8, 0.5, 0.5], [0.75, 1.2, 0.5, 0.5], [1.0, 1.6, 0.5, 0.5]]))
    np.testing.assert_allclose(known.depth[:, 0, 0], [0.5, 0.75, 1.0])
    guessed = depth.depth(clip)
    np.testing.assert_allclose(guessed.depth, 50.0 / 64)
    np.testing.assert_allclose(guessed.intrinsics, [[50 / 64, 50 / 40, 0.5, 0.5]] * 3)


@pytest.mark.slow
@pytest.mark.torch
def test_clip_of_random_weights_gives_what_the_class_gives(place, clip, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32,
        patch_size=8, projection_dim=8,
    )  # fmt: skip
    model = transformers.CLIPVisionModelWithProjection(config).eval()
    folder = tmp_path / "tiny-clip"
    model.save_pretrained(folder)
    square = np.ascontiguousarray(clip[:, :32, :32])  # of its own size: no resizing, no cropping
    installation = Installation(sys.executable, weights=folder, work_in=tmp_path / "work")
    embeddings = recipes.clip(installation).embed(square)
    mean, spread = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    pixels = torch.tensor((square / 255.0 - mean) / spread, dtype=torch.float32).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = torch.nn.functional.normalize(model(pixel_values=pixels).image_embeds, dim=1).numpy()
    np.testing.assert_allclose(embeddings, expected, atol=1e-5)
    assert recipes.clip(installation).embed(clip).shape == (3, 8)


@pytest.mark.slow
@pytest.mark.torch
def test_depth_pro_of_transformers_scales_by_the_true_focal_length(clip, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    part = {"model_type": "dinov2", "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2}
    part |= {"patch_size": 2, "image_size": 16, "mlp_ratio": 1, "use_mask_token": False}
    config = transformers.DepthProConfig(
        fusion_hidden_size=16, patch_size=16, intermediate_hook_ids=[2, 1], intermediate_feature_dims=[8, 8],
        scaled_images_ratios=[0.5, 1.0], scaled_images_overlap_ratios=[0.0, 0.2], num_fov_head_layers=0,
        scaled_images_feature_dims=[8, 8], use_fov_model=True, patch_model_config=part,
        image_model_config=part, fov_model_config=part,
    )  # fmt: skip
    model = transformers.DepthProForDepthEstimation(config).eval()
    with torch.no_grad():  # something else than 0 everywhere
        for weights in model.head.parameters():
            weights.abs_()
    folder = tmp_path / "tiny-depth-pro"
    model.save_pretrained(folder)
    installation = Installation(sys.executable, weights=folder, work_in=tmp_path / "work")
    depth = recipes.depth_pro_transformers(installation)
    near = depth.depth(clip, np.array([0.5, 0.8, 0.5, 0.5])).depth
    far = depth.depth(clip, np.array([1.0, 1.6, 0.5, 0.5])).depth
    seen = (near > 1e-4) & (far < 1e4)
    assert seen.mean() > 0.5
    np.testing.assert_allclose(far[seen], 2.0 * near[seen], rtol=1e-4)
    pixels = torch.tensor(clip[:1] / 127.5 - 1.0, dtype=torch.float32).permute(0, 3, 1, 2)
    resize = torch.nn.functional.interpolate
    with torch.no_grad():
        found = model(pixel_values=resize(pixels, (32, 32), mode="bilinear")).predicted_depth
        inverse = resize(found[:, None] / 0.5, (40, 64), mode="bilinear")[0, 0]
    np.testing.assert_allclose(near[0], 1.0 / inverse.clamp(1e-4, 1e4), rtol=1e-3)
    # What the library itself makes of the picture and of the output, from its own field of view.
    try:
        processor = transformers.DepthProImageProcessor(size={"height": 32, "width": 32})
    except ImportError:  # it needs torchvision
        return
    inputs = processor(images=list(clip[:1]), return_tensors="pt")
    with torch.no_grad():
        theirs = processor.post_process_depth_estimation(model(**inputs), target_sizes=[(40, 64)])[0]
    ours = depth.depth(clip[:1])
    np.testing.assert_allclose(ours.depth[0], theirs["predicted_depth"].numpy(), rtol=1e-3)
    assert ours.intrinsics[0, 0] * 64 == pytest.approx(float(theirs["focal_length"]), rel=1e-4)


def test_every_recipe_says_what_it_needs_and_asks_for_a_reading_of_its_licence(place):
    installation = place(weights=())
    made = [
        recipes.tmo(installation),
        recipes.sam2(installation, prompts=Rough(), config="c"),
        recipes.vggsfm(installation),
        recipes.vggt(installation),
        recipes.megasam(installation),
        recipes.megasam_masks(installation),
        recipes.depth_pro(installation),
        recipes.depth_pro_transformers(installation),
        recipes.raft(installation),
        recipes.raft_torchvision(installation),
        recipes.clip(installation),
        recipes.vggt_points(installation),
    ]
    assert len(made) == len(recipes.__all__)
    for adapter in made:
        assert "needs a human reading" in adapter.program.licence
        assert adapter.program.weight_names
        with pytest.raises(MissingFile):
            adapter.check()


@pytest.mark.parametrize(
    ("ends", "reason", "limit"),
    [("import time; time.sleep(1000)", "timeout", 4.0), ("raise SystemExit('cut off')", "crashed", 30.0)],
)
def test_a_repository_that_hangs_or_dies_inside_a_runner(place, clip, ends, reason, limit):
    """Neither torch nor torchvision is asked for anything before the repository is imported."""
    files = {
        "tmo.py": f"print('the repository', flush=True); {ends}",
        "packages/torch.py": "",
        "packages/torchvision.py": "class models: resnet101 = None",
    }
    packages = str(place(files).repository / "packages")
    installation = place(environment={"PYTHONPATH": packages}, time_limit=limit)
    with pytest.raises(EstimatorFailed) as failure:
        recipes.tmo(installation).segment(clip, 12.0)
    assert failure.value.reason == reason
    assert "the repository" in failure.value.log_tail
