"""Datasets of annotated clips: what is written is read back, and nothing half-written is ever seen."""

from __future__ import annotations

import dataclasses
import pickle
import subprocess
import sys

import numpy as np
import pytest
from pattern_videos import pattern_video

from camctrl_jax.camera import Cameras
from camctrl_jax.data.clips import ClipRecord, open_clips, write_clips
from camctrl_jax.data.clips.writing import EmptyDataset
from camctrl_jax.errors import ClipError
from camctrl_jax.video.decoding import read_video
from camctrl_jax.video.encoding import encode_mp4


def cameras(frames: int, *, metric: bool = False) -> Cameras:
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, 2, 3] = 1e3 + np.arange(frames) / 3  # needs double precision
    return Cameras(poses, (0.6, 1.0, 0.5, 0.5), metric=metric)


def record(number: int = 0, **changes) -> ClipRecord:
    frames = changes.get("num_frames", 5)
    given = {
        "id": f"clip-{number}",
        "num_frames": frames,
        "height": 32,
        "width": 48,
        "fps": 12.0,
        "cameras": cameras(frames, metric=True),
        "captions": ("a dog", "un été"),
        "video": encode_mp4(pattern_video(frames, 32, 48, seed=number), 12.0),
        "source": f"video {number}",
    }
    return ClipRecord(**{**given, **changes})


def test_records_survive_the_disk(tmp_path):
    records = [record(0), record(1, cameras=None, num_frames=9), record(2, captions=("",))]
    assert write_clips(tmp_path / "set", iter(records), report=lambda: {"note": 1}) == 3
    dataset = open_clips(tmp_path / "set")
    assert len(dataset) == 3
    assert not dataset.latents
    assert dataset.report() == {"note": 1}
    assert dataset.index["id"].tolist() == ["clip-0", "clip-1", "clip-2"]  # the order of the source
    assert dataset.index["num_frames"].tolist() == [5, 9, 5]
    assert dataset.index["labelled"].tolist() == [True, False, True]
    assert dataset.index["metric"].tolist() == [True, False, True]
    for written, read in zip(records, dataset):
        for field in (
            "id",
            "num_frames",
            "height",
            "width",
            "fps",
            "captions",
            "video",
            "source",
            "labelled",
        ):
            assert getattr(read, field) == getattr(written, field), field
    np.testing.assert_array_equal(dataset[0].cameras.world_from_camera, records[0].cameras.world_from_camera)
    np.testing.assert_array_equal(dataset[0].cameras.intrinsics, records[0].cameras.intrinsics)
    assert read_video(dataset[1].video).shape == (9, 32, 48, 3)
    assert dataset[1].cameras is None
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_latents_and_text_embeddings_survive_the_disk(tmp_path):
    rng = np.random.default_rng(0)
    content = {
        "video": None,
        "latents": rng.normal(size=(2, 4, 6, 16)).astype(np.float16),
        "text": rng.normal(size=(2, 7, 8)).astype(np.float16),
        "text_mask": rng.random((2, 7)) < 0.5,
    }
    write_clips(tmp_path / "set", [record(0, **content)])
    dataset = open_clips(tmp_path / "set")
    assert dataset.latents
    for name, value in content.items():
        np.testing.assert_array_equal(getattr(dataset[0], name), value)


def test_plain_tfds_reads_it_without_tensorflow(worlds_folder):
    code = (
        "import sys, tensorflow_datasets as tfds\n"
        f"source = tfds.builder_from_directory({str(worlds_folder)!r}).as_data_source(split='train')\n"
        "clip = source[3]\n"
        "print(clip['id'].decode(), clip['world_from_camera'].shape, clip['fps'], 'tensorflow' in "
        "sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[-2] == "world-3 (9, 4, 4) 12.0 False"


def test_datasets_can_be_pickled(worlds_dataset):
    again = pickle.loads(pickle.dumps(worlds_dataset))
    assert again[2].id == worlds_dataset[2].id == "world-2"


def test_a_dataset_without_an_index_is_scanned(tmp_path):
    write_clips(tmp_path / "set", [record(0), record(1, cameras=None)])
    whole = open_clips(tmp_path / "set").index
    (tmp_path / "set" / "index.npz").unlink()
    scanned = open_clips(tmp_path / "set").index
    assert whole.keys() == scanned.keys()
    for name, values in whole.items():
        np.testing.assert_array_equal(values, scanned[name])


def test_an_index_of_another_dataset_is_noticed(tmp_path):
    write_clips(tmp_path / "one", [record(0)])
    write_clips(tmp_path / "two", [record(0), record(1)])
    (tmp_path / "two" / "index.npz").write_bytes((tmp_path / "one" / "index.npz").read_bytes())
    with pytest.raises(ValueError, match="do not belong together"):
        open_clips(tmp_path / "two")


@pytest.mark.parametrize("damaged", ["dataset_info.json", "index.npz"])
def test_a_damaged_dataset_is_named(tmp_path, damaged):
    write_clips(tmp_path / "set", [record(0), record(1)])
    file = tmp_path / "set" / damaged
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match="set: the dataset cannot be opened; it is incomplete or damaged"):
        open_clips(tmp_path / "set")


def test_what_is_no_dataset_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        open_clips(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="holds no dataset"):
        open_clips(tmp_path)


def test_a_failure_leaves_nothing_behind(tmp_path):
    def failing():
        yield record(0)
        yield record(1)
        raise ValueError("the source broke")

    with pytest.raises(ValueError, match="the source broke"):
        write_clips(tmp_path / "set", failing())
    assert not list(tmp_path.iterdir())
    with pytest.raises(EmptyDataset):
        write_clips(tmp_path / "set", iter(()))
    assert not list(tmp_path.iterdir())


def test_a_failure_keeps_the_older_dataset(tmp_path):
    write_clips(tmp_path / "set", [record(7)])

    def failing():
        yield record(0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_clips(tmp_path / "set", failing(), overwrite=True)
    assert open_clips(tmp_path / "set")[0].id == "clip-7"
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_an_existing_dataset_is_replaced_only_when_asked(tmp_path):
    write_clips(tmp_path / "set", [record(7)])
    with pytest.raises(FileExistsError, match="--overwrite"):
        write_clips(tmp_path / "set", [record(8)])
    assert open_clips(tmp_path / "set")[0].id == "clip-7"
    write_clips(tmp_path / "set", [record(8)], overwrite=True)
    assert open_clips(tmp_path / "set")[0].id == "clip-8"
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_folder_of_other_things_is_never_overwritten(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "me.jpg").write_text("precious")
    with pytest.raises(FileExistsError, match="not a dataset"):
        write_clips(folder, [record(0)], overwrite=True)
    assert (folder / "me.jpg").read_text() == "precious"


def test_an_empty_folder_may_be_filled(tmp_path):
    (tmp_path / "set").mkdir()
    assert write_clips(tmp_path / "set", [record(0)]) == 1


def test_a_full_disk_is_explained_and_leaves_nothing(tmp_path):
    """A limit on the size of a file makes writing fail as a full disk does, in the middle of the data."""
    code = (
        "import resource, sys\n"
        "import numpy as np\n"
        "from camctrl_jax.data.clips import ClipRecord, write_clips\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        "noise = np.random.default_rng(0)\n"
        "records = (ClipRecord(id=str(i), num_frames=1, height=16, width=16, fps=1.0, cameras=None,\n"
        "                      video=noise.bytes(50_000)) for i in range(20))\n"
        "try:\n"
        f"    write_clips({str(tmp_path / 'set')!r}, records)\n"
        "except OSError as error:\n"
        "    print(error.disk_full, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("True cannot write"), done.stdout + done.stderr
    assert "MiB free" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"num_frames": 6, "cameras": None}, "frame_count"),
        ({"cameras": cameras(4)}, "pose_count"),
        ({"captions": ()}, "no_caption"),
        ({"video": None}, "content"),
        ({"latents": np.zeros((2, 4, 6, 16), np.float16)}, "content"),
        ({"video": None, "latents": np.zeros((3, 4, 6, 16), np.float16)}, "frame_count"),
        ({"text": np.zeros((1, 4, 4), np.float16)}, "content"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes, reason):
    with pytest.raises(ClipError) as caught:
        record(0, **changes).validate()
    assert caught.value.reason == reason


def test_poses_that_are_no_poses_are_refused():
    poses = np.array(cameras(5).world_from_camera)
    poses[2, 0, 3] = np.nan
    with pytest.raises(ClipError, match="frame 2") as caught:
        dataclasses.replace(record(0), cameras=Cameras(poses, (0.6, 1.0, 0.5, 0.5))).validate()
    assert caught.value.reason == "bad_pose"


def test_the_camera_that_a_take_begins_with_is_kept(tmp_path):
    reference = np.eye(4)
    reference[:3, 3] = 0.1, 0.2, 1 / 3
    records = [record(0, reference=reference), record(1), record(2, reference=reference, cameras=None)]
    write_clips(tmp_path / "set", iter(records))
    window, whole, hidden = open_clips(tmp_path / "set")
    np.testing.assert_array_equal(window.reference, reference)
    assert whole.reference is hidden.reference is None
    earlier = {name: value for name, value in record(0).to_features().items() if name != "reference"}
    as_read = {"id": b"x", "captions": [b""], "source": b""}
    assert ClipRecord.from_features(earlier | as_read).reference is None
    with pytest.raises(ClipError, match="the take's first camera"):
        record(0, reference=2 * reference).validate()
