"""Finding sources: each real file once, companions left out by evidence, and everything said."""

from __future__ import annotations

import os
import shutil

import av
import numpy as np
import pytest
from PIL import Image

from camctrl_jax.data.sources import find_sources
from camctrl_jax.errors import MissingFile
from camctrl_jax.video.encoding import write_mp4
from camctrl_jax.video.pictures import write_png


def write_video(path, value=90):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_mp4(path, np.full((3, 16, 16, 3), value, np.uint8), fps=12)


def write_folder(folder, names=range(4), size=(32, 48), value=60):
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        file = f"{name}" if "." in str(name) else f"{name}.png"
        write_png(folder / file, np.full((*size, 3), value + i, np.uint8))


def write_deep(folder, names=range(4), size=(32, 48)):
    """Pictures of one channel with 16 bits, as depth cameras write them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        with av.open(str(folder / f"{name}.png"), "w", format="image2", options={"update": "1"}) as file:
            stream = file.add_stream("png", rate=1)
            stream.height, stream.width, stream.pix_fmt = *size, "gray16be"
            frame = av.VideoFrame.from_ndarray(np.full(size, 1500, np.uint16), format="gray16le")
            for packet in (*stream.encode(frame.reformat(format="gray16be")), *stream.encode()):
                file.mux(packet)


def taken(root, **options):
    """Names of the sources below the root; of what is left out, why."""
    found = find_sources(root, **options)
    names = [source.relative_to(root).as_posix() for source in found.sources]
    return names, {each.path.removeprefix(f"{root}/"): each.why for each in found.left_out}


def test_a_link_to_a_folder_above_gives_every_video_once(tmp_path):
    root = tmp_path / "videos"
    write_video(root / "inner" / "a.mp4")
    (root / "inner" / "loop").symlink_to(root)
    (root / "inner" / "self").symlink_to(root / "inner")
    (root / "up").symlink_to(tmp_path)
    names, left_out = taken(root)
    assert names == ["inner/a.mp4"]
    assert set(left_out) == {"inner/loop", "inner/self", "up"}
    assert left_out["inner/self"] == f"a link to {root / 'inner'}, which is taken already"
    assert left_out["inner/loop"] == f"a link to {root}, which holds --source"
    assert left_out["up"] == f"a link to {tmp_path}, which holds --source"


def test_one_file_under_several_names_is_taken_once(tmp_path):
    write_video(tmp_path / "z.mp4")
    (tmp_path / "a.mp4").symlink_to("z.mp4")
    os.link(tmp_path / "z.mp4", tmp_path / "zz.mp4")
    write_folder(tmp_path / "walk")
    (tmp_path / "again").symlink_to(tmp_path / "walk")
    (tmp_path / "chosen").mkdir()
    for name in ("1.png", "3.png"):
        (tmp_path / "chosen" / name).symlink_to(tmp_path / "walk" / name)
    names, left_out = taken(tmp_path)
    assert names == ["walk", "z.mp4"]  # under their own names, not those of links
    assert left_out == {
        "a.mp4": f"a link to {tmp_path / 'z.mp4'}, which is taken already",
        "zz.mp4": f"the same file as {tmp_path / 'z.mp4'}, which is taken already",
        "again": f"a link to {tmp_path / 'walk'}, which is taken already",
        "chosen": f"its pictures are links to those of {tmp_path / 'walk'}",
    }


def test_links_out_of_the_folder_are_followed_once(tmp_path):
    write_video(tmp_path / "store" / "a.mp4")
    write_folder(tmp_path / "store" / "walk")
    root = tmp_path / "set"
    root.mkdir()
    for name in ("one", "two"):
        (root / name).symlink_to(tmp_path / "store")
    (root / "b.mp4").symlink_to(tmp_path / "store" / "a.mp4")
    names, left_out = taken(root)
    assert names == ["b.mp4", "one/walk"]
    assert set(left_out) == {"one/a.mp4", "two"}


def test_links_that_lead_nowhere_are_said(tmp_path):
    write_video(tmp_path / "a.mp4")
    for name in ("b.mp4", "walk", "round"):
        (tmp_path / name).symlink_to(tmp_path / ("round" if name == "round" else "gone"))
    found = find_sources(tmp_path)
    assert [(name.rpartition("/")[2], reason) for name, reason, _ in found.broken] == [
        ("b.mp4", "missing"), ("round", "missing"), ("walk", "missing"),
    ]  # fmt: skip
    assert all("which is not there" in message for _, _, message in found.broken)


def test_equal_copies_are_remarked_on_and_taken(tmp_path):
    write_video(tmp_path / "a.mp4", 90)
    write_video(tmp_path / "other.mp4", 91)
    shutil.copy(tmp_path / "a.mp4", tmp_path / "b.mp4")
    write_folder(tmp_path / "walk")
    shutil.copytree(tmp_path / "walk", tmp_path / "walk copy")
    write_folder(tmp_path / "other walk", value=70)
    found = find_sources(tmp_path)
    assert len(found.sources) == 6
    assert found.copies == (
        (tmp_path / "b.mp4", tmp_path / "a.mp4"),
        (tmp_path / "walk copy", tmp_path / "walk"),
    )


def test_reduced_copies_masks_and_depth_of_a_capture_are_left_out(tmp_path):
    for folder, divisor in (("images", 1), ("images_2", 2), ("images_4", 4), ("images_8", 8)):
        write_folder(tmp_path / folder, size=(64 // divisor, 96 // divisor))
    write_folder(tmp_path / "thumbnails", size=(8, 12))
    write_folder(tmp_path / "masks", ["0.png.png", "1.png.png", "3.png.png"], size=(64, 96))
    write_folder(tmp_path / "masks_2", size=(32, 48))
    write_folder(tmp_path / "segmentation", [f"{i}_mask" for i in range(4)], size=(64, 96))
    write_folder(tmp_path / "undistorted" / "images", size=(64, 96))
    write_deep(tmp_path / "sensor", ["d0", "d1"])
    names, left_out = taken(tmp_path)
    assert names == ["images"]
    assert left_out["images_2"] == left_out["thumbnails"] == "the same 4 names as images, smaller"
    assert left_out["masks"] == "the same 3 names of images: drawn for each picture, by its name"
    assert left_out["sensor"] == "one channel of more than 8 bits, as of depth, beside images"
    assert "an undistorted copy" in left_out["undistorted/images"]
    assert set(left_out) == {
        *("images_2", "images_4", "images_8", "thumbnails", "masks", "masks_2", "segmentation", "sensor"),
        "undistorted/images",
    }
    assert len(taken(tmp_path, every_folder=True)[0]) == 10
    assert taken(tmp_path, stills=True)[0] == [f"images/{i}.png" for i in range(4)]
    assert taken(tmp_path / "masks")[0] == ["."]  # named itself, it is what is wanted


@pytest.mark.parametrize(
    ("main", "others"),
    [
        pytest.param("color", ["depth"], id="RGB-D"),
        pytest.param("rgb", ["depth", "normals", "semantic"], id="rendered"),
        pytest.param("input", ["input_seg", "masks_1"], id="splatting"),
        pytest.param("walk", ["walk_mask", "walk-depth"], id="by the name beside it"),
        pytest.param("JPEGImages/480p/bear", ["Annotations/480p/bear"], id="DAVIS"),
        pytest.param("images/left", ["masks/left", "depths/left"], id="folders in folders"),
        pytest.param(
            "keyframes/images", ["keyframes/corrected_images", "keyframes/confidence"], id="Polycam"
        ),
        pytest.param("images_2", ["images_4"], id="originals deleted"),
        pytest.param(".", ["masks"], id="masks below the pictures"),
    ],
)
def test_layouts_of_other_tools(tmp_path, main, others):
    write_folder(tmp_path / main, size=(64, 96))
    for other in others:
        write_folder(tmp_path / other, size=(32, 48))
    names, left_out = taken(tmp_path)
    assert names == [main]
    assert set(left_out) == set(others)


@pytest.mark.parametrize(
    ("one", "other", "size", "names"),
    [
        pytest.param("images", "images_2", (64, 96), range(4), id="as large: another take"),
        pytest.param("images", "images_2", (32, 48), range(4, 9), id="other names, and more of them"),
        pytest.param("images", "images_3", (32, 48), range(4, 8), id="as many, not by that factor"),
        pytest.param("walk", "images_2", (32, 48), range(4, 8), id="as many, of another name"),
        pytest.param("scene_1", "scene_2", (32, 48), range(4), id="smaller scenes by number"),
        pytest.param("walk", "walk_2", (60, 90), range(4), id="smaller, but not by its number"),
        pytest.param("image_0", "image_1", (64, 96), range(4), id="two cameras of KITTI"),
        pytest.param("left", "right", (64, 96), range(4), id="stereo"),
        pytest.param("images", "masks", (64, 96), range(9, 13), id="a video of masks"),
        pytest.param("eva", "sam", (64, 96), range(4), id="a person"),
        pytest.param("scene", "scene_0002", (64, 96), range(4), id="scenes by number"),
        pytest.param("images", "depth of field", (64, 96), range(4), id="a word within a name"),
    ],
)
def test_a_name_alone_is_no_evidence(tmp_path, one, other, size, names):
    write_folder(tmp_path / one, size=(64, 96))
    write_folder(tmp_path / other, names, size=size)
    assert taken(tmp_path) == (sorted([one, other]), {})


def test_a_folder_of_depth_alone_is_taken(tmp_path):
    write_deep(tmp_path / "infrared")
    assert taken(tmp_path) == (["infrared"], {})


def test_hidden_and_system_files_are_no_sources(tmp_path):
    write_video(tmp_path / "a.mp4")
    for name in ("._a.mp4", ".DS_Store", "Thumbs.db", "desktop.ini", ".hidden.png"):
        (tmp_path / name).write_bytes(b"\0\5\26\7")
    for folder in ("__MACOSX", "@eaDir", "#recycle", "lost+found", ".Trash-1000", "$RECYCLE.BIN"):
        write_video(tmp_path / folder / "b.mp4")
    names, left_out = taken(tmp_path)
    assert names == ["a.mp4"]
    assert left_out["._a.mp4"] == left_out[".hidden.png"] == "a hidden file"
    assert left_out["@eaDir"] == "a folder of the system's own"


def test_files_of_kinds_that_are_not_read_are_said(tmp_path):
    write_video(tmp_path / "a.mp4")
    for name in ("b.HEIC", "c.avif", "d.jxl", "e.cr3", "f.mxf", "g.exr"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "notes.txt").write_text("nothing to say about this")
    os.mkfifo(tmp_path / "pipe.mp4")
    names, left_out = taken(tmp_path)
    assert names == ["a.mp4"]
    assert set(left_out) == {"b.HEIC", "c.avif", "d.jxl", "e.cr3", "f.mxf", "g.exr", "pipe.mp4"}
    assert left_out["b.HEIC"] == ".heic is not supported; convert it to PNG, JPEG or MP4"
    (tmp_path / "phone").mkdir()
    (tmp_path / "phone" / "IMG_1.HEIC").write_bytes(b"x")
    with pytest.raises(MissingFile, match=r"IMG_1\.HEIC: \.heic is not supported"):
        find_sources(tmp_path / "phone")


def test_names_of_all_kinds(tmp_path):
    for name in ("A.MP4", "b c.mp4", "\u00fc#1.mp4", "d.e.Mov", "100%.mkv"):
        write_video(tmp_path / "f.mp4")
        (tmp_path / "f.mp4").rename(tmp_path / name)
    write_folder(tmp_path / "walk.png", ["X.PNG"])
    assert taken(tmp_path)[0] == sorted(
        ["A.MP4", "b c.mp4", "\u00fc#1.mp4", "d.e.Mov", "100%.mkv", "walk.png"]
    )


def test_depth_cameras_by_what_they_write(tmp_path):
    """Colour, and 16 bits with other names, as TUM's cameras give; 16 bits of colour are no depth."""
    write_folder(tmp_path / "kinect")
    write_deep(tmp_path / "kinect_z", ["a", "b"])
    (tmp_path / "hdr").mkdir()
    with av.open(str(tmp_path / "hdr" / "0.png"), "w", format="image2", options={"update": "1"}) as file:
        stream = file.add_stream("png", rate=1)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "rgb48be"
        frame = av.VideoFrame.from_ndarray(np.full((32, 48, 3), 90, np.uint8), format="rgb24")
        for packet in (*stream.encode(frame.reformat(format="rgb48be")), *stream.encode()):
            file.mux(packet)
    names, left_out = taken(tmp_path)
    assert names == ["hdr", "kinect"]
    assert set(left_out) == {"kinect_z"}


def write_grey(folder, size=(64, 96)):
    folder.mkdir(parents=True)
    for i in range(4):
        Image.new("L", size[::-1], 40 * i).save(folder / f"{i}.png")


def test_reduced_copies_by_their_number_and_factor(tmp_path):
    """LLFF renumbers what it shrinks."""
    write_folder(tmp_path / "images", [f"IMG_{i}" for i in range(4026, 4030)], size=(64, 96))
    write_folder(tmp_path / "images_4", [f"image{i:03}" for i in range(4)], size=(16, 24))
    assert taken(tmp_path) == (["images"], {"images_4": "as many pictures (4) as images, smaller"})


@pytest.mark.parametrize("name", ["depth_png", "mono_depth", "depth_anything", "seg_masks", "masks_sam2"])
def test_drawings_in_one_channel_by_a_word_of_their_name(tmp_path, name):
    write_folder(tmp_path / "rgb", size=(64, 96))
    write_grey(tmp_path / name)
    names, left_out = taken(tmp_path)
    assert names == ["rgb"]
    assert "the same 4 names of rgb: drawn for each picture, by its name" in left_out[name]


@pytest.mark.parametrize("name", ["rgb_half", "half", "images_512", "rgb_low_res"])
def test_copies_of_half_the_size_by_a_word_of_their_name(tmp_path, name):
    write_folder(tmp_path / "rgb", size=(64, 96))
    write_folder(tmp_path / name, size=(32, 48))
    assert taken(tmp_path) == (["rgb"], {name: "the same 4 names as rgb, smaller"})


def test_what_only_looks_like_a_copy_is_taken_with_a_remark(tmp_path):
    write_folder(tmp_path / "rgb", size=(64, 96))
    write_folder(tmp_path / "tele", size=(64, 96))
    write_folder(tmp_path / "wide", size=(32, 48))
    write_grey(tmp_path / "infrared")
    found = find_sources(tmp_path)
    assert [source.name for source in found.sources] == ["infrared", "rgb", "tele", "wide"]
    told = {folder.name: remark for folder, remark in found.remarks}
    assert set(told) == {"infrared", "wide"}
    assert told["wide"].startswith("the same 4 names as rgb, smaller")
    assert told["infrared"].startswith("the same 4 names as rgb, in one channel")


@pytest.mark.parametrize(
    ("pictures", "left"),
    [
        pytest.param(["thumb.jpg"], ["thumb.jpg"], id="a lone one"),
        pytest.param(["a.jpg", "b.webp"], ["a.jpg", "b.webp"], id="one for each video"),
        pytest.param(["a-poster.png", "b.mp4.jpg", "folder.jpg"], None, id="and one for the folder"),
        pytest.param(["0.jpg", "1.jpg", "2.jpg"], [], id="frames"),
        pytest.param(["a.jpg", "ab.jpg", "c.jpg"], [], id="only one of them named like a video"),
    ],
)
def test_covers_of_videos_are_no_frames(tmp_path, pictures, left):
    write_video(tmp_path / "v" / "a.mp4")
    write_video(tmp_path / "v" / "b.mp4", 120)
    for i, name in enumerate(pictures):
        Image.new("RGB", (48, 32), (40 * i, 0, 0)).save(tmp_path / "v" / name)
    names, left_out = taken(tmp_path)
    left = pictures if left is None else left
    assert names == [*([] if left else ["v"]), "v/a.mp4", "v/b.mp4"]
    assert set(left_out) == {f"v/{name}" for name in left}
    assert len(taken(tmp_path, stills=True)[0]) == 2 + len(pictures)


def test_a_picture_above_other_sources_is_no_frame(tmp_path):
    write_video(tmp_path / "clips" / "a.mp4")
    write_folder(tmp_path, ["cover"])
    assert taken(tmp_path) == (
        ["clips/a.mp4"],
        {"cover.png": "a single picture above other sources (--stills takes pictures)"},
    )
