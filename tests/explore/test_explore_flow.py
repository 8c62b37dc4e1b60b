"""A visitor's way through the API: from a start to clips, branches and downloads, with random weights."""

from __future__ import annotations

import errno
import io
import json
import os
import zipfile

import numpy as np
import pytest

pytest.importorskip("starlette", reason="part of the explore extra")
pytest.importorskip("msgspec", reason="part of the explore extra")
pytest.importorskip("python_multipart", reason="part of the explore extra")
pytest.importorskip("httpx2", reason="starlette's TestClient needs it")
pytest.importorskip("av", reason="videos are written by PyAV")

from exploring import ANNA, BERT, done, ended, error_of, served
from nano_weights import STUDENT, save_nano

from camctrl_jax.camera import load_cameras
from camctrl_jax.checkpoints.pipelines import load_pipeline, open_model
from camctrl_jax.diffusion.guidance import Guidance
from camctrl_jax.diffusion.sampler import Sampling
from camctrl_jax.explore.app import OPENAPI
from camctrl_jax.explore.model import Model
from camctrl_jax.explore.problems import Refusal
from camctrl_jax.files.lock import held
from camctrl_jax.sampling import exploration_folder
from camctrl_jax.sampling.exploration import Exploration
from camctrl_jax.video.decoding import read_frames
from camctrl_jax.video.pictures import encode_png
from camctrl_jax.worlds import render_rgb

PICTURE = encode_png(np.random.default_rng(0).integers(0, 256, (40, 64, 3)).astype(np.uint8))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_nano(tmp_path_factory.mktemp("weights") / "nano")


@pytest.fixture(scope="module")
def model(weights):
    return Model(str(weights))


@pytest.fixture(scope="module")
def client(model, tmp_path_factory):
    with served(tmp_path_factory.mktemp("served"), model) as client:
        yield client


def start(client, image=PICTURE, **request):
    request = {"path": "dolly in 0.2 m", "steps": 2} | request
    if image is None:
        return client.post("/v1/explorations", json=request, headers=ANNA)
    files = {"image": ("room.png", image, "image/png")}
    return client.post("/v1/explorations", data={"request": json.dumps(request)}, files=files, headers=ANNA)


@pytest.fixture(scope="module")
def two(client):
    """An exploration of two clips in a row."""
    answer = start(client, prompt="a red ball", seed=3)
    assert answer.status_code == 201, answer.text
    done(client, answer.json()["job"])
    name = answer.json()["exploration"]["id"]
    job = client.post(f"/v1/explorations/{name}/clips", json={"path": "pan right 10 deg"}, headers=ANNA)
    assert job.status_code == 202, job.text
    done(client, job.json())
    return client.get(f"/v1/explorations/{name}", headers=ANNA).json()


def test_the_tree_tells_who_goes_on_from_whom_with_cameras_in_one_frame(two):
    first, second = two["clips"]
    assert (first["parent"], second["parent"]) == (None, first["id"])
    assert two["current"] == second["id"]
    assert (first["prompt"], second["prompt"], first["seed"]) == ("a red ball", "a red ball", 3)
    last = np.array(first["cameras"]["world_from_camera"])[-1]
    np.testing.assert_allclose(last[:3, 3], [0, 0, 0.2], atol=1e-6)
    # A camera that turns on the spot stays where the clip before ended.
    turned = np.array(second["cameras"]["world_from_camera"])
    np.testing.assert_allclose(turned[:, :3, 3], np.tile(last[:3, 3], (len(turned), 1)), atol=1e-6)


def test_pixels_are_those_of_the_same_exploration_in_python(two, client, weights, tmp_path):
    pipeline = load_pipeline(*open_model(weights))
    project = client.get(f"/v1/explorations/{two['id']}/project")
    zipfile.ZipFile(io.BytesIO(project.content)).extractall(tmp_path)
    with (
        Exploration.load(pipeline, tmp_path / two["id"]) as downloaded,
        Exploration.start(
            *(pipeline, tmp_path / "own", "dolly in 0.2 m"),
            image=downloaded.picture(),
            prompt="a red ball",
            seed=3,
            sampling=Sampling(Guidance(camera=2.0), steps=2),
        ) as own,
    ):
        own.extend("pan right 10 deg")
        for name in ("0001", "0002"):
            np.testing.assert_array_equal(own.frames(name), downloaded.frames(name))
        assert len(downloaded.clips) == 2


def test_a_video_comes_in_ranges_as_players_ask_for_it(two, client):
    url = two["clips"][0]["video"]
    whole = client.get(url)
    assert whole.headers["content-type"] == "video/mp4"
    part = client.get(url, headers={"Range": "bytes=10-19"})
    assert part.status_code == 206
    assert part.content == whole.content[10:20]
    assert len(list(read_frames(whole.content))) == two["clips"][0]["frames"]


def test_the_line_is_one_video_of_all_clips_and_a_thumbnail_is_one_of_the_frames(two, client):
    line = client.get(two["clips"][1]["video"], params={"line": "true", "download": "true"})
    assert "attachment" in line.headers["content-disposition"]
    assert len(list(read_frames(line.content))) == sum(clip["frames"] for clip in two["clips"])
    picture = client.get(two["clips"][0]["thumbnail"], params={"frame": 1})
    assert next(read_frames(picture.content)).rgb().shape == (32, 48, 3)
    error_of(client.get(two["clips"][0]["thumbnail"], params={"frame": 99}), 400)


@pytest.mark.parametrize("pose_format", ["realestate10k", "transforms_json", "tum", "colmap_text"])
def test_cameras_come_as_files_that_are_read_again(two, client, tmp_path, pose_format):
    url = f"/v1/clips/{two['clips'][1]['id']}/cameras"
    wanted = np.array(client.get(url).json()["world_from_camera"])
    answer = client.get(url, params={"format": pose_format})
    path = tmp_path / "cameras.bin"
    path.write_bytes(answer.content)
    if answer.headers["content-type"] == "application/zip":
        zipfile.ZipFile(path).extractall(tmp_path / "unpacked")
        path = tmp_path / "unpacked" / "cameras"
    found = load_cameras(path, image_size=(32, 48))
    np.testing.assert_allclose(found.world_from_camera, wanted, atol=1e-5)


def test_a_preview_is_what_the_clip_gets(client, two):
    parent = two["clips"][0]["id"]
    asked = {"exploration": two["id"], "parent": parent, "path": "pan right 10 deg"}
    shown = client.post("/v1/paths", json=asked).json()
    assert shown["rotation_deg"] == pytest.approx(10, abs=1e-6)
    made = two["clips"][1]["cameras"]["world_from_camera"]
    np.testing.assert_allclose(np.array(shown["cameras"]["world_from_camera"])[1:], made, atol=1e-6)


def test_branching_undoing_and_deleting(client, two):
    """On a copy of the tree made by a third and a fourth clip; the first two stay."""
    url, (first, second) = f"/v1/explorations/{two['id']}", [clip["id"] for clip in two["clips"]]
    assert client.put(f"{url}/current", json={"clip": first}).json()["current"] == first
    third = done(client, client.post(f"{url}/clips", json={"path": "hold"}, headers=ANNA).json())["clip"]
    tree = client.get(url).json()
    assert tree["current"] == third
    assert {clip["id"]: clip["parent"] for clip in tree["clips"]}[third] == first
    assert error_of(client.delete(f"/v1/clips/{first}", headers=ANNA), 409)["type"] == "conflict"
    after = client.delete(f"/v1/clips/{third}", headers=ANNA).json()
    assert [clip["id"] for clip in after["clips"]] == [first, second]
    assert after["current"] == first
    client.put(f"{url}/current", json={"clip": second})


@pytest.mark.slow  # renders compile
def test_a_world_starts_along_its_own_path_and_has_a_true_render(client, model):
    answer = start(client, image=None, path=None, worlds_seed=1000000)
    job = done(client, answer.json()["job"])
    clip = client.get(f"/v1/clips/{job['clip']}").json()
    world = model.world(1000000)
    assert clip["prompt"] == world.captions[0]
    np.testing.assert_allclose(
        clip["cameras"]["world_from_camera"], world.cameras.relative_to(0).world_from_camera, atol=1e-6
    )
    truth = [frame.rgb() for frame in read_frames(client.get(clip["truth"]).content)]
    wanted = np.asarray(render_rgb([world], 32, 48))[0]
    assert np.abs(np.stack(truth).astype(float) - wanted).mean() < 8  # a lossy video of it
    # A further clip goes on where the first one ended, in the same world.
    url = f"/v1/explorations/{job['exploration']}/clips"
    later = done(client, client.post(url, json={"path": "truck left 1 m"}, headers=ANNA).json())
    clip = client.get(f"/v1/clips/{later['clip']}").json()
    seen = [frame.rgb() for frame in read_frames(client.get(clip["truth"]).content)]
    assert len(seen) == clip["frames"]
    change = [np.abs(frame.astype(float) - wanted[-1]).mean() for frame in (seen[0], seen[-1])]
    assert change[0] < 8 < change[1]


def test_events_tell_every_change_and_go_on_from_an_id(client, two):
    job = client.post(f"/v1/explorations/{two['id']}/clips", json={"path": "hold"}, headers=ANNA).json()
    text = client.get(f"/v1/jobs/{job['id']}/events").text
    told = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
    ids = [int(line[4:]) for line in text.splitlines() if line.startswith("id: ")]
    assert ids == [each["version"] for each in told] == sorted(set(ids))
    assert told[-1]["state"] == "done"
    assert told[-1]["done"] == told[-1]["steps"] == 2
    again = client.get(f"/v1/jobs/{job['id']}/events", headers={"Last-Event-ID": str(ids[-2])}).text
    assert f"id: {ids[-1]}\n" in again
    assert f"id: {ids[-2]}\n" not in again
    end = client.get(f"/v1/jobs/{job['id']}/events", headers={"Last-Event-ID": str(ids[-1])})
    assert end.status_code == 204
    client.delete(f"/v1/clips/{told[-1]['clip']}", headers=ANNA)


def test_cancelling_ends_a_job_at_its_next_step_and_leaves_no_clip(client, two):
    url = f"/v1/explorations/{two['id']}/clips"
    long = client.post(url, json={"path": "hold", "steps": 200}, headers=ANNA).json()
    waiting = client.post(url, json={"path": "hold"}, headers=ANNA).json()
    error_of(client.post(f"/v1/jobs/{long['id']}/cancel", headers=BERT), 403)
    assert client.post(f"/v1/jobs/{waiting['id']}/cancel", headers=ANNA).json()["state"] == "cancelled"
    while client.get(f"/v1/jobs/{long['id']}").json()["done"] < 1:
        pass
    client.post(f"/v1/jobs/{long['id']}/cancel", headers=ANNA)
    job = ended(client, long)
    assert job["state"] == "cancelled"
    assert 1 <= job["done"] < 200
    assert len(client.get(f"/v1/explorations/{two['id']}").json()["clips"]) == 2


def test_a_disk_that_fills_fails_the_job_and_the_server_goes_on(client, two, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    url = f"/v1/explorations/{two['id']}"
    with monkeypatch.context() as patch:
        patch.setattr(exploration_folder, "write_mp4", full)
        job = ended(client, client.post(f"{url}/clips", json={"path": "hold"}, headers=ANNA).json())
    assert (job["state"], job["error"]["type"]) == ("failed", "storage_full")
    assert "disk is full" in job["error"]["message"]
    tree = client.get(url).json()
    assert len(tree["clips"]) == 2
    assert tree["jobs"][-1]["id"] == job["id"]
    again = done(client, client.post(f"{url}/clips", json={"path": "hold"}, headers=ANNA).json())
    client.delete(f"/v1/clips/{again['clip']}", headers=ANNA)


def test_a_damaged_exploration_is_told_and_does_not_hide_the_others(client, two):
    job = done(client, start(client).json()["job"])
    name = job["exploration"]
    folder = client.app.state.service.store.folder(name)
    (folder.clip("0001") / "clip.json").write_text("{")
    os.utime(folder.path / "clips")  # as a copy of the folder would have
    states = {each["id"]: each["state"] for each in client.get("/v1/explorations").json()["explorations"]}
    assert (states[name], states[two["id"]]) == ("damaged", "ready")
    assert "clip.json" in client.get(f"/v1/explorations/{name}").json()["problem"]
    url = f"/v1/explorations/{name}/clips"
    assert "clip.json" in error_of(client.post(url, json={"path": "hold"}), 409)["message"]
    assert client.delete(f"/v1/explorations/{name}", headers=ANNA).status_code == 204
    error_of(client.get(f"/v1/explorations/{name}"), 404)


def test_two_visitors_branch_the_same_clip_and_neither_disturbs_the_other(client, two):
    url, parent = f"/v1/explorations/{two['id']}/clips", two["clips"][0]["id"]
    asked = {"path": "pan left 5 deg", "parent": parent}
    jobs = [client.post(url, json=asked, headers=visitor).json() for visitor in (ANNA, BERT)]
    assert [job["mine"] for job in jobs] == [True, True]
    clips = [client.get(f"/v1/clips/{done(client, job)['clip']}").json() for job in jobs]
    assert clips[0]["parent"] == clips[1]["parent"] == parent
    assert clips[0]["seed"] != clips[1]["seed"]
    for clip in clips:
        client.delete(f"/v1/clips/{clip['id']}", headers=ANNA)


def test_an_exploration_with_jobs_stays_until_they_have_ended(client, two):
    url, first, last = f"/v1/explorations/{two['id']}", *(clip["id"] for clip in two["clips"])
    asked = {"path": "hold", "steps": 200, "parent": last}
    job = client.post(f"{url}/clips", json=asked, headers=ANNA).json()
    assert "wait" in error_of(client.delete(url, headers=ANNA), 409)["message"]
    assert "goes on from" in error_of(client.delete(f"/v1/clips/{last}", headers=ANNA), 409)["message"]
    while client.get(f"/v1/jobs/{job['id']}").json()["done"] < 1:
        pass
    assert client.put(f"{url}/current", json={"clip": first}).json()["current"] == first
    client.post(f"/v1/jobs/{job['id']}/cancel", headers=ANNA)
    ended(client, job)
    assert client.put(f"{url}/current", json={"clip": last}).json()["current"] == last


def test_a_clip_that_is_made_while_a_visitor_branches_is_the_current_one(client, two):
    url, first, last = f"/v1/explorations/{two['id']}", *(clip["id"] for clip in two["clips"])
    asked = {"path": "hold", "steps": 50, "parent": last}
    job = client.post(f"{url}/clips", json=asked, headers=ANNA).json()
    other = client.post(f"{url}/clips", json={"path": "hold", "parent": first}, headers=ANNA).json()
    while client.get(f"/v1/jobs/{job['id']}").json()["done"] < 1:
        pass
    assert client.put(f"{url}/current", json={"clip": first}).json()["current"] == first
    error_of(client.delete(f"/v1/clips/{last}", headers=ANNA), 409)
    made = [done(client, each)["clip"] for each in (job, other)]
    tree = client.get(url).json()
    assert tree["current"] == made[1]
    assert [clip["parent"] for clip in tree["clips"][-2:]] == [last, first]
    for clip in made:
        client.delete(f"/v1/clips/{clip}", headers=ANNA)
    client.put(f"{url}/current", json={"clip": last})


def test_a_job_waits_for_a_visitor_who_branches_at_that_moment(client, two):
    folder = client.app.state.service.store.folder(two["id"]).path
    with held(folder / exploration_folder.LOCK, Refusal):
        asked = {"path": "hold", "parent": two["clips"][0]["id"]}
        url = f"/v1/explorations/{two['id']}/clips"
        job = client.post(url, json=asked, headers=ANNA).json()
        while (job := client.get(f"/v1/jobs/{job['id']}").json())["stage"] != "waiting for its folder":
            assert job["state"] in ("queued", "running"), job
    client.delete(f"/v1/clips/{done(client, job)['clip']}", headers=ANNA)


def test_a_video_in_the_form_of_openai(client):
    eye = {"world_from_camera": np.tile(np.eye(4), (9, 1, 1)).tolist()}
    form = {"prompt": "a ball", "size": "48x32", "seed": "4", "cameras": json.dumps(eye)}
    files = {"input_reference": ("x.png", PICTURE, "image/png")}
    video = client.post("/v1/videos", data=form, files=files, headers=ANNA).json()
    assert (video["object"], video["size"]) == ("video", "48x32")
    client.post(f"/v1/jobs/{video['id']}/cancel", headers=ANNA)
    assert error_of(client.post("/v1/videos", json={"prompt": "x", "size": "9x9"}), 400)["param"] == "size"
    assert error_of(client.post("/v1/videos", json={"prompt": "x", "n": 2}), 400)["param"] == "n"
    first = client.post("/v1/videos", json={"prompt": "x", "path": "hold"}, headers=ANNA).json()
    ended(client, client.get(f"/v1/jobs/{first['id']}").json())
    assert client.get(f"/v1/videos/{first['id']}").json()["status"] == "completed"
    assert len(list(read_frames(client.get(f"/v1/videos/{first['id']}/content").content))) == 9


@pytest.mark.slow  # compiles
def test_points_of_a_clip_or_why_there_are_none(client):
    """Random weights give noise, in which nothing agrees: said as such, and the server goes on."""
    job = done(client, start(client, path="truck right 1 m").json()["job"])
    scene = client.post(f"/v1/clips/{job['clip']}/scene", headers=ANNA).json()
    scene = ended(client, scene)
    found = client.get(f"/v1/clips/{job['clip']}/scene")
    assert (scene["state"], found.status_code) in (("done", 200), ("failed", 404)), scene
    if scene["state"] == "failed":
        assert scene["error"]["type"] == "bad_request", scene


def test_a_first_clip_that_was_cancelled_leaves_an_exploration_that_says_so(client):
    created = start(client, steps=200).json()
    name = created["exploration"]["id"]
    assert created["exploration"]["state"] == "starting"
    url = f"/v1/explorations/{name}/clips"
    assert "wait" in error_of(client.post(url, json={"path": "hold"}), 409)["message"]
    client.post(f"/v1/jobs/{created['job']['id']}/cancel", headers=ANNA)
    assert ended(client, created["job"])["state"] == "cancelled"
    assert client.get(f"/v1/explorations/{name}").json()["state"] == "failed"
    assert "start another" in error_of(client.post(url, json={"path": "hold"}), 409)["message"]
    assert client.delete(f"/v1/explorations/{name}", headers=ANNA).status_code == 204


def test_what_was_assumed_is_told_with_the_job(client, two):
    file = {"name": "path.txt", "text": "".join(f"{t} 0 0 {t} 0 0 0 1\n" for t in range(9))}
    asked = {"pose_file": file}
    url = f"/v1/explorations/{two['id']}/clips"
    job = done(client, client.post(url, json=asked, headers=ANNA).json())
    said = "\n".join(job["remarks"])
    assert "path.txt" in said  # its unit, and how its poses are spread over the frames
    assert "in training it seldom" in said
    client.delete(f"/v1/clips/{job['clip']}", headers=ANNA)


def test_every_route_is_in_the_openapi_file_and_the_other_way_round(client):
    described = client.get("/v1/openapi.json").json()
    assert described == json.loads(OPENAPI.read_text())
    routes = {
        (f"/v1{route.path}", method.lower())
        for mount in client.app.routes
        if mount.path == "/v1"
        for route in mount.routes
        for method in route.methods - {"HEAD"}
    }
    assert routes == {(path, method) for path, methods in described["paths"].items() for method in methods}


def test_answers_have_the_fields_that_the_openapi_file_tells(client, two):
    schemas = json.loads(OPENAPI.read_text())["components"]["schemas"]
    job = client.get("/v1/jobs", headers=ANNA).json()["jobs"][0]
    listed = client.get("/v1/explorations", headers=ANNA).json()["explorations"][0]
    preview = client.post("/v1/paths", json={"path": "hold"}).json()
    for name, answer in {
        "Exploration": two,
        "Clip": two["clips"][0],
        "Job": job,
        "ExplorationSummary": listed,
        "PathAnswer": preview,
        "Model": client.get("/v1/model").json(),
        "Status": client.get("/v1/status").json(),
    }.items():
        assert set(answer) == set(schemas[name]["required"]) == set(schemas[name]["properties"]), name


def test_a_clip_that_was_finished_when_the_server_was_killed_is_not_made_again(model, tmp_path):
    """The jobs are as they are on disk between the last byte of a clip and the end of its job."""
    client = served(tmp_path, model)
    with client:
        first = done(client, start(client).json()["job"])
        url = f"/v1/explorations/{first['exploration']}"
        second = client.post(f"{url}/clips", json={"path": "hold"}, headers=ANNA).json()
        second = done(client, second)
        before = client.get(url).json()
    client.app.state.service.store.close()
    for job in (first, second):
        path = tmp_path / "jobs" / f"{job['id']}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"state": "running", "ended": None}))
    client = served(tmp_path, model)
    with client:
        for job in (first, second):
            assert done(client, client.get(f"/v1/jobs/{job['id']}").json())["clip"] == job["clip"]
        after = client.get(url).json()
        assert after["clips"] == before["clips"]
        assert after["current"] == before["current"]
    client.app.state.service.store.close()


def test_student_makes_clips_with_its_own_steps_only(tmp_path):
    student = Model(str(save_nano(tmp_path / "nano", distilled=STUDENT)))
    with served(tmp_path / "served", student) as client:
        created = client.post("/v1/explorations", json={"path": "dolly in 0.2 m"}, headers=ANNA).json()
        done(client, created["job"])
        url = f"/v1/explorations/{created['exploration']['id']}/clips"
        asked = {"path": "hold", "steps": 4, "guidance": {"text": 1, "camera": 1, "history": 1}}
        done(client, client.post(url, json=asked, headers=ANNA).json())
        refused = client.post(url, json={"path": "hold", "steps": 3}, headers=ANNA)
        assert error_of(refused, 400)["param"] == "steps"
        shown = client.get(url.removesuffix("/clips"), headers=ANNA).json()
        assert [clip["steps"] for clip in shown["clips"]] == [4, 4]
