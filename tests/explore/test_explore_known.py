"""What a path is warned of, and the true render of any clip, from what is known of a world."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree

pytest.importorskip("msgspec", reason="part of the explore extra")

from camctrl_jax.camera import Cameras, resolve_path
from camctrl_jax.estimators.protocols import PointCloud
from camctrl_jax.explore.known_world import CLOSE, KnownWorld, warnings_of_points
from camctrl_jax.explore.paths import Place, asked_path
from camctrl_jax.explore.problems import Refusal
from camctrl_jax.explore.schema import CamerasRequest, PathFields, PoseFileRequest
from camctrl_jax.reconstruction.ply import read_points, write_ply
from camctrl_jax.worlds import WorldsConfig, sample_world

KNOWN = KnownWorld(sample_world(1000003, WorldsConfig(frames=9)))
LENS = KNOWN.world.cameras.intrinsics[0]


def own_path():
    return KNOWN.world.cameras.relative_to(0)


def straight_to(point, poses=9):
    """Cameras that go from the first one to a point of the world, in the frame of the exploration."""
    local = np.linalg.inv(KNOWN.world.cameras.world_from_camera[0]) @ [*point, 1.0]
    path = np.tile(np.eye(4), (poses, 1, 1))
    path[:, :3, 3] = np.linspace(0, 1, poses)[:, None] * local[:3]
    return Cameras(path, LENS, metric=True)


def test_the_path_of_a_world_is_clear_and_stays_that_of_the_world():
    assert KNOWN.warnings(own_path(), 0) == []
    seen = KNOWN.along(own_path(), 0)
    np.testing.assert_allclose(
        seen.cameras.world_from_camera, KNOWN.world.cameras.world_from_camera, atol=1e-9
    )
    np.testing.assert_array_equal(seen.scene.position, KNOWN.world.scene.position)


def test_a_path_into_a_thing_is_warned_of_by_its_name_and_frame():
    thing = KNOWN.world.objects[0]
    centre = KNOWN.world.scene.position[8, thing.slot]
    (warning,) = KNOWN.warnings(straight_to(centre), 0)
    assert warning["type"] == "geometry"
    assert KNOWN.world.instance_names[thing.instance] in warning["message"]
    assert "runs into" in warning["message"]


def test_a_path_under_the_ground_is_warned_of_and_one_close_above_it():
    first = KNOWN.world.cameras.positions[0]
    for height, says in ((0.5, "runs into the ground"), (-0.5 * CLOSE, "comes within 0.10 m of the ground")):
        (warning,) = KNOWN.warnings(straight_to([first[0], height, first[2]]), 0)
        assert says in warning["message"]


def test_things_rest_when_the_clip_of_their_world_has_ended():
    later = KNOWN.along(own_path(), 9)
    last = KNOWN.world.scene.position[8]
    np.testing.assert_array_equal(later.scene.position[:-1], np.tile(last, (9, 1, 1)))
    between = KNOWN.along(own_path(), 5)
    np.testing.assert_array_equal(between.scene.position[0], KNOWN.world.scene.position[5])


def test_a_path_through_points_is_warned_of_and_one_beside_them_not(tmp_path):
    wall = np.random.default_rng(0).uniform([-1, -1, 0.99], [1, 1, 1.01], (4000, 3))
    cloud = PointCloud(wall, np.zeros((4000, 3), np.uint8), np.ones(4000, np.float32), metric=True)
    write_ply(tmp_path / "points.ply", cloud)
    points = read_points(tmp_path / "points.ply")
    np.testing.assert_allclose(points, wall, atol=1e-6)
    (warning,) = warnings_of_points(resolve_path("dolly in 2 m", 17), cKDTree(points))
    assert (warning["type"], "frame 7" in warning["message"]) == ("geometry", True)
    assert warnings_of_points(resolve_path("dolly out 2 m", 17), cKDTree(points)) == []
    assert warnings_of_points(resolve_path("dolly in 2 m", 17), cKDTree(wall[:5])) == []  # a few strays
    assert warnings_of_points(resolve_path("dolly in 2 m", 17), cKDTree(wall[:0])) == []


FAR = resolve_path("truck right 2 m, then pan left 50 deg", 20, intrinsics=LENS)[-1]
PLACE = Place(FAR, 9, 12.0, (32, 48), goes_on=True)
GOES_ON = FAR.world_from_camera[0] @ resolve_path("dolly in 1 m", 9).world_from_camera
OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])


@pytest.mark.parametrize(
    ("poses", "says"),
    [
        (np.linalg.inv(GOES_ON), "camera-from-world matrices; invert"),
        (GOES_ON @ OPENGL, "poses with OpenGL axes"),
        (OPENGL @ GOES_ON @ OPENGL, "a world with OpenGL axes"),
        (np.linalg.inv(GOES_ON @ OPENGL), "of OpenGL axes; invert"),
    ],
)
def test_cameras_of_another_convention_are_told_which(tmp_path, poses, says):
    asked = CamerasRequest(world_from_camera=poses.tolist(), relative_to="exploration")
    with pytest.raises(Refusal) as refused:
        asked_path(PathFields(cameras=asked), PLACE, tmp_path)
    assert says in str(refused.value)


def test_cameras_that_look_like_another_convention_are_warned_of(tmp_path):
    """A camera that faces what it circles, in OpenGL's axes: taken for OpenCV's it looks outwards."""
    path = resolve_path("orbit right 60 deg", 9)
    for poses, count in ((path.world_from_camera, 0), (path.world_from_camera @ OPENGL, 1)):
        asked = CamerasRequest(world_from_camera=poses.tolist())
        found = asked_path(PathFields(cameras=asked), PLACE, tmp_path)
        assert [each["type"] for each in found.warnings] == ["convention"] * count
    assert "OpenGL" in found.warnings[0]["message"]
    assert "--" not in found.warnings[0]["message"]


def test_a_pose_file_may_say_where_it_departs_from_its_format(tmp_path):
    wanted = resolve_path("dolly in 1 m while panning right 20 deg", 9).world_from_camera
    rows = "\n".join(" ".join(map(str, pose[:3].ravel())) for pose in np.linalg.inv(wanted))
    asked = PoseFileRequest(name="inverse.txt", text=rows, invert=True)
    found = asked_path(PathFields(pose_file=asked), PLACE, tmp_path)
    np.testing.assert_allclose(found.cameras.world_from_camera, wanted, atol=1e-6)
