"""Readers and writers against libraries that others wrote: evo and pycolmap."""

from __future__ import annotations

import numpy as np
import pytest
from published import PUBLISHED

from camctrl_jax.camera import load_cameras, preset, save_cameras

TUM = [published.path for published in PUBLISHED if published.format == "tum"]
SIZE = (48, 80)


@pytest.mark.parametrize("name", TUM)
def test_tum_files_read_as_evo_reads_them(test_data, name):
    file_interface = pytest.importorskip("evo.tools.file_interface", reason="needs the eval extra")
    trajectory = file_interface.read_tum_trajectory_file(str(test_data(name)))
    cameras = load_cameras(test_data(name))
    # evo keeps quaternions of four digits as they are, not of unit length; so do its matrices.
    np.testing.assert_allclose(cameras.world_from_camera, np.array(trajectory.poses_se3), atol=3e-4)
    np.testing.assert_allclose(cameras.positions, trajectory.positions_xyz)
    np.testing.assert_allclose(cameras.times, trajectory.timestamps)
    assert cameras.path_length == pytest.approx(trajectory.path_length)


def test_evo_reads_what_we_write(tmp_path):
    file_interface = pytest.importorskip("evo.tools.file_interface", reason="needs the eval extra")
    path = preset("spiral_in", 33).transformed(preset("look_up", 2).world_from_camera[1])
    save_cameras(path, tmp_path / "path.txt", "tum")
    trajectory = file_interface.read_tum_trajectory_file(str(tmp_path / "path.txt"))
    np.testing.assert_allclose(np.array(trajectory.poses_se3), path.world_from_camera, atol=1e-12)
    np.testing.assert_allclose(trajectory.timestamps, path.times)


def test_paired_trajectories_agree_with_those_evo_associated(test_data):
    # TartanAir through evo's own matrices: the same path up to the naming of axes.
    pytest.importorskip("evo", reason="needs the eval extra")
    from evo.core.trajectory import PosePath3D

    values = np.loadtxt(test_data("tartanair/pose_gt.txt"))
    theirs = PosePath3D(positions_xyz=values[:, :3], orientations_quat_wxyz=values[:, [6, 3, 4, 5]])
    ours = load_cameras(test_data("tartanair/pose_gt.txt"))
    np.testing.assert_allclose(ours.positions, values[:, [1, 2, 0]], atol=1e-12)
    forward = np.array(theirs.poses_se3)[:, :3, 0]  # NED's x axis is the line of sight
    np.testing.assert_allclose(ours.rotations[:, :, 2], forward[:, [1, 2, 0]], atol=1e-6)
    assert ours.path_length == pytest.approx(theirs.path_length)


@pytest.mark.parametrize("name", ["colmap", "colmap_text"])
@pytest.mark.parametrize("zoom", [False, True], ids=["one camera", "a camera per frame"])
def test_pycolmap_reads_what_we_write(tmp_path, name, zoom):
    pycolmap = pytest.importorskip("pycolmap", reason="needs the data extra")
    path = preset("dolly_zoom_in" if zoom else "orbit_left", 7)
    save_cameras(path, tmp_path, name, image_size=SIZE)
    model = pycolmap.Reconstruction(str(tmp_path))
    images = sorted(model.images.values(), key=lambda image: image.name)
    assert len(images) == len(path)
    assert len(model.cameras) == (7 if zoom else 1)
    for image, extrinsic, intrinsics in zip(images, path.camera_from_world, path.intrinsics):
        np.testing.assert_allclose(image.cam_from_world().matrix(), extrinsic[:3], atol=1e-12)
        camera = model.cameras[image.camera_id]
        height, width = SIZE
        np.testing.assert_allclose(camera.params, intrinsics * (width, height, width, height))
        assert (camera.height, camera.width) == SIZE


@pytest.mark.parametrize("text", [False, True], ids=["binary", "text"])
@pytest.mark.parametrize(
    "model_name", ["SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV"]
)
def test_models_written_by_pycolmap(tmp_path, text, model_name):
    pycolmap = pytest.importorskip("pycolmap", reason="needs the data extra")
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs = 1
    options.num_cameras_per_rig = 1
    options.num_frames_per_rig = 6
    options.num_points3D = 20
    options.camera_model_id = getattr(pycolmap.CameraModelId, model_name)
    options.camera_params = {
        "SIMPLE_PINHOLE": [500, 520, 390],
        "PINHOLE": [500, 510, 520, 390],
        "SIMPLE_RADIAL": [500, 520, 390, 0.05],
        "RADIAL": [500, 520, 390, 0.05, 0.01],
        "OPENCV": [500, 510, 520, 390, 0.05, 0.01, 0, 0],
        "FULL_OPENCV": [500, 510, 520, 390, 0.05, 0.01, 0, 0, 0, 0, 0, 0],
    }[model_name]
    model = pycolmap.synthesize_dataset(options)
    folder = tmp_path / "sparse" / "0"
    folder.mkdir(parents=True)
    (model.write_text if text else model.write_binary)(str(folder))
    cameras = load_cameras(tmp_path)
    images = sorted(model.images.values(), key=lambda image: image.name)
    assert len(cameras) == len(images) == 6
    for image, extrinsic, intrinsics in zip(images, cameras.camera_from_world, cameras.intrinsics):
        np.testing.assert_allclose(extrinsic[:3], image.cam_from_world().matrix(), atol=1e-9)
        camera = model.cameras[image.camera_id]
        matrix = camera.calibration_matrix()
        expected = (matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2])
        size = (camera.width, camera.height, camera.width, camera.height)
        np.testing.assert_allclose(intrinsics * size, expected)
