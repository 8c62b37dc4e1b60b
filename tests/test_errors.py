"""Errors that a person can act on: their kinds, their words, and how entry points show them."""

from __future__ import annotations

import errno
import pickle

import pytest

from camctrl_jax.errors import (
    ClipError,
    FileFailure,
    FileInUse,
    InvalidValue,
    MissingFile,
    UserError,
    exit_status,
    file_failures,
)


@pytest.mark.parametrize(
    ("kind", "python"),
    [
        (InvalidValue, ValueError),
        (MissingFile, FileNotFoundError),
        (FileInUse, FileExistsError),
        (FileFailure, OSError),
    ],
)
def test_programs_can_catch_them_as_user_errors_or_as_pythons(kind, python):
    error = kind("a sentence.")
    assert isinstance(error, UserError)
    assert isinstance(error, python)
    assert str(error) == "a sentence."


def test_clip_errors_carry_a_reason_and_survive_worker_processes():
    error = pickle.loads(pickle.dumps(ClipError("truncated", "a.mp4: too short")))
    assert isinstance(error, UserError)
    assert (error.reason, str(error)) == ("truncated", "a.mp4: too short")


@pytest.mark.parametrize(
    ("number", "words", "full"),
    [
        (errno.EACCES, "Permission denied; mend the path, or choose another.", False),
        (errno.ENOSPC, "the disk is full; free some space, or choose another place.", True),
        (errno.EDQUOT, "the disk is full; free some space, or choose another place.", True),
    ],
)
def test_what_the_system_says_becomes_a_sentence(number, words, full):
    with pytest.raises(FileFailure) as caught, file_failures("/a/b"):
        raise OSError(number, "Permission denied", "/a/b.partial")
    assert str(caught.value) == f"cannot write /a/b: {words}"
    assert caught.value.disk_full is full
    assert caught.value.__cause__.errno == number


def test_other_errors_pass_through():
    for error in (MissingFile("no file"), KeyError("x"), ValueError("y")):
        with pytest.raises(type(error)) as caught, file_failures("/a/b", "read"):
            raise error
        assert caught.value is error
    with pytest.raises(FileFailure, match="cannot read /a/b: broken;"), file_failures("/a/b", "read"):
        raise OSError("broken")


def test_an_entry_point_prints_user_errors_and_nothing_else(capsys):
    def failing() -> int:
        raise InvalidValue("steps=0: expected at least 1.")

    def broken() -> int:
        raise ZeroDivisionError

    assert exit_status(lambda: None) == 0
    assert exit_status(lambda: 3) == 3
    assert exit_status(failing, failed=2) == 2
    assert capsys.readouterr().err == "error: steps=0: expected at least 1.\n"
    with pytest.raises(ZeroDivisionError):
        exit_status(broken)
