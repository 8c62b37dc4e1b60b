"""Sparse points with known cameras: on the surface, poses untouched, in a model that pycolmap reads."""

import numpy as np
import pytest
from textured_plane import NORMAL, OFFSET, plane_video, truck

from camctrl_jax.errors import InvalidValue
from camctrl_jax.estimators.colmap import Colmap
from camctrl_jax.estimators.protocols import EstimatorFailed
from camctrl_jax.estimators.triangulation import Triangulation
from camctrl_jax.reconstruction.scenes import sparse_scene, write_scene

pycolmap = pytest.importorskip("pycolmap", reason="absent; pip install 'camctrl_jax[eval]'")
SIZE = (96, 160)
QUICK = Triangulation(Colmap(enlarge_to=320))


def test_points_lie_on_the_plane_and_poses_stay(tmp_path):
    cameras = truck(4, length=1.0)
    frames, _ = plane_video(cameras, SIZE)
    scene = sparse_scene(frames, cameras, triangulation=QUICK)
    off = np.abs(scene.cloud.points @ NORMAL - OFFSET) / abs(OFFSET)
    assert len(off) >= 20
    assert np.median(off) < 0.01
    np.testing.assert_allclose(scene.model.camera_from_world, cameras.camera_from_world[:, :3], atol=1e-9)
    np.testing.assert_allclose(scene.model.intrinsics, cameras.intrinsics, atol=1e-9)
    assert scene.cloud.metric

    write_scene(tmp_path, scene, ("colmap",))
    model = pycolmap.Reconstruction(str(tmp_path / "sparse" / "0"))
    assert model.num_points3D() == len(off)
    assert model.compute_mean_track_length() == pytest.approx(scene.facts["mean_track_length"], abs=0.01)
    model.update_point_3d_errors()  # by COLMAP's own projection: observations belong to points and cameras
    assert np.median([point.error for point in model.points3D.values()]) < 0.7
    assert model.num_reg_images() == 4


def test_masked_pictures_give_no_points():
    cameras = truck(3, length=1.0)
    frames, _ = plane_video(cameras, SIZE)
    with pytest.raises(EstimatorFailed, match="found no points"):
        QUICK.reconstruct(frames, cameras, np.ones(frames.shape[:3], bool))
    with pytest.raises(InvalidValue, match="2 poses for 3 frames"):
        QUICK.reconstruct(frames, cameras[:2])
