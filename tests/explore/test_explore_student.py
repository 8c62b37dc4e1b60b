"""Quick looks by a student and their refining by the checkpoint, with random weights."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("starlette", reason="part of the explore extra")
pytest.importorskip("msgspec", reason="part of the explore extra")
pytest.importorskip("python_multipart", reason="part of the explore extra")
pytest.importorskip("httpx2", reason="starlette's TestClient needs it")
pytest.importorskip("av", reason="videos are written by PyAV")

from exploring import ANNA, BERT, done, ended, error_of, served
from nano_weights import STUDENT, save_nano

from camctrl_jax.checkpoints.weights import Weights
from camctrl_jax.errors import InvalidValue
from camctrl_jax.explore.__main__ import main
from camctrl_jax.explore.model import Model
from camctrl_jax.explore.quick import check_student
from camctrl_jax.video.decoding import read_frames
from camctrl_jax.video.pictures import encode_png

PICTURE = encode_png(np.random.default_rng(0).integers(0, 256, (40, 64, 3)).astype(np.uint8))
AS_STUDENT = {"steps": 4, "guidance": {"text": 1, "camera": 1}}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A teacher and its student, which has the very parameters, so that they differ in sampling alone."""
    root = tmp_path_factory.mktemp("weights")
    return save_nano(root / "teacher"), save_nano(root / "student", distilled=STUDENT)


@pytest.fixture(scope="module")
def models(folders):
    teacher = Model(str(folders[0]))
    return teacher, Model(str(folders[1]), teacher=teacher)


@pytest.fixture(scope="module")
def client(models, tmp_path_factory):
    with served(tmp_path_factory.mktemp("served"), models[0], student=models[1]) as client:
        yield client


def begun(client, **request):
    """A quick first clip: its exploration and job."""
    request = {"path": "dolly in 0.2 m", "model": "student", "seed": 11} | request
    files = {"image": ("room.png", PICTURE, "image/png")}
    data = {"request": json.dumps(request)}
    answer = client.post("/v1/explorations", data=data, files=files, headers=ANNA)
    assert answer.status_code == 201, answer.text
    return answer.json()["exploration"]["id"], done(client, answer.json()["job"])


def extended(client, name, **request):
    answer = client.post(f"/v1/explorations/{name}/clips", json=request, headers=ANNA)
    assert answer.status_code == 202, answer.text
    return done(client, answer.json())


def refined(client, clip, **request):
    answer = client.post(f"/v1/clips/{clip}/refine", json=request, headers=ANNA)
    assert answer.status_code == 202, answer.text
    return done(client, answer.json())


def clip_of(client, job):
    return client.get(f"/v1/clips/{job['clip']}").json()


def frames_of(client, clip):
    name, _, number = clip.partition(".")
    root = client.app.state.service.store.folder(name).path
    return np.stack([frame.rgb() for frame in read_frames(root / "clips" / number / "frames.mp4")])


@pytest.fixture(scope="module")
def quick(client):
    """An exploration of two quick clips; the second turns and has the seed of its place."""
    name, first = begun(client, prompt="a red ball")
    return name, first, extended(client, name, path="pan right 10 deg", model="student")


def test_model_tells_of_the_student_beside_it(client, models):
    facts = client.get("/v1/model").json()
    assert (facts["student"], facts["steps"]) == (None, 32)
    told = facts["quick"]
    assert (told["name"], told["steps"], told["valid_steps"]) == (models[1].checkpoint, 4, [4])
    schemas = client.get("/v1/openapi.json").json()["components"]["schemas"]
    described = schemas["Model"]["properties"]["quick"]["anyOf"][0]
    assert set(told) == set(described["required"]) == set(described["properties"])


def test_both_have_one_autoencoder_in_memory(client, models):
    teacher, student = (model.pipeline() for model in models)
    assert student.autoencoder is teacher.autoencoder
    assert (teacher.distilled, student.distilled) == (None, STUDENT)


def test_clips_say_which_weights_made_them(client, quick):
    name, *jobs = quick
    assert [(job["model"], job["refines"]) for job in jobs] == [("student", None)] * 2
    shown = [clip_of(client, job) for job in jobs]
    assert [(clip["model"], clip["steps"]) for clip in shown] == [("student", 4)] * 2
    # The checkpoint goes on from a student's clips with its own steps, not with those of the beginning.
    later = clip_of(client, extended(client, name, path="hold"))
    assert (later["model"], later["steps"], later["parent"]) == ("checkpoint", 32, jobs[1]["clip"])


def test_refined_clip_is_a_sibling_with_path_prompt_and_seed_of_the_quick_one(client, quick):
    _, first, second = quick
    job = refined(client, second["clip"])
    assert (job["kind"], job["model"], job["refines"]) == ("extend", "checkpoint", second["clip"])
    before, after = clip_of(client, second), clip_of(client, job)
    same = ("parent", "first", "frames", "prompt", "seed", "said", "cameras", "retrieved")
    assert {k: after[k] for k in same} == {k: before[k] for k in same}
    assert (after["parent"], after["model"], after["steps"]) == (first["clip"], "checkpoint", 32)
    assert not np.array_equal(frames_of(client, after["id"]), frames_of(client, before["id"]))


def test_same_parameters_and_sampling_refine_to_the_same_pixels(client, quick):
    """So the noise is the same, and everything else that reaches the network."""
    name, first, second = quick
    for clip in (first["clip"], second["clip"]):
        job = refined(client, clip, **AS_STUDENT)
        assert clip_of(client, job)["model"] == "checkpoint"
        np.testing.assert_array_equal(frames_of(client, job["clip"]), frames_of(client, clip))
    # The next clip after the same one has the seed of its own place, and so other pixels.
    other = extended(client, name, path="pan right 10 deg", model="student", parent=first["clip"])
    assert not np.array_equal(frames_of(client, other["clip"]), frames_of(client, second["clip"]))


def test_refined_first_clip_begins_another_exploration_with_the_same_start(client, quick):
    name, first, _ = quick
    job = refined(client, first["clip"])
    assert (job["kind"], job["refines"]) == ("start", first["clip"])
    assert job["exploration"] != name
    old, new = (
        client.get(f"/v1/explorations/{one}", headers=ANNA).json() for one in (name, job["exploration"])
    )
    assert new["title"] == f"{old['title']}, refined"
    assert new["mine"]
    before, after = old["clips"][0], new["clips"][0]
    same = ("parent", "prompt", "seed", "said", "cameras")
    assert {k: after[k] for k in same} == {k: before[k] for k in same}
    assert (after["model"], after["steps"]) == ("checkpoint", 32)
    pictures = [client.get(f"/v1/explorations/{one}/picture").content for one in (name, job["exploration"])]
    assert pictures[0] == pictures[1]
    # The student goes on from what it did not begin.
    assert clip_of(client, extended(client, job["exploration"], path="hold", model="student"))["steps"] == 4


def test_first_clip_of_a_world_is_refined_in_that_world(client):
    request = {"path": "hold", "worlds_seed": 1_000_003, "model": "student"}
    made = client.post("/v1/explorations", json=request, headers=ANNA).json()
    quick = done(client, made["job"])
    job = refined(client, quick["clip"], **AS_STUDENT)
    assert client.get(f"/v1/explorations/{job['exploration']}").json()["worlds_seed"] == 1_000_003
    np.testing.assert_array_equal(frames_of(client, job["clip"]), frames_of(client, quick["clip"]))


@pytest.mark.parametrize(
    ("asked", "param", "says"),
    [
        ({"model": "teacher"}, "model", "Invalid enum value 'teacher'"),
        ({"model": "student", "steps": 32}, "steps", "steps is 32: these weights are a student"),
        ({"model": "student", "guidance": {"camera": 2}}, "guidance.camera", "guidance to the camera is 2"),
    ],
)
def test_requests_to_the_student_are_checked_against_it(client, quick, asked, param, says):
    for url in ("/v1/explorations", f"/v1/explorations/{quick[0]}/clips"):
        error = error_of(client.post(url, json={"path": "hold"} | asked, headers=ANNA), 400)
        assert error["param"] == param
        assert says in error["message"]


def test_what_cannot_be_refined_is_refused(client, quick):
    name, _, second = quick
    url = f"/v1/clips/{second['clip']}/refine"
    assert "unknown field `seed`" in error_of(client.post(url, json={"seed": 3}), 400)["message"]
    assert error_of(client.post(url, json={"steps": 0}), 400)["param"] == "steps"
    assert error_of(client.post(f"/v1/clips/{name}.0099/refine"), 404)["type"] == "not_found"
    slow = extended(client, name, path="hold", steps=2)
    error = error_of(client.post(f"/v1/clips/{slow['clip']}/refine"), 409)
    assert "is no quick look by a student" in error["message"]


def test_refining_waits_in_the_queue_under_its_caps_and_protects_the_quick_clip(client, models, tmp_path):
    waiting = served(tmp_path / "served", *models[:1], student=models[1], queue_per_visitor=2)
    with waiting:
        name, _ = begun(waiting)
        quick = extended(waiting, name, path="hold", model="student")["clip"]
        first = f"{name}.0001"
        jobs = [
            waiting.post(f"/v1/clips/{clip}/refine", json={"steps": 200}, headers=ANNA).json()
            for clip in (quick, first)
        ]
        count = len(waiting.get("/v1/explorations").json()["explorations"])
        for clip in (quick, first):
            error = error_of(waiting.post(f"/v1/clips/{clip}/refine", headers=ANNA), 429)
            assert "2 of your jobs wait" in error["message"]
        assert len(waiting.get("/v1/explorations").json()["explorations"]) == count  # nothing was begun
        error = error_of(waiting.delete(f"/v1/clips/{quick}", headers=ANNA), 409)
        assert "A job refines clip 0002" in error["message"]
        other = waiting.post(f"/v1/clips/{quick}/refine", json={"steps": 1}, headers=BERT).json()
        assert other["position"] == 1  # BERT was not served yet
        for job in jobs:
            waiting.post(f"/v1/jobs/{job['id']}/cancel", headers=ANNA)
            assert ended(waiting, job)["state"] == "cancelled"
        done(waiting, other)
    waiting.app.state.service.store.close()


def test_server_without_a_student_refuses_quick_looks_and_goes_on_with_what_it_knows(models, tmp_path):
    """The folder of a server with a student, served again without it."""
    both = served(tmp_path, models[0], student=models[1])
    with both:
        name, first = begun(both)
        quick = extended(both, name, path="hold", model="student")["clip"]
    both.app.state.service.store.close()
    # As it was when the server was killed.
    path = tmp_path / "jobs" / f"{first['id']}.json"
    left = json.loads(path.read_text()) | {"id": f"j{'0' * 16}", "kind": "extend", "parent": "0001"}
    left |= {"state": "queued", "clip": None, "order": 99}
    (path.parent / f"{left['id']}.json").write_text(json.dumps(left))
    alone = served(tmp_path, models[0])
    with alone:
        assert alone.get("/v1/model").json()["quick"] is None
        for url in ("/v1/explorations", f"/v1/explorations/{name}/clips"):
            error = error_of(alone.post(url, json={"path": "hold", "model": "student"}), 400)
            assert error["param"] == "model"
            assert "start it with --student" in error["message"]
        job = ended(alone, alone.get(f"/v1/jobs/{left['id']}").json())
        assert (job["state"], job["error"]["type"]) == ("failed", "conflict")
        assert "has no student" in job["error"]["message"]
        assert clip_of(alone, refined(alone, quick))["model"] == "checkpoint"
    alone.app.state.service.store.close()


def test_weights_of_a_server_go_on_from_each_other_and_strangers_do_not(folders, tmp_path):
    """Of a student with parameters of its own, by which explorations tell who began them."""
    teacher = Model(str(folders[0]))
    student = Model(str(save_nano(tmp_path / "other", distilled=STUDENT, seed=5)), teacher=teacher)
    both = served(tmp_path / "served", teacher, student=student)
    with both:
        name, _ = begun(both)
        quick = extended(both, name, path="hold", model="student")["clip"]
        good = refined(both, quick, **AS_STUDENT)
        assert not np.array_equal(frames_of(both, good["clip"]), frames_of(both, quick))
        only, _ = begun(both, seed=3)
    both.app.state.service.store.close()
    alone = served(tmp_path / "served", teacher)
    with alone:
        extended(alone, name, path="hold", steps=2)  # where these weights have made a clip
        asked = alone.post(f"/v1/explorations/{only}/clips", json={"path": "hold"}, headers=ANNA).json()
        job = ended(alone, asked)
        assert job["state"] == "failed"
        assert "was begun with the weights" in job["error"]["message"]
        refined(alone, f"{only}.0001", steps=2)  # begins anew
    alone.app.state.service.store.close()


def test_checkpoint_that_is_a_student_itself_refines_nothing(folders, tmp_path):
    client = served(tmp_path, Model(str(folders[1])))
    with client:
        _, job = begun(client, model="checkpoint")
        assert clip_of(client, job)["model"] == "student"
        error = error_of(client.post(f"/v1/clips/{job['clip']}/refine"), 409)
        assert "start it with the teacher" in error["message"]
    client.app.state.service.store.close()


def test_student_is_checked_before_weights_are_read(folders, models, tmp_path, monkeypatch, capsys):
    teacher, student = folders

    def read(*_, **__):
        raise AssertionError("parameters are read")

    for name in ("mmdit_params", "vae_params"):
        monkeypatch.setattr(Weights, name, read)
    options = ["--folder", str(tmp_path / "served"), "--port", "0", "--student", str(teacher)]
    assert main(["--checkpoint", str(teacher), *options]) == 1
    assert f"--student {teacher}: these weights are no student" in capsys.readouterr().err
    assert not (tmp_path / "served").exists()
    with pytest.raises(InvalidValue, match=rf"{teacher}: these weights are no student.*{teacher}"):
        Model(str(teacher), teacher=models[0])
    with pytest.raises(
        InvalidValue, match=rf"--student {student} beside --checkpoint {student}, which is a st"
    ):
        Model(str(student), teacher=Model(str(student)))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sampling": {"frames": 17}}, "its clip length in frames is 17 and should be 9"),
        ({"sampling": {"height": 64}}, "its height is 64 and should be 32"),
        ({"sampling": {"fps": 8.0}}, "its frames per second is 8.0 and should be 12.0"),
        ({"sampling": {"retrieved": 4}}, "its number of retrieved frames is 4 and should be 0"),
        ({"text": {"max_tokens": 16}}, "its text settings is"),
    ],
)
def test_student_of_other_sizes_text_or_retrieval_is_refused(models, changes, says):
    teacher, student = models
    other = student.weights
    if "sampling" in changes:
        other = replace(other, sampling=replace(other.sampling, **changes["sampling"]))
    if "text" in changes:
        other = replace(other, text={**other.text, **changes["text"]})
    with pytest.raises(InvalidValue) as error:
        check_student(other, student.autoencoder, teacher.weights, teacher.autoencoder)
    message = str(error.value)
    assert says in message
    assert f"--student {student.checkpoint} is none of --checkpoint {teacher.checkpoint}" in message


def test_student_of_another_autoencoder_is_refused_unless_one_is_named(folders, models, tmp_path):
    """One bit of one file differs."""
    other = save_nano(tmp_path / "student", distilled=STUDENT)
    file = next(iter(sorted(other.glob("vae*.safetensors"))))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(InvalidValue, match=rf"{other} has the autoencoder of .*{folders[0]}.*--vae"):
        Model(str(other), teacher=models[0])
    named = Model(str(other), str(folders[0]), teacher=models[0])
    assert named.autoencoder.path == folders[0]
