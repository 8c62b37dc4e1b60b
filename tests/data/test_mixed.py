"""Several sets of resident clips in one stream: whose turn it is, and that the position is one number."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_resident import EMBEDDER, make_poses, same

from camctrl_jax.data.mixed import MixedStream, seed_of_set, sets_identity
from camctrl_jax.data.positions import check_same_clips
from camctrl_jax.data.resident import ResidentClips
from camctrl_jax.data.stream import BatchStream, Bucket, Interleaving


def make_clips(count: int, frames: int, height: int) -> ResidentClips:
    video = np.tile(np.arange(count)[:, None, None, None, None], (1, frames, height, 32, 3)).astype(np.uint8)
    return ResidentClips.build(
        world_from_camera=make_poses(count, frames),
        intrinsics=np.tile([0.5, 0.8, 0.5, 0.5], (count, frames, 1)),
        captions=[["a clip"]] * count,
        embedder=EMBEDDER,
        ids=[f"c{i}" for i in range(count)],
        video=video,
    )


SMALL, LARGE = make_clips(8, 5, 16), make_clips(6, 9, 32)


def mixed(
    seed: int = 0, turns=(2, 1), *, small=SMALL, names=("small", "large"), batch: int = 4
) -> MixedStream:
    streams = {
        names[0]: small.stream(
            batch_size=batch, seed=seed_of_set(seed, names[0]), buckets=[Bucket(5, batch), Bucket(1, 8)]
        ),
        names[1]: LARGE.stream(batch_size=2, seed=seed_of_set(seed, names[1])),
    }
    return MixedStream(streams, turns, seed)


def test_sets_take_turns_and_keep_their_shapes():
    stream = mixed()
    assert isinstance(stream, BatchStream)
    shapes = [next(stream)["video"].shape[:3] for _ in range(6)]
    assert shapes == [(4, 5, 16), (2, 9, 32), (8, 1, 16), (4, 5, 16), (2, 9, 32), (8, 1, 16)]


def test_a_set_draws_what_it_would_draw_alone():
    stream, alone = mixed(), LARGE.stream(batch_size=2, seed=seed_of_set(0, "large"))
    which, _ = Interleaving((2, 1))(np.arange(9))
    batches = [next(stream) for _ in range(9)]
    for batch in (batch for batch, chosen in zip(batches, which) if chosen == 1):
        own = next(alone)
        assert stream.describe(batch) == [f"large/{name}" for name in alone.describe(own)]
        assert np.array_equal(batch["clip_index"], own["clip_index"] + len(SMALL))
        assert same(batch | {"clip_index": own["clip_index"]}, own)
    drawn = {name for batch in batches for name in stream.describe(batch)}
    assert drawn == {f"small/c{i}" for i in range(8)} | {f"large/c{i}" for i in range(6)}


def test_sets_are_drawn_independently():
    assert seed_of_set(0, "a") != seed_of_set(0, "b") != seed_of_set(1, "b")
    assert seed_of_set(3, "a") == seed_of_set(3, "a")


@pytest.mark.parametrize("steps", [0, 1, 5, 7])
def test_a_saved_position_goes_on_with_the_same_batches(steps):
    first, second = mixed(), mixed()
    for _ in range(steps):
        next(first)
    assert second.restore(json.loads(json.dumps(first.state()))) == ()
    for _ in range(4):
        one, other = next(first), next(second)
        assert same(one, other)
        assert first.describe(one) == second.describe(other)


def test_other_batches_and_turns_are_said():
    stream = mixed()
    for _ in range(6):
        next(stream)
    (sentence,) = mixed(batch=6).restore(stream.state())
    assert sentence.startswith("small, clips of 5 frames: batches of 6 clips where they were 4")
    assert "4 clips are passed over" in sentence
    sentences = mixed(turns=(1, 1)).restore(stream.state())
    assert any(each.startswith("large, clips of 9 frames: 3 of the 6 batches") for each in sentences)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"seed": 1}, "seed 0, this run has 1"),
        ({"small": make_clips(7, 5, 16)}, r"in 6 \+ 8 clips|in 8 \+ 6 clips, this run has 7 \+ 6"),
        ({"names": ("little", "large")}, "but in others"),
    ],
)
def test_positions_in_other_sets_are_refused(other, message):
    with pytest.raises(ValueError, match=message):
        mixed(**other).restore(mixed().state())
    with pytest.raises(ValueError, match="worlds in memory, this run draws from several sets of worlds"):
        mixed().restore(SMALL.stream(batch_size=2, seed=0).state())


def test_what_a_position_is_valid_for_is_known_without_clips():
    ids = {"small": SMALL.ids, "large": LARGE.ids}
    check_same_clips(mixed().state(), sets_identity(ids, 0))
    with pytest.raises(ValueError, match="but in others"):
        check_same_clips(mixed().state(), sets_identity({**ids, "large": [*LARGE.ids[:-1], "x"]}, 0))


@pytest.mark.slow
def test_two_devices_have_the_batches_of_one():
    """In a process of its own with two devices: see sets_on_devices.py."""
    script = Path(__file__).with_name("sets_on_devices.py")
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2"
    environment = {**os.environ, "XLA_FLAGS": flags}
    done = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["devices"] == 2
    assert found["names"]
    assert set(found["split"].values()) == {2}
    assert set(found["halves"].values()) == {1}
    assert "retrieved_latents" in found["differences"]
    assert max(found["differences"].values()) < 2e-3
