"""Frames of the rest of its take that a clip is shown: which they are, and how batches draw them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_resident import make_clips, make_poses, same

from camctrl_jax.camera.framing import relative_to_first
from camctrl_jax.camera.retrieval import select_frames
from camctrl_jax.data.resident import ResidentClips
from camctrl_jax.data.stream import Bucket
from camctrl_jax.data.tasks import TaskConfig
from camctrl_jax.data.text import WordEmbedder
from camctrl_jax.data.worlds_clips import batch_shapes, worlds_clips
from camctrl_jax.data.worlds_records import world_records
from camctrl_jax.data.worlds_set import WorldsSet
from camctrl_jax.worlds import Places, WorldsConfig, sample_world

EMBEDDER = WordEmbedder(dim=8, max_tokens=24)
EXTENSION = TaskConfig(t2v=0, i2v=0, extension=1, extension_latents=(2, 2), text_dropout=0, camera_dropout=0)
WINDOWS = WorldsSet(
    range(5, 7),
    32,
    48,
    WorldsConfig(frames=9, places=Places(layout="garden", take_frames=49)),
    samples=1,
    windows_per_take=2,
    retrieved=2,
)


def starts_of(windows: WorldsSet) -> list[int]:
    return [int(name.rpartition("-")[2]) for name in windows.ids]


def test_half_of_the_candidates_are_selected_from_before_and_all_lie_outside():
    sampled = WINDOWS.sample(range(4))
    assert [clip.memory.frames for clip in sampled] == [4] * 4
    for number, (start, clip) in enumerate(zip(starts_of(WINDOWS), sampled)):
        seed = WINDOWS.seeds[number // 2]
        take = sample_world(seed, replace(WINDOWS.config, frames=49, places=Places(layout="garden")))
        at = [
            int(np.abs(take.cameras.world_from_camera - pose).max(axis=(1, 2)).argmin())
            for pose in clip.memory.cameras.world_from_camera
        ]
        assert not set(at) & set(range(start, start + 9))
        if start >= 2:
            cameras = take.cameras
            coming, given = cameras[start + 5 : start + 9], cameras[start : start + 5]
            expected = select_frames(cameras[:start], coming, 2, given=given, seed=seed)
            assert at[:2] == expected.tolist()
    (first,) = replace(WINDOWS, windows_per_take=41).sample([0])  # nothing lies before the first frame
    assert first.memory.frames == 4


def test_candidates_are_encoded_alone_and_posed_as_their_window(tmp_path, nano_encoder):
    options = {"autoencoder": nano_encoder, "chunk": 4, "workers": 0, "cache": tmp_path}
    clips = worlds_clips(WINDOWS, EMBEDDER, **options)
    assert clips.retrieved == 2
    again = worlds_clips(WINDOWS, EMBEDDER, **options, progress=lambda done, count: pytest.fail("rendered"))
    assert same(clips.arrays, again.arrays)
    assert clips.arrays["retrieved_latents"].shape == (4, 4, 4, 6, 16)
    assert clips.arrays["retrieved_latents"].dtype == np.float16
    samples = WINDOWS.sample(range(4))
    frames, sampled = np.asarray(WINDOWS.render([each.memory for each in samples]))[3], samples[3]
    expected = np.asarray(nano_encoder.encode(frames[:, None], dtype=np.float16))[:, 0]
    np.testing.assert_allclose(clips.arrays["retrieved_latents"][3], expected, atol=4e-3)
    poses = np.linalg.inv(sampled.world.reference) @ sampled.memory.cameras.world_from_camera
    np.testing.assert_allclose(clips.arrays["retrieved_world_from_camera"][3], poses, atol=1e-6)
    lenses = sampled.memory.cameras.intrinsics
    np.testing.assert_allclose(clips.arrays["retrieved_intrinsics"][3], lenses, atol=1e-6)
    tasks = TaskConfig(t2v=0.0, i2v=0.0, extension=1.0)
    batch = clips.stream(batch_size=3, seed=0, tasks=tasks).batch_at(0)
    (told,) = batch_shapes(WINDOWS, EMBEDDER, [Bucket(clips.frames, 3)], autoencoder=nano_encoder)
    assert {name: (each.shape, each.dtype) for name, each in batch.items()} == {
        name: (each.shape, each.dtype) for name, each in told.items()
    }
    plain = worlds_clips(replace(WINDOWS, retrieved=0), EMBEDDER, **options)
    assert plain.ids == clips.ids
    assert same(plain.arrays, {name: clips.arrays[name] for name in plain.arrays})
    assert len(list(tmp_path.iterdir())) == 2


def remembering_clips(count: int = 20) -> ResidentClips:
    """Candidate m of clip c holds 100 c + m, and the pose of frame m + 1."""
    clips = replace(make_clips(count, latents=True), shared_reference=True)
    numbers = 100.0 * np.arange(count)[:, None] + np.arange(6)
    poses = relative_to_first(make_poses(count, 13))[:, 1:7].astype(np.float32)
    memory = {
        "retrieved_latents": np.tile(numbers[:, :, None, None, None], (1, 1, 2, 3, 16)).astype(np.float16),
        "retrieved_world_from_camera": poses,
        "retrieved_intrinsics": np.tile([0.5, 0.8, 0.5, 0.5], (count, 6, 1)).astype(np.float32),
    }
    return replace(clips, arrays={**clips.arrays, **memory})


def test_batches_draw_the_selected_half_or_any_and_follow_from_the_step():
    clips = remembering_clips()
    assert clips.retrieved == 3
    stream = clips.stream(batch_size=20, seed=0, tasks=EXTENSION)
    chosen = []
    for step in range(8):
        batch = next(stream)
        assert same(batch, clips.stream(batch_size=20, seed=0, tasks=EXTENSION).batch_at(step))
        clip, latents = np.asarray(batch["clip_index"]), np.asarray(batch["retrieved_latents"], np.float32)
        numbers = (latents[..., 0, 0, 0] - 100 * clip[:, None]).astype(int)
        assert all(len(set(row)) == 3 for row in numbers.tolist())
        poses = clips.arrays["retrieved_world_from_camera"][clip[:, None], numbers]
        np.testing.assert_array_equal(batch["retrieved_world_from_camera"], poses)
        assert batch["retrieved_intrinsics"].shape == (20, 3, 4)
        chosen += numbers.tolist()
    selected = np.mean([row == [0, 1, 2] for row in chosen])
    assert 0.35 < selected < 0.65
    assert {number for row in chosen for number in row} == set(range(6))


def test_what_else_a_batch_holds_does_not_depend_on_memory():
    clips = remembering_clips()
    names = [name for name in clips.arrays if not name.startswith("retrieved_")]
    plain = replace(clips, arrays={name: clips.arrays[name] for name in names})
    with_memory = clips.stream(batch_size=10, seed=3, tasks=EXTENSION).batch_at(5)
    without = plain.stream(batch_size=10, seed=3, tasks=EXTENSION).batch_at(5)
    assert same(without, {name: with_memory[name] for name in without})
    assert set(with_memory) - set(without) == {
        "retrieved_latents",
        "retrieved_world_from_camera",
        "retrieved_intrinsics",
    }


def test_memory_has_the_reference_of_its_window():
    clips = remembering_clips()
    tasks = replace(EXTENSION, reference="clip")
    shifted = (
        clips.arrays["world_from_camera"].at[:].set(make_poses(20, 13))
    )  # of a window far from the start
    clips = replace(clips, arrays={**clips.arrays, "world_from_camera": shifted})
    batch = next(clips.stream(batch_size=20, seed=1, tasks=tasks))
    latents = np.asarray(batch["retrieved_latents"], np.float32)[..., 0, 0, 0]
    first = make_poses(20, 13)[:, 0]
    poses = np.asarray(clips.arrays["retrieved_world_from_camera"])
    for row, clip in enumerate(np.asarray(batch["clip_index"])):
        expected = np.linalg.inv(first[clip]) @ poses[clip, (latents[row] - 100 * clip).astype(int)]
        np.testing.assert_allclose(batch["retrieved_world_from_camera"][row], expected, atol=1e-5)


def test_unlabelled_clips_tell_nothing_of_where_memory_was_seen():
    clips = remembering_clips().with_unlabelled(0.5, seed=0)
    hidden = ~clips.labelled
    poses = np.asarray(clips.arrays["retrieved_world_from_camera"])
    assert (poses[hidden] == np.eye(4)).all()
    assert (poses[~hidden] != np.eye(4)).any()


@pytest.mark.parametrize(
    ("tasks", "frames"),
    [
        (TaskConfig(), 13),
        (replace(EXTENSION, i2v=0.5), 13),
        (replace(EXTENSION, extension=0, t2v=1), 13),
        (EXTENSION, 5),
    ],
)
def test_other_tasks_than_extension_are_refused(tasks, frames):
    with pytest.raises(ValueError, match="frames are retrieved for clips that are extended"):
        remembering_clips().stream(batch_size=2, seed=0, tasks=tasks, buckets=[Bucket(frames, 2)])


def test_sets_that_have_nothing_to_retrieve_are_refused():
    with pytest.raises(ValueError, match=r"kept as video.*Keep latents"):
        worlds_clips(WINDOWS, EMBEDDER, workers=0)
    with pytest.raises(ValueError, match="retrieved is 1; expected 0, or some frames out of takes"):
        WorldsSet(range(3), 32, 48, WorldsConfig(frames=9), retrieved=1)
    with pytest.raises(ValueError, match="records hold no retrieved frames"):
        next(iter(world_records(WINDOWS)))
