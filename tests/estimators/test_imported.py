"""Results that a user has: every format right, every mismatch refused with the numbers in the message."""

import struct

import colmap_files
import numpy as np
import pytest

from camctrl_jax.camera import Cameras, preset, save_cameras
from camctrl_jax.errors import InvalidValue, MissingFile
from camctrl_jax.estimators.histograms import HistogramEmbedder
from camctrl_jax.estimators.imported import (
    ImportedDepth,
    ImportedEmbeddings,
    ImportedFlow,
    ImportedMasks,
    ImportedPoints,
    ImportedPoses,
    ImportedVideoFeatures,
)
from camctrl_jax.estimators.protocols import EstimatorFailed, for_clip
from camctrl_jax.video.greys import read_grey
from camctrl_jax.video.pictures import write_png


@pytest.fixture
def frames():
    return np.zeros((3, 40, 64, 3), np.uint8)


FORMATS = ("realestate10k", "tum", "transforms_json", "colmap", "colmap_text", "opensfm")


@pytest.mark.parametrize("pose_format", FORMATS)
def test_poses_of_any_format(frames, tmp_path, pose_format):
    turns = np.radians([0.0, 3.0, 7.0])
    poses = np.tile(np.eye(4), (3, 1, 1))
    poses[:, 0, 0] = poses[:, 2, 2] = np.cos(turns)
    poses[:, 0, 2], poses[:, 2, 0] = np.sin(turns), -np.sin(turns)
    poses[:, :3, 3] = [[0, 0, 0], [0.1, 0, 0.5], [0.3, -0.1, 1.0]]
    cameras = Cameras(poses, np.array([0.6, 0.96, 0.5, 0.5]), np.arange(3.0))
    suffix = {"realestate10k": ".txt", "tum": ".txt", "transforms_json": ".json", "opensfm": ".json"}
    path = tmp_path / f"poses{suffix.get(pose_format, '')}"
    save_cameras(cameras, path, pose_format, image_size=(40, 64))
    result = ImportedPoses(path).reconstruct(frames)
    assert result.succeeded
    relative = result.cameras().relative_to(0).world_from_camera
    np.testing.assert_allclose(relative, cameras.world_from_camera, atol=1e-5)
    assert not result.metric
    assert ImportedPoses(path, metric=True).reconstruct(frames).metric


def test_a_binary_colmap_model_is_read_whole(frames, tmp_path):
    colmap_files.small_model(tmp_path / "sparse" / "0")
    colmap_files.check_small_model(ImportedPoses(tmp_path).reconstruct(frames))


@pytest.mark.parametrize(("first", "left_out"), [(0, (1,)), (0, (2,)), (1, (0,)), (1, (1,))])
def test_missing_frames_are_told_by_names_that_count_from_0_or_1(frames, tmp_path, first, left_out):
    names = [f"frame_{i + first}.jpg" for i in range(3)]
    colmap_files.small_model(tmp_path, names="frame_{:d}.jpg", left_out=left_out)
    data = (tmp_path / "images.bin").read_bytes()
    for index in (2, 1, 0):
        data = data.replace(f"frame_{index}.jpg".encode(), names[index].encode())
    (tmp_path / "images.bin").write_bytes(data)
    colmap_files.check_small_model(ImportedPoses(tmp_path).reconstruct(frames), left_out=left_out)


def test_names_that_could_count_from_either_are_refused_unless_they_are_given(frames, tmp_path):
    colmap_files.small_model(tmp_path, names="frame_{:d}.jpg", left_out=(0,))
    with pytest.raises(InvalidValue, match=r"numbered 1 to 2.*give names="):
        ImportedPoses(tmp_path).reconstruct(frames)
    names = tuple(f"frame_{i}.png" for i in range(3))  # another suffix
    colmap_files.check_small_model(ImportedPoses(tmp_path, names=names).reconstruct(frames), left_out=(0,))
    with pytest.raises(InvalidValue, match="none of the frames' names"):
        ImportedPoses(tmp_path, names=("a", "b", "c")).reconstruct(frames)
    with pytest.raises(InvalidValue, match="2 names were given for 3 frames"):
        ImportedPoses(tmp_path, names=("a", "b")).reconstruct(frames)


def test_another_number_of_poses_is_refused(frames, tmp_path):
    save_cameras(preset("dolly_in", 5), tmp_path / "poses.txt")
    with pytest.raises(InvalidValue, match="5 poses for 3 frames"):
        ImportedPoses(tmp_path / "poses.txt").reconstruct(frames)
    with pytest.raises(MissingFile, match="absent"):
        ImportedPoses(tmp_path / "absent").reconstruct(frames)


@pytest.mark.parametrize("file", ["images.bin", "cameras.bin"])
def test_a_model_that_is_cut_short_is_refused(frames, tmp_path, file):
    colmap_files.small_model(tmp_path)
    data = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(data[: len(data) - 9])
    with pytest.raises(ValueError, match=file):
        ImportedPoses(tmp_path).reconstruct(frames)


def test_masks_in_both_polarities(frames, tmp_path):
    moving = np.random.default_rng(0).random((3, 40, 64)) < 0.3
    for index, mask in enumerate(moving):
        write_png(
            tmp_path / "white" / f"m{index + 8}.png", np.where(mask, 255, 0).astype(np.uint8)
        )  # m8, m9, m10
        write_png(tmp_path / "black" / f"{index:05d}.png", np.where(mask, 0, 1).astype(np.uint8))
    for polarity in ("white", "black"):
        found = ImportedMasks(tmp_path / polarity, polarity).segment(frames, 12.0).moving
        np.testing.assert_array_equal(found, moving)
    with pytest.raises(TypeError):
        ImportedMasks(tmp_path / "white")
    with pytest.raises(InvalidValue, match="'white' or 'black'"):
        ImportedMasks(tmp_path / "white", "1")
    with pytest.raises(InvalidValue, match="3 masks for 2 frames"):
        ImportedMasks(tmp_path / "white", "white").segment(frames[:2], 12.0)
    with pytest.raises(InvalidValue, match=r"\[40, 64\], the frames are \[20, 64\]"):
        ImportedMasks(tmp_path / "white", "white").segment(frames[:, :20], 12.0)


def test_colour_and_one_bit_masks(tmp_path):
    from PIL import Image

    mask = np.random.default_rng(1).random((9, 13)) < 0.5
    Image.fromarray(mask).save(tmp_path / "bit.png")
    red = np.zeros((9, 13, 3), np.uint8)
    red[mask, 0] = 200
    Image.fromarray(red).save(tmp_path / "red.png")
    Image.fromarray(red).quantize(4).save(tmp_path / "palette.png")
    for name in ("bit", "red", "palette"):
        np.testing.assert_array_equal(read_grey(tmp_path / f"{name}.png") != 0, mask)


def test_depth_of_one_array_and_of_folders(frames, tmp_path):
    from PIL import Image

    depth = np.random.default_rng(0).uniform(0.5, 20.0, (3, 40, 64)).astype(np.float32)
    depth[0, 0, 0], depth[1, 1, 1], depth[2, 2, 2] = np.inf, 0.0, np.nan
    np.save(tmp_path / "whole.npy", depth)
    (tmp_path / "arrays").mkdir()
    (tmp_path / "pngs").mkdir()
    for index in range(3):
        np.save(tmp_path / "arrays" / f"d{index + 9}.npy", depth[index] * 100.0)
        millimetres = np.nan_to_num(depth[index] * 1000.0, posinf=0.0).round().astype(np.uint16)
        Image.fromarray(millimetres).save(tmp_path / "pngs" / f"{index:05d}.png")
    invalid = {(0, 0, 0), (1, 1, 1), (2, 2, 2)}
    for path, metres, atol in (("whole.npy", 1.0, 0.0), ("arrays", 0.01, 1e-5), ("pngs", 0.001, 6e-4)):
        result = ImportedDepth(tmp_path / path, metres).depth(frames)
        assert {tuple(place) for place in np.argwhere(~result.valid)} == invalid
        np.testing.assert_allclose(result.depth[result.valid], depth[result.valid], atol=atol)
    with pytest.raises(TypeError):
        ImportedDepth(tmp_path / "whole.npy")  # the unit must be said
    with pytest.raises(InvalidValue, match="metres is 0"):
        ImportedDepth(tmp_path / "whole.npy", 0)
    with pytest.raises(InvalidValue, match="expected numbers"):
        ImportedDepth(tmp_path / "whole.npy", 1.0).depth(frames[:2])
    with pytest.raises(InvalidValue, match="expected 2 of one kind"):
        ImportedDepth(tmp_path / "arrays", 1.0).depth(frames[:2])


def test_flow_of_npy_and_flo(frames, tmp_path):
    flow = np.random.default_rng(0).normal(0, 3, (2, 40, 64, 2)).astype(np.float32)
    flow[0, 0, 0] = 1e10  # unknown, as .flo files have it
    np.save(tmp_path / "flow.npy", flow)
    (tmp_path / "flo").mkdir()
    for index in range(2):
        head = struct.pack("<fii", 202021.25, 64, 40)
        (tmp_path / "flo" / f"{index}.flo").write_bytes(head + flow[index].astype("<f4").tobytes())
    expected = flow.copy()
    expected[0, 0, 0] = np.nan
    for path in ("flow.npy", "flo"):
        np.testing.assert_array_equal(ImportedFlow(tmp_path / path).flow(frames[:-1], frames[1:]), expected)
    (tmp_path / "flo" / "1.flo").write_bytes(struct.pack("<fii", 202021.25, 40, 64) + b"\0" * 8 * 40 * 64)
    with pytest.raises(InvalidValue, match="64 x 40"):
        ImportedFlow(tmp_path / "flo").flow(frames[:-1], frames[1:])
    (tmp_path / "flo" / "1.flo").write_bytes(b"PIEH")
    with pytest.raises(InvalidValue, match=r"not a \.flo file"):
        ImportedFlow(tmp_path / "flo").flow(frames[:-1], frames[1:])


def test_a_published_flo_file(test_data, tmp_path):
    """Ground truth of one frame of a rendered film, checked against its numbers read one by one."""
    source = test_data("flowiz_sintel/frame_0001.flo")
    (tmp_path / "flo").mkdir()
    (tmp_path / "flo" / source.name).write_bytes(source.read_bytes())
    pictures = np.zeros((1, 436, 1024, 3), np.uint8)
    flow = ImportedFlow(tmp_path / "flo").flow(pictures, pictures)
    data = source.read_bytes()
    for row, column in ((0, 0), (100, 7), (435, 1023)):
        expected = struct.unpack_from("<ff", data, 12 + 8 * (row * 1024 + column))
        assert tuple(flow[0, row, column]) == expected


def test_embeddings_are_scaled_to_length_one(frames, tmp_path):
    np.save(tmp_path / "e.npy", np.array([[3.0, 4.0], [0.0, 2.0], [1.0, 0.0]]))
    np.testing.assert_allclose(
        ImportedEmbeddings(tmp_path / "e.npy").embed(frames), [[0.6, 0.8], [0, 1], [1, 0]], atol=1e-7
    )
    with pytest.raises(InvalidValue, match="expected numbers"):
        ImportedEmbeddings(tmp_path / "e.npy").embed(frames[:2])


def test_pickled_arrays_are_refused(frames, tmp_path):
    np.save(tmp_path / "e.npy", np.array([{}, {}, {}]))
    with pytest.raises(InvalidValue, match="not a readable NumPy file"):
        ImportedEmbeddings(tmp_path / "e.npy").embed(frames)


# -------------------------------------------------------------------------------- one description, many clips


def test_a_description_of_many_clips_is_bound_to_each(frames, tmp_path):
    for name, shift in (("one", 0.0), ("two", 1.0)):
        np.save(tmp_path / f"{name}.npy", np.eye(3) + shift)
    embedder = ImportedEmbeddings(tmp_path / "{clip}.npy")
    embedder.check()
    assert for_clip(embedder, "one").embed(frames) == pytest.approx(np.eye(3))
    two = for_clip(embedder, "two")
    assert two.embed(frames)[0] == pytest.approx(np.array([2, 1, 1]) / np.sqrt(6))
    assert len({e.fingerprint().digest for e in (embedder, for_clip(embedder, "one"), two)}) == 3
    with pytest.raises(InvalidValue, match=r"\{clip\}.*use for_clip first"):
        embedder.embed(frames)
    with pytest.raises(MissingFile, match="there is no folder"):
        ImportedEmbeddings(tmp_path / "nowhere" / "{clip}.npy").check()


def test_what_is_missing_or_broken_is_the_fault_of_that_clip(frames, tmp_path):
    save_cameras(preset("dolly_in", 3), tmp_path / "good.txt")
    save_cameras(preset("dolly_in", 5), tmp_path / "long.txt")
    (tmp_path / "broken.txt").write_text("nothing of the kind")
    poses = ImportedPoses(tmp_path / "{clip}.txt")
    assert for_clip(poses, "good").reconstruct(frames).succeeded
    for name, reason, message in [
        ("absent", "no_result", r"imported for absent: .*/absent\.txt: no such file"),
        ("long", "bad_result", "imported for long: .*5 poses for 3 frames"),
        ("broken", "bad_result", "imported for broken: "),
    ]:
        with pytest.raises(EstimatorFailed, match=message) as failure:
            for_clip(poses, name).reconstruct(frames)
        assert failure.value.reason == reason
    missing = for_clip(poses, "absent").fingerprint().digest
    save_cameras(preset("dolly_in", 3), tmp_path / "absent.txt")
    assert for_clip(poses, "absent").fingerprint().digest != missing


def test_a_folder_for_each_clip(frames, tmp_path):
    for index in range(3):
        path = tmp_path / "a" / "masks" / f"{index}.png"
        write_png(path, np.full((40, 64), 255 * (index == 1), np.uint8))
    masks = ImportedMasks(tmp_path / "{clip}" / "masks", "white")
    assert for_clip(masks, "a").segment(frames, 12.0).shares.tolist() == [0.0, 1.0, 0.0]
    with pytest.raises(EstimatorFailed, match=r"b/masks: no such file or folder"):
        for_clip(masks, "b").segment(frames, 12.0)
    plain = ImportedMasks(tmp_path / "a" / "masks", "white")
    assert for_clip(plain, "b") is plain
    assert for_clip(HistogramEmbedder(), "b") == HistogramEmbedder()


def test_features_of_whole_clips(frames, tmp_path):
    np.save(tmp_path / "a.npy", np.arange(5, dtype=np.float32))
    np.save(tmp_path / "b.npy", np.full(5, np.nan))
    features = ImportedVideoFeatures(tmp_path / "{clip}.npy")
    vector = for_clip(features, "a").embed_video(frames, 12.0)
    assert vector.dtype == np.float64
    assert vector.tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(EstimatorFailed, match="NaN"):
        for_clip(features, "b").embed_video(frames, 12.0)
    features.check()
    for_clip(features, "a").check()
    with pytest.raises(InvalidValue, match="all clips would have this one vector"):
        ImportedVideoFeatures(tmp_path / "a.npy").check()


def test_points_of_files_and_of_a_colmap_model(frames, tmp_path):
    points = np.random.default_rng(0).normal(size=(7, 3))
    (tmp_path / "a").mkdir()
    np.save(tmp_path / "a" / "points.npy", points)
    with pytest.raises(MissingFile, match=r"colours\.npy"):
        ImportedPoints(tmp_path / "a").points(frames)
    np.save(tmp_path / "a" / "colours.npy", np.full((7, 3), 300))
    cloud = ImportedPoints(tmp_path / "a", metric=True).points(frames)
    np.testing.assert_array_equal(cloud.points, points)
    assert cloud.colours.dtype == np.uint8
    assert (cloud.colours == 255).all()
    assert cloud.metric
    colmap_files.small_model(tmp_path / "b" / "sparse" / "0")
    found = ImportedPoints(tmp_path / "b").points(frames)
    expected = ImportedPoses(tmp_path / "b").reconstruct(frames)
    np.testing.assert_array_equal(found.points, expected.points)
    assert found.colours.shape == found.points.shape
