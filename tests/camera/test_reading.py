"""Pose files that depart from their format: read with the options of every command, hinted at without."""

from __future__ import annotations

import argparse

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from camctrl_jax.camera import PRESETS, Cameras, load_cameras, resolve_path, save_cameras
from camctrl_jax.camera.formats import FORMATS, Convention, format_named, read_pose_file
from camctrl_jax.camera.inspection import hints
from camctrl_jax.camera.reading import Reading, add_reading_options, read_path, take_reading
from camctrl_jax.camera.rereading import reread

AS_IS = Convention()
INVERSE = Convention(inverse=True)
OPENGL, OPENCV = Convention(axes="RUB"), Convention(axes="RDF")
SCALAR_FIRST = Convention(quaternions="wxyz")
SENTENCES = (
    "dolly in 1.5 m, then pan left 40 deg while rising 0.3 m",
    "pan left 40 deg then dolly in 1 m",
    "dolly in 1 m while panning right 60 deg",
    "orbit left 90 deg then dolly in 1 m",
    "truck right 1 m with handheld, then hold 1 s",
    "pedestal up 1 m while tilting down 20 deg",
)
NAMES = (*PRESETS, *SENTENCES)


def options(*words: str) -> Reading:
    parser = argparse.ArgumentParser()
    add_reading_options(parser.add_argument)
    values = vars(parser.parse_args(words))
    reading = take_reading(values)
    assert values == {}
    return reading


def scalar_first(path) -> None:
    """Rewrite a TUM or TartanAir file with the scalar in front of the vector."""
    rows = [line.split() for line in path.read_text().splitlines() if line[0] != "#"]
    path.write_text("".join(" ".join([*row[:-4], row[-1], *row[-4:-1]]) + "\n" for row in rows))


def inverse(cameras: Cameras) -> Cameras:
    return Cameras(cameras.camera_from_world, cameras.intrinsics, cameras.times, cameras.metric)


def tried(hint: str) -> list[str]:
    """The options that a hint names, in its order."""
    return [part.split(")")[0] for part in hint.split("(try ")[1:]]


def hint_of(path, *words: str) -> str:
    """The hint at another convention, or ""."""
    found = [hint for hint in read_path(path, options(*words)).hints if "(try " in hint]
    assert len(found) <= 1
    return "".join(found)


# --- options ---------------------------------------------------------------------------------------------


def test_options_become_a_reading():
    assert options() == Reading()
    words = [
        "--from",
        "tum",
        "--image-size",
        "720x1280",
        "--invert",
        "--axes",
        "RUB",
        "--quaternions",
        "wxyz",
    ]
    assert options(*words) == Reading("tum", (720, 1280), Convention(True, "RUB", "wxyz"))


def test_scalar_first_is_read_as_it_was_meant_pose_by_pose(tmp_path):
    for format_name, sentence in (("tum", "dolly in 1.5 m"), ("tartanair", SENTENCES[0])):
        meant = resolve_path(sentence, 25)
        save_cameras(meant, tmp_path / "path.txt", format_name)
        scalar_first(tmp_path / "path.txt")
        read = read_path(tmp_path / "path.txt", options("--quaternions", "wxyz")).pose_file.cameras
        np.testing.assert_allclose(read.world_from_camera, meant.world_from_camera, atol=1e-9)
        assert hint_of(tmp_path / "path.txt", "--quaternions", "wxyz") == ""


def test_scalar_first_read_as_scalar_last_goes_backwards(tmp_path):
    save_cameras(resolve_path("dolly in 1.5 m", 25), tmp_path / "path.txt", "tum")
    scalar_first(tmp_path / "path.txt")
    wrong = read_path(tmp_path / "path.txt", options()).pose_file.cameras
    assert wrong.relative_to(0).positions[-1, 2] == pytest.approx(-1.5)


@pytest.mark.parametrize("format_name", ["tum", "kitti", "realestate10k", "open3d_log", "motionctrl"])
def test_inverse_poses_are_read_as_they_were_meant_pose_by_pose(tmp_path, format_name):
    meant = resolve_path(SENTENCES[0], 25)
    save_cameras(inverse(meant), tmp_path / "path.txt", format_name)
    read = read_path(tmp_path / "path.txt", options("--invert")).pose_file.cameras
    np.testing.assert_allclose(read.world_from_camera, meant.world_from_camera, atol=1e-9)


def test_remarks_are_notes_and_hints(tmp_path):
    save_cameras(resolve_path("dolly out 1 m", 9), tmp_path / "path.txt", "tum")
    lines = (tmp_path / "path.txt").read_text().splitlines()
    (tmp_path / "path.txt").write_text("\n".join([*lines[:2], *reversed(lines[2:])]) + "\n")
    read = read_path(tmp_path / "path.txt", options())
    assert read.remarks == (*read.pose_file.notes, *read.hints)
    assert any("do not increase" in remark for remark in read.remarks)


# --- reading again ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("pose_format", FORMATS, ids=lambda pose_format: pose_format.name)
def test_every_format_stores_what_it_says(pose_format):
    said = {"c2w": "camera-to-world", "w2c": "world-to-camera"}[pose_format.stores]
    assert pose_format.convention.startswith(said)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        (name, other)
        for name in ("tum", "tartanair", "transforms_json", "colmap_text", "recammaster", "kitti")
        for other in (
            *(INVERSE, OPENGL, OPENCV, Convention(True, "FLU")),
            *(SCALAR_FIRST, Convention(True, "", "xyzw")),
        )
        if not other.quaternions or format_named(name).quaternions
    ],
    ids=str,
)
def test_reading_again_gives_what_reading_the_file_gives(tmp_path, name, other):
    pose_format = format_named(name)
    first = resolve_path("orbit left 40 deg while rising 1 m", 2).world_from_camera[1]
    path = tmp_path / "path"
    save_cameras(resolve_path(SENTENCES[0], 12).transformed(first), path, name, image_size=(96, 160))
    read = read_pose_file(path)[1].cameras
    again = reread(read, pose_format, AS_IS, other)
    expected = load_cameras(path, convention=other)
    np.testing.assert_allclose(
        again.relative_to(0).world_from_camera, expected.relative_to(0).world_from_camera, atol=1e-9
    )
    back = reread(again, pose_format, other, AS_IS)
    np.testing.assert_allclose(
        back.relative_to(0).world_from_camera, read.relative_to(0).world_from_camera, atol=1e-9
    )


# --- hints -----------------------------------------------------------------------------------------------


def test_scalar_first_is_named_with_what_made_it_likely(tmp_path):
    save_cameras(resolve_path("dolly in 1.5 m", 25), tmp_path / "path.txt", "tum")
    scalar_first(tmp_path / "path.txt")
    hint = hint_of(tmp_path / "path.txt")
    assert tried(hint)[0] == "--quaternions wxyz"
    assert "the first quaternion turns by 180 degrees, but is the identity in the order wxyz" in hint
    assert "or it did move like this" in hint
    assert "a pull-back" not in hint


def test_scalar_last_in_colmap_text_is_named(tmp_path):
    save_cameras(resolve_path("dolly in 1 m", 12), tmp_path / "model", "colmap_text", image_size=(96, 160))
    lines = (tmp_path / "model" / "images.txt").read_text().splitlines()
    for place, line in enumerate(lines):
        words = line.split()
        if len(words) == 10 and line[0] != "#":
            lines[place] = " ".join([words[0], *words[2:5], words[1], *words[5:]])
    (tmp_path / "model" / "images.txt").write_text("\n".join(lines) + "\n")
    assert tried(hint_of(tmp_path / "model"))[0] == "--quaternions xyzw"
    read = read_path(tmp_path / "model", options("--quaternions", "xyzw")).pose_file.cameras
    np.testing.assert_allclose(read.positions[-1], (0, 0, 1), atol=1e-9)


def test_a_pull_back_is_ambiguous_and_said_to_be(tmp_path):
    save_cameras(resolve_path("dolly out 1 m", 25), tmp_path / "path.txt", "kitti")
    hint = hint_of(tmp_path / "path.txt")
    assert "nearly all the way: a pull-back; or " in hint
    assert sorted(tried(hint)) == ["--axes RUB", "--invert"]


def test_inverse_of_an_orbit_around_the_origin_names_invert(tmp_path):
    orbit = resolve_path("orbit left 60 deg around 2.5 m", 40)
    around = orbit.transformed([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, -2.5], [0, 0, 0, 1]])
    save_cameras(around, tmp_path / "orbit.txt", "kitti")
    assert hint_of(tmp_path / "orbit.txt") == ""
    save_cameras(inverse(around), tmp_path / "inverse.txt", "kitti")
    hint = hint_of(tmp_path / "inverse.txt")
    assert "turns on the spot, 2.5 along the z axis of the world" in hint
    assert tried(hint)[0] == "--invert"


def test_opencv_axes_in_transforms_json_are_named(tmp_path):
    # An orbit turns its back to the subject in the wrong axes; a dolly goes backwards.
    for sentence in ("orbit left 60 deg", "dolly in 1 m"):
        meant = resolve_path(sentence, 25)
        path = tmp_path / "transforms.json"
        flip = np.diag([1.0, -1.0, -1.0, 1.0])
        opencv = Cameras(meant.world_from_camera @ flip, meant.intrinsics)  # the writer flips once more
        save_cameras(opencv, path, "transforms_json", image_size=(96, 160))
        assert tried(hint_of(path))[0] == "--axes RDF", sentence
        read = read_path(path, options("--axes", "RDF")).pose_file.cameras
        np.testing.assert_allclose(read.world_from_camera, meant.world_from_camera, atol=1e-9)


def test_real_walks_written_otherwise_are_recognised(test_data):
    right, cases = 0, 0
    for name in ("0bf152ef84195293", "0c11dbe781b1c11c", "0f68374b76390082"):
        walk = read_pose_file(test_data(f"re10k_cameractrl/pose_files/{name}.txt"))[1].cameras
        for format_name, meant, option in (
            ("realestate10k", INVERSE, "--invert"),
            ("realestate10k", OPENGL, "--axes RUB"),
            ("tum", INVERSE, "--invert"),
            ("transforms_json", OPENCV, "--axes RDF"),
        ):
            pose_format = format_named(format_name)
            found = " ".join(hints(reread(walk, pose_format, meant, AS_IS), pose_format))
            right, cases = right + (option in tried(found)), cases + 1
    assert right == cases == 12


def shaken(cameras: Cameras, seed: int) -> Cameras:
    """Every pose but the first with the noise of good estimates: 3 mm and 0.15 degrees."""
    generator = np.random.default_rng(seed)
    poses = np.array(cameras.world_from_camera)
    turns = generator.normal(0, np.radians(0.15), (len(poses) - 1, 3))
    poses[1:, :3, :3] = poses[1:, :3, :3] @ Rotation.from_rotvec(turns).as_matrix()
    poses[1:, :3, 3] += generator.normal(0, 0.003, (len(poses) - 1, 3))
    return Cameras(poses, cameras.intrinsics, cameras.times, cameras.metric)


def first_options(format_name: str, meant: Convention, noisy: bool) -> dict[str, str]:
    """By name of a path: the option that is named first for a file that was written in ``meant``."""
    pose_format, found = format_named(format_name), {}
    for seed, name in enumerate(NAMES):
        path = resolve_path(name, 49)
        file = reread(shaken(path, seed) if noisy else path, pose_format, meant, AS_IS)
        hint = "".join(hint for hint in hints(file, pose_format) if "(try " in hint)
        found[name] = ("pull-back " if "a pull-back" in hint else "") + (*tried(hint), "")[0]
    return found


@pytest.mark.parametrize("noisy", [False, True], ids=["clean", "noisy"])
@pytest.mark.parametrize("name", ["tum", "tartanair", "transforms_json", "realestate10k", "kitti", "colmap"])
def test_no_preset_is_called_misread_but_pull_backs(name, noisy):
    found = {name: option for name, option in first_options(name, AS_IS, noisy).items() if option}
    assert set(found) <= {"dolly_out", "dolly_zoom_out", "spiral_out", "round_zoom_out"}
    assert all(option.startswith("pull-back") for option in found.values())


@pytest.mark.parametrize("noisy", [False, True], ids=["clean", "noisy"])
@pytest.mark.parametrize("name", ["tum", "tartanair"])
def test_every_preset_written_scalar_first_is_recognised(name, noisy):
    assert set(first_options(name, SCALAR_FIRST, noisy).values()) == {"--quaternions wxyz"}


@pytest.mark.parametrize(
    ("name", "meant", "option", "least"),
    [
        ("kitti", INVERSE, "--invert", 6),
        ("realestate10k", INVERSE, "--invert", 6),
        ("kitti", OPENGL, "--axes RUB", 13),
        ("transforms_json", OPENCV, "--axes RDF", 13),
        ("transforms_json", INVERSE, "--invert", 6),
    ],
)
def test_other_conventions_are_listed_where_a_path_can_tell(name, meant, option, least):
    # Of pans, trucks and orbits the inverse is one of the other way: nothing can tell, nothing is said.
    pose_format, listed = format_named(name), 0
    for path in NAMES:
        found = " ".join(hints(reread(resolve_path(path, 49), pose_format, meant, AS_IS), pose_format))
        tries = tried(found)
        assert not tries or option in tries or path.endswith(("out", "1 m")), (path, found)
        assert not (tries and path in ("pan_left", "truck_left"))
        listed += option in tries
    assert listed >= least


def turned(axis: str, degrees: float) -> np.ndarray:
    return Rotation.from_euler(axis, degrees, degrees=True).as_matrix()


def moved(turn, place) -> Cameras:
    """A path of a turn [3, 3] and a place [3] for every moment from 0 to 1."""
    poses = np.tile(np.eye(4), (60, 1, 1))
    for pose, moment in zip(poses, np.linspace(0, 1, 60)):
        pose[:3, :3], pose[:3, 3] = turn(moment), place(moment)
    return Cameras(poses, (0.9, 1.6, 0.5, 0.5))


def on_a_curve(moment: float) -> list[float]:
    return [10 * (1 - np.cos(1.4 * moment)), 0, 10 * np.sin(1.4 * moment)]


ODD_BUT_MEANT = {
    "a dolly with a pan": moved(lambda t: turned("y", 90 * t), lambda t: [0, 0, 2 * t]),
    "a walk that looks around": moved(lambda t: turned("y", 120 * np.sin(5 * t)), lambda t: [0, 0, 4 * t]),
    "a truck that looks away": moved(lambda t: turned("y", 45 * t), lambda t: [2 * t, 0, 0]),
    "a barrel roll": moved(lambda t: turned("z", 200 * t), lambda t: [0, 0, 3 * t]),
    "a side window": moved(lambda t: turned("y", 90 + 80 * t), on_a_curve),
    "a front window": moved(lambda t: turned("y", 80 * t), on_a_curve),
    "a drone that looks down": moved(
        lambda t: turned("x", -90) @ turned("z", 40 * t), lambda t: [2 * t, 0, 8 * t]
    ),
    "a tripod off the origin": moved(lambda t: turned("y", 60 * t), lambda t: [3, 1, 5]),
    "a panorama": moved(lambda t: turned("y", 360 * t), lambda t: [0, 0, 0]),
    "a turntable": moved(
        lambda t: turned("z", 120 * t) @ turned("x", -60),
        lambda t: -(turned("z", 120 * t) @ turned("x", -60))[:, 2] * 3,
    ),
    "a spiral around a lens": moved(
        lambda t: turned("y", 10 * np.cos(12 * t)) @ turned("x", 10 * np.sin(12 * t)),
        lambda t: [0.3 * np.cos(12 * t), 0.3 * np.sin(12 * t), 0.2 * np.sin(6 * t)],
    ),
    "stairs": moved(lambda t: turned("y", 180 * t), lambda t: [np.sin(3 * t), -2 * t, 1 - np.cos(3 * t)]),
}


@pytest.mark.parametrize("name", ["tum", "realestate10k", "transforms_json", "kitti"])
@pytest.mark.parametrize("path", ODD_BUT_MEANT)
def test_unusual_paths_are_not_called_misread(name, path):
    world = np.eye(4)
    world[:3, :3], world[:3, 3] = turned("x", 90) @ turned("z", 35), (4, -2, 1.5)
    for noise in (False, True):
        cameras = shaken(ODD_BUT_MEANT[path], 1) if noise else ODD_BUT_MEANT[path]
        for each in (cameras, cameras.transformed(world)):
            assert not [hint for hint in hints(each, format_named(name)) if "(try " in hint]


def test_backwards_and_outwards_are_said_to_be_ambiguous():
    selfie = moved(lambda t: turned("y", 170 + 30 * np.sin(4 * t)), lambda t: [0, 0, 4 * t])
    assert "nearly all the way: a pull-back; or " in "".join(hints(selfie, format_named("kitti")))
    out = moved(lambda t: turned("y", 90 * t), lambda t: 3 * turned("y", 90 * t)[:, 2])
    assert "its back to it: a camera that looks outwards; or " in "".join(hints(out, format_named("kitti")))


def test_a_shaken_scalar_first_orbit_lists_the_order_of_quaternions_first():
    tum = format_named("tum")
    for seed in range(5):
        orbit = shaken(resolve_path("orbit left 90 deg", 49), seed)
        found = "".join(hints(reread(orbit, tum, SCALAR_FIRST, AS_IS), tum))
        assert tried(found)[0] == "--quaternions wxyz"


def test_an_option_too_many_is_to_be_left_out(tmp_path):
    save_cameras(resolve_path("dolly in 1.5 m", 25), tmp_path / "path.txt", "kitti")
    (hint,) = read_path(tmp_path / "path.txt", options("--invert")).hints
    assert "matrices are camera-to-world (leave --invert out)" in hint
    assert "no option" not in hint
