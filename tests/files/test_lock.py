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


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileFailure, match=r"x\.lock"), held(tmp_path / "file" / "x.lock", Taken):
        pytest.fail("it was let in")
