"""What a checkpoint's position means where the data are not drawn as they were, with the true numbers."""

from __future__ import annotations

import json
import re
from collections import Counter

import numpy as np
import pytest
from test_eligibility import EMBEDDER, records
from test_resident import make_clips

from camctrl_jax.data.clip_stream import ClipStream, ClipStreamConfig
from camctrl_jax.data.clips import write_clips
from camctrl_jax.data.stream import Bucket, Interleaving


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """60 labelled and 40 unlabelled clips."""
    out = tmp_path_factory.mktemp("positions") / "set"
    write_clips(out, [*records("l", 60, labelled=60), *records("u", 40)])
    return str(out)


def open_stream(folder, *buckets, process=(0, 1), seed=3, **options) -> ClipStream:
    config = ClipStreamConfig(
        datasets=(folder,), buckets=buckets or (Bucket(9, 5),), seed=seed, threads=1, prefetch=1, **options
    )
    return ClipStream(config, EMBEDDER, process_index=process[0], process_count=process[1])


def sequence(stream, batches: int) -> dict[str, list[int]]:
    """The clips of either kind in the order of drawing."""
    drawn = {"labelled": [], "unlabelled": []}
    for _ in range(batches):
        for number in next(stream)["clip_index"].tolist():
            drawn["labelled" if number < 60 else "unlabelled"].append(number)
    return drawn


def after(stream, batches: int) -> dict:
    for _ in range(batches):
        next(stream)
    return json.loads(json.dumps(stream.state()))


def said(sentences) -> dict[str, int]:
    """{"labelled": 24}: clips passed over; negative where they are drawn again."""
    found = re.findall(
        r"(\d+) (labelled|unlabelled) clips are (passed over|drawn again)", " ".join(sentences)
    )
    return {kind: int(count) * (1 if fate == "passed over" else -1) for count, kind, fate in found}


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ({"size": 5}, {"size": 10}),  # larger batches pass clips over
        ({"size": 10}, {"size": 5}),  # smaller ones repeat
        ({"size": 5}, {"size": 7}),  # the ratio is not that of a batch
        ({"size": 5}, {"size": 5, "labelled_to_unlabelled": (1, 1)}),
        ({"size": 10}, {"size": 5, "labelled_to_unlabelled": (3, 2)}),
        ({"size": 5, "labelled_to_unlabelled": None}, {"size": 15, "labelled_to_unlabelled": None}),
        ({"size": 5}, {"size": 5, "labelled_to_unlabelled": None}),
    ],
)
def test_clips_that_are_passed_over_or_drawn_again_are_counted(folder, before, now):
    """The order of each kind does not depend on what changed: the place in it tells what was left out."""
    size, other = before.pop("size"), now.pop("size")
    state = after(open_stream(folder, Bucket(9, size), **before), 4)
    whole = sequence(open_stream(folder, Bucket(9, size), **before), 40)
    had = {
        kind: len(clips)
        for kind, clips in sequence(open_stream(folder, Bucket(9, size), **before), 4).items()
    }
    resumed = open_stream(folder, Bucket(9, other), **now)
    sentences = resumed.restore(state)
    follows = sequence(resumed, 2)
    changes = said(sentences)
    for kind, clips in follows.items():
        place = had[kind] + changes.get(kind, 0)
        expected = whole[kind][place : place + len(clips)]
        assert clips == expected
    assert changes
    assert all(sentence.startswith("clips of 9 frames: ") for sentence in sentences)


def test_the_sentence_of_another_batch_size(folder):
    state = after(open_stream(folder, Bucket(9, 5)), 6)
    assert open_stream(folder, Bucket(9, 10)).restore(state) == (
        "clips of 9 frames: batches of 10 clips where they were 5. Positions count batches: in the order of "
        "drawing 24 labelled clips are passed over and 6 unlabelled clips are passed over",
    )
    assert open_stream(folder, Bucket(9, 5)).restore(state) == ()


def test_before_the_first_batch_nothing_changes(folder):
    state = open_stream(folder, Bucket(9, 5)).state()
    assert open_stream(folder, Bucket(9, 10), labelled_to_unlabelled=(1, 0)).restore(state) == ()


def test_another_number_of_buckets(folder):
    state = after(open_stream(folder, Bucket(9, 5)), 6)
    both = open_stream(folder, Bucket(9, 5), Bucket(1, 10)).restore(state)
    assert len(both) == 2
    # Three of the six batches would have been clips: 12 labelled and 3 unlabelled ones are drawn again.
    assert both[0] == (
        "clips of 9 frames: 3 of the 6 batches so far would be its own, 6 were. Positions count batches: in "
        "the order of drawing 12 labelled clips are drawn again and 3 unlabelled clips are drawn again"
    )
    assert both[1].startswith("images: new since the checkpoint.")
    assert said(both[1:]) == {"labelled": 24, "unlabelled": 6}
    state = after(open_stream(folder, Bucket(9, 5, weight=2), Bucket(1, 10)), 6)
    fewer = open_stream(folder, Bucket(9, 5, weight=2)).restore(state)
    assert said(fewer) == {"labelled": 8, "unlabelled": 2}
    assert fewer[-1] == "images: not drawn any more"


def test_a_kind_that_is_left_out_or_comes_new(folder):
    state = after(open_stream(folder, Bucket(9, 5)), 5)
    only = open_stream(folder, Bucket(9, 5), labelled_to_unlabelled=(1, 0)).restore(state)
    assert said(only) == {"labelled": 5}
    assert only[-1] == "clips of 9 frames: unlabelled clips are not drawn any more"
    state = after(open_stream(folder, Bucket(9, 5), labelled_to_unlabelled=(1, 0)), 5)
    assert said(open_stream(folder, Bucket(9, 5)).restore(state)) == {"labelled": -5, "unlabelled": 5}


def test_other_clips_fit(folder, tmp_path):
    write_clips(tmp_path / "a", [*records("l", 9, labelled=9), *records("s", 6, frames=5), *records("u", 3)])
    state = after(open_stream(str(tmp_path / "a"), Bucket(9, 5)), 3)
    (sentence,) = open_stream(str(tmp_path / "a"), Bucket(5, 5)).restore(state)
    assert sentence.startswith(
        "clips of 5 frames: the checkpoint drew from 3 unlabelled clips, this run draws from 9, in another "
    )


def test_other_workers_change_nothing(folder):
    state = after(open_stream(folder, Bucket(9, 5), workers=1), 4)
    expected = sequence(open_stream(folder, Bucket(9, 5)), 6)
    resumed = open_stream(folder, Bucket(9, 5))
    assert resumed.restore(state) == ()
    assert sequence(resumed, 2)["labelled"] == expected["labelled"][16:]


def test_another_number_of_processes_is_said(folder):
    state = after(open_stream(folder, Bucket(9, 10), process=(0, 2)), 4)
    (sentence,) = open_stream(folder, Bucket(9, 10)).restore(state)
    assert sentence.startswith("in 1 process, where there were 2, each has another share of the clips.")
    assert "after as many batches (4)" in sentence


def test_counts_are_those_of_all_processes(folder):
    streams = [open_stream(folder, Bucket(9, 20), process=(index, 2)) for index in range(2)]
    drawn = Counter()
    for stream in streams:
        drawn.update({kind: len(clips) for kind, clips in sequence(stream, 3).items()})
    (bucket,) = streams[0].state()["buckets"]
    assert bucket["clips"] == dict(drawn) == {"labelled": 48, "unlabelled": 12}
    assert bucket["batches"] == 3


def test_positions_of_other_clips_and_seeds_say_which(folder, tmp_path):
    state = after(open_stream(folder), 1)
    write_clips(tmp_path / "more", [*records("l", 61, labelled=61), *records("u", 40)])
    write_clips(tmp_path / "other", [*records("l", 60, labelled=60), *records("x", 40)])
    write_clips(tmp_path / "same", [*records("l", 60, labelled=60), *records("u", 40)])
    for changed, message in (
        (open_stream(str(tmp_path / "more")), "it counts in 100 clips, this run has 101"),
        (open_stream(str(tmp_path / "other")), r"it counts in as many clips \(100\), but in others"),
        (open_stream(folder, seed=4), "it was drawn with seed 3, this run has 4"),
    ):
        with pytest.raises(ValueError, match=f"does not belong to this stream: {message}"):
            changed.restore(state)
    with pytest.raises(ValueError, match="it counts in datasets, this run draws from worlds in memory"):
        make_clips(4).stream(batch_size=2, seed=3).restore(state)
    assert open_stream(str(tmp_path / "same")).restore(state) == ()  # built again, or moved


def test_positions_of_earlier_versions_are_taken(folder):
    stream = open_stream(folder, Bucket(9, 5))
    state = after(stream, 3)
    old = {name: value for name, value in state.items() if name not in ("buckets", "ids")}
    resumed = open_stream(folder, Bucket(9, 5))
    assert resumed.restore(old) == ()
    np.testing.assert_array_equal(next(resumed)["clip_index"], next(stream)["clip_index"])


def resident(size: int, **options):
    clips = make_clips(20, latents=True).with_unlabelled(0.5, seed=0)
    return clips.stream(batch_size=size, seed=1, labelled_to_unlabelled=(4, 1), **options)


@pytest.mark.parametrize(("size", "other"), [(5, 10), (10, 5), (5, 6)])
def test_worlds_in_memory_say_the_same(size, other):
    stream = resident(size)
    whole = np.concatenate([stream.batch_at(step)["clip_index"] for step in range(12)])
    labelled = stream.clips.labelled
    for _ in range(4):
        next(stream)
    resumed = resident(other)
    changes = said(resumed.restore(json.loads(json.dumps(stream.state()))))
    for kind, of_kind in (("labelled", labelled), ("unlabelled", ~labelled)):
        order = whole[of_kind[whole]]
        place = int(of_kind[whole[: 4 * size]].sum()) + changes.get(kind, 0)
        follows = np.asarray(resumed.batch_at(4)["clip_index"])
        follows = follows[of_kind[follows]]
        np.testing.assert_array_equal(follows, order[place : place + len(follows)])
    assert changes


def test_other_worlds_are_refused_and_old_positions_taken():
    state = {"kind": "resident", "step": 3, "seed": 1, "clips": 20}
    stream = resident(5)
    assert stream.restore(state) == ()
    assert stream.state()["step"] == 3
    with pytest.raises(ValueError, match="in 20 clips, this run has 8"):
        make_clips(8).stream(batch_size=5, seed=1).restore(state)
    others = stream.state() | {"ids": 0}
    with pytest.raises(ValueError, match=r"as many clips \(20\), but in others"):
        resident(5).restore(others)
    with pytest.raises(ValueError, match="step is None"):
        stream.restore({"kind": "resident", "seed": 1, "clips": 20})


@pytest.mark.parametrize("weights", [(1,), (4, 1), (3, 0, 2)])
def test_turns_before_a_turn_are_those_that_were(weights):
    turns = Interleaving(weights)
    for turn in range(12):
        chosen = turns(np.arange(turn))[0]
        assert turns.before(turn) == np.bincount(chosen, minlength=len(weights)).tolist()
