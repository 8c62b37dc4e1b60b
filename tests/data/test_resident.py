"""Clips in device memory: which rows a batch holds, and that a position is all there is to a stream."""

from __future__ import annotations

import dataclasses
import json

import jax
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from camctrl_jax.camera.framing import relative_to_first
from camctrl_jax.data.resident import ResidentClips, embed_captions
from camctrl_jax.data.stream import BatchStream, Bucket
from camctrl_jax.data.tasks import TaskConfig
from camctrl_jax.data.text import WordEmbedder

EMBEDDER = WordEmbedder(dim=8, max_tokens=6)
NOTHING_DROPPED = TaskConfig(text_dropout=0.0, camera_dropout=0.0)


def make_poses(clips: int, frames: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    poses = np.zeros((clips, frames, 4, 4))
    poses[..., :3, :3] = (
        Rotation.random(clips * frames, random_state=0).as_matrix().reshape(clips, frames, 3, 3)
    )
    poses[..., :3, 3] = rng.normal(0, 3, (clips, frames, 3))
    poses[..., 3, 3] = 1.0
    return poses


def make_clips(count: int = 20, frames: int = 13, *, latents: bool = False) -> ResidentClips:
    """Every pixel holds 10 * clip + frame, every latent entry 10 * clip + latent."""
    if latents:
        steps = (frames - 1) // 4 + 1
        content = np.arange(count)[:, None] * 10.0 + np.arange(steps)
        content = {"latents": np.tile(content[:, :, None, None, None], (1, 1, 2, 3, 16)).astype(np.float16)}
    else:
        content = np.arange(count)[:, None] * 10 + np.arange(frames)
        content = {"video": np.tile(content[:, :, None, None, None], (1, 1, 16, 32, 3)).astype(np.uint8)}
    return ResidentClips.build(
        world_from_camera=make_poses(count, frames),
        intrinsics=np.tile([0.5, 0.8, 0.5, 0.5], (count, frames, 1)),
        captions=[[f"clip {i}", f"number {i}", f"this is {i}"][: 1 + i % 3] for i in range(count)],
        embedder=EMBEDDER,
        ids=[f"c{i}" for i in range(count)],
        **content,
    )


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


def test_fields_shapes_and_dtypes():
    stream = make_clips(latents=True).stream(batch_size=5, seed=0)
    assert isinstance(stream, BatchStream)
    shapes = {name: (array.dtype.name, array.shape) for name, array in next(stream).items()}
    assert shapes == {
        "latents": ("float16", (5, 4, 2, 3, 16)),
        "world_from_camera": ("float32", (5, 13, 4, 4)),
        "intrinsics": ("float32", (5, 13, 4)),
        "camera_valid": ("bool", (5,)),
        "condition_mask": ("bool", (5, 4)),
        "text": ("float32", (5, 6, 8)),
        "text_mask": ("bool", (5, 6)),
        "clip_index": ("int32", (5,)),
    }


def test_every_pass_shows_every_clip_once_in_another_order():
    stream = make_clips(20).stream(batch_size=8, seed=3)
    drawn = np.concatenate([next(stream)["clip_index"] for _ in range(5)]).reshape(2, 20)
    assert (np.sort(drawn, axis=1) == np.arange(20)).all()
    assert (drawn[0] != drawn[1]).any()


def test_rows_belong_together():
    clips = make_clips(20)
    batch = next(clips.stream(batch_size=20, seed=1, tasks=NOTHING_DROPPED, buckets=[Bucket(5, 20)]))
    poses = make_poses(20, 13)
    starts = np.asarray(batch["video"][:, 0, 0, 0, 0]).astype(int) - 10 * np.asarray(batch["clip_index"])
    assert starts.min() >= 0
    assert starts.max() <= 8
    assert len(set(starts.tolist())) > 3  # windows start anywhere
    for row, (clip, start) in enumerate(zip(np.asarray(batch["clip_index"]), starts)):
        np.testing.assert_array_equal(batch["video"][row, :, 0, 0, 0], 10 * clip + start + np.arange(5))
        expected = np.linalg.inv(poses[clip, start]) @ poses[clip, start : start + 5]
        np.testing.assert_allclose(batch["world_from_camera"][row], expected, atol=5e-6)
        known = EMBEDDER.embed([f"clip {clip}", f"number {clip}", f"this is {clip}"][: 1 + clip % 3])[0]
        assert min(np.abs(known - batch["text"][row]).max(axis=(1, 2))) < 2e-3  # stored as float16
    np.testing.assert_array_equal(batch["world_from_camera"][:, 0], np.tile(np.eye(4), (20, 1, 1)))
    assert clips.stream(batch_size=1, seed=0).describe(batch) == [f"c{i}" for i in batch["clip_index"]]


def test_latent_windows_are_prefixes():
    stream = make_clips(20, latents=True).stream(batch_size=20, seed=1, buckets=[Bucket(5, 20)])
    batch = next(stream)
    assert batch["latents"].shape == (20, 2, 2, 3, 16)
    np.testing.assert_array_equal(
        batch["latents"][:, :, 0, 0, 0], 10 * np.asarray(batch["clip_index"])[:, None] + np.arange(2)
    )
    assert batch["world_from_camera"].shape == (20, 5, 4, 4)
    np.testing.assert_allclose(
        batch["world_from_camera"][0],
        relative_to_first(make_poses(20, 13)[batch["clip_index"][0], :5]),
        atol=1e-5,
    )


def test_four_labelled_to_one_unlabelled_in_every_five():
    clips = make_clips(20).with_unlabelled(0.3, seed=5)
    assert (~clips.labelled).sum() == 6
    stream = clips.stream(batch_size=10, seed=0, tasks=NOTHING_DROPPED, labelled_to_unlabelled=(4, 1))
    drawn = []
    for _ in range(7):
        batch = next(stream)
        labelled = clips.labelled[np.asarray(batch["clip_index"])]
        np.testing.assert_array_equal(labelled, batch["camera_valid"])
        assert (labelled.reshape(2, 5).sum(axis=1) == 4).all()
        drawn.append(np.asarray(batch["clip_index"]))
    drawn = np.concatenate(drawn)
    assert set(drawn) == set(range(20))


def test_hidden_cameras_are_gone_not_only_flagged():
    clips = make_clips(20).with_unlabelled(0.5, seed=1)
    batch = next(clips.stream(batch_size=20, seed=0))
    hidden = ~clips.labelled[np.asarray(batch["clip_index"])]
    assert hidden.sum() == 10
    np.testing.assert_array_equal(batch["world_from_camera"][hidden], np.tile(np.eye(4), (10, 13, 1, 1)))
    np.testing.assert_array_equal(batch["intrinsics"][hidden], np.tile([0.5, 1, 0.5, 0.5], (10, 13, 1)))
    assert not batch["camera_valid"][hidden].any()
    again = make_clips(20).with_unlabelled(0.5, seed=1)
    np.testing.assert_array_equal(clips.labelled, again.labelled)


def test_dropped_text_is_the_empty_prompt():
    stream = make_clips().stream(batch_size=20, seed=0, tasks=TaskConfig(text_dropout=1.0))
    batch = next(stream)
    empty, mask = EMBEDDER.embed([""])
    np.testing.assert_allclose(batch["text"], np.tile(empty, (20, 1, 1)), atol=1e-3)
    np.testing.assert_array_equal(batch["text_mask"], np.tile(mask, (20, 1)))


def test_all_phrasings_are_drawn():
    clips = make_clips(3)
    stream = clips.stream(batch_size=3, seed=0, tasks=NOTHING_DROPPED)
    seen = {
        bytes(np.asarray(batch["text"][list(batch["clip_index"]).index(2)]))
        for batch in (next(stream) for _ in range(30))
    }
    assert len(seen) == 3


def test_buckets_take_turns_by_their_weights():
    buckets = [Bucket(9, 4, weight=2), Bucket(1, 6, weight=1)]
    stream = make_clips().stream(batch_size=4, seed=0, buckets=buckets)
    shapes = [next(stream)["video"].shape[:2] for _ in range(9)]
    for turn in range(0, 9, 3):
        assert sorted(shapes[turn : turn + 3]) == [(4, 9), (4, 9), (6, 1)]
    assert stream.batch_at(0)["condition_mask"].shape == (4, 3)


def test_a_restored_stream_gives_the_same_batches():
    clips = make_clips(20).with_unlabelled(0.2, seed=0)
    options = {
        "batch_size": 5,
        "seed": 11,
        "labelled_to_unlabelled": (4, 1),
        "buckets": [Bucket(9, 5, weight=2), Bucket(1, 10)],
    }
    stream = clips.stream(**options)
    for _ in range(7):
        next(stream)
    state = json.loads(json.dumps(stream.state()))
    expected = [next(stream) for _ in range(6)]
    restored = clips.stream(**options)
    restored.restore(state)
    assert all(same(batch, next(restored)) for batch in expected)
    other = clips.stream(**{**options, "seed": 12})
    assert not same(expected[0], other.batch_at(7))
    with pytest.raises(ValueError, match="does not belong"):
        other.restore(state)


def test_clips_survive_their_files(tmp_path):
    clips = make_clips(6).with_unlabelled(0.5, seed=0)
    clips.save(tmp_path / "store")
    loaded = ResidentClips.load(tmp_path / "store")
    options = {"batch_size": 6, "seed": 0, "labelled_to_unlabelled": (1, 1)}
    assert same(next(clips.stream(**options)), next(loaded.stream(**options)))
    assert loaded.ids == clips.ids
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_batches_can_be_sharded():
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    everywhere = jax.sharding.NamedSharding(mesh, jax.P())
    split = jax.sharding.NamedSharding(mesh, jax.P("data"))
    clips = make_clips(6)
    batch = next(clips.distributed(everywhere).stream(batch_size=6, seed=0, batch_sharding=split))
    assert all(array.sharding.is_equivalent_to(split, array.ndim) for array in batch.values())
    assert same(batch, next(clips.stream(batch_size=6, seed=0)))


def test_captions_of_different_number_share_slots():
    embedded = embed_captions(EMBEDDER, [["a", "b c"], ["d"]])
    assert embedded["text"].shape == (2, 2, 6, 8)
    assert embedded["caption_count"].tolist() == [2, 1]
    np.testing.assert_array_equal(embedded["text"][0, 1], EMBEDDER.embed(["b c"])[0][0].astype(np.float16))
    assert not embedded["text_mask"][1, 1].any()
    with pytest.raises(ValueError, match="at least one caption"):
        embed_captions(EMBEDDER, [["a"], []])


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"buckets": [Bucket(17, 2)]}, "17 frames cannot be cut from clips of 13"),
        ({"buckets": [Bucket(9, 2, height=32, width=32)]}, "32x32 pixels"),
        ({"labelled_to_unlabelled": (4, 1)}, "none of the 20 clips is unlabelled"),
    ],
)
def test_impossible_streams_are_refused(options, named):
    with pytest.raises(ValueError, match=named):
        make_clips(20).stream(batch_size=2, seed=0, **options)


def test_arrays_that_do_not_fit_together_are_refused():
    clips = make_clips(4)
    with pytest.raises(ValueError, match="another number of clips"):
        ResidentClips(clips.arrays, clips.caption_count, clips.labelled[:2], clips.ids)
    with pytest.raises(ValueError, match="either 'video' or 'latents'"):
        ResidentClips(
            {name: array for name, array in clips.arrays.items() if name != "video"},
            clips.caption_count,
            clips.labelled,
            clips.ids,
        )


def test_windows_that_the_stream_cuts_out_of_a_take_keep_its_reference_when_they_extend():
    clips = dataclasses.replace(make_clips(20), shared_reference=True)
    poses = relative_to_first(make_poses(20, 13))

    def drawn(**tasks):
        tasks = TaskConfig(extension_latents=(2, 2), **tasks)
        batch = next(clips.stream(batch_size=20, seed=1, tasks=tasks, buckets=[Bucket(9, 20)]))
        starts = np.asarray(batch["video"][:, 0, 0, 0, 0]).astype(int) - 10 * np.asarray(batch["clip_index"])
        assert len(set(starts.tolist())) > 2
        windows = [poses[clip, start : start + 9] for clip, start in zip(batch["clip_index"], starts)]
        return batch["world_from_camera"], np.stack(windows)

    found, windows = drawn(t2v=0, i2v=0, extension=1)
    np.testing.assert_allclose(found, windows, atol=1e-5)
    for tasks in ({"t2v": 0, "i2v": 1}, {"t2v": 0, "i2v": 0, "extension": 1, "reference": "clip"}):
        found, windows = drawn(**tasks)
        np.testing.assert_allclose(found, relative_to_first(windows), atol=1e-4)
