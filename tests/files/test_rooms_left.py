"""What killed writers leave is removed by the next write to the same name, and nobody else's room is."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from camctrl_jax.errors import FileFailure
from camctrl_jax.files import rooms
from camctrl_jax.files.atomic import replaced_file, replaced_folder, write_text

ROOT = Path(__file__).parents[2]

# Writes half of what it should, says so, and waits to be killed.
WRITER = """
import sys, time
from pathlib import Path
from camctrl_jax.files.atomic import replaced_file, replaced_folder
kind, target = sys.argv[1:]
if kind == "folder":
    with replaced_folder(target, overwrite=True) as partial:
        (partial / "inner").mkdir()
        (partial / "inner" / "half").write_text("half")
        print("writing", flush=True)
        time.sleep(600)
else:
    with replaced_file(target) as partial:
        partial.write_text("half")
        print("writing", flush=True)
        time.sleep(600)
"""
# Is killed between the two renames that replace a folder.
BETWEEN_RENAMES = """
import os, signal, sys
from camctrl_jax.files.atomic import replaced_folder
rename = os.replace
def replace(source, target):
    if str(source).endswith(".partial/set"):
        os.kill(os.getpid(), signal.SIGKILL)
    rename(source, target)
os.replace = replace
with replaced_folder(sys.argv[1], overwrite=True) as partial:
    (partial / "new").write_text("new")
"""


def started(kind: str, target: Path) -> subprocess.Popen:
    """A writer in a process of its own, in the middle of its work."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, kind, str(target)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "writing\n"
    return process


def killed(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def write(kind: str, target: Path) -> None:
    if kind == "folder":
        with replaced_folder(target, overwrite=True) as partial:
            (partial / "whole").write_text("whole")
    else:
        write_text(target, "whole")


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_killed_writers_room_is_removed_by_the_next_write(tmp_path, kind):
    target = tmp_path / "set"
    killed(started(kind, target))
    assert len(names(tmp_path)) == 1  # what it left
    assert names(tmp_path)[0].startswith(".set.")
    write(kind, target)
    assert names(tmp_path) == ["set"]
    assert (target / "whole" if kind == "folder" else target).read_text() == "whole"


def test_rooms_of_several_killed_writers_are_removed_at_once(tmp_path):
    writers = [started("file", tmp_path / "set") for _ in range(3)]
    assert len(names(tmp_path)) == 3
    killed(writers[0])
    killed(writers[2])
    write("file", tmp_path / "set")
    assert names(tmp_path) == [".set.1.partial", "set"]  # of the one that is still at work
    killed(writers[1])
    write("file", tmp_path / "set")
    assert names(tmp_path) == ["set"]


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_living_writers_room_survives(tmp_path, kind):
    target = tmp_path / "set"
    process = started(kind, target)
    (room,) = tmp_path.iterdir()
    write(kind, target)
    assert names(tmp_path) == [room.name, "set"]
    half = room / "set" / "inner" / "half" if kind == "folder" else room / "set"
    assert half.read_text() == "half"
    killed(process)
    write(kind, target)
    assert names(tmp_path) == ["set"]


def test_two_writers_in_one_process_have_rooms_of_their_own(tmp_path):
    with replaced_file(tmp_path / "a") as one:
        with replaced_file(tmp_path / "a") as other:
            assert one.parent != other.parent
            other.write_text("other")
        assert one.parent.is_dir()
        one.write_text("one")
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "one"


def test_what_is_left_of_another_name_stays(tmp_path):
    killed(started("file", tmp_path / "set.txt"))
    left = names(tmp_path)
    write("file", tmp_path / "set")
    write("file", tmp_path / "set.txt.old")
    assert names(tmp_path) == sorted([*left, "set", "set.txt.old"])


def test_the_old_folder_comes_back_of_a_writer_killed_between_its_renames(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "old").write_text("old")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", BETWEEN_RENAMES, str(folder)]
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL
    assert not folder.exists()
    with pytest.raises(RuntimeError), replaced_folder(folder, overwrite=True):
        raise RuntimeError("and the next one fails")
    assert names(tmp_path) == ["set"]
    assert (folder / "old").read_text() == "old"


def left_room(path: Path, **writer) -> Path:
    """A room whose writer is gone, as its lock file describes him."""
    room = Path(f"{rooms.room_prefix(path)}0.partial")
    room.mkdir()
    (room / path.name).write_text("half")
    (room / f"{path.name}.lock").write_text(json.dumps(writer))
    return room


def test_a_room_of_another_machine_is_left_and_said(tmp_path):
    """A network disk may keep a machine's locks to itself: that none is seen proves nothing."""
    room = left_room(tmp_path / "a", boot="another", host="node-7", process=41, since="2026-01-01 00:00:00")
    with pytest.warns(
        RuntimeWarning, match=r"process 41 on node-7, since 2026.*delete the folder if"
    ) as said:
        write_text(tmp_path / "a", "whole")
    assert str(room) in str(said[0].message)
    assert names(tmp_path) == [room.name, "a"]
    assert (room / "a").read_text() == "half"


def test_where_there_are_no_locks_rooms_are_left_and_said(tmp_path, monkeypatch):
    room = left_room(tmp_path / "a", boot=rooms._boot(), host="here", process=41)

    def no_locks(*_):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.warns(RuntimeWarning, match="process 41 on here"):
        write_text(tmp_path / "a", "whole")
    assert names(tmp_path) == [room.name, "a"]  # its own is gone all the same


def test_rooms_of_writers_killed_at_their_very_start_are_removed(tmp_path):
    for content in (None, "", "{"):
        room = Path(f"{rooms.room_prefix(tmp_path / 'a')}0.partial")
        room.mkdir()
        if content is not None:
            (room / "a.lock").write_text(content)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            write_text(tmp_path / "a", "whole")
        assert names(tmp_path) == ["a"]


def test_a_folder_without_a_lock_file_that_holds_something_is_nobodys_to_remove(tmp_path):
    room = Path(f"{rooms.room_prefix(tmp_path / 'a')}0.partial")
    room.mkdir()
    (room / "a").write_text("somebody's")
    write_text(tmp_path / "a", "whole")
    assert names(tmp_path) == [room.name, "a"]


def test_no_room_stays_where_its_lock_file_finds_a_full_disk(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(FileFailure, match="the disk is full") as caught:
        write_text(tmp_path / "a", "whole")
    assert caught.value.disk_full
    assert names(tmp_path) == []


def test_names_that_rooms_use_themselves_can_be_written(tmp_path):
    for name in ("a.lock", "replaced", ".lock"):
        write_text(tmp_path / name, "one")
        (tmp_path / "folders").mkdir(exist_ok=True)
        for content in ("first", "second"):
            with replaced_folder(tmp_path / "folders" / name, overwrite=True) as partial:
                (partial / "file").write_text(content)
        assert (tmp_path / "folders" / name / "file").read_text() == "second"
    assert len(names(tmp_path / "folders")) == 3


def test_the_folder_is_synchronised_after_the_rename(tmp_path, monkeypatch):
    """Without it a power cut may undo the rename of a file whose content is on disk."""
    events = []
    rename, synchronise = os.replace, os.fsync

    def replace(source, target):
        events.append(f"rename {Path(target).name}")
        rename(source, target)

    def fsync(descriptor):
        events.append(f"sync {Path(os.readlink(f'/proc/self/fd/{descriptor}')).name}")
        synchronise(descriptor)

    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(os, "fsync", fsync)
    write_text(tmp_path / "a", "whole")
    assert events == ["sync a", "rename a", f"sync {tmp_path.name}"]
    events.clear()
    with replaced_folder(tmp_path / "set") as partial:
        (partial / "inner").mkdir()
        (partial / "inner" / "b").write_text("b")
    assert set(events[:3]) == {"sync b", "sync inner", "sync set"}
    assert events[3:] == ["rename set", f"sync {tmp_path.name}"]


def test_a_file_system_that_synchronises_no_folders_is_no_failure(tmp_path, monkeypatch):
    synchronise = os.fsync

    def fsync(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(code, "refused")
        synchronise(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    code = errno.EINVAL
    write_text(tmp_path / "a", "whole")
    assert (tmp_path / "a").read_text() == "whole"
    code = errno.EIO  # a fault of the disk is one
    with pytest.raises(FileFailure):
        write_text(tmp_path / "a", "whole")
