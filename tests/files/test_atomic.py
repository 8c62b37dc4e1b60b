"""Files and folders are there as a whole or not at all, with the permissions of any other file."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from camctrl_jax.errors import FileFailure, FileInUse
from camctrl_jax.files.atomic import (
    is_in_use,
    replaced_file,
    replaced_folder,
    write_text,
    written_file,
)

as_root = getattr(os, "geteuid", lambda: 1)() == 0


def names(folder) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_a_file_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "made" / "a.txt"
    with written_file(path) as file:
        file.write(b"one ")
        assert not path.exists()
        file.write(b"two")
    assert path.read_bytes() == b"one two"
    assert names(path.parent) == ["a.txt"]
    write_text(path, "été\n")
    assert path.read_bytes() == "été\n".encode()


def test_the_partial_file_has_the_suffix_of_the_whole(tmp_path):
    with replaced_file(tmp_path / "a.mp4") as partial:
        assert partial.suffix == ".mp4"
        partial.write_bytes(b"video")
    assert (tmp_path / "a.mp4").read_bytes() == b"video"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failing_write_leaves_the_old_file(tmp_path, error):
    write_text(tmp_path / "a.txt", "old")

    def fail() -> None:
        with written_file(tmp_path / "a.txt") as file:
            file.write(b"half of the n")
            raise error

    with pytest.raises(error):
        fail()
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_full_disk_is_a_failure_that_says_so(tmp_path):
    full = r"a\.txt: the disk is full; free some space"
    with pytest.raises(FileFailure, match=full) as caught, written_file(tmp_path / "a.txt"):
        raise OSError(28, "No space left on device")
    assert caught.value.disk_full
    assert names(tmp_path) == []


def test_a_file_that_the_caller_cannot_read_is_not_called_a_failed_write(tmp_path):
    missing = r"source\.txt"
    with pytest.raises(FileNotFoundError, match=missing) as caught, written_file(tmp_path / "a.txt") as file:
        file.write((tmp_path / "source.txt").read_bytes())
    assert not isinstance(caught.value, FileFailure)
    assert names(tmp_path) == []


def test_permissions_follow_the_umask():
    code = """
import os, stat, sys, tempfile
from pathlib import Path
from camctrl_jax.files.atomic import replaced_folder, write_text
os.umask(0o027)
root = Path(tempfile.mkdtemp())
write_text(root / "file", "")
with replaced_folder(root / "folder") as folder:
    (folder / "inside").mkdir()
print([oct(stat.S_IMODE((root / name).stat().st_mode)) for name in ("file", "folder", "folder/inside")])
os.umask(0o077)
write_text(root / "file", "")
print(oct(stat.S_IMODE((root / "file").stat().st_mode)), oct(os.umask(0)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["['0o640', '0o750', '0o750']", "0o600 0o77"]


def test_four_threads_write_at_once(tmp_path):
    before = os.umask(0o022)
    try:
        contents = [f"{number}" * 100_000 for number in range(4)]

        def write(number: int) -> None:
            for turn in range(25):
                write_text(tmp_path / f"{number}-{turn}.txt", contents[number])
                write_text(tmp_path / "shared.txt", contents[number])

        threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)
    for number in range(4):
        for turn in range(25):
            path = tmp_path / f"{number}-{turn}.txt"
            assert path.read_text() == contents[number]
            assert path.stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "shared.txt").read_text() in contents
    assert len(names(tmp_path)) == 101


def test_a_folder_appears_when_it_is_complete(tmp_path):
    with replaced_folder(tmp_path / "made" / "set") as partial:
        (partial / "a.txt").write_text("a")
        assert not (tmp_path / "made" / "set").exists()
    assert names(tmp_path / "made") == ["set"]
    assert names(tmp_path / "made" / "set") == ["a.txt"]


def test_a_taken_name_is_refused_unless_it_may_be_replaced(tmp_path):
    folder = tmp_path / "set"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "old.txt").write_text("old")
    assert is_in_use(folder)
    with pytest.raises(FileInUse, match="not an empty folder"), replaced_folder(folder):
        pytest.fail("the body must not run")
    with replaced_folder(folder, overwrite=True) as partial:
        (partial / "new.txt").write_text("new")
        assert (folder / "inner" / "old.txt").exists()
    assert names(folder) == ["new.txt"]
    assert names(tmp_path) == ["set"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failing_overwrite_leaves_the_old_folder(tmp_path, error):
    with replaced_folder(tmp_path / "set") as partial:
        (partial / "old.txt").write_text("old")

    def fail() -> None:
        with replaced_folder(tmp_path / "set", overwrite=True) as partial:
            (partial / "new.txt").write_text("new")
            raise error

    with pytest.raises(error):
        fail()
    assert names(tmp_path / "set") == ["old.txt"]
    assert names(tmp_path) == ["set"]


def test_the_old_folder_comes_back_when_the_new_one_cannot_take_its_name(tmp_path, monkeypatch):
    with replaced_folder(tmp_path / "set") as partial:
        (partial / "old.txt").write_text("old")
    rename = os.replace

    def refuse(source, target):
        if str(source).endswith(".partial/set"):
            raise PermissionError(13, "Permission denied", str(source), None, str(target))
        rename(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    again = replaced_folder(tmp_path / "set", overwrite=True)
    with pytest.raises(FileFailure, match="Permission denied"), again:
        pass
    assert names(tmp_path / "set") == ["old.txt"]
    assert names(tmp_path) == ["set"]


def test_an_empty_folder_and_a_file_can_be_replaced(tmp_path):
    (tmp_path / "set").mkdir()
    with replaced_folder(tmp_path / "set") as partial:
        (partial / "a.txt").write_text("a")
    (tmp_path / "file").write_text("a file")
    with replaced_folder(tmp_path / "file", overwrite=True) as partial:
        (partial / "b.txt").write_text("b")
    assert names(tmp_path) == ["file", "set"]
    assert names(tmp_path / "file") == ["b.txt"]


def test_a_place_that_cannot_exist_is_named(tmp_path):
    (tmp_path / "file").write_text("a file")
    for write in (lambda path: write_text(path, ""), lambda path: replaced_folder(path).__enter__()):
        with pytest.raises(FileFailure, match=r"cannot write .*file.inside: .*mend the path"):
            write(tmp_path / "file" / "inside")
    with pytest.raises(FileFailure, match=r"(is|Is) a directory"):
        write_text(tmp_path, "")


@pytest.mark.skipif(as_root, reason="nothing is read-only for root")
def test_a_read_only_place_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(FileFailure, match=r"a\.txt: Permission denied; mend the path"):
        write_text(tmp_path / "a.txt", "")
    tmp_path.chmod(0o700)
    assert names(tmp_path) == []


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a file system without places to write")
def test_a_file_system_that_takes_no_files_is_named():
    with pytest.raises(FileFailure, match=r"cannot write /proc/self/a\.txt"):
        write_text("/proc/self/a.txt", "")


def test_a_folder_behind_a_link_is_filled_and_the_link_stays(tmp_path):
    (tmp_path / "big").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "big")
    for content in ("first", "second"):
        with replaced_folder(tmp_path / "link", overwrite=True) as partial:
            (partial / "file").write_text(content)
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "big" / "file").read_text() == content
    assert sorted(path.name for path in tmp_path.iterdir()) == ["big", "link"]


def test_threads_that_replace_one_folder_leave_one_whole_folder_and_no_copies(tmp_path):
    refused = []

    def replace_it(number):
        for _ in range(20):
            try:
                with replaced_folder(tmp_path / "set", overwrite=True) as partial:
                    for name in ("a", "b"):
                        (partial / name).write_text(str(number))
            except FileFailure as error:  # another was first; nothing else may be raised
                refused.append(error)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(replace_it, range(4)))
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    assert (tmp_path / "set" / "a").read_text() == (tmp_path / "set" / "b").read_text()
    assert len(refused) < 80
