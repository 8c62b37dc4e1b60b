"""Pictures that a file names: their order, equal names, and COLMAP text as tools and editors leave it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from camctrl_jax.camera import CameraError, preset
from camctrl_jax.camera.formats import PoseFileError, load_cameras, read_pose_file, save_cameras
from camctrl_jax.camera.formats.names import natural

SIZE = (48, 80)
PATH = preset("dolly_in", 24, easing="linear", metres=2.3)  # frame i stands at z = 0.1 i


def test_names_are_counted_as_people_do():
    names = ["b/2.png", "a/10.png", "a/9.png", "frame_10.jpg", "frame_2.jpg", "a/x9y10.png", "a/x9y2.png"]
    assert sorted(names, key=natural) == [
        "a/9.png",
        "a/10.png",
        "a/x9y2.png",
        "a/x9y10.png",
        "b/2.png",
        "frame_2.jpg",
        "frame_10.jpg",
    ]
    assert sorted(["v²/1.png", "v10/1.png", "v9/1.png"], key=natural)[:2] == ["v9/1.png", "v10/1.png"]


def heights(cameras) -> list[int]:
    """Which frames of PATH these are."""
    return np.round(cameras.positions[:, 2] * 10).astype(int).tolist()


@pytest.mark.parametrize("name", ["transforms_json", "colmap", "colmap_text", "opensfm"])
def test_named_pictures_come_in_the_order_of_their_names(tmp_path, name):
    # Written in another order than the names: picture number 10 * i mod 24 + 1, so 1, 11, 21, 7, ...
    numbers = [(7 * index) % 24 for index in range(24)]
    shuffled = PATH[numbers]
    names = [f"shots/frame_{number}.png" for number in numbers]
    save_cameras(
        shuffled.__class__(shuffled.world_from_camera, shuffled.intrinsics),
        tmp_path / "p",
        name,
        image_size=SIZE,
        names=names,
    )
    pose_file = read_pose_file(tmp_path / "p")[1]
    assert pose_file.names == tuple(f"shots/frame_{number}.png" for number in range(24))
    assert heights(pose_file.cameras) == list(range(24))
    assert pose_file.notes == (
        "the poses come in the order of the picture names, which is not that of the file: 18 of 24 moved, "
        "the first is shots/frame_1.png where the file has shots/frame_7.png",
    )
    assert "frame_23" in pose_file.locations[23]


@pytest.mark.parametrize("name", ["transforms_json", "colmap", "colmap_text", "opensfm"])
def test_the_order_of_the_names_gives_no_note(tmp_path, name):
    plain = PATH.__class__(PATH.world_from_camera, PATH.intrinsics)
    names = [f"{index}.png" for index in range(1, 25)]  # 10 after 9: not the order of the alphabet
    save_cameras(plain, tmp_path / "p", name, image_size=SIZE, names=names)
    pose_file = read_pose_file(tmp_path / "p")[1]
    assert pose_file.notes == ()
    assert heights(pose_file.cameras) == list(range(24))


def test_intrinsics_go_with_their_pictures(tmp_path):
    frames = [
        {"file_path": f"{number}.png", "fl_x": 100 + number, "transform_matrix": np.eye(4).tolist()}
        for number in (10, 2, 33)
    ]
    (tmp_path / "transforms.json").write_text(json.dumps({"w": 200, "h": 100, "frames": frames}))
    intrinsics = load_cameras(tmp_path).intrinsics
    np.testing.assert_allclose(intrinsics[:, 0], [0.51, 0.55, 0.665])


def test_capture_times_stand_before_names_and_it_is_said(tmp_path):
    names = [f"{index}.jpg" for index in (3, 1, 2)]
    timed = PATH[:3].with_fps(2.0)
    save_cameras(timed, tmp_path / "r.json", "opensfm", image_size=SIZE, names=names)
    pose_file = read_pose_file(tmp_path / "r.json")[1]
    assert pose_file.names == ("3.jpg", "1.jpg", "2.jpg")
    assert heights(pose_file.cameras) == [0, 1, 2]
    np.testing.assert_allclose(pose_file.cameras.times, [0, 0.5, 1.0])
    assert "order of the capture times, which is not that of the picture names" in pose_file.notes[0]


@pytest.mark.parametrize("name", ["transforms_json", "colmap", "colmap_text"])
@pytest.mark.parametrize("other", ["a/1.png", "./a/1.png", "a//1.png"])
def test_equal_names_are_an_error_that_names_both_places(tmp_path, name, other):
    save_cameras(PATH[:3], tmp_path / "p", name, image_size=SIZE, names=["a/1.png", "a/2.png", other])
    with pytest.raises(PoseFileError, match=rf"{other}\)?: names the picture '{other}', as .*a/1.png"):
        load_cameras(tmp_path / "p")


def test_a_shot_that_stands_twice_in_the_json_is_an_error(tmp_path):
    save_cameras(PATH[:2], tmp_path / "r.json", "opensfm", image_size=SIZE, names=["1.jpg", "2.jpg"])
    (tmp_path / "r.json").write_text((tmp_path / "r.json").read_text().replace('"2.jpg"', '"1.jpg"'))
    with pytest.raises(PoseFileError, match=r"r.json: the key '1.jpg' stands twice in one object"):
        load_cameras(tmp_path / "r.json")


def test_frames_of_which_some_name_no_picture(tmp_path):
    frames = [{"file_path": "2.png"}, {}, {"file_path": "1.png"}]
    for frame in frames:
        frame["transform_matrix"] = np.eye(4).tolist()
    (tmp_path / "transforms.json").write_text(json.dumps({"fl_x": 9, "w": 20, "h": 10, "frames": frames}))
    pose_file = read_pose_file(tmp_path)[1]
    assert pose_file.names == ()
    assert pose_file.notes == (
        "1 of 3 frames name no picture (file_path): the poses come in the order of the file",
    )


# --- COLMAP text -----------------------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path):
    """A folder with a model of 24 pictures, and what changes the lines of its images.txt."""
    save_cameras(PATH, tmp_path, "colmap_text", image_size=SIZE)
    file = tmp_path / "images.txt"

    def change(edit):
        lines = file.read_text().split("\n")[:-1]
        file.write_bytes("\n".join(edit(lines)).encode())
        return tmp_path

    return change


def pairs(lines):
    """Header, then [pose, points] of every picture."""
    return lines[:2], [lines[place : place + 2] for place in range(2, len(lines), 2)]


def joined(header, pictures):
    return header + [line for picture in pictures for line in picture]


def after_ten(blank):
    def edit(lines):
        header, pictures = pairs(lines)
        return joined(header, [*pictures[:10], [blank], *pictures[10:]])

    return edit


def with_points(lines):
    header, pictures = pairs(lines)
    return joined(header, [[pose, "12.5 7.25 -1 3.5 8.75 17"] for pose, _ in pictures])


WHOLE = {
    "as written": lambda lines: lines,
    "blank after picture 10": after_ten(""),
    "three blanks after picture 10": lambda lines: after_ten("")(after_ten("")(after_ten("")(lines))),
    "white space after picture 10": after_ten("  \t "),
    "a comment after picture 10": after_ten("# half way"),
    "an indented comment": after_ten("   # half way"),
    "blanks at the head": lambda lines: ["", "", *lines],
    "blanks after the head": lambda lines: [*lines[:2], "", *lines[2:]],
    "blanks at the end": lambda lines: [*lines, "", "", ""],
    "without the last points": lambda lines: lines[:-1],
    "points": with_points,
    "a blank between every pose and its points": lambda lines: joined(
        lines[:2], [[pose, "", points] for pose, points in pairs(with_points(lines))[1]]
    ),
    "a comment between pose and points": lambda lines: joined(
        lines[:2], [[pose, "# points", points] for pose, points in pairs(with_points(lines))[1]]
    ),
    "points and a blank after every picture": lambda lines: joined(
        lines[:2], [[*picture, ""] for picture in pairs(with_points(lines))[1]]
    ),
    "Windows line ends": lambda lines: [f"{line}\r" for line in lines],
    "Windows line ends and an extra blank": lambda lines: [f"{line}\r" for line in after_ten("")(lines)],
    "tabs": lambda lines: [line.replace(" ", "\t") for line in lines],
    "trailing spaces": lambda lines: [f"{line}  " for line in lines],
    "integer points": lambda lines: joined(lines[:2], [[pose, "12 7 -1"] for pose, _ in pairs(lines)[1]]),
    "nine integers as points": lambda lines: joined(
        lines[:2], [[pose, "12 7 -1 3 8 1 1 1 1"] for pose, _ in pairs(lines)[1]]
    ),
    "twelve numbers as points": lambda lines: joined(
        lines[:2], [[pose, "120 7 -1 3 8 1 1 1 1 9 9 9"] for pose, _ in pairs(lines)[1]]
    ),
    "the right number announced": lambda lines: [
        "# Number of images: 24, mean observations per image: 0",
        *lines,
    ],
}


@pytest.mark.parametrize("case", WHOLE)
def test_every_picture_of_the_file_comes_out(model, case):
    folder = model(WHOLE[case])
    pose_file = read_pose_file(folder)[1]
    assert heights(pose_file.cameras) == list(range(24))
    assert pose_file.names == tuple(f"frame_{index:05d}.png" for index in range(24))
    assert pose_file.notes == ()


@pytest.mark.parametrize(
    "name", ["with space.png", "my holiday 2024.jpg", "1 2 3.png", "0001", "Übung é.png", "a # b.png"]
)
def test_names_of_every_kind(tmp_path, name):
    save_cameras(PATH[:2], tmp_path, "colmap_text", image_size=SIZE, names=[name, "z.png"])
    pose_file = read_pose_file(tmp_path)[1]
    assert dict(zip(pose_file.names, heights(pose_file.cameras))) == {name: 0, "z.png": 1}


BROKEN = {
    "no second lines": (
        lambda lines: joined(lines[:2], [[pose] for pose, _ in pairs(lines)[1]]),
        r"images.txt: line 4: reads like a pose \(of frame_00001.png\), but the points of frame_00000.png "
        r"\(line 3\) are due: .* Put a blank line after every pose",
    ),
    "one second line missing": (
        lambda lines: [line for index, line in enumerate(lines) if index != 21],
        r"images.txt: line 22: reads like a pose \(of frame_00010.png\), but the points of frame_00009.png",
    ),
    "points twice": (
        lambda lines: joined(
            lines[:2], [[pose, points, points] for pose, points in pairs(with_points(lines))[1]]
        ),
        r"images.txt: line 5: lists points \(X Y POINT3D_ID\) where a pose is due",
    ),
    "a pose missing": (
        lambda lines: [line for index, line in enumerate(with_points(lines)) if index != 20],
        r"images.txt: line 21: lists points .* where a pose is due",
    ),
    "cut in the points": (
        lambda lines: [*with_points(lines)[:-1], "12.5 7.25 -1 3.5"],
        r"images.txt: line 50: holds 4 values where the points of frame_00023.png \(line 49\) are due",
    ),
    "cut in a pose": (
        lambda lines: [*lines[:-2], "24 1 0 0"],
        r"images.txt: line 49: holds 4 values, expected IMAGE_ID QW",
    ),
    "a word for a number": (
        lambda lines: [*lines[:-2], lines[-2].replace("24 ", "24 x", 1), ""],
        r"images.txt: line 49: 'x.*' is not a number",
    ),
    "a broken number": (
        lambda lines: [*lines[:-2], "2x" + lines[-2][2:], ""],
        r"images.txt: line 49: '2x' is not an integer",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_line_that_is_out_of_place_is_named(model, case):
    edit, message = BROKEN[case]
    folder = model(edit)
    with pytest.raises(CameraError, match=message):
        load_cameras(folder)


@pytest.mark.parametrize("announced", [23, 25, 0])
def test_another_number_of_images_than_the_head_says_is_noted(model, announced):
    folder = model(lambda lines: [f"# Number of images: {announced}, mean observations per image: 0", *lines])
    pose_file = read_pose_file(folder)[1]
    assert len(pose_file.cameras) == 24
    assert pose_file.notes == (
        f"images.txt says that it holds {announced} images, but holds 24: it was edited, or is cut short",
    )


def test_twelve_numbers_a_line_are_no_colmap_model_whatever_the_name(tmp_path):
    rows = PATH.world_from_camera[:, :3].reshape(-1, 12)
    (tmp_path / "images.txt").write_text("\n".join(" ".join(map(repr, row)) for row in rows.tolist()))
    assert read_pose_file(tmp_path / "images.txt")[0].name == "kitti"


# --- cameras that are no pinholes ------------------------------------------------------------------------

FRAME = {"file_path": "1.png", "transform_matrix": np.eye(4).tolist()}
FILE = {"fl_x": 50, "w": 80, "h": 48}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("is_fisheye", True),
        ("is_fisheye", 1),
        ("is_fisheye", "true"),
        ("fisheye", True),
        ("is_equirectangular", True),
        ("equirectangular", True),
        ("latlong", True),
        ("orthographic", True),
        ("ftheta_p0", 0.1),
        ("camera_model", "OPENCV_FISHEYE"),
        ("camera_model", "EQUIRECTANGULAR"),
        ("camera_model", "FISHEYE624"),
        ("camera_model", "fisheye"),
        ("camera_model", "ORTHOPHOTO"),
        ("camera_model", "VR180_L"),
        ("camera_type", "equirectangular"),
    ],
)
def test_transforms_that_are_not_of_a_pinhole_are_refused(tmp_path, key, value):
    file = tmp_path / "transforms.json"
    file.write_text(json.dumps({**FILE, key: value, "frames": [FRAME]}))
    with pytest.raises(PoseFileError, match=rf"transforms.json: {key}: .*{value}.* not a pinhole.*first"):
        load_cameras(file)
    file.write_text(json.dumps({**FILE, "frames": [FRAME, {**FRAME, "file_path": "2.png", key: value}]}))
    with pytest.raises(PoseFileError, match=rf"frame 1 \(2.png\), {key}: .* not a pinhole"):
        load_cameras(file)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("is_fisheye", False),
        ("is_fisheye", 0),
        ("is_fisheye", "false"),
        ("is_fisheye", None),
        ("camera_model", "opencv"),
        ("camera_model", None),
        ("camera_type", "perspective"),
    ],
)
def test_transforms_that_are_of_a_pinhole_are_read(tmp_path, key, value):
    file = tmp_path / "transforms.json"
    file.write_text(json.dumps({**FILE, key: value, "frames": [{**FRAME, key: value}]}))
    np.testing.assert_allclose(load_cameras(file).intrinsics, [(0.625, 50 / 48, 0.5, 0.5)])


@pytest.mark.parametrize(
    "kind", ["fisheye", "fisheye_opencv", "fisheye624", "spherical", "equirectangular", "dual"]
)
def test_opensfm_cameras_that_are_no_pinholes_are_refused(tmp_path, kind):
    save_cameras(PATH[:2], tmp_path / "r.json", "opensfm", image_size=SIZE)
    (tmp_path / "r.json").write_text((tmp_path / "r.json").read_text().replace('"brown"', f'"{kind}"'))
    with pytest.raises(PoseFileError, match=rf"shot .*: projection type '{kind}' is not a pinhole"):
        load_cameras(tmp_path / "r.json")


@pytest.mark.parametrize(
    "kind", ["OPENCV_FISHEYE", "FOV", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE", "EQUIRECTANGULAR"]
)
def test_colmap_cameras_that_are_no_pinholes_are_refused(tmp_path, kind):
    save_cameras(PATH[:2], tmp_path, "colmap_text", image_size=SIZE)
    (tmp_path / "cameras.txt").write_text(f"1 {kind} 80 48 50 40 24 0.1\n")
    with pytest.raises(PoseFileError, match=rf"line 1: camera model {kind} is not a pinhole"):
        load_cameras(tmp_path)


@pytest.mark.parametrize(
    ("number", "kind"), [(5, "OPENCV_FISHEYE"), (10, "THIN_PRISM_FISHEYE"), (99, "number 99")]
)
def test_binary_colmap_cameras_that_are_no_pinholes_are_refused(tmp_path, number, kind):
    save_cameras(PATH[:2], tmp_path, "colmap", image_size=SIZE)
    data = bytearray((tmp_path / "cameras.bin").read_bytes())
    data[12:16] = number.to_bytes(4, "little")
    (tmp_path / "cameras.bin").write_bytes(bytes(data))
    with pytest.raises(PoseFileError, match=rf"camera model {kind} is not a pinhole"):
        load_cameras(tmp_path)
