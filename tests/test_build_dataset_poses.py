"""build_dataset --poses: every picture meets its own pose, whatever the order and the names."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from camctrl_jax.build_dataset.__main__ import main
from camctrl_jax.camera import Cameras, preset, save_cameras
from camctrl_jax.camera.framing import Framing
from camctrl_jax.data.clips import open_clips
from camctrl_jax.video.decoding import read_video
from camctrl_jax.video.encoding import write_mp4
from camctrl_jax.video.pictures import write_png

SIZE = ["--height", "32", "--width", "48", "--crf", "0"]
FRAMES = 24
HEIGHT, WIDTH = 48, 72
NAMES = [f"frame_{i}.png" for i in range(FRAMES)]
NAMED_FORMATS = [
    ("transforms_json", "poses.json"),
    ("colmap_text", "model"),
    ("colmap", "model"),
    ("opensfm", "sfm.json"),
]


def path_of(frames: int = FRAMES) -> Cameras:
    """Every pose and every focal length differs from those of all other frames."""
    cameras = dataclasses.replace(preset("orbit_left", frames), metric=False)
    intrinsics = np.array(cameras.intrinsics)
    intrinsics[:, 0] += 0.01 * np.arange(frames)
    return dataclasses.replace(cameras, intrinsics=intrinsics, times=None)


def grey(number: int) -> int:
    return 30 + 8 * number


def write_pictures(folder, names=NAMES, numbers=None, suffix=""):
    """Pictures whose grey level tells the number of their frame."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in zip(numbers or range(len(names)), names):
        write_png(folder / (name + suffix), np.full((HEIGHT, WIDTH, 3), grey(number), np.uint8))


def write_poses(path, format, names=NAMES, numbers=None, order=None):
    """The poses of the numbered frames under the given names, in another order than that of the names."""
    numbers = list(numbers or range(len(names)))
    order = np.random.default_rng(3).permutation(len(numbers)) if order is None else np.asarray(order)
    shuffled = path_of()[np.array(numbers)[order]]
    save_cameras(shuffled, path, format, image_size=(HEIGHT, WIDTH), names=[names[i] for i in order])


def build(tmp_path, source, poses, *options, expected=0):
    """The clips and the report of a build; all the options that there are behind the paths."""
    out = tmp_path / "set"
    arguments = ["videos", "--source", str(source), "--poses", str(poses), "--out", str(out), *SIZE]
    arguments += ["--frames", "9", "--min-frames", "5", "--max-bad-share", "0.9", "--overwrite", *options]
    assert main(arguments) == expected
    if expected:
        return None, json.loads((tmp_path / "set.failed.json").read_text())
    return list(open_clips(out)), json.loads((out / "report.json").read_text())


def numbers_of(clip):
    """Which frames a clip shows, by their grey."""
    levels = read_video(clip.video).astype(float).mean(axis=(1, 2, 3))
    numbers = np.rint((levels - grey(0)) / 8).astype(int)
    np.testing.assert_allclose(levels, grey(numbers), atol=2)
    return numbers


def check_every_pose(clips):
    """Every frame of every clip has the pose and the intrinsics of the picture that it shows."""
    path, framing = path_of(), Framing.cover((HEIGHT, WIDTH), (32, 48))
    for clip in clips:
        own = path[numbers_of(clip)]
        np.testing.assert_allclose(clip.cameras.world_from_camera, own.world_from_camera, atol=1e-6)
        np.testing.assert_allclose(clip.cameras.intrinsics, framing.intrinsics(own.intrinsics), atol=1e-6)


@pytest.mark.parametrize(("format", "file"), NAMED_FORMATS)
def test_shuffled_poses_meet_their_own_pictures(tmp_path, format, file):
    write_pictures(tmp_path / "walk")
    write_poses(tmp_path / file, format)
    clips, report = build(tmp_path, tmp_path / "walk", tmp_path / file)
    assert [list(numbers_of(clip)) for clip in clips] == [
        list(range(9)), list(range(9, 18)), list(range(18, 23)),
    ]  # fmt: skip
    check_every_pose(clips)
    assert report["pictures_without_pose"] == report["poses_without_picture"] == {}
    assert report["labelled"] == {"sources": 1, "frames": 23}


@pytest.mark.parametrize(
    ("names", "files"),
    [
        pytest.param([f"./train/frame_{i}" for i in range(FRAMES)], NAMES, id="NeRF leaves the suffix out"),
        pytest.param([f"frame_{i}.jpg" for i in range(FRAMES)], NAMES, id="run on .jpg"),
        pytest.param([f"FRAME_{i}.PNG" for i in range(FRAMES)], NAMES, id="capitals"),
        pytest.param([f"C:\\walk\\frame_{i}.png" for i in range(FRAMES)], NAMES, id="Windows"),
        pytest.param(
            [f"weg \u00fc#{i}.png" for i in range(FRAMES)],
            [f"weg u\u0308#{i}.PNG" for i in range(FRAMES)],
            id="macOS, spaces, signs",
        ),
    ],
)
def test_names_of_other_tools(tmp_path, names, files):
    write_pictures(tmp_path / "my walk #1", files)
    write_poses(tmp_path / "poses.json", "transforms_json", names)
    clips, _ = build(tmp_path, tmp_path / "my walk #1", tmp_path / "poses.json")
    assert sum(clip.num_frames for clip in clips) == 23
    check_every_pose(clips)


def test_pictures_without_a_pose_are_in_no_clip_and_listed(tmp_path, capsys):
    write_pictures(tmp_path / "walk")
    kept = [i for i in range(FRAMES) if i not in (6, 7, 20)]
    write_poses(tmp_path / "model", "colmap", [NAMES[i] for i in kept], kept)
    clips, report = build(tmp_path, tmp_path / "walk", tmp_path / "model")
    # Runs of 6, 12 and 3: one clip of 5, one of 9; 3 are left there, and 3 of the last run.
    assert [list(numbers_of(clip)) for clip in clips] == [list(range(5)), list(range(8, 17))]
    assert [clip.id for clip in clips] == ["walk#000000", "walk#000008"]
    check_every_pose(clips)
    walk = str(tmp_path / "walk")
    assert report["pictures_without_pose"] == {walk: ["frame_6.png", "frame_7.png", "frame_20.png"]}
    assert report["totals"] == {"clips": 2, "frames": 14, "labelled": 2}
    assert "pictures without a pose, in no clip: 3, of 1 source;" in capsys.readouterr().out


def test_no_run_that_is_long_enough_says_how_many_have_no_pose(tmp_path):
    write_pictures(tmp_path / "walk")
    kept = [i for i in range(FRAMES) if i % 4]
    write_poses(tmp_path / "model", "colmap", [NAMES[i] for i in kept], kept)
    _, report = build(tmp_path, tmp_path / "walk", tmp_path / "model", expected=1)
    (skipped,) = report["skipped"]
    assert skipped["reason"] == "too_short"
    assert "3 frames at 12 fps in a row with a pose; 6 of its 24 pictures have none" in skipped["message"]
    assert "'frame_0.png'" in skipped["message"]
    assert "at least 5" in skipped["message"]


def test_poses_of_pictures_that_are_not_there_are_listed(tmp_path, capsys):
    numbers = [i for i in range(FRAMES) if i not in (3, 11)]
    write_pictures(tmp_path / "walk", [NAMES[i] for i in numbers], numbers)
    write_poses(tmp_path / "sfm.json", "opensfm")
    clips, report = build(tmp_path, tmp_path / "walk", tmp_path / "sfm.json")
    # No clip goes on across a gap: runs of 3, 7 and 12.
    assert [list(numbers_of(clip)) for clip in clips] == [list(range(4, 9)), list(range(12, 21))]
    check_every_pose(clips)
    assert report["poses_without_picture"] == {str(tmp_path / "sfm.json"): ["frame_3.png", "frame_11.png"]}
    assert "poses without a picture: 2;" in capsys.readouterr().out


def test_every_second_picture_of_those_with_poses_is_no_gap_but_more_is(tmp_path):
    numbers = [i for i in range(0, FRAMES, 2) if i != 12]
    write_pictures(tmp_path / "walk", [NAMES[i] for i in numbers], numbers)
    write_poses(tmp_path / "model", "colmap")
    clips, _ = build(tmp_path, tmp_path / "walk", tmp_path / "model")
    assert [list(numbers_of(clip)) for clip in clips] == [[0, 2, 4, 6, 8], [14, 16, 18, 20, 22]]
    check_every_pose(clips)


def test_missing_pictures_are_the_reason_where_no_run_is_long_enough(tmp_path):
    numbers = [i for i in range(FRAMES) if i % 4]
    write_pictures(tmp_path / "walk", [NAMES[i] for i in numbers], numbers)
    write_poses(tmp_path / "model", "colmap")
    _, report = build(tmp_path, tmp_path / "walk", tmp_path / "model", expected=1)
    (skipped,) = report["skipped"]
    assert (
        "3 frames at 12 fps; by the poses in between, pictures are missing in 5 places" in skipped["message"]
    )


def test_the_rate_of_pictures_is_kept_where_some_are_left_out(tmp_path):
    write_pictures(tmp_path / "walk")
    kept = [i for i in range(FRAMES) if i not in (1, 12)]  # of every second one only 12 is lacking
    write_poses(tmp_path / "model", "colmap", [NAMES[i] for i in kept], kept)
    clips, report = build(tmp_path, tmp_path / "walk", tmp_path / "model", "--image-fps", "24")
    # At 12 frames per second these are the pictures 0, 2, 4, ...; a run of 6, one of 5.
    assert [list(numbers_of(clip)) for clip in clips] == [[0, 2, 4, 6, 8], [14, 16, 18, 20, 22]]
    check_every_pose(clips)
    assert list(report["pictures_without_pose"].values()) == [["frame_1.png", "frame_12.png"]]


def test_clips_that_overlap_stay_within_their_run(tmp_path):
    write_pictures(tmp_path / "walk")
    kept = [i for i in range(FRAMES) if i != 13]
    write_poses(tmp_path / "model", "colmap", [NAMES[i] for i in kept], kept)
    clips, _ = build(tmp_path, tmp_path / "walk", tmp_path / "model", "--stride", "4")
    assert [numbers_of(clip)[0] for clip in clips] == [0, 4, 14]
    assert [13 in numbers_of(clip) for clip in clips] == [False] * 3
    check_every_pose(clips)


def test_no_name_in_common_shows_one_of_each(tmp_path):
    write_pictures(tmp_path / "walk")
    write_poses(tmp_path / "model", "colmap", [f"cam0/{i:04d}.jpg" for i in range(FRAMES)])
    _, report = build(tmp_path, tmp_path / "walk", tmp_path / "model", expected=1)
    (skipped,) = report["skipped"]
    assert skipped["reason"] == "pose_names"
    assert "'frame_0.png'" in skipped["message"]
    assert "'cam0/0000.jpg'" in skipped["message"]


def test_two_poses_for_one_picture_are_named(tmp_path):
    write_pictures(tmp_path / "walk")
    names = [f"{side}/frame_{i}.png" for side in ("left", "right") for i in range(12)]
    write_poses(tmp_path / "model", "colmap", names)
    _, report = build(tmp_path, tmp_path / "walk", tmp_path / "model", expected=1)
    (skipped,) = report["skipped"]
    assert skipped["reason"] == "ambiguous_poses"
    assert "'left/frame_0.png' and 'right/frame_0.png'" in skipped["message"]


def test_one_model_serves_the_folders_of_several_cameras(tmp_path):
    names = [f"{side}/{i}.png" for side in ("left", "right") for i in range(12)]
    write_pictures(tmp_path / "capture" / "images" / "left", [f"{i}.png" for i in range(12)])
    right = range(12, 24)
    write_pictures(tmp_path / "capture" / "images" / "right", [f"{i}.png" for i in range(12)], right)
    for file, format in (("poses.json", "transforms_json"), ("sparse/0", "colmap_text")):
        write_poses(tmp_path / "capture" / file, format, names)
        clips, report = build(tmp_path, tmp_path / "capture" / "images", tmp_path / "capture" / file)
        assert [clip.id for clip in clips] == ["left#000000", "right#000000"]
        assert [list(numbers_of(clip)) for clip in clips] == [list(range(9)), list(range(12, 21))]
        check_every_pose(clips)
        assert report["poses_without_picture"] == {}
    # The same by its folder, where the pictures are below it.
    clips, _ = build(tmp_path, tmp_path / "capture", tmp_path / "capture" / "sparse")
    assert [clip.id for clip in clips] == ["images/left#000000", "images/right#000000"]
    check_every_pose(clips)


def test_single_pictures_take_their_poses_by_name(tmp_path):
    write_pictures(tmp_path / "walk")
    write_poses(tmp_path / "poses.json", "transforms_json")
    clips, _ = build(tmp_path, tmp_path / "walk", tmp_path / "poses.json", "--stills")
    assert len(clips) == FRAMES
    check_every_pose(clips)


def test_single_pictures_without_a_pose_are_listed_and_are_no_damage(tmp_path):
    """As pictures that COLMAP did not register are in a folder."""
    write_pictures(tmp_path / "walk")
    known = NAMES[3:8]
    write_poses(tmp_path / "poses.json", "transforms_json", known, range(3, 8))
    clips, report = build(
        tmp_path, tmp_path / "walk", tmp_path / "poses.json", "--stills", "--max-bad-share", "0"
    )
    assert len(clips) == 5
    check_every_pose(clips)
    (missing,) = report["pictures_without_pose"].values()
    assert len(missing) == FRAMES - 5
    assert report["sources"] == {"used": 5, "skipped": 0}
    # None at all is another matter.
    write_poses(tmp_path / "poses.json", "transforms_json", ["x.png", "y.png"], range(2))
    _, report = build(tmp_path, tmp_path / "walk", tmp_path / "poses.json", "--stills", expected=1)
    assert report["skipped_by_reason"] == {"pose_names": FRAMES}


def test_one_file_without_names_does_not_serve_several_folders(tmp_path, capsys):
    for folder in "ab":
        write_pictures(tmp_path / "walks" / folder)
    write_poses(tmp_path / "walk.txt", "realestate10k")
    assert main(["videos", "--source", str(tmp_path / "walks"), "--poses", str(tmp_path / "walk.txt"),
                 "--out", str(tmp_path / "set"), *SIZE]) == 1  # fmt: skip
    assert "walk.txt is one file, but" in capsys.readouterr().err


def test_a_capture_folder_as_it_is(tmp_path):
    """transforms.json beside images, images_2 and masks: poses belong to the images."""
    capture = tmp_path / "capture"
    write_pictures(capture / "images")
    for i, name in enumerate(NAMES):
        for folder in ("images_2", "masks"):
            (capture / folder).mkdir(exist_ok=True)
            write_png(capture / folder / name, np.full((HEIGHT // 2, WIDTH // 2, 3), grey(i), np.uint8))
    write_poses(capture / "transforms.json", "transforms_json", [f"images/{name}" for name in NAMES])
    for poses in (capture / "transforms.json", capture):
        clips, report = build(tmp_path, capture, poses)
        assert {clip.id.split("#")[0] for clip in clips} == {"images"}
        check_every_pose(clips)
        assert [row["poses"] for row in report["found"]] == [str(poses)]


def test_a_pose_file_for_each_folder_pairs_by_name(tmp_path):
    for folder in "ab":
        write_pictures(tmp_path / "walks" / folder)
        (tmp_path / "poses").mkdir(exist_ok=True)
        write_poses(tmp_path / "poses" / f"{folder}.json", "transforms_json")
    clips, report = build(tmp_path, tmp_path / "walks", tmp_path / "poses")
    check_every_pose(clips)
    assert report["labelled"]["sources"] == 2


def test_a_video_takes_named_poses_in_the_order_of_the_names(tmp_path):
    video = np.stack([np.full((HEIGHT, WIDTH, 3), grey(i), np.uint8) for i in range(FRAMES)])
    write_mp4(tmp_path / "walk.mp4", video, fps=12, crf=0)
    write_poses(tmp_path / "poses.json", "transforms_json")
    clips, report = build(tmp_path, tmp_path / "walk.mp4", tmp_path / "poses.json")
    check_every_pose(clips)
    (remark,) = [each for each in report["remarks_on_poses"] if "is a video" in each]
    assert "from 'frame_0.png' to 'frame_23.png'" in remark
    write_poses(tmp_path / "poses.json", "transforms_json", NAMES[1:], range(1, FRAMES))
    _, report = build(tmp_path, tmp_path / "walk.mp4", tmp_path / "poses.json", expected=1)
    assert report["skipped_by_reason"] == {"pose_count": 1}


def test_poses_without_names_pair_by_position(tmp_path):
    write_pictures(tmp_path / "walk")
    save_cameras(path_of(), tmp_path / "walk.txt", "realestate10k")
    clips, _ = build(tmp_path, tmp_path / "walk", tmp_path / "walk.txt")
    check_every_pose(clips)
    save_cameras(path_of()[:20], tmp_path / "walk.txt", "realestate10k")
    _, report = build(tmp_path, tmp_path / "walk", tmp_path / "walk.txt", expected=1)
    assert "24 frames, but 20 poses" in report["skipped"][0]["message"]


@pytest.mark.parametrize(
    ("change", "options"),
    [
        pytest.param(
            lambda path: dataclasses.replace(path, world_from_camera=path.camera_from_world),
            ["--invert"],
            id="invert",
        ),
        pytest.param(
            lambda path: dataclasses.replace(
                path, world_from_camera=path.world_from_camera @ np.diag([1.0, -1.0, -1.0, 1.0])
            ),
            ["--axes", "RUB"],
            id="axes",
        ),
        pytest.param(lambda path: path, ["--from", "realestate10k"], id="from"),
    ],
)
def test_pose_files_are_read_as_asked_for(tmp_path, change, options):
    write_pictures(tmp_path / "walk")
    save_cameras(change(path_of()), tmp_path / "walk.txt", "realestate10k")
    clips, report = build(tmp_path, tmp_path / "walk", tmp_path / "walk.txt", *options)
    path = path_of()
    for clip in clips:
        own = path[numbers_of(clip)]
        relative = np.linalg.inv(own.world_from_camera[0]) @ own.world_from_camera
        found = np.linalg.inv(clip.cameras.world_from_camera[0]) @ clip.cameras.world_from_camera
        np.testing.assert_allclose(found, relative, atol=1e-6)
    assert report["settings"]["reading"]["convention"]["inverse"] == ("--invert" in options)


def test_scalar_first_quaternions(tmp_path):
    write_pictures(tmp_path / "walk")
    save_cameras(path_of(), tmp_path / "walk.txt", "tum")
    rows = [line.split() for line in (tmp_path / "walk.txt").read_text().splitlines() if line[:1] != "#"]
    (tmp_path / "walk.txt").write_text(
        "".join(" ".join([*row[:4], row[7], *row[4:7]]) + "\n" for row in rows)
    )
    clips, _ = build(tmp_path, tmp_path / "walk", tmp_path / "walk.txt", "--quaternions", "wxyz")
    for clip in clips:
        own = path_of()[numbers_of(clip)]
        np.testing.assert_allclose(clip.cameras.world_from_camera, own.world_from_camera, atol=1e-6)


def test_pixels_of_a_size_that_is_told(tmp_path):
    write_pictures(tmp_path / "walk")
    path = path_of()
    pixels = path.intrinsics * (2 * WIDTH, 2 * HEIGHT, 2 * WIDTH, 2 * HEIGHT)
    save_cameras(dataclasses.replace(path), tmp_path / "walk.txt", "realestate10k")
    lines = (tmp_path / "walk.txt").read_text().splitlines()
    rows = [line.split() for line in lines[1:]]
    for row, values in zip(rows, pixels):
        row[1:5] = map(repr, values.tolist())
    (tmp_path / "walk.txt").write_text("\n".join([lines[0], *map(" ".join, rows)]) + "\n")
    size = f"{2 * HEIGHT}x{2 * WIDTH}"
    clips, _ = build(tmp_path, tmp_path / "walk", tmp_path / "walk.txt", "--image-size", size)
    check_every_pose(clips)


@pytest.mark.parametrize("format", ["colmap", "colmap_text"])
@pytest.mark.parametrize("poses", ["sparse/0", "sparse", "."])
def test_a_model_beside_the_pictures(tmp_path, monkeypatch, format, poses):
    """The model's own files are called images and cameras, too: they are no pose files of a folder images."""
    write_pictures(tmp_path / "desk" / "images")
    write_poses(tmp_path / "desk" / "sparse" / "0", format)
    monkeypatch.chdir(tmp_path / "desk")
    clips, report = build(tmp_path, ".", poses)
    assert [clip.id for clip in clips] == ["images#000000", "images#000009", "images#000018"]
    check_every_pose(clips)
    assert report["annotations_without_video"] == []


def test_poses_among_the_pictures(tmp_path):
    write_pictures(tmp_path / "walk")
    write_poses(tmp_path / "walk" / "transforms.json", "transforms_json")
    for poses in (tmp_path / "walk", tmp_path / "walk" / "transforms.json"):
        clips, _ = build(tmp_path, tmp_path / "walk", poses)
        check_every_pose(clips)


def test_one_camera_of_a_file_with_several(tmp_path):
    write_pictures(tmp_path / "walk")
    metric = dataclasses.replace(path_of(), metric=True)
    save_cameras(metric, tmp_path / "cameras.json", "recammaster")
    clips, _ = build(tmp_path, tmp_path / "walk", f"{tmp_path / 'cameras.json'}#cam01")
    for clip in clips:
        own = path_of()[numbers_of(clip)]
        np.testing.assert_allclose(clip.cameras.world_from_camera, own.world_from_camera, atol=1e-4)
    _, report = build(tmp_path, tmp_path / "walk", f"{tmp_path / 'cameras.json'}#cam07", expected=1)
    assert report["skipped_by_reason"] == {"bad_pose": 1}


def test_folders_of_one_name_below_folders(tmp_path):
    """a/walk and b/walk, each with its file in the same place below the poses."""
    for side, numbers in (("a", range(12)), ("b", range(12, 24))):
        write_pictures(tmp_path / "walks" / side / "walk", NAMES[:12], numbers)
        (tmp_path / "poses" / side).mkdir(parents=True)
        write_poses(tmp_path / "poses" / side / "walk.json", "transforms_json", NAMES[:12], numbers)
    clips, _ = build(tmp_path, tmp_path / "walks", tmp_path / "poses")
    assert [clip.id for clip in clips] == ["a/walk#000000", "b/walk#000000"]
    assert [numbers_of(clip)[0] for clip in clips] == [0, 12]
    check_every_pose(clips)


def test_a_model_of_half_the_pictures_and_of_others(tmp_path):
    """Missing and extra at once, and a picture whose name is a part of another's."""
    write_pictures(tmp_path / "walk")
    names = [*NAMES[:9], "frame_1.5.png", "frame_01.png", "x/other.png"]
    write_poses(tmp_path / "model", "colmap", names, [*range(9), 20, 21, 22])
    clips, report = build(tmp_path, tmp_path / "walk", tmp_path / "model")
    assert [list(numbers_of(clip)) for clip in clips] == [list(range(9))]
    check_every_pose(clips)
    assert list(report["pictures_without_pose"].values()) == [NAMES[9:]]
    (lone,) = report["poses_without_picture"].values()
    assert set(lone) == set(names[9:])
