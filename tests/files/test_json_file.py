"""JSON files: written whole, and what cannot be read says why."""

from __future__ import annotations

import json

import pytest

from camctrl_jax.errors import InvalidValue, MissingFile
from camctrl_jax.files.json_file import read_json, write_json


def test_what_is_written_is_read(tmp_path):
    content = {"name": "été", "numbers": [1, 2.5], "nothing": None}
    write_json(tmp_path / "made" / "a.json", content)
    assert read_json(tmp_path / "made" / "a.json") == content
    assert (tmp_path / "made" / "a.json").read_text().endswith("}\n")
    write_json(tmp_path / "list.json", [1, 2])
    assert json.loads((tmp_path / "list.json").read_text()) == [1, 2]


def test_what_json_cannot_hold_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "a.json", {"loss": 1.0})
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert read_json(tmp_path / "a.json") == {"loss": 1.0}


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MissingFile, match=r"a\.json: no such file"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("raw", "named"),
    [(b"{", "is not JSON"), (b"\xff\xfe", "is not JSON"), (b"[1]", "holds a list, expected a JSON object")],
)
def test_other_content_is_named(tmp_path, raw, named):
    (tmp_path / "a.json").write_bytes(raw)
    with pytest.raises(InvalidValue, match=rf"a\.json {named}"):
        read_json(tmp_path / "a.json")
