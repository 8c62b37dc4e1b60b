"""What a server refuses: each with the one form of error, the field that is wrong, and nothing lost."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("starlette", reason="part of the explore extra")
pytest.importorskip("msgspec", reason="part of the explore extra")
pytest.importorskip("python_multipart", reason="part of the explore extra")
pytest.importorskip("httpx2", reason="starlette's TestClient needs it")
pytest.importorskip("av", reason="videos are written by PyAV")

from exploring import ANNA, error_of, served
from nano_weights import save_nano

from camctrl_jax.errors import FileInUse
from camctrl_jax.explore import security
from camctrl_jax.explore.model import Model
from camctrl_jax.explore.serving import make_service
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


def test_ten_thousand_poses_are_too_many(client):
    answer = client.post("/v1/paths", json={"cameras": {"world_from_camera": [EYE] * 10_000}})
    assert "1024" in error_of(answer, 400)["message"]


def test_a_body_over_the_cap_is_refused_told_or_not(client, monkeypatch):
    monkeypatch.setattr(security, "MOST_BODY", 1000)
    assert error_of(client.post("/v1/paths", content=b"x" * 1001), 413)["type"] == "too_large"
    parts = (b"x" * 100 for _ in range(11))  # without Content-Length
    assert error_of(client.post("/v1/paths", content=parts), 413)["type"] == "too_large"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:9999"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
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
