"""What a server refuses: each with the one form of error, the field that is wrong, and nothing lost."""

from __future__ import annotations

import errno
import json

import numpy as np
import pytest

pytest.importorskip("starlette", reason="part of the explore extra")
pytest.importorskip("msgspec", reason="part of the explore extra")
pytest.importorskip("python_multipart", reason="part of the explore extra")
pytest.importorskip("httpx2", reason="starlette's TestClient needs it")
pytest.importorskip("av", reason="videos are written by PyAV")

from exploring import ANNA, BERT, error_of, served
from nano_weights import STUDENT, save_nano

from camctrl_jax.camera.formats import transforms_json
from camctrl_jax.errors import FileInUse
from camctrl_jax.explore import jobs, security, service
from camctrl_jax.explore.model import Model
from camctrl_jax.explore.problems import Refusal
from camctrl_jax.explore.serving import addresses, make_service
from camctrl_jax.video.pictures import encode_png

EYE = np.eye(4).tolist()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return Model(str(save_nano(tmp_path_factory.mktemp("weights") / "nano")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def client(model, folder):
    """Outside of ``with``: no worker runs, so nothing that is accepted is carried out."""
    return served(folder, model)


def moved(*steps):
    """Poses that go forward by so many metres from one to the next."""
    poses = np.tile(np.eye(4), (len(steps) + 1, 1, 1))
    poses[1:, 2, 3] = np.cumsum(steps)
    return poses.tolist()


@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        ({}, "path", "No path"),
        ({"path": "dolly inn"}, "path", "dolly"),
        ({"path": "/etc/passwd"}, "path", "not"),
        ({"path": "hold", "cameras": {"world_from_camera": [EYE]}}, "cameras", "one of these ways"),
        ({"path": "hold", "colour": 1}, None, "colour"),
        ({"cameras": {"world_from_camera": [EYE]}}, "cameras", "expected 9"),
        ({"cameras": {"world_from_camera": [EYE[:3]]}}, "cameras.world_from_camera[0]", "4"),
        ({"cameras": {"world_from_camera": moved(*[0.01] * 3, 100, *[0.01] * 4)}}, "cameras", "100 m"),
        ({"cameras": {"world_from_camera": [np.diag([-1, -1, -1, 1]).tolist()] * 9}}, "cameras", "rotation"),
        ({"path": "hold", "scale": 0}, "scale", "> 0"),
        ({"key_frames": [{"world_from_camera": EYE}]}, "key_frames", "length >= 2"),
        ({"pose_file": {"name": "x.txt", "text": "no poses"}}, "pose_file", "x.txt"),
        ({"path": "hold", "exploration": "../../etc"}, None, "no exploration"),
        (
            {"cameras": {"world_from_camera": np.swapaxes(moved(*[0.1] * 8), 1, 2).tolist()}},
            "cameras",
            "transposed",
        ),
        ({"cameras": {"world_from_camera": moved(1e308, *[0] * 7)}, "scale": 1000}, "cameras", "infinity"),
        ({"path": "dolly in " + "9" * 1900 + " m"}, "path", "infinity"),
        ({"path": "then " * 390}, "path", "not a camera move"),
        ({"key_frames": [{"world_from_camera": EYE, "time": 1}] * 2}, "key_frames", "must increase"),
        (
            {"pose_file": {"name": "x.txt", "text": "0 0 0 0 0 0 0 1", "range": [10**20, None]}},
            "pose_file",
            "1 poses",
        ),
        ({"pose_file": {"name": "x.txt", "text": "0 0 0 0 0 0 0 1", "axes": "XYZ"}}, "pose_file", "XYZ"),
    ],
)
def test_paths_that_cannot_be_followed_name_the_field(client, body, param, says):
    answer = client.post("/v1/paths", json=body)
    error = error_of(answer, 404 if "exploration" in body else 400)
    assert says in error["message"]
    assert error["param"] == param


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"path": "hold", "scale": NaN}', "JSON"),
        ('{"path": "hold", "scale": 1e999}', "1e999|range|finite"),
        ("[" * 100_000, ""),
        ("{", "JSON"),
        ("\xff", ""),
    ],
)
def test_bodies_that_are_no_json_are_refused(client, text, says):
    answer = client.post("/v1/paths", content=text.encode("latin-1"))
    message = error_of(answer, 400)["message"]
    assert any(word in message for word in says.split("|"))


def test_a_pose_file_of_ten_thousand_poses_is_spread_over_the_clip_and_of_one_holds_still(client):
    for count, words in ((10_000, "10000"), (1, "one pose")):
        text = "".join(f"{place} 0 0 {0.0001 * place} 0 0 0 1\n" for place in range(count))
        answer = client.post("/v1/paths", json={"pose_file": {"name": "long.txt", "text": text}}).json()
        assert len(answer["cameras"]["world_from_camera"]) == 9
        assert answer["length_m"] == pytest.approx(0.0001 * (count - 1), abs=1e-4)
        assert any(words in remark for remark in answer["remarks"]), answer["remarks"]


def test_a_pose_file_makes_the_server_look_at_no_other_file(client, monkeypatch):
    """transforms.json may leave the size of its pictures to the pictures, whose paths it says."""
    looked = []
    monkeypatch.setattr(transforms_json, "png_size", lambda path: looked.append(path))
    frames = [{"file_path": "/etc/secret.png", "transform_matrix": EYE}]
    text = json.dumps({"fl_x": 40, "fl_y": 40, "cx": 24, "cy": 16, "frames": frames})
    answer = client.post("/v1/paths", json={"pose_file": {"name": "transforms.json", "text": text}})
    assert answer.status_code == 200, answer.text
    assert looked == []


def test_ten_thousand_poses_are_too_many(client):
    answer = client.post("/v1/paths", json={"cameras": {"world_from_camera": [EYE] * 10_000}})
    assert "1024" in error_of(answer, 400)["message"]


def test_a_body_over_the_cap_is_refused_told_or_not(client, monkeypatch):
    monkeypatch.setattr(security, "MOST_BODY", 1000)
    assert error_of(client.post("/v1/paths", content=b"x" * 1001), 413)["type"] == "too_large"
    parts = (b"x" * 100 for _ in range(11))  # without Content-Length
    assert error_of(client.post("/v1/paths", content=parts), 413)["type"] == "too_large"


def test_only_what_takes_pictures_takes_large_bodies(client, monkeypatch):
    monkeypatch.setattr(security, "MOST_BODY", 1000)
    form = {"content": b"x" * 1001, "headers": {"Content-Type": "multipart/form-data; boundary=x"}}
    for method, path in (
        ("POST", "/v1/paths"),
        ("PUT", "/v1/explorations/e0123456789abcdef/current"),
        ("POST", "/v1/jobs/j0123456789abcdef/cancel"),
        ("GET", "/v1/explorations"),
    ):
        assert error_of(client.request(method, path, **form), 413)["type"] == "too_large"
    for path in ("/v1/explorations", "/v1/videos"):
        error_of(client.post(path, **form), 400)  # read, and then no form


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data; boundary=x", "application/x-json"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/paths"),
        ("POST", "/v1/explorations/e0123456789abcdef/clips"),
        ("PUT", "/v1/explorations/e0123456789abcdef/current"),
    ],
)
def test_json_is_sent_as_such(client, method, path, kind):
    body = {"content": b'{"path": "hold"}', "headers": {"Content-Type": kind}}
    assert "application/json" in error_of(client.request(method, path, **body), 415)["message"]


def test_a_cancel_on_a_full_disk_is_told(model, tmp_path, monkeypatch):
    client = served(tmp_path, model)
    job = client.post("/v1/explorations", json={"path": "hold"}, headers=ANNA).json()["job"]
    url = f"/v1/jobs/{job['id']}"

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "write_json", full)
        assert error_of(client.post(f"{url}/cancel", headers=ANNA), 507)["type"] == "storage_full"
    assert client.get(url).json()["state"] == "queued"


@pytest.mark.parametrize(
    ("host", "allowed", "says"),
    [
        ("127.0.0.1", [], ["http://127.0.0.1:8008 "]),
        ("192.168.1.5", [], ["http://192.168.1.5:8008 "]),
        ("0.0.0.0", [], ["http://127.0.0.1:8008 ", "--allow-host 192.168.1.5,"]),
        ("::", [], ["http://[::1]:8008 ", "--allow-host 192.168.1.5,"]),
        ("0.0.0.0", ["192.168.1.5"], ["http://127.0.0.1:8008 ", "http://192.168.1.5:8008"]),
    ],
)
def test_the_start_tells_addresses_that_can_be_opened(host, allowed, says):
    lines = addresses(host, 8008, allowed, lambda: "192.168.1.5")
    assert len(lines) == len(says)
    for line, expected in zip(lines, says, strict=True):
        assert expected in line
        assert "0.0.0.0" not in line


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:9999"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"}, 403),  # another port of this machine
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 200),  # a link
        ({"Origin": "http://127.0.0.1:8008"}, 200),
        ({"Host": "localhost:8008", "Origin": "http://localhost:8008"}, 200),
        ({"X-Visitor": "a b"}, 400),
    ],
)
def test_only_pages_of_this_server_may_use_it(client, headers, status):
    answer = client.get("/v1/explorations", headers=headers)
    assert answer.status_code == status
    assert answer.headers["content-security-policy"] == security.POLICY
    if status != 200:
        error_of(answer, status)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/explorations/..%2f..%2fetc",
        "/v1/explorations/e0123456789abcdef",
        "/v1/clips/e0123456789abcdef.0001/content",
        "/v1/clips/..%2f..%2f..%2fetc%2fpasswd/content",
        "/v1/clips/e0123456789abcdef.0001%2f..%2f..%2fabout.json/cameras",
        "/v1/jobs/..%2fserver.lock",
        "/v1/jobs/%00",
        "/v1/nothing",
        "/..%2fserving.py",
    ],
)
def test_names_lead_nowhere_else(client, path):
    error_of(client.get(path), 404)


def test_another_method_is_told(client):
    error_of(client.put("/v1/explorations"), 405)


def test_pictures_that_are_none_are_refused_and_leave_nothing(client, folder):
    def send(content, request=None):
        return client.post(
            "/v1/explorations",
            data={"request": json.dumps(request or {"path": "hold"})},
            files={"image": ("x.png", content, "image/png")},
        )

    good = encode_png(np.zeros((16, 16, 3), np.uint8))
    for content in (b"not a picture", good[:40], b""):
        assert error_of(send(content), 400)["param"] == "image"
    huge = bytearray(good)
    huge[16:24] = (20_000).to_bytes(4, "big") * 2  # a header that tells of 400 million pixels
    assert send(bytes(huge)).status_code in (400, 413)
    assert error_of(send(good, {"path": "hold", "worlds_seed": 3}), 400)["param"] == "worlds_seed"
    assert list((folder / "explorations").iterdir()) == []
    assert list((folder / "jobs").iterdir()) == []


@pytest.mark.parametrize(
    "text",
    [
        "ffconcat version 1.0\nfile secret.png\n",
        "#EXTM3U\n#EXTINF:9,\nsecret.png\n#EXT-X-ENDLIST\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n"
        "a=rtpmap:96 H264/90000\n",
        '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>',
    ],
    ids=["concat", "hls", "sdp", "svg"],
)
def test_what_is_uploaded_opens_no_other_file_and_no_address(client, tmp_path, monkeypatch, text):
    (tmp_path / "secret.png").write_bytes(encode_png(np.zeros((32, 48, 3), np.uint8)))
    monkeypatch.chdir(tmp_path)
    form = {
        "data": {"request": '{"path": "hold"}'},
        "files": {"image": ("x.png", text.encode(), "image/png")},
    }
    assert error_of(client.post("/v1/explorations", **form), 400)["param"] == "image"


def test_a_picture_may_have_forty_megapixels_and_not_sixty(client, model, monkeypatch):
    from camctrl_jax.explore import model as module

    assert 40e6 < module.MOST_PIXELS < 60e6
    monkeypatch.setattr(module, "MOST_PIXELS", 64 * 48)
    small, large = (encode_png(np.zeros((height, 64, 3), np.uint8)) for height in (48, 49))
    assert model.picture(small).shape == (32, 48, 3)
    with pytest.raises(Refusal, match="64x49"):
        model.picture(large)


@pytest.mark.parametrize(
    ("kind", "content", "status"),
    [
        ("text/plain", b"a ball", 415),
        ("application/json", b'{"prompt": "x", "input_reference": "x.png"}', 400),
        ("application/json", b'{"prompt": "x", "seconds": NaN}', 400),
        ("application/x-www-form-urlencoded", b"prompt=x&prompt=y", 400),
        ("application/x-www-form-urlencoded", b"prompt=x&seed=-1", 400),
        ("multipart/form-data", b"x", 400),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="x"\r\n\r\ny\r\n--x--',
            400,
        ),
    ],
)
def test_a_video_of_what_is_not_understood_is_not_made(client, folder, kind, content, status):
    error_of(client.post("/v1/videos", content=content, headers={"Content-Type": kind}), status)
    assert list((folder / "jobs").iterdir()) == []


def test_prompts_whose_end_would_be_left_out_are_refused(client):
    longest = " ".join(["ball"] * client.get("/v1/model").json()["limits"]["prompt_tokens"])
    error = error_of(client.post("/v1/explorations", json={"path": "hold", "prompt": f"{longest} x"}), 400)
    assert (error["param"], "32 words" in error["message"]) == ("prompt", True)
    assert error_of(client.post("/v1/videos", json={"prompt": f"{longest} x"}), 400)["param"] == "prompt"


def test_guidance_has_bounds(client):
    asked = {"path": "hold", "guidance": {"camera": 1e30}}
    assert error_of(client.post("/v1/explorations", json=asked), 400)["param"] == "guidance.camera"


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    """A client of a server whose weights are a student's; nothing that is accepted is carried out."""
    root = tmp_path_factory.mktemp("student")
    return served(root / "served", Model(str(save_nano(root / "nano", distilled=STUDENT))))


def test_model_says_what_a_student_is_and_of_others_that_they_are_none(student, client):
    facts = student.get("/v1/model").json()
    assert (facts["steps"], facts["guidance"]) == (4, {"text": 1.0, "camera": 1.0, "history": 1.0})
    assert facts["student"].pop("said") == STUDENT.said
    assert facts["student"] == {
        "method": "progressive",
        "teacher_sha256": "",
        "guidance_folded": {"text": 1.0, "camera": 2.0},
        "valid_steps": [4],
    }
    schema = student.get("/v1/openapi.json").json()["components"]["schemas"]["Model"]
    assert set(facts) == set(schema["required"])
    described = schema["properties"]["student"]["anyOf"][0]
    assert set(described["required"]) == set(facts["student"]) | {"said"}
    plain = client.get("/v1/model").json()
    assert (plain["student"], plain["steps"], plain["guidance"]["camera"]) == (None, 32, 2.0)


@pytest.mark.parametrize(
    ("asked", "param", "says"),
    [
        ({"steps": 32}, "steps", "steps is 32: these weights are a student made for 4 steps"),
        ({"guidance": {"text": 3}}, "guidance.text", "guidance to the text is 3"),
        ({"guidance": {"camera": 2}}, "guidance.camera", "guidance to the camera is 2"),
        ({"guidance": {"history": 1.5}}, "guidance.history", "guidance to past frames is 1.5"),
    ],
)
def test_what_a_student_was_not_made_for_is_refused_by_field(student, asked, param, says):
    asked = {"path": "hold", "worlds_seed": 1_000_000} | asked
    error = error_of(student.post("/v1/explorations", json=asked), 400)
    assert (error["type"], error["param"]) == ("bad_request", param)
    assert says in error["message"]
    assert "folded in: camera guidance 2" in error["message"]
    assert student.get("/v1/explorations").json()["explorations"] == []


def test_a_disk_that_is_full_is_told_and_leaves_nothing(client, folder, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:  # where uploads wait, which is not in the server's folder
        patch.setattr(service.Service, "start", full)
        answer = client.post("/v1/explorations", json={"path": "hold"})
        assert error_of(answer, 507)["type"] == "storage_full"
    with monkeypatch.context() as patch:  # when the job is to be written
        patch.setattr(jobs, "write_json", full)
        with pytest.raises(OSError, match="No space"):
            client.app.state.service.queue.add("scene", "anna", "e", {})
        assert error_of(client.post("/v1/explorations", json={"path": "hold"}), 507)
    assert list((folder / "explorations").iterdir()) == []
    assert client.get("/v1/status").json()["queued"] == 0


def test_only_who_made_an_exploration_can_delete_it(model, tmp_path):
    client = served(tmp_path, model)
    for maker, others in ((ANNA, (BERT, {})), ({}, ())):
        made = client.post("/v1/explorations", json={"path": "hold"}, headers=maker).json()
        url = f"/v1/explorations/{made['exploration']['id']}"
        client.post(f"/v1/jobs/{made['job']['id']}/cancel", headers=maker)
        for other in others:
            assert client.get(url, headers=other).json()["mine"] is False
            assert error_of(client.delete(url, headers=other), 403)["type"] == "forbidden"
        # What nobody by name made is everybody's.
        owner = maker or BERT
        assert client.get(url, headers=owner).json()["mine"] is True
        assert client.delete(url, headers=owner).status_code == 204


def test_prompts_of_ten_thousand_words_are_refused_with_the_cap(client):
    answer = client.post("/v1/explorations", json={"path": "hold", "prompt": "a red ball " * 4000})
    error = error_of(answer, 400)
    assert (error["param"], "20000" in error["message"]) == ("prompt", True)


def test_queue_and_storage_have_caps_with_a_clear_message(model, tmp_path):
    client = served(tmp_path / "a", model, queue=3, queue_per_visitor=2)
    ask = {"json": {"path": "hold"}}
    assert [client.post("/v1/explorations", **ask, headers=ANNA).status_code for _ in range(2)] == [201, 201]
    error = error_of(client.post("/v1/explorations", **ask, headers=ANNA), 429)
    assert "2 of your jobs" in error["message"]
    assert client.post("/v1/explorations", **ask).status_code == 201
    assert "3 jobs wait" in error_of(client.post("/v1/explorations", **ask), 429)["message"]
    assert len(client.get("/v1/explorations").json()["explorations"]) == 3
    full = served(tmp_path / "b", model, storage=1e-9)
    assert error_of(full.post("/v1/explorations", **ask), 507)["type"] == "storage_full"


def test_a_second_server_on_the_same_folder_is_told_who_has_it(client, folder, model):
    with pytest.raises(FileInUse, match="is in use: process"):
        make_service(folder, model)
