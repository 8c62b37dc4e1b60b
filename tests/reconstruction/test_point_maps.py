"""Depth and point maps of a user's estimator, brought into the world of known cameras."""

import numpy as np
import pytest
from textured_plane import NORMAL, OFFSET, plane_video, truck

from camctrl_jax.errors import InvalidValue, MissingFile
from camctrl_jax.estimators.imported import ImportedPointMaps
from camctrl_jax.estimators.protocols import EstimatorFailed, Fingerprint, PointMapper, PointMaps
from camctrl_jax.reconstruction.fusion import unprojected
from camctrl_jax.reconstruction.point_maps import depth_of_point_maps, similarity
from camctrl_jax.reconstruction.scenes import scene_of_maps

SIZE = (24, 40)


@pytest.fixture(scope="module")
def clip():
    cameras = truck(5)
    return (cameras, *plane_video(cameras, SIZE))


def in_another_world(cameras, scale):
    """The same path in a world that is turned, moved and scaled."""
    angle = np.radians(70.0)
    other = np.eye(4)
    other[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    other[:3, 3] = 4.0, -2.0, 7.0
    return cameras.scaled(scale).transformed(other)


class Fake:
    """An estimator whose maps are what it was made with."""

    def __init__(self, **maps):
        self.given = PointMaps(**maps)

    def maps(self, frames, cameras):
        return self.given

    def fingerprint(self):
        return Fingerprint("fake", "1")


def off_plane(scene):
    return np.abs(scene.cloud.points @ NORMAL - OFFSET).max()


def test_depth_of_a_scale_of_its_own_comes_out_in_the_given_one(clip):
    cameras, frames, depth = clip
    mapper = Fake(depth=0.3 * depth, cameras=in_another_world(cameras, 0.3))
    assert isinstance(mapper, PointMapper)
    scene = scene_of_maps(frames, cameras, mapper)
    assert off_plane(scene) < 0.02
    assert scene.cloud.metric
    assert scene.facts["coverage"] == 1.0


def test_points_of_a_world_of_their_own_come_out_in_the_given_one(clip):
    cameras, frames, depth = clip
    theirs = in_another_world(cameras, 2.5)
    points = np.stack(
        [
            unprojected(2.5 * one, pose, lens).reshape(*SIZE, 3)
            for one, pose, lens in zip(depth, theirs.world_from_camera, theirs.intrinsics)
        ]
    )
    assert off_plane(scene_of_maps(frames, cameras, Fake(points=points, cameras=theirs))) < 0.02
    found = depth_of_point_maps(PointMaps(points=points, cameras=theirs), cameras, SIZE)
    np.testing.assert_allclose(found, depth, rtol=1e-5)


def test_similarity_of_a_straight_path_is_exact(clip):
    cameras = clip[0]
    scale, rotation, shift = similarity(in_another_world(cameras, 0.2), cameras)
    assert scale == pytest.approx(5.0)
    theirs = in_another_world(cameras, 0.2).positions
    np.testing.assert_allclose(scale * theirs @ rotation.T + shift, cameras.positions, atol=1e-9)


def test_what_is_unsure_or_masked_is_left_out(clip):
    cameras, frames, depth = clip
    confidence = np.ones(depth.shape)
    confidence[:, :12] = np.linspace(0, 0.5, 12)[:, None]
    masks = np.zeros(depth.shape, bool)
    masks[:, 18:] = True
    mapper = Fake(depth=depth, confidence=confidence, metric=True)
    scene = scene_of_maps(frames, cameras, mapper, masks, keep=2 / 3)
    known = np.isfinite(scene.depth)
    assert known[:, 12:18].all()
    assert not known[:, 18:].any()
    assert not known[:, :6].any()


def test_confidence_that_is_nan_is_no_confidence(clip):
    cameras, frames, depth = clip
    confidence = np.ones(depth.shape)
    confidence[:, :4] = np.nan
    scene = scene_of_maps(frames, cameras, Fake(depth=depth, confidence=confidence, metric=True))
    assert not np.isfinite(scene.depth[:, :4]).any()
    assert np.isfinite(scene.depth[:, 4:]).all()


@pytest.mark.parametrize(
    ("maps", "error", "words"),
    [
        ({"depth": np.ones((5, 24, 40))}, InvalidValue, "scale is unknown"),
        ({"depth": np.ones((5, 24, 41)), "metric": True}, EstimatorFailed, r"expected \[5, 24, 40\]"),
        ({}, EstimatorFailed, "either depth or points"),
        ({"points": np.full((5, 24, 40, 3), np.nan)}, EstimatorFailed, "no point"),
        (
            {"depth": np.ones((5, 24, 40)), "cameras": truck(5, length=0.0)},
            InvalidValue,
            "do not move",
        ),
    ],
)  # fmt: skip
def test_maps_that_cannot_be_placed_are_refused(clip, maps, error, words):
    cameras, frames, _ = clip
    with pytest.raises(error, match=words):
        scene_of_maps(frames, cameras, Fake(**maps))


def test_maps_in_files(clip, tmp_path):
    cameras, frames, depth = clip
    theirs = in_another_world(cameras, 0.3)
    np.save(tmp_path / "depth.npy", (0.3 * depth).astype(np.float32))
    np.save(tmp_path / "world_from_camera.npy", theirs.world_from_camera)
    mapper = ImportedPointMaps(tmp_path)
    assert off_plane(scene_of_maps(frames, cameras, mapper)) < 0.02
    first = mapper.fingerprint()
    np.save(tmp_path / "confidence.npy", np.ones(depth.shape))
    assert mapper.fingerprint() != first
    np.save(tmp_path / "confidence.npy", np.ones(3))
    with pytest.raises(InvalidValue, match=r"confidence\.npy"):
        mapper.maps(frames, cameras)
    with pytest.raises(MissingFile, match=r"points\.npy"):
        ImportedPointMaps(tmp_path.parent).maps(frames, cameras)
