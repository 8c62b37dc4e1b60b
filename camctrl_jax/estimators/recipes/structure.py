"""Structure from motion: VGGSfM 2.0, VGGT, MegaSaM."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from camctrl_jax.camera.cameras import CameraError, Cameras
from camctrl_jax.errors import InvalidValue
from camctrl_jax.estimators.process import Installation, Program, owed_file
from camctrl_jax.estimators.programs import ProgramMasks, ProgramPoints, ProgramSfm
from camctrl_jax.estimators.protocols import EstimatorFailed, SfmResult
from camctrl_jax.estimators.recipes.runner import READING, runner


def vggsfm(
    installation: Installation, *, sliding_window: bool = False, options: tuple[str, ...] = ()
) -> ProgramSfm:
    """VGGSfM 2.0, the structure from motion of the paper's appendix (github.com/facebookresearch/vggsfm,
    v2.0.0).

    Its environment: Python 3.10, torch 2.1, pycolmap 3.10.0, pyceres 2.3, CUDA; at most about 400 frames.
    Masks are images/ -> masks/ under the same name, set where pixels are to be ignored. Its model lies in
    sparse/ itself. It leaves frames out that it finds invalid; intrinsics cannot be given to it. Beside its
    own weights it loads DINOv2 and a keypoint extractor by torch.hub: have them in TORCH_HOME. The working
    folder must not lie below a folder called images, which it takes for its own.

    Args:
        sliding_window: its video_demo.py instead of demo.py, for long clips; one SIMPLE_RADIAL camera.
        options: more of its settings, "name=value" each.
    """
    script = "video_demo.py" if sliding_window else "demo.py"
    command = ("{python}", script, "SCENE_DIR={work}", "resume_ckpt={weights}", "auto_download_ckpt=False")
    if not sliding_window:
        command += ("shared_camera=True",)
    return ProgramSfm(
        Program(
            "VGGSfM",
            ((*command, *options),),
            installation,
            version="2.0.0",
            needs=(script,),
            weight_names=("vggsfm_v2_0_0.bin",),
            licence=f"Code and weights CC BY-NC 4.0: not for commercial use. {READING}",
        ),
        model="sparse",
        ignored=255,
    )


def vggt(
    installation: Installation, *, bundle_adjustment: bool = True, options: tuple[str, ...] = ()
) -> ProgramSfm:
    """VGGT by its demo_colmap.py (github.com/facebookresearch/vggt), which writes sparse/*.bin.

    Its script takes no masks: ignored pixels are painted black, as its README advises. Nor does it take
    weights on its command line: it asks torch.hub for model.pt. The recipe points TORCH_HOME at a folder with
    ``hub/checkpoints/model.pt``: give that folder as the weights. Bundle adjustment looks there for more, and
    fetches what is missing: the tracker of VGGSfM (``vggsfm_v2_tracker.pt``), DINOv2 (its code too, in
    ``hub/facebookresearch_dinov2_main``), ALIKED and SuperPoint; it needs the package ``lightglue``. Without
    bundle adjustment each frame has a lens of its own.
    """
    program = _vggt_program(installation, bundle_adjustment=bundle_adjustment, options=options)
    return ProgramSfm(program, takes_masks=False, paint=0)


def vggt_points(installation: Installation, *, options: tuple[str, ...] = ()) -> ProgramPoints:
    """The points of the same script without bundle adjustment: depth maps put into the world, thinned to
    100 000.

    In its own world and unit; given cameras are not used. The confidence of a point is not in its files.
    """
    program = _vggt_program(installation, bundle_adjustment=False, options=options)
    return ProgramPoints(program, model="sparse")


def _vggt_program(
    installation: Installation, *, bundle_adjustment: bool, options: tuple[str, ...]
) -> Program:
    command = ("{python}", "demo_colmap.py", "--scene_dir={work}", "--shared_camera")
    command += ("--use_ba",) if bundle_adjustment else ()
    return Program(
        "VGGT",
        ((*command, *options),),
        installation,
        needs=("demo_colmap.py",),
        environment=(("TORCH_HOME", "{weights}"),),
        weight_names=("a folder with hub/checkpoints/model.pt",),
        licence="Code: commercial use allowed but for the military; VGGT-1B: non-commercial; a "
        f"commercial checkpoint is gated. {READING}",
    )


_MEGASAM_LICENCE = (
    "Apache-2.0; the UniDepth that it brings is CC BY-NC 4.0; Depth Anything and RAFT have their own. "
    + READING
)
_SCENE = "clip"


def _megasam_program(installation: Installation, *, optimise_focal: bool) -> Program:
    depth = ("{python}", "Depth-Anything/run_videos.py", "--encoder", "vitl", "--load-from", "{weights1}")
    depth += ("--img-path", "{images}", "--outdir", "{work}/depth_anything/" + _SCENE, "--localhub")
    metric = (
        "{python}",
        "UniDepth/scripts/demo_mega-sam.py",
        "--scene-name",
        _SCENE,
        "--img-path",
        "{images}",
    )
    metric += ("--outdir", "{work}/unidepth")
    track = ("{python}", "camera_tracking_scripts/test_demo.py", "--datapath={images}", "--weights={weights}")
    track += ("--scene_name", _SCENE, "--mono_depth_path", "{work}/depth_anything")
    track += ("--metric_depth_path", "{work}/unidepth", "--disable_vis")
    track += ("--opt_focal",) if optimise_focal else ()
    return Program(
        "MegaSaM",
        (depth, metric, track),
        installation,
        needs=(depth[1], metric[1], track[1]),
        weight_names=("megasam_final.pth", "depth_anything_vitl14.pth"),
        licence=_MEGASAM_LICENCE,
        environment=(("PYTHONPATH", "{repository}/UniDepth"),),
        linked_but=("outputs", "reconstructions"),  # it writes these where it runs
    )


def megasam(installation: Installation, *, optimise_focal: bool = True) -> ProgramSfm:
    """MegaSaM (github.com/mega-sam/mega-sam): depth by Depth Anything and UniDepth, then camera tracking.

    Its environment: Python 3.10, torch 2.0.1, CUDA 11.8, xformers, its compiled extensions. It takes no masks
    (it finds motion itself: :func:`megasam_masks`) and gives poses without points; consistent depth is not
    run. Its UniDepth asks the hub of Hugging Face for weights: have them in its cache (HF_HOME).

    Args:
        optimise_focal: pass ``--opt_focal``, which its first version (March 2025) does not know: it always
            optimises, and needs False.
    """
    program = _megasam_program(installation, optimise_focal=optimise_focal)
    return ProgramSfm(program, takes_masks=False, paint=None, read=read_megasam)


def read_megasam(work: Path, names: list[str], size: tuple[int, int], seconds: float) -> SfmResult:
    """Poses of ``outputs/clip_droid.npz``: cam_c2w [T, 4, 4], intrinsic [3, 3] in pixels of its working size.

    Its ``images`` are that size cut to multiples of 8 at the right and below, which moves no pixel.
    """
    path = owed_file(work, work / "outputs" / f"{_SCENE}_droid.npz", "MegaSaM")
    try:
        with np.load(path, allow_pickle=False) as archive:
            poses, lens = archive["cam_c2w"].astype(np.float64), archive["intrinsic"].astype(np.float64)
            height, width = archive["images"].shape[1:3]
    except Exception as error:  # NumPy raises many kinds on damaged files
        raise EstimatorFailed("bad_result", f"MegaSaM: {path.name}: {error}") from error
    shape = tuple(int(side * np.sqrt(384 * 512 / (size[0] * size[1]))) for side in size)
    if (height, width) == tuple(side - side % 8 for side in shape):
        height, width = shape
    if len(poses) != len(names):
        raise EstimatorFailed("bad_result", f"MegaSaM: {len(poses)} poses for {len(names)} frames.")
    fractions = np.array([lens[0, 0] / width, lens[1, 1] / height, lens[0, 2] / width, lens[1, 2] / height])
    try:
        cameras = Cameras(poses, fractions).orthonormalised().validate("MegaSaM")
    except (CameraError, np.linalg.LinAlgError) as error:
        raise EstimatorFailed("bad_result", str(error)) from error
    return replace(SfmResult.of_cameras(cameras), seconds=seconds)


def megasam_masks(
    installation: Installation, *, threshold: float = 0.5, optimise_focal: bool = True
) -> ProgramMasks:
    """The same, for its motion masks: ``motion_prob.npy`` at an eighth of its size, enlarged.

    Args:
        threshold: its value is the weight that bundle adjustment gives a pixel: low where things move. Below
            this, a pixel counts as moving.
    """
    if not 0 < threshold < 1:
        raise InvalidValue(f"threshold is {threshold}; expected a number between 0 and 1.")
    program = _megasam_program(installation, optimise_focal=optimise_focal)
    convert = ("{python}", runner("megasam_masks"), "{work}/reconstructions/" + _SCENE + "/motion_prob.npy")
    convert += ("--images", "{images}", "--out", "{out}", "--threshold", str(threshold))
    return ProgramMasks(program.with_commands(*program.commands, convert))
