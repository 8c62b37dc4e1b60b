"""build_dataset videos says what it takes for what, what it leaves out, and what was done to the pictures."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from camctrl_jax.build_dataset.__main__ import main
from camctrl_jax.camera import preset, save_cameras
from camctrl_jax.data.clips import open_clips
from camctrl_jax.video.decoding import read_video
from camctrl_jax.video.encoding import write_mp4
from camctrl_jax.video.pictures import write_png


def write_folder(folder, size=(48, 72), frames=9, value=40):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(frames):
        write_png(folder / f"{i}.png", np.full((*size, 3), value + 10 * i, np.uint8))


def write_video(path, frames=9, value=60):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_mp4(path, np.full((frames, 48, 72, 3), value, np.uint8), fps=12)


def path_of(frames):
    return dataclasses.replace(preset("dolly_in", frames), metric=False)


def build(tmp_path, *options, source="videos"):
    arguments = ["videos", "--source", str(tmp_path / source), "--out", str(tmp_path / "set"), "--overwrite"]
    arguments += ["--height", "32", "--width", "48", "--frames", "9", "--min-frames", "5"]
    assert main([*arguments, "--max-bad-share", "0.8", *options]) == 0
    return list(open_clips(tmp_path / "set")), json.loads((tmp_path / "set" / "report.json").read_text())


def test_what_was_taken_for_what_is_printed_first_and_reported(tmp_path, capsys):
    videos = tmp_path / "videos"
    write_video(videos / "a.mp4")
    write_folder(videos / "walk")
    (tmp_path / "poses").mkdir()
    save_cameras(path_of(9), tmp_path / "poses" / "a.txt")
    (tmp_path / "captions.json").write_text(json.dumps({"a": ["one", "two"]}))
    _, report = build(
        tmp_path, "--poses", str(tmp_path / "poses"), "--captions", str(tmp_path / "captions.json")
    )
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "sources: 1 video, 1 folder of pictures; 1 with a pose file, 1 unlabelled"
    assert told[1] == f"  {videos / 'a.mp4'}: video, poses {tmp_path / 'poses' / 'a.txt'}, 2 captions"
    assert told[2] == f"  {videos / 'walk'}: 9 pictures, unlabelled, no caption"
    assert "labelled: 1 source, 9 frames in clips" in told
    assert report["labelled"] == {"sources": 1, "frames": 9}
    assert report["found"] == [
        {
            "path": str(videos / "a.mp4"),
            "kind": "video",
            "pictures": None,
            "poses": str(tmp_path / "poses" / "a.txt"),
            "captions": 2,
        },
        {
            "path": str(videos / "walk"),
            "kind": "pictures",
            "pictures": 9,
            "poses": None,
            "captions": "no_caption",
        },
    ]


def test_companions_are_left_out_unless_asked_for(tmp_path, capsys):
    write_folder(tmp_path / "capture" / "images")
    write_folder(tmp_path / "capture" / "images_2", size=(24, 36))
    write_folder(tmp_path / "capture" / "masks")
    clips, report = build(tmp_path, source="capture")
    assert [clip.id for clip in clips] == ["images#000000"]
    masks, half = tmp_path / "capture" / "masks", tmp_path / "capture" / "images_2"
    why = "the same 9 names of images: drawn for each picture, by its name"
    assert report["left_out"] == [
        {"path": str(half), "why": "the same 9 names as images, smaller"},
        {"path": str(masks), "why": why},
    ]
    assert f"  {masks}: {why}" in capsys.readouterr().out
    clips, report = build(tmp_path, "--every-folder", source="capture")
    assert [clip.id for clip in clips] == ["images#000000", "images_2#000000", "masks#000000"]
    assert report["left_out"] == []


def test_depth_of_a_real_capture_is_left_out(test_data, tmp_path):
    (tmp_path / "videos").symlink_to(test_data("open3d_rgbd/color").parent)
    clips, report = build(tmp_path, "--frames", "5")
    assert [clip.id for clip in clips] == ["color#000000"]
    assert [each["path"].rpartition("/")[2] for each in report["left_out"]] == ["depth"]


def test_broken_links_are_skipped_counted_and_listed(tmp_path):
    write_video(tmp_path / "videos" / "a.mp4")
    for name in ("b.mp4", "walk"):
        (tmp_path / "videos" / name).symlink_to(tmp_path / "gone")
    _, report = build(tmp_path)
    assert report["sources"] == {"used": 1, "skipped": 2}
    assert report["skipped_by_reason"] == {"missing": 2}
    assert [skipped["clip"].rpartition("/")[2] for skipped in report["skipped"]] == ["b.mp4", "walk"]


def test_one_video_behind_a_circle_of_links_is_one_clip(tmp_path, capsys):
    write_video(tmp_path / "videos" / "a.mp4")
    (tmp_path / "videos" / "loop").symlink_to(tmp_path / "videos")
    clips, report = build(tmp_path)
    assert [clip.id for clip in clips] == ["a.mp4#000000"]
    (left_out,) = report["left_out"]
    assert left_out["path"].endswith("loop")
    assert "left out: 1" in capsys.readouterr().out


def test_equal_copies_are_taken_with_a_remark(tmp_path, capsys):
    write_video(tmp_path / "videos" / "a.mp4")
    shutil.copy(tmp_path / "videos" / "a.mp4", tmp_path / "videos" / "b.mp4")
    clips, report = build(tmp_path)
    assert len(clips) == 2
    first, copy = (str(tmp_path / "videos" / name) for name in ("a.mp4", "b.mp4"))
    assert report["equal_copies"] == [{"path": copy, "same_as": first}]
    assert f"{copy}: the same bytes as {first}" in capsys.readouterr().out


def test_hidden_files_do_not_spoil_a_folder_of_pictures(tmp_path):
    write_folder(tmp_path / "videos" / "walk")
    for name in ("._0.png", "._10.png", ".DS_Store"):
        (tmp_path / "videos" / "walk" / name).write_bytes(b"\0\5\26\7\0\2\0\0")
    clips, report = build(tmp_path)
    assert [clip.id for clip in clips] == ["walk#000000"]
    levels = read_video(clips[0].video).astype(float).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(levels, 40 + 10 * np.arange(9), atol=3)
    assert report["sources"] == {"used": 1, "skipped": 0}


def test_remarks_on_media_are_counted_by_kind(tmp_path, capsys):
    for name in "ab":
        folder = tmp_path / "videos" / name
        folder.mkdir(parents=True)
        for i in range(9):
            Image.new("RGBA", (72, 48), (200, 20, 20, 0 if i % 2 else 255)).save(folder / f"{i}.png")
    write_folder(tmp_path / "videos" / "plain")
    clips, report = build(tmp_path)
    (remark,) = report["remarks"]
    assert remark["remark"] == "transparent parts are shown on white"
    assert remark["sources"] == [str(tmp_path / "videos" / name) for name in "ab"]
    told = capsys.readouterr().out
    assert f"remark on 2 sources, such as {tmp_path / 'videos' / 'a'}: transparent parts are shown" in told
    levels = read_video(clips[0].video).astype(float).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(levels, [80, 255] * 4 + [80], atol=3)


@pytest.mark.parametrize("poses", [True, False])
def test_a_source_that_breaks_off_says_what_is_kept_of_it(tmp_path, capsys, poses):
    """The damage shows only while decoding: the clips before it are there, and counted as they are."""
    write_folder(tmp_path / "videos" / "walk", frames=20, value=10)
    picture = tmp_path / "videos" / "walk" / "15.png"
    picture.write_bytes(picture.read_bytes()[:30])
    (tmp_path / "poses").mkdir()
    save_cameras(path_of(20), tmp_path / "poses" / "walk.txt")
    write_video(tmp_path / "videos" / "z.mp4")
    clips, report = build(tmp_path, *(["--poses", str(tmp_path / "poses")] * poses))
    assert [clip.id for clip in clips] == ["walk#000000", "z.mp4#000000"]
    (skipped,) = report["skipped"]
    assert skipped["message"].endswith("The 1 clip before that is kept.")
    assert report["labelled"] == {"sources": int(poses), "frames": 9 * poses}
    assert report["totals"] == {"clips": 2, "frames": 18, "labelled": int(poses)}


def test_long_lists_are_cut_short_on_the_terminal_only(tmp_path, capsys):
    for i in range(11):
        write_video(tmp_path / "videos" / f"{i}.mp4", value=40 + i)
    _, report = build(tmp_path)
    told = capsys.readouterr().out
    assert "  and 3 more sources; report.json lists all" in told
    assert len(report["found"]) == 11


def test_masks_and_depth_among_the_pictures_are_remarked_on(tmp_path):
    write_folder(tmp_path / "videos" / "test")
    for name in ("r_0", "r_0_depth_0001", "r_0_normal_0001", "label_1"):
        write_png(tmp_path / "videos" / "test" / f"{name}.png", np.zeros((48, 72, 3), np.uint8))
    write_folder(tmp_path / "videos" / "plain")
    _, report = build(tmp_path)
    (remark,) = report["remarks"]
    assert "(r_0_depth_0001.png of r_0.png): move them" in remark["remark"]
    assert remark["sources"] == [str(tmp_path / "videos" / "test")]


def test_where_no_source_can_be_used_the_message_says_why(tmp_path, capsys):
    write_video(tmp_path / "videos" / "a.mp4", frames=3)
    write_video(tmp_path / "videos" / "b.mp4", frames=2)
    (tmp_path / "videos" / "c.mp4").write_bytes(b"no video")
    arguments = ["videos", "--source", tmp_path / "videos", "--out", tmp_path / "set", "--max-bad-share", "1"]
    assert main([*map(str, arguments)]) == 1
    told = capsys.readouterr().err
    assert "no usable clip was found" in told
    assert "2 too_short, 1 unreadable" in told
    assert f"{tmp_path / 'videos' / 'a.mp4'}: 3 frames at 12 fps; a clip needs at least 17." in told
    assert f"{tmp_path / 'videos' / 'c.mp4'}" in told


def test_numbers_on_the_terminal_agree_with_their_nouns(tmp_path, capsys):
    write_video(tmp_path / "videos" / "a.mp4")
    (tmp_path / "videos" / "b.mp4").symlink_to(tmp_path / "gone")
    build(tmp_path)
    told = capsys.readouterr().out
    assert "1 clip (0 labelled, 9 frames) in" in told
    assert "s, 1 source skipped: 1 missing" in told


def test_a_cover_beside_a_video_is_listed_and_costs_nothing(tmp_path):
    write_video(tmp_path / "videos" / "clip.mp4")
    Image.new("RGB", (48, 32)).save(tmp_path / "videos" / "thumb.jpg")
    clips, report = build(tmp_path, "--max-bad-share", "0")
    assert [clip.id for clip in clips] == ["clip.mp4#000000"]
    assert [each["path"] for each in report["left_out"]] == [str(tmp_path / "videos" / "thumb.jpg")]


def test_folders_that_look_like_copies_are_remarked_on(tmp_path):
    write_folder(tmp_path / "videos" / "rgb")
    write_folder(tmp_path / "videos" / "wide", size=(24, 36))
    clips, report = build(tmp_path)
    assert len(clips) == 2
    (told,) = [each for each in report["remarks"] if "smaller" in each["remark"]]
    assert told["sources"] == [str(tmp_path / "videos" / "wide")]
