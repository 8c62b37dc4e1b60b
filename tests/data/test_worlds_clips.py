"""Worlds in device memory: the right worlds, whatever the chunks and processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from camctrl_jax.camera.framing import relative_to_first
from camctrl_jax.data.resident import ResidentClips
from camctrl_jax.data.stream import Bucket
from camctrl_jax.data.tasks import TaskConfig
from camctrl_jax.data.text import WordEmbedder
from camctrl_jax.data.worlds_clips import batch_shapes, compile_together, worlds_clips
from camctrl_jax.data.worlds_records import world_records
from camctrl_jax.data.worlds_set import WorldsSet, sampled_worlds
from camctrl_jax.models.autoencoder import _encode
from camctrl_jax.worlds import Places, WorldsConfig, paths, render, render_rgb, sample_world
from camctrl_jax.worlds import window as cut_window
from camctrl_jax.worlds.rendering import FARTHEST, _rgb_clips

EMBEDDER = WordEmbedder(dim=8, max_tokens=24)
CONFIG = WorldsConfig(frames=9, aspect=48 / 32)
SIZE = {"height": 32, "width": 48, "samples": 1}
FIVE = WorldsSet(range(3, 8), **SIZE, config=CONFIG)


@pytest.fixture(scope="module")
def clips() -> ResidentClips:
    """Worlds 3 to 7 in chunks of two: the last chunk is not full."""
    return worlds_clips(FIVE, EMBEDDER, chunk=2, workers=0)


def equal(first: ResidentClips, second: ResidentClips) -> bool:
    return first.ids == second.ids and all(
        np.array_equal(array, second.arrays[name]) for name, array in first.arrays.items()
    )


def test_clips_are_the_worlds_of_their_seeds(clips):
    assert clips.ids == tuple(f"world-{seed}" for seed in range(3, 8))
    for row, seed in ((0, 3), (4, 7)):
        world = sample_world(seed, CONFIG)
        rendered = render_rgb([world, world], 32, 48, 1)[0]
        np.testing.assert_array_equal(clips.arrays["video"][row], rendered)
        poses = relative_to_first(world.cameras.world_from_camera)
        np.testing.assert_allclose(clips.arrays["world_from_camera"][row], poses, atol=1e-6)
        np.testing.assert_allclose(clips.arrays["intrinsics"][row], world.cameras.intrinsics, atol=1e-6)
        assert clips.caption_count[row] == len(world.captions)
        text, mask = EMBEDDER.embed(world.captions)
        np.testing.assert_allclose(clips.arrays["text"][row, : len(text)], text, atol=2e-3)
        np.testing.assert_array_equal(clips.arrays["text_mask"][row, : len(text)], mask)


def test_pixels_are_square_whatever_the_size(clips):
    fx, fy = (
        np.asarray(clips.arrays["intrinsics"])[..., 0] * 48,
        np.asarray(clips.arrays["intrinsics"])[..., 1] * 32,
    )
    np.testing.assert_allclose(fx, fy, rtol=1e-5)
    other = WorldsSet(range(3, 8), **SIZE, config=WorldsConfig(frames=9))
    again = worlds_clips(other, EMBEDDER, chunk=2, workers=0)
    assert equal(clips, again)  # the aspect ratio of the configuration follows the size


def test_windows_of_takes_are_seen_from_the_first_camera_of_the_take_when_they_extend(tmp_path):
    config = replace(CONFIG, places=Places(layout="garden", take_frames=49))
    windows = WorldsSet(range(3), **SIZE, config=config)
    clips = worlds_clips(windows, EMBEDDER, chunk=3, workers=0, cache=tmp_path)
    assert clips.shared_reference
    assert equal(clips, worlds_clips(windows, EMBEDDER, chunk=3, workers=0, cache=tmp_path))
    expected = []
    for seed in range(3):
        world = sample_world(seed, windows.config)
        expected.append(np.linalg.inv(world.reference) @ world.cameras.world_from_camera)
    np.testing.assert_allclose(clips.arrays["world_from_camera"], expected, atol=1e-6)
    assert np.abs(np.stack(expected)[:, 0] - np.eye(4)).max() > 0.1
    kept = TaskConfig(t2v=0, i2v=0, extension=1, extension_latents=(2, 2))
    again = worlds_clips(windows, EMBEDDER, chunk=3, workers=0, cache=tmp_path)
    assert again.shared_reference
    batch = next(again.stream(batch_size=3, seed=0, tasks=kept))
    np.testing.assert_allclose(batch["world_from_camera"], np.stack(expected)[batch["clip_index"]], atol=1e-6)
    batch = next(again.stream(batch_size=3, seed=0, tasks=TaskConfig(t2v=0, i2v=1)))
    own = relative_to_first(np.stack(expected)[batch["clip_index"]])
    np.testing.assert_allclose(batch["world_from_camera"], own, atol=1e-5)


def test_windows_of_a_take_are_cut_from_it(tmp_path):
    config = replace(CONFIG, places=Places(layout="garden", take_frames=49))
    windows = WorldsSet(range(5, 7), **SIZE, config=config, windows_per_take=3)
    assert len(windows) == 6
    starts = [int(name.rpartition("-")[2]) for name in windows.ids]
    assert [name.rpartition("-from-")[0] for name in windows.ids] == ["place-5"] * 3 + ["place-6"] * 3
    assert all(0 <= start <= 40 for start in starts)
    assert all(a < 14 <= b + 1 < 29 <= c + 2 for a, b, c in (starts[:3], starts[3:]))  # one in each third
    clips = worlds_clips(windows, EMBEDDER, chunk=4, workers=0, cache=tmp_path)  # a take over two chunks
    assert clips.ids == windows.ids
    for row, start in enumerate(starts):
        take = sample_world(5 + row // 3, replace(windows.config, frames=49, places=Places(layout="garden")))
        expected = np.linalg.inv(take.cameras.world_from_camera[0]) @ take.cameras.world_from_camera
        poses = clips.arrays["world_from_camera"][row]
        np.testing.assert_allclose(poses, expected[start : start + 9], atol=1e-6)
    rendered = render(cut_window(take, starts[-1], 9), 32, 48, 1)
    np.testing.assert_array_equal(clips.arrays["video"][-1], rendered.rgb)
    # Another number of windows is another set, in the cache too.
    worlds_clips(replace(windows, windows_per_take=1), EMBEDDER, chunk=4, workers=0, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    with pytest.raises(ValueError, match="takes of 49 frames hold 1 to 41 windows of 9 frames"):
        replace(windows, windows_per_take=42)
    with pytest.raises(ValueError, match="takes of 9 frames hold 1 to 1 windows"):
        replace(FIVE, windows_per_take=2)


def test_records_of_places_keep_the_first_camera_of_the_take(tmp_path):
    windows = WorldsSet(
        range(5, 7), **SIZE, config=replace(CONFIG, places=Places(take_frames=49)), windows_per_take=2
    )
    records = list(world_records(windows, chunk=4, workers=0, crf=1, unlabelled_share=0.25))
    assert tuple(record.id for record in records) == windows.ids
    clips = worlds_clips(windows, EMBEDDER, chunk=4, workers=0)
    for record, expected in zip(records, np.asarray(clips.arrays["world_from_camera"])):
        record.validate()
        if record.labelled:
            found = np.linalg.inv(record.reference) @ record.cameras.world_from_camera
            np.testing.assert_allclose(found, expected, atol=1e-6)
    assert sum(record.labelled for record in records) == 3
    whole = replace(windows, config=replace(CONFIG, places=Places()), windows_per_take=1)
    assert whole.shared_reference
    (record, _) = world_records(whole, chunk=2, workers=0)
    np.testing.assert_array_equal(record.reference, record.cameras.world_from_camera[0])
    assert not FIVE.shared_reference
    assert next(iter(world_records(FIVE, chunk=2, workers=0))).reference is None


def test_sets_without_places_are_named_and_kept_as_ever():
    """Positions of earlier checkpoints and cached sets are found again by these."""
    assert FIVE.ids == ("world-3", "world-4", "world-5", "world-6", "world-7")
    assert replace(FIVE, config=replace(CONFIG, places=Places())).ids[0] == "place-3"


def test_processes_sample_the_same_worlds_in_the_same_order():
    five = WorldsSet(range(5), **SIZE, config=CONFIG)  # three chunks over two processes
    alone = [clip.world for chunk in sampled_worlds(five, range(5), chunk=2, workers=0) for clip in chunk]
    shared = [clip.world for chunk in sampled_worlds(five, range(5), chunk=2, workers=2) for clip in chunk]
    assert [world.seed for world in shared] == [0, 1, 2, 3, 4]
    for one, other in zip(alone, shared):
        assert one.captions == other.captions
        np.testing.assert_array_equal(one.cameras.world_from_camera, other.cameras.world_from_camera)
        for name, array in one.scene.arrays().items():
            np.testing.assert_array_equal(array, other.scene.arrays()[name])


def test_progress_counts_clips():
    calls = []
    worlds_clips(
        WorldsSet(range(3), **SIZE, config=CONFIG),
        EMBEDDER,
        chunk=2,
        workers=0,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls == [(2, 3), (3, 3)]


def test_latents_are_those_of_the_rendered_video(clips, nano_encoder):
    encoded = worlds_clips(FIVE, EMBEDDER, autoencoder=nano_encoder, chunk=2, workers=0)
    latents = np.asarray(encoded.arrays["latents"])
    assert latents.shape == (5, 3, 4, 6, 16)
    assert latents.dtype == np.float16
    expected = np.asarray(nano_encoder.encode(clips.arrays["video"], dtype=np.float16))
    np.testing.assert_allclose(latents, expected, atol=4e-3)
    # An image equals the first latent of its video: prefixes of latents are clips of their own.
    images = np.asarray(nano_encoder.encode(clips.arrays["video"][:, :1], dtype=np.float16))
    np.testing.assert_allclose(images, expected[:, :1], atol=4e-3)


def test_a_cached_set_is_read_instead_of_rendered(tmp_path, clips):
    options = {"chunk": 2, "workers": 0, "cache": tmp_path}
    first = worlds_clips(FIVE, EMBEDDER, **options)
    rendered = []
    second = worlds_clips(FIVE, EMBEDDER, **options, progress=lambda done, total: rendered.append(done))
    assert not rendered
    assert equal(first, second)
    assert equal(clips, second)
    assert len(list(tmp_path.iterdir())) == 1
    worlds_clips(WorldsSet(range(3, 7), **SIZE, config=CONFIG), EMBEDDER, **options)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_cached_set_is_not_read_once_the_source_of_worlds_has_changed(tmp_path, clips, monkeypatch):
    package = tmp_path / "worlds"
    shutil.copytree(Path(paths.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(resources, "files", lambda name: package)
    cache = tmp_path / "cache"
    options = {"chunk": 2, "workers": 0, "cache": cache}
    worlds_clips(FIVE, EMBEDDER, **options)
    with (package / "paths.py").open("a") as module:
        module.write("ARC_PIVOT = 1.9\n")
    rendered = []
    worlds_clips(FIVE, EMBEDDER, **options, progress=lambda done, total: rendered.append(done))
    assert rendered[-1] == 5
    assert len(list(cache.iterdir())) == 2


def test_records_hold_the_same_worlds(clips):
    records = list(world_records(FIVE, unlabelled_share=0.4, chunk=2, workers=0, crf=1))
    assert [record.id for record in records] == list(clips.ids)
    assert sum(record.labelled for record in records) == 3
    for record in records:
        record.validate()
        if record.labelled:
            assert record.metric
            assert len(record.cameras) == 9


@pytest.mark.parametrize(
    ("seeds", "size", "named"),
    [(range(0), (32, 48), "no world seeds"), (range(2), (30, 48), "height=30: expected a multiple of 16")],
)
def test_impossible_sets_are_refused(seeds, size, named):
    with pytest.raises(ValueError, match=named):
        WorldsSet(seeds, *size)


@pytest.mark.slow
def test_every_device_renders_and_encodes_its_part():
    """In a process of its own with four devices: see worlds_on_devices.py."""
    script = Path(__file__).with_name("worlds_on_devices.py")
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=4"
    environment = {**os.environ, "XLA_FLAGS": flags}
    done = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["video_equal"]
    assert found["others_equal"]
    assert found["latent_difference"] < 1e-3
    assert found["devices_at_work"] == [0, 1, 2, 3]
    assert found["replicated"]
    assert found["largest_part"] <= 3
    assert found["progress"] == [[12, 14], [14, 14]]


def test_labels_come_with_clips_and_are_kept_and_cut_with_them(tmp_path, clips):
    labelled = replace(FIVE, labels=True)
    options = {"chunk": 2, "workers": 0, "cache": tmp_path}
    first = worlds_clips(labelled, EMBEDDER, **options)
    assert equal(first, worlds_clips(labelled, EMBEDDER, **options))
    assert set(first.arrays) - set(clips.arrays) == {"log_depth", "moving_share"}
    assert all(np.array_equal(array, first.arrays[name]) for name, array in clips.arrays.items())
    worlds_clips(FIVE, EMBEDDER, **options)
    assert len(list(tmp_path.iterdir())) == 2  # a set without labels is another set
    stream = first.stream(batch_size=3, seed=1, buckets=(Bucket(5, 3),))
    batch = stream.batch_at(2)
    (told,) = batch_shapes(labelled, EMBEDDER, [Bucket(5, 3)])
    assert {name: (each.shape, each.dtype) for name, each in batch.items()} == {
        name: (each.shape, each.dtype) for name, each in told.items()
    }
    picks = stream.picks_at(2)[1]
    for row, (clip, _, start) in enumerate(picks[:, :3].tolist()):
        truth = render(sample_world(3 + clip, CONFIG), 32, 48, 1)
        depth = np.log(np.minimum(truth.depth, FARTHEST))[start : start + 5].reshape(5, 2, 16, 3, 16)
        moving = truth.moving[start : start + 5].reshape(5, 2, 16, 3, 16)
        np.testing.assert_allclose(batch["log_depth"][row], depth.mean((2, 4)), atol=3e-3)
        np.testing.assert_allclose(batch["moving_share"][row], moving.mean((2, 4)), atol=1e-3)


def test_programs_of_all_sets_are_compiled_ahead_of_them(tmp_path, nano_encoder):
    worlds = WorldsSet(range(3), 16, 48, WorldsConfig(frames=9))
    places = WorldsSet(
        range(2),
        32,
        32,
        WorldsConfig(frames=5, places=Places(take_frames=15)),
        windows_per_take=2,
        retrieved=1,
    )
    embedder = WordEmbedder()
    compile_together([worlds, places], embedder, autoencoder=nano_encoder, cache=tmp_path)
    programs = (_encode, _rgb_clips)
    compiled = [program._cache_size() for program in programs]
    for each in (worlds, places):
        worlds_clips(each, embedder, autoencoder=nano_encoder, cache=tmp_path)
    assert [program._cache_size() for program in programs] == compiled
