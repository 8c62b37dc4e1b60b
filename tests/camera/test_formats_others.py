"""Files of neighbouring tools, made here as those tools write them, pose by pose."""

from __future__ import annotations

import json
import math
import struct

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from camctrl_jax.camera import CameraError, Cameras
from camctrl_jax.camera.formats import Convention, PoseFileError, load_cameras, read_pose_file

FRAMES = 12
SIZE = (540, 960)


def walk() -> Cameras:
    angles = np.linspace(0.1, 0.9, FRAMES)
    poses = np.tile(np.eye(4), (FRAMES, 1, 1))
    poses[:, :3, :3] = Rotation.from_euler("xyz", np.stack([angles, -angles, 0.4 * angles], 1)).as_matrix()
    poses[:, :3, 3] = np.stack([1.0 + angles, 2.0 - angles**2, 0.3 * angles], 1)
    return Cameras(poses, (0.6, 1.0, 0.5, 0.5))


POSES = walk().world_from_camera
OPENGL = POSES @ np.diag((1.0, -1.0, -1.0, 1.0))


def same(cameras: Cameras, poses: np.ndarray = POSES) -> None:
    np.testing.assert_allclose(cameras.world_from_camera, poses, atol=1e-12)


# --- nerfstudio's camera_path.json -----------------------------------------------------------------------


def camera_path(**changes) -> dict:
    return {
        "camera_type": "perspective",
        "render_height": SIZE[0],
        "render_width": SIZE[1],
        "fps": 24,
        "seconds": 0.5,
        "smoothness_value": 0.5,
        "is_cycle": False,
        "crop": None,
        "keyframes": [],
        "camera_path": [
            {"camera_to_world": pose.ravel().tolist(), "fov": 50.0, "aspect": 1.0} for pose in OPENGL
        ],
        **changes,
    }


def written(tmp_path, document):
    file = tmp_path / "camera_path.json"
    file.write_text(json.dumps(document))
    return file


def test_camera_path(tmp_path):
    found, pose_file = read_pose_file(written(tmp_path, camera_path()))
    assert found.name == "camera_path"
    same(pose_file.cameras)
    # fov is the vertical angle in degrees; the picture is 540 high and 960 wide, pixels are square.
    focal = 0.5 / math.tan(math.radians(25.0))
    np.testing.assert_allclose(pose_file.cameras.intrinsics, [(focal * 540 / 960, focal, 0.5, 0.5)] * FRAMES)
    np.testing.assert_allclose(pose_file.cameras.fov_degrees[0, 1], 50.0)
    np.testing.assert_allclose(pose_file.cameras.times, np.arange(FRAMES) / 24)
    assert pose_file.image_size == SIZE
    assert pose_file.notes == ()
    assert not pose_file.cameras.metric


def test_camera_path_whose_fov_changes(tmp_path):
    document = camera_path()
    for index, entry in enumerate(document["camera_path"]):
        entry["fov"] = 40.0 + index
    fov = load_cameras(written(tmp_path, document)).fov_degrees[:, 1]
    np.testing.assert_allclose(fov, 40.0 + np.arange(FRAMES))


def test_camera_path_whose_seconds_and_fps_disagree(tmp_path):
    pose_file = read_pose_file(written(tmp_path, camera_path(seconds=4.0)))[1]
    np.testing.assert_allclose(pose_file.cameras.times, np.arange(FRAMES) / 3)
    assert "12 frames in 4 s are 3 frames/s, not the fps of 24" in pose_file.notes[0]


def test_camera_path_without_times_and_size(tmp_path):
    document = camera_path()
    for key in ("fps", "seconds", "render_height", "render_width"):
        del document[key]
    pose_file = read_pose_file(written(tmp_path, document))[1]
    assert pose_file.cameras.times is None
    fx, fy = pose_file.cameras.intrinsics[0, :2]
    assert fx == pytest.approx(fy)  # the entries say an aspect of 1
    cameras = load_cameras(written(tmp_path, document), image_size=SIZE)
    assert cameras.intrinsics[0, 0] == pytest.approx(fy * 540 / 960)


def test_camera_path_that_is_only_keyframes(tmp_path):
    keyframes = [{"matrix": pose.ravel().tolist(), "fov": 50, "aspect": 1.7} for pose in OPENGL]
    pose_file = read_pose_file(written(tmp_path, camera_path(camera_path=[], keyframes=keyframes)))[1]
    same(pose_file.cameras)
    assert pose_file.cameras.times is None
    assert pose_file.notes == (
        "there is no camera_path, only keyframes: they were read as frames, without times",
    )


def test_keyframes_of_older_viewers_are_text_column_by_column(tmp_path):
    keyframes = [{"matrix": json.dumps(pose.T.ravel().tolist()), "fov": 50, "aspect": 1} for pose in OPENGL]
    document = camera_path(keyframes=keyframes)
    del document["camera_path"]
    pose_file = read_pose_file(written(tmp_path, document))[1]
    same(pose_file.cameras)
    assert "column by column" in pose_file.notes[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"camera_type": "fisheye"}, r"camera_type: fisheye is not a pinhole"),
        ({"camera_type": "equirectangular"}, r"camera_type: equirectangular is not a pinhole"),
        ({"camera_path": []}, r"camera_path: is empty, and so are the keyframes"),
        ({"camera_path": [{"fov": 50}]}, r"frame 0: expected a camera_to_world of 16 numbers"),
        ({"camera_path": [{"camera_to_world": [1.0] * 12, "fov": 50}]}, r"frame 0: .*shape \[12\]"),
        ({"camera_path": [{"camera_to_world": list(range(16))}]}, r"frame 0: has no fov"),
        (
            {"camera_path": [{"camera_to_world": [0] * 16, "fov": 180}]},
            r"frame 0: fov is 180, expected the vert",
        ),
        ({"camera_path": [3]}, r"frame 0: is 3, expected an object"),
        ({"fps": 0}, r"fps: is 0, expected a positive number"),
        ({"render_height": 0}, r"render_height and render_width are 0 and 960"),
    ],
)
def test_camera_path_that_cannot_be_read(tmp_path, changes, message):
    with pytest.raises(CameraError, match=message):
        load_cameras(written(tmp_path, camera_path(**changes)))


def test_a_fov_in_radians_is_doubted(tmp_path):
    document = camera_path()
    for entry in document["camera_path"]:
        entry["fov"] = 0.87
    with pytest.raises(
        PoseFileError, match=r"frame 0: fov is 0.87, expected the vertical angle in degrees.*in rad"
    ):
        load_cameras(written(tmp_path, document))


# --- KITTI -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("separator", [" ", "\t", "   "])
@pytest.mark.parametrize("layout", ["{:.17g}", "{:.17e}"])
def test_kitti(tmp_path, separator, layout):
    file = tmp_path / "00.txt"
    rows = POSES[:, :3].reshape(-1, 12)
    file.write_text("\r\n".join(separator.join(layout.format(v) for v in row) for row in rows) + "\r\n\r\n")
    found, pose_file = read_pose_file(file)
    assert found.name == "kitti"
    same(pose_file.cameras)
    assert pose_file.notes == ()
    assert pose_file.cameras.times is None
    assert pose_file.locations[3] == "line 4"


def test_sixteen_numbers_a_line(tmp_path):
    file = tmp_path / "traj.txt"
    file.write_text("\n".join(" ".join(map(repr, row)) for row in POSES.reshape(-1, 16).tolist()))
    found, pose_file = read_pose_file(file)
    assert found.name == "kitti"
    same(pose_file.cameras)
    assert "taken for 4x4 camera-to-world matrices" in pose_file.notes[0]
    same(load_cameras(file, convention=Convention(inverse=True)), np.linalg.inv(POSES))


def test_sixteen_numbers_column_by_column_are_refused(tmp_path):
    file = tmp_path / "traj.txt"
    transposed = np.swapaxes(POSES, 1, 2).reshape(-1, 16).tolist()
    file.write_text("\n".join(" ".join(map(repr, row)) for row in transposed))
    with pytest.raises(CameraError, match=r"line 1: the last row of the pose is .*is the matrix transposed"):
        load_cameras(file)


def test_kitti_line_that_is_short(tmp_path):
    file = tmp_path / "00.txt"
    lines = [" ".join(map(repr, row)) for row in POSES[:, :3].reshape(-1, 12).tolist()]
    lines[4] = lines[4].rsplit(" ", 1)[0]
    file.write_text("\n".join(lines))
    with pytest.raises(PoseFileError, match=r"line 5: holds 11 values, expected 12: 12 numbers, the 3x4 cam"):
        load_cameras(file)


# --- HY-WorldPlay ----------------------------------------------------------------------------------------

K = [[969.6969696969696, 0.0, 960.0], [0.0, 969.6969696969696, 540.0], [0.0, 0.0, 1.0]]


def worldplay(keys, poses=POSES):
    return {str(key): {"extrinsic": pose.tolist(), "K": K} for key, pose in zip(keys, poses)}


def test_worldplay_extrinsic_is_camera_to_world(tmp_path):
    file = tmp_path / "pose.json"
    file.write_text(json.dumps(worldplay(range(FRAMES))))
    found, pose_file = read_pose_file(file)
    assert found.name == "worldplay"
    same(pose_file.cameras)
    np.testing.assert_allclose(
        pose_file.cameras.intrinsics,
        [(969.6969696969696 / 1920, 969.6969696969696 / 1080, 0.5, 0.5)] * FRAMES,
    )
    assert pose_file.image_size == (1080, 1920)
    assert "every fourth picture" in pose_file.notes[0]
    assert "taken to be 1080 x 1920, twice the principal point" in pose_file.notes[1]


def test_worldplay_with_a_picture_size(tmp_path):
    file = tmp_path / "pose.json"
    file.write_text(json.dumps(worldplay(range(FRAMES))))
    cameras = load_cameras(file, image_size=(1200, 2000))
    np.testing.assert_allclose(cameras.intrinsics[0, 2:], (0.48, 0.45))


def test_worldplay_keys_are_numbers(tmp_path):
    # In the order of an alphabet, as sort_keys=True writes them: 0, 1, 10, 11, 2, ...
    keys = sorted(map(str, range(FRAMES)))
    file = tmp_path / "pose.json"
    file.write_text(json.dumps(worldplay(keys, POSES[[int(key) for key in keys]])))
    same(load_cameras(file))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: d["3"].pop("K"), r"frame 3: expected a 3x3 K"),
        (lambda d: d["3"].pop("extrinsic"), r"frame 3: expected a 4x4 extrinsic"),
        (lambda d: d["3"].update(extrinsic=np.eye(3).tolist()), r"frame 3: .*found shape \[3, 3\]"),
        (lambda d: d.update(fps=24), r"key 'fps': is not the number of a frame"),
        (lambda d: d.update({"3": 7}), r"frame 3: is 7, expected an object"),
        (lambda d: d.update({"03": d["3"]}), r"key '03': is the same number as '3'"),
    ],
)
def test_worldplay_that_cannot_be_read(tmp_path, edit, message):
    document = worldplay(range(FRAMES))
    edit(document)
    (tmp_path / "pose.json").write_text(json.dumps(document))
    with pytest.raises(CameraError, match=message):
        load_cameras(tmp_path / "pose.json")


# --- AC3D ------------------------------------------------------------------------------------------------


def ac3d(**changes) -> dict:
    matrix = [[484.0, 0.0, 512.0], [0.0, 480.0, 288.0], [0.0, 0.0, 1.0]]
    return {
        "imH": 576,
        "imW": 1024,
        "intrinsics": [matrix] * FRAMES,
        "w2c": np.linalg.inv(POSES)[:, :3].tolist(),
        **changes,
    }


def test_ac3d_metric_json(tmp_path):
    file = tmp_path / "clip.camera_info_metric_rescaled.json"
    file.write_text(json.dumps(ac3d(scale_var=0.3, metric_scale=0.68)))
    found, pose_file = read_pose_file(file)
    assert found.name == "ac3d"
    same(pose_file.cameras)  # the translations have been multiplied by metric_scale already
    assert pose_file.cameras.metric
    np.testing.assert_allclose(pose_file.cameras.intrinsics, [(484 / 1024, 480 / 576, 0.5, 0.5)] * FRAMES)
    assert pose_file.image_size == (576, 1024)


def test_ac3d_json_before_the_scale(tmp_path):
    whole = np.linalg.inv(POSES).tolist()
    (tmp_path / "clip.json").write_text(json.dumps(ac3d(w2c=whole)))
    cameras = load_cameras(tmp_path / "clip.json")
    same(cameras)
    assert not cameras.metric


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"w2c": []}, r"w2c: is empty"),
        ({"intrinsics": [np.eye(3).tolist()]}, r"intrinsics: holds 1 matrices for 12 poses"),
        ({"imW": None}, r"imH and imW: has no imW"),
        ({"w2c": [[1, 2, 3]] * FRAMES}, r"frame 0: expected a 3x4 w2c"),
    ],
)
def test_ac3d_that_cannot_be_read(tmp_path, changes, message):
    (tmp_path / "clip.json").write_text(json.dumps(ac3d(**changes)))
    with pytest.raises(CameraError, match=message):
        load_cameras(tmp_path / "clip.json")


# --- MVSNet's files, as FLARE has them -------------------------------------------------------------------


def camera_text(pose: np.ndarray) -> str:
    rows = "\n".join(" ".join(f"{value:.17g}" for value in row) + " " for row in np.linalg.inv(pose))
    return (
        f"extrinsic\n{rows}\n\nintrinsic\n400 0 256\n0 410 192\n0 0 1\n\n3.118722 0.021657 256.0 8.641307\n"
    )


@pytest.fixture
def flare(tmp_path):
    """Pictures 1, 33, 65, ... and a text beside each."""
    for index, pose in enumerate(POSES):
        (tmp_path / f"{index * 32 + 1}.txt").write_text(camera_text(pose))
        header = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 512, 384)
        (tmp_path / f"{index * 32 + 1}.png").write_bytes(header)
    return tmp_path


def test_flare_folder(flare):
    found, pose_file = read_pose_file(flare)
    assert found.name == "mvsnet"
    same(pose_file.cameras)  # 97 before 129: in the order of numbers
    assert pose_file.names == tuple(f"{index * 32 + 1}.png" for index in range(FRAMES))
    np.testing.assert_allclose(pose_file.cameras.intrinsics, [(400 / 512, 410 / 384, 0.5, 0.5)] * FRAMES)
    assert pose_file.image_size == (384, 512)
    assert pose_file.notes == ()


def test_mvsnet_folder_without_pictures(tmp_path):
    for index, pose in enumerate(POSES):
        (tmp_path / f"{index:08d}_cam.txt").write_text(camera_text(pose))
    (tmp_path / "pair.txt").write_text("1\n0\n1 1 2.5\n")
    with pytest.raises(
        PoseFileError, match=r"00000000_cam.txt: the intrinsics .* are in pixels and .*image_si"
    ):
        load_cameras(tmp_path)
    pose_file = read_pose_file(tmp_path, image_size=(384, 512))[1]
    same(pose_file.cameras)
    assert pose_file.names[10] == "00000010"
    assert pose_file.notes == ("1 other text files are no camera files and were left out: pair.txt",)


def test_one_flare_file(flare):
    pose_file = read_pose_file(flare / "65.txt")[1]
    same(pose_file.cameras, POSES[2:3])


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda text: text[:120], r"33.txt: is not a whole camera file; expected the word extrinsic"),
        (lambda text: text.replace("400", "4OO"), r"33.txt: line 8: '4OO' is not a number"),
        (lambda text: text + "1 2 3\n", r"33.txt: line 13: is one line too many"),
        (lambda text: text.replace("intrinsic\n4", "intrinsics\n4"), r"33.txt: is not a whole camera file"),
    ],
)
def test_flare_file_that_cannot_be_read_is_named(flare, edit, message):
    (flare / "33.txt").write_text(edit((flare / "33.txt").read_text()))
    with pytest.raises(PoseFileError, match=message):
        load_cameras(flare)


# --- what is silently lost or taken for granted ----------------------------------------------------------


@pytest.mark.parametrize(("scale", "metric"), [(None, False), (1.0, True), (2.5, True)])
def test_ac3d_is_metric_where_it_says_a_factor(tmp_path, scale, metric):
    document = {
        "imH": 96,
        "imW": 160,
        "intrinsics": [[[100, 0, 80], [0, 100, 48], [0, 0, 1]]] * 6,
        "w2c": [np.eye(4)[:3].tolist()] * 6,
        "metric_scale": scale,
    }
    (tmp_path / "a.json").write_text(json.dumps(document))
    assert load_cameras(tmp_path / "a.json").metric is metric
    for wrong in (0, -1.0, "x", True, [1.0]):
        (tmp_path / "a.json").write_text(json.dumps(document | {"metric_scale": wrong}))
        with pytest.raises(PoseFileError, match=r"metric_scale"):
            load_cameras(tmp_path / "a.json")


def test_missing_numbers_of_latent_poses_are_noted(tmp_path):
    K = [[100, 0, 80], [0, 100, 48], [0, 0, 1]]
    every = {str(i): {"extrinsic": np.eye(4).tolist(), "K": K} for i in range(20)}
    for absent, said in (((5,), "frame 5 is missing"), ((3, 4, 9), "frame 3, 4, 9 are missing"), ((), "")):
        kept = {key: entry for key, entry in every.items() if int(key) not in absent}
        (tmp_path / "w.json").write_text(json.dumps(kept))
        notes = " ".join(read_pose_file(tmp_path / "w.json")[1].notes)
        assert said in notes
        assert ("missing" in notes) == bool(absent)
        assert f"{len(kept)} poses are {4 * len(kept) - 3} pictures" in notes
    sparse = {key: entry for key, entry in every.items() if int(key) % 4 == 0}
    (tmp_path / "w.json").write_text(json.dumps(sparse))  # every fourth number is a way to count
    assert "missing" not in " ".join(read_pose_file(tmp_path / "w.json")[1].notes)


def test_missing_camera_files_are_noted(tmp_path):
    rows = "extrinsic\n1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n\nintrinsic\n100 0 80\n0 100 48\n0 0 1\n\n1 2\n"
    for number in (0, 1, 2, 4, 5):
        (tmp_path / f"{number:08d}_cam.txt").write_text(rows)
    (note,) = read_pose_file(tmp_path, image_size=(96, 160))[1].notes
    assert note.startswith("picture 3 is missing: the 5 poses that are there")


OTHER_LENSES = [
    {"distortion_model": "equidistant"},
    {"projection_type": "fisheye"},
    {"lens_type": "FISHEYE"},
    {"fisheye_params": [0.1, 0, 0, 0]},
    {"isFisheye": True},
    {"camera": {"model": "fish-eye"}},
    {"projection": "omnidirectional"},
    {"is_panorama": 1},
    {"lens": "spherical"},
    {"camera_model": "EQUIRECTANGULAR"},
]


@pytest.mark.parametrize("said", OTHER_LENSES, ids=str)
def test_lenses_that_are_no_pinhole_are_refused_however_it_is_said(tmp_path, said):
    frame = {"file_path": "fisheye/panorama.png", "transform_matrix": np.eye(4).tolist()}
    document = {"fl_x": 100, "w": 160, "h": 96, "frames": [frame] * 1}
    (tmp_path / "t.json").write_text(json.dumps(document))
    assert len(load_cameras(tmp_path / "t.json")) == 1  # whatever its picture is called
    for other in (document | said, document | {"frames": [frame | said]}):
        (tmp_path / "t.json").write_text(json.dumps(other))
        with pytest.raises(PoseFileError, match=r"not a pinhole"):
            load_cameras(tmp_path / "t.json")
    entry = {"camera_to_world": np.eye(4).ravel().tolist(), "fov": 50}
    for other in ({"camera_path": [entry], **said}, {"camera_path": [entry | said]}):
        (tmp_path / "c.json").write_text(json.dumps(other))
        with pytest.raises(PoseFileError, match=r"not a pinhole"):
            load_cameras(tmp_path / "c.json")


def test_an_entry_of_another_camera_type_is_refused(tmp_path):
    entry = {"camera_to_world": np.eye(4).ravel().tolist(), "fov": 50, "camera_type": "vr180"}
    (tmp_path / "c.json").write_text(json.dumps({"camera_path": [entry]}))
    with pytest.raises(PoseFileError, match=r"frame 0, camera_type: vr180 is not a pinhole"):
        load_cameras(tmp_path / "c.json")


@pytest.mark.parametrize(
    "said", [{"is_fisheye": False}, {"fisheye_params": None}, {"isFisheye": "false"}], ids=str
)
def test_a_lens_that_is_denied_is_a_pinhole(tmp_path, said):
    frame = {"file_path": "a.png", "transform_matrix": np.eye(4).tolist()}
    document = {"fl_x": 100, "w": 160, "h": 96, "frames": [frame], **said}
    (tmp_path / "t.json").write_text(json.dumps(document))
    assert len(load_cameras(tmp_path / "t.json")) == 1
