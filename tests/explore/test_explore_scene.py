"""The 3-D of a clip: points of a wall that is known, what moves left out, and nothing lost on the way."""

from __future__ import annotations

import os

import numpy as np
import pytest
from textured_plane import NORMAL, OFFSET, plane_video, truck

pytest.importorskip("msgspec", reason="part of the explore extra")
pytest.importorskip("av", reason="videos are written by PyAV")

from camctrl_jax.diffusion.guidance import Guidance
from camctrl_jax.diffusion.sampler import Sampling
from camctrl_jax.explore import scenes
from camctrl_jax.explore.problems import Refusal
from camctrl_jax.explore.store import About, Store
from camctrl_jax.sampling.exploration_folder import Clip, ExplorationSettings, line_of
from camctrl_jax.sampling.pipeline import Extension

SIZE = (40, 64)


@pytest.fixture(scope="module")
def explored(tmp_path_factory):
    """A server's folder with an exploration of two clips in a row before a wall, and its id."""
    store = Store(tmp_path_factory.mktemp("served"), 10**9)
    name = store.create(About("a wall", "anna-0000", 1.0), None)
    folder, cameras, sampling = store.folder(name), truck(), Sampling(Guidance())
    frames, _ = plane_video(cameras, SIZE)
    settings = ExplorationSettings(1, 12.0, 4, *SIZE, Extension(1, 1, 0), sampling, "some weights")
    folder.write_settings(settings)
    for clip, parent, part in (("0001", None, slice(0, 4)), ("0002", "0001", slice(4, 7))):
        record = Clip(clip, parent, 0, part.start, part.stop - part.start, "", 1, sampling)
        folder.write_clip(record, cameras[part], frames[part], settings)
    yield store, name
    store.close()


def made(store, name):
    tree = store.tree(name)
    found = scenes.points_of(store, name, line_of(tree.clips, "0002"))
    return None if found is None else found.data


def test_points_are_of_the_wall_and_of_no_pixel_that_moves(explored, monkeypatch):
    store, name = explored
    assert made(store, name) is None
    steps = []
    report = scenes.make_scene(store, name, "0002", lambda done, views: steps.append((done, views)))
    points = made(store, name)
    assert steps == [(done, 7) for done in range(8)]
    assert len(points) == report["points"] > 1000
    assert np.median(np.abs(points @ NORMAL - OFFSET)) < 0.02

    def left_half(pictures, fps):
        assert fps == pytest.approx(12)
        return np.broadcast_to(np.arange(SIZE[1]) < SIZE[1] // 2, pictures.shape[:3])

    monkeypatch.setattr(scenes, "_moving", left_half)
    halved = scenes.make_scene(store, name, "0002", lambda *_: None)
    assert halved["masked"] == 0.5
    assert 0.2 < halved["points"] / report["points"] < 0.8
    assert len(made(store, name)) == halved["points"]


def test_points_are_read_once_and_again_when_they_are_others(explored, monkeypatch):
    store, name = explored
    path = store.made(name, "0002", scenes.FOLDER) / scenes.FILES["ply"][0]
    path.parent.mkdir(parents=True, exist_ok=True)
    kept, read = path.read_bytes() if path.exists() else None, []
    path.write_bytes(b"x")
    monkeypatch.setattr(scenes, "read_points", lambda path: read.append(path) or np.zeros((3, 3)))
    for _ in range(3):
        assert made(store, name).shape == (3, 3)
    assert len(read) == 1
    (path.parent / "new").write_bytes(b"y")
    os.utime(path.parent / "new", ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    (path.parent / "new").replace(path)
    made(store, name)
    assert len(read) == 2
    path.unlink()
    if kept is not None:
        path.write_bytes(kept)


def test_one_that_is_cancelled_leaves_the_points_that_were_there(explored):
    store, name = explored
    before = made(store, name)

    def stop(done, _):
        if done == 2:
            raise RuntimeError("cancelled")

    with pytest.raises(RuntimeError, match="cancelled"):
        scenes.make_scene(store, name, "0002", stop)
    np.testing.assert_array_equal(made(store, name), before)


def test_motion_is_looked_for_where_it_can_be():
    pictures = np.random.default_rng(0).integers(0, 256, (3, 40, 64, 3)).astype(np.uint8)
    assert scenes._moving(pictures[:, :20], 12.0) is None  # too small
    pytest.importorskip("cv2", reason="looks for motion")
    assert scenes._moving(pictures, 12.0).shape == (3, 40, 64)


def test_a_camera_that_stands_still_is_told(explored, monkeypatch):
    store, name = explored
    monkeypatch.setattr(scenes, "key_frames", lambda cameras, count: np.array([0]))
    with pytest.raises(Refusal, match="stands still"):
        scenes.make_scene(store, name, "0002", lambda *_: None)
