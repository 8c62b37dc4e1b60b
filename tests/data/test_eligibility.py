"""What of every dataset a run draws, why the rest is not, and that what it says is what it does."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest

from camctrl_jax.camera.cameras import Cameras
from camctrl_jax.camera.framing import null_intrinsics
from camctrl_jax.data.clip_stream import ClipStream, ClipStreamConfig
from camctrl_jax.data.clips import ClipRecord, open_clips, write_clips
from camctrl_jax.data.stream import Bucket
from camctrl_jax.data.tasks import TaskConfig
from camctrl_jax.data.text import WordEmbedder
from camctrl_jax.errors import InvalidValue, MissingFile

EMBEDDER = WordEmbedder(dim=8, max_tokens=8)
# Latents need no decoding: what is drawn is what these tests look at.
NOTHING_DROPPED = TaskConfig(text_dropout=0.0, camera_dropout=0.0)


def records(name: str, count: int, *, labelled: int = 0, frames: int = 9, fps: float = 12.0, size=(32, 48)):
    """Clips of cached latents, the first ``labelled`` of which have cameras."""
    for number in range(count):
        cameras = None
        if number < labelled:
            intrinsics = np.tile(null_intrinsics(*size), (frames, 1)).astype(np.float64)
            cameras = Cameras(np.tile(np.eye(4), (frames, 1, 1)), intrinsics)
        latents = np.full(((frames - 1) // 4 + 1, size[0] // 8, size[1] // 8, 16), number, np.float16)
        yield ClipRecord(f"{name}-{number}", frames, *size, fps, cameras, ("a",), latents=latents)


@pytest.fixture
def made(tmp_path):
    """A function that writes a dataset of some kinds of clips, joined: ``made("a", {...}, {...})``."""

    def make(name: str, *kinds: dict) -> str:
        parts = [records(f"{name}{index}", **kind) for index, kind in enumerate(kinds)]
        write_clips(tmp_path / name, (record for part in parts for record in part))
        return str(tmp_path / name)

    return make


def open_stream(datasets, *buckets, unlabelled=(), process=(0, 1), **options) -> ClipStream:
    config = ClipStreamConfig(
        datasets=tuple(datasets),
        unlabelled=tuple(unlabelled),
        buckets=buckets,
        threads=1,
        prefetch=1,
        **options,
    )
    return ClipStream(config, EMBEDDER, process_index=process[0], process_count=process[1])


def drawn_of(stream: ClipStream, batches: int = 40) -> dict[tuple[str, int], set[str]]:
    """The ids that were drawn, by dataset and number of latents."""
    found: dict[tuple[str, int], set[str]] = {}
    for _ in range(batches):
        batch = next(stream)
        for name in stream.describe(batch):
            folder, clip = name.split("/")
            found.setdefault((folder, batch["latents"].shape[1]), set()).add(clip)
    stream.close()
    return found


def test_reported_counts_are_those_of_what_is_drawn(made):
    """Rates, lengths and kinds mixed within datasets; clips and images in turns."""
    mixed = made(
        "mixed",
        {"count": 6, "labelled": 4},
        {"count": 5, "fps": 24.0},
        {"count": 3, "frames": 5, "labelled": 1},
        {"count": 2, "frames": 5, "fps": 30.0},
    )
    plain = made("plain", {"count": 7})
    stills = made("stills", {"count": 4, "frames": 1})
    stream = open_stream(
        [mixed, stills], Bucket(9, 5), Bucket(1, 5), unlabelled=[plain], tasks=NOTHING_DROPPED
    )
    lines = {report.folder: str(report) for report in stream.reports}
    assert lines[mixed] == (
        f"{mixed}: 16 clips, 5 labelled; drawn: 6 in clips of 9 frames (5 have 5 frames, expected 9 or more; "
        "7 have 24 fps or 30 fps, expected 12 (within 5 %)), 9 in images (7 have 24 fps or 30 fps, "
        "expected 12 (within 5 %))"
    )
    assert lines[stills] == (
        f"{stills}: 4 clips, 0 labelled; drawn: 0 in clips of 9 frames (4 have 1 frame, expected 9 or "
        "more), 4 in images"
    )
    assert lines[plain] == f"{plain}: 7 clips, 0 labelled; drawn: 7 in clips of 9 frames, 7 in images"
    said = {
        (report.folder.rsplit("/", 1)[1], use.bucket.latents): use.drawn
        for report in stream.reports
        for use in report.uses
    }
    drawn = drawn_of(stream, 80)
    assert {key: len(drawn.get(key, ())) for key in said} == said
    assert [remark.split(". ")[0] for remark in stream.remarks] == [
        f"{mixed}: only 6 of its 16 clips are drawn in clips of 9 frames: 5 have 5 frames, expected 9 or "
        "more; "
        "7 have 24 fps or 30 fps, expected 12 (within 5 %)",
        f"{stills}: none of its 4 clips is drawn in clips of 9 frames: 4 have 1 frame, expected 9 or more",
    ]


@pytest.mark.parametrize(
    ("kind", "bucket", "options", "why", "remedy"),
    [
        ({"fps": 24.0}, {}, {}, "5 have 24 fps, expected 12 (within 5 %)", "--config.data.fps=24"),
        ({"fps": 24.0}, {}, {}, "5 have 24 fps, expected 12 (within 5 %)", "Build it again with --fps 12"),
        ({"fps": 12.7}, {}, {}, "5 have 12.7 fps", "--fps 12"),
        ({"frames": 5}, {}, {}, "5 have 5 frames, expected 9 or more", "--config.data.frames=5"),
        (
            {"size": (64, 96)},
            {"height": 32, "width": 48},
            {},
            "5 have latents of 64x96 pixels, expected 32x48",
            "--config.data.height=64 --config.data.width=96",
        ),
        (
            {},
            {},
            {"labelled_to_unlabelled": (1, 0)},
            "5 are unlabelled, and labelled_to_unlabelled=1,0 draws none of these",
            "--config.data.labelled_to_unlabelled=4,1",
        ),
        (
            {"labelled": 5},
            {},
            {"labelled_to_unlabelled": (0, 1)},
            "5 are labelled, and labelled_to_unlabelled=0,1 draws none of these",
            "--config.data.labelled_to_unlabelled=4,1",
        ),
        (
            {"labelled": 5},
            {},
            {"labelled_to_unlabelled": None, "process": (0, 6)},
            "5 are labelled, fewer in all than the 6 processes",
            "Train in fewer processes",
        ),
        ({"fps": 24.0, "frames": 5}, {}, {}, "5 have 5 frames, expected 9 or more (in", "--fps 12"),
    ],
)
def test_a_dataset_of_which_nothing_is_drawn_is_an_error(made, kind, bucket, options, why, remedy):
    both = {"labelled": 4} if options.get("labelled_to_unlabelled", (4, 1)) else {}
    good = made("good", {"count": 12, **both})
    bad = made("bad", {"count": 5, **kind})
    with pytest.raises(InvalidValue) as caught:
        open_stream([good, bad], Bucket(9, 6, **bucket), **options)
    message = str(caught.value)
    assert message.startswith(f"{bad} (named under datasets): none of its 5 clips is drawn: ")
    assert why in message
    assert remedy in message
    assert message.endswith("; or leave it out.")
    assert good not in message


def test_every_dataset_of_which_nothing_is_drawn_is_named(made):
    good, fast, short = (
        made("good", {"count": 4, "labelled": 2}),
        made("fast", {"count": 2, "fps": 24.0}),
        made("short", {"count": 3, "frames": 5}),
    )
    with pytest.raises(InvalidValue) as caught:
        open_stream([good, fast], Bucket(9, 5), unlabelled=[short])
    assert f"{fast} (named under datasets): none of its 2 clips" in str(caught.value)
    assert f"{short} (named under unlabelled): none of its 3 clips" in str(caught.value)
    stream = open_stream([good, fast], Bucket(9, 5), unlabelled=[short], every_dataset=False)
    assert drawn_of(stream).keys() == {("good", 3)}


def test_an_enlarged_clip_is_one_of_a_size_that_does_not_fit(worlds_folder):
    with pytest.raises(InvalidValue) as caught:
        open_stream([str(worlds_folder)], Bucket(9, 5, height=48, width=80))
    assert "10 have 32x48 pixels and would be enlarged to fill 48x80" in str(caught.value)
    assert "--height 48 --width 80" in str(caught.value)
    assert "--config.data.height=32 --config.data.width=48" in str(caught.value)


def test_cameras_that_are_ignored_are_reported(made):
    cameras, plain = made("cameras", {"count": 6, "labelled": 5}), made("plain", {"count": 4, "labelled": 4})
    stream = open_stream([plain], Bucket(9, 5), unlabelled=[cameras], tasks=NOTHING_DROPPED)
    assert str(stream.reports[1]) == (
        f"{cameras}: 6 clips, 5 labelled, cameras ignored (named under unlabelled); drawn: 6 in clips of 9 "
        "frames"
    )
    valid = {}
    for _ in range(20):
        batch = next(stream)
        valid |= dict(zip(stream.describe(batch), batch["camera_valid"].tolist()))
    assert {name: flag for name, flag in valid.items() if name.startswith("cameras/")} == {
        f"cameras/cameras0-{number}": False for number in range(6)
    }


def test_a_folder_named_twice_is_said_and_drawn_so(made, tmp_path):
    one, plain = made("one", {"count": 2, "labelled": 2}), made("plain", {"count": 2, "labelled": 2})
    (tmp_path / "link").symlink_to(one)
    for again in (one, f"{one}/", str(tmp_path / "link"), str(tmp_path / "plain" / ".." / "one")):
        stream = open_stream([one, plain, again], Bucket(9, 6), labelled_to_unlabelled=(1, 0))
        (remark,) = stream.remarks
        assert remark.startswith(f"{again} is named twice under datasets")
        assert "drawn twice as often" in remark
        names = [name.rsplit("/", 1)[1] for _ in range(2) for name in stream.describe(next(stream))]
        assert {clip: names.count(clip) for clip in set(names)} == {
            "one0-0": 4,
            "one0-1": 4,
            "plain0-0": 2,
            "plain0-1": 2,
        }
    (remark,) = open_stream([one], Bucket(9, 5), unlabelled=[one]).remarks
    assert remark.startswith(f"{one} is named under datasets and under unlabelled:")


def test_a_copy_of_a_dataset_is_said(made, tmp_path):
    one = made("one", {"count": 3, "labelled": 2})
    copy = str(tmp_path / "copy")
    shutil.copytree(one, copy)
    (remark,) = open_stream([one, copy], Bucket(9, 5)).remarks
    assert remark.startswith(f"{copy} holds clips of the same names and sizes as {one}: if it is a copy")
    write_clips(
        tmp_path / "again", records("one0", 3, labelled=2, size=(48, 48))
    )  # names alone prove nothing
    (remark,) = open_stream(
        [one, str(tmp_path / "again")], Bucket(9, 5, height=32, width=48), every_dataset=False
    ).remarks
    assert "none of its 3 clips is drawn" in remark


def test_a_shard_beside_its_whole_is_a_folder_named_twice(tmp_path):
    for shard in (0, 1):
        write_clips(tmp_path / "all" / f"0000{shard}-of-00002", records(f"s{shard}", 3, labelled=2))
    whole, part = str(tmp_path / "all"), str(tmp_path / "all" / "00001-of-00002")
    stream = open_stream([whole, part], Bucket(9, 5))
    assert [report.clips for report in stream.reports] == [6, 3]
    assert stream.remarks == (
        f"{part} is named twice under datasets (the other time as {whole}): its clips are drawn twice as "
        "often as those of others",
    )


def test_a_folder_of_datasets_is_refused_with_their_names(made, tmp_path):
    one, two = made("one", {"count": 1}), made("two", {"count": 1})
    write_clips(tmp_path / "sharded" / "00000-of-00001", records("s", 1))
    with pytest.raises(MissingFile, match=re.escape(f"holds some: name them one by one ({one}, ")) as caught:
        open_clips(tmp_path)
    assert f"{tmp_path / 'sharded'}, {two})" in str(caught.value)
    with pytest.raises(MissingFile, match=re.escape(f"holds the datasets {one}, ")):
        open_clips(tmp_path / "tow")
    (tmp_path / "file").write_text("")
    with pytest.raises(MissingFile, match="is a file, not a folder"):
        open_clips(tmp_path / "file")
    with pytest.raises(MissingFile, match="give the option once for each"):
        open_clips("nowhere/a,nowhere/b")


@pytest.mark.parametrize(
    ("labelled", "hidden", "ratio", "message"),
    [
        (
            6,
            False,
            (4, 1),
            "labelled_to_unlabelled=4,1, but each of the 6 clips is labelled (FOLDER). Add videos",
        ),
        (6, False, (4, 1), "draw labelled clips alone: --config.data.labelled_to_unlabelled=1,0"),
        (0, False, (4, 1), "labelled_to_unlabelled=4,1, but none of the 6 clips is labelled (FOLDER)"),
        (0, False, (1, 0), "draw unlabelled clips alone: --config.data.labelled_to_unlabelled=0,1"),
        (6, False, (0, 1), "each of the 6 clips is labelled"),
        (
            4,
            True,
            (4, 1),
            "4 clips have cameras, which are ignored since their folders (FOLDER) are named under",
        ),
    ],
)
def test_clips_of_one_kind_alone(made, labelled, hidden, ratio, message):
    folder = made("set", {"count": 6, "labelled": labelled})
    given = {"datasets": [], "unlabelled": [folder]} if hidden else {"datasets": [folder]}
    with pytest.raises(InvalidValue) as caught:
        open_stream(given.pop("datasets"), Bucket(9, 5), labelled_to_unlabelled=ratio, **given)
    assert message.replace("FOLDER", folder) in str(caught.value)


@pytest.mark.parametrize(("ratio", "kinds"), [((1, 0), {True}), ((0, 1), {False}), (None, {True, False})])
def test_one_kind_alone_can_be_asked_for(made, ratio, kinds):
    folder = made("set", {"count": 6, "labelled": 3})
    stream = open_stream([folder], Bucket(9, 3), labelled_to_unlabelled=ratio, tasks=NOTHING_DROPPED)
    batches = [next(stream) for _ in range(8)]
    assert {bool(flag) for batch in batches for flag in batch["camera_valid"]} == kinds
    drawn = {number for batch in batches for number in batch["clip_index"].tolist()}
    assert len(drawn) == stream.reports[0].uses[0].drawn == (6 if ratio is None else 3)


@pytest.mark.parametrize("ratio", [(0, 0), (), (1,), (-1, 2), (1.5, 1), ("4", "1"), (True, False)])
def test_a_ratio_that_is_none_is_refused(ratio):
    with pytest.raises(InvalidValue, match="expected two whole numbers, not both 0"):
        ClipStreamConfig(("a",), (Bucket(9, 5),), labelled_to_unlabelled=ratio)


def test_too_few_of_a_kind_for_the_processes_says_how_many_and_why(made):
    folder = made("set", {"count": 8, "labelled": 8}, {"count": 2}, {"count": 3, "fps": 24.0})
    messages = set()
    for index in range(4):
        with pytest.raises(InvalidValue) as caught:
            open_stream([folder], Bucket(9, 20), process=(index, 4))
        messages.add(str(caught.value))
    assert messages == {
        "only 2 unlabelled clips fit clips of 9 frames, and each of 4 processes needs one. Of 5 such clips: "
        "3 have 24 fps, expected 12 (within 5 %). Build it again with --fps 12, or take clips of that rate "
        "alone: --config.data.fps=24; or train in fewer processes. Or draw others alone: "
        "--config.data.labelled_to_unlabelled=1,0."
    }
