"""Batches from disk: composition, cameras, resumption, bad clips."""

from __future__ import annotations

import dataclasses
import itertools
import json
import multiprocessing
import os
import signal

import numpy as np
import pytest
from pattern_videos import pattern_video
from scipy.spatial.transform import Rotation

from camctrl_jax.camera import Cameras, plucker_map
from camctrl_jax.camera.framing import Framing, relative_to_first
from camctrl_jax.data.bad_clips import TooManyBadClips
from camctrl_jax.data.clip_stream import ClipStream, ClipStreamConfig
from camctrl_jax.data.clips import ClipRecord, open_clips, write_clips
from camctrl_jax.data.stream import BatchStream, Bucket
from camctrl_jax.data.tasks import TaskConfig
from camctrl_jax.data.text import PrecomputedText, WordEmbedder
from camctrl_jax.errors import InvalidValue
from camctrl_jax.video.decoding import read_video
from camctrl_jax.video.encoding import encode_mp4

EMBEDDER = WordEmbedder(dim=8, max_tokens=24)
NOTHING_DROPPED = TaskConfig(text_dropout=0.0, camera_dropout=0.0)


def plain_records(count: int, frames: int = 9, size: tuple[int, int] = (32, 48), **changes):
    """Unlabelled clips with pictures of their own."""
    for number in range(count):
        video = pattern_video(frames, *size, seed=number)
        yield ClipRecord(
            **{
                "id": f"plain-{number}",
                "num_frames": frames,
                "height": size[0],
                "width": size[1],
                "fps": 12.0,
                "cameras": None,
                "video": encode_mp4(video, 12.0),
                **changes,
            }
        )


@pytest.fixture(scope="module")
def plain_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain") / "plain"
    write_clips(folder, plain_records(4))
    return folder


def open_stream(folders, *buckets: Bucket, embedder=EMBEDDER, process=(0, 1), **options) -> ClipStream:
    folders = [folders] if not isinstance(folders, list) else folders
    config = ClipStreamConfig(
        datasets=tuple(str(f) for f in folders), buckets=buckets, threads=2, prefetch=2, **options
    )
    return ClipStream(config, embedder, process_index=process[0], process_count=process[1])


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


def test_fields_shapes_and_dtypes(worlds_folder):
    stream = open_stream(worlds_folder, Bucket(5, 10))
    assert isinstance(stream, BatchStream)
    shapes = {name: (array.dtype.name, array.shape) for name, array in next(stream).items()}
    assert shapes == {
        "video": ("uint8", (10, 5, 32, 48, 3)),
        "world_from_camera": ("float32", (10, 5, 4, 4)),
        "intrinsics": ("float32", (10, 5, 4)),
        "camera_valid": ("bool", (10,)),
        "condition_mask": ("bool", (10, 2)),
        "text": ("float32", (10, 24, 8)),
        "text_mask": ("bool", (10, 24)),
        "clip_index": ("int32", (10,)),
    }


def test_four_labelled_to_one_unlabelled_in_every_five(worlds_folder, worlds_dataset):
    stream = open_stream(worlds_folder, Bucket(1, 10), tasks=NOTHING_DROPPED)
    drawn = []
    for _ in range(6):
        batch = next(stream)
        labelled = worlds_dataset.index["labelled"][batch["clip_index"]]
        assert (labelled.reshape(2, 5).sum(axis=1) == 4).all()
        np.testing.assert_array_equal(batch["camera_valid"], labelled)
        drawn.append(batch["clip_index"])
    drawn = np.concatenate(drawn)
    known = worlds_dataset.index["labelled"]
    assert (np.sort(drawn[known[drawn]][:8]) == np.flatnonzero(known)).all()  # one pass: every clip once
    assert stream.describe(batch) == [f"worlds/world-{number}" for number in batch["clip_index"]]


def take_record(frames: int = 13) -> tuple[ClipRecord, np.ndarray]:
    """A take whose frames 100, 101, ... are the clip, and its poses from the take's first camera."""
    turns = Rotation.from_euler("yx", np.stack([np.arange(frames) + 100, np.full(frames, 3.0)], 1) / 90)
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, :3, :3], poses[:, 0, 3] = turns.as_matrix(), 5.0 + np.arange(frames)
    reference = np.eye(4)
    reference[:3, :3], reference[:3, 3] = Rotation.from_euler("y", 0.3).as_matrix(), (1.0, -1.0, 2.0)
    (record,) = plain_records(1, frames, cameras=Cameras(poses, (0.6, 1.0, 0.5, 0.5)), reference=reference)
    return record, np.linalg.inv(reference) @ poses


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_windows_that_extend_are_seen_from_the_first_camera_of_the_take(tmp_path, flip):
    record, expected = take_record()
    write_clips(tmp_path / "set", [record])
    mirror = np.diag([-1.0, 1.0, 1.0, 1.0]) if flip else np.eye(4)
    expected = mirror @ expected @ mirror

    def poses(**tasks):
        tasks = TaskConfig(text_dropout=0, camera_dropout=0, extension_latents=(2, 2), **tasks)
        options = {"tasks": tasks, "labelled_to_unlabelled": None, "flip": flip}
        return next(open_stream(tmp_path / "set", Bucket(9, 6), **options))["world_from_camera"]

    def starts(found, windows):
        return [int(np.abs(windows - own).max(axis=(1, 2, 3)).argmin()) for own in found]

    windows = np.stack([expected[start : start + 9] for start in range(5)])
    found = poses(t2v=0, i2v=0, extension=1)
    np.testing.assert_allclose(found, windows[starts(found, windows)], atol=1e-6)
    assert np.abs(found[:, 0] - np.eye(4)).max() > 0.1
    own = relative_to_first(windows)
    for tasks in ({"t2v": 0, "i2v": 1}, {"t2v": 0, "i2v": 0, "extension": 1, "reference": "clip"}):
        found = poses(**tasks)
        np.testing.assert_allclose(found, own[starts(found, own)], atol=1e-6)


def test_rows_belong_together(worlds_folder, worlds_dataset):
    stream = open_stream(worlds_folder, Bucket(5, 10, height=16, width=32), tasks=NOTHING_DROPPED)
    batch = next(stream)
    framing = Framing.cover((32, 48), (16, 32))
    starts = set()
    for row, number in enumerate(batch["clip_index"]):
        record = worlds_dataset[number]
        framed = read_video(record.video, framing=framing)
        differences = [np.abs(framed[s : s + 5].astype(int) - batch["video"][row]).max() for s in range(5)]
        start = int(np.argmin(differences))
        starts.add(start)
        assert differences[start] == 0
        texts = EMBEDDER.embed(record.captions)[0]
        assert np.abs(texts - batch["text"][row]).max(axis=(1, 2)).min() == 0
        np.testing.assert_array_equal(batch["world_from_camera"][row, 0], np.eye(4))
        if not record.labelled:
            np.testing.assert_array_equal(batch["world_from_camera"][row], np.tile(np.eye(4), (5, 1, 1)))
            np.testing.assert_allclose(batch["intrinsics"][row], np.tile([0.5, 1, 0.5, 0.5], (5, 1)))
            assert not batch["camera_valid"][row]
            continue
        cameras = record.cameras[start : start + 5]
        poses = relative_to_first(cameras.world_from_camera).astype(np.float32)
        np.testing.assert_array_equal(batch["world_from_camera"][row], poses)
        # The Pluecker map of the batch is that of the whole picture, cropped as the picture was.
        whole = plucker_map(poses, cameras.intrinsics.astype(np.float32), *framing.resized)
        cropped = plucker_map(batch["world_from_camera"][row], batch["intrinsics"][row], 16, 32)
        np.testing.assert_allclose(cropped, framing.crop(np.asarray(whole)), atol=1e-5)
    assert len(starts) > 1


def test_flipped_clips_have_flipped_rays(worlds_folder):
    bucket = Bucket(9, 10)
    usual = next(open_stream(worlds_folder, bucket, tasks=NOTHING_DROPPED))
    flipped = next(open_stream(worlds_folder, bucket, tasks=NOTHING_DROPPED, flip=1.0))
    np.testing.assert_array_equal(flipped["clip_index"], usual["clip_index"])
    np.testing.assert_array_equal(flipped["video"], usual["video"][..., ::-1, :])
    maps = [np.asarray(plucker_map(b["world_from_camera"], b["intrinsics"], 4, 6)) for b in (usual, flipped)]
    mirrored = maps[0][..., ::-1, :] * np.array(
        [1, -1, -1, -1, 1, 1]
    )  # x of a direction, y and z of a moment
    labelled = usual["camera_valid"]
    np.testing.assert_allclose(maps[1][labelled], mirrored[labelled], atol=1e-5)


def test_random_crops_move_the_principal_point(worlds_folder):
    stream = open_stream(worlds_folder, Bucket(1, 10, height=16, width=16), random_crop=True)
    centres = np.concatenate([next(stream)["intrinsics"][:, 0, 2] for _ in range(3)])
    assert centres.min() < 0.4
    assert centres.max() > 0.6


def test_buckets_take_turns_with_whole_batches(worlds_folder):
    stream = open_stream(worlds_folder, Bucket(9, 5, weight=3), Bucket(1, 10, weight=1, height=16, width=32))
    shapes = [next(stream)["video"].shape[:4] for _ in range(8)]
    for turn in (0, 4):
        assert sorted(shapes[turn : turn + 4]) == [(5, 9, 32, 48)] * 3 + [(10, 1, 16, 32)]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_restored_stream_gives_identical_batches(worlds_folder, workers):
    buckets = (Bucket(5, 5), Bucket(1, 5, height=16, width=32))
    stream = open_stream(worlds_folder, *buckets, seed=4, workers=workers)
    for _ in range(3):
        next(stream)
    state = json.loads(json.dumps(stream.state()))
    # Worker processes hand out views of shared memory: copy before they end.
    expected = [{name: np.array(array) for name, array in next(stream).items()} for _ in range(5)]
    for process in multiprocessing.active_children():  # a run that was told to stop still draws a batch
        os.kill(process.pid, signal.SIGTERM)
        os.kill(process.pid, signal.SIGINT)
    for _ in range(stream.config.prefetch + 2):
        next(stream)
    stream.close()
    restored = open_stream(worlds_folder, *buckets, seed=4, workers=workers)
    restored.restore(state)
    assert all(same(batch, next(restored)) for batch in expected)
    for _ in range(stream.config.prefetch + 2):
        next(restored)
    assert restored.state()["drawn"] == stream.state()["drawn"]
    restored.close()


def test_a_position_of_another_stream_is_refused(worlds_folder, plain_folder):
    state = open_stream(worlds_folder, Bucket(1, 5), seed=4).state()
    for other in (
        open_stream(worlds_folder, Bucket(1, 5), seed=5),
        open_stream([worlds_folder, plain_folder], Bucket(1, 5), seed=4),
    ):
        with pytest.raises(ValueError, match="does not belong"):
            other.restore(state)


def test_another_number_of_processes_goes_on_after_as_many_batches(worlds_folder):
    two = [open_stream(worlds_folder, Bucket(1, 10), seed=4, process=(rank, 2)) for rank in (0, 1)]
    for _ in range(3):
        for stream in two:
            next(stream)
    state = json.loads(json.dumps(two[0].state()))
    uninterrupted = open_stream(worlds_folder, Bucket(1, 10), seed=4)
    for _ in range(3):
        next(uninterrupted)
    alone = open_stream(worlds_folder, Bucket(1, 10), seed=4)
    alone.restore(state)
    assert same(next(uninterrupted), next(alone))
    later = open_stream(worlds_folder, Bucket(1, 10), seed=4)  # and its own positions are exact again
    later.restore(json.loads(json.dumps(alone.state())))
    assert same(next(alone), next(later))


def test_processes_share_the_clips_and_the_shapes(worlds_folder):
    buckets = (Bucket(5, 10), Bucket(1, 10, weight=2))
    streams = [
        open_stream(worlds_folder, *buckets, process=(rank, 2), labelled_to_unlabelled=(4, 1))
        for rank in (0, 1)
    ]
    seen = [set(), set()]
    masks = [[], []]
    for _ in range(6):
        batches = [next(stream) for stream in streams]
        assert batches[0]["video"].shape == batches[1]["video"].shape
        assert batches[0]["video"].shape[0] == 5
        for rank, batch in enumerate(batches):
            seen[rank] |= set(batch["clip_index"].tolist())
            masks[rank] += batch["camera_valid"].tolist()
    assert not seen[0] & seen[1]
    assert seen[0] | seen[1] == set(range(10))
    assert masks[0] != masks[1]  # positions are equal, draws are not
    with pytest.raises(ValueError, match="10 cannot be split among 3"):
        open_stream(worlds_folder, *buckets, process=(0, 3))


def test_real_clips_mix_with_worlds_as_unlabelled(worlds_folder, plain_folder):
    stream = open_stream(worlds_folder, Bucket(9, 10), unlabelled=(str(plain_folder),), tasks=NOTHING_DROPPED)
    names = [name for _ in range(3) for name in stream.describe(next(stream))]
    hidden = [name for name in names if name.startswith("plain/")]
    assert set(hidden) == {f"plain/plain-{number}" for number in range(4)}


def test_shards_are_one_dataset(plain_folder, tmp_path):
    records = list(plain_records(4))
    for shard in (0, 1):
        write_clips(tmp_path / "parts" / f"0000{shard}-of-00002", records[2 * shard : 2 * shard + 2])
    options = {"labelled_to_unlabelled": (0, 1), "tasks": NOTHING_DROPPED}
    whole = open_stream(plain_folder, Bucket(9, 4), **options)
    parts = open_stream(tmp_path / "parts", Bucket(9, 4), **options)
    batch, same = next(whole), next(parts)
    np.testing.assert_array_equal(batch["video"], same["video"])
    assert [name.replace("plain/", "", 1) for name in whole.describe(batch)] == [
        name.split("/")[-1] for name in parts.describe(same)
    ]
    assert all(name.startswith("parts/0000") for name in parts.describe(same))


def test_cameras_of_a_dataset_can_be_ignored(worlds_folder):
    config = ClipStreamConfig(
        datasets=(), unlabelled=(str(worlds_folder),), buckets=(Bucket(1, 10),), labelled_to_unlabelled=(0, 1)
    )
    batch = next(ClipStream(config, EMBEDDER))
    assert not batch["camera_valid"].any()
    np.testing.assert_array_equal(batch["world_from_camera"], np.tile(np.eye(4), (10, 1, 1, 1)))


def test_without_a_ratio_every_clip_is_drawn_alike(worlds_folder, plain_folder):
    stream = open_stream([worlds_folder, plain_folder], Bucket(1, 14), labelled_to_unlabelled=None)
    counts = np.bincount(np.concatenate([next(stream)["clip_index"] for _ in range(4)]), minlength=14)
    assert counts.min() >= 3
    assert counts.max() <= 5


def test_every_process_leaves_a_pool_out_that_is_too_small_for_all(worlds_folder, plain_folder):
    # Eight labelled and two unlabelled worlds: of four processes, two would have no unlabelled clip.
    streams = [
        open_stream(worlds_folder, Bucket(1, 8), labelled_to_unlabelled=None, process=(index, 4))
        for index in range(4)
    ]
    drawn = [np.concatenate([next(stream)["clip_index"] for _ in range(2)]) for stream in streams]
    for stream in streams:
        (remark,) = stream.remarks
        assert remark.startswith("2 unlabelled clips are not used in images (worlds/world-")
        assert remark.endswith("they are fewer than the 4 processes")
    labelled = np.flatnonzero(open_clips(worlds_folder).index["labelled"])
    assert sorted(np.concatenate(drawn)) == sorted([*labelled, *labelled])  # two passes over all the others
    # Six unlabelled clips are enough for four processes.
    folders = [worlds_folder, plain_folder]
    options = {"labelled_to_unlabelled": None, "tasks": NOTHING_DROPPED}
    mixed = [open_stream(folders, Bucket(1, 28), process=(index, 4), **options) for index in range(4)]
    drawn = np.concatenate([next(stream)["clip_index"] for stream in mixed for _ in range(2)])
    assert set(drawn) == set(range(14))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (
            {"labelled_to_unlabelled": None},
            "only 3 unlabelled clips fit images.*each of 4 processes needs one",
        ),
        ({"labelled_to_unlabelled": (0, 1)}, "only 3 unlabelled clips fit images.*in fewer processes"),
        ({"labelled_to_unlabelled": (4, 1)}, "none of the 3 clips is labelled"),
    ],
)
def test_every_process_refuses_data_that_cannot_give_each_a_clip(tmp_path, options, named):
    write_clips(tmp_path / "set", plain_records(3))
    messages = set()
    for index in range(4):
        with pytest.raises(InvalidValue, match=named) as caught:
            open_stream(tmp_path / "set", Bucket(1, 4), process=(index, 4), **options)
        messages.add(str(caught.value))
    assert len(messages) == 1


def test_cached_latents(tmp_path, worlds_dataset, nano_encoder):
    def encoded():
        for record in worlds_dataset:
            latents = np.asarray(nano_encoder.encode(read_video(record.video)[None], dtype=np.float16))[0]
            yield dataclasses.replace(record, video=None, latents=latents)

    report = {"latents_of": nano_encoder.fingerprint()}
    write_clips(tmp_path / "latents", encoded(), report=lambda: report)
    stored = open_clips(tmp_path / "latents")
    batch = next(open_stream(tmp_path / "latents", Bucket(5, 5)))
    assert "video" not in batch
    assert batch["latents"].shape == (5, 2, 4, 6, 16)
    assert batch["latents"].dtype == np.float16
    for row, number in enumerate(batch["clip_index"]):
        np.testing.assert_array_equal(batch["latents"][row], stored[number].latents[:2])
    open_stream(tmp_path / "latents", Bucket(5, 5), latents_of=nano_encoder.fingerprint())
    with pytest.raises(ValueError, match="this run uses other"):
        open_stream(tmp_path / "latents", Bucket(5, 5), latents_of="other")
    with pytest.raises(ValueError, match="need videos"):
        open_stream(tmp_path / "latents", Bucket(5, 5), flip=0.5)
    with pytest.raises(ValueError, match="10 have latents of 32x48 pixels, expected 16x32"):
        open_stream(tmp_path / "latents", Bucket(5, 5, height=16, width=32))


def test_latents_and_videos_do_not_mix(tmp_path, worlds_folder):
    latents = np.zeros((3, 4, 6, 16), np.float16)
    write_clips(tmp_path / "latents", plain_records(1, video=None, latents=latents))
    with pytest.raises(ValueError, match="cannot be mixed"):
        open_stream([worlds_folder, tmp_path / "latents"], Bucket(5, 5))


def test_stored_text_embeddings_are_used(tmp_path):
    text = PrecomputedText({"": np.zeros((1, 4)), "a": np.full((2, 4), 2.0)}, max_tokens=3)
    vectors, mask = text.embed(["a"])
    write_clips(
        tmp_path / "set",
        plain_records(2, captions=("a caption the embedder does not know",), text=vectors, text_mask=mask),
    )
    options = {"labelled_to_unlabelled": None, "embedder": text}
    batch = next(open_stream(tmp_path / "set", Bucket(1, 4), tasks=NOTHING_DROPPED, **options))
    np.testing.assert_array_equal(batch["text"], np.tile(vectors, (4, 1, 1)))
    np.testing.assert_array_equal(batch["text_mask"], np.tile(mask, (4, 1)))
    dropped = next(open_stream(tmp_path / "set", Bucket(1, 4), tasks=TaskConfig(text_dropout=1.0), **options))
    np.testing.assert_array_equal(dropped["text_mask"].sum(axis=1), [1] * 4)


def test_a_clip_that_cannot_be_decoded_is_replaced_counted_and_named(tmp_path, caplog):
    records = list(plain_records(6))
    records[2] = dataclasses.replace(records[2], video=records[2].video[: len(records[2].video) // 2])
    write_clips(tmp_path / "set", records)
    options = {"labelled_to_unlabelled": None, "max_bad_share": 0.5, "seed": 1}
    stream = open_stream(tmp_path / "set", Bucket(5, 12), **options)
    batches = [next(stream) for _ in range(3)]
    drawn = np.concatenate([batch["clip_index"] for batch in batches])
    assert 2 not in drawn
    assert stream.state()["replaced"] == 6  # 36 samples, one of six clips is bad
    assert stream.state()["replaced"] == 6
    assert "plain-2" in caplog.text
    assert list(stream.bad_clips()) == ["set/plain-2"]
    assert "plain-2" in stream.bad_clips()["set/plain-2"]
    resumed = open_stream(tmp_path / "set", Bucket(5, 12), **options)
    resumed.restore(stream.state())
    assert resumed.bad_clips() == stream.bad_clips()
    again = open_stream(tmp_path / "set", Bucket(5, 12), **options)
    assert all(same(batch, next(again)) for batch in batches)


def test_a_caption_without_an_embedding_is_a_bad_clip(tmp_path):
    records = [dataclasses.replace(record, captions=("a",)) for record in plain_records(4)]
    records[1] = dataclasses.replace(records[1], captions=("unknown words",))
    write_clips(tmp_path / "set", records)
    text = PrecomputedText({"": np.zeros((1, 4)), "a": np.ones((2, 4))}, max_tokens=3)
    options = {"labelled_to_unlabelled": None, "max_bad_share": 0.9, "tasks": NOTHING_DROPPED}
    stream = open_stream(tmp_path / "set", Bucket(1, 8), embedder=text, **options)
    assert 1 not in next(stream)["clip_index"]
    assert "no embedding of 'unknown words'" in stream.bad_clips()["set/plain-1"]


def test_too_many_bad_clips_stop_the_run(tmp_path):
    records = list(plain_records(5))
    records[3] = dataclasses.replace(records[3], video=b"rubbish")
    write_clips(tmp_path / "set", records)
    stream = open_stream(tmp_path / "set", Bucket(5, 10), labelled_to_unlabelled=None, max_bad_share=0.1)
    with pytest.raises(TooManyBadClips, match=r"set/plain-3"):
        list(itertools.islice(stream, 20))
    write_clips(tmp_path / "none", plain_records(2, video=b"rubbish"))
    with pytest.raises(TooManyBadClips, match=r"cannot be decoded: .* The last one: plain-"):
        next(open_stream(tmp_path / "none", Bucket(5, 2), labelled_to_unlabelled=None, max_bad_share=1.0))


@pytest.mark.parametrize(
    ("bucket", "options", "named"),
    [
        (Bucket(13, 5), {}, r"none of its 10 clips is drawn: 10 have 9 frames, expected 13 or more"),
        (Bucket(9, 5, height=64, width=96), {}, r"10 have 32x48 pixels and would be enlarged to fill 64x96"),
        (Bucket(9, 5), {"fps": 24.0}, r"10 have 12 fps, expected 24 \(within 5 %\)"),
    ],
)
def test_a_bucket_that_nothing_fits_says_why(worlds_folder, bucket, options, named):
    with pytest.raises(ValueError, match=named):
        open_stream(worlds_folder, bucket, **options)


def test_enlarging_must_be_asked_for(worlds_folder, worlds_dataset):
    stream = open_stream(worlds_folder, Bucket(1, 5, height=64, width=96), max_upscale=2.0)
    batch = next(stream)
    assert batch["video"].shape == (5, 1, 64, 96, 3)
    smaller = batch["video"].reshape(5, 32, 2, 48, 2, 3).mean(axis=(2, 4))
    for row, number in enumerate(batch["clip_index"]):
        frames = read_video(worlds_dataset[number].video)
        assert np.abs(frames - smaller[row]).mean(axis=(1, 2, 3)).min() < 4.0


def test_clips_of_several_sizes_need_a_size(tmp_path):
    write_clips(tmp_path / "a", plain_records(2))
    write_clips(tmp_path / "b", plain_records(2, size=(48, 48)))
    folders = [tmp_path / "a", tmp_path / "b"]
    with pytest.raises(ValueError, match="32x48, 48x48"):
        open_stream(folders, Bucket(1, 2), labelled_to_unlabelled=None)
    stream = open_stream(folders, Bucket(1, 4, height=32, width=32), labelled_to_unlabelled=None)
    assert next(stream)["video"].shape == (4, 1, 32, 32, 3)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"datasets": ()}, "no dataset"),
        ({"buckets": ()}, "no bucket"),
        ({"flip": 2.0}, "flip is 2.0"),
        ({"max_bad_share": -1.0}, "max_bad_share is -1.0"),
    ],
)
def test_impossible_settings_are_refused(options, named):
    with pytest.raises(ValueError, match=named):
        ClipStreamConfig(**{"datasets": ("somewhere",), "buckets": (Bucket(1, 1),), **options})
