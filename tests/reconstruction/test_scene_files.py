"""Files of scenes, read by others' readers: pycolmap, trimesh, the glTF validator; and by their rules."""

import json
import shutil
import struct
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from textured_plane import plane_video, truck

from camctrl_jax.camera.cameras import Cameras
from camctrl_jax.camera.formats import load_cameras
from camctrl_jax.errors import InvalidValue
from camctrl_jax.estimators.protocols import PointCloud, SfmResult
from camctrl_jax.reconstruction.colmap_folder import write_model
from camctrl_jax.reconstruction.scenes import Scene, write_scene

SIZE = (24, 40)


@pytest.fixture(scope="module")
def scene():
    """Five views, and three points: ahead of the first camera, above it, to its right."""
    cameras = truck(5)
    points = np.array([[0.0, 0.0, 2.0], [0.1, -1.5, 3.0], [1.25, 0.2, 2.5]])
    colours = np.array([[255, 0, 0], [0, 128, 0], [1, 2, 250]], np.uint8)
    cloud = PointCloud(points, colours, np.array([1, 2, 3], np.float32), cameras, metric=True)
    return Scene(cloud, plane_video(cameras, SIZE)[0], cameras)


@pytest.fixture(scope="module")
def folder(scene, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scene")
    write_scene(folder, scene)
    return folder


def glb(path):
    """The JSON and the binary of a GLB file, by the rules of glTF 2.0 chapter 4."""
    data = path.read_bytes()
    magic, version, length = struct.unpack_from("<4sII", data)
    assert (magic, version, length) == (b"glTF", 2, len(data))
    size, kind = struct.unpack_from("<I4s", data, 12)
    assert kind == b"JSON"
    assert size % 4 == 0
    document = json.loads(data[20 : 20 + size])
    rest, kind = struct.unpack_from("<I4s", data, 20 + size)
    assert kind == b"BIN\0"
    assert rest % 4 == 0
    assert 28 + size + rest == len(data)
    binary = data[28 + size :]
    assert 0 <= len(binary) - document["buffers"][0]["byteLength"] < 4
    return document, binary


def accessor(document, binary, index):
    told = document["accessors"][index]
    view = document["bufferViews"][told["bufferView"]]
    dtype = {5126: "<f4", 5123: "<u2"}[told["componentType"]]
    wide = {"VEC3": 3, "VEC4": 4}[told["type"]]
    return np.frombuffer(binary, dtype, told["count"] * wide, view["byteOffset"]).reshape(-1, wide)


def test_glb_holds_the_points_with_y_up(folder, scene):
    document, binary = glb(folder / "scene.glb")
    found = accessor(document, binary, 0)
    np.testing.assert_allclose(found, scene.cloud.points * (1, -1, -1), rtol=1e-6)
    assert found[1, 1] > 0  # what is above the camera
    np.testing.assert_allclose(document["accessors"][0]["min"], found.min(axis=0))
    np.testing.assert_allclose(document["accessors"][0]["max"], found.max(axis=0))
    colours = accessor(document, binary, 1)
    np.testing.assert_array_equal(colours[0], [65535, 0, 0, 65535])
    assert abs(colours[1, 1] / 65535 - 0.2158605) < 1e-4  # sRGB 128 is 21.6 % of the light
    assert document["meshes"][0]["primitives"][0]["mode"] == 0


def test_what_is_ahead_of_a_camera_is_ahead_of_its_node(folder, scene):
    document, binary = glb(folder / "scene.glb")
    points = accessor(document, binary, 0).astype(float)
    nodes = [node for node in document["nodes"] if "camera" in node]
    assert len(nodes) == len(scene.cameras)
    for node, pose, lens in zip(nodes, scene.cameras.world_from_camera, scene.cameras.intrinsics):
        matrix = np.array(node.get("matrix", np.eye(4))).reshape(4, 4).T
        np.testing.assert_allclose(np.linalg.det(matrix), 1.0)
        seen = (np.linalg.inv(matrix) @ np.c_[points, np.ones(3)].T)[:3].T  # glTF: looks along -z, y up
        ours = (np.linalg.inv(pose) @ np.c_[scene.cloud.points, np.ones(3)].T)[:3].T
        assert (seen[:, 2] < 0).all()
        np.testing.assert_allclose(seen, ours * (1, -1, -1), atol=1e-5)
        camera = document["cameras"][node["camera"]]["perspective"]
        assert abs(np.tan(camera["yfov"] / 2) - 0.5 / lens[1]) < 1e-9
        assert abs(camera["aspectRatio"] - lens[1] / lens[0]) < 1e-9


def test_the_gltf_validator_finds_nothing(folder):
    node = shutil.which("node")
    script = (
        "const fs=require('fs');require('gltf-validator').validateBytes(new Uint8Array(fs.readFileSync("
        "process.argv[1]))).then(r=>console.log(JSON.stringify(r.issues)))"
    )
    run = node and subprocess.run(
        [node, "-e", script, str(folder / "scene.glb")], capture_output=True, text=True, timeout=60
    )
    if not run or "Cannot find module" in run.stderr:
        pytest.skip("gltf-validator is absent; npm install gltf-validator, and NODE_PATH")
    issues = json.loads(run.stdout)
    assert issues["messages"] == []


def test_trimesh_reads_ply_and_glb(folder, scene):
    trimesh = pytest.importorskip("trimesh", reason="absent; pip install trimesh")
    ply = trimesh.load(folder / "points.ply")
    np.testing.assert_allclose(ply.vertices, scene.cloud.points, rtol=1e-6)
    np.testing.assert_array_equal(ply.colors[:, :3], scene.cloud.colours)
    (points,) = trimesh.load(folder / "scene.glb").geometry.values()
    np.testing.assert_allclose(points.vertices, scene.cloud.points * (1, -1, -1), rtol=1e-6)


def test_ply_by_its_header(folder, scene):
    header, _, data = (folder / "points.ply").read_bytes().partition(b"end_header\n")
    lines = header.decode("ascii").splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    assert "element vertex 3" in lines
    kinds = {"float": "<f4", "uchar": "u1"}
    row = np.dtype([(line.split()[2], kinds[line.split()[1]]) for line in lines if line[:8] == "property"])
    assert row.names == ("x", "y", "z", "red", "green", "blue", "confidence")
    rows = np.frombuffer(data, row)
    np.testing.assert_allclose(np.stack([rows[k] for k in "xyz"], 1), scene.cloud.points, rtol=1e-6)
    np.testing.assert_array_equal(rows["blue"], scene.cloud.colours[:, 2])


def test_pycolmap_reads_the_folder(folder, scene):
    pycolmap = pytest.importorskip("pycolmap", reason="absent; pip install 'camctrl_jax[eval]'")
    model = pycolmap.Reconstruction(str(folder / "sparse" / "0"))
    assert model.num_points3D() == 3
    assert model.num_reg_images() == 5
    for index, image in model.images.items():
        assert (folder / "images" / image.name).is_file()
        camera = model.cameras[image.camera_id]
        for point in scene.cloud.points:
            seen = camera.img_from_cam((image.cam_from_world() * point)[None])[0]
            local = scene.cameras.camera_from_world[index - 1] @ [*point, 1.0]
            lens = scene.cameras.intrinsics[index - 1]
            expected = (local[:2] / local[2] * lens[:2] + lens[2:]) * (SIZE[1], SIZE[0])
            np.testing.assert_allclose(seen, expected, atol=1e-6)
    stored = {point.color.tobytes() for point in model.points3D.values()}
    assert stored == {colour.tobytes() for colour in scene.cloud.colours}


@pytest.mark.parametrize("zooms", [False, True])
def test_pycolmap_reads_tracks_poses_and_lenses(scene, tmp_path, zooms):
    pycolmap = pytest.importorskip("pycolmap", reason="absent; pip install 'camctrl_jax[eval]'")
    lenses = scene.cameras.intrinsics * (1 + 0.1 * zooms * np.arange(5)[:, None])
    cameras = Cameras(scene.cameras.world_from_camera, lenses)
    seen = SfmResult.of_cameras(cameras)
    frames, points = np.array([4, 0, 0, 2]), np.array([1, 1, 0, 0])
    xy = np.array([[4.5, 1.5], [0.5, 2.5], [9.0, 8.0], [7.0, 6.0]])
    for name, value in (("frame", frames), ("point", points), ("xy", xy)):
        object.__setattr__(seen, f"observation_{name}", value)
    names = [f"{index}.png" for index in range(5)]
    write_model(tmp_path, cameras, SIZE, names, scene.cloud, seen)
    model = pycolmap.Reconstruction(str(tmp_path))
    tracks = set()
    for identity, point in model.points3D.items():
        for element in point.track.elements:
            image = model.images[element.image_id]
            tracks.add((image.name, identity, *image.points2D[element.point2D_idx].xy))
    assert tracks == {
        ("4.png", 2, 4.5, 1.5),
        ("0.png", 2, 0.5, 2.5),
        ("0.png", 1, 9.0, 8.0),
        ("2.png", 1, 7.0, 6.0),
    }
    assert model.points3D[3].track.length() == 0
    assert model.num_cameras() == (5 if zooms else 1)
    for index, image in model.images.items():
        inverse, lens = cameras.camera_from_world[index - 1], lenses[index - 1]
        np.testing.assert_allclose(image.cam_from_world().matrix(), inverse[:3], atol=1e-12)
        found = model.cameras[image.camera_id].params
        np.testing.assert_allclose(found, lens * (SIZE[1], SIZE[0], SIZE[1], SIZE[0]))


def test_transforms_json_is_the_same_path_and_names_points_and_pictures(folder, scene):
    document = json.loads((folder / "transforms.json").read_text())
    assert document["ply_file_path"] == "points.ply"
    assert all((folder / frame["file_path"]).is_file() for frame in document["frames"])
    cameras = load_cameras(folder / "transforms.json")
    np.testing.assert_allclose(cameras.world_from_camera, scene.cameras.world_from_camera, atol=1e-12)
    np.testing.assert_allclose(cameras.intrinsics, scene.cameras.intrinsics)
    # OpenGL axes: the point ahead of the first camera has a negative z in it.
    first = np.array(document["frames"][0]["transform_matrix"])
    assert (np.linalg.inv(first) @ [0, 0, 2, 1])[2] == pytest.approx(-2)


def test_places_far_from_the_origin_keep_their_digits(scene, tmp_path):
    shift = np.array([4.5e5, -5.4e6, 120.0])
    cloud = replace(scene.cloud, points=scene.cloud.points + shift)
    write_scene(tmp_path, replace(scene, cloud=cloud), ("ply", "glb"))
    document, binary = glb(tmp_path / "scene.glb")
    node = next(node for node in document["nodes"] if node.get("mesh") == 0)
    found = accessor(document, binary, 0) + np.array(node["translation"])
    np.testing.assert_allclose(found, cloud.points * (1, -1, -1), rtol=0, atol=1e-6)
    header, _, data = (tmp_path / "points.ply").read_bytes().partition(b"end_header\n")
    assert b"property double x" in header
    row = np.dtype([("xyz", "<f8", 3), ("rgb", "u1", 3), ("confidence", "<f4")])
    np.testing.assert_array_equal(np.frombuffer(data, row)["xyz"], cloud.points)


def test_only_what_is_asked_for_is_written(scene, tmp_path):
    assert set(write_scene(tmp_path, scene, ("ply",))) == {"ply"}
    assert [path.name for path in tmp_path.iterdir()] == ["points.ply"]
    with pytest.raises(InvalidValue, match="usd"):
        write_scene(tmp_path, scene, ("usd",))
