"""Paths of requests: every way to say one, as cameras that begin where the clip does."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("msgspec", reason="part of the explore extra")

from camctrl_jax.camera import Cameras, resolve_path, save_cameras
from camctrl_jax.camera.framing import null_intrinsics
from camctrl_jax.explore.paths import Place, asked_path
from camctrl_jax.explore.problems import Refusal
from camctrl_jax.explore.schema import CamerasRequest, KeyFrame, PathFields, PoseFileRequest
from camctrl_jax.sampling.exploration_path import gone_on

LENS = null_intrinsics(32, 48).astype(np.float64)
FAR = resolve_path("truck right 2 m, then pan left 50 deg", 20, intrinsics=LENS)[-1]
PLACE = Place(FAR, 9, 12.0, (32, 48), goes_on=True)
WANTED = resolve_path("dolly in 1 m while rising 0.2 m", 9, intrinsics=LENS)
IN_WORLD = np.concatenate([FAR.world_from_camera, gone_on(FAR, WANTED).world_from_camera])


def poses(array):
    return tuple(tuple(map(tuple, pose)) for pose in np.asarray(array).tolist())


def fields_of(tmp_path):
    """Ways to say the same path."""
    file = tmp_path / "path.txt"
    save_cameras(WANTED, file, "tum")
    pixels = (LENS * [48, 32, 48, 32]).tolist()
    frame = {"relative_to": "exploration"}
    return {
        "words": PathFields(path="dolly in 1 m while rising 0.2 m"),
        "last_frame": PathFields(cameras=CamerasRequest(world_from_camera=poses(WANTED.world_from_camera))),
        "anywhere": PathFields(
            cameras=CamerasRequest(
                world_from_camera=poses(np.linalg.inv(IN_WORLD[4]) @ IN_WORLD),
                intrinsics=[pixels] * 9,
                intrinsics_unit="pixel",
            )
        ),
        "exploration": PathFields(cameras=CamerasRequest(world_from_camera=poses(IN_WORLD), **frame)),
        "new_frames": PathFields(cameras=CamerasRequest(world_from_camera=poses(IN_WORLD[1:]), **frame)),
        "file": PathFields(pose_file=PoseFileRequest(name="path.txt", text=file.read_text())),
        "scaled": PathFields(path="dolly in 0.5 m while rising 0.1 m", scale=2.0),
    }


@pytest.mark.parametrize(
    "way", ["words", "last_frame", "anywhere", "exploration", "new_frames", "file", "scaled"]
)
def test_every_way_says_the_same_path(tmp_path, way):
    asked = asked_path(fields_of(tmp_path)[way], PLACE, tmp_path)
    np.testing.assert_allclose(asked.cameras.world_from_camera, WANTED.world_from_camera, atol=2e-5)
    np.testing.assert_allclose(asked.cameras.intrinsics, np.tile(LENS, (9, 1)), atol=1e-9)
    assert asked.cameras.metric


def test_a_path_through_key_frames_begins_at_the_last_camera_and_ends_at_the_last_of_them(tmp_path):
    keys = [KeyFrame(world_from_camera=poses(IN_WORLD)[place]) for place in (3, 8)]
    asked = asked_path(PathFields(key_frames=keys), PLACE, tmp_path)
    np.testing.assert_allclose(asked.cameras.world_from_camera[0], np.eye(4), atol=1e-9)
    np.testing.assert_allclose(asked.cameras.world_from_camera[-1], WANTED.world_from_camera[-1], atol=1e-6)


def keys_at(*times, places=(3, 8)):
    frames = zip(places, times, strict=True)
    return PathFields(
        key_frames=[KeyFrame(world_from_camera=poses(IN_WORLD)[place], time=time) for place, time in frames]
    )


def test_times_of_key_frames_count_from_the_last_camera(tmp_path):
    none, even, late = (
        asked_path(keys_at(*times), PLACE, tmp_path).cameras.positions
        for times in ((None, None), (1.0, 2.0), (1.0, 9.0))
    )
    np.testing.assert_allclose(even, none, atol=1e-9)
    assert np.abs(late - none).max() > 0.1
    # The first of them is reached at a ninth of the time instead of at half of it.
    reached = IN_WORLD[3][:3, 3] - FAR.positions[0]
    assert np.linalg.norm(late[2]) > 0.9 * np.linalg.norm(reached) > np.linalg.norm(none[2])
    begun = asked_path(keys_at(-4.0, 0.0, 4.0, places=(0, 3, 8)), PLACE, tmp_path).cameras.positions
    np.testing.assert_allclose(begun, none, atol=1e-9)


@pytest.mark.parametrize("first", [0.0, -1.0])
def test_a_key_frame_before_the_last_camera_is_refused(tmp_path, first):
    with pytest.raises(Refusal, match="last camera so far, which has time 0") as refused:
        asked_path(keys_at(first, 9.0), PLACE, tmp_path)
    assert refused.value.param == "key_frames"


def test_cameras_of_the_exploration_must_begin_at_its_last_camera(tmp_path):
    shifted = IN_WORLD.copy()
    shifted[:, 0, 3] += 1
    asked = CamerasRequest(world_from_camera=poses(shifted), relative_to="exploration")
    with pytest.raises(Refusal, match="not the last camera so far") as refused:
        asked_path(PathFields(cameras=asked), PLACE, tmp_path)
    assert refused.value.param == "cameras"


def test_a_file_of_the_server_is_not_read_by_its_name(tmp_path):
    file = tmp_path / "secret.txt"
    save_cameras(Cameras(WANTED.world_from_camera, LENS), file, "tum")
    with pytest.raises(Refusal, match="secret"):
        asked_path(PathFields(path=str(file)), PLACE, tmp_path)


def test_a_unit_that_is_not_known_is_said(tmp_path):
    asked = CamerasRequest(world_from_camera=poses(WANTED.world_from_camera), metric=False)
    assert "metres" in asked_path(PathFields(cameras=asked), PLACE, tmp_path).remarks[0]
