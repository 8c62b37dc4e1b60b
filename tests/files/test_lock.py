"""A lock file says who holds it, holds once, and is free again when its holder is gone."""

import os

import pytest

from camctrl_jax.errors import FileFailure, UserError
from camctrl_jax.files.lock import held


class Taken(UserError):
    pass


def test_a_lock_holds_once_and_tells_who_holds_it(tmp_path):
    path = tmp_path / "new" / "x.lock"
    with held(path, Taken):
        with pytest.raises(Taken, match=f"process {os.getpid()} on"), held(path, Taken):
            pytest.fail("it was let in")
        path.write_text("scribbled")
        with pytest.raises(Taken, match="another process"), held(path, Taken):
            pytest.fail("it was let in")
    with held(path, Taken):
        assert str(os.getpid()) in path.read_text()


def test_a_full_disk_does_not_keep_anybody_out(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with held(tmp_path / "x.lock", Taken):
        pass
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with (
            held(tmp_path / "x.lock", Taken),
            pytest.raises(Taken, match="another process"),
            held(tmp_path / "x.lock", Taken),
        ):
            pytest.fail("it was let in")


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileFailure, match=r"x\.lock"), held(tmp_path / "file" / "x.lock", Taken):
        pytest.fail("it was let in")
