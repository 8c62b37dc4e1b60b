"""Explorations: what goes on from a folder is what would have gone on without it, whatever happens to it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from nano_weights import STUDENT, save_nano

from camctrl_jax.camera import Cameras, compose, resolve_path, save_cameras
from camctrl_jax.camera.framing import null_intrinsics
from camctrl_jax.camera.retrieval import select_frames
from camctrl_jax.checkpoints.pipelines import load_pipeline, open_model
from camctrl_jax.clip_shape import ClipShape
from camctrl_jax.diffusion.guidance import Guidance
from camctrl_jax.diffusion.sampler import Sampling
from camctrl_jax.errors import FileFailure, FileInUse, InvalidValue, MissingFile, UserError
from camctrl_jax.sampling import exploration_folder
from camctrl_jax.sampling.continuation import frames_to_show
from camctrl_jax.sampling.exploration import Exploration, ExplorationInUse, OtherWeights
from camctrl_jax.sampling.exploration_folder import ExplorationFolder, clip_seed
from camctrl_jax.sampling.exploration_model import usual_extension
from camctrl_jax.sampling.pipeline import ClipBatch, Denoiser, Extension, sampling_form
from camctrl_jax.video.decoding import read_frames

pytest.importorskip("av", reason="videos are written by PyAV")

RUN = Sampling(Guidance(camera=2.0), steps=2)
IMAGE = np.random.default_rng(0).integers(0, 256, (32, 48, 3)).astype(np.uint8)
OUT, BACK = "pan right 40 deg", "pan left 40 deg"


def with_memory(weights):
    pipeline = load_pipeline(*open_model(weights))
    return replace(pipeline, defaults=replace(pipeline.defaults, retrieved=2))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_nano(tmp_path_factory.mktemp("weights") / "nano")


@pytest.fixture(scope="module")
def pipeline(weights):
    return with_memory(weights)


@pytest.fixture(scope="module")
def three(pipeline, tmp_path_factory):
    """A folder of three clips in a row, that nobody writes to."""
    folder = tmp_path_factory.mktemp("three") / "tour"
    with begun(pipeline, folder) as exploration:
        exploration.extend(OUT)
        exploration.extend(BACK, "two boxes")
    return folder


@pytest.fixture(scope="module")
def branched(pipeline, three, tmp_path_factory):
    """The same three, and a fourth that goes on from the second."""
    folder = tmp_path_factory.mktemp("branched") / "tour"
    shutil.copytree(three, folder)
    with Exploration.load(pipeline, folder) as exploration:
        exploration.extend(OUT, of="0002")
    return folder


@pytest.fixture
def copy(three, tmp_path):
    return Path(shutil.copytree(three, tmp_path / "copy"))


def begun(pipeline, folder, **options):
    options = {"image": IMAGE, "prompt": "a red ball", "seed": 7, "sampling": RUN} | options
    return Exploration.start(pipeline, folder, "dolly in 1 m", **options)


def test_clips_are_those_of_a_video_that_is_extended_in_memory(pipeline, branched):
    with Exploration.load(pipeline, branched) as exploration:
        clips, cameras = exploration.line("0003"), exploration.cameras("0003")
        shown = np.concatenate([exploration.frames(clip) for clip in clips])
        other_clip, other_shown = exploration.clip("0004"), exploration.frames("0004")
        some = ExplorationFolder(branched).read_frames(other_clip, exploration.settings, [2, 0, 2])
    np.testing.assert_array_equal(some, other_shown[[2, 0, 2]])
    lens = null_intrinsics(32, 48)
    extension = Extension(new_latents=1, condition_latents=2, retrieved=2)
    path = resolve_path("dolly in 1 m", 9, 12.0, lens)
    first = ClipBatch(["a red ball"], [7], ClipShape(9, 32, 48), [path], IMAGE[None, None])
    video = pipeline.autoencoder.decode(pipeline.sample(first, RUN))
    for words, prompt, turns in ((OUT, "a red ball", [0]), (BACK, "two boxes", [0, 0])):
        path = compose(path, resolve_path(words, 5, 12.0, lens))
        batch = ClipBatch([prompt], [clip_seed(7, turns)], first.shape, [path])
        video = pipeline.extend(video, batch, extension, RUN)
    np.testing.assert_allclose(cameras.world_from_camera, path.world_from_camera, atol=1e-12)
    np.testing.assert_allclose(cameras.intrinsics, path.intrinsics, atol=1e-12)
    # Their lens went through a file, which may round its last digit.
    assert np.mean(shown != video[0]) < 1e-3
    assert clips[2].retrieved == tuple(select_frames(path[:8], path[13:], 2, given=path[8:13]))
    # A branch from the second clip knows nothing of the third, not even that it saw what is coming.
    path = compose(path[:13], resolve_path(OUT, 5, 12.0, lens))
    batch = ClipBatch(["a red ball"], [clip_seed(7, [0, 1])], first.shape, [path])
    other = pipeline.extend(video[:, :13], batch, extension, RUN)
    assert np.mean(other_shown != other[0, 13:]) < 1e-3
    assert other_clip.retrieved == tuple(select_frames(path[:8], path[13:], 2, given=path[8:13]))


def test_a_copy_loaded_with_fresh_objects_goes_on_to_the_same_pixels(pipeline, weights, three, tmp_path):
    def go_on(model, folder):
        with Exploration.load(model, folder) as exploration:
            exploration.extend("orbit left 20 deg")
            exploration.branch("0002")
            exploration.extend(BACK)
            return [exploration.frames(clip) for clip in exploration.clips], exploration.cameras()

    with Exploration.load(pipeline, three) as exploration:
        exploration.save(tmp_path / "elsewhere")
        with pytest.raises(FileInUse):
            exploration.save(tmp_path / "elsewhere")
    with begun(pipeline, tmp_path / "uninterrupted") as exploration:
        exploration.extend(OUT)
        exploration.extend(BACK, "two boxes")
        exploration.extend("orbit left 20 deg")
        exploration.extend(BACK, of="0002")
        frames, cameras = [exploration.frames(c) for c in exploration.clips], exploration.cameras()
    other_frames, other_cameras = go_on(with_memory(weights), tmp_path / "elsewhere")
    np.testing.assert_array_equal(np.concatenate(frames), np.concatenate(other_frames))
    np.testing.assert_array_equal(cameras.world_from_camera, other_cameras.world_from_camera)
    # What people see is the same as what goes on, up to compression.
    seen = np.stack([f.rgb() for f in read_frames(tmp_path / "elsewhere/clips/0002/video.mp4")])
    assert seen.shape == frames[1].shape
    # These are noise, whose colours 4:2:0 does not keep: in blocks.
    blocks = [x.reshape(4, 4, 8, 6, 8, 3).mean(axis=(2, 4)) for x in (seen, frames[1])]
    assert np.corrcoef(*map(np.ravel, blocks))[0, 1] > 0.8


def test_the_tree(pipeline, copy):
    with Exploration.load(pipeline, copy) as exploration:
        assert [clip.name for clip in exploration.line()] == ["0001", "0002", "0003"]
        assert exploration.undo().name == exploration.current.name == "0002"
        again = exploration.extend(BACK)
        assert (again.name, again.parent, again.turn, again.first) == ("0004", "0002", 1, 13)
        assert again.seed != exploration.clip("0003").seed
        assert again.prompt == "a red ball"
        assert not np.array_equal(exploration.frames("0003"), exploration.frames("0004"))
        exploration.branch("0002")
        with pytest.raises(InvalidValue, match="0003, 0004 go on from 0002"):
            exploration.undo(delete=True)
        exploration.branch("0004")
        assert exploration.undo(delete=True).name == "0002"
        assert [clip.name for clip in exploration.clips] == ["0001", "0002", "0003"]
        # A number is not given twice, but a place is, and the same path makes the same clip there.
        third = exploration.extend(BACK, seed=3)
        assert (third.name, third.turn, third.seed) == ("0005", 1, 3)
        # One in between that is deleted leaves no other with the turn, and so the seed, of one that is there.
        exploration.branch("0003")
        exploration.undo(delete=True)
        sixth = exploration.extend(BACK)
        assert (sixth.name, sixth.turn) == ("0006", 2)
        exploration.undo(delete=True)
        assert len(exploration.cameras("0005")) == 17
        exploration.branch(exploration.clip("0001"))
        with pytest.raises(InvalidValue, match="is the first"):
            exploration.undo()
        with pytest.raises(InvalidValue, match=r"no clip '\.\./x'"):
            exploration.branch("../x")
        exploration.write_video(copy / "all.mp4", "0005")
        assert sum(1 for _ in read_frames(copy / "all.mp4")) == 17
    with pytest.raises(InvalidValue, match="was closed"):
        exploration.extend(OUT)
    (copy / "all.mp4").unlink()
    with Exploration.load(pipeline, copy) as exploration:
        assert exploration.current.name == "0001"
        assert [clip.name for clip in exploration.clips] == ["0001", "0002", "0005"]
        assert exploration.extend(OUT).name == "0007"


def test_ten_clips_compile_nothing_new_and_hold_nothing_more(pipeline, tmp_path, monkeypatch):
    compiled, read, held = [0], [], []

    def listen(event, _, **__):
        compiled[0] += event == "/jax/core/compile/backend_compile_duration"

    whole = ExplorationFolder.read_frames

    def counted(self, clip, settings, wanted=None):
        read.append(clip.frames if wanted is None else len(list(wanted)))
        return whole(self, clip, settings, wanted)

    jax.monitoring.register_event_duration_secs_listener(listen)
    monkeypatch.setattr(ExplorationFolder, "read_frames", counted)
    with begun(pipeline, tmp_path / "ten") as exploration:
        for number in range(9):
            before = compiled[0]
            read.clear()
            clip = exploration.extend(OUT if number % 2 else BACK)
            assert sum(read) <= len(clip.retrieved) + 5
            assert number == 0 or compiled[0] == before
            held.append(sum(array.nbytes for array in jax.live_arrays()))
        assert exploration.current.retrieved != ()
    assert held[1:] == [held[1]] * 8


@pytest.mark.parametrize("file", ["cameras.json", "frames.mp4", "clip.json"])
def test_what_stops_while_a_clip_is_written_leaves_the_others(pipeline, copy, monkeypatch, file):
    name = {"cameras.json": "save_cameras", "frames.mp4": "write_mp4", "clip.json": "write_json"}[file]
    write = getattr(exploration_folder, name)

    def stopped(*args, **options):
        if any(str(value).endswith(file) for value in args):
            write(*args, **options)
            raise OSError(28, "No space left on device")
        return write(*args, **options)

    with Exploration.load(pipeline, copy) as exploration:
        with monkeypatch.context() as patch:
            patch.setattr(exploration_folder, name, stopped)
            with pytest.raises(FileFailure, match="the disk is full"):
                exploration.extend(OUT)
        assert exploration.current.name == "0003"
        assert exploration.extend(OUT).name == "0004"


def test_no_other_file_has_to_be_written_for_a_clip_to_be_the_current_one(pipeline, copy, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with Exploration.load(pipeline, copy) as exploration:
        exploration.branch("0001")
        monkeypatch.setattr(ExplorationFolder, "write_cursor", full)
        assert exploration.extend(OUT).name == "0004"
        with pytest.raises(OSError, match="No space"):
            exploration.undo(delete=True)
        assert exploration.current.name == "0004"
    with Exploration.load(pipeline, copy) as exploration:
        assert exploration.current.name == "0004"
        assert len(exploration.frames()) == 4


def test_a_clip_that_was_interrupted_after_its_last_byte_is_there(pipeline, copy, monkeypatch):
    write = ExplorationFolder.write_clip

    def interrupted(*args):
        write(*args)
        raise KeyboardInterrupt

    with Exploration.load(pipeline, copy) as exploration:
        with monkeypatch.context() as patch:
            patch.setattr(ExplorationFolder, "write_clip", interrupted)
            with pytest.raises(KeyboardInterrupt):
                exploration.extend(OUT)
        assert exploration.current.name == "0003"
        again = exploration.extend(OUT)
        assert (again.name, again.parent, again.turn) == ("0005", "0003", 1)
        assert [clip.name for clip in exploration.clips] == ["0001", "0002", "0003", "0004", "0005"]


def test_a_deleted_clip_leaves_nothing_nor_does_one_whose_deletion_was_stopped(pipeline, copy):
    shutil.copytree(copy / "clips/0002", copy / "clips/.0002.deleted")
    with Exploration.load(pipeline, copy) as exploration:
        exploration.undo(delete=True)
    assert {path.name for path in (copy / "clips").iterdir()} == {"0001", "0002"}


def test_clips_without_their_settings_are_not_begun_over(pipeline, copy, monkeypatch):
    monkeypatch.setattr(type(pipeline), "sample", lambda *_: pytest.fail("it was sampled"))
    (copy / "notes.txt").write_text("mine")
    assert ExplorationFolder(copy).begun()
    (copy / "notes.txt").unlink()
    (copy / "exploration.json").unlink()
    with pytest.raises(MissingFile, match="and there are clips"):
        begun(pipeline, copy)


def test_what_progress_raises_ends_the_sampling_and_leaves_everything(pipeline, copy, tmp_path):
    class Cancelled(Exception):
        pass

    def cancel(done, steps):
        raise Cancelled

    with Exploration.load(pipeline, copy) as exploration, pytest.raises(Cancelled):
        exploration.extend(OUT, progress=cancel)
    assert ExplorationFolder(copy).read()[2] == "0003"
    with pytest.raises(Cancelled):
        begun(pipeline, tmp_path / "new", progress=cancel)
    with begun(pipeline, tmp_path / "new") as exploration:  # what is left there is no exploration
        assert len(exploration.clips) == 1


def test_clip_made_again_is_a_sibling_of_the_same_pixels_or_of_other_weights_own(pipeline, copy):
    with Exploration.load(pipeline, copy) as exploration:
        old = exploration.current
        new = exploration.again(old)
        assert exploration.current == new
        assert (new.name, new.turn) == ("0004", old.turn + 1)
        assert replace(new, name=old.name, turn=old.turn) == old
        np.testing.assert_array_equal(exploration.frames(new), exploration.frames(old))
        np.testing.assert_array_equal(
            exploration.cameras(new).world_from_camera, exploration.cameras(old).world_from_camera
        )
        # By its seed: the clip that its place would give is another one.
        other = exploration.extend("hold", of=old.parent)
        assert other.seed != old.seed
        with pytest.raises(InvalidValue, match=r"clip 0001 is the first.*seed"):
            exploration.again("0001")
        with pytest.raises(InvalidValue, match="has no clip '0099'"):
            exploration.again("0099")
    student = replace(pipeline, distilled=STUDENT, defaults=STUDENT.defaults(pipeline.defaults))
    with Exploration.load(student, copy) as exploration:
        quick = exploration.again(old)
        assert (quick.student, old.student, quick.seed) == (True, False, old.seed)
        assert (quick.sampling.steps, quick.sampling.guidance.camera) == (4, 1.0)


def test_one_writer_at_a_time(pipeline, copy):
    with Exploration.load(pipeline, copy):
        with pytest.raises(ExplorationInUse, match=f"process {os.getpid()} on"):
            Exploration.load(pipeline, copy)
        assert len(ExplorationFolder(copy).read()[1]) == 3  # readers may look
    Exploration.load(pipeline, copy).close()


def test_other_weights_are_refused_unless_they_are_wanted(pipeline, copy):
    params = jax.tree.map(lambda leaf: 1.01 * leaf, pipeline.params)
    other = replace(pipeline, params=params)
    with pytest.raises(OtherWeights, match="other_weights=True"):
        Exploration.load(other, copy)
    with Exploration.load(other, copy, other_weights=True) as exploration:
        clip = exploration.extend(OUT)
        assert clip.fingerprint == other.fingerprint != exploration.settings.fingerprint
    with Exploration.load(pipeline, copy) as exploration:
        assert exploration.current.name == "0004"
    forgetful = replace(pipeline, defaults=replace(pipeline.defaults, retrieved=0))
    with pytest.raises(InvalidValue, match="without retrieved"):
        Exploration.load(forgetful, copy)


def test_weights_have_one_fingerprint_in_every_form(pipeline, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("jax.default_backend", lambda: "gpu")
        config, params = sampling_form(pipeline.denoiser.config, pipeline.params, jax.numpy.bfloat16)
    assert config.scan_layers
    other = replace(pipeline, denoiser=Denoiser(config, jax.numpy.bfloat16), params=params)
    assert other.fingerprint == pipeline.fingerprint
    vae = pipeline.autoencoder
    vae = replace(vae, params=jax.tree.map(lambda leaf: 1.01 * leaf, vae.params))
    assert replace(pipeline, autoencoder=vae).fingerprint != pipeline.fingerprint


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


DAMAGE = {
    "truncated settings": (lambda f: cut(f / "exploration.json"), r"exploration\.json is not JSON"),
    "no settings": (lambda f: (f / "exploration.json").unlink(), "holds no exploration"),
    "another file": (lambda f: edit(f / "exploration.json", format="x"), "not of an exploration"),
    "later version": (lambda f: edit(f / "exploration.json", format_version=9), "version 9.*newer"),
    "wrong setting": (lambda f: edit(f / "exploration.json", seed="x"), r"exploration\.json: seed is 'x'"),
    "truncated record": (lambda f: cut(f / "clips/0002/clip.json"), r"0002/clip\.json is not JSON"),
    "no record": (lambda f: (f / "clips/0002/clip.json").unlink(), r"0002/clip\.json: no such file"),
    "no frames": (lambda f: (f / "clips/0002/frames.mp4").unlink(), "missing or empty.*0002, 0003"),
    "empty cameras": (lambda f: (f / "clips/0003/cameras.json").write_text(""), "missing or empty"),
    "no parent": (lambda f: shutil.rmtree(f / "clips/0002"), "goes on from clip '0002'"),
    "outside": (lambda f: edit(f / "clips/0002/clip.json", parent="../../0001"), "goes on from clip"),
    "renamed": (lambda f: edit(f / "clips/0002/clip.json", name="../../x"), "is of clip"),
    "a circle": (lambda f: edit(f / "clips/0002/clip.json", parent="0002"), "goes on from clip '0002'"),
    "two firsts": (lambda f: edit(f / "clips/0002/clip.json", parent=None, first=0), "only the first"),
    "a gap": (lambda f: edit(f / "clips/0003/clip.json", first=99), "begins at frame 99"),
    "no clip": (lambda f: (f / "clips/holiday").mkdir(), "is no clip"),
    "a link": (lambda f: link(f / "clips/0002"), "is a link"),
    "no clips": (lambda f: shutil.rmtree(f / "clips"), "holds no clip"),
    "lost cursor": (lambda f: edit(f / "cursor.json", current="../x", newest=3), "names clip '../x'"),
    "cut cursor": (lambda f: cut(f / "cursor.json"), r"cursor\.json is not JSON"),
    "wrong cursor": (lambda f: edit(f / "cursor.json", newest="3"), "names no current clip"),
}


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def link(folder):
    shutil.move(folder, folder.parents[2] / "outside")
    folder.symlink_to(folder.parents[2] / "outside")


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_folder_is_told_of(pipeline, copy, damage):
    harm, message = DAMAGE[damage]
    harm(copy)
    with pytest.raises(UserError, match=message):
        Exploration.load(pipeline, copy)


@pytest.mark.parametrize("file", ["frames.mp4", "cameras.json"])
def test_damage_inside_a_file_is_told_of_when_it_is_read(pipeline, copy, file):
    path = copy / "clips/0003" / file
    if file == "frames.mp4":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        edit(path, frames=json.loads(path.read_text())["frames"][:3])
    with Exploration.load(pipeline, copy) as exploration, pytest.raises(UserError, match=file):
        exploration.extend(OUT)


def poses(count=5, step=0.1):
    pose = np.tile(np.eye(4), (count, 1, 1))
    pose[:, 2, 3] = step * np.arange(count)
    return Cameras(pose, null_intrinsics(32, 48), metric=True)


def spoilt(value, place=(2, 0, 3)):
    world = poses().world_from_camera.copy()
    world[place] = value
    return replace(poses(), world_from_camera=world)


BAD_PATHS = {
    "NaN": (spoilt(np.nan), "frame 2.*NaN"),
    "a jump": (spoilt(100.0), "moves by 100"),
    "no rotation": (spoilt(0.3, (2, 0, 1)), "not orthonormal"),
    "one pose": (poses(1), r"1 poses, expected 5.*resample\(path, 5\)"),
    "many poses": (poses(10_000), "10000 poses, expected 5"),
    "another lens": (poses().with_intrinsics((0.5, 0.6, 0.5, 0.5)), "a lens does not jump"),
    "no file": ("walk.txt", "no such file"),
    "no path": ("go to the moon", "moon"),
    "far": ("dolly in 3000 m", "moves by"),
}


@pytest.mark.parametrize("bad", BAD_PATHS)
def test_paths_that_cannot_be_followed_are_told_of_before_any_work(pipeline, three, bad, monkeypatch):
    path, message = BAD_PATHS[bad]
    monkeypatch.setattr(type(pipeline), "sample", lambda *_: pytest.fail("it was sampled"))
    with Exploration.load(pipeline, three) as exploration, pytest.raises(UserError, match=message):
        exploration.extend(path)
    assert ExplorationFolder(three).read()[2] == "0003"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image": IMAGE[:16]}, "The image is uint8"),
        ({"image": "missing.png"}, "missing.png"),
        ({"seed": -1}, "seed is -1"),
        ({"fps": float("nan")}, "fps is nan"),
        ({"fps": 1e-9}, r"fps is 1e-09.*0\.1 to 1000"),
        ({"seed": True}, "seed is true; expected an integer"),
        ({"said": 3}, "said is 3; expected text"),
        ({"said": object()}, "cannot be stored"),
        ({"shape": ClipShape(10, 32, 48)}, "frames=10"),
        ({"extension": Extension(1, 9)}, "fewer condition_latents"),
        ({"prompt": None}, "expected a text"),
    ],
)
def test_starts_that_cannot_work_leave_nothing(pipeline, tmp_path, options, message, monkeypatch):
    monkeypatch.setattr(type(pipeline), "sample", lambda *_: pytest.fail("it was sampled"))
    with pytest.raises(UserError, match=message):
        begun(pipeline, tmp_path / "new", **options)
    assert not (tmp_path / "new/clips").exists()


def test_a_folder_that_holds_something_is_not_begun_in(pipeline, three, tmp_path):
    with pytest.raises(FileInUse, match="holds an exploration"):
        begun(pipeline, three)
    (tmp_path / "diary.txt").write_text("mine")
    with pytest.raises(InvalidValue, match=r"holds diary\.txt"):
        begun(pipeline, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["diary.txt"]
    with pytest.raises(InvalidValue, match="is a file"):
        begun(pipeline, tmp_path / "diary.txt")


def test_the_coming_cameras_go_on_from_the_last_one_and_keep_its_lens(pipeline, three):
    with Exploration.load(pipeline, three) as exploration:
        coming, last = exploration.coming(poses(5, 0.25)), exploration.cameras()[-1]
        assert len(coming) == 4
        ahead = last.world_from_camera[0] @ [0.0, 0.0, 1.0, 1.0]
        np.testing.assert_allclose(coming.positions[-1], ahead[:3], atol=1e-9)
        spoken = exploration.coming("static")
        np.testing.assert_array_equal(spoken.intrinsics, np.tile(last.intrinsics[0], (4, 1)))
        moved = poses().transformed(last.world_from_camera[0])  # its world frame means nothing
        np.testing.assert_allclose(
            exploration.coming(moved).world_from_camera,
            exploration.coming(poses()).world_from_camera,
            atol=1e-12,
        )


def test_the_first_camera_of_all_is_the_frame_of_all(pipeline, tmp_path):
    world = resolve_path("orbit left 70 deg", 2).world_from_camera[1]
    path = poses(9).transformed(world)
    with Exploration.start(pipeline, tmp_path / "new", path, image=IMAGE, sampling=RUN) as exploration:
        exploration.extend(poses(5), sampling=replace(RUN, steps=1))
        assert [clip.sampling.steps for clip in exploration.clips] == [2, 1]
        ahead = np.zeros((13, 3))
        ahead[:, 2] = 0.1 * np.arange(13)
        np.testing.assert_allclose(exploration.cameras().positions, ahead, atol=1e-9)


def test_numbers_of_numpy_are_numbers(pipeline, tmp_path):
    sampling = Sampling(Guidance(camera=np.float32(2.0)), steps=np.int64(2))
    options = {"seed": np.int64(7), "fps": np.float32(12), "sampling": sampling}
    with begun(pipeline, tmp_path / "new", **options) as exploration:
        exploration.extend(OUT, seed=np.uint32(5))
    with Exploration.load(pipeline, tmp_path / "new") as exploration:
        assert (exploration.settings.seed, exploration.settings.fps) == (7, 12.0)
        assert (exploration.current.seed, exploration.current.sampling.steps) == (5, 2)


def test_rounded_rotations_do_not_add_up(pipeline, three):
    """Each of them is accepted; multiplied, they would soon be none, and the clip could not be written."""
    world = poses().world_from_camera.copy()
    world[1:, 0, 1] = 9e-4
    with Exploration.load(pipeline, three) as exploration:
        coming = exploration.coming(Cameras(world, null_intrinsics(32, 48), metric=True))
    rotations = coming.rotations
    np.testing.assert_allclose(
        np.swapaxes(rotations, 1, 2) @ rotations, np.tile(np.eye(3), (4, 1, 1)), atol=1e-9
    )


def test_a_copy_is_not_saved_inside_the_exploration(pipeline, three):
    with Exploration.load(pipeline, three) as exploration:
        with pytest.raises(InvalidValue, match="is inside"):
            exploration.save(three / "clips" / "0004")
        assert len(ExplorationFolder(three).read()[1]) == 3


def test_a_pose_file_gives_its_poses_and_a_copy_is_where_the_original_was(pipeline, copy, tmp_path):
    save_cameras(poses().with_intrinsics((0.5, 0.6, 0.5, 0.5)), tmp_path / "walk.txt", "realestate10k")
    with Exploration.load(pipeline, copy) as exploration:
        lens = exploration.cameras().intrinsics[-1]
        coming = exploration.coming(tmp_path / "walk.txt")
        np.testing.assert_allclose(coming.intrinsics, np.tile(lens, (4, 1)), atol=1e-12)
        exploration.branch("0001")
        exploration.save(tmp_path / "saved")
    assert ExplorationFolder(tmp_path / "saved").read()[2] == "0001"


def test_of_long_videos_not_every_frame_is_weighed(monkeypatch):
    weighed = []

    def counted(history, *args, **options):
        weighed.append(len(history))
        return select_frames(history, *args, **options)

    monkeypatch.setattr("camctrl_jax.sampling.continuation.select_frames", counted)
    path = resolve_path("pan right 300 deg, then pan left 300 deg", 2600)
    shown = frames_to_show(path[:2500], path[2500:], 4, 5)
    assert weighed == [832]
    assert shown.max() < 2495
    assert not (shown % 3).any()
    # What is coming was seen at the beginning, from the same place.
    assert np.abs(path.rotations[shown[0]] - path.rotations[2550]).max() < 0.5
    short = frames_to_show(path[:900], path[900:950], 4, 5)
    np.testing.assert_array_equal(short, select_frames(path[:895], path[900:950], 4, given=path[895:900]))


def test_usual_extensions(pipeline):
    shape, defaults = ClipShape(49, 96, 160), replace(pipeline.defaults, retrieved=4)
    assert usual_extension(defaults, shape) == Extension(11, 2, 4)
    assert usual_extension(replace(defaults, retrieved=0), shape) == Extension(9, 4, 0)
    assert usual_extension(replace(defaults, retrieved=0), ClipShape(5, 96, 160)) == Extension(1, 1, 0)


KILLED = """
import os, signal, sys
from dataclasses import replace
from camctrl_jax.sampling import exploration_folder
from camctrl_jax.checkpoints.pipelines import load_pipeline, open_model
from camctrl_jax.sampling.exploration import Exploration

pipeline = load_pipeline(*open_model(sys.argv[1]))
pipeline = replace(pipeline, defaults=replace(pipeline.defaults, retrieved=2))
write = exploration_folder.write_mp4

def killed(path, frames, *args, **options):
    write(path, frames, *args, **options)
    os.kill(os.getpid(), signal.SIGKILL)

exploration = Exploration.load(pipeline, sys.argv[2])
exploration_folder.write_mp4 = killed
exploration.extend("pan right 40 deg")
"""


@pytest.mark.slow
def test_a_process_killed_while_it_writes_leaves_what_goes_on_to_the_same_pixels(pipeline, weights, copy):
    whole = Path(shutil.copytree(copy, copy.with_name("whole")))
    done = subprocess.run([sys.executable, "-c", KILLED, weights, copy], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert any(path.name.startswith(".0004") for path in (copy / "clips").iterdir())
    frames = []
    for folder in (copy, whole):
        with Exploration.load(pipeline, folder) as exploration:
            assert exploration.current.name == "0003"
            clip = exploration.extend(OUT)
            frames.append(exploration.frames(clip))
    np.testing.assert_array_equal(*frames)
    assert {path.name for path in (copy / "clips").iterdir()} == {"0001", "0002", "0003", "0004"}
